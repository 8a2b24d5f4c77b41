//! What a receiver knows of a file that is not whole yet.
//!
//! [`Progress`] is the knowledge, [`Mark`] a step of it: the journal is a list of marks, and
//! replaying them gives the progress again. Pure: no file, no socket, no clock.

use std::collections::BTreeSet;

use crate::{
    digest::{LEAF_BYTES, LEAVES_PER_SEGMENT, Md5Digest, RootHasher, SEGMENT_BYTES, SavedMd5},
    wire::SegmentRuns,
};

/// The number of segments of a file of `size` bytes.
#[must_use]
pub const fn segment_count(size: u64) -> u64 {
    size.div_ceil(SEGMENT_BYTES)
}

/// Bytes of one segment of a file of `size` bytes: [`SEGMENT_BYTES`], or less for the last.
#[must_use]
pub const fn segment_length(segment: u64, size: u64) -> u64 {
    let start = segment.saturating_mul(SEGMENT_BYTES);
    let rest = size.saturating_sub(start);
    if rest < SEGMENT_BYTES { rest } else { SEGMENT_BYTES }
}

/// What was received of a file: digests of what lies on the disk, as the receiver computed them.
///
/// Invariants:
/// - `segments` are the digests of the first segments, complete, in order;
/// - `tail` are the leaf digests of the segment behind them, and fewer than make it complete;
/// - `bad` holds only numbers below `segments.len()`: those have to come again;
/// - `md5` ends at or below [`Progress::md5_limit`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    size: u64,
    segments: Vec<Md5Digest>,
    tail: Vec<Md5Digest>,
    bad: BTreeSet<u64>,
    /// MD5 of the whole file up to a leaf's start.
    md5: Option<SavedMd5>,
    /// What the last mark already told.
    marked: Marked,
}

/// What of a progress the marks taken so far tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Marked {
    /// How many segments, from the first.
    segments: usize,
    /// How many leaves of the tail, as long as that belongs to the same segment.
    tail: usize,
    /// Segments that came again since.
    replaced: BTreeSet<u64>,
}

/// What changed since the mark before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mark {
    /// How many segments are complete.
    pub segment_count: u64,
    /// Digests of segments that are new or came again.
    pub segments: Vec<(u64, Md5Digest)>,
    /// Number of the first leaf of `leaves` within the segment that is not complete.
    pub leaves_from: u32,
    /// Leaf digests of that segment from there on.
    pub leaves: Vec<Md5Digest>,
    /// All segments that have to come again.
    pub bad: Vec<u64>,
    /// MD5 of the whole file up to a leaf's start.
    pub md5: Option<SavedMd5>,
}

impl Progress {
    /// Nothing received of a file of `size` bytes.
    #[must_use]
    pub fn new(size: u64) -> Self {
        let (segments, tail, bad) = (Vec::new(), Vec::new(), BTreeSet::new());
        Self { size, segments, tail, bad, md5: None, marked: Marked::default() }
    }

    /// Size of the whole file in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// Everything below this offset was received, but for the bad segments. A multiple of
    /// [`LEAF_BYTES`], or the size.
    #[must_use]
    pub fn frontier(&self) -> u64 {
        let whole = self.segments.len() as u64 * SEGMENT_BYTES;
        (whole + self.tail.len() as u64 * LEAF_BYTES).min(self.size)
    }

    /// Bytes that need not come again.
    #[must_use]
    pub fn good_bytes(&self) -> u64 {
        let bad: u64 = self.bad.iter().map(|&bad| segment_length(bad, self.size)).sum();
        self.frontier() - bad
    }

    /// Digests of the complete segments, the bad ones among them.
    #[must_use]
    pub fn segments(&self) -> &[Md5Digest] {
        &self.segments
    }

    /// Leaf digests of the segment behind the complete ones.
    #[must_use]
    pub fn tail(&self) -> &[Md5Digest] {
        &self.tail
    }

    /// Segments that have to come again.
    #[must_use]
    pub const fn bad(&self) -> &BTreeSet<u64> {
        &self.bad
    }

    /// As many of the bad segments as fit in one line.
    #[must_use]
    pub fn bad_runs(&self) -> SegmentRuns {
        SegmentRuns::collect(self.bad.iter().copied())
    }

