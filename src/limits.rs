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

/// What a client that registers sends in place of a password, or an invite, in bytes.
pub const VERIFIER_BYTES_MAX: usize = 256;

/// Output of an action that is moved before others have their turn.
pub const OUTPUT_PER_TURN_MAX: usize = 256 << 10;

/// How long to wait before looking again for processes that an action has left behind.
pub const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Payload of one frame of an action's output: what a pipe brings in one read.
pub const OUTPUT_FRAME_BYTES_MAX: u32 = 16 << 10;

/// Size of a file, in bytes: what fits an `off_t`, so that no offset ever overflows.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// Runs of segments in one `want=` or `bad=`. More are left for the next round.
pub const RUNS_MAX: usize = 512;

/// Rounds of sending again in which no further segment came out right. A line that spoils every
/// segment is given up, one that spoils many is not.
pub const ROUNDS_WITHOUT_PROGRESS_MAX: u32 = 5;

/// Bytes read from a socket or a file in one step: 32 leaves, which fill the lanes.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Bytes read from a socket in one step while lines are expected.
pub const COMMAND_READ_BYTES: usize = 32 << 10;

/// Output that is gathered before it is handed to the line, where more is coming, and the most of a
/// file that is copied for that.
pub const GATHERED_BYTES: usize = 16 << 10;

/// Files that are opened at once because a connection has asked for them ahead.
pub const SOURCES_AHEAD_MAX: usize = 32;

/// The same for all connections together.
pub const SOURCES_AHEAD_SERVER_MAX: usize = 1024;

/// Input that a connection may keep between two turns: one line that is not complete yet, or the
/// commands that were pipelined behind one that is being worked on.
pub const PENDING_INPUT_BYTES_MAX: usize = 64 << 10;

/// Output that a connection may have waiting: beyond it, its input is not read any further.
pub const PENDING_OUTPUT_BYTES_MAX: usize = 32 << 10;

/// Bytes moved or hashed for all connections before the loop polls again.
pub const TURN_BYTES_MAX: usize = 8 << 20;

/// Bulk work before the loop polls again. No step is begun that would take longer if it took as long
/// as the last one.
pub const TURN_TIME_MAX: Duration = Duration::from_millis(1);

/// Bytes moved in one step for all connections in it, a small command waits for it: 32 leaves,
/// which fill the lanes, and fit the cache of a core.
pub const STEP_BYTES: usize = 1 << 20;

/// Bytes that each connection may move in a round, before others that wait have moved as many: a
/// step, so that one that can fill it by itself is not visited more often than it has to be.
pub const ROUND_BYTES: usize = STEP_BYTES;

/// What a visit counts as in a round at least: so many times does one with small files come before
/// the others. An eighth.
pub const VISIT_BYTES_MIN: usize = ROUND_BYTES / LOOP_BUFFERS;

/// So many who had no turn in a round yet come before others in it, besides as many as these are.
pub const NEWCOMERS_MIN: usize = 8;

/// Threads that wait for the syncs of many files at the same time.
pub const SYNCERS_MAX: usize = 4;

/// So many files are synced with all of their file system, instead of one by one.
pub const SYNCED_AT_ONCE_MIN: usize = 8;

/// Unless more bytes than that wait to be written on the machine: they would be written first, by a disk
/// that is slow to seek in seconds.
pub const DIRTY_BYTES_MAX: u64 = 8 << 20;

/// So many files to be synced are worth a thread.
pub const FILES_PER_SYNCER_MIN: usize = 8;

/// Bytes hashed in one step for the MD5 of a whole file, which takes one lane: eight leaves.
pub const SHARED_CHUNK_BYTES: usize = 256 << 10;

/// How much is fetched from a disk with each cold read, as a multiple of what was asked for: the disk
/// works on while the line is fed. 2 MiB for each of a crowd, which the page cache can drop.
pub const FETCH_AHEAD: u64 = 32;

