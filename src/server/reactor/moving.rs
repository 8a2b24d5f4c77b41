//! Bulk bytes, within the budget of a turn.

use std::time::{Duration, Instant};

use super::{Reactor, find, look};
use crate::{
    limits::{
        HELD_BACK_CHUNK_BYTES, HELD_BACK_INTERVAL, LOOP_BUFFERS, STEP_BYTES, TURN_BYTES_MAX,
        TURN_TIME_MAX, VISIT_BYTES_MIN,
    },
    server::{
        ahead,
        bulk::{self, Turn},
        connection::{Cold, Connection, Moved},
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
            if self.bulk.is_empty() {
                return;
            }
            moved += self.bulk_step(now);
            let ended = Instant::now();
            step = ended.duration_since(now);
            now = ended;
        }
    }

    /// A chunk of each of as many connections as it takes to fill the step; returns how many bytes that
    /// was.
    fn bulk_step(&mut self, now: Instant) -> usize {
        let crowd = self.bulk.len();
        let most = self.chunk_bytes();
        let (mut moved, mut left) = (0, STEP_BYTES);
        let mut loads = Vec::with_capacity(LOOP_BUFFERS);
        for buffer in self.buffers.all() {
            let chunk_bytes = most.min(left) / UNIT_BYTES * UNIT_BYTES;
            // So little is not worth a visit, which counts for more.
            if chunk_bytes < VISIT_BYTES_MIN {
                break;
            }
            let Some(token) = self.bulk.pop() else {
                break;
            };
            let Some(connection) = find(&mut self.connections, token) else {
                continue;
            };
            connection.bulk_queued = false;
            let turn = Turn { disk: &self.disk, now, crowd, chunk_bytes, cold: &self.cold_reads };
            let (bytes, load) = if ahead::has_work(connection) {
                let step = ahead::take(connection, &self.engine, now);
                moved += step.bytes;
                count(&mut self.rates, connection, step, now);
                (step.bytes, None)
            } else {
                let load = bulk::gather(turn, connection, buffer);
                (load.as_ref().map_or(0, |load| load.bytes), load)
            };
            self.bulk.count(&mut connection.share, bytes);
            // Headers do not count: they would cut the last piece short.
            left -= bytes.min(chunk_bytes);
            loads.push((token, load, &*buffer));
        }
        bulk::hash(&self.engine, loads.iter_mut().map(|(_, load, buffer)| (load, *buffer)));
        let mut batch = Vec::with_capacity(loads.len());
        for (token, load, buffer) in loads {
            batch.push(token);
            let Some(load) = load else { continue };
            moved += load.bytes;
            if let Some(connection) = find(&mut self.connections, token) {
                let step = bulk::apply(connection, load, buffer, now);
                count(&mut self.rates, connection, step, now);
            }
        }
        for token in batch {
            self.serve(token, now);
        }
        moved
    }

    /// The most that is taken of each connection in the next step. A stream fills the lanes by itself, but
    /// the MD5 of a whole file takes one of them: where there is one, several share the step.
    fn chunk_bytes(&self) -> usize {
        let next = || self.bulk.iter().take(LOOP_BUFFERS);
        let takes_lane = |token| {
            look(&self.connections, token)
                .is_some_and(|connection| connection.session.follows_md5())
        };
        if next().any(takes_lane) { shared_chunk_bytes(next().count()) } else { STEP_BYTES }
    }
}

/// What is taken of a connection is a multiple of this, in whole leaves.
const UNIT_BYTES: usize = HELD_BACK_CHUNK_BYTES;

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

/// The most that is taken of each of so many connections that share a step.
fn shared_chunk_bytes(count: usize) -> usize {
    (STEP_BYTES / count.max(1) / UNIT_BYTES * UNIT_BYTES).max(VISIT_BYTES_MIN)
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
    use super::*;
    use crate::{
        limits::{RATE_BYTES_MIN, STALL_DEADLINE},
        server::testing::{connected, puts},
    };

    #[test]
    fn a_step_is_as_long_for_many_as_for_one() {
        assert_eq!(shared_chunk_bytes(1), STEP_BYTES);
        for batch in 1..=LOOP_BUFFERS {
            let bytes = shared_chunk_bytes(batch);
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
