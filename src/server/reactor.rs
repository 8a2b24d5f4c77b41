//! The loop.
//!
//! A turn has visible phases: poll; note what is ready; accept; take what the disk thread has
//! done; serve connections (lines, answers, actions: small things first); move bulk bytes within
//! the budget; look at the timers; reap what is closed.

mod accept;
mod shutdown;

use std::{
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
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use slab::Slab;

use super::{
    Config, StartError, Stopper,
    bulk::{self, Buffers, Turn},
    connection::{Cold, Connection},
    disk::{self, Disk, Done, Ticket},
    listen::listen,
    report::log_report,
    timers::Timers,
    writers::Writers,
};
use crate::{
    digest::{Engine, Md5Digest},
    limits::{
        COMMAND_READ_BYTES, CONNECTIONS_MAX, EXPIRE_INTERVAL, HOLDER_SILENT, LOOP_BUFFERS,
        TURN_BYTES_MAX, TURN_TIME_MAX,
    },
    session::{Action, Job, JobId, Outcome, Wants},
    store::{Root, Worker, partial_name},
    wire::{Code, Owner, Reply, next_line},
};

/// Slots of a token: connections and, above them, what is no connection.
const SLOT_BITS: u32 = 16;
const SLOT_MASK: usize = (1 << SLOT_BITS) - 1;
const WAKER: Token = Token(SLOT_MASK);
const SIGNALS: Token = Token(SLOT_MASK - 1);
/// Listeners count down from here.
const FIRST_LISTENER: usize = SLOT_MASK - 2;
const LISTENERS_MAX: usize = 64;

const _: () = assert!(CONNECTIONS_MAX < FIRST_LISTENER - LISTENERS_MAX);

/// Lines served for one connection before the others have their turn.
const LINES_PER_TURN: usize = 16;

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
    timers: Timers,
    writers: Writers,
    /// Somebody may wait to be accepted of whom no event will tell again.
    accept_pending: bool,
    accept_retry: Option<Instant>,
    keep_partials: Duration,
    expire_at: Instant,
    stopping: bool,
}

