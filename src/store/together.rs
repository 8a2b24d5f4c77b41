//! Small files that are in memory as a whole, made durable and visible together.
//!
//! First all are written, under names of their own in the folder of partials; then they are synced
//! together; then each gets its name; then the directories are synced. None needs a journal: what a power cut,
//! or a kill, leaves at each step is the file as it was, or as it is now, whole. A temporary file
//! that stays behind is removed like an old partial.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, fstat, openat},
    io::Errno,
};

use super::{
    Identity, Root, StoreError,
    error::Doing,
    journal_file::write_all,
    own::{open_own, try_lock},
    partial::{check_device, check_target, partial_name, visible_mode},
    quota::{Reservation, Usage},
    source::read_full,
    space::Awaited,
    sync::sync_together,
    sys,
};
use crate::{
    digest::FileDigests,
    progress::Progress,
    wire::{Mtime, RemotePath},
};

/// How often a name for a temporary file is drawn that nothing has yet.
const NAME_TRIES: usize = 16;

/// A file in memory.
#[derive(Debug, Clone)]
pub struct Whole<'a> {
    /// Where it shall appear.
    pub path: &'a RemotePath,
    /// The modification time that it shall have.
    pub mtime: Mtime,
    /// Whether it may take the place of a file that is there.
    pub replace: bool,
    /// Its bytes.
    pub content: &'a [u8],
    /// What they hash to.
    pub digests: &'a FileDigests,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// It is durable and visible.
    Visible,
    /// These very bytes were there before, with this time, and are durable.
    Before,
}

/// How far one file is.
#[derive(Debug)]
enum Step<'a> {
    Before { dir: usize, data: OwnedFd },
    Written { dir: usize, name: &'a [u8], temporary: Temporary<'a> },
    Visible { dir: usize },
    Failed(StoreError),
}

/// The directories that the files appear in, each open once.
#[derive(Debug, Default)]
struct Dirs<'a> {
    open: Vec<OwnedFd>,
    by_path: HashMap<&'a [u8], usize>,
    /// Who will appear in them.
    to_come: HashSet<&'a RemotePath>,
}

/// A file under a name of its own. Removed when this is dropped, unless it got its name.
#[derive(Debug)]
struct Temporary<'a> {
    partials: BorrowedFd<'a>,
    own_name: String,
    data: OwnedFd,
    reservation: Reservation,
    is_shown: bool,
    _awaited: Awaited,
    /// Of the partial for the same path, if there is one: nobody else has it meanwhile.
    _journal: Option<OwnedFd>,
}

