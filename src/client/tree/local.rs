//! The walk over a local tree that is sent.
//!
//! Every name is looked at beneath a handle of its directory. Links are passed over unless they are to
//! be followed; then a directory that is one of those above is not gone into.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, fstat, openat, statat},
    io::Errno,
};

use super::{
    Skipped, TreeEvent,
    held::{File, Tries},
    queue::{Step, Walk},
    shared::Shared,
};
use crate::{
    client::ClientError,
    limits::{TREE_DEPTH_MAX, TREE_NAMES_MAX},
    store::{Identity, Source, StoreError, is_partial_name},
    wire::{PathError, RemotePath},
};

/// A file to be sent.
#[derive(Debug)]
pub(super) struct PutFile {
    dir: Arc<OwnedFd>,
    name: Vec<u8>,
    follow: bool,
    pub(super) remote: RemotePath,
    pub(super) shown: PathBuf,
    tries: Tries,
    /// Whether it was sent on a line that broke: then the server may have it already.
    pub(super) sent: bool,
    /// Whether it is not to be sent ahead of its answer.
    pub(super) alone: bool,
}

/// A small file as it was read.
pub(super) struct Content {
    pub(super) identity: Identity,
    /// `None` if it changed meanwhile.
    pub(super) bytes: Option<Vec<u8>>,
}

/// A directory to be made on the server before what is in it is sent.
#[derive(Debug)]
pub(super) struct MakeDir {
    pub(super) remote: RemotePath,
    level: Level,
}

pub(super) struct LocalWalk {
    follow: bool,
    /// The first one, before it is made.
    top: Option<MakeDir>,
    levels: Vec<Level>,
}

#[derive(Debug)]
struct Level {
    dir: Arc<OwnedFd>,
    identity: (u64, u64),
    /// While there may be names that were not read yet.
    reader: Option<Dir>,
    /// Names that were read, the next one last.
    names: Vec<Vec<u8>>,
    remote: RemotePath,
    shown: PathBuf,
}

impl LocalWalk {
    pub(super) fn new(
        local: &Path,
        remote: &RemotePath,
        follow: bool,
    ) -> Result<Self, ClientError> {
        let dir = openat(CWD, local, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let dir = dir.map_err(|errno| local_error(local, "opening", errno))?;
        let level = Level::new(dir, remote.clone(), local.to_owned())
            .map_err(|errno| local_error(local, "reading the folder", errno))?;
        // The root is there.
        let made = remote.is_root();
        let mut walk = Self { follow, top: None, levels: Vec::new() };
        if made {
            walk.levels.push(level);
        } else {
            walk.top = Some(MakeDir { remote: remote.clone(), level });
        }
        Ok(walk)
    }

    /// The directory is there, on the server: what is in it comes next.
    pub(super) fn made(&mut self, made: MakeDir) {
        self.levels.push(made.level);
    }

    /// Looks at one name.
    fn look(
        &self,
        level: &Level,
        name: Vec<u8>,
        shared: &Shared<'_>,
    ) -> Result<Option<Step<PutFile, MakeDir>>, ClientError> {
        let shown = level.shown.join(os(&name));
        let errno = |errno| local_error(&shown, "looking at it", errno);
        let mut stat = statat(&level.dir, &*name, AtFlags::SYMLINK_NOFOLLOW).map_err(errno)?;
        if kind(&stat) == FileType::Symlink && self.follow {
            stat = statat(&level.dir, &*name, AtFlags::empty()).map_err(errno)?;
        }
        match kind(&stat) {
            FileType::RegularFile if is_partial_name(&name) => {
                shared.skipped(Skipped::Own);
                Ok(None)
            }
            FileType::RegularFile => {
                shared.tell(0, TreeEvent::Found { size: u64::try_from(stat.st_size).unwrap_or(0) });
                let (dir, follow) = (Arc::clone(&level.dir), self.follow);
                let remote = below(&level.remote, &name)?;
                let (tries, sent, alone) = (Tries::default(), false, false);
                let file = PutFile { dir, name, follow, remote, shown, tries, sent, alone };
                Ok(Some(Step::File(file)))
            }
            FileType::Directory => {
                let folder = self.look_into(level, &name, &shown);
                let failed = |error: &_| shared.folder_failed(0, bytes(&shown), error);
                Ok(folder.inspect_err(failed).ok().map(Step::Job))
            }
            FileType::Symlink => {
                shared.skipped(Skipped::Link);
                Ok(None)
            }
            _ => {
                shared.skipped(Skipped::Special);
                Ok(None)
            }
        }
    }

    /// Looks into a folder.
    fn look_into(&self, level: &Level, name: &[u8], shown: &Path) -> Result<MakeDir, ClientError> {
        let (remote, shown) = (below(&level.remote, name)?, shown.to_owned());
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | nofollow(self.follow);
        let dir = openat(&level.dir, name, flags, Mode::empty())
            .map_err(|errno| local_error(&shown, "opening", errno))?;
        let below = Level::new(dir, remote.clone(), shown.clone())
            .map_err(|errno| local_error(&shown, "reading the folder", errno))?;
        let wrong = if self.levels.iter().chain([level]).any(|it| it.identity == below.identity) {
            "it leads back to a folder above it"
        } else if self.levels.len() + 1 >= TREE_DEPTH_MAX {
            "too many folders within one another"
        } else {
            return Ok(MakeDir { remote, level: below });
        };
        let error = StoreError::WrongKind(wrong);
        Err(ClientError::local(&shown, error))
    }
}

impl Walk for LocalWalk {
    type File = PutFile;
    type Job = MakeDir;
    type Left = ();

