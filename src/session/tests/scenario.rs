//! A session that is already in the state that a test is about.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    begin,
    driver::{Disk, at, data_frame, digest_of, receive_in_session},
};
use crate::{
    auth::{Account, Accounts, CramVerifier, Password, Rights, ScramVerifier, UserName},
    digest::{Engine, FileDigests, Md5Digest, RootHasher, SEGMENT_BYTES},
    limits::{ANSWER_DEADLINE, IDLE_DEADLINE, SCRAM_ITERATIONS_MIN, STALL_DEADLINE},
    progress::{Progress, segment_count, segment_length},
    session::{Action, Job, JobId, LoginBegun, Memory, Outcome, Refusal, Session, run_jobs},
    wire::{Code, Frame, Greeting, Mechanism, Mtime, Reply, frame_bytes},
};

/// The deadlines, for tests that let them pass.
pub(super) const IDLE: Duration = IDLE_DEADLINE;
pub(super) const ANSWER: Duration = ANSWER_DEADLINE;
pub(super) const STALL: Duration = STALL_DEADLINE;

/// A session, what it said, and the jobs that it waits for.
pub(super) struct Scenario {
    pub(super) session: Session,
    pub(super) now: Instant,
    pub(super) disk: Disk,
    pub(super) jobs: Vec<(JobId, Job)>,
    said: Vec<String>,
}

impl Scenario {
    pub(super) fn new() -> Self {
        Self::greeted(Greeting::default())
    }

    /// Nobody is logged in yet.
    pub(super) fn nobody() -> Self {
        let login = vec![Mechanism::ScramSha256, Mechanism::CramMd5, Mechanism::Anonymous];
        Self::greeted(Greeting { login, ..Greeting::default() })
    }

    /// Somebody with these rights is logged in.
    pub(super) fn user(rights: Rights) -> Self {
        let mut scenario = Self::nobody();
        scenario.line("auth anonymous");
        let account = Arc::new(Account::new("ann".parse().unwrap(), rights));
        scenario.done(Outcome::HomeOpened { account, banner: None });
        scenario.said.clear();
        scenario
    }

    /// An action runs.
    pub(super) fn to_running() -> Self {
        let mut scenario = Self::user(Rights::ALL);
        scenario.line("run disk arg=/").done(Outcome::ActionStarted);
        assert_eq!(scenario.said(), ["start Run", "210"]);
        scenario
    }

    fn greeted(greeting: Greeting) -> Self {
        let now = begin();
        let session = Session::new(Arc::new(greeting), Memory::default(), now);
        let mut scenario =
            Self { session, now, disk: Disk::new(), jobs: Vec::new(), said: Vec::new() };
        scenario.act();
        scenario.said.clear();
        scenario
    }

    /// A file of this size is open for a get.
    pub(super) fn to_await_offset_get(size: u64) -> Self {
        let mut scenario = Self::new();
        scenario.line("get /f");
        scenario.done(opened(size));
        scenario.said.clear();
        scenario
    }

    /// A partial with this much in it is open for a put.
    pub(super) fn to_await_offset_put(progress: Progress) -> Self {
        let mut scenario = Self::new();
        scenario.line(&put_line(progress.size(), ""));
        let tag = Some("t".parse().unwrap());
        scenario.done(Outcome::PartialOpened { progress, tag });
        scenario.said.clear();
        scenario
    }

    pub(super) fn to_streaming_out(size: u64) -> Self {
        let mut scenario = Self::to_await_offset_get(size);
        scenario.line("402");
        scenario.said.clear();
        scenario
    }

    pub(super) fn to_streaming_in(progress: Progress) -> Self {
        let offset = progress.frontier();
        let mut scenario = Self::to_await_offset_put(progress);
        scenario.line(&format!("426 offset={offset}"));
        assert_eq!(scenario.said(), [""; 0]);
        scenario
    }

