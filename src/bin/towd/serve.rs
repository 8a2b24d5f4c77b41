//! Serving: flags to a configuration, no more.

use std::{
    io::{self, Write},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use towpath::{
    auth::Rights,
    server::{Access, Config, Logins, Server, Settings, StartError},
    wire::Registration,
};

use crate::cli::{self, Anonymous, Flags};

/// Serves until a signal ends it.
pub(crate) fn run(flags: &Flags) -> Result<(), StartError> {
    allow_descriptors();
    let server = Server::bind(&Config {
        root: flags.root.clone(),
        listen: flags.listen.clone(),
        settings: Settings {
            access: access(flags),
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

fn access(flags: &Flags) -> Access {
    if flags.no_login {
        return Access::Everybody;
    }
    let mut logins = Logins::new(crate::user::path(flags), flags.root.join(".tow/invites"));
    logins.anonymous = match flags.anonymous {
        Anonymous::Off => None,
        Anonymous::Read => Some(Rights::READ),
        Anonymous::Write => Some(Rights::READ.union(Rights::WRITE)),
    };
    logins.registration = match flags.registration {
        cli::Registration::Off => Registration::Off,
        cli::Registration::Invite => Registration::Invite,
        cli::Registration::Open => Registration::Open,
    };
    Access::Logins(logins)
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
pub(crate) fn start_log(flags: &Flags) {
    let level = match (flags.quiet, flags.verbose) {
        (true, _) => "warn",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    let environment = env_logger::Env::default().default_filter_or(level);
    env_logger::Builder::from_env(environment).format_target(false).init();
}
