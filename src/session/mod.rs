//! The server's side of one connection, as a pure state machine.
//!
//! It does no input or output of its own and never reads a clock: whoever owns the socket feeds
//! it lines, settled frames, outcomes of jobs and the time, and carries out the [`Action`]s that
//! it polls. Bulk bytes do not pass through it: [`Incoming`] and [`Outgoing`], which live inside
//! its Streaming state, only say which bytes go where. Both are used by the client as well.
//!
//! Calling order: any `handle_*`, then [`Session::poll_action`] until it gives nothing.
//!
//! `state` has the states and the diagram. Each state's transitions are in the file of its name;
//! what concerns them all is here: whose turn it is, deadlines, and the end.

mod actions;
mod ahead;
mod await_command;
mod await_digest;
mod await_offset;
mod discard;
mod incoming;
mod leaves;
mod login;
mod md5_job;
mod md5_track;
mod memory;
mod outgoing;
mod parser;
mod segment_digests;
mod state;
mod streaming;
#[cfg(test)]
mod tests;
mod violation;

use std::{
    collections::VecDeque,
    mem,
    sync::Arc,
    time::{Duration, Instant},
};

pub use self::{
    actions::{
        Action, Direction, Job, JobId, LoginBegun, Outcome, Refusal, Report, SmallFile, Stored,
        Verdict,
    },
    discard::Discard,
    incoming::{Incoming, Piece, Settled},
    leaves::{ChunkJobs, LeafJob, run_jobs, run_together},
    md5_job::Md5Job,
    memory::Memory,
    outgoing::{OfferError, Outgoing, Read},
    state::Wants,
    violation::Violation,
};
use self::{
    ahead::{Ahead, Group, Storing},
    login::Login,
    state::{Access, Ending, State, Stream, Work},
};
use crate::{
    auth::Account,
    limits::{LOGIN_DEADLINE, LOGIN_TRIES_MAX, WORKING_INTERVAL},
    progress::Mark,
    wire::{Code, Greeting, Reply},
};

/// One connection's state, its deadline, and the actions it asks for.
#[derive(Debug)]
pub struct Session {
    greeting: Arc<Greeting>,
    access: Access,
    state: State,
    actions: VecDeque<Action>,
    /// When this state, or the last leaf in it, began.
    since: Instant,
    /// When the client was last told that work goes on.
    told: Instant,
    jobs_started: u64,
    /// The job that the state waits for.
    awaited: Option<JobId>,
    /// Small files, and answers, that wait for others. Only while a command is awaited, frames that come
    /// ahead of their answer, or the answers themselves.
    group: Group,
    /// Those before them, which are being made durable.
    storing: Option<Box<Storing>>,
    memory: Memory,
}

/// What can be asked at any time.
impl Session {
    /// A new connection, which is greeted so. Unless the server has no logins, all that can be
    /// done is to log in. `memory` is that of all connections.
    #[must_use]
    pub fn new(greeting: Arc<Greeting>, memory: Memory, now: Instant) -> Self {
        let hello = Action::Reply(Reply::greeting(&greeting.to_string()));
        let access = if greeting.login.is_empty() {
            Access::Everybody
        } else {
            Access::Nobody { by: now + LOGIN_DEADLINE, tries_left: LOGIN_TRIES_MAX }
        };
        Self {
            greeting,
            access,
            state: State::AwaitCommand(Work::Idle),
            actions: VecDeque::from([hello]),
            since: now,
            told: now,
            jobs_started: 0,
            awaited: None,
            group: Group::default(),
            storing: None,
            memory,
        }
    }

