//! Folders, with `-r`, where something goes wrong: one file, one connection, the disk. The rest goes on.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{
    ffi::OsStr,
    fs::{self, File, FileTimes},
    path::Path,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, SystemTime},
};

use rustix::process::{Pid, Signal, kill_process};
use support::{
    PATIENCE, Ran, TestDir, Towd,
    proxy::{Plan, Proxy},
    random_file, run_tow, same_bytes, tow, wait_until,
};

mod support;

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder with small files.
fn folder(path: &Path, files: u64, bytes: u64) {
    fs::create_dir_all(path).unwrap();
    for n in 0..files {
        random_file(path.join(n.to_string()), bytes, n);
    }
}

/// Files of a folder, but for what is hidden.
fn count(path: &Path) -> usize {
    let names = fs::read_dir(path).map(|names| names.map(|name| name.unwrap().file_name()));
    names.map_or(0, |names| names.filter(|name| !name.as_encoded_bytes().starts_with(b".")).count())
}

/// Changes the time of a file all the time, as long as it lives.
struct Restless(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Restless {
    fn new(path: &Path) -> Self {
        let (stop, path) = (Arc::new(AtomicBool::new(false)), path.to_owned());
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            for n in (0..).take_while(|_| !stopped.load(Ordering::Acquire)) {
                let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(n);
                File::open(&path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
                thread::yield_now();
            }
        });
        Self(stop, Some(thread))
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
        drop(self.1.take().map(JoinHandle::join));
    }
}

#[test]
fn a_file_that_changes_all_the_time_does_not_end_the_tree() {
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let (here, there) = (dir.join("from"), towd.root().join("served"));
    for folder_of_both in [&here, &there] {
        folder(folder_of_both, 30, 2000);
        // In front of the others, and more than the line holds.
        random_file(folder_of_both.join("+"), 32 << 20, 7);
    }
    // So slow that it changes on the way.
    let args = |way, from, to| [way, "-r", "--give-up", "5s", "--limit-rate", "32MiB", from, to];
    let restless = Restless::new(&here.join("+"));
    let (up, down) = (towd.url(""), towd.url("served"));
    let said = run_tow(args("put", text(&here), &up));
    said.exits(1).says(&["30 moved", "; 1 failed", "/+: ", "changed"]);
    drop(restless);
    assert_eq!(count(&towd.root().join("from")), 30);

    let restless = Restless::new(&there.join("+"));
    let said = run_tow(args("get", &down, text(dir.path())));
    said.exits(1).says(&["30 moved", "; 1 failed", "/+: ", "changed"]);
    drop(restless);
    assert_eq!(count(&dir.join("served")), 30);
}

#[test]
fn connections_that_the_server_does_not_take_leave_the_tree_to_the_others() {
    let (dir, towd) = (TestDir::new(), Towd::start(["--max-per-address", "2"]));
    let from = dir.join("from");
    folder(&from, 60, 10_000);
    random_file(from.join("large"), 300_000, 1);
    // Longer than those have patience that are not let in.
    let args = ["-r", "-j", "6", "--give-up", "1s", "--limit-rate", "250KiB"];
    let (up, down) = (towd.url(""), towd.url("from"));
    let put = [&["put"], &args[..], &[text(&from), &up]].concat();
    run_tow(put).exits(0).says(&["61 moved", " 0 failed"]);
    let got = dir.join("got");
    let get = [&["get"], &args[..], &[&down, text(&got)]].concat();
    run_tow(get).exits(0).says(&["61 moved", " 0 failed"]);
    assert!(same_bytes(from.join("large"), got.join("from/large")));
}

#[test]
fn a_low_rate_is_shared_by_no_more_connections_than_it_keeps_going() {
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let from = dir.join("from");
    folder(&from, 24, 700);
    let proxy = Proxy::start(towd.addr(), Plan::seeded(1));
    let url = format!("tow://{}/", proxy.addr());
    let args = ["put", "-r", "-j", "12", "--limit-rate", "8KiB", text(&from), &url];
    run_tow(args).exits(0).says(&["24 moved", "over 3 of 12 connections"]);
    let connections = proxy.counts().per_connection.len();
    assert!(connections <= 3, "{connections}");
}

#[test]
fn what_was_moved_of_a_large_file_is_told_also_when_it_is_interrupted() {
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let from = dir.join("from");
    fs::create_dir(&from).unwrap();
    random_file(from.join("large"), 20 << 20, 1);
    let partials = towd.root().join(".tow/partials");
    let begun = |bytes| {
        let sizes = fs::read_dir(&partials).unwrap().map(|name| name.unwrap().metadata());
        sizes.flatten().any(|data| data.len() > bytes)
    };
    // Into a folder that is not there at first.
    let url = towd.url("new");
    for bytes in [2 << 20, 5 << 20] {
        let args = ["put", "-r", "--limit-rate", "4MiB", text(&from), &url];
        let child = tow(args).stderr(Stdio::piped()).spawn().unwrap();
        assert!(wait_until(PATIENCE, || begun(bytes)));
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let said = Ran::of(child.wait_with_output().unwrap()).exits(130);
        let said = said.says(&["what was transferred is kept: the same command continues"]);
        assert!(!said.stderr.contains(" 0 moved, 0 B"), "{}", said.stderr);
    }
    let said = run_tow(["put", "-r", text(&from), &towd.url("new")]).exits(0);
    assert!(!said.stderr.contains("1 moved, 20.00 MiB"), "it began anew: {}", said.stderr);
    assert!(same_bytes(from.join("large"), towd.root().join("new/from/large")));
    assert_eq!(count(&towd.root().join("new")), 1);
}

