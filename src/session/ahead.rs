//! Puts ahead of their answers: small files into memory, and then, many at once, onto the disk.
//!
//! The frames of such a put follow its line at once, so that a client can send one file behind the
//! other. What was verified joins a [`Group`], and so does every answer that is given meanwhile, for
//! answers come in the order of the commands. When the input runs dry, or the group is full, one
//! job makes all of it durable; then the answers are said. Meanwhile the next group comes in.

use std::{sync::Arc, time::Instant};

use super::{
    Action, Direction, Incoming, Job, Outcome, Piece, Report, Session, Settled, SmallFile, Stored,
    Verdict, Violation,
    actions::JobId,
    gives_up, lost_job,
    memory::Claim,
    run_jobs,
    state::{Ending, Paced, State, Stream, Transfer, Work},
};
use crate::{
    digest::{Engine, FileDigests, Md5Digest},
    limits::{
        HELD_BYTES_MAX, HELD_FILE_BYTES_MAX, HELD_FILES_MAX, HELD_OVERHEAD_BYTES, PATH_BYTES_MAX,
    },
    progress::Progress,
    wire::{Code, Command, Mtime, Owner, PutOffer, RemotePath, Reply},
};

/// A small file on its way into memory.
#[derive(Debug)]
pub(super) struct Ahead {
    transfer: Transfer,
    incoming: Incoming,
    paced: Paced,
    mtime: Mtime,
    owner: Owner,
    replace: bool,
    content: Vec<u8>,
    claim: Claim,
}

/// What waits to be answered, in the order of the commands.
#[derive(Debug, Default)]
pub(super) struct Group {
    files: Vec<SmallFile>,
    bytes: usize,
    answers: Vec<Waiting>,
}

/// A group whose files are being made durable.
#[derive(Debug)]
pub(super) struct Storing {
    pub(super) job: JobId,
    group: Group,
}

#[derive(Debug)]
enum Waiting {
    /// The next of the files.
    File(Box<Summary>),
    /// An answer that is known by now.
    Reply(Reply),
}

/// What the largest file takes.
const LARGEST_BYTES: usize = HELD_FILE_BYTES_MAX + 2 * PATH_BYTES_MAX + HELD_OVERHEAD_BYTES;

/// What is reported of a file.
#[derive(Debug)]
struct Summary {
    path: RemotePath,
    began: Instant,
    bytes: u64,
    root: Md5Digest,
    md5: Option<Md5Digest>,
}

impl Group {
    pub(super) const fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Whether the answer to another put can join, and its file, whatever its size.
    pub(super) const fn has_room(&self) -> bool {
        self.answers.len() < HELD_FILES_MAX && self.bytes + LARGEST_BYTES <= HELD_BYTES_MAX
    }

    pub(super) fn push_reply(&mut self, reply: Reply) {
        self.answers.push(Waiting::Reply(reply));
    }

    fn push_file(&mut self, file: SmallFile, summary: Summary) {
        self.bytes += file.claim.bytes();
        self.files.push(file);
        self.answers.push(Waiting::File(Box::new(summary)));
    }
}

impl Summary {
    fn report(self, verdict: Verdict) -> Report {
        Report {
            direction: Direction::Put,
            path: self.path,
            offset: 0,
            bytes: self.bytes,
            hashed: self.bytes,
            began: self.began,
            root: Some(self.root),
            md5: self.md5,
            verdict,
        }
    }
}

impl Ahead {
    /// Whether, with what has come so far, as much came through as buys time.
    pub(super) fn moved_on(&mut self) -> bool {
        self.paced.moved_on(self.incoming.moved_bytes())
    }

    pub(super) fn report(&self, verdict: Verdict) -> Report {
        let bytes = self.incoming.received_bytes();
        Report {
            direction: Direction::Put,
            path: self.transfer.path.clone(),
            offset: 0,
            bytes,
            hashed: bytes,
            began: self.transfer.began,
            root: None,
            md5: None,
            verdict,
        }
    }
}

/// Into memory.
impl Session {
    /// Whether answers wait, for [`Session::handle_dry`] or for the disk.
    #[must_use]
    pub const fn holds_answers(&self) -> bool {
        self.storing.is_some() || !self.group.is_empty()
    }

    /// A put whose frames follow at once: into memory if it is small and there is some, otherwise
    /// into a partial that begins anew.
    pub(super) fn put_ahead(&mut self, offer: PutOffer, now: Instant) {
        let small = usize::try_from(offer.size).ok().filter(|&size| size <= HELD_FILE_BYTES_MAX);
        let beside = 2 * offer.path.as_bytes().len() + HELD_OVERHEAD_BYTES;
        let claim = small.and_then(|size| self.memory.claim(size + beside));
        let Some(claim) = claim else {
            if self.holds_answers() {
                return self.once_answered(Some(offer), now);
            }
            return self.open_partial(offer, true, now);
        };
        let replace = self.may_replace();
        let PutOffer { path, size, mtime, tag: _, owner, digest, ahead: _ } = offer;
        let ahead = Ahead {
            transfer: Transfer { path, offset: 0, began: now },
            incoming: Incoming::new(Progress::new(size), digest),
            paced: Paced::default(),
            mtime,
            owner,
            replace,
            content: Vec::new(),
            claim,
        };
        self.enter(State::Streaming(Stream::Ahead(Box::new(ahead))), now);
    }

