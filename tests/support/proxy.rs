//! A TCP proxy that breaks lines on purpose, in the same process as the test.
//!
//! Each connection has two blocking pump threads, one per [`Direction`]. Each takes a piece from
//! one socket, does to it what the [`Plan`] says, and hands it on. All choices come from the
//! plan's seed, the number of the connection and the direction, so that a run can be repeated;
//! only how the two directions of one connection interleave is up to the machine.
//!
//! Nothing waits by sleeping: threads block in `poll` on their socket and on a [`Bell`] that ends
//! them. That, and the reset, is why this is not plain `std`: a blocked `write` can be woken only
//! by a `shutdown`, which would send a FIN ahead of the reset. Dropping the [`Proxy`] ends all
//! threads and waits for them.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use socket2::SockRef;

#[allow(unused_imports, reason = "each test binary uses a different part")]
pub use self::plan::{Counts, Cut, Direction, Flip, How, Plan, Slow, Traffic, Weight};
use super::bell::Bell;
use super::{Rng, tcp};

mod plan;

const BUFFER_BYTES: usize = 64 * 1024;

/// A slow line moves in this many steps per second.
const SLOW_STEPS_PER_S: u64 = 50;

/// The running proxy.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1 for connections to `upstream`.
    pub fn start(upstream: SocketAddr, plan: Plan) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for the proxy");
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let addr = listener.local_addr().expect("a bound listener has an address");
        eprintln!("proxy {addr} -> {upstream}: {plan:?}");
        let shared = Arc::new(Shared {
            upstream,
            active: Mutex::new(Arc::new(Active::new(plan, 0))),
            counts: Mutex::default(),
            changed: Condvar::new(),
            lines: Mutex::default(),
            stop: Bell::new(),
        });
        let acceptor = thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&shared, &listener)
        });
        Self { addr, shared, acceptor: Some(acceptor) }
    }

    /// Where clients connect to.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes the plan. Connections that are up follow it from their next piece on, with a new
    /// budget; a cut that is already due still happens.
    pub fn set(&self, plan: Plan) {
        eprintln!("proxy {}: now {plan:?}", self.addr);
        let mut active = lock(&self.shared.active);
        *active = Arc::new(Active::new(plan, active.generation + 1));
    }

    /// From the return of this call on, the connections that are up carry nothing in either
    /// direction, not even their end. New ones work.
    pub fn blackhole_existing(&self) {
        for line in self.shared.live_lines() {
            *line.holed.write().unwrap_or_else(PoisonError::into_inner) = true;
        }
    }

    /// Cuts the connections that are up, black holes too.
    pub fn cut_existing(&self, how: How) {
        let seed = lock(&self.shared.active).plan.seed;
        for line in self.shared.live_lines() {
            let how = how.choose(&mut Rng::derived(seed, line.index as u64));
            self.shared.cut(&line, how);
        }
    }

    /// The counts, with every byte that a peer can have seen by now.
    pub fn counts(&self) -> Counts {
        for line in self.shared.live_lines() {
            drop(line.holed.write());
        }
        lock(&self.shared.counts).clone()
    }

    /// Waits until the counts are as `wanted`; `false` if they are not within `limit`.
    pub fn wait_for(&self, limit: Duration, wanted: impl Fn(&Counts) -> bool) -> bool {
        let counts = lock(&self.shared.counts);
        let (counts, _) = self
            .shared
            .changed
            .wait_timeout_while(counts, limit, |counts| !wanted(counts))
            .unwrap_or_else(PoisonError::into_inner);
        wanted(&counts)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop.ring();
        let ended = self.acceptor.take().map(JoinHandle::join);
        if !thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "a thread of the proxy panicked");
        }
    }
}

#[derive(Debug)]
struct Shared {
    upstream: SocketAddr,
    active: Mutex<Arc<Active>>,
    counts: Mutex<Counts>,
    /// Notified whenever `counts` changes.
    changed: Condvar,
    /// Weak, so that a connection closes when its own two threads are through with it.
    lines: Mutex<Vec<Weak<Line>>>,
    stop: Bell,
}

impl Shared {
    fn active(&self) -> Arc<Active> {
        Arc::clone(&lock(&self.active))
    }

