//! Partials: files on their way in.
//!
//! A partial is a data file and a [journal](super::journal), under names of fixed length, where
//! no listing shows them: in the internal folder of a server, beside the target of a client. A
//! lock on the journal belongs to the one writer there may be.
//!
//! What a power cut, or a kill, leaves at each step of [`Partial::commit`]:
//!
//! | after | the target is | the next attempt |
//! |---|---|---|
//! | data synced | as before | continues at the end, commits again |
//! | commit record synced | as before | the same |
//! | rename | old or new, never mixed | finds old: the same; finds new: committed before |
//! | directory synced | new | committed before |
//! | answer sent | new | committed before |

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{
        AtFlags, FlockOperation, Mode, OFlags, Timespec, Timestamps, fchmod, fdatasync, flock,
        fstat, fstatvfs, fsync, ftruncate, futimens, openat, renameat, statat, unlinkat,
    },
    io::{Errno, pwrite, retry_on_intr},
};

use super::{
    Identity, ReadNow, Root, StoreError,
    error::Doing,
    journal::{self, Position, Record, Replay, boot_id},
    root::regular,
    source::{read_full, read_now},
};
use crate::{
    digest::{Engine, LEAF_BYTES, Md5Digest, SEGMENT_BYTES, segment_digest},
    limits::JOURNAL_BYTES_MAX,
    progress::{Mark, Progress, segment_length},
    wire::{Mtime, RemotePath, Tag},
};

/// Where a partial lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the internal folder of a server's root. What was committed is remembered, so that a
    /// verdict that was lost with the line can be given again.
    Internal,
    /// Beside the target, hidden. Nothing stays behind after the commit.
    Beside,
}

/// The version of a source that is received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// Where it shall appear.
    pub path: RemotePath,
    /// Its size in bytes.
    pub size: u64,
    /// The modification time that it shall have.
    pub mtime: Mtime,
    /// Which version it is, as its sender says.
    pub tag: Tag,
}

/// What opening a partial came to.
#[derive(Debug)]
pub enum Opened {
    /// It is open, with what is there of it, and of which version that is.
    Partial(Partial, Progress, Tag),
    /// This very version was committed before, and nobody has touched the file since.
    Committed(Md5Digest, Option<Md5Digest>),
}

/// An open partial. Handles are cheap to clone; the lock is released with the last one.
#[derive(Debug, Clone)]
pub struct Partial(Arc<Files>);

#[derive(Debug)]
struct Files {
    root: Arc<Root>,
    place: Place,
    dir: OwnedFd,
    data_name: String,
    journal_name: String,
    data: OwnedFd,
    journal: OwnedFd,
    upload: Upload,
    /// Only the disk thread ever holds it.
    tail: Mutex<Tail>,
}

/// The end of the journal.
#[derive(Debug)]
struct Tail {
    end: Position,
    /// Behind the last record whose data is on the disk for certain.
    durable_end: Position,
    /// The names of both files are on the disk for certain.
    names_durable: bool,
    /// A sync failed: nothing that was written since counts, and no later sync is believed.
    failed: bool,
}

/// The name, without ending, of the partial for a path: a hash, so that its length is fixed.
#[must_use]
pub fn partial_name(path: &RemotePath) -> Md5Digest {
    Md5Digest::of(path.as_bytes())
}

