//! Homes: folders beneath the served root that are roots themselves, each with partials of its own.

use std::{os::fd::OwnedFd, os::unix::ffi::OsStrExt, path::Path};

use rustix::{
    fs::{Mode, ResolveFlags, fsync, mkdirat},
    io::Errno,
};

use super::{
    Root, StoreError,
    error::Doing,
    root::{internal_dir, internal_if_there},
};
use crate::wire::RemotePath;

impl Root {
    /// Opens a home beneath this root, with internal folders of its own. Makes it, and the
    /// directories on the way to it, if they are absent. No link is followed. What was opened
    /// stays the home, also if it is moved or replaced.
    ///
    /// # Errors
    /// [`StoreError::Denied`] for an absolute path, one with `..` or `.tow`, and for a link on
    /// the way; [`StoreError::WrongKind`] for a file; whatever `mkdir` and `open` say.
    pub fn home(&self, path: &Path) -> Result<Self, StoreError> {
        let path = home_path(path)?;
        let path = path.as_bytes();
        // Each time from this root, so that what is moved out of it meanwhile is not followed.
        let ends = path.iter().enumerate().filter(|&(_, &byte)| byte == b'/').map(|(at, _)| at);
        let mut parent: &[u8] = b"";
        for end in ends.chain([path.len()]) {
            let (way, from) = (path.get(..end).unwrap_or_default(), parent.len());
            let name = way.get(from..).unwrap_or_default();
            let name = name.strip_prefix(b"/").unwrap_or(name);
            if !name.is_empty() {
                make_if_absent(&self.walk_to(parent)?, name)?;
            }
            parent = way;
        }
        self.at_home(path)?.with_internal(internal_dir)
    }

    /// Opens a home as [`Root::home`] does, but makes nothing: `None` if it, or the folder of its
    /// partials, is not there.
    ///
    /// # Errors
    /// As [`Root::home`].
    pub fn home_if_there(&self, path: &Path) -> Result<Option<Self>, StoreError> {
        let path = home_path(path)?;
        let open = || self.at_home(path.as_bytes())?.with_internal(internal_if_there);
        match open() {
            Err(StoreError::NotFound) => Ok(None),
            home => home.map(Some),
        }
    }

    /// Opens a home as the user file names it: beneath this root, or elsewhere by an absolute path.
    /// What is free on a file system, and the digests that are known, are shared with this root.
    ///
    /// # Errors
    /// As [`Root::home`] and [`Root::serve`].
    pub fn home_anywhere(&self, path: &Path) -> Result<Self, StoreError> {
        let home = if path.is_absolute() {
            Self::serve(path)?.sharing_space_of(self)
        } else {
            self.home(path)?
        };
        Ok(home.sharing_digests_of(self))
    }

    /// The same, but makes nothing.
    ///
    /// # Errors
    /// As [`Root::home_anywhere`].
    pub fn home_anywhere_if_there(&self, path: &Path) -> Result<Option<Self>, StoreError> {
        if !path.is_absolute() {
            return Ok(self.home_if_there(path)?.map(|home| home.sharing_digests_of(self)));
        }
        let plain = match Self::plain(path) {
            Err(StoreError::NotFound) => return Ok(None),
            plain => plain?,
        };
        match plain.with_internal(internal_if_there) {
            Err(StoreError::NotFound) => Ok(None),
            home => Ok(Some(home?.sharing_space_of(self).sharing_digests_of(self))),
        }
    }

    /// Whether nothing has the name that a home would have; `false` if that can't be told.
    #[must_use]
    pub fn is_free(&self, path: &Path) -> bool {
        let found = home_path(path).and_then(|path| self.stat(&path));
        matches!(found, Err(StoreError::NotFound))
    }

    fn at_home(&self, path: &[u8]) -> Result<Self, StoreError> {
        Ok(Self::of(self.walk_to(path)?)?.sharing_space_of(self))
    }

    fn walk_to(&self, path: &[u8]) -> Result<OwnedFd, StoreError> {
        let path = if path.is_empty() { b"." } else { path };
        self.resolve(path, ResolveFlags::NO_SYMLINKS).doing("opening a home")
    }
}

/// The canonical form of a home's path. It comes from a configuration, but it costs nothing to
/// hold it to the rules for what comes from a peer.
fn home_path(path: &Path) -> Result<RemotePath, StoreError> {
    if path.is_absolute() {
        return Err(StoreError::Denied);
    }
    RemotePath::new(path.as_os_str().as_bytes()).map_err(|_| StoreError::Denied)
}

fn make_if_absent(parent: &OwnedFd, name: &[u8]) -> Result<(), StoreError> {
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) => fsync(parent).doing("syncing a home's directory"),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(StoreError::from_errno("making a home", errno)),
    }
}
