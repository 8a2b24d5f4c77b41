//! The bulk part of a turn: data in, data out, hashing, a chunk of each connection at a time.
//!
//! Several connections are gathered, each with a chunk in a buffer of the loop; their hash jobs
//! run together in the engine, so that many slow streams fill the lanes as well as one fast one;
//! then each chunk goes to its file or its line.

use std::{cell::Cell, time::Instant};

use super::{
    connection::{Cold, Connection, Moved},
    disk::{self, Disk, Held, Ticket},
};
use crate::{
    digest::{Buffer, Engine},
    limits::{CHUNK_BYTES, LOOP_BUFFERS, PENDING_INPUT_BYTES_MAX, SHARED_CHUNK_BYTES, STEP_BYTES},
    session::{
        ChunkJobs, LeafJob, Md5Job, Outgoing, Piece, Read, Settled, Violation, Wants, run_together,
    },
    store::{ReadNow, StoreError, fetched_bytes},
    wire::{Code, FRAME_HEADER_BYTES, Frame, FrameKind, Reply, frame_bytes},
};

/// Space between the buffers' starts beyond a power of two, so that lanes that run through them
/// in lockstep do not meet in the same cache sets.
const STAGGER_BYTES: usize = 65 * 64;

/// What may stand before the data of a step, behind less than a line: the digest of a segment, and two
/// headers.
const FRAMING_BYTES: usize = 16 + 2 * FRAME_HEADER_BYTES;
const _: () = assert!(FRAMING_BYTES + Buffer::LINE_BYTES < STAGGER_BYTES);

/// Pieces in one step beyond which a peer is read in small bites.
const PIECES_PER_STEP: usize = 128;
const RECEIVE_BYTES_MIN: usize = 4 << 10;

/// So many connections that read cold files are a crowd, each of which fetches little at once.
const COLD_CROWD: usize = 64;
const COLD_BYTES_MIN: usize = 64 << 10;

/// The buffers of the loop.
#[derive(Debug)]
pub(super) struct Buffers {
    bytes: Buffer,
}

const BUFFER_BYTES: usize = CHUNK_BYTES + PENDING_INPUT_BYTES_MAX + STAGGER_BYTES;

impl Buffers {
    pub(super) fn new() -> Self {
        Self { bytes: Buffer::new(LOOP_BUFFERS * BUFFER_BYTES) }
    }

    /// All of them, to be filled.
    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut [u8]> {
        self.bytes.chunks_exact_mut(BUFFER_BYTES)
    }
}

/// What a connection has in its buffer.
#[derive(Debug)]
pub(super) struct Load {
    work: Work,
    /// Where in the buffer.
    start: usize,
    leaves: Vec<LeafJob>,
    md5: Option<Md5Job>,
    /// Bytes read, for the budget.
    pub(super) bytes: usize,
}

#[derive(Debug)]
enum Work {
    /// Frames came in.
    Received(Received),
    /// Bytes to be sent.
    Send(Read),
    /// Bytes that were only hashed.
    Check,
    /// Bytes for the MD5 of a whole file.
    Hash,
}

/// Frames that came in.
#[derive(Debug)]
struct Received {
    pieces: Vec<Piece>,
    /// How many bytes they were, and of how many.
    taken: usize,
    have: usize,
    /// Whether the line had as much as there was room for.
    filled: bool,
    violation: Option<Violation>,
}

/// What the reactor shares with a bulk step.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) disk: &'a Disk,
    pub(super) now: Instant,
    /// How many connections have bulk work.
    pub(super) crowd: usize,
    /// The most that is taken of each, so that the step stays short.
    pub(super) chunk_bytes: usize,
    /// How many wait for bytes from the disk: these are in no queue.
    pub(super) cold: &'a Cell<usize>,
}

