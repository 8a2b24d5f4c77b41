//! Exit codes, and failures as people read them.

use std::{fmt, process::ExitCode};

use towpath::{
    client::{ClientError, Url},
    server::StartError,
    store::StoreError,
    wire::Code,
};

use crate::show::printable;

/// How the program ends. The numbers are documented and kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done,
    Failed,
    Usage,
    Verification,
    Login,
    Refused,
    GaveUp,
    Interrupted,
    /// That of an action, which is passed on.
    Action(u8),
}

impl Exit {
    /// The number.
    pub(crate) const fn code(self) -> i32 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Verification => 3,
            Self::Login => 4,
            Self::Refused => 5,
            Self::GaveUp => 6,
            Self::Interrupted => 130,
            Self::Action(status) => status as i32,
        }
    }

    /// How the program ends for an error of the library.
    pub(crate) const fn of(error: &ClientError) -> Self {
        match error {
            ClientError::Refused(_) => Self::Refused,
            ClientError::Login(_) => Self::Login,
            ClientError::Verification(_) => Self::Verification,
            ClientError::GaveUp(_)
            | ClientError::Broken(_)
            | ClientError::Stale(_)
            | ClientError::TooMany(_) => Self::GaveUp,
            ClientError::Interrupted => Self::Interrupted,
            ClientError::Path(_) => Self::Usage,
            ClientError::Unsettled(_) | ClientError::Local { .. } | ClientError::Output { .. } => {
                Self::Failed
            }
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
    /// An operation on a server, and where; whether it was a transfer, which can be continued.
    Client { at: String, error: ClientError, transfer: bool },
    /// What was asked for makes no sense.
    Usage(String),
    /// Anything on this side.
    Local(String),
}

impl Failure {
    pub(crate) fn client(url: &Url) -> impl FnOnce(ClientError) -> Self {
        let at = url.to_string();
        move |error| Self::Client { at, error, transfer: false }
    }

    /// A transfer, which may have begun before it failed: then there is something to continue.
    pub(crate) fn transfer(url: &Url, begun: bool) -> impl FnOnce(ClientError) -> Self {
        let at = url.to_string();
        move |error| Self::Client { at, error, transfer: begun }
    }

    /// Names a second place that may be the culprit.
    pub(crate) fn towards(mut self, to: &Url) -> Self {
        if let Self::Client { at, .. } = &mut self {
            *at = format!("{at} to {to}");
        }
        self
    }

    pub(crate) const fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Local(_) => Exit::Failed,
            Self::Client { error, .. } => Exit::of(error),
        }
    }

    /// Whether it would be the same for every other file.
    pub(crate) const fn ends_everything(&self) -> bool {
        matches!(self.exit(), Exit::GaveUp | Exit::Interrupted | Exit::Login)
    }

    /// What to do next, where there is something.
    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Client { error, transfer, .. } => hint(error, *transfer),
            Self::Usage(_) => Some("see tow --help"),
            Self::Local(_) => None,
        }
    }
}

/// What to do about an error of the library; whether something was transferred that can be continued.
pub(crate) fn hint(error: &ClientError, transfer: bool) -> Option<&'static str> {
    match error {
        ClientError::Interrupted if !transfer => None,
        ClientError::TooMany(_) => Some("try again when other connections have ended"),
        ClientError::Unsettled(_) => Some("the same command tries again"),
        ClientError::GaveUp(_) | ClientError::Broken(_) | ClientError::Stale(_) if !transfer => {
            Some("see that host and port are right and that towd runs there")
        }
        ClientError::GaveUp(_)
        | ClientError::Broken(_)
        | ClientError::Stale(_)
        | ClientError::Interrupted => {
            Some("what was transferred is kept: the same command continues")
        }
        ClientError::Login(why) if why.ends_with("(430)") => {
            Some("see that name and password are right, or ask whoever runs the server")
        }
        ClientError::Login(_) => Some(
            "write tow://USER@HOST/ for a login, tow://HOST/ for none; see who you are \
                     with tow whoami",
        ),
        ClientError::Verification(_) => {
            Some("nothing wrong was put in place; the same command tries again")
        }
        ClientError::Refused(reply) => match reply.code {
            Code::Absent => Some("see what is there with tow ls; make a folder with tow mkdir"),
            Code::Busy => Some("try again when the other client is done"),
            Code::QuotaExceeded => Some("see tow quota; remove what is not needed"),
            Code::NoRight => Some("see tow whoami; the operator gives rights"),
            Code::UnknownAction => Some("see which there are with tow run URL"),
            Code::NameTaken => Some("choose another name"),
            Code::BadInvite | Code::RegistrationClosed => Some("ask whoever runs the server"),
            Code::NoSpace if transfer => {
                Some("what was transferred is kept: free space there, then continue")
            }
            Code::NoSpace => Some("free space there, then try again"),
            Code::Exists => Some("see what is there with tow ls"),
            Code::WrongKind => Some("see what it is with tow stat; tow ls lists a folder"),
            Code::Denied => Some("ask whoever runs the server, or use another path"),
            _ => None,
        },
        ClientError::Local { error: StoreError::NoSpace(_), .. } if !transfer => {
            Some("free space, then try again")
        }
        ClientError::Local { error, .. } => local_hint(error),
        ClientError::Output { .. } | ClientError::Path(_) => None,
    }
}

/// What to do about an error of a local file.
const fn local_hint(error: &StoreError) -> Option<&'static str> {
    match error {
        StoreError::NotFound => Some("see that the file, or the folder for it, is there"),
        StoreError::Denied => Some("see who may read and write it, or use another folder"),
        StoreError::WrongKind(_) => {
            Some("tow moves regular files, and folders with -r; or use another name")
        }
        StoreError::NoSpace(_) => Some("what was transferred is kept: free space, then continue"),
        StoreError::Busy => Some("wait for the other tow, or end it"),
        StoreError::Exists
        | StoreError::QuotaExceeded(_)
        | StoreError::NameTooLong
        | StoreError::SyncFailed
        | StoreError::Io { .. } => None,
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            // Where the server is has no part in what is wrong on this side.
            Self::Client { error: error @ ClientError::Local { .. }, .. } => error.to_string(),
            Self::Client { at, error, .. } => format!("{at}: {error}"),
            Self::Usage(text) | Self::Local(text) => text.clone(),
        };
        f.write_str(&printable(text.as_bytes()))?;
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
    fn only_what_was_begun_is_said_to_be_kept() {
        let url: Url = "tow://host/f".parse().unwrap();
        let said = |begun| {
            let (what, error) = ("f".to_owned(), StoreError::NoSpace("full".to_owned()));
            Failure::transfer(&url, begun)(ClientError::Local { what, error }).to_string()
        };
        assert!(said(true).contains("what was transferred is kept"), "{}", said(true));
        assert!(!said(false).contains("kept"), "{}", said(false));
        assert!(said(false).contains("free space, then try again"), "{}", said(false));
    }

    #[test]
    fn the_numbers_are_those_that_are_documented() {
        for (exit, code) in [
            (Exit::Done, 0),
            (Exit::Failed, 1),
            (Exit::Usage, 2),
            (Exit::Verification, 3),
            (Exit::Login, 4),
            (Exit::Refused, 5),
            (Exit::GaveUp, 6),
            (Exit::Interrupted, 130),
        ] {
            assert_eq!(exit.code(), code);
        }
    }
}
