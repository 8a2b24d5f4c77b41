//! What is to be done next, for several workers: a tree that is walked as it is needed.
//!
//! Between files there is work that what follows depends on: a listing to be read, a directory to be
//! made. One worker does it, and only with a line on which nothing is awaited.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::shared::Shared;
use crate::client::{ClientError, Stop};

/// A walk over a tree, depth first.
pub(super) trait Walk {
    /// A file to be moved.
    type File;
    /// What has to be done before the walk goes on.
    type Job;

    /// The next step. Not called between a job and its end.
    fn step(&mut self, shared: &Shared<'_>) -> Step<Self::File, Self::Job>;
}

pub(super) enum Step<F, J> {
    File(F),
    Job(J),
    End,
}

/// What a worker is given.
pub(super) enum Next<F, J> {
    File(F),
    /// To be done, and then told by [`Queue::job_done`].
    Job(J),
    /// Only for a worker on whose line nothing is awaited.
    NotNow,
    End,
}

pub(super) struct Queue<W: Walk> {
    state: Mutex<State<W>>,
    changed: Condvar,
}

struct State<W: Walk> {
    walk: W,
    waiting: Option<W::Job>,
    running: bool,
}

impl<W: Walk> Queue<W> {
    pub(super) const fn new(walk: W) -> Self {
        let state = State { walk, waiting: None, running: false };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do next. An idle worker waits for it while another does a job.
    pub(super) fn next(
        &self,
        idle: bool,
        shared: &Shared<'_>,
        stop: &Stop,
    ) -> Result<Next<W::File, W::Job>, ClientError> {
        /// A stop that comes from another thread wakes nobody.
        const LOOK_AT_STOP: Duration = Duration::from_millis(100);
        let mut state = self.state();
        loop {
            if stop.is_set() {
                return Err(ClientError::Interrupted);
            }
            if shared.has_ended() {
                return Ok(Next::End);
            }
            if state.running {
                if !idle {
                    return Ok(Next::NotNow);
                }
                let waited = self.changed.wait_timeout(state, LOOK_AT_STOP);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
                continue;
            }
            let step = match state.waiting.take() {
                Some(job) => Step::Job(job),
                None => state.walk.step(shared),
            };
            return Ok(match step {
                Step::File(file) => Next::File(file),
                Step::End => Next::End,
                Step::Job(job) if idle => {
                    state.running = true;
                    Next::Job(job)
                }
                Step::Job(job) => {
                    state.waiting = Some(job);
                    Next::NotNow
                }
            });
        }
    }

    /// The job that a worker was given is done: `tell` tells the walk what came of it.
    pub(super) fn job_done(&self, tell: impl FnOnce(&mut W)) {
        let mut state = self.state();
        tell(&mut state.walk);
        state.running = false;
        self.changed.notify_all();
    }
}
