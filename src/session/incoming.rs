//! The receiving end of a transfer: frames in, digests checked, what is wanted again out.
//!
//! Knows neither socket nor file: the caller reads bytes into a chunk, lets [`Incoming::parse`]
//! split it, runs the hash jobs and writes the data pieces. Only then it calls
//! [`Incoming::hashed`], so that a leaf that could not be written is never claimed,
//! [`Incoming::wrote`] for each piece of data and [`Incoming::settle`] for the others, in order.
//! The same code serves `put` in the server and `get` in the client.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::{
    discard::Discard,
    leaves::{LeafCursor, LeafJob, Run},
    md5_job::Md5Job,
    md5_track::Md5Track,
    parser::{Parser, Rhythm, fill, read_frame},
    violation::Violation,
};
use crate::{
    digest::{FileMd5, LEAF_BYTES, Md5Digest, SEGMENT_BYTES, SegmentLeaves},
    limits::{ROUNDS_WITHOUT_PROGRESS_MAX, STALL_BYTES},
    progress::{Mark, Progress, segment_count, segment_length},
    wire::{DigestChoice, FRAME_HEADER_BYTES, Frame, FrameHeader, FrameKind, Reply, SegmentRuns},
};

/// One part of a received chunk.
#[derive(Debug)]
pub enum Piece {
    /// Bytes of the file.
    Data {
        /// Where in the file.
        offset: u64,
        /// Where in the chunk.
        range: Range<usize>,
    },
    /// A whole frame of another kind.
    Frame(Frame),
}

/// What a frame that is not data came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Settled {
    /// A segment is what the sender has.
    Good,
    /// A segment differs and has to come again.
    Bad {
        /// Its number.
        segment: u64,
    },
    /// The end of a round: these segments have to come again.
    Differs(SegmentRuns),
    /// Everything is there and the root is right. If the MD5 of the whole file was asked for, it
    /// still has to be compared: see [`Incoming::md5_pending`].
    Whole,
    /// The sender gave up.
    Aborted(Reply),
}

/// The receiving end.
#[derive(Debug)]
pub struct Incoming {
    progress: Progress,
    parser: Parser,
    /// Hashes the bytes behind the frontier, in order.
    tail: LeafCursor,
    /// Hashes a bad segment that comes again.
    again: Option<LeafCursor>,
    /// Leaves of bad segments that come again.
    leaves: BTreeMap<u64, SegmentLeaves>,
    /// Bad segments that may come again in this round, each once. The journal knew that they are
    /// bad before the round began: only then may their bytes be written over.
    wanted: BTreeSet<u64>,
    /// The MD5 of the whole file, if it was asked for.
    md5: Option<Md5Track>,
    /// MD5 of the whole file as the sender has it.
    md5_of_sender: Option<Md5Digest>,
    /// The fewest bad segments that a round ended with.
    fewest_bad: usize,
    rounds_without_progress: u32,
    /// Data bytes received in this transfer, those that came again counted again.
    received_bytes: u64,
    /// Digests of segments that were compared.
    compared: u64,
    rhythm: Rhythm,
    /// A digest came before its data. Found while parsing: by the time it is settled, the data
    /// may be here, and the answer must not depend on how the line splits them.
    came_early: bool,
}

impl Incoming {
    /// Goes on from `progress`. With [`DigestChoice::TreeAndMd5`], the MD5 of the whole file
    /// follows from where the progress knows it.
    #[must_use]
    pub fn new(progress: Progress, digest: DigestChoice) -> Self {
        let md5 = (digest == DigestChoice::TreeAndMd5).then(|| Md5Track::new(progress.md5()));
        let tail = LeafCursor::new(Run::Stream, round_to_leaf(progress.frontier()));
        Self {
            wanted: progress.bad().clone(),
            progress,
            parser: Parser::Header(Vec::new()),
            tail,
            again: None,
            leaves: BTreeMap::new(),
            md5,
            md5_of_sender: None,
            fewest_bad: usize::MAX,
            rounds_without_progress: 0,
            received_bytes: 0,
            compared: 0,
            rhythm: Rhythm::default(),
            came_early: false,
        }
    }

