//! What a reactor does between socket, session and file, with memory in place of both, and the
//! random numbers that decide everything.

use std::{collections::BTreeSet, ops::Range, time::Instant};

use crate::{
    digest::{Engine, FileMd5, LEAF_BYTES, Md5Digest, SEGMENT_BYTES, segment_digest},
    progress::{Mark, Progress, segment_length},
    session::{ChunkJobs, Incoming, Outgoing, Piece, Session, Settled, Violation, run_together},
    wire::{FRAME_HEADER_BYTES, Frame, frame_bytes},
};

/// SplitMix64.
pub(super) struct Rng(pub(super) u64);

impl Rng {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Below `end`, which must not be 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(super) fn len(&mut self, range: Range<usize>) -> usize {
        let width = (range.end - range.start) as u64;
        range.start + usize::try_from(self.below(width)).unwrap()
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.len(0..from.len())]
    }
}

pub(super) fn at(offset: u64) -> usize {
    usize::try_from(offset).unwrap()
}

/// A partial: the data file, and the journal as the marks that were appended to it.
pub(super) struct Disk {
    pub(super) bytes: Vec<u8>,
    /// Which version of the source it was opened for last.
    pub(super) version: u64,
    base: Progress,
    marks: Vec<Mark>,
    durable: usize,
}

impl Disk {
    pub(super) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            version: 0,
            base: Progress::new(0),
            marks: Vec::new(),
            durable: 0,
        }
    }

    /// What the journal says, for a source of this size and version.
    pub(super) fn open(&mut self, size: u64, version: u64) -> Progress {
        let mut progress = self.replay();
        assert_claims(&progress, &self.bytes);
        progress.resize(size);
        self.base = Progress::new(size);
        self.base.apply(&progress.whole_mark()).unwrap();
        self.marks.clear();
        self.durable = 0;
        self.version = version;
        progress
    }

    fn replay(&self) -> Progress {
        let mut progress = self.base.clone();
        for mark in &self.marks {
            progress.apply(mark).unwrap();
        }
        progress
    }

    /// Appends a mark and says how many there are, for [`Disk::synced`].
    pub(super) fn append(&mut self, mark: Mark) -> usize {
        self.marks.push(mark);
        self.marks.len()
    }

    pub(super) fn synced(&mut self, marks: usize) {
        self.durable = self.durable.max(marks);
    }

    /// What was not synced is gone.
    pub(super) fn fall_back(&mut self) {
        self.marks.truncate(self.durable);
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let (start, end) = (at(offset), at(offset) + bytes.len());
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
    }
}

/// The table of digests claims nothing that does not lie on the disk, but for the bad segments.
fn assert_claims(progress: &Progress, bytes: &[u8]) {
    let engine = Engine::new();
    let leaves = |range: Range<u64>| {
        let mut leaves = Vec::new();
        if range.is_empty() {
            return leaves;
        }
        engine.leaves(&bytes[at(range.start)..at(range.end)], &mut leaves);
        leaves
    };
    for (segment, &claimed) in (0..).zip(progress.segments()) {
        let start = segment * SEGMENT_BYTES;
        let end = start + segment_length(segment, progress.size());
        if !progress.bad().contains(&segment) {
            let found = segment_digest(&leaves(start..end));
            assert_eq!(found, claimed, "segment {segment} is not what the journal claims");
        }
    }
    let start = progress.segments().len() as u64 * SEGMENT_BYTES;
    let end = start + progress.tail().len() as u64 * LEAF_BYTES;
    assert_eq!(leaves(start..end), progress.tail(), "a leaf is not what the journal claims");
    if let Some(md5) = progress.md5() {
        let mut track = FileMd5::new();
        track.update(&bytes[..at(md5.position)]);
        assert_eq!(track.save(), Some(md5), "the MD5 is not that of the disk");
    }
}

/// Bytes on their way.
#[derive(Default)]
pub(super) struct Line {
    bytes: Vec<u8>,
    taken: usize,
}

impl Line {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.taken
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        if self.taken > 1 << 20 || self.taken == self.bytes.len() {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// What lies ready, at most `most` bytes.
    pub(super) fn peek(&self, most: usize) -> &[u8] {
        let end = self.bytes.len().min(self.taken.saturating_add(most));
        &self.bytes[self.taken..end]
    }

    pub(super) fn take(&mut self, bytes: usize) {
        self.taken += bytes;
    }

    /// The next line, if it is whole.
    pub(super) fn take_line(&mut self) -> Option<String> {
        let rest = &self.bytes[self.taken..];
        let end = rest.iter().position(|&byte| byte == b'\n')?;
        let line = String::from_utf8(rest[..end].to_vec()).unwrap();
        self.taken += end + 1;
        Some(line)
    }
}

/// What one step of a sender did.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Nothing,
    Something,
    /// A data frame was begun at this offset.
    Data(u64),
    End,
}

/// How a sender cuts its steps, and what it spoils.
pub(super) struct Pace {
    /// Bytes read at once, at most.
    pub(super) read: usize,
    /// Bits that are still to be flipped on the way.
    pub(super) flips: u64,
    /// Segments that were spoiled.
    pub(super) spoiled: BTreeSet<u64>,
}

