//! What a person sees of a transfer: a bar on a terminal, and one line at the end.

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use rustix::termios::tcgetwinsize;
use towpath::client::{Event, Observer, Phase, Transferred};

use crate::show::printable;

/// Says why an answer does not come, a line for each attempt, unless `-q` was given.
#[derive(Debug)]
pub(crate) struct Retries {
    name: String,
    quiet: bool,
}

impl Retries {
    pub(crate) fn new(name: &str, quiet: bool) -> Self {
        Self { name: name.to_owned(), quiet }
    }

    pub(crate) fn broke(&self, reason: &str, pause: Duration) {
        if !self.quiet {
            let line = format!("{}: {}", self.name, again(reason, pause));
            eprintln!("{}", printable(line.as_bytes()));
        }
    }
}

impl Observer for Retries {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Broke { reason, pause } => self.broke(reason, pause),
            Event::Connecting
            | Event::Begin { .. }
            | Event::Phase(_)
            | Event::Position(_)
            | Event::Moved(_)
            | Event::SegmentBad(_) => {}
        }
    }
}

pub(crate) fn again(reason: &str, pause: Duration) -> String {
    format!("{reason}; trying again in {:.1} s", pause.as_secs_f64())
}

/// Where bars are drawn, if anywhere: on a terminal, unless `-q` was given.
pub(crate) fn draw_target(quiet: bool) -> Option<ProgressDrawTarget> {
    (!quiet && stderr().is_terminal()).then(|| ProgressDrawTarget::stderr_with_hz(10))
}

/// A bar for one file. With `-q` it draws nothing; on anything but a terminal it only says, in
/// lines, when the transfer is interrupted.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    /// Instead of the bar, where there is none.
    plain: Retries,
    breaks: u32,
    bad_segments: u32,
    already: u64,
    phase: Phase,
    /// Whether both sides ever agreed on where to begin.
    begun: bool,
    /// When the message was last made.
    told: Instant,
}

impl Bar {
    pub(crate) fn new(name: &str, quiet: bool) -> Self {
        let target = draw_target(quiet);
        let plain = Retries::new(name, quiet || target.is_some());
        let target = target.unwrap_or_else(ProgressDrawTarget::hidden);
        Self::over(ProgressBar::with_draw_target(None, target), name, plain)
    }

    /// The one of several bars that `bar` is.
    pub(crate) fn over(bar: ProgressBar, name: &str, plain: Retries) -> Self {
        set_style(&bar, "{prefix:.bold} {wide_msg}");
        bar.set_prefix(shorten(name));
        let (phase, told) = (Phase::Checking, Instant::now());
        Self { bar, plain, breaks: 0, bad_segments: 0, already: 0, phase, begun: false, told }
    }

    /// Whether the transfer ever began: only then there may be something to continue.
    pub(crate) const fn has_begun(&self) -> bool {
        self.begun
    }

    /// Takes the bar off the screen.
    pub(crate) fn clear(&self) {
        self.bar.finish_and_clear();
    }

    /// What stands behind the bar: the phase, the rate and what is left of it, and whatever
    /// happened that is worth knowing.
    fn message(&self) -> String {
        let mut parts = vec![match self.phase {
            Phase::Checking => "checking".to_owned(),
            Phase::Verifying => "verifying".to_owned(),
            Phase::Sending => self.pace("sending"),
            Phase::Receiving => self.pace("receiving"),
        }];
        if self.already > 0 {
            parts.push(format!("{} were there", HumanBytes(self.already)));
        }
        if self.breaks > 0 {
            parts.push(format!("reconnected {}", times(self.breaks)));
        }
        if self.bad_segments > 0 {
            parts.push(format!("{} bad segments sent again", self.bad_segments));
        }
        parts.join(", ")
    }

    fn pace(&self, verb: &str) -> String {
        let rate = self.bar.per_sec();
        if rate < 1.0 {
            return verb.to_owned();
        }
        #[expect(clippy::cast_possible_truncation, reason = "a rate for people")]
        #[expect(clippy::cast_sign_loss, reason = "a rate is not negative")]
        let rate = rate as u64;
        let left = indicatif::HumanDuration(self.bar.eta());
        format!("{verb} {}/s, {left:#} left", HumanBytes(rate))
    }
}

