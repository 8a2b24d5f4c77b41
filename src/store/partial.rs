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
    cell::Cell,
    os::fd::{AsFd, OwnedFd},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    fs::{AtFlags, Mode, RenameFlags, Stat, Timespec, Timestamps, fstat, statat},
    io::Errno,
};

use super::{
    Identity, ReadNow, Root, StoreError,
    error::Doing,
    journal::Record,
    journal_file::{JournalFile, write_all},
    listing::Kind,
    own::{duplicate, open_or_make},
    quota::{Reservation, Usage},
    recover,
    room::{Room, give_back_left_over},
    root::NOT_REGULAR,
    source::{fetch, fetch_ahead, read_full, read_no_further, read_now},
    space::Awaited,
    sys,
};
use crate::{
    digest::Md5Digest,
    progress::{Mark, Progress},
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

/// Bytes written at once. For a larger write that begins where a page does, ext4 takes memory in one
/// large piece, and such pieces are what a virtual machine has given back to its host: to get them took
/// up to ten times as long as to fill them.
const WRITE_BYTES_MAX: usize = 256 << 10;

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
    /// Whether it may take the place of a file that is there.
    pub replace: bool,
}

/// What opening a partial came to.
#[derive(Debug)]
pub enum Opened {
    /// It is open, with what is there of it, and of which version that is.
    Partial(Partial, Progress, Tag),
    /// A version of this size and modification time was committed before, and nobody has touched the
    /// file since. Beside a target, it is also of the same tag.
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
    /// What the names of its files begin with.
    stem: String,
    data: OwnedFd,
    upload: Upload,
    awaited: Awaited,
    room: Room,
    /// What it counts in the ledger.
    reservation: Reservation,
    /// Only the disk thread ever holds it.
    journal: Mutex<JournalFile>,
    /// Nothing may be written any more: the file is visible, or a sync failed.
    closed: AtomicBool,
    /// The file as it became visible, if whoever writes to it since is sure to show.
    visible: OnceLock<Identity>,
}

/// The name, without ending, of the partial for a path: a hash, so that its length is fixed.
#[must_use]
pub fn partial_name(path: &RemotePath) -> Md5Digest {
    Md5Digest::of(path.as_bytes())
}

/// What the names of partials begin with that lie beside their targets.
const BESIDE: &str = ".tow-";

/// Whether a file of this name beside others is one of ours: a partial, its journal, or a small file
/// on its way.
#[must_use]
pub fn is_partial_name(name: &[u8]) -> bool {
    let endings = [&b".data"[..], b".journal", b".small"];
    let stem = endings.iter().find_map(|ending| name.strip_suffix(*ending));
    let hash = stem.and_then(|stem| stem.strip_prefix(BESIDE.as_bytes()));
    hash.is_some_and(|hash| hash.len() == 32 && hash.iter().all(u8::is_ascii_hexdigit))
}

