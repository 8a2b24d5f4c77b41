//! Folders, with `-r`: what arrives is what was sent, whatever the names, the line and the other end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails the test")]

use std::{
    ffi::OsStr,
    fs::{self, File, FileTimes},
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use rustix::fs::{CWD, Mode, mknodat};
use rustix::process::{Pid, Signal, kill_process};
use support::{
    PATIENCE, Ran, Raw, Rng, TestDir, Towd,
    folders::{get, put, tree, write},
    frames::frames_from,
    fresh_seed,
    proxy::{Cut, Plan, Proxy},
    random_file, run, run_tow, tow, wait_until,
};

mod support;

fn set_time(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::new(seconds, 123_456_789);
    File::open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}

/// A folder with all that is hard to carry.
fn hard_folder(top: &Path) {
    let names: [&[u8]; 10] = [
        b"plain",
        b" a b ",
        b"two\nlines\r",
        b"\xff\xfe not UTF-8",
        b"-rf",
        b"|touch x; $(touch y) `touch z`",
        b"per%20cent=and=equals",
        "ümläut".as_bytes(),
        b"\x1b]0;title\x07\x1b[31m",
        &[b'x'; 255],
    ];
    for (n, name) in names.iter().enumerate() {
        write(top.join(OsStr::from_bytes(name)), format!("file {n}").as_bytes());
    }
    write(top.join("empty file"), b"");
    fs::create_dir_all(top.join("empty/also empty")).unwrap();
    random_file(top.join("leaf"), 65_536, 1);
    random_file(top.join("large"), 3_000_000, 2);
    for n in 0..40 {
        write(top.join(format!("many/{n}")), &vec![b'm'; n * 100]);
    }
    let deep: PathBuf = (0..100).map(|n| format!("{n}")).collect();
    write(top.join("deep").join(deep).join("bottom"), b"here");
    set_time(&top.join("plain"), 1_000_000_000);
    set_time(&top.join("many"), 1_100_000_000);
    set_time(&top.join("empty/also empty"), 1_200_000_000);
}

/// The client, in a folder.
fn tow_in<'a>(folder: &Path, args: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = tow(args);
    command.current_dir(folder);
    command
}

#[test]
fn what_arrives_is_what_was_sent_and_a_second_run_moves_nothing() {
    for jobs in ["1", "4"] {
        let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
        let from = dir.join("from");
        hard_folder(&from);
        let sent = tree(&from);
        let files = sent.values().flatten().count();
        fs::create_dir(towd.root().join("up")).unwrap();

        let moved = [format!("{files} moved"), " 0 there already".to_owned()];
        let there = [" 0 moved".to_owned(), format!("{files} there already")];
        let says = |ran: Ran, words: &[String; 2]| {
            ran.exits(0).says(&[&words[0], &words[1], " 0 failed"]);
        };
        let up = towd.url("up/");
        says(put(&["-j", jobs], &from, &up), &moved);
        assert_eq!(tree(&towd.root().join("up/from")), sent);
        says(put(&["-j", jobs], &from, &up), &there);

        // With its own name, and only what is in it.
        let arrived = dir.join("arrived");
        fs::create_dir(&arrived).unwrap();
        says(get(&["-j", jobs], &towd.url("up/from"), &arrived), &moved);
        assert_eq!(tree(&arrived.join("from")), sent);
        says(get(&["-j", jobs], &towd.url("up/from"), &arrived), &there);
        says(get(&["-j", jobs], &towd.url("up/from/."), &dir.join("new")), &moved);
        assert_eq!(tree(&dir.join("new")), sent);

        // The times of folders, which the server does not keep, are those that it has.
        for name in ["many", "empty/also empty", "deep/0/1/2"] {
            let time = |top: &Path| fs::metadata(top.join(name)).unwrap().modified().unwrap();
            assert_eq!(time(&dir.join("new")), time(&towd.root().join("up/from")), "{name}");
        }
        // A file that changed, and one that went.
        fs::write(dir.join("new/plain"), b"other").unwrap();
        fs::remove_file(dir.join("new/many/7")).unwrap();
        fs::create_dir(dir.join("x")).unwrap();
        fs::rename(dir.join("new"), dir.join("x/from")).unwrap();
        let again = get(&["-j", jobs], &towd.url("up/from"), &dir.join("x"));
        says(again, &["2 moved".to_owned(), format!("{} there already", files - 2)]);
        assert_eq!(tree(&dir.join("x/from")), sent);
    }
}

