//! Directories, a page at a time: a directory of a million names is never in memory as a whole.

use std::mem::MaybeUninit;

use rustix::{
    fs::{AtFlags, FileType, RawDir, SeekFrom, Stat, seek, statat},
    io::Errno,
};

use super::{Root, StoreError, error::Doing};
use crate::{
    limits::{LISTING_BYTES_MAX, LISTING_ENTRIES_MAX},
    wire::{Mtime, RemotePath},
};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
    /// A pipe, a socket or a device: can't be transferred.
    Other,
}

impl Kind {
    pub(super) fn of(stat: &Stat) -> Self {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Self::File,
            FileType::Directory => Self::Directory,
            FileType::Symlink => Self::Link,
            _ => Self::Other,
        }
    }

    /// One letter, as on the wire.
    #[must_use]
    pub const fn letter(self) -> char {
        match self {
            Self::File => 'f',
            Self::Directory => 'd',
            Self::Link => 'l',
            Self::Other => 'o',
        }
    }
}

/// One name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name's bytes.
    pub name: Vec<u8>,
    /// What it stands for.
    pub kind: Kind,
    /// Size in bytes; 0 for what is no file.
    pub size: u64,
    /// Modification time.
    pub mtime: Mtime,
}

impl Entry {
    pub(super) fn new(name: Vec<u8>, stat: &Stat) -> Self {
        let identity = super::Identity::of(stat);
        let kind = Kind::of(stat);
        let size = if kind == Kind::File { identity.size } else { 0 };
        Self { name, kind, size, mtime: identity.mtime }
    }
}

/// A part of a directory, in the order in which the file system has it.
#[derive(Debug, Default)]
pub struct Page {
    /// The names.
    pub entries: Vec<Entry>,
    /// Where the next page starts; `None` behind the last.
    pub next: Option<u64>,
}

impl Root {
    /// One page of a directory. `from` is 0, or [`Page::next`] of the page before.
    ///
    /// # Errors
    /// [`StoreError::WrongKind`] if it is no directory, and the like.
    pub fn list(&self, path: &RemotePath, from: u64) -> Result<Page, StoreError> {
        let dir = self.open_dir(path.as_bytes())?;
        if from > 0 {
            match seek(&dir, SeekFrom::Start(from)) {
                Err(Errno::INVAL | Errno::OVERFLOW) => {
                    return Err(StoreError::WrongKind("no page of this directory starts there"));
                }
                sought => sought.doing("going on in the directory")?,
            };
        }
        let mut buffer = [MaybeUninit::<u8>::uninit(); 8192];
        let mut names = RawDir::new(&dir, &mut buffer);
        let mut page = Page::default();
        let mut bytes = 0;
        let mut next = from;
        while let Some(name) = names.next() {
            let name = name.doing("reading the directory")?;
            if page.entries.len() == LISTING_ENTRIES_MAX || bytes >= LISTING_BYTES_MAX {
                page.next = Some(next);
                break;
            }
            next = name.next_entry_cookie();
            let bare = name.file_name().to_bytes();
            if bare == b"." || bare == b".." || self.hides(bare) {
                continue;
            }
            match statat(&dir, bare, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => {
                    bytes += 3 * bare.len() + 80;
                    page.entries.push(Entry::new(bare.to_vec(), &stat));
                }
                // Removed since it was read.
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(StoreError::from_errno("looking at a name", errno)),
            }
        }
        Ok(page)
    }
}
