//! Digests of files on the disk: a small file for each, named for device and inode.
//!
//! Nothing is synced and nothing is believed: a file that a power cut has torn, that is of another
//! version than is asked for, or that has a bit flipped is as good as none, and is removed.
//!
//! A file is a line that says of which version it is, a byte that says what follows (1: the MD5,
//! 4: the digests of all segments), these, and the MD5 over all that stands before it.

use std::{
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use rustix::{
    fs::{AtFlags, Dir, OFlags, statat},
    io::Errno,
};

use super::{
    Identity, StoreError,
    error::Doing,
    journal_file::write_all,
    own::{open_or_make, open_own},
    root::regular,
    source::read_full,
    sys,
};
use crate::{
    digest::{FileDigests, Md5Digest},
    limits::{DIGESTS_FILE_BYTES_MAX, DIGESTS_FILES_MAX, DIGESTS_FOLDER_BYTES_MAX},
    progress::segment_count,
};

const HAS_MD5: u8 = 1;
/// 2 stood for digests over leaves of another length.
const HAS_SEGMENTS: u8 = 4;

/// The folder.
#[derive(Debug)]
pub(super) struct DigestFolder {
    dir: OwnedFd,
    /// What is in it, as far as is known; `None` before it was counted.
    stored: Mutex<Option<Stored>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Stored {
    files: usize,
    bytes: u64,
    /// How much of that was added since it was counted.
    new_files: usize,
    new_bytes: u64,
}

impl DigestFolder {
    pub(super) fn new(dir: OwnedFd) -> Self {
        Self { dir, stored: Mutex::default() }
    }

    /// What is known of this version of a file.
    pub(super) fn find(&self, identity: &Identity) -> Option<FileDigests> {
        let file = open_own(&self.dir, &name_of(identity), OFlags::empty()).ok()?;
        let found = read(&file).and_then(|bytes| decode(&bytes, identity));
        if found.is_none() {
            self.remove(identity);
        }
        found
    }

    /// Writes down what is known of this version of a file, in place of what was of others.
    pub(super) fn keep(
        &self,
        identity: &Identity,
        digests: &FileDigests,
    ) -> Result<(), StoreError> {
        let bytes = encode(identity, digests);
        if bytes.len() as u64 > DIGESTS_FILE_BYTES_MAX {
            return Ok(());
        }
        let name = name_of(identity);
        let (file, is_new) = open_or_make(&self.dir, &name)?;
        let before = regular(&file).map_or(0, |stat| Identity::of(&stat).size);
        let written = sys::ftruncate(&file, 0)
            .doing("emptying a file of digests")
            .and_then(|()| write_all(&file, &bytes, 0, "writing digests"));
        if written.is_err() {
            let _ = sys::unlink(&self.dir, &name);
        }
        self.count(usize::from(is_new), bytes.len() as u64, before)?;
        written
    }

    pub(super) fn remove(&self, identity: &Identity) {
        // What is not there need not go, and what can't go is not believed. The count is put right
        // by the next sweep.
        let _ = sys::unlink(&self.dir, &name_of(identity));
    }

    /// Counts what was written, and makes room when there is too much.
    fn count(&self, files: usize, added: u64, removed: u64) -> Result<(), StoreError> {
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        let now = match *stored {
            Some(before) => Stored {
                files: before.files + files,
                bytes: (before.bytes + added).saturating_sub(removed),
                new_files: before.new_files + files,
                new_bytes: before.new_bytes + added,
            },
            None => self.sweep()?,
        };
        // Other processes add to it as well: now and then it is counted anew.
        let is_full = now.files > DIGESTS_FILES_MAX
            || now.bytes > DIGESTS_FOLDER_BYTES_MAX
            || now.new_files > DIGESTS_FILES_MAX / 8
            || now.new_bytes > DIGESTS_FOLDER_BYTES_MAX / 8;
        *stored = Some(if is_full { self.sweep()? } else { now });
        Ok(())
    }

    /// Counts the files; if there are too many, removes the oldest, a quarter at once, so that this
    /// is seldom.
    fn sweep(&self) -> Result<Stored, StoreError> {
        let mut found = Vec::new();
        let mut stored = Stored::default();
        for name in Dir::read_from(&self.dir).doing("reading the digests")? {
            let name = name.doing("reading the digests")?;
            let Some(name) = own_name(name.file_name().to_bytes()) else {
                continue;
            };
            let Ok(stat) = statat(&self.dir, &name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            let Identity { size, mtime, .. } = Identity::of(&stat);
            stored.files += 1;
            stored.bytes += size;
            found.push((mtime.seconds, mtime.nanos, size, name));
        }
        if stored.files <= DIGESTS_FILES_MAX && stored.bytes <= DIGESTS_FOLDER_BYTES_MAX {
            return Ok(stored);
        }
        found.sort_unstable();
        for (_, _, size, name) in found {
            if stored.files <= DIGESTS_FILES_MAX / 4 * 3
                && stored.bytes <= DIGESTS_FOLDER_BYTES_MAX / 4 * 3
            {
                break;
            }
            match sys::unlink(&self.dir, &name) {
                // Another process was quicker.
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(StoreError::from_errno("removing old digests", errno)),
            }
            stored.files -= 1;
            stored.bytes -= size;
        }
        Ok(stored)
    }
}

/// All of a file, if it is of a length that one of ours may have.
fn read(file: &OwnedFd) -> Option<Vec<u8>> {
    let length = Identity::of(&regular(file).ok()?).size;
    if length > DIGESTS_FILE_BYTES_MAX {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(length).ok()?];
    let have = read_full(file, 0, &mut bytes).ok()?;
    bytes.truncate(have);
    Some(bytes)
}

fn name_of(identity: &Identity) -> String {
    let Identity { device, inode, .. } = identity;
    Md5Digest::of(format!("{device} {inode}").as_bytes()).to_string()
}

/// A name that [`name_of`] may have made.
fn own_name(name: &[u8]) -> Option<String> {
    let name = std::str::from_utf8(name).ok()?;
    name.parse::<Md5Digest>().ok().map(|_| name.to_owned())
}

fn head_of(identity: &Identity) -> String {
    let Identity { size, mtime, ctime, inode, device } = identity;
    format!("tow digests 1 {device} {inode} {size} {mtime} {ctime}\n")
}

fn encode(identity: &Identity, digests: &FileDigests) -> Vec<u8> {
    let FileDigests { segments, md5 } = digests;
    let mut bytes = head_of(identity).into_bytes();
    let has = |there: bool, what: u8| if there { what } else { 0 };
    bytes.push(has(md5.is_some(), HAS_MD5) | has(segments.is_some(), HAS_SEGMENTS));
    let all = md5.iter().chain(segments.iter().flat_map(|segments| segments.iter()));
    all.for_each(|digest| bytes.extend(digest.0));
    let check = Md5Digest::of(&bytes);
    bytes.extend(check.0);
    bytes
}

/// What the file says of this very version; `None` if it is of another, or spoiled.
fn decode(bytes: &[u8], identity: &Identity) -> Option<FileDigests> {
    let (bytes, check) = bytes.split_last_chunk::<16>()?;
    if Md5Digest::of(bytes).0 != *check {
        return None;
    }
    let (&has, digests) = bytes.strip_prefix(head_of(identity).as_bytes())?.split_first()?;
    let (digests, []) = digests.as_chunks::<16>() else {
        return None;
    };
    let (md5, segments) = match has & HAS_MD5 {
        0 => (None, digests),
        _ => digests.split_first().map(|(md5, rest)| (Some(Md5Digest(*md5)), rest))?,
    };
    let count = if has & HAS_SEGMENTS == 0 { 0 } else { segment_count(identity.size) };
    if segments.len() as u64 != count {
        return None;
    }
    let segments = segments.iter().map(|&digest| Md5Digest(digest));
    let segments = (has & HAS_SEGMENTS != 0).then(|| segments.collect());
    Some(FileDigests { segments, md5 })
}
