//! Serving: a configuration to a server, and what is to be done around its start.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    os::fd::AsFd as _,
};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use towpath::{
    config::{ConfigFile, ListenAddress, Problem, Setup},
    server::{Config, Reload, Seat, Seats, Server, Settings, StartError},
    store::Root,
};

use crate::{
    Failure,
    cli::Flags,
    confine,
    first::{self, First},
    logging::Log,
    supervisor::Supervisor,
};

/// Serves until a signal ends it.
pub(crate) fn run(flags: &Flags, log: &Log) -> Result<(), Failure> {
    forbid_core_dumps();
    allow_descriptors();
    if flags.worker {
        return work(flags, log);
    }
    let options = flags.options();
    let setup = options.check().map_err(|problems| Failure::of(&problems))?;
    let listen: Vec<SocketAddr> =
        setup.listen.iter().map(resolve).collect::<Result<_, Failure>>()?;
    let path = setup.root.clone();
    Root::serve(&path).map_err(|error| StartError::Root { path, error })?;
    let first = first::user(&setup)?;
    if setup.workers > 1 {
        log.write_beside();
        return supervise(&options, &setup, listen, first);
    }
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
    announce(&addresses, server.is_ok(), first);
    server?.run()?;
    Ok(())
}

/// Says where is listened, and how to get in.
fn announce(addresses: &[SocketAddr], is_served: bool, first: Option<First>) {
    for address in addresses.iter().filter(|_| is_served) {
        // A closed stdout is no reason not to serve.
        let _ = writeln!(io::stdout(), "listening on {address}");
    }
    // Also if there is no server yet: the user is there, and nobody knows the password.
    if let Some(first) = first {
        first.tell(addresses.first().copied());
    }
}

/// Has several processes serve. This one takes nothing from the network.
fn supervise(
    options: &ConfigFile,
    setup: &Setup,
    listen: Vec<SocketAddr>,
    first: Option<First>,
) -> Result<(), Failure> {
    let users = options.users();
    let started = Seats::bind(&listen, setup.workers, &setup.root, &users)
        .map_err(Failure::from)
        .and_then(|seats| {
            let addresses = seats.addresses().to_vec();
            let mut supervisor = Supervisor::new(seats, setup.workers)?;
            supervisor.start()?;
            Ok((addresses, supervisor))
        });
    let addresses = started.as_ref().map_or(listen, |(addresses, _)| addresses.clone());
    announce(&addresses, started.is_ok(), first);
    started?.1.run()
}

/// Serves as one of several, until a signal ends it or the one that started it is gone.
fn work(flags: &Flags, log: &Log) -> Result<(), Failure> {
    let seat = Seat::take(io::stdin().as_fd())?;
    // Otherwise it is called as the link that it was started by.
    let _ = rustix::thread::set_name(c"towd");
    let mut options = flags.options();
    // The file may have changed since the others were started.
    options.root = Some(seat.root().to_owned());
    options.users = Some(seat.users().to_owned());
    let setup = options.check().map_err(|problems| Failure::of(&problems))?;
    let layers = confine::enter(flags, &setup, &seat.addresses())?;
    log.write_beside();
    log::info!("worker {}: {layers}", seat.index());
    let reload = Started { flags: flags.clone(), options, setup: setup.clone() };
    let config = Config {
        root: setup.root,
        listen: Vec::new(),
        settings: setup.settings,
        reload: Some(Reload::new(move || reload.settings())),
        handle_signals: true,
    };
    Server::bind_seat(&config, seat)?.run()?;
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