/// One step of a sender: a frame, a piece of data that the line takes in whole or in part, or a
/// piece that is only hashed.
pub(super) fn send(
    outgoing: &mut Outgoing,
    source: &[u8],
    line: &mut Line,
    pace: &mut Pace,
    rng: &mut Rng,
) -> Sent {
    if let Some(frame) = outgoing.next_frame() {
        line.push(&frame_bytes(&frame));
        let ended = matches!(frame, Frame::End { .. });
        return if ended { Sent::End } else { Sent::Something };
    }
    let engine = Engine::new();
    let mut jobs = Vec::new();
    let (check, data) = (outgoing.next_to_check(), outgoing.next_to_send());
    let check = check.filter(|_| data.is_none() || rng.one_in(3));
    let Some(read) = check.or(data) else {
        return Sent::Nothing;
    };
    let length = read.length.min(rng.len(1..pace.read + 1));
    let bytes = &source[at(read.offset)..at(read.offset) + length];
    if check.is_some() {
        outgoing.read_to_check(read, 0..length, &mut jobs);
    } else {
        outgoing.read_to_send(read, 0..length, &mut jobs);
    }
    // The server hands the MD5 of the whole file to the engine, the client does it at once.
    let mut md5 = outgoing.md5_job(read.offset, 0..length).filter(|_| rng.one_in(2));
    let chunk = ChunkJobs { leaves: &mut jobs, md5: md5.as_mut(), chunk: bytes };
    run_together(&engine, &mut [chunk]);
    outgoing.hashed(jobs.into_iter());
    match md5 {
        Some(md5) => outgoing.md5_followed(md5),
        None => outgoing.follow_md5(read.offset, bytes),
    }
    if check.is_some() {
        return Sent::Something;
    }
    let header = outgoing.data_header(length);
    if let Some(header) = header {
        line.push(&header.to_bytes());
    }
    let taken = if rng.one_in(3) { rng.len(0..length + 1) } else { length };
    if pace.flips > 0 && taken > 0 && rng.one_in(4) {
        pace.flips -= 1;
        pace.spoiled.insert(read.offset / SEGMENT_BYTES);
        let mut spoiled = bytes[..taken].to_vec();
        spoiled[rng.len(0..taken)] ^= 1 << rng.below(8);
        line.push(&spoiled);
    } else {
        line.push(&bytes[..taken]);
    }
    outgoing.sent(taken);
    header.map_or(Sent::Something, |header| Sent::Data(header.offset))
}

/// Hands a session bytes that it wants to be hashed.
pub(super) fn hash(session: &mut Session, bytes: &[u8], now: Instant) {
    let Some(mut job) = session.md5_job(0..bytes.len()) else {
        return;
    };
    Engine::new().update(&mut [job.job(bytes)]);
    session.handle_hashed(job, now);
}

/// A chunk for a receiver, hashed and written; what is left is to be settled, piece by piece.
pub(super) struct Received {
    pub(super) taken: usize,
    pieces: Vec<Piece>,
    violation: Option<Violation>,
    /// Where its data lies.
    pub(super) data: Vec<Range<u64>>,
}

/// `ahead`: the MD5 of the whole file follows the chunk at once, as it does in the server.
fn receive(incoming: &mut Incoming, input: &[u8], disk: &mut Disk, ahead: bool) -> Received {
    let engine = Engine::new();
    let (mut pieces, mut jobs) = (Vec::new(), Vec::new());
    let parsed = incoming.parse(input, &mut pieces, &mut jobs);
    let mut md5 = incoming.md5_job(&pieces).filter(|_| ahead);
    let chunk = ChunkJobs { leaves: &mut jobs, md5: md5.as_mut(), chunk: input };
    run_together(&engine, &mut [chunk]);
    let mut data = Vec::new();
    for piece in &pieces {
        if let Piece::Data { offset, range } = piece {
            disk.write(*offset, &input[range.clone()]);
            data.push(*offset..offset + range.len() as u64);
        }
    }
    incoming.hashed(jobs.into_iter());
    if let Some(md5) = md5 {
        incoming.md5_followed(md5);
    }
    Received {
        taken: *parsed.as_ref().unwrap_or(&input.len()),
        pieces,
        violation: parsed.err(),
        data,
    }
}

/// As a client does: everything that its frames came to.
pub(super) fn receive_alone(
    incoming: &mut Incoming,
    input: &[u8],
    disk: &mut Disk,
) -> Result<(usize, Vec<Settled>), Violation> {
    let received = receive(incoming, input, disk, false);
    let mut settled = Vec::new();
    for piece in received.pieces {
        match piece {
            Piece::Data { offset, range } => incoming.wrote(offset, &input[range]),
            Piece::Frame(frame) => settled.push(incoming.settle(frame)?),
        }
    }
    received.violation.map_or(Ok((received.taken, settled)), Err)
}

/// As the reactor does. Returns how much was taken, and where its data lies.
pub(super) fn receive_in_session(
    session: &mut Session,
    input: &[u8],
    disk: &mut Disk,
    now: Instant,
) -> Received {
    let mut received = receive(session.incoming().unwrap(), input, disk, true);
    for piece in received.pieces.drain(..) {
        let Some(incoming) = session.incoming() else {
            break;
        };
        match piece {
            Piece::Data { offset, range } => incoming.wrote(offset, &input[range]),
            Piece::Frame(frame) => {
                let settled = incoming.settle(frame);
                session.handle_settled(settled, now);
            }
        }
    }
    match received.violation.take() {
        Some(violation) => session.handle_settled(Err(violation), now),
        None => session.handle_chunk(now),
    }
    received
}

/// The header and bytes of one data frame.
pub(super) fn data_frame(offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut frame = b"D\0\0\0".to_vec();
    frame.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    frame.extend(offset.to_be_bytes());
    assert_eq!(frame.len(), FRAME_HEADER_BYTES);
    frame.extend_from_slice(bytes);
    frame
}

/// The digest of a segment of `source`.
pub(super) fn digest_of(source: &[u8], segment: u64) -> Md5Digest {
    let start = segment * SEGMENT_BYTES;
    let end = start + segment_length(segment, source.len() as u64);
    let mut leaves = Vec::new();
    Engine::new().leaves(&source[at(start)..at(end)], &mut leaves);
    segment_digest(&leaves)
}
