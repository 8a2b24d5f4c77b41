//! Any events in any order: no panic, and what a session says of itself stays consistent.
//!
//! 1. Start in some state.
//! 2. Choose from a seed among lines, frames, outcomes, and everything else a reactor reports.
//! 3. After each event, look at every action and every predicate.

use std::time::{Duration, Instant};

use super::{
    driver::{Disk, Rng, data_frame, hash, receive_in_session},
    scenario::{
        Scenario, end_frame, found, home_opened, opened, progress_of, put_line, segment_frame,
        whole_stream,
    },
};
use crate::{
    digest::{Engine, LEAF_BYTES, Md5Digest, SEGMENT_BYTES},
    limits::FILE_BYTES_MAX,
    progress::Progress,
    session::{Action, Job, JobId, Outcome, Session, Stored, Wants},
    wire::{Code, Frame, Reply, frame_bytes},
};

const SEEDS: u64 = 2_000;
const EVENTS: usize = 60;

#[test]
fn no_order_of_events_makes_a_session_panic_or_contradict_itself() {
    for seed in 0..SEEDS {
        let told = Told(seed);
        let mut chaos = Chaos::new(Rng(seed));
        for _ in 0..EVENTS {
            chaos.event();
            chaos.look();
        }
        std::mem::forget(told);
    }
}

/// Whether a job opens something that belongs to the connection.
const fn opens(job: &Job) -> bool {
    matches!(job, Job::OpenSource(_) | Job::OpenPartial { .. } | Job::Run { .. })
}

struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("any events failed with seed {}", self.0);
    }
}

struct Chaos {
    rng: Rng,
    session: Session,
    now: Instant,
    disk: Disk,
    jobs: Vec<(JobId, Job)>,
    /// Whether a file belongs to the connection.
    open: bool,
    /// Whether a commit has said that it is done, or was done before.
    may_say_identical: bool,
    /// Whether an outcome was given that is none of its job's.
    confused: bool,
    closed: bool,
}

const SIZES: [u64; 8] = [
    0,
    1,
    LEAF_BYTES - 1,
    LEAF_BYTES + 1,
    3 * LEAF_BYTES,
    SEGMENT_BYTES + 1,
    2 * SEGMENT_BYTES,
    FILE_BYTES_MAX,
];

fn source(size: u64) -> Vec<u8> {
    vec![7; usize::try_from(size.min(3 * LEAF_BYTES)).unwrap()]
}

impl Chaos {
    fn new(mut rng: Rng) -> Self {
        let size = rng.pick(&SIZES);
        let progress = progress_of(&source(size.min(3 * LEAF_BYTES)), rng.below(4));
        let (scenario, open) = match rng.below(9) {
            0 => (Scenario::new(), false),
            7 => (Scenario::nobody(), false),
            8 => (Scenario::to_running(), true),
            1 => (Scenario::to_await_offset_get(size), true),
            2 => (Scenario::to_await_offset_put(progress), true),
            3 => (Scenario::to_streaming_out(size), true),
            4 => (Scenario::to_streaming_in(progress), true),
            5 => (Scenario::to_await_verdict(size.min(SEGMENT_BYTES)), true),
            _ => (Scenario::to_discarding(), false),
        };
        Self {
            rng,
            session: scenario.session,
            now: scenario.now,
            disk: scenario.disk,
            jobs: scenario.jobs,
            open,
            may_say_identical: false,
            confused: false,
            closed: false,
        }
    }

    fn event(&mut self) {
        match self.rng.below(24) {
            0..6 => {
                let line = self.any_line();
                // Behind files that wait a reactor waits as well, mostly.
                if !self.session.takes_line(line.as_bytes()) && !self.rng.one_in(9) {
                    self.session.handle_dry(self.now);
                    return;
                }
                self.session.handle_line(line.as_bytes(), self.now);
            }
            6..12 => self.input(),
            12..17 => self.outcome(),
            17..20 => self.send(),
            20 => {
                let bytes = [0; 70_000];
                let length = self.session.hashing().map_or(9, |(_, left)| left);
                let length = usize::try_from(length).unwrap_or(9).min(bytes.len());
                hash(&mut self.session, &bytes[..length], self.now);
            }
            21 => {
                let steps = [0, 1, 5, 30, 61, 121, 601];
                self.now += Duration::from_secs(self.rng.pick(&steps));
                self.session.handle_timeout(self.now);
            }
            22 if self.rng.one_in(2) => self.session.handle_moved(self.now),
            22 => drop(self.session.handle_dry(self.now)),
            23 if self.rng.one_in(2) => self.session.handle_action_ended(self.now),
            _ => self.failure(),
        }
    }

    fn failure(&mut self) {
        let reply = Reply::text(Code::Failed, "failed");
        match self.rng.below(20) {
            0 => self.session.handle_broken("broken"),
            1 => self.session.end(Reply::new(Code::GoingDown), self.now),
            2..5 => self.session.handle_write_failed(reply, self.now),
            5..9 => self.session.handle_source_failed(reply, self.now),
            9 => self.session.handle_sent(self.now),
            _ => drop(self.session.poll_abort(self.now)),
        }
    }

