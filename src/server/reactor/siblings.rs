//! What belongs to the other workers of a server: hearing them, and telling them.

use std::{sync::Arc, time::Instant};

use super::{INBOX, Reactor, SUPERVISOR};
use crate::{
    limits::SIBLING_MESSAGES_PER_TURN_MAX,
    server::{
        homes::Homes,
        workers::{Heard, Key, Message, Seat, Siblings},
    },
};

impl Reactor {
    /// Becomes one of several workers.
    pub(super) fn join(&mut self, seat: Seat) -> std::io::Result<()> {
        self.siblings = Some(Siblings::new(seat, self.poll.registry(), (SUPERVISOR, INBOX))?);
        let (root, holdings) = (Arc::clone(&self.root), Arc::clone(&self.holdings));
        self.homes = Arc::new(Homes::shared(root, holdings));
        self.gate.tally.share();
        self.rates.share();
        Ok(())
    }

    /// Whether this process does what only one of them has to do.
    pub(super) fn is_first(&self) -> bool {
        self.siblings.as_ref().is_none_or(Siblings::is_first)
    }

    /// Takes what siblings say, some at a time.
    pub(super) fn hear_siblings(&mut self, now: Instant) {
        if !std::mem::take(&mut self.inbox_pending) {
            return;
        }
        for _ in 0..SIBLING_MESSAGES_PER_TURN_MAX {
            match self.siblings.as_mut().map_or(Heard::Nothing, Siblings::hear) {
                Heard::Nothing => return,
                Heard::New(sibling) => {
                    log::debug!("worker {sibling} is there");
                    self.gate.tally.forget(sibling);
                    self.holdings.forget(sibling);
                    self.note_awaited();
                    self.tell_all_to(sibling, now);
                    let steps = self.takeovers.is_new(sibling);
                    self.take_steps(steps, now);
                }
                Heard::Said(from, message) => self.take_message(from, message, now),
            }
        }
        self.inbox_pending = true;
    }

    fn take_message(&mut self, from: u8, message: Message, now: Instant) {
        match message {
            // Told apart before.
            Message::Hello => {}
            Message::Welcome => {
                self.siblings.iter_mut().for_each(|siblings| siblings.welcomed(from));
            }
            Message::Count(Key::Home(home), count) => {
                self.holdings.hear_inside(from, home, count > 0);
            }
            Message::Count(key, count) => {
                self.gate.tally.hear(from, key, count);
                self.note_awaited();
            }
            Message::Failed(address, name) => self.gate.failed(address, &name, now),
            Message::Succeeded(address, name) => self.gate.succeeded(address, &name, now),
            Message::Registered(address) => self.gate.registered(address, now),
            Message::Took(user, bytes) => self.rates.take_elsewhere(user.as_ref(), bytes, now),
            Message::Ask { ask, partial, owner, since } => {
                self.take_ask((from, ask), (partial, owner, since), now);
            }
            Message::Answer(ask, holder) => {
                let step = self.takeovers.answered(from, ask, holder);
                self.take_steps(step, now);
            }
            Message::Home(home, state) => {
                let is_inside = self.gate.tally.own(&Key::Home(home)) > 0;
                self.holdings.hear(from, home, &state, is_inside);
            }
        }
    }

    /// What uploads elsewhere await of the file system is not free here.
    fn note_awaited(&self) {
        let key = Key::Awaited(self.root.id().0);
        self.root.set_awaited_elsewhere(self.gate.tally.elsewhere(&key));
    }

    /// Tells a sibling that knows nothing how things stand.
    fn tell_all_to(&mut self, sibling: u8, now: Instant) {
        let Some(siblings) = &mut self.siblings else { return };
        let counts = self.gate.tally.all().map(|(key, count)| Message::Count(key, count));
        let homes = self.holdings.to_tell(true).into_iter();
        let homes = homes.map(|(home, state)| Message::Home(home, state));
        siblings.tell_anew(sibling, counts.chain(homes).chain([Message::Welcome]), now);
    }

    /// Tells all others.
    pub(super) fn tell_siblings(&mut self, message: &Message, now: Instant) {
        if let Some(siblings) = &mut self.siblings {
            siblings.tell_all(message, now);
        }
    }

    /// A phase of a turn, and its last one: what has changed in it is told.
    pub(super) fn tell_changes(&mut self, now: Instant) {
        let Some(siblings) = &mut self.siblings else { return };
        for sibling in siblings.retry(now) {
            self.tell_all_to(sibling, now);
        }
        let worked = std::mem::take(&mut self.disk_worked);
        if worked {
            let (running, all) = self.children.running();
            self.gate.tally.set_actions(running, all);
            let awaited = self.root.awaited_bytes();
            self.gate.tally.set(Key::Awaited(self.root.id().0), awaited);
        }
        let Some(siblings) = &mut self.siblings else { return };
        for (key, count) in self.gate.tally.changes() {
            siblings.tell_all(&Message::Count(key, count), now);
        }
        if worked {
            for (home, state) in self.holdings.to_tell(false) {
                siblings.tell_all(&Message::Home(home, state), now);
            }
        }
        for (user, bytes) in self.rates.taken(now) {
            siblings.tell_all(&Message::Took(user, bytes), now);
        }
        if self.takeovers.next().is_some_and(|at| at <= now) {
            let others: Vec<u8> = siblings.others().collect();
            let steps = self.takeovers.due(&others, now);
            self.take_steps(steps, now);
        }
    }

    /// When [`Self::tell_changes`] has something to do though nothing happens.
    pub(super) fn siblings_at(&self) -> Option<Instant> {
        let siblings = self.siblings.as_ref()?;
        [siblings.wake_at(), self.takeovers.next(), self.rates.tell_at()]
            .into_iter()
            .flatten()
            .min()
    }
}
