//! The user file and the file of invites on the disk: read as a whole, replaced as a whole.
//!
//! Whoever changes one holds a lock beside it from reading to renaming, so that nothing is lost
//! when two change it at once. What a crash leaves at each step of [`update`]:
//!
//! | after | the file is |
//! |---|---|
//! | new file written, synced | as before; the next change removes what lies there |
//! | rename | old or new, never mixed |
//! | directory synced | new |
//!
//! May wait for a lock and for the disk: for the command line and the disk thread, never the loop.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::OwnedFd, unix::ffi::OsStrExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{
        AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat, flock, fstat, fsync, open,
        openat, renameat, stat, unlinkat,
    },
    io::{Errno, retry_on_intr},
};
use zeroize::Zeroizing;

use super::{Accounts, AccountsError, Invites, Warning};
use crate::limits::USER_FILE_BYTES_MAX;

/// What is kept in such a file.
pub trait TextFile: Sized {
    /// What is in it before there is a file.
    ///
    /// # Errors
    /// The system has no random numbers.
    fn fresh() -> Result<Self, getrandom::Error>;

    /// Reads the text.
    ///
    /// # Errors
    /// It must not be loaded.
    fn parse(text: &str) -> Result<(Self, Vec<Warning>), AccountsError>;

    /// The text to be written.
    fn to_text(&self) -> Zeroizing<String>;
}

impl TextFile for Accounts {
    fn fresh() -> Result<Self, getrandom::Error> {
        let mut key = Zeroizing::new([0; 32]);
        getrandom::fill(&mut *key)?;
        Ok(Self::new(*key))
    }

    fn parse(text: &str) -> Result<(Self, Vec<Warning>), AccountsError> {
        Self::parse(text)
    }

    fn to_text(&self) -> Zeroizing<String> {
        self.to_text()
    }
}

impl TextFile for Invites {
    fn fresh() -> Result<Self, getrandom::Error> {
        Ok(Self::new())
    }

    fn parse(text: &str) -> Result<(Self, Vec<Warning>), AccountsError> {
        Self::parse(text).map(|invites| (invites, Vec::new()))
    }

    fn to_text(&self) -> Zeroizing<String> {
        self.to_text()
    }
}

/// Why such a file can't be read or changed. Paths are shown escaped.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It is not there.
    #[error("{0:?}: no such file")]
    Absent(PathBuf),
    /// It is a link, a directory, or something else.
    #[error("{0:?}: not a regular file")]
    NotRegular(PathBuf),
    /// Its mode lets others in.
    #[error("{0:?}: others may read or write it; chmod 600 makes it yours alone")]
    Open(PathBuf),
    /// It belongs to another user of the system.
    #[error("{0:?}: it belongs to somebody else")]
    Foreign(PathBuf),
    /// More than [`USER_FILE_BYTES_MAX`] bytes, now or after the change.
    #[error("{0:?}: more than {USER_FILE_BYTES_MAX} bytes")]
    TooLong(PathBuf),
    /// What it says must not be loaded.
    #[error("{0:?}: {1}")]
    Bad(PathBuf, AccountsError),
    /// The system refused.
    #[error("{path:?}: {doing}: {errno}")]
    Io {
        /// Of the file.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        errno: Errno,
    },
    /// No random numbers for a new file.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// Tells one version of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileIdentity {
    device: u64,
    inode: u64,
    size: i64,
    /// Seconds and nanoseconds.
    mtime: (i64, u64),
    ctime: (i64, u64),
}

