//! What the integration tests share: a place for files, `towd` and `tow` as processes, files with
//! known contents, a client that speaks raw lines, and the [`proxy`] that breaks lines on purpose.
//!
//! Whatever a helper starts ends with the helper's value. A helper that cannot do its job fails
//! the test there and then, with the server's own words where there are any.

#![allow(dead_code, reason = "each test binary uses a different part of this module")]
#![allow(unreachable_pub, reason = "a test binary exports nothing; here `pub` marks the interface")]
#![allow(clippy::panic, reason = "a helper that cannot do its job must fail the test")]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, Read, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use md5::{Digest, Md5};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tempfile::TempDir;

pub mod bell;
pub mod canary;
mod fake;
pub mod folders;
pub mod frames;
pub mod people;
pub mod proxy;
pub mod pty;
mod raw;
pub mod storm;
pub mod tcp;
mod towd;
mod upload;
pub mod watch;

#[allow(unused_imports, reason = "each test binary uses a different part")]
pub use self::{fake::Fake, raw::Raw, towd::Towd, upload::Upload};

/// How long anything may take that is expected at once. Long, for a loaded machine: reaching it
/// is a failure, never a pace.
pub const PATIENCE: Duration = Duration::from_secs(30);

const PIECE_BYTES: usize = 1 << 20;

/// A folder of its own for one test, gone with the value.
///
/// It lies below the build directory, not in `/tmp`: that is memory on many machines, and the
/// tests move gigabytes and sync them.
#[derive(Debug)]
pub struct TestDir(TempDir);

impl TestDir {
    pub fn new() -> Self {
        let parent = env!("CARGO_TARGET_TMPDIR");
        fs::create_dir_all(parent).expect("the build directory takes files");
        let dir = tempfile::Builder::new().prefix("towpath-").tempdir_in(parent);
        Self(dir.expect("a folder for the test"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path().join(name)
    }
}

/// The client, ready to run; `assert_cmd::assert::OutputAssertExt` gives it `.assert()`.
pub fn tow(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tow"));
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// How a program ended, and what it said.
#[derive(Debug)]
pub struct Ran {
    /// `None` after a signal.
    pub code: Option<i32>,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Ran {
    pub fn of(output: Output) -> Self {
        let Output { status, stdout, stderr } = output;
        Self { code: status.code(), stdout, stderr: String::from_utf8_lossy(&stderr).into_owned() }
    }

    /// Fails the test unless the program ended with this code.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "stderr: {}", self.stderr);
        self
    }

    /// Fails the test unless stderr has each of these words.
    #[track_caller]
    pub fn says(self, words: &[&str]) -> Self {
        for word in words {
            assert!(self.stderr.contains(word), "{word:?} is not in: {}", self.stderr);
        }
        self
    }

    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }
}

/// Runs the client to its end.
pub fn run_tow(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
    run(tow(args))
}

/// Runs a program to its end; one that takes absurdly long is killed.
pub fn run(command: Command) -> Ran {
    let limit = PATIENCE * 10;
    let output = assert_cmd::Command::from_std(command).timeout(limit).output();
    Ran::of(output.expect("the program runs"))
}

/// Memory that a process has in use, in bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.expect("the kernel says how much it is") * 1024
}

/// The time that the first thread of a process has spent on a processor.
pub fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/schedstat")).expect("the process runs");
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.expect("the kernel says how long it was"))
}

/// Waits for the end of a process; `None` if it still runs after `limit`.
pub fn wait_child(child: &mut Child, limit: Duration) -> Option<ExitStatus> {
    if let Some(status) = child.try_wait().expect("the child is ours") {
        return Some(status);
    }
    let ended = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).expect("a pidfd");
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).expect("a limit of seconds");
        match poll(&mut [PollFd::new(&ended, PollFlags::IN)], Some(&left)) {
            Ok(0) => return None,
            Ok(_) => return Some(child.wait().expect("the child is ours")),
            Err(Errno::INTR) => {}
            Err(error) => panic!("poll on a pidfd: {error}"),
        }
    }
}