#[test]
fn folders_keep_their_names_and_what_is_there_already_makes_no_difference() {
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    write(dir.join("from/a/f"), b"1");
    write(dir.join("other/g"), b"2");
    write(dir.join("h"), b"3");
    let from = dir.join("from");
    // Into a folder that is not there at first, and is then.
    put(&[], &from, &towd.url("new")).exits(0).says(&["1 moved"]);
    for url in ["new", "new/"] {
        put(&[], &from, &towd.url(url)).exits(0).says(&[" 0 moved", "1 there already"]);
    }
    put(&[], &from, &towd.url("")).exits(0);
    // Only what is in it.
    put(&[], &from.join("."), &towd.url("as")).exits(0);
    let paths = |top: &Path| -> Vec<String> {
        let mut found = tree(top);
        found.retain(|path, _| !path.starts_with(".tow"));
        found.keys().map(|path| path.to_str().unwrap().to_owned()).collect()
    };
    let a = ["as", "as/a", "as/a/f", "from", "from/a", "from/a/f", "new", "new/from"];
    assert_eq!(paths(towd.root()), [&a[..], &["new/from/a", "new/from/a/f"]].concat());
    // Several, and files among them.
    let url = towd.url("new");
    let all = [OsStr::new("put"), OsStr::new("-r"), from.as_os_str()];
    let (other, h) = (dir.join("other"), dir.join("h"));
    let more = [other.as_os_str(), h.as_os_str(), OsStr::new(&url)];
    run_tow(all.into_iter().chain(more)).exits(0);
    assert_eq!(fs::read(towd.root().join("new/other/g")).unwrap(), b"2");
    assert_eq!(fs::read(towd.root().join("new/h")).unwrap(), b"3");
    // The folder that holds the one that is named has to be there.
    for (target, missing) in [("no/such/", "no"), ("no/such", "no"), ("no/so/much", "no/so")] {
        let said = put(&[], &from, &towd.url(target)).exits(5);
        let words = format!("tow: {}: the server refused: no such file", towd.url(missing));
        assert!(said.stderr.starts_with(&words), "{words} in {}", said.stderr);
        assert!(!said.stderr.contains(from.to_str().unwrap()), "{}", said.stderr);
    }
    // And back: the same names.
    for to in ["got", "got/."] {
        get(&[], &towd.url("from"), &dir.join(to)).exits(0);
        assert_eq!(paths(&dir.join("got")), ["from", "from/a", "from/a/f"]);
    }
    get(&[], &towd.url("from/."), &dir.join("as")).exits(0);
    assert_eq!(paths(&dir.join("as")), ["a", "a/f"]);
    let here = run(tow_in(&dir.join("as"), ["get", "-r", &towd.url("from")])).exits(0);
    here.says(&["1 moved"]);
    assert_eq!(fs::read(dir.join("as/from/a/f")).unwrap(), b"1");
    // All of the root.
    get(&[], &towd.url(""), &dir.join("root")).exits(0);
    assert_eq!(paths(&dir.join("root")), paths(towd.root()));
    // A file is got as without -r.
    get(&[], &towd.url("new/h"), &dir.join("h2")).exits(0);
    assert_eq!(fs::read(dir.join("h2")).unwrap(), b"3");
    get(&[], &towd.url("nothing"), &dir.join("h3")).exits(5);
    get(&[], &towd.url("new"), Path::new("-")).exits(2);
}