impl Observer for Bar {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Connecting => self.bar.set_message("connecting"),
            Event::Begin { size, already } => {
                if !std::mem::replace(&mut self.begun, true) {
                    set_style(&self.bar, bar_template());
                }
                self.bar.set_length(size);
                self.bar.set_position(already);
                // The rate is that of what goes over the line, not of what was there.
                self.bar.reset_eta();
                if self.breaks == 0 {
                    self.already = already;
                }
            }
            Event::Phase(phase) => {
                self.phase = phase;
                self.bar.set_message(self.message());
            }
            Event::Position(bytes) => {
                self.bar.set_position(bytes);
                // A message on every chunk would cost more than the chunk.
                if self.told.elapsed() > Duration::from_millis(200) {
                    self.told = Instant::now();
                    self.bar.set_message(self.message());
                }
            }
            Event::Moved(_) => {}
            Event::SegmentBad(_) => self.bad_segments += 1,
            Event::Broke { reason, pause } => {
                self.breaks += 1;
                self.bar.set_message(printable(again(reason, pause).as_bytes()));
                self.bar.tick();
                self.plain.broke(reason, pause);
            }
        }
    }
}

/// A bar that leaves room on its line for what is said behind it: one that does not fit is drawn anew
/// below itself each time.
pub(crate) fn bar_template() -> &'static str {
    let width = tcgetwinsize(stderr()).map_or(0, |size| size.ws_col);
    match if width == 0 { 80 } else { width } {
        100.. => "{prefix:.bold} {bar:24} {percent:>3}% {bytes}/{total_bytes} {wide_msg}",
        80.. => "{prefix:.bold} {bar:10} {percent:>3}% {bytes}/{total_bytes} {wide_msg}",
        _ => "{prefix:.bold} {percent:>3}% {wide_msg}",
    }
}

pub(crate) fn set_style(bar: &ProgressBar, template: &str) {
    // A template that is not understood would still show the default bar.
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
}

/// One line for a transfer that is done: what was verified, and what it took.
pub(crate) fn summary(name: &str, done: &Transferred, took: Duration) -> String {
    let mut line = format!("{name}: {} verified, md5-tree {}", HumanBytes(done.size), done.root);
    if let Some(md5) = done.md5 {
        line.push_str(&format!(", md5 {md5}"));
    }
    if done.unchanged {
        line.push_str("; it was there already");
        return line;
    }
    line.push_str(&format!("; {} moved", HumanBytes(done.moved)));
    if done.already > 0 && done.already < done.size {
        line.push_str(&format!(", {} were there", HumanBytes(done.already)));
    }
    if done.again() > 0 {
        line.push_str(&format!(", {} of it again", HumanBytes(done.again())));
    }
    if done.breaks > 0 {
        line.push_str(&format!(", reconnected {}", times(done.breaks)));
    }
    line.push_str(&format!(" in {}", rate(done.moved, took)));
    line
}

/// A duration, and the rate if that means anything.
pub(crate) fn rate(bytes: u64, took: Duration) -> String {
    let seconds = took.as_secs_f64();
    let time = format!("{seconds:.2} s");
    if bytes < 1 << 20 {
        return time;
    }
    #[expect(clippy::cast_possible_truncation, reason = "a rate for people")]
    #[expect(clippy::cast_sign_loss, reason = "a rate is not negative")]
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = (bytes as f64 / seconds.max(1e-6)) as u64;
    format!("{time}, {}/s", HumanBytes(rate))
}

pub(crate) fn times(count: u32) -> String {
    if count == 1 { "once".to_owned() } else { format!("{count} times") }
}

/// The end of a long name, which tells more than its beginning.
fn shorten(name: &str) -> String {
    const WIDTH: usize = 24;
    let length = name.chars().count();
    if length <= WIDTH {
        return name.to_owned();
    }
    let end: String = name.chars().skip(length - WIDTH + 1).collect();
    format!("…{end}")
}
