//! The end: everything that was received is noted, everybody is told.

use std::{sync::Arc, time::Instant};

use mio::Token;

use super::{Reactor, WAKER, find, sweep};
use crate::{
    limits::SHUTDOWN_DEADLINE,
    server::disk::Ticket,
    session::JobId,
    wire::{Code, Frame, Output, Reply, frame_bytes, output_bytes},
};

impl Reactor {
    /// Notes every partial, tells every client, and ends within [`SHUTDOWN_DEADLINE`].
    pub(super) fn shut_down(mut self) {
        let now = Instant::now();
        self.listeners.clear();
        let tokens: Vec<Token> = self.connections.iter().map(|(_, it)| it.token).collect();
        for token in tokens {
            if let Some(connection) = find(&mut self.connections, token) {
                let reply = Reply::text(Code::GoingDown, "the server is going down");
                if connection.session.runs_action() {
                    let text = "the server is going down";
                    let exit = Output::Exit(Reply::text(Code::ActionEnded, text));
                    connection.push_bytes(&output_bytes(&exit));
                } else if connection.session.outgoing().is_some_and(|out| out.between_frames()) {
                    connection.push_bytes(&frame_bytes(&Frame::Abort(reply)));
                } else {
                    connection.session.end(reply, now);
                    self.act(token, now);
                }
                if let Some(connection) = find(&mut self.connections, token) {
                    connection.flush(now);
                }
                self.close(token, "the server is going down", now);
            }
        }
        // A job behind all others: once it is done, so are the notes.
        let last = Ticket::Session(WAKER, JobId(u64::MAX));
        let children = Arc::clone(&self.children);
        self.disk.submit(last, move || sweep(&children));
        let deadline = now + SHUTDOWN_DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.disk.wait(left) {
                Some((Ticket::Session(WAKER, _), _)) => return,
                Some(_) if !left.is_zero() => {}
                _ => break,
            }
        }
        log::warn!("the disk is too slow to wait for: what was received last will come again");
        // Waiting for the thread is what the deadline forbids.
        std::mem::forget(self.disk);
    }
}
