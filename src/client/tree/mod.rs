//! Trees: many files over one line, or over a few.
//!
//! A [`Queue`](queue::Queue) walks the tree as slowly as its files go over the lines. Each worker has a
//! line of its own and takes from the queue what it can do next. Small files go ahead of one
//! another's answers, large ones one by one as [`Client::get`] and [`Client::put`] have them.

mod folder;
mod get;
mod group;
mod held;
mod local;
mod put;
mod queue;
mod remote;
mod shared;
mod small;
mod worker;

use std::{path::Path, sync::Arc, thread};

use self::{
    folder::Folder, get::GetWorker, group::Committers, held::Held, local::LocalWalk,
    put::PutWorker, queue::Queue, remote::RemoteWalk, shared::Shared,
};
use super::{Client, ClientError, Event, RateLimit};
use crate::{
    limits::JOBS_MAX,
    wire::{Mtime, RemotePath},
};

/// How a tree is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TreeOptions {
    /// Connections, from 1 to [`JOBS_MAX`]; see [`Client::tree_jobs`].
    pub jobs: usize,
    /// Whether local links are followed when they are sent; otherwise they are passed over.
    pub follow: bool,
}

impl Default for TreeOptions {
    fn default() -> Self {
        Self { jobs: 1, follow: false }
    }
}

/// What is in a tree, and is not moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Skipped {
    /// A symbolic link.
    Link,
    /// A pipe, a socket, a device.
    Special,
    /// What an unfinished download has left: a partial.
    Own,
}

/// What happens while a tree is moved. Names are paths below the tree, of any bytes.
#[derive(Debug)]
pub enum TreeEvent<'a> {
    /// One more file was found, of so many bytes.
    Found {
        /// In bytes.
        size: u64,
    },
    /// There are no more than were found.
    AllFound,
    /// A large file begins on this connection.
    Begin {
        /// Which.
        name: &'a [u8],
    },
    /// Something happened to the large file that has begun, or to the line.
    Of(Event<'a>),
    /// A file is there.
    Done {
        /// Which.
        name: &'a [u8],
        /// Its size in bytes.
        size: u64,
        /// Whether it had to be moved.
        moved: bool,
    },
    /// A file, or a whole folder, is not there, for this reason.
    Failed {
        /// Which: a folder that the server does not make by its path there.
        name: &'a [u8],
        /// Why.
        error: &'a ClientError,
    },
}

/// Is told what happens, from the threads of all connections.
pub trait TreeObserver: Sync {
    /// Something happened on the connection of this number, counted from 0.
    fn event(&self, job: usize, event: TreeEvent<'_>);
}

/// Watches nothing.
impl TreeObserver for () {
    fn event(&self, _: usize, _: TreeEvent<'_>) {}
}

/// What became of a tree.
#[derive(Debug, Default)]
pub struct TreeDone {
    /// Files that were moved.
    pub moved_files: u64,
    /// Data bytes that were moved, those that went again counted again.
    pub moved_bytes: u64,
    /// Files that were there already.
    pub there_files: u64,
    /// Their bytes.
    pub there_bytes: u64,
    /// Links that were passed over.
    pub links: u64,
    /// Pipes, sockets and devices that were passed over.
    pub specials: u64,
    /// What unfinished downloads have left, and was passed over.
    pub own: u64,
    /// Files that failed.
    pub failed: u64,
    /// Folders that failed, with all that is in them.
    pub failed_folders: u64,
    /// How often a line broke and was made anew.
    pub breaks: u32,
    /// Why it ended before its end, if it did.
    pub ended: Option<ClientError>,
}

impl Client {
    /// Puts a directory onto the server, as the directory `remote`, which is made if it is absent; the
    /// directory that holds it has to be there. Modification times of files are kept, those of
    /// directories can't be set there. A file that fails does not hold up the others, nor does one that
    /// changes all the time.
    pub fn put_tree(
        &self,
        local: &Path,
        remote: &RemotePath,
        options: TreeOptions,
        observer: &dyn TreeObserver,
    ) -> TreeDone {
        let shared = Shared::new(observer);
        match LocalWalk::new(local, remote, options.follow) {
            Ok(walk) => {
                let jobs = self.tree_jobs(options.jobs);
                let queue = Queue::new(walk, jobs);
                run_jobs(jobs, &shared, |job| {
                    worker::run(PutWorker::new(Held::new(self, &queue, &shared, job)))
                });
            }
            Err(error) => shared.folder_failed(0, b"", &error),
        }
        shared.finish()
    }

    /// Gets the directory `remote` as the directory `local`, which is made if it is absent, and so is
    /// the one that holds it. Times are kept, also of directories that were there; that of `local`
    /// becomes `mtime`, if there is one. Nothing is written but below `local`, and no link within it is followed.
    /// A local file of the same size and time is taken for the same. A file that fails does not hold
    /// up the others.
    pub fn get_tree(
        &self,
        remote: &RemotePath,
        local: &Path,
        mtime: Option<Mtime>,
        options: TreeOptions,
        observer: &dyn TreeObserver,
    ) -> TreeDone {
        let shared = Shared::new(observer);
        match Folder::top(local, mtime, Arc::clone(&shared.problems)) {
            Ok(folder) => {
                let jobs = self.tree_jobs(options.jobs);
                let queue = Queue::new(RemoteWalk::new(remote.clone(), folder), jobs);
                thread::scope(|scope| {
                    let committers = Committers::start(scope, &shared);
                    run_jobs(jobs, &shared, |job| {
                        let held = Held::new(self, &queue, &shared, job);
                        worker::run(GetWorker::new(held, committers.group(job)))
                    });
                });
            }
            Err(error) => shared.folder_failed(0, b"", &error),
        }
        shared.finish()
    }

    /// Over how many connections a tree is moved that is to be moved over `jobs`: no more than
    /// [`JOBS_MAX`], nor than the limit on the rate keeps going.
    #[must_use]
    pub fn tree_jobs(&self, jobs: usize) -> usize {
        let limit = self.options.limit.as_ref();
        jobs.clamp(1, JOBS_MAX).min(limit.map_or(JOBS_MAX, RateLimit::connections_max))
    }
}

fn run_jobs(
    jobs: usize,
    shared: &Shared<'_>,
    run: impl Fn(usize) -> Result<(), ClientError> + Sync,
) {
    let run = &|job| {
        if let Err(error) = run(job) {
            shared.end(error);
        }
    };
    thread::scope(|scope| {
        for job in 1..jobs {
            scope.spawn(move || run(job));
        }
        run(0);
    });
}
