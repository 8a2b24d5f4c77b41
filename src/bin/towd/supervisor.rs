//! `towd --workers`: the process that was started keeps several that serve, each this same program
//! anew, and serves nobody itself.
//!
//! It holds the sockets, so that nothing of what waits in them is lost when a worker ends. When it
//! ends itself, however that comes about, each worker's line to it ends as well, and so does the worker.

use std::{
    env, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::process::CommandExt as _,
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
    process::{Pid, Signal, kill_process},
};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook_mio::v1_0::Signals;
use towpath::{
    limits::{WORKER_BACKOFF, WORKER_FAILURES_MAX, WORKER_RETRY, WORKER_STEADY, WORKERS_DEADLINE},
    server::Seats,
};

use crate::Failure;

/// This program as it was when this process was started, also if another was installed since.
const OURSELVES: &str = "/proc/self/exe";

const SIGNALS: Token = Token(0);
/// A worker says something. All are looked at then: there are few, and it happens once in their lives.
const LINE: Token = Token(1);

/// Keeps the workers.
pub(crate) struct Supervisor {
    poll: Poll,
    signals: Signals,
    /// Until they have to go.
    seats: Option<Seats>,
    workers: Vec<Worker>,
}

/// One of them, whichever process that is now.
#[derive(Default)]
struct Worker {
    process: Option<Process>,
    /// How often in a row it ended before it had lived for long.
    failures: u32,
    /// When to start it anew.
    start_at: Option<Instant>,
}

struct Process {
    child: Child,
    /// Ours of the line to it.
    line: OwnedFd,
    began: Instant,
    is_ready: bool,
    /// It has to read its settings again, once it can be told so.
    hangs_up: bool,
}