    /// What has been received and settled.
    #[must_use]
    pub const fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The step since the last mark, for the journal. Call it only when all pieces are settled
    /// and written.
    #[must_use]
    pub fn take_mark(&mut self) -> Mark {
        if let Some(track) = &self.md5 {
            let saved = track.saved(self.progress.md5_limit());
            self.progress.set_md5(saved);
        }
        self.progress.take_mark()
    }

    /// Data bytes received in this transfer, those that came again counted again.
    #[must_use]
    pub const fn received_bytes(&self) -> u64 {
        self.received_bytes
    }

    /// What buys its sender time: the data, and as much as buys time for each segment compared, of
    /// which there are no more than the file has.
    pub fn moved_bytes(&self) -> u64 {
        let compared = self.compared.min(segment_count(self.progress.size()));
        self.received_bytes.saturating_add(compared * STALL_BYTES)
    }

    /// Passes over the rest of the round, from where parsing stands.
    pub(super) fn pass_over(&self) -> Discard {
        self.parser.pass_over()
    }

    /// Whether the round has ended, by its end frame or an abort: what follows are lines.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        matches!(self.parser, Parser::Ended)
    }

    /// Begins a further round, after [`Settled::Differs`]. The mark that is taken next has to be
    /// in the journal before the sender is told what to send again.
    ///
    /// # Errors
    /// [`Violation::Hopeless`] if several rounds brought nothing.
    pub fn next_round(&mut self) -> Result<(), Violation> {
        let bad = self.progress.bad();
        if bad.len() < self.fewest_bad {
            self.fewest_bad = bad.len();
            self.rounds_without_progress = 0;
        } else {
            self.rounds_without_progress += 1;
        }
        if self.rounds_without_progress >= ROUNDS_WITHOUT_PROGRESS_MAX {
            return Err(Violation::Hopeless);
        }
        self.wanted = bad.clone();
        self.parser = Parser::Header(Vec::new());
        Ok(())
    }

    /// How many bytes to read for the next [`Incoming::parse`], of which about `most` are of the file.
    /// Data shall end where a leaf does, and a large frame with the header of the next: otherwise each
    /// header between data would make two writes of one, and two hash jobs of a leaf.
    #[must_use]
    pub fn next_read_bytes(&self, most: usize) -> usize {
        self.parser.next_read_bytes(most, self.rhythm)
    }

    /// How far behind the start of a [`Buffer`](crate::digest::Buffer) the next bytes belong, so that
    /// the blocks of the data in them are its lines. Less than a line.
    #[must_use]
    pub fn skew(&self) -> usize {
        self.parser.skew(self.tail.position(), self.rhythm)
    }

    /// Splits as much of `input` as there are frames: pieces in their order, and the jobs to hash
    /// their data. Returns how many bytes to consume; what is behind the end of the round stays.
    ///
    /// # Errors
    /// [`Violation`]; pieces and jobs found before it are still good to be settled.
    pub fn parse(
        &mut self,
        input: &[u8],
        pieces: &mut Vec<Piece>,
        jobs: &mut Vec<LeafJob>,
    ) -> Result<usize, Violation> {
        let (first, size) = (jobs.len(), self.progress.size());
        let mut at = 0;
        while at < input.len() {
            let rest = input.get(at..).unwrap_or_default();
            match &mut self.parser {
                Parser::Header(have) => {
                    at += fill(have, rest, FRAME_HEADER_BYTES);
                    let Ok(bytes) = <[u8; FRAME_HEADER_BYTES]>::try_from(have.as_slice()) else {
                        continue;
                    };
                    let header = FrameHeader::parse(&bytes)?;
                    self.parser = self.begin(header)?;
                }
                Parser::Data { offset, left } => {
                    let take = rest.len().min(*left as usize);
                    let range = at..at + take;
                    let start = *offset;
                    *offset += take as u64;
                    *left -= u32::try_from(take).unwrap_or(*left);
                    if *left == 0 {
                        self.rhythm.awaits_digest = offset.is_multiple_of(SEGMENT_BYTES);
                        self.parser = Parser::Header(Vec::new());
                    }
                    at += take;
                    self.received_bytes += take as u64;
                    let cursor = self.cursor(start);
                    cursor.take_back(input, jobs, first);
                    cursor.split(range.clone(), size, jobs);
                    pieces.push(Piece::Data { offset: start, range });
                }
                Parser::Payload { header, bytes } => {
                    at += fill(bytes, rest, header.length as usize);
                    if bytes.len() == header.length as usize {
                        let frame = read_frame(*header, bytes)?;
                        let ends = matches!(frame, Frame::End { .. } | Frame::Abort(_));
                        let next = Parser::Header(Vec::new());
                        self.parser = if ends { Parser::Ended } else { next };
                        pieces.push(Piece::Frame(frame));
                    }
                }
                Parser::Ended => break,
            }
        }
        Ok(at)
    }

    /// What a header leads to.
    fn begin(&mut self, header: FrameHeader) -> Result<Parser, Violation> {
        match header.kind {
            FrameKind::Data => {
                self.place(header)?;
                self.rhythm.has_large_frames = u64::from(header.length) >= LEAF_BYTES;
                Ok(Parser::Data { offset: header.offset, left: header.length })
            }
            FrameKind::Segment | FrameKind::End | FrameKind::Abort => {
                let is_digest = header.kind == FrameKind::Segment;
                self.came_early |= is_digest && !self.has_come(header.offset);
                self.rhythm.awaits_digest = false;
                Ok(Parser::Payload { header, bytes: Vec::new() })
            }
        }
    }

    /// Whether all data of the segment at `start` stands before where parsing is.
    fn has_come(&self, start: u64) -> bool {
        let size = self.progress.size();
        let end = start.saturating_add(segment_length(start / SEGMENT_BYTES, size));
        let within = |again: &LeafCursor| (start + 1..end).contains(&again.position());
        start < size && end <= self.tail.position() && !self.again.as_ref().is_some_and(within)
    }

    /// Finds the run that a data frame continues, or begins one.
    fn place(&mut self, header: FrameHeader) -> Result<(), Violation> {
        let FrameHeader { offset, length, .. } = header;
        let size = self.progress.size();
        if offset.checked_add(u64::from(length)).is_none_or(|end| end > size) {
            return Err(Violation::OutOfPlace);
        }
        if offset == self.tail.position() || self.continues_again(offset) {
            return Ok(());
        }
        let segment = offset / SEGMENT_BYTES;
        if !offset.is_multiple_of(SEGMENT_BYTES) || !self.wanted.remove(&segment) {
            return Err(Violation::OutOfPlace);
        }
        // One that was left in the middle stays bad, and its leaves take no memory.
        if let Some(left) = self.again.take().and_then(|again| again.open_segment(size)) {
            self.leaves.remove(&left);
        }
        self.again = Some(LeafCursor::new(Run::Beside, offset));
        self.leaves.insert(segment, SegmentLeaves::new(segment_length(segment, size)));
        Ok(())
    }

    /// Whether `offset` goes on within the segment that is coming again.
    fn continues_again(&self, offset: u64) -> bool {
        let mid = |again: &LeafCursor| {
            again.position() == offset && !offset.is_multiple_of(SEGMENT_BYTES)
        };
        self.again.as_ref().is_some_and(mid)
    }

    /// The run that data at `offset`, which has its place, continues.
    fn cursor(&mut self, offset: u64) -> &mut LeafCursor {
        match &mut self.again {
            Some(again) if again.position() == offset && offset != self.tail.position() => again,
            _ => &mut self.tail,
        }
    }

    /// Takes the jobs back when the engine has run them, in the order in which they were made.
    pub fn hashed(&mut self, jobs: impl Iterator<Item = LeafJob>) {
        for job in jobs {
            let (run, segment, leaf) = (job.run, job.segment, job.leaf);
            match (run, job.outcome()) {
                (Run::Stream, Ok(digest)) => self.progress.push_leaf(digest),
                (Run::Stream, Err(state)) => self.tail.keep(segment, leaf, state),
                (Run::Beside, Ok(digest)) => self.again_leaf(segment, leaf, digest),
                (Run::Beside, Err(state)) => {
                    if let Some(cursor) = &mut self.again {
                        cursor.keep(segment, leaf, state);
                    }
                }
            }
        }
    }

    fn again_leaf(&mut self, segment: u64, leaf: usize, digest: Md5Digest) {
        let Some(leaves) = self.leaves.get_mut(&segment) else {
            return;
        };
        leaves.set(leaf, digest);
        if let Some(digest) = leaves.complete() {
            self.leaves.remove(&segment);
            self.progress.replace(segment, digest);
        }
    }

    /// The job by which the MD5 of the whole file follows the data of a parsed chunk, so far as
    /// that continues it. Once it ran and the data was written, and before anything is settled, it
    /// goes to [`Incoming::md5_followed`].
    #[must_use]
    pub fn md5_job(&self, pieces: &[Piece]) -> Option<Md5Job> {
        let track = self.md5.as_ref()?;
        let mut position = track.position();
        let mut ranges = Vec::new();
        for piece in pieces {
            if let Piece::Data { offset, range } = piece
                && *offset == position
            {
                position += range.len() as u64;
                ranges.push(range.clone());
            }
        }
        track.job(ranges)
    }

    /// Whether the MD5 of the whole file has to follow what comes.
    pub(super) const fn follows_md5(&self) -> bool {
        self.md5.is_some()
    }

    /// Takes back the job of the MD5 of the whole file.
    pub fn md5_followed(&mut self, job: Md5Job) {
        if let Some(track) = &mut self.md5 {
            track.followed(job);
        }
    }

    /// Data that was hashed and written, in order: the MD5 of the whole file follows it, unless it
    /// has already.
    pub fn wrote(&mut self, offset: u64, bytes: &[u8]) {
        if let Some(track) = &mut self.md5
            && track.position() == offset
        {
            track.follow(bytes);
        }
    }

    /// Takes a frame that is not data, after everything before it was hashed and written.
    ///
    /// # Errors
    /// [`Violation::Digest`] if it speaks of a segment that is not whole, or ends a round in which
    /// not everything came, [`Violation::Size`] if it speaks of a file of another size.
    pub fn settle(&mut self, frame: Frame) -> Result<Settled, Violation> {
        match frame {
            Frame::Segment { .. } if self.came_early => Err(Violation::Digest),
            Frame::Segment { segment, digest } => self.compare(segment, digest),
            Frame::End { size, root, md5 } => self.end(size, root, md5),
            Frame::Abort(reply) => Ok(Settled::Aborted(reply)),
        }
    }

    fn compare(&mut self, segment: u64, digest: Md5Digest) -> Result<Settled, Violation> {
        let at = usize::try_from(segment).map_err(|_| Violation::Digest)?;
        let own = *self.progress.segments().get(at).ok_or(Violation::Digest)?;
        if self.leaves.contains_key(&segment) {
            return Err(Violation::Digest);
        }
        self.compared = self.compared.saturating_add(1);
        // A bad segment stays bad until it came again as a whole: its old digest may be what the
        // sender has, and yet its bytes may be half overwritten.
        if own == digest && !self.progress.bad().contains(&segment) {
            return Ok(Settled::Good);
        }
        self.progress.spoil(segment);
        self.md5_goes_back(segment);
        Ok(Settled::Bad { segment })
    }

    /// A segment will be written over: the MD5 of the whole file must not have seen it.
    fn md5_goes_back(&mut self, segment: u64) {
        if let Some(track) = &mut self.md5 {
            track.go_back(segment * SEGMENT_BYTES);
        }
    }

    fn end(
        &mut self,
        size: u64,
        root: Md5Digest,
        md5: Option<Md5Digest>,
    ) -> Result<Settled, Violation> {
        if size != self.progress.size() {
            return Err(Violation::Size);
        }
        if md5.is_some() != self.md5.is_some() {
            return Err(Violation::Digest);
        }
        // Nothing is lost in the middle of a stream. To list what is missing would be a favour
        // that costs a run over every segment of a file that may be of any size.
        if self.progress.frontier() < size {
            return Err(Violation::Digest);
        }
        match self.progress.root() {
            Some(own) if own == root => {
                self.md5_of_sender = md5;
                Ok(Settled::Whole)
            }
            // Every segment agreed and yet the root does not: the sender contradicts itself.
            Some(_) => Err(Violation::Digest),
            None => {
                self.leaves.clear();
                self.again = None;
                // Some of the bad ones may have come in part, and been followed.
                if let Some(&first) = self.progress.bad().first() {
                    self.md5_goes_back(first);
                }
                Ok(Settled::Differs(self.progress.bad_runs()))
            }
        }
    }

    /// After [`Settled::Whole`]: the part of the file that the MD5 of the whole file has still to
    /// read, from the disk. Empty if it has followed all the way.
    #[must_use]
    pub fn md5_pending(&self) -> Range<u64> {
        let size = self.progress.size();
        self.md5.as_ref().map_or(size..size, |track| track.position()..size)
    }

    /// The job for bytes read from the disk, at the start of [`Incoming::md5_pending`], which lie
    /// there in the chunk.
    pub(super) fn md5_read_job(&self, range: Range<usize>) -> Option<Md5Job> {
        self.md5.as_ref()?.job(vec![range])
    }

    /// Bytes read from the disk, at the start of [`Incoming::md5_pending`].
    pub fn md5_read(&mut self, bytes: &[u8]) {
        if let Some(track) = &mut self.md5 {
            track.follow(bytes);
        }
    }

    /// Compares the MD5 of the whole file: `Ok` with it, or `Ok(None)` if it was not asked for.
    ///
    /// # Errors
    /// [`Violation::Digest`] if it differs although the tree agrees.
    pub fn check_md5(&self) -> Result<Option<Md5Digest>, Violation> {
        let Some(track) = &self.md5 else {
            return Ok(None);
        };
        let own = track.finish();
        if Some(own) == self.md5_of_sender { Ok(Some(own)) } else { Err(Violation::Digest) }
    }

    /// The MD5 of the whole file as far as it has followed. Where [`Settled::Good`] was just
    /// said of the last segment that came, that is the end of this segment.
    #[must_use]
    pub fn md5_so_far(&self) -> Option<&FileMd5> {
        self.md5.as_ref().map(Md5Track::so_far)
    }

    /// Goes on with the MD5 of the whole file from there, for a receiver that can't read back
    /// what it has passed on.
    pub fn continue_md5(&mut self, so_far: FileMd5) {
        if let Some(track) = &mut self.md5 {
            *track = Md5Track::from(so_far);
        }
    }

    /// After [`Incoming::check_md5`] failed: the next attempt reads the whole file, since what the
    /// journal kept of its MD5 may be what is wrong.
    pub fn forget_md5(&mut self) {
        if let Some(track) = &mut self.md5 {
            *track = Md5Track::new(None);
        }
    }
}