/// The most that is fetched from a disk with one cold read, in bytes.
pub const FETCH_BYTES_MAX: u64 = 16 << 20;

/// Bytes that the system is asked to fetch at once: it cuts a longer request, on most devices beyond
/// this.
pub const FETCH_STEP_BYTES: usize = 512 << 10;

/// Buffers of [`CHUNK_BYTES`] that the loop owns: so many connections are hashed together. What was
/// not touched yet takes no memory.
pub const LOOP_BUFFERS: usize = 8;

/// Connections accepted in one turn, so that a burst of them holds up nobody's transfer.
pub const ACCEPTS_PER_TURN_MAX: usize = 64;

/// Connections at one time. Beyond it a new one is told so and closed.
pub const CONNECTIONS_MAX: usize = 16_384;

/// Connections at one time from one address, unless the operator says otherwise.
pub const ADDRESS_CONNECTIONS_MAX: usize = 1024;

/// Connections at one time of one user, unless the operator says otherwise.
pub const USER_CONNECTIONS_MAX: usize = 256;

/// For how long it is believed what a home with a quota holds, once nobody is in it: others than
/// the server may change it as well.
pub const MEASURE_INTERVAL: Duration = Duration::from_secs(3600);

/// How often a login that waits until another has measured its home looks whether that is done.
pub const PARKED_INTERVAL: Duration = Duration::from_millis(100);

/// Input that a connection may keep before its login: a registration takes 400 bytes, and a client
/// need not wait with its first commands.
pub const NOBODY_INPUT_BYTES_MAX: usize = 8 << 10;

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

/// Bytes that all uploads together may be ahead of the disk, beside what is being synced. Where more
/// is written than a disk takes, the system makes the writer wait, and that is the loop: with some
/// 15 % of the memory dirty, for up to 200 ms each time.
pub const UNSYNCED_BYTES_MAX: u64 = 512 << 20;

/// See [`UNSYNCED_BYTES_MAX`], for one upload. So much is to be synced at its end.
pub const UNSYNCED_UPLOAD_BYTES_MAX: u64 = 64 << 20;

/// What each upload may be ahead of the disk, however many there are: less would make a sync of it
/// that costs more than its bytes.
pub const UNSYNCED_UPLOAD_BYTES_MIN: u64 = 1 << 20;

/// Room that is made on the disk for an upload ahead of it, as a multiple of what came since its last
/// checkpoint.
pub const ROOM_AHEAD: u64 = 8;

/// The most of it, in bytes: what comes while a checkpoint runs. So much keeps an upload that was cut if
/// the server was killed.
pub const ROOM_BYTES_MAX: u64 = 64 << 20;

/// So much of it at once, in bytes: while it is made, nobody can write to the file.
pub const ROOM_PIECE_BYTES: u64 = 8 << 20;

/// Less of it, in bytes, is not worth a call.
pub const ROOM_BYTES_MIN: u64 = 4 << 20;

/// An upload that is too far ahead of the disk is read no faster than [`HELD_BACK_CHUNK_BYTES`] in this time: its line
/// stays alive, and no end takes it for stalled.
pub const HELD_BACK_INTERVAL: Duration = Duration::from_secs(5);

/// See [`HELD_BACK_INTERVAL`].
pub const HELD_BACK_CHUNK_BYTES: usize = 64 << 10;

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

/// A stream in which no further [`STALL_BYTES`] came through. A byte now and then buys no time.
pub const STALL_DEADLINE: Duration = Duration::from_secs(60);

/// What buys a stream its time.
pub const STALL_BYTES: u64 = 64 << 10;

/// A holder of a partial that was silent so long may be replaced by another client.
pub const HOLDER_SILENT: Duration = Duration::from_secs(15);

/// How often a client is told that long work goes on, so that it does not take the line for dead.
pub const WORKING_INTERVAL: Duration = Duration::from_secs(5);

