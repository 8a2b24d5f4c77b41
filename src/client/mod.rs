//! The client: a blocking library that gets and puts files over lines that break.
//!
//! [`Client`] holds the address and the policy; each operation connects, and reconnects as long
//! as the policy has patience. What was received is kept in a partial beside its target, so that
//! another process can continue as well. `tow` is a thin front end of this module.
//!
//! ```no_run
//! use towpath::client::{Client, Options, Url};
//!
//! let url: Url = "tow://files.example/pub/image.iso".parse()?;
//! let client = Client::new(&url, Options::default());
//! let done = client.get(&url.path, "image.iso".as_ref(), &mut ())?;
//! println!("{} bytes, md5-tree {}", done.size, done.root);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod commands;
mod error;
mod get;
mod here;
mod line;
mod login;
mod pipe;
mod put;
mod rate;
mod retry;
mod run;
mod totals;
mod tree;
mod url;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

pub use commands::{ActionInfo, Entry, Ping, QuotaInfo, Whoami};
pub use error::ClientError;
pub use login::{Credentials, Welcome};
pub use rate::RateLimit;
pub use retry::Backoff;
pub use run::Ended;
pub use tree::{Skipped, TreeDone, TreeEvent, TreeObserver, TreeOptions};
pub use url::{DEFAULT_PORT, Url, UrlError};

use line::Line;

use crate::{
    digest::Md5Digest,
    limits::{BACKOFF_MAX, BACKOFF_MIN},
    wire::{DigestChoice, Owner},
};

/// How often a wait looks whether it shall end: a stop that comes from another thread wakes nobody.
const LOOK_AT_STOP: Duration = Duration::from_millis(100);

/// Asks a client to stop, from a signal handler or another thread. What was transferred is kept.
#[derive(Debug, Clone, Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// A handle over a flag that somebody else sets, such as a signal handler.
    #[must_use]
    pub const fn new(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }

    /// Asks to stop.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether to stop.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// How a client works, and how patient it is.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which digests go with a transfer.
    pub digest: DigestChoice,
    /// A line that brings and takes no byte for so long is broken.
    pub timeout: Duration,
    /// How long to try again without any verified progress; zero: not at all.
    pub give_up: Duration,
    /// The first pause after a break; doubled at each further one.
    pub backoff_min: Duration,
    /// The longest pause.
    pub backoff_max: Duration,
    /// Who logs in; nobody in particular without it.
    pub login: Option<Arc<Credentials>>,
    /// How fast bytes may move, over all connections.
    pub limit: Option<RateLimit>,
    /// Set from outside to stop.
    pub stop: Stop,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            digest: DigestChoice::Tree,
            timeout: Duration::from_secs(30),
            give_up: Duration::from_secs(300),
            backoff_min: BACKOFF_MIN,
            backoff_max: BACKOFF_MAX,
            login: None,
            limit: None,
            stop: Stop::default(),
        }
    }
}

/// What a transfer is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Reading what is there, to compare it.
    Checking,
    /// Bytes go to the server.
    Sending,
    /// Bytes come from the server.
    Receiving,
    /// Everything went over the line: digests are compared, the file is made durable.
    Verifying,
}

/// What happens during a transfer, for whoever shows it.
#[derive(Debug)]
pub enum Event<'a> {
    /// A connection is being made.
    Connecting,
    /// The transfer (again) begins: the size of the file, and what is there already.
    Begin {
        /// In bytes.
        size: u64,
        /// In bytes, not counting segments that have to come again.
        already: u64,
    },
    /// It does something else now.
    Phase(Phase),
    /// So many bytes of the file are there.
    Position(u64),
    /// So many data bytes more went over the line. Told at the end of each attempt, good or bad.
    Moved(u64),
    /// A segment came out wrong and goes over the line again.
    SegmentBad(u64),
    /// The line broke, for this reason; the next attempt comes after a pause.
    Broke {
        /// Why.
        reason: &'a str,
        /// For so long.
        pause: Duration,
    },
}

/// Is told what happens during a transfer.
pub trait Observer {
    /// Something happened.
    fn event(&mut self, event: Event<'_>);
}

/// Watches nothing.
impl Observer for () {
    fn event(&mut self, _: Event<'_>) {}
}

/// A transfer that ended with the same bytes on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transferred {
    /// Size of the file in bytes.
    pub size: u64,
    /// What was there already when this call began, in bytes.
    pub already: u64,
    /// Data bytes that went over the line, those that went again counted again.
    pub moved: u64,
    /// How often it had to be tried again.
    pub breaks: u32,
    /// Root of the `md5-tree` over the whole file, as both sides have it.
    pub root: Md5Digest,
    /// MD5 of the whole file, if it was asked for.
    pub md5: Option<Md5Digest>,
    /// Nothing had to be sent: the other side had this very file.
    pub unchanged: bool,
}

impl Transferred {
    /// Data bytes that went over the line more than once.
    #[must_use]
    pub const fn again(&self) -> u64 {
        self.moved.saturating_sub(self.size.saturating_sub(self.already))
    }
}

/// A client of one server.
#[derive(Debug, Clone)]
pub struct Client {
    host: String,
    port: u16,
    options: Options,
    owner: Owner,
    /// Connections that are logged in and have nothing to do.
    idle: Arc<Mutex<Vec<Line>>>,
    /// The server was reached at least once: its name is right, whatever a resolver says now.
    reached: Arc<AtomicBool>,
    /// What the server said at the last login.
    welcome: Arc<Mutex<Welcome>>,
}

impl Client {
    /// A client for the server that `url` names. Connects when there is something to do.
    #[must_use]
    pub fn new(url: &Url, options: Options) -> Self {
        let mut random = [0; 16];
        // Without randomness two clients could take each other's half-open uploads for their own.
        let random = getrandom::fill(&mut random).map(|()| u128::from_be_bytes(random));
        let owner = random.unwrap_or_else(|_| u128::from(std::process::id()));
        Self {
            host: url.host.clone(),
            port: url.port,
            options,
            owner: Owner(owner),
            idle: Arc::default(),
            reached: Arc::default(),
            welcome: Arc::default(),
        }
    }

    /// The address, as people write it.
    #[must_use]
    pub fn address(&self) -> String {
        url::host_port(&self.host, self.port)
    }
}
