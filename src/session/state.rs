//! Every state of a connection and every transition, on this page and nowhere else.
//!
//! ```text
//!                 get: opened, 203                402 | 000
//!   AwaitCommand ------------------> AwaitOffset ----------> Streaming(Out) --end--> AwaitDigest
//!     ^   ^  ^                            |                     ^                     |      |
//!     |   |  '------ refused, aborted ----'                     '---- 409 want= ------'      |
//!     |   '----------------------------------- 226 -----------------------------------------'
//!     |           put: opened, 402 | 000          426 | 312
//!   AwaitCommand ------------------> AwaitOffset ----------> Streaming(In) --end--> AwaitDigest
//!                                                               ^     | differs        | commit
//!                                                               '-----' 409 want=      v
//!                                                                               226, AwaitCommand
//! ```
//!
//! A state that waits for a job reads no input: what the client has pipelined stays where it is.

use std::{
    collections::VecDeque,
    mem,
    time::{Duration, Instant},
};

use super::{
    Action, Direction, Discard, Incoming, Job, JobId, OfferError, Outcome, Outgoing, Report,
    Settled, Verdict, Violation,
};
use crate::{
    digest::{FileMd5, Md5Digest},
    limits::{
        ANSWER_DEADLINE, CHECKPOINT_BYTES, CHECKPOINT_INTERVAL, IDLE_DEADLINE, STALL_DEADLINE,
        WORKING_INTERVAL,
    },
    progress::Progress,
    wire::{Code, Command, DigestChoice, GREETING, PutOffer, RemotePath, Reply, SegmentRuns, Tag},
};

/// Where a connection stands.
#[derive(Debug)]
pub enum State {
    /// Waits for a command line, or for the job of the last one.
    AwaitCommand(Work),
    /// A file is open; waits for the line that says from where.
    AwaitOffset(Offer),
    /// Frames go over the line.
    Streaming(Box<Stream>),
    /// Everything went over the line; waits for the verdict on it.
    AwaitDigest(Box<Ending>),
    /// Nothing is read any more; what is to be sent still is.
    Closed,
}

/// What a command is waiting for.
#[derive(Debug)]
pub enum Work {
    /// Nothing: the next line is awaited.
    Idle,
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
}

/// What waits for an offset.
#[derive(Debug)]
pub enum Offer {
    /// A source that is open.
    Get {
        path: RemotePath,
        size: u64,
        digest: DigestChoice,
    },
    /// A partial that is open.
    Put(PutOffer, Progress),
    /// A file that was committed before: waits for `226`, or `402` to send it all the same.
    Committed(PutOffer, Md5Digest),
}

/// The stream, and what its report will need.
#[derive(Debug)]
pub struct Stream {
    way: Way,
    path: RemotePath,
    offset: u64,
    began: Instant,
    /// Marks of verified progress that buy time: the leaves that went over the line.
    leaves: u64,
}

/// Which way the frames go.
#[derive(Debug)]
pub enum Way {
    /// To the client.
    Out(Outgoing),
    /// To the client, until the frame in work is over: then it is aborted for this reason.
    OutAborting(Outgoing, Reply),
    /// From the client.
    In(Incoming, Checkpoints),
    /// From the client, who is told to send these again as soon as the journal says so.
    InAgain(Incoming, SegmentRuns),
    /// From the client, who has been told that they are not wanted any more.
    Discarding(Discard),
}

/// When the journal was last brought up to date.
#[derive(Debug, Clone, Copy)]
pub struct Checkpoints {
    at: Instant,
    bytes: u64,
}

/// What follows the stream.
#[derive(Debug)]
enum Ended {
    /// Everything was sent; the client compares.
    Sent(Outgoing),
    /// Everything is here; the MD5 of the whole file reads what it has not seen.
    Md5(Incoming),
    /// Everything is here and right; it is made durable and visible.
    Commit {
        incoming: Incoming,
        root: Md5Digest,
        md5: Option<Md5Digest>,
    },
}

/// The end of a stream.
#[derive(Debug)]
pub struct Ending {
    stage: Ended,
    path: RemotePath,
    offset: u64,
    began: Instant,
}

/// What a session can take from its peer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wants {
    /// Lines, by [`Session::handle_line`].
    Lines,
    /// Frames, by [`Session::incoming`].
    Frames,
    /// Frames that nobody needs, by [`Session::handle_discarded`].
    Discard,
    /// Nothing until a job is done.
    Nothing,
}

/// One connection's state, its deadline, and the actions it asks for.
#[derive(Debug)]
pub struct Session {
    state: State,
    actions: VecDeque<Action>,
    /// When this state, or the last leaf in it, began.
    since: Instant,
    /// When the client was last told that work goes on.
    told: Instant,
    jobs_started: u64,
    /// The job that the state waits for.
    awaited: Option<JobId>,
    /// A checkpoint that runs beside the stream.
    checkpoint: Option<JobId>,
}

