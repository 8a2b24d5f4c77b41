//! Exit codes, and failures as people read them.

use std::{fmt, process::ExitCode};

use towpath::{
    client::{ClientError, Url},
    server::StartError,
    wire::Code,
};

/// How the program ends. The numbers are documented and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    Failed,
    Usage,
    Verification,
    Refused,
    GaveUp,
    Interrupted,
}

impl Exit {
    /// The number. 4, for a login that is refused, is kept for servers that have logins.
    pub(crate) const fn code(self) -> i32 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Verification => 3,
            Self::Refused => 5,
            Self::GaveUp => 6,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(u8::try_from(exit.code()).unwrap_or(1))
    }
}

/// Why the program failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// An operation on a server, and where.
    Client { at: String, error: ClientError },
    /// What was asked for makes no sense.
    Usage(String),
    /// Anything on this side.
    Local(String),
}

impl Failure {
    pub(crate) fn client(url: &Url) -> impl FnOnce(ClientError) -> Self {
        let at = url.to_string();
        move |error| Self::Client { at, error }
    }

    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Local(_) => Exit::Failed,
            Self::Client { error, .. } => match error {
                ClientError::Refused(_) => Exit::Refused,
                ClientError::Verification(_) => Exit::Verification,
                ClientError::GaveUp(_) | ClientError::Broken(_) => Exit::GaveUp,
                ClientError::Interrupted => Exit::Interrupted,
                ClientError::Path(_) => Exit::Usage,
                ClientError::Local { .. } | ClientError::Output { .. } => Exit::Failed,
            },
        }
    }

    /// What to do next, where there is something.
    const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Client { error, .. } => match error {
                ClientError::GaveUp(_) | ClientError::Broken(_) | ClientError::Interrupted => {
                    Some("what was transferred is kept: the same command continues")
                }
                ClientError::Verification(_) => {
                    Some("nothing wrong was put in place; the same command tries again")
                }
                ClientError::Refused(reply) => match reply.code {
                    Code::Absent => {
                        Some("see what is there with tow ls; make a folder with tow mkdir")
                    }
                    Code::Busy => Some("try again when the other client is done"),
                    Code::NoSpace => {
                        Some("what was transferred is kept: free space there, then continue")
                    }
                    _ => None,
                },
                ClientError::Local { .. } | ClientError::Output { .. } | ClientError::Path(_) => {
                    None
                }
            },
            Self::Usage(_) => Some("see tow --help"),
            Self::Local(_) => None,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client { at, error } => write!(f, "{at}: {error}")?,
            Self::Usage(text) | Self::Local(text) => f.write_str(text)?,
        }
        match self.hint() {
            Some(hint) => write!(f, "\n     {hint}"),
            None => Ok(()),
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::Local(error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Local(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_that_are_documented() {
        for (exit, code) in [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::Verification, 3),
            (Exit::Refused, 5),
            (Exit::GaveUp, 6),
            (Exit::Interrupted, 130),
        ] {
            assert_eq!(exit.code(), code);
        }
    }
}