    /// MD5 of the whole file, up to where it is known.
    #[must_use]
    pub const fn md5(&self) -> Option<SavedMd5> {
        self.md5
    }

    /// Remembers the MD5 of the whole file up to some position; `None`, or a position beyond
    /// [`Progress::md5_limit`], forgets it.
    pub fn set_md5(&mut self, md5: Option<SavedMd5>) {
        self.md5 = md5;
        self.limit_md5();
    }

    /// How far an MD5 of the whole file can be true for long: the first byte that is bad or has
    /// not been received, since it will be written over.
    #[must_use]
    pub fn md5_limit(&self) -> u64 {
        let bad = self.bad.first().map(|&bad| bad * SEGMENT_BYTES);
        self.frontier().min(bad.unwrap_or(u64::MAX))
    }

    fn limit_md5(&mut self) {
        let limit = self.md5_limit();
        self.md5 = self.md5.filter(|md5| md5.position <= limit);
    }

    /// Whether everything is there and nothing known to be bad.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.frontier() == self.size && self.bad.is_empty()
    }

    /// Root of the tree over the whole file; `None` while segments are missing or bad.
    #[must_use]
    pub fn root(&self) -> Option<Md5Digest> {
        if !self.is_complete() {
            return None;
        }
        let mut root = RootHasher::new();
        for &segment in &self.segments {
            root.push(segment);
        }
        Some(root.finish(self.size))
    }

    /// The next leaf behind the frontier.
    pub fn push_leaf(&mut self, digest: Md5Digest) {
        debug_assert!(self.frontier() < self.size, "no leaf behind the end");
        self.tail.push(digest);
        self.close_tail();
    }

    /// Makes a segment of the tail if it has all leaves of one.
    fn close_tail(&mut self) {
        let segment = self.segments.len() as u64;
        let leaves = segment_length(segment, self.size).div_ceil(LEAF_BYTES);
        if !self.tail.is_empty() && self.tail.len() as u64 == leaves {
            self.segments.push(crate::digest::segment_digest(&self.tail));
            self.clear_tail();
        }
    }

    /// A complete segment came again, with this digest.
    pub fn replace(&mut self, segment: u64, digest: Md5Digest) {
        if let Some(slot) = usize::try_from(segment).ok().and_then(|at| self.segments.get_mut(at)) {
            *slot = digest;
            self.bad.remove(&segment);
            self.marked.replaced.insert(segment);
        }
    }

    fn clear_tail(&mut self) {
        self.tail.clear();
        self.marked.tail = 0;
    }

    /// A complete segment is not what the sender has.
    pub fn spoil(&mut self, segment: u64) {
        if segment < self.segments.len() as u64 {
            self.bad.insert(segment);
            self.limit_md5();
        }
    }

    /// Takes every complete segment for good again, for a receiver that can't write over any.
    pub fn believe(&mut self) {
        self.bad.clear();
    }

    /// Forgets what lies at `offset` and behind. Within a complete segment the leaves are not
    /// known any more: then the frontier falls to that segment's start.
    pub fn lower(&mut self, offset: u64) {
        if offset >= self.frontier() {
            return;
        }
        let keep = usize::try_from(offset / SEGMENT_BYTES).unwrap_or(usize::MAX);
        if keep < self.segments.len() {
            self.segments.truncate(keep);
            self.marked.segments = self.marked.segments.min(keep);
            self.clear_tail();
        } else {
            let leaves = (offset % SEGMENT_BYTES) / LEAF_BYTES;
            self.tail.truncate(usize::try_from(leaves).unwrap_or(LEAVES_PER_SEGMENT));
            self.marked.tail = self.marked.tail.min(self.tail.len());
        }
        let count = self.segments.len() as u64;
        self.bad.retain(|&bad| bad < count);
        self.limit_md5();
    }

    /// The source has another size now: keeps whole segments and whole leaves within both.
    pub fn resize(&mut self, size: u64) {
        if size == self.size {
            return;
        }
        let whole = size.min(self.size) / SEGMENT_BYTES;
        let leaves = (size.min(self.size) % SEGMENT_BYTES) / LEAF_BYTES;
        self.lower(whole * SEGMENT_BYTES + leaves * LEAF_BYTES);
        if self.segments.len() as u64 > whole {
            self.lower(whole * SEGMENT_BYTES);
        }
        self.size = size;
        // A file that ends now where a leaf ended has a last segment of just these leaves.
        self.close_tail();
    }

    /// Takes a step.
    ///
    /// # Errors
    /// [`MarkError`] if the mark does not follow from this progress, which is then as before.
    pub fn apply(&mut self, mark: &Mark) -> Result<(), MarkError> {
        let count = usize::try_from(mark.segment_count).map_err(|_| MarkError)?;
        let same_tail = count == self.segments.len();
        let tail_before = if same_tail { self.tail.len() } else { 0 };
        let from = usize::try_from(mark.leaves_from).map_err(|_| MarkError)?;
        self.follows(mark, count, from, tail_before)?;

        self.segments.truncate(count);
        for &(segment, digest) in &mark.segments {
            match usize::try_from(segment).ok().and_then(|at| self.segments.get_mut(at)) {
                Some(slot) => *slot = digest,
                None => self.segments.push(digest),
            }
        }
        self.tail.truncate(from.min(tail_before));
        self.tail.extend_from_slice(&mark.leaves);
        self.bad = mark.bad.iter().copied().collect();
        self.set_md5(mark.md5);
        self.all_marked();
        Ok(())
    }

    /// Whether `mark` is a step from here.
    fn follows(
        &self,
        mark: &Mark,
        count: usize,
        from: usize,
        tail_before: usize,
    ) -> Result<(), MarkError> {
        let mut length = self.segments.len().min(count) as u64;
        for &(segment, _) in &mark.segments {
            if segment > length || segment >= mark.segment_count {
                return Err(MarkError);
            }
            length += u64::from(segment == length);
        }
        let in_size = mark.segment_count <= segment_count(self.size);
        let room = segment_length(mark.segment_count, self.size).div_ceil(LEAF_BYTES);
        let tail = (from + mark.leaves.len()) as u64;
        let tail_fits = from <= tail_before && (tail == 0 || tail < room);
        let bad_fit = mark.bad.iter().all(|&bad| bad < mark.segment_count);
        let whole = length == mark.segment_count;
        if in_size && tail_fits && bad_fit && whole { Ok(()) } else { Err(MarkError) }
    }

    /// The step since the last mark, which counts as taken with this.
    #[must_use]
    pub fn take_mark(&mut self) -> Mark {
        let fresh = self.marked.segments as u64..self.segments.len() as u64;
        let told = fresh.start;
        let replaced = self.marked.replaced.iter().copied().filter(|&segment| segment < told);
        let digest = |segment: u64| {
            let at = usize::try_from(segment).ok()?;
            Some((segment, *self.segments.get(at)?))
        };
        let mark = Mark {
            segment_count: self.segments.len() as u64,
            segments: replaced.chain(fresh).filter_map(digest).collect(),
            leaves_from: u32::try_from(self.marked.tail).unwrap_or(0),
            leaves: self.tail.get(self.marked.tail..).unwrap_or_default().to_vec(),
            bad: self.bad.iter().copied().collect(),
            md5: self.md5,
        };
        self.all_marked();
        mark
    }

    /// The whole of it as one step from nothing.
    #[must_use]
    pub fn whole_mark(&mut self) -> Mark {
        self.marked = Marked::default();
        self.take_mark()
    }

    fn all_marked(&mut self) {
        let (segments, tail) = (self.segments.len(), self.tail.len());
        self.marked = Marked { segments, tail, replaced: BTreeSet::new() };
    }
}

