//! The disk thread: whatever may wait for a disk is done here, one job after the other.

use std::{
    any::Any,
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{Receiver, Sender, channel},
    thread::JoinHandle,
};

/// `None`: nobody waits for it.
type Job<T> = Box<dyn FnOnce() -> Option<T> + Send>;

/// A thread that does jobs in the order in which they came, and tells when one is done.
///
/// The order is part of the contract: a partial that is let go by one job can be opened again by
/// the next.
pub struct Worker<K, T> {
    jobs: Option<Sender<(K, Job<T>)>>,
    done: Receiver<(K, Result<T, Panicked>)>,
    thread: Option<JoinHandle<()>>,
}

/// A job panicked: a bug, which must not take the thread with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("internal error: {0}")]
pub struct Panicked(String);

impl<K: Send + 'static, T: Send + 'static> Worker<K, T> {
    /// Starts the thread. `notify` is called after each job that somebody waits for, on that thread, and
    /// must not block.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn spawn(notify: impl Fn() + Send + 'static) -> std::io::Result<Self> {
        let (jobs, queue) = channel::<(K, Job<T>)>();
        let (finished, done) = channel();
        let thread = std::thread::Builder::new().name("disk".to_owned()).spawn(move || {
            for (ticket, job) in queue {
                let outcome = catch_unwind(AssertUnwindSafe(job)).map_err(Panicked::new);
                let Some(outcome) = outcome.transpose() else { continue };
                if finished.send((ticket, outcome)).is_err() {
                    break;
                }
                notify();
            }
        })?;
        Ok(Self { jobs: Some(jobs), done, thread: Some(thread) })
    }

    /// Hands over a job. `ticket` comes back with its outcome.
    pub fn submit(&self, ticket: K, job: impl FnOnce() -> T + Send + 'static) {
        self.send(ticket, Box::new(|| Some(job())));
    }

    /// Hands over a job that nobody waits for: `ticket` comes back only if it panics.
    pub fn submit_unawaited(&self, ticket: K, job: impl FnOnce() + Send + 'static) {
        let job = || {
            job();
            None
        };
        self.send(ticket, Box::new(job));
    }

    fn send(&self, ticket: K, job: Job<T>) {
        if let Some(jobs) = &self.jobs {
            // The thread ends only when this sender is dropped.
            let _ = jobs.send((ticket, job));
        }
    }

    /// The next job that is done, without waiting.
    pub fn poll(&self) -> Option<(K, Result<T, Panicked>)> {
        self.done.try_recv().ok()
    }

    /// The next job that is done, waiting up to `limit` for it.
    pub fn wait(&self, limit: std::time::Duration) -> Option<(K, Result<T, Panicked>)> {
        self.done.recv_timeout(limit).ok()
    }
}

impl<K, T> Drop for Worker<K, T> {
    /// Ends the thread after the jobs it has.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<K, T> fmt::Debug for Worker<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").finish_non_exhaustive()
    }
}

impl Panicked {
    #[expect(clippy::needless_pass_by_value, reason = "as catch_unwind hands it over")]
    fn new(payload: Box<dyn Any + Send>) -> Self {
        let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Self(text.unwrap_or_else(|| "a job panicked".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicU32, Ordering},
        },
        time::Duration,
    };

    use super::*;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn jobs_are_done_in_their_order_and_none_is_lost() {
        let worker = Worker::spawn(|| ()).unwrap();
        for n in 0..10_000 {
            worker.submit(n, move || n * 2);
        }
        for n in 0..10_000 {
            assert_eq!(worker.wait(LONG), Some((n, Ok(n * 2))));
        }
    }

    #[test]
    fn nobody_is_woken_for_a_job_that_nobody_waits_for_unless_it_panics() {
        let woken = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&woken);
        let worker = Worker::<u8, u8>::spawn(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        let worker = worker.unwrap();
        for n in 0..100 {
            worker.submit_unawaited(n, || ());
        }
        worker.submit_unawaited(100, || panic!("seeded"));
        worker.submit(101, || 7);
        assert!(matches!(worker.wait(LONG), Some((100, Err(_)))));
        assert_eq!(worker.wait(LONG), Some((101, Ok(7))));
        drop(worker);
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_job_that_panics_ends_alone() {
        let worker = Worker::<u8, u8>::spawn(|| ()).unwrap();
        worker.submit(1, || panic!("seeded"));
        worker.submit(2, || 7);
        assert!(matches!(worker.wait(LONG), Some((1, Err(Panicked(text)))) if text == "seeded"));
        assert_eq!(worker.wait(LONG), Some((2, Ok(7))));
    }
}
