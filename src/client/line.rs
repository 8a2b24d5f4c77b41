//! The line to a server: a non-blocking socket that is waited for with a limit, so that neither a
//! silent server nor a full buffer holds the client longer than it wants, and Ctrl-C ends a wait.

use std::{
    io::{self, IoSlice, Read, Write},
    net::{TcpStream, ToSocketAddrs},
    sync::{PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use socket2::{Domain, Protocol, Socket, Type};

use super::{Client, ClientError, LOOK_AT_STOP, Options, RateLimit, Stop};
use crate::{
    limits::{KEPT_LINE_MAX, LINE_BYTES_MAX},
    wire::{Code, Command, Greeting, Reply, VERSION, next_line},
};

/// Bytes read at once while lines are awaited.
const READ_BYTES: usize = 16 << 10;

/// A connection that was greeted.
#[derive(Debug)]
pub(super) struct Line {
    socket: TcpStream,
    input: Vec<u8>,
    searched: usize,
    timeout: Duration,
    limit: Option<RateLimit>,
    stop: Stop,
    idle_since: Instant,
    /// It was kept, and nothing has come in on it since: if it breaks, nothing is lost but the hope
    /// that it would hold.
    unheard: bool,
}

/// What a socket is ready for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ready {
    pub(super) readable: bool,
    pub(super) writable: bool,
}

impl Client {
    /// A connection that is logged in: the one that the last command has left, or a new one.
    pub(super) fn line(&self) -> Result<Line, ClientError> {
        let kept = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(mut line) = kept.filter(Line::is_usable) {
            // Whether the server still has it shows only when it answers.
            line.unheard = true;
            return Ok(line);
        }
        let (mut line, greeting) = self.connect_as_nobody()?;
        self.log_in(&mut line, &greeting).map_err(|error| match error {
            // There is no file yet.
            ClientError::Unsettled(reason) => ClientError::Broken(reason),
            error => error,
        })?;
        Ok(line)
    }

    /// The connection in `line`, made if there is none.
    pub(super) fn open<'l>(&self, line: &'l mut Option<Line>) -> Result<&'l mut Line, ClientError> {
        let open = match line.take() {
            Some(open) => open,
            None => self.line()?,
        };
        Ok(line.insert(open))
    }

    /// Keeps a connection on which nothing is awaited for the next command.
    pub(super) fn keep(&self, mut line: Line) {
        line.idle_since = Instant::now();
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// Connects and reads the greeting.
    pub(super) fn connect_as_nobody(&self) -> Result<(Line, Greeting), ClientError> {
        let address = self.address();
        let found = (&*self.host, self.port).to_socket_addrs().map_err(|error| {
            let text = format!("can't find the address of {}: {error}", self.host);
            // A name that never led anywhere is more likely wrong than late.
            if self.reached.load(Ordering::Acquire) {
                ClientError::Broken(text)
            } else {
                ClientError::GaveUp(text)
            }
        })?;
        let mut last = format!("{} has no address", self.host);
        for candidate in found {
            let options = &self.options;
            match connect(candidate, options.timeout, &options.stop) {
                Ok(socket) => {
                    self.reached.store(true, Ordering::Release);
                    return Line::greeted(socket, options);
                }
                Err(ClientError::Broken(reason)) => {
                    last = format!("can't connect to {address}: {reason}");
                }
                Err(error) => return Err(error),
            }
        }
        Err(ClientError::Broken(last))
    }
}

fn connect(
    address: std::net::SocketAddr,
    timeout: Duration,
    stop: &Stop,
) -> Result<TcpStream, ClientError> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error) if error.raw_os_error() == Some(Errno::INPROGRESS.raw_os_error()) => {
            let stream: TcpStream = socket.try_clone()?.into();
            wait(&stream, PollFlags::OUT, timeout, stop)?;
            if let Some(error) = socket.take_error()? {
                return Err(error.into());
            }
        }
        Err(error) => return Err(error.into()),
    }
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

