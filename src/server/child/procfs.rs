//! What `/proc` tells of this process's children.
//!
//! All of `/proc` is looked through for the parent's id. `/proc/PID/task/TID/children` would be
//! quicker, but is not in every kernel, and may leave out children while others end.

use std::{
    fs::{self, File},
    io::{self, Read},
    os::fd::OwnedFd,
};

use rustix::process::{Pid, PidfdFlags, getpid, pidfd_open};

use crate::limits::ENVIRON_BYTES_MAX;

/// A child of this process.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: Pid,
    /// Clock ticks from boot to its start: with the id, who it is.
    pub(super) started: u64,
    /// Opened before anything was read of it, so that what is done with it hits nobody else.
    pub(super) handle: OwnedFd,
}

/// The children of this process, zombies among them.
///
/// # Errors
/// `/proc` is not there, or no descriptor is left.
pub(super) fn children() -> io::Result<Vec<Process>> {
    let mut children = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let pid = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        let Some(pid) = pid.filter(|&pid| stat(pid).is_some_and(|stat| stat.is_ours())) else {
            continue;
        };
        // It may be gone by now, and somebody else have its id: so look again.
        let handle = match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(handle) => handle,
            Err(rustix::io::Errno::SRCH) => continue,
            Err(errno) => return Err(errno.into()),
        };
        if let Some(stat) = stat(pid).filter(Stat::is_ours) {
            children.push(Process { pid, started: stat.started, handle });
        }
    }
    Ok(children)
}

/// The environment with which a process was started, as far as it can be read: empty for a zombie
/// and for whom this process may not look at.
pub(super) fn environ(pid: Pid) -> Vec<u8> {
    let mut environ = Vec::new();
    if let Ok(file) = File::open(format!("/proc/{pid}/environ")) {
        // What was read before an error is all there is to know.
        let _ = file.take(ENVIRON_BYTES_MAX).read_to_end(&mut environ);
    }
    environ
}

/// Some fields of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: i32,
    started: u64,
}

impl Stat {
    fn is_ours(&self) -> bool {
        self.parent == getpid().as_raw_nonzero().get()
    }

    fn parse(line: &[u8]) -> Option<Self> {
        // The second field is a name in brackets in which anything may stand, brackets too.
        let behind = line.iter().rposition(|&byte| byte == b')')? + 1;
        let mut fields = str::from_utf8(line.get(behind..)?).ok()?.split_ascii_whitespace();
        // Fields 4 and 22 of proc_pid_stat(5).
        let parent = fields.nth(1)?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        Some(Self { parent, started })
    }
}

fn stat(pid: Pid) -> Option<Stat> {
    Stat::parse(&fs::read(format!("/proc/{pid}/stat")).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_newlines_shifts_no_field() {
        let rest = "S 7 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 4711 21 22";
        for name in ["sh", "a) S 1 1 1", "a\n(b) c", ") 1 (", "\u{fffd}"] {
            let stat = Stat::parse(format!("12 ({name}) {rest}\n").as_bytes());
            assert_eq!(stat, Some(Stat { parent: 7, started: 4711 }), "{name:?}");
        }
        assert_eq!(Stat::parse(b"12 (\xff) S 7 3"), None);
        assert_eq!(Stat::parse(b""), None);
    }

    #[test]
    fn a_process_reads_of_itself_what_is_true() {
        let stat = stat(getpid()).unwrap();
        let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        assert_eq!(stat.parent, parent);
        assert!(stat.started > 0 && !stat.is_ours());
    }
}
