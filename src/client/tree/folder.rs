//! A local directory that files come into, as an open handle.
//!
//! The server says what is in a tree, so nothing that it says may lead out of the chosen directory:
//! every name is one name, used beneath the handle of its directory, and a link that lies there is
//! not followed, whoever has put it there.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{Arc, PoisonError},
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, fsync, futimens, mkdirat,
        openat, statat,
    },
    io::{Errno, fcntl_dupfd_cloexec},
};

use super::{local::os, shared::Problems};
use crate::{
    client::ClientError,
    store::{Identity, Root, StoreError},
    wire::Mtime,
};

/// A directory, open. When the last file that comes into it is there, and it is let go of, it gets its
/// time and is made durable.
#[derive(Debug)]
pub(super) struct Folder {
    dir: OwnedFd,
    pub(super) shown: PathBuf,
    mtime: Option<Mtime>,
    problems: Arc<Problems>,
    /// Changes when this one is made, so it comes to its end later.
    _parent: Option<Arc<Self>>,
}

impl Folder {
    /// The one that was chosen: made if it is absent, and so is the one above it. Links on the way to it are those of the user,
    /// but one in its own place is not followed.
    pub(super) fn top(
        path: &Path,
        mtime: Option<Mtime>,
        problems: Arc<Problems>,
    ) -> Result<Arc<Self>, ClientError> {
        let error =
            |doing| move |errno| ClientError::local(path, StoreError::from_errno(doing, errno));
        let made = match (make_durably(path), path.parent()) {
            (Err(Errno::NOENT), Some(above)) => {
                make_durably(above).and_then(|()| make_durably(path))
            }
            (made, _) => made,
        };
        made.map_err(error("making the folder"))?;
        let dir = openat(CWD, path, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
        let dir = dir.map_err(error("opening"))?;
        Ok(Arc::new(Self { dir, shown: path.to_owned(), mtime, problems, _parent: None }))
    }

    /// A directory in it: made if it is absent.
    pub(super) fn below(
        self: &Arc<Self>,
        name: &[u8],
        mtime: Option<Mtime>,
    ) -> Result<Arc<Self>, StoreError> {
        make_dir(&self.dir, name)
            .map_err(|errno| StoreError::from_errno("making the folder", errno))?;
        let opened = openat(&self.dir, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
        let dir = opened.map_err(|errno| match errno {
            Errno::LOOP | Errno::NOTDIR => {
                StoreError::WrongKind("something that is no folder has this name")
            }
            errno => StoreError::from_errno("opening", errno),
        })?;
        let problems = Arc::clone(&self.problems);
        let (shown, _parent) = (self.shown.join(os(name)), Some(Arc::clone(self)));
        Ok(Arc::new(Self { dir, shown, mtime, problems, _parent }))
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The same directory for the store.
    pub(super) fn root(&self) -> Result<Root, StoreError> {
        // The very directory that is open, whatever has its name now.
        let dir = fcntl_dupfd_cloexec(&self.dir, 0);
        Root::plain_of(dir.map_err(|errno| StoreError::from_errno("opening", errno))?)
    }

    /// Whether a regular file of this size and time has the name.
    pub(super) fn has(&self, name: &[u8], size: u64, mtime: Mtime) -> bool {
        statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|stat| {
            let identity = Identity::of(&stat);
            FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
                && (identity.size, identity.mtime) == (size, mtime)
        })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Some(mtime) = self.mtime {
            // A time is not worth a failure: the files are there.
            let _ = futimens(&self.dir, &timestamps(mtime));
        }
        if let Err(errno) = fsync(&self.dir) {
            let error = StoreError::from_errno("syncing the folder", errno);
            let error = ClientError::local(&self.shown, error);
            self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(error);
        }
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Makes a directory unless there is something of its name; says whether it did.
fn make_dir(dir: impl AsFd, name: &[u8]) -> Result<bool, Errno> {
    match mkdirat(dir, name, Mode::from_raw_mode(0o777)) {
        Ok(()) => Ok(true),
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Makes a directory unless there is something of its name, and makes that durable.
fn make_durably(path: &Path) -> Result<(), Errno> {
    if make_dir(CWD, path.as_os_str().as_encoded_bytes())? {
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        let above = above.unwrap_or_else(|| Path::new("."));
        openat(CWD, above, DIRECTORY, Mode::empty()).and_then(fsync)?;
    }
    Ok(())
}

pub(super) fn timestamps(mtime: Mtime) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanos) };
    Timestamps { last_access: time, last_modification: time }
}