    /// Bytes that came, while [`Wants::Ahead`](super::Wants::Ahead) is said; returns how many of them
    /// belonged to the file.
    pub fn handle_ahead(&mut self, engine: &Engine, input: &[u8], now: Instant) -> usize {
        let State::Streaming(Stream::Ahead(ahead)) = &mut self.state else {
            return 0;
        };
        let (mut pieces, mut jobs) = (Vec::new(), Vec::new());
        let parsed = ahead.incoming.parse(input, &mut pieces, &mut jobs);
        run_jobs(engine, &mut jobs, input);
        ahead.incoming.hashed(jobs.into_iter());
        for piece in pieces {
            let State::Streaming(Stream::Ahead(ahead)) = &mut self.state else {
                break;
            };
            match piece {
                // A file of one segment comes in its order: see `Incoming::parse`.
                Piece::Data { offset, range } => {
                    let bytes = input.get(range).unwrap_or_default();
                    debug_assert_eq!(offset, ahead.content.len() as u64);
                    if ahead.content.is_empty() {
                        // What was claimed, and not up to twice that.
                        let size = ahead.incoming.progress().size();
                        ahead.content.reserve_exact(usize::try_from(size).unwrap_or(0));
                    }
                    ahead.content.extend_from_slice(bytes);
                    ahead.incoming.wrote(offset, bytes);
                }
                Piece::Frame(frame) => {
                    let settled = ahead.incoming.settle(frame);
                    self.settled_ahead(settled, now);
                }
            }
        }
        match parsed {
            Ok(taken) => {
                self.handle_moved(now);
                taken
            }
            Err(violation) => {
                self.settled_ahead(Err(violation), now);
                input.len()
            }
        }
    }

    /// What a frame of a small file came to.
    fn settled_ahead(&mut self, settled: Result<Settled, Violation>, now: Instant) {
        let ahead = match self.take_state() {
            State::Streaming(Stream::Ahead(ahead)) => ahead,
            state => {
                self.state = state;
                return;
            }
        };
        let reply = match settled {
            Ok(Settled::Good | Settled::Bad { .. }) => {
                self.state = State::Streaming(Stream::Ahead(ahead));
                return;
            }
            Ok(Settled::Whole) => match ahead.incoming.check_md5() {
                Ok(md5) => return self.joins(*ahead, md5, now),
                Err(_) => Reply::text(Code::Differs, "the MD5 of the whole file differs"),
            },
            Ok(Settled::Differs(_)) => Reply::text(Code::Differs, "what came differs"),
            Ok(Settled::Aborted(reply)) => {
                let code = if gives_up(reply.code) { reply.code } else { Code::Failed };
                Reply::text(code, "given up by the client")
            }
            Err(violation @ (Violation::Hopeless | Violation::Digest)) => {
                Reply::text(Code::Differs, &violation.to_string())
            }
            Err(violation @ Violation::Size) => {
                Reply::text(Code::Malformed, &violation.to_string())
            }
            // Nobody knows where the next frame begins.
            Err(
                violation @ (Violation::Frame(_)
                | Violation::OutOfPlace
                | Violation::Abort(_)
                | Violation::AfterEnd),
            ) => {
                self.report(ahead.report(Verdict::Unfinished(violation.to_string())));
                let reply = Reply::text(Code::Malformed, &violation.to_string());
                return self.answer_last(reply, now);
            }
        };
        self.report(ahead.report(Verdict::Unfinished(reply.to_string())));
        let rest = ahead.incoming.pass_over();
        self.pass_over(rest, reply, now);
    }

    /// A file is verified: it waits for others.
    fn joins(&mut self, ahead: Ahead, md5: Option<Md5Digest>, now: Instant) {
        let progress = ahead.incoming.progress();
        let Some(root) = progress.root() else {
            return self.answer(lost_job(), now);
        };
        let segments = Some(Arc::from(progress.segments()));
        let Ahead { transfer: Transfer { path, began, .. }, .. } = ahead;
        let Ahead { mtime, owner, replace, content, claim, .. } = ahead;
        let bytes = content.len() as u64;
        let summary = Summary { path: path.clone(), began, bytes, root, md5 };
        let digests = FileDigests { segments, md5 };
        let file = SmallFile { path, mtime, owner, replace, content, digests, claim };
        self.group.push_file(file, summary);
        self.await_command(now);
    }
}

/// Onto the disk.
impl Session {
    /// Whether a line, where a command is awaited, can join what waits. While a group is being stored, the
    /// next comes in only as long as half of the memory of all is free: the other half is for those who have
    /// nothing yet.
    pub(super) fn joins_group(&self, line: &[u8]) -> bool {
        if !self.holds_answers() {
            return true;
        }
        let may_wait = self.storing.is_none() || self.memory.is_plenty();
        may_wait && self.group.has_room() && Command::has_frames_behind(line)
    }

