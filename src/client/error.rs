//! What can go wrong for a client, by what to do about it.

use std::io;

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
    /// What a reply that was not hoped for means.
    pub(super) fn from_reply(reply: Reply) -> Self {
        match reply.code {
            // Another time may do.
            Code::GoingDown | Code::Deadline | Code::TooMany | Code::Changed | Code::Failed => {
                Self::Broken(describe(&reply))
            }
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
