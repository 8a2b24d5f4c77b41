//! The sending end of a transfer: what to read, what to send, which digests go with it.
//!
//! Knows neither socket nor file: the caller asks what comes next, reads those bytes into a
//! chunk, runs the hash jobs, and tells how much of it the line took. A chunk that the line took
//! only in part is read again, so that no buffer belongs to a connection, but it is hashed once.
//! The same code serves `get` in the server and `put` in the client.

mod believed;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Range,
};

use self::believed::{Believed, known_of};
use super::{
    leaves::{LeafCursor, LeafJob, Run},
    md5_job::Md5Job,
    segment_digests::SegmentDigests,
};
use crate::{
    digest::{FileMd5, LEAF_BYTES, Md5Digest, RootHasher, SEGMENT_BYTES, SegmentLeaves},
    limits::CHUNK_BYTES,
    progress::{segment_count, segment_length},
    wire::{DigestChoice, Frame, FrameHeader, FrameKind, SegmentRuns},
};

/// The frame of a digest: header and payload.
const FRAME_BYTES: u64 = 32;

/// A part of the file that has to be read next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// Where in the file, in bytes.
    pub offset: u64,
    /// How much at most; at least one byte.
    pub length: usize,
}

/// Why an offset was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OfferError {
    /// Beyond the end of the file.
    #[error("offset beyond the end")]
    BeyondEnd,
    /// Neither a multiple of 32 KiB nor the size.
    #[error("offset is not at a leaf")]
    NotAtLeaf,
    /// Segments that the file does not have.
    #[error("segments beyond the end")]
    Segments,
}

/// The sending end.
#[derive(Debug)]
pub struct Outgoing {
    size: u64,
    /// Where the tail began: what the receiver had.
    offset: u64,
    /// What is still to be sent, the part in work first.
    stream: VecDeque<Range<u64>>,
    /// What only has to be hashed, since the receiver says that it has it.
    check: VecDeque<Range<u64>>,
    stream_hash: LeafCursor,
    check_hash: LeafCursor,
    /// Segments of which some leaves are known.
    leaves: BTreeMap<u64, SegmentLeaves>,
    /// Digests of the segments that are known. Grows with the work that is done, not with the
    /// size: a sparse file may have any.
    digests: SegmentDigests,
    /// Digests of segments that are known but not sent.
    due: VecDeque<u64>,
    /// Payload of the current data frame that is still to be sent.
    frame_left: u32,
    md5: Option<FileMd5>,
    ended: bool,
    sent_bytes: u64,
    /// Bytes that were only hashed while nothing was left to send: the peer waited for us.
    checked_last_bytes: u64,
    believed: Believed,
    hashed_bytes: u64,
}

impl Outgoing {
    /// Sends a file of `size` bytes to a receiver that has everything below `offset` but for the
    /// segments in `bad`.
    ///
    /// # Errors
    /// [`OfferError`] if the receiver can't mean this file.
    pub fn new(
        size: u64,
        offset: u64,
        bad: &SegmentRuns,
        digest: DigestChoice,
    ) -> Result<Self, OfferError> {
        if offset > size {
            return Err(OfferError::BeyondEnd);
        }
        if !offset.is_multiple_of(LEAF_BYTES) && offset != size {
            return Err(OfferError::NotAtLeaf);
        }
        let whole = if offset == size { segment_count(size) } else { offset / SEGMENT_BYTES };
        if bad.last().is_some_and(|last| last >= whole) {
            return Err(OfferError::Segments);
        }
        let mut stream: VecDeque<_> = bad.runs().map(|run| byte_range(run, size)).collect();
        if offset < size {
            stream.push_back(offset..size);
        }
        // The segment in which the stream goes on is checked first: only with its first leaves
        // can its digest be sent.
        let head = offset / SEGMENT_BYTES * SEGMENT_BYTES;
        let mut check = VecDeque::new();
        if offset < size && head < offset {
            check.push_back(head..offset);
        }
        let prefix_end = if offset == size { size } else { head };
        let mut at = 0;
        for (first, last) in bad.runs() {
            check.extend(Some(at..first * SEGMENT_BYTES).filter(|range| !range.is_empty()));
            at = (last + 1) * SEGMENT_BYTES;
        }
        check.extend(Some(at..prefix_end).filter(|range| range.start < range.end));

        Ok(Self {
            size,
            offset,
            stream_hash: LeafCursor::new(Run::Stream, start_of(&stream)),
            check_hash: LeafCursor::new(Run::Beside, start_of(&check)),
            stream,
            check,
            leaves: BTreeMap::new(),
            digests: SegmentDigests::default(),
            due: VecDeque::new(),
            frame_left: 0,
            md5: (digest == DigestChoice::TreeAndMd5).then(FileMd5::default),
            ended: false,
            sent_bytes: 0,
            checked_last_bytes: 0,
            believed: Believed::default(),
            hashed_bytes: 0,
        })
    }

