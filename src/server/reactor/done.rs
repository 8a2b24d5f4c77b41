//! What the disk thread has done, and whom it concerns.

use std::{sync::Arc, time::Instant};

use mio::Token;

use super::{Reactor, enqueue, find, logins::forget_login};
use crate::{
    server::{
        bulk,
        connection::Cold,
        disk::{self, Done, Held, Ticket},
    },
    session::{JobId, Outcome},
    wire::{Code, Reply},
};

impl Reactor {
    /// Takes what the disk thread has done.
    pub(super) fn take_done(&mut self, now: Instant) {
        while let Some((ticket, done)) = self.disk.poll() {
            self.disk_worked = true;
            let done = done.unwrap_or_else(|panicked| {
                log::error!("{panicked}");
                let reply = Reply::text(Code::Failed, &panicked.to_string());
                Done::Session(Outcome::Failed(reply), None)
            });
            match (ticket, done) {
                (Ticket::Session(token, job), Done::Session(outcome, held)) => {
                    self.take_outcome(token, job, outcome, held, now);
                }
                (Ticket::Session(token, job), Done::Sources(opened)) => {
                    self.take_sources(token, job, opened, now);
                }
                (Ticket::Read(token, read), done) => {
                    self.cold_reads.set(self.cold_reads.get().saturating_sub(1));
                    self.take_read(token, read, done, now);
                }
                (Ticket::Session(token, job), Done::Login(outcome, changed)) => {
                    self.take_outcome(token, job, outcome, None, now);
                    changed.into_iter().for_each(|accounts| self.take_accounts(&accounts, now));
                }
                (Ticket::Session(token, job), Done::Home(account, home)) => {
                    self.take_home(token, job, account, home, now);
                }
                (Ticket::Session(token, job), Done::Opening(opening)) => {
                    self.take_opening(token, job, opening);
                }
                (_, Done::Accounts(changed)) => {
                    changed.into_iter().for_each(|accounts| self.take_accounts(&accounts, now));
                }
                (_, Done::Swept(left)) => self.take_swept(left, now),
                (_, Done::Reloaded(loaded)) => self.take_settings(loaded, now),
                (Ticket::Session(token, job), Done::Busy(wanted)) => {
                    self.take_busy(token, job, *wanted, now);
                }
                (_, Done::Passed(who, holder)) => self.take_passed(who, holder, now),
                (_, Done::Expiring(all)) => {
                    let homes = Arc::clone(&self.homes);
                    self.disk.submit(Ticket::Nobody, move || homes.expire_step(all));
                }
                (Ticket::Session(..) | Ticket::Nobody, _) => {}
            }
        }
    }

    pub(super) fn take_outcome(
        &mut self,
        token: Token,
        job: JobId,
        outcome: Outcome,
        held: Option<Held>,
        now: Instant,
    ) {
        let Some(connection) = find(&mut self.connections, token) else {
            // Whoever asked is gone; what was opened for it is let go.
            if let Some(held) = held {
                disk::release(&self.disk, held, None);
            }
            return;
        };
        self.takeovers.forget(token);
        if connection.home.is_none() && matches!(outcome, Outcome::Failed(_)) {
            forget_login(&mut self.gate, connection);
        }
        if let Some(mut held) = held {
            if let Held::Action(running) = &mut held {
                // Its events are its connection's.
                let watched = running.child.register(self.poll.registry(), [token; 3]);
                if let Err(error) = watched {
                    log::error!("{}: an action can't be watched: {error}", connection.peer);
                    disk::release(&self.disk, held, None);
                    let reply = Reply::text(Code::Failed, "the action can't be watched");
                    connection.session.handle_outcome(job, Outcome::Failed(reply), now);
                    return enqueue(&mut self.ready, connection);
                }
            }
            connection.held = Some(held);
        } else if connection.partial.is_some_and(|(_, opening)| opening == job) {
            // A partial that was not opened is not held either.
            self.writers.forget(connection);
        }
        connection.session.handle_outcome(job, outcome, now);
        enqueue(&mut self.ready, connection);
    }

    fn take_read(&mut self, token: Token, read: u64, done: Done, now: Instant) {
        let Some(connection) = find(&mut self.connections, token) else {
            return;
        };
        // A read for a file that was let go since is of no use to the next.
        if !matches!(connection.cold, Cold::Pending(pending) if pending == read) {
            return;
        }
        connection.cold = Cold::No;
        match done {
            Done::Read(offset, Ok(bytes)) => connection.cold = Cold::Ready(offset, bytes),
            Done::Read(_, Err(error)) => bulk::source_failed(connection, &error, now),
            Done::Session(Outcome::Failed(reply), _) => {
                connection.session.handle_source_failed(reply, now);
            }
            // A read comes to nothing else.
            _ => {}
        }
        enqueue(&mut self.ready, connection);
    }
}
