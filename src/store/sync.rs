//! Many files made durable at once.
//!
//! To sync a file has the disk empty its cache, each time. One `syncfs` does that once for all of them, but
//! writes out whatever else waits to be written on that file system: so it is only for many files, and only
//! while little waits.

use std::{
    os::fd::OwnedFd,
    sync::OnceLock,
    thread::{self, Builder},
};

use rustix::{
    fs::{self, FsWord},
    io::{Errno, Result},
    system::uname,
};

#[cfg(test)]
use super::tests::hook::{self, Call};
use crate::limits::{FILES_PER_SYNCER_MIN, SYNCED_AT_ONCE_MIN, SYNCERS_MAX, WAITING_BYTES_MAX};

/// Makes files with their attributes durable; says for each, in their order, what came of it. The first was
/// opened before anything was written to any of them.
pub(crate) fn sync_together(files: &[&OwnedFd]) -> Vec<Result<()>> {
    #[cfg(test)]
    let hooked: Vec<_> =
        files.iter().map(|file| hook::call(|| Call::Sync(hook::inode(file)))).collect();
    let synced = if sync_at_once(files) { vec![Ok(()); files.len()] } else { sync_each(files) };
    #[cfg(test)]
    let synced =
        hooked.into_iter().zip(synced).map(|(hooked, synced)| hooked.and(synced)).collect();
    synced
}

/// Syncs the file system that they are on, if that is known to do it; returns whether all is well. If it is
/// not, that may be for a file of others: each is told of its own errors by its own sync, which is its
/// first.
fn sync_at_once(files: &[&OwnedFd]) -> bool {
    let Some(first) = files.first().filter(|_| files.len() >= SYNCED_AT_ONCE_MIN) else {
        return false;
    };
    let device = |file: &&OwnedFd| fs::fstat(file).map(|stat| stat.st_dev);
    let same = device(first);
    let syncs_all = tells_errors() && is_ext4(first) && same.is_ok();
    syncs_all
        && files.iter().all(|file| device(file) == same)
        && waiting_bytes().is_some_and(|bytes| bytes <= WAITING_BYTES_MAX)
        && fs::syncfs(first).is_ok()
}

/// Whether `syncfs` fails if anything could not be written since the file was opened that it is called
/// with: so it does from Linux 5.8 on.
fn tells_errors() -> bool {
    static TELLS: OnceLock<bool> = OnceLock::new();
    *TELLS.get_or_init(|| version(&uname().release().to_string_lossy()) >= Some((5, 8)))
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|it: char| !it.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Others may understand less by it (FUSE), or were not tried.
fn is_ext4(file: &OwnedFd) -> bool {
    /// statfs(2), "EXT4_SUPER_MAGIC".
    const EXT4: FsWord = 0xef53;
    fs::fstatfs(file).is_ok_and(|fs| fs.f_type == EXT4)
}

/// What waits to be written on the whole machine, in bytes.
fn waiting_bytes() -> Option<u64> {
    waiting_in(&std::fs::read_to_string("/proc/meminfo").ok()?)
}

/// proc_meminfo(5): `Dirty` and `Writeback`.
fn waiting_in(meminfo: &str) -> Option<u64> {
    let kibibytes = |name| {
        let mut lines = meminfo.lines();
        let rest = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        rest.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    kibibytes("Dirty")?.checked_add(kibibytes("Writeback")?)?.checked_mul(1024)
}

/// Syncs one by one, several at a time. All begin to be written out before the first is synced: on a
/// file system with a journal that sync then does most of the work of all.
fn sync_each(files: &[&OwnedFd]) -> Vec<Result<()>> {
    // A hint, which need not be taken.
    of_each(files, |file| fs::fadvise(file, 0, None, fs::Advice::DontNeed));
    of_each(files, |file| fs::fsync(file))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_a_kernel_is_the_first_two_numbers_of_its_release() {
        for (release, expected) in [
            ("6.18.44-v1", Some((6, 18))),
            ("5.8", Some((5, 8))),
            ("4.19.0+", Some((4, 19))),
            ("6", None),
            ("", None),
            ("linux", None),
        ] {
            assert_eq!(version(release), expected, "{release}");
        }
    }

    #[test]
    fn what_waits_to_be_written_is_what_is_dirty_and_what_is_on_its_way() {
        let whole = "MemFree:  7 kB\nDirty:      116 kB\nWriteback:   4 kB\nWritebackTmp: 9 kB\n";
        assert_eq!(waiting_in(whole), Some(120 << 10));
        for meminfo in ["", "Dirty: 1 kB", "Writeback: 1 kB", "Dirty: -1 kB\nWriteback: 1 kB"] {
            assert_eq!(waiting_in(meminfo), None, "{meminfo}");
        }
        let real = waiting_bytes();
        assert!(real.is_some_and(|bytes| bytes < 1 << 50), "{real:?}");
    }

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
