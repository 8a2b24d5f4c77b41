//! How fast bytes may move: for the server as a whole, and for each user.
//!
//! Pure: the time is handed in.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crate::{
    auth::UserName,
    bucket::Bucket,
    limits::{CHUNK_BYTES, RATE_BYTES_MIN, SIBLING_INTERVAL},
};

/// The least that is moved at once, in bytes.
const LIMITED_CHUNK_MIN: usize = 4 << 10;

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
        if self.server.map(|bucket| bucket.bytes_per_s()) != rate {
            self.server = rate.map(|rate| Bucket::new(rate, now));
        }
    }

    /// The same for all connections of a user.
    pub(super) fn limit_user(&mut self, user: &UserName, rate: Option<u64>, now: Instant) {
        let rate = rate.map(|rate| rate.max(RATE_BYTES_MIN));
        if self.users.get(user).map(|bucket| bucket.bytes_per_s()) == rate {
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
        let chunk = |bucket: &Bucket| bucket.chunk_bytes(LIMITED_CHUNK_MIN, CHUNK_BYTES);
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
}
