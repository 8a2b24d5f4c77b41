//! Which version of a file is which.

use rustix::fs::Stat;

use crate::{
    digest::Md5Digest,
    wire::{Mtime, Tag},
};

/// The coarsest times that a file system gives its files (FAT: two seconds). A change within so
/// long after another may leave no trace.
const TICK_NANOS: i128 = if cfg!(test) { 50_000_000 } else { 2_000_000_000 };

/// Tells one version of a file from another: whoever changes the bytes changes one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// Size in bytes.
    pub size: u64,
    /// When the bytes last changed.
    pub mtime: Mtime,
    /// When bytes, mode or links last changed; can't be set back.
    pub ctime: Mtime,
    /// Inode number.
    pub inode: u64,
    /// The device that the inode is on.
    pub device: u64,
}

impl Identity {
    /// As `fstat` reports it.
    #[must_use]
    pub fn of(stat: &Stat) -> Self {
        let time =
            |seconds: i64, nanos: u64| Mtime { seconds, nanos: u32::try_from(nanos).unwrap_or(0) };
        Self {
            size: u64::try_from(stat.st_size).unwrap_or(0),
            mtime: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime: time(stat.st_ctime, stat.st_ctime_nsec),
            inode: stat.st_ino,
            device: stat.st_dev,
        }
    }

    /// Whether any change from `now` on will show in the ctime.
    pub(super) fn is_settled(&self, now: Mtime) -> bool {
        nanos(now) - nanos(self.ctime) > TICK_NANOS
    }

    /// Whether whoever writes to the file within the tick of its ctime shows in the mtime.
    pub(super) fn shows_writes(&self) -> bool {
        nanos(self.ctime).abs_diff(nanos(self.mtime)) > TICK_NANOS.unsigned_abs()
    }

    /// The tag of this version: the same for the same version, also after a restart. It does not
    /// name the device, whose number may change from one boot to the next.
    #[must_use]
    pub fn tag(&self) -> Tag {
        let Self { size, mtime, ctime, inode, device: _ } = self;
        let text = format!("{size} {mtime} {ctime} {inode}");
        let hash = Md5Digest::of(text.as_bytes()).to_string();
        // Thirty-two hexadecimal digits always are a tag.
        hash.parse().unwrap_or_else(|()| unreachable!("a digest is a valid tag"))
    }
}

fn nanos(time: Mtime) -> i128 {
    i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanos)
}
