//! What a client asks for.

use std::{fmt, str::FromStr};

use super::{
    arguments::{Arguments, number},
    line::{LineError, Tokens},
    login::{Mechanism, to_base64},
    path::{PathError, RemotePath, encode},
    reply::Code,
};
use crate::{digest::Md5Digest, limits::TOKEN_BYTES_MAX};

/// Which digests a transfer carries. The tree is always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DigestChoice {
    /// `md5-tree` alone.
    #[default]
    Tree,
    /// `md5` of the whole file besides: what `md5sum` prints.
    TreeAndMd5,
}

/// Says which version of the source a partial belongs to. Opaque to whoever did not make it.
///
/// Invariant: 1 to [`TOKEN_BYTES_MAX`] letters, digits, `-` or `_`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tag(String);

impl Tag {
    /// The token itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Tag {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let fits = (1..=TOKEN_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain);
        if fits { Ok(Self(text.to_owned())) } else { Err(()) }
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The client process that uploads: it may take over its own half-open connection, others not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner(pub u128);

impl FromStr for Owner {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !hex {
            return Err(());
        }
        u128::from_str_radix(text, 16).map(Self).map_err(|_| ())
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A modification time: seconds since 1970 and nanoseconds, `1700000000.000000001`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mtime {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// Nanoseconds, below 1,000,000,000.
    pub nanos: u32,
}

impl FromStr for Mtime {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (seconds, nanos) = text.split_once('.').ok_or(())?;
        let (sign, digits) = match seconds.strip_prefix('-') {
            Some(digits) => (-1, digits),
            None => (1, seconds),
        };
        let seconds = number(digits).and_then(|n| i64::try_from(n).ok()).ok_or(())?;
        if nanos.len() != 9 {
            return Err(());
        }
        let nanos = number(nanos).and_then(|n| u32::try_from(n).ok()).ok_or(())?;
        Ok(Self { seconds: sign * seconds, nanos })
    }
}

impl fmt::Display for Mtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.seconds, self.nanos)
    }
}

/// A file that a client wants to upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutOffer {
    /// Where it shall appear.
    pub path: RemotePath,
    /// Its size in bytes, at most [`FILE_BYTES_MAX`](crate::limits::FILE_BYTES_MAX).
    pub size: u64,
    /// The modification time that it shall have.
    pub mtime: Mtime,
    /// Which version of the source it is.
    pub tag: Tag,
    /// Who uploads.
    pub owner: Owner,
    /// Which digests come with it.
    pub digest: DigestChoice,
    /// Its frames follow at once, from its first byte, and one reply is all that is said to them.
    pub ahead: bool,
}

/// One command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Download a file.
    Get {
        /// Which file.
        path: RemotePath,
        /// Which digests shall come with it.
        digest: DigestChoice,
    },
    /// Upload a file.
    Put(PutOffer),
    /// One page of a directory.
    List {
        /// Which directory.
        path: RemotePath,
        /// Where the page starts: 0, or the `next=` of the page before.
        from: u64,
    },
    /// Kind, size and times of one name.
    Stat {
        /// Which name.
        path: RemotePath,
    },
    /// MD5 of a whole file.
    Md5 {
        /// Which file.
        path: RemotePath,
    },
    /// Make a directory.
    MakeDir {
        /// Which.
        path: RemotePath,
    },
    /// Remove a file.
    Remove {
        /// Which.
        path: RemotePath,
    },
    /// Remove an empty directory.
    RemoveDir {
        /// Which.
        path: RemotePath,
    },
    /// Rename, replacing what was there.
    Move {
        /// The name it has.
        from: RemotePath,
        /// The name it shall have.
        to: RemotePath,
    },
    /// Log in.
    Auth {
        /// How.
        mechanism: Mechanism,
        /// The mechanism's first message; empty for one in which the server speaks first.
        initial: Vec<u8>,
    },
    /// Make an account.
    Register {
        /// Its name, which may be none that is allowed.
        name: String,
        /// What the server needs to verify its password, in the text form of
        /// [`ScramVerifier`](crate::auth::ScramVerifier).
        verifier: String,
        /// A code that allows it.
        invite: Option<String>,
    },
    /// Who is logged in, and with which rights.
    Whoami,
    /// What the account may store, and what it does.
    Quota,
    /// Which actions may be run.
    Actions,
    /// Run an action.
    Run {
        /// Which.
        name: String,
        /// Its arguments, as bytes.
        arguments: Vec<Vec<u8>>,
    },
    /// Answer, no more.
    Noop,
    /// Say goodbye.
    Quit,
}

