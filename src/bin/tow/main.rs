//! `tow`, the client on the command line: flags to the library's calls, progress, exit codes.

#![allow(rustdoc::broken_intra_doc_links, reason = "help texts, in which [ ] is no link")]

mod action;
mod bars;
mod cli;
mod demo;
mod exit;
mod files;
mod login;
mod many;
mod progress;
mod shell;
mod show;

use std::{
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use clap::Parser;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};
use towpath::client::{Stop, TreeOptions};

use crate::{
    cli::{Action, Cli},
    exit::{Exit, Failure},
    files::Context,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log(&cli);
    match run(&cli) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("tow: {failure}");
            failure.exit().into()
        }
    }
}

fn run(cli: &Cli) -> Result<Exit, Failure> {
    let action = cli.action()?;
    // Asked for before Ctrl-C is caught, which ends the question.
    let login = login::credentials(cli, &action)?;
    let stop = match *action {
        // A shell catches them itself: there, Ctrl-C means something else.
        Action::Shell { .. } => Ok(Stop::default()),
        _ => catch_signals(),
    };
    let stop = stop.map_err(|error| Failure::Local(format!("can't catch signals: {error}")))?;
    let context = Context::new(cli.quiet, cli.options(login, stop));
    let done = act(cli, &action, &context);
    context.show_banner();
    done
}

fn act(cli: &Cli, action: &Action, context: &Context) -> Result<Exit, Failure> {
    match action {
        // It has a context of its own, and greets by itself.
        Action::Shell { url } => shell::run(context, url),
        Action::Put { tree, follow, files, url } if tree.recursive => {
            let options = TreeOptions { jobs: tree.jobs, follow: *follow };
            many::put(context, files, url, options)
        }
        Action::Put { files, url, .. } => files::put(context, files, url),
        Action::Get { tree, url, to } if tree.recursive => {
            let options = TreeOptions { jobs: tree.jobs, follow: false };
            many::get(context, url, to.as_deref(), options)
        }
        Action::Get { url, to, .. } => files::get(context, url, to.as_deref()),
        Action::Ls { long, url } => show::list(context, url, *long),
        Action::Stat { url } => show::stat(context, url),
        Action::Md5 { url } => show::md5(context, url),
        Action::Mkdir { url } => files::make_dir(context, url),
        Action::Rm { url } => files::remove(context, url),
        Action::Rmdir { url } => files::remove_dir(context, url),
        Action::Mv { from, to } => files::rename(context, from, to),
        Action::Register { invite, url } => login::register(context, cli, url, invite.as_deref()),
        Action::Whoami { url } => show::whoami(context, url),
        Action::Quota { url } => show::quota(context, url),
        Action::Run { url, name: None, .. } => action::list(context, url),
        Action::Run { url, name: Some(name), arguments } => {
            action::run(context, &context.client(url), url, name, arguments)
        }
        Action::Ping { count, interval, url } => show::ping(context, url, *count, *interval),
        Action::Demo { mebibytes, cuts } => demo::run(context, *mebibytes, *cuts),
    }
}

/// Ctrl-C and SIGTERM ask the client to stop; the second one ends it at once.
fn catch_signals() -> std::io::Result<Stop> {
    let asked = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, Exit::Interrupted.code(), Arc::clone(&asked))?;
        flag::register(signal, Arc::clone(&asked))?;
    }
    Ok(Stop::new(asked))
}

/// Logs of the library go to stderr, and only where RUST_LOG or -v asks for them.
fn start_log(cli: &Cli) {
    let level = match cli.verbose {
        0 => "error",
        1 => "info",
        _ => "debug",
    };
    let environment = env_logger::Env::default().default_filter_or(level);
    env_logger::Builder::from_env(environment).format_target(false).init();
}