#[test]
fn a_download_that_was_interrupted_goes_on_where_it_was() {
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let served = towd.root().join("served");
    fs::create_dir(&served).unwrap();
    random_file(served.join("large"), 12 << 20, 1);
    let (to, url) = (dir.join("new"), towd.url("served"));
    let args = ["get", "-r", "--limit-rate", "4MiB", &url, text(&to)];
    let child = tow(args).stderr(Stdio::piped()).spawn().unwrap();
    let begun = || {
        let sizes = fs::read_dir(to.join("served"))
            .map(|all| all.map(|name| name.unwrap().metadata().map_or(0, |data| data.len())).max());
        sizes.is_ok_and(|most| most > Some(2 << 20))
    };
    assert!(wait_until(PATIENCE, begun));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    Ran::of(child.wait_with_output().unwrap()).exits(130).says(&["the same command continues"]);
    let said = run_tow(["get", "-r", &url, text(&to)]).exits(0);
    assert!(!said.stderr.contains("1 moved, 12.00 MiB"), "it began anew: {}", said.stderr);
    assert!(same_bytes(served.join("large"), to.join("served/large")));
    assert_eq!((count(&to), count(&to.join("served"))), (1, 1));
}

#[test]
fn what_unfinished_downloads_have_left_stays_where_it_is() {
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let from = dir.join("from");
    folder(&from, 2, 100);
    let hash = "0123456789abcdef0123456789abcdef";
    for ending in ["data", "journal", "small"] {
        fs::write(from.join(format!(".tow-{hash}.{ending}")), "x").unwrap();
    }
    fs::write(from.join(".tow-notes"), "mine").unwrap();
    let words = ["3 moved", "3 partials of tow passed over", " 0 failed"];
    run_tow(["put", "-r", text(&from), &towd.url("")]).exits(0).says(&words);
    // Those that an older one has put there.
    fs::write(towd.root().join(format!("from/.tow-{hash}.data")), "x").unwrap();
    let words = ["3 moved", "1 partials of tow passed over", " 0 failed"];
    let got = dir.join("got");
    run_tow(["get", "-r", &towd.url("from"), text(&got)]).exits(0).says(&words);
    assert_eq!(fs::read(got.join("from/.tow-notes")).unwrap(), b"mine");
    assert!(!got.join(format!("from/.tow-{hash}.data")).exists());
}

#[test]
fn two_that_get_the_same_tree_into_the_same_folder_both_have_it() {
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let served = towd.root().join("served");
    folder(&served, 600, 500);
    random_file(served.join("large"), 3 << 20, 1);
    let url = towd.url("served");
    let get = || {
        let mut command = tow(["get", "-r", "-j", "2", &url, text(dir.path())]);
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    for child in [get(), get(), get()] {
        Ran::of(child.wait_with_output().unwrap()).exits(0).says(&[" 0 failed"]);
    }
    assert_eq!(count(&dir.join("served")), 601);
    let hidden = fs::read_dir(dir.join("served")).unwrap().count() - 601;
    assert_eq!(hidden, 0, "temporary files are left");
}

#[test]
fn a_folder_in_whose_place_there_is_a_file_is_told_once_and_its_children_are_not_blamed() {
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let from = dir.join("from");
    folder(&from, 5, 100);
    fs::write(towd.root().join("file"), "f").unwrap();
    let said = run_tow(["put", "-r", text(&from), &towd.url("file")]).exits(5);
    let said =
        said.says(&[&format!("tow: {}: the server refused: it is no folder", towd.url("file"))]);
    assert!(!said.stderr.contains(text(&from)), "{}", said.stderr);
    fs::write(towd.root().join("from"), "f").unwrap();
    let said = run_tow(["put", "-r", text(&from), &towd.url("")]).exits(5);
    let said = said.says(&["tow: /from: the server refused: something that is no folder has this"]);
    said.says(&["0 files; 0 moved, 0 B; 0 there already, 0 B; 0 failed; 1 folders failed"]);
}

#[test]
fn where_there_is_no_more_room_the_tree_ends() {
    let dir = TestDir::new();
    let from = dir.join("from");
    folder(&from, 200, 20_000);
    // Free space is never less than all that this keeps back.
    let towd = Towd::start(["--reserve", "1000TiB"]);
    let said = run_tow(["put", "-r", text(&from), &towd.url("")]).exits(5);
    let said = said.says(&["no space", " 0 moved", "free space there"]);
    let failed = said.stderr.lines().filter(|line| line.contains("from/")).count();
    assert!(failed < 60, "{}", said.stderr);
    assert!(!said.stderr.contains("more failed"), "{}", said.stderr);
}

#[test]
fn the_times_of_folders_that_were_there_are_kept_as_well() {
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    folder(&towd.root().join("served/sub"), 1, 10);
    for name in ["served/sub", "served"] {
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let folder = File::open(towd.root().join(name)).unwrap();
        folder.set_times(FileTimes::new().set_modified(old)).unwrap();
    }
    // As after an interruption.
    fs::create_dir_all(dir.join("to/served/sub")).unwrap();
    run_tow([
        OsStr::new("get"),
        "-r".as_ref(),
        towd.url("served").as_ref(),
        dir.join("to").as_ref(),
    ])
    .exits(0);
    for name in ["served", "served/sub"] {
        assert_eq!(time(&dir.join("to").join(name)), time(&towd.root().join(name)), "{name}");
    }
}
