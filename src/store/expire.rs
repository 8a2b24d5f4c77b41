//! Partials that nobody came back for.

use std::time::Duration;

use rustix::{
    fd::BorrowedFd,
    fs::{AtFlags, Dir, OFlags, statat, unlinkat},
    io::Errno,
    time::{ClockId, clock_gettime},
};

use super::{
    Root, StoreError,
    error::Doing,
    partial::{open_own, try_lock},
};

/// Names looked at in one step: other jobs of the disk thread wait no longer than that takes.
const NAMES_PER_STEP: usize = 256;

/// A walk through the folder of partials, in steps.
#[derive(Debug)]
pub struct Expiry {
    keep: Duration,
    names: Vec<String>,
    removed: usize,
}

impl Root {
    /// Begins a walk that removes partials in which nothing came in for `keep`.
    ///
    /// # Errors
    /// The folder can't be read.
    pub fn expire(&self, keep: Duration) -> Result<Expiry, StoreError> {
        let mut names = Vec::new();
        if let Some(partials) = self.partials() {
            for entry in Dir::read_from(partials).doing("reading the partials")? {
                let name = entry.doing("reading the partials")?;
                // Our own names are hexadecimal; nothing else is touched.
                if let Ok(name) = name.file_name().to_str()
                    && (name.ends_with(".journal") || name.ends_with(".data"))
                {
                    names.push(name.to_owned());
                }
            }
        }
        Ok(Expiry {
            keep,
            names,
            removed: 0,
        })
    }

    /// Goes on with a walk; `None` when it is over, with the number of files removed before.
    pub fn expire_step(&self, mut walk: Expiry) -> Result<Expiry, usize> {
        let Some(partials) = self.partials() else {
            return Err(0);
        };
        for _ in 0..NAMES_PER_STEP {
            let Some(name) = walk.names.pop() else {
                return Err(walk.removed);
            };
            if let Some((stem, _)) = name.split_once('.') {
                walk.removed += remove_old(partials, stem, walk.keep).unwrap_or(0);
            }
        }
        Ok(walk)
    }
}

/// Removes a partial that nobody has open, if both its files are old; returns how many there were.
fn remove_old(partials: BorrowedFd<'_>, stem: &str, keep: Duration) -> Result<usize, StoreError> {
    let names = [format!("{stem}.data"), format!("{stem}.journal")];
    let is_old = |name: &String| match statat(partials, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => is_older(stat.st_mtime, keep),
        Err(_) => true,
    };
    if !names.iter().all(is_old) {
        return Ok(0);
    }
    // The lock keeps a writer out while the two are removed, and tells if there is one. A writer
    // that comes later finds a journal without a name and makes a new one.
    let journal = open_own(partials, &names[1], OFlags::CREATE)?;
    if !try_lock(&journal)? {
        return Ok(0);
    }
    let mut removed = 0;
    for name in names {
        match unlinkat(partials, name, AtFlags::empty()) {
            Ok(()) => removed += 1,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(StoreError::from_errno("removing a partial", errno)),
        }
    }
    Ok(removed)
}

/// Whether a time of the wall clock lies more than `age` back.
fn is_older(seconds: i64, age: Duration) -> bool {
    let now = clock_gettime(ClockId::Realtime).tv_sec;
    let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
    now.saturating_sub(seconds) > age
}