    /// Size of the file in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// What the receiver had when the transfer began.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes that this round has still to send.
    #[must_use]
    pub fn left_bytes(&self) -> u64 {
        self.stream.iter().map(|range| range.end - range.start).sum()
    }

    /// Bytes that have still to be read only to be hashed.
    #[must_use]
    pub fn left_to_check_bytes(&self) -> u64 {
        let check: u64 = self.check.iter().map(|range| range.end - range.start).sum();
        let md5 = self.md5.as_ref().map_or(0, |md5| self.size - md5.position());
        // The MD5 reads along where it can.
        check.max(md5.saturating_sub(self.left_bytes()))
    }

    /// Data bytes that the line took, those that went again counted again.
    #[must_use]
    pub const fn sent_bytes(&self) -> u64 {
        self.sent_bytes
    }

    /// Bytes that were hashed for it, those hashed twice counted twice.
    #[must_use]
    pub const fn hashed_bytes(&self) -> u64 {
        self.hashed_bytes
    }

    /// What buys the receiver time: the bytes that it took, digests that were known among them, and
    /// those that we hashed while it had nothing to take. Hashing beside a stream that it does not take buys it none.
    pub(super) const fn moved_bytes(&self) -> u64 {
        self.sent_bytes + self.checked_last_bytes + self.believed.told_bytes
    }

    /// Whether the end frame of this round was taken.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Whether the line stands between two frames, where an abort may be put.
    #[must_use]
    pub const fn between_frames(&self) -> bool {
        self.frame_left == 0
    }

    /// Sends these segments again, after the end of a round.
    ///
    /// # Errors
    /// [`OfferError::Segments`] if the file does not have them.
    pub fn again(&mut self, want: &SegmentRuns) -> Result<(), OfferError> {
        if want.is_empty() || want.last().is_some_and(|last| last >= segment_count(self.size)) {
            return Err(OfferError::Segments);
        }
        self.doubt();
        // Each has a digest now, so that there are no more of them than were once hashed.
        for segment in want.segments() {
            self.digests.remove(segment);
        }
        self.stream = want.runs().map(|run| byte_range(run, self.size)).collect();
        self.stream_hash = LeafCursor::new(Run::Stream, start_of(&self.stream));
        self.ended = false;
        Ok(())
    }

    /// What to read to send it next. Never crosses a segment, nor the end of an open frame.
    #[must_use]
    pub fn next_to_send(&self) -> Option<Read> {
        let range = self.stream.front()?;
        let in_frame = if self.frame_left > 0 { u64::from(self.frame_left) } else { u64::MAX };
        Some(piece(range, in_frame))
    }

    /// What to read only to hash it: the prefix that the receiver has, then what the MD5 of the
    /// whole file has not read yet, once nothing is left to send.
    #[must_use]
    pub fn next_to_check(&self) -> Option<Read> {
        if let Some(range) = self.check.front() {
            return Some(piece(range, u64::MAX));
        }
        let md5 = self.md5.as_ref()?;
        let behind = self.stream.is_empty() && md5.position() < self.size;
        behind.then(|| piece(&(md5.position()..self.size), u64::MAX))
    }

    /// Makes jobs of the bytes just read for [`Outgoing::next_to_send`]; those that were hashed
    /// when they were read before make none. `range` says where they lie in the chunk.
    pub fn read_to_send(&mut self, read: Read, range: Range<usize>, jobs: &mut Vec<LeafJob>) {
        if self.believed.segments.is_some() && !self.believed.doubted {
            return;
        }
        let hashed = self.stream_hash.position().saturating_sub(read.offset);
        let hashed = usize::try_from(hashed).unwrap_or(usize::MAX).min(range.len());
        self.open_leaves(read.offset / SEGMENT_BYTES);
        self.hashed_bytes += (range.len() - hashed) as u64;
        self.stream_hash.split(range.start + hashed..range.end, self.size, jobs);
    }

    /// Makes jobs of the bytes just read for [`Outgoing::next_to_check`].
    pub fn read_to_check(&mut self, read: Read, range: Range<usize>, jobs: &mut Vec<LeafJob>) {
        if self.stream.is_empty() {
            self.checked_last_bytes += range.len() as u64;
        }
        let Some(front) = self.check.front_mut() else {
            return;
        };
        front.start = read.offset + range.len() as u64;
        self.hashed_bytes += range.len() as u64;
        self.open_leaves(read.offset / SEGMENT_BYTES);
        self.check_hash.split(range, self.size, jobs);
    }