/// Lines of the log that wait to be written, in bytes: some thousands. Peers cause them, and whoever
/// reads the log may not do so.
pub const LOG_BYTES_MAX: usize = 1 << 20;

/// How long the end waits for somebody to read the log.
pub const LOG_DEADLINE: Duration = Duration::from_millis(300);

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

/// A user's name, in bytes: as long as a Unix system lets its users' names be.
pub const USER_NAME_BYTES_MAX: usize = 32;

/// A password, in bytes: longer than anybody types, short enough that hashing it costs nothing.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// A password that is chosen anew, in characters: what NIST SP 800-63B asks for at least.
pub const NEW_PASSWORD_CHARS_MIN: usize = 8;

/// One message of a login, in bytes: two nonces, a salt, a proof and a name fit three times over.
pub const LOGIN_MESSAGE_BYTES_MAX: usize = 512;

/// A client's nonce in SCRAM, in bytes: that of `tow` has 24.
pub const SCRAM_NONCE_BYTES_MAX: usize = 64;

/// A salt, in bytes, at least: fewer would repeat among many users.
pub const SALT_BYTES_MIN: usize = 8;

/// A salt, in bytes, at most: the block of SHA-256.
pub const SALT_BYTES_MAX: usize = 64;

/// Iterations of PBKDF2 at least: what RFC 7677 asks for. A server that asks for fewer wants the
/// password.
pub const SCRAM_ITERATIONS_MIN: u32 = 4096;

/// Iterations of PBKDF2 for a new password. The client pays for them, a tenth of a second once per
/// process; the server never does, whatever is sent to it.
pub const SCRAM_ITERATIONS: u32 = 200_000;

/// Iterations of PBKDF2 at most: some seconds. A server that asks for more wants the client busy.
pub const SCRAM_ITERATIONS_MAX: u32 = 10_000_000;

/// Failed logins from one address before it has to wait: everybody mistypes.
pub const ADDRESS_FAILURES_FREE: u32 = 5;

/// Failed logins for one name, from wherever, before they have to wait.
pub const NAME_FAILURES_FREE: u32 = 20;

/// The first wait before a login is looked at, doubled with each further failure.
pub const BRAKE_MIN: Duration = Duration::from_millis(250);

/// The longest wait for an address: far below the deadline of a login.
pub const ADDRESS_BRAKE_MAX: Duration = Duration::from_secs(8);

/// The longest wait for a name. It is others that make its user wait, so it must not hurt.
pub const NAME_BRAKE_MAX: Duration = Duration::from_secs(2);

/// After so long, half of the failures are forgotten.
pub const BRAKE_HALF_LIFE: Duration = Duration::from_secs(60);

/// Who has logged in from an address is known there for so long.
pub const FRIEND_TIME: Duration = Duration::from_secs(24 * 3600);

/// Failures of one who is known at an address, before he is no longer.
pub const FRIEND_FAILURES_MAX: u32 = 5;

/// Logins from one address at a time: a client with many connections, or a small office.
pub const ATTEMPTS_PENDING_MAX: usize = 64;

/// Logins at a time from an address that has to wait: with 8 s each, one guess per second.
pub const ATTEMPTS_PENDING_BRAKED_MAX: usize = 8;

/// Addresses, names and pairs of them that are remembered, each.
pub const BRAKE_ENTRIES_MAX: usize = 4096;

/// Accounts that may be registered from one address within [`REGISTRATION_WINDOW`].
pub const REGISTRATIONS_MAX: usize = 5;

/// See [`REGISTRATIONS_MAX`].
pub const REGISTRATION_WINDOW: Duration = Duration::from_secs(3600);

/// The code of an invite, in bytes: those that are made have 20.
pub const INVITE_BYTES_MAX: usize = 64;

/// A user file, in bytes: some 50,000 users.
pub const USER_FILE_BYTES_MAX: usize = 16 << 20;

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

