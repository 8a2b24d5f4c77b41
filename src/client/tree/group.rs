//! Small files made durable together, beside the next transfers.
//!
//! A file is visible only once it is durable: first all of a group are written, under names that are
//! not theirs; then they are synced together; then each gets its name. The directory is synced when the last file
//! is in it. A power cut leaves a file as it was, or new, never mixed. What a kill leaves lies under
//! a name that the next run writes anew.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, Builder, Scope},
    time::{Duration, Instant},
};

use rustix::{
    fs::{
        AtFlags, FileType, FlockOperation, Mode, OFlags, Stat, flock, fstat, fsync, ftruncate,
        futimens, openat, renameat, statat, unlinkat,
    },
    io::Errno,
};

use super::{folder::timestamps, held::File, local::bytes, remote::GetFile, shared::Shared};
use crate::{
    client::ClientError,
    limits::{BUSY_PATIENCE, GROUP_BYTES_MAX, GROUP_FILES_MAX, GROUP_INTERVAL},
    store::{StoreError, check_target, partial_name, sync_together, write_all},
    wire::Mtime,
};

/// Threads that wait for the disk: one writes while the other syncs.
const COMMITTERS: usize = 2;

/// How often a temporary name is opened anew because another process has taken it away.
const OPEN_TRIES: usize = 16;

/// How often to look whether another process has done with a file: it holds a group for no longer than
/// the disk takes.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A file that has come, verified.
pub(super) struct Received {
    pub(super) file: GetFile,
    pub(super) mtime: Mtime,
    pub(super) content: Vec<u8>,
}

type Files = (usize, Vec<Received>);

/// The threads that do it, as long as this or a [`Group`] lives.
pub(super) struct Committers<'a> {
    groups: SyncSender<Files>,
    shared: &'a Shared<'a>,
}

impl<'a> Committers<'a> {
    pub(super) fn start<'scope>(scope: &'scope Scope<'scope, '_>, shared: &'a Shared<'a>) -> Self
    where
        'a: 'scope,
    {
        let (groups, queue) = sync_channel(COMMITTERS);
        let queue: Arc<Mutex<Receiver<Files>>> = Arc::new(Mutex::new(queue));
        for _ in 0..COMMITTERS {
            let queue = Arc::clone(&queue);
            let next = move || queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            // Without the thread, whoever has a group commits it.
            let _ = Builder::new().name("sync".to_owned()).spawn_scoped(scope, move || {
                while let Ok((job, files)) = next() {
                    commit(job, files, shared);
                }
            });
        }
        Self { groups, shared }
    }

    /// A place for the files of one worker.
    pub(super) fn group(&self, job: usize) -> Group<'a> {
        let groups = self.groups.clone();
        Group { job, shared: self.shared, groups, files: Vec::new(), bytes: 0, since: None }
    }
}

/// Files of one worker that wait for others.
pub(super) struct Group<'a> {
    job: usize,
    shared: &'a Shared<'a>,
    groups: SyncSender<Files>,
    files: Vec<Received>,
    bytes: usize,
    since: Option<Instant>,
}

