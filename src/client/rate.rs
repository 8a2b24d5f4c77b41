//! A limit on how fast all connections of a client move bytes, both ways together.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{ClientError, Stop, retry::sleep};
use crate::{
    bucket::Bucket,
    limits::{CHUNK_BYTES, STALL_BYTES, STALL_DEADLINE},
};

/// A rate that all who have a clone of this share.
#[derive(Debug, Clone)]
pub struct RateLimit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    step_bytes: usize,
    bucket: Mutex<Bucket>,
}

impl RateLimit {
    /// So many bytes per second, at least [`crate::limits::RATE_BYTES_MIN`]: with fewer, the other end would take the
    /// line for dead.
    #[must_use]
    pub fn new(bytes_per_s: u64) -> Self {
        let bucket = Bucket::new(bytes_per_s, Instant::now());
        let step_bytes = bucket.chunk_bytes(1, CHUNK_BYTES);
        Self(Arc::new(Shared { step_bytes, bucket: Mutex::new(bucket) }))
    }

    /// Over how many connections it may be shared out: so many that [`STALL_BYTES`] move on each within half
    /// of the time after which the other end takes the stream for stalled.
    #[must_use]
    pub fn connections_max(&self) -> usize {
        let moved = self.bucket().bytes_per_s().saturating_mul(STALL_DEADLINE.as_secs() / 2);
        usize::try_from(moved / STALL_BYTES).unwrap_or(usize::MAX).max(1)
    }

    /// How much to move in one step.
    pub(super) fn step_bytes(&self) -> usize {
        self.0.step_bytes
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.0.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a step may be made.
    pub(super) fn wait(&self, stop: &Stop) -> Result<(), ClientError> {
        loop {
            let pause = self.bucket().wait(Instant::now());
            if pause.is_zero() {
                return Ok(());
            }
            sleep(pause, stop)?;
        }
    }

    /// So many bytes were moved.
    pub(super) fn charge(&self, bytes: usize) {
        self.bucket().take(bytes as u64, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::RATE_BYTES_MIN;

    #[test]
    fn a_rate_is_shared_by_no_more_lines_than_it_keeps_going() {
        let most = |bytes_per_s| RateLimit::new(bytes_per_s).connections_max();
        assert_eq!(most(RATE_BYTES_MIN), 1);
        assert_eq!(most(8 << 10), 3);
        assert_eq!(most(50 << 10), 23);
        assert!(most(u64::MAX) > 1000);
    }
}
