//! Whole transfers over a line that breaks, in virtual time and from a seed.
//!
//! 1. A server is a [`Session`] with memory for files; its jobs take time, and some fail.
//! 2. A client drives [`Outgoing`] or [`Incoming`] as the library does.
//! 3. Between them bytes are split anywhere, cut anywhere, and bits of data are flipped.
//! 4. At a cut the partial lives on through its marks, as a journal would have them; after a
//!    crash those since the last checkpoint are gone, while the data has been written.
//! 5. Between two attempts the source may change, in its bytes or in its size.
//! 6. A server that sends may know the digests from before, and some of them may be wrong.
//!
//! In the end the receiver has exactly the source's bytes. On the way no journal claims what does
//! not lie on the disk, and nothing is sent twice that was neither spoiled nor changed.

mod get;
mod put;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::OnceLock,
    time::Instant,
};

use super::{
    begin,
    driver::{
        Disk, Line, Pace, Rng, Sent, at, digest_of, hash, receive_alone, receive_in_session, send,
    },
};
use crate::{
    digest::{FileDigests, LEAF_BYTES, Md5Digest, SEGMENT_BYTES},
    progress::segment_count,
    session::{Action, Job, JobId, Outcome, Session, Wants},
    wire::{Code, DigestChoice, Frame, Mtime, Reply, frame_bytes},
};

const SMALL_SEEDS: u64 = 1_500;
const BIG_SEEDS: u64 = 40;
const ATTEMPTS_MAX: u32 = 60;

#[test]
fn small_files_arrive_whole_whatever_the_line_does() {
    run(0..SMALL_SEEDS, |rng| {
        let sizes = [0, 1, LEAF_BYTES - 1, LEAF_BYTES, LEAF_BYTES + 1];
        if rng.one_in(2) { rng.pick(&sizes) } else { rng.below(6 * LEAF_BYTES) }
    });
}

#[test]
fn files_of_several_segments_arrive_whole_whatever_the_line_does() {
    run(0..BIG_SEEDS, |rng| {
        let near = rng.pick(&[1, 2, 3]) * SEGMENT_BYTES;
        match rng.below(3) {
            0 => near - 1 + rng.below(3),
            1 => near + rng.below(SEGMENT_BYTES),
            _ => near - rng.below(SEGMENT_BYTES),
        }
    });
}

fn run(seeds: std::ops::Range<u64>, size: impl Fn(&mut Rng) -> u64) {
    for seed in seeds {
        let told = Told(seed);
        let mut rng = Rng(seed);
        let size = size(&mut rng);
        let mut world = World::new(rng, size);
        if seed % 2 == 0 {
            world.until_whole(World::put_once)
        } else {
            world.until_whole(World::get_once)
        }
        std::mem::forget(told);
    }
}

/// Tells the seed of a run that fails.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("the simulation failed with seed {}", self.0);
    }
}

/// The source, the partial, and what may be sent a second time.
struct World {
    rng: Rng,
    now: Instant,
    source: Vec<u8>,
    version: u64,
    disk: Disk,
    md5: bool,
    pace: Pace,
    /// Bytes that the line lets through before it breaks next.
    breaks_after: u64,
    cuts_left: u64,
}

/// A long run of noise, from which sources are cut.
fn noise() -> &'static [u8] {
    static NOISE: OnceLock<Vec<u8>> = OnceLock::new();
    NOISE.get_or_init(|| {
        let mut rng = Rng(99);
        let words = std::iter::repeat_with(|| rng.next().to_le_bytes());
        words.take(5 * at(SEGMENT_BYTES) / 8).flatten().collect()
    })
}

impl World {
    fn new(mut rng: Rng, size: u64) -> Self {
        let pace = Pace {
            read: if size > SEGMENT_BYTES / 4 {
                1 << 20
            } else {
                rng.pick(&[7_000, 70_000, 1 << 20])
            },
            flips: rng.pick(&[0, 0, 1, 3]),
            spoiled: BTreeSet::new(),
        };
        let mut world = Self {
            now: begin(),
            source: noise()[..at(size)].to_vec(),
            version: 1,
            disk: Disk::new(),
            md5: rng.one_in(2),
            pace,
            breaks_after: 0,
            cuts_left: rng.pick(&[0, 1, 3, 8]),
            rng,
        };
        world.next_break();
        world
    }

    /// Attempt after attempt, each over a line of its own.
    fn until_whole(&mut self, once: fn(&mut Self) -> Attempt) {
        for _ in 0..ATTEMPTS_MAX {
            if once(self) == Attempt::Whole {
                return;
            }
            self.perhaps_change();
            self.next_break();
        }
        panic!("it never became whole");
    }

    fn digest(&self) -> DigestChoice {
        if self.md5 { DigestChoice::TreeAndMd5 } else { DigestChoice::Tree }
    }

