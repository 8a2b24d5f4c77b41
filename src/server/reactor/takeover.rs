//! Who writes a partial: a client that comes back takes over from its own dead connection, also if
//! another worker has that one.

use std::time::Instant;

use mio::Token;

use super::{Reactor, find};
use crate::{
    limits::HOLDER_SILENT,
    server::{
        disk::{self, Done, Ticket, error_reply},
        workers::{Holder, Message, Step, Wanted, clock_nanos},
        writers::{PartialId, Writer},
    },
    session::{Job, JobId, Outcome},
    store::StoreError,
    wire::Owner,
};

impl Reactor {
    /// Makes a connection the writer of a partial, if it may be.
    pub(super) fn take_over(
        &mut self,
        name: PartialId,
        token: Token,
        opening: JobId,
        owner: Owner,
        now: Instant,
    ) -> bool {
        let may_write = self.may_write(name, token, owner, now);
        if may_write && let Some(connection) = find(&mut self.connections, token) {
            self.writers.set(name, owner, opening, connection);
        }
        may_write
    }

    /// Whether a connection may write what a partial is for, if need be after [`Self::evict`].
    pub(super) fn may_write(
        &mut self,
        name: PartialId,
        token: Token,
        owner: Owner,
        now: Instant,
    ) -> bool {
        let writer = self.writers.other_than(token, name);
        writer.is_none_or(|writer| self.evict(writer, owner, now) != Holder::Stays)
    }

    /// The disk thread found that another process has a partial.
    pub(super) fn take_busy(&mut self, token: Token, id: JobId, wanted: Wanted, now: Instant) {
        let partial = find(&mut self.connections, token).and_then(|it| it.partial);
        match partial {
            Some((partial, opening)) if opening == id && self.siblings.is_some() => {
                self.takeovers.busy((token, id), partial, wanted, clock_nanos(), now);
            }
            _ => self.refuse_busy(token, id, now),
        }
    }

    fn refuse_busy(&mut self, token: Token, id: JobId, now: Instant) {
        let reply = error_reply(&StoreError::Busy);
        self.take_outcome(token, id, Outcome::Failed(reply), None, now);
    }

    pub(super) fn take_steps(&mut self, steps: impl IntoIterator<Item = Step>, now: Instant) {
        for step in steps {
            match step {
                Step::Ask(message) => self.tell_siblings(&message, now),
                Step::Refuse(token, id) => self.refuse_busy(token, id, now),
                Step::Open(token, id, Wanted { offer, fresh, replace }) => {
                    let home = find(&mut self.connections, token).and_then(|it| it.home.clone());
                    let Some(home) = home else {
                        self.takeovers.forget(token);
                        continue;
                    };
                    let job = Job::OpenPartial { offer, fresh, replace };
                    disk::start(&self.disk, &home, Ticket::Session(token, id), job, None);
                }
            }
        }
    }

    /// A client came to a sibling for a partial.
    pub(super) fn take_ask(
        &mut self,
        who: (u8, u64),
        (partial, owner, since): (PartialId, Owner, u64),
        now: Instant,
    ) {
        let writer = self.writers.of(partial);
        let holder = match writer {
            Some(writer) if self.takeovers.is_later(writer.token, since) => Holder::Stays,
            Some(writer) => self.evict(writer, owner, now),
            None => Holder::Nobody,
        };
        if holder == Holder::Stays {
            return self.take_passed(who, holder, now);
        }
        // What was open goes by way of the disk thread: once it is through with that, it is free.
        self.disk.submit(Ticket::Nobody, move || Done::Passed(who, holder));
    }

    /// The disk thread is through with what was before the question.
    pub(super) fn take_passed(&mut self, (to, ask): (u8, u64), holder: Holder, now: Instant) {
        if let Some(siblings) = &mut self.siblings {
            siblings.tell(to, &Message::Answer(ask, holder), now);
        }
    }

    /// Ends the connection of a writer for another connection of its client, which knows it to be dead
    /// before the server does; for one of another client only if it was silent for long.
    fn evict(&mut self, writer: Writer, owner: Owner, now: Instant) -> Holder {
        let silent = find(&mut self.connections, writer.token)
            .is_none_or(|other| now.saturating_duration_since(other.active) > HOLDER_SILENT);
        if writer.owner != owner && !silent {
            return Holder::Stays;
        }
        // Its last mark goes to the disk thread before the new writer's first job.
        self.close(writer.token, "taken over by a new connection", now);
        Holder::Released
    }
}