    /// The next thing to do.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if action.is_none() {
            // Four actions are more than the rest of a connection that does nothing.
            self.actions = VecDeque::new();
        }
        action
    }

    /// What can be taken from the peer.
    #[must_use]
    pub fn wants(&self) -> Wants {
        self.state.wants()
    }

    /// Whether a line is for now. Beside a stream only a refusal is: a command that was pipelined
    /// waits for the end of it. Behind files that wait to be stored, only a further one is.
    #[must_use]
    pub fn takes_line(&self, line: &[u8]) -> bool {
        match self.state {
            State::Streaming(Stream::Out(_) | Stream::Action) => line.first() == Some(&b'4'),
            State::AwaitCommand(Work::Idle) => self.joins_group(line),
            State::AwaitCommand(_)
            | State::AwaitOffset(_)
            | State::Streaming(_)
            | State::AwaitDigest(_)
            | State::Closed => true,
        }
    }

    /// Who is logged in.
    #[must_use]
    pub const fn account(&self) -> Option<&Arc<Account>> {
        match &self.access {
            Access::User(account) => Some(account),
            Access::Nobody { .. } | Access::Everybody => None,
        }
    }

    /// Bytes received since a checkpoint began that still runs: they are ahead of the disk.
    #[must_use]
    pub fn ahead_of_disk_bytes(&self) -> u64 {
        self.state.ahead_of_disk_bytes()
    }

    /// Whether an action runs, whose output goes to the client.
    #[must_use]
    pub const fn runs_action(&self) -> bool {
        matches!(self.state, State::Streaming(Stream::Action))
    }

    /// Whether the connection is to be closed once everything has been sent.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether more than the frames of this file may be coming in: then no more is to be read at
    /// once than can be kept.
    #[must_use]
    pub fn comes_ahead(&self) -> bool {
        matches!(&self.state, State::Streaming(Stream::In(receiving)) if receiving.ahead)
    }

    /// The receiving end, while frames are wanted.
    pub fn incoming(&mut self) -> Option<&mut Incoming> {
        let receiving = self.state.receiving()?;
        Some(&mut receiving.incoming)
    }

    /// The sending end, while there is something to send.
    pub fn outgoing(&mut self) -> Option<&mut Outgoing> {
        let sending = self.state.sending()?;
        Some(&mut sending.outgoing)
    }

    /// Whether the MD5 of a whole file follows the bytes that are moved next: it takes one lane.
    #[must_use]
    pub fn follows_md5(&self) -> bool {
        self.state.follows_md5()
    }

    /// What has to be read and hashed before the answer: offset and length of the rest, which is
    /// not empty.
    #[must_use]
    pub fn hashing(&self) -> Option<(u64, u64)> {
        self.state.hashing()
    }

    /// When [`Session::handle_timeout`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let at = match (self.state.login(), self.patience()) {
            (Some(Login::HeldBack(begun, _)), _) => begun.not_before,
            (_, Some(patience)) => self.since + patience,
            (_, None) => self.told + WORKING_INTERVAL,
        };
        self.login_ends().map_or(at, |by| at.min(by))
    }

    /// How long the peer may take; `None` while it waits for us.
    fn patience(&self) -> Option<Duration> {
        let waits = self.storing.is_some() && matches!(self.state, State::AwaitCommand(Work::Idle));
        if waits { None } else { self.state.patience() }
    }

    /// Until when somebody has to be logged in. While the server itself is at work for the login,
    /// the client owes nothing.
    fn login_ends(&self) -> Option<Instant> {
        let works = |login: &Login| matches!(login, Login::Finding(..) | Login::OpeningHome(_));
        match self.access {
            Access::Nobody { by, .. } if !self.is_closed() => {
                (!self.state.login().is_some_and(works)).then_some(by)
            }
            Access::Nobody { .. } | Access::User(_) | Access::Everybody => None,
        }
    }
}

/// What happens whatever the state is.
impl Session {
    /// A line came in.
    pub fn handle_line(&mut self, line: &[u8], now: Instant) {
        match self.take_state() {
            State::AwaitCommand(Work::Idle) => self.command(line, now),
            State::AwaitCommand(Work::Login(login)) => match *login {
                Login::AwaitProof(begun) => self.proof(begun, line, now),
                login @ (Login::Finding(..) | Login::HeldBack(..) | Login::OpeningHome(_)) => {
                    self.state = State::AwaitCommand(Work::Login(Box::new(login)));
                }
            },
            State::AwaitOffset(offer) => self.offset(*offer, line, now),
            State::Streaming(stream) => self.line_beside_stream(stream, line, now),
            State::AwaitDigest(Ending::Sent(sending)) => self.verdict(sending, line, now),
            // Nothing is read while a job is awaited, nor after the end.
            state @ (State::AwaitCommand(_) | State::AwaitDigest(_) | State::Closed) => {
                self.state = state;
            }
        }
    }

