//! Tests of the session as a whole: each state with a scenario that starts in it, both ends joined
//! by a line that breaks, and events in any order.

mod any_events;
mod driver;
mod known;
mod scenario;
mod simulation;
mod state_ahead;
mod state_await_command;
mod state_await_digest;
mod state_await_offset;
mod state_login;
mod state_streaming;

use std::time::Instant as Moment;

/// Where virtual time begins: std has no other instant to begin with. Nothing reads a clock again.
fn begin() -> Moment {
    Moment::now()
}
