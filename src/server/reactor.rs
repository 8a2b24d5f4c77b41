//! The loop.
//!
//! A turn has visible phases: poll; note what is ready; hear other workers; accept; take what the
//! disk thread has done; tell other workers what has changed; serve connections (lines, answers,
//! actions: small things first); move bulk bytes within the budget; look at the timers.

mod accept;
mod acting;
mod actions;
mod close;
mod done;
mod logins;
mod moving;
mod serving;
mod shutdown;
mod siblings;
mod sources;
mod takeover;

use std::{
    cell::Cell,
    collections::VecDeque,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, Waker, event::Event, net::TcpListener};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use slab::Slab;

use super::{
    Config, Reload, StartError, Stopper,
    bulk::Buffers,
    child::Children,
    connection::Connection,
    disk::{Disk, Done, Ticket},
    gate::{self, Gate, UserFile},
    homes::{Homes, Opening},
    listen::listen,
    rates::Rates,
    rounds::Rounds,
    settings::Settings,
    timers::Timers,
    workers::{Holdings, Message, Seat, Siblings, Takeovers},
    writers::Writers,
};
use crate::{
    digest::Engine,
    limits::{CONNECTIONS_MAX, EXPIRE_INTERVAL, LISTEN_ADDRESSES_MAX},
    session::Memory,
    store::{Root, Source, Worker},
    wire::Greeting,
};

/// Slots of a token: connections and, above them, what is no connection.
const SLOT_BITS: u32 = 16;
const SLOT_MASK: usize = (1 << SLOT_BITS) - 1;
const WAKER: Token = Token(SLOT_MASK);
const SIGNALS: Token = Token(SLOT_MASK - 1);
const SUPERVISOR: Token = Token(SLOT_MASK - 2);
const INBOX: Token = Token(SLOT_MASK - 3);
/// Listeners count down from here.
const FIRST_LISTENER: usize = SLOT_MASK - 4;
const LISTENERS_MAX: usize = LISTEN_ADDRESSES_MAX;

const _: () = assert!(CONNECTIONS_MAX < FIRST_LISTENER - LISTENERS_MAX);

pub(super) use self::actions::sweep;

pub(super) struct Reactor {
    poll: Poll,
    listeners: Vec<TcpListener>,
    signals: Option<Signals>,
    stop: Arc<AtomicBool>,
    root: Arc<Root>,
    disk: Disk,
    engine: Engine,
    buffers: Buffers,
    connections: Slab<Connection>,
    /// Counts connections, for the generation in their tokens.
    generation: usize,
    /// Connections with lines, answers or readiness to look at.
    ready: VecDeque<Token>,
    /// Connections with bulk work that can go on.
    bulk: Rounds,
    /// Reads that the disk thread is at, or will be.
    cold_reads: Cell<usize>,
    timers: Timers,
    writers: Writers,
    /// The other workers, if there are any.
    siblings: Option<Siblings>,
    /// There may be messages of theirs of which no event will tell again.
    inbox_pending: bool,
    /// The disk thread has done something since siblings were told what homes hold.
    disk_worked: bool,
    /// Who waits for a sibling to let go of a partial.
    takeovers: Takeovers,
    /// Somebody may wait to be accepted of whom no event will tell again.
    accept_pending: bool,
    accept_retry: Option<Instant>,
    settings: Arc<Settings>,
    reload: Option<Reload>,
    greeting: Arc<Greeting>,
    gate: Gate,
    rates: Rates,
    /// The user file, where people log in.
    users: Option<Arc<UserFile>>,
    /// When it is looked at next.
    users_at: Instant,
    homes: Arc<Homes>,
    /// What homes hold, as all workers know it.
    holdings: Arc<Holdings>,
    /// Logins that wait until another has measured their home, and when they look again.
    parked: Vec<(Ticket, Opening)>,
    unpark_at: Instant,
    /// Sources that nobody needs any more: they are closed many at once.
    released: Vec<Arc<Source>>,
    /// For small files that are stored together.
    memory: Memory,
    children: Arc<Children>,
    /// When to look again for what actions have left behind.
    sweep_at: Option<Instant>,
    expire_at: Instant,
    stopping: bool,
}

