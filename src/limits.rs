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

/// The client's first pause after a break, doubled at each further one.
pub const BACKOFF_MIN: Duration = Duration::from_millis(200);

/// The client's longest pause between two attempts.
pub const BACKOFF_MAX: Duration = Duration::from_secs(15);

/// The name of an action, or of one of its placeholders, in bytes.
pub const ACTION_NAME_BYTES_MAX: usize = 32;

/// Words of an action's command, its program among them: no command that is written by hand has
/// more.
pub const ACTION_WORDS_MAX: usize = 64;

/// One argument of an action, in bytes: a line has room for a few.
pub const ACTION_ARGUMENT_BYTES_MAX: usize = 1024;

/// What tells people what an action does, in bytes: a line of a listing.
pub const ACTION_DESCRIPTION_BYTES_MAX: usize = 256;

/// How long an action runs at most unless its `timeout` says otherwise.
pub const ACTION_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest `timeout` of an action: it also bounds how long a process that hid its origin can
/// outlive the action that left it behind.
pub const ACTION_TIMEOUT_MAX: Duration = Duration::from_secs(3600);

/// What an action puts out at most, both streams together, unless its `max-output` says otherwise.
pub const ACTION_OUTPUT_BYTES: u64 = 16 << 20;

/// How often one action runs at the same time unless its `max-running` says otherwise.
pub const ACTION_RUNNING: usize = 4;

/// Processes of all actions at the same time, also of those that are being ended: two pipes and a
/// handle each.
pub const ACTIONS_RUNNING_MAX: usize = 64;

/// From SIGTERM to SIGKILL for an action that is ended.
pub const ACTION_GRACE: Duration = Duration::from_secs(2);

/// Generations of strays that one sweep ends: whose parent is killed comes to the server in turn.
pub const SWEEP_ROUNDS_MAX: usize = 8;

/// How long one sweep waits for what it killed: it is the disk thread's time.
pub const SWEEP_WAIT_MAX: Duration = Duration::from_millis(50);

/// What is read of a process's environment to find its mark, in bytes. The mark is among the first
/// variables unless somebody moved it.
pub const ENVIRON_BYTES_MAX: u64 = 256 << 10;

const _: () = assert!(PENDING_INPUT_BYTES_MAX > LINE_BYTES_MAX + COMMAND_READ_BYTES);
const _: () = assert!(SHARED_CHUNK_BYTES <= CHUNK_BYTES);
const _: () = assert!(FRAME_BYTES_MAX as u64 == crate::digest::SEGMENT_BYTES);
const _: () = assert!(LISTING_BYTES_MAX + 3 * NAME_BYTES_MAX + 256 < PENDING_OUTPUT_BYTES_MAX);
