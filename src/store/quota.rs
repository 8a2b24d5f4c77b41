//! Quotas: what an account may store, what it does store, and the ledger that keeps both.
//!
//! A ledger begins with what a [`Walk`](super::Walk) measured, and follows every change that is
//! made through its root. What others change in the folder, it learns at the next measurement.

use std::{
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rustix::{
    fs::{AtFlags, Stat, statat},
    path::Arg,
};

use super::{Root, StoreError, listing::Kind};

/// What an account may store; `None` for as much as there is room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Quota {
    /// Bytes in files and partials.
    pub bytes: Option<u64>,
    /// Files, directories and partials.
    pub files: Option<u64>,
}

/// What is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes: the sizes of regular files, once for each name that one has, and of partials. While a
    /// partial is open it counts with the size that was offered.
    pub bytes: u64,
    /// Regular files, directories and partials.
    pub files: u64,
}

impl Usage {
    /// What a directory counts.
    pub(super) const DIRECTORY: Self = Self { bytes: 0, files: 1 };

    /// What one name counts.
    pub(super) fn of(stat: &Stat) -> Self {
        match Kind::of(stat) {
            Kind::File => Self { bytes: u64::try_from(stat.st_size).unwrap_or(0), files: 1 },
            Kind::Directory => Self::DIRECTORY,
            Kind::Link | Kind::Other => Self::default(),
        }
    }

    /// The same for what has a name now; nothing if that can't be told.
    pub(super) fn of_name(dir: impl AsFd, name: impl Arg) -> Self {
        let stat = statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        stat.map(|stat| Self::of(&stat)).unwrap_or_default()
    }

    pub(super) const fn plus(self, more: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_add(more.bytes),
            files: self.files.saturating_add(more.files),
        }
    }

    /// What others removed was perhaps never counted: it ends at zero.
    const fn minus(self, less: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(less.bytes),
            files: self.files.saturating_sub(less.files),
        }
    }
}

impl Usage {
    /// With so many bytes and files more or less.
    pub(crate) const fn changed_by(self, [bytes, files]: [i64; 2]) -> Self {
        Self {
            bytes: self.bytes.saturating_add_signed(bytes),
            files: self.files.saturating_add_signed(files),
        }
    }
}

impl Quota {
    /// Whether so much may be stored.
    pub(super) fn check(&self, usage: Usage) -> Result<(), StoreError> {
        let over = |limit: Option<u64>, used: u64| {
            limit.and_then(|limit| used.checked_sub(limit)).filter(|&over| over > 0)
        };
        let (over, limit) = match (over(self.bytes, usage.bytes), over(self.files, usage.files)) {
            (None, None) => return Ok(()),
            (Some(over), _) => (bytes_text(over), bytes_text(self.bytes.unwrap_or(0))),
            (None, Some(over)) => (files_text(over), files_text(self.files.unwrap_or(0))),
        };
        let text = format!("{over} more than the {limit} that this account may store");
        Err(StoreError::QuotaExceeded(text))
    }
}

/// Exact, in the largest unit that leaves no rest.
fn bytes_text(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.iter().find(|(bits, _)| bytes > 0 && bytes.is_multiple_of(1 << bits));
    match unit {
        Some((bits, unit)) => format!("{} {unit}", bytes >> bits),
        None if bytes == 1 => "1 byte".to_owned(),
        None => format!("{bytes} bytes"),
    }
}

fn files_text(files: u64) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

/// What is changed in a home by one process, since it was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Change {
    /// Bytes that came, less those that went.
    pub bytes: i64,
    /// The same of files, directories and partials.
    pub files: i64,
    /// How many of the bytes are only expected: those of open partials.
    pub claimed: u64,
}

/// What is stored in a home, and what may be. Shared by all who have the home open, and by whoever
/// keeps it while nobody has.
#[derive(Debug)]
pub struct Ledger(Mutex<Entries>);

#[derive(Debug)]
struct Entries {
    quota: Quota,
    /// With what other processes have changed.
    usage: Usage,
    change: Change,
    /// Bytes and files by which others have changed it.
    elsewhere: [i64; 2],
}

