//! `--limit-rate`: the bytes are the right ones, and how exact it is.

use std::{fs, path::Path, time::Instant};

use support::{TestDir, Towd, random_file, run_tow, same_bytes};

mod support;

fn moves(way: &str, jobs: &str, rate: &str, from: &str, to: &str) {
    run_tow([way, "-r", "-j", jobs, "--limit-rate", rate, from, to]).exits(0);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a folder for tests has a plain name")
}

#[test]
fn what_is_limited_brings_the_right_bytes() {
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let (from, got) = (dir.join("from"), dir.join("got"));
    fs::create_dir(&from).expect("a folder");
    for n in 0..20 {
        random_file(from.join(format!("{n}")), 3000, n);
    }
    random_file(from.join("large"), 400_000, 20);
    moves("put", "3", "2MiB", text(&from), &towd.url(""));
    moves("get", "3", "2MiB", &towd.url("from"), text(&got));
    for name in (0..20).map(|n| n.to_string()).chain(["large".to_owned()]) {
        assert!(same_bytes(from.join(&name), got.join(&name)), "{name}");
    }
}

/// How exact it is over ten seconds, each way and over several connections. A figure, not a claim:
/// `cargo test --test limit_rate -- --ignored --nocapture`.
#[test]
#[ignore = "takes most of a minute, and a busy machine could miss it"]
fn the_rate_over_ten_seconds() {
    const RATE: u32 = 8 << 20;
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let from = dir.join("from");
    fs::create_dir(&from).expect("a folder");
    for n in 0..4 {
        random_file(from.join(format!("{n}")), 20 << 20, n);
    }
    let rate = RATE.to_string();
    for jobs in ["1", "4"] {
        let (up, down) = (towd.url(jobs), dir.join(jobs));
        for (way, a, b) in [("put", text(&from), &*up), ("get", &*up, text(&down))] {
            let began = Instant::now();
            moves(way, jobs, &rate, a, b);
            let took = began.elapsed().as_secs_f64();
            let share = 100.0 * f64::from(80_u32 << 20) / took / f64::from(RATE);
            println!("{way} over {jobs}: {took:.2} s, {share:.1} % of the limit");
        }
    }
}
