//! The walk over a tree on the server that comes here.
//!
//! The server may say anything: a name is taken only if it is one name, the depth is bounded, and so is
//! what is kept of listings. That a listing has no end can't be told from one that is long.

use std::{path::PathBuf, sync::Arc};

use super::{
    Skipped, TreeEvent,
    folder::Folder,
    held::{File, Tries},
    local::{below, bytes, os},
    queue::{Step, Walk},
    shared::Shared,
};
use crate::{
    client::{
        ClientError, Entry,
        commands::{EMPTY_PAGES_MAX, list_page},
        line::Line,
    },
    limits::{LISTING_ENTRIES_MAX, TREE_DEPTH_MAX, TREE_NAMES_MAX},
    store::{StoreError, is_partial_name},
    wire::{Mtime, RemotePath},
};

/// A file to be received.
#[derive(Debug)]
pub(super) struct GetFile {
    pub(super) folder: Arc<Folder>,
    /// One name, which the protocol can say.
    pub(super) name: RemotePath,
    pub(super) remote: RemotePath,
    /// As it was listed.
    pub(super) size: u64,
    /// As it was listed.
    pub(super) mtime: Mtime,
    pub(super) tries: Tries,
    /// Whether it is not to be asked for ahead any more.
    pub(super) alone: bool,
}

impl File for GetFile {
    fn shown(&self) -> PathBuf {
        self.folder.shown.join(os(self.name.as_bytes()))
    }

    fn tries(&mut self) -> &mut Tries {
        &mut self.tries
    }
}

/// A part of a listing to be read.
#[derive(Debug)]
pub(super) struct List {
    path: RemotePath,
    from: u64,
    room: usize,
    /// How often it was tried, on a line that was whole.
    pub(super) tries: u32,
}

/// What was read of it.
#[derive(Debug, Default)]
pub(super) struct Listed {
    entries: Vec<Entry>,
    next: Option<u64>,
}

impl List {
    pub(super) fn path(&self) -> &RemotePath {
        &self.path
    }

    /// Reads pages until there is no more room, or no more pages.
    pub(super) fn read(&self, line: &mut Line) -> Result<Listed, ClientError> {
        let mut listed = Listed { entries: Vec::new(), next: Some(self.from) };
        let mut empty = 0;
        while let Some(from) = listed.next.filter(|_| listed.entries.len() < self.room) {
            let (entries, next) = list_page(line, &self.path, from)?;
            // The server passes over names that went away, but not over page after page of them.
            empty = if entries.is_empty() { empty + 1 } else { 0 };
            if next == Some(from) || empty > EMPTY_PAGES_MAX {
                return Err(ClientError::Verification("the listing goes in a circle".to_owned()));
            }
            listed.entries.extend(entries);
            listed.next = next;
        }
        Ok(listed)
    }
}

pub(super) struct RemoteWalk {
    levels: Vec<Level>,
    left: Vec<Arc<Folder>>,
}

struct Level {
    path: RemotePath,
    folder: Arc<Folder>,
    /// What was listed, the next one last.
    entries: Vec<Entry>,
    /// Where the listing goes on.
    next: Option<u64>,
}

impl RemoteWalk {
    pub(super) fn new(path: RemotePath, folder: Arc<Folder>) -> Self {
        let level = Level { path, folder, entries: Vec::new(), next: Some(0) };
        Self { levels: vec![level], left: Vec::new() }
    }

    /// More of the listing, or nothing more of it.
    pub(super) fn listed(&mut self, listed: Listed) {
        if let Some(level) = self.levels.last_mut() {
            level.entries = listed.entries;
            level.entries.sort_unstable_by(|a, b| b.name.cmp(&a.name));
            level.next = listed.next;
        }
    }

    fn look(&mut self, entry: &Entry, shared: &Shared<'_>) -> Result<Option<GetFile>, ClientError> {
        let depth = self.levels.len();
        let Some(level) = self.levels.last() else {
            return Ok(None);
        };
        match entry.kind {
            // A file of such a name would be taken for a partial.
            _ if is_partial_name(&entry.name) => {
                shared.skipped(Skipped::Own);
                return Ok(None);
            }
            'f' | 'd' => {}
            'l' => {
                shared.skipped(Skipped::Link);
                return Ok(None);
            }
            _ => {
                shared.skipped(Skipped::Special);
                return Ok(None);
            }
        }
        let remote = below(&level.path, &entry.name)?;
        // One name, and one that the store takes: `list_page` has seen to slashes and dots.
        let name = RemotePath::new(&entry.name)?;
        let local = |error| ClientError::local(&level.folder.shown.join(os(&entry.name)), error);
        if name.as_bytes() != entry.name {
            return Err(local(StoreError::WrongKind("no file may come with this name")));
        }
        if entry.kind == 'd' {
            if depth >= TREE_DEPTH_MAX {
                return Err(local(StoreError::WrongKind("too many folders within one another")));
            }
            let folder = level.folder.below(&entry.name, Some(entry.mtime));
            let folder = folder.map_err(local)?;
            let (entries, next) = (Vec::new(), Some(0));
            self.levels.push(Level { path: remote, folder, entries, next });
            return Ok(None);
        }
        shared.tell(0, TreeEvent::Found { size: entry.size });
        let (folder, size, mtime) = (Arc::clone(&level.folder), entry.size, entry.mtime);
        let (tries, alone) = (Tries::default(), false);
        Ok(Some(GetFile { folder, name, remote, size, mtime, tries, alone }))
    }
}

impl Walk for RemoteWalk {
    type File = GetFile;
    type Job = List;
    /// A folder is synced when it is let go of.
    type Left = Vec<Arc<Folder>>;

    fn left_behind(&mut self) -> Self::Left {
        std::mem::take(&mut self.left)
    }

    fn step(&mut self, shared: &Shared<'_>) -> Step<GetFile, List> {
        let held: usize = self.levels.iter().map(|level| level.entries.len()).sum();
        while let Some(level) = self.levels.last_mut() {
            if let Some(entry) = level.entries.pop() {
                match self.look(&entry, shared) {
                    Ok(Some(file)) => return Step::File(file),
                    Ok(None) => {}
                    Err(error) => {
                        let folder = self.levels.last().map(|level| level.folder.shown.clone());
                        let shown = folder.unwrap_or_default().join(os(&entry.name));
                        match entry.kind {
                            'd' => shared.folder_failed(0, bytes(&shown), &error),
                            _ => shared.failed(0, bytes(&shown), &error),
                        }
                    }
                }
            } else if let Some(from) = level.next {
                let room = TREE_NAMES_MAX.saturating_sub(held).max(LISTING_ENTRIES_MAX);
                return Step::Job(List { path: level.path.clone(), from, room, tries: 0 });
            } else {
                self.left.extend(self.levels.pop().map(|level| level.folder));
            }
        }
        Step::End
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_was_walked_is_not_synced_while_others_wait_for_the_walk() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::top(dir.path(), None, Arc::default()).unwrap();
        let mut walk = RemoteWalk::new(RemotePath::new(b"").unwrap(), Arc::clone(&folder));
        let shared = Shared::new(&());
        assert!(matches!(walk.step(&shared), Step::Job(_)));
        walk.listed(Listed::default());
        assert!(matches!(walk.step(&shared), Step::End));
        assert_eq!(Arc::strong_count(&folder), 2);
        drop(walk.left_behind());
        assert_eq!(Arc::strong_count(&folder), 1);
    }
}