/// A configuration file, in bytes: a thousand actions. Whatever is longer is another file.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// Addresses that are listened on: each takes a token of the loop.
pub const LISTEN_ADDRESSES_MAX: usize = 64;

/// What is said to everybody who logs in, in bytes: a line or two of a terminal.
pub const BANNER_BYTES_MAX: usize = 256;

/// Digests of files that a server keeps in memory, in bytes: those of 1 TiB in large files.
pub const DIGESTS_BYTES_MAX: usize = 4 << 20;

/// The smallest file whose digests are also kept on the disk, in bytes: what is hashed in less
/// than a millisecond.
pub const DIGESTS_FILE_SIZE_MIN: u64 = 1 << 20;

/// One file of digests, in bytes: that of a file of 1 TiB. Larger ones are hashed each time.
pub const DIGESTS_FILE_BYTES_MAX: u64 = (4 << 20) + 1024;

/// Files of digests beside a root: listing them takes the disk thread some milliseconds.
pub const DIGESTS_FILES_MAX: usize = 4096;

/// Files of digests beside a root, in bytes: those of 4 TiB.
pub const DIGESTS_FOLDER_BYTES_MAX: u64 = 16 << 20;

/// Folders within one another that a client goes into, on either side: whoever has more of them has
/// a loop.
pub const TREE_DEPTH_MAX: usize = 256;

/// Names that a client has in memory while it walks a tree, to sort them: some 20 MiB of long ones.
pub const TREE_NAMES_MAX: usize = 65_536;

/// A file of a tree that goes over the line whole, and together with others. One that is cut begins
/// anew: it is less than what one pause costs.
pub const SMALL_FILE_BYTES: u64 = 256 << 10;

/// Downloads of small files that a client asks for ahead.
pub const GETS_AHEAD_MAX: usize = 128;

/// Uploads of small files that a client sends ahead: twice what a server stores together, and more,
/// so that it need not wait for the next.
pub const PUTS_AHEAD_MAX: usize = 4 * HELD_FILES_MAX;

/// Bytes of files that a client sends ahead of their answers: what comes again after a break.
pub const PUT_BYTES_AHEAD_MAX: usize = 4 * HELD_BYTES_MAX;

/// The same on a line that has brought nothing yet.
pub const PUT_BYTES_AHEAD_MIN: usize = 16 << 10;

/// Bytes that a client has ready to be sent while it reads the next files.
pub const PUT_BYTES_READY: usize = 256 << 10;

/// Bytes of lines that a client sends ahead: half of what a server keeps behind a stream.
pub const AHEAD_BYTES_MAX: usize = PENDING_INPUT_BYTES_MAX / 2;

/// A file whose bytes a server holds in memory until it is verified. Larger ones get a partial.
pub const HELD_FILE_BYTES_MAX: usize = 64 << 10;

/// Files of one connection that a server holds to make them durable together. It has as many of them
/// open at once.
pub const HELD_FILES_MAX: usize = 128;

/// Memory that they take: that of seven of the largest, or of all if they have 3 KiB.
pub const HELD_BYTES_MAX: usize = 512 << 10;

/// What a held file takes besides its bytes and its path, twice.
pub const HELD_OVERHEAD_BYTES: usize = 512;

/// Memory that a server holds so for all connections together. Beyond it, files get partials.
pub const HELD_BYTES_SERVER_MAX: usize = 8 << 20;

/// Bytes of such files that are taken from one connection before the others have their turn.
pub const HELD_BYTES_PER_TURN: usize = 256 << 10;

/// Small files that a client makes durable together.
pub const GROUP_FILES_MAX: usize = 128;

/// Bytes of small files that a client makes durable together.
pub const GROUP_BYTES_MAX: usize = 2 << 20;

/// For how long small files wait for others to be made durable with.
pub const GROUP_INTERVAL: Duration = Duration::from_secs(1);

/// How often one file of a tree is tried before it is passed over, where the line itself is whole.
pub const FILE_TRIES_MAX: u32 = 3;

