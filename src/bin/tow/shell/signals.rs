//! Ctrl-C and SIGTERM in a shell: the one stops a command and not the shell, the other ends both.

use std::{
    io::{self, stdin},
    process::exit,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::Signals as Incoming,
};
use towpath::client::Stop;

use crate::exit::Exit;

/// A command that has not stopped for so long is ended by another Ctrl-C, and the shell with it.
const STUBBORN: Duration = Duration::from_secs(3);

/// What the signals have come to.
#[derive(Debug)]
pub(super) struct Signals {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Commands look at it.
    stop: Arc<AtomicBool>,
    /// SIGTERM came: there is no further command.
    ended: AtomicBool,
    /// No command runs: a line is awaited.
    waiting: AtomicBool,
    /// As the terminal was before anybody changed it; `None` with a script.
    terminal: Option<Termios>,
}

impl Signals {
    /// Catches them from here on.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn catch(interactive: bool) -> io::Result<Self> {
        let terminal = if interactive { Some(tcgetattr(stdin())?) } else { None };
        let mut incoming = Incoming::new([SIGINT, SIGTERM])?;
        let shared = Arc::new(Shared {
            stop: Arc::default(),
            ended: AtomicBool::new(false),
            waiting: AtomicBool::new(false),
            terminal,
        });
        thread::Builder::new().name("signals".to_owned()).spawn({
            let shared = Arc::clone(&shared);
            move || {
                let mut asked: Option<Instant> = None;
                for signal in incoming.forever() {
                    shared.handle(signal, &mut asked);
                }
            }
        })?;
        Ok(Self { shared })
    }

    /// What commands look at.
    pub(super) fn stop(&self) -> Stop {
        Stop::new(Arc::clone(&self.shared.stop))
    }

    /// A line is awaited now. Returns whether the shell goes on.
    pub(super) fn wait(&self) -> bool {
        // In this order: SIGTERM is either seen here, or sees that nothing runs.
        self.shared.waiting.store(true, Ordering::SeqCst);
        !self.shared.ended.load(Ordering::SeqCst)
    }

    /// A command begins, which nobody has asked to stop yet.
    pub(super) fn begin(&self) {
        self.shared.waiting.store(false, Ordering::SeqCst);
        self.shared.stop.store(false, Ordering::SeqCst);
        if self.shared.ended.load(Ordering::SeqCst) {
            self.shared.stop.store(true, Ordering::SeqCst);
        }
    }
}

impl Shared {
    fn handle(&self, signal: i32, asked: &mut Option<Instant>) {
        let waiting = self.waiting.load(Ordering::SeqCst);
        let again = self.stop.swap(true, Ordering::SeqCst);
        if signal == SIGTERM {
            let ended = self.ended.swap(true, Ordering::SeqCst);
            // Looked at once more: a command may have ended in between.
            if ended || self.waiting.load(Ordering::SeqCst) {
                self.die();
            }
        } else if waiting {
            // At a prompt, the line editor takes it; a script has nobody else to end it.
            if self.terminal.is_none() {
                self.die();
            }
        } else if !again {
            *asked = Some(Instant::now());
        } else if asked.is_some_and(|since| since.elapsed() > STUBBORN) {
            self.die();
        }
    }

    /// Ends the process, and leaves the terminal as it was.
    fn die(&self) -> ! {
        if let Some(terminal) = &self.terminal {
            // Nobody is left to be told that it failed.
            let _ = tcsetattr(stdin(), OptionalActions::Now, terminal);
            if self.waiting.load(Ordering::SeqCst) {
                // The line editor had asked for pasted text to be marked.
                eprint!("\u{1b}[?2004l");
            }
            eprintln!();
        }
        exit(Exit::Interrupted.code())
    }
}
