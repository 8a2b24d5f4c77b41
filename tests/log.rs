//! The log of `towd`, and whoever reads it, or does not.

use std::{
    io::{BufRead, BufReader, Read},
    net::SocketAddr,
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use support::{PATIENCE, Raw, TestDir, wait_child};

mod support;

/// A server whose stderr is a pipe.
struct Piped {
    child: Child,
    addr: SocketAddr,
    _dir: TestDir,
}

impl Piped {
    fn start(args: &[&str]) -> (Self, ChildStderr) {
        let dir = TestDir::new();
        let mut child = Command::new(env!("CARGO_BIN_EXE_towd"))
            .args(["--listen", "127.0.0.1:0", "--no-login", "--root"])
            .arg(dir.path())
            .args(args)
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("towd starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is piped");
        BufReader::new(stdout).read_line(&mut line).expect("towd says where it listens");
        let addr = line.trim().strip_prefix("listening on ").and_then(|addr| addr.parse().ok());
        let stderr = child.stderr.take().expect("stderr is piped");
        (Self { child, addr: addr.expect("an address"), _dir: dir }, stderr)
    }

    fn connect(&self) -> Raw {
        let mut peer = Raw::connect(self.addr);
        assert!(peer.read_line().starts_with("220 "));
        peer
    }

    fn terminate(&mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("towd was running");
        wait_child(&mut self.child, PATIENCE).expect("towd ends, whoever reads its log")
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        // An error means that it has ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Each of them costs a line in the log of a server that says all.
fn ping(peer: &mut Raw, count: usize) {
    for _ in 0..count / 500 {
        peer.send("noop\n".repeat(500));
        for _ in 0..500 {
            assert_eq!(peer.read_line(), "200");
        }
    }
}

#[test]
fn a_log_that_nobody_reads_holds_up_nobody_and_what_is_dropped_is_counted() {
    // More than the pipe and the queue take.
    const PINGS: usize = 40_000;
    let (mut towd, stderr) = Piped::start(&["-v"]);
    let mut peer = towd.connect();
    ping(&mut peer, PINGS);

    // Somebody reads it after all: up to where lines are missing, of which it says how many.
    let mut lines = BufReader::new(stderr).lines().map(|line| line.expect("the log is text"));
    let (mut pings, mut connected) = (0, 0);
    let missing: usize = loop {
        let line = lines.next().expect("it says that something is missing");
        pings += usize::from(line.ends_with(": 200"));
        connected += usize::from(line.contains(": connected"));
        if let Some(said) = line.strip_suffix(" lines are missing here: nobody took them") {
            break said.rsplit(' ').next().and_then(|count| count.parse().ok()).expect("a number");
        }
    };
    assert!(pings > 10_000 && connected == 1, "{pings} {connected}");
    assert_eq!(pings + missing, PINGS);

    // From here on, all of it is there, up to the last line.
    let mut second = towd.connect();
    ping(&mut second, 500);
    drop(second);
    let last = std::thread::spawn(move || lines.collect::<Vec<_>>());
    assert!(towd.terminate().success());
    let last = last.join().expect("it reads to the end");
    assert_eq!(last.iter().filter(|line| line.ends_with(": 200")).count(), 500);
    assert!(last.iter().any(|line| line.contains("going down")), "{last:?}");
}

#[test]
fn a_server_ends_though_nobody_reads_its_log() {
    let (mut towd, mut stderr) = Piped::start(&["-v"]);
    // More than the pipe takes.
    ping(&mut towd.connect(), 5000);
    assert!(towd.terminate().success());
    let mut there = Vec::new();
    stderr.read_to_end(&mut there).expect("what the pipe took is there");
    assert!(there.starts_with(b"["));
}
