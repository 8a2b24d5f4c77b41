//! Digests of files that were hashed before, so that nothing is hashed twice.
//!
//! An entry is of one [`Identity`], and is of use to no other: whoever changes a file changes that,
//! at the latest by its ctime, which nobody can set back. That holds only of times that can tell
//! the change from the hashing, so a file that was changed a moment ago is not remembered.
//!
//! Used by the disk thread alone. The entries of all roots of a server share one memory; beside it
//! each root has a [folder](super::digest_folder) that survives the process.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{Identity, Partial, Root, Source, StoreError};
use crate::{
    digest::FileDigests,
    limits::{DIGESTS_BYTES_MAX, DIGESTS_FILE_SIZE_MIN},
    wire::Mtime,
};

/// What an entry takes beside its digests, in bytes: keys, maps, and an even share of their room.
const ENTRY_BYTES: usize = 320;

/// Device and inode.
type FileKey = (u64, u64);

/// The entries in memory. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct DigestCache(Arc<Mutex<Memory>>);

#[derive(Debug, Default)]
struct Memory {
    entries: HashMap<FileKey, Entry>,
    /// By when they were last used.
    order: BTreeMap<u64, FileKey>,
    /// Counts uses.
    uses: u64,
    /// Invariant: at most [`DIGESTS_BYTES_MAX`], and the sum over all entries.
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    identity: Identity,
    digests: FileDigests,
    used: u64,
}

/// What is known of files.
impl Root {
    /// What is known of the very version of a file that is open.
    #[must_use]
    pub fn digests_of(&self, source: &Source) -> FileDigests {
        self.known(source.identity())
    }

    /// Remembers what a file that is open was found to hash to, from its first byte to its last
    /// since it was opened. Does nothing if it has changed since, or so little before that a change
    /// might not show.
    ///
    /// # Errors
    /// It could not be written down: then it is forgotten with the process.
    pub fn remember(&self, source: &Source, digests: FileDigests) -> Result<(), StoreError> {
        if source.is_settled() && source.is_unchanged() {
            self.keep(source.identity(), digests)
        } else {
            Ok(())
        }
    }

    /// Remembers the digests of a file that was received and is visible.
    ///
    /// # Errors
    /// As [`Root::remember`].
    pub fn remember_visible(
        &self,
        partial: &Partial,
        digests: FileDigests,
    ) -> Result<(), StoreError> {
        partial.visible().map_or(Ok(()), |identity| self.keep(identity, digests))
    }

    /// Remembers the digests of a small file that has just become visible, if it has this time and
    /// whoever writes to it since is sure to show.
    pub(super) fn keep_visible(&self, identity: &Identity, mtime: Mtime, digests: &FileDigests) {
        if identity.mtime == mtime && identity.shows_writes() {
            self.digest_cache().lock().put(*identity, digests.clone());
        }
    }

    /// Forgets what is known of a file that is open.
    pub fn forget(&self, source: &Source) {
        let identity = source.identity();
        self.digest_cache().lock().remove(key(identity));
        if let Some(folder) = self.digest_folder() {
            folder.remove(identity);
        }
    }

    pub(super) fn known(&self, identity: &Identity) -> FileDigests {
        let found = self.digest_cache().lock().find(identity);
        found.or_else(|| self.read_known(identity)).unwrap_or_default()
    }

    fn read_known(&self, identity: &Identity) -> Option<FileDigests> {
        if identity.size < DIGESTS_FILE_SIZE_MIN {
            return None;
        }
        let found = self.digest_folder()?.find(identity)?;
        self.digest_cache().lock().put(*identity, found.clone());
        Some(found)
    }

    pub(super) fn keep(&self, identity: &Identity, digests: FileDigests) -> Result<(), StoreError> {
        let digests = digests.or(&self.known(identity));
        self.digest_cache().lock().put(*identity, digests.clone());
        match self.digest_folder() {
            // To hash a small file again costs less than to look for it.
            Some(folder) if identity.size >= DIGESTS_FILE_SIZE_MIN => {
                folder.keep(identity, &digests)
            }
            _ => Ok(()),
        }
    }
}

impl DigestCache {
    fn lock(&self) -> MutexGuard<'_, Memory> {
        // Whoever held it did nothing that could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Entries and bytes in memory.
    #[cfg(test)]
    pub(super) fn usage(&self) -> (usize, usize) {
        let memory = self.lock();
        assert_eq!(memory.entries.len(), memory.order.len());
        let sum: usize = memory.entries.values().map(|entry| cost(&entry.digests)).sum();
        assert_eq!(sum, memory.bytes);
        (memory.entries.len(), memory.bytes)
    }

    /// Forgets all that is in memory, as a new process has.
    #[cfg(test)]
    pub(super) fn clear(&self) {
        *self.lock() = Memory::default();
    }
}

impl Memory {
    fn find(&mut self, identity: &Identity) -> Option<FileDigests> {
        let entry = self.entries.get_mut(&key(identity))?;
        if entry.identity != *identity {
            return None;
        }
        self.uses += 1;
        self.order.remove(&entry.used);
        entry.used = self.uses;
        self.order.insert(entry.used, key(identity));
        Some(entry.digests.clone())
    }

    /// Puts an entry in place of any other of the same file; the longest unused ones make room.
    fn put(&mut self, identity: Identity, digests: FileDigests) {
        self.remove(key(&identity));
        let cost = cost(&digests);
        // One that would drive out most others is read from the folder when it is needed.
        if cost > DIGESTS_BYTES_MAX / 2 {
            return;
        }
        self.uses += 1;
        self.bytes += cost;
        self.order.insert(self.uses, key(&identity));
        let entry = Entry { identity, digests, used: self.uses };
        self.entries.insert(key(&identity), entry);
        while self.bytes > DIGESTS_BYTES_MAX
            && let Some((_, oldest)) = self.order.first_key_value()
        {
            self.remove(*oldest);
        }
    }

    fn remove(&mut self, key: FileKey) {
        if let Some(entry) = self.entries.remove(&key) {
            self.order.remove(&entry.used);
            self.bytes -= cost(&entry.digests);
        }
    }
}

const fn key(identity: &Identity) -> FileKey {
    (identity.device, identity.inode)
}

fn cost(digests: &FileDigests) -> usize {
    let segments = digests.segments.as_ref().map_or(0, |segments| segments.len());
    ENTRY_BYTES + 16 * segments
}
