//! Where a user's files are.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Component, Path, PathBuf},
};

use crate::limits::PATH_BYTES_MAX;

/// A folder that is the root for one user: relative ones lie beneath the server's root, absolute
/// ones elsewhere, and `.` is the server's root itself.
///
/// Invariant: not empty, no NUL, no `..`, at most 4096 bytes, and a relative one does not lead
/// into the server's internal folder. Whether an absolute one does, only the file system knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home(PathBuf);

/// Why a path is no home.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HomeError {
    /// Nothing at all.
    #[error("a home must not be empty")]
    Empty,
    /// More than [`PATH_BYTES_MAX`] bytes.
    #[error("a home has at most {PATH_BYTES_MAX} bytes")]
    TooLong,
    /// NUL can't be part of a path.
    #[error("a home must not have a NUL byte")]
    Nul,
    /// `..` leads out, or might.
    #[error("a home must not have a '..' in it")]
    Parent,
    /// The folder of partials and of the user file.
    #[error("a home must not be .tow, or within it")]
    Reserved,
}

impl Home {
    /// Checks a path.
    ///
    /// # Errors
    /// Whatever breaks the invariant.
    pub fn new(path: &Path) -> Result<Self, HomeError> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.is_empty() {
            return Err(HomeError::Empty);
        }
        if bytes.len() > PATH_BYTES_MAX {
            return Err(HomeError::TooLong);
        }
        if bytes.contains(&0) {
            return Err(HomeError::Nul);
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(HomeError::Parent);
        }
        let mut names = path.components().filter(|part| *part != Component::CurDir);
        if names.next() == Some(Component::Normal(OsStr::new(".tow"))) {
            return Err(HomeError::Reserved);
        }
        Ok(Self(path.to_owned()))
    }

    /// The path.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_out_or_in_is_no_home() {
        for (path, error) in [
            ("", HomeError::Empty),
            ("..", HomeError::Parent),
            ("a/../b", HomeError::Parent),
            ("/srv/../etc", HomeError::Parent),
            ("a\0b", HomeError::Nul),
            (".tow", HomeError::Reserved),
            ("./.tow/partials", HomeError::Reserved),
            (".//.tow/", HomeError::Reserved),
        ] {
            assert_eq!(Home::new(Path::new(path)), Err(error), "{path}");
        }
        for path in [".", "a", "a/b", "/srv/x", "...", "a..b", "x/.tow"] {
            assert_eq!(Home::new(Path::new(path)).unwrap().as_path(), Path::new(path));
        }
        for (length, fits) in [(4096, true), (4097, false)] {
            assert_eq!(Home::new(Path::new(&"x".repeat(length))).is_ok(), fits);
        }
    }
}
