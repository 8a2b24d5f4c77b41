//! Bulk bytes, within the budget of a turn.

use std::time::Instant;

use mio::Token;

use super::{Reactor, find};
use crate::{
    limits::{LOOP_BUFFERS, TURN_BYTES_MAX, TURN_TIME_MAX},
    server::{
        ahead,
        bulk::{self, Turn},
        connection::{Cold, Connection, Moved},
        rates::Rates,
    },
};

impl Reactor {
    /// Moves bulk bytes until the budget of the turn is used up.
    pub(super) fn move_bulk(&mut self) {
        let began = Instant::now();
        let mut now = began;
        let mut moved = 0;
        while moved < TURN_BYTES_MAX && now.duration_since(began) < TURN_TIME_MAX {
            let mut batch = Vec::with_capacity(LOOP_BUFFERS);
            while batch.len() < LOOP_BUFFERS {
                let Some(token) = self.bulk.pop_front() else {
                    break;
                };
                if let Some(connection) = find(&mut self.connections, token) {
                    connection.bulk_queued = false;
                    batch.push(token);
                }
            }
            if batch.is_empty() {
                return;
            }
            moved += self.bulk_step(&batch, now);
            now = Instant::now();
        }
    }

    /// One chunk of each connection in the batch; returns how many bytes that was.
    pub(super) fn bulk_step(&mut self, batch: &[Token], now: Instant) -> usize {
        let crowd = batch.len() + self.bulk.len();
        let turn = Turn { disk: &self.disk, now, crowd, cold: &self.cold_reads };
        let mut moved = 0;
        let mut loads = Vec::with_capacity(batch.len());
        let mut buffers = Vec::with_capacity(batch.len());
        for (&token, buffer) in batch.iter().zip(self.buffers.all()) {
            let load = find(&mut self.connections, token).and_then(|connection| {
                if ahead::has_work(connection) {
                    let step = ahead::take(connection, &self.engine, now);
                    moved += step.bytes;
                    count(&mut self.rates, connection, step, now);
                    return None;
                }
                bulk::gather(turn, connection, buffer)
            });
            loads.push(load);
            buffers.push(&*buffer);
        }
        bulk::hash(&self.engine, loads.iter_mut().zip(buffers.iter().copied()));
        for ((&token, load), buffer) in batch.iter().zip(loads).zip(buffers) {
            let Some(load) = load else { continue };
            moved += load.bytes;
            if let Some(connection) = find(&mut self.connections, token) {
                let step = bulk::apply(connection, load, buffer, now);
                count(&mut self.rates, connection, step, now);
            }
        }
        for &token in batch {
            self.serve(token, now);
        }
        moved
    }
}

/// Counts what a step has moved. If the limit kept it waiting, and the peer did not, then that time does
/// not count against the peer.
fn count(rates: &mut Rates, connection: &mut Connection, step: Moved, now: Instant) {
    if step.bytes == 0 {
        return;
    }
    rates.take(connection.user.as_ref(), step.bytes as u64, now);
    if let Some(since) = connection.held_up.take().filter(|_| step.freely) {
        connection.session.handle_held_up(now.saturating_duration_since(since), now);
    }
}

/// Notes whether the limit on the rate keeps a connection from moving what it could. From when on it
/// does is forgotten once something was moved, or there is nothing to move: not when it may, nor while
/// what it would send has to be fetched.
pub(super) fn hold_up(connection: &mut Connection, waits: bool, now: Instant) {
    if waits {
        connection.held_up.get_or_insert(now);
    } else if !matches!(connection.cold, Cold::Pending(_)) && !bulk::has_work(connection, true) {
        connection.held_up = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        limits::{RATE_BYTES_MIN, STALL_DEADLINE},
        server::testing::{connected, puts},
    };

    /// When an upload is given up that has waited twice for others, with so many bytes ready of the
    /// next step, and how long it has waited.
    fn deadline_after_waiting(freely: bool) -> (Duration, Duration) {
        let (began, mut now) = (Instant::now(), Instant::now());
        let (mut connection, _peer) = connected(began);
        puts(&mut connection, 1 << 20, began);
        let mut rates = Rates::default();
        rates.limit_server(Some(RATE_BYTES_MIN), began);
        let mut waited = Duration::ZERO;
        for _ in 0..2 {
            now += Duration::from_secs(5);
            // What others have moved.
            rates.take(None, 20 * RATE_BYTES_MIN, now);
            let wait = rates.wait(None, now);
            assert!(!wait.is_zero());
            hold_up(&mut connection, true, now);
            hold_up(&mut connection, true, now + wait / 2);
            now += wait;
            waited += wait;
            hold_up(&mut connection, false, now);
            count(&mut rates, &mut connection, Moved { bytes: 1, freely }, now);
            assert_eq!(connection.held_up, None);
        }
        (connection.session.deadline() - began, waited)
    }

    #[test]
    fn a_peer_gets_the_time_that_it_was_held_up_and_one_that_has_little_to_say_does_not() {
        let (deadline, waited) = deadline_after_waiting(true);
        assert!(waited > Duration::from_secs(30));
        assert_eq!(deadline, STALL_DEADLINE + waited);
        assert_eq!(deadline_after_waiting(false).0, STALL_DEADLINE);
    }
}
