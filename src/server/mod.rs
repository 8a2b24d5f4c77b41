//! The reactor: one thread, one `mio` poll, thousands of connections.
//!
//! The only place that touches sockets on the server's side. It feeds lines and frames to each
//! connection's [`Session`](crate::session::Session), carries out the actions that this asks for,
//! and moves bulk bytes between socket and store. Whatever may wait for a disk goes to the disk
//! thread of `disk`.
//!
//! **Invariants**
//! - Nothing here waits but `poll` itself, and two calls that mostly do not: see "Where it is weak" in
//!   docs/architecture.md.
//! - mio is edge-triggered (see the docs of `mio::Poll`, "Draining readiness"): a readiness bit is
//!   cleared only by `WouldBlock`, and a connection that could go on is in a queue.
//! - A token carries a generation: a stale event never reaches a new tenant of its slot.
//! - Every buffer of a connection is bounded; bulk bytes are in buffers of the loop.

mod ahead;
mod bulk;
pub mod child;
mod connection;
mod disk;
mod gate;
mod homes;
mod listen;
mod rates;
mod reactor;
mod report;
mod rounds;
mod running;
mod settings;
#[cfg(test)]
mod testing;
mod timers;
mod workers;
mod writers;

use std::{
    fmt, io,
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use mio::Waker;

pub use self::{
    settings::{Access, Logins, Settings},
    workers::{Seat, SeatError, Seats},
};
use crate::{auth::file::FileError, store::StoreError};
use reactor::Reactor;

/// What a server serves, and where.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder that clients see. Made if it is absent.
    pub root: PathBuf,
    /// Addresses to listen on; port 0 lets the system choose.
    pub listen: Vec<SocketAddr>,
    /// Whether SIGTERM and SIGINT end the server, and SIGHUP makes it read its settings again.
    /// Only one server of a process may say so.
    pub handle_signals: bool,
    /// What can change while it runs.
    pub settings: Settings,
    /// Where the settings come from, for SIGHUP.
    pub reload: Option<Reload>,
}

/// Reads settings anew, or says why not.
#[derive(Clone)]
pub struct Reload(Arc<dyn Fn() -> Result<Settings, String> + Send + Sync>);

impl Reload {
    /// Settings come from this function, which may read files.
    #[must_use]
    pub fn new(read: impl Fn() -> Result<Settings, String> + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    fn read(&self) -> Result<Settings, String> {
        (self.0)()
    }
}

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload")
    }
}

impl Config {
    /// Serves `root` without logins, on a port of the system's choice of 127.0.0.1.
    #[must_use]
    pub fn loopback(root: PathBuf) -> Self {
        Self {
            root,
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
            handle_signals: false,
            settings: Settings::default(),
            reload: None,
        }
    }
}

/// Why a server could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder can't be served.
    #[error("can't serve {}: {error}", path.display())]
    Root {
        /// The folder.
        path: PathBuf,
        /// Why.
        error: StoreError,
    },
    /// The address can't be listened on.
    #[error("can't listen on {address}: {error}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The user file can't be used.
    #[error(transparent)]
    Users(#[from] FileError),
    /// Poll, thread or signals.
    #[error("can't start: {0}")]
    System(#[from] io::Error),
}

/// A server that is listening.
#[derive(Debug)]
pub struct Server {
    reactor: Reactor,
    stopper: Stopper,
}

/// Ends a running server from another thread.
#[derive(Debug, Clone)]
pub struct Stopper {
    stop: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Stopper {
    /// Asks the server to end: partials are noted, clients told.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        // Fails only when the poll is gone, and the server with it.
        let _ = self.waker.wake();
    }
}

impl Server {
    /// Opens the root and listens. Connections are accepted once [`Server::run`] is called.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn bind(config: &Config) -> Result<Self, StartError> {
        let (reactor, stopper) = Reactor::new(config, None)?;
        Ok(Self { reactor, stopper })
    }

    /// The same as one of several workers, which accepts connections where its seat says; what the
    /// configuration says of addresses does not matter.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn bind_seat(config: &Config, seat: Seat) -> Result<Self, StartError> {
        let (reactor, stopper) = Reactor::new(config, Some(seat))?;
        Ok(Self { reactor, stopper })
    }

    /// The addresses that are listened on, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.reactor.addresses()
    }

    /// A handle to end the server.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
    }

    /// Serves until it is stopped or gets a signal.
    ///
    /// # Errors
    /// `poll` itself failed.
    pub fn run(self) -> io::Result<()> {
        self.reactor.run()
    }
}