    fn live_lines(&self) -> Vec<Arc<Line>> {
        lock(&self.lines).iter().filter_map(Weak::upgrade).collect()
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.counts));
        self.changed.notify_all();
    }

    /// Counts first, so that a peer that sees the end of its line finds it in the counts.
    fn cut(&self, line: &Line, how: How) {
        if line.begin_end() {
            // As in a black hole, nothing is handed on behind the last look at the queues.
            *line.holed.write().unwrap_or_else(PoisonError::into_inner) = true;
            let in_flight = line.in_flight();
            self.count(|counts| {
                counts.cuts += 1;
                counts.resets += u64::from(how == How::Rst);
                counts.in_flight[line.index] = Some(in_flight);
            });
            line.end(how);
        }
    }
}

/// Takes connections until the proxy stops, then ends all of them and waits for their threads.
fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    let mut pumps: Vec<JoinHandle<()>> = Vec::new();
    while shared.stop.wait_or_ready(listener.as_fd(), PollFlags::IN) {
        // What was accepted and broke at once is no connection; there is nobody to tell.
        let Ok((client, _)) = listener.accept() else {
            continue;
        };
        pumps = join_finished(pumps);
        let mut index = 0;
        shared.count(|counts| {
            index = counts.per_connection.len();
            counts.per_connection.push(Traffic::default());
            counts.in_flight.push(None);
        });
        let Ok(server) = TcpStream::connect(shared.upstream) else {
            reset_on_close(&client);
            continue;
        };
        let line = Arc::new(Line::new(index, client, server));
        let mut lines = lock(&shared.lines);
        lines.retain(|line| line.strong_count() > 0);
        lines.push(Arc::downgrade(&line));
        drop(lines);
        for direction in [Direction::Up, Direction::Down] {
            let (shared, line) = (Arc::clone(shared), Arc::clone(&line));
            pumps.push(thread::spawn(move || Pump::new(&shared, &line, direction).run()));
        }
    }
    for line in shared.live_lines() {
        line.bell.ring();
    }
    for pump in pumps {
        pump.join().expect("a pump does not panic");
    }
}

fn join_finished(pumps: Vec<JoinHandle<()>>) -> Vec<JoinHandle<()>> {
    let (finished, running): (Vec<_>, Vec<_>) =
        pumps.into_iter().partition(JoinHandle::is_finished);
    for pump in finished {
        pump.join().expect("a pump does not panic");
    }
    running
}

/// A plan and how far it has been carried out.
#[derive(Debug)]
struct Active {
    plan: Plan,
    generation: u64,
    cuts: AtomicU64,
    flips: Mutex<Flips>,
}

#[derive(Debug)]
struct Flips {
    rng: Rng,
    /// Bytes that could have been flipped so far.
    seen_bytes: u64,
    done: u64,
}

impl Active {
    fn new(plan: Plan, generation: u64) -> Self {
        let rng = Rng::derived(plan.seed, u64::MAX);
        let flips = Mutex::new(Flips { rng, seen_bytes: 0, done: 0 });
        Self { plan, generation, cuts: AtomicU64::new(0), flips }
    }

    /// Whether one more cut is within the limit; if so, it is taken.
    fn claim_cut(&self, cut: &Cut) -> bool {
        let one_more = |cuts| (cuts < cut.limit).then_some(cuts + 1);
        self.cuts.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).is_ok()
    }

    /// Flips the bits that are due in a piece that starts at `offset` of its connection, and
    /// returns how many.
    fn flip(&self, direction: Direction, offset: u64, piece: &mut [u8]) -> u64 {
        let Some(flip) = self.plan.flip.as_ref().filter(|flip| flip.direction == direction) else {
            return 0;
        };
        let skip = usize::try_from(flip.skip_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let piece = piece.get_mut(skip..).unwrap_or_default();
        let every = flip.every_bytes.max(1);
        let mut flips = lock(&self.flips);
        let before = flips.done;
        for byte in piece {
            flips.seen_bytes += 1;
            if flips.seen_bytes.is_multiple_of(every) && flips.done < flip.limit {
                *byte ^= 1 << (flips.rng.word() % 8);
                flips.done += 1;
            }
        }
        flips.done - before
    }
}

/// One connection through the proxy. Its sockets close when both its threads have let go of it.
#[derive(Debug)]
struct Line {
    index: usize,
    client: TcpStream,
    server: TcpStream,
    bell: Bell,
    /// Held for reading around each read, and each write and its count: whoever has held it for
    /// writing knows that nothing more is forwarded, or that all that was is counted.
    holed: RwLock<bool>,
    allowance: Mutex<Allowance>,
    ended: AtomicBool,
}