    fn any_number(&mut self) -> u64 {
        let numbers = [0, 1, LEAF_BYTES, SEGMENT_BYTES, 3 * LEAF_BYTES, FILE_BYTES_MAX, u64::MAX];
        if self.rng.one_in(3) { self.rng.pick(&SIZES) } else { self.rng.pick(&numbers) }
    }

    fn any_line(&mut self) -> String {
        let (n, m) = (self.any_number(), self.any_number() / SEGMENT_BYTES);
        match self.rng.below(27) {
            24 => put_line(n, " ahead=1"),
            25 => put_line(self.rng.pick(&SIZES[..4]), " ahead=1"),
            26 => format!("pot {}", put_line(n, " digest=md5 ahead=1")),
            20 => "auth scram-sha-256 data=biwsbj1hbm4scj1hYmM".to_owned(),
            21 => self.rng.pick(&["auth anonymous", "auth cram-md5 data=YW5u", "run a"]).to_owned(),
            22 => "register ann scram=x".to_owned(),
            23 => "334 data=YQ".to_owned(),
            0 => "get /f".to_owned(),
            1 => "get /f digest=md5".to_owned(),
            2 => put_line(n, ""),
            3 => put_line(n, " digest=md5"),
            4 => "md5 /f".to_owned(),
            5 => "ls / from=3".to_owned(),
            6 => "mv /a /b".to_owned(),
            7 => format!("000 offset={n}"),
            8 => format!("000 offset={n} bad={m}"),
            9 => format!("000 offset={n} bad=0-{m}"),
            10 | 11 => format!("426 offset={n}"),
            12 => "312".to_owned(),
            13 | 14 => "402".to_owned(),
            15 => format!("409 want={m}"),
            16 => format!("409 want=0-{m}"),
            17 => "226".to_owned(),
            18 => "451 enough".to_owned(),
            _ => self.rng.pick(&["", "nonsense", "quit", "409", "000", "\u{7f}"]).to_owned(),
        }
    }

    fn any_frame(&mut self) -> Vec<u8> {
        let n = self.any_number().min(FILE_BYTES_MAX);
        let whole = source(self.rng.pick(&SIZES));
        let (root, md5) = (Md5Digest::of(b""), Some(Md5Digest::of(b"x")));
        match self.rng.below(12) {
            0..4 if self.session.wants() == Wants::Ahead && self.rng.one_in(2) => {
                whole_stream(&source(self.rng.pick(&SIZES[..4])))
            }
            0..4 => {
                let offset =
                    self.session.incoming().map_or(n, |incoming| incoming.progress().frontier());
                let length = self.rng.len(1..70_000);
                data_frame(offset, &vec![7; length])
            }
            4 => data_frame(n, b"some"),
            5 if !whole.is_empty() => segment_frame(&whole, 0),
            6 => {
                let segment = n / SEGMENT_BYTES;
                frame_bytes(&Frame::Segment { segment, digest: root })
            }
            7 => end_frame(&whole),
            8 => frame_bytes(&Frame::End { size: n, root, md5: md5.filter(|_| n > 9) }),
            9 => frame_bytes(&Frame::Abort(Reply::new(Code::Failed))),
            10 => b"A\0\0\0\0\0\0\x02\0\0\0\0\0\0\0\0xx".to_vec(),
            _ => (0..40).map(|_| self.rng.next().to_le_bytes()[0]).collect(),
        }
    }

    fn input(&mut self) {
        let mut input = self.any_frame();
        for _ in 0..self.rng.below(4) {
            input.extend(self.any_frame());
        }
        if self.rng.one_in(4) {
            input.truncate(self.rng.len(0..input.len()));
        }
        match self.session.wants() {
            Wants::Frames => {
                // What lies at the end of the largest files is not kept.
                let mut elsewhere = Disk::new();
                let small = self.session.incoming().unwrap().progress().size() < 1 << 30;
                let disk = if small { &mut self.disk } else { &mut elsewhere };
                receive_in_session(&mut self.session, &input, disk, self.now);
            }
            Wants::Ahead => {
                let taken = self.session.handle_ahead(&Engine::new(), &input, self.now);
                assert!(taken <= input.len());
            }
            Wants::Discard => {
                let taken = self.session.handle_discarded(&input, self.now);
                assert!(taken <= input.len());
            }
            Wants::Lines | Wants::Nothing => {
                assert_eq!(self.session.handle_discarded(&input, self.now), 0);
                assert_eq!(self.session.handle_ahead(&Engine::new(), &input, self.now), 0);
                assert!(self.session.incoming().is_none());
            }
        }
    }