impl Reactor {
    pub(super) fn new(config: &Config, seat: Option<Seat>) -> Result<(Self, Stopper), StartError> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let root = Root::serve(&config.root)
            .map_err(|error| StartError::Root { path: config.root.clone(), error })?;
        let root = Arc::new(root);
        root.set_reserve_bytes(config.settings.reserve_bytes);
        let users = config.settings.logins().map(|logins| UserFile::open(&logins.users));
        let users = users.transpose()?.map(Arc::new);
        let accounts = users.as_ref().map(|users| users.accounts());
        let greeting = gate::greeting(&config.settings.access, accounts.as_deref());
        let mut rates = Rates::default();
        rates.limit_server(config.settings.max_rate, Instant::now());
        let children = if config.handle_signals {
            Children::adopting(&config.root)
        } else {
            Children::new(&config.root)
        };
        let mut seat = seat;
        let mut listeners = match &mut seat {
            Some(seat) => seat.listeners(),
            None => listen_all(&config.listen)?,
        };
        for (index, listener) in listeners.iter_mut().enumerate() {
            let token = Token(FIRST_LISTENER - index);
            poll.registry().register(listener, token, Interest::READABLE)?;
        }
        let signals = if config.handle_signals {
            let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP])?;
            poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
            Some(signals)
        } else {
            None
        };
        let stop = Arc::new(AtomicBool::new(false));
        let disk_waker = Arc::clone(&waker);
        let disk = Worker::spawn(move || {
            // Fails only when the poll is gone.
            let _ = disk_waker.wake();
        })?;
        let stopper = Stopper { stop: Arc::clone(&stop), waker };
        let mut reactor = Self {
            poll,
            listeners,
            signals,
            stop,
            root: Arc::clone(&root),
            disk,
            engine: Engine::new(),
            buffers: Buffers::new(),
            connections: Slab::new(),
            generation: 0,
            ready: VecDeque::new(),
            bulk: Rounds::default(),
            cold_reads: Cell::new(0),
            timers: Timers::default(),
            writers: Writers::default(),
            siblings: None,
            inbox_pending: true,
            disk_worked: false,
            takeovers: Takeovers::default(),
            accept_pending: true,
            accept_retry: None,
            greeting: Arc::new(greeting),
            settings: Arc::new(config.settings.clone()),
            reload: config.reload.clone(),
            gate: Gate::default(),
            rates,
            users,
            users_at: Instant::now(),
            homes: Arc::new(Homes::new(root)),
            holdings: Arc::default(),
            parked: Vec::new(),
            unpark_at: Instant::now(),
            released: Vec::new(),
            memory: Memory::default(),
            children: Arc::new(children?),
            sweep_at: None,
            expire_at: Instant::now(),
            stopping: false,
        };
        seat.map(|seat| reactor.join(seat)).transpose()?;
        Ok((reactor, stopper))
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        if let Some(siblings) = &mut self.siblings {
            siblings.tell_all(&Message::Hello, Instant::now());
        }
        while !self.stopping {
            let timeout = self.timeout(Instant::now());
            match self.poll.poll(&mut events, Some(timeout)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let now = Instant::now();
            for event in &events {
                self.note(event);
            }
            self.hear_siblings(now);
            self.accept(now);
            self.take_done(now);
            // Before anybody is answered: whoever was told something finds that all workers know it.
            self.tell_changes(now);
            self.serve_ready(now);
            self.move_bulk();
            self.let_go_sources();
            let now = Instant::now();
            self.look_at_timers(now);
            self.tell_changes(now);
            self.stopping |= self.stop.load(Ordering::Acquire);
        }
        self.shut_down();
        Ok(())
    }

    /// How long poll may wait: not at all while somebody could go on.
    fn timeout(&self, now: Instant) -> Duration {
        let hears = self.siblings.is_some() && self.inbox_pending;
        if !self.ready.is_empty() || !self.bulk.is_empty() || hears {
            return Duration::ZERO;
        }
        let users_at = self.users.as_ref().map(|_| self.users_at);
        let unpark_at = (!self.parked.is_empty()).then_some(self.unpark_at);
        let others = [users_at, unpark_at, self.sweep_at, Some(self.expire_at), self.siblings_at()];
        let due = [self.timers.next(), self.accept_retry].into_iter().chain(others);
        let next = due.flatten().min().unwrap_or(now);
        // Rounded up: waking a fraction of a millisecond early would spin until then.
        next.saturating_duration_since(now) + Duration::from_millis(1)
    }

    /// Notes what an event says; it is acted upon in the phases that follow.
    fn note(&mut self, event: &Event) {
        match event.token() {
            WAKER => {}
            SIGNALS => {
                let signals = self.signals.as_mut().map(|signals| signals.pending());
                let mut hang_up = false;
                for signal in signals.into_iter().flatten() {
                    if signal == SIGHUP {
                        hang_up = true;
                        continue;
                    }
                    log::info!("signal {signal}: going down");
                    self.stopping = true;
                }
                if hang_up {
                    self.reload();
                }
            }
            INBOX => self.inbox_pending = true,
            SUPERVISOR => {
                if self.siblings.as_ref().is_some_and(Siblings::is_alone) {
                    log::error!("the process that started this one is gone: going down");
                    self.stopping = true;
                }
            }
            Token(slot) if slot > FIRST_LISTENER - LISTENERS_MAX && slot <= FIRST_LISTENER => {
                self.accept_pending = true;
            }
            token => {
                let Some(connection) = find(&mut self.connections, token) else {
                    return;
                };
                connection.readable |= event.is_readable() || event.is_read_closed();
                connection.writable |= event.is_writable();
                enqueue(&mut self.ready, connection);
            }
        }
    }

    fn tidy_timers(&mut self) {
        let connections = &self.connections;
        self.timers.tidy(connections.len(), |at, token| {
            look(connections, token).is_some_and(|it| it.reminder == Some(at))
        });
    }

    fn look_at_timers(&mut self, now: Instant) {
        self.tidy_timers();
        while let Some((at, token)) = self.timers.pop_due(now) {
            let Some(connection) = find(&mut self.connections, token) else {
                continue;
            };
            // One that an earlier one has replaced says nothing.
            if connection.reminder != Some(at) {
                continue;
            }
            connection.reminder = None;
            // While the limit on the rate keeps it waiting, the peer can do nothing.
            if connection.held_up.is_none() {
                connection.session.handle_timeout(now);
            }
            self.serve(token, now);
        }
        let expires = now >= self.expire_at;
        if expires {
            self.expire_at = now + EXPIRE_INTERVAL;
        }
        if expires && self.is_first() {
            let users = self.users.clone();
            let (homes, settings) = (Arc::clone(&self.homes), Arc::clone(&self.settings));
            self.disk.submit(Ticket::Nobody, move || {
                let accounts = users.map(|users| users.accounts());
                Done::Expiring(homes.expire(&settings, accounts.as_deref()))
            });
        }
        self.look_at_users(now);
        self.sweep(now);
        self.unpark(now);
    }
}

/// Listens on all addresses that there is a token for.
fn listen_all(addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, StartError> {
    let listen = |&address: &SocketAddr| {
        listen(address).map_err(|error| StartError::Listen { address, error })
    };
    addresses.iter().take(LISTENERS_MAX).map(listen).collect()
}

/// The connection of a token, if it is still the same, to be looked at.
fn look(connections: &Slab<Connection>, token: Token) -> Option<&Connection> {
    connections.get(token.0 & SLOT_MASK).filter(|connection| connection.token == token)
}

/// The connection of a token, if it is still the same.
fn find(connections: &mut Slab<Connection>, token: Token) -> Option<&mut Connection> {
    connections.get_mut(token.0 & SLOT_MASK).filter(|connection| connection.token == token)
}

/// Puts a connection into the ready queue, once.
fn enqueue(ready: &mut VecDeque<Token>, connection: &mut Connection) {
    if !connection.queued {
        connection.queued = true;
        ready.push_back(connection.token);
    }
}

impl std::fmt::Debug for Reactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor")
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}
