//! What the workers of one tree share: its sums, and the end.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use super::{Skipped, TreeDone, TreeEvent, TreeObserver};
use crate::client::{ClientError, Event, Observer};

/// Failures that turn up where nobody is to be told: when a folder is closed.
pub(super) type Problems = Mutex<Vec<ClientError>>;

pub(super) struct Shared<'a> {
    observer: &'a dyn TreeObserver,
    sums: Mutex<TreeDone>,
    ended: AtomicBool,
    pub(super) problems: Arc<Problems>,
}

impl<'a> Shared<'a> {
    pub(super) fn new(observer: &'a dyn TreeObserver) -> Self {
        let (sums, ended, problems) = Default::default();
        Self { observer, sums, ended, problems }
    }

    fn sums(&self) -> MutexGuard<'_, TreeDone> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, job: usize, event: TreeEvent<'_>) {
        self.observer.event(job, event);
    }

    /// A file is there: `moved` bytes went over the line for it, or none had to.
    pub(super) fn done(&self, job: usize, name: &[u8], size: u64, moved: Option<u64>) {
        {
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

    pub(super) fn failed(&self, job: usize, name: &[u8], error: &ClientError) {
        self.sums().failed += 1;
        self.tell(job, TreeEvent::Failed { name, error });
    }

    pub(super) fn skipped(&self, what: Skipped) {
        let mut sums = self.sums();
        match what {
            Skipped::Link => sums.links += 1,
            Skipped::Special => sums.specials += 1,
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
            self.failed(0, b"", error);
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
        if matches!(event, Event::Broke { .. }) {
            self.shared.sums().breaks += 1;
        }
        self.shared.tell(self.job, TreeEvent::Of(event));
    }
}