impl Partial {
    /// Opens or makes the partial for `upload`, and finds out what there is of it. `fresh`
    /// forgets that.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while another writer has it; [`StoreError::NoSpace`] if the rest
    /// can't fit beside what is kept back and what others still receive;
    /// [`StoreError::QuotaExceeded`] if it is more than may be stored beside what is there, the
    /// file that it would replace included;
    /// [`StoreError::WrongKind`] if a directory has the name; [`StoreError::Exists`] if a file has
    /// it that may not be replaced.
    pub fn open(
        root: &Arc<Root>,
        place: Place,
        upload: Upload,
        fresh: bool,
    ) -> Result<Opened, StoreError> {
        let (target_dir, target) = root.parent(&upload.path)?;
        let is_there = check_target(&target_dir, target)?.is_some();
        let prefix = if place == Place::Beside { BESIDE } else { "" };
        let stem = format!("{prefix}{}", partial_name(&upload.path));
        let dir = match place {
            Place::Internal => duplicate(root.partials().ok_or(StoreError::Denied)?)?,
            Place::Beside => duplicate(&target_dir)?,
        };
        check_device(&dir, &target_dir)?;

        let (mut journal, journal_is_new) =
            JournalFile::lock(dir.as_fd(), format!("{stem}.journal"))?;
        let mut replay = journal.replay()?;
        let epoch = replay.as_ref().map_or(0, |replay| replay.epoch) + 1;
        if let Some(replay) = &replay
            && let Some(receipt) = replay.commit.filter(|_| !fresh)
            // What a sender touched, or copied, is mostly the same: it compares the root. A receiver
            // could not.
            && (place == Place::Internal || replay.tag == upload.tag)
            && let Ok(file) = root.open_file(&upload.path)
            && recover::is_as_committed(&receipt, &file, &upload)?
        {
            // Its verdict may have been lost with the process, before the directory was synced. The
            // ctime was noted behind that.
            if receipt.ctime.is_none() {
                sys::fsync(&target_dir).doing("syncing the directory")?;
            }
            if place == Place::Beside {
                let _ = sys::unlink(&dir, &format!("{stem}.journal"));
            }
            return Ok(Opened::Committed(receipt.root, receipt.md5));
        }
        // Refused before anything comes: then what was made just now goes again.
        let data_is_new = Cell::new(false);
        let refused = |error| {
            let made = [(data_is_new.get(), "data"), (journal_is_new, "journal")];
            for (_, ending) in made.into_iter().filter(|(is_new, _)| *is_new) {
                let _ = sys::unlink(&dir, &format!("{stem}.{ending}"));
            }
            error
        };
        if is_there && !upload.replace {
            return Err(refused(StoreError::Exists));
        }
        let reservation = Reservation::new(root.ledger(), || stored(&dir, &stem), upload.size)
            .map_err(refused)?;
        let begin = || {
            let (data, is_new) = open_or_make(&dir, &format!("{stem}.data"))?;
            data_is_new.set(is_new);
            if !is_new {
                give_back_left_over(&data);
            }
            if fresh || is_new {
                replay = None;
            }
            let (progress, tag) = match replay {
                Some(replay) => {
                    let tag = replay.tag.clone();
                    let progress = recover::go_on(&mut journal, &dir, &data, &upload, replay)?;
                    (progress, tag)
                }
                None => {
                    let both_new = journal_is_new && is_new;
                    let progress =
                        recover::start_anew(&mut journal, &dir, &data, &upload, epoch, both_new)?;
                    (progress, upload.tag.clone())
                }
            };
            let awaited = root.space().claim(&dir, &progress)?;
            Ok((data, progress, tag, awaited))
        };
        let (data, progress, tag, awaited) = begin()
            .map_err(refused)
            .inspect_err(|_| reservation.release(|| stored(&dir, &stem)))?;
        if place == Place::Internal {
            read_no_further(&data);
        }
        let room = Room::new(&data, upload.size, progress.frontier());
        let files = Files {
            root: Arc::clone(root),
            place,
            dir,
            stem,
            data,
            upload,
            awaited,
            room,
            reservation,
            journal: Mutex::new(journal),
            closed: AtomicBool::new(false),
            visible: OnceLock::new(),
        };
        Ok(Opened::Partial(Self(Arc::new(files)), progress, tag))
    }