    /// The job by which the MD5 of the whole file follows the bytes just read at `offset`, to be
    /// sent or to be checked; those that it has seen when they were read before are no part of it.
    /// Once it ran it goes to [`Outgoing::md5_followed`].
    #[must_use]
    pub fn md5_job(&self, offset: u64, range: Range<usize>) -> Option<Md5Job> {
        let md5 = self.md5.as_ref()?;
        let known = usize::try_from(md5.position().checked_sub(offset)?).ok()?;
        let fresh = range.start.checked_add(known)?..range.end;
        Md5Job::new(md5, vec![fresh])
    }

    /// Whether the MD5 of the whole file has to follow what is read.
    pub(super) const fn follows_md5(&self) -> bool {
        self.md5.is_some()
    }

    /// Takes back the job of the MD5 of the whole file.
    pub fn md5_followed(&mut self, job: Md5Job) {
        if let Some(md5) = &mut self.md5 {
            let before = md5.position();
            job.put_back(md5);
            self.hashed_bytes += md5.position().saturating_sub(before);
        }
    }

    /// [`Outgoing::md5_job`] done at once, for callers that serve one transfer at a time.
    pub fn follow_md5(&mut self, offset: u64, bytes: &[u8]) {
        if let Some(md5) = &mut self.md5 {
            let known = md5.position().checked_sub(offset).and_then(|n| usize::try_from(n).ok());
            if let Some(fresh) = known.and_then(|known| bytes.get(known..)) {
                md5.update(fresh);
                self.hashed_bytes += fresh.len() as u64;
            }
        }
    }

    fn open_leaves(&mut self, segment: u64) {
        let length = segment_length(segment, self.size);
        if self.digests.get(segment).is_none() {
            self.leaves.entry(segment).or_insert_with(|| SegmentLeaves::new(length));
        }
    }

    /// Takes the jobs back when the engine has run them, in the order in which they were made.
    pub fn hashed(&mut self, jobs: impl Iterator<Item = LeafJob>) {
        for job in jobs {
            let (run, segment, leaf) = (job.run, job.segment, job.leaf);
            match (run, job.outcome()) {
                (_, Ok(digest)) => self.leaf(segment, leaf, digest),
                (Run::Stream, Err(state)) => self.stream_hash.keep(segment, leaf, state),
                (Run::Beside, Err(state)) => self.check_hash.keep(segment, leaf, state),
            }
        }
        if self.check.front().is_some_and(Range::is_empty) {
            self.check.pop_front();
            self.check_hash = LeafCursor::new(Run::Beside, start_of(&self.check));
        }
    }

    fn leaf(&mut self, segment: u64, leaf: usize, digest: Md5Digest) {
        let Some(leaves) = self.leaves.get_mut(&segment) else {
            return;
        };
        leaves.set(leaf, digest);
        if let Some(digest) = leaves.complete() {
            self.leaves.remove(&segment);
            self.digests.insert(segment, digest);
            self.due.push_back(segment);
            let known = self.believed.segments.as_ref().map(|known| known_of(known, segment));
            if known.is_some_and(|known| known != Some(digest)) {
                self.disprove();
            }
        }
    }

    /// The header to put before `length` bytes at [`Outgoing::next_to_send`]; `None` within a
    /// frame that is still open.
    pub fn data_header(&mut self, length: usize) -> Option<FrameHeader> {
        let offset = self.stream.front()?.start;
        let length = u32::try_from(length).ok().filter(|&length| length > 0)?;
        if self.frame_left > 0 {
            return None;
        }
        self.frame_left = length;
        Some(FrameHeader { kind: FrameKind::Data, length, offset })
    }

    /// The line took `bytes` of the current frame's payload.
    pub fn sent(&mut self, bytes: usize) {
        let Some(front) = self.stream.front_mut() else {
            return;
        };
        front.start += bytes as u64;
        let at_end = front.start.is_multiple_of(SEGMENT_BYTES) || front.start == self.size;
        if at_end && bytes > 0 && self.believed.segments.is_some() && !self.believed.doubted {
            self.due.push_back((front.start - 1) / SEGMENT_BYTES);
        }
        self.sent_bytes += bytes as u64;
        self.frame_left -= u32::try_from(bytes).unwrap_or(self.frame_left).min(self.frame_left);
        if front.is_empty() {
            self.stream.pop_front();
            if !self.stream.is_empty() {
                self.stream_hash = LeafCursor::new(Run::Stream, start_of(&self.stream));
            }
        }
    }

