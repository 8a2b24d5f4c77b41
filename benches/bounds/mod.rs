//! Figures that have bounds: each is printed with them, and one that is outside fails the run.

use std::{env, ops::RangeInclusive, process::ExitCode};

/// What was measured so far.
#[derive(Debug, Default)]
pub(crate) struct Bounds {
    outside: Vec<String>,
}

impl Bounds {
    /// Nothing yet; `None` if this is no run of benchmarks, but of tests.
    pub(crate) fn of_this_run() -> Option<Self> {
        env::args().any(|argument| argument == "--bench").then(Self::default)
    }

    /// Prints a figure, and remembers if it is where it should not be.
    pub(crate) fn figure(&mut self, what: &str, value: f64, within: RangeInclusive<f64>) {
        let (least, most) = (within.start(), within.end());
        let line = format!("{what}: {value:.2}, to be within {least} and {most}");
        println!("{line}");
        if !within.contains(&value) {
            self.outside.push(line);
        }
    }

    /// How the run ends.
    pub(crate) fn end(self) -> ExitCode {
        for line in &self.outside {
            eprintln!("out of bounds: {line}");
        }
        if self.outside.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
