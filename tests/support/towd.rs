//! `towd` as a process.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::{PATIENCE, TestDir, wait_child, wait_until};

/// A running `towd`. Dropping it kills the process and waits for its end.
#[derive(Debug)]
pub struct Towd {
    child: Child,
    addr: SocketAddr,
    root: PathBuf,
    args: Vec<OsString>,
    home: TestDir,
    stdout: Option<JoinHandle<()>>,
    /// What the server has said on stdout since its last start.
    said: Said,
}

type Said = Arc<Mutex<Vec<String>>>;

impl Towd {
    /// Starts a server on a free port, with a root of its own and `args` added.
    pub fn start(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        let home = TestDir::new();
        let root = home.join("root");
        fs::create_dir(&root).expect("a root for towd");
        Self::launch(home, root, args)
    }

    /// Starts a server on a free port over a folder that the test owns.
    pub fn start_in(root: &Path, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        Self::launch(TestDir::new(), root.to_owned(), args)
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The URL of a path that is percent-encoded where it has to be.
    pub fn url(&self, path: &str) -> String {
        format!("tow://{}/{path}", self.addr)
    }

    /// The first `count` lines of stdout, waited for.
    pub fn announced(&self, count: usize) -> Vec<String> {
        let lines = || self.said.lock().expect("its writer does not panic").clone();
        assert!(wait_until(PATIENCE, || lines().len() >= count), "{:?}", lines());
        lines()
    }

    /// All that the server has said on stderr so far, over restarts.
    pub fn stderr(&self) -> String {
        // A thread of its own writes it, which sleeps when it has nothing to write.
        wait_until(PATIENCE, || !writes_log(self.pid()));
        fs::read(stderr_path(&self.home))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .expect("the captured stderr is readable")
    }

    /// Ends the server by SIGKILL: nothing of it runs, or can write, once this returns.
    pub fn kill(&mut self) {
        // An error means that it has ended already, which is what is wanted.
        drop(self.child.kill());
        drop(self.child.wait());
        self.join_stdout();
    }

    /// Asks the server to end by SIGTERM; returns how it ended, and after how long.
    pub fn terminate(&mut self) -> (ExitStatus, Duration) {
        let asked = Instant::now();
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("towd was running");
        let Some(status) = wait_child(&mut self.child, PATIENCE) else {
            self.kill();
            panic!("towd was still there {PATIENCE:?} after SIGTERM; stderr:\n{}", self.stderr());
        };
        let took = asked.elapsed();
        self.join_stdout();
        (status, took)
    }

    /// Starts the server again on the same root and port, after killing it if it still runs.
    pub fn restart(&mut self) {
        self.kill();
        self.said = Said::default();
        let listen = self.addr.to_string();
        let (child, addr, stdout) =
            spawn_towd(&self.home, &self.root, &listen, &self.args, &self.said);
        assert_eq!(addr, self.addr, "towd came back on another port");
        (self.child, self.stdout) = (child, Some(stdout));
    }

    fn launch(
        home: TestDir,
        root: PathBuf,
        args: impl IntoIterator<Item = impl AsRef<OsStr>>,
    ) -> Self {
        let args: Vec<OsString> = args.into_iter().map(|arg| arg.as_ref().to_owned()).collect();
        let said = Said::default();
        let (child, addr, stdout) = spawn_towd(&home, &root, "127.0.0.1:0", &args, &said);
        Self { child, addr, root, args, home, stdout: Some(stdout), said }
    }

    fn join_stdout(&mut self) {
        if let Some(reader) = self.stdout.take() {
            reader.join().expect("the reader of towd's stdout does not panic");
        }
    }
}

impl Drop for Towd {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            // The folder goes with the test, so its last words are shown while they are there.
            eprintln!("towd's stderr:\n{}", self.stderr());
        } else {
            // Nothing that a peer does may do this, not even on the disk thread.
            assert!(!self.stderr().contains("panicked"), "{}", self.stderr());
        }
    }
}

/// Whether a server has lines of its log that are not written yet.
fn writes_log(pid: u32) -> bool {
    // A process that has ended has no threads.
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let stats = threads.filter_map(|thread| fs::read_to_string(thread.path().join("stat")).ok());
    stats.into_iter().any(|stat| stat.contains(" (log) ") && !stat.contains(" (log) S "))
}

fn stderr_path(home: &TestDir) -> PathBuf {
    home.join("towd.stderr")
}

/// Most tests are about transfers and need no logins: they say nothing of them.
fn access_of(args: &[OsString]) -> Option<&'static str> {
    let about_logins = ["--users", "--config", "--login"];
    let name = |arg: &OsString| Some(arg.to_str()?.split('=').next()?.to_owned());
    let names: Vec<_> = args.iter().filter_map(name).collect();
    let says = names.iter().any(|name| about_logins.contains(&name.as_str()));
    (!says).then_some("--no-login")
}

fn spawn_towd(
    home: &TestDir,
    root: &Path,
    listen: &str,
    args: &[OsString],
    said: &Said,
) -> (Child, SocketAddr, JoinHandle<()>) {
    let stderr = File::options()
        .create(true)
        .append(true)
        .open(stderr_path(home))
        .expect("a file for towd's stderr");
    let mut child = Command::new(env!("CARGO_BIN_EXE_towd"))
        .arg("--root")
        .arg(root)
        .args(["--listen", listen])
        .args(access_of(args))
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .expect("towd starts");
    let stdout = child.stdout.take().expect("stdout is piped");
    let (announce, announced) = mpsc::channel();
    let said = Arc::clone(said);
    let reader = thread::spawn(move || read_stdout(stdout, &announce, &said));
    match announced.recv_timeout(PATIENCE) {
        Ok(addr) => (child, addr, reader),
        Err(_) => {
            drop(child.kill());
            let status = child.wait();
            let stderr = fs::read_to_string(stderr_path(home));
            panic!("towd did not say `listening on ADDR:PORT`: {status:?}, stderr: {stderr:?}");
        }
    }
}

/// Passes the address on, then reads to the end, so that a full pipe never stops the server.
fn read_stdout(stdout: ChildStdout, announce: &mpsc::Sender<SocketAddr>, said: &Said) {
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        said.lock().expect("its readers do not panic").push(line.clone());
        let addr = line
            .split_once("listening on ")
            .and_then(|(_, rest)| rest.split_whitespace().next())
            .and_then(|addr| addr.parse().ok());
        if let Some(addr) = addr {
            // Nobody listens once the first announcement has been taken.
            announce.send(addr).ok();
        }
    }
}
