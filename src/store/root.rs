//! The jail: a directory handle beneath which every path is resolved.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use rustix::{
    fs::{
        AtFlags, CWD, Mode, OFlags, ResolveFlags, Stat, fstat, fsync, mkdirat, openat, openat2,
        readlinkat, renameat, statat, unlinkat,
    },
    io::Errno,
};

use super::{
    StoreError,
    digest_cache::DigestCache,
    digest_folder::DigestFolder,
    error::Doing,
    listing::{Entry, Kind},
    own::duplicate,
    quota::{Ledger, Usage},
    space::Space,
};
use crate::wire::RemotePath;

/// The folder of partials and journals, beneath a served root. [`RemotePath`] refuses its name at
/// any depth, since the home of another account may lie within.
pub(super) const INTERNAL: &str = ".tow";

/// Where partials are, within it.
const PARTIALS: &str = "partials";

/// Where digests are, within it.
const DIGESTS: &str = "digests";

/// Links at the end of a path that are followed one after the other.
const LINKS_MAX: usize = 8;

/// How often the kernel is asked again if a rename beside it kept it from resolving a path.
const RESOLVE_TRIES: usize = 128;

/// Tells one root from another.
pub type RootId = (u64, u64);

/// A directory beneath which paths are resolved by the kernel: no `..`, no link and no rename
/// leads out of it.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    identity: (u64, u64),
    internal: Option<Internal>,
    space: Space,
    ledger: Option<Arc<Ledger>>,
    digest_cache: DigestCache,
}

/// The folder that no path reaches, by whatever name or link.
#[derive(Debug)]
struct Internal {
    partials: OwnedFd,
    /// `None` where none can be made: nothing depends on it.
    digests: Option<DigestFolder>,
    /// Of the folder and of those within.
    identities: Vec<(u64, u64)>,
}

impl Root {
    /// Opens a directory as it is: for a client, whose partials lie beside their targets.
    ///
    /// # Errors
    /// Whatever `open` says.
    pub fn plain(path: &Path) -> Result<Self, StoreError> {
        Self::of(openat(CWD, path, DIRECTORY, Mode::empty()).doing("opening the directory")?)
    }

    /// A directory that is open, as it is: see [`Root::plain`].
    ///
    /// # Errors
    /// Whatever `fstat` says.
    pub fn plain_of(dir: OwnedFd) -> Result<Self, StoreError> {
        Self::of(dir)
    }

    /// A root without internal folders.
    pub(super) fn of(dir: OwnedFd) -> Result<Self, StoreError> {
        let identity = identity(dir.as_fd())?;
        Ok(Self {
            dir,
            identity,
            internal: None,
            space: Space::default(),
            ledger: None,
            digest_cache: DigestCache::default(),
        })
    }

    /// Keeps back so many bytes of free space from uploads, here and in the homes that are opened
    /// beneath this root. It counts for uploads that begin, or go on, from now on.
    pub fn set_reserve_bytes(&self, bytes: u64) {
        self.space.set_reserve(bytes);
    }

    /// Bytes that uploads of this process still await, here and in the homes on this file system.
    #[must_use]
    pub fn awaited_bytes(&self) -> u64 {
        self.space.awaited()
    }

    /// So many bytes are awaited on this file system by other processes, and are not free either.
    pub fn set_awaited_elsewhere(&self, bytes: u64) {
        self.space.set_elsewhere(bytes);
    }

    /// Shares the reserve of another root and, on the same file system, its free space.
    pub(super) fn sharing_space_of(mut self, other: &Self) -> Self {
        let is_same = self.identity.0 == other.identity.0;
        self.space = if is_same { other.space.clone() } else { other.space.elsewhere() };
        self
    }

    /// Shares the memory for digests of another root, so that both together stay within its bound.
    #[must_use]
    pub fn sharing_digests_of(mut self, other: &Self) -> Self {
        self.digest_cache = other.digest_cache.clone();
        self
    }

    pub(super) const fn digest_cache(&self) -> &DigestCache {
        &self.digest_cache
    }

    /// Where digests outlive the process, if this root has a place for them.
    pub(super) fn digest_folder(&self) -> Option<&DigestFolder> {
        self.internal.as_ref()?.digests.as_ref()
    }