impl Partial {
    /// Opens or makes the partial for `upload`, and finds out what there is of it. `fresh`
    /// forgets that.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while another writer has it; [`StoreError::NoSpace`] if the rest
    /// can't fit; [`StoreError::WrongKind`] if a directory has the name.
    pub fn open(
        root: &Arc<Root>,
        place: Place,
        upload: Upload,
        fresh: bool,
    ) -> Result<Opened, StoreError> {
        let (target_dir, target) = root.parent(&upload.path)?;
        let existing = match statat(&target_dir, target, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() => {
                return Err(StoreError::WrongKind("a directory has this name"));
            }
            Ok(stat) => Some(Identity::of(&stat)),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(StoreError::from_errno("looking at the target", errno)),
        };
        let hash = partial_name(&upload.path);
        let prefix = if place == Place::Beside { ".tow-" } else { "" };
        let data_name = format!("{prefix}{hash}.data");
        let journal_name = format!("{prefix}{hash}.journal");

        let place_dir = match place {
            Place::Internal => root.partials().ok_or(StoreError::Denied)?,
            Place::Beside => target_dir.as_fd(),
        };
        let journal = lock_journal(place_dir, &journal_name)?;
        let replay = if fresh { None } else { read_journal(&journal)? };
        if let Some(replay) = &replay
            && let Some((root, md5, inode)) = replay.commit
            && replay.tag == upload.tag
            && existing.is_some_and(|now| {
                now.inode == inode && now.size == upload.size && now.mtime == upload.mtime
            })
        {
            // Its verdict may have been lost with the process, before the directory was synced.
            fsync(&target_dir).doing("syncing the directory")?;
            return Ok(Opened::Committed(root, md5));
        }
        let dir = place_dir.try_clone_to_owned().map_err(|_| StoreError::Io {
            doing: "duplicating a descriptor",
            errno: Errno::MFILE,
        })?;
        let (data, is_new) = open_data(&dir, &data_name)?;
        let replay = replay.filter(|_| !is_new);
        let tail = Mutex::new(Tail {
            end: Position::default(),
            durable_end: Position::default(),
            names_durable: false,
            failed: false,
        });
        let root = Arc::clone(root);
        let files = Files {
            root,
            place,
            dir,
            data_name,
            journal_name,
            data,
            journal,
            upload,
            tail,
        };
        let partial = Self(Arc::new(files));
        let (progress, tag) = partial.take_over(replay)?;
        partial.check_space(&progress)?;
        Ok(Opened::Partial(partial, progress, tag))
    }

    /// Begins this writer's epoch: finds out what of the journal is true of the data, and says so
    /// in the journal before anything is overwritten.
    fn take_over(&self, replay: Option<Replay>) -> Result<(Progress, Tag), StoreError> {
        let files = &*self.0;
        let upload = &files.upload;
        let mut tail = self.tail();
        let boot = boot_id();
        let open = |epoch: u64| Record::Open {
            epoch,
            boot,
            size: upload.size,
            mtime: upload.mtime,
            tag: upload.tag.clone(),
        };
        let Some(replay) = replay else {
            ftruncate(&files.journal, 0).doing("starting the journal")?;
            ftruncate(&files.data, 0).doing("starting the partial")?;
            self.append(&mut tail, &[open(1)])?;
            tail.durable_end = tail.end;
            return Ok((Progress::new(upload.size), upload.tag.clone()));
        };
        tail.end = replay.end;
        tail.durable_end = replay.durable_end;
        ftruncate(&files.journal, replay.end.offset).doing("cutting the journal's torn tail")?;

        let mut progress = replay.progress;
        let length = Identity::of(&regular(&files.data)?).size;
        progress.lower(
            length / LEAF_BYTES * LEAF_BYTES
                + if length == progress.size() {
                    length % LEAF_BYTES
                } else {
                    0
                },
        );
        let checked = replay.boot != boot;
        if checked {
            self.check_again(&mut progress, &replay.durable)?;
        }
        progress.resize(upload.size);
        if checked {
            // What another process wrote since the boot may be in the cache alone.
            fdatasync(&files.data).doing("syncing the partial")?;
        }
        let mark = progress.whole_mark();
        let records = [
            open(replay.epoch + 1),
            Record::Mark {
                durable: checked,
                mark,
            },
        ];
        self.append(&mut tail, &records)?;
        fdatasync(&files.journal).doing("syncing the journal")?;
        if checked {
            tail.durable_end = tail.end;
        }
        Ok((progress, replay.tag))
    }

    /// After a boot: whatever was not durable is read back and counts only if it is what the
    /// journal says. A file's size proves nothing.
    fn check_again(&self, progress: &mut Progress, durable: &Progress) -> Result<(), StoreError> {
        let engine = Engine::new();
        let mut buffer = vec![0; usize::try_from(SEGMENT_BYTES).unwrap_or(0)];
        let mut leaves = Vec::new();
        let mut read = |segment: u64, length: u64| {
            let length = usize::try_from(length).unwrap_or(buffer.len());
            let bytes = buffer.get_mut(..length).unwrap_or_default();
            let have = read_full(&self.0.data, segment * SEGMENT_BYTES, bytes)?;
            leaves.clear();
            engine.leaves(bytes.get(..have).unwrap_or_default(), &mut leaves);
            Ok::<_, StoreError>(leaves.clone())
        };
        let size = progress.size();
        for (at, &known) in progress.segments().to_vec().iter().enumerate() {
            let segment = at as u64;
            let trusted = durable.segments().get(at) == Some(&known)
                && !durable.bad().contains(&segment)
                && !progress.bad().contains(&segment);
            if trusted || progress.bad().contains(&segment) {
                continue;
            }
            let leaves = read(segment, segment_length(segment, size))?;
            if leaves.is_empty() || segment_digest(&leaves) != known {
                progress.lower(segment * SEGMENT_BYTES);
                return Ok(());
            }
        }
        let segment = progress.segments().len() as u64;
        let tail = progress.tail().to_vec();
        let same = durable.segments().len() as u64 == segment && durable.tail() == tail;
        if !same && !tail.is_empty() {
            let found = read(segment, tail.len() as u64 * LEAF_BYTES)?;
            let good = found.iter().zip(&tail).take_while(|(a, b)| a == b).count() as u64;
            progress.lower(segment * SEGMENT_BYTES + good * LEAF_BYTES);
        }
        Ok(())
    }