    /// Writes received bytes in their place. Goes to the page cache. What the journal speaks of
    /// may be overwritten only after a checkpoint that took it back.
    ///
    /// # Errors
    /// [`StoreError::NoSpace`] and the like: then nothing of `bytes` may be marked.
    /// [`StoreError::SyncFailed`] after a failed checkpoint, and behind a commit.
    pub fn write(&self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let files = &*self.0;
        if files.closed.load(Ordering::Acquire) {
            return Err(StoreError::SyncFailed);
        }
        if offset.saturating_add(bytes.len() as u64) > files.upload.size {
            return Err(StoreError::Io { doing: "writing beyond the end", errno: Errno::INVAL });
        }
        for (piece, at) in bytes.chunks(WRITE_BYTES_MAX).zip((offset..).step_by(WRITE_BYTES_MAX)) {
            write_all(&files.data, piece, at, "writing")?;
        }
        files.awaited.came(files.room.fill(offset, bytes.len() as u64));
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

    /// Reads as [`Partial::read`], and has the disk begin with what comes next.
    ///
    /// # Errors
    /// A read error.
    pub fn fetch(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        fetch(&self.0.data, offset, buffer)
    }

    /// Has the disk fetch bytes that will be wanted. May wait for room in its queue.
    pub fn fetch_ahead(&self, offset: u64, bytes: u64) {
        fetch_ahead(&self.0.data, offset, bytes);
    }

    /// Makes durable what `mark` speaks of, then says so in the journal.
    ///
    /// # Errors
    /// If the data can't be synced, the journal falls back to its last durable mark and the
    /// partial takes no more: a second sync could succeed although the data was lost.
    pub fn checkpoint(&self, mark: Mark) -> Result<(), StoreError> {
        let mut journal = self.journal();
        journal.check()?;
        self.or_fall_back(&mut journal, |files, journal| files.sync_and_mark(journal, mark))
    }

    /// Says in the journal what `mark` speaks of, without a sync: it is true as long as the
    /// machine runs. For a line that breaks. A mark that takes something back is a checkpoint all
    /// the same: behind the last durable mark, a journal only adds.
    ///
    /// # Errors
    /// Whatever `write` says; the journal is then as before. As [`Partial::checkpoint`].
    pub fn note(&self, mark: Mark) -> Result<(), StoreError> {
        let mut journal = self.journal();
        journal.check()?;
        if !journal.is_added_by(&mark) {
            drop(journal);
            return self.checkpoint(mark);
        }
        let durable = false;
        journal.append(&[Record::Mark { durable, mark }])
    }

    /// Makes the file durable, then visible under its name, durably. See the table above.
    ///
    /// # Errors
    /// Whatever the system says; the target is then as before, unless only the last sync failed.
    /// [`StoreError::Exists`] if a file that may not be replaced has appeared meanwhile: what was
    /// received is kept.
    pub fn commit(
        &self,
        mark: Mark,
        root: Md5Digest,
        md5: Option<Md5Digest>,
    ) -> Result<(), StoreError> {
        let files = &*self.0;
        let (target_dir, target, replaced) = match files.prepare_target() {
            Ok(found) => found,
            Err(error) => {
                // It can't appear there now, but what was received is kept.
                let _ = self.note(mark);
                return Err(error);
            }
        };
        let mut journal = self.journal();
        journal.check()?;
        self.or_fall_back(&mut journal, |files, journal| {
            files.sync_and_promise(journal, mark, root, md5)
        })?;
        let data = format!("{}.data", files.stem);
        let only_new =
            if files.upload.replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        sys::rename(files.dir.as_fd(), data.as_bytes(), target_dir.as_fd(), target, only_new)
            .doing("renaming")?;
        // Before anything that may wait: nobody but us has written to it yet.
        if let Some(identity) = files.find_visible() {
            let _ = files.visible.set(identity);
        }
        files.closed.store(true, Ordering::Release);
        files.awaited.end();
        files.reservation.commit(files.upload.size, replaced);
        sys::fsync(&target_dir).doing("syncing the directory")?;
        // The file is there, whatever becomes of what follows: without it, a question for the
        // verdict costs a look at the file's bytes, or a journal stays behind.
        let _ = match files.place {
            Place::Internal => files.note_visible(&mut journal),
            Place::Beside => sys::unlink(&files.dir, &format!("{}.journal", files.stem))
                .doing("removing the journal"),
        };
        Ok(())
    }

    /// After a commit: the file as it became visible, so that digests of what was received can be
    /// told from those of what others make of it. `None` if a change might not show.
    pub(super) fn visible(&self) -> Option<&Identity> {
        self.0.visible.get()
    }

    fn journal(&self) -> MutexGuard<'_, JournalFile> {
        // A panic while it was held left the journal at the end that it says.
        self.0.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what has to succeed as a whole for the partial to be of any further use.
    fn or_fall_back(
        &self,
        journal: &mut JournalFile,
        step: impl FnOnce(&Files, &mut JournalFile) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let files = &*self.0;
        step(files, journal).inspect_err(|_| {
            files.closed.store(true, Ordering::Release);
            journal.fall_back(&files.dir);
        })
    }
}

impl Files {
    fn sync_and_mark(&self, journal: &mut JournalFile, mark: Mark) -> Result<(), StoreError> {
        sys::fdatasync(&self.data).doing("syncing the partial")?;
        let durable = true;
        journal.append(&[Record::Mark { durable, mark }])?;
        journal.sync()?;
        journal.sync_names(&self.dir)?;
        journal.settle();
        if journal.is_long() {
            journal.compact(&self.dir, &self.stem)?;
        }
        self.room.make(&self.data, &self.awaited);
        Ok(())
    }