    /// A job is done. Outcomes of jobs that nobody waits for any more are passed over.
    pub fn handle_outcome(&mut self, id: JobId, outcome: Outcome, now: Instant) {
        if self.state.checkpoint().is_some_and(|running| running == id) {
            return self.checkpoint_done(outcome, now);
        }
        if self.storing.as_ref().is_some_and(|it| it.job == id) {
            return self.stored_together(outcome, now);
        }
        if self.awaited != Some(id) {
            return self.came_too_late(&outcome);
        }
        self.awaited = None;
        match self.take_state() {
            State::AwaitCommand(Work::Login(login)) => self.login_job_done(*login, outcome, now),
            State::AwaitCommand(work) => self.command_done(work, outcome, now),
            State::Streaming(Stream::InAgain(receiving, want)) => {
                self.journal_knows(receiving, want, outcome, now);
            }
            State::AwaitDigest(Ending::Commit(commit)) => self.committed(*commit, outcome, now),
            // These wait for no job.
            state @ (State::AwaitOffset(_)
            | State::Streaming(_)
            | State::AwaitDigest(_)
            | State::Closed) => self.state = state,
        }
    }

    /// What a job opened for a session that has ended is let go of.
    fn came_too_late(&mut self, outcome: &Outcome) {
        let opened = matches!(
            outcome,
            Outcome::SourceOpened { .. } | Outcome::PartialOpened { .. } | Outcome::ActionStarted
        );
        if opened && self.is_closed() {
            self.release(None);
        }
    }

    /// The job that [`Session::md5_job`] gave has run.
    pub fn handle_hashed(&mut self, job: Md5Job, now: Instant) {
        match &mut self.state {
            State::AwaitCommand(Work::Md5(md5, _)) => {
                job.put_back(md5);
                self.answer_if_hashed(now);
            }
            State::AwaitDigest(Ending::Md5(receiving)) => {
                receiving.incoming.md5_followed(job);
                self.commit_if_hashed(now);
            }
            State::AwaitCommand(_)
            | State::AwaitOffset(_)
            | State::Streaming(_)
            | State::AwaitDigest(_)
            | State::Closed => {}
        }
    }

    /// The source can't be read any further, or has changed; or the partial can't be read back.
    /// See [`Session::poll_abort`].
    pub fn handle_source_failed(&mut self, reply: Reply, now: Instant) {
        match self.take_state() {
            State::AwaitCommand(Work::Md5(..)) => {
                self.release(None);
                self.answer(reply, now);
            }
            State::Streaming(stream) => self.source_failed(stream, reply, now),
            State::AwaitDigest(Ending::Md5(receiving)) => {
                self.let_go_receiving(*receiving, &reply.to_string());
                self.answer(reply, now);
            }
            // These read nothing.
            state @ (State::AwaitCommand(_)
            | State::AwaitOffset(_)
            | State::AwaitDigest(_)
            | State::Closed) => self.state = state,
        }
    }

    /// Time has passed: tells a client that waits that work goes on, and gives up a peer that
    /// took too long. Does nothing before [`Session::deadline`].
    pub fn handle_timeout(&mut self, now: Instant) {
        if now < self.deadline() {
            return;
        }
        self.told = now;
        if self.login_ends().is_some_and(|by| now >= by) {
            self.end(Reply::text(Code::Deadline, "you took too long to log in"), now);
        } else if self.state.login().is_some_and(|login| matches!(login, Login::HeldBack(..))) {
            self.look_at_proof(now);
        } else if self.runs_action() {
            self.actions.push_back(Action::Pulse);
        } else if self.patience().is_none() {
            // Before all answers that wait.
            self.actions.push_back(Action::Reply(Reply::text(Code::Working, "still working")));
        } else if self.is_closed() {
            self.actions.push_back(Action::Close);
        } else {
            self.end(Reply::text(Code::Deadline, "you took too long"), now);
        }
    }

