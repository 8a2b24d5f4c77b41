//! The file of a [journal](super::journal): locked, appended to, cut back, written anew.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{FlockOperation, OFlags, RenameFlags, flock, fstat},
    io::Errno,
};

use super::{
    Identity, StoreError,
    error::Doing,
    journal::{self, Position, Record, Replay},
    own::{open_or_make, open_own, try_lock},
    root::regular,
    source::read_full,
    sys,
};
use crate::{
    limits::JOURNAL_BYTES_MAX,
    progress::{Mark, Progress},
};

/// A journal that grew to this length, and to twice what it has to say, is written anew.
const COMPACT_BYTES: u64 = if cfg!(test) { 8 << 10 } else { JOURNAL_BYTES_MAX / 16 };

/// The journal of an open partial. Its lock is held as long as this lives.
///
/// Invariants:
/// - what stands before `durable_end` is true of the disk, what stands behind it only adds to it:
///   so cutting the journal there never brings back a claim about bytes that were overwritten;
/// - after `failed`, nothing is written any more.
#[derive(Debug)]
pub(super) struct JournalFile {
    file: OwnedFd,
    name: String,
    end: Position,
    /// Behind the last record whose data is on the disk for certain.
    durable_end: Position,
    /// Segments and leaves of the tail that the records speak of.
    told: (u64, u64),
    /// The names of both files are on the disk for certain.
    names_durable: bool,
    /// A sync failed: nothing that was written since counts, and no later sync is believed.
    failed: bool,
    /// The length at which it is written anew.
    compact_at: u64,
}

impl JournalFile {
    /// Opens and locks the journal; says whether it was made. One that lost its name between the
    /// two is not the journal any more.
    pub(super) fn lock(dir: BorrowedFd<'_>, name: String) -> Result<(Self, bool), StoreError> {
        loop {
            let (file, is_new) = open_or_make(dir, &name)?;
            if !try_lock(&file)? {
                return Err(StoreError::Busy);
            }
            if fstat(&file).doing("looking at the journal")?.st_nlink == 0 {
                continue;
            }
            let journal = Self {
                file,
                name,
                end: Position::default(),
                durable_end: Position::default(),
                told: (0, 0),
                names_durable: false,
                failed: false,
                compact_at: COMPACT_BYTES,
            };
            return Ok((journal, is_new));
        }
    }

    /// What it says; `None` if that is nothing.
    pub(super) fn replay(&self) -> Result<Option<Replay>, StoreError> {
        let length = Identity::of(&regular(&self.file)?).size;
        if length > JOURNAL_BYTES_MAX {
            return Ok(None);
        }
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
        let have = read_full(&self.file, 0, &mut bytes)?;
        Ok(journal::replay(bytes.get(..have).unwrap_or_default()))
    }

    /// Begins at nothing.
    pub(super) fn start(&mut self) -> Result<(), StoreError> {
        (self.end, self.durable_end) = (Position::default(), Position::default());
        self.told = (0, 0);
        sys::ftruncate(&self.file, 0).doing("starting the journal")
    }

    /// Goes on behind what was replayed.
    pub(super) fn resume(&mut self, replay: &Replay) -> Result<(), StoreError> {
        (self.end, self.durable_end) = (replay.end, replay.durable_end);
        self.tell(&replay.progress);
        sys::ftruncate(&self.file, self.end.offset).doing("cutting the journal's torn tail")
    }

    /// What the records speak of, after one that changed it without a mark.
    pub(super) fn tell(&mut self, progress: &Progress) {
        let (segments, tail) = (progress.segments().len(), progress.tail().len());
        self.told = (segments as u64, tail as u64);
        self.compact_at = COMPACT_BYTES.max(48 * self.told.0);
    }

