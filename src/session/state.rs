//! Every state of a connection, what it holds, and what follows from it.
//!
//! ```text
//!                 get: opened, 203                402 | 000
//!   AwaitCommand ------------------> AwaitOffset ----------> Streaming(Out) --end--> AwaitDigest
//!     ^   ^  ^                            |                     ^                     |      |
//!     |   |  '------ refused, aborted ----'                     '---- 409 want= ------'      |
//!     |   '----------------------------------- 226 -----------------------------------------'
//!     |           put: opened, 402 | 000          426 | 312
//!   AwaitCommand ------------------> AwaitOffset ----------> Streaming(In) --end--> AwaitDigest
//!         ^                               |                   |  ^     | differs        | commit
//!         |                               | refused           |  '-----' 409 want=      v
//!         '--------- End | Abort ------ Streaming(Discarding) '                 226, AwaitCommand
//! ```
//!
//! A put of a small file whose frames come ahead of its answer skips what lies between:
//!
//! ```text
//!         put ahead=1                 end: it joins the group
//!   AwaitCommand --> Streaming(Ahead) ----------------------> AwaitCommand
//! ```
//!
//! Groups are stored beside these states, one after the other. Before a put that memory is not for, and
//! before the end of a client that is out of step, AwaitDigest(Together) waits for all of them.
//!
//! AwaitCommand begins with the login, where there is one (`login`). An action that runs is a
//! Streaming(Action) from AwaitCommand back to it.
//!
//! A state that waits for a job reads no input: what the client has pipelined stays where it is. Groups
//! are no such state.
//! Nothing here changes a state: the transitions are in `login`, `await_command`, `await_offset`,
//! `streaming`, `ahead` and `await_digest`, the end in the parent.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Ahead, Direction, Discard, Incoming, JobId, Outgoing, Report, Verdict, login::Login};
use crate::{
    auth::Account,
    digest::{FileDigests, FileMd5, Md5Digest},
    limits::{ANSWER_DEADLINE, IDLE_DEADLINE, STALL_BYTES, STALL_DEADLINE},
    progress::Progress,
    wire::{DigestChoice, PutOffer, RemotePath, Reply, SegmentRuns},
};

/// Where a connection stands.
#[derive(Debug)]
pub(super) enum State {
    /// Waits for a command line, or for the job of the last one.
    AwaitCommand(Work),
    /// A file is open; waits for the line that says from where.
    AwaitOffset(Box<Offer>),
    /// Frames go over the line.
    Streaming(Stream),
    /// Everything went over the line; waits for the verdict on it.
    AwaitDigest(Ending),
    /// Nothing is read any more; what is to be sent still is.
    Closed,
}

/// Who is at the other end, and so what may be done.
#[derive(Debug)]
pub(super) enum Access {
    /// Nobody yet: who has not logged in by this time, or has tried too often, is sent away.
    Nobody { by: Instant, tries_left: u32 },
    /// Somebody with an account.
    User(Arc<Account>),
    /// The server has no logins.
    Everybody,
}

/// What a command is waiting for.
#[derive(Debug)]
pub(super) enum Work {
    /// Nothing: the next line is awaited.
    Idle,
    /// The next step of a login.
    Login(Box<Login>),
    /// An account of this name being made.
    Register(String),
    /// A job that ends in an answer.
    Answer,
    /// A source being opened for a get.
    OpenSource(RemotePath, DigestChoice),
    /// A partial being opened for a put.
    OpenPartial(PutOffer),
    /// A source being opened for its MD5.
    OpenForMd5,
    /// The MD5 of a file of so many bytes.
    Md5(FileMd5, u64),
    /// An action of this name being started.
    StartAction(String),
}

/// What waits for an offset.
#[derive(Debug)]
pub(super) enum Offer {
    /// A source that is open, and what is known of it.
    Get { path: RemotePath, size: u64, digest: DigestChoice, known: FileDigests },
    /// A partial that is open.
    Put(PutOffer, Progress),
    /// A file that was committed before: waits for `226`, or `402` to send it all the same.
    Committed(PutOffer, Md5Digest),
}

/// Which way the frames go.
#[derive(Debug)]
pub(super) enum Stream {
    /// To the client.
    Out(Box<Sending>),
    /// To the client, until the frame in work is over: then it is aborted for this reason.
    OutAborting(Box<Sending>, Reply),
    /// From the client.
    In(Box<Receiving>),
    /// From the client, who is told to send these again as soon as the journal says so.
    InAgain(Box<Receiving>, SegmentRuns),
    /// From the client, ahead of its answer: a small file, into memory.
    Ahead(Box<Ahead>),
    /// From the client, who has been told that they are not wanted any more.
    Discarding(Discard),
    /// To the client: the output of an action, until it ends.
    Action,
}

