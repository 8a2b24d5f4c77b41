//! A connection's turn: what came in, what is answered, what waits for bulk.

use std::time::Instant;

use mio::Token;

use super::{Reactor, enqueue, find, moving};
use crate::{
    limits::{NOBODY_INPUT_BYTES_MAX, TURN_TIME_MAX, WORKING_INTERVAL},
    server::{bulk, disk::Held},
    session::Wants,
    wire::{Code, Reply, next_line},
};

/// Lines served for one connection before the others have their turn.
const LINES_PER_TURN: usize = 16;

impl Reactor {
    /// Serves the connections that are ready: those that were when the phase began, so that one
    /// that always has a next line waits for the next turn.
    pub(super) fn serve_ready(&mut self, now: Instant) {
        let began = Instant::now();
        for _ in 0..self.ready.len() {
            // The bulk has its turn; who is left keeps his place in the queue.
            if began.elapsed() > TURN_TIME_MAX {
                break;
            }
            let Some(token) = self.ready.pop_front() else {
                break;
            };
            if let Some(connection) = find(&mut self.connections, token) {
                connection.queued = false;
                self.serve(token, now);
            }
        }
    }

    /// Does what can be done for a connection without bulk work.
    pub(super) fn serve(&mut self, token: Token, now: Instant) {
        let mut lines = LINES_PER_TURN;
        loop {
            self.act(token, now);
            let Some(connection) = find(&mut self.connections, token) else {
                return;
            };
            if connection.broken {
                return self.close(token, "the line broke", now);
            }
            if connection.session.is_closed() {
                connection.flush(now);
                return self.linger(token, now);
            }
            // Before an action is asked for more: no event tells again that the line takes something.
            if !connection.has_room() {
                connection.flush(now);
            }
            if connection.session.runs_action() {
                self.pump_action(token, now);
            }
            let Some(connection) = find(&mut self.connections, token) else {
                return;
            };
            let room = connection.has_room();
            if connection.session.wants() != Wants::Lines || !room {
                break;
            }
            match next_line(&connection.input, &mut connection.searched) {
                Ok(Some((line, taken))) => {
                    if !connection.session.takes_line(line) {
                        connection.searched = 0;
                        break;
                    }
                    if lines == 0 {
                        connection.flush(now);
                        enqueue(&mut self.ready, connection);
                        return;
                    }
                    lines -= 1;
                    let line = line.to_vec();
                    connection.consume_input(taken);
                    connection.session.handle_line(&line, now);
                }
                Ok(None) => {
                    if !connection.receive_more(now) {
                        break;
                    }
                    let nobody = connection.home.is_none();
                    if nobody && connection.input.len() > NOBODY_INPUT_BYTES_MAX {
                        let reply = Reply::text(Code::LineTooLong, "too much before the login");
                        connection.session.end(reply, now);
                    }
                }
                Err(error) => {
                    let reply = Reply::text(Code::LineTooLong, &error.to_string());
                    connection.session.end(reply, now);
                }
            }
        }
        self.after_service(token, now);
    }

    /// Queues bulk work, notices the end of input, and sets the reminder.
    fn after_service(&mut self, token: Token, now: Instant) {
        let Some(connection) = find(&mut self.connections, token) else {
            return;
        };
        let pace = moving::pace(connection, &self.rates, &self.writers, now);
        connection.may_move = pace.wait.is_zero();
        let mut works = bulk::has_work(connection, connection.may_move);
        // While more is coming at once, small things gather.
        if !works || connection.is_due() {
            connection.flush(now);
            works = works || bulk::has_work(connection, connection.may_move);
        }
        let waits = !connection.may_move && bulk::has_work(connection, true);
        moving::hold_up(connection, waits, now);
        // A reset that was found while lines were read: no event will tell of it again.
        if connection.broken {
            return self.close(token, "the line broke", now);
        }
        if works && !connection.bulk_queued {
            connection.bulk_queued = true;
            connection.chunk_bytes = pace.chunk_bytes;
            self.bulk.push(token, connection.share);
        }
        // Whoever waits for others to be stored with has waited for long enough.
        if !works && connection.session.handle_dry(now) {
            return enqueue(&mut self.ready, connection);
        }
        let ended = connection.input_ended && !works && !waits && connection.is_flushed();
        let session = &mut connection.session;
        let waits_for_input = match session.wants() {
            Wants::Lines => session.outgoing().is_none(),
            Wants::Frames | Wants::Ahead | Wants::Discard => true,
            Wants::Nothing => false,
        };
        if ended && waits_for_input && !session.holds_answers() {
            return self.close(token, "the client left", now);
        }
        let mut deadline = connection.session.deadline();
        if let Some(Held::Action(running)) = &connection.held {
            deadline = running.budget.wake().map_or(deadline, |wake| wake.min(deadline));
        }
        if waits {
            deadline = now + pace.wait;
        } else if connection.held_up.is_some() {
            // It is in a queue.
            deadline = deadline.max(now + WORKING_INTERVAL);
        }
        if connection.reminder.is_none_or(|at| deadline < at) {
            connection.reminder = Some(deadline);
            self.timers.set(deadline, token);
        }
    }
}