    fn outcome(&mut self) {
        if self.jobs.is_empty() {
            let id = JobId(self.rng.below(9) + 1_000);
            return self.session.handle_outcome(id, Outcome::Committed, self.now);
        }
        let which = self.rng.len(0..self.jobs.len());
        let (id, job) = self.jobs.remove(which);
        if self.rng.one_in(12) {
            self.confused = true;
            let outcome = match self.rng.below(4) {
                0 => Outcome::Committed,
                1 => Outcome::Checkpointed,
                2 => opened(5),
                _ => Outcome::Answer(vec![Reply::new(Code::Done)]),
            };
            self.may_say_identical |= matches!(job, Job::Commit { .. });
            return self.session.handle_outcome(id, outcome, self.now);
        }
        let outcome = if self.rng.one_in(6) {
            Outcome::Failed(Reply::text(Code::Failed, "failed"))
        } else {
            self.fitting(job)
        };
        self.session.handle_outcome(id, outcome, self.now);
    }

    fn fitting(&mut self, job: Job) -> Outcome {
        match job {
            Job::OpenSource(_) => {
                self.open = true;
                opened(self.rng.pick(&SIZES))
            }
            Job::OpenPartial { .. } if self.rng.one_in(5) => {
                self.may_say_identical = true;
                // Nothing is open, but the session need not know: it lets go all the same.
                self.open = !self.session.is_closed();
                Outcome::CommittedBefore { root: Md5Digest::of(b""), md5: None }
            }
            Job::OpenPartial { offer, fresh, .. } => {
                self.open = true;
                let have = if fresh || offer.size > 3 * LEAF_BYTES { 0 } else { self.rng.below(4) };
                let mut progress = Progress::new(offer.size);
                if have > 0 {
                    progress = progress_of(&source(offer.size), have);
                }
                if self.rng.one_in(2) {
                    progress.spoil(0);
                }
                Outcome::PartialOpened { progress, tag: Some("t".parse().unwrap()) }
            }
            Job::Run { .. } => {
                self.open = true;
                Outcome::ActionStarted
            }
            Job::FindAccount(name) => {
                let not_before = self.now + Duration::from_secs(self.rng.below(3));
                found(&name, not_before)
            }
            Job::OpenHome(account) => home_opened(account),
            Job::Checkpoint(_) => Outcome::Checkpointed,
            Job::Commit { .. } => {
                self.may_say_identical = true;
                Outcome::Committed
            }
            Job::StoreTogether(files) => {
                self.may_say_identical = true;
                let any = [Stored::Visible, Stored::Before, Stored::Failed(Reply::new(Code::Busy))];
                let stored = files.iter().map(|_| any[self.rng.len(0..3)].clone()).collect();
                Outcome::StoredTogether(stored)
            }
            Job::List { .. }
            | Job::Stat(_)
            | Job::MakeDir(_)
            | Job::Remove(_)
            | Job::RemoveDir(_)
            | Job::Move(..)
            | Job::Register { .. }
            | Job::Quota
            | Job::Actions => Outcome::Answer(vec![Reply::new(Code::Done)]),
        }
    }

    /// Sends what there is to be sent, without hashing: digests never come, and the end only of
    /// an empty file.
    fn send(&mut self) {
        for _ in 0..self.rng.below(6) {
            let Some(outgoing) = self.session.outgoing() else {
                return;
            };
            if let Some(Frame::End { .. }) = outgoing.next_frame() {
                return self.session.handle_sent(self.now);
            }
            let Some(read) = outgoing.next_to_send() else {
                return;
            };
            let length = read.length.min(self.rng.len(1..100_000));
            outgoing.read_to_send(read, 0..length, &mut Vec::new());
            outgoing.data_header(length);
            outgoing.sent(self.rng.len(0..length + 1));
            self.session.handle_moved(self.now);
        }
    }

    /// What has to hold whatever happened.
    fn look(&mut self) {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Reply(reply) => {
                    assert!(!self.closed, "{reply} after the end");
                    let identical = reply.code == Code::Identical;
                    assert!(!identical || self.may_say_identical, "226 without a commit");
                }
                Action::Start(id, job) => {
                    let opens = opens(&job);
                    let stays = !self.open || self.confused;
                    assert!(!opens || stays, "opens a file while another is open");
                    if opens || matches!(job, Job::Commit { .. } | Job::StoreTogether(_)) {
                        self.may_say_identical = false;
                    }
                    self.jobs.push((id, job));
                }
                Action::Release(_) => {
                    assert!(self.open || self.confused, "lets go of nothing");
                    self.open = false;
                }
                Action::Remember(_) | Action::Forget => {
                    assert!(self.open || self.confused, "nothing is open");
                }
                Action::Report(report) => assert!(report.bytes <= FILE_BYTES_MAX),
                Action::LoginFailed(_) | Action::Refused(_) | Action::EndAction | Action::Pulse => {
                }
                Action::Close => self.closed = true,
            }
        }
        let wants = self.session.wants();
        assert_eq!(wants == Wants::Frames, self.session.incoming().is_some());
        let sends = self.session.outgoing().is_some();
        assert!(!sends || matches!(wants, Wants::Lines | Wants::Nothing));
        if let Some((_, left)) = self.session.hashing() {
            assert!(left > 0 && wants == Wants::Nothing && !sends);
        }
        if self.session.is_closed() {
            let awaited = self.jobs.iter().any(|(_, job)| opens(job));
            assert!(!self.open || self.confused || awaited, "an end that leaves a file open");
            assert_eq!(wants, Wants::Nothing);
        }
    }
}
