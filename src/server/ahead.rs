//! Small files whose frames come ahead of their answer, and frames that nobody needs: taken from
//! the kept input, many of them in one step, without the buffers of the loop.

use std::time::Instant;

use super::connection::{Connection, Moved};
use crate::{
    digest::Engine,
    limits::HELD_BYTES_PER_TURN,
    session::Wants,
    wire::{Code, Reply, next_line},
};

/// What a line counts at least, however short it is: it costs as much as so many bytes of a file.
const LINE_BYTES_MIN: usize = 1 << 10;

/// Whether it is the turn of such frames.
pub(super) fn has_work(connection: &Connection) -> bool {
    matches!(connection.session.wants(), Wants::Ahead | Wants::Discard)
}

/// Takes what the line has, within the budget of a turn.
pub(super) fn take(connection: &mut Connection, engine: &Engine, now: Instant) -> Moved {
    let most = HELD_BYTES_PER_TURN.min(connection.chunk_bytes);
    let (mut moved, mut lines) = (0, 0);
    while moved + lines < most {
        let is_discarded = match connection.session.wants() {
            Wants::Ahead => false,
            Wants::Discard => true,
            // Who does not take his answers is not asked for more.
            Wants::Lines if connection.session.holds_answers() && connection.has_room() => {
                let Some(taken) = take_line(connection, now) else { break };
                lines += taken.max(LINE_BYTES_MIN);
                continue;
            }
            Wants::Lines | Wants::Frames | Wants::Nothing => break,
        };
        if connection.input.is_empty() && !connection.receive_more(now) {
            break;
        }
        let input = std::mem::take(&mut connection.input);
        let taken = if is_discarded {
            connection.session.handle_discarded(&input, now)
        } else {
            connection.session.handle_ahead(engine, &input, now)
        };
        connection.input = input;
        connection.consume_input(taken);
        connection.searched = 0;
        moved += taken;
    }
    Moved { bytes: moved, freely: moved + lines >= most }
}

/// Takes the next line, if it is one that joins what waits; returns its bytes, 0 if it did not come to its
/// end yet.
fn take_line(connection: &mut Connection, now: Instant) -> Option<usize> {
    match next_line(&connection.input, &mut connection.searched) {
        Ok(Some((line, taken))) => {
            if !connection.session.takes_line(line) {
                connection.searched = 0;
                return None;
            }
            let line = line.to_vec();
            connection.consume_input(taken);
            connection.session.handle_line(&line, now);
            Some(taken)
        }
        Ok(None) => connection.receive_more(now).then_some(0),
        Err(error) => {
            let reply = Reply::text(Code::LineTooLong, &error.to_string());
            connection.session.end(reply, now);
            None
        }
    }
}
