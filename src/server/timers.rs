//! Deadlines of connections.

use std::{cmp::Reverse, collections::BinaryHeap, time::Instant};

use mio::Token;

/// A heap of deadlines. An entry is only a reminder to look: whoever is due asks the connection
/// whether it really is, and sets a new one.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Instant, usize)>>,
}

impl Timers {
    /// Reminds of `token` at `at`.
    pub(super) fn set(&mut self, at: Instant, token: Token) {
        self.heap.push(Reverse((at, token.0)));
    }

    /// Forgets the reminders that nobody needs any more, once those are most of them.
    pub(super) fn tidy(&mut self, alive: usize, is_needed: impl Fn(Instant, Token) -> bool) {
        if self.heap.len() > 1024 + 8 * alive {
            self.heap.retain(|Reverse((at, token))| is_needed(*at, Token(*token)));
        }
    }

    /// When the next reminder is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// A token that is due, and since when.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<(Instant, Token)> {
        if self.next().is_some_and(|at| at <= now) {
            self.heap.pop().map(|Reverse((at, token))| (at, Token(token)))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn reminders_that_were_replaced_are_forgotten() {
        let (mut timers, mut now) = (Timers::default(), Instant::now());
        // One that is far away, and then an earlier one, over and over: as a line does whose rate
        // is limited.
        for _ in 0..100_000 {
            timers.set(now + Duration::from_secs(60), Token(1));
            now += Duration::from_millis(20);
            timers.set(now, Token(1));
            let needed = now;
            timers.tidy(1, |at, _| at == needed);
            assert_eq!(timers.pop_due(now), Some((now, Token(1))));
            assert_eq!(timers.pop_due(now), None);
        }
        assert!(timers.heap.len() < 2000, "{}", timers.heap.len());
    }
}
