//! Brakes against guessing: who fails again and again has to wait, longer and longer.
//!
//! - An address (of IPv6 its /64, which is what one household has) waits after its first failures,
//!   up to 8 s, and has few attempts pending at a time then. A success takes nothing back, or an
//!   attacker with an account of his own would have no brake.
//! - A name waits up to 2 s, whoever asks for it: that slows down those who guess from many
//!   addresses. Never longer, and never at all where the user has logged in lately: nobody can
//!   lock out somebody else.
//! - Failures are forgotten by halves, each minute.
//!
//! Pure: the time is handed in. All tables are bounded; who fills them makes others be forgotten,
//! which costs him more attempts than it buys.

mod table;
#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::{BuildHasher as _, RandomState},
    net::{IpAddr, Ipv6Addr},
    time::{Duration, Instant},
};

use self::table::Table;
use crate::limits::{
    ADDRESS_BRAKE_MAX, ADDRESS_FAILURES_FREE, ATTEMPTS_PENDING_BRAKED_MAX, ATTEMPTS_PENDING_MAX,
    BRAKE_ENTRIES_MAX, BRAKE_HALF_LIFE, BRAKE_MIN, CONNECTIONS_MAX, FRIEND_FAILURES_MAX,
    FRIEND_TIME, NAME_BRAKE_MAX, NAME_FAILURES_FREE, REGISTRATION_WINDOW, REGISTRATIONS_MAX,
};

/// What is remembered of failed and successful logins.
#[derive(Debug)]
pub struct Brakes {
    hasher: RandomState,
    /// Attempts that have begun and not ended; no more addresses than there are connections.
    pending: HashMap<Network, usize>,
    addresses: Table<Network, Failures>,
    /// Names are held as hashes: they are of any length, and nobody's business.
    names: Table<u64, Failures>,
    friends: Table<(Network, u64), Friend>,
    registrations: Table<Network, VecDeque<Instant>>,
}

/// Too many attempts from this address are being looked at already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many logins at a time")]
pub struct TooMany;

/// The addresses that are taken for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Network(u128);

#[derive(Debug, Default)]
struct Failures {
    count: u32,
    /// When they were halved last.
    halved: Option<Instant>,
}

/// An address from which a user has logged in.
#[derive(Debug, Default)]
struct Friend {
    since: Option<Instant>,
    failed_since: u32,
}

