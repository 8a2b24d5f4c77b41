//! Files that are sent: opened many at once where a client asks for many ahead, and let go of so.
//!
//! What a connection has asked for behind the present command lies in its input. As long as that is
//! nothing but downloads, one job opens several of them: a file of a few KiB takes less time than
//! the way to the disk thread and back.

use std::{collections::VecDeque, time::Instant};

use mio::Token;

use super::{Reactor, enqueue, find};
use crate::{
    limits::{SOURCES_AHEAD_MAX, SOURCES_AHEAD_SERVER_MAX},
    server::{
        connection::Connection,
        disk::{self, Opened, Ticket},
    },
    session::JobId,
    wire::{Command, RemotePath, next_line},
};

impl Reactor {
    /// Opens a source, unless that was done ahead.
    pub(super) fn open_source(&mut self, token: Token, id: JobId, path: RemotePath, now: Instant) {
        let most = SOURCES_AHEAD_SERVER_MAX / self.connections.len().max(1);
        let Some(connection) = find(&mut self.connections, token) else { return };
        let Some(home) = connection.home.clone() else { return };
        if let Some(opened) = connection.opened.pop_front() {
            if opened.path == path {
                connection.held = opened.held;
                return connection.session.handle_outcome(id, opened.outcome, now);
            }
            // The input was not what it seemed to be.
            let others = connection.opened.drain(..).chain([opened]);
            self.released.extend(others.filter_map(Opened::into_source));
        }
        let mut paths = vec![path];
        paths.extend(asked_for(connection, most.min(SOURCES_AHEAD_MAX)));
        disk::open_sources(&self.disk, &home, Ticket::Session(token, id), paths);
    }

    /// Takes sources that were opened: that of the command, and those ahead.
    pub(super) fn take_sources(
        &mut self,
        token: Token,
        id: JobId,
        mut opened: VecDeque<Opened>,
        now: Instant,
    ) {
        let Some(first) = opened.pop_front() else { return };
        match find(&mut self.connections, token) {
            Some(connection) => {
                connection.opened = opened;
                enqueue(&mut self.ready, connection);
            }
            None => self.released.extend(opened.into_iter().filter_map(Opened::into_source)),
        }
        self.take_outcome(token, id, first.outcome, first.held, now);
    }

    /// Closes what was let go of in this turn. On the disk thread, since closing the last handle of a
    /// large file that was replaced takes as long as removing it.
    pub(super) fn let_go_sources(&mut self) {
        if !self.released.is_empty() {
            disk::close(&self.disk, std::mem::take(&mut self.released));
        }
    }
}

/// What a connection has asked for behind the present command, up to the first line that is neither
/// a download nor what is said to one.
fn asked_for(connection: &Connection, most: usize) -> Vec<RemotePath> {
    let (mut rest, mut paths) = (&*connection.input, Vec::new());
    while paths.len() + 1 < most
        && let Ok(Some((line, taken))) = next_line(rest, &mut 0)
    {
        if !line.first().is_some_and(u8::is_ascii_digit) {
            let Ok(Command::Get { path, .. }) = Command::parse(line) else { break };
            paths.push(path);
        }
        rest = rest.get(taken..).unwrap_or_default();
    }
    paths
}