/// Waits until the socket is ready for one of `flags`.
fn wait(
    socket: &TcpStream,
    flags: PollFlags,
    timeout: Duration,
    stop: &Stop,
) -> Result<Ready, ClientError> {
    // A time beyond all clocks is a year.
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
    let deadline = Instant::now() + timeout.min(YEAR);
    loop {
        if stop.is_set() {
            return Err(ClientError::Interrupted);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let step = Timespec::try_from(left.min(LOOK_AT_STOP)).unwrap_or_default();
        let mut fds = [PollFd::new(socket, flags)];
        match poll(&mut fds, Some(&step)) {
            Ok(0) if left.is_zero() => {
                let patience = humantime::format_duration(timeout);
                return Err(ClientError::Broken(format!("no byte for {patience}")));
            }
            Ok(0) | Err(Errno::INTR) => {}
            Ok(_) => return Ok(Ready::of(&fds[0])),
            Err(errno) => return Err(io::Error::from(errno).into()),
        }
    }
}

impl Ready {
    fn of(fd: &PollFd<'_>) -> Self {
        let any = |flags| fd.revents().intersects(flags);
        let broken = PollFlags::ERR | PollFlags::HUP;
        Self { readable: any(PollFlags::IN | broken), writable: any(PollFlags::OUT | broken) }
    }
}

impl Line {
    /// Reads the greeting and checks that the server speaks our language.
    fn greeted(socket: TcpStream, options: &Options) -> Result<(Self, Greeting), ClientError> {
        let mut line = Self {
            socket,
            input: Vec::new(),
            searched: 0,
            timeout: options.timeout,
            limit: options.limit.clone(),
            stop: options.stop.clone(),
            idle_since: Instant::now(),
            unheard: false,
        };
        let greeting = line.read_reply().map_err(|error| match error {
            ClientError::Broken(reason) => {
                ClientError::Broken(format!("no greeting of a tow server: {reason}"))
            }
            error => error,
        })?;
        if greeting.code != Code::Greeting {
            return Err(ClientError::from_reply(greeting));
        }
        if greeting.message().split(' ').next() != Some(VERSION) {
            let text = format!("the server does not speak {VERSION}: {}", greeting.message());
            return Err(ClientError::Refused(Reply::text(Code::Greeting, &text)));
        }
        let greeting = Greeting::parse(greeting.message())?;
        Ok((line, greeting))
    }

    /// Whether a kept connection can be used: a server that has closed it, or said anything, is
    /// not asked on it again, nor one that may have been forgotten on the way meanwhile.
    fn is_usable(&self) -> bool {
        let quiet = self.ready_now().is_ok_and(|ready| !ready.readable && ready.writable);
        quiet && self.idle_since.elapsed() < KEPT_LINE_MAX
    }

    /// Sends one line.
    pub(super) fn send_line(&mut self, line: &impl std::fmt::Display) -> Result<(), ClientError> {
        self.send(format!("{line}\n").as_bytes())
    }

    /// Sends a command, with its sum.
    pub(super) fn send_command(&mut self, command: &Command) -> Result<(), ClientError> {
        self.send_line(&command.summed())
    }

    /// Sends all of `bytes`.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), ClientError> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match self.write(&[IoSlice::new(rest)])? {
                0 => {
                    self.wait_for(PollFlags::OUT)?;
                }
                written => done += written,
            }
        }
        Ok(())
    }

    /// Sends what the line takes at once, and the limit allows by then; returns how many bytes that
    /// were.
    pub(super) fn write(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, ClientError> {
        let Some(limit) = self.limit.clone() else {
            return self.write_now(slices);
        };
        limit.wait(&self.stop)?;
        let mut left = limit.step_bytes();
        let cut = slices.iter().map(|slice| {
            let take = slice.len().min(left);
            left -= take;
            IoSlice::new(slice.get(..take).unwrap_or_default())
        });
        let cut: Vec<IoSlice<'_>> = cut.collect();
        let written = self.write_now(&cut)?;
        limit.charge(written);
        Ok(written)
    }

    fn write_now(&mut self, slices: &[IoSlice<'_>]) -> Result<usize, ClientError> {
        loop {
            match self.socket.write_vectored(slices) {
                Ok(0) => return Err(self.broken("the line takes nothing")),
                Ok(written) => return Ok(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.broken(error)),
            }
        }
    }

    /// The line broke.
    fn broken(&self, reason: impl std::fmt::Display) -> ClientError {
        if self.unheard {
            ClientError::Stale(reason.to_string())
        } else {
            ClientError::Broken(reason.to_string())
        }
    }

    fn wait_for(&self, flags: PollFlags) -> Result<Ready, ClientError> {
        wait(&self.socket, flags, self.timeout, &self.stop).map_err(|error| match error {
            ClientError::Broken(reason) => self.broken(reason),
            error => error,
        })
    }

    /// What the socket is ready for now, without waiting.
    pub(super) fn ready_now(&self) -> Result<Ready, ClientError> {
        if self.stop.is_set() {
            return Err(ClientError::Interrupted);
        }
        let mut fds = [PollFd::new(&self.socket, PollFlags::IN | PollFlags::OUT)];
        match poll(&mut fds, Some(&Timespec::default())) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(self.broken(io::Error::from(errno))),
        }
        let mut ready = Ready::of(&fds[0]);
        ready.readable |= !self.input.is_empty();
        Ok(ready)
    }

    /// Waits until something can be sent or has come in.
    pub(super) fn wait_ready(&self) -> Result<Ready, ClientError> {
        self.wait_for(PollFlags::IN | PollFlags::OUT)
    }

    /// Whether a line has come in that was not read yet.
    pub(super) fn has_line(&self) -> bool {
        self.input.contains(&b'\n')
    }

    /// Reads the next line that is not a mere sign of life.
    pub(super) fn read_reply(&mut self) -> Result<Reply, ClientError> {
        loop {
            let reply = self.read_any_reply()?;
            if reply.code != Code::Working {
                return Ok(reply);
            }
        }
    }

    fn read_any_reply(&mut self) -> Result<Reply, ClientError> {
        // For the line as a whole: a byte now and then buys no time.
        let mut began = None;
        loop {
            // A server that always says something never makes it wait.
            if self.stop.is_set() {
                return Err(ClientError::Interrupted);
            }
            if let Some((line, taken)) = next_line(&self.input, &mut self.searched)? {
                let reply = Reply::parse(line);
                self.input.drain(..taken);
                return Ok(reply?);
            }
            debug_assert!(self.input.len() <= LINE_BYTES_MAX + 1, "next_line limits it");
            if !self.input.is_empty()
                && began.get_or_insert_with(Instant::now).elapsed() > self.timeout
            {
                let patience = humantime::format_duration(self.timeout);
                return Err(ClientError::Broken(format!("no whole line for {patience}")));
            }
            // What is kept is not a line yet: only what comes now can make it one.
            let mut buffer = [0; READ_BYTES];
            let have = self.receive_behind(0, &mut buffer)?;
            self.input.extend_from_slice(buffer.get(..have).unwrap_or_default());
        }
    }

    /// Reads bytes, first those that came behind the last line; waits for at least one. Goes on
    /// as long as more is there, so that a fast line fills the buffer.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> Result<usize, ClientError> {
        let kept = self.input.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..kept), self.input.get(..kept)) {
            to.copy_from_slice(from);
        }
        self.input.drain(..kept);
        self.receive_behind(kept, buffer)
    }

    /// Fills the buffer, waiting for all of it.
    pub(super) fn receive_exact(&mut self, buffer: &mut [u8]) -> Result<(), ClientError> {
        let mut have = 0;
        while let Some(room) = buffer.get_mut(have..).filter(|room| !room.is_empty()) {
            have += self.receive(room)?;
        }
        Ok(())
    }

    /// Fills the buffer from the line behind the bytes that it has; waits for at least one if it
    /// has none.
    fn receive_behind(&mut self, mut have: usize, buffer: &mut [u8]) -> Result<usize, ClientError> {
        let step = self.limit.as_ref().map_or(usize::MAX, RateLimit::step_bytes);
        while let Some(room) = buffer.get_mut(have..).filter(|room| !room.is_empty()) {
            if let Some(limit) = &self.limit {
                limit.wait(&self.stop)?;
            }
            let allowed = room.len().min(step);
            match self.socket.read(room.get_mut(..allowed).unwrap_or_default()) {
                Ok(0) if have > 0 => break,
                Ok(0) => return Err(self.broken("the server closed the line")),
                Ok(bytes) => {
                    have += bytes;
                    self.unheard = false;
                    if let Some(limit) = &self.limit {
                        limit.charge(bytes);
                        // The next step has to wait: what came is worked on meanwhile.
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && have > 0 => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.wait_for(PollFlags::IN)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // What came before the break is still good.
                Err(_) if have > 0 => break,
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(have)
    }

    /// Puts bytes back that came behind what was asked for.
    pub(super) fn unread(&mut self, bytes: &[u8]) {
        self.searched = 0;
        self.input.splice(..0, bytes.iter().copied());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_led_to_a_server_before_is_looked_up_again() {
        // Longer than any label may be: no resolver has to be asked.
        let url = format!("tow://{}/", "x".repeat(64)).parse().unwrap();
        let client = Client::new(&url, Options::default());
        let failed = || client.connect_as_nobody().map(|_| ()).unwrap_err();
        assert!(matches!(failed(), ClientError::GaveUp(_)), "{}", failed());
        client.reached.store(true, Ordering::Release);
        assert!(matches!(failed(), ClientError::Broken(_)), "{}", failed());
        assert!(failed().to_string().contains("can't find the address"), "{}", failed());
    }
}
