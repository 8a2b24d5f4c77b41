//! The processes of actions: started, read, ended, and none left behind.
//!
//! No `unsafe`, so no code of ours runs between `fork` and `exec`: what a child needs is asked of
//! `std::process`, and what that can't do is done from outside.
//!
//! **Order of calls** for whoever owns the loop:
//! 1. [`Children::adopting`] once, at the start of a program that has no children of its own;
//!    [`Children::new`] where it may have some. Share it by `Arc`.
//! 2. [`Children::spawn`] on the disk thread: `fork` and `exec` may wait for a disk. The [`Child`]
//!    comes back to the loop as an outcome; if nobody wants it any more, dropping it is enough.
//! 3. [`Child::register`] in the poll, and a [`Budget`] beside it. **Then read at once**: output
//!    and exit from before the registration are reported by epoll, but a loop that reads first
//!    needs not rely on it.
//! 4. [`Child::read`] each stream until [`Chunk::Later`] (an event will come) or [`Chunk::End`];
//!    stop earlier only if the connection takes no more, and come back without an event. Not
//!    reading is the back-pressure: the child blocks in its `write`. Tell [`Budget::after`] of each
//!    read, and ask [`Budget::due`] when [`Budget::wake`] has come: [`Child::terminate`], then
//!    [`Child::kill`]. The same for a client that cancels: [`Budget::stop`]. A client that is gone:
//!    just drop the [`Child`].
//! 5. On an event of the exit handle, or whenever: [`Child::reap`]. Once it gives the [`Exit`], the
//!    group has been killed (before the leader's id was free again) and every [`Child::read`] ends
//!    in [`Chunk::End`] without a further event: what the leader wrote is in the pipes, and who
//!    else holds them is not waited for. So read both to their ends, then tell the client.
//! 6. Drop the [`Child`].
//! 7. [`Children::sweep`] on the disk thread after each end or drop, one at a time and not more
//!    often than there is time for (it looks through `/proc`); again after a second as long as
//!    it says that something is [`left`](Swept::left); and once at the very end of the server.
//!
//! What ends when:
//!
//! | who | by |
//! |---|---|
//! | the leader and its group | [`Child::kill`], [`Child::reap`], or the drop of the [`Child`] |
//! | a zombie leader whose [`Child`] was dropped | the next sweep |
//! | who left the group (`setsid`, a daemon), with its mark | the first sweep after the action's end |
//! | the same with its environment cleared or changed | the first sweep after the end of every action that ran when it was first seen: bounded by [`ACTION_TIMEOUT_MAX`](crate::limits::ACTION_TIMEOUT_MAX) |
//! | either of them without [`Children::adopting`] | nobody: they are init's |
//!
//! The mark is the variable `TOW_ACTION` of the child's environment: an id with a part that is
//! random for each [`Children`]. A child of this process that carries no such mark is never
//! touched unless the process was declared to have no others.
//!
//! Out of reach: a program that changes its user (`sudo`) can't be killed by a server that is not
//! root, and is counted as left; one that forks without end faster than it is swept needs a bound
//! of the system (`TasksMax` of a service); and if the server itself is killed with SIGKILL, its
//! children live on until they write to the closed pipe.

mod budget;
mod mark;
mod orphans;
mod process;
mod procfs;
mod spawn;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

pub use self::{
    budget::{Budget, Due, Limit, Verdict},
    mark::ActionId,
    orphans::Swept,
    process::{Child, Chunk, Exit, Stream},
    spawn::SpawnError,
};
use self::{mark::Marks, orphans::Orphans};
use crate::limits::ACTIONS_RUNNING_MAX;

/// Those who run actions of this server, and those who are still to be reaped.
#[derive(Debug)]
pub struct Children {
    /// No program beneath it is run.
    served: PathBuf,
    marks: Marks,
    /// Whether every child of this process comes from an action.
    adopting: bool,
    ledger: Arc<Ledger>,
    /// Held by [`Self::spawn`] and [`Self::sweep`] all along, so that no sweep sees a child that
    /// is not in the ledger yet. The loop never takes it.
    orphans: Mutex<Orphans>,
}

/// Who lives. Locked for moments only: the loop takes it, too.
#[derive(Debug, Default)]
struct Ledger(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    live: BTreeMap<ActionId, Run>,
    /// Leaders that were killed and dropped, and whose zombies are to be reaped. Their ids are
    /// taken until then.
    abandoned: Vec<Pid>,
}

#[derive(Debug)]
struct Run {
    action: String,
    /// From the moment when it is known.
    leader: Option<Pid>,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a place for a run, if there is one.
    fn admit(&self, id: ActionId, action: &str, max_running: usize) -> bool {
        let mut entries = self.lock();
        let of_this = entries.live.values().filter(|run| run.action == action).count();
        let of_all = entries.live.len() + entries.abandoned.len();
        let admitted = of_this < max_running && of_all < ACTIONS_RUNNING_MAX;
        if admitted {
            entries.live.insert(id, Run { action: action.to_owned(), leader: None });
        }
        admitted
    }

    /// How many processes there are of each action, and of all with those to be reaped.
    fn running(&self) -> (BTreeMap<String, usize>, usize) {
        let entries = self.lock();
        let mut of_each = BTreeMap::new();
        for run in entries.live.values() {
            *of_each.entry(run.action.clone()).or_default() += 1;
        }
        (of_each, entries.live.len() + entries.abandoned.len())
    }

    fn started(&self, id: ActionId, leader: Pid) {
        if let Some(run) = self.lock().live.get_mut(&id) {
            run.leader = Some(leader);
        }
    }

    /// The run is over, and its leader reaped or never there.
    fn forget(&self, id: ActionId) {
        self.lock().live.remove(&id);
    }

    /// The run is over, but its leader has to be reaped yet.
    fn abandon(&self, id: ActionId, leader: Pid) {
        let mut entries = self.lock();
        entries.live.remove(&id);
        entries.abandoned.push(leader);
    }

    /// Reaps what can be, and says how many are left.
    fn reap_abandoned(&self) -> usize {
        let mut entries = self.lock();
        let reap = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        // An error says that it is no child of ours, and never will be again.
        entries.abandoned.retain(|leader| matches!(waitid(WaitId::Pid(*leader), reap), Ok(None)));
        entries.abandoned.len()
    }
}
