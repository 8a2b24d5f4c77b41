//! What the workers of one tree share: its sums, and the end.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU32, Ordering},
};

use super::{Skipped, TreeDone, TreeEvent, TreeObserver};
use crate::client::{ClientError, Event, Observer};

/// Failures that turn up where nobody is to be told: when a folder is closed.
pub(super) type Problems = Mutex<Vec<ClientError>>;

pub(super) struct Shared<'a> {
    observer: &'a dyn TreeObserver,
    sums: Mutex<TreeDone>,
    /// Files in a row for which there was no room.
    without_room: AtomicU32,
    ended: AtomicBool,
    all_found: AtomicBool,
    pub(super) problems: Arc<Problems>,
}

impl<'a> Shared<'a> {
    pub(super) fn new(observer: &'a dyn TreeObserver) -> Self {
        let (sums, without_room, ended, all_found, problems) = Default::default();
        Self { observer, sums, without_room, ended, all_found, problems }
    }

    fn sums(&self) -> MutexGuard<'_, TreeDone> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, job: usize, event: TreeEvent<'_>) {
        self.observer.event(job, event);
    }

    /// A file is there: `moved` bytes went over the line for it that were not told yet, or none had to.
    pub(super) fn done(&self, job: usize, name: &[u8], size: u64, moved: Option<u64>) {
        {
            if moved.is_some() {
                self.without_room.store(0, Ordering::Release);
            }
            let mut sums = self.sums();
            match moved {
                Some(bytes) => {
                    sums.moved_files += 1;
                    sums.moved_bytes += bytes;
                }
                None => {
                    sums.there_files += 1;
                    sums.there_bytes += size;
                }
            }
        }
        self.tell(job, TreeEvent::Done { name, size, moved: moved.is_some() });
    }

    /// A file is not there. Where there is no room for two in a row there is none for the others.
    pub(super) fn failed(&self, job: usize, name: &[u8], error: &ClientError) {
        self.sums().failed += 1;
        self.tell(job, TreeEvent::Failed { name, error });
        if let Some(error) = error.no_room()
            && self.without_room.fetch_add(1, Ordering::AcqRel) > 0
        {
            self.end(error);
        }
    }

    /// A folder is not there, nor what is in it.
    pub(super) fn folder_failed(&self, job: usize, name: &[u8], error: &ClientError) {
        self.sums().failed_folders += 1;
        self.tell(job, TreeEvent::Failed { name, error });
        if let Some(error) = error.no_room() {
            self.end(error);
        }
    }

    /// The walk is at its end.
    pub(super) fn all_found(&self) {
        if !self.all_found.swap(true, Ordering::AcqRel) {
            self.tell(0, TreeEvent::AllFound);
        }
    }

    pub(super) fn skipped(&self, what: Skipped) {
        let mut sums = self.sums();
        match what {
            Skipped::Link => sums.links += 1,
            Skipped::Special => sums.specials += 1,
            Skipped::Own => sums.own += 1,
        }
    }

    /// Nothing more can be done, for this reason.
    pub(super) fn end(&self, error: ClientError) {
        self.ended.store(true, Ordering::Release);
        // Whoever was interrupted ends the others as well: the first reason is the one.
        self.sums().ended.get_or_insert(error);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn finish(self) -> TreeDone {
        let problems =
            std::mem::take(&mut *self.problems.lock().unwrap_or_else(PoisonError::into_inner));
        for error in &problems {
            self.folder_failed(0, b"", error);
        }
        self.sums.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one connection tells.
pub(super) struct OfJob<'a> {
    pub(super) shared: &'a Shared<'a>,
    pub(super) job: usize,
}

impl Observer for OfJob<'_> {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Broke { .. } => self.shared.sums().breaks += 1,
            Event::Moved(bytes) => self.shared.sums().moved_bytes += bytes,
            _ => {}
        }
        self.shared.tell(self.job, TreeEvent::Of(event));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    #[test]
    fn two_in_a_row_without_room_end_the_tree() {
        let no_room = || {
            let error = StoreError::NoSpace("disk full".to_owned());
            ClientError::Local { what: "f".to_owned(), error }
        };
        let shared = Shared::new(&());
        shared.failed(0, b"f", &no_room());
        // There was room for a smaller one.
        shared.done(0, b"g", 1, Some(1));
        shared.failed(0, b"h", &no_room());
        assert!(!shared.has_ended());
        // That one was there tells nothing of the room, nor does another error.
        shared.done(0, b"i", 1, None);
        shared.failed(0, b"j", &ClientError::Verification("spoiled".to_owned()));
        shared.failed(0, b"k", &no_room());
        assert!(shared.has_ended());
        assert!(matches!(shared.finish().ended, Some(ClientError::Local { .. })));
    }
}
