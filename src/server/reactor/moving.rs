//! Bulk bytes, within the budget of a turn.

use std::time::{Duration, Instant};

use mio::Token;

use super::{Reactor, find};
use crate::{
    limits::{
        HELD_BACK_CHUNK_BYTES, HELD_BACK_INTERVAL, LOOP_BUFFERS, STEP_BYTES, TURN_BYTES_MAX,
        TURN_TIME_MAX,
    },
    server::{
        ahead,
        bulk::{self, Turn},
        connection::Connection,
        rates::Rates,
        writers::Writers,
    },
};

impl Reactor {
    /// Moves bulk bytes until the budget of the turn is used up.
    pub(super) fn move_bulk(&mut self) {
        let began = Instant::now();
        let mut now = began;
        let (mut moved, mut step) = (0, Duration::ZERO);
        while moved < TURN_BYTES_MAX && now.duration_since(began) + step < TURN_TIME_MAX {
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
            let ended = Instant::now();
            step = ended.duration_since(now);
            now = ended;
        }
    }

    /// One chunk of each connection in the batch; returns how many bytes that was.
    pub(super) fn bulk_step(&mut self, batch: &[Token], now: Instant) -> usize {
        let crowd = batch.len() + self.bulk.len();
        let chunk_bytes = step_chunk_bytes(batch.len());
        let turn = Turn { disk: &self.disk, now, crowd, chunk_bytes };
        let mut moved = 0;
        let mut loads = Vec::with_capacity(batch.len());
        let mut buffers = Vec::with_capacity(batch.len());
        for (&token, buffer) in batch.iter().zip(self.buffers.all()) {
            let load = find(&mut self.connections, token).and_then(|connection| {
                // Lines and output of actions are not limited, and so not counted.
                connection.line_bytes = 0;
                if ahead::has_work(connection) {
                    let bytes = ahead::take(connection, &self.engine, now);
                    moved += bytes;
                    self.rates.take(connection.user.as_ref(), bytes as u64, now);
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
                bulk::apply(connection, load, buffer, now);
                // What came in was counted when it was gathered.
                let bytes = std::mem::take(&mut connection.line_bytes);
                self.rates.take(connection.user.as_ref(), bytes, now);
            }
        }
        for &token in batch {
            self.serve(token, now);
        }
        moved
    }
}

/// When a connection may move its next bytes, and how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) wait: Duration,
    pub(super) chunk_bytes: usize,
}

/// What the limits say of a connection that could move bytes: those of its rate, and for an upload
/// how far it may be ahead of the disk.
pub(super) fn pace(
    connection: &Connection,
    rates: &Rates,
    writers: &Writers,
    now: Instant,
) -> Pace {
    let user = connection.user.as_ref();
    let (wait, chunk_bytes) = (rates.wait(user, now), rates.chunk_bytes(user));
    let ahead = connection.session.ahead_of_disk_bytes();
    match disk_wait(ahead, writers.ahead_of_disk_bytes_max(), connection.active, now) {
        None => Pace { wait, chunk_bytes },
        Some(behind) => {
            Pace { wait: wait.max(behind), chunk_bytes: chunk_bytes.min(HELD_BACK_CHUNK_BYTES) }
        }
    }
}

/// How long an upload that is ahead of the disk waits for its next leaf; `None`: it is not too far.
fn disk_wait(ahead: u64, most: u64, active: Instant, now: Instant) -> Option<Duration> {
    let next = active + HELD_BACK_INTERVAL;
    (ahead > most).then(|| next.saturating_duration_since(now))
}

/// The most that is taken of each of so many connections in one step, in whole leaves: together they
/// fill the lanes, and are few enough that nobody waits long for the step.
fn step_chunk_bytes(batch: usize) -> usize {
    const LEAF: usize = HELD_BACK_CHUNK_BYTES;
    (STEP_BYTES / batch.max(1) / LEAF * LEAF).max(LEAF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_as_long_for_many_as_for_one() {
        assert_eq!(step_chunk_bytes(1), STEP_BYTES);
        for batch in 1..=LOOP_BUFFERS {
            let bytes = step_chunk_bytes(batch);
            assert!(bytes * batch <= STEP_BYTES && bytes * 2 * batch > STEP_BYTES, "{batch}");
        }
    }

    #[test]
    fn an_upload_too_far_ahead_of_the_disk_gets_a_leaf_now_and_then() {
        let active = Instant::now();
        assert_eq!(disk_wait(9, 9, active, active), None);
        assert_eq!(disk_wait(10, 9, active, active), Some(HELD_BACK_INTERVAL));
        let later = active + HELD_BACK_INTERVAL;
        assert_eq!(disk_wait(10, 9, active, later), Some(Duration::ZERO));
    }
}
