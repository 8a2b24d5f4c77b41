//! Serving: a configuration to a server, and what is to be done around its start.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use towpath::{
    config::{ConfigFile, ListenAddress, Problem, Setup},
    server::{Config, Reload, Server, Settings, StartError},
    store::Root,
};

use crate::{Failure, cli::Flags, confine, first, logging::Log};

/// Serves until a signal ends it.
pub(crate) fn run(flags: &Flags, log: &Log) -> Result<(), Failure> {
    forbid_core_dumps();
    allow_descriptors();
    let options = flags.options();
    let setup = options.check().map_err(|problems| Failure::of(&problems))?;
    let listen: Vec<SocketAddr> =
        setup.listen.iter().map(resolve).collect::<Result<_, Failure>>()?;
    let path = setup.root.clone();
    Root::serve(&path).map_err(|error| StartError::Root { path, error })?;
    let first = first::user(&setup)?;
    let layers = confine::enter(flags, &setup, &listen);
    let reload = Started { flags: flags.clone(), options, setup: setup.clone() };
    let server = layers.and_then(|layers| {
        log.write_beside();
        log::info!("{layers}");
        Ok(Server::bind(&Config {
            root: setup.root,
            listen: listen.clone(),
            settings: setup.settings,
            reload: Some(Reload::new(move || reload.settings())),
            handle_signals: true,
        })?)
    });
    let addresses = server.as_ref().map_or(listen, Server::addresses);
    if server.is_ok() {
        for address in &addresses {
            // A closed stdout is no reason not to serve.
            let _ = writeln!(io::stdout(), "listening on {address}");
        }
    }
    // Also if there is no server yet: the user is there, and nobody knows the password.
    if let Some(first) = first {
        first.tell(addresses.first().copied());
    }
    server?.run()?;
    Ok(())
}

fn resolve(address: &ListenAddress) -> Result<SocketAddr, Failure> {
    address.resolve().map_err(|error| Failure(format!("can't listen on {address}: {error}")))
}

/// What the server was started with, to be compared with what is said later.
struct Started {
    flags: Flags,
    options: ConfigFile,
    setup: Setup,
}

impl Started {
    /// Reads everything again. What needs a restart stays as it is, and is told.
    fn settings(&self) -> Result<Settings, String> {
        let mut options = self.flags.options();
        for key in options.keep_started(&self.options) {
            log::warn!("{key} has changed: that needs a restart");
        }
        let setup = options.check().map_err(|problems| {
            let told: Vec<_> = problems.iter().map(Problem::to_string).collect();
            told.join("; ")
        })?;
        if setup.sandbox.is_some() && confine::is_wider(&setup, &self.setup) {
            log::warn!("actions have programs elsewhere than before: that needs a restart");
        }
        Ok(setup.settings)
    }
}

/// What is in memory, keys and files of users among it, stays off the disk.
fn forbid_core_dumps() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = setrlimit(Resource::Core, none) {
        log::warn!("can't forbid core dumps: {error}");
    }
}

/// Each connection takes a descriptor, a transfer some more: all that the system grants.
fn allow_descriptors() {
    let limit = getrlimit(Resource::Nofile);
    let all = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, all) {
        log::warn!("can't raise the number of descriptors: {error}");
    }
}
