//! The calls by which the store changes what is on the disk, and those that make it durable. All in
//! one place, so that tests can watch them, and make any of them fail; but for those of many files at
//! once, which are in `sync`.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::{
    fs::{self, AtFlags, FallocateFlags, FsWord, Mode, OFlags, RenameFlags, Timestamps},
    io::{Result, retry_on_intr},
};

#[cfg(test)]
use super::tests::hook::{self, Call};

/// statfs(2), "EXT4_SUPER_MAGIC": ext2, ext3 and ext4, with a journal or without.
pub(super) const EXT4: FsWord = 0xef53;

/// Opens a name in a directory, or makes it.
pub(super) fn open(dir: impl AsFd, name: &str, flags: OFlags) -> Result<OwnedFd> {
    #[cfg(test)]
    hook::call(|| Call::Open)?;
    retry_on_intr(|| fs::openat(&dir, name, flags, Mode::RUSR | Mode::WUSR))
}

/// Makes a file of this name, which nothing has yet: so it is ours, and nobody else has it open.
pub(super) fn create(dir: impl AsFd, name: &str) -> Result<OwnedFd> {
    #[cfg(test)]
    hook::call(|| Call::Open)?;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    retry_on_intr(|| fs::openat(&dir, name, flags, Mode::RUSR | Mode::WUSR))
}

/// Writes at an offset; perhaps less than all of `bytes`.
pub(super) fn pwrite(file: &OwnedFd, bytes: &[u8], offset: u64) -> Result<usize> {
    #[cfg(test)]
    let bytes = hook::write(file, bytes, offset)?;
    retry_on_intr(|| rustix::io::pwrite(file, bytes, offset))
}

/// Sets the length of a file.
pub(super) fn ftruncate(file: &OwnedFd, length: u64) -> Result<()> {
    #[cfg(test)]
    hook::call(|| Call::Truncate(hook::inode(file), length))?;
    retry_on_intr(|| fs::ftruncate(file, length))
}

/// Has the file system find room for bytes of a file that are to come, be they beyond its end.
pub(super) fn allocate(file: &OwnedFd, offset: u64, length: u64) -> Result<()> {
    #[cfg(test)]
    hook::call(|| Call::Attributes)?;
    retry_on_intr(|| fs::fallocate(file, FallocateFlags::KEEP_SIZE, offset, length))
}

/// Makes the bytes of a file durable. One that failed must never be tried again and believed.
pub(super) fn fdatasync(file: &OwnedFd) -> Result<()> {
    #[cfg(test)]
    hook::call(|| Call::Sync(hook::inode(file)))?;
    fs::fdatasync(file)
}

/// Makes a file with its attributes, or the names in a directory, durable.
pub(super) fn fsync(file: impl AsFd) -> Result<()> {
    #[cfg(test)]
    hook::call(|| Call::Sync(hook::inode(&file)))?;
    fs::fsync(file)
}

/// Sets the mode of a file.
pub(super) fn fchmod(file: &OwnedFd, mode: Mode) -> Result<()> {
    #[cfg(test)]
    hook::call(|| Call::Attributes)?;
    fs::fchmod(file, mode)
}

/// Sets the times of a file.
pub(super) fn futimens(file: &OwnedFd, times: &Timestamps) -> Result<()> {
    #[cfg(test)]
    hook::call(|| Call::Attributes)?;
    fs::futimens(file, times)
}

/// Gives a file another name. With `NOREPLACE` it has to be one that nothing has, else it fails
/// with `EXIST`; a file system that can't promise that fails with `INVAL`.
pub(super) fn rename(
    from_dir: BorrowedFd<'_>,
    from: &[u8],
    to_dir: BorrowedFd<'_>,
    to: &[u8],
    flags: RenameFlags,
) -> Result<()> {
    #[cfg(test)]
    hook::rename()?;
    fs::renameat_with(from_dir, from, to_dir, to, flags)
}

/// Takes a file's name away.
pub(super) fn unlink(dir: impl AsFd, name: &str) -> Result<()> {
    #[cfg(test)]
    hook::call(|| Call::Unlink)?;
    fs::unlinkat(dir, name, AtFlags::empty())
}