/// Reads a chunk for a connection. `None` if there is nothing to do for it now.
pub(super) fn gather(
    turn: Turn<'_>,
    connection: &mut Connection,
    buffer: &mut [u8],
) -> Option<Load> {
    match connection.session.wants() {
        Wants::Frames => return gather_frames(turn, connection, buffer),
        // See `ahead`.
        Wants::Ahead | Wants::Discard => return None,
        Wants::Lines | Wants::Nothing => {}
    }
    if connection.session.outgoing().is_some() {
        return gather_outgoing(turn, connection, buffer);
    }
    let (offset, left) = connection.session.hashing()?;
    let length = usize::try_from(left).unwrap_or(usize::MAX);
    let length = length.min(SHARED_CHUNK_BYTES).min(turn.chunk_bytes);
    let bytes = read_file(turn, connection, Read { offset, length }, buffer)?;
    let md5 = connection.session.md5_job(0..bytes);
    Some(Load { work: Work::Hash, start: 0, leaves: Vec::new(), md5, bytes })
}

/// The kept input and what the line has, and whether that is all that there is room for. `None` if it
/// is nothing.
fn receive(
    turn: Turn<'_>,
    connection: &mut Connection,
    buffer: &mut [u8],
) -> Option<(usize, bool)> {
    let kept = connection.input.len();
    buffer.get_mut(..kept)?.copy_from_slice(&connection.input);
    connection.consume_input(kept);
    let most = turn.chunk_bytes.min(connection.receive_bytes).min(connection.chunk_bytes);
    let next = connection.session.incoming()?.next_read_bytes(most);
    let mut room = next.min(most + FRAMING_BYTES).saturating_sub(kept);
    if connection.session.comes_ahead() {
        // What comes behind it has to be kept.
        room = room.min(PENDING_INPUT_BYTES_MAX - kept);
    }
    let have = kept + connection.receive(buffer.get_mut(kept..kept + room)?, turn.now);
    (have > 0).then_some((have, have == kept + room))
}

fn gather_frames(turn: Turn<'_>, connection: &mut Connection, buffer: &mut [u8]) -> Option<Load> {
    let start = connection.session.incoming()?.skew();
    let buffer = buffer.get_mut(start..)?;
    let (have, filled) = receive(turn, connection, buffer)?;
    let (mut pieces, mut leaves) = (Vec::new(), Vec::new());
    let incoming = connection.session.incoming()?;
    let input = buffer.get(..have).unwrap_or_default();
    let parsed = incoming.parse(input, &mut pieces, &mut leaves);
    let md5 = incoming.md5_job(&pieces);
    if pieces.len() > PIECES_PER_STEP {
        connection.receive_bytes = RECEIVE_BYTES_MIN;
    } else if filled {
        // Only to one that has shown that it sends large frames.
        connection.receive_bytes = connection.receive_bytes.saturating_mul(2).min(CHUNK_BYTES);
    }
    let (taken, violation) = match parsed {
        Ok(taken) => (taken, None),
        Err(violation) => (have, Some(violation)),
    };
    let work = Work::Received(Received { pieces, taken, have, filled, violation });
    Some(Load { work, start, leaves, md5, bytes: have })
}

