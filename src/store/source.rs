//! A file that is read to be sent.

use std::{fs::File, io::IoSliceMut, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{Advice, CWD, FsWord, Mode, OFlags, fadvise, fstatfs, openat},
    io::{Errno, ReadWriteFlags, pread, preadv2, retry_on_intr},
    time::{ClockId, clock_gettime},
};

use super::{Identity, Root, StoreError, error::Doing, own::duplicate, root::regular};
use crate::{
    digest::LEAF_BYTES,
    wire::{Mtime, RemotePath},
};

/// An open regular file and the version it had when it was opened.
#[derive(Debug)]
pub struct Source {
    file: OwnedFd,
    identity: Identity,
    /// Whether any change since it was opened shows in its identity.
    is_settled: bool,
}

/// What a read that must not wait came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadNow {
    /// So many bytes; 0 at the end of the file.
    Bytes(usize),
    /// The bytes are not in memory: they have to be fetched from the disk.
    Cold,
}

impl Source {
    /// Opens a file beneath `root`.
    ///
    /// # Errors
    /// [`StoreError::WrongKind`] for anything but a regular file, and the like.
    pub fn open(root: &Root, path: &RemotePath) -> Result<Self, StoreError> {
        Self::new(root.open_file(path)?)
    }

    /// Opens a local file for a client.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn open_local(path: &Path) -> Result<Self, StoreError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        Self::new(openat(CWD, path, flags, Mode::empty()).doing("opening")?)
    }

    /// A file that is open to be read.
    ///
    /// # Errors
    /// [`StoreError::WrongKind`] for anything but a regular file.
    pub fn of_file(file: OwnedFd) -> Result<Self, StoreError> {
        Self::new(file)
    }

    fn new(file: OwnedFd) -> Result<Self, StoreError> {
        let now = clock_gettime(ClockId::Realtime);
        let nanos = u32::try_from(now.tv_nsec).unwrap_or(0);
        let identity = Identity::of(&regular(&file)?);
        let is_settled = identity.is_settled(Mtime { seconds: now.tv_sec, nanos });
        // Only a hint: a file system that does not take it is read all the same. What is read at once
        // needs none.
        if identity.size > LEAF_BYTES {
            let _ = fadvise(&file, 0, None, Advice::Sequential);
        }
        Ok(Self { file, identity, is_settled })
    }

    /// The version that was opened.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the file is still the version that was opened. Never waits for a disk: an open
    /// file's attributes are in memory.
    #[must_use]
    pub fn is_unchanged(&self) -> bool {
        regular(&self.file).is_ok_and(|stat| Identity::of(&stat) == self.identity)
    }

    /// Whether every change since it was opened is sure to show: it was not changed a moment
    /// before.
    pub(super) const fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// Reads what is in memory, without waiting for a disk.
    ///
    /// # Errors
    /// A read error. It never yields bytes, and so never a digest.
    pub fn read_now(&self, offset: u64, buffer: &mut [u8]) -> Result<ReadNow, StoreError> {
        read_now(&self.file, offset, buffer)
    }

    /// Reads, waiting for the disk if need be. Less than asked for only at the end of the file.
    ///
    /// # Errors
    /// A read error.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        read_full(&self.file, offset, buffer)
    }

    /// Another handle of the same open file.
    ///
    /// # Errors
    /// No descriptors left.
    pub fn try_clone(&self) -> Result<Self, StoreError> {
        Ok(Self { file: duplicate(&self.file)?, ..*self })
    }

    /// The file, for a caller that wants more of it.
    #[must_use]
    pub fn into_file(self) -> File {
        File::from(self.file)
    }
}

/// Reads without waiting. A file system that knows no such read may have to fetch the bytes, but
/// for one that lies in memory.
pub(super) fn read_now(
    file: &OwnedFd,
    offset: u64,
    buffer: &mut [u8],
) -> Result<ReadNow, StoreError> {
    let mut slices = [IoSliceMut::new(buffer)];
    match retry_on_intr(|| preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT)) {
        Ok(bytes) => Ok(ReadNow::Bytes(bytes)),
        Err(Errno::OPNOTSUPP) if lies_in_memory(file) => {
            read_full(file, offset, buffer).map(ReadNow::Bytes)
        }
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(ReadNow::Cold),
        Err(errno) => Err(StoreError::from_errno("reading", errno)),
    }
}

/// Whether a file is on a tmpfs.
fn lies_in_memory(file: &OwnedFd) -> bool {
    /// statfs(2), "TMPFS_MAGIC".
    const TMPFS_MAGIC: FsWord = 0x0102_1994;
    fstatfs(file).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC)
}

/// Reads until the buffer is full or the file ends.
pub(super) fn read_full(
    file: &OwnedFd,
    offset: u64,
    buffer: &mut [u8],
) -> Result<usize, StoreError> {
    let mut have = 0;
    while let Some(rest) = buffer.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match retry_on_intr(|| pread(file, &mut *rest, offset + have as u64)).doing("reading")? {
            0 => break,
            bytes => have += bytes,
        }
    }
    Ok(have)
}