    fn left_behind(&mut self) {}

    fn step(&mut self, shared: &Shared<'_>) -> Step<PutFile, MakeDir> {
        if let Some(top) = self.top.take() {
            return Step::Job(top);
        }
        while let Some(mut level) = self.levels.pop() {
            let held: usize = self.levels.iter().map(|level| level.names.len()).sum();
            let room = TREE_NAMES_MAX.saturating_sub(held).max(TREE_DEPTH_MAX);
            let name = match level.next_name(room) {
                Ok(Some(name)) => name,
                Ok(None) => continue,
                Err(errno) => {
                    let error = local_error(&level.shown, "reading the folder", errno);
                    shared.folder_failed(0, bytes(&level.shown), &error);
                    continue;
                }
            };
            let shown = level.shown.join(os(&name));
            let found = self.look(&level, name, shared);
            self.levels.push(level);
            match found {
                Ok(Some(step)) => return step,
                Ok(None) => {}
                Err(error) => shared.failed(0, bytes(&shown), &error),
            }
        }
        Step::End
    }
}

impl Level {
    fn new(dir: OwnedFd, remote: RemotePath, shown: PathBuf) -> Result<Self, Errno> {
        let stat = fstat(&dir)?;
        let reader = Some(Dir::read_from(&dir)?);
        let (dir, identity) = (Arc::new(dir), (stat.st_dev, stat.st_ino));
        Ok(Self { dir, identity, reader, names: Vec::new(), remote, shown })
    }

    /// The next name. Names are sorted, up to `room` of them at a time.
    fn next_name(&mut self, room: usize) -> Result<Option<Vec<u8>>, Errno> {
        while self.names.is_empty() {
            let Some(reader) = &mut self.reader else {
                return Ok(None);
            };
            while self.names.len() < room {
                let Some(entry) = reader.read() else {
                    self.reader = None;
                    break;
                };
                let entry = match entry {
                    Ok(entry) => entry,
                    Err(errno) => {
                        self.reader = None;
                        return Err(errno);
                    }
                };
                let name = entry.file_name().to_bytes();
                if name != b"." && name != b".." {
                    self.names.push(name.to_vec());
                }
            }
            self.names.sort_unstable_by(|a, b| b.cmp(a));
        }
        Ok(self.names.pop())
    }
}

impl File for PutFile {
    fn shown(&self) -> PathBuf {
        self.shown.clone()
    }

    fn tries(&mut self) -> &mut Tries {
        &mut self.tries
    }
}

impl PutFile {
    /// Opens it, if it still is a regular file.
    pub(super) fn open(&self) -> Result<Source, StoreError> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = openat(&self.dir, &*self.name, flags | nofollow(self.follow), Mode::empty())
            .map_err(|errno| StoreError::from_errno("opening", errno))?;
        Source::of_file(file)
    }

    /// Reads it as a whole; `None` if it has more than `most` bytes.
    pub(super) fn read(&self, most: u64) -> Result<Option<Content>, StoreError> {
        let source = self.open()?;
        let identity = *source.identity();
        let Some(size) = usize::try_from(identity.size).ok().filter(|_| identity.size <= most)
        else {
            return Ok(None);
        };
        let mut bytes = vec![0; size];
        let is_whole = source.read(0, &mut bytes)? == size && source.is_unchanged();
        Ok(Some(Content { identity, bytes: is_whole.then_some(bytes) }))
    }
}

/// A name in a directory of the server.
pub(super) fn below(dir: &RemotePath, name: &[u8]) -> Result<RemotePath, PathError> {
    RemotePath::new(&[dir.as_bytes(), b"/", name].concat())
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

const fn nofollow(follow: bool) -> OFlags {
    if follow { OFlags::empty() } else { OFlags::NOFOLLOW }
}

fn local_error(path: &Path, doing: &'static str, errno: Errno) -> ClientError {
    ClientError::local(path, StoreError::from_errno(doing, errno))
}

pub(super) fn bytes(path: &Path) -> &[u8] {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())
}

pub(super) fn os(name: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(name)
}
