//! MD5 of the whole file on the receiving side.
//!
//! It is one chain, so it can only follow data that comes in order. When bytes that it has seen
//! are going to be written over, it goes back to a position before them; what it then misses is
//! read from the disk at the end. It must not decide which bytes are good.

use std::{collections::VecDeque, ops::Range};

use super::md5_job::Md5Job;
use crate::digest::{FileMd5, LEAF_BYTES, Md5Digest, SEGMENT_BYTES, SavedMd5};

/// Segment starts to go back to: that of the segment in work, and that of the one before it,
/// whose digest may come in one chunk with the first bytes behind it.
const STARTS_KEPT: usize = 2;

/// An MD5 that can go back.
///
/// Invariant: the positions ascend, `starts` to `leaf` to `at`.
#[derive(Debug)]
pub(super) struct Md5Track {
    /// As of the last segment starts.
    starts: VecDeque<SavedMd5>,
    /// As of the start of the leaf in work: what the journal can keep, since a transfer goes on
    /// from there.
    leaf: Option<SavedMd5>,
    at: FileMd5,
}

impl Md5Track {
    /// Goes on from what a journal kept, or from the start.
    pub(super) fn new(saved: Option<SavedMd5>) -> Self {
        Self::from(restored(saved))
    }

    /// Goes on from a state of this very process, wherever that is.
    pub(super) fn from(at: FileMd5) -> Self {
        let leaf = at.save();
        let start = leaf.filter(|saved| saved.position.is_multiple_of(SEGMENT_BYTES));
        Self { starts: start.into_iter().collect(), leaf, at }
    }

    /// How far it has come.
    pub(super) fn position(&self) -> u64 {
        self.at.position()
    }

    /// The bytes that follow.
    pub(super) fn follow(&mut self, bytes: &[u8]) {
        for piece in split_at_leaves(self.position(), 0..bytes.len()) {
            self.at.update(bytes.get(piece).unwrap_or_default());
            self.keep(self.at.save());
        }
    }

    /// The job for the bytes that follow, which lie there in a chunk; `None` if there are none.
    pub(super) fn job(&self, ranges: Vec<Range<usize>>) -> Option<Md5Job> {
        let mut position = self.position();
        let mut pieces = Vec::new();
        for range in ranges {
            let length = range.len() as u64;
            pieces.extend(split_at_leaves(position, range));
            position += length;
        }
        Md5Job::new(&self.at, pieces)
    }

    /// That job has run.
    pub(super) fn followed(&mut self, job: Md5Job) {
        for saved in job.put_back(&mut self.at) {
            self.keep(Some(saved));
        }
    }

    /// Keeps what was saved at the start of a leaf.
    fn keep(&mut self, saved: Option<SavedMd5>) {
        let at_leaf = |saved: &SavedMd5| saved.position.is_multiple_of(LEAF_BYTES);
        let Some(saved) = saved.filter(at_leaf) else {
            return;
        };
        self.leaf = Some(saved);
        if saved.position.is_multiple_of(SEGMENT_BYTES) {
            if self.starts.len() == STARTS_KEPT {
                self.starts.pop_front();
            }
            self.starts.push_back(saved);
        }
    }

    /// What lies at `position` and behind will be written over: forgets it.
    pub(super) fn go_back(&mut self, position: u64) {
        while self.starts.back().is_some_and(|saved| saved.position > position) {
            self.starts.pop_back();
        }
        if self.leaf.is_none_or(|saved| saved.position > position) {
            self.leaf = self.starts.back().copied();
        }
        if self.at.position() > position {
            self.at = restored(self.leaf);
        }
    }

    /// What the journal may keep, at or below `limit`.
    pub(super) fn saved(&self, limit: u64) -> Option<SavedMd5> {
        let mut latest_first = self.leaf.iter().chain(self.starts.iter().rev());
        latest_first.find(|saved| (1..=limit).contains(&saved.position)).copied()
    }

    /// The state of everything so far.
    pub(super) const fn so_far(&self) -> &FileMd5 {
        &self.at
    }

    /// The MD5 of everything so far.
    pub(super) fn finish(&self) -> Md5Digest {
        self.at.clone().finish()
    }
}

/// Goes on from what was saved, or from the start.
fn restored(saved: Option<SavedMd5>) -> FileMd5 {
    saved.map(FileMd5::restore).and_then(Result::ok).unwrap_or_default()
}