/// Why a line is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The verb is not known.
    #[error("unknown command")]
    Unknown,
    /// An argument is missing or left over.
    #[error("{0}")]
    Usage(&'static str),
    /// An argument is not what it has to be.
    #[error("bad value of {0}")]
    BadValue(&'static str),
    /// The line is not what its sum says: it was spoiled on the way.
    #[error("the line was spoiled on the way")]
    Spoiled,
    /// A path that is refused.
    #[error("{0}")]
    Path(#[from] PathError),
    /// The line itself.
    #[error("{0}")]
    Line(#[from] LineError),
}

impl CommandError {
    /// The reply code for it.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Unknown => Code::UnknownCommand,
            Self::Path(PathError::Parent | PathError::Reserved) => Code::Denied,
            Self::Usage(_) | Self::BadValue(_) | Self::Spoiled | Self::Path(_) | Self::Line(_) => {
                Code::Malformed
            }
        }
    }
}

impl Command {
    /// The line, without its end, with a sum by which the server knows that it is what was sent:
    /// a bit that flips on the way must not make it speak of another file.
    #[must_use]
    pub fn summed(&self) -> String {
        let line = self.to_string();
        format!("sum={} {line}", sum(line.as_bytes()))
    }

    /// Whether frames follow a line, whatever else is wrong with it: they are passed over then, and
    /// never read as commands.
    #[must_use]
    pub fn has_frames_behind(line: &[u8]) -> bool {
        line.split(|&byte| byte == b' ').any(|word| word == b"ahead=1")
    }

    /// Reads one line, without its end.
    ///
    /// # Errors
    /// [`CommandError`]; the connection stays in step, since the line has been read as a whole.
    pub fn parse(line: &[u8]) -> Result<Self, CommandError> {
        const MISSING: CommandError = CommandError::Usage("put needs size, mtime, tag and owner");
        const BAD_MECHANISM: CommandError = CommandError::BadValue("mechanism");
        let mut tokens = Tokens::new(without_sum(line)?)?;
        let verb = tokens.word()?.unwrap_or_default();
        if !VERBS.contains(&verb) {
            return Err(CommandError::Unknown);
        }
        let mut rest = Arguments::read(&mut tokens)?;
        let command = match verb {
            "get" => {
                let digest = rest.digest.take().unwrap_or_default();
                Self::Get { path: rest.path()?, digest }
            }
            "put" => Self::Put(PutOffer {
                path: rest.path()?,
                size: rest.size.take().ok_or(MISSING)?,
                mtime: rest.mtime.take().ok_or(MISSING)?,
                tag: rest.tag.take().ok_or(MISSING)?,
                owner: rest.owner.take().ok_or(MISSING)?,
                digest: rest.digest.take().unwrap_or_default(),
                ahead: rest.ahead.take().unwrap_or_default(),
            }),
            "ls" => Self::List { from: rest.from.take().unwrap_or(0), path: rest.path()? },
            "stat" => Self::Stat { path: rest.path()? },
            "md5" => Self::Md5 { path: rest.path()? },
            "mkdir" => Self::MakeDir { path: rest.path()? },
            "rm" => Self::Remove { path: rest.path()? },
            "rmdir" => Self::RemoveDir { path: rest.path()? },
            "mv" => Self::Move { from: rest.path()?, to: rest.path()? },
            "auth" => Self::Auth {
                mechanism: rest.word("mechanism missing")?.parse().map_err(|()| BAD_MECHANISM)?,
                initial: rest.data(),
            },
            "register" => Self::Register {
                name: rest.word("name missing")?.to_owned(),
                verifier: rest.scram.take().ok_or(CommandError::Usage("scram missing"))?,
                invite: rest.invite.take(),
            },
            "whoami" => Self::Whoami,
            "quota" => Self::Quota,
            "actions" => Self::Actions,
            "run" => Self::Run {
                name: rest.word("name missing")?.to_owned(),
                arguments: std::mem::take(&mut rest.given),
            },
            "noop" => Self::Noop,
            "quit" => Self::Quit,
            _ => return Err(CommandError::Unknown),
        };
        rest.done(command)
    }
}

/// The sum of a command line: the first eight digits of its MD5.
fn sum(line: &[u8]) -> String {
    let mut digits = Md5Digest::of(line).to_string();
    digits.truncate(8);
    digits
}

/// Takes the sum off the front of a line, if there is one, and checks it. It stands in front, so
/// that a line which a flipped bit has cut in two is not taken for a shorter one.
fn without_sum(line: &[u8]) -> Result<&[u8], CommandError> {
    let Some(rest) = line.strip_prefix(b"sum=") else { return Ok(line) };
    let at = rest.iter().position(|&byte| byte == b' ').ok_or(CommandError::Spoiled)?;
    let (given, command) = rest.split_at(at);
    let command = command.strip_prefix(b" ").unwrap_or_default();
    if given == sum(command).as_bytes() { Ok(command) } else { Err(CommandError::Spoiled) }
}

/// Every verb, as `docs/protocol.md` lists them.
pub(crate) const VERBS: [&str; 17] = [
    "get", "put", "ls", "stat", "md5", "mkdir", "rm", "rmdir", "mv", "auth", "register", "whoami",
    "quota", "actions", "run", "noop", "quit",
];

impl fmt::Display for Command {
    /// The line that [`Command::parse`] reads, without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest_field = |digest: &DigestChoice| match digest {
            DigestChoice::Tree => "",
            DigestChoice::TreeAndMd5 => " digest=md5",
        };
        match self {
            Self::Get { path, digest } => write!(f, "get {path}{}", digest_field(digest)),
            Self::Put(PutOffer { path, size, mtime, tag, owner, digest, ahead }) => write!(
                f,
                "put {path} size={size} mtime={mtime} tag={tag} owner={owner}{}{}",
                digest_field(digest),
                if *ahead { " ahead=1" } else { "" }
            ),
            Self::List { path, from: 0 } => write!(f, "ls {path}"),
            Self::List { path, from } => write!(f, "ls {path} from={from}"),
            Self::Stat { path } => write!(f, "stat {path}"),
            Self::Md5 { path } => write!(f, "md5 {path}"),
            Self::MakeDir { path } => write!(f, "mkdir {path}"),
            Self::Remove { path } => write!(f, "rm {path}"),
            Self::RemoveDir { path } => write!(f, "rmdir {path}"),
            Self::Move { from, to } => write!(f, "mv {from} {to}"),
            Self::Auth { mechanism, initial } if initial.is_empty() => {
                write!(f, "auth {mechanism}")
            }
            Self::Auth { mechanism, initial } => {
                write!(f, "auth {mechanism} data={}", to_base64(initial))
            }
            Self::Register { name, verifier, invite } => {
                write!(f, "register {name} scram={verifier}")?;
                invite.iter().try_for_each(|code| write!(f, " invite={code}"))
            }
            Self::Whoami => f.write_str("whoami"),
            Self::Quota => f.write_str("quota"),
            Self::Actions => f.write_str("actions"),
            Self::Run { name, arguments } => {
                write!(f, "run {name}")?;
                arguments.iter().try_for_each(|given| write!(f, " arg={}", encode(given)))
            }
            Self::Noop => f.write_str("noop"),
            Self::Quit => f.write_str("quit"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_command_survives_the_wire() {
        for line in [
            "get /a/b%20c",
            "get /a digest=md5",
            "put /x size=12 mtime=-3.000000001 tag=ab-1 owner=000102030405060708090a0b0c0d0e0f",
            "put /x size=1 mtime=0.000000000 tag=t owner=000102030405060708090a0b0c0d0e0f digest=md5 ahead=1",
            "ls /",
            "ls /d from=77",
            "stat /d",
            "md5 /d",
            "mkdir /d",
            "rm /d",
            "rmdir /d",
            "mv /a /b",
            "auth anonymous",
            "auth scram-sha-256 data=biws",
            "register ann scram=4096:AA:BB:CC invite=abc",
            "whoami",
            "quota",
            "actions",
            "run disk arg=/a%20b arg= arg=%3D",
            "noop",
            "quit",
        ] {
            assert_eq!(Command::parse(line.as_bytes()).unwrap().to_string(), line);
        }
    }

    #[test]
    fn numbers_are_plain_decimals_within_their_bounds() {
        for bad in
            ["-1", "+1", "0x10", "1e3", "", "9223372036854775808", "18446744073709551616", "1 "]
        {
            let line = format!(
                "put /x size={bad} mtime=0.000000000 tag=t owner=000102030405060708090a0b0c0d0e0f"
            );
            let accepted = Command::parse(line.as_bytes());
            assert_eq!(accepted.is_ok(), bad == "1 ", "{bad:?}");
        }
    }

    #[test]
    fn what_is_missing_twice_or_left_over_is_refused() {
        for (line, code) in [
            ("", Code::UnknownCommand),
            ("frob", Code::UnknownCommand),
            ("GET /a", Code::UnknownCommand),
            ("get", Code::Malformed),
            ("get /a /b", Code::Malformed),
            ("get /a digest=md4", Code::Malformed),
            ("get /a digest=md5 digest=md5", Code::Malformed),
            ("get /a size=1", Code::Malformed),
            ("put /a", Code::Malformed),
            ("get /a ahead=1", Code::Malformed),
            ("put /a ahead=2", Code::Malformed),
            ("mv /a", Code::Malformed),
            ("mv /a /b /c", Code::Malformed),
            ("noop x", Code::Malformed),
            ("auth", Code::Malformed),
            ("auth none", Code::Malformed),
            ("auth scram-sha-256 data=?", Code::Malformed),
            ("register ann", Code::Malformed),
            ("run", Code::Malformed),
            ("run a b", Code::Malformed),
            ("run a arg=%2", Code::Malformed),
            ("get ../a", Code::Denied),
            ("get .tow", Code::Denied),
        ] {
            assert_eq!(Command::parse(line.as_bytes()).unwrap_err().code(), code, "{line}");
        }
    }

    #[test]
    fn a_bit_that_flips_in_a_summed_line_never_makes_another_command() {
        let command = Command::parse(b"rm /aJbJc*d").unwrap();
        let line = command.summed().into_bytes();
        assert_eq!(Command::parse(&line), Ok(command));
        for bit in 0..line.len() * 8 {
            let mut spoiled = line.clone();
            spoiled[bit / 8] ^= 1 << (bit % 8);
            // A bit can make a line end as well.
            for part in spoiled.split(|&byte| byte == b'\n') {
                assert!(Command::parse(part).is_err(), "{bit}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_make_a_command_or_an_error(
            line in proptest::collection::vec(any::<u8>(), 0..200)
        ) {
            let _ = Command::parse(&line);
        }
    }
}