/// How long a client waits for another one to end that is writing the same file: until one that is
/// dead may be replaced.
pub const BUSY_PATIENCE: Duration = HOLDER_SILENT.saturating_add(Duration::from_secs(5));

/// How often it looks whether it has.
pub const BUSY_PAUSE: Duration = Duration::from_millis(500);

/// Connections that a client opens at most for one command.
pub const JOBS_MAX: usize = 32;

/// The lowest rate that anybody can be limited to, in bytes per second: [`STALL_BYTES`] in 16 s, before either
/// end takes the stream for stalled.
pub const RATE_BYTES_MIN: u64 = 4 << 10;

/// Processes that share the ports of one server: each has a disk thread and the buffers of a loop, and
/// what one counts is told to all others.
pub const WORKERS_MAX: usize = 64;

/// What a worker may still have to tell one of its siblings that does not listen for now, in
/// messages of some 100 bytes, beside what it takes to tell how all stands. Beyond it, all is
/// forgotten, and told anew as it is then.
pub const SIBLING_BACKLOG_MAX: usize = 8192;

/// A message between workers, in bytes: a name of a login, and what belongs to it.
pub const SIBLING_MESSAGE_BYTES_MAX: usize = LOGIN_MESSAGE_BYTES_MAX + 128;

/// Messages of siblings that are taken in one turn.
pub const SIBLING_MESSAGES_PER_TURN_MAX: usize = 1024;

/// How often siblings tell one another what was moved at a limited rate, and try again to tell what
/// one of them did not take.
pub const SIBLING_INTERVAL: Duration = Duration::from_millis(5);

/// How long a worker that is started waits to be told by its siblings how things stand, before it
/// accepts anybody.
pub const SIBLING_WELCOME: Duration = Duration::from_millis(500);

/// How often a worker asks for a partial that a sibling has, each time after a pause twice as long.
pub const TAKEOVER_ROUNDS_MAX: u32 = 6;

/// The first of these pauses.
pub const TAKEOVER_PAUSE: Duration = Duration::from_millis(10);

/// How long a worker waits for the answers of one round: they come behind what the siblings' disk
/// threads have to do. One that died does not answer.
pub const TAKEOVER_WAIT: Duration = Duration::from_secs(2);

/// A worker that lived so long was no failure of the start.
pub const WORKER_STEADY: Duration = Duration::from_secs(10);

/// How often in a row a worker may end before it has lived for [`WORKER_STEADY`].
pub const WORKER_FAILURES_MAX: u32 = 5;

/// The first pause before a worker is started that failed more than once in a row, doubled each time.
pub const WORKER_BACKOFF: Duration = Duration::from_millis(100);

/// When a worker is tried again that could not be started, for want of descriptors or memory.
pub const WORKER_RETRY: Duration = Duration::from_secs(1);

/// How long workers may take to go down before they are killed: their own deadline, and some more.
pub const WORKERS_DEADLINE: Duration = Duration::from_millis(1200);

const _: () = assert!(PENDING_INPUT_BYTES_MAX > LINE_BYTES_MAX + COMMAND_READ_BYTES);
const _: () = assert!(SHARED_CHUNK_BYTES <= CHUNK_BYTES && STEP_BYTES <= CHUNK_BYTES);
const _: () = assert!(FRAME_BYTES_MAX as u64 == crate::digest::SEGMENT_BYTES);
const _: () = assert!(LISTING_BYTES_MAX + 3 * NAME_BYTES_MAX + 256 < PENDING_OUTPUT_BYTES_MAX);
const _: () = assert!(AHEAD_BYTES_MAX > LINE_BYTES_MAX);
const _: () = assert!(HELD_FILE_BYTES_MAX < HELD_BYTES_MAX);
const _: () = assert!(HELD_BACK_CHUNK_BYTES as u64 == STALL_BYTES);
const _: () = assert!(STALL_BYTES.is_multiple_of(crate::digest::LEAF_BYTES));
