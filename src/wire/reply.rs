//! What is answered: a code of three digits, fields, and a text for people.

use std::{fmt, str::FromStr};

use super::{
    arguments::{byte_count, number},
    line::{LineError, Tokens},
};

macro_rules! codes {
    ($($(#[doc = $doc:literal])* $name:ident = $number:literal,)*) => {
        /// Every reply code of `tow/1`. The table in `docs/protocol.md` is checked against it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Code { $($(#[doc = $doc])* $name,)* }

        impl Code {
            /// All of them, ascending.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }
        }
    };
}

codes! {
    /// I have this much of it.
    Have = 0,
    /// Still working on it; more lines follow.
    Working = 100,
    /// It is not there.
    Absent = 110,
    /// One entry of a listing; more lines follow.
    Entry = 150,
    /// Done.
    Done = 200,
    /// The file is there.
    Found = 203,
    /// The action runs; its output follows.
    Running = 210,
    /// The greeting.
    Greeting = 220,
    /// Goodbye.
    Bye = 221,
    /// Verified: both sides have the same bytes.
    Identical = 226,
    /// Logged in.
    LoggedIn = 230,
    /// Nothing left to send.
    NothingLeft = 312,
    /// A message of the login, in `data=`.
    Challenge = 334,
    /// The line is not what it has to be.
    Malformed = 400,
    /// I have nothing of it yet; from the sender: start over.
    Nothing = 402,
    /// Not allowed.
    Denied = 403,
    /// Unknown command.
    UnknownCommand = 404,
    /// It is there, but not of the kind that this needs.
    WrongKind = 405,
    /// The account does not have the right that this needs.
    NoRight = 406,
    /// There is no such action for this account.
    UnknownAction = 407,
    /// You took too long.
    Deadline = 408,
    /// What came differs; the segments in `want=` are needed again.
    Differs = 409,
    /// The source changed while it was being sent.
    Changed = 410,
    /// The action does not take this argument.
    BadArgument = 411,
    /// It is there already.
    Exists = 413,
    /// The line is too long.
    LineTooLong = 414,
    /// The offset lies beyond the end.
    BeyondEnd = 416,
    /// The server is going down.
    GoingDown = 421,
    /// Somebody else is writing it.
    Busy = 423,
    /// Continue from here.
    Continue = 426,
    /// The action was ended before its own end.
    ActionEnded = 427,
    /// Too many at once.
    TooMany = 429,
    /// Not logged in: wrong name or password.
    LoginFailed = 430,
    /// This server makes no accounts on request.
    RegistrationClosed = 433,
    /// The invite is not valid, or not any more.
    BadInvite = 434,
    /// Somebody has this name already.
    NameTaken = 435,
    /// Reading or writing failed on this side.
    Failed = 451,
    /// No space left.
    NoSpace = 452,
    /// More than the account may store.
    QuotaExceeded = 453,
    /// Not now: another answer is awaited.
    BadSequence = 503,
    /// Log in first.
    NotLoggedIn = 530,
}

impl Code {
    /// Whether the server closes the connection behind it.
    #[must_use]
    pub const fn closes(self) -> bool {
        matches!(
            self,
            Self::Bye
                | Self::Deadline
                | Self::LineTooLong
                | Self::GoingDown
                | Self::TooMany
                | Self::BadSequence
                | Self::NotLoggedIn
        )
    }

    fn from_number(wanted: u16) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.number() == wanted)
    }
}

/// Why a line is no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// No known code at its start.
    #[error("the line has no known reply code")]
    Code,
    /// A field that is needed is missing or malformed.
    #[error("the reply has no valid field {0}")]
    Field(&'static str),
    /// The line itself.
    #[error("{0}")]
    Line(#[from] LineError),
}

/// One reply line: `CODE key=value... text`. Clients answer in the same form within a transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its code.
    pub code: Code,
    fields: Vec<(String, String)>,
    text: String,
}

impl Reply {
    /// A reply of a code alone.
    #[must_use]
    pub const fn new(code: Code) -> Self {
        Self { code, fields: Vec::new(), text: String::new() }
    }

    /// A reply with a text for people. What is not printable ASCII becomes `?`, so that a text
    /// can carry a system's error message; `=` becomes `:` since it would read as a field.
    #[must_use]
    pub fn text(code: Code, text: &str) -> Self {
        let plain = |c: char| match c {
            '=' => ':',
            ' '..='~' => c,
            _ => '?',
        };
        Self { code, fields: Vec::new(), text: text.chars().map(plain).take(300).collect() }
    }

