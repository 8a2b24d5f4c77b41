//! A client that speaks raw lines and frames.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// A connection that says exactly what the test says, to see what the server makes of it.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    /// What has arrived and was not asked for yet.
    ahead: Vec<u8>,
}

impl Raw {
    pub fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).expect("the server accepts");
        Self::over(stream)
    }

    /// Either end of a connection that is up.
    pub fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP socket takes TCP_NODELAY");
        Self { stream, ahead: Vec::new() }
    }

    /// Sends bytes as they are; line ends are the caller's.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("the server takes what is sent");
    }

    /// The next line without its end. Fails the test if none comes within [`PATIENCE`].
    pub fn read_line(&mut self) -> String {
        match self.try_line(PATIENCE) {
            Ok(Some(line)) => line,
            Ok(None) => panic!("the server closed instead of saying a line"),
            Err(error) => panic!("no line from the server: {error}; so far {:?}", self.ahead),
        }
    }

    /// The next line without its end; `None` at the end of the stream. An unfinished line stays
    /// for the next call.
    pub fn try_line(&mut self, limit: Duration) -> io::Result<Option<String>> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(end) = self.ahead.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.ahead.drain(..=end).collect();
                let line = line.strip_suffix(b"\n").unwrap_or(&line);
                let line = line.strip_suffix(b"\r").unwrap_or(line);
                return Ok(Some(String::from_utf8_lossy(line).into_owned()));
            }
            if self.read_more(deadline)? == 0 {
                return Ok(None);
            }
        }
    }

    /// Exactly `count` bytes, such as a frame.
    pub fn read_bytes(&mut self, count: usize) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        while self.ahead.len() < count {
            match self.read_more(deadline) {
                Ok(0) => panic!("closed after {} of {count} bytes", self.ahead.len()),
                Ok(_) => {}
                Err(error) => panic!("{} of {count} bytes, then {error}", self.ahead.len()),
            }
        }
        self.ahead.drain(..count).collect()
    }

    /// The next byte; `None` if the peer leaves or says nothing.
    pub fn try_byte(&mut self) -> Option<u8> {
        if self.ahead.is_empty() {
            self.read_more(Instant::now() + PATIENCE).ok().filter(|&length| length > 0)?;
        }
        Some(self.ahead.remove(0))
    }

    /// Whether the server ends the connection, orderly or not, within `limit`; what it says until
    /// then is dropped.
    pub fn closes_within(&mut self, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            match self.read_more(deadline) {
                Ok(0) => return true,
                Ok(_) => self.ahead.clear(),
                Err(error) => return error.kind() != io::ErrorKind::TimedOut,
            }
        }
    }

    /// Says that nothing more will be sent, and goes on reading.
    pub fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).expect("the connection is up");
    }

    /// The socket itself, for what the methods do not cover.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    fn read_more(&mut self, deadline: Instant) -> io::Result<usize> {
        let mut piece = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut piece) {
                Ok(len) => {
                    self.ahead.extend_from_slice(&piece[..len]);
                    return Ok(len);
                }
                // The time-out of a socket is `WouldBlock`; the deadline above decides.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}