impl Session {
    /// A new connection, which is greeted.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let greeting = Action::Reply(Reply::greeting(GREETING));
        let actions = VecDeque::from([greeting]);
        Self {
            state: State::AwaitCommand(Work::Idle),
            actions,
            since: now,
            told: now,
            jobs_started: 0,
            awaited: None,
            checkpoint: None,
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// What can be taken from the peer.
    #[must_use]
    pub fn wants(&self) -> Wants {
        match &self.state {
            State::AwaitCommand(Work::Idle) | State::AwaitOffset(_) => Wants::Lines,
            State::AwaitCommand(
                Work::Answer
                | Work::OpenSource(..)
                | Work::OpenPartial(_)
                | Work::OpenForMd5
                | Work::Md5(..),
            )
            | State::Closed => Wants::Nothing,
            State::Streaming(stream) => match stream.way {
                Way::Out(_) => Wants::Lines,
                Way::In(..) => Wants::Frames,
                Way::Discarding(_) => Wants::Discard,
                Way::OutAborting(..) | Way::InAgain(..) => Wants::Nothing,
            },
            State::AwaitDigest(ending) => match ending.stage {
                Ended::Sent(_) => Wants::Lines,
                Ended::Md5(_) | Ended::Commit { .. } => Wants::Nothing,
            },
        }
    }

    /// Whether the connection is to be closed once everything has been sent.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// The receiving end, while frames are wanted.
    pub fn incoming(&mut self) -> Option<&mut Incoming> {
        match &mut self.state {
            State::Streaming(stream) => match &mut stream.way {
                Way::In(incoming, _) => Some(incoming),
                Way::Out(_) | Way::OutAborting(..) | Way::InAgain(..) | Way::Discarding(_) => None,
            },
            State::AwaitCommand(_)
            | State::AwaitOffset(_)
            | State::AwaitDigest(_)
            | State::Closed => None,
        }
    }

    /// The sending end, while there is something to send.
    pub fn outgoing(&mut self) -> Option<&mut Outgoing> {
        match &mut self.state {
            State::Streaming(stream) => match &mut stream.way {
                Way::Out(outgoing) | Way::OutAborting(outgoing, _) => Some(outgoing),
                Way::In(..) | Way::InAgain(..) | Way::Discarding(_) => None,
            },
            State::AwaitCommand(_)
            | State::AwaitOffset(_)
            | State::AwaitDigest(_)
            | State::Closed => None,
        }
    }

    /// What has to be read and hashed before the answer: offset and length of the rest.
    #[must_use]
    pub fn hashing(&self) -> Option<(u64, u64)> {
        match &self.state {
            State::AwaitCommand(Work::Md5(md5, size)) => {
                Some((md5.position(), size - md5.position()))
            }
            State::AwaitDigest(ending) => match &ending.stage {
                Ended::Md5(incoming) => {
                    let pending = incoming.md5_pending();
                    Some((pending.start, pending.end - pending.start))
                }
                Ended::Sent(_) | Ended::Commit { .. } => None,
            },
            State::AwaitCommand(_)
            | State::AwaitOffset(_)
            | State::Streaming(_)
            | State::Closed => None,
        }
    }

    /// When [`Session::handle_timeout`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        match self.patience() {
            Some(patience) => self.since + patience,
            None => self.told + WORKING_INTERVAL,
        }
    }

    /// How long the peer may take; `None` while it waits for us.
    fn patience(&self) -> Option<Duration> {
        match &self.state {
            State::AwaitCommand(Work::Idle) => Some(IDLE_DEADLINE),
            State::AwaitOffset(_) => Some(ANSWER_DEADLINE),
            State::Streaming(stream) => match stream.way {
                Way::Out(_) | Way::OutAborting(..) | Way::In(..) | Way::Discarding(_) => {
                    Some(STALL_DEADLINE)
                }
                Way::InAgain(..) => None,
            },
            State::AwaitDigest(ending) => match ending.stage {
                Ended::Sent(_) => Some(ANSWER_DEADLINE),
                Ended::Md5(_) | Ended::Commit { .. } => None,
            },
            // What is still to be sent gets as long as a stream that stalls.
            State::Closed => Some(STALL_DEADLINE),
            State::AwaitCommand(
                Work::Answer
                | Work::OpenSource(..)
                | Work::OpenPartial(_)
                | Work::OpenForMd5
                | Work::Md5(..),
            ) => None,
        }
    }

    /// Time has passed: tells a client that waits that work goes on, and gives up a peer that
    /// took too long. Does nothing before [`Session::deadline`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.deadline() {
            return;
        }
        self.told = now;
        if self.patience().is_none() {
            self.reply(Reply::text(Code::Working, "still working"));
        } else if self.is_closed() {
            self.actions.push_back(Action::Close);
        } else {
            self.end(Reply::text(Code::Deadline, "you took too long"), now);
        }
    }

    /// A line came in.
    pub fn handle_line(&mut self, line: &[u8], now: Instant) {
        match mem::replace(&mut self.state, State::Closed) {
            State::AwaitCommand(Work::Idle) => self.command(line, now),
            State::AwaitOffset(offer) => self.offset(offer, line, now),
            State::Streaming(stream) => self.line_beside_stream(*stream, line, now),
            State::AwaitDigest(ending) => self.verdict(*ending, line, now),
            state @ (State::AwaitCommand(_) | State::Closed) => self.state = state,
        }
    }

    fn command(&mut self, line: &[u8], now: Instant) {
        let command = match Command::parse(line) {
            Ok(command) => command,
            Err(error) => {
                self.reply(Reply::text(error.code(), &error.to_string()));
                return self.enter(State::AwaitCommand(Work::Idle), now);
            }
        };
        let (work, job) = match command {
            Command::Get { path, digest } => (
                Work::OpenSource(path.clone(), digest),
                Job::OpenSource(path),
            ),
            Command::Put(offer) => (
                Work::OpenPartial(offer.clone()),
                Job::OpenPartial {
                    offer,
                    fresh: false,
                },
            ),
            Command::Md5 { path } => (Work::OpenForMd5, Job::OpenSource(path)),
            Command::List { path, from } => (Work::Answer, Job::List { path, from }),
            Command::Stat { path } => (Work::Answer, Job::Stat(path)),
            Command::MakeDir { path } => (Work::Answer, Job::MakeDir(path)),
            Command::Remove { path } => (Work::Answer, Job::Remove(path)),
            Command::RemoveDir { path } => (Work::Answer, Job::RemoveDir(path)),
            Command::Move { from, to } => (Work::Answer, Job::Move(from, to)),
            Command::Noop => {
                self.reply(Reply::new(Code::Done));
                return self.enter(State::AwaitCommand(Work::Idle), now);
            }
            Command::Quit => return self.end(Reply::text(Code::Bye, "goodbye"), now),
        };
        self.start(job);
        self.enter(State::AwaitCommand(work), now);
    }

    /// The answer to `203`, `402`, `000` or `312`.
    fn offset(&mut self, offer: Offer, line: &[u8], now: Instant) {
        let reply = match Reply::parse(line) {
            Ok(reply) => reply,
            Err(error) => return self.refuse(Code::BadSequence, &error.to_string(), now),
        };
        match (offer, reply.code) {
            (Offer::Get { path, size, digest }, Code::Nothing) => {
                let start = Outgoing::new(size, 0, &SegmentRuns::default(), digest);
                self.send(path, start, now);
            }
            (Offer::Get { path, size, digest }, Code::Have) => {
                let bad = reply
                    .field("bad")
                    .map_or(Some(SegmentRuns::default()), SegmentRuns::parse);
                match (reply.bytes("offset"), bad) {
                    (Ok(offset), Some(bad)) => {
                        let start = Outgoing::new(size, offset, &bad, digest);
                        self.send(path, start, now);
                    }
                    _ => self.refuse(Code::Malformed, "000 needs offset=", now),
                }
            }
            (Offer::Put(offer, progress), Code::Continue | Code::NothingLeft) => {
                let whole = reply.code == Code::NothingLeft;
                let at = if whole {
                    Ok(offer.size)
                } else {
                    reply.bytes("offset")
                };
                match at {
                    Ok(at) if at == progress.frontier() => self.receive(offer, progress, now),
                    // What follows are frames: they have to be passed over.
                    at => {
                        let beyond = at.is_ok_and(|at| at > progress.frontier());
                        let code = if beyond {
                            Code::BeyondEnd
                        } else {
                            Code::Malformed
                        };
                        let text = "not the offset that 000 named";
                        let reply = Reply::text(code, text).with("offset", progress.frontier());
                        self.actions.push_back(Action::Release(None));
                        self.discard(offer.path, reply, now);
                    }
                }
            }
            (Offer::Put(offer, progress), Code::Nothing) => {
                if progress.frontier() == 0 {
                    self.receive(offer, progress, now);
                } else {
                    self.reopen(offer, now);
                }
            }
            (Offer::Committed(offer, root), Code::Identical) => {
                let (direction, verdict) = (Direction::Put, Verdict::Unchanged);
                self.report_end(direction, offer.path, offer.size, 0, now, verdict);
                self.reply(Reply::new(Code::Identical).with("root", root));
                self.enter(State::AwaitCommand(Work::Idle), now);
            }
            (Offer::Committed(offer, _), Code::Nothing) => self.reopen(offer, now),
            (Offer::Get { .. } | Offer::Put(..) | Offer::Committed(..), code) => {
                let given_up = code.number() >= 400;
                self.actions.push_back(Action::Release(None));
                if given_up {
                    self.reply(Reply::text(code, "given up"));
                    self.enter(State::AwaitCommand(Work::Idle), now);
                } else {
                    self.refuse(Code::BadSequence, "402, 000, 426 or 312 was awaited", now);
                }
            }
        }
    }

    /// Forgets what there is of a partial; the client is told `402` and answers once more.
    fn reopen(&mut self, offer: PutOffer, now: Instant) {
        self.actions.push_back(Action::Release(None));
        let job = Job::OpenPartial {
            offer: offer.clone(),
            fresh: true,
        };
        self.start(job);
        self.enter(State::AwaitCommand(Work::OpenPartial(offer)), now);
    }

    fn send(&mut self, path: RemotePath, start: Result<Outgoing, OfferError>, now: Instant) {
        let outgoing = match start {
            Ok(outgoing) => outgoing,
            Err(error) => {
                let code = match error {
                    OfferError::BeyondEnd => Code::BeyondEnd,
                    OfferError::NotAtLeaf | OfferError::Segments => Code::Malformed,
                };
                self.actions.push_back(Action::Release(None));
                self.reply(Reply::text(code, &error.to_string()));
                return self.enter(State::AwaitCommand(Work::Idle), now);
            }
        };
        let (offset, left) = (outgoing.offset(), outgoing.left_bytes());
        if left == 0 && outgoing.size() > 0 {
            self.reply(Reply::new(Code::NothingLeft));
        } else {
            let reply = Reply::new(Code::Continue).with("offset", offset);
            self.reply(reply.with("length", left));
        }
        self.stream(Way::Out(outgoing), path, offset, now);
    }

    fn receive(&mut self, offer: PutOffer, progress: Progress, now: Instant) {
        let offset = progress.frontier();
        let incoming = Incoming::new(progress, offer.digest);
        let checkpoints = Checkpoints { at: now, bytes: 0 };
        self.stream(Way::In(incoming, checkpoints), offer.path, offset, now);
    }

    fn stream(&mut self, way: Way, path: RemotePath, offset: u64, now: Instant) {
        let stream = Stream {
            way,
            path,
            offset,
            began: now,
            leaves: 0,
        };
        self.enter(State::Streaming(Box::new(stream)), now);
    }

    /// While the server sends, a client says nothing but that it gives up.
    fn line_beside_stream(&mut self, stream: Stream, line: &[u8], now: Instant) {
        let reply = Reply::parse(line)
            .ok()
            .filter(|reply| reply.code.number() >= 400);
        match (stream.way, reply) {
            (Way::Out(outgoing), Some(reply)) => {
                let reply = Reply::text(reply.code, "given up by the client");
                let way = Way::OutAborting(outgoing, reply);
                self.state = State::Streaming(Box::new(Stream { way, ..stream }));
            }
            (
                Way::Out(_)
                | Way::OutAborting(..)
                | Way::In(..)
                | Way::InAgain(..)
                | Way::Discarding(_),
                _,
            ) => self.refuse(Code::BadSequence, "no command fits within a stream", now),
        }
    }

    /// If the stream is to be aborted: the reason, as soon as the line stands between two frames.
    pub fn poll_abort(&mut self, now: Instant) -> Option<Reply> {
        let State::Streaming(stream) = &self.state else {
            return None;
        };
        let Way::OutAborting(outgoing, _) = &stream.way else {
            return None;
        };
        if !outgoing.between_frames() {
            return None;
        }
        match mem::replace(&mut self.state, State::Closed) {
            State::Streaming(stream) => match stream.way {
                Way::OutAborting(outgoing, reply) => {
                    let verdict = Verdict::Unfinished(reply.to_string());
                    self.sent_report(&outgoing, stream.path, stream.began, verdict);
                    self.actions.push_back(Action::Release(None));
                    self.enter(State::AwaitCommand(Work::Idle), now);
                    Some(reply)
                }
                Way::Out(_) | Way::In(..) | Way::InAgain(..) | Way::Discarding(_) => None,
            },
            State::AwaitCommand(_)
            | State::AwaitOffset(_)
            | State::AwaitDigest(_)
            | State::Closed => None,
        }
    }

    /// The source can't be read any further, or has changed: see [`Session::poll_abort`].
    pub fn handle_source_failed(&mut self, reply: Reply, now: Instant) {
        match mem::replace(&mut self.state, State::Closed) {
            State::Streaming(stream) => match stream.way {
                Way::Out(outgoing) if outgoing.between_frames() => {
                    let way = Way::OutAborting(outgoing, reply);
                    self.state = State::Streaming(Box::new(Stream { way, ..*stream }));
                }
                // Within a frame nothing else can be said: the line has to be cut.
                Way::Out(_)
                | Way::OutAborting(..)
                | Way::In(..)
                | Way::InAgain(..)
                | Way::Discarding(_) => {
                    self.actions.push_back(Action::Release(None));
                    self.end(reply, now);
                }
            },
            State::AwaitCommand(Work::Md5(..)) => {
                self.actions.push_back(Action::Release(None));
                self.reply(reply);
                self.enter(State::AwaitCommand(Work::Idle), now);
            }
            State::AwaitDigest(ending) => {
                self.actions.push_back(Action::Release(None));
                let verdict = Verdict::Unfinished(reply.to_string());
                let Ending { path, offset, .. } = *ending;
                self.report_end(Direction::Put, path, offset, 0, ending.began, verdict);
                self.reply(reply);
                self.enter(State::AwaitCommand(Work::Idle), now);
            }
            state @ (State::AwaitCommand(_) | State::AwaitOffset(_) | State::Closed) => {
                self.state = state;
            }
        }
    }

    /// The line took bytes of the stream, or brought some: another leaf buys time.
    pub fn handle_moved(&mut self, now: Instant) {
        let State::Streaming(stream) = &mut self.state else {
            return;
        };
        let bytes = match &stream.way {
            Way::Out(outgoing) | Way::OutAborting(outgoing, _) => {
                outgoing.sent_bytes() + outgoing.size() - outgoing.left_to_check_bytes()
            }
            Way::In(incoming, _) | Way::InAgain(incoming, _) => incoming.received_bytes(),
            Way::Discarding(_) => 0,
        };
        let leaves = bytes / crate::digest::LEAF_BYTES;
        if leaves > stream.leaves {
            stream.leaves = leaves;
            self.since = now;
        }
    }

    /// Everything of this round was handed to the line.
    pub fn handle_sent(&mut self, now: Instant) {
        match mem::replace(&mut self.state, State::Closed) {
            State::Streaming(stream) => match stream.way {
                Way::Out(outgoing) | Way::OutAborting(outgoing, _) => {
                    let Stream {
                        path,
                        offset,
                        began,
                        ..
                    } = *stream;
                    let stage = Ended::Sent(outgoing);
                    let ending = Ending {
                        stage,
                        path,
                        offset,
                        began,
                    };
                    self.enter(State::AwaitDigest(Box::new(ending)), now);
                }
                way @ (Way::In(..) | Way::InAgain(..) | Way::Discarding(_)) => {
                    self.state = State::Streaming(Box::new(Stream { way, ..*stream }));
                }
            },
            state @ (State::AwaitCommand(_)
            | State::AwaitOffset(_)
            | State::AwaitDigest(_)
            | State::Closed) => self.state = state,
        }
    }

    /// The client's word on what it received.
    fn verdict(&mut self, ending: Ending, line: &[u8], now: Instant) {
        let Ending {
            stage,
            path,
            offset,
            began,
        } = ending;
        let Ended::Sent(mut outgoing) = stage else {
            self.state = State::AwaitDigest(Box::new(Ending {
                stage,
                path,
                offset,
                began,
            }));
            return;
        };
        let reply = match Reply::parse(line) {
            Ok(reply) => reply,
            Err(error) => return self.refuse(Code::BadSequence, &error.to_string(), now),
        };
        match reply.code {
            Code::Identical => {
                self.sent_report(&outgoing, path, began, Verdict::Identical);
            }
            Code::Differs => {
                let want = reply.field("want").and_then(SegmentRuns::parse);
                return match want.map(|want| outgoing.again(&want)) {
                    Some(Ok(())) => self.stream(Way::Out(outgoing), path, offset, now),
                    Some(Err(_)) | None => {
                        self.refuse(Code::Malformed, "409 needs want= within the file", now);
                    }
                };
            }
            code if code.number() >= 400 => {
                let verdict = Verdict::Unfinished(reply.to_string());
                self.sent_report(&outgoing, path, began, verdict);
            }
            _ => return self.refuse(Code::BadSequence, "226 or 409 was awaited", now),
        }
        self.actions.push_back(Action::Release(None));
        self.enter(State::AwaitCommand(Work::Idle), now);
    }

    /// What a frame came to, by [`Incoming::settle`], or why it could not be.
    pub fn handle_settled(&mut self, settled: Result<Settled, Violation>, now: Instant) {
        let settled = match settled {
            Ok(settled) => settled,
            Err(violation) => return self.violated(violation, now),
        };
        match settled {
            Settled::Good | Settled::Bad { .. } => {}
            Settled::Differs(want) => self.send_again(want, now),
            Settled::Whole => self.whole(now),
            Settled::Aborted(reply) => {
                let reply = Reply::text(reply.code, "given up by the client");
                if let Some(stream) = self.take_stream() {
                    self.let_go(stream, &reply);
                }
                self.reply(reply);
                self.enter(State::AwaitCommand(Work::Idle), now);
            }
        }
    }

    /// The end of a round in which something came out wrong. Data that was good once will be
    /// overwritten: the journal has to know before the client does.
    fn send_again(&mut self, want: SegmentRuns, now: Instant) {
        let Some(mut stream) = self.take_stream() else {
            return;
        };
        match stream.way {
            Way::In(mut incoming, checkpoints) => match incoming.next_round() {
                Ok(()) => {
                    let mark = incoming.take_mark();
                    stream.way = Way::InAgain(incoming, want);
                    self.state = State::Streaming(Box::new(stream));
                    self.start(Job::Checkpoint(mark));
                }
                Err(violation) => {
                    stream.way = Way::In(incoming, checkpoints);
                    self.state = State::Streaming(Box::new(stream));
                    self.violated(violation, now);
                }
            },
            Way::Out(_) | Way::OutAborting(..) | Way::InAgain(..) | Way::Discarding(_) => {
                self.state = State::Streaming(Box::new(stream));
            }
        }
    }

    /// Everything is here and its root is right.
    fn whole(&mut self, now: Instant) {
        let Some(stream) = self.take_stream() else {
            return;
        };
        let Stream {
            way,
            path,
            offset,
            began,
            leaves,
        } = stream;
        match way {
            Way::In(incoming, _) => {
                let ending = Ending {
                    stage: Ended::Md5(incoming),
                    path,
                    offset,
                    began,
                };
                self.enter(State::AwaitDigest(Box::new(ending)), now);
                self.commit_if_hashed(now);
            }
            Way::Out(_) | Way::OutAborting(..) | Way::InAgain(..) | Way::Discarding(_) => {
                let stream = Stream {
                    way,
                    path,
                    offset,
                    began,
                    leaves,
                };
                self.state = State::Streaming(Box::new(stream));
            }
        }
    }

    /// Bytes that [`Session::hashing`] asked for.
    pub fn handle_hashed(&mut self, bytes: &[u8], now: Instant) {
        match &mut self.state {
            State::AwaitCommand(Work::Md5(md5, size)) => {
                md5.update(bytes);
                if md5.position() < *size {
                    return;
                }
                let reply = Reply::new(Code::Done).with("md5", md5.clone().finish());
                let reply = reply.with("size", *size);
                self.actions.push_back(Action::Release(None));
                self.reply(reply);
                self.enter(State::AwaitCommand(Work::Idle), now);
            }
            State::AwaitDigest(ending) => {
                if let Ended::Md5(incoming) = &mut ending.stage {
                    incoming.md5_read(bytes);
                }
                self.commit_if_hashed(now);
            }
            State::AwaitCommand(_)
            | State::AwaitOffset(_)
            | State::Streaming(_)
            | State::Closed => {}
        }
    }

    /// Once the MD5 of the whole file has seen everything: compare it and commit.
    fn commit_if_hashed(&mut self, now: Instant) {
        if self.hashing().is_none_or(|(_, left)| left > 0) {
            return;
        }
        let State::AwaitDigest(ending) = mem::replace(&mut self.state, State::Closed) else {
            return;
        };
        let Ending {
            stage,
            path,
            offset,
            began,
        } = *ending;
        let Ended::Md5(mut incoming) = stage else {
            return;
        };
        match (incoming.check_md5(), incoming.progress().root()) {
            (Ok(md5), Some(root)) => {
                let mark = incoming.take_mark();
                let stage = Ended::Commit {
                    incoming,
                    root,
                    md5,
                };
                let ending = Ending {
                    stage,
                    path,
                    offset,
                    began,
                };
                self.enter(State::AwaitDigest(Box::new(ending)), now);
                self.start(Job::Commit { mark, root, md5 });
            }
            (Err(violation), _) => self.refuse(Code::Differs, &violation.to_string(), now),
            (Ok(_), None) => self.refuse(Code::Differs, "segments are missing", now),
        }
    }

    /// A chunk was received, hashed, written and settled: perhaps a checkpoint is due.
    pub fn handle_chunk(&mut self, now: Instant) {
        self.handle_moved(now);
        let State::Streaming(stream) = &mut self.state else {
            return;
        };
        let Way::In(incoming, last) = &mut stream.way else {
            return;
        };
        let bytes = incoming.received_bytes() - last.bytes;
        let due = bytes >= CHECKPOINT_BYTES
            || bytes >= crate::digest::LEAF_BYTES && now >= last.at + CHECKPOINT_INTERVAL;
        if !due || self.checkpoint.is_some() {
            return;
        }
        *last = Checkpoints {
            at: now,
            bytes: incoming.received_bytes(),
        };
        let mark = incoming.take_mark();
        let id = self.next_id();
        self.checkpoint = Some(id);
        self.actions
            .push_back(Action::Start(id, Job::Checkpoint(mark)));
    }

    /// What came was no stream, or one that can't be gone on with.
    fn violated(&mut self, violation: Violation, now: Instant) {
        let code = match violation {
            Violation::Hopeless | Violation::Digest => Code::Differs,
            Violation::Frame(_)
            | Violation::OutOfPlace
            | Violation::Size
            | Violation::Abort(_)
            | Violation::AfterEnd => Code::Malformed,
        };
        self.refuse(code, &violation.to_string(), now);
    }

    /// The partial can't be written: the client is told, and its stream passed over.
    pub fn handle_write_failed(&mut self, reply: Reply, now: Instant) {
        if let Some(stream) = self.take_stream() {
            let path = stream.path.clone();
            self.let_go(stream, &reply);
            self.discard(path, reply, now);
        }
    }

    fn discard(&mut self, path: RemotePath, reply: Reply, now: Instant) {
        self.reply(reply);
        self.stream(Way::Discarding(Discard::default()), path, 0, now);
    }

    /// Frames that nobody needs; returns how many bytes of `input` belonged to them.
    pub fn handle_discarded(&mut self, input: &[u8], now: Instant) -> usize {
        let State::Streaming(stream) = &mut self.state else {
            return 0;
        };
        let Way::Discarding(discard) = &mut stream.way else {
            return 0;
        };
        match discard.skip(input) {
            Ok(taken) => {
                if discard.has_ended() {
                    self.enter(State::AwaitCommand(Work::Idle), now);
                }
                taken
            }
            Err(error) => {
                self.refuse(Code::Malformed, &error.to_string(), now);
                input.len()
            }
        }
    }

    /// A job is done. Outcomes of jobs that nobody waits for any more are passed over.
    pub fn handle_outcome(&mut self, id: JobId, outcome: Outcome, now: Instant) {
        if self.checkpoint == Some(id) {
            self.checkpoint = None;
            if let Outcome::Failed(reply) = outcome {
                self.checkpoint_failed(reply, now);
            }
            return;
        }
        if self.awaited != Some(id) {
            return;
        }
        self.awaited = None;
        match mem::replace(&mut self.state, State::Closed) {
            State::AwaitCommand(work) => self.command_done(work, outcome, now),
            State::Streaming(stream) => self.journal_knows(*stream, outcome, now),
            State::AwaitDigest(ending) => self.committed(*ending, outcome, now),
            state @ (State::AwaitOffset(_) | State::Closed) => self.state = state,
        }
    }

    /// What was written since the last durable mark may be lost: the partial has fallen back.
    fn checkpoint_failed(&mut self, reply: Reply, now: Instant) {
        let Some(stream) = self.take_stream() else {
            return;
        };
        let path = stream.path.clone();
        match &stream.way {
            Way::In(..) => {
                self.unfinished(&stream, &reply);
                self.actions.push_back(Action::Release(None));
                self.discard(path, reply, now);
            }
            Way::Out(_) | Way::OutAborting(..) | Way::InAgain(..) | Way::Discarding(_) => {
                self.state = State::Streaming(Box::new(stream));
            }
        }
    }

    fn command_done(&mut self, work: Work, outcome: Outcome, now: Instant) {
        let next = match (work, outcome) {
            (Work::OpenSource(path, digest), Outcome::SourceOpened { size, mtime, tag }) => {
                let reply = Reply::new(Code::Found)
                    .with("size", size)
                    .with("mtime", mtime);
                self.reply(reply.with("tag", &tag));
                State::AwaitOffset(Offer::Get { path, size, digest })
            }
            (Work::OpenForMd5, Outcome::SourceOpened { size, .. }) => {
                self.enter(State::AwaitCommand(Work::Md5(FileMd5::new(), size)), now);
                // An empty file has no bytes to come.
                if size == 0 {
                    self.handle_hashed(&[], now);
                }
                return;
            }
            (Work::OpenPartial(offer), Outcome::PartialOpened { progress, tag }) => {
                self.reply(offer_reply(&progress, tag));
                State::AwaitOffset(Offer::Put(offer, progress))
            }
            (Work::OpenPartial(offer), Outcome::CommittedBefore { root, md5 }) => {
                let mut reply = Reply::new(Code::NothingLeft).with("root", root);
                if let Some(md5) = md5 {
                    reply = reply.with("md5", md5);
                }
                self.reply(reply);
                State::AwaitOffset(Offer::Committed(offer, root))
            }
            (_, Outcome::Answer(lines)) => {
                for line in lines {
                    self.reply(line);
                }
                State::AwaitCommand(Work::Idle)
            }
            (_, Outcome::Failed(reply)) => {
                self.reply(reply);
                State::AwaitCommand(Work::Idle)
            }
            (work, outcome) => {
                debug_assert!(false, "{outcome:?} does not answer {work:?}");
                State::Closed
            }
        };
        self.enter(next, now);
    }

    /// The journal knows which segments are bad: now they may be overwritten.
    fn journal_knows(&mut self, stream: Stream, outcome: Outcome, now: Instant) {
        let Stream {
            way,
            path,
            offset,
            began,
            leaves,
        } = stream;
        match (way, outcome) {
            (Way::InAgain(incoming, _), Outcome::Failed(reply)) => {
                let way = Way::InAgain(incoming, SegmentRuns::default());
                self.unfinished(
                    &Stream {
                        way,
                        path,
                        offset,
                        began,
                        leaves,
                    },
                    &reply,
                );
                self.actions.push_back(Action::Release(None));
                // The client's round is over: nothing has to be passed over.
                self.reply(reply);
                self.enter(State::AwaitCommand(Work::Idle), now);
            }
            (Way::InAgain(incoming, want), _) => {
                let bytes = incoming.received_bytes();
                let way = Way::In(incoming, Checkpoints { at: now, bytes });
                let stream = Stream {
                    way,
                    path,
                    offset,
                    began,
                    leaves,
                };
                self.enter(State::Streaming(Box::new(stream)), now);
                self.reply(Reply::new(Code::Differs).with("want", want));
            }
            (way @ (Way::Out(_) | Way::OutAborting(..) | Way::In(..) | Way::Discarding(_)), _) => {
                let stream = Stream {
                    way,
                    path,
                    offset,
                    began,
                    leaves,
                };
                self.state = State::Streaming(Box::new(stream));
            }
        }
    }

    fn committed(&mut self, ending: Ending, outcome: Outcome, now: Instant) {
        let Ending {
            stage,
            path,
            offset,
            began,
        } = ending;
        let Ended::Commit {
            incoming,
            root,
            md5,
        } = stage
        else {
            return;
        };
        let verdict = match outcome {
            Outcome::Failed(reply) => {
                let verdict = Verdict::Unfinished(reply.to_string());
                self.reply(reply);
                verdict
            }
            _ => {
                let mut reply = Reply::new(Code::Identical).with("root", root);
                if let Some(md5) = md5 {
                    reply = reply.with("md5", md5);
                }
                self.reply(reply);
                Verdict::Identical
            }
        };
        let (direction, bytes) = (Direction::Put, incoming.received_bytes());
        let (root, report) = (Some(root), Action::Report);
        let told = Report {
            direction,
            path,
            offset,
            bytes,
            began,
            root,
            md5,
            verdict,
        };
        self.actions.push_back(report(told));
        self.actions.push_back(Action::Release(None));
        self.enter(State::AwaitCommand(Work::Idle), now);
    }

    /// The line is broken, or the server goes down: lets go of what is open. What was received
    /// is kept.
    pub fn handle_broken(&mut self, why: &str) {
        let reply = Reply::text(Code::GoingDown, why);
        match mem::replace(&mut self.state, State::Closed) {
            State::Streaming(stream) => self.let_go(*stream, &reply),
            State::AwaitDigest(ending) => {
                let Ending {
                    stage,
                    path,
                    offset,
                    began,
                } = *ending;
                let (direction, bytes) = match &stage {
                    Ended::Sent(outgoing) => (Direction::Get, outgoing.sent_bytes()),
                    Ended::Md5(incoming) | Ended::Commit { incoming, .. } => {
                        (Direction::Put, incoming.received_bytes())
                    }
                };
                let verdict = Verdict::Unfinished(why.to_owned());
                self.report_end(direction, path, offset, bytes, began, verdict);
                let mark = match stage {
                    Ended::Md5(mut incoming) => Some(incoming.take_mark()),
                    Ended::Sent(_) | Ended::Commit { .. } => None,
                };
                self.actions.push_back(Action::Release(mark));
            }
            State::AwaitOffset(_) => self.actions.push_back(Action::Release(None)),
            State::AwaitCommand(_) | State::Closed => {}
        }
    }

    /// Lets go of a stream before its end; what was received is kept.
    fn let_go(&mut self, stream: Stream, reply: &Reply) {
        self.unfinished(&stream, reply);
        let mark = match stream.way {
            Way::In(mut incoming, _) | Way::InAgain(mut incoming, _) => Some(incoming.take_mark()),
            Way::Out(_) | Way::OutAborting(..) | Way::Discarding(_) => None,
        };
        self.actions.push_back(Action::Release(mark));
    }

    fn unfinished(&mut self, stream: &Stream, reply: &Reply) {
        let (direction, bytes) = match &stream.way {
            Way::Out(outgoing) | Way::OutAborting(outgoing, _) => {
                (Direction::Get, outgoing.sent_bytes())
            }
            Way::In(incoming, _) | Way::InAgain(incoming, _) => {
                (Direction::Put, incoming.received_bytes())
            }
            Way::Discarding(_) => return,
        };
        let verdict = Verdict::Unfinished(reply.to_string());
        let path = stream.path.clone();
        self.report_end(direction, path, stream.offset, bytes, stream.began, verdict);
    }

    fn report_end(
        &mut self,
        direction: Direction,
        path: RemotePath,
        offset: u64,
        bytes: u64,
        began: Instant,
        verdict: Verdict,
    ) {
        let (root, md5) = (None, None);
        let report = Report {
            direction,
            path,
            offset,
            bytes,
            began,
            root,
            md5,
            verdict,
        };
        self.actions.push_back(Action::Report(report));
    }

    fn sent_report(
        &mut self,
        outgoing: &Outgoing,
        path: RemotePath,
        began: Instant,
        verdict: Verdict,
    ) {
        let (direction, bytes, offset) = (Direction::Get, outgoing.sent_bytes(), outgoing.offset());
        let (root, md5) = outgoing.digests();
        let report = Report {
            direction,
            path,
            offset,
            bytes,
            began,
            root,
            md5,
            verdict,
        };
        self.actions.push_back(Action::Report(report));
    }

    fn take_stream(&mut self) -> Option<Stream> {
        match mem::replace(&mut self.state, State::Closed) {
            State::Streaming(stream) => Some(*stream),
            state @ (State::AwaitCommand(_)
            | State::AwaitOffset(_)
            | State::AwaitDigest(_)
            | State::Closed) => {
                self.state = state;
                None
            }
        }
    }

    /// The peer is out of step: says why and closes.
    fn refuse(&mut self, code: Code, text: &str, now: Instant) {
        self.end(Reply::text(code, text), now);
    }

    /// Says a last line and closes; what was received is kept.
    pub fn end(&mut self, reply: Reply, now: Instant) {
        self.handle_broken(reply.message());
        self.reply(reply);
        self.actions.push_back(Action::Close);
        self.enter(State::Closed, now);
    }

    fn reply(&mut self, reply: Reply) {
        self.actions.push_back(Action::Reply(reply));
    }

    fn next_id(&mut self) -> JobId {
        self.jobs_started += 1;
        JobId(self.jobs_started)
    }

    /// Starts the job that the state waits for.
    fn start(&mut self, job: Job) {
        let id = self.next_id();
        self.awaited = Some(id);
        self.actions.push_back(Action::Start(id, job));
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
        self.told = now;
    }
}

/// What the server has of a file that is offered.
fn offer_reply(progress: &Progress, tag: Option<Tag>) -> Reply {
    let Some(tag) = tag.filter(|_| progress.frontier() > 0) else {
        return Reply::new(Code::Nothing);
    };
    let reply = Reply::new(Code::Have)
        .with("offset", progress.frontier())
        .with("tag", tag);
    let bad = progress.bad_runs();
    if bad.is_empty() {
        reply
    } else {
        reply.with("bad", bad)
    }
}
