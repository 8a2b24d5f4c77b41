//! What can go wrong for a client, by what to do about it.

use std::{io, path::Path};

use crate::{
    session::Violation,
    store::StoreError,
    wire::{Code, LineError, PathError, Reply, ReplyError},
};

/// Why an operation did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The line broke, or the server can't just now: trying again may help.
    #[error("{0}")]
    Broken(String),
    /// A connection that was kept for the next command had been closed meanwhile: a new one is made
    /// at once.
    #[error("{0}")]
    Stale(String),
    /// The server takes no more connections of ours just now.
    #[error("{0}")]
    TooMany(String),
    /// The file changed meanwhile, or the other end failed to read or write it. The line is whole;
    /// trying again may help.
    #[error("{0}")]
    Unsettled(String),
    /// Trying again did not help for as long as the patience lasted.
    #[error("gave up: {0}")]
    GaveUp(String),
    /// The server refused, and would again.
    #[error("the server refused: {}", describe(.0))]
    Refused(Reply),
    /// No login, for this reason.
    #[error("not logged in: {0}")]
    Login(String),
    /// The bytes did not come out right.
    #[error("verification failed: {0}")]
    Verification(String),
    /// Something on this side.
    #[error("{what}: {error}")]
    Local {
        /// Which file, or what was being done.
        what: String,
        /// Why.
        error: StoreError,
    },
    /// Writing to an output that is no file.
    #[error("{what}: {error}")]
    Output {
        /// What was being done.
        what: &'static str,
        /// Why.
        error: io::Error,
    },
    /// A path that can't be sent.
    #[error("{0}")]
    Path(#[from] PathError),
    /// It was asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// A refusal as people read it.
fn describe(reply: &Reply) -> String {
    let text = match (reply.code, reply.message()) {
        (Code::Absent, _) => "no such file or directory",
        (Code::UnknownCommand, "") => "it does not know this command",
        (_, "") => "it gave no reason",
        (_, text) => text,
    };
    format!("{text} ({:03})", reply.code.number())
}

impl ClientError {
    /// Something about a local file.
    pub(super) fn local(path: &Path, error: StoreError) -> Self {
        Self::Local { what: path.display().to_string(), error }
    }

    /// What a reply that was not hoped for means.
    pub(super) fn from_reply(reply: Reply) -> Self {
        match reply.code {
            // Another time may do.
            Code::GoingDown | Code::Deadline => Self::Broken(describe(&reply)),
            Code::TooMany => Self::TooMany(describe(&reply)),
            Code::Changed | Code::Failed => Self::Unsettled(describe(&reply)),
            Code::Differs => Self::Verification(describe(&reply)),
            // What makes no sense may have been spoiled on the line.
            Code::Malformed | Code::BadSequence | Code::LineTooLong => {
                Self::Broken(describe(&reply))
            }
            Code::LoginFailed | Code::NotLoggedIn => Self::Login(describe(&reply)),
            // No refusals: the server says them where they have no meaning.
            Code::Have
            | Code::Working
            | Code::Entry
            | Code::Done
            | Code::Found
            | Code::Greeting
            | Code::Bye
            | Code::Identical
            | Code::NothingLeft
            | Code::Nothing
            | Code::Continue
            | Code::Running
            | Code::LoggedIn
            | Code::Challenge
            | Code::ActionEnded => Self::unexpected(&reply),
            Code::Absent
            | Code::Denied
            | Code::WrongKind
            | Code::Exists
            | Code::BeyondEnd
            | Code::Busy
            | Code::NoSpace
            | Code::NoRight
            | Code::UnknownAction
            | Code::BadArgument
            | Code::RegistrationClosed
            | Code::BadInvite
            | Code::NameTaken
            | Code::QuotaExceeded
            | Code::UnknownCommand => Self::Refused(reply),
        }
    }

    /// Whether it concerns one file, or one folder, and not the line.
    pub(super) const fn is_of_one_file(&self) -> bool {
        match self {
            Self::Refused(_)
            | Self::Verification(_)
            | Self::Unsettled(_)
            | Self::Local { .. }
            | Self::Path(_) => true,
            Self::Broken(_)
            | Self::Stale(_)
            | Self::TooMany(_)
            | Self::GaveUp(_)
            | Self::Login(_)
            | Self::Output { .. }
            | Self::Interrupted => false,
        }
    }

    /// The same once more, if there is no more room: on the disk of either side, or in the quota.
    pub(super) fn no_room(&self) -> Option<Self> {
        match self {
            Self::Refused(reply) if matches!(reply.code, Code::NoSpace | Code::QuotaExceeded) => {
                Some(Self::Refused(reply.clone()))
            }
            Self::Local { what, error: StoreError::NoSpace(why) } => {
                let (what, error) = (what.clone(), StoreError::NoSpace(why.clone()));
                Some(Self::Local { what, error })
            }
            _ => None,
        }
    }

    /// Whether somebody else is writing the file just now.
    pub(super) fn is_busy(&self) -> bool {
        match self {
            Self::Refused(reply) => reply.code == Code::Busy,
            Self::Local { error, .. } => matches!(error, StoreError::Busy),
            _ => false,
        }
    }

    /// What the server should not have said at this point: perhaps the line spoiled it.
    pub(super) fn unexpected(reply: &Reply) -> Self {
        Self::Broken(format!("unexpected answer: {reply}"))
    }
}

impl From<io::Error> for ClientError {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<ReplyError> for ClientError {
    fn from(error: ReplyError) -> Self {
        Self::Broken(format!("the server's answer makes no sense: {error}"))
    }
}

impl From<LineError> for ClientError {
    fn from(error: LineError) -> Self {
        Self::Broken(format!("the server's answer makes no sense: {error}"))
    }
}

impl From<Violation> for ClientError {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Hopeless | Violation::Digest => Self::Verification(violation.to_string()),
            Violation::Frame(_)
            | Violation::OutOfPlace
            | Violation::Size
            | Violation::Abort(_)
            | Violation::AfterEnd => {
                Self::Broken(format!("the stream makes no sense: {violation}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_one_file_is_told_from_what_is_wrong_with_the_line() {
        for (code, is_of_one_file) in [
            (Code::Changed, true),
            (Code::Failed, true),
            (Code::Absent, true),
            (Code::Busy, true),
            (Code::NoSpace, true),
            (Code::Differs, true),
            (Code::TooMany, false),
            (Code::Deadline, false),
            (Code::GoingDown, false),
            (Code::Malformed, false),
            (Code::NotLoggedIn, false),
            (Code::Found, false),
        ] {
            let error = ClientError::from_reply(Reply::new(code));
            assert_eq!(error.is_of_one_file(), is_of_one_file, "{error:?}");
        }
    }
}
