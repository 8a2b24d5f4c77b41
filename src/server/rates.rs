//! How fast bytes may move: for the server as a whole, and for each user.
//!
//! Pure: the time is handed in.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    auth::UserName,
    limits::{CHUNK_BYTES, RATE_BYTES_MIN, SIBLING_INTERVAL},
};

/// Parts of a second in which a limited line moves one chunk, so that it flows and does not jerk.
const CHUNKS_PER_SECOND: u64 = 50;

/// The least that is moved at once, in bytes.
const LIMITED_CHUNK_MIN: usize = 4 << 10;

/// A bucket that fills with time and is emptied by bytes. It may go below empty, by what was
/// moved last: then nothing moves until it is full again up to zero. So the rate is exact in the
/// long run, and no byte is ever asked back.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    /// Bytes in a second.
    rate: u64,
    /// When what was moved will have taken its time.
    free_at: Instant,
}

/// For how long a line that was slower than it might be may make up for it: timers are late by a
/// moment, each time.
const CATCH_UP: Duration = Duration::from_millis(100);

impl Bucket {
    fn new(rate: u64, now: Instant) -> Self {
        Self { rate: rate.max(RATE_BYTES_MIN), free_at: now }
    }

    /// So many bytes were moved.
    fn take(&mut self, bytes: u64, now: Instant) {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate);
        let time = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        let from = self.free_at.max(now.checked_sub(CATCH_UP).unwrap_or(now));
        self.free_at = from.checked_add(time).unwrap_or(from);
    }

    fn wait(&self, now: Instant) -> Duration {
        self.free_at.saturating_duration_since(now)
    }
}

/// The limits that are in force.
#[derive(Debug, Default)]
pub(super) struct Rates {
    server: Option<Bucket>,
    users: HashMap<UserName, Bucket>,
    /// What other workers have to be told; `None` where there are none.
    untold: Option<Untold>,
}

/// Bytes that were moved at a limited rate, in all and by users, and when to tell.
#[derive(Debug, Default)]
struct Untold {
    bytes: HashMap<Option<UserName>, u64>,
    due: Option<Instant>,
}

impl Rates {
    /// Bytes in a second for the server as a whole; `None` for as many as can be.
    pub(super) fn limit_server(&mut self, rate: Option<u64>, now: Instant) {
        let rate = rate.map(|rate| rate.max(RATE_BYTES_MIN));
        if self.server.map(|bucket| bucket.rate) != rate {
            self.server = rate.map(|rate| Bucket::new(rate, now));
        }
    }

    /// The same for all connections of a user.
    pub(super) fn limit_user(&mut self, user: &UserName, rate: Option<u64>, now: Instant) {
        let rate = rate.map(|rate| rate.max(RATE_BYTES_MIN));
        if self.users.get(user).map(|bucket| bucket.rate) == rate {
            return;
        }
        match rate {
            Some(rate) => drop(self.users.insert(user.clone(), Bucket::new(rate, now))),
            None => drop(self.users.remove(user)),
        }
    }

    fn of<'a>(&'a self, user: Option<&UserName>) -> impl Iterator<Item = &'a Bucket> {
        self.server.iter().chain(user.and_then(|user| self.users.get(user)))
    }

    /// The most that may be moved at once.
    pub(super) fn chunk_bytes(&self, user: Option<&UserName>) -> usize {
        let chunk = |bucket: &Bucket| {
            let chunk = usize::try_from(bucket.rate / CHUNKS_PER_SECOND).unwrap_or(CHUNK_BYTES);
            chunk.clamp(LIMITED_CHUNK_MIN, CHUNK_BYTES)
        };
        self.of(user).map(chunk).min().unwrap_or(CHUNK_BYTES)
    }

    /// How long a user's connection has to wait before it moves anything.
    pub(super) fn wait(&self, user: Option<&UserName>, now: Instant) -> Duration {
        self.of(user).map(|bucket| bucket.wait(now)).max().unwrap_or_default()
    }

    /// A user's connection has moved so many bytes, one way or the other.
    pub(super) fn take(&mut self, user: Option<&UserName>, bytes: u64, now: Instant) {
        if let Some(bucket) = &mut self.server {
            bucket.take(bytes, now);
            note(&mut self.untold, None, bytes, now);
        }
        if let Some((user, bucket)) = user.and_then(|user| Some((user, self.users.get_mut(user)?)))
        {
            bucket.take(bytes, now);
            note(&mut self.untold, Some(user), bytes, now);
        }
    }

    /// Notes from now on what others have to be told.
    pub(super) fn share(&mut self) {
        self.untold = Some(Untold::default());
    }

    /// Another worker has moved so many bytes for a user, or for all together.
    pub(super) fn take_elsewhere(&mut self, user: Option<&UserName>, bytes: u64, now: Instant) {
        let bucket = match user {
            None => self.server.as_mut(),
            Some(user) => self.users.get_mut(user),
        };
        bucket.into_iter().for_each(|bucket| bucket.take(bytes, now));
    }

    /// What others have to be told by now. Not each time at once: every few milliseconds.
    pub(super) fn taken(&mut self, now: Instant) -> HashMap<Option<UserName>, u64> {
        if self.tell_at().is_none_or(|at| now < at) {
            return HashMap::new();
        }
        self.untold.as_mut().map(std::mem::take).unwrap_or_default().bytes
    }

    /// When there is something to tell.
    pub(super) fn tell_at(&self) -> Option<Instant> {
        self.untold.as_ref()?.due
    }
}