impl Group<'_> {
    pub(super) fn push(&mut self, received: Received) {
        self.bytes += received.content.len();
        self.files.push(received);
        let since = *self.since.get_or_insert_with(Instant::now);
        let full = self.files.len() >= GROUP_FILES_MAX || self.bytes >= GROUP_BYTES_MAX;
        if full || since.elapsed() >= GROUP_INTERVAL {
            self.flush();
        }
    }

    /// Hands over what there is.
    pub(super) fn flush(&mut self) {
        (self.bytes, self.since) = (0, None);
        let files = std::mem::take(&mut self.files);
        if files.is_empty() {
            return;
        }
        if let Err(unsent) = self.groups.send((self.job, files)) {
            let (job, files) = unsent.0;
            commit(job, files, self.shared);
        }
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Makes files durable, then visible.
fn commit(job: usize, files: Vec<Received>, shared: &Shared<'_>) {
    let fail = |file: &GetFile, error| {
        let shown = file.shown();
        shared.failed(job, bytes(&shown), &ClientError::local(&shown, error));
    };
    let (mut written, mut busy) = (Vec::new(), Vec::new());
    for received in files {
        match Temporary::write(&received) {
            Ok(temporary) => written.push((received.file, temporary)),
            Err(StoreError::Busy) => busy.push(received),
            Err(error) => fail(&received.file, error),
        }
    }
    let data: Vec<&OwnedFd> = written.iter().map(|(_, temporary)| &temporary.data).collect();
    let synced = sync_together(&data);
    for ((file, temporary), synced) in written.into_iter().zip(synced) {
        match temporary.show(&file, synced) {
            Ok(size) => shared.done(job, bytes(&file.shown()), size, Some(size)),
            Err(error) => fail(&file, error),
        }
    }
    // Only now that nothing is locked: two who wait for one another would wait for ever.
    let until = Instant::now() + BUSY_PATIENCE;
    for received in busy {
        match commit_when_free(&received, until, shared) {
            Ok(size) => shared.done(job, bytes(&received.file.shown()), size, Some(size)),
            Err(error) => fail(&received.file, error),
        }
    }
}

/// The same for a file that another process is writing: as a rule it gets the same tree. It is tried
/// once at least.
fn commit_when_free(
    received: &Received,
    until: Instant,
    shared: &Shared<'_>,
) -> Result<u64, StoreError> {
    let (file, size) = (&received.file, received.content.len() as u64);
    loop {
        if file.folder.has(file.name.as_bytes(), size, received.mtime) {
            return Ok(size);
        }
        let shown = Temporary::write(received).and_then(|temporary| {
            let synced = fsync(&temporary.data);
            temporary.show(file, synced)
        });
        match shown {
            Err(StoreError::Busy) if Instant::now() < until && !shared.has_ended() => {
                thread::sleep(LOCK_PAUSE);
            }
            shown => return shown,
        }
    }
}

/// A file that is not visible yet.
struct Temporary {
    name: String,
    /// Locked, so that no other process writes or shows it.
    data: OwnedFd,
    size: u64,
}

impl Temporary {
    fn write(received: &Received) -> Result<Self, StoreError> {
        let (file, content) = (&received.file, &received.content);
        check(file)?;
        let name = format!(".tow-{}.small", partial_name(&file.name));
        let data = open_locked(file, &name)?;
        let size = content.len() as u64;
        let temporary = Self { name, data, size };
        let filled = temporary.fill(content, received.mtime);
        filled.inspect_err(|_| temporary.remove(file))?;
        Ok(temporary)
    }

    fn fill(&self, content: &[u8], mtime: Mtime) -> Result<(), StoreError> {
        // It may have been left by a run that was killed.
        ftruncate(&self.data, 0)
            .map_err(|errno| StoreError::from_errno("emptying the file", errno))?;
        write_all(&self.data, content, 0, "writing")?;
        futimens(&self.data, &timestamps(mtime))
            .map_err(|errno| StoreError::from_errno("setting the time", errno))
    }

    /// Gives it its name, if its sync came to that; returns its size.
    fn show(&self, file: &GetFile, synced: Result<(), Errno>) -> Result<u64, StoreError> {
        let shown = synced
            .map_err(|errno| StoreError::from_errno("syncing the file", errno))
            // Something may have got the name meanwhile.
            .and_then(|()| check(file))
            .and_then(|()| {
                let dir = file.folder.dir();
                renameat(dir, &*self.name, dir, file.name.as_bytes())
                    .map_err(|errno| StoreError::from_errno("renaming", errno))
            });
        shown.inspect_err(|_| self.remove(file))?;
        Ok(self.size)
    }

    fn remove(&self, file: &GetFile) {
        // What stays is written anew by the next run.
        let _ = unlinkat(file.folder.dir(), &*self.name, AtFlags::empty());
    }
}

/// Opens the temporary file and locks it. What another process has made visible meanwhile is not it
/// any more.
fn open_locked(file: &GetFile, name: &str) -> Result<OwnedFd, StoreError> {
    let dir = file.folder.dir();
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let look = |stat: Result<Stat, Errno>| {
        stat.map_err(|errno| StoreError::from_errno("looking at it", errno))
    };
    for _ in 0..OPEN_TRIES {
        let data =
            openat(dir, name, flags | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::from_raw_mode(0o666));
        let data = data.map_err(|errno| StoreError::from_errno("opening", errno))?;
        let stat = look(fstat(data.as_fd()))?;
        // Planted by somebody else: a name to write to, or one with a second name elsewhere.
        let is_own = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_nlink <= 1;
        if !is_own || FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(StoreError::Denied);
        }
        match flock(&data, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Err(StoreError::Busy),
            Err(errno) => return Err(StoreError::from_errno("locking the file", errno)),
        }
        match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(named) if (named.st_dev, named.st_ino) == (stat.st_dev, stat.st_ino) => {
                return Ok(data);
            }
            Ok(_) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(StoreError::from_errno("looking at it", errno)),
        }
    }
    Err(StoreError::Busy)
}

/// Only a regular file is replaced.
fn check(file: &GetFile) -> Result<(), StoreError> {
    check_target(file.folder.dir(), file.name.as_bytes()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        client::tree::{folder::Folder, held::Tries},
        wire::RemotePath,
    };

    #[test]
    fn what_another_process_writes_is_waited_for_until_a_time_that_is_that_of_all() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::top(dir.path(), None, Arc::default()).unwrap();
        let name = RemotePath::new(b"f").unwrap();
        let (remote, mtime) = (name.clone(), Mtime { seconds: 5, nanos: 0 });
        let (tries, alone) = (Tries::default(), false);
        let file = GetFile { folder, name, remote, size: 3, mtime, tries, alone };
        let received = Received { file, mtime, content: b"new".to_vec() };
        let (shared, over) = (Shared::new(&()), Instant::now());
        let other = Temporary::write(&received).unwrap();
        assert!(matches!(commit_when_free(&received, over, &shared), Err(StoreError::Busy)));
        drop(other);
        assert_eq!(commit_when_free(&received, over, &shared).unwrap(), 3);
        assert_eq!(std::fs::read(dir.path().join("f")).unwrap(), b"new");
    }
}
