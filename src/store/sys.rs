//! The calls by which the store changes what is on the disk, and those that make it durable. All in
//! one place, so that tests can watch them, and make any of them fail.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    thread::{self, Builder},
};

use rustix::{
    fs::{self, AtFlags, FallocateFlags, Mode, OFlags, RenameFlags, Timestamps},
    io::{Errno, Result, retry_on_intr},
};

use crate::limits::{FILES_PER_SYNCER_MIN, SYNCERS_MAX};

#[cfg(test)]
use super::tests::hook::{self, Call};

/// Opens a name in a directory, or makes it.
pub(super) fn open(dir: impl AsFd, name: &str, flags: OFlags) -> Result<OwnedFd> {
    #[cfg(test)]
    hook::call(|| Call::Open)?;
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

/// Makes files with their attributes durable; says for each, in their order, what came of it.
///
/// All of them begin to be written out before the first is synced. Then that sync does the work of
/// all, on a file system with a journal; on others each waits for itself, and several do at a time.
pub(crate) fn sync_together(files: &[&OwnedFd]) -> Vec<Result<()>> {
    // A hint, which need not be taken.
    of_each(files, |file| fs::fadvise(file, 0, None, fs::Advice::DontNeed));
    #[cfg(test)]
    let hooked: Vec<_> =
        files.iter().map(|file| hook::call(|| Call::Sync(hook::inode(file)))).collect();
    let synced = of_each(files, |file| fs::fsync(file));
    #[cfg(test)]
    let synced =
        hooked.into_iter().zip(synced).map(|(hooked, synced)| hooked.and(synced)).collect();
    synced
}

/// Makes a call for each file, by several threads if there are many.
fn of_each(files: &[&OwnedFd], call: fn(&OwnedFd) -> Result<()>) -> Vec<Result<()>> {
    let of_share = |share: &[&OwnedFd]| share.iter().map(|file| call(file)).collect::<Vec<_>>();
    let mut shares = files.chunks(files.len().div_ceil(SYNCERS_MAX).max(FILES_PER_SYNCER_MIN));
    let own = shares.next().unwrap_or_default();
    thread::scope(|scope| {
        let start = |share| {
            let thread = Builder::new().name("sync".to_owned());
            (share, thread.spawn_scoped(scope, move || of_share(share)))
        };
        let others: Vec<_> = shares.map(start).collect();
        let mut results = of_share(own);
        for (share, thread) in others {
            results.extend(match thread {
                Ok(thread) => thread.join().unwrap_or_else(|_| vec![Err(Errno::IO); share.len()]),
                // The system had no thread left.
                Err(_) => of_share(share),
            });
        }
        results
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_of_many_files_is_told_what_came_of_its_own_sync() {
        for count in [0, 1, 9, 100] {
            // A pipe can't be synced.
            let is_pipe = |at: &usize| at % 7 == 3;
            let file = |at| {
                let pipe = || std::io::pipe().unwrap().0.into();
                if is_pipe(&at) { pipe() } else { tempfile::tempfile().unwrap().into() }
            };
            let files: Vec<OwnedFd> = (0..count).map(file).collect();
            let synced = sync_together(&files.iter().collect::<Vec<_>>());
            let failed = (0..count).filter(|&at| synced[at].is_err());
            assert!(failed.eq((0..count).filter(is_pipe)), "{synced:?}");
            assert_eq!(synced.len(), count);
        }
    }
}