    /// The next frame that is not data: digests of segments whose data has been sent, and the end
    /// when there is nothing left to do. `None` within a data frame.
    pub fn next_frame(&mut self) -> Option<Frame> {
        if self.frame_left > 0 || self.ended {
            return None;
        }
        // A segment is hashed before it is sent, but its digest goes behind its data.
        let next = self.due.iter().position(|&segment| !self.is_to_be_sent(segment));
        if let Some(segment) = next.and_then(|at| self.due.remove(at)) {
            return self.segment_frame(segment);
        }
        // The first new byte is not held back by what the receiver has.
        if (self.stream.is_empty() || self.sent_bytes > 0)
            && let Some(run) = self.believed.due.front_mut()
        {
            let segment = run.start;
            run.start += 1;
            if run.is_empty() {
                self.believed.due.pop_front();
            }
            self.believed.told_bytes += FRAME_BYTES;
            return self.segment_frame(segment);
        }
        let idle = self.stream.is_empty() && self.next_to_check().is_none();
        if !idle {
            return None;
        }
        let (root, md5) = self.digests();
        let root = root?;
        self.ended = true;
        Some(Frame::End { size: self.size, root, md5 })
    }

    fn segment_frame(&self, segment: u64) -> Option<Frame> {
        let known = || known_of(self.believed.segments.as_ref()?, segment);
        let digest = self.digests.get(segment).or_else(known)?;
        Some(Frame::Segment { segment, digest })
    }

    /// The root, once every segment is known, and the MD5 of the whole file if it was asked for
    /// and has seen everything.
    #[must_use]
    pub fn digests(&self) -> (Option<Md5Digest>, Option<Md5Digest>) {
        let mut root = RootHasher::new();
        if let Some(known) = &self.believed.segments {
            // What was hashed besides has come to the same.
            known.iter().for_each(|&digest| root.push(digest));
        } else if self.digests.count() == segment_count(self.size) {
            self.digests.in_order().for_each(|digest| root.push(digest));
        } else {
            return (None, None);
        }
        let whole = self.md5.as_ref().filter(|md5| md5.position() == self.size);
        let whole = whole.map(|md5| md5.clone().finish()).or(self.believed.md5);
        (Some(root.finish(self.size)), whole)
    }

    /// Whether any byte of a segment has still to be sent in this round.
    fn is_to_be_sent(&self, segment: u64) -> bool {
        let start = segment * SEGMENT_BYTES;
        self.stream.iter().any(|range| range.start < start + SEGMENT_BYTES && start < range.end)
    }
}

/// The bytes of a run of segments.
fn byte_range((first, last): (u64, u64), size: u64) -> Range<u64> {
    first * SEGMENT_BYTES..((last + 1) * SEGMENT_BYTES).min(size)
}

fn start_of(ranges: &VecDeque<Range<u64>>) -> u64 {
    ranges.front().map_or(0, |range| range.start)
}

/// The first piece of `range`: within a segment, a chunk, and `limit`.
fn piece(range: &Range<u64>, limit: u64) -> Read {
    let segment_end = (range.start / SEGMENT_BYTES + 1) * SEGMENT_BYTES;
    let length = (range.end.min(segment_end) - range.start).min(limit);
    let length = usize::try_from(length).unwrap_or(usize::MAX).min(CHUNK_BYTES);
    Read { offset: range.start, length }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Engine;

    #[test]
    fn bytes_that_are_read_again_are_no_part_of_the_next_md5_job() {
        let none = SegmentRuns::default();
        let mut outgoing = Outgoing::new(1_000, 0, &none, DigestChoice::TreeAndMd5).unwrap();
        let bytes: Vec<u8> = (0..=250).cycle().take(1_000).collect();
        // The line takes little, and what it did not take is read once more.
        for (from, to) in [(0, 700), (100, 700), (100, 710), (300, 1_000), (999, 1_000)] {
            let chunk = [b"before", &bytes[from..to]].concat();
            let job = outgoing.md5_job(from as u64, 6..chunk.len());
            if let Some(mut job) = job {
                Engine::new().update(&mut [job.job(&chunk)]);
                outgoing.md5_followed(job);
            }
            let md5 = outgoing.md5.clone().unwrap();
            assert_eq!(md5.finish(), Md5Digest::of(&bytes[..to]), "{from} to {to}");
        }
        assert!(outgoing.md5_job(0, 0..1_000).is_none());
    }
}
