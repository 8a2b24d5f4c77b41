//! Files that are ours alone: data and journals of partials.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use super::{StoreError, error::Doing, root::regular, sys};

/// Opens a file that is ours alone: regular, not a link, not open to be written by another name.
pub(super) fn open_own(dir: impl AsFd, name: &str, extra: OFlags) -> Result<OwnedFd, StoreError> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = sys::open(dir, name, flags | OFlags::CLOEXEC | extra).doing("opening")?;
    let stat = regular(&file)?;
    // Planted by somebody else: a name to write to, or one with a second name elsewhere.
    if stat.st_uid != rustix::process::geteuid().as_raw() || stat.st_nlink > 1 {
        return Err(StoreError::Denied);
    }
    Ok(file)
}

/// Opens such a file, or makes it; says whether it was made.
pub(super) fn open_or_make(dir: impl AsFd, name: &str) -> Result<(OwnedFd, bool), StoreError> {
    loop {
        match open_own(&dir, name, OFlags::empty()) {
            Err(StoreError::NotFound) => {}
            other => return other.map(|file| (file, false)),
        }
        match open_own(&dir, name, OFlags::CREATE | OFlags::EXCL) {
            // Somebody else has made it in between.
            Err(StoreError::Exists) => {}
            other => return other.map(|file| (file, true)),
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

/// A second handle of an open file or directory.
pub(super) fn duplicate(file: impl AsFd) -> Result<OwnedFd, StoreError> {
    rustix::io::fcntl_dupfd_cloexec(file, 0).doing("duplicating a descriptor")
}
