//! A program on a terminal of its own, as a person has it: what is typed goes through the terminal's
//! line discipline, so that Ctrl-C is a signal where the program wants one.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use super::{PATIENCE, wait_child};

/// The line editor says this when it begins to wait for a line.
const WAITS: &str = "\u{1b}[?2004h";

/// Typed by Ctrl-C.
pub const CTRL_C: &str = "\u{3}";

/// Typed by Ctrl-D.
pub const CTRL_D: &str = "\u{4}";

/// A program on a terminal. Dropping it kills the program.
#[derive(Debug)]
pub struct Pty {
    child: Child,
    /// Our end of the terminal.
    ours: File,
    said: Arc<Said>,
    /// Up to here, what was said has been waited for.
    mark: usize,
    reader: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Said {
    text: Mutex<(Vec<u8>, bool)>,
    /// Notified whenever there is more, or nothing more will come.
    more: Condvar,
}

impl Pty {
    /// Starts `command` on a terminal that is wide enough for any line.
    pub fn spawn(command: &Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags).expect("a terminal");
        grantpt(&ours).expect("the terminal is ours");
        unlockpt(&ours).expect("the terminal is ours");
        let theirs: OwnedFd = ioctl_tiocgptpeer(&ours, flags).expect("the other end");
        let size = Winsize { ws_row: 40, ws_col: 250, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&ours, size).expect("a terminal has a size");
        let stdio = || Stdio::from(theirs.try_clone().expect("a descriptor"));
        // A terminal sends signals only to the session that it controls.
        let mut session = Command::new("setsid");
        session.arg("--ctty").arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            session.current_dir(dir);
        }
        session.stdin(stdio()).stdout(stdio()).stderr(stdio()).env("TERM", "xterm");
        let child = session.spawn().expect("setsid, of util-linux, starts");
        // The command holds the other end too, and reading ends only when nobody does.
        drop((session, theirs));
        let ours = File::from(ours);
        let said = Arc::new(Said::default());
        let reader = thread::spawn({
            let (said, ours) = (Arc::clone(&said), ours.try_clone().expect("a descriptor"));
            move || said.read(ours)
        });
        Self { child, ours, said, mark: 0, reader: Some(reader) }
    }

    /// Types.
    pub fn send(&mut self, text: &str) {
        self.ours.write_all(text.as_bytes()).expect("the terminal takes it");
    }

    /// Waits until this is said; returns everything from what was waited for last up to its end.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) -> String {
        let said = self.said.text.lock().expect("the reader does not panic");
        let find = |bytes: &[u8]| {
            let new = bytes.get(self.mark..).unwrap_or_default();
            new.windows(text.len()).position(|part| part == text.as_bytes())
        };
        let (said, _) = self
            .said
            .more
            .wait_timeout_while(said, PATIENCE, |(bytes, ended)| find(bytes).is_none() && !*ended)
            .expect("the reader does not panic");
        let at = find(&said.0);
        let new = said.0.get(self.mark..).unwrap_or_default().to_vec();
        drop(said);
        let Some(at) = at else {
            panic!("no {text:?} in {:?}", String::from_utf8_lossy(&new));
        };
        let end = at + text.len();
        self.mark += end;
        String::from_utf8_lossy(&new[..end]).into_owned()
    }

    /// Waits for a prompt that ends like this; returns what was said before it.
    #[track_caller]
    pub fn prompt(&mut self, end: &str) -> String {
        let said = self.wait_for(WAITS);
        self.wait_for(end);
        said
    }

    /// Types a line, and waits for the next prompt; returns what was said.
    #[track_caller]
    pub fn run(&mut self, line: &str, prompt: &str) -> String {
        self.send(&format!("{line}\r"));
        self.prompt(prompt)
    }

    /// All that was said so far.
    pub fn said(&self) -> String {
        let said = self.said.text.lock().expect("the reader does not panic");
        String::from_utf8_lossy(&said.0).into_owned()
    }

    /// All that was said, up to the end of the program.
    #[track_caller]
    pub fn said_to_the_end(&self) -> String {
        let said = self.said.text.lock().expect("the reader does not panic");
        let ended = self.said.more.wait_timeout_while(said, PATIENCE, |(_, ended)| !*ended);
        let (said, timeout) = ended.expect("the reader does not panic");
        let text = String::from_utf8_lossy(&said.0).into_owned();
        assert!(!timeout.timed_out(), "it still runs; it said {text:?}");
        text
    }

    /// Whether the terminal does what a terminal does by itself: lines, echo, signals.
    pub fn is_cooked(&self) -> bool {
        let modes = tcgetattr(&self.ours).expect("a terminal has attributes").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Waits for the end of the program; `None` after a signal.
    #[track_caller]
    pub fn exit_code(&mut self) -> Option<i32> {
        match wait_child(&mut self.child, PATIENCE) {
            Some(status) => status.code(),
            None => panic!("it still runs; it said {:?}", self.said()),
        }
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        if let Some(reader) = self.reader.take() {
            reader.join().ok();
        }
    }
}

impl Said {
    fn read(&self, mut from: File) {
        let mut buffer = [0; 4096];
        loop {
            // The end of a terminal is an error.
            let have = from.read(&mut buffer).unwrap_or(0);
            let mut text = self.text.lock().expect("nobody panics with it");
            text.0.extend_from_slice(&buffer[..have]);
            text.1 |= have == 0;
            self.more.notify_all();
            if have == 0 {
                return;
            }
        }
    }
}