/// A mark that does not follow from the progress before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a mark does not follow from those before it")]
pub struct MarkError;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn digest(n: u64) -> Md5Digest {
        Md5Digest::of(&n.to_be_bytes())
    }

    fn grown(size: u64, leaves: u64) -> Progress {
        let mut progress = Progress::new(size);
        for leaf in 0..leaves {
            progress.push_leaf(digest(leaf));
        }
        progress
    }

    #[test]
    fn the_frontier_is_whole_leaves_or_the_size() {
        let size = SEGMENT_BYTES + LEAF_BYTES + 5;
        assert_eq!(grown(size, 0).frontier(), 0);
        assert_eq!(grown(size, 127).frontier(), 127 * LEAF_BYTES);
        assert_eq!(grown(size, 129).frontier(), 129 * LEAF_BYTES);
        assert_eq!(grown(size, 130).frontier(), size);
        assert!(grown(size, 130).is_complete());
    }

    #[test]
    fn an_empty_file_is_complete_from_the_start() {
        let empty = Progress::new(0);
        assert_eq!(empty.root(), Some(Md5Digest::of(&[0; 8])));
    }

    #[test]
    fn lowering_within_a_complete_segment_falls_to_its_start() {
        let mut progress = grown(3 * SEGMENT_BYTES, 2 * 128 + 10);
        progress.lower(2 * SEGMENT_BYTES + 3 * LEAF_BYTES);
        assert_eq!(progress.frontier(), 2 * SEGMENT_BYTES + 3 * LEAF_BYTES);
        progress.lower(SEGMENT_BYTES + LEAF_BYTES);
        assert_eq!(progress.frontier(), SEGMENT_BYTES);
    }

    #[test]
    fn a_new_size_keeps_only_what_it_can_share_with_the_old_one() {
        let old = SEGMENT_BYTES + LEAF_BYTES + 5;
        for (new, frontier) in [
            (old, old),
            (old + 1, SEGMENT_BYTES),
            (SEGMENT_BYTES, SEGMENT_BYTES),
            (SEGMENT_BYTES - 1, 0),
            (0, 0),
        ] {
            let mut progress = grown(old, 130);
            progress.resize(new);
            assert_eq!(progress.frontier(), frontier, "{new}");
        }
        let mut partial = grown(old, 10);
        partial.resize(3 * LEAF_BYTES + 1);
        assert_eq!(partial.frontier(), 3 * LEAF_BYTES);
    }

    #[test]
    fn a_new_size_that_ends_with_the_tail_completes_the_file() {
        let mut progress = grown(2 * SEGMENT_BYTES, 10);
        progress.resize(10 * LEAF_BYTES);
        assert_eq!(progress.root(), grown(10 * LEAF_BYTES, 10).root());
        assert!(progress.root().is_some());
    }

    #[test]
    fn a_spoiled_segment_makes_the_root_unknown_until_it_came_again() {
        let mut progress = grown(2 * SEGMENT_BYTES, 256);
        let root = progress.root();
        let first = progress.segments()[0];
        progress.spoil(0);
        assert_eq!(progress.root(), None);
        assert_eq!(progress.good_bytes(), SEGMENT_BYTES);
        progress.replace(0, first);
        assert_eq!(progress.root(), root);
    }

    #[test]
    fn a_mark_that_does_not_follow_changes_nothing() {
        let mut progress = grown(2 * SEGMENT_BYTES, 3);
        let before = progress.clone();
        for bad in [
            Mark { segment_count: 3, ..Mark::default() },
            Mark { segment_count: 1, ..Mark::default() },
            Mark { leaves_from: 4, ..Mark::default() },
            Mark { bad: vec![0], ..Mark::default() },
            Mark { segments: vec![(1, digest(1))], segment_count: 2, ..Mark::default() },
            Mark { leaves: vec![digest(0); 128], ..Mark::default() },
        ] {
            assert_eq!(progress.apply(&bad), Err(MarkError), "{bad:?}");
            assert_eq!(progress, before);
        }
    }

    proptest! {
        #[test]
        fn replaying_the_marks_gives_the_progress(
            size in 0..4 * SEGMENT_BYTES,
            steps in proptest::collection::vec((0..4_u8, 0..100_u64), 0..60),
        ) {
            let mut live = Progress::new(size);
            let mut replayed = Progress::new(size);
            for (kind, n) in steps {
                match kind {
                    0 => for leaf in 0..n {
                        if live.frontier() < size { live.push_leaf(digest(leaf * n)); }
                    },
                    1 => live.spoil(n % 4),
                    2 => live.replace(n % 4, digest(n)),
                    _ => live.lower(n * 3 * LEAF_BYTES),
                }
                if n % 3 != 0 {
                    replayed.apply(&live.take_mark()).unwrap();
                    prop_assert_eq!(&replayed, &live);
                }
            }
        }
    }
}
