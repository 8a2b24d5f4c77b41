//! Finds and ends those who left the group of an action and outlived it.
//!
//! They come to this process as children when their parents end, if it adopts orphans. One with a
//! mark is judged by it. One without cleared its environment, or can't be looked at: it may belong
//! to any action that ran when it was first seen, so it is left until all of these have ended.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    io,
    os::fd::AsFd,
    sync::PoisonError,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid},
};

use super::{
    ActionId, Children,
    procfs::{self, Process},
};
use crate::limits::{SWEEP_ROUNDS_MAX, SWEEP_WAIT_MAX};

/// What is known of orphans from one sweep to the next.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    /// By id and start: the actions that an orphan without a mark may belong to.
    suspects: HashMap<(Pid, u64), BTreeSet<ActionId>>,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Swept {
    /// So many strays were ended and reaped.
    pub ended: usize,
    /// So many processes are still there that should not be. Sweep again in a while.
    pub left: usize,
}

impl Children {
    /// Ends and reaps whoever is left of actions that are over. For the disk thread: it looks
    /// through `/proc`, and waits for what it killed, up to [`SWEEP_WAIT_MAX`]. It costs nothing
    /// while this process has no children.
    ///
    /// # Errors
    /// `/proc` can't be read, or no descriptor is left.
    pub fn sweep(&self) -> io::Result<Swept> {
        let mut orphans = self.orphans.lock().unwrap_or_else(PoisonError::into_inner);
        let mut swept = Swept { ended: 0, left: self.ledger.reap_abandoned() };
        if !has_children() {
            orphans.suspects.clear();
            return Ok(swept);
        }
        let until = Instant::now() + SWEEP_WAIT_MAX;
        for _ in 0..SWEEP_ROUNDS_MAX {
            let strays = self.strays(&mut orphans)?;
            if strays.is_empty() {
                return Ok(Swept { left: self.ledger.reap_abandoned(), ..swept });
            }
            let mut gone = 0;
            for stray in &strays {
                // Who may not be killed is counted as left.
                let _ = pidfd_send_signal(&stray.handle, Signal::KILL);
                let left = until.saturating_duration_since(Instant::now());
                gone += usize::from(ended_within(stray, left)?);
            }
            swept.ended += gone;
            swept.left = strays.len() - gone + self.ledger.reap_abandoned();
            if gone == 0 {
                break;
            }
        }
        Ok(swept)
    }

    /// Children that belong to no action any more. Zombies that nobody else waits for are reaped on
    /// the way.
    fn strays(&self, orphans: &mut Orphans) -> io::Result<Vec<Process>> {
        let children = procfs::children()?;
        let (live, leaders) = {
            let entries = self.ledger.lock();
            let live: BTreeSet<ActionId> = entries.live.keys().copied().collect();
            let leaders = entries.live.values().filter_map(|run| run.leader);
            let leaders: HashSet<Pid> = leaders.chain(entries.abandoned.iter().copied()).collect();
            (live, leaders)
        };
        let mut strays = Vec::new();
        let mut suspects = HashMap::new();
        for child in children {
            if leaders.contains(&child.pid) || (self.adopting && reaped(&child)) {
                continue;
            }
            match self.marks.find(&procfs::environ(child.pid)) {
                Some(id) if live.contains(&id) => {}
                Some(_) => strays.push(child),
                None if self.adopting => {
                    let key = (child.pid, child.started);
                    let seen = orphans.suspects.get(&key).unwrap_or(&live);
                    let may_be_of: BTreeSet<_> = seen.intersection(&live).copied().collect();
                    if may_be_of.is_empty() {
                        strays.push(child);
                    } else {
                        suspects.insert(key, may_be_of);
                    }
                }
                None => {}
            }
        }
        orphans.suspects = suspects;
        Ok(strays)
    }
}

/// Whether this process has any child at all, dead or alive.
fn has_children() -> bool {
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    !matches!(waitid(WaitId::All, look), Err(Errno::CHILD))
}

/// Whether a child had ended, and is no zombie any more.
fn reaped(child: &Process) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    !matches!(waitid(WaitId::PidFd(child.handle.as_fd()), options), Ok(None))
}

fn ended_within(stray: &Process, left: Duration) -> io::Result<bool> {
    let left = Timespec::try_from(left).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(&stray.handle, PollFlags::IN)], Some(&left)) {
        Ok(_) | Err(Errno::INTR) => Ok(reaped(stray)),
        Err(errno) => Err(errno.into()),
    }
}
