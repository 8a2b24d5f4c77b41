//! How exact limits on the rate are: that of `tow --limit-rate`, and that of a server, each way and
//! over one connection and four.
//!
//! `cargo bench --bench rates` takes a minute, and fails if a limit is missed by more than a
//! twentieth, or if the line could not have gone faster anyway.

mod bounds;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{fs, process::ExitCode, time::Instant};

use bounds::Bounds;
use support::{TestDir, Towd, random_file, run_tow};

const MIB: u32 = 1 << 20;

/// Bytes in a second.
const RATE: u32 = 8 * MIB;

/// Files, and the MiB of each: ten seconds at the limit in all.
const FILES: (u32, u32) = (4, 20);

fn main() -> ExitCode {
    let Some(mut bounds) = Bounds::of_this_run() else { return ExitCode::SUCCESS };
    let files = TestDir::new();
    for n in 0..FILES.0 {
        random_file(files.join(n.to_string()), u64::from(FILES.1 * MIB), u64::from(n));
    }
    let rate = RATE.to_string();
    let client = ["--limit-rate", &rate];
    let server = ["--max-rate", &rate];
    for (whose, tow, towd) in
        [("the client's", &client[..], &[][..]), ("the server's", &[], &server)]
    {
        let towd = Towd::start(towd.iter().chain(&["-q"]));
        for jobs in ["1", "4"] {
            let got = TestDir::new();
            let up = towd.url(jobs);
            let from = files.path().to_string_lossy();
            let down = got.path().to_string_lossy();
            for (way, from, to) in [("put", &*from, &*up), ("get", &up, &down)] {
                let share = share(&[&[way, "-q", "-r", "-j", jobs][..], tow, &[from, to]].concat());
                let what = format!("% of {whose} limit, {way} over {jobs}");
                bounds.figure(&what, share, 95.0..=105.0);
            }
        }
    }
    // The same without a limit: what was measured was the limit, and not the line.
    let towd = Towd::start(["-q"]);
    let from = files.path().to_string_lossy();
    let share = share(&["put", "-q", "-r", &from, &towd.url("free")]);
    bounds.figure("% of the limit without one", share, 300.0..=f64::INFINITY);
    fs::remove_dir_all(towd.root()).ok();
    bounds.end()
}

/// Moves all files; at how many percent of the limit.
fn share(command: &[&str]) -> f64 {
    let began = Instant::now();
    run_tow(command).exits(0);
    let took = began.elapsed().as_secs_f64();
    100.0 * f64::from(FILES.0 * FILES.1 * MIB) / took / f64::from(RATE)
}