    /// A stream from the client that was refused in the middle of a data frame.
    pub(super) fn to_discarding() -> Self {
        let mut scenario = Self::to_streaming_in(Progress::new(1000));
        scenario.frames(&data_frame(0, &[0; 1000])[..100]);
        scenario.session.handle_write_failed(Reply::new(Code::NoSpace), scenario.now);
        assert_eq!(scenario.said(), ["report Put", "release mark", "452"]);
        scenario
    }

    /// Everything was sent; the client owes its verdict.
    pub(super) fn to_await_verdict(size: u64) -> Self {
        let mut scenario = Self::to_streaming_out(size);
        scenario.send_all();
        scenario
    }

    /// Everything was received and is right.
    pub(super) fn to_committing() -> Self {
        let mut scenario = Self::to_streaming_in(Progress::new(5));
        scenario.frames(&whole_stream(b"hello"));
        assert_eq!(scenario.said(), ["start Commit"]);
        scenario
    }

    pub(super) fn line(&mut self, line: &str) -> &mut Self {
        self.session.handle_line(line.as_bytes(), self.now);
        self.act();
        self
    }

    pub(super) fn frames(&mut self, input: &[u8]) -> &mut Self {
        receive_in_session(&mut self.session, input, &mut self.disk, self.now);
        self.act();
        self
    }

    /// The oldest job is done.
    pub(super) fn done(&mut self, outcome: Outcome) -> &mut Self {
        let (id, _) = self.jobs.remove(0);
        self.outcome(id, outcome)
    }

    pub(super) fn outcome(&mut self, id: JobId, outcome: Outcome) -> &mut Self {
        self.session.handle_outcome(id, outcome, self.now);
        self.act();
        self
    }

    pub(super) fn after(&mut self, time: Duration) -> &mut Self {
        self.now += time;
        self.session.handle_timeout(self.now);
        self.act();
        self
    }

    /// Sends a file of zeros to its end, or to where the peer stops taking it.
    pub(super) fn send_all(&mut self) -> &mut Self {
        while !self.send_step(1 << 20) {}
        self.act();
        self
    }

    /// One step; whether it was the last.
    pub(super) fn send_step(&mut self, most: usize) -> bool {
        let outgoing = self.session.outgoing().unwrap();
        match outgoing.next_frame() {
            Some(Frame::End { .. }) => {
                self.session.handle_sent(self.now);
                return true;
            }
            Some(_) => return false,
            None => {}
        }
        let (engine, mut jobs) = (Engine::new(), Vec::new());
        let zeros = vec![0; most];
        if let Some(read) = outgoing.next_to_send() {
            let bytes = &zeros[..read.length.min(most)];
            outgoing.read_to_send(read, 0..bytes.len(), &mut jobs);
            run_jobs(&engine, &mut jobs, bytes);
            outgoing.hashed(jobs.into_iter());
            outgoing.data_header(bytes.len());
            outgoing.sent(bytes.len());
        } else if let Some(read) = outgoing.next_to_check() {
            let bytes = &zeros[..read.length.min(most)];
            outgoing.read_to_check(read, 0..bytes.len(), &mut jobs);
            run_jobs(&engine, &mut jobs, bytes);
            outgoing.hashed(jobs.into_iter());
        }
        self.session.handle_moved(self.now);
        false
    }

    /// What was said and done since it was asked last.
    pub(super) fn said(&mut self) -> Vec<String> {
        self.act();
        std::mem::take(&mut self.said)
    }