fn gather_outgoing(turn: Turn<'_>, connection: &mut Connection, buffer: &mut [u8]) -> Option<Load> {
    // Digests that are due, or an abort, go before the next data frame.
    send_frames(connection, turn.now);
    let can_send = connection.may_move && connection.writable && connection.has_room();
    let outgoing = connection.session.outgoing()?;
    let send = outgoing.next_to_send().filter(|_| can_send);
    let check = outgoing.next_to_check();
    let checks = check.is_some() && (send.is_none() || !connection.checked_last);
    // The first new byte is not held back by the check of what the receiver has.
    let checks = checks && (send.is_none() || outgoing.sent_bytes() > 0);
    let mut leaves = Vec::new();
    if let Some(read) = check.filter(|_| checks) {
        let length = read.length.min(turn.chunk_bytes);
        let have = read_file(turn, connection, Read { length, ..read }, buffer)?;
        // Not before the bytes are there: what was fetched from the disk must still be wanted.
        connection.checked_last = true;
        let outgoing = connection.session.outgoing()?;
        outgoing.read_to_check(read, 0..have, &mut leaves);
        let md5 = outgoing.md5_job(read.offset, 0..have);
        return Some(Load { work: Work::Check, start: 0, leaves, md5, bytes: have });
    }
    let read = send?;
    let length = read.length.min(turn.chunk_bytes);
    let length = length.min(connection.send_bytes).min(connection.chunk_bytes);
    let have = read_file(turn, connection, Read { length, ..read }, buffer)?;
    connection.checked_last = false;
    let outgoing = connection.session.outgoing()?;
    outgoing.read_to_send(read, 0..have, &mut leaves);
    let md5 = outgoing.md5_job(read.offset, 0..have);
    let work = Work::Send(Read { length: have, ..read });
    Some(Load { work, start: 0, leaves, md5, bytes: have })
}

/// Reads from what the connection holds. `None` if it has to be fetched, or failed: then the
/// session knows.
fn read_file(
    turn: Turn<'_>,
    connection: &mut Connection,
    read: Read,
    buffer: &mut [u8],
) -> Option<usize> {
    let buffer = buffer.get_mut(..read.length)?;
    let now = match std::mem::take(&mut connection.cold) {
        Cold::Pending(read) => {
            connection.cold = Cold::Pending(read);
            return None;
        }
        Cold::Ready(offset, bytes) if offset == read.offset => {
            let length = bytes.len().min(buffer.len());
            buffer.get_mut(..length)?.copy_from_slice(bytes.get(..length)?);
            // What the line does not take now is wanted again.
            Ok(ReadNow::Bytes(length))
        }
        Cold::Ready(..) | Cold::No => match connection.held.as_ref()? {
            Held::Source(source) => source.read_now(read.offset, buffer),
            Held::Partial(partial) => partial.read_now(read.offset, buffer),
            Held::Action(_) => return None,
        },
    };
    match now {
        Ok(ReadNow::Bytes(0)) => {
            let reply = Reply::text(Code::Changed, "the file became shorter while it was read");
            connection.session.handle_source_failed(reply, turn.now);
            None
        }
        Ok(ReadNow::Bytes(bytes)) => {
            let crowd = turn.crowd + turn.cold.get();
            fetch_on(turn, connection, read.offset + bytes as u64, cold_bytes(bytes, crowd));
            Some(bytes)
        }
        Ok(ReadNow::Cold) => {
            let held = connection.held.as_ref()?;
            connection.reads += 1;
            let length = cold_bytes(read.length, turn.crowd + turn.cold.get());
            turn.cold.set(turn.cold.get() + 1);
            let ticket = Ticket::Read(connection.token, connection.reads);
            disk::read(turn.disk, ticket, held, read.offset, length);
            connection.fetched_to = read.offset + fetched_bytes(length);
            connection.cold = Cold::Pending(connection.reads);
            None
        }
        Err(error) => {
            source_failed(connection, &error, turn.now);
            None
        }
    }
}

/// A stream from the disk that comes near the end of what was fetched: the disk goes on meanwhile.
fn fetch_on(turn: Turn<'_>, connection: &mut Connection, position: u64, length: usize) {
    let (from, bytes) = (connection.fetched_to, fetched_bytes(length));
    if (position..=position + bytes / 2).contains(&from)
        && let Some(held) = connection.held.as_ref()
    {
        disk::fetch_ahead(turn.disk, held, from, bytes);
        connection.fetched_to = from + bytes;
    }
}

/// How much to fetch from the disk at once: it waits in memory of its own, and others wait for it. So
/// little for each in a crowd.
fn cold_bytes(wanted: usize, crowd: usize) -> usize {
    let most =
        if crowd > COLD_CROWD { COLD_BYTES_MIN } else { STEP_BYTES / crowd.clamp(1, LOOP_BUFFERS) };
    wanted.min(most)
}

