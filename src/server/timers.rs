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

    /// Forgets the reminders of tokens that are no more, once those are most of them.
    pub(super) fn tidy(&mut self, alive: usize, is_alive: impl Fn(Token) -> bool) {
        if self.heap.len() > 1024 + 8 * alive {
            self.heap.retain(|Reverse((_, token))| is_alive(Token(*token)));
        }
    }

    /// When the next reminder is due.
    pub(super) fn next(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// A token that is due.
    pub(super) fn pop_due(&mut self, now: Instant) -> Option<Token> {
        if self.next().is_some_and(|at| at <= now) {
            self.heap.pop().map(|Reverse((_, token))| Token(token))
        } else {
            None
        }
    }
}