    fn next_break(&mut self) {
        let size = self.source.len() as u64;
        self.breaks_after = match self.cuts_left {
            0 => u64::MAX,
            _ => self.rng.below(size + size / 4 + 300),
        };
        self.cuts_left = self.cuts_left.saturating_sub(1);
    }

    /// Passes bytes on; `None` once the line breaks, which lets the first part through.
    fn carry(&mut self, from: &mut Line, to: &mut Line) -> Option<()> {
        let most = if self.rng.one_in(4) { self.rng.len(1..200) } else { 1 << 20 };
        let through = from.peek(most);
        let breaks = (through.len() as u64) > self.breaks_after;
        let through = &through[..through.len().min(at(self.breaks_after.min(1 << 30)))];
        let count = through.len();
        to.push(through);
        from.take(count);
        self.breaks_after = self.breaks_after.saturating_sub(count as u64);
        (!breaks).then_some(())
    }

    /// Between two attempts the source may become another.
    fn perhaps_change(&mut self) {
        if !self.rng.one_in(5) {
            return;
        }
        self.version += 1;
        let before = self.source.clone();
        if self.rng.one_in(2) {
            let size = at(self.rng.below(before.len() as u64 + LEAF_BYTES));
            self.source.resize(size.min(noise().len()), 3);
        }
        if !self.source.is_empty() && self.rng.one_in(2) {
            let place = self.rng.len(0..self.source.len());
            self.source[place] ^= 0x55;
        }
        let segments = before.chunks(at(SEGMENT_BYTES)).zip(self.source.chunks(at(SEGMENT_BYTES)));
        for (number, (before, after)) in (0..).zip(segments) {
            if before != after {
                self.pace.spoiled.insert(number);
            }
        }
    }

    /// What the server knows of the source without reading it.
    fn known(&mut self) -> FileDigests {
        let count = segment_count(self.source.len() as u64);
        let mut segments: Vec<_> = (0..count).map(|it| digest_of(&self.source, it)).collect();
        let mut md5 = Md5Digest::of(&self.source);
        if count > 0 && self.rng.one_in(3) {
            let wrong = self.rng.below(count);
            segments[at(wrong)].0[0] ^= 1;
            md5.0[0] ^= 1;
            self.pace.spoiled.insert(wrong);
        } else if self.rng.one_in(2) {
            return FileDigests::default();
        }
        let md5 = self.rng.one_in(2).then_some(md5);
        FileDigests { segments: Some(segments.into()), md5 }
    }

    fn check_what_was_learned(&self, learned: &FileDigests) {
        let count = segment_count(self.source.len() as u64);
        let segments: Vec<_> = (0..count).map(|it| digest_of(&self.source, it)).collect();
        assert_eq!(learned.segments.as_deref(), Some(&*segments));
        assert!(learned.md5.is_none_or(|md5| md5 == Md5Digest::of(&self.source)));
    }

    /// Whether bytes at `offset` may be sent although the receiver has had them.
    fn assert_needed(&self, offset: u64, had: u64) {
        let segment = offset / SEGMENT_BYTES;
        let needed = offset >= had || self.pace.spoiled.contains(&segment);
        assert!(needed, "{offset} is sent again, though {had} bytes were there");
    }
}

/// What both kinds of attempt say of themselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Attempt {
    Whole,
    Broken,
}

/// The server: its session, the jobs that it works at, and what it has sent.
struct Server {
    session: Session,
    jobs: VecDeque<(JobId, Pending)>,
    input: Line,
    output: Line,
    /// How much of the file had been received when the partial was opened.
    opened_at: u64,
    /// The end of what was received in order.
    wrote_to: u64,
    committed: bool,
    failed_checkpoint: bool,
}

enum Pending {
    Ready(Outcome),
    Sync { marks: usize },
}

impl Server {
    fn new(now: Instant) -> Self {
        Self {
            session: Session::new(
                std::sync::Arc::default(),
                crate::session::Memory::default(),
                now,
            ),
            jobs: VecDeque::new(),
            input: Line::default(),
            output: Line::default(),
            opened_at: 0,
            wrote_to: 0,
            committed: false,
            failed_checkpoint: false,
        }
    }

    fn act(&mut self, world: &mut World) {
        while let Some(action) = self.session.poll_action() {
            match action {
                Action::Reply(reply) => self.output.push(format!("{reply}\n").as_bytes()),
                Action::Start(id, job) => {
                    let pending = self.start(job, world);
                    self.jobs.push_back((id, pending));
                }
                Action::Release(Some(mark)) => {
                    world.disk.append(mark);
                }
                Action::Remember(learned) => world.check_what_was_learned(&learned),
                Action::Release(None)
                | Action::Forget
                | Action::Report(_)
                | Action::LoginFailed(_)
                | Action::Refused(_)
                | Action::EndAction
                | Action::Pulse
                | Action::Close => {}
            }
        }
    }

