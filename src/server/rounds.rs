//! Whose turn it is to move bulk bytes: rounds in which everybody may move as many, and whoever has
//! not had his share of this one goes first.
//!
//! That is deficit round robin (Shreedhar and Varghese, "Efficient Fair Queuing using Deficit Round
//! Robin", 1995) with new flows before old ones, as in RFC 8290, section 4.2. Among streams that
//! always go on, all move the same; a small file waits for few of them, not for a share of each. What
//! is counted is what was read, which is what a visit costs, also if the line takes less.
//!
//! Pure: knows tokens, not connections.

use std::{collections::VecDeque, mem};

use mio::Token;

use crate::limits::{NEWCOMERS_MIN, ROUND_BYTES, VISIT_BYTES_MIN};

/// Who waits. Nobody is in it twice.
#[derive(Debug, Default)]
pub(super) struct Rounds {
    /// The number of this round.
    number: usize,
    /// How many have come first in this round who had not had a turn in it.
    newcomers: usize,
    /// How many were waiting as it began.
    began_with: usize,
    /// Who has a part of his share left in this round.
    first: VecDeque<Token>,
    /// Who has had nothing in this round, since he used up his share of the one before.
    rest: VecDeque<Token>,
    /// Who waits for the next round.
    next: VecDeque<Token>,
}

/// What a connection has had of a round.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Share {
    round: usize,
    spent: usize,
}

impl Rounds {
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        self.first.len() + self.rest.len() + self.next.len()
    }

    /// Those whose turn it is next, in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Token> {
        self.first.iter().chain(&self.rest).chain(&self.next).copied()
    }

    /// Has a connection wait that is not waiting yet.
    pub(super) fn push(&mut self, token: Token, share: Share) {
        let is_new = share.round != self.number;
        // An endless row of new connections must not keep old ones waiting.
        let is_full = self.newcomers >= NEWCOMERS_MIN + self.began_with;
        let goes_first = if is_new { !is_full } else { share.spent < ROUND_BYTES };
        self.newcomers += usize::from(is_new && goes_first);
        let queue = if goes_first { &mut self.first } else { &mut self.next };
        queue.push_back(token);
    }

    /// Whose turn it is. A step that is not full yet goes on with the next round.
    pub(super) fn pop(&mut self) -> Option<Token> {
        if self.first.is_empty() && self.rest.is_empty() && !self.next.is_empty() {
            mem::swap(&mut self.rest, &mut self.next);
            self.number = self.number.wrapping_add(1);
            (self.newcomers, self.began_with) = (0, self.rest.len());
        }
        self.first.pop_front().or_else(|| self.rest.pop_front())
    }

    /// Counts what one whose turn it was has moved.
    pub(super) fn count(&self, share: &mut Share, bytes: usize) {
        // A visit has its price, whatever it moves.
        let spent = self.spent(*share) + bytes.max(VISIT_BYTES_MIN);
        *share = Share { round: self.number, spent };
    }

    /// What somebody has had of this round, with what was too much in the one before.
    const fn spent(&self, share: Share) -> usize {
        match self.number.wrapping_sub(share.round) {
            0 => share.spent,
            1 => share.spent.saturating_sub(ROUND_BYTES),
            _ => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Connections, each of which moves so many bytes at a visit.
    struct Crowd {
        rounds: Rounds,
        shares: Vec<Share>,
        moved: Vec<usize>,
    }

    impl Crowd {
        fn new(count: usize) -> Self {
            let mut rounds = Rounds::default();
            (0..count).for_each(|n| rounds.push(Token(n), Share::default()));
            Self { rounds, shares: vec![Share::default(); count], moved: vec![0; count] }
        }

        /// One visit, of whoever's turn it is; he goes on.
        fn visit(&mut self, bytes: impl Fn(usize) -> usize) -> usize {
            let Token(n) = self.rounds.pop().unwrap();
            self.rounds.count(&mut self.shares[n], bytes(n));
            self.moved[n] += bytes(n);
            self.rounds.push(Token(n), self.shares[n]);
            n
        }
    }

    #[test]
    fn all_who_always_go_on_move_the_same_however_much_they_move_at_once() {
        let bytes = |n| [VISIT_BYTES_MIN, ROUND_BYTES, 3 * VISIT_BYTES_MIN / 2][n % 3];
        let mut crowd = Crowd::new(64);
        for _ in 0..100_000 {
            crowd.visit(bytes);
            let (least, most) = (crowd.moved.iter().min(), crowd.moved.iter().max());
            // A share, and what the last visit moved beyond it.
            assert!(most.unwrap() - least.unwrap() <= 2 * ROUND_BYTES);
        }
        assert!(*crowd.moved.iter().min().unwrap() > 100 * ROUND_BYTES);
    }

    #[test]
    fn who_comes_with_little_waits_for_nobody_who_has_had_his_share() {
        let mut crowd = Crowd::new(64);
        // One visit takes it all.
        let large = |_| ROUND_BYTES;
        for _ in 0..1000 {
            crowd.visit(large);
        }
        let late = Token(64);
        crowd.rounds.push(late, Share::default());
        assert_eq!(crowd.rounds.pop(), Some(late));
    }

    #[test]
    fn who_comes_again_and_again_with_little_keeps_nobody_waiting_for_more_than_his_share() {
        let mut crowd = Crowd::new(10);
        let bytes = |n| if n == 0 { 1 } else { ROUND_BYTES };
        let mut waited = 0;
        for _ in 0..10_000 {
            waited = if crowd.visit(bytes) == 0 { waited + 1 } else { 0 };
            assert!(waited <= ROUND_BYTES / VISIT_BYTES_MIN);
        }
        assert!(crowd.moved[1] > 400 * ROUND_BYTES);
    }

    #[test]
    fn an_endless_row_of_new_ones_does_not_keep_old_ones_waiting() {
        let mut crowd = Crowd::new(4);
        for _ in 0..100 {
            crowd.visit(|_| ROUND_BYTES);
        }
        let (mut new, mut turns) = (100, 0);
        for _ in 0..900 {
            new += 1;
            crowd.rounds.push(Token(new), Share::default());
            let Token(n) = crowd.rounds.pop().unwrap();
            if n < 4 {
                turns += 1;
                crowd.rounds.count(&mut crowd.shares[n], ROUND_BYTES);
                crowd.rounds.push(Token(n), crowd.shares[n]);
            }
        }
        // One comes for each turn that there is, so the queue grows: were all in one, each of the old
        // ones would have some twenty.
        assert!(turns >= 4 * 12, "{turns}");
    }

    #[test]
    fn nobody_is_lost_and_they_are_told_in_the_order_in_which_they_come() {
        let mut crowd = Crowd::new(9);
        for _ in 0..100 {
            let bytes = |n| (n + 1) * VISIT_BYTES_MIN;
            let next = crowd.rounds.iter().next();
            assert_eq!(crowd.rounds.iter().count(), 9);
            assert_eq!(next, Some(Token(crowd.visit(bytes))));
        }
        assert_eq!(crowd.rounds.len(), 9);
        assert!((0..9).all(|_| crowd.rounds.pop().is_some()));
        assert!(crowd.rounds.is_empty() && crowd.rounds.pop().is_none());
    }
}