impl Reactor {
    pub(super) fn new(config: &Config) -> Result<(Self, Stopper), StartError> {
        let poll = Poll::new()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        let root = Root::serve(&config.root)
            .map_err(|error| StartError::Root { path: config.root.clone(), error })?;
        let mut listeners = Vec::new();
        for (index, &address) in config.listen.iter().take(LISTENERS_MAX).enumerate() {
            let failed = |error| StartError::Listen { address, error };
            let mut listener = listen(address).map_err(failed)?;
            let token = Token(FIRST_LISTENER - index);
            poll.registry().register(&mut listener, token, Interest::READABLE)?;
            listeners.push(listener);
        }
        let signals = if config.handle_signals {
            let mut signals = Signals::new([SIGTERM, SIGINT])?;
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
        let reactor = Self {
            poll,
            listeners,
            signals,
            stop,
            root: Arc::new(root),
            disk,
            engine: Engine::new(),
            buffers: Buffers::new(),
            connections: Slab::new(),
            generation: 0,
            ready: VecDeque::new(),
            bulk: VecDeque::new(),
            timers: Timers::default(),
            writers: Writers::default(),
            accept_pending: true,
            accept_retry: None,
            keep_partials: config.keep_partials,
            expire_at: Instant::now(),
            stopping: false,
        };
        Ok((reactor, stopper))
    }

    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    pub(super) fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
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
            self.accept(now);
            self.take_done(now);
            self.serve_ready(now);
            self.move_bulk();
            self.look_at_timers(Instant::now());
            self.stopping |= self.stop.load(Ordering::Acquire);
        }
        self.shut_down();
        Ok(())
    }

    /// How long poll may wait: not at all while somebody could go on.
    fn timeout(&self, now: Instant) -> Duration {
        if !self.ready.is_empty() || !self.bulk.is_empty() {
            return Duration::ZERO;
        }
        let due = [self.timers.next(), self.accept_retry, Some(self.expire_at)];
        let next = due.into_iter().flatten().min().unwrap_or(now);
        // Rounded up: waking a fraction of a millisecond early would spin until then.
        next.saturating_duration_since(now) + Duration::from_millis(1)
    }

    /// Notes what an event says; it is acted upon in the phases that follow.
    fn note(&mut self, event: &Event) {
        match event.token() {
            WAKER => {}
            SIGNALS => {
                let signals = self.signals.as_mut().map(|signals| signals.pending());
                for signal in signals.into_iter().flatten() {
                    log::info!("signal {signal}: going down");
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

    /// Takes what the disk thread has done.
    fn take_done(&mut self, now: Instant) {
        while let Some((ticket, done)) = self.disk.poll() {
            let done = done.unwrap_or_else(|panicked| {
                log::error!("{panicked}");
                let reply = Reply::text(Code::Failed, &panicked.to_string());
                Done::Session(Outcome::Failed(reply), None)
            });
            match (ticket, done) {
                (Ticket::Session(token, job), Done::Session(outcome, held)) => {
                    self.take_outcome(token, job, outcome, held, now);
                }
                (Ticket::Read(token, read), done) => self.take_read(token, read, done, now),
                (_, Done::Expiring(walk)) => {
                    disk::expire(&self.disk, &self.root, self.keep_partials, Some(walk));
                }
                (Ticket::Session(..) | Ticket::Nobody, _) => {}
            }
        }
    }

    fn take_outcome(
        &mut self,
        token: Token,
        job: JobId,
        outcome: Outcome,
        held: Option<disk::Held>,
        now: Instant,
    ) {
        let Some(connection) = find(&mut self.connections, token) else {
            // Whoever asked is gone; what was opened for it is let go.
            if let Some(held) = held {
                disk::release(&self.disk, held, None);
            }
            return;
        };
        if let Some(held) = held {
            connection.held = Some(held);
        } else if connection.partial.is_some_and(|(_, opening)| opening == job) {
            // A partial that was not opened is not held either.
            self.writers.forget(connection);
        }
        connection.session.handle_outcome(job, outcome, now);
        enqueue(&mut self.ready, connection);
    }

    fn take_read(&mut self, token: Token, read: u64, done: Done, now: Instant) {
        let Some(connection) = find(&mut self.connections, token) else {
            return;
        };
        // A read for a file that was let go since is of no use to the next.
        if !matches!(connection.cold, Cold::Pending(pending) if pending == read) {
            return;
        }
        connection.cold = Cold::No;
        match done {
            Done::Read(offset, Ok(bytes)) => connection.cold = Cold::Ready(offset, bytes),
            Done::Read(_, Err(error)) => bulk::source_failed(connection, &error, now),
            Done::Session(Outcome::Failed(reply), _) => {
                connection.session.handle_source_failed(reply, now);
            }
            Done::Session(..) | Done::Nothing | Done::Expiring(_) => {}
        }
        enqueue(&mut self.ready, connection);
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
            connection.flush(now);
            if connection.broken {
                return self.close(token, "the line broke", now);
            }
            if connection.session.is_closed() {
                return self.linger(token, now);
            }
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
                        enqueue(&mut self.ready, connection);
                        return;
                    }
                    lines -= 1;
                    let line = line.to_vec();
                    connection.consume_input(taken);
                    connection.session.handle_line(&line, now);
                }
                Ok(None) => {
                    if !receive_lines(connection, now) {
                        break;
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
        // A reset that was found while lines were read: no event will tell of it again.
        if connection.broken {
            return self.close(token, "the line broke", now);
        }
        let works = bulk::has_work(connection);
        if works && !connection.bulk_queued {
            connection.bulk_queued = true;
            self.bulk.push_back(token);
        }
        let ended = connection.input_ended && !works && connection.is_flushed();
        let waits_for_input = match connection.session.wants() {
            Wants::Lines => connection.session.outgoing().is_none(),
            Wants::Frames | Wants::Discard => true,
            Wants::Nothing => false,
        };
        if ended && waits_for_input {
            return self.close(token, "the client left", now);
        }
        let deadline = connection.session.deadline();
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
                    log::debug!("{}: {reply}", connection.peer);
                    connection.push_reply(&reply);
                }
                Action::Start(id, job) => self.start(token, id, job, now),
                Action::Release(mark) => {
                    self.writers.forget(connection);
                    connection.cold = Cold::No;
                    if let Some(held) = connection.held.take() {
                        disk::release(&self.disk, held, mark);
                    }
                }
                Action::Report(report) => log_report(connection.peer, &report, now),
                Action::Close => {}
            }
        }
    }

    fn start(&mut self, token: Token, id: JobId, job: Job, now: Instant) {
        if let Job::OpenPartial { offer, .. } = &job {
            let name = partial_name(&offer.path);
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
        disk::start(&self.disk, &self.root, ticket, job, connection.held.as_ref());
    }

    /// Makes a connection the writer of a partial. A client takes over from its own connection,
    /// which it knows to be dead before the server does; from another's only if that was silent
    /// for long.
    fn take_over(
        &mut self,
        name: Md5Digest,
        token: Token,
        opening: JobId,
        owner: Owner,
        now: Instant,
    ) -> bool {
        if let Some(writer) = self.writers.other_than(token, name) {
            let silent = find(&mut self.connections, writer.token)
                .is_none_or(|other| now.saturating_duration_since(other.active) > HOLDER_SILENT);
            if writer.owner != owner && !silent {
                return false;
            }
            // Its last mark goes to the disk thread before the new writer's first job.
            self.close(writer.token, "taken over by a new connection", now);
        }
        if let Some(connection) = find(&mut self.connections, token) {
            self.writers.set(name, owner, opening, connection);
        }
        true
    }

    /// Moves bulk bytes until the budget of the turn is used up.
    fn move_bulk(&mut self) {
        let began = Instant::now();
        let mut now = began;
        let mut moved = 0;
        while moved < TURN_BYTES_MAX && now.duration_since(began) < TURN_TIME_MAX {
            let mut batch = Vec::with_capacity(LOOP_BUFFERS);
            while batch.len() < LOOP_BUFFERS {
                let Some(token) = self.bulk.pop_front() else {
                    break;
                };
                if let Some(connection) = find(&mut self.connections, token) {
                    connection.bulk_queued = false;
                    batch.push(token);
                }
            }
            if batch.is_empty() {
                return;
            }
            moved += self.bulk_step(&batch, now);
            now = Instant::now();
        }
    }

    /// One chunk of each connection in the batch; returns how many bytes that was.
    fn bulk_step(&mut self, batch: &[Token], now: Instant) -> usize {
        let turn = Turn { disk: &self.disk, now, crowd: batch.len() + self.bulk.len() };
        let mut loads = Vec::with_capacity(batch.len());
        let mut buffers = Vec::with_capacity(batch.len());
        for (&token, buffer) in batch.iter().zip(self.buffers.all()) {
            let connection = find(&mut self.connections, token);
            let load = connection.and_then(|connection| bulk::gather(turn, connection, buffer));
            loads.push(load);
            buffers.push(&*buffer);
        }
        bulk::hash(&self.engine, loads.iter_mut().zip(buffers.iter().copied()));
        let mut moved = 0;
        for ((&token, load), buffer) in batch.iter().zip(loads).zip(buffers) {
            let Some(load) = load else { continue };
            moved += load.bytes;
            if let Some(connection) = find(&mut self.connections, token) {
                bulk::apply(connection, load, buffer, now);
            }
        }
        for &token in batch {
            self.serve(token, now);
        }
        moved
    }

    fn look_at_timers(&mut self, now: Instant) {
        while let Some(token) = self.timers.pop_due(now) {
            let Some(connection) = find(&mut self.connections, token) else {
                continue;
            };
            connection.reminder = None;
            connection.session.handle_timeout(now);
            self.serve(token, now);
        }
        if now >= self.expire_at {
            self.expire_at = now + EXPIRE_INTERVAL;
            disk::expire(&self.disk, &self.root, self.keep_partials, None);
        }
    }

    /// A session that has said everything: the connection closes once the peer has read it.
    fn linger(&mut self, token: Token, now: Instant) {
        let Some(connection) = find(&mut self.connections, token) else {
            return;
        };
        if connection.is_flushed() {
            connection.linger(now);
        }
        connection.input = Vec::new();
        let mut waste = [0; 8192];
        let mut budget = 16;
        while budget > 0 && connection.receive(&mut waste, now) > 0 {
            budget -= 1;
        }
        let over = connection.lingers_until.is_some_and(|until| now >= until);
        if connection.broken || over || connection.input_ended && connection.is_flushed() {
            return self.close(token, "closed", now);
        }
        let until = connection.lingers_until.unwrap_or_else(|| connection.session.deadline());
        if until <= now {
            // The peer does not even read its last line.
            return self.close(token, "closed", now);
        }
        if budget == 0 {
            enqueue(&mut self.ready, connection);
        }
        if connection.reminder.is_none_or(|at| until < at) {
            connection.reminder = Some(until);
            self.timers.set(until, token);
        }
    }

    /// Ends a connection: the one place where its resources go.
    fn close(&mut self, token: Token, why: &str, now: Instant) {
        let Some(connection) = find(&mut self.connections, token) else {
            return;
        };
        connection.session.handle_broken(why);
        self.act(token, now);
        let Some(mut connection) = self.connections.try_remove(token.0 & SLOT_MASK) else {
            return;
        };
        log::debug!("{}: {why}", connection.peer);
        // Fails only for a socket that was never registered.
        let _ = self.poll.registry().deregister(&mut connection.socket);
        self.writers.forget(&mut connection);
        if let Some(held) = connection.held.take() {
            disk::release(&self.disk, held, None);
        }
        let connections = &self.connections;
        self.timers.tidy(connections.len(), |token| {
            connections.get(token.0 & SLOT_MASK).is_some_and(|it| it.token == token)
        });
        // A descriptor is free: whoever waits for one need not wait for the timer.
        if self.accept_retry.is_some() {
            self.accept_retry = Some(now);
        }
    }
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

/// Reads more lines. `false` if there is nothing to be had now.
fn receive_lines(connection: &mut Connection, now: Instant) -> bool {
    let mut buffer = [0; COMMAND_READ_BYTES];
    let have = connection.receive(&mut buffer, now);
    connection.input.extend_from_slice(buffer.get(..have).unwrap_or_default());
    have > 0
}

impl std::fmt::Debug for Reactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reactor")
            .field("connections", &self.connections.len())
            .finish_non_exhaustive()
    }
}
