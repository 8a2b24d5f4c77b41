//! Room on the disk: what is free, less what is kept back and what other uploads still need.

use std::{
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use rustix::fs::fstatvfs;

use super::{StoreError, error::Doing};
use crate::progress::Progress;

/// What is told apart of the free space of a file system. Shared by a served root and its homes.
#[derive(Debug, Default, Clone)]
pub(super) struct Space {
    /// Bytes that no upload may take.
    reserve: Arc<AtomicU64>,
    /// Bytes that open partials still have to receive.
    awaited: Arc<AtomicU64>,
}

/// What one open partial still has to receive, in bytes; given back as it comes, and when this is
/// dropped.
#[derive(Debug)]
pub(super) struct Awaited {
    sum: Arc<AtomicU64>,
    own: AtomicU64,
}

impl Space {
    /// The same reserve for another file system, on which no upload waits yet.
    pub(super) fn elsewhere(&self) -> Self {
        Self { reserve: Arc::clone(&self.reserve), awaited: Arc::default() }
    }

    pub(super) fn set_reserve(&self, bytes: u64) {
        self.reserve.store(bytes, Ordering::Relaxed);
    }

    /// What uploads may take; `None` for a file system that does not say.
    pub(super) fn free_bytes(&self, dir: impl AsFd) -> Result<Option<u64>, StoreError> {
        let space = fstatvfs(dir).doing("asking for free space")?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let taken = self.reserve.load(Ordering::Relaxed);
        let taken = taken.saturating_add(self.awaited.load(Ordering::Relaxed));
        Ok((space.f_blocks != 0).then(|| free.saturating_sub(taken)))
    }

    /// Makes sure that the rest of a file fits beside the rest of the others.
    pub(super) fn claim(&self, dir: impl AsFd, progress: &Progress) -> Result<Awaited, StoreError> {
        let needed = progress.size().saturating_sub(progress.good_bytes());
        let space = fstatvfs(dir).doing("asking for free space")?;
        // A file system without a size does not say how much is free.
        if space.f_blocks != 0 {
            let free = space.f_bavail.saturating_mul(space.f_frsize);
            let reserve = self.reserve.load(Ordering::Relaxed);
            let awaited = self.awaited.load(Ordering::Relaxed);
            check(needed, free, reserve, awaited)?;
        }
        self.awaited.fetch_add(needed, Ordering::Relaxed);
        Ok(Awaited { sum: Arc::clone(&self.awaited), own: AtomicU64::new(needed) })
    }
}

fn check(needed: u64, free: u64, reserve: u64, awaited: u64) -> Result<(), StoreError> {
    if needed <= free.saturating_sub(reserve).saturating_sub(awaited) {
        return Ok(());
    }
    let mut text = format!("{needed} bytes are needed, {free} are free");
    if reserve > 0 {
        text.push_str(&format!(", {reserve} are kept back"));
    }
    if awaited > 0 {
        text.push_str(&format!(", other uploads await {awaited}"));
    }
    Err(StoreError::NoSpace(text))
}

impl Awaited {
    /// So many bytes came, and take up space themselves from now on.
    pub(super) fn came(&self, bytes: u64) {
        let left = |own: u64| Some(own.saturating_sub(bytes));
        let before = self.own.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        let taken = before.unwrap_or_else(|own| own).min(bytes);
        self.sum.fetch_sub(taken, Ordering::Relaxed);
    }

    /// Nothing more is to come.
    pub(super) fn end(&self) {
        self.came(u64::MAX);
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn only_what_nobody_else_has_a_claim_to_is_there_to_be_taken() {
        for (needed, free, reserve, awaited, fits) in [
            (10, 10, 0, 0, true),
            (11, 10, 0, 0, false),
            (4, 10, 6, 0, true),
            (5, 10, 6, 0, false),
            (4, 10, 3, 3, true),
            (5, 10, 3, 3, false),
            (0, 10, 20, 0, true),
            (1, 10, 20, u64::MAX, false),
        ] {
            let text = format!("{needed} of {free}, {reserve}, {awaited}");
            assert_eq!(check(needed, free, reserve, awaited).is_ok(), fits, "{text}");
        }
        let error = check(5, 10, 6, 2).unwrap_err().to_string();
        for word in ["5 bytes are needed", "10 are free", "6 are kept back", "await 2"] {
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn what_came_or_will_not_come_is_given_back_once() {
        let space = Space::default();
        let sum = || space.awaited.load(Ordering::Relaxed);
        let dir = OwnedFd::from(std::fs::File::open(".").unwrap());
        let first = space.claim(&dir, &Progress::new(100)).unwrap();
        let second = space.claim(&dir, &Progress::new(50)).unwrap();
        assert_eq!(sum(), 150);
        first.came(30);
        assert_eq!(sum(), 120);
        // Segments that come again are more than was announced.
        first.came(90);
        assert_eq!(sum(), 50);
        drop(first);
        second.end();
        drop(second);
        assert_eq!(sum(), 0);
    }
}
