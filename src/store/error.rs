//! What can go wrong with a file, by culprit. Which reply code it becomes is the server's matter.

use rustix::io::Errno;

/// Why the store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The name, or a directory on the way to it, is not there.
    #[error("no such file or directory")]
    NotFound,
    /// Permissions, or a path that leads out of the root.
    #[error("not allowed")]
    Denied,
    /// It is there, but not of the kind that this needs.
    #[error("{0}")]
    WrongKind(&'static str),
    /// It is there already.
    #[error("it exists already")]
    Exists,
    /// No space, inodes or quota left.
    #[error("no space left: {0}")]
    NoSpace(String),
    /// More than the account may store: how much, and of what.
    #[error("{0}")]
    QuotaExceeded(String),
    /// Another process is writing it.
    #[error("another process is writing this file")]
    Busy,
    /// A name that the file system does not take.
    #[error("name too long")]
    NameTooLong,
    /// The partial fell back to its last durable mark after a failed sync.
    #[error("a sync failed: what came since the last checkpoint does not count")]
    SyncFailed,
    /// The system refused, in the middle of what is said here.
    #[error("{doing}: {errno}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        errno: Errno,
    },
}

impl StoreError {
    /// Sorts an error of the system by culprit.
    pub(crate) fn from_errno(doing: &'static str, errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::NotFound,
            // XDEV: `openat2` found that the path leads out. LOOP: a link where none may be.
            Errno::ACCESS | Errno::PERM | Errno::XDEV | Errno::LOOP | Errno::ROFS => Self::Denied,
            // A socket, or a device without a driver.
            Errno::NXIO | Errno::NODEV => Self::WrongKind("not a regular file"),
            Errno::NOTDIR => Self::WrongKind("not a directory"),
            Errno::ISDIR => Self::WrongKind("it is a directory"),
            Errno::NOTEMPTY => Self::WrongKind("directory not empty"),
            Errno::EXIST => Self::Exists,
            Errno::NOSPC | Errno::DQUOT | Errno::FBIG => Self::NoSpace(errno.to_string()),
            Errno::NAMETOOLONG => Self::NameTooLong,
            errno => Self::Io { doing, errno },
        }
    }
}

/// Adds what was being done to an error of the system.
pub(crate) trait Doing<T> {
    /// Says what was being done.
    fn doing(self, doing: &'static str) -> Result<T, StoreError>;
}

impl<T> Doing<T> for Result<T, Errno> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|errno| StoreError::from_errno(doing, errno))
    }
}
