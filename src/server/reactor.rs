//! The loop.
//!
//! A turn has visible phases: poll; note what is ready; hear other workers; accept; take what the
//! disk thread has done; tell other workers what has changed; serve connections (lines, answers,
//! actions: small things first); move bulk bytes within the budget; look at the timers.

mod accept;
mod actions;
mod close;
mod done;
mod logins;
mod moving;
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
    bulk::{self, Buffers},
    child::Children,
    connection::{Cold, Connection},
    disk::{self, Disk, Done, Held, Ticket},
    gate::{self, Gate, UserFile},
    homes::{Homes, Opening},
    listen::listen,
    rates::Rates,
    report::{log_refusal, log_reply, log_report, log_run},
    settings::Settings,
    timers::Timers,
    workers::{Holdings, Message, Seat, Siblings, Takeovers},
    writers::Writers,
};
use crate::{
    digest::{Engine, FileDigests},
    limits::{
        CONNECTIONS_MAX, EXPIRE_INTERVAL, LISTEN_ADDRESSES_MAX, NOBODY_INPUT_BYTES_MAX,
        TURN_TIME_MAX, WORKING_INTERVAL,
    },
    session::{Action, Job, JobId, Memory, Outcome, SmallFile, Wants},
    store::{Root, Source, Worker, partial_name},
    wire::{Code, Greeting, Reply, next_line},
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

/// Lines served for one connection before the others have their turn.
const LINES_PER_TURN: usize = 16;

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
    bulk: VecDeque<Token>,
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
            bulk: VecDeque::new(),
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

    /// Serves the connections that are ready: those that were when the phase began, so that one
    /// that always has a next line waits for the next turn.
    fn serve_ready(&mut self, now: Instant) {
        let began = Instant::now();
        for _ in 0..self.ready.len() {
            // The bulk has its turn; who is left keeps his place in the queue.
            if began.elapsed() > TURN_TIME_MAX {
                break;
            }
            let Some(token) = self.ready.pop_front() else {
                break;
            };
            if let Some(connection) = find(&mut self.connections, token) {
                connection.queued = false;
                self.serve(token, now);
            }
        }
    }

    /// Does what can be done for a connection without bulk work.
    fn serve(&mut self, token: Token, now: Instant) {
        let mut lines = LINES_PER_TURN;
        loop {
            self.act(token, now);
            let Some(connection) = find(&mut self.connections, token) else {
                return;
            };
            if connection.broken {
                return self.close(token, "the line broke", now);
            }
            if connection.session.is_closed() {
                connection.flush(now);
                return self.linger(token, now);
            }
            // Before an action is asked for more: no event tells again that the line takes something.
            if !connection.has_room() {
                connection.flush(now);
            }
            if connection.session.runs_action() {
                self.pump_action(token, now);
            }
            let Some(connection) = find(&mut self.connections, token) else {
                return;
            };
            let room = connection.has_room();
            if connection.session.wants() != Wants::Lines || !room {
                break;
            }
            match next_line(&connection.input, &mut connection.searched) {
                Ok(Some((line, taken))) => {
                    if !connection.session.takes_line(line) {
                        connection.searched = 0;
                        break;
                    }
                    if lines == 0 {
                        connection.flush(now);
                        enqueue(&mut self.ready, connection);
                        return;
                    }
                    lines -= 1;
                    let line = line.to_vec();
                    connection.consume_input(taken);
                    connection.session.handle_line(&line, now);
                }
                Ok(None) => {
                    if !connection.receive_more(now) {
                        break;
                    }
                    let nobody = connection.home.is_none();
                    if nobody && connection.input.len() > NOBODY_INPUT_BYTES_MAX {
                        let reply = Reply::text(Code::LineTooLong, "too much before the login");
                        connection.session.end(reply, now);
                    }
                }
                Err(error) => {
                    let reply = Reply::text(Code::LineTooLong, &error.to_string());
                    connection.session.end(reply, now);
                }
            }
        }
        self.after_service(token, now);
    }

    /// Queues bulk work, notices the end of input, and sets the reminder.
    fn after_service(&mut self, token: Token, now: Instant) {
        let Some(connection) = find(&mut self.connections, token) else {
            return;
        };
        let pace = moving::pace(connection, &self.rates, &self.writers, now);
        connection.may_move = pace.wait.is_zero();
        let mut works = bulk::has_work(connection, connection.may_move);
        // While more is coming at once, small things gather.
        if !works || connection.is_due() {
            connection.flush(now);
            works = works || bulk::has_work(connection, connection.may_move);
        }
        let waits = !connection.may_move && bulk::has_work(connection, true);
        moving::hold_up(connection, waits, now);
        // A reset that was found while lines were read: no event will tell of it again.
        if connection.broken {
            return self.close(token, "the line broke", now);
        }
        if works && !connection.bulk_queued {
            connection.bulk_queued = true;
            connection.chunk_bytes = pace.chunk_bytes;
            self.bulk.push_back(token);
        }
        // Whoever waits for others to be stored with has waited for long enough.
        if !works && connection.session.handle_dry(now) {
            return enqueue(&mut self.ready, connection);
        }
        let ended = connection.input_ended && !works && !waits && connection.is_flushed();
        let waits_for_input = match connection.session.wants() {
            Wants::Lines => connection.session.outgoing().is_none(),
            Wants::Frames | Wants::Ahead | Wants::Discard => true,
            Wants::Nothing => false,
        };
        if ended && waits_for_input {
            return self.close(token, "the client left", now);
        }
        let mut deadline = connection.session.deadline();
        if let Some(Held::Action(running)) = &connection.held {
            deadline = running.budget.wake().map_or(deadline, |wake| wake.min(deadline));
        }
        if waits {
            deadline = now + pace.wait;
        } else if connection.held_up.is_some() {
            // It is in a queue.
            deadline = deadline.max(now + WORKING_INTERVAL);
        }
        if connection.reminder.is_none_or(|at| deadline < at) {
            connection.reminder = Some(deadline);
            self.timers.set(deadline, token);
        }
    }

    /// Carries out what the session asks for.
    fn act(&mut self, token: Token, now: Instant) {
        loop {
            let Some(connection) = find(&mut self.connections, token) else {
                return;
            };
            let Some(action) = connection.session.poll_action() else {
                return;
            };
            match action {
                Action::Reply(reply) => {
                    log_reply(connection.peer, &reply);
                    connection.push_reply(&reply);
                }
                Action::Start(id, job) => self.start(token, id, job, now),
                Action::Release(mark) => {
                    self.writers.forget(connection);
                    (connection.cold, connection.fetched_to) = (Cold::No, 0);
                    if let Some(held) = connection.held.take() {
                        log_run(connection, &held, now);
                        match held {
                            Held::Source(source) => self.released.push(source),
                            held => disk::release(&self.disk, held, mark),
                        }
                    }
                }
                Action::Remember(digests) => self.remember(token, Some(digests)),
                Action::Forget => self.remember(token, None),
                Action::Report(report) => log_report(connection, &report, now),
                Action::LoginFailed(name) => self.login_failed(token, &name, now),
                Action::Refused(refusal) => log_refusal(connection, &refusal),
                Action::EndAction => self.end_action(token, now),
                Action::Pulse => self.pulse_action(token, now),
                Action::Close => {}
            }
        }
    }

    fn remember(&mut self, token: Token, digests: Option<FileDigests>) {
        if let Some(connection) = find(&mut self.connections, token)
            && let Some(home) = &connection.home
        {
            disk::remember(&self.disk, home, connection.held.as_ref(), digests);
        }
    }

    fn start(&mut self, token: Token, id: JobId, job: Job, now: Instant) {
        let job = match job {
            Job::FindAccount(name) => return self.find_account(token, id, name, now),
            Job::OpenHome(account) => return self.open_home(token, id, account, now),
            Job::Register { name, verifier, invite } => {
                return self.register(token, id, (name, verifier, invite), now);
            }
            Job::OpenSource(path) => return self.open_source(token, id, path, now),
            Job::StoreTogether(files) => return self.store_together(token, id, files, now),
            Job::Actions => return self.list_actions(token, id, now),
            Job::Run { name, arguments } => {
                return self.run_action(token, id, &name, &arguments, now);
            }
            job => job,
        };
        let home = find(&mut self.connections, token).and_then(|it| it.home.clone());
        let Some(home) = home else { return };
        if let Job::OpenPartial { offer, .. } = &job {
            let name = (home.id(), partial_name(&offer.path));
            let owner = offer.owner;
            if !self.take_over(name, token, id, owner, now) {
                let Some(connection) = find(&mut self.connections, token) else {
                    return;
                };
                let text = "another client is writing this file";
                let outcome = Outcome::Failed(Reply::text(Code::Busy, text));
                connection.session.handle_outcome(id, outcome, now);
                return;
            }
        }
        let Some(connection) = find(&mut self.connections, token) else {
            return;
        };
        let ticket = Ticket::Session(token, id);
        disk::start(&self.disk, &home, ticket, job, connection.held.as_ref());
    }

    /// Has small files stored together, but for those that another client is writing.
    fn store_together(&mut self, token: Token, id: JobId, files: Vec<SmallFile>, now: Instant) {
        let home = find(&mut self.connections, token).and_then(|it| it.home.clone());
        let Some(home) = home else { return };
        let files = files.into_iter().map(|file| {
            let name = (home.id(), partial_name(&file.path));
            let is_busy = !self.may_write(name, token, file.owner, now);
            (file, is_busy)
        });
        let files = files.collect();
        disk::store_together(&self.disk, &home, Ticket::Session(token, id), files);
    }

    fn tidy_timers(&mut self) {
        let connections = &self.connections;
        self.timers.tidy(connections.len(), |at, token| {
            let found = connections.get(token.0 & SLOT_MASK);
            found.is_some_and(|it| it.token == token && it.reminder == Some(at))
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
