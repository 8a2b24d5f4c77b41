//! From runs of bytes to hash jobs: where leaves begin and end.

use std::ops::Range;

use super::Md5Job;
use crate::digest::{Engine, Job, LEAF_BYTES, LeafState, Md5Digest, SEGMENT_BYTES};

/// Which of the two runs of a transfer a job belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// The bytes of the stream itself.
    Stream,
    /// What goes beside it: the prefix that is checked, or a segment that comes again.
    Beside,
}

/// A piece of one leaf that waits to be hashed.
#[derive(Debug)]
pub struct LeafJob {
    state: LeafState,
    /// The run it was split from.
    pub(super) run: Run,
    /// Number of the segment.
    pub(super) segment: u64,
    /// Number of the leaf within it.
    pub(super) leaf: usize,
    /// Whether the leaf is whole with this piece.
    complete: bool,
    /// Where in the chunk that was read or received.
    range: Range<usize>,
    /// Of the whole leaf, once the engine ran.
    digest: Option<Md5Digest>,
}

impl LeafJob {
    /// The job for the engine. `chunk` is the buffer that the run was split from.
    fn job<'a>(&'a mut self, chunk: &'a [u8]) -> Job<'a> {
        let bytes = chunk.get(self.range.clone()).unwrap_or_default();
        debug_assert_eq!(bytes.len(), self.range.len(), "the chunk the run was split from");
        self.state.job(bytes)
    }

    /// After the engine ran: the digest of the whole leaf, or the state to go on with.
    pub(super) fn outcome(self) -> Result<Md5Digest, LeafState> {
        if self.complete {
            Ok(self.digest.unwrap_or_else(|| self.state.finish()))
        } else {
            Err(self.state)
        }
    }
}

/// What a chunk is hashed for.
#[derive(Debug)]
pub struct ChunkJobs<'a> {
    /// The leaves in it.
    pub leaves: &'a mut [LeafJob],
    /// The MD5 of the whole file, if it follows.
    pub md5: Option<&'a mut Md5Job>,
    /// The bytes.
    pub chunk: &'a [u8],
}

/// Runs the jobs of several chunks together.
pub fn run_together(engine: &Engine, chunks: &mut [ChunkJobs<'_>]) {
    let mut jobs: Vec<Job<'_>> = Vec::new();
    for ChunkJobs { leaves, md5, chunk } in &mut *chunks {
        jobs.extend(md5.as_mut().map(|md5| md5.job(chunk)));
        jobs.extend(leaves.iter_mut().map(|leaf| leaf.job(chunk)));
    }
    engine.update(&mut jobs);

    // The padding of a leaf is a block as any other: in lanes it costs a tenth.
    let leaves = chunks.iter_mut().flat_map(|jobs| &mut *jobs.leaves);
    let mut whole: Vec<_> = leaves.filter(|leaf| leaf.complete).collect();
    let mut digests = Vec::with_capacity(whole.len());
    engine.finish_many(whole.iter().map(|leaf| &leaf.state), &mut digests);
    for (leaf, digest) in whole.iter_mut().zip(digests) {
        leaf.digest = Some(digest);
    }
}

/// Runs jobs of a single chunk, for callers that serve one transfer at a time.
pub fn run_jobs(engine: &Engine, leaves: &mut [LeafJob], chunk: &[u8]) {
    run_together(engine, &mut [ChunkJobs { leaves, md5: None, chunk }]);
}

/// Where hashing stands in a run of bytes that comes in order.
///
/// Invariant: `state` has hashed the bytes from the start of the leaf that holds `position` up to
/// `position`, except between [`LeafCursor::split`] and [`LeafCursor::keep`].
#[derive(Debug)]
pub(super) struct LeafCursor {
    run: Run,
    position: u64,
    state: LeafState,
}

impl LeafCursor {
    /// Starts at a leaf's start.
    pub(super) fn new(run: Run, position: u64) -> Self {
        debug_assert_eq!(position % LEAF_BYTES, 0, "a run starts at a leaf");
        Self { run, position, state: LeafState::new() }
    }

    /// The next byte to hash.
    pub(super) const fn position(&self) -> u64 {
        self.position
    }

    /// Takes back the state that the last of `jobs`, all of `chunk`, has of the leaf in work: two
    /// frames may lie within one leaf, and jobs that run side by side can't wait for each other.
    /// So the first one runs here; only frames shorter than a leaf cost that.
    pub(super) fn take_back(&mut self, chunk: &[u8], jobs: &mut Vec<LeafJob>, first: usize) {
        let last = jobs.iter().rposition(|job| job.run == self.run).filter(|&last| last >= first);
        let open = |at: &usize| jobs.get(*at).is_some_and(|job| !job.complete);
        if let Some(at) = last.filter(open) {
            let mut job = jobs.remove(at);
            Engine::scalar().update(&mut [job.job(chunk)]);
            self.keep(job.segment, job.leaf, job.state);
        }
    }

    /// Splits the next `range.len()` bytes into jobs. `range` is where they lie in the chunk,
    /// `size` the size of the whole file, whose end completes the last leaf.
    pub(super) fn split(&mut self, range: Range<usize>, size: u64, jobs: &mut Vec<LeafJob>) {
        let mut at = range.start;
        while at < range.end {
            let leaf_end = (self.position / LEAF_BYTES + 1) * LEAF_BYTES;
            let leaf_end = leaf_end.min(size.max(self.position + 1));
            let room = usize::try_from(leaf_end - self.position).unwrap_or(usize::MAX);
            let take = room.min(range.end - at);
            jobs.push(LeafJob {
                state: std::mem::take(&mut self.state),
                run: self.run,
                segment: self.position / SEGMENT_BYTES,
                leaf: self.leaf(),
                complete: take == room,
                range: at..at + take,
                digest: None,
            });
            at += take;
            self.position += take as u64;
        }
    }

    /// Takes back the state of a leaf that is not whole yet, if the run still stands within it: a
    /// peer may have left it for another one.
    pub(super) fn keep(&mut self, segment: u64, leaf: usize, state: LeafState) {
        if (segment, leaf) == (self.position / SEGMENT_BYTES, self.leaf()) {
            self.state = state;
        }
    }

    /// The segment in which the run stands, if it has not come to its end.
    pub(super) const fn open_segment(&self, size: u64) -> Option<u64> {
        if self.position.is_multiple_of(SEGMENT_BYTES) || self.position == size {
            None
        } else {
            Some(self.position / SEGMENT_BYTES)
        }
    }

    /// Number of the leaf at `position`, within its segment.
    fn leaf(&self) -> usize {
        usize::try_from(self.position % SEGMENT_BYTES / LEAF_BYTES).unwrap_or(0)
    }
}
