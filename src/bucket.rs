//! How fast bytes may move: a rate as a bucket in debt. Pure: the time is handed in.
//!
//! Debt instead of credit: whoever moved bytes has them charged, and moves none while there is a
//! debt. So the rate is exact in the long run, and no byte is ever asked back.

use std::time::{Duration, Instant};

use crate::limits::RATE_BYTES_MIN;

/// For how long a line that was slower than it might be may make up for it: timers are late by a
/// moment, each time.
pub(crate) const CATCH_UP: Duration = Duration::from_millis(100);

/// Parts of a second in which a limited line moves one chunk, so that it flows and does not jerk,
/// and the debt is short.
const CHUNKS_PER_SECOND: u64 = 50;

/// What was moved at a rate, as the time that it takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    bytes_per_s: u64,
    /// When what was moved will have taken its time.
    free_at: Instant,
}

impl Bucket {
    /// So many bytes per second, at least [`RATE_BYTES_MIN`].
    pub(crate) fn new(bytes_per_s: u64, now: Instant) -> Self {
        Self { bytes_per_s: bytes_per_s.max(RATE_BYTES_MIN), free_at: now }
    }

    /// Bytes in a second.
    pub(crate) const fn bytes_per_s(&self) -> u64 {
        self.bytes_per_s
    }

    /// How much to move at once, in bytes: from `least` to `most`.
    pub(crate) fn chunk_bytes(&self, least: usize, most: usize) -> usize {
        usize::try_from(self.bytes_per_s / CHUNKS_PER_SECOND).unwrap_or(most).clamp(least, most)
    }

    /// How long to wait before anything may be moved.
    pub(crate) fn wait(&self, now: Instant) -> Duration {
        self.free_at.saturating_duration_since(now)
    }

    /// So many bytes were moved.
    pub(crate) fn take(&mut self, bytes: u64, now: Instant) {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_s);
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let from = self.free_at.max(now.checked_sub(CATCH_UP).unwrap_or(now));
        self.free_at = from.checked_add(time).unwrap_or(from);
    }
}

#[cfg(test)]
#[path = "bucket_tests.rs"]
mod tests;