/// What a line may still carry.
#[derive(Debug)]
enum Allowance {
    Undrawn,
    Left {
        generation: u64,
        bytes: u64,
        how: How,
    },
    /// The last byte is given out; whoever has it cuts after handing it on.
    Spent,
}

/// The answer to a pump that wants to hand bytes on.
#[derive(Debug)]
enum Grant {
    All,
    ThenCut(u64, How),
    /// The other pump has the last byte and is about to cut.
    Nothing,
}

impl Line {
    fn new(index: usize, client: TcpStream, server: TcpStream) -> Self {
        for socket in [&client, &server] {
            socket.set_nonblocking(true).expect("a socket can be non-blocking");
            socket.set_nodelay(true).expect("a TCP socket takes TCP_NODELAY");
        }
        Self {
            index,
            client,
            server,
            bell: Bell::new(),
            holed: RwLock::new(false),
            allowance: Mutex::new(Allowance::Undrawn),
            ended: AtomicBool::new(false),
        }
    }

    fn grant(&self, active: &Active, direction: Direction, wanted: u64) -> Grant {
        let mut allowance = lock(&self.allowance);
        if matches!(*allowance, Allowance::Spent) {
            return Grant::Nothing;
        }
        let Some(cut) = &active.plan.cut else {
            return Grant::All;
        };
        if cut.counted.is_some_and(|counted| counted != direction) {
            return Grant::All;
        }
        let (left, how) = match *allowance {
            Allowance::Left { generation, bytes, how } if generation == active.generation => {
                (bytes, how)
            }
            _ => cut.draw(&mut Rng::derived(active.plan.seed, self.index as u64)),
        };
        if wanted < left {
            let (generation, bytes) = (active.generation, left - wanted);
            *allowance = Allowance::Left { generation, bytes, how };
            Grant::All
        } else if active.claim_cut(cut) {
            *allowance = Allowance::Spent;
            Grant::ThenCut(left, how)
        } else {
            // Enough cuts under this plan: the budget stays used up, and no longer matters.
            *allowance = Allowance::Left { generation: active.generation, bytes: 0, how };
            Grant::All
        }
    }

    /// Whether the caller is the one to end this line: the first that asks.
    fn begin_end(&self) -> bool {
        !self.ended.swap(true, Ordering::Relaxed)
    }

    /// What was handed on and may not have been read. Our side of a queue is looked at before
    /// theirs: what moves over in between counts twice, and never not at all.
    fn in_flight(&self) -> Traffic {
        let both = [&self.server, &self.client].map(tcp::Pair::of);
        let unsent = both.map(|pair| pair.map_or(0, |pair| tcp::queues(pair).unsent));
        let unread = both.map(|pair| pair.map_or(0, |pair| tcp::queues(pair.turned()).unread));
        let [up, down] = [0, 1].map(|side| unsent[side] + unread[side]);
        Traffic { up, down }
    }

    /// Ends the connection on both sides.
    fn end(&self, how: How) {
        for socket in [&self.client, &self.server] {
            if how == How::Rst {
                reset_on_close(socket);
            } else {
                // It may have ended by itself meanwhile.
                drop(socket.shutdown(Shutdown::Both));
            }
        }
        self.bell.ring();
    }
}

/// Carries one direction of one line.
#[derive(Debug)]
struct Pump<'a> {
    shared: &'a Shared,
    line: &'a Line,
    direction: Direction,
    from: &'a TcpStream,
    to: &'a TcpStream,
    rng: Rng,
    offset: u64,
    /// When a slow line may carry the next piece.
    due: Instant,
}

/// The line has ended, or goes on without this pump.
struct Over;

impl<'a> Pump<'a> {
    fn new(shared: &'a Shared, line: &'a Line, direction: Direction) -> Self {
        let (from, to) = match direction {
            Direction::Up => (&line.client, &line.server),
            Direction::Down => (&line.server, &line.client),
        };
        let stream = 2 * line.index as u64 + u64::from(direction == Direction::Down);
        let rng = Rng::derived(!shared.active().plan.seed, stream);
        Self { shared, line, direction, from, to, rng, offset: 0, due: Instant::now() }
    }