/// Polls `done` until it holds or `limit` has passed. Only where the OS gives no event.
pub fn wait_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// The seed of this run: `TOW_SEED` from the environment to repeat one, else a fresh one. Printed
/// so that the output of a failed test carries it.
pub fn fresh_seed() -> u64 {
    let seed = match std::env::var("TOW_SEED") {
        Ok(text) => text.parse().expect("TOW_SEED is a decimal number"),
        Err(_) => RandomState::new().build_hasher().finish(),
    };
    eprintln!("TOW_SEED={seed}");
    seed
}

/// SplitMix64: small, fast, and the same on every machine.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A generator that depends on both numbers, and on their order.
    pub fn derived(seed: u64, stream: u64) -> Self {
        Self(Self(seed).word() ^ Self(!stream).word())
    }

    #[inline]
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn flag(&mut self) -> bool {
        self.word() & 1 == 1
    }

    /// Each value of the range equally often.
    pub fn within(&mut self, range: &RangeInclusive<u64>) -> u64 {
        assert!(!range.is_empty(), "nothing to choose from in {range:?}");
        let span = range.end() - range.start();
        match span.checked_add(1) {
            Some(count) => range.start() + self.word() % count,
            None => self.word(),
        }
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        let (words, rest) = bytes.as_chunks_mut::<8>();
        for word in words {
            *word = self.word().to_le_bytes();
        }
        let last = self.word().to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

/// Writes a file that depends on its length and seed only, at the speed of the page cache.
pub fn random_file(path: impl AsRef<Path>, bytes: u64, seed: u64) {
    let mut file = File::create(path).expect("a file for the test");
    let mut rng = Rng::new(seed);
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = bytes;
    while left > 0 {
        let len = usize::try_from(left).map_or(PIECE_BYTES, |left| left.min(PIECE_BYTES));
        rng.fill(&mut piece[..len]);
        file.write_all(&piece[..len]).expect("room for the test's file");
        left -= len as u64;
    }
}

/// Compares two files; where they differ is said on stderr, for the output of a failed test.
pub fn same_bytes(a: impl AsRef<Path>, b: impl AsRef<Path>) -> bool {
    let (a, b) = (a.as_ref(), b.as_ref());
    let [mut file_a, mut file_b] = [a, b].map(open);
    let mut piece_a = vec![0; PIECE_BYTES];
    let mut piece_b = vec![0; PIECE_BYTES];
    let mut offset = 0;
    loop {
        let len_a = read_full(&mut file_a, &mut piece_a).expect("the first file is readable");
        let len_b = read_full(&mut file_b, &mut piece_b).expect("the second file is readable");
        if piece_a[..len_a] != piece_b[..len_b] {
            let same = piece_a[..len_a].iter().zip(&piece_b[..len_b]).take_while(|(a, b)| a == b);
            eprintln!(
                "{} and {} differ at byte {}",
                a.display(),
                b.display(),
                offset + same.count()
            );
            return false;
        }
        if len_a == 0 {
            return true;
        }
        offset += len_a;
    }
}

/// What `md5sum` prints for the file.
pub fn md5sum(path: impl AsRef<Path>) -> String {
    let mut file = open(path.as_ref());
    let mut piece = vec![0; PIECE_BYTES];
    let mut md5 = Md5::new();
    loop {
        let len = read_full(&mut file, &mut piece).expect("the file is readable");
        if len == 0 {
            break;
        }
        md5.update(&piece[..len]);
    }
    md5.finalize().iter().fold(String::new(), |mut hex, byte| {
        write!(hex, "{byte:02x}").expect("writing to a String does not fail");
        hex
    })
}

fn open(path: &Path) -> File {
    File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Reads until the buffer is full or the file ends.
fn read_full(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