    /// The greeting: a version, then capabilities, which are no fields of the reply itself.
    #[must_use]
    pub fn greeting(capabilities: &str) -> Self {
        let text = capabilities.to_owned();
        Self { code: Code::Greeting, fields: Vec::new(), text }
    }

    /// Adds a field. The value must be one word of printable ASCII.
    #[must_use]
    pub fn with(mut self, key: &'static str, value: impl fmt::Display) -> Self {
        let value = value.to_string();
        debug_assert!(value.bytes().all(|byte| (0x21..0x7f).contains(&byte)), "{key}={value}");
        self.fields.push((key.to_owned(), value));
        self
    }

    /// Reads one line, without its end.
    ///
    /// # Errors
    /// [`ReplyError`].
    pub fn parse(line: &[u8]) -> Result<Self, ReplyError> {
        let mut tokens = Tokens::new(line)?;
        let code = tokens.word()?.filter(|word| word.len() == 3).and_then(number);
        let code = code.and_then(|code| u16::try_from(code).ok()).and_then(Code::from_number);
        let mut reply = Self::new(code.ok_or(ReplyError::Code)?);
        // Only the words before the text are bounded in number; the text is taken as it stands.
        let mut rest = std::str::from_utf8(line.get(3..).unwrap_or_default())
            .map_err(|_| LineError::NotPrintable)?
            .trim();
        while let Some((word, behind)) = Some(rest.split_once(' ').unwrap_or((rest, ""))) {
            let Some((key, value)) = word.split_once('=') else {
                break;
            };
            if reply.fields.len() == crate::limits::LINE_TOKENS_MAX {
                return Err(LineError::TooManyWords.into());
            }
            reply.fields.push((key.to_owned(), value.to_owned()));
            rest = behind.trim_start();
        }
        rest.clone_into(&mut reply.text);
        Ok(reply)
    }

    /// The text for people; may be empty.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.text
    }

    /// A field as it stands.
    #[must_use]
    pub fn field(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// A size or an offset in bytes.
    ///
    /// # Errors
    /// [`ReplyError::Field`] if it is missing, no decimal number, or beyond any file's size.
    pub fn bytes(&self, key: &'static str) -> Result<u64, ReplyError> {
        self.field(key).and_then(byte_count).ok_or(ReplyError::Field(key))
    }

    /// A plain number.
    ///
    /// # Errors
    /// [`ReplyError::Field`] if it is missing or no decimal number.
    pub fn number(&self, key: &'static str) -> Result<u64, ReplyError> {
        self.field(key).and_then(number).ok_or(ReplyError::Field(key))
    }

    /// A field of a type with a textual form.
    ///
    /// # Errors
    /// [`ReplyError::Field`] if it is missing or malformed.
    pub fn get<T: FromStr>(&self, key: &'static str) -> Result<T, ReplyError> {
        self.field(key).and_then(|value| value.parse().ok()).ok_or(ReplyError::Field(key))
    }
}

impl fmt::Display for Reply {
    /// The line, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03}", self.code.number())?;
        for (key, value) in &self.fields {
            write!(f, " {key}={value}")?;
        }
        if !self.text.is_empty() {
            write!(f, " {}", self.text)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn codes_ascend_and_none_is_taken_twice() {
        assert!(Code::ALL.windows(2).all(|pair| pair[0].number() < pair[1].number()));
    }

    #[test]
    fn the_inherited_codes_keep_their_numbers() {
        for (code, number) in [
            (Code::Found, "203"),
            (Code::Absent, "110"),
            (Code::Nothing, "402"),
            (Code::Have, "000"),
            (Code::Continue, "426"),
            (Code::NothingLeft, "312"),
            (Code::UnknownCommand, "404"),
        ] {
            assert_eq!(Reply::new(code).to_string(), number);
        }
    }

    #[test]
    fn a_reply_survives_the_wire() {
        let mut reply = Reply::text(Code::Have, "so far");
        reply = reply.with("offset", 65536).with("tag", "x-1");
        assert_eq!(reply.to_string(), "000 offset=65536 tag=x-1 so far");
        assert_eq!(Reply::parse(reply.to_string().as_bytes()), Ok(reply));
    }

    #[test]
    fn a_text_can_forge_neither_field_nor_line() {
        let reply = Reply::text(Code::Failed, "a=b\r\n226 \u{1b}[2J");
        assert_eq!(reply.to_string(), "451 a:b??226 ?[2J");
        assert_eq!(Reply::parse(reply.to_string().as_bytes()).unwrap().field("a"), None);
    }

    proptest! {
        #[test]
        fn any_bytes_make_a_reply_or_an_error(
            line in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let _ = Reply::parse(&line);
        }
    }
}