    /// Bytes that uploads may take here; `None` where the file system does not say.
    ///
    /// # Errors
    /// Whatever `fstatvfs` says.
    pub fn free_bytes(&self) -> Result<Option<u64>, StoreError> {
        self.space.free_bytes(&self.dir)
    }

    /// The ledger in which changes are counted.
    pub const fn ledger(&self) -> Option<&Arc<Ledger>> {
        self.ledger.as_ref()
    }

    pub(super) fn set_ledger(&mut self, ledger: Arc<Ledger>) {
        self.ledger = Some(ledger);
    }

    pub(super) const fn space(&self) -> &Space {
        &self.space
    }

    /// The directory itself.
    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Which directory it is, whatever its name: device and inode.
    #[must_use]
    pub const fn id(&self) -> RootId {
        self.identity
    }

    /// Opens the root of a server and makes it, and its internal folders, if they are absent.
    ///
    /// # Errors
    /// Whatever `mkdir` and `open` say.
    pub fn serve(path: &Path) -> Result<Self, StoreError> {
        let is_new = match mkdirat(CWD, path, Mode::from_raw_mode(0o755)) {
            Ok(()) => true,
            Err(Errno::EXIST) => false,
            Err(errno) => return Err(StoreError::from_errno("making the root", errno)),
        };
        let root = Self::plain(path)?;
        if is_new {
            let parent = openat(&root.dir, "..", DIRECTORY, Mode::empty());
            let parent = parent.doing("opening the root's directory")?;
            fsync(parent).doing("syncing the root's directory")?;
        }
        root.with_internal(internal_dir)
    }

    /// Adds the internal folders, as `open` opens or makes them.
    pub(super) fn with_internal(
        mut self,
        open: impl Fn(BorrowedFd<'_>, &str) -> Result<OwnedFd, StoreError>,
    ) -> Result<Self, StoreError> {
        let internal = open(self.dir.as_fd(), INTERNAL)?;
        let partials = open(internal.as_fd(), PARTIALS)?;
        // Made without a sync: what a power cut takes of it is made again.
        let _ = mkdirat(&internal, DIGESTS, Mode::RWXU);
        let digests = internal_if_there(internal.as_fd(), DIGESTS).ok();
        let folders = [Some(&internal), Some(&partials), digests.as_ref()];
        let identities = folders.into_iter().flatten().map(|dir| identity(dir.as_fd()));
        let identities = identities.collect::<Result<_, _>>()?;
        let digests = digests.map(DigestFolder::new);
        self.internal = Some(Internal { partials, digests, identities });
        Ok(self)
    }

    /// Where the partials are, if this root has a place for them.
    pub(super) fn partials(&self) -> Option<BorrowedFd<'_>> {
        self.internal.as_ref().map(|internal| internal.partials.as_fd())
    }

    /// Opens a directory.
    pub(super) fn open_dir(&self, path: &[u8]) -> Result<OwnedFd, StoreError> {
        if path.split(|&byte| byte == b'/').any(|name| self.hides(name)) {
            return Err(StoreError::NotFound);
        }
        let path = if path.is_empty() { &b"."[..] } else { path };
        let dir = match self.resolve(path, ResolveFlags::NO_SYMLINKS) {
            Err(Errno::LOOP) => {
                let dir = self.resolve(path, ResolveFlags::empty()).doing("opening")?;
                self.check_no_internal_above(&dir)?;
                dir
            }
            dir => dir.doing("opening")?,
        };
        if let Some(internal) = &self.internal
            && internal.identities.contains(&identity(dir.as_fd())?)
        {
            return Err(StoreError::NotFound);
        }
        Ok(dir)
    }

    /// Has the kernel resolve the path of a directory.
    pub(super) fn resolve(&self, path: &[u8], also: ResolveFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS | also;
        let open = || openat2(&self.dir, path, DIRECTORY, Mode::empty(), resolve);
        // The kernel does not vouch for `..` in a link while something is renamed.
        (1..RESOLVE_TRIES)
            .map(|_| open())
            .find(|opened| !matches!(opened, Err(Errno::AGAIN | Errno::INTR)))
            .unwrap_or_else(open)
    }

