//! The jail: a directory handle beneath which every path is resolved.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat, fstat, fsync, mkdirat, openat, openat2,
    renameat, statat, unlinkat,
};

use super::{
    StoreError,
    error::Doing,
    listing::{Entry, Kind},
};
use crate::wire::RemotePath;

/// The folder of partials and journals, beneath the root. [`RemotePath`] refuses its name.
const INTERNAL: &str = ".tow";

/// Where partials are, within it.
const PARTIALS: &str = "partials";

/// A directory beneath which paths are resolved by the kernel: no `..`, no link and no rename
/// leads out of it.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    /// The folder of partials, with its identity: a link to it from within is not followed.
    internal: Option<(OwnedFd, [(u64, u64); 2])>,
}

impl Root {
    /// Opens a directory as it is: for a client, whose partials lie beside their targets.
    ///
    /// # Errors
    /// Whatever `open` says.
    pub fn plain(path: &Path) -> Result<Self, StoreError> {
        let dir = openat(CWD, path, DIRECTORY, Mode::empty()).doing("opening the directory")?;
        Ok(Self {
            dir,
            internal: None,
        })
    }

    /// Opens the root of a server and makes it, and its internal folders, if they are absent.
    ///
    /// # Errors
    /// Whatever `mkdir` and `open` say.
    pub fn serve(path: &Path) -> Result<Self, StoreError> {
        match mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(StoreError::from_errno("making the root", errno)),
        }
        let mut root = Self::plain(path)?;
        let internal = root.internal_dir(root.dir.as_fd(), INTERNAL)?;
        let partials = root.internal_dir(internal.as_fd(), PARTIALS)?;
        let identities = [identity(internal.as_fd())?, identity(partials.as_fd())?];
        root.internal = Some((partials, identities));
        Ok(root)
    }

    fn internal_dir(&self, parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, StoreError> {
        match mkdirat(parent, name, Mode::RWXU) {
            Ok(()) => fsync(parent).doing("syncing the root")?,
            Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(StoreError::from_errno("making .tow", errno)),
        }
        // A link planted in its place is not followed.
        openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty()).doing("opening .tow")
    }

    /// Where the partials are, if this root has a place for them.
    pub(super) fn partials(&self) -> Option<BorrowedFd<'_>> {
        self.internal.as_ref().map(|(dir, _)| dir.as_fd())
    }

    /// Opens what `path` names.
    fn open(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, StoreError> {
        let path = if path.is_empty() { &b"."[..] } else { path };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        openat2(
            &self.dir,
            path,
            flags | OFlags::CLOEXEC,
            Mode::empty(),
            resolve,
        )
        .doing("opening")
    }

    /// Opens a directory.
    pub(super) fn open_dir(&self, path: &[u8]) -> Result<OwnedFd, StoreError> {
        let dir = self.open(path, DIRECTORY)?;
        if let Some((_, hidden)) = &self.internal
            && hidden.contains(&identity(dir.as_fd())?)
        {
            return Err(StoreError::NotFound);
        }
        Ok(dir)
    }

    /// Opens a regular file to be read; whatever else it may be is refused without waiting for
    /// it.
    pub(super) fn open_file(&self, path: &RemotePath) -> Result<OwnedFd, StoreError> {
        let (parent, name) = self.parent(path)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        // The last name may be a link; where it leads is resolved beneath the root as well.
        let file = match openat(&parent, name, flags | OFlags::NOFOLLOW, Mode::empty()) {
            Err(rustix::io::Errno::LOOP) => self.open(path.as_bytes(), flags)?,
            // A socket, or a device without a driver.
            Err(rustix::io::Errno::NXIO) => return Err(NOT_REGULAR),
            other => other.doing("opening")?,
        };
        regular(&file)?;
        Ok(file)
    }

    /// The open directory that holds `path`, and its last name.
    pub(super) fn parent<'a>(
        &self,
        path: &'a RemotePath,
    ) -> Result<(OwnedFd, &'a [u8]), StoreError> {
        let (parent, name) = path
            .split()
            .ok_or(StoreError::WrongKind("it is the root"))?;
        Ok((self.open_dir(parent)?, name))
    }

    /// Kind, size and times of a name; of what a link leads to, if that lies beneath.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] and the like.
    pub fn stat(&self, path: &RemotePath) -> Result<Entry, StoreError> {
        if path.is_root() {
            let stat = fstat(&self.dir).doing("reading the root")?;
            return Ok(Entry::new(b"".to_vec(), &stat));
        }
        let (parent, name) = self.parent(path)?;
        let stat = statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW).doing("looking at it")?;
        let entry = Entry::new(name.to_vec(), &stat);
        if entry.kind != Kind::Link {
            return Ok(entry);
        }
        match self.open(path.as_bytes(), OFlags::PATH) {
            Ok(target) => {
                let stat = fstat(&target).doing("looking at it")?;
                Ok(Entry::new(name.to_vec(), &stat))
            }
            // It leads nowhere, or out: it is a link, and no more is said.
            Err(_) => Ok(entry),
        }
    }

    /// Makes a directory, durably.
    ///
    /// # Errors
    /// [`StoreError::Exists`] and the like.
    pub fn make_dir(&self, path: &RemotePath) -> Result<(), StoreError> {
        if path.is_root() {
            return Err(StoreError::Exists);
        }
        let (parent, name) = self.parent(path)?;
        mkdirat(&parent, name, Mode::from_raw_mode(0o777)).doing("making the directory")?;
        fsync(&parent).doing("syncing the directory")
    }

    /// Removes a file, durably. A link is removed, not what it leads to.
    ///
    /// # Errors
    /// [`StoreError::WrongKind`] for a directory, and the like.
    pub fn remove(&self, path: &RemotePath) -> Result<(), StoreError> {
        let (parent, name) = self.parent(path)?;
        unlinkat(&parent, name, AtFlags::empty()).doing("removing the file")?;
        fsync(&parent).doing("syncing the directory")
    }

    /// Removes an empty directory, durably.
    ///
    /// # Errors
    /// [`StoreError::WrongKind`] if it is not empty or no directory, and the like.
    pub fn remove_dir(&self, path: &RemotePath) -> Result<(), StoreError> {
        let (parent, name) = self.parent(path)?;
        unlinkat(&parent, name, AtFlags::REMOVEDIR).doing("removing the directory")?;
        fsync(&parent).doing("syncing the directory")
    }

    /// Renames, durably; replaces a file that has the new name.
    ///
    /// # Errors
    /// As `rename` has them, both names resolved beneath the root on their own.
    pub fn rename(&self, from: &RemotePath, to: &RemotePath) -> Result<(), StoreError> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        renameat(&from_dir, from_name, &to_dir, to_name).doing("renaming")?;
        fsync(&to_dir).doing("syncing the directory")?;
        fsync(&from_dir).doing("syncing the directory")
    }

    /// Whether a name is the internal folder's, at the root.
    pub(super) fn hides(&self, dir: BorrowedFd<'_>, name: &[u8]) -> bool {
        name == INTERNAL.as_bytes()
            && self.internal.is_some()
            && identity(dir).ok() == identity(self.dir.as_fd()).ok()
    }
}

const DIRECTORY: OFlags = OFlags::RDONLY
    .union(OFlags::DIRECTORY)
    .union(OFlags::CLOEXEC);
const NOT_REGULAR: StoreError = StoreError::WrongKind("not a regular file");

/// Device and inode: which directory this is, whatever its name.
fn identity(dir: BorrowedFd<'_>) -> Result<(u64, u64), StoreError> {
    let stat = fstat(dir).doing("looking at a directory")?;
    Ok((stat.st_dev, stat.st_ino))
}

/// What an open file is, if it is a regular one.
pub(super) fn regular(file: impl AsFd) -> Result<Stat, StoreError> {
    let stat = fstat(file).doing("reading the kind of a file")?;
    match Kind::of(&stat) {
        Kind::File => Ok(stat),
        Kind::Directory => Err(StoreError::WrongKind("it is a directory")),
        Kind::Link | Kind::Other => Err(NOT_REGULAR),
    }
}
