//! Many files made durable at once.
//!
//! To sync a file has the disk empty its cache, each time. One `syncfs` does that once for all of them, but
//! writes out whatever else waits to be written on that file system: so it is only for many files, and only
//! while little waits.

use std::{
    os::fd::OwnedFd,
    thread::{self, Builder},
};

use rustix::{
    fs::{self, FsWord},
    io::{Errno, Result},
    system::uname,
};

use super::sys;
#[cfg(test)]
use super::tests::hook::{self, Call};
use crate::limits::{DIRTY_BYTES_MAX, FILES_PER_SYNCER_MIN, SYNCED_AT_ONCE_MIN, SYNCERS_MAX};

/// Makes files with their attributes, or directories, durable; says for each, in their order, what came of
/// it. The first was opened before anything was changed in any of them.
pub(crate) fn sync_together(files: &[&OwnedFd]) -> Vec<Result<()>> {
    #[cfg(test)]
    let hooked: Vec<_> =
        files.iter().map(|file| hook::call(|| Call::Sync(hook::inode(file)))).collect();
    let is_at_once = files.len() >= SYNCED_AT_ONCE_MIN && Known::of(files).is_at_once();
    let synced = sync_by(files, is_at_once, |first| fs::syncfs(first));
    #[cfg(test)]
    let synced =
        hooked.into_iter().zip(synced).map(|(hooked, synced)| hooked.and(synced)).collect();
    synced
}

/// Syncs all at once by `sync_all`, if it can be so, or each.
fn sync_by(
    files: &[&OwnedFd],
    is_at_once: bool,
    sync_all: impl FnOnce(&OwnedFd) -> Result<()>,
) -> Vec<Result<()>> {
    match files.first() {
        Some(first) if is_at_once && sync_all(first).is_ok() => {
            // ext4 without a journal writes inodes only behind the order to the disk to empty its cache. This
            // is a second one; if it fails, nothing is known of any of them.
            vec![fs::fsync(first); files.len()]
        }
        // What failed may be a file of others. Each is told of its own errors by its own sync, which is
        // its first.
        _ => sync_each(files),
    }
}

/// What it depends on whether files can be synced at once.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// The first two numbers of the kernel's release.
    kernel: Option<(u32, u32)>,
    /// statfs(2), of the first.
    file_system: Option<FsWord>,
    /// Whether all are on the same.
    is_one: bool,
    /// What waits to be written on the whole machine.
    dirty_bytes: Option<u64>,
}

impl Known {
    fn of(files: &[&OwnedFd]) -> Self {
        let device = |file: &&OwnedFd| fs::fstat(file).map(|stat| stat.st_dev).ok();
        let first = files.first();
        let known_device = first.and_then(device);
        let meminfo = std::fs::read_to_string("/proc/meminfo").ok();
        Self {
            kernel: version(&uname().release().to_string_lossy()),
            file_system: first.and_then(|file| fs::fstatfs(file).ok()).map(|fs| fs.f_type),
            is_one: known_device.is_some() && files.iter().all(|file| device(file) == known_device),
            dirty_bytes: meminfo.and_then(|meminfo| dirty_bytes(&meminfo)),
        }
    }

    /// Whether `syncfs` makes all of them durable, says so if it does not, and does little besides.
    fn is_at_once(&self) -> bool {
        /// It fails if data could not be written since the file was opened that it is called with (5.8),
        /// and if the file system says that something failed (5.17).
        const TELLS_ERRORS: (u32, u32) = (5, 17);
        self.kernel >= Some(TELLS_ERRORS)
            // Others may understand less by it (FUSE), or were not tried.
            && self.file_system == Some(sys::EXT4)
            && self.is_one
            && self.dirty_bytes.is_some_and(|bytes| bytes <= DIRTY_BYTES_MAX)
    }
}

/// The first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|it: char| !it.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// proc_meminfo(5): `Dirty` and `Writeback`.
fn dirty_bytes(meminfo: &str) -> Option<u64> {
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
        assert_eq!(dirty_bytes(whole), Some(120 << 10));
        for meminfo in ["", "Dirty: 1 kB", "Writeback: 1 kB", "Dirty: -1 kB\nWriteback: 1 kB"] {
            assert_eq!(dirty_bytes(meminfo), None, "{meminfo}");
        }
    }

    #[test]
    fn only_one_ext4_with_little_to_write_is_synced_at_once_and_only_if_the_kernel_tells_errors() {
        let good = Known {
            kernel: Some((5, 17)),
            file_system: Some(sys::EXT4),
            is_one: true,
            dirty_bytes: Some(DIRTY_BYTES_MAX),
        };
        assert!(good.is_at_once());
        for bad in [
            Known { kernel: Some((5, 16)), ..good },
            Known { kernel: Some((4, 20)), ..good },
            Known { kernel: None, ..good },
            Known { file_system: Some(0x6573_5546), ..good },
            Known { file_system: None, ..good },
            Known { is_one: false, ..good },
            Known { dirty_bytes: Some(DIRTY_BYTES_MAX + 1), ..good },
            Known { dirty_bytes: None, ..good },
        ] {
            assert!(!bad.is_at_once(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_known_of_files_is_found_out() {
        let [one, two] = [(); 2].map(|()| OwnedFd::from(tempfile::tempfile().unwrap()));
        let known = Known::of(&[&one, &two]);
        assert!(known.is_one && known.kernel >= Some((5, 6)), "{known:?}");
        assert!(known.file_system.is_some() && known.dirty_bytes.is_some(), "{known:?}");
        let pipe = std::io::pipe().unwrap().0.into();
        assert!(!Known::of(&[&one, &pipe]).is_one);
    }

    #[test]
    fn a_sync_of_all_counts_for_each_and_one_that_fails_for_none() {
        let [one, two] = [(); 2].map(|()| OwnedFd::from(tempfile::tempfile().unwrap()));
        // A pipe can't be synced.
        let pipe: OwnedFd = std::io::pipe().unwrap().0.into();
        let files = [&one, &pipe, &two];
        assert_eq!(sync_by(&files, true, |_| Ok(())), [Ok(()); 3]);
        let each = [Ok(()), Err(Errno::INVAL), Ok(())];
        assert_eq!(sync_by(&files, true, |_| Err(Errno::IO)), each);
        assert_eq!(sync_by(&files, false, |_| panic!("it may not be")), each);
        // The disk did not empty its cache.
        let all_failed = [Err(Errno::INVAL); 3];
        assert_eq!(sync_by(&[&pipe, &one, &two], true, |_| Ok(())), all_failed);
        assert_eq!(sync_by(&[], true, |_| Ok(())), []);
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