    /// The server itself has kept a stream from going on for so long, since its rate is limited: that
    /// was no stall. Only for a peer that then had as much ready as could be taken: to others it makes
    /// no difference.
    pub fn handle_held_up(&mut self, waited: Duration, now: Instant) {
        if matches!(self.state, State::Streaming(_)) {
            self.since = (self.since + waited).min(now);
        }
    }

    /// The line is broken, or the server goes down: lets go of what is open. What was received
    /// is kept.
    pub fn handle_broken(&mut self, why: &str) {
        self.awaited = None;
        self.let_go_groups(why);
        match self.take_state() {
            State::AwaitCommand(Work::Md5(..)) | State::AwaitOffset(_) => self.release(None),
            State::Streaming(stream) => self.let_go(stream, why),
            State::AwaitDigest(ending) => self.let_go_ending(ending, why),
            State::AwaitCommand(
                Work::Idle
                | Work::Login(_)
                | Work::Register(_)
                | Work::StartAction(_)
                | Work::Answer
                | Work::OpenSource(..)
                | Work::OpenPartial(_)
                | Work::OpenForMd5,
            )
            | State::Closed => {}
        }
    }

    /// The account has changed; `None`: it is no more, or is locked, and so is this connection.
    pub fn handle_account(&mut self, account: Option<Arc<Account>>, now: Instant) {
        if self.account().is_none() {
            return;
        }
        match account {
            Some(account) => self.access = Access::User(account),
            None => self.end(Reply::text(Code::NotLoggedIn, "the account is closed"), now),
        }
    }

    /// Says a last line, where the client can read one, and closes; what was received is kept.
    pub fn end(&mut self, reply: Reply, now: Instant) {
        if self.is_closed() {
            return;
        }
        let heard = self.state.hears_lines();
        self.handle_broken(reply.message());
        if heard {
            self.reply(reply);
        }
        self.actions.push_back(Action::Close);
        self.enter(State::Closed, now);
    }
}

/// What transitions are made of.
impl Session {
    /// The state by value. Whoever takes it enters another or puts it back.
    const fn take_state(&mut self) -> State {
        mem::replace(&mut self.state, State::Closed)
    }

    fn enter(&mut self, state: State, now: Instant) {
        self.state = state;
        self.since = now;
        self.told = now;
        self.awaited = None;
    }

    /// Enters a state that waits for this job.
    fn enter_waiting(&mut self, state: State, job: Job, now: Instant) {
        self.enter(state, now);
        self.awaited = Some(self.start(job));
    }

    /// Starts a job.
    fn start(&mut self, job: Job) -> JobId {
        self.jobs_started += 1;
        let id = JobId(self.jobs_started);
        self.actions.push_back(Action::Start(id, job));
        id
    }

    /// Says the last line on a command: the next one is awaited.
    fn answer(&mut self, reply: Reply, now: Instant) {
        self.reply(reply);
        self.await_command(now);
    }

    fn await_command(&mut self, now: Instant) {
        self.enter(State::AwaitCommand(Work::Idle), now);
    }

    /// The peer is out of step in `state`: says why and closes.
    fn refuse(&mut self, state: State, code: Code, text: &str, now: Instant) {
        self.state = state;
        self.end(Reply::text(code, text), now);
    }

    /// Answers come in the order of the commands: behind files that wait, an answer waits as well.
    fn reply(&mut self, reply: Reply) {
        if self.holds_answers() {
            self.group.push_reply(reply);
        } else {
            self.actions.push_back(Action::Reply(reply));
        }
    }

    fn report(&mut self, report: Report) {
        self.actions.push_back(Action::Report(report));
    }

    fn release(&mut self, mark: Option<Mark>) {
        self.actions.push_back(Action::Release(mark));
    }
}

/// The answer to an outcome that is none of its job's: nobody can know what was done.
fn lost_job() -> Reply {
    Reply::text(Code::Failed, "the server lost track of its work")
}

/// Whether a client that answers with this code wants no more of the transfer.
const fn gives_up(code: Code) -> bool {
    code.number() >= 400
}