impl Brakes {
    /// With nothing to remember yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            hasher: RandomState::new(),
            pending: HashMap::new(),
            addresses: Table::new(BRAKE_ENTRIES_MAX),
            names: Table::new(BRAKE_ENTRIES_MAX),
            friends: Table::new(BRAKE_ENTRIES_MAX),
            registrations: Table::new(BRAKE_ENTRIES_MAX),
        }
    }

    /// An attempt begins: how long to wait before it is looked at, at most 8 s. It has to end with
    /// [`ended`](Self::ended), also if it never comes to a result; failure or success are told in
    /// between.
    ///
    /// # Errors
    /// [`TooMany`]: refuse it without looking; there is nothing to end then.
    pub fn begin(
        &mut self,
        address: IpAddr,
        name: &str,
        now: Instant,
    ) -> Result<Duration, TooMany> {
        self.begin_beside(0, address, name, now)
    }

    /// The same where so many attempts from the address are pending elsewhere, with others who share
    /// what they know of failures.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub fn begin_beside(
        &mut self,
        elsewhere: usize,
        address: IpAddr,
        name: &str,
        now: Instant,
    ) -> Result<Duration, TooMany> {
        let network = Network::of(address);
        let name = self.hasher.hash_one(name);
        let failures = |found: Option<&mut Failures>| found.map_or(0, |failures| failures.at(now));
        let of_address = failures(self.addresses.get_mut(&network));
        let of_name = failures(self.names.get_mut(&name));
        let friend = self.friends.get_mut(&(network, name)).is_some_and(|f| f.counts(now));

        let braked = of_address > ADDRESS_FAILURES_FREE && !friend;
        let most = if braked { ATTEMPTS_PENDING_BRAKED_MAX } else { ATTEMPTS_PENDING_MAX };
        let most = most.saturating_sub(elsewhere);
        let room = self.pending.len() < CONNECTIONS_MAX;
        match self.pending.entry(network) {
            Entry::Occupied(mut pending) if *pending.get() < most => *pending.get_mut() += 1,
            Entry::Vacant(place) if room && most > 0 => _ = place.insert(1),
            Entry::Occupied(_) | Entry::Vacant(_) => return Err(TooMany),
        }
        let wait = brake(of_address, ADDRESS_FAILURES_FREE, ADDRESS_BRAKE_MAX);
        if friend {
            return Ok(wait);
        }
        Ok(wait.max(brake(of_name, NAME_FAILURES_FREE, NAME_BRAKE_MAX)))
    }

    /// An attempt was looked at, and was wrong.
    pub fn failed(&mut self, address: IpAddr, name: &str, now: Instant) {
        let network = Network::of(address);
        let name = self.hasher.hash_one(name);
        self.addresses.touch(network).add(now);
        self.names.touch(name).add(now);
        if let Some(friend) = self.friends.get_mut(&(network, name)) {
            friend.failed_since += 1;
            if !friend.counts(now) {
                self.friends.remove(&(network, name));
            }
        }
    }

    /// An attempt was looked at, and was right.
    pub fn succeeded(&mut self, address: IpAddr, name: &str, now: Instant) {
        let key = (Network::of(address), self.hasher.hash_one(name));
        *self.friends.touch(key) = Friend { since: Some(now), failed_since: 0 };
    }

    /// An attempt that had begun is over, one way or another.
    pub fn ended(&mut self, address: IpAddr) {
        if let Entry::Occupied(mut pending) = self.pending.entry(Network::of(address)) {
            match pending.get_mut() {
                0 | 1 => _ = pending.remove(),
                count => *count -= 1,
            }
        }
    }

    /// Somebody wants a new account.
    ///
    /// # Errors
    /// How long to wait: there were five from this address within the last hour.
    pub fn register(&mut self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let times = self.registrations.touch(Network::of(address));
        let age = |time: &Instant| now.saturating_duration_since(*time);
        times.retain(|time| age(time) < REGISTRATION_WINDOW);
        match times.front() {
            Some(first) if times.len() >= REGISTRATIONS_MAX => {
                Err(REGISTRATION_WINDOW - age(first))
            }
            _ => {
                times.push_back(now);
                Ok(())
            }
        }
    }
}

impl Default for Brakes {
    fn default() -> Self {
        Self::new()
    }
}

/// Nothing for the first failures, then twice as long for each.
fn brake(failures: u32, free: u32, longest: Duration) -> Duration {
    let Some(doublings) = failures.checked_sub(free + 1) else {
        return Duration::ZERO;
    };
    BRAKE_MIN.saturating_mul(1 << doublings.min(16)).min(longest)
}

impl Network {
    fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            // As a mapped address, in a /64 that no host can have.
            IpAddr::V4(address) => Self(address.to_ipv6_mapped().to_bits()),
            IpAddr::V6(address) => Self(Ipv6Addr::to_bits(address) >> 64 << 64),
        }
    }
}

impl Failures {
    /// How many count at this time.
    fn at(&mut self, now: Instant) -> u32 {
        let since = *self.halved.get_or_insert(now);
        let halvings = now.saturating_duration_since(since).as_secs() / BRAKE_HALF_LIFE.as_secs();
        if halvings > 0 {
            let halvings = u32::try_from(halvings).unwrap_or(u32::MAX);
            self.count = self.count.checked_shr(halvings).unwrap_or(0);
            // A longer pause has left nothing to halve.
            self.halved = since.checked_add(BRAKE_HALF_LIFE.saturating_mul(halvings)).or(Some(now));
        }
        self.count
    }

    fn add(&mut self, now: Instant) {
        self.count = self.at(now).saturating_add(1);
    }
}

impl Friend {
    fn counts(&self, now: Instant) -> bool {
        let recent = |since| now.saturating_duration_since(since) < FRIEND_TIME;
        self.since.is_some_and(recent) && self.failed_since <= FRIEND_FAILURES_MAX
    }
}
