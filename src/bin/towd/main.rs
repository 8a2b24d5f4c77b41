//! `towd`, the server, and what belongs to running one: its users and invites.

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Flags, Task};

mod cli;
mod invite;
mod password;
mod serve;
mod size;
mod user;

/// Why a command failed, for people. Nothing in it needs escaping.
#[derive(Debug)]
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    let done = match &flags.task {
        None => {
            serve::start_log(&flags);
            serve::run(&flags).map_err(Failure::from)
        }
        Some(Task::User { command }) => user::run(&flags, command),
        Some(Task::Invite(invite)) => invite::run(&flags, invite),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(text)) => {
            eprintln!("towd: {text}");
            ExitCode::FAILURE
        }
    }
}