    /// The input has nothing more that could be taken now: what waits is made durable and answered, unless
    /// something is; then it waits for that. Returns whether there is more to be done at once.
    pub fn handle_dry(&mut self, now: Instant) -> bool {
        let goes_on = matches!(
            self.state,
            State::AwaitCommand(Work::Idle)
                | State::Streaming(Stream::Ahead(_) | Stream::Discarding(_))
        );
        let is_due = goes_on && self.storing.is_none() && !self.group.is_empty();
        if is_due {
            self.store_group();
            self.told = now;
        }
        is_due
    }

    /// Has what waits made durable, beside whatever goes on.
    fn store_group(&mut self) {
        let mut group = std::mem::take(&mut self.group);
        let files = std::mem::take(&mut group.files);
        if files.is_empty() {
            return self.answer_group(group, &[]);
        }
        let job = self.start(Job::StoreTogether(files));
        self.storing = Some(Box::new(Storing { job, group }));
    }

    /// Opens an upload, or without one closes the line, as soon as everything before it is answered.
    fn once_answered(&mut self, then: Option<PutOffer>, now: Instant) {
        self.enter(State::AwaitDigest(Ending::Together(then.map(Box::new))), now);
        self.go_on_if_answered(now);
    }

    fn go_on_if_answered(&mut self, now: Instant) {
        let State::AwaitDigest(Ending::Together(then)) = &mut self.state else {
            return;
        };
        let then = then.take();
        if self.storing.is_none() && !self.group.is_empty() {
            self.store_group();
        }
        if self.storing.is_some() {
            self.state = State::AwaitDigest(Ending::Together(then));
        } else if let Some(offer) = then {
            self.open_partial(*offer, true, now);
        } else {
            self.actions.push_back(Action::Close);
            self.enter(State::Closed, now);
        }
    }

    /// They are visible, or are not.
    pub(super) fn stored_together(&mut self, outcome: Outcome, now: Instant) {
        let Some(storing) = self.storing.take() else { return };
        let group = storing.group;
        let count = group.answers.iter().filter(|it| matches!(it, Waiting::File(_))).count();
        let stored = match outcome {
            Outcome::StoredTogether(stored) => stored,
            Outcome::Failed(reply) => vec![Stored::Failed(reply); count],
            Outcome::SourceOpened { .. }
            | Outcome::PartialOpened { .. }
            | Outcome::CommittedBefore { .. }
            | Outcome::AccountFound(_)
            | Outcome::HomeOpened { .. }
            | Outcome::ActionStarted
            | Outcome::Checkpointed
            | Outcome::Committed
            | Outcome::Answer(_) => Vec::new(),
        };
        self.answer_group(group, &stored);
        // The client has waited for us.
        if matches!(self.state, State::AwaitCommand(Work::Idle)) {
            self.since = now;
        }
        self.go_on_if_answered(now);
    }

    /// Says the answers of a group, before which there are none.
    fn answer_group(&mut self, group: Group, stored: &[Stored]) {
        let mut stored = stored.iter();
        for waiting in group.answers {
            let summary = match waiting {
                Waiting::File(summary) => summary,
                Waiting::Reply(reply) => {
                    self.actions.push_back(Action::Reply(reply));
                    continue;
                }
            };
            let said = |code| {
                let reply = Reply::new(code).with("root", summary.root);
                summary.md5.map_or_else(|| reply.clone(), |md5| reply.clone().with("md5", md5))
            };
            let (reply, verdict) = match stored.next() {
                Some(Stored::Visible) => (said(Code::Identical), Verdict::Identical),
                Some(Stored::Before) => (said(Code::NothingLeft), Verdict::Unchanged),
                Some(Stored::Failed(reply)) => {
                    (reply.clone(), Verdict::Unfinished(reply.to_string()))
                }
                None => (lost_job(), Verdict::Unfinished(lost_job().to_string())),
            };
            self.report(summary.report(verdict));
            self.actions.push_back(Action::Reply(reply));
        }
    }

    /// The peer is out of step: says why behind what waits, and closes.
    pub(super) fn answer_last(&mut self, reply: Reply, now: Instant) {
        if !self.holds_answers() {
            self.state = State::AwaitCommand(Work::Idle);
            return self.end(reply, now);
        }
        self.group.push_reply(reply);
        self.once_answered(None, now);
    }

    /// The line broke: nobody hears what waits, and it is offered again. What is being stored comes to its
    /// end without us.
    pub(super) fn let_go_groups(&mut self, why: &str) {
        let storing = self.storing.take().map(|it| it.group);
        let group = std::mem::take(&mut self.group);
        for waiting in storing.into_iter().chain([group]).flat_map(|it| it.answers) {
            if let Waiting::File(summary) = waiting {
                let report = summary.report(Verdict::Unfinished(why.to_owned()));
                self.actions.push_back(Action::Report(report));
            }
        }
    }
}
