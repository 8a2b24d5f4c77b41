//! What a person sees while many files are moved: one bar in sum, one for each large file that runs.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget};
use towpath::client::{ClientError, Event, Observer, TreeEvent, TreeObserver};

use crate::{
    exit::Exit,
    progress::{Bar, Retries, again, draw_target, set_style},
    show::printable,
};

/// Failures that are listed; beyond, they are counted.
const FAILURES_SHOWN: usize = 50;

/// The bars, and what failed. Without a terminal nothing is drawn.
pub(crate) struct Bars {
    name: String,
    shown: bool,
    quiet: bool,
    all: MultiProgress,
    state: Mutex<State>,
}

struct State {
    sum: ProgressBar,
    /// Large files that run, by connection.
    running: HashMap<usize, Running>,
    seen_files: u64,
    seen_bytes: u64,
    done_files: u64,
    done_bytes: u64,
    failures: Vec<String>,
    failed: u64,
    first: Option<Exit>,
}

struct Running {
    name: Vec<u8>,
    bar: Bar,
    position: u64,
}

impl Bars {
    pub(crate) fn new(name: &str, quiet: bool) -> Self {
        let target = draw_target(quiet);
        let shown = target.is_some();
        let target = target.unwrap_or_else(ProgressDrawTarget::hidden);
        let all = MultiProgress::with_draw_target(target);
        let sum = all.add(ProgressBar::new(0));
        let template = "{prefix:.bold} {bar:24} {percent:>3}% {bytes}/{total_bytes} {wide_msg}";
        set_style(&sum, template);
        sum.set_prefix("in sum");
        let state = State {
            sum,
            running: HashMap::new(),
            seen_files: 0,
            seen_bytes: 0,
            done_files: 0,
            done_bytes: 0,
            failures: Vec::new(),
            failed: 0,
            first: None,
        };
        Self { name: name.to_owned(), shown, quiet, all, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the bars off the screen.
    pub(crate) fn clear(&self) {
        self.state().sum.finish_and_clear();
        // A bar that can't be taken away does no harm.
        let _ = self.all.clear();
    }

    /// Lists what failed; returns how the program ends for it.
    pub(crate) fn tell_failures(&self) -> Option<Exit> {
        let state = self.state();
        for failure in &state.failures {
            eprintln!("tow: {failure}");
        }
        let more = state.failed.saturating_sub(state.failures.len() as u64);
        if more > 0 {
            eprintln!("tow: and {more} more failed");
        }
        state.first
    }
}

impl State {
    fn fail(&mut self, text: String, exit: Exit) {
        self.failed += 1;
        self.first.get_or_insert(exit);
        if self.failures.len() < FAILURES_SHOWN {
            self.failures.push(text);
        }
    }

    /// The large file of this name does not run any more.
    fn ended(&mut self, job: usize, name: &[u8]) {
        if self.running.get(&job).is_some_and(|running| running.name == name)
            && let Some(running) = self.running.remove(&job)
        {
            running.bar.clear();
        }
    }

    fn draw(&self) {
        let running: u64 = self.running.values().map(|running| running.position).sum();
        self.sum.set_length(self.seen_bytes);
        self.sum.set_position(self.done_bytes + running);
        let mut text = format!("{} of {} files", self.done_files, self.seen_files);
        if self.failed > 0 {
            text.push_str(&format!(", {} failed", self.failed));
        }
        self.sum.set_message(text);
    }
}

impl TreeObserver for Bars {
    fn event(&self, job: usize, event: TreeEvent<'_>) {
        let mut state = self.state();
        match event {
            TreeEvent::Found { size } => {
                state.seen_files += 1;
                state.seen_bytes += size;
            }
            TreeEvent::Begin { name } => {
                let shown = printable(name);
                let plain = Retries::new(&shown, self.quiet || self.shown);
                let bar = Bar::over(self.all.add(ProgressBar::no_length()), &shown, plain);
                state.running.insert(job, Running { name: name.to_vec(), bar, position: 0 });
            }
            TreeEvent::Of(event) => match state.running.get_mut(&job) {
                Some(running) => {
                    if let Event::Position(position) = event {
                        running.position = position;
                    }
                    running.bar.event(event);
                }
                None => {
                    if let Event::Broke { reason, pause } = event {
                        if self.shown {
                            let text = printable(again(reason, pause).as_bytes());
                            return state.sum.set_message(text);
                        }
                        Retries::new(&self.name, self.quiet).broke(reason, pause);
                    }
                    return;
                }
            },
            TreeEvent::Done { name, size, .. } => {
                state.done_files += 1;
                state.done_bytes += size;
                state.ended(job, name);
            }
            TreeEvent::Failed { name, error } => {
                state.ended(job, name);
                let (text, exit) = describe(name, error);
                state.fail(text, exit);
            }
        }
        if self.shown {
            state.draw();
        }
    }
}

/// A failure in one line.
fn describe(name: &[u8], error: &ClientError) -> (String, Exit) {
    let text = match error {
        // It names the file itself.
        ClientError::Local { .. } => error.to_string(),
        error => format!("{}: {error}", printable(name)),
    };
    let exit = match error {
        // It was found in a folder, not typed.
        ClientError::Path(_) => Exit::Failed,
        error => Exit::of(error),
    };
    (printable(text.as_bytes()), exit)
}
