//! MD5 of a whole file, what `md5sum` prints: the digest for people, on request.
//!
//! It is one chain over all bytes in their order, so it can be cut and continued; only beside
//! others does it run in lanes. At a block boundary all that must be remembered is 16 bytes and
//! the position; a transfer keeps these in its journal at each leaf boundary.
//!
//! It must not decide where to save: that is the journal's business.

use std::fmt;

use super::{
    Md5Digest,
    engine::Job,
    state::{BLOCK_LEN, State, word_bytes, words_of},
};

/// Bytes that MD5 takes at a time, and between which its state is 16 bytes.
pub(super) const BLOCK_BYTES: u64 = BLOCK_LEN as u64;

/// MD5 of the bytes from the start of a file up to [`position`](Self::position).
#[derive(Clone)]
pub struct FileMd5(State);

impl FileMd5 {
    /// At the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self(State::new())
    }

    /// Continues where `saved` was taken.
    ///
    /// # Errors
    ///
    /// When no state can have been saved at that position.
    pub fn restore(saved: SavedMd5) -> Result<Self, OffBoundary> {
        let SavedMd5 { state, position } = saved;
        if !position.is_multiple_of(BLOCK_BYTES) {
            return Err(OffBoundary { position });
        }
        Ok(Self(State::at(words_of(&state), position)))
    }

    /// Appends the bytes that follow, without lanes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The job to append the bytes that follow, for [`Engine::update`](super::Engine::update).
    pub fn job<'a>(&'a mut self, bytes: &'a [u8]) -> Job<'a> {
        Job::new(&mut self.0, bytes)
    }

    /// The job to append `pieces`, one after the other. What can be saved at the end of a piece
    /// is appended to `kept`.
    pub fn job_in_pieces<'a>(
        &'a mut self,
        pieces: Vec<&'a [u8]>,
        kept: &'a mut Vec<SavedMd5>,
    ) -> Job<'a> {
        Job::in_pieces(&mut self.0, pieces, kept)
    }

    /// Bytes hashed so far: where in the file the next ones belong.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.0.len()
    }

    /// What to remember to continue here later; `None` unless at a multiple of 64 bytes.
    #[must_use]
    pub fn save(&self) -> Option<SavedMd5> {
        Self::saved(&self.0)
    }

    pub(super) fn saved(state: &State) -> Option<SavedMd5> {
        let position = state.len();
        let between = position.is_multiple_of(BLOCK_BYTES);
        between.then(|| SavedMd5 { state: word_bytes(state.words), position })
    }

    /// The digest of all bytes.
    #[must_use]
    pub fn finish(self) -> Md5Digest {
        self.0.finish()
    }
}

impl Default for FileMd5 {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for FileMd5 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileMd5").field("position", &self.position()).finish_non_exhaustive()
    }
}

/// A [`FileMd5`] between two blocks: what a journal keeps of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SavedMd5 {
    /// The four words A, B, C, D of RFC 1321, each little-endian. This is not a digest.
    pub state: [u8; 16],
    /// Bytes hashed so far, a multiple of 64.
    pub position: u64,
}

/// A saved state claims a position at which none can have been saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an MD5 cannot be continued at byte {position}: not a multiple of 64")]
pub struct OffBoundary {
    /// The position.
    pub position: u64,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn a_restored_md5_ends_in_the_same_digest(
            blocks in 0usize..40,
            rest in 0usize..300,
            split in 0usize..3_000,
        ) {
            let bytes = pattern(blocks * 64 + rest);
            let (before, after) = bytes.split_at(blocks * 64);
            let (first, second) = before.split_at(split.min(before.len()));
            let mut md5 = FileMd5::new();
            md5.update(first);
            md5.update(second);
            let saved = md5.save().unwrap();
            prop_assert_eq!(saved.position, before.len() as u64);

            let mut restored = FileMd5::restore(saved).unwrap();
            prop_assert_eq!(restored.position(), saved.position);
            prop_assert_eq!(restored.save(), Some(saved));
            restored.update(after);
            prop_assert_eq!(restored.position(), bytes.len() as u64);
            prop_assert_eq!(restored.finish(), Md5Digest::of(&bytes));
        }
    }

    #[test]
    fn saving_changes_nothing() {
        let bytes = pattern(1_000);
        let mut md5 = FileMd5::new();
        for piece in bytes.chunks(32) {
            md5.update(piece);
            let _ = md5.save();
        }
        assert_eq!(md5.finish(), Md5Digest::of(&bytes));
    }

    #[test]
    fn the_state_at_the_start_is_that_of_rfc_1321() {
        let saved = FileMd5::new().save().unwrap();
        let words = [0x6745_2301u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
        assert_eq!(saved.state.as_slice(), words.map(u32::to_le_bytes).as_flattened());
        assert_eq!(saved.position, 0);
    }

    #[test]
    fn nothing_is_saved_inside_a_block() {
        let mut md5 = FileMd5::new();
        for position in 1..=130u64 {
            md5.update(b"x");
            assert_eq!(md5.save().is_some(), position % 64 == 0, "at {position}");
        }
    }

    #[test]
    fn a_state_saved_inside_a_block_is_refused() {
        for position in [1, 63, 65, u64::MAX] {
            let error = FileMd5::restore(SavedMd5 { state: [0; 16], position }).unwrap_err();
            assert_eq!(error, OffBoundary { position });
        }
    }
}
