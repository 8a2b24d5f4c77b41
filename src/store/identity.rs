//! Which version of a file is which.

use rustix::fs::Stat;

use crate::{
    digest::Md5Digest,
    wire::{Mtime, Tag},
};

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
        }
    }

    /// The tag of this version: the same for the same version, also after a restart. It does not
    /// name the device, whose number may change from one boot to the next.
    #[must_use]
    pub fn tag(&self) -> Tag {
        let Self { size, mtime, ctime, inode } = self;
        let text = format!("{size} {mtime} {ctime} {inode}");
        let hash = Md5Digest::of(text.as_bytes()).to_string();
        // Thirty-two hexadecimal digits always are a tag.
        hash.parse().unwrap_or_else(|()| unreachable!("a digest is a valid tag"))
    }
}