    /// Where the file shall appear. The directory is looked up again: it may have been moved out
    /// since the partial was opened.
    fn prepare_target(&self) -> Result<(OwnedFd, &[u8], Usage), StoreError> {
        let (target_dir, target) = self.root.parent(&self.upload.path)?;
        let there = check_target(&target_dir, target)?;
        if there.is_some() && !self.upload.replace {
            return Err(StoreError::Exists);
        }
        self.set_attributes()?;
        Ok((target_dir, target, there.map(|stat| Usage::of(&stat)).unwrap_or_default()))
    }

    fn set_attributes(&self) -> Result<(), StoreError> {
        let upload = &self.upload;
        sys::ftruncate(&self.data, upload.size).doing("setting the size")?;
        self.room.end();
        sys::fchmod(&self.data, visible_mode()).doing("setting the mode")?;
        let time =
            Timespec { tv_sec: upload.mtime.seconds, tv_nsec: i64::from(upload.mtime.nanos) };
        let times = Timestamps { last_access: time, last_modification: time };
        sys::futimens(&self.data, &times).doing("setting the time")
    }

    /// Makes the file durable and says in the journal that it is about to be visible.
    fn sync_and_promise(
        &self,
        journal: &mut JournalFile,
        mark: Mark,
        root: Md5Digest,
        md5: Option<Md5Digest>,
    ) -> Result<(), StoreError> {
        sys::fsync(&self.data).doing("syncing the file")?;
        let inode = fstat(&self.data).doing("looking at the file")?.st_ino;
        let durable = true;
        let mark = Record::Mark { durable, mark };
        journal.append(&[mark, Record::Commit { root, md5, inode }])?;
        if self.place == Place::Internal {
            journal.sync()?;
        }
        journal.settle();
        Ok(())
    }

    fn find_visible(&self) -> Option<Identity> {
        let identity = Identity::of(&fstat(&self.data).ok()?);
        let is_ours = (identity.size, identity.mtime) == (self.upload.size, self.upload.mtime);
        (is_ours && identity.shows_writes()).then_some(identity)
    }

    /// Renaming was the last change of the file: from now on, any other shows.
    fn note_visible(&self, journal: &mut JournalFile) -> Result<(), StoreError> {
        let stat = fstat(&self.data).doing("looking at the file")?;
        let ctime = Identity::of(&stat).ctime;
        journal.append(&[Record::Visible { ctime }])
    }
}

impl Drop for Files {
    /// Still with the lock: what stays counts with what it has.
    fn drop(&mut self) {
        self.room.give_back(&self.data);
        self.reservation.release(|| stored(&self.dir, &self.stem));
    }
}

/// What the data file of a partial counts.
fn stored(dir: &OwnedFd, stem: &str) -> Usage {
    Usage::of_name(dir, format!("{stem}.data"))
}

/// The file that has the target's name, if any; anything else that has it can't be replaced.
pub(crate) fn check_target(dir: impl AsFd, name: &[u8]) -> Result<Option<Stat>, StoreError> {
    match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => match Kind::of(&stat) {
            Kind::File => Ok(Some(stat)),
            Kind::Directory => Err(StoreError::WrongKind("a directory has this name")),
            Kind::Link => Err(StoreError::WrongKind("a link has this name")),
            Kind::Other => Err(NOT_REGULAR),
        },
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(StoreError::from_errno("looking at the target", errno)),
    }
}

/// Nothing can be renamed from one file system to another: better said now than at the end.
pub(super) fn check_device(dir: impl AsFd, target_dir: impl AsFd) -> Result<(), StoreError> {
    let device = |stat: Result<Stat, Errno>| Ok(stat.doing("looking at a directory")?.st_dev);
    if device(fstat(dir))? == device(fstat(target_dir))? {
        Ok(())
    } else {
        let text = "its directory is on another file system than the root";
        Err(StoreError::WrongKind(text))
    }
}

/// Mode of a finished file: what the umask leaves, never executable.
pub(super) fn visible_mode() -> Mode {
    Mode::from_raw_mode(0o666) & !umask()
}

/// The process's umask, read once: it can only be read by being set.
fn umask() -> Mode {
    static UMASK: OnceLock<Mode> = OnceLock::new();
    *UMASK.get_or_init(|| {
        let mask = rustix::process::umask(Mode::from_raw_mode(0o077));
        rustix::process::umask(mask);
        mask
    })
}