    /// A link may have named an internal folder, of this root or of a home within: whatever lies
    /// in one is not there. Looks at every directory from `dir` up to the root.
    fn check_no_internal_above(&self, dir: &OwnedFd) -> Result<(), StoreError> {
        if self.internal.is_none() {
            return Ok(());
        }
        let mut below = identity(dir.as_fd())?;
        let mut dir = duplicate(dir)?;
        while below != self.identity {
            dir = openat(&dir, "..", DIRECTORY, Mode::empty()).doing("opening")?;
            let here = identity(dir.as_fd())?;
            let internal = statat(&dir, INTERNAL, AtFlags::SYMLINK_NOFOLLOW);
            // The second is the system's root: it was moved out since it was opened.
            if internal.is_ok_and(|stat| (stat.st_dev, stat.st_ino) == below) || here == below {
                return Err(StoreError::NotFound);
            }
            below = here;
        }
        Ok(())
    }

    /// Opens a regular file to be read; whatever else it may be is refused without waiting for
    /// it.
    pub(super) fn open_file(&self, path: &RemotePath) -> Result<OwnedFd, StoreError> {
        let file = self.follow(path, |dir, name| {
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::NOFOLLOW;
            match openat(dir, name, flags | OFlags::CLOEXEC, Mode::empty()) {
                Err(Errno::LOOP) => Ok(None),
                other => other.doing("opening").map(Some),
            }
        })?;
        regular(&file)?;
        Ok(file)
    }

    /// Does something with what a path names, or what that leads to if it is a link (`look` says
    /// `None` then). A link is followed name by name, so that each directory on the way is one
    /// that a path may name as well.
    fn follow<T>(
        &self,
        path: &RemotePath,
        mut look: impl FnMut(&OwnedFd, &[u8]) -> Result<Option<T>, StoreError>,
    ) -> Result<T, StoreError> {
        let (mut dir, name) = self.parent(path)?;
        let mut way = path.split().unwrap_or_default().0.to_vec();
        let mut name = name.to_vec();
        for _ in 0..=LINKS_MAX {
            if let Some(found) = look(&dir, &name)? {
                return Ok(found);
            }
            let link = readlinkat(&dir, &name, Vec::new()).doing("reading a link")?;
            let link = link.to_bytes();
            let (to, last) = match link.iter().rposition(|&byte| byte == b'/') {
                // From the system's root: out, wherever that leads.
                Some(_) if link.starts_with(b"/") => return Err(StoreError::Denied),
                Some(at) => link.split_at(at + 1),
                None => link.split_at(0),
            };
            if !way.is_empty() && !to.is_empty() {
                way.push(b'/');
            }
            way.extend_from_slice(to);
            // A link that ends like this leads to a directory.
            name = if matches!(last, b"" | b"." | b"..") {
                if !way.is_empty() && !way.ends_with(b"/") {
                    way.push(b'/');
                }
                way.extend_from_slice(last);
                b".".to_vec()
            } else {
                last.to_vec()
            };
            dir = self.open_dir(&way)?;
            self.check_hidden(&name)?;
        }
        Err(StoreError::Denied)
    }