impl Root {
    /// Makes files durable, then visible, in their order; says for each what became of it. One that
    /// fails does not harm the others.
    pub fn store_together(&self, files: &[Whole<'_>]) -> Vec<Result<Became, StoreError>> {
        let mut dirs = Dirs::default();
        let begin = |file| self.begin(&mut dirs, file).unwrap_or_else(Step::Failed);
        let mut steps: Vec<Step<'_>> = files.iter().map(begin).collect();
        sync_written(&mut steps);
        for (step, file) in steps.iter_mut().zip(files) {
            step.go_on(|step| self.show(&dirs, file, step));
        }
        sync_dirs(&dirs, &mut steps);
        steps.into_iter().map(Step::end).collect()
    }

    /// Writes a file under a name of its own.
    fn begin<'a>(&'a self, dirs: &mut Dirs<'a>, file: &Whole<'a>) -> Result<Step<'a>, StoreError> {
        let partials = self.partials().ok_or(StoreError::Denied)?;
        let (at, name) = dirs.find(self, file.path)?;
        let dir = dirs.open.get(at).ok_or(StoreError::NotFound)?;
        let there = check_target(dir, name)?;
        let journal = lock_partial(partials, file.path)?;
        // What is there will not be, if a file before it in the group has the same name.
        if !dirs.to_come.contains(file.path)
            && let Some(stat) = &there
            && let Some(data) = the_same(dir, name, stat, file)
        {
            return Ok(Step::Before { dir: at, data });
        }
        if there.is_some() && !file.replace {
            return Err(StoreError::Exists);
        }
        let size = file.content.len() as u64;
        let awaited = self.space().claim(partials, &Progress::new(size))?;
        let reservation = Reservation::new(self.ledger(), Usage::default, size)?;
        let made = make_temporary(partials).inspect_err(|_| reservation.release(Usage::default))?;
        let (own_name, data) = made;
        let temporary = Temporary {
            partials,
            own_name,
            data,
            reservation,
            is_shown: false,
            _awaited: awaited,
            _journal: journal,
        };
        temporary.fill(file)?;
        dirs.to_come.insert(file.path);
        Ok(Step::Written { dir: at, name, temporary })
    }

    /// Gives a file that is durable its name.
    fn show<'a>(
        &self,
        dirs: &Dirs<'a>,
        file: &Whole<'_>,
        step: Step<'a>,
    ) -> Result<Step<'a>, StoreError> {
        let Step::Written { dir: at, name, mut temporary } = step else {
            return Ok(step);
        };
        let dir = dirs.open.get(at).ok_or(StoreError::NotFound)?;
        // Looked at only now: a file before it in the group may have had the same name.
        let replaced = self.weigh(dir, name);
        let flags = if file.replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        let own_name = temporary.own_name.as_bytes();
        sys::rename(temporary.partials, own_name, dir.as_fd(), name, flags).doing("renaming")?;
        temporary.is_shown = true;
        temporary.reservation.commit(file.content.len() as u64, replaced);
        // Before anything that may wait: nobody but us has written to it yet.
        if let Ok(stat) = fstat(&temporary.data) {
            self.keep_visible(&Identity::of(&stat), file.mtime, file.digests);
        }
        Ok(Step::Visible { dir: at })
    }
}

/// Makes what was written, or was there, durable.
fn sync_written(steps: &mut [Step<'_>]) {
    let written: Vec<&OwnedFd> = steps.iter().filter_map(Step::data).collect();
    let mut synced = sync_together(&written).into_iter();
    for step in steps.iter_mut().filter(|step| step.data().is_some()) {
        if let Err(errno) = synced.next().unwrap_or(Err(Errno::IO)) {
            *step = Step::Failed(StoreError::from_errno("syncing the file", errno));
        }
    }
}

/// Makes the names durable.
fn sync_dirs(dirs: &Dirs<'_>, steps: &mut [Step<'_>]) {
    let used: BTreeSet<usize> = steps.iter().filter_map(Step::dir).collect();
    let open: Vec<&OwnedFd> = used.iter().filter_map(|&at| dirs.open.get(at)).collect();
    let synced: HashMap<usize, _> = used.iter().copied().zip(sync_together(&open)).collect();
    for step in steps {
        let Some(at) = step.dir() else { continue };
        if let Err(errno) = synced.get(&at).copied().unwrap_or(Err(Errno::IO)) {
            *step = Step::Failed(StoreError::from_errno("syncing the directory", errno));
        }
    }
}

impl<'a> Step<'a> {
    /// The file that is written and has no name yet, or was there before.
    const fn data(&self) -> Option<&OwnedFd> {
        match self {
            Self::Before { data, .. } => Some(data),
            Self::Written { temporary, .. } => Some(&temporary.data),
            Self::Visible { .. } | Self::Failed(_) => None,
        }
    }

    /// Takes the next step, or ends here.
    fn go_on(&mut self, next: impl FnOnce(Self) -> Result<Self, StoreError>) {
        // What stands here meanwhile is never seen.
        let now = std::mem::replace(self, Step::Failed(StoreError::NotFound));
        *self = next(now).unwrap_or_else(Step::Failed);
    }

    /// The directory that has to be durable.
    const fn dir(&self) -> Option<usize> {
        match self {
            Self::Before { dir, .. } | Self::Visible { dir } => Some(*dir),
            Self::Written { .. } | Self::Failed(_) => None,
        }
    }

