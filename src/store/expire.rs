//! Partials that nobody came back for.

use std::{ops::ControlFlow, time::Duration};

use rustix::{
    fd::BorrowedFd,
    fs::{AtFlags, Dir, statat},
    io::Errno,
    time::{ClockId, clock_gettime},
};

use super::{
    Root, StoreError,
    error::Doing,
    own::{open_or_make, try_lock},
    quota::Usage,
    sys,
    together::ENDING,
};

/// Names looked at in one step: other jobs of the disk thread wait no longer than that takes.
const NAMES_PER_STEP: usize = 256;

/// A walk through the folder of partials, in steps.
#[derive(Debug)]
pub struct Expiry {
    keep: Duration,
    /// Reads the folder as it goes: its names are never in memory as a whole.
    names: Option<Dir>,
    removed: usize,
}

impl Root {
    /// Begins a walk that removes partials in which nothing came in for `keep`.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn expire(&self, keep: Duration) -> Result<Expiry, StoreError> {
        let names = self.partials().map(Dir::read_from).transpose();
        Ok(Expiry { keep, names: names.doing("reading the partials")?, removed: 0 })
    }

    /// Goes on with a walk; `Break` with the number of files that were removed when it is over.
    pub fn expire_step(&self, mut walk: Expiry) -> ControlFlow<usize, Expiry> {
        let (Some(partials), Some(names)) = (self.partials(), &mut walk.names) else {
            return ControlFlow::Break(0);
        };
        for _ in 0..NAMES_PER_STEP {
            let Some(Ok(name)) = names.read() else {
                return ControlFlow::Break(walk.removed);
            };
            let name = name.file_name().to_bytes();
            if is_temporary(name) {
                walk.removed += self.remove_old_temporary(partials, name, walk.keep).unwrap_or(0);
            } else if let Some(stem) = stem_of(name) {
                walk.removed += self.remove_old(partials, stem, walk.keep).unwrap_or(0);
            }
        }
        ControlFlow::Continue(walk)
    }

    /// Removes what a kill has left of files that are stored together. Nobody waits so long with one.
    fn remove_old_temporary(
        &self,
        partials: BorrowedFd<'_>,
        name: &[u8],
        keep: Duration,
    ) -> Result<usize, StoreError> {
        let stat = statat(partials, name, AtFlags::SYMLINK_NOFOLLOW).doing("looking at a file")?;
        // Its mtime is that of the file that it should have become.
        if !is_older(stat.st_ctime, keep) {
            return Ok(0);
        }
        let counted = self.weigh(partials, name);
        let name = std::str::from_utf8(name).unwrap_or_default();
        sys::unlink(partials, name).doing("removing a temporary file")?;
        self.count(counted, Usage::default());
        Ok(1)
    }

    /// Removes a partial that nobody has open, if its files are old; returns how many there were.
    fn remove_old(
        &self,
        partials: BorrowedFd<'_>,
        stem: &str,
        keep: Duration,
    ) -> Result<usize, StoreError> {
        let [new, data, journal] = ["new", "data", "journal"].map(|end| format!("{stem}.{end}"));
        let changed = |name: &str| match statat(partials, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some((stat.st_mtime, stat.st_mtime_nsec))),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(StoreError::from_errno("looking at a partial", errno)),
        };
        let before = [changed(&data)?, changed(&journal)?];
        if !before.iter().flatten().all(|time| is_older(time.0, keep)) {
            return Ok(0);
        }
        // The lock keeps a writer out while the files are removed, and tells if there is one. A writer
        // that comes later finds a journal without a name and makes a new one. One that came and went
        // since we looked has left its time.
        let (file, is_new) = open_or_make(partials, &journal)?;
        if !try_lock(&file)? {
            return Ok(0);
        }
        let journal_now = if is_new { None } else { changed(&journal)? };
        if !is_new && [changed(&data)?, journal_now] != before {
            return Ok(0);
        }
        // What the journal claims is taken back before the bytes go, at any power cut.
        sys::ftruncate(&file, 0).doing("emptying a journal")?;
        sys::fdatasync(&file).doing("syncing a journal")?;
        let mut removed = 0;
        for name in [new, data, journal] {
            let is_data = name.ends_with(".data");
            let counted =
                if is_data { self.weigh(partials, name.as_bytes()) } else { Usage::default() };
            match sys::unlink(partials, &name) {
                Ok(()) => {
                    self.count(counted, Usage::default());
                    removed += 1;
                }
                Err(Errno::NOENT) => {}
                Err(errno) => return Err(StoreError::from_errno("removing a partial", errno)),
            }
        }
        Ok(removed - usize::from(is_new))
    }
}

/// The part of one of our names that all files of a partial share; nothing else is touched.
pub(super) fn stem_of(name: &[u8]) -> Option<&str> {
    let (stem, ending) = own_name(name)?;
    matches!(ending, "data" | "journal" | "new").then_some(stem)
}

/// Whether a name is that of a file that is stored together with others.
pub(super) fn is_temporary(name: &[u8]) -> bool {
    own_name(name).is_some_and(|(_, ending)| ending == ENDING)
}

fn own_name(name: &[u8]) -> Option<(&str, &str)> {
    let (stem, ending) = std::str::from_utf8(name).ok()?.split_once('.')?;
    let is_hash = stem.len() == 32 && stem.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then_some((stem, ending))
}

/// Whether a time of the wall clock lies more than `age` back.
fn is_older(seconds: i64, age: Duration) -> bool {
    let now = clock_gettime(ClockId::Realtime).tv_sec;
    let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
    now.saturating_sub(seconds) > age
}
