//! Clients that came for a partial which another process has: the siblings are asked for it, and
//! whoever has it for the same client lets go. Pure: time is handed in.

use std::time::Instant;

use mio::Token;

use super::{Holder, Message};
use crate::{
    limits::{TAKEOVER_PAUSE, TAKEOVER_ROUNDS_MAX, TAKEOVER_WAIT},
    server::writers::PartialId,
    session::JobId,
    wire::PutOffer,
};

/// What a client came for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct Wanted {
    pub(in crate::server) offer: PutOffer,
    pub(in crate::server) fresh: bool,
    pub(in crate::server) replace: bool,
}

/// Somebody who waits.
#[derive(Debug)]
struct Waiting {
    token: Token,
    opening: JobId,
    partial: PartialId,
    wanted: Wanted,
    /// When he came, by the clock that all processes share.
    since: u64,
    /// How often was asked.
    round: u32,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Until all of these have answered, or one of them had it and let go.
    Asking { ask: u64, unanswered: Vec<u8>, until: Instant },
    /// Whoever had it is perhaps still about to let go.
    Pausing { until: Instant },
    /// The disk thread tries again.
    Opening,
}

/// All who wait: no more than there are connections.
#[derive(Debug, Default)]
pub(in crate::server) struct Takeovers {
    waiting: Vec<Waiting>,
    asks: u64,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::server) enum Step {
    /// Ask all siblings.
    Ask(Message),
    /// Try again.
    Open(Token, JobId, Wanted),
    /// Say that it is busy.
    Refuse(Token, JobId),
}

impl Takeovers {
    /// The disk thread found a partial taken by another process. What to do is said by
    /// [`due`](Self::due), from now on.
    pub(in crate::server) fn busy(
        &mut self,
        (token, opening): (Token, JobId),
        partial: PartialId,
        wanted: Wanted,
        since: u64,
        now: Instant,
    ) {
        let same = |it: &&mut Waiting| (it.token, it.opening) == (token, opening);
        if let Some(waiting) = self.waiting.iter_mut().find(same) {
            waiting.round += 1;
            let pause = TAKEOVER_PAUSE.saturating_mul(1 << waiting.round.min(TAKEOVER_ROUNDS_MAX));
            waiting.stage = Stage::Pausing { until: now + pause };
            return;
        }
        // A connection opens one at a time.
        self.forget(token);
        let (round, stage) = (0, Stage::Pausing { until: now });
        self.waiting.push(Waiting { token, opening, partial, wanted, since, round, stage });
    }

    /// A sibling has answered.
    pub(in crate::server) fn answered(
        &mut self,
        from: u8,
        ask: u64,
        holder: Holder,
    ) -> Option<Step> {
        let of_this = |it: &Waiting| matches!(it.stage, Stage::Asking { ask: of, .. } if of == ask);
        let at = self.waiting.iter().position(of_this)?;
        if holder == Holder::Stays {
            let Waiting { token, opening, .. } = self.waiting.swap_remove(at);
            return Some(Step::Refuse(token, opening));
        }
        let waiting = self.waiting.get_mut(at)?;
        waiting.without(from);
        if holder == Holder::Nobody && !waiting.is_answered() {
            return None;
        }
        Some(waiting.open())
    }

    /// A sibling is another process now: what that one had is free.
    pub(in crate::server) fn is_new(&mut self, sibling: u8) -> Vec<Step> {
        self.waiting.iter_mut().for_each(|waiting| waiting.without(sibling));
        let answered = self.waiting.iter_mut().filter(|waiting| waiting.is_answered());
        answered.map(Waiting::open).collect()
    }

    /// What is due by now. `others` are the siblings.
    pub(in crate::server) fn due(&mut self, others: &[u8], now: Instant) -> Vec<Step> {
        let mut steps = Vec::new();
        for waiting in &mut self.waiting {
            match waiting.stage {
                Stage::Pausing { until } if until <= now => {
                    if waiting.round >= TAKEOVER_ROUNDS_MAX {
                        steps.push(Step::Refuse(waiting.token, waiting.opening));
                        continue;
                    }
                    self.asks += 1;
                    let Waiting { partial, since, .. } = *waiting;
                    let (ask, owner) = (self.asks, waiting.wanted.offer.owner);
                    steps.push(Step::Ask(Message::Ask { ask, partial, owner, since }));
                    let unanswered = others.to_vec();
                    waiting.stage = Stage::Asking { ask, unanswered, until: now + TAKEOVER_WAIT };
                }
                // Who does not answer is perhaps no more.
                Stage::Asking { until, .. } if until <= now => steps.push(waiting.open()),
                Stage::Pausing { .. } | Stage::Asking { .. } | Stage::Opening => {}
            }
        }
        let refused = |it: &Waiting| steps.contains(&Step::Refuse(it.token, it.opening));
        self.waiting.retain(|waiting| !refused(waiting));
        steps
    }