    fn check_space(&self, progress: &Progress) -> Result<(), StoreError> {
        let space = fstatvfs(&self.0.dir).doing("asking for free space")?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let needed = progress.size().saturating_sub(progress.good_bytes());
        if needed > free {
            let text = format!("{needed} bytes are needed, {free} are free");
            return Err(StoreError::NoSpace(text));
        }
        Ok(())
    }

    /// Writes received bytes in their place. Goes to the page cache.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] and the like: then nothing of `bytes` may be marked.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let written = retry_on_intr(|| pwrite(&self.0.data, rest, offset + done as u64));
            match written.doing("writing")? {
                0 => {
                    return Err(StoreError::Io {
                        doing: "writing",
                        errno: Errno::IO,
                    });
                }
                bytes => done += bytes,
            }
        }
        Ok(())
    }

    /// Reads back what is in memory, without waiting for a disk.
    ///
    /// # Errors
    /// A read error.
    pub fn read_now(&self, offset: u64, buffer: &mut [u8]) -> Result<ReadNow, StoreError> {
        read_now(&self.0.data, offset, buffer)
    }

    /// Reads back, waiting for the disk if need be.
    ///
    /// # Errors
    /// A read error.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        read_full(&self.0.data, offset, buffer)
    }

    /// Makes durable what `mark` speaks of, then says so in the journal.
    ///
    /// # Errors
    /// If the data can't be synced, the journal falls back to its last durable mark and the
    /// partial takes no more: a second sync could succeed although the data was lost.
    pub fn checkpoint(&self, mark: Mark) -> Result<(), StoreError> {
        let files = &*self.0;
        let mut tail = self.tail();
        if tail.failed {
            return Err(StoreError::SyncFailed);
        }
        let synced = self.sync_and_mark(&mut tail, mark);
        if let Err(error) = synced {
            self.fall_back(&mut tail);
            return Err(error);
        }
        tail.durable_end = tail.end;
        Ok(())
    }

    fn sync_and_mark(&self, tail: &mut Tail, mark: Mark) -> Result<(), StoreError> {
        let files = &*self.0;
        fdatasync(&files.data).doing("syncing the partial")?;
        let durable = true;
        self.append(tail, &[Record::Mark { durable, mark }])?;
        fdatasync(&files.journal).doing("syncing the journal")?;
        if !tail.names_durable {
            fsync(&files.dir).doing("syncing the directory of partials")?;
            tail.names_durable = true;
        }
        Ok(())
    }

    /// Says in the journal what `mark` speaks of, without a sync: it is true as long as the
    /// machine runs. For a line that breaks.
    ///
    /// # Errors
    /// Whatever `write` says; the journal is then as before.
    pub fn note(&self, mark: Mark) -> Result<(), StoreError> {
        let mut tail = self.tail();
        if tail.failed {
            return Err(StoreError::SyncFailed);
        }
        self.append(
            &mut tail,
            &[Record::Mark {
                durable: false,
                mark,
            }],
        )
    }

    /// Makes the file durable, then visible under its name, durably. See the table above.
    ///
    /// # Errors
    /// Whatever the system says; the target is then as before, unless only the last sync failed.
    pub fn commit(
        &self,
        mark: Mark,
        root: Md5Digest,
        md5: Option<Md5Digest>,
    ) -> Result<(), StoreError> {
        let files = &*self.0;
        let upload = &files.upload;
        let mut tail = self.tail();
        if tail.failed {
            return Err(StoreError::SyncFailed);
        }
        // The directory is looked up again: it may have been moved out since.
        let (target_dir, target) = files.root.parent(&upload.path)?;
        ftruncate(&files.data, upload.size).doing("setting the size")?;
        fchmod(&files.data, visible_mode()).doing("setting the mode")?;
        let time = Timespec {
            tv_sec: upload.mtime.seconds,
            tv_nsec: i64::from(upload.mtime.nanos),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        futimens(&files.data, &times).doing("setting the time")?;
        if let Err(error) = fsync(&files.data).doing("syncing the file") {
            self.fall_back(&mut tail);
            return Err(error);
        }
        let inode = fstat(&files.data).doing("looking at the file")?.st_ino;
        let mark = Record::Mark {
            durable: true,
            mark,
        };
        self.append(&mut tail, &[mark, Record::Commit { root, md5, inode }])?;
        if files.place == Place::Internal {
            fdatasync(&files.journal).doing("syncing the journal")?;
        }
        renameat(&files.dir, &files.data_name, &target_dir, target).doing("renaming")?;
        fsync(&target_dir).doing("syncing the directory")?;
        if files.place == Place::Beside {
            // The file is there: a journal that stays behind would only be untidy.
            let _ = unlinkat(&files.dir, &files.journal_name, AtFlags::empty());
        }
        Ok(())
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        // A panic while it was held left the journal at the end that `tail` says.
        self.0.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn append(&self, tail: &mut Tail, records: &[Record]) -> Result<(), StoreError> {
        let mut bytes = Vec::new();
        let mut end = tail.end;
        for record in records {
            journal::encode(record, &mut end, &mut bytes);
        }
        let mut done = 0;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            let at = tail.end.offset + done as u64;
            let written = retry_on_intr(|| pwrite(&self.0.journal, rest, at));
            done += written.doing("writing the journal")?;
        }
        tail.end = end;
        Ok(())
    }

    /// Forgets everything behind the last durable mark; if not even that can be said, everything.
    fn fall_back(&self, tail: &mut Tail) {
        let files = &*self.0;
        tail.failed = true;
        tail.end = tail.durable_end;
        let cut =
            ftruncate(&files.journal, tail.end.offset).and_then(|()| fdatasync(&files.journal));
        if cut.is_err() {
            let _ = unlinkat(&files.dir, &files.journal_name, AtFlags::empty());
        }
    }
}

