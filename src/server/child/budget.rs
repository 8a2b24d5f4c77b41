//! How much one run may still put out, and how long it may still take. Pure.

use std::time::Instant;

use crate::{action::Prepared, limits::ACTION_GRACE};

/// The bounds of one run.
#[derive(Debug, Clone)]
pub struct Budget {
    output_left: u64,
    /// When SIGTERM, and when SIGKILL is due.
    deadline: Instant,
    stage: Stage,
    /// Whether somebody else than the clock ends it.
    stopped: bool,
    limit: Option<Limit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Running,
    Terminated,
    Killed,
}

/// What a run went beyond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Its `max-output`.
    Output,
    /// Its `timeout`.
    Time,
}

/// What to do with output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it on.
    Within,
    /// Pass on this many bytes of it, and no more: the run is being ended.
    Beyond(usize),
}

/// What to do with a run at some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Let it go on.
    Nothing,
    /// [`Child::terminate`](super::Child::terminate). Said once.
    Terminate,
    /// [`Child::kill`](super::Child::kill). Said once.
    Kill,
}

impl Budget {
    /// The bounds of a run that starts now.
    #[must_use]
    pub fn new(prepared: &Prepared, now: Instant) -> Self {
        Self {
            output_left: prepared.max_output,
            deadline: now + prepared.timeout,
            stage: Stage::Running,
            stopped: false,
            limit: None,
        }
    }

    /// Counts output of either stream.
    pub fn after(&mut self, bytes: usize, now: Instant) -> Verdict {
        if let Some(left) = self.output_left.checked_sub(bytes as u64) {
            self.output_left = left;
            return Verdict::Within;
        }
        // It is less than `bytes`, and fits.
        let pass = usize::try_from(self.output_left).unwrap_or(bytes);
        self.output_left = 0;
        self.limit.get_or_insert(Limit::Output);
        self.stop(now);
        Verdict::Beyond(pass)
    }

    /// Has the run ended: the client does not want it any more.
    pub fn stop(&mut self, now: Instant) {
        self.stopped = true;
        if self.stage == Stage::Running {
            self.deadline = self.deadline.min(now);
        }
    }

    /// What is due by now.
    pub fn due(&mut self, now: Instant) -> Due {
        if now < self.deadline {
            return Due::Nothing;
        }
        match self.stage {
            Stage::Running => {
                if !self.stopped {
                    self.limit = Some(Limit::Time);
                }
                self.stage = Stage::Terminated;
                self.deadline = now + ACTION_GRACE;
                Due::Terminate
            }
            Stage::Terminated => {
                self.stage = Stage::Killed;
                Due::Kill
            }
            Stage::Killed => Due::Nothing,
        }
    }

    /// When to ask [`Self::due`] again; `None` once everything was done.
    #[must_use]
    pub fn wake(&self) -> Option<Instant> {
        (self.stage != Stage::Killed).then_some(self.deadline)
    }

    /// What the run went beyond, if it did.
    #[must_use]
    pub const fn limit(&self) -> Option<Limit> {
        self.limit
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, time::Duration};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn budget(now: Instant) -> Budget {
        let prepared = Prepared {
            name: "it".to_owned(),
            program: PathBuf::from("/bin/true"),
            arguments: Vec::new(),
            timeout: 10 * SECOND,
            max_output: 100,
            max_running: 1,
        };
        Budget::new(&prepared, now)
    }

    #[test]
    fn output_is_passed_on_to_the_last_byte_that_is_allowed_and_no_further() {
        let now = Instant::now();
        let mut budget = budget(now);
        assert_eq!(budget.after(60, now), Verdict::Within);
        assert_eq!(budget.after(40, now), Verdict::Within);
        assert_eq!(budget.after(0, now), Verdict::Within);
        assert_eq!((budget.limit(), budget.due(now)), (None, Due::Nothing));
        assert_eq!(budget.after(1, now), Verdict::Beyond(0));
        assert_eq!((budget.limit(), budget.due(now)), (Some(Limit::Output), Due::Terminate));
    }

    #[test]
    fn output_beyond_the_limit_is_cut_there() {
        let now = Instant::now();
        let mut budget = budget(now);
        assert_eq!(budget.after(60, now), Verdict::Within);
        assert_eq!(budget.after(60, now), Verdict::Beyond(40));
        assert_eq!(budget.after(60, now), Verdict::Beyond(0));
    }

    #[test]
    fn at_the_time_out_it_is_asked_to_end_and_after_the_grace_made_to() {
        let start = Instant::now();
        let mut budget = budget(start);
        let end = start + 10 * SECOND;
        assert_eq!(budget.wake(), Some(end));
        assert_eq!(budget.due(start + 9 * SECOND), Due::Nothing);
        assert_eq!(budget.limit(), None);
        assert_eq!(budget.due(end), Due::Terminate);
        assert_eq!(budget.limit(), Some(Limit::Time));
        assert_eq!(budget.due(end), Due::Nothing);
        assert_eq!(budget.wake(), Some(end + ACTION_GRACE));
        // Nothing buys it more time.
        budget.stop(end + SECOND);
        let _ = budget.after(1000, end + SECOND);
        assert_eq!(budget.wake(), Some(end + ACTION_GRACE));
        assert_eq!(budget.due(end + ACTION_GRACE), Due::Kill);
        assert_eq!(budget.due(end + 2 * ACTION_GRACE), Due::Nothing);
        assert_eq!((budget.wake(), budget.limit()), (None, Some(Limit::Time)));
    }

    #[test]
    fn a_run_that_nobody_wants_ends_at_once_and_met_no_limit() {
        let start = Instant::now();
        let mut budget = budget(start);
        budget.stop(start + SECOND);
        budget.stop(start + 2 * SECOND);
        assert_eq!(budget.wake(), Some(start + SECOND));
        assert_eq!(budget.due(start + SECOND), Due::Terminate);
        assert_eq!(budget.limit(), None);
    }
}
