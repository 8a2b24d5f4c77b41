//! A file that is read to be sent.

use std::{fs::File, io::IoSliceMut, num::NonZeroU64, os::fd::OwnedFd, path::Path};

use rustix::{
    fs::{Advice, CWD, FsWord, Mode, OFlags, fadvise, fstatfs, openat},
    io::{Errno, ReadWriteFlags, pread, preadv2, retry_on_intr},
    time::{ClockId, clock_gettime},
};

use super::{Identity, Root, StoreError, error::Doing, own::duplicate, root::regular};
use crate::{
    digest::LEAF_BYTES,
    limits::{FETCH_AHEAD, FETCH_BYTES_MAX, FETCH_STEP_BYTES},
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
        let source = Self::new(root.open_file(path)?)?;
        // What is read at once needs no hint.
        if source.identity.size > LEAF_BYTES {
            read_no_further(&source.file);
        }
        Ok(source)
    }

    /// Opens a local file for a client.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn open_local(path: &Path) -> Result<Self, StoreError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let source = Self::new(openat(CWD, path, flags, Mode::empty()).doing("opening")?)?;
        // Only a hint: a file system that does not take it is read all the same.
        let _ = fadvise(&source.file, 0, None, Advice::Sequential);
        Ok(source)
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
        Ok(Self { file, identity, is_settled })
    }

    /// The version that was opened.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether the file is still the version that was opened. Does not wait for a local disk, since an
    /// open file's attributes are in memory; on NFS or FUSE it is a round trip.
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

    /// Reads as [`Source::read`], and has the disk begin with what comes next. For the thread that
    /// may wait.
    ///
    /// # Errors
    /// A read error.
    pub fn fetch(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        fetch(&self.file, offset, buffer)
    }

    /// Has the disk fetch bytes that will be wanted. May wait for room in its queue.
    pub fn fetch_ahead(&self, offset: u64, bytes: u64) {
        fetch_ahead(&self.file, offset, bytes);
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

/// Has the system read no more of a file than it is asked for. It would otherwise begin to fetch
/// megabytes within a call that must not wait: to find memory for them, and room in the disk's
/// queue, may take long. Who fetches ahead is [`fetch`].
pub(super) fn read_no_further(file: &OwnedFd) {
    // Only a hint: a file system that does not take it is read all the same.
    let _ = fadvise(file, 0, None, Advice::Random);
}

/// Reads without waiting. A file system that knows no such read may have to fetch the bytes, but
/// for one that lies in memory.
pub(super) fn read_now(
    file: &OwnedFd,
    offset: u64,
    buffer: &mut [u8],
) -> Result<ReadNow, StoreError> {
    // What is not in memory is begun to be fetched by the attempt, all that was asked for. So the
    // last byte is asked for first: with it, the others are there, since files are read in order.
    let last = buffer.len().saturating_sub(1);
    let tried = match buffer.get_mut(last..) {
        Some(byte) if last > 0 => read_no_wait(file, offset.saturating_add(last as u64), byte),
        Some(_) | None => Ok(0),
    };
    match tried.and_then(|_| read_no_wait(file, offset, buffer)) {
        Ok(bytes) => Ok(ReadNow::Bytes(bytes)),
        Err(Errno::OPNOTSUPP) if lies_in_memory(file) => {
            read_full(file, offset, buffer).map(ReadNow::Bytes)
        }
        Err(Errno::AGAIN | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(ReadNow::Cold),
        Err(errno) => Err(StoreError::from_errno("reading", errno)),
    }
}

fn read_no_wait(file: &OwnedFd, offset: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let mut slices = [IoSliceMut::new(buffer)];
    retry_on_intr(|| preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT))
}

/// Reads, waiting for the disk, which goes on with what comes next: [`fetched_bytes`] in all.
pub(super) fn fetch(file: &OwnedFd, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
    fetch_ahead(file, offset, fetched_bytes(buffer.len()));
    read_full(file, offset, buffer)
}

/// How much is fetched from a disk, in bytes, for a read of so many.
#[must_use]
pub fn fetched_bytes(length: usize) -> u64 {
    (length as u64).saturating_mul(FETCH_AHEAD).min(FETCH_BYTES_MAX)
}

/// Has the disk fetch bytes that will be wanted.
pub(super) fn fetch_ahead(file: &OwnedFd, offset: u64, bytes: u64) {
    // In steps: one hint is cut to what the system reads ahead by itself.
    for start in (0..bytes).step_by(FETCH_STEP_BYTES) {
        let at = offset.saturating_add(start);
        let _ = fadvise(file, at, NonZeroU64::new(FETCH_STEP_BYTES as u64), Advice::WillNeed);
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