    fn start(&mut self, job: Job, world: &mut World) -> Pending {
        match job {
            Job::OpenSource(_) => Pending::Ready(Outcome::SourceOpened {
                size: world.source.len() as u64,
                mtime: Mtime::default(),
                tag: format!("v{}", world.version).parse().unwrap(),
                digests: world.known(),
            }),
            Job::OpenPartial { offer, fresh, .. } => {
                assert!(!fresh, "nobody asked to start over");
                let tag = format!("v{}", world.disk.version).parse().unwrap();
                let progress = world.disk.open(offer.size, world.version);
                self.opened_at = progress.frontier();
                self.wrote_to = progress.frontier();
                let tag = Some(tag);
                Pending::Ready(Outcome::PartialOpened { progress, tag })
            }
            Job::Checkpoint(mark) => Pending::Sync { marks: world.disk.append(mark) },
            Job::Commit { mark, md5, .. } => {
                world.disk.append(mark);
                assert!(world.disk.bytes[..world.source.len()] == world.source, "other bytes");
                assert_eq!(md5, world.md5.then(|| Md5Digest::of(&world.source)));
                self.committed = true;
                Pending::Ready(Outcome::Committed)
            }
            other => panic!("{other:?} was not asked for"),
        }
    }

    fn finish_a_job(&mut self, world: &mut World) {
        let Some((id, pending)) = self.jobs.pop_front() else {
            return;
        };
        let outcome = match pending {
            Pending::Ready(outcome) => outcome,
            Pending::Sync { .. } if world.rng.one_in(25) => {
                world.disk.fall_back();
                self.failed_checkpoint = true;
                Outcome::Failed(Reply::text(Code::Failed, "sync failed"))
            }
            Pending::Sync { marks } => {
                world.disk.synced(marks);
                Outcome::Checkpointed
            }
        };
        self.session.handle_outcome(id, outcome, world.now);
    }

    /// One turn of the reactor.
    fn turn(&mut self, world: &mut World) {
        self.act(world);
        if world.rng.one_in(2) {
            self.finish_a_job(world);
        }
        let most = world.rng.pick(&[100, 50_000, 1 << 20]);
        match self.session.wants() {
            Wants::Lines => {
                if let Some(line) = self.input.take_line() {
                    self.session.handle_line(line.as_bytes(), world.now);
                }
            }
            Wants::Frames if self.input.len() > 0 => {
                let input = self.input.peek(most).to_vec();
                let received =
                    receive_in_session(&mut self.session, &input, &mut world.disk, world.now);
                self.input.take(received.taken);
                for data in received.data {
                    if data.start == self.wrote_to {
                        self.wrote_to = data.end;
                    }
                }
            }
            Wants::Discard => {
                let input = self.input.peek(most).to_vec();
                let taken = self.session.handle_discarded(&input, world.now);
                self.input.take(taken);
            }
            // Nobody puts ahead here: see `state_ahead`.
            Wants::Frames | Wants::Ahead | Wants::Nothing => {}
        }
        if let Some((offset, length)) = self.session.hashing() {
            let length = at(length).min(world.rng.len(1..1 << 20));
            let bytes = world.disk.bytes[at(offset)..at(offset) + length].to_vec();
            hash(&mut self.session, &bytes, world.now);
        }
        self.act(world);
        self.send(world);
        self.act(world);
        assert!(!self.session.is_closed(), "the server closed on an honest client");
    }

    fn send(&mut self, world: &mut World) {
        if world.rng.one_in(400) {
            let reply = Reply::text(Code::Changed, "changed");
            if self.session.outgoing().is_some_and(|out| out.between_frames()) {
                self.session.handle_source_failed(reply, world.now);
            }
        }
        for _ in 0..4 {
            if self.output.len() > 4 << 20 {
                return;
            }
            if let Some(reply) = self.session.poll_abort(world.now) {
                self.output.push(&frame_bytes(&Frame::Abort(reply)));
            }
            let Some(outgoing) = self.session.outgoing() else {
                return;
            };
            let sent =
                send(outgoing, &world.source, &mut self.output, &mut world.pace, &mut world.rng);
            self.session.handle_moved(world.now);
            match sent {
                Sent::Data(offset) => world.assert_needed(offset, self.opened_at),
                Sent::End => self.session.handle_sent(world.now),
                Sent::Nothing | Sent::Something => {}
            }
        }
    }

    /// The line broke: with it the process, or only the connection.
    fn broken(&mut self, world: &mut World) {
        while self.input.len() > 0 && self.session.wants() == Wants::Frames && !world.rng.one_in(9)
        {
            let input = self.input.peek(1 << 20).to_vec();
            let received =
                receive_in_session(&mut self.session, &input, &mut world.disk, world.now);
            self.input.take(received.taken);
            self.act(world);
        }
        if world.rng.one_in(3) {
            world.disk.fall_back();
            self.failed_checkpoint = true;
            return;
        }
        self.session.handle_broken("the line broke");
        self.act(world);
        while !self.jobs.is_empty() {
            self.finish_a_job(world);
            self.act(world);
        }
    }
}