/// Mode of a finished file: what the umask leaves, never executable.
fn visible_mode() -> Mode {
    Mode::from_raw_mode(0o666) & !umask()
}

/// The process's umask, read once: it can only be read by being set.
fn umask() -> Mode {
    static UMASK: std::sync::OnceLock<Mode> = std::sync::OnceLock::new();
    *UMASK.get_or_init(|| {
        let mask = rustix::process::umask(Mode::from_raw_mode(0o077));
        rustix::process::umask(mask);
        mask
    })
}

/// Opens a file that is ours alone: regular, not a link, made if absent.
pub(super) fn open_own(dir: impl AsFd, name: &str, extra: OFlags) -> Result<OwnedFd, StoreError> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(dir, name, flags | extra, Mode::RUSR | Mode::WUSR).doing("opening")?;
    let stat = regular(&file)?;
    // Planted by somebody else: a name to write to, or one with a second name elsewhere.
    if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_nlink > 1 {
        return Err(StoreError::Denied);
    }
    Ok(file)
}

fn open_data(dir: &OwnedFd, name: &str) -> Result<(OwnedFd, bool), StoreError> {
    match open_own(dir, name, OFlags::empty()) {
        Err(StoreError::NotFound) => Ok((open_own(dir, name, OFlags::CREATE)?, true)),
        other => other.map(|file| (file, false)),
    }
}

/// Opens and locks the journal. One that was removed between the two is made again.
fn lock_journal(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, StoreError> {
    loop {
        let journal = open_own(dir, name, OFlags::CREATE)?;
        if !try_lock(&journal)? {
            return Err(StoreError::Busy);
        }
        if fstat(&journal).doing("looking at the journal")?.st_nlink > 0 {
            return Ok(journal);
        }
    }
}

/// Takes the lock of an open journal, if nobody has it.
pub(super) fn try_lock(journal: &OwnedFd) -> Result<bool, StoreError> {
    match flock(journal, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(StoreError::from_errno("locking the journal", errno)),
    }
}

fn read_journal(journal: &OwnedFd) -> Result<Option<Replay>, StoreError> {
    let length = Identity::of(&regular(journal)?).size;
    if length > JOURNAL_BYTES_MAX {
        return Ok(None);
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let have = read_full(journal, 0, &mut bytes)?;
    Ok(journal::replay(bytes.get(..have).unwrap_or_default()))
}