impl Supervisor {
    /// For one worker in each seat.
    pub(crate) fn new(seats: Seats, count: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP, SIGCHLD])?;
        poll.registry().register(&mut signals, SIGNALS, Interest::READABLE)?;
        let workers = (0..count).map(|_| Worker::default()).collect();
        Ok(Self { poll, signals, seats: Some(seats), workers })
    }

    /// Starts them, one after another: what keeps one from starting is said once. Returns when all
    /// accept connections, or a signal has come.
    pub(crate) fn start(&mut self) -> Result<(), Failure> {
        for index in 0..self.workers.len() {
            self.launch(index)?;
            while self.seats.is_some() && !self.is_ready(index) {
                let ended = self.turn(None)?;
                if let Some((index, status)) = ended.into_iter().next() {
                    self.go_down();
                    return Err(Failure(format!("worker {index} could not start: {status}")));
                }
            }
        }
        Ok(())
    }

    /// Keeps them until a signal ends it all.
    pub(crate) fn run(mut self) -> Result<(), Failure> {
        while self.seats.is_some() {
            let next = self.workers.iter().filter_map(|worker| worker.start_at).min();
            for (index, status) in self.turn(next)? {
                self.after(index, status)?;
            }
            let now = Instant::now();
            for index in 0..self.workers.len() {
                let is_due = |worker: &Worker| worker.start_at.is_some_and(|at| at <= now);
                if self.seats.is_some() && self.workers.get(index).is_some_and(is_due) {
                    self.launch_again(index);
                }
            }
        }
        self.go_down();
        Ok(())
    }

    fn is_ready(&self, index: usize) -> bool {
        let process = self.workers.get(index).and_then(|worker| worker.process.as_ref());
        process.is_some_and(|process| process.is_ready)
    }

    /// Starts a worker anew. If that fails, the others go on meanwhile.
    fn launch_again(&mut self, index: usize) {
        let launched = self.launch(index);
        if let (Err(Failure(text)), Some(worker)) = (launched, self.workers.get_mut(index)) {
            log::error!("worker {index} can't be started for now: {text}");
            worker.start_at = Some(Instant::now() + WORKER_RETRY);
        }
    }

    fn launch(&mut self, index: usize) -> Result<(), Failure> {
        let is_ready = |worker: &Worker| worker.process.as_ref().is_some_and(|it| it.is_ready);
        let there = self.workers.iter().zip(0..).filter(|(worker, _)| is_ready(worker));
        let there: Vec<u8> = there.map(|(_, index)| index).collect();
        let (Some(worker), Some(seats)) = (self.workers.get_mut(index), &self.seats) else {
            return Ok(());
        };
        worker.start_at = None;
        let (line, theirs) = Seats::line()?;
        let mut watched = SourceFd(&line.as_raw_fd());
        self.poll.registry().register(&mut watched, LINE, Interest::READABLE)?;
        let child = Command::new(OURSELVES)
            .arg0("towd")
            .arg("--worker")
            .args(env::args_os().skip(1))
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()?;
        log::info!("worker {index} is process {}", child.id());
        // If it is gone already, its end will tell.
        let _ = seats.hand_over(index, &there, line.as_fd());
        let began = Instant::now();
        let process = Process { child, line, began, is_ready: false, hangs_up: false };
        worker.process = Some(process);
        Ok(())
    }

    /// Waits for whatever comes next, at most until `until`; returns who has ended.
    fn turn(&mut self, until: Option<Instant>) -> io::Result<Vec<(usize, ExitStatus)>> {
        // Rounded up, so as not to spin for the last fraction of a millisecond.
        let left = |at: Instant| at.saturating_duration_since(Instant::now());
        let timeout = until.map(|at| left(at) + Duration::from_millis(1));
        let mut events = Events::with_capacity(64);
        match self.poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        self.take_signals();
        let mut ended = Vec::new();
        for (index, worker) in self.workers.iter_mut().enumerate() {
            worker.hear();
            if let Some(process) = &mut worker.process
                && let Some(status) = process.child.try_wait()?
            {
                if process.began.elapsed() >= WORKER_STEADY {
                    worker.failures = 0;
                }
                // Its descriptors are closed with it, and no longer watched.
                worker.process = None;
                ended.push((index, status));
            }
        }
        Ok(ended)
    }

    fn take_signals(&mut self) {
        for signal in self.signals.pending() {
            match signal {
                // It only had to wake us.
                SIGCHLD => {}
                SIGHUP => {
                    let processes = self.workers.iter_mut().filter_map(|it| it.process.as_mut());
                    processes.for_each(Process::hang_up);
                }
                _ => {
                    log::info!("signal {signal}: going down");
                    // Who comes from now on is refused, and not kept waiting.
                    self.seats = None;
                }
            }
        }
    }

    /// A worker has ended by itself, or was killed.
    fn after(&mut self, index: usize, status: ExitStatus) -> Result<(), Failure> {
        let Some(worker) = self.workers.get_mut(index).filter(|_| self.seats.is_some()) else {
            return Ok(());
        };
        worker.failures += 1;
        if worker.failures >= WORKER_FAILURES_MAX {
            self.go_down();
            let text = format!("worker {index} ends again and again: {status}");
            return Err(Failure(text));
        }
        // The first time it may have been anything.
        let pause = match worker.failures {
            1 => Duration::ZERO,
            more => WORKER_BACKOFF.saturating_mul(1 << more),
        };
        log::error!("worker {index} has ended ({status}) and is started anew");
        worker.start_at = Some(Instant::now() + pause);
        Ok(())
    }

    /// Ends all workers, and waits for them for as long as they may take.
    fn go_down(&mut self) {
        self.seats = None;
        let deadline = Instant::now() + WORKERS_DEADLINE;
        self.signal(Signal::TERM);
        while Instant::now() < deadline && self.has_processes() {
            if self.turn(Some(deadline)).is_err() {
                break;
            }
        }
        self.signal(Signal::KILL);
        for process in self.workers.iter_mut().filter_map(|worker| worker.process.as_mut()) {
            log::warn!("process {} did not end in time", process.child.id());
        }
    }

    fn has_processes(&self) -> bool {
        self.workers.iter().any(|worker| worker.process.is_some())
    }

    fn signal(&self, signal: Signal) {
        for process in self.workers.iter().filter_map(|worker| worker.process.as_ref()) {
            process.signal(signal);
        }
    }
}

impl Worker {
    /// Takes what it says: that it accepts connections.
    fn hear(&mut self) {
        let Some(process) = &mut self.process else { return };
        if matches!(recv(&process.line, &mut [0; 16], RecvFlags::DONTWAIT), Ok((1.., _))) {
            process.is_ready = true;
            if process.hangs_up {
                process.hang_up();
            }
        }
    }
}

impl Process {
    /// Before it is ready, it would not survive the signal; and reads its settings anyway.
    fn hang_up(&mut self) {
        self.hangs_up = !self.is_ready;
        if self.is_ready {
            self.signal(Signal::HUP);
        }
    }

    fn signal(&self, signal: Signal) {
        // It is a zombie at worst: nobody else has its id.
        if let Err(errno) = kill_process(Pid::from_child(&self.child), signal)
            && errno != Errno::SRCH
        {
            log::warn!("process {}: {errno}", self.child.id());
        }
    }
}