/// What follows the stream.
#[derive(Debug)]
pub(super) enum Ending {
    /// Everything was sent; the client compares.
    Sent(Box<Sending>),
    /// Everything is here; the MD5 of the whole file reads what it has not seen, and a checkpoint
    /// that still runs comes to its end.
    Md5(Box<Receiving>),
    /// Everything is here and right; it is made durable and visible.
    Commit(Box<Commit>),
    /// The groups before it are being stored and answered; then this upload is opened, or, without one, the
    /// line is closed.
    Together(Option<Box<PutOffer>>),
}

/// A file that is being made visible.
#[derive(Debug)]
pub(super) struct Commit {
    pub(super) receiving: Receiving,
    pub(super) root: Md5Digest,
    pub(super) md5: Option<Md5Digest>,
}

/// What the report at the end will need.
#[derive(Debug)]
pub(super) struct Transfer {
    pub(super) path: RemotePath,
    pub(super) offset: u64,
    pub(super) began: Instant,
}

/// A file on its way to the client.
#[derive(Debug)]
pub(super) struct Sending {
    pub(super) transfer: Transfer,
    pub(super) outgoing: Outgoing,
    pub(super) paced: Paced,
}

/// A file on its way from the client.
#[derive(Debug)]
pub(super) struct Receiving {
    pub(super) transfer: Transfer,
    pub(super) incoming: Incoming,
    pub(super) paced: Paced,
    pub(super) checkpoints: Checkpoints,
    /// It came ahead of its answer: there is one reply to it, and no further round.
    pub(super) ahead: bool,
}

/// How far a stream was when it last bought its peer time.
#[derive(Debug, Default)]
pub(super) struct Paced {
    bytes: u64,
}

/// When the journal was last brought up to date.
#[derive(Debug)]
pub(super) struct Checkpoints {
    pub(super) at: Instant,
    /// How much had been received then.
    pub(super) bytes: u64,
    /// One that runs beside the stream.
    pub(super) running: Option<JobId>,
}

/// What a session can take from its peer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// Lines, by [`Session::handle_line`](super::Session::handle_line).
    Lines,
    /// Frames, by [`Session::incoming`](super::Session::incoming).
    Frames,
    /// Frames of a small file, by [`Session::handle_ahead`](super::Session::handle_ahead).
    Ahead,
    /// Frames that nobody needs, by
    /// [`Session::handle_discarded`](super::Session::handle_discarded).
    Discard,
    /// Nothing until a job is done.
    Nothing,
}

impl State {
    /// What can be taken from the peer.
    pub(super) fn wants(&self) -> Wants {
        match self {
            Self::AwaitCommand(Work::Idle)
            | Self::AwaitOffset(_)
            | Self::Streaming(Stream::Out(_) | Stream::Action)
            | Self::AwaitDigest(Ending::Sent(_)) => Wants::Lines,
            Self::AwaitCommand(Work::Login(login)) => match **login {
                Login::AwaitProof(_) => Wants::Lines,
                Login::Finding(..) | Login::HeldBack(..) | Login::OpeningHome(_) => Wants::Nothing,
            },
            Self::Streaming(Stream::In(_)) => Wants::Frames,
            Self::Streaming(Stream::Ahead(_)) => Wants::Ahead,
            Self::Streaming(Stream::Discarding(_)) => Wants::Discard,
            Self::AwaitCommand(
                Work::Register(_)
                | Work::Answer
                | Work::OpenSource(..)
                | Work::OpenPartial(_)
                | Work::OpenForMd5
                | Work::Md5(..)
                | Work::StartAction(_),
            )
            | Self::Streaming(Stream::OutAborting(..) | Stream::InAgain(..))
            | Self::AwaitDigest(Ending::Md5(_) | Ending::Commit(_) | Ending::Together(_))
            | Self::Closed => Wants::Nothing,
        }
    }

    /// How long the peer may take; `None` while it waits for us.
    pub(super) fn patience(&self) -> Option<Duration> {
        match self {
            Self::AwaitCommand(Work::Idle) => Some(IDLE_DEADLINE),
            // A login as a whole has a deadline of its own.
            Self::AwaitCommand(Work::Login(login)) => match **login {
                Login::AwaitProof(_) | Login::HeldBack(..) => Some(IDLE_DEADLINE),
                Login::Finding(..) | Login::OpeningHome(_) => None,
            },
            Self::AwaitOffset(_) | Self::AwaitDigest(Ending::Sent(_)) => Some(ANSWER_DEADLINE),
            // Only digests are awaited, and the sender may be reading all of its file for them.
            Self::Streaming(Stream::In(receiving))
                if receiving.incoming.progress().is_complete() =>
            {
                Some(IDLE_DEADLINE)
            }
            Self::Streaming(
                Stream::Out(_)
                | Stream::OutAborting(..)
                | Stream::In(_)
                | Stream::Ahead(_)
                | Stream::Discarding(_),
            )
            // What is still to be sent gets as long as a stream that stalls.
            | Self::Closed => Some(STALL_DEADLINE),
            Self::AwaitCommand(
                Work::Register(_)
                | Work::Answer
                | Work::OpenSource(..)
                | Work::OpenPartial(_)
                | Work::OpenForMd5
                | Work::Md5(..)
                | Work::StartAction(_),
            )
            | Self::Streaming(Stream::InAgain(..) | Stream::Action)
            | Self::AwaitDigest(Ending::Md5(_) | Ending::Commit(_) | Ending::Together(_)) => None,
        }
    }

