//! What a person sees while many files are moved: one bar in sum, one for each large file that runs.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, MultiProgress, ProgressBar, ProgressDrawTarget};
use towpath::client::{ClientError, Event, Observer, TreeEvent, TreeObserver};

use crate::{
    exit::{Exit, hint},
    progress::{Bar, Retries, again, bar_template, draw_target, rate, set_style},
    show::printable,
};

/// Failures that are listed; beyond, they are counted.
const FAILURES_SHOWN: usize = 50;

/// How often the line in sum is made anew at most: it costs more than a small file does.
const DRAW_PAUSE: Duration = Duration::from_millis(100);

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
    /// Whether these are all there are: only then there is a percentage of them.
    all_found: bool,
    seen_files: u64,
    seen_bytes: u64,
    done_files: u64,
    done_bytes: u64,
    /// Those of them that were moved.
    moved_bytes: u64,
    began: Instant,
    drawn: Option<Instant>,
    failures: Vec<String>,
    failed: u64,
    /// What can be done about them.
    hints: Vec<&'static str>,
    first: Option<Exit>,
}

struct Running {
    name: Vec<u8>,
    bar: Bar,
    already: u64,
    position: u64,
}

impl Bars {
    pub(crate) fn new(name: &str, quiet: bool) -> Self {
        let target = draw_target(quiet);
        let shown = target.is_some();
        let target = target.unwrap_or_else(ProgressDrawTarget::hidden);
        let all = MultiProgress::with_draw_target(target);
        let sum = all.add(ProgressBar::new(0));
        set_style(&sum, "{prefix:.bold} {wide_msg}");
        sum.set_prefix("in sum");
        let state = State {
            sum,
            running: HashMap::new(),
            all_found: false,
            seen_files: 0,
            seen_bytes: 0,
            done_files: 0,
            done_bytes: 0,
            moved_bytes: 0,
            began: Instant::now(),
            drawn: None,
            failures: Vec::new(),
            failed: 0,
            hints: Vec::new(),
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
        for hint in &state.hints {
            eprintln!("     {hint}");
        }
        state.first
    }
}

impl State {
    fn fail(&mut self, text: String, exit: Exit, hint: Option<&'static str>) {
        self.failed += 1;
        self.first.get_or_insert(exit);
        self.hints.extend(hint.filter(|hint| !self.hints.contains(hint)));
        if self.failures.len() < FAILURES_SHOWN {
            self.failures.push(text);
        }
    }

    /// What the connection did before is over, and so is what another one did to this very file: it
    /// has left it to this one.
    fn begins(&mut self, job: usize, name: &[u8]) {
        self.running.retain(|&other, running| {
            let is_over = other == job || running.name == name;
            if is_over {
                running.bar.clear();
            }
            !is_over
        });
    }

    /// The large file of this name does not run any more.
    fn ended(&mut self, job: usize, name: &[u8]) {
        if self.running.get(&job).is_some_and(|running| running.name == name)
            && let Some(running) = self.running.remove(&job)
        {
            running.bar.clear();
        }
    }

    fn draw(&mut self) {
        if self.drawn.is_some_and(|drawn| drawn.elapsed() < DRAW_PAUSE) {
            return;
        }
        self.drawn = Some(Instant::now());
        let running: u64 = self.running.values().map(|running| running.position).sum();
        let already: u64 = self.running.values().map(|running| running.already).sum();
        self.sum.set_length(self.seen_bytes);
        self.sum.set_position(self.done_bytes + running);
        let moved = self.moved_bytes + running.saturating_sub(already);
        let pace = rate(moved, self.began.elapsed());
        let mut text = if self.all_found {
            format!("{} of {} files, {pace}", self.done_files, self.seen_files)
        } else {
            let bytes = HumanBytes(self.done_bytes + running);
            format!("{} files, {bytes}, {pace}", self.done_files)
        };
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
            TreeEvent::AllFound => {
                state.all_found = true;
                set_style(&state.sum, bar_template());
            }
            TreeEvent::Begin { name } => {
                state.begins(job, name);
                let shown = printable(name);
                let plain = Retries::new(&shown, self.quiet || self.shown);
                let bar = Bar::over(self.all.add(ProgressBar::no_length()), &shown, plain);
                state
                    .running
                    .insert(job, Running { name: name.to_vec(), bar, already: 0, position: 0 });
            }
            TreeEvent::Of(event) => match state.running.get_mut(&job) {
                Some(running) => {
                    match event {
                        Event::Position(position) => running.position = position,
                        Event::Begin { already, .. } => {
                            (running.already, running.position) = (already, already);
                        }
                        _ => {}
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
            TreeEvent::Done { name, size, moved } => {
                state.done_files += 1;
                state.done_bytes += size;
                state.moved_bytes += if moved { size } else { 0 };
                state.ended(job, name);
            }
            TreeEvent::Failed { name, error } => {
                state.ended(job, name);
                let (text, exit) = describe(name, error);
                state.fail(text, exit, hint(error, true));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_is_told_only_once_all_files_are_found() {
        let bars = Bars::new("x", false);
        let line = || {
            let mut state = bars.state();
            state.drawn = None;
            state.draw();
            state.sum.message()
        };
        bars.event(0, TreeEvent::Found { size: 2048 });
        bars.event(0, TreeEvent::Found { size: 2048 });
        bars.event(0, TreeEvent::Done { name: b"f", size: 2048, moved: true });
        assert!(line().starts_with("1 files, 2.00 KiB, "), "{}", line());
        bars.event(0, TreeEvent::AllFound);
        assert!(line().starts_with("1 of 2 files, "), "{}", line());
    }
}