    fn run(mut self) {
        let mut buffer = vec![0; BUFFER_BYTES];
        while self.carry(&mut buffer).is_ok() {}
    }

    /// Carries one piece.
    fn carry(&mut self, buffer: &mut [u8]) -> Result<(), Over> {
        if !self.line.bell.wait_or_ready(self.from.as_fd(), PollFlags::IN) {
            return Err(Over);
        }
        let active = self.shared.active();
        let slow = active.plan.slow.as_ref().filter(|slow| slow.direction == self.direction);
        let most = self.piece_bytes(&active.plan, slow).min(buffer.len());
        let Some(len) = self.attempt(|mut from, _| from.read(&mut buffer[..most]))? else {
            return Ok(());
        };
        if len == 0 {
            // The other direction goes on. An error means that the line has ended altogether.
            drop(self.to.shutdown(Shutdown::Write));
            return Err(Over);
        }
        let started = Instant::now();
        match self.line.grant(&active, self.direction, len as u64) {
            Grant::All => self.forward(&active, &mut buffer[..len])?,
            Grant::ThenCut(left, how) => {
                let len = usize::try_from(left).map_or(len, |left| left.min(len));
                let forwarded = self.forward(&active, &mut buffer[..len]);
                if forwarded.is_ok() {
                    self.shared.cut(self.line, how);
                } else {
                    // The line ended by itself first: the cut is left for another one.
                    active.cuts.fetch_sub(1, Ordering::Relaxed);
                }
                return Err(Over);
            }
            Grant::Nothing => {
                self.line.bell.wait();
                return Err(Over);
            }
        }
        if let Some(slow) = slow {
            let cost = Duration::from_secs(1).mul_f64(len as f64 / slow.bytes_per_s.max(1) as f64);
            self.due = self.due.max(started) + cost;
            if self.line.bell.wait_until(self.due) {
                return Err(Over);
            }
        }
        Ok(())
    }

    fn piece_bytes(&mut self, plan: &Plan, slow: Option<&Slow>) -> usize {
        let split = plan.split.map_or(u64::MAX, |most| self.rng.within(&(1..=most.max(1))));
        let slow = slow.map_or(u64::MAX, |slow| (slow.bytes_per_s / SLOW_STEPS_PER_S).max(1));
        usize::try_from(split.min(slow)).unwrap_or(usize::MAX)
    }

    fn forward(&mut self, active: &Active, piece: &mut [u8]) -> Result<(), Over> {
        let flips = active.flip(self.direction, self.offset, piece);
        self.shared.count(|counts| counts.flips += flips);
        self.offset += piece.len() as u64;
        let mut rest = &*piece;
        while !rest.is_empty() {
            let write = |_: &TcpStream, mut to: &TcpStream| {
                let sent = to.write(rest)?;
                self.shared.count(|counts| {
                    counts.pieces += 1;
                    counts.total.add(self.direction, sent as u64);
                    counts.per_connection[self.line.index].add(self.direction, sent as u64);
                });
                Ok(sent)
            };
            let Some(sent) = self.attempt(write)? else {
                if !(self.line.bell).wait_or_ready(self.to.as_fd(), PollFlags::OUT) {
                    return Err(Over);
                }
                continue;
            };
            rest = &rest[sent..];
        }
        Ok(())
    }

    /// One call on a socket: its result, or `None` if it would block. In a black hole there is no
    /// call and no return before the end of the line. A broken side breaks the other.
    fn attempt(
        &self,
        call: impl FnOnce(&TcpStream, &TcpStream) -> io::Result<usize>,
    ) -> Result<Option<usize>, Over> {
        let holed = self.line.holed.read().unwrap_or_else(PoisonError::into_inner);
        if *holed {
            drop(holed);
            self.line.bell.wait();
            return Err(Over);
        }
        match call(self.from, self.to) {
            Ok(len) => Ok(Some(len)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
            Err(_) => {
                if self.line.begin_end() {
                    self.line.end(How::Rst);
                }
                Err(Over)
            }
        }
    }
}

fn reset_on_close(socket: &TcpStream) {
    // It may have ended by itself meanwhile.
    drop(SockRef::from(socket).set_linger(Some(Duration::ZERO)));
}

/// A panic in another thread is reported there; here the numbers are still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