    /// Whether a line that is sent now reaches the client as one it has not had yet: within a
    /// stream to it, it would be taken for bytes of a frame, and a client whose frames are passed
    /// over has had its last line.
    pub(super) const fn hears_lines(&self) -> bool {
        !matches!(
            self,
            Self::Streaming(
                Stream::Out(_) | Stream::OutAborting(..) | Stream::Discarding(_) | Stream::Action
            )
        )
    }

    /// The login that is under way.
    pub(super) const fn login(&self) -> Option<&Login> {
        match self {
            Self::AwaitCommand(Work::Login(login)) => Some(login),
            _ => None,
        }
    }

    /// What has to be read and hashed before the answer: offset and length of the rest.
    pub(super) fn hashing(&self) -> Option<(u64, u64)> {
        let (from, to) = match self {
            Self::AwaitCommand(Work::Md5(md5, size)) => (md5.position(), *size),
            Self::AwaitDigest(Ending::Md5(receiving)) => {
                let pending = receiving.incoming.md5_pending();
                (pending.start, pending.end)
            }
            Self::AwaitCommand(_)
            | Self::AwaitOffset(_)
            | Self::Streaming(_)
            | Self::AwaitDigest(_)
            | Self::Closed => return None,
        };
        let left = to.saturating_sub(from);
        (left > 0).then_some((from, left))
    }

    /// Whether the MD5 of a whole file follows the bytes that are moved next.
    pub(super) fn follows_md5(&self) -> bool {
        match self {
            Self::Streaming(Stream::In(receiving)) => receiving.incoming.follows_md5(),
            Self::Streaming(Stream::Out(sending)) => sending.outgoing.follows_md5(),
            Self::AwaitCommand(_)
            | Self::AwaitOffset(_)
            | Self::Streaming(_)
            | Self::AwaitDigest(_)
            | Self::Closed => self.hashing().is_some(),
        }
    }

    /// The receiver, while frames are wanted.
    pub(super) fn receiving(&mut self) -> Option<&mut Receiving> {
        let Self::Streaming(Stream::In(receiving)) = self else {
            return None;
        };
        Some(receiving)
    }

    /// Bytes received since a checkpoint began that still runs.
    pub(super) fn ahead_of_disk_bytes(&self) -> u64 {
        match self {
            Self::Streaming(Stream::In(receiving)) if receiving.checkpoints.running.is_some() => {
                receiving.incoming.received_bytes() - receiving.checkpoints.bytes
            }
            Self::AwaitCommand(_)
            | Self::AwaitOffset(_)
            | Self::Streaming(_)
            | Self::AwaitDigest(_)
            | Self::Closed => 0,
        }
    }

    /// The sender, while there is something to send.
    pub(super) fn sending(&mut self) -> Option<&mut Sending> {
        let Self::Streaming(Stream::Out(sending) | Stream::OutAborting(sending, _)) = self else {
            return None;
        };
        Some(sending)
    }

    /// The checkpoint that runs beside whatever else is awaited. It belongs to its transfer: one
    /// that is left over from a transfer before is nobody's any more.
    pub(super) fn checkpoint(&self) -> Option<JobId> {
        let (Self::Streaming(Stream::In(receiving) | Stream::InAgain(receiving, _))
        | Self::AwaitDigest(Ending::Md5(receiving))) = self
        else {
            return None;
        };
        receiving.checkpoints.running
    }
}

impl Sending {
    /// The report on its end.
    pub(super) fn report(&self, verdict: Verdict) -> Report {
        let (root, md5) = self.outgoing.digests();
        Report {
            direction: Direction::Get,
            path: self.transfer.path.clone(),
            offset: self.transfer.offset,
            bytes: self.outgoing.sent_bytes(),
            hashed: self.outgoing.hashed_bytes(),
            began: self.transfer.began,
            root,
            md5,
            verdict,
        }
    }
}

impl Receiving {
    /// The report on its end.
    pub(super) fn report(&self, verdict: Verdict) -> Report {
        Report {
            direction: Direction::Put,
            path: self.transfer.path.clone(),
            offset: self.transfer.offset,
            bytes: self.incoming.received_bytes(),
            hashed: self.incoming.received_bytes(),
            began: self.transfer.began,
            root: None,
            md5: None,
            verdict,
        }
    }
}

impl Commit {
    /// The report on its end.
    pub(super) fn report(&self, verdict: Verdict) -> Report {
        Report { root: Some(self.root), md5: self.md5, ..self.receiving.report(verdict) }
    }
}

impl Paced {
    /// Whether, with `bytes` moved so far, as much came through as buys time since it last had.
    pub(super) const fn moved_on(&mut self, bytes: u64) -> bool {
        let moved = bytes.saturating_sub(self.bytes) >= STALL_BYTES;
        if moved {
            self.bytes = bytes;
        }
        moved
    }
}
