//! An action that runs for a connection: its output to the line, as far as that takes it.

use std::{sync::Arc, time::Instant};

use super::{
    child::{Budget, Child, Children, Chunk, Due, Exit, Limit, Stream, Verdict},
    connection::Connection,
    disk::Held,
};
use crate::{
    limits::{OUTPUT_FRAME_BYTES_MAX, OUTPUT_PER_TURN_MAX, STALL_DEADLINE},
    wire::{Code, Output, Reply, output_bytes},
};

/// One run of an action.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) child: Child,
    pub(super) budget: Budget,
    /// To look for what it leaves behind.
    pub(super) children: Arc<Children>,
    /// The action's name, for the log.
    pub(super) name: String,
    pub(super) began: Instant,
    /// Bytes that it has put out.
    pub(super) bytes: u64,
    pub(super) exit: Option<Exit>,
}

/// What came of a turn for an action.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// There will be an event, or a reminder.
    Waits,
    /// There is more for another turn.
    More,
    /// It has ended, and its client was told how.
    Over,
}

/// Moves output from the pipes to the line. What the line does not take stays in the pipes, and
/// the child waits.
pub(super) fn pump(connection: &mut Connection, now: Instant) -> Pumped {
    // Taken out, so that the line and the child can both be spoken to.
    let Some(Held::Action(mut running)) = connection.held.take() else {
        return Pumped::Over;
    };
    let pumped = running.pump(connection, now);
    connection.held = Some(Held::Action(running));
    pumped
}

impl Running {
    fn pump(&mut self, connection: &mut Connection, now: Instant) -> Pumped {
        match self.budget.due(now) {
            Due::Nothing => {}
            Due::Terminate => self.child.terminate(),
            Due::Kill => self.child.kill(),
        }
        // Before the streams are read: they end without another event once it is known.
        self.exit = self.exit.or_else(|| self.child.reap());
        let mut left = OUTPUT_PER_TURN_MAX;
        for stream in [Stream::Stdout, Stream::Stderr] {
            while connection.has_room() {
                if left == 0 {
                    return Pumped::More;
                }
                let bytes = self.read(stream, connection, now);
                if bytes == 0 {
                    break;
                }
                left = left.saturating_sub(bytes);
                connection.flush(now);
            }
        }
        let Some(exit) = self.exit.filter(|_| self.child.is_over() && connection.has_room()) else {
            return Pumped::Waits;
        };
        let reply = self.ending(exit);
        connection.push_bytes(&output_bytes(&Output::Exit(reply)));
        connection.flush(now);
        Pumped::Over
    }

    /// Passes one piece on; returns how long it was.
    fn read(&mut self, stream: Stream, connection: &mut Connection, now: Instant) -> usize {
        let mut buffer = [0; OUTPUT_FRAME_BYTES_MAX as usize];
        let bytes = match self.child.read(stream, &mut buffer) {
            Ok(Chunk::Bytes(bytes)) => bytes,
            // An error is an end as well.
            Ok(Chunk::Later | Chunk::End) | Err(_) => return 0,
        };
        let pass = match self.budget.after(bytes, now) {
            Verdict::Within => bytes,
            Verdict::Beyond(pass) => pass,
        };
        self.bytes += pass as u64;
        let piece = buffer.get(..pass).unwrap_or_default();
        if !piece.is_empty() {
            connection.push_bytes(&output_bytes(&match stream {
                Stream::Stdout => Output::Stdout(piece),
                Stream::Stderr => Output::Stderr(piece),
            }));
        }
        bytes
    }

    fn ending(&self, exit: Exit) -> Reply {
        let ended = |text: &str| Reply::text(Code::ActionEnded, text);
        match (self.budget.limit(), exit) {
            (Some(Limit::Time), _) => ended("it took too long"),
            (Some(Limit::Output), _) => ended("it said too much"),
            (None, Exit::Code(code)) => Reply::new(Code::Done).with("status", code),
            (None, Exit::Signal(signal)) => Reply::new(Code::Done).with("signal", signal),
            (None, Exit::Lost) => ended("the server lost sight of it"),
        }
    }

    /// For the log.
    pub(super) fn report(&self, now: Instant) -> String {
        let seconds = now.saturating_duration_since(self.began).as_secs_f64();
        let end = match (self.budget.limit(), self.exit) {
            (Some(Limit::Time), _) => "took too long".to_owned(),
            (Some(Limit::Output), _) => "said too much".to_owned(),
            (None, Some(exit)) => exit.to_string(),
            (None, None) => "its client is gone".to_owned(),
        };
        format!("run {} bytes={} seconds={seconds:.3} {end}", self.name, self.bytes)
    }
}

/// A sign of life within the output. `false`: the action is over and its client takes nothing
/// of what is left.
pub(super) fn pulse(connection: &mut Connection, now: Instant) -> bool {
    if connection.is_flushed() {
        connection.push_bytes(&output_bytes(&Output::Stdout(b"")));
        connection.flush(now);
        return true;
    }
    let over = matches!(&connection.held, Some(Held::Action(running)) if running.exit.is_some());
    !over || now.saturating_duration_since(connection.active) < STALL_DEADLINE
}
