//! A running action, as the loop sees it: two streams, an exit, and ways to end it.

use std::{
    fmt,
    io::{self, Read},
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};

use mio::{Interest, Registry, Token, unix::SourceFd, unix::pipe::Receiver};
use rustix::{
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid},
};

use super::{ActionId, Ledger};

/// A running action. Dropping it ends it: the group is killed, and the next
/// [`sweep`](super::Children::sweep) reaps the leader.
#[derive(Debug)]
pub struct Child {
    leader: Leader,
    /// Readable from the leader's end on.
    exit: OwnedFd,
    /// Until their ends.
    stdout: Option<Receiver>,
    stderr: Option<Receiver>,
}

/// Which of its streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chunk {
    /// So many bytes are in the buffer, and there may be more.
    Bytes(usize),
    /// Nothing now; an event will come.
    Later,
    /// Nothing any more.
    End,
}

/// How a leader ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status: 0 to 255.
    Code(i32),
    /// By this signal.
    Signal(i32),
    /// Something else in this process waited for it, and knows.
    Lost,
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit status {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Lost => f.write_str("exit status unknown"),
        }
    }
}

impl Child {
    pub(super) fn new(leader: Leader, exit: OwnedFd, stdout: Receiver, stderr: Receiver) -> Self {
        Self { leader, exit, stdout: Some(stdout), stderr: Some(stderr) }
    }

    /// Which run this is.
    #[must_use]
    pub const fn id(&self) -> ActionId {
        self.leader.id
    }

    /// The leader's process id, for a log. It is its group's id as well.
    #[must_use]
    pub const fn process_id(&self) -> i32 {
        self.leader.group.as_raw_nonzero().get()
    }

    /// Puts streams and exit into a poll, each with its token; they may be the same. Taken out when
    /// this is dropped, and a stream at its end.
    ///
    /// # Errors
    /// Whatever `epoll_ctl` says.
    pub fn register(
        &mut self,
        registry: &Registry,
        [stdout, stderr, exit]: [Token; 3],
    ) -> io::Result<()> {
        for (pipe, token) in [(&mut self.stdout, stdout), (&mut self.stderr, stderr)] {
            if let Some(pipe) = pipe {
                registry.register(pipe, token, Interest::READABLE)?;
            }
        }
        registry.register(&mut SourceFd(&self.exit.as_raw_fd()), exit, Interest::READABLE)
    }

    /// Reads what a stream has, without waiting. Once [`Self::reap`] gave the exit, there is no
    /// [`Chunk::Later`]: who still holds the pipe then is not waited for.
    ///
    /// # Errors
    /// Whatever `read` says; the stream is at its end then.
    pub fn read(&mut self, stream: Stream, buffer: &mut [u8]) -> io::Result<Chunk> {
        let pipe = match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        };
        if buffer.is_empty() {
            return Ok(Chunk::Bytes(0));
        }
        let Some(open) = pipe else {
            return Ok(Chunk::End);
        };
        let read = loop {
            match open.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                read => break read,
            }
        };
        match read {
            Ok(bytes) if bytes > 0 => return Ok(Chunk::Bytes(bytes)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if self.leader.exit.is_none() {
                    return Ok(Chunk::Later);
                }
            }
            Ok(_) => {}
            Err(error) => {
                *pipe = None;
                return Err(error);
            }
        }
        *pipe = None;
        Ok(Chunk::End)
    }

    /// Whether the leader has ended. Does not wait.
    #[must_use]
    pub fn has_exited(&self) -> bool {
        self.leader.exit.is_some() || !matches!(self.leader.peek(), Ok(None))
    }

    /// Whether the leader was reaped and both streams read to their ends: all is told.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.leader.exit.is_some() && self.stdout.is_none() && self.stderr.is_none()
    }

    /// Asks the group to end: SIGTERM.
    pub fn terminate(&self) {
        self.leader.signal(Signal::TERM);
    }

    /// Ends the group: SIGKILL.
    pub fn kill(&self) {
        self.leader.signal(Signal::KILL);
    }

    /// How the leader ended, or `None` if it has not. Does not wait. Whoever is left of its group
    /// is killed first.
    pub fn reap(&mut self) -> Option<Exit> {
        self.leader.reap()
    }
}

/// The first process of a group, from its start until it is reaped. Its id can't go to anybody
/// else in between, and neither can its group's.
#[derive(Debug)]
pub(super) struct Leader {
    group: Pid,
    id: ActionId,
    ledger: Arc<Ledger>,
    /// Once it was reaped; nothing is sent to the group any more.
    exit: Option<Exit>,
}

impl Leader {
    pub(super) fn new(group: Pid, id: ActionId, ledger: Arc<Ledger>) -> Self {
        ledger.started(id, group);
        Self { group, id, ledger, exit: None }
    }

    /// How it ended, while it stays a zombie.
    fn peek(&self) -> Result<Option<WaitIdStatus>, Errno> {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(self.group), look)
    }

    fn signal(&self, signal: Signal) {
        // Unless it is there as child or zombie, the group's id may be somebody else's.
        if self.exit.is_none() && self.peek().is_ok() {
            // Fails only for those that have changed their user.
            let _ = kill_process_group(self.group, signal);
        }
    }

    fn reap(&mut self) -> Option<Exit> {
        if self.exit.is_some() {
            return self.exit;
        }
        let exit = match self.peek() {
            Ok(None) => return None,
            Ok(Some(status)) => {
                self.signal(Signal::KILL);
                let now = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
                let _ = waitid(WaitId::Pid(self.group), now);
                match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => Exit::Code(code),
                    (None, Some(signal)) => Exit::Signal(signal),
                    (None, None) => Exit::Lost,
                }
            }
            Err(_) => Exit::Lost,
        };
        self.ledger.forget(self.id);
        self.exit = Some(exit);
        self.exit
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        if self.reap().is_none() {
            self.ledger.abandon(self.id, self.group);
        }
    }
}
