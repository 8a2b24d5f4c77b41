//! The bounds that a peer can drive things to, in one place, with the unit last in its name and the reason beside
//! it. A limit is checked before memory is taken for what it bounds.

use std::time::Duration;

/// A path in bytes, decoded: Linux's own `PATH_MAX`.
pub const PATH_BYTES_MAX: usize = 4096;

/// One name in a path, in bytes: `NAME_MAX` of every common file system.
pub const NAME_BYTES_MAX: usize = 255;

/// A control line in bytes, without its line end: `mv` with two paths of which every byte is
/// percent-encoded, and room for the verb and some fields.
pub const LINE_BYTES_MAX: usize = 2 * 3 * PATH_BYTES_MAX + 1024;

/// Words in one line: the longest command has seven.
pub const LINE_TOKENS_MAX: usize = 16;

/// A tag or another opaque token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 64;

/// Payload of one data frame: a segment, since a frame never crosses a segment boundary.
pub const FRAME_BYTES_MAX: u32 = 4 << 20;

/// Payload of an abort frame: one reply line with a short text.
pub const ABORT_BYTES_MAX: u32 = 1024;

/// A message of a login, in bytes: a name, two nonces and a proof take 200.
pub const LOGIN_DATA_BYTES_MAX: usize = 1024;

/// What a client that registers sends in place of a password, or an invite, in bytes.
pub const VERIFIER_BYTES_MAX: usize = 256;

/// Payload of one frame of an action's output: what a pipe brings in one read.
pub const OUTPUT_FRAME_BYTES_MAX: u32 = 16 << 10;

/// Size of a file, in bytes: what fits an `off_t`, so that no offset ever overflows.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// Runs of segments in one `want=` or `bad=`. More are left for the next round.
pub const RUNS_MAX: usize = 512;

/// Rounds of sending again in which no further segment came out right. A line that spoils every
/// segment is given up, one that spoils many is not.
pub const ROUNDS_WITHOUT_PROGRESS_MAX: u32 = 5;

/// Bytes read from a socket or a file in one step: sixteen leaves, which fill the lanes.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Bytes read from a socket in one step while lines are expected.
pub const COMMAND_READ_BYTES: usize = 32 << 10;

/// Input that a connection may keep between two turns: one line that is not complete yet, or the
/// commands that were pipelined behind one that is being worked on.
pub const PENDING_INPUT_BYTES_MAX: usize = 64 << 10;

/// Output that a connection may have waiting: beyond it, its input is not read any further.
pub const PENDING_OUTPUT_BYTES_MAX: usize = 32 << 10;

/// Bytes moved or hashed for all connections before the loop polls again.
pub const TURN_BYTES_MAX: usize = 8 << 20;

/// Bulk work before the loop polls again.
pub const TURN_TIME_MAX: Duration = Duration::from_millis(2);

/// Bytes read in one step when several connections have bulk work: four leaves.
pub const SHARED_CHUNK_BYTES: usize = 256 << 10;

/// Buffers of [`CHUNK_BYTES`] that the loop owns: so many connections are hashed together, 32
/// leaves of them when they share the turn. What was not touched yet takes no memory.
pub const LOOP_BUFFERS: usize = 8;

/// Connections accepted in one turn, so that a burst of them holds up nobody's transfer.
pub const ACCEPTS_PER_TURN_MAX: usize = 64;

/// Connections at one time. Beyond it a new one is told so and closed.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Connections at one time from one address, unless the operator says otherwise.
pub const ADDRESS_CONNECTIONS_MAX: usize = 1024;

/// Connections at one time of one user, unless the operator says otherwise.
pub const USER_CONNECTIONS_MAX: usize = 256;

/// How often a server looks whether the user file has changed, besides at each login.
pub const USERS_INTERVAL: Duration = Duration::from_secs(5);

/// How long the loop waits before it tries again to accept after it ran out of descriptors.
pub const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Entries in one page of a listing.
pub const LISTING_ENTRIES_MAX: usize = 128;

/// Bytes of one page of a listing: half of what a write buffer holds.
pub const LISTING_BYTES_MAX: usize = 16 << 10;

/// Data received between two checkpoints of a partial.
pub const CHECKPOINT_BYTES: u64 = 8 << 20;

/// Time between two checkpoints of a partial that grows.
pub const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// A journal, in bytes: that of a file of 20 TiB. A longer one is not read.
pub const JOURNAL_BYTES_MAX: u64 = 256 << 20;

/// A connection that says nothing between two commands.
pub const IDLE_DEADLINE: Duration = Duration::from_secs(600);

/// From the greeting to the login, with all that is tried on the way.
pub const LOGIN_DEADLINE: Duration = Duration::from_secs(60);

/// What somebody may try on one connection before it is closed: wrong proofs, and commands that
/// need a login. The answers to them fit in 1 KiB.
pub const LOGIN_TRIES_MAX: u32 = 5;

/// A peer that owes an answer: the offset of a transfer, or the verdict at its end.
pub const ANSWER_DEADLINE: Duration = Duration::from_secs(120);

/// A stream in which no further leaf of 64 KiB came through. A byte now and then buys no time.
pub const STALL_DEADLINE: Duration = Duration::from_secs(60);

/// A holder of a partial that was silent so long may be replaced by another client.
pub const HOLDER_SILENT: Duration = Duration::from_secs(15);

/// How often a client is told that long work goes on, so that it does not take the line for dead.
pub const WORKING_INTERVAL: Duration = Duration::from_secs(5);

/// From a signal to the exit: checkpoints and goodbyes have to fit.
pub const SHUTDOWN_DEADLINE: Duration = Duration::from_millis(800);

/// How long partials are kept by default after the last byte came in.
pub const KEEP_PARTIALS: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often the server looks for partials that have expired.
pub const EXPIRE_INTERVAL: Duration = Duration::from_secs(3600);

/// How long a client keeps a connection for its next command: less than any box on the way
/// forgets it in.
pub const KEPT_LINE_MAX: Duration = Duration::from_secs(60);

/// The client's first pause after a break, doubled at each further one.
pub const BACKOFF_MIN: Duration = Duration::from_millis(200);

/// The client's longest pause between two attempts.
pub const BACKOFF_MAX: Duration = Duration::from_secs(15);

const _: () = assert!(PENDING_INPUT_BYTES_MAX > LINE_BYTES_MAX + COMMAND_READ_BYTES);
const _: () = assert!(SHARED_CHUNK_BYTES <= CHUNK_BYTES);
const _: () = assert!(FRAME_BYTES_MAX as u64 == crate::digest::SEGMENT_BYTES);
const _: () = assert!(LISTING_BYTES_MAX + 3 * NAME_BYTES_MAX + 256 < PENDING_OUTPUT_BYTES_MAX);
