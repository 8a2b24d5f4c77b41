//! Several processes that serve as one: what the one that started them gives to each, and what they
//! tell one another.
//!
//! The supervisor binds the addresses once for each worker, with `SO_REUSEPORT`, so that the kernel
//! spreads new connections over them; and makes an inbox for each, into which all others write. It
//! keeps all of these open: a worker that is started anew finds the connections and messages that
//! waited for it.
//!
//! **What is told is made to be lost.** A worker that was killed, or does not listen for long, is
//! told everything anew: counts are absolute, never differences, and each belongs to the worker that
//! tells it. What has no such form (a failed login, bytes that were moved) is harmless where it is
//! lost once.

mod holdings;
mod message;
mod seat;
mod siblings;
mod takeover;
mod tally;

use rustix::time::{ClockId, clock_gettime};

use self::message::HomeState;
pub use self::seat::{Seat, SeatError, Seats};
pub(super) use self::{
    holdings::Holdings,
    message::{Holder, Key, Message},
    siblings::{Heard, Siblings},
    takeover::{Step, Takeovers, Wanted},
    tally::Tally,
};

/// Nanoseconds of the clock that all processes share and nobody sets.
pub(super) fn clock_nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    let [seconds, nanos] = [now.tv_sec, now.tv_nsec].map(|it| u64::try_from(it).unwrap_or(0));
    seconds.saturating_mul(1_000_000_000).saturating_add(nanos)
}
