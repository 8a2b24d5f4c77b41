//! MD5 of the whole file on the receiving side.
//!
//! It is one chain, so it can only follow data that comes in order. When bytes that it has seen
//! are going to be written over, it goes back to a position before them; what it then misses is
//! read from the disk at the end. It must not decide which bytes are good.

use std::collections::VecDeque;

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
    starts: VecDeque<FileMd5>,
    /// As of the start of the leaf in work: what the journal can keep, since a transfer goes on
    /// from there.
    leaf: FileMd5,
    at: FileMd5,
}

impl Md5Track {
    /// Goes on from what a journal kept, or from the start.
    pub(super) fn new(saved: Option<SavedMd5>) -> Self {
        let at = saved.map(FileMd5::restore).and_then(Result::ok);
        Self::from(at.unwrap_or_default())
    }

    /// Goes on from a state of this very process, wherever that is.
    pub(super) fn from(at: FileMd5) -> Self {
        let at_start = at.position().is_multiple_of(SEGMENT_BYTES);
        Self { starts: at_start.then(|| at.clone()).into_iter().collect(), leaf: at.clone(), at }
    }

    /// How far it has come.
    pub(super) fn position(&self) -> u64 {
        self.at.position()
    }

    /// The bytes that follow.
    pub(super) fn follow(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let room = LEAF_BYTES - self.at.position() % LEAF_BYTES;
            let take = usize::try_from(room).map_or(rest.len(), |room| room.min(rest.len()));
            let (now, behind) = rest.split_at(take);
            self.at.update(now);
            rest = behind;
            if self.at.position().is_multiple_of(LEAF_BYTES) {
                self.keep();
            }
        }
    }

    fn keep(&mut self) {
        self.leaf = self.at.clone();
        if self.at.position().is_multiple_of(SEGMENT_BYTES) {
            if self.starts.len() == STARTS_KEPT {
                self.starts.pop_front();
            }
            self.starts.push_back(self.at.clone());
        }
    }

    /// What lies at `position` and behind will be written over: forgets it.
    pub(super) fn go_back(&mut self, position: u64) {
        while self.starts.back().is_some_and(|md5| md5.position() > position) {
            self.starts.pop_back();
        }
        if self.leaf.position() > position {
            self.leaf = self.starts.back().cloned().unwrap_or_default();
        }
        if self.at.position() > position {
            self.at = self.leaf.clone();
        }
    }

    /// What the journal may keep, at or below `limit`.
    pub(super) fn saved(&self, limit: u64) -> Option<SavedMd5> {
        let latest_first = std::iter::once(&self.leaf).chain(self.starts.iter().rev());
        let mut within = latest_first.filter(|md5| (1..=limit).contains(&md5.position()));
        within.next().and_then(FileMd5::save)
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

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_start_of_the_segment_before_is_still_known() {
        let mut track = followed(&vec![1; 2 * SEGMENT_LEN + 7]);
        track.go_back(SEGMENT_BYTES);
        assert_eq!(track.position(), SEGMENT_BYTES);
    }

    #[test]
    fn what_is_saved_lies_at_the_last_leaf_within_the_limit() {
        let track = followed(&vec![1; SEGMENT_LEN + 3 * 65_536 + 7]);
        let saved = |limit| track.saved(limit).map(|saved| saved.position);
        assert_eq!(saved(u64::MAX), Some(SEGMENT_BYTES + 3 * LEAF_BYTES));
        assert_eq!(saved(SEGMENT_BYTES + LEAF_BYTES), Some(SEGMENT_BYTES));
        assert_eq!(saved(SEGMENT_BYTES - 1), None);
    }
}