/// A read failed: there is no digest, and the peer is told.
pub(super) fn source_failed(connection: &mut Connection, error: &StoreError, now: Instant) {
    log::error!("{}: {error}", connection.peer);
    connection.session.handle_source_failed(disk::error_reply(error), now);
}

/// Runs the jobs of all loads together.
pub(super) fn hash<'a>(
    engine: &Engine,
    loads: impl Iterator<Item = (&'a mut Option<Load>, &'a [u8])>,
) {
    let chunks = loads.filter_map(|(load, chunk)| {
        let Load { start, leaves, md5, .. } = load.as_mut()?;
        Some(ChunkJobs { leaves, md5: md5.as_mut(), chunk: chunk.get(*start..)? })
    });
    run_together(engine, &mut chunks.collect::<Vec<_>>());
}

/// Takes a hashed chunk to its file or its line.
pub(super) fn apply(connection: &mut Connection, load: Load, buffer: &[u8], now: Instant) -> Moved {
    let Load { work, start, leaves, md5, bytes } = load;
    let buffer = buffer.get(start..).unwrap_or_default();
    match work {
        Work::Received(Received { pieces, taken, have, filled, violation }) => {
            let written = apply_received(connection, pieces, leaves, md5, buffer, now);
            if let Some(violation) = violation.filter(|_| written) {
                connection.session.handle_settled(Err(violation), now);
            } else {
                connection.session.handle_chunk(now);
                keep_rest(connection, buffer.get(taken..have).unwrap_or_default(), now);
            }
            // Also what was kept behind a line: it is counted as it is taken for frames.
            return Moved { bytes: taken, freely: filled };
        }
        Work::Hash => {
            let is_last = connection.session.hashing().is_none_or(|(_, left)| left <= bytes as u64);
            if is_last
                && let Some(Held::Source(source)) = &connection.held
                && !source.is_unchanged()
            {
                // What was read before and after is no version of it.
                let reply = Reply::text(Code::Changed, "the file changed while it was read");
                connection.session.handle_source_failed(reply, now);
            } else if let Some(md5) = md5 {
                connection.session.handle_hashed(md5, now);
            }
        }
        Work::Send(read) => {
            let bytes = buffer.get(..read.length).unwrap_or_default();
            let taken = apply_send(connection, leaves, md5, bytes, now);
            send_frames(connection, now);
            return Moved { bytes: taken, freely: taken == bytes.len() };
        }
        Work::Check => {
            if let Some(outgoing) = connection.session.outgoing() {
                hashed(outgoing, leaves, md5);
            }
            connection.session.handle_moved(now);
            send_frames(connection, now);
        }
    }
    Moved::default()
}

/// Keeps what came behind a stream: commands that were pipelined.
fn keep_rest(connection: &mut Connection, rest: &[u8], now: Instant) {
    if !rest.is_empty() && !connection.keep_input(rest) {
        let reply = Reply::text(Code::LineTooLong, "too much behind the stream");
        connection.session.end(reply, now);
    }
}