fn note(untold: &mut Option<Untold>, user: Option<&UserName>, bytes: u64, now: Instant) {
    let Some(untold) = untold.as_mut().filter(|_| bytes > 0) else { return };
    *untold.bytes.entry(user.cloned()).or_default() += bytes;
    untold.due.get_or_insert(now + SIBLING_INTERVAL);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserName {
        name.parse().unwrap()
    }

    /// Moves as much as it may for so long; returns how much that was.
    fn moved(rates: &mut Rates, users: &[UserName], seconds: u64) -> u64 {
        let mut now = Instant::now();
        let end = now + Duration::from_secs(seconds);
        let mut sum = 0;
        while now < end {
            for user in users {
                if rates.wait(Some(user), now).is_zero() {
                    let chunk = rates.chunk_bytes(Some(user)) as u64;
                    rates.take(Some(user), chunk, now);
                    sum += chunk;
                }
            }
            // Timers are late.
            now += Duration::from_millis(7);
        }
        sum
    }

    #[test]
    fn ten_seconds_bring_ten_seconds_worth_within_five_percent() {
        for rate in [100_000, 1 << 20, 50 << 20] {
            let mut rates = Rates::default();
            rates.limit_user(&user("ann"), Some(rate), Instant::now());
            let sum = moved(&mut rates, &[user("ann")], 10);
            assert!(sum.abs_diff(10 * rate) * 20 <= 10 * rate, "{sum} at {rate}");
        }
    }

    #[test]
    fn the_server_limit_is_shared_by_all_and_holds_beside_their_own() {
        let mut rates = Rates::default();
        rates.limit_server(Some(1 << 20), Instant::now());
        rates.limit_user(&user("ann"), Some(64 << 20), Instant::now());
        let sum = moved(&mut rates, &[user("ann"), user("bob")], 10);
        assert!(sum.abs_diff(10 << 20) * 20 <= 10 << 20, "{sum}");
    }

    #[test]
    fn workers_that_tell_one_another_keep_to_the_rate_of_one() {
        let mut now = Instant::now();
        let (end, ann) = (now + Duration::from_secs(10), user("ann"));
        let mut workers = [(); 4].map(|()| Rates::default());
        for rates in &mut workers {
            rates.limit_server(Some(8 << 20), now);
            rates.limit_user(&ann, Some(1 << 20), now);
            rates.share();
        }
        let (mut sum, mut untold) = (0, Vec::new());
        while now < end {
            // What is told is heard a turn later.
            for (from, who, bytes) in std::mem::take(&mut untold) {
                for (to, rates) in workers.iter_mut().enumerate() {
                    let who: Option<&UserName> = Option::as_ref(&who);
                    (from != to).then(|| rates.take_elsewhere(who, bytes, now));
                }
            }
            for (from, rates) in workers.iter_mut().enumerate() {
                if rates.wait(Some(&ann), now).is_zero() {
                    let chunk = rates.chunk_bytes(Some(&ann)) as u64;
                    rates.take(Some(&ann), chunk, now);
                    sum += chunk;
                }
                let told = rates.taken(now).into_iter();
                untold.extend(told.map(|(who, bytes)| (from, who, bytes)));
            }
            now += Duration::from_millis(2);
        }
        assert!(sum.abs_diff(10 << 20) * 20 <= 10 << 20, "{sum}");
    }

    #[test]
    fn who_was_slow_may_not_make_up_for_it() {
        let now = Instant::now();
        let mut rates = Rates::default();
        rates.limit_user(&user("ann"), Some(10_000), now);
        let later = now + Duration::from_secs(3600);
        rates.take(Some(&user("ann")), 10_000, later);
        assert_eq!(rates.wait(Some(&user("ann")), later), Duration::from_secs(1) - CATCH_UP);
        assert_eq!(rates.wait(Some(&user("bob")), later), Duration::ZERO);
    }

    #[test]
    fn no_rate_and_no_number_of_bytes_overflows() {
        let now = Instant::now();
        let mut rates = Rates::default();
        rates.limit_server(Some(0), now);
        for _ in 0..10 {
            rates.take(None, u64::MAX, now);
        }
        assert!(rates.wait(None, now) > Duration::from_secs(3600));
    }
}
