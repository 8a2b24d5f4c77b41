//! What logins cost, and what a storm of wrong ones costs everybody else.
//!
//! `cargo bench --bench logins` takes a minute or two, on a machine that does little else. Each figure
//! stands beside one of the same run, and fails the run if it is out of bounds. The guessers run on this
//! machine as well: what they take of its processors is in the figures.

#[path = "../bounds/mod.rs"]
mod bounds;
mod cost;
mod search;
mod storm;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::{net::IpAddr, process::ExitCode};

use bounds::Bounds;

fn main() -> ExitCode {
    let Some(mut bounds) = Bounds::of_this_run() else { return ExitCode::SUCCESS };
    search::measure(&mut bounds);
    cost::measure_login(&mut bounds);
    cost::measure_memory(&mut bounds);
    storm::measure_round_trips(&mut bounds);
    storm::measure_pace(&mut bounds);
    bounds.end()
}

/// Another host than 127.0.0.1, as far as the server can see.
fn host(n: u8) -> IpAddr {
    [127, 0, 0, n].into()
}