    pub(super) fn act(&mut self) {
        while let Some(action) = self.session.poll_action() {
            self.said.push(match action {
                Action::Reply(reply) => reply.to_string(),
                Action::Start(id, job) => {
                    let name = format!("{job:?}");
                    let name = name.split([' ', '(']).next().unwrap().to_owned();
                    self.jobs.push((id, job));
                    format!("start {name}")
                }
                Action::Release(None) => "release".to_owned(),
                Action::Release(Some(_)) => "release mark".to_owned(),
                Action::Remember(_) => "remember".to_owned(),
                Action::Forget => "forget".to_owned(),
                Action::Report(report) => format!("report {:?}", report.direction),
                Action::LoginFailed(name) => format!("login failed {name}"),
                Action::Refused(Refusal { what, name, .. }) => format!("refused {what} {name:?}"),
                Action::EndAction => "end action".to_owned(),
                Action::Pulse => "pulse".to_owned(),
                Action::Close => "close".to_owned(),
            });
        }
    }
}

pub(super) fn put_line(size: u64, more: &str) -> String {
    let owner = "00000000000000000000000000000001";
    format!("put /f size={size} mtime=0.000000000 tag=t owner={owner}{more}")
}

pub(super) const PASSWORD: &str = "a right password";

/// What the user file comes to for a name: there is ann, who has [`PASSWORD`], and bob, who is
/// locked.
pub(super) fn found(name: &str, not_before: Instant) -> Outcome {
    let password = Password::new(PASSWORD).unwrap();
    let mut accounts = Accounts::new([7; 32]);
    for (user, locked) in [("ann", false), ("bob", true)] {
        let account = Account {
            scram: Some(ScramVerifier::new(&password, [1; 16], SCRAM_ITERATIONS_MIN)),
            cram_md5: Some(CramVerifier::new(&password)),
            locked,
            ..Account::new(user.parse().unwrap(), Rights::READ)
        };
        assert!(accounts.put(account));
    }
    let (candidate, nonce) = (accounts.find(name), [9; 18]);
    Outcome::AccountFound(Box::new(LoginBegun { candidate, nonce, not_before }))
}

pub(super) fn home_opened(account: Option<Arc<Account>>) -> Outcome {
    let nobody = || Arc::new(Account::new(UserName::anonymous(), Rights::READ));
    Outcome::HomeOpened { account: account.unwrap_or_else(nobody), banner: None }
}

pub(super) fn opened(size: u64) -> Outcome {
    knowing(size, FileDigests::default())
}

/// A source is open of which so much is known.
pub(super) fn knowing(size: u64, digests: FileDigests) -> Outcome {
    Outcome::SourceOpened { size, mtime: Mtime::default(), tag: "t".parse().unwrap(), digests }
}

/// What there is of a file when its first bytes have been received.
pub(super) fn progress_of(source: &[u8], leaves: u64) -> Progress {
    let mut progress = Progress::new(source.len() as u64);
    for leaf in source.chunks(32_768).take(at(leaves)) {
        progress.push_leaf(Md5Digest::of(leaf));
    }
    progress
}

pub(super) fn root_of(source: &[u8]) -> Md5Digest {
    let size = source.len() as u64;
    let mut root = RootHasher::new();
    for segment in 0..segment_count(size) {
        root.push(digest_of(source, segment));
    }
    root.finish(size)
}

/// The digest frame of a segment.
pub(super) fn segment_frame(source: &[u8], segment: u64) -> Vec<u8> {
    frame_bytes(&Frame::Segment { segment, digest: digest_of(source, segment) })
}

pub(super) fn end_frame(source: &[u8]) -> Vec<u8> {
    frame_bytes(&Frame::End { size: source.len() as u64, root: root_of(source), md5: None })
}

/// The data of a segment in one frame.
pub(super) fn segment_data(source: &[u8], segment: u64) -> Vec<u8> {
    let start = segment * SEGMENT_BYTES;
    let end = start + segment_length(segment, source.len() as u64);
    data_frame(start, &source[at(start)..at(end)])
}

/// Everything that a put of `source` sends.
pub(super) fn whole_stream(source: &[u8]) -> Vec<u8> {
    let mut stream = Vec::new();
    for segment in 0..segment_count(source.len() as u64) {
        stream.extend(segment_data(source, segment));
        stream.extend(segment_frame(source, segment));
    }
    stream.extend(end_frame(source));
    stream
}
