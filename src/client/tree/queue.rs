//! What is to be done next, for several workers: a tree that is walked as it is needed.
//!
//! Between files there is work that what follows depends on: a listing to be read, a directory to be
//! made. One worker does it, and only with a line on which nothing is awaited.
//!
//! A worker that gives up leaves what it holds to the others. So none of them is done before all are.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::shared::Shared;
use crate::client::{ClientError, LOOK_AT_STOP, Stop};

/// A walk over a tree, depth first.
pub(super) trait Walk {
    /// A file to be moved.
    type File;
    /// What has to be done before the walk goes on.
    type Job;

    /// What is let go of where nobody waits: its end may wait for a disk.
    type Left;

    /// What the walk has left behind since it was asked last.
    fn left_behind(&mut self) -> Self::Left;

    /// The next step. Not called between a job and its end.
    fn step(&mut self, shared: &Shared<'_>) -> Step<Self::File, Self::Job>;
}

/// What a worker has to do besides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Own {
    /// Something is awaited on its line.
    Awaited,
    /// Nothing is awaited, but there is something left to do.
    Left,
    /// Nothing at all.
    Nothing,
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
    /// What workers that gave up have left.
    returned: Vec<W::File>,
    /// Workers that have not left.
    workers: usize,
    /// Those of them that only wait for what others may leave.
    resting: usize,
}

impl<W: Walk> Queue<W> {
    /// For so many workers.
    pub(super) fn new(walk: W, workers: usize) -> Self {
        let (waiting, running, returned, resting) = (None, false, Vec::new(), 0);
        let state = State { walk, waiting, running, returned, workers, resting };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State<W>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What to do next. A worker on whose line nothing is awaited waits for it while another does a
    /// job, and one that has nothing left until all others have nothing left.
    pub(super) fn next(
        &self,
        own: Own,
        shared: &Shared<'_>,
        stop: &Stop,
    ) -> Result<Next<W::File, W::Job>, ClientError> {
        let idle = own != Own::Awaited;
        let mut state = self.state();
        loop {
            if stop.is_set() {
                return Err(ClientError::Interrupted);
            }
            if shared.has_ended() {
                return Ok(Next::End);
            }
            if let Some(file) = state.returned.pop() {
                return Ok(Next::File(file));
            }
            let wait = |state| {
                let waited = self.changed.wait_timeout(state, LOOK_AT_STOP);
                waited.unwrap_or_else(PoisonError::into_inner).0
            };
            if state.running {
                if !idle {
                    return Ok(Next::NotNow);
                }
                state = wait(state);
                continue;
            }
            let step = match state.waiting.take() {
                Some(job) => Step::Job(job),
                None => state.walk.step(shared),
            };
            if matches!(step, Step::End) {
                shared.all_found();
                if own == Own::Nothing && state.workers > state.resting + 1 {
                    state.resting += 1;
                    state = wait(state);
                    state.resting -= 1;
                    continue;
                }
            }
            let next = match step {
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
            };
            let left = state.walk.left_behind();
            drop(state);
            drop(left);
            return Ok(next);
        }
    }

    /// The job that a worker was given is done: `tell` tells the walk what came of it.
    pub(super) fn job_done(&self, tell: impl FnOnce(&mut W)) {
        let mut state = self.state();
        tell(&mut state.walk);
        state.running = false;
        self.changed.notify_all();
    }

    /// A worker leaves that holds nothing, or all is over.
    pub(super) fn leave(&self) {
        self.state().workers -= 1;
        self.changed.notify_all();
    }

    /// A worker leaves, if there is another one to do what it hands over. Says whether there is.
    pub(super) fn leave_to_others(
        &self,
        hand_over: impl FnOnce() -> (Vec<W::File>, Option<W::Job>),
    ) -> bool {
        let mut state = self.state();
        if state.workers <= 1 {
            return false;
        }
        let (files, job) = hand_over();
        state.returned.extend(files);
        if job.is_some() {
            (state.waiting, state.running) = (job, false);
        }
        state.workers -= 1;
        self.changed.notify_all();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// Two files, and a job between them.
    struct Steps(Vec<Step<u32, &'static str>>);

    impl Walk for Steps {
        type File = u32;
        type Job = &'static str;
        type Left = ();

        fn left_behind(&mut self) {}

        fn step(&mut self, _: &Shared<'_>) -> Step<u32, &'static str> {
            self.0.pop().unwrap_or(Step::End)
        }
    }

    #[test]
    fn what_a_worker_leaves_is_done_by_one_that_had_nothing_left() {
        let walk = Steps(vec![Step::Job("job"), Step::File(1)]);
        let (queue, shared, stop) = (Queue::new(walk, 2), Shared::new(&()), Stop::default());
        let next = || queue.next(Own::Nothing, &shared, &stop).unwrap();
        assert!(matches!(next(), Next::File(1)));
        assert!(matches!(next(), Next::Job("job")));
        thread::scope(|scope| {
            // Waits for the job, then for what else may be left.
            let other = scope.spawn(|| {
                assert!(matches!(next(), Next::File(1)));
                assert!(matches!(next(), Next::Job("job")));
                queue.job_done(|walk| walk.0.push(Step::File(2)));
                assert!(matches!(next(), Next::File(2)));
                assert!(matches!(next(), Next::End));
                assert!(!queue.leave_to_others(|| (vec![2], None)), "it is the last one");
            });
            assert!(queue.leave_to_others(|| (vec![1], Some("job"))));
            other.join().unwrap();
        });
    }

    #[test]
    fn a_worker_with_nothing_left_waits_until_all_others_have_nothing_left() {
        let (walk, shared, stop) = (Steps(vec![Step::File(1)]), Shared::new(&()), Stop::default());
        let queue = Queue::new(walk, 2);
        assert!(matches!(queue.next(Own::Nothing, &shared, &stop), Ok(Next::File(1))));
        thread::scope(|scope| {
            let other = scope.spawn(|| queue.next(Own::Nothing, &shared, &stop).unwrap());
            while queue.state().resting == 0 {
                thread::yield_now();
            }
            assert!(matches!(queue.next(Own::Left, &shared, &stop), Ok(Next::End)));
            queue.leave_to_others(|| (vec![1], None));
            assert!(matches!(other.join().unwrap(), Next::File(1)));
        });
    }
}