/// Writes and settles what was received. `false` if the partial could not be written.
fn apply_received(
    connection: &mut Connection,
    pieces: Vec<Piece>,
    leaves: Vec<LeafJob>,
    md5: Option<Md5Job>,
    buffer: &[u8],
    now: Instant,
) -> bool {
    // Written before it is told: a leaf that could not be written is never marked.
    for piece in &pieces {
        let Piece::Data { offset, range } = piece else {
            continue;
        };
        let bytes = buffer.get(range.clone()).unwrap_or_default();
        let Some(Held::Partial(partial)) = &connection.held else {
            return false;
        };
        if let Err(error) = partial.write(*offset, bytes) {
            log::error!("{}: {error}", connection.peer);
            connection.session.handle_write_failed(disk::error_reply(&error), now);
            return false;
        }
    }
    if let Some(incoming) = connection.session.incoming() {
        incoming.hashed(leaves.into_iter());
        if let Some(md5) = md5 {
            incoming.md5_followed(md5);
        }
    }
    for piece in pieces {
        let Some(incoming) = connection.session.incoming() else {
            break;
        };
        match piece {
            Piece::Data { offset, range } => {
                incoming.wrote(offset, buffer.get(range).unwrap_or_default());
            }
            Piece::Frame(frame) => {
                let settled = incoming.settle(frame);
                if let Ok(Settled::Bad { segment }) = settled {
                    log::debug!("{}: segment {segment} differs", connection.peer);
                }
                connection.session.handle_settled(settled, now);
            }
        }
    }
    true
}

fn hashed(outgoing: &mut Outgoing, leaves: Vec<LeafJob>, md5: Option<Md5Job>) {
    outgoing.hashed(leaves.into_iter());
    if let Some(md5) = md5 {
        outgoing.md5_followed(md5);
    }
}

/// Sends bytes; returns how many of them the line took.
fn apply_send(
    connection: &mut Connection,
    leaves: Vec<LeafJob>,
    md5: Option<Md5Job>,
    bytes: &[u8],
    now: Instant,
) -> usize {
    let Some(outgoing) = connection.session.outgoing() else {
        return 0;
    };
    hashed(outgoing, leaves, md5);
    if let Some(header) = outgoing.data_header(bytes.len()) {
        debug_assert_eq!(header.kind, FrameKind::Data);
        connection.push_bytes(&header.to_bytes());
    }
    let taken = connection.write_payload(bytes, now);
    if let Some(outgoing) = connection.session.outgoing() {
        outgoing.sent(taken);
    }
    connection.session.handle_moved(now);
    taken
}

/// Sends digests that are due, the end, or an abort.
pub(super) fn send_frames(connection: &mut Connection, now: Instant) {
    while connection.has_room() {
        if let Some(reply) = connection.session.poll_abort(now) {
            connection.push_bytes(&frame_bytes(&Frame::Abort(reply)));
            break;
        }
        let Some(frame) = connection.session.outgoing().and_then(|out| out.next_frame()) else {
            break;
        };
        if matches!(frame, Frame::End { .. }) {
            let unchanged = match &connection.held {
                Some(Held::Source(source)) => source.is_unchanged(),
                Some(Held::Partial(_) | Held::Action(_)) | None => false,
            };
            if !unchanged {
                let reply = Reply::text(Code::Changed, "the file changed while it was sent");
                connection.session.handle_source_failed(reply, now);
                continue;
            }
            connection.push_bytes(&frame_bytes(&frame));
            connection.session.handle_sent(now);
            break;
        }
        connection.push_bytes(&frame_bytes(&frame));
    }
    // Digests that were known take no time, but a slow line may take long for them.
    connection.session.handle_moved(now);
}

/// Whether a connection has bulk work that can go on now, if it may move bytes or may not. What is
/// only hashed goes on in either case.
pub(super) fn has_work(connection: &mut Connection, may_move: bool) -> bool {
    if connection.broken || connection.session.is_closed() {
        return false;
    }
    match connection.session.wants() {
        Wants::Frames | Wants::Ahead | Wants::Discard => {
            let has_input = connection.readable && !connection.input_ended;
            return may_move && (has_input || !connection.input.is_empty());
        }
        Wants::Lines | Wants::Nothing => {}
    }
    if matches!(connection.cold, Cold::Pending(_)) {
        return false;
    }
    let can_send = may_move && connection.writable && connection.has_room();
    match connection.session.outgoing() {
        Some(outgoing) => can_send || outgoing.next_to_check().is_some(),
        None => connection.session.hashing().is_some(),
    }
}

#[cfg(test)]
#[path = "bulk_tests.rs"]
mod tests;