/// Rounds up to a leaf's start: only the end of a file is none, and nothing comes behind it.
const fn round_to_leaf(offset: u64) -> u64 {
    offset.div_ceil(LEAF_BYTES) * LEAF_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame_bytes;

    #[test]
    fn a_digest_before_its_data_is_refused_however_the_line_splits_them() {
        let digest = Md5Digest::of(&Md5Digest::of(b"a").0);
        let mut stream = frame_bytes(&Frame::Segment { segment: 0, digest });
        let header = FrameHeader { kind: FrameKind::Data, length: 1, offset: 0 };
        stream.extend(header.to_bytes());
        stream.extend(b"a");
        for step in 1..=stream.len() {
            let mut incoming = Incoming::new(Progress::new(1), DigestChoice::Tree);
            let (mut pieces, mut jobs) = (Vec::new(), Vec::new());
            for chunk in stream.chunks(step) {
                incoming.parse(chunk, &mut pieces, &mut jobs).unwrap();
            }
            let frame = pieces.into_iter().find_map(|piece| match piece {
                Piece::Frame(frame) => Some(frame),
                Piece::Data { .. } => None,
            });
            let settled = incoming.settle(frame.unwrap());
            assert_eq!(settled, Err(Violation::Digest), "step {step}");
        }
    }
}
