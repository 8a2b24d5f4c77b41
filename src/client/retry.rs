//! Trying again: back-off with jitter, and the end of patience.

use std::time::{Duration, Instant};

use super::{Client, ClientError, Event, LOOK_AT_STOP, Observer, Stop};

/// Pauses between attempts: doubled each time, spread by chance so that many clients of a server
/// that comes back do not all come at once, and short again after verified progress.
#[derive(Debug, Clone)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    failures: u32,
    random: u64,
}

impl Backoff {
    /// Pauses from `min` to `max`, spread by `seed`.
    #[must_use]
    pub const fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self { min, max, failures: 0, random: seed }
    }

    /// There was progress: the next pause is the shortest.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// The next pause: between half and the whole of min, 2 min, 4 min and so on up to max.
    pub fn next_pause(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let whole = self.min.saturating_mul(factor).min(self.max);
        self.failures = (self.failures + 1).min(31);
        // splitmix64: enough to spread clients.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.random;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let share = f64::from(u32::try_from(bits >> 33).unwrap_or(0)) / f64::from(u32::MAX);
        whole / 2 + whole.mul_f64(share)
    }
}

/// What an attempt tells about how far it came.
#[derive(Debug, Default)]
pub(super) struct Gain {
    best: u64,
    gained: bool,
}

impl Gain {
    /// So many bytes are known to be there. Only more than ever before is progress: a line that
    /// spoils the same bytes again and again must not go on for ever.
    pub(super) const fn reached(&mut self, bytes: u64) {
        if bytes > self.best {
            self.best = bytes;
            self.gained = true;
        }
    }
}

/// After what an operation is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// After all that may pass.
    Always,
    /// Only where it was the line: who has many files sees to those that don't keep still.
    AfterBreaks,
}

impl Client {
    /// Runs attempts until one succeeds, can't be mended, or patience ends.
    pub(super) fn retry<T>(
        &self,
        observer: &mut dyn Observer,
        attempt: impl FnMut(&mut dyn Observer, &mut Gain) -> Result<T, ClientError>,
    ) -> Result<(T, u32), ClientError> {
        self.retry_after(Again::Always, observer, attempt)
    }

    /// As [`Client::retry`], after what `again` says.
    pub(super) fn retry_after<T>(
        &self,
        again: Again,
        observer: &mut dyn Observer,
        mut attempt: impl FnMut(&mut dyn Observer, &mut Gain) -> Result<T, ClientError>,
    ) -> Result<(T, u32), ClientError> {
        let options = &self.options;
        let seed = u64::try_from(self.owner.0 & u128::from(u64::MAX)).unwrap_or(0);
        let mut backoff = Backoff::new(options.backoff_min, options.backoff_max, seed);
        let mut gain = Gain::default();
        let mut since = Instant::now();
        let mut breaks = 0;
        loop {
            let reason = match attempt(observer, &mut gain) {
                Ok(done) => return Ok((done, breaks)),
                // That is no failure yet.
                Err(ClientError::Stale(_)) if !options.stop.is_set() => continue,
                Err(ClientError::Unsettled(reason)) if again == Again::Always => {
                    // What was reached of a version that is no more counts for nothing: of a file
                    // that grows there is always more.
                    gain.gained = false;
                    reason
                }
                Err(
                    ClientError::Broken(reason)
                    | ClientError::Stale(reason)
                    | ClientError::TooMany(reason),
                ) => reason,
                Err(error) => return Err(error),
            };
            if options.stop.is_set() {
                return Err(ClientError::Interrupted);
            }
            if std::mem::take(&mut gain.gained) {
                backoff.reset();
                since = Instant::now();
            }
            let pause = backoff.next_pause();
            if since.elapsed() + pause > options.give_up {
                let patience = humantime::format_duration(options.give_up);
                let text = if options.give_up.is_zero() {
                    reason
                } else {
                    format!("no progress for {patience}; last: {reason}")
                };
                return Err(ClientError::GaveUp(text));
            }
            breaks += 1;
            log::info!("{}: {reason}; trying again in {pause:?}", self.address());
            observer.event(Event::Broke { reason: &reason, pause });
            sleep(pause, &options.stop)?;
        }
    }
}

/// Waits, unless it is asked to stop.
pub(super) fn sleep(pause: Duration, stop: &Stop) -> Result<(), ClientError> {
    let end = Instant::now() + pause;
    loop {
        if stop.is_set() {
            return Err(ClientError::Interrupted);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(LOOK_AT_STOP));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Options;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_anew_after_progress() {
        let (min, max) = (Duration::from_millis(200), Duration::from_secs(15));
        let mut backoff = Backoff::new(min, max, 7);
        let mut expected = min;
        for _ in 0..40 {
            let pause = backoff.next_pause();
            assert!(pause >= expected / 2 && pause <= expected, "{pause:?} {expected:?}");
            expected = (expected * 2).min(max);
        }
        backoff.reset();
        assert!(backoff.next_pause() <= min);
    }

    #[test]
    fn clients_do_not_all_come_at_once() {
        let (min, max) = (Duration::from_secs(1), Duration::from_secs(1));
        let mut pauses: Vec<_> =
            (0..100).map(|seed| Backoff::new(min, max, seed).next_pause()).collect();
        pauses.sort_unstable();
        pauses.dedup();
        assert!(pauses.len() > 90);
    }

    #[test]
    fn what_is_reached_of_versions_that_are_no_more_buys_no_patience() {
        let url = "tow://host/f".parse().unwrap();
        let options = Options {
            give_up: Duration::from_millis(200),
            backoff_min: Duration::from_millis(1),
            backoff_max: Duration::from_millis(1),
            ..Options::default()
        };
        let mut size = 0;
        let ended = Client::new(&url, options).retry(&mut (), |_, gain| {
            size += 1;
            gain.reached(size);
            if size > 10_000 {
                return Ok(());
            }
            Err(ClientError::Unsettled("it grew".to_owned()))
        });
        assert!(matches!(ended, Err(ClientError::GaveUp(_))), "{ended:?}");
    }

    #[test]
    fn only_what_may_pass_for_one_file_is_told_at_once_where_there_are_many() {
        let client = Client::new(&"tow://host/f".parse().unwrap(), Options::default());
        let mut tries = 0;
        let ended = client.retry_after(Again::AfterBreaks, &mut (), |_, _| {
            tries += 1;
            match tries {
                1 => Err::<(), _>(ClientError::Stale("closed".to_owned())),
                2 => Err(ClientError::Broken("cut".to_owned())),
                _ => Err(ClientError::Unsettled("it changed".to_owned())),
            }
        });
        assert!(matches!(ended, Err(ClientError::Unsettled(_))), "{ended:?}");
        assert_eq!(tries, 3);
    }

    #[test]
    fn a_stale_line_is_no_failure_even_for_who_does_not_try_again() {
        let url = "tow://host/f".parse().unwrap();
        let options = Options { give_up: Duration::ZERO, ..Options::default() };
        let mut tries = 0;
        let ended = Client::new(&url, options).retry(&mut (), |_, _| {
            tries += 1;
            if tries == 1 { Err(ClientError::Stale("closed".to_owned())) } else { Ok(()) }
        });
        assert_eq!(ended.unwrap(), ((), 0));
    }

    #[test]
    fn only_more_than_ever_before_is_progress() {
        let mut gain = Gain::default();
        gain.reached(5);
        assert!(std::mem::take(&mut gain.gained));
        gain.reached(5);
        gain.reached(3);
        assert!(!gain.gained);
    }
}
