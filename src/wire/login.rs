//! What a server says of itself in its first line, and the messages of a login.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

use super::{VERSION, reply::ReplyError};
use crate::limits::LOGIN_MESSAGE_BYTES_MAX;

/// A way to log in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 5802 and 7677: the password never crosses the wire.
    ScramSha256,
    /// RFC 2195, for devices that have nothing but MD5.
    CramMd5,
    /// As nobody in particular.
    Anonymous,
}

impl Mechanism {
    const ALL: [Self; 3] = [Self::ScramSha256, Self::CramMd5, Self::Anonymous];

    /// Its name on the wire.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ScramSha256 => "scram-sha-256",
            Self::CramMd5 => "cram-md5",
            Self::Anonymous => "anonymous",
        }
    }
}

impl FromStr for Mechanism {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name() == text).ok_or(())
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Who may make an account without the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Registration {
    /// Nobody.
    #[default]
    Off,
    /// Whoever has a code.
    Invite,
    /// Everybody.
    Open,
}

/// The server's first line, after its code: version and capabilities.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Greeting {
    /// The ways to log in; none at all if every command is open to everybody.
    pub login: Vec<Mechanism>,
    /// Whether it makes accounts.
    pub registration: Registration,
}

impl Greeting {
    /// Reads what stands behind the code. Capabilities that are not known are passed over, so
    /// that both sides can grow.
    ///
    /// # Errors
    /// [`ReplyError::Field`] if it is another protocol or version, or says nothing of logins.
    pub fn parse(text: &str) -> Result<Self, ReplyError> {
        let mut words = text.split_ascii_whitespace();
        if words.next() != Some(VERSION) {
            return Err(ReplyError::Field("version"));
        }
        let mut greeting = Self::default();
        let mut login = None;
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            match (key, value) {
                ("login", ways) => login = Some(ways),
                ("register", "open") => greeting.registration = Registration::Open,
                ("register", "invite") => greeting.registration = Registration::Invite,
                _ => {}
            }
        }
        let ways = login.ok_or(ReplyError::Field("login"))?;
        if ways != "none" {
            greeting.login = ways.split(',').filter_map(|way| way.parse().ok()).collect();
            // Ways of a later version only: not the same as none.
            if greeting.login.is_empty() {
                return Err(ReplyError::Field("login"));
            }
        }
        Ok(greeting)
    }
}

impl fmt::Display for Greeting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{VERSION} digests=md5-tree,md5 login=")?;
        let ways: Vec<&str> = self.login.iter().map(|way| way.name()).collect();
        f.write_str(if ways.is_empty() { "none" } else { "" })?;
        f.write_str(&ways.join(","))?;
        f.write_str(match self.registration {
            Registration::Off => "",
            Registration::Invite => " register=invite",
            Registration::Open => " register=open",
        })
    }
}

/// A message of a login as one word: base64 (RFC 4648) without padding.
#[must_use]
pub fn to_base64(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

/// The message, if it is one and not longer than [`LOGIN_MESSAGE_BYTES_MAX`].
#[must_use]
pub fn from_base64(word: &str) -> Option<Vec<u8>> {
    let fits = word.len() <= LOGIN_MESSAGE_BYTES_MAX.div_ceil(3) * 4;
    fits.then(|| STANDARD_NO_PAD.decode(word).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_greeting_survives_the_wire_and_may_say_more() {
        let all = Mechanism::ALL.to_vec();
        for (greeting, text) in [
            (Greeting::default(), "tow/1 digests=md5-tree,md5 login=none"),
            (
                Greeting { login: all, registration: Registration::Invite },
                "tow/1 digests=md5-tree,md5 login=scram-sha-256,cram-md5,anonymous register=invite",
            ),
        ] {
            assert_eq!(greeting.to_string(), text);
            assert_eq!(Greeting::parse(text), Ok(greeting.clone()));
            assert_eq!(Greeting::parse(&format!("{text} later=1")), Ok(greeting));
        }
    }

    #[test]
    fn what_says_nothing_of_logins_is_not_taken_for_an_open_server() {
        for text in ["", "tow/2 login=none", "tow/1", "tow/1 login=", "tow/1 login=later"] {
            assert!(Greeting::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_message_is_refused_only_beyond_its_limit() {
        for (length, fits) in
            [(LOGIN_MESSAGE_BYTES_MAX, true), (LOGIN_MESSAGE_BYTES_MAX + 3, false)]
        {
            let bytes = vec![7; length];
            assert_eq!(from_base64(&to_base64(&bytes)), fits.then_some(bytes), "{length}");
        }
        assert_eq!(from_base64("a"), None);
    }
}