    fn end(self) -> Result<Became, StoreError> {
        match self {
            Self::Before { .. } => Ok(Became::Before),
            Self::Visible { .. } => Ok(Became::Visible),
            Self::Written { .. } => Err(StoreError::NotFound),
            Self::Failed(error) => Err(error),
        }
    }
}

impl<'a> Dirs<'a> {
    /// The directory of a path, and the name in it.
    fn find(&mut self, root: &Root, path: &'a RemotePath) -> Result<(usize, &'a [u8]), StoreError> {
        let (parent, name) = path.split().ok_or(StoreError::WrongKind("it is the root"))?;
        if let Some(&at) = self.by_path.get(parent)
            && !root.hides(name)
        {
            return Ok((at, name));
        }
        let (dir, name) = root.parent(path)?;
        let partials = root.partials().ok_or(StoreError::Denied)?;
        check_device(partials, &dir)?;
        let at = self.open.len();
        self.open.push(dir);
        self.by_path.insert(parent, at);
        Ok((at, name))
    }
}

impl Temporary<'_> {
    fn fill(&self, file: &Whole<'_>) -> Result<(), StoreError> {
        write_all(&self.data, file.content, 0, "writing")?;
        sys::fchmod(&self.data, visible_mode()).doing("setting the mode")?;
        let time = Timespec { tv_sec: file.mtime.seconds, tv_nsec: i64::from(file.mtime.nanos) };
        let times = Timestamps { last_access: time, last_modification: time };
        sys::futimens(&self.data, &times).doing("setting the time")
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.is_shown {
            // What can't be removed now expires.
            let _ = sys::unlink(self.partials, &self.own_name);
            self.reservation.release(Usage::default);
        }
    }
}

/// Makes an empty file under a name that no other process, and no other file, has.
fn make_temporary(partials: BorrowedFd<'_>) -> Result<(String, OwnedFd), StoreError> {
    static FIRST: OnceLock<u128> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let first = *FIRST.get_or_init(|| {
        let mut bytes = [0; 16];
        // Without chance, names that are taken are passed over.
        let _ = getrandom::fill(&mut bytes);
        u128::from_ne_bytes(bytes)
    });
    for _ in 0..NAME_TRIES {
        let number = first.wrapping_add(u128::from(NEXT.fetch_add(1, Ordering::Relaxed)));
        let name = format!("{number:032x}.{ENDING}");
        match sys::create(partials, &name) {
            Err(Errno::EXIST) => {}
            made => return made.doing("opening").map(|file| (name, file)),
        }
    }
    Err(StoreError::Exists)
}

/// What the names of temporary files end with.
pub(super) const ENDING: &str = "small";

/// Keeps other writers out of the partial for a path, if there is one.
fn lock_partial(
    partials: BorrowedFd<'_>,
    path: &RemotePath,
) -> Result<Option<OwnedFd>, StoreError> {
    match open_own(partials, &format!("{}.journal", partial_name(path)), OFlags::empty()) {
        Ok(journal) if try_lock(&journal)? => Ok(Some(journal)),
        Ok(_) => Err(StoreError::Busy),
        Err(StoreError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The file that is there, if it has these bytes and this time. To read it is no favour to a peer, who has
/// sent as much.
fn the_same(dir: &OwnedFd, name: &[u8], stat: &Stat, file: &Whole<'_>) -> Option<OwnedFd> {
    let there = Identity::of(stat);
    if (there.size, there.mtime) != (file.content.len() as u64, file.mtime) {
        return None;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let open = openat(dir, name, flags | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let is_it = fstat(&open).is_ok_and(|stat| Identity::of(&stat) == there);
    let mut bytes = vec![0; file.content.len()];
    let have = read_full(&open, 0, &mut bytes).ok()?;
    (is_it && have == bytes.len() && bytes == file.content).then_some(open)
}
