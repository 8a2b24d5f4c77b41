//! The log. Lines are queued, and a thread of their own writes them to stderr: a reader that does not
//! read, such as a pager or a journal that hangs, holds up nobody who is served.
//!
//! What the queue does not take is dropped and counted, and where it is missing, a line says how much.

use std::{
    fs::File,
    io::{self, IsTerminal as _, Write},
    mem,
    os::fd::AsFd as _,
    process,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::SystemTime,
};

use env_logger::{Builder, Env, Target, WriteStyle, fmt::ConfigurableFormat};
use towpath::limits::{LOG_BYTES_MAX, LOG_DEADLINE};

use crate::cli::Flags;

/// The log of this process.
#[derive(Clone)]
pub(crate) struct Log(Arc<Shared>);

struct Shared {
    /// What each line begins with: workers say which they are.
    prefix: String,
    queue: Mutex<Queue>,
    /// Something was added to the queue, or written.
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    /// Whole lines. Invariant: at most [`LOG_BYTES_MAX`].
    lines: Vec<u8>,
    /// How many came behind these and were dropped.
    dropped: u64,
    /// Whether there is a thread that writes them.
    has_writer: bool,
    /// It is writing some that it has taken from here.
    is_writing: bool,
}

impl Log {
    /// Logs to stderr; RUST_LOG says more precisely than the flags what. Until
    /// [`Log::write_beside`], each line is written at once.
    pub(crate) fn start(flags: &Flags) -> Self {
        let level = match (flags.quiet, flags.verbose) {
            (true, _) => "warn",
            (false, 0) => "info",
            (false, 1) => "debug",
            (false, _) => "trace",
        };
        // In front, where whoever reads the log by a pattern expects anything.
        let is_worker = flags.worker;
        let prefix = if is_worker { format!("{} ", process::id()) } else { String::new() };
        let log = Self::new(prefix.clone());
        let mut builder = Builder::from_env(Env::default().default_filter_or(level));
        builder.format_target(false).target(Target::Pipe(Box::new(log.clone())));
        if is_worker {
            let mut format = ConfigurableFormat::default();
            format.target(false);
            builder.format(move |out, record| {
                write!(out, "{prefix}")?;
                format.format(out, record)
            });
        }
        if is_coloured() {
            builder.write_style(WriteStyle::Always);
        }
        builder.init();
        log
    }

    fn new(prefix: String) -> Self {
        Self(Arc::new(Shared { prefix, queue: Mutex::default(), changed: Condvar::new() }))
    }

    /// From now on, a thread writes the lines. Without one, all is as before.
    pub(crate) fn write_beside(&self) {
        let log = self.clone();
        let begin = || -> io::Result<()> {
            // Not by way of `io::stderr`, whose lock would be held for as long as a write takes.
            let stderr = File::from(io::stderr().as_fd().try_clone_to_owned()?);
            thread::Builder::new().name("log".to_owned()).spawn(move || log.run(stderr))?;
            Ok(())
        };
        match begin() {
            Ok(()) => self.queue().has_writer = true,
            Err(error) => log::warn!("the log is written by the thread that serves: {error}"),
        }
    }

    /// Writes what is queued, for as long as the process runs.
    fn run(&self, mut stderr: impl Write) {
        loop {
            let queue = self.queue();
            let wait = |queue: &mut Queue| queue.lines.is_empty() && queue.dropped == 0;
            let mut queue =
                self.0.changed.wait_while(queue, wait).unwrap_or_else(PoisonError::into_inner);
            let (lines, dropped) = (mem::take(&mut queue.lines), mem::take(&mut queue.dropped));
            queue.is_writing = true;
            drop(queue);
            // Nobody could be told that the log can't be written.
            let _ = stderr.write_all(&lines);
            if dropped > 0 {
                let _ = stderr.write_all(missing(&self.0.prefix, dropped).as_bytes());
            }
            self.queue().is_writing = false;
            self.0.changed.notify_all();
        }
    }

    /// Waits until everything is written, if somebody takes it in time.
    pub(crate) fn finish(&self) {
        let is_busy = |queue: &mut Queue| {
            let is_written = queue.lines.is_empty() && queue.dropped == 0 && !queue.is_writing;
            queue.has_writer && !is_written
        };
        drop(self.0.changed.wait_timeout_while(self.queue(), LOG_DEADLINE, is_busy));
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes whole lines.
impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut queue = self.queue();
        if !queue.has_writer {
            drop(queue);
            io::stderr().write_all(line)?;
            return Ok(line.len());
        }
        // Once one was dropped, all that follow are, until the thread has taken the queue: so that there
        // is one place where they are missing.
        if queue.dropped > 0 || queue.lines.len() + line.len() > LOG_BYTES_MAX {
            queue.dropped += 1;
        } else {
            queue.lines.extend_from_slice(line);
        }
        drop(queue);
        self.0.changed.notify_all();
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The line that stands for those that are missing.
fn missing(prefix: &str, count: u64) -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now());
    format!("{prefix}[{now} WARN ] {count} lines are missing here: nobody took them\n")
}

/// Whether stderr takes colours, and nothing says otherwise.
fn is_coloured() -> bool {
    let is_said = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let is_dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    io::stderr().is_terminal() && !is_dumb && !is_said("NO_COLOR") && !is_said("RUST_LOG_STYLE")
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{Receiver, SyncSender, sync_channel},
        time::Duration,
    };

    use super::*;

    /// Takes a write only when somebody asks for it.
    struct Slow(SyncSender<Vec<u8>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log() -> (Log, Receiver<Vec<u8>>) {
        let log = Log::new(String::new());
        log.queue().has_writer = true;
        let (slow, taken) = sync_channel(0);
        let writer = log.clone();
        thread::spawn(move || writer.run(Slow(slow)));
        (log, taken)
    }

    fn say(log: &mut Log, text: &str) {
        log.write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    fn text(taken: &Receiver<Vec<u8>>) -> String {
        String::from_utf8(taken.recv_timeout(Duration::from_secs(30)).unwrap()).unwrap()
    }

    #[test]
    fn lines_that_nobody_takes_are_dropped_and_it_is_said_where_they_are_missing() {
        let (mut log, taken) = log();
        say(&mut log, "first");
        while !log.queue().is_writing {
            thread::yield_now();
        }
        let long = "x".repeat(LOG_BYTES_MAX / 8 - 1);
        // Eight of them fit.
        (0..10).for_each(|_| say(&mut log, &long));
        say(&mut log, "short");
        let (mut lines, mut missing) = (String::new(), None);
        while missing.is_none() {
            let said = text(&taken);
            missing = said.split_once(" WARN ] ").map(|(_, rest)| rest.to_owned());
            if missing.is_none() {
                lines += &said;
            }
        }
        let there = lines.lines().filter(|line| **line == long).count();
        assert!(lines.starts_with("first\n") && there == 8, "{there}");
        assert_eq!(missing.unwrap(), "3 lines are missing here: nobody took them\n");
        say(&mut log, "last");
        assert_eq!(text(&taken), "last\n");
    }

    #[test]
    fn the_end_waits_for_what_is_queued_but_not_for_ever() {
        let (mut log, taken) = log();
        say(&mut log, "one");
        // Nobody takes it.
        log.finish();
        let reader = thread::spawn(move || text(&taken) + &text(&taken));
        say(&mut log, "two");
        assert_eq!(reader.join().unwrap(), "one\ntwo\n");
        log.finish();
        assert!(log.queue().lines.is_empty());
    }
}
