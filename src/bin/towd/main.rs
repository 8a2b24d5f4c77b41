//! `towd`, the server, and what belongs to running one: its users and invites.

use std::process::ExitCode;

use clap::Parser as _;
use towpath::config::{ConfigFile, Problem};

use crate::{
    cli::{Flags, Task},
    logging::Log,
};

mod check;
mod cli;
mod confine;
mod first;
mod invite;
mod logging;
mod password;
mod serve;
mod supervisor;
mod user;

/// Why a command failed, for people. Nothing in it needs escaping.
#[derive(Debug)]
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl Failure {
    /// Everything that is wrong, each with its place.
    fn of(problems: &[Problem]) -> Self {
        let told = |problem: &Problem| match problem.snippet() {
            Some(snippet) => format!("{problem}\n{snippet}"),
            None => problem.to_string(),
        };
        Self(problems.iter().map(told).collect::<Vec<_>>().join("\ntowd: "))
    }
}

/// What flags and file say, for a task that needs to know only where things are.
fn options(flags: &Flags) -> Result<ConfigFile, Failure> {
    let options = flags.options();
    match options.problems() {
        [] => Ok(options),
        problems => Err(Failure::of(problems)),
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let done = match &flags.task {
        None => {
            let log = Log::start(&flags);
            let done = serve::run(&flags, &log);
            log.finish();
            done
        }
        Some(Task::User { command }) => user::run(&flags, command),
        Some(Task::Invite(invite)) => invite::run(&flags, invite),
        Some(Task::Check) => check::run(&flags),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(text)) => {
            eprintln!("towd: {text}");
            ExitCode::FAILURE
        }
    }
}
