//! New connections.

use std::{io::Write, net::SocketAddr, sync::Arc, time::Instant};

use mio::{Interest, Token, net::TcpStream};

use super::{Reactor, SLOT_BITS, enqueue};
use crate::{
    limits::{ACCEPT_RETRY, ACCEPTS_PER_TURN_MAX, CONNECTIONS_MAX},
    server::{
        connection::Connection,
        listen::{AcceptError, prepare},
    },
    session::Session,
    wire::{Code, Reply},
};

impl Reactor {
    /// Accepts who waits, some at a time; what is left is remembered.
    pub(super) fn accept(&mut self, now: Instant) {
        if self.accept_retry.is_some_and(|at| at <= now) {
            self.accept_retry = None;
            self.accept_pending = true;
        }
        if !self.accept_pending || self.accept_retry.is_some() {
            return;
        }
        let mut left = ACCEPTS_PER_TURN_MAX;
        let mut drained = 0;
        for index in 0..self.listeners.len() {
            while left > 0 {
                left -= 1;
                let Some(listener) = self.listeners.get(index) else {
                    break;
                };
                match listener.accept() {
                    Ok((socket, peer)) => self.welcome(socket, peer, now),
                    Err(error) => match AcceptError::of(&error) {
                        AcceptError::Drained => {
                            drained += 1;
                            break;
                        }
                        AcceptError::Gone => {}
                        AcceptError::Later => {
                            log::warn!("can't accept for now: {error}");
                            self.accept_retry = Some(now + ACCEPT_RETRY);
                            return;
                        }
                    },
                }
            }
        }
        if drained == self.listeners.len() {
            self.accept_pending = false;
        } else {
            // Not everybody was accepted: go on in the next turn, which must not wait.
            self.accept_retry = Some(now);
        }
    }

    fn welcome(&mut self, mut socket: TcpStream, peer: SocketAddr, now: Instant) {
        let most = self.settings.max_connections.min(CONNECTIONS_MAX);
        let refused = if self.connections.len() >= most {
            Some("too many connections")
        } else if !self.gate.connect(peer.ip(), self.settings.max_per_address) {
            Some("too many connections from your address")
        } else {
            None
        };
        if let Some(text) = refused {
            let line = format!("{}\n", Reply::text(Code::TooMany, text));
            // Fits an empty send buffer; if not, the peer sees a close.
            let _ = socket.write(line.as_bytes());
            return;
        }
        if let Err(error) = prepare(&socket) {
            log::debug!("{peer}: gone before it was served: {error}");
            self.gate.disconnect(peer.ip());
            return;
        }
        let entry = self.connections.vacant_entry();
        // Never 0, which is what the tokens of everything else have there.
        self.generation = (self.generation + 1).clamp(1, usize::MAX >> SLOT_BITS);
        let token = Token(self.generation << SLOT_BITS | entry.key());
        let both = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(&mut socket, token, both) {
            log::warn!("{peer}: can't be watched: {error}");
            self.gate.disconnect(peer.ip());
            return;
        }
        log::debug!("{peer}: connected");
        let session = Session::new(Arc::clone(&self.greeting), self.memory.clone(), now);
        let mut connection = Connection::new(socket, peer, token, session, now);
        if self.users.is_none() {
            connection.home = Some(Arc::clone(&self.root));
        }
        let connection = entry.insert(connection);
        enqueue(&mut self.ready, connection);
    }
}