impl Entries {
    fn set(&mut self, usage: Usage) {
        let difference = |new: u64, old: u64| {
            let size = i64::try_from(new.abs_diff(old)).unwrap_or(i64::MAX);
            if new < old { -size } else { size }
        };
        let Change { bytes, files, .. } = &mut self.change;
        *bytes = bytes.saturating_add(difference(usage.bytes, self.usage.bytes));
        *files = files.saturating_add(difference(usage.files, self.usage.files));
        self.usage = usage;
    }
}

impl Ledger {
    /// A ledger that begins with what was measured, before anything was opened or changed since.
    #[must_use]
    pub const fn new(quota: Quota, measured: Usage) -> Self {
        let change = Change { bytes: 0, files: 0, claimed: 0 };
        Self(Mutex::new(Entries { quota, usage: measured, change, elsewhere: [0; 2] }))
    }

    /// What is stored, with what open partials were promised.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.entries().usage
    }

    /// What may be stored.
    #[must_use]
    pub fn quota(&self) -> Quota {
        self.entries().quota
    }

    /// Sets what may be stored from now on. If that is less than what is stored, nothing new can
    /// be put until enough was removed.
    pub fn set_quota(&self, quota: Quota) {
        self.entries().quota = quota;
    }

    /// Takes `removed` off, and adds `added`.
    pub(crate) fn change(&self, removed: Usage, added: Usage) {
        let mut entries = self.entries();
        let usage = entries.usage.minus(removed).plus(added);
        entries.set(usage);
    }

    /// What this process has changed since the home was measured.
    pub(crate) fn change_since(&self) -> Change {
        self.entries().change
    }

    /// What other processes have changed since then, in bytes and in files.
    pub(crate) fn set_elsewhere(&self, elsewhere: [i64; 2]) {
        let mut entries = self.entries();
        let [old, new] = [entries.elsewhere, elsewhere];
        let more = [0, 1].map(|at: usize| new[at].saturating_sub(old[at]));
        entries.usage = entries.usage.changed_by(more);
        entries.elsewhere = elsewhere;
    }

    /// The home was measured again, by another process. What was changed here is in that, unless
    /// somebody is in it here.
    pub(crate) fn rebase(&self, measured: Usage, keep: bool) {
        let mut entries = self.entries();
        if !keep {
            entries.change = Change::default();
        }
        let Change { bytes, files, .. } = entries.change;
        entries.usage = measured.changed_by([bytes, files]);
        entries.elsewhere = [0; 2];
    }

    /// So many of the bytes that count are only expected.
    pub(crate) fn claim(&self, bytes: u64) {
        let claimed = &mut self.entries().change.claimed;
        *claimed = claimed.saturating_add(bytes);
    }

    fn unclaim(&self, bytes: u64) {
        let claimed = &mut self.entries().change.claimed;
        *claimed = claimed.saturating_sub(bytes);
    }

    /// The same, if the quota allows what comes of it.
    fn change_within_quota(&self, removed: Usage, added: Usage) -> Result<(), StoreError> {
        let mut entries = self.entries();
        let usage = entries.usage.minus(removed).plus(added);
        entries.quota.check(usage)?;
        entries.set(usage);
        Ok(())
    }

    /// Whether a directory may be made.
    fn check_directory(&self) -> Result<(), StoreError> {
        let entries = self.entries();
        let files = entries.usage.files.saturating_add(1);
        // It takes no bytes: it may be made though too many are stored.
        entries.quota.check(Usage { bytes: 0, files })
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        // Whoever held it did nothing that could panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an open partial counts, from before its first byte.
#[derive(Debug)]
pub(super) struct Reservation {
    ledger: Option<Arc<Ledger>>,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counted {
    usage: Usage,
    /// Bytes of it that are still to come.
    claimed: u64,
}

impl Reservation {
    /// Counts a partial that had what `stored` says with the size it shall have, if the quota allows that.
    pub(super) fn new(
        ledger: Option<&Arc<Ledger>>,
        stored: impl FnOnce() -> Usage,
        size: u64,
    ) -> Result<Self, StoreError> {
        let mut counted = Counted::default();
        if let Some(ledger) = ledger {
            let has = stored();
            let usage = Usage { bytes: size.max(has.bytes), files: 1 };
            ledger.change_within_quota(has, usage)?;
            counted = Counted { usage, claimed: usage.bytes.saturating_sub(has.bytes) };
            ledger.claim(counted.claimed);
        }
        Ok(Self { ledger: ledger.cloned(), counted: Mutex::new(counted) })
    }

    /// The partial is let go: it counts with what `stored` says is there.
    pub(super) fn release(&self, stored: impl FnOnce() -> Usage) {
        if let Some(ledger) = &self.ledger {
            ledger.change(self.take(ledger), stored());
        }
    }

    /// The partial has become a file, and perhaps taken the place of another.
    pub(super) fn commit(&self, size: u64, replaced: Usage) {
        if let Some(ledger) = &self.ledger {
            let file = Usage { bytes: size, files: 1 };
            ledger.change(self.take(ledger).plus(replaced), file);
        }
    }

    fn take(&self, ledger: &Ledger) -> Usage {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        let Counted { usage, claimed } = std::mem::take(&mut *counted);
        ledger.unclaim(claimed);
        usage
    }
}

impl Root {
    /// Counts in `ledger` what is changed through this root, and refuses what its quota does not
    /// allow. Without one nothing is counted.
    #[must_use]
    pub fn with_ledger(mut self, ledger: Arc<Ledger>) -> Self {
        self.set_ledger(ledger);
        self
    }

    /// Whether the quota leaves room for a directory of this name; if something has the name
    /// already, that is said instead by whoever makes it.
    pub(super) fn check_quota_for_dir(
        &self,
        parent: impl AsFd,
        name: &[u8],
    ) -> Result<(), StoreError> {
        match self.ledger().map(|ledger| ledger.check_directory()) {
            Some(Err(error)) if statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_err() => {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// What a name counts, if anybody counts.
    pub(super) fn weigh(&self, dir: impl AsFd, name: &[u8]) -> Usage {
        self.ledger().map(|_| Usage::of_name(dir, name)).unwrap_or_default()
    }

    /// What a rename takes away: what has the new name, unless both names are of one file, for
    /// then nothing happens.
    pub(super) fn weigh_replaced(
        &self,
        (from_dir, from): (&OwnedFd, &[u8]),
        (to_dir, to): (&OwnedFd, &[u8]),
    ) -> Usage {
        let look = |dir, name| statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        match (self.ledger(), look(from_dir, from), look(to_dir, to)) {
            (Some(_), Ok(from), Ok(to)) if (from.st_dev, from.st_ino) != (to.st_dev, to.st_ino) => {
                Usage::of(&to)
            }
            _ => Usage::default(),
        }
    }

    /// Tells the ledger, if there is one.
    pub(super) fn count(&self, removed: Usage, added: Usage) {
        if let Some(ledger) = self.ledger() {
            ledger.change(removed, added);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_much_is_said_exactly() {
        let quota = |bytes, files| Quota { bytes, files };
        let used = |bytes, files| Usage { bytes, files };
        for (quota, usage, text) in [
            (quota(None, None), used(u64::MAX, u64::MAX), None),
            (quota(Some(100 << 20), None), used(100 << 20, 9), None),
            (
                quota(Some(100 << 20), None),
                used((100 << 20) + 12, 9),
                Some("12 bytes more than the 100 MiB that this account may store"),
            ),
            (
                quota(Some(1000), Some(1)),
                used(1001, 3),
                Some("1 byte more than the 1000 bytes that this account may store"),
            ),
            (
                quota(Some(0), None),
                used(1 << 40, 0),
                Some("1 TiB more than the 0 bytes that this account may store"),
            ),
            (quota(None, Some(2)), used(1, 2), None),
            (
                quota(None, Some(2)),
                used(1, 3),
                Some("1 file more than the 2 files that this account may store"),
            ),
        ] {
            let error = quota.check(usage).err().map(|error| error.to_string());
            assert_eq!(error.as_deref(), text);
        }
    }
}