    /// When something is due next.
    pub(in crate::server) fn next(&self) -> Option<Instant> {
        let due = |waiting: &Waiting| match waiting.stage {
            Stage::Pausing { until } | Stage::Asking { until, .. } => Some(until),
            Stage::Opening => None,
        };
        self.waiting.iter().filter_map(due).min()
    }

    /// A connection waits no longer: it has what it wanted, or is gone.
    pub(in crate::server) fn forget(&mut self, token: Token) {
        self.waiting.retain(|waiting| waiting.token != token);
    }

    /// Whether a connection that waits came later than somebody else. Of two that wait for one
    /// another, the later one is the one whose client is still there.
    pub(in crate::server) fn is_later(&self, token: Token, than: u64) -> bool {
        self.waiting.iter().any(|waiting| waiting.token == token && waiting.since > than)
    }
}

impl Waiting {
    fn without(&mut self, sibling: u8) {
        if let Stage::Asking { unanswered, .. } = &mut self.stage {
            unanswered.retain(|&it| it != sibling);
        }
    }

    fn is_answered(&self) -> bool {
        matches!(&self.stage, Stage::Asking { unanswered, .. } if unanswered.is_empty())
    }

    fn open(&mut self) -> Step {
        self.stage = Stage::Opening;
        Step::Open(self.token, self.opening, self.wanted.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        digest::Md5Digest,
        wire::{Owner, RemotePath},
    };

    const WHO: (Token, JobId) = (Token(1), JobId(2));

    fn wanted() -> Wanted {
        let offer = PutOffer {
            path: RemotePath::new(b"/f").unwrap(),
            size: 1,
            mtime: Default::default(),
            tag: "t".parse().unwrap(),
            owner: Owner(7),
            digest: Default::default(),
            ahead: false,
        };
        Wanted { offer, fresh: false, replace: true }
    }

    fn busy(takeovers: &mut Takeovers, now: Instant) {
        takeovers.busy(WHO, ((1, 1), Md5Digest([0; 16])), wanted(), 5, now);
    }

    /// The number of the question that is due.
    fn asked(takeovers: &mut Takeovers, now: Instant) -> u64 {
        match &takeovers.due(&[1, 2], now)[..] {
            [Step::Ask(Message::Ask { ask, owner: Owner(7), since: 5, .. })] => *ask,
            steps => panic!("{steps:?}"),
        }
    }

    fn open() -> Step {
        Step::Open(WHO.0, WHO.1, wanted())
    }

    #[test]
    fn it_is_opened_once_somebody_let_go_or_nobody_has_it() {
        let now = Instant::now();
        let mut takeovers = Takeovers::default();
        busy(&mut takeovers, now);
        let ask = asked(&mut takeovers, now);
        assert_eq!(takeovers.answered(2, ask + 1, Holder::Released), None);
        assert_eq!(takeovers.answered(2, ask, Holder::Released), Some(open()));
        assert_eq!(takeovers.answered(1, ask, Holder::Nobody), None, "once is enough");
        busy(&mut takeovers, now);
        assert_eq!(takeovers.due(&[1], now), []);
        let later = takeovers.next().unwrap();
        let ask = asked(&mut takeovers, later);
        assert_eq!(takeovers.answered(1, ask, Holder::Nobody), None);
        assert_eq!(takeovers.is_new(2), [open()]);
        takeovers.forget(WHO.0);
        assert_eq!(takeovers.next(), None);
    }

    #[test]
    fn who_keeps_it_ends_the_wait_and_so_does_asking_too_often() {
        let mut now = Instant::now();
        let mut takeovers = Takeovers::default();
        busy(&mut takeovers, now);
        let ask = asked(&mut takeovers, now);
        let refused = Step::Refuse(WHO.0, WHO.1);
        assert_eq!(takeovers.answered(1, ask, Holder::Stays), Some(refused));
        assert_eq!(takeovers.next(), None);
        let start = now;
        busy(&mut takeovers, now);
        for _ in 0..TAKEOVER_ROUNDS_MAX {
            asked(&mut takeovers, now);
            assert_eq!(takeovers.due(&[1], now), []);
            assert_eq!(takeovers.due(&[1], now + TAKEOVER_WAIT), [open()]);
            busy(&mut takeovers, now);
            now = takeovers.next().unwrap();
        }
        assert_eq!(takeovers.due(&[1], now), [Step::Refuse(WHO.0, WHO.1)]);
        assert!(takeovers.next().is_none() && now - start < TAKEOVER_WAIT);
    }

    #[test]
    fn of_two_that_wait_for_one_another_the_later_one_stays() {
        let mut takeovers = Takeovers::default();
        busy(&mut takeovers, Instant::now());
        assert!(takeovers.is_later(WHO.0, 4) && !takeovers.is_later(WHO.0, 6));
        assert!(!takeovers.is_later(Token(9), 4));
    }
}