#[test]
fn links_and_special_files_are_passed_over_and_counted() {
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let from = dir.join("from");
    write(from.join("d/f"), b"f");
    symlink("d/f", from.join("to file")).unwrap();
    symlink("d", from.join("to folder")).unwrap();
    symlink("..", from.join("d/loop")).unwrap();
    symlink("nowhere", from.join("dangling")).unwrap();
    let fifo = rustix::fs::FileType::Fifo;
    mknodat(CWD, from.join("fifo"), fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let words = ["1 moved", "4 links passed over", "1 special files passed over"];
    put(&[], &from, &towd.url("")).exits(0).says(&words);
    assert_eq!(tree(&towd.root().join("from")).len(), 2);

    // Followed: the loop, by both ways to it, and the one that leads nowhere fail; the others go.
    let followed = put(&["-L"], &from.join("."), &towd.url("followed"));
    let words = ["3 moved", "; 1 failed", "2 folders failed", "leads back", "dangling"];
    followed.exits(1).says(&words);
    for name in ["d/f", "to file", "to folder/f"] {
        assert_eq!(fs::read(towd.root().join("followed").join(name)).unwrap(), b"f", "{name}");
    }

    // What the server has of them is passed over as well.
    let served = towd.root().join("served");
    write(served.join("f"), b"f");
    symlink("f", served.join("link")).unwrap();
    symlink(".", served.join("loop")).unwrap();
    mknodat(CWD, served.join("fifo"), fifo, Mode::from_raw_mode(0o600), 0).unwrap();
    let words = ["1 moved", "2 links passed over", "1 special files passed over"];
    get(&[], &towd.url("served/."), &dir.join("got")).exits(0).says(&words);
    assert_eq!(tree(&dir.join("got")).len(), 1);
}

#[test]
fn a_file_that_fails_does_not_hold_up_the_others_and_is_listed_at_the_end() {
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let from = dir.join("from");
    for n in 0..30 {
        write(from.join(format!("f{n}")), &[b'a'; 3000]);
    }
    // A name that no path can have, and names that are taken by something else, there and here.
    write(from.join(".tow"), b"internal");
    fs::create_dir_all(towd.root().join("from/f7")).unwrap();
    write(from.join("sub/f"), b"x");
    write(towd.root().join("from/sub"), b"a file");
    let said = put(&[], &from, &towd.url("")).exits(1);
    let said = said.says(&["29 moved", "; 2 failed; 1 folders failed", "/.tow", "/f7: "]);
    // The folder that is one here and a file there, under its name there, and what to do.
    let said = said.says(&["tow: /from/sub: the server refused: something that is no folder has"]);
    let said = said.says(&["\n     see what it is with tow stat"]);
    assert!(!said.stderr.contains("sub/f"), "{}", said.stderr);
    // Listed once each, behind all else, with the reasons.
    assert_eq!(said.stderr.lines().filter(|line| line.starts_with("tow: ")).count(), 3);
    assert!(said.says(&["a directory has this name"]).stderr.ends_with(" s\n"));

    let got = dir.join("got");
    fs::create_dir_all(got.join("from/f3")).unwrap();
    symlink("elsewhere", got.join("from/f4")).unwrap();
    let said = get(&[], &towd.url("from"), &got).exits(1);
    said.says(&["28 moved", "2 failed", "/f3: a directory has this name", "/f4: a link has this"]);
    assert!(!got.join("from/elsewhere").exists());
}

#[test]
fn what_cannot_be_read_or_has_gone_is_told() {
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let from = dir.join("from");
    for name in ["a", "b", "c"] {
        write(from.join(name), name.as_bytes());
    }
    // More than fifty that fail: those beyond are counted.
    for n in 0..60 {
        symlink("gone", from.join(format!("link{n:02}"))).unwrap();
    }
    let said = put(&["-L"], &from, &towd.url("")).exits(1);
    let said = said.says(&["3 moved", "60 failed", "link49", "and 10 more failed"]);
    assert!(!said.stderr.contains("link50"), "{}", said.stderr);

    if !rustix::process::geteuid().is_root() {
        let secret = from.join("secret");
        write(&secret, b"x");
        rustix::fs::chmod(&secret, Mode::empty()).unwrap();
        put(&[], &from, &towd.url("")).exits(1).says(&["1 failed", "secret", "not allowed"]);
    }
}

#[test]
fn a_line_that_is_cut_again_and_again_brings_everything() {
    let seed = fresh_seed();
    let dir = TestDir::new();
    let from = dir.join("from");
    let mut rng = Rng::new(seed);
    for n in 0..300 {
        let mut bytes = vec![0; usize::try_from(rng.within(&(0..=6000))).unwrap()];
        rng.fill(&mut bytes);
        write(from.join(format!("{}/{n}", n % 7)), &bytes);
    }
    random_file(from.join("large"), 1 << 20, seed);
    let sent = tree(&from);
    for jobs in ["1", "3"] {
        let towd = Towd::start([""; 0]);
        let cut = || Cut { budget_bytes: 1..=120_000, limit: 20, ..Cut::default() };
        let proxy = Proxy::start(towd.addr(), Plan { cut: Some(cut()), ..Plan::seeded(seed) });
        let url = |path: &str| format!("tow://{}/{path}", proxy.addr());
        let args = ["-j", jobs, "--digest", "md5"];
        put(&args, &from, &url("")).exits(0).says(&["reconnected", " 0 failed"]);
        assert_eq!(tree(&towd.root().join("from")), sent);
        let cuts = proxy.counts().cuts;
        assert!(cuts >= 5, "only {cuts} cuts");

        proxy.set(Plan { cut: Some(cut()), ..Plan::seeded(!seed) });
        let got = dir.join(format!("got{jobs}"));
        get(&args, &url("from/."), &got).exits(0).says(&["reconnected", " 0 failed"]);
        assert_eq!(tree(&got), sent);
        assert!(proxy.counts().cuts >= cuts + 5);
    }
}

#[test]
fn spoiled_bytes_are_found_and_come_again() {
    let seed = fresh_seed();
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let from = towd.root().join("from");
    for n in 0..200 {
        let mut bytes = vec![0; 20_000];
        Rng::derived(seed, n).fill(&mut bytes);
        write(from.join(format!("{n}")), &bytes);
    }
    let direction = support::proxy::Direction::Down;
    let flip =
        support::proxy::Flip { direction, every_bytes: 400_000, skip_bytes: 30_000, limit: 6 };
    let proxy = Proxy::start(towd.addr(), Plan { flip: Some(flip), ..Plan::seeded(seed) });
    let got = dir.join("got");
    get(&[], &format!("tow://{}/from/.", proxy.addr()), &got).exits(0);
    assert!(proxy.counts().flips > 0);
    assert_eq!(tree(&got), tree(&from));
}

#[test]
fn bytes_that_are_spoiled_on_the_way_up_come_again() {
    let seed = fresh_seed();
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let from = dir.join("from");
    for n in 0..400 {
        let mut bytes = vec![0; if n % 40 == 0 { 100_000 } else { 3_000 }];
        Rng::derived(seed, n).fill(&mut bytes);
        write(from.join(format!("{n}")), &bytes);
    }
    let direction = support::proxy::Direction::Up;
    let flip =
        support::proxy::Flip { direction, every_bytes: 200_000, skip_bytes: 1_000, limit: 8 };
    let proxy = Proxy::start(towd.addr(), Plan { flip: Some(flip), ..Plan::seeded(seed) });
    put(&[], &from, &format!("tow://{}/", proxy.addr())).exits(0);
    assert!(proxy.counts().flips > 0);
    assert_eq!(tree(&towd.root().join("from")), tree(&from));
}

#[test]
fn what_is_asked_for_behind_a_file_that_is_refused_is_answered_in_step() {
    let towd = Towd::start([""; 0]);
    write(towd.root().join("f"), b"evil");
    let mut raw = Raw::connect(towd.addr());
    raw.read_line();
    raw.send("get /gone\n402\n226\nget /f\n402\n226\nget /f\n402\n226\nnoop\n");
    assert!(raw.read_line().starts_with("110 "));
    assert!(raw.read_line().starts_with("404 "));
    for _ in 0..2 {
        assert!(raw.read_line().starts_with("203 size=4 "));
        assert_eq!(raw.read_line(), "426 offset=0 length=4");
        let frames = frames_from(b"evil", 0);
        assert_eq!(raw.read_bytes(frames.len()), frames);
    }
    assert_eq!(raw.read_line(), "200");
}

#[test]
fn one_folder_in_the_place_of_another_is_not_reached_through_a_link() {
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    write(towd.root().join("from/sub/f"), b"f");
    write(towd.root().join("from/g"), b"g");
    let (outside, to) = (dir.join("outside"), dir.join("to"));
    fs::create_dir_all(&outside).unwrap();
    fs::create_dir_all(to.join("from")).unwrap();
    symlink(&outside, to.join("from/sub")).unwrap();
    get(&[], &towd.url("from"), &to).exits(1).says(&["/sub: ", "no folder", "1 moved"]);
    assert!(tree(&outside).is_empty());
    // Nor is the folder itself.
    fs::remove_dir_all(to.join("from")).unwrap();
    symlink(&outside, to.join("from")).unwrap();
    get(&[], &towd.url("from"), &to).exits(1);
    assert!(tree(&outside).is_empty());
}

#[test]
fn ctrl_c_stops_all_and_the_same_command_continues() {
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let from = dir.join("from");
    for n in 0..100 {
        write(from.join(format!("{n}")), &[b'a'; 3000]);
    }
    let url = towd.url("");
    let args = ["put", "-r", "-j", "2", "--limit-rate", "50KiB", from.to_str().unwrap(), &url];
    let child = tow(args).stderr(Stdio::piped()).spawn().unwrap();
    let some = || fs::read_dir(towd.root().join("from")).is_ok_and(|names| names.count() > 3);
    assert!(wait_until(PATIENCE, some));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let said = Ran::of(child.wait_with_output().unwrap()).exits(130);
    said.says(&["interrupted", "what was transferred is kept: the same command continues"]);
    assert_ne!(tree(&towd.root().join("from")), tree(&from));
    let again = put(&[], &from, &url).exits(0).says(&[" 0 failed"]);
    assert!(!again.stderr.contains("; 0 there already"), "{}", again.stderr);
    assert_eq!(tree(&towd.root().join("from")), tree(&from));
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    for args in [
        &["put", "-j", "4", "x", "tow://h/"][..],
        &["put", "-L", "x", "tow://h/"],
        &["put", "-r", "-j", "33", "x", "tow://h/"],
        &["get", "-r", "-j", "0", "tow://h/x"],
        &["get", "--limit-rate", "1KiB", "tow://h/x"],
        &["get", "--limit-rate", "fast", "tow://h/x"],
    ] {
        run_tow(args).exits(2);
    }
}
