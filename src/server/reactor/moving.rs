//! Bulk bytes, within the budget of a turn.

use std::time::Instant;

use mio::Token;

use super::{Reactor, find};
use crate::{
    limits::{LOOP_BUFFERS, TURN_BYTES_MAX, TURN_TIME_MAX},
    server::{
        ahead,
        bulk::{self, Turn},
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
        let turn = Turn { disk: &self.disk, now, crowd: batch.len() + self.bulk.len() };
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