    /// The open directory that holds `path`, and its last name.
    pub(super) fn parent<'a>(
        &self,
        path: &'a RemotePath,
    ) -> Result<(OwnedFd, &'a [u8]), StoreError> {
        let (parent, name) = path.split().ok_or(StoreError::WrongKind("it is the root"))?;
        let dir = self.open_dir(parent)?;
        self.check_hidden(name)?;
        Ok((dir, name))
    }

    /// A link may end with a name that no path may have.
    fn check_hidden(&self, name: &[u8]) -> Result<(), StoreError> {
        if self.hides(name) {
            return Err(StoreError::NotFound);
        }
        Ok(())
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
        let mut link = None;
        let found = self.follow(path, |dir, name| {
            let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).doing("looking at it")?;
            if Kind::of(&stat) == Kind::Link {
                link.get_or_insert(stat);
                return Ok(None);
            }
            Ok(Some(stat))
        });
        let stat = match (found, link) {
            // It leads nowhere, or out: it is a link, and no more is said.
            (Err(_), Some(link)) => link,
            (found, _) => found?,
        };
        let name = path.split().unwrap_or_default().1.to_vec();
        Ok(Entry::new(name, &stat))
    }

    /// Makes a directory, durably.
    ///
    /// # Errors
    /// [`StoreError::Exists`], [`StoreError::QuotaExceeded`] and the like.
    pub fn make_dir(&self, path: &RemotePath) -> Result<(), StoreError> {
        if path.is_root() {
            return Err(StoreError::Exists);
        }
        let (parent, name) = self.parent(path)?;
        self.check_quota_for_dir(&parent, name)?;
        mkdirat(&parent, name, Mode::from_raw_mode(0o777)).doing("making the directory")?;
        self.count(Usage::default(), Usage::DIRECTORY);
        fsync(&parent).doing("syncing the directory")
    }

    /// Removes a file, durably. A link is removed, not what it leads to.
    ///
    /// # Errors
    /// [`StoreError::WrongKind`] for a directory, and the like.
    pub fn remove(&self, path: &RemotePath) -> Result<(), StoreError> {
        let (parent, name) = self.parent(path)?;
        let removed = self.weigh(&parent, name);
        unlinkat(&parent, name, AtFlags::empty()).doing("removing the file")?;
        self.count(removed, Usage::default());
        fsync(&parent).doing("syncing the directory")
    }

    /// Removes an empty directory, durably.
    ///
    /// # Errors
    /// [`StoreError::WrongKind`] if it is not empty or no directory, and the like.
    pub fn remove_dir(&self, path: &RemotePath) -> Result<(), StoreError> {
        let (parent, name) = self.parent(path)?;
        unlinkat(&parent, name, AtFlags::REMOVEDIR).doing("removing the directory")?;
        self.count(Usage::DIRECTORY, Usage::default());
        fsync(&parent).doing("syncing the directory")
    }

    /// Renames, durably; replaces a file that has the new name.
    ///
    /// # Errors
    /// As `rename` has them, both names resolved beneath the root on their own.
    pub fn rename(&self, from: &RemotePath, to: &RemotePath) -> Result<(), StoreError> {
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let replaced = self.weigh_replaced((&from_dir, from_name), (&to_dir, to_name));
        match renameat(&from_dir, from_name, &to_dir, to_name) {
            Err(Errno::INVAL) => {
                let text = "a directory can't be moved into itself";
                return Err(StoreError::WrongKind(text));
            }
            Err(Errno::XDEV) => {
                let text = "the new name is on another file system";
                return Err(StoreError::WrongKind(text));
            }
            renamed => renamed.doing("renaming")?,
        }
        self.count(replaced, Usage::default());
        fsync(&to_dir).doing("syncing the directory")?;
        fsync(&from_dir).doing("syncing the directory")
    }

    /// Whether a name is that of an internal folder, which a served root has nowhere to show.
    pub(super) fn hides(&self, name: &[u8]) -> bool {
        name == INTERNAL.as_bytes() && self.internal.is_some()
    }
}

pub(super) const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
pub(super) const NOT_REGULAR: StoreError = StoreError::WrongKind("not a regular file");

/// Opens an internal folder, or makes it.
pub(super) fn internal_dir(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, StoreError> {
    match mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(StoreError::from_errno("making .tow", errno)),
    }
    // Also if it was there: whoever made it may not have lived to do this.
    fsync(parent).doing("syncing the root")?;
    internal_if_there(parent, name)
}

/// Opens an internal folder.
pub(super) fn internal_if_there(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd, StoreError> {
    // A link planted in its place is not followed, a folder of somebody else is not used.
    let dir = openat(parent, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty());
    let dir = dir.doing("opening .tow")?;
    let owner = fstat(&dir).doing("looking at .tow")?.st_uid;
    if owner != rustix::process::geteuid().as_raw() {
        return Err(StoreError::Denied);
    }
    Ok(dir)
}

/// Device and inode: which directory this is, whatever its name.
pub(super) fn identity(dir: BorrowedFd<'_>) -> Result<(u64, u64), StoreError> {
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
