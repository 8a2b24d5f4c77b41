//! The end of a connection.

use std::time::Instant;

use mio::Token;

use super::{Reactor, SLOT_MASK, enqueue, find};
use crate::server::disk::{self, Opened};

impl Reactor {
    /// A session that has said everything: the connection closes once the peer has read it.
    pub(super) fn linger(&mut self, token: Token, now: Instant) {
        let Some(connection) = find(&mut self.connections, token) else {
            return;
        };
        if connection.is_flushed() {
            connection.linger(now);
        }
        connection.input = Vec::new();
        let mut waste = [0; 8192];
        let mut budget = 16;
        while budget > 0 && connection.receive(&mut waste, now) > 0 {
            budget -= 1;
        }
        let over = connection.lingers_until.is_some_and(|until| now >= until);
        if connection.broken || over || connection.input_ended && connection.is_flushed() {
            return self.close(token, "closed", now);
        }
        let until = connection.lingers_until.unwrap_or_else(|| connection.session.deadline());
        if until <= now {
            // The peer does not even read its last line.
            return self.close(token, "closed", now);
        }
        if budget == 0 {
            enqueue(&mut self.ready, connection);
        }
        if connection.reminder.is_none_or(|at| until < at) {
            connection.reminder = Some(until);
            self.timers.set(until, token);
        }
    }

    /// Ends a connection: the one place where its resources go.
    pub(super) fn close(&mut self, token: Token, why: &str, now: Instant) {
        let Some(connection) = find(&mut self.connections, token) else {
            return;
        };
        connection.session.handle_broken(why);
        self.act(token, now);
        let Some(mut connection) = self.connections.try_remove(token.0 & SLOT_MASK) else {
            return;
        };
        log::debug!("{}: {why}", connection.peer);
        // Fails only for a socket that was never registered.
        let _ = self.poll.registry().deregister(&mut connection.socket);
        self.writers.forget(&mut connection);
        self.gate.disconnect(connection.peer.ip());
        connection.user.iter().for_each(|user| self.gate.leave(user));
        if connection.login_pending {
            self.gate.end(connection.peer.ip());
        }
        if let Some(held) = connection.held.take() {
            disk::release(&self.disk, held, None);
        }
        self.released.extend(connection.opened.drain(..).filter_map(Opened::into_source));
        // A descriptor is free: whoever waits for one need not wait for the timer.
        if self.accept_retry.is_some() {
            self.accept_retry = Some(now);
        }
    }
}
