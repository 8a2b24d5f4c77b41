//! The shell without a person: lines from stdin, up to the first that fails.

use std::io::{BufRead, stdin};

use super::{Shell, signals::Signals};
use crate::exit::{Exit, Failure};

/// Runs all lines, or returns how the first one failed.
pub(super) fn run(shell: &mut Shell<'_>, signals: &Signals) -> Result<Exit, Failure> {
    let mut input = stdin().lock();
    let mut line = Vec::new();
    let mut number: u64 = 0;
    while !shell.ended {
        if !signals.wait() {
            return Ok(Exit::Interrupted);
        }
        line.clear();
        if input.read_until(b'\n', &mut line)? == 0 {
            break;
        }
        number += 1;
        signals.begin();
        let exit = match shell.execute(&line, true) {
            Ok(Exit::Done) => continue,
            // What failed was said when it did.
            Ok(exit) => {
                eprintln!("tow: line {number}: this is where it ended");
                exit
            }
            Err(error) => {
                eprintln!("tow: line {number}: {error}");
                error.exit()
            }
        };
        return Ok(exit);
    }
    Ok(Exit::Done)
}