    /// Whether nothing can be said any more, because a sync failed.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        if self.failed { Err(StoreError::SyncFailed) } else { Ok(()) }
    }

    /// Appends records; if that fails, the journal is as before.
    pub(super) fn append(&mut self, records: &[Record]) -> Result<(), StoreError> {
        let (mut bytes, mut end) = (Vec::new(), self.end);
        for record in records {
            journal::encode(record, &mut end, &mut bytes);
        }
        if let Err(error) = write_all(&self.file, &bytes, self.end.offset, "writing the journal") {
            // What stands there does not chain to anything; this is for tidiness.
            let _ = sys::ftruncate(&self.file, self.end.offset);
            return Err(error);
        }
        self.end = end;
        for record in records {
            if let Record::Mark { mark, .. } = record {
                let tail = u64::from(mark.leaves_from) + mark.leaves.len() as u64;
                self.told = (mark.segment_count, tail);
            }
        }
        Ok(())
    }

    /// Whether a mark only adds to what the records speak of, and takes nothing of it back.
    pub(super) fn is_added_by(&self, mark: &Mark) -> bool {
        let (segments, tail) = self.told;
        let same_tail = mark.segment_count == segments && u64::from(mark.leaves_from) == tail;
        mark.bad.is_empty()
            && (mark.segment_count > segments || same_tail)
            && mark.segments.iter().all(|&(at, _)| at >= segments)
    }

    /// Makes the records durable.
    pub(super) fn sync(&self) -> Result<(), StoreError> {
        sys::fdatasync(&self.file).doing("syncing the journal")
    }

    /// Makes the names of both files durable, once.
    pub(super) fn sync_names(&mut self, dir: &OwnedFd) -> Result<(), StoreError> {
        if !self.names_durable {
            sys::fsync(dir).doing("syncing the directory of partials")?;
            self.names_durable = true;
        }
        Ok(())
    }

    /// All that was said so far is true of the disk.
    pub(super) const fn settle(&mut self) {
        self.durable_end = self.end;
    }

    /// Forgets everything behind the last durable mark; if not even that can be said, everything.
    pub(super) fn fall_back(&mut self, dir: &OwnedFd) {
        self.failed = true;
        self.end = self.durable_end;
        // It need not be durable: at another boot, what is not marked as durable is read again.
        if sys::ftruncate(&self.file, self.end.offset).is_err() {
            let _ = sys::unlink(dir, &self.name);
        }
    }

    /// Whether it is time to write it anew.
    pub(super) const fn is_long(&self) -> bool {
        self.end.offset >= self.compact_at
    }

    /// Writes the journal anew, as short as it can be. All it says has to be true of the disk.
    pub(super) fn compact(&mut self, dir: &OwnedFd, stem: &str) -> Result<(), StoreError> {
        let Some(mut replay) = self.replay()? else {
            return Ok(());
        };
        let name = format!("{stem}.new");
        let file = open_own(dir, &name, OFlags::CREATE)?;
        if !try_lock(&file)? {
            return Err(StoreError::Busy);
        }
        sys::ftruncate(&file, 0).doing("starting the journal")?;
        let open = Record::Open {
            epoch: replay.epoch,
            boot: replay.boot,
            size: replay.progress.size(),
            mtime: replay.mtime,
            tag: replay.tag.clone(),
        };
        let mark = Record::Mark { durable: true, mark: replay.progress.whole_mark() };
        let (mut bytes, mut end) = (Vec::new(), Position::default());
        for record in [&open, &mark] {
            journal::encode(record, &mut end, &mut bytes);
        }
        write_all(&file, &bytes, 0, "writing the journal")?;
        sys::fdatasync(&file).doing("syncing the journal")?;
        let (from, to) = (name.as_bytes(), self.name.as_bytes());
        let replace = RenameFlags::empty();
        sys::rename(dir.as_fd(), from, dir.as_fd(), to, replace).doing("renaming the journal")?;
        (self.file, self.end, self.durable_end) = (file, end, end);
        self.tell(&replay.progress);
        sys::fsync(dir).doing("syncing the directory of partials")
    }
}

impl Drop for JournalFile {
    /// Lets go of the lock, also where a child process that was just forked still has the file.
    fn drop(&mut self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Writes all of `bytes`.
pub(crate) fn write_all(
    file: &OwnedFd,
    bytes: &[u8],
    offset: u64,
    doing: &'static str,
) -> Result<(), StoreError> {
    let mut done = 0;
    while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
        match sys::pwrite(file, rest, offset + done as u64).doing(doing)? {
            0 => {
                return Err(StoreError::Io { doing, errno: Errno::IO });
            }
            bytes => done += bytes,
        }
    }
    Ok(())
}
