//! `--limit-rate`: the bytes are the right ones. How exact it is, `cargo bench --bench rates` tells.

use std::{fs, path::Path};

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
    moves("get", "3", "2MiB", &towd.url("from/."), text(&got));
    for name in (0..20).map(|n| n.to_string()).chain(["large".to_owned()]) {
        assert!(same_bytes(from.join(&name), got.join(&name)), "{name}");
    }
}