/// Cuts `range`, whose bytes stand at `position` of the file, where leaves begin.
fn split_at_leaves(
    mut position: u64,
    mut range: Range<usize>,
) -> impl Iterator<Item = Range<usize>> {
    std::iter::from_fn(move || {
        let room = usize::try_from(LEAF_BYTES - position % LEAF_BYTES).unwrap_or(usize::MAX);
        let piece = range.start..range.end.min(range.start.saturating_add(room));
        position += piece.len() as u64;
        range.start = piece.end;
        (!piece.is_empty()).then_some(piece)
    })
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::digest::Engine;

    const SEGMENT_LEN: usize = 4 << 20;

    fn followed(bytes: &[u8]) -> Md5Track {
        let mut track = Md5Track::new(None);
        for piece in bytes.chunks(100_003) {
            track.follow(piece);
        }
        track
    }

    #[test]
    fn going_back_and_following_again_gives_the_digest_of_what_came_last() {
        let bytes = vec![7; 3 * SEGMENT_LEN + 12_345];
        let size = bytes.len() as u64;
        for to in [0, 5, SEGMENT_BYTES, 2 * SEGMENT_BYTES + 9, 3 * SEGMENT_BYTES, size] {
            let mut track = followed(&bytes);
            track.go_back(to);
            assert!(track.position() <= to, "{to}");
            let from = usize::try_from(track.position()).unwrap();
            track.follow(&bytes[from..]);
            assert_eq!(track.finish(), Md5Digest::of(&bytes), "{to}");
        }
    }

    /// Follows as the server does: a job over parts of a chunk, between which frames lie.
    fn follow_by_job(track: &mut Md5Track, bytes: &[u8]) {
        let (mut chunk, mut ranges) = (vec![], vec![]);
        for piece in bytes.chunks(bytes.len() / 2 + 1) {
            chunk.extend([0xee; 40]);
            ranges.push(chunk.len()..chunk.len() + piece.len());
            chunk.extend(piece);
        }
        if let Some(mut job) = track.job(ranges) {
            Engine::new().update(&mut [job.job(&chunk)]);
            track.followed(job);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        #[test]
        fn jobs_keep_what_following_at_once_keeps(
            steps in vec((0usize..1_500_000, 0u64..4, prop::bool::weighted(0.2)), 1..12),
        ) {
            let bytes: Vec<u8> = (0..=250).cycle().take(6 * SEGMENT_LEN).collect();
            let (mut at_once, mut by_job) = (Md5Track::new(None), Md5Track::new(None));
            for (length, back, goes_back) in steps {
                let from = usize::try_from(by_job.position()).unwrap();
                let to = (from + length).min(bytes.len());
                at_once.follow(&bytes[from..to]);
                follow_by_job(&mut by_job, &bytes[from..to]);
                if goes_back {
                    at_once.go_back(at_once.position().saturating_sub(back * SEGMENT_BYTES / 2));
                    by_job.go_back(by_job.position().saturating_sub(back * SEGMENT_BYTES / 2));
                }
                prop_assert_eq!(by_job.position(), at_once.position());
                prop_assert_eq!(&by_job.starts, &at_once.starts);
                prop_assert_eq!(by_job.leaf, at_once.leaf);
            }
            let end = usize::try_from(by_job.position()).unwrap();
            prop_assert_eq!(by_job.finish(), Md5Digest::of(&bytes[..end]));
        }
    }

    #[test]
    fn a_job_from_before_a_step_back_is_passed_over() {
        let mut track = followed(&vec![1; SEGMENT_LEN + 7]);
        let mut job = track.job(vec![0..9, 20..30]).unwrap();
        Engine::new().update(&mut [job.job(&[2; 30])]);
        track.go_back(SEGMENT_BYTES);
        track.followed(job);
        assert_eq!(track.position(), SEGMENT_BYTES);
        assert_eq!(track.finish(), Md5Digest::of(&vec![1; SEGMENT_LEN]));
    }

    #[test]
    fn the_start_of_the_segment_before_is_still_known() {
        let mut track = followed(&vec![1; 2 * SEGMENT_LEN + 7]);
        track.go_back(SEGMENT_BYTES);
        assert_eq!(track.position(), SEGMENT_BYTES);
    }

    #[test]
    fn what_is_saved_lies_at_the_last_leaf_within_the_limit() {
        let track = followed(&vec![1; SEGMENT_LEN + 3 * 32_768 + 7]);
        let saved = |limit| track.saved(limit).map(|saved| saved.position);
        assert_eq!(saved(u64::MAX), Some(SEGMENT_BYTES + 3 * LEAF_BYTES));
        assert_eq!(saved(SEGMENT_BYTES + LEAF_BYTES), Some(SEGMENT_BYTES));
        assert_eq!(saved(SEGMENT_BYTES - 1), None);
    }
}
