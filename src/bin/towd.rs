//! `towd`, the server: flags to a configuration, no more.

#![allow(rustdoc::broken_intra_doc_links, reason = "help texts, in which [ ] is no link")]

use std::{
    io::{self, Write},
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use clap::{ArgAction, Parser};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use towpath::{
    limits::KEEP_PARTIALS,
    server::{Access, Config, Logins, Server, Settings, StartError},
};

/// Serves a folder for transfers that survive broken lines.
///
/// There is no login yet: whoever reaches the port may read, write and remove everything below
/// the root.
#[derive(Debug, Parser)]
#[command(name = "towd", version)]
struct Flags {
    /// Folder to serve; made if it is absent
    #[arg(long, value_name = "DIR", default_value = "./towpath-data")]
    root: PathBuf,
    /// Address and port to listen on; may be given more than once, port 0 lets the system choose.
    /// 0.0.0.0:8690 and [::]:8690 are reached from everywhere
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8690", value_parser = address)]
    listen: Vec<SocketAddr>,
    /// How long an unfinished upload, and what is remembered of a finished one, is kept after its
    /// last byte, such as 12h or 7d
    #[arg(long, value_name = "TIME", default_value_t = humantime::Duration::from(KEEP_PARTIALS))]
    keep_partials: humantime::Duration,
    /// Let everybody who reaches the port do everything below the root
    #[arg(long)]
    no_login: bool,
    /// Log connections and replies as well
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "quiet")]
    verbose: u8,
    /// Log only what went wrong
    #[arg(short, long)]
    quiet: bool,
}

/// An address and a port, or a name that stands for one.
fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().map_err(|error| format!("{error}; write ADDR:PORT"))?;
    found.into_iter().next().ok_or_else(|| "no address of that name".to_owned())
}

fn main() -> ExitCode {
    let flags = Flags::parse();
    start_log(&flags);
    match run(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("towd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(flags: &Flags) -> Result<(), StartError> {
    allow_descriptors();
    let server = Server::bind(&Config {
        root: flags.root.clone(),
        listen: flags.listen.clone(),
        settings: Settings {
            access: match flags.no_login {
                true => Access::Everybody,
                false => Access::Logins(Logins::new(
                    flags.root.join(".tow/users"),
                    flags.root.join(".tow/invites"),
                )),
            },
            keep_partials: Duration::from(flags.keep_partials),
            ..Settings::default()
        },
        reload: None,
        handle_signals: true,
    })?;
    for address in server.addresses() {
        // A closed stdout is no reason not to serve.
        let _ = writeln!(io::stdout(), "listening on {address}");
    }
    server.run()?;
    Ok(())
}

/// Each connection takes a descriptor, a transfer some more: all that the system grants.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        log::warn!("can't raise the number of descriptors: {error}");
    }
}

/// Logs to stderr; RUST_LOG says more precisely than the flags what.
fn start_log(flags: &Flags) {
    let level = match (flags.quiet, flags.verbose) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    let environment = env_logger::Env::default().default_filter_or(level);
    env_logger::Builder::from_env(environment).format_target(false).init();
}
