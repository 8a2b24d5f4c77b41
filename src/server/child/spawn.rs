//! How a child is started, and what it gets from this process: nothing that is not listed here.

use std::{
    collections::BTreeMap,
    fs, io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};

use mio::unix::pipe::Receiver;
use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open, set_child_subreaper};
use signal_hook::consts::{
    SIGALRM, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGURG, SIGUSR1, SIGUSR2,
    SIGVTALRM, SIGWINCH,
};

use super::{Child, Children, Ledger, mark, mark::Marks, orphans::Orphans, process::Leader};
use crate::action::{PATH, Prepared, ProgramError, check_program};

/// Signals that may come to a program ignored, and would go to its children ignored. (std takes
/// care of SIGPIPE; those that stop a process in the background are left as they are.)
const MAY_BE_IGNORED: [i32; 12] = [
    SIGHUP, SIGINT, SIGQUIT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGCHLD, SIGCONT, SIGURG,
    SIGVTALRM, SIGWINCH,
];

/// Why an action was not started.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// As many as may run at the same time do already, of this action or of all.
    #[error("it runs as often as it may at the same time")]
    TooMany,
    /// The program is absent, or not to be trusted any more.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// No process, no descriptor, no memory.
    #[error("can't start it: {0}")]
    System(#[from] io::Error),
}

impl Children {
    /// For a process that may have children of its own, which are left alone. Who leaves the group
    /// of an action is not found again.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn new(served: &Path) -> io::Result<Self> {
        Ok(Self {
            served: served.to_owned(),
            marks: Marks::draw()?,
            adopting: false,
            ledger: Arc::new(Ledger::default()),
            orphans: Mutex::new(Orphans::default()),
        })
    }

    /// For a program that starts no process but by [`Self::spawn`] of this one value: whoever leaves
    /// the group of an action becomes a child of this process (`PR_SET_CHILD_SUBREAPER`), to be
    /// found by [`Self::sweep`].
    ///
    /// Signals that this program was told to ignore, as `nohup` and background jobs of a shell are,
    /// are caught from now on to the same effect, since what is ignored stays so for children.
    ///
    /// # Errors
    /// The kernel refuses, or the system has no random numbers.
    pub fn adopting(served: &Path) -> io::Result<Self> {
        set_child_subreaper(Some(getpid()))?;
        catch_ignored_signals()?;
        Ok(Self { adopting: true, ..Self::new(served)? })
    }

    /// How many processes there are now of each action, and of all.
    #[must_use]
    pub fn running(&self) -> (BTreeMap<String, usize>, usize) {
        self.ledger.running()
    }

    /// Starts an action for `user`. It may wait for a disk.
    ///
    /// The child has `/dev/null`, two pipes and no other descriptor; `PATH`, `LANG=C.UTF-8`,
    /// `TOW_USER` and its mark as its environment; `/` as its directory; a process group of its
    /// own, no blocked signal and none ignored.
    ///
    /// # Errors
    /// [`SpawnError`]; nothing runs then.
    pub fn spawn(&self, prepared: &Prepared, user: &str) -> Result<Child, SpawnError> {
        let _no_sweep_beside = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        check_program(&prepared.program, &self.served)?;
        let id = self.marks.next()?;
        if !self.ledger.admit(id, &prepared.name, prepared.max_running) {
            return Err(SpawnError::TooMany);
        }
        if self.adopting {
            // What this program was started with is not marked so.
            close_fds::set_fds_cloexec(3, &[]);
        }
        let environment = BTreeMap::from([
            ("PATH", PATH.to_owned()),
            ("LANG", "C.UTF-8".to_owned()),
            ("TOW_USER", user.to_owned()),
            (mark::VARIABLE, id.to_string()),
        ]);
        let mut command = Command::new(&prepared.program);
        command
            .args(&prepared.arguments)
            .env_clear()
            .envs(environment)
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let spawned = without_blocked_signals(|| command.spawn());
        let mut process = spawned.inspect_err(|_| self.ledger.forget(id))?;
        let pid = i32::try_from(process.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| io::Error::other("a process without an id"))?;
        // From here on, whoever returns ends the process with it.
        let leader = Leader::new(pid, id, Arc::clone(&self.ledger));
        let (Some(stdout), Some(stderr)) = (process.stdout.take(), process.stderr.take()) else {
            return Err(io::Error::other("a process without pipes").into());
        };
        let (stdout, stderr) = (Receiver::from(stdout), Receiver::from(stderr));
        stdout.set_nonblocking(true)?;
        stderr.set_nonblocking(true)?;
        let exit = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
        Ok(Child::new(leader, exit, stdout, stderr))
    }
}

/// A child inherits the mask of the thread that starts it.
fn without_blocked_signals<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let before = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let started = start();
    before.thread_set_mask()?;
    started
}

/// Catches what is ignored, and does nothing then: the same for this program, but `execve` sets
/// what is caught to its default. It matters for SIGCHLD besides: where that is ignored, the kernel
/// keeps no exit status.
fn catch_ignored_signals() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let mask = mask.ok_or_else(|| io::Error::other("/proc/self/status has no SigIgn"))?;
    for signal in MAY_BE_IGNORED {
        if mask >> (signal - 1) & 1 == 1 {
            signal_hook::flag::register(signal, Arc::new(AtomicBool::new(false)))?;
        }
    }
    Ok(())
}
