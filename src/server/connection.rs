//! One connection: its socket, its session, and its bounded buffers.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Read, Write},
    net::{Shutdown, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Token, net::TcpStream};

use super::{
    disk::{Held, Opened},
    rounds::Share,
    writers::PartialId,
};
use crate::{
    auth::UserName,
    limits::{
        CHUNK_BYTES, COMMAND_READ_BYTES, GATHERED_BYTES, PENDING_INPUT_BYTES_MAX,
        PENDING_OUTPUT_BYTES_MAX,
    },
    session::{JobId, Session},
    store::Root,
    wire::Reply,
};

/// How long a connection that is closed waits for its peer to have read the last line: closing
/// with unread input makes the system throw that line away.
const LINGER: Duration = Duration::from_secs(2);

/// The least that is read from a file at once for a peer that takes little: a leaf.
const SEND_BYTES_MIN: usize = 64 << 10;

/// One connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) token: Token,
    pub(super) session: Session,
    /// Where the paths of its commands lead; nowhere before the login.
    pub(super) home: Option<Arc<Root>>,
    /// Who is counted for it.
    pub(super) user: Option<UserName>,
    /// A login of it is counted as being tried.
    pub(super) login_pending: bool,
    /// What the session has open.
    pub(super) held: Option<Held>,
    /// Sources that were opened ahead of their commands, in the order of these.
    pub(super) opened: VecDeque<Opened>,
    /// The partial this connection is registered for as its writer, and the job that opens it.
    pub(super) partial: Option<(PartialId, JobId)>,
    /// A cold read.
    pub(super) cold: Cold,
    /// Counts cold reads.
    pub(super) reads: u64,
    /// How far the disk was asked to fetch its file; 0 if all of it was in memory so far.
    pub(super) fetched_to: u64,
    /// Cached readiness, cleared only by `WouldBlock`.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer will send no more.
    pub(super) input_ended: bool,
    /// The line is dead in both directions.
    pub(super) broken: bool,
    /// Input that could not be taken yet. Invariant: at most [`PENDING_INPUT_BYTES_MAX`].
    pub(super) input: Vec<u8>,
    /// How far `input` was searched for a line end in vain.
    pub(super) searched: usize,
    /// Output that the line has not taken yet. Invariant: stays below
    /// [`PENDING_OUTPUT_BYTES_MAX`] plus the answers to one command, or to two groups of small files.
    output: Vec<u8>,
    /// The most that is moved at once, where the rate is limited.
    pub(super) chunk_bytes: usize,
    /// Whether the limit on the rate lets it move anything now.
    pub(super) may_move: bool,
    /// Since when that limit has kept it from moving what it could.
    pub(super) held_up: Option<Instant>,
    /// How much is read from a file at once: about twice what the line took last.
    pub(super) send_bytes: usize,
    /// How much is read from the line at once: little from a peer that sends small frames, each
    /// of which costs a write.
    pub(super) receive_bytes: usize,
    /// Whether the last bulk step was a check beside the stream: they take turns.
    pub(super) checked_last: bool,
    /// In a queue of the reactor.
    pub(super) queued: bool,
    pub(super) bulk_queued: bool,
    /// What it has had of the round of bulk bytes.
    pub(super) share: Share,
    /// The earliest reminder in the timers.
    pub(super) reminder: Option<Instant>,
    /// Last time that bytes came in or went out.
    pub(super) active: Instant,
    /// Everything has been said: closes when the peer has read it, or at this time.
    pub(super) lingers_until: Option<Instant>,
}

/// What a step moved of what a limit on the rate counts: frames with bytes of files.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Moved {
    pub(super) bytes: usize,
    /// Whether the peer gave, or took, as much as was asked for: then it was not what the step had to
    /// wait for.
    pub(super) freely: bool,
}

/// Bytes that had to be fetched from the disk.
#[derive(Debug, Default)]
pub(super) enum Cold {
    /// None.
    #[default]
    No,
    /// The disk thread is at it; the number is that of the read.
    Pending(u64),
    /// Here they are, read at this offset.
    Ready(u64, Vec<u8>),
}

impl Connection {
    pub(super) fn new(
        socket: TcpStream,
        peer: SocketAddr,
        token: Token,
        session: Session,
        now: Instant,
    ) -> Self {
        Self {
            socket,
            peer,
            token,
            session,
            home: None,
            user: None,
            login_pending: false,
            held: None,
            opened: VecDeque::new(),
            partial: None,
            cold: Cold::No,
            reads: 0,
            fetched_to: 0,
            // Tried at once: if it is not, the first try says so.
            readable: true,
            writable: true,
            input_ended: false,
            broken: false,
            input: Vec::new(),
            searched: 0,
            output: Vec::new(),
            chunk_bytes: CHUNK_BYTES,
            may_move: true,
            held_up: None,
            send_bytes: CHUNK_BYTES,
            receive_bytes: SEND_BYTES_MIN,
            checked_last: false,
            queued: false,
            bulk_queued: false,
            share: Share::default(),
            reminder: None,
            active: now,
            lingers_until: None,
        }
    }