impl FileIdentity {
    fn of(stat: &Stat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            mtime: (stat.st_mtime, stat.st_mtime_nsec),
            ctime: (stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// What a file says.
#[derive(Debug)]
pub struct Loaded<T> {
    /// What is in it.
    pub value: T,
    /// About users who can't log in.
    pub warnings: Vec<Warning>,
    /// Which version it is.
    pub identity: FileIdentity,
}

/// Reads a file.
///
/// # Errors
/// When it is absent, not a regular file of ours alone, too long, or must not be loaded.
pub fn read<T: TextFile>(path: &Path) -> Result<Loaded<T>, FileError> {
    let (text, identity) = read_text(path)?;
    let (value, warnings) =
        T::parse(&text).map_err(|error| FileError::Bad(path.to_owned(), error))?;
    Ok(Loaded { value, warnings, identity })
}

/// Changes a file, or makes it. If `change` fails, nothing is written.
///
/// # Errors
/// Those of `change`, and whatever keeps the file from being read or written.
pub fn update<T: TextFile, R, E: From<FileError>>(
    path: &Path,
    change: impl FnOnce(&mut T) -> Result<R, E>,
) -> Result<R, E> {
    let place = Place::lock(path)?;
    let mut value = match read(path) {
        Ok(Loaded { value, .. }) => value,
        Err(FileError::Absent(_)) => T::fresh().map_err(FileError::Random)?,
        Err(error) => return Err(error.into()),
    };
    let result = change(&mut value)?;
    place.replace(&value.to_text())?;
    Ok(result)
}

/// A file that is read again when it has changed.
#[derive(Debug)]
pub struct Watched<T> {
    path: PathBuf,
    /// The version that was looked at last, good or bad; `None` if there was no file.
    seen: Option<FileIdentity>,
    current: Arc<T>,
    warnings: Vec<Warning>,
}

impl<T: TextFile> Watched<T> {
    /// Reads a file for the first time.
    ///
    /// # Errors
    /// As [`read`].
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let Loaded { value, warnings, identity } = read(path)?;
        let path = path.to_owned();
        Ok(Self { path, seen: Some(identity), current: Arc::new(value), warnings })
    }

    /// What is in force.
    #[must_use]
    pub const fn current(&self) -> &Arc<T> {
        &self.current
    }

    /// About users who can't log in, of what is in force.
    #[must_use]
    pub fn warnings(&self) -> &[Warning] {
        &self.warnings
    }

    /// Reads the file again if it is another than before; says whether something new is in force.
    /// If nothing has changed, this takes one call of the system.
    ///
    /// # Errors
    /// The new version is bad, or the file is gone: what was in force stays so, and the same
    /// version is not reported twice.
    pub fn refresh(&mut self) -> Result<bool, FileError> {
        // What can't be looked at is absent here; reading it says why.
        let identity = stat(&self.path).ok().map(|stat| FileIdentity::of(&stat));
        if identity == self.seen {
            return Ok(false);
        }
        self.seen = identity;
        let Loaded { value, warnings, identity } = read(&self.path)?;
        // It may have been replaced again in between.
        self.seen = Some(identity);
        self.current = Arc::new(value);
        self.warnings = warnings;
        Ok(true)
    }
}

fn read_text(path: &Path) -> Result<(Zeroizing<String>, FileIdentity), FileError> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = match retry_on_intr(|| open(path, flags | OFlags::CLOEXEC, Mode::empty())) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Err(FileError::Absent(path.to_owned())),
        // A link, or a socket.
        Err(Errno::LOOP | Errno::NXIO) => return Err(FileError::NotRegular(path.to_owned())),
        Err(errno) => return Err(io(path, "opening")(errno)),
    };
    // Before reading: if it changes meanwhile, the next look sees another version.
    let stat = fstat(&file).map_err(io(path, "looking at it"))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(FileError::NotRegular(path.to_owned()));
    }
    if Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO) {
        return Err(FileError::Open(path.to_owned()));
    }
    if ![0, rustix::process::geteuid().as_raw()].contains(&stat.st_uid) {
        return Err(FileError::Foreign(path.to_owned()));
    }
    let size = usize::try_from(stat.st_size).unwrap_or(usize::MAX);
    if size > USER_FILE_BYTES_MAX {
        return Err(FileError::TooLong(path.to_owned()));
    }
    // With room for all of it, and for the last look: nothing secret is left behind by growing.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 64));
    let limit = u64::try_from(USER_FILE_BYTES_MAX).unwrap_or(u64::MAX) + 1;
    File::from(file).take(limit).read_to_end(&mut bytes).map_err(std_io(path, "reading"))?;
    if bytes.len() > USER_FILE_BYTES_MAX {
        return Err(FileError::TooLong(path.to_owned()));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| {
        let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        FileError::Bad(path.to_owned(), AccountsError { line, reason: "not UTF-8".to_owned() })
    })?;
    Ok((Zeroizing::new(text.to_owned()), FileIdentity::of(&stat)))
}

/// The directory of a file that nobody else changes for as long as this is there.
struct Place<'a> {
    path: &'a Path,
    name: &'a [u8],
    dir: OwnedFd,
    _lock: OwnedFd,
}

impl<'a> Place<'a> {
    /// Waits until nobody else changes the file. The lock lies beside it and stays there: one that
    /// was removed could be held twice.
    fn lock(path: &'a Path) -> Result<Self, FileError> {
        let name = path.file_name().ok_or_else(|| FileError::NotRegular(path.to_owned()))?;
        let name = name.as_bytes();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, parent.unwrap_or_else(|| Path::new(".")), flags, Mode::empty())
            .map_err(io(path, "opening its directory"))?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let lock = openat(&dir, [name, b".lock"].concat(), flags, Mode::RUSR | Mode::WUSR)
            .map_err(io(path, "opening its lock"))?;
        retry_on_intr(|| flock(&lock, FlockOperation::LockExclusive))
            .map_err(io(path, "locking"))?;
        Ok(Self { path, name, dir, _lock: lock })
    }

    fn replace(&self, text: &str) -> Result<(), FileError> {
        let path = self.path;
        if text.len() > USER_FILE_BYTES_MAX {
            return Err(FileError::TooLong(path.to_owned()));
        }
        let new = [self.name, b".new"].concat();
        match unlinkat(&self.dir, &*new, AtFlags::empty()) {
            // Left by somebody who did not get to the end.
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(io(path, "removing an unfinished copy")(errno)),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
        let file = openat(&self.dir, &*new, flags | OFlags::CLOEXEC, Mode::RUSR | Mode::WUSR)
            .map_err(io(path, "making a new copy"))?;
        let mut file = File::from(file);
        file.write_all(text.as_bytes()).map_err(std_io(path, "writing"))?;
        fsync(&file).map_err(io(path, "syncing"))?;
        renameat(&self.dir, &*new, &self.dir, self.name).map_err(io(path, "renaming"))?;
        fsync(&self.dir).map_err(io(path, "syncing its directory"))
    }
}

fn io(path: &Path, doing: &'static str) -> impl FnOnce(Errno) -> FileError {
    move |errno| FileError::Io { path: path.to_owned(), doing, errno }
}

fn std_io(path: &Path, doing: &'static str) -> impl FnOnce(std::io::Error) -> FileError {
    move |error| io(path, doing)(Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
