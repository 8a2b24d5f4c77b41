//! Rates without a clock: time is what the tests say.

use super::*;

const RATE: u64 = 10 << 20;

/// Moves chunks for so long, with pauses that take longer than asked for; returns the bytes.
fn moved_in(seconds: u64, late: impl Fn(u64) -> Duration) -> u64 {
    let began = Instant::now();
    let (mut now, mut bucket, mut moved) = (began, Bucket::new(RATE, began), 0);
    let chunk = bucket.chunk_bytes(1, 1 << 20) as u64;
    for n in 0.. {
        let wait = bucket.wait(now);
        if !wait.is_zero() {
            now += wait + late(n);
        }
        if now.duration_since(began) >= Duration::from_secs(seconds) {
            return moved;
        }
        bucket.take(chunk, now);
        moved += chunk;
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
    bucket.take(RATE, later);
    assert_eq!(bucket.wait(later), Duration::from_secs(1) - CATCH_UP);
}

#[test]
fn a_rate_is_never_so_low_that_nothing_moves() {
    let bucket = Bucket::new(0, Instant::now());
    assert_eq!(bucket.bytes_per_s(), RATE_BYTES_MIN);
    assert!(bucket.chunk_bytes(1, 1 << 20) > 0);
}

#[test]
fn no_number_of_bytes_overflows() {
    let now = Instant::now();
    let mut bucket = Bucket::new(0, now);
    for _ in 0..10 {
        bucket.take(u64::MAX, now);
    }
    assert!(bucket.wait(now) > Duration::from_secs(3600));
}