    /// Adds a line to the output.
    pub(super) fn push_reply(&mut self, reply: &Reply) {
        // Writing to a Vec can't fail.
        let _ = writeln!(self.output, "{reply}");
    }

    /// Adds bytes to the output.
    pub(super) fn push_bytes(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// Whether more may be added to the output.
    pub(super) const fn has_room(&self) -> bool {
        self.output.len() < PENDING_OUTPUT_BYTES_MAX
    }

    /// Whether enough was gathered for a write.
    pub(super) const fn is_due(&self) -> bool {
        self.output.len() >= GATHERED_BYTES
    }

    /// Whether everything was handed to the line.
    pub(super) const fn is_flushed(&self) -> bool {
        self.output.is_empty()
    }

    /// Hands the output to the line, as far as that takes it.
    pub(super) fn flush(&mut self, now: Instant) {
        while !self.output.is_empty() && self.writable && !self.broken {
            let written = self.socket.write(&self.output);
            let Some(written) = self.written(written, now) else {
                return;
            };
            self.output.drain(..written);
        }
        if self.output.is_empty() && self.output.capacity() > 1024 {
            self.output = Vec::new();
        }
    }

    /// Hands the output and then `payload` to the line; returns how much of the payload it took.
    pub(super) fn write_payload(&mut self, payload: &[u8], now: Instant) -> usize {
        let mut taken = 0;
        // A small file goes with what stands before and behind it.
        if self.output.len() + payload.len() <= GATHERED_BYTES {
            self.output.extend_from_slice(payload);
            return payload.len();
        }
        while taken < payload.len() && self.writable && !self.broken {
            let rest = payload.get(taken..).unwrap_or_default();
            let slices = [IoSlice::new(&self.output), IoSlice::new(rest)];
            let written = self.socket.write_vectored(&slices);
            let Some(written) = self.written(written, now) else {
                break;
            };
            let of_output = written.min(self.output.len());
            self.output.drain(..of_output);
            taken += written - of_output;
        }
        // Whole leaves, so that none is hashed in two pieces.
        let doubled = taken.saturating_mul(2) / SEND_BYTES_MIN * SEND_BYTES_MIN;
        self.send_bytes = if taken == payload.len() {
            self.send_bytes.saturating_mul(2).min(CHUNK_BYTES)
        } else {
            doubled.clamp(SEND_BYTES_MIN, CHUNK_BYTES)
        };
        taken
    }

    /// What came of a write; `None` ends the attempt.
    fn written(&mut self, written: io::Result<usize>, now: Instant) -> Option<usize> {
        match written {
            // A socket that takes nothing and says no more would be asked for ever.
            Ok(0) => self.broken = true,
            Ok(written) => {
                self.active = now;
                return Some(written);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Some(0),
            Err(_) => self.broken = true,
        }
        None
    }

    /// Reads from the line into `buffer` until that is full or the line has no more for now;
    /// returns how much there is.
    pub(super) fn receive(&mut self, buffer: &mut [u8], now: Instant) -> usize {
        let mut have = 0;
        while self.readable && !self.input_ended {
            let Some(room) = buffer.get_mut(have..).filter(|room| !room.is_empty()) else {
                break;
            };
            match self.socket.read(room) {
                Ok(0) => self.input_ended = true,
                Ok(bytes) => {
                    have += bytes;
                    self.active = now;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.input_ended = true;
                    self.broken = true;
                }
            }
        }
        have
    }

    /// Adds to the input what the line has, a little at a time. `false` if that is nothing now.
    pub(super) fn receive_more(&mut self, now: Instant) -> bool {
        let mut buffer = [0; COMMAND_READ_BYTES];
        let have = self.receive(&mut buffer, now);
        self.input.extend_from_slice(buffer.get(..have).unwrap_or_default());
        have > 0
    }

    /// Keeps input that can't be taken yet. `false` if it is more than a connection may have.
    pub(super) fn keep_input(&mut self, bytes: &[u8]) -> bool {
        self.searched = 0;
        self.input = bytes.to_vec();
        self.input.len() <= PENDING_INPUT_BYTES_MAX
    }

    /// Forgets the first `taken` bytes of the input.
    pub(super) fn consume_input(&mut self, taken: usize) {
        self.input.drain(..taken.min(self.input.len()));
        if self.input.is_empty() {
            self.input = Vec::new();
        }
    }

    /// Ends the output: the peer sees the end after the last line.
    pub(super) fn linger(&mut self, now: Instant) {
        if self.lingers_until.is_none() {
            self.lingers_until = Some(now + LINGER);
            if self.socket.shutdown(Shutdown::Write).is_err() {
                self.broken = true;
            }
        }
    }
}
