//! A limit on how fast all connections of a client move bytes, both ways together.
//!
//! Debt instead of credit: whoever moved bytes has them charged, and nobody moves any while there is
//! a debt. What is moved in one step is a fiftieth of a second's worth, so the debt is short; time in
//! which nothing was moved counts for a tenth of a second at most.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{ClientError, Stop, retry::sleep};
use crate::limits::{CHUNK_BYTES, RATE_BYTES_MIN};

/// What a pause that was longer than asked for, or a line that had nothing, may be made good by.
const CREDIT: Duration = Duration::from_millis(100);

/// Steps in a second.
const STEPS: u64 = 50;

/// A rate that all who have a clone of this share.
#[derive(Debug, Clone)]
pub struct RateLimit(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    step_bytes: usize,
    bucket: Mutex<Bucket>,
}

impl RateLimit {
    /// So many bytes per second, at least [`RATE_BYTES_MIN`]: with fewer, the other end would take the
    /// line for dead.
    #[must_use]
    pub fn new(bytes_per_s: u64) -> Self {
        let rate = bytes_per_s.max(RATE_BYTES_MIN);
        let step_bytes = usize::try_from(rate / STEPS).unwrap_or(usize::MAX).clamp(1, CHUNK_BYTES);
        let bucket = Mutex::new(Bucket::new(rate, Instant::now()));
        Self(Arc::new(Shared { step_bytes, bucket }))
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
            let pause = self.bucket().pause(Instant::now());
            if pause.is_zero() {
                return Ok(());
            }
            sleep(pause, stop)?;
        }
    }

    /// So many bytes were moved.
    pub(super) fn charge(&self, bytes: usize) {
        self.bucket().charge(bytes, Instant::now());
    }
}

/// The arithmetic, of which the clock is no part.
#[derive(Debug)]
struct Bucket {
    bytes_per_s: u64,
    /// When everything that was moved will have been paid for.
    paid_at: Instant,
}

impl Bucket {
    const fn new(bytes_per_s: u64, now: Instant) -> Self {
        Self { bytes_per_s, paid_at: now }
    }

    /// How long to wait before anything may be moved.
    fn pause(&self, now: Instant) -> Duration {
        self.paid_at.saturating_duration_since(now)
    }

    fn charge(&mut self, bytes: usize, now: Instant) {
        let earliest = now.checked_sub(CREDIT).unwrap_or(now);
        let nanos = u128::try_from(bytes).unwrap_or(u128::MAX).saturating_mul(1_000_000_000);
        let nanos = nanos / u128::from(self.bytes_per_s.max(1));
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.paid_at = self.paid_at.max(earliest) + cost;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u64 = 10 << 20;

    /// Moves steps for so long, with pauses that take longer than asked for; returns the bytes.
    fn moved_in(seconds: u64, late: impl Fn(u64) -> Duration) -> u64 {
        let began = Instant::now();
        let (mut now, mut bucket, mut moved) = (began, Bucket::new(RATE, began), 0);
        let step = usize::try_from(RATE / STEPS).unwrap();
        for n in 0.. {
            let pause = bucket.pause(now);
            if !pause.is_zero() {
                now += pause + late(n);
            }
            if now.duration_since(began) >= Duration::from_secs(seconds) {
                return moved;
            }
            bucket.charge(step, now);
            moved += step as u64;
        }
        moved
    }

    #[test]
    fn ten_seconds_move_ten_seconds_worth_within_a_twentieth() {
        let exact = 10 * RATE;
        let all = [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(50)];
        for late in all {
            let moved = moved_in(10, |_| late);
            assert!(moved.abs_diff(exact) < exact / 20, "{late:?}: {moved} of {exact}");
        }
        // Once in a while, much too late.
        let moved = moved_in(10, |n| Duration::from_millis(if n % 100 == 0 { 90 } else { 0 }));
        assert!(moved.abs_diff(exact) < exact / 20, "{moved} of {exact}");
    }

    #[test]
    fn a_long_silence_buys_no_burst() {
        let began = Instant::now();
        let mut bucket = Bucket::new(RATE, began);
        let later = began + Duration::from_secs(3600);
        let second = usize::try_from(RATE).unwrap();
        bucket.charge(second, later);
        assert_eq!(bucket.pause(later), Duration::from_secs(1) - CREDIT);
    }

    #[test]
    fn a_rate_is_never_so_low_that_nothing_moves() {
        let limit = RateLimit::new(0);
        assert!(limit.step_bytes() > 0);
        assert_eq!(limit.bucket().bytes_per_s, RATE_BYTES_MIN);
    }
}
