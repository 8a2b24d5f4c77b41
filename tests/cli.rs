//! What people see of `tow` and `towd`: exit codes, words, and silence where it was asked for.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpListener,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, geteuid, kill_process};
use support::{
    PATIENCE, Ran, TestDir, Towd,
    proxy::{Direction, How, Plan, Proxy, Slow},
    random_file, run, run_tow, same_bytes, tow, wait_child, wait_until,
};

mod support;

/// A port on which nobody listens, for as long as nobody else takes it.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn every_exit_code_has_its_case() {
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    let file = dir.join("f");
    random_file(&file, 1000, 1);
    run_tow(["put", text(&file), &towd.url("")]).exits(0);
    run_tow(["put", "/no/such/file", &towd.url("")]).exits(1);
    run_tow(["get", &towd.url("f"), "/no/such/folder/f"]).exits(1);
    run_tow(["put"]).exits(2);
    run_tow(["get", "http://127.0.0.1/f"]).exits(2);
    run_tow(["get", &towd.url("none")]).exits(5);
    let nobody = format!("tow://127.0.0.1:{}/f", free_port());
    run_tow(["get", "--give-up", "0", &nobody]).exits(6);
    // 3 and 130 are in tests of their own, 4 waits for logins.
    let help = run_tow(["--help"]).exits(0).stdout();
    assert!(help.contains("0 done, 1 failed, 2 usage, 3 verification failed, 4 not allowed"));
    assert!(help.contains("5 refused") && help.contains("130 interrupted"));
    run_tow(["--version"]).exits(0);
}

#[test]
fn errors_say_what_and_where_and_what_next() {
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    let addr = towd.addr().to_string();
    fs::create_dir(towd.root().join("d")).unwrap();
    fs::write(towd.root().join("d/f"), "x").unwrap();
    fs::write(towd.root().join("g"), "x").unwrap();
    fs::create_dir(dir.join("g")).unwrap();
    let file = text(&dir.join("f")).to_owned();
    let gone = text(&dir.join("gone")).to_owned();
    fs::write(&file, "x").unwrap();
    let here = |args: &[&str]| {
        let mut command = tow(args);
        command.current_dir(dir.path());
        run(command)
    };
    let url = |path: &str| towd.url(path);
    for (args, code, words) in [
        (vec!["get", &url("none")], 5, vec!["/none", "no such file or directory", "tow ls"]),
        (vec!["get", &url("d")], 5, vec!["/d", "it is a directory", "tow ls"]),
        (vec!["get", &url("")], 2, vec![&addr, "a file is needed", "--help"]),
        (vec!["get", &url("g")], 1, vec!["g: a directory has this name", "another name"]),
        (vec!["get", &url("d/f"), "gone/"], 2, vec!["gone/", "no such folder"]),
        (vec!["get", &url("d/f"), "gone/f"], 1, vec!["gone/f", "no such file", "folder for it"]),
        (vec!["put", &gone, &url("")], 1, vec![&gone, "no such file or directory", "see that"]),
        (vec!["put", text(dir.path()), &url("")], 1, vec!["it is a directory", "regular files"]),
        (vec!["put", "/", &url("")], 2, vec!["no file name"]),
        (vec!["put", &file, &url("no/x")], 5, vec!["/no/x", "no such file", "tow mkdir"]),
        (vec!["put", &file, &url("g/")], 5, vec!["/g/f", "not a directory", "tow stat"]),
        (vec!["mkdir", &url("d")], 5, vec!["/d", "exists already", "tow ls"]),
        (vec!["rm", &url("d")], 5, vec!["/d", "it is a directory"]),
        (vec!["rm", &url("")], 5, vec!["it is the root"]),
        (vec!["rmdir", &url("d")], 5, vec!["/d", "not empty"]),
        (vec!["rmdir", &url("g")], 5, vec!["/g", "not a directory"]),
        (vec!["ls", &url("g")], 5, vec!["/g", "not a directory"]),
        (vec!["md5", &url("d")], 5, vec!["/d", "it is a directory"]),
        (vec!["mv", &url("none"), &url("x")], 5, vec!["/none", "no such file"]),
        (vec!["mv", &url("g"), "tow://other/x"], 2, vec!["same server"]),
        (vec!["get", &url("../x")], 2, vec!["'..'"]),
        (vec!["get", "tow://"], 2, vec!["no host", "tow://HOST"]),
        (vec!["get", "tow://h:x/f"], 2, vec!["'x' is no port"]),
        (vec!["get", "tow://me@h/f"], 1, vec!["a password is needed"]),
        (vec!["ls", "--timeout", "0s", &url("")], 2, vec!["--timeout", "longer than nothing"]),
        (vec!["ls", "--timeout", "soon", &url("")], 2, vec!["--timeout", "soon"]),
        (vec!["frob"], 2, vec!["frob", "--help"]),
    ] {
        here(&args).exits(code).says(&words);
    }
}

#[test]
fn a_server_that_is_not_there_is_told_at_once_when_asked_to_give_up() {
    let port = free_port();
    let url = format!("tow://127.0.0.1:{port}/f");
    let refused = format!("can't connect to 127.0.0.1:{port}: Connection refused");
    for command in ["get", "stat", "ls", "ping"] {
        run_tow([command, "--give-up", "0", &url]).exits(6).says(&[&url, &refused]);
    }
    run_tow(["ls", "--give-up", "0s", &url]).exits(6).says(&["host and port", "towd runs"]);
    run_tow(["get", "--give-up", "0s", &url]).exits(6).says(&["towd runs"]);
    // Patience ends, and until then it says why nothing comes.
    let waited = run_tow(["ls", "--give-up", "300ms", &url]).exits(6);
    waited.says(&[&refused, "trying again in", "no progress for 300ms"]);
    let quiet = run_tow(["ls", "-q", "--give-up", "300ms", &url]).exits(6);
    assert!(!quiet.stderr.contains("trying again"));
    let unknown = "tow://no.such.host.invalid/f";
    let said = ["can't find the address of no.such.host.invalid"];
    run_tow(["get", "--give-up", "0", unknown]).exits(6).says(&said);
}

#[test]
fn a_name_that_leads_nowhere_is_not_looked_up_again_and_again() {
    // Longer than any label may be, so that no resolver has to be asked.
    let host = "x".repeat(64);
    let said = run_tow(["--give-up", "2s", "ls", &format!("tow://{host}/")]).exits(6);
    let said = said.says(&["can't find the address of xxx", "host and port are right"]);
    assert!(!said.stderr.contains("trying again"), "{}", said.stderr);
}

#[test]
fn no_transfer_that_was_refused_for_want_of_space_is_said_to_be_kept() {
    let (towd, dir) = (Towd::start(["--reserve", "1000000TiB"]), TestDir::new());
    fs::write(dir.join("f"), "x").unwrap();
    let said = run_tow(["put", text(&dir.join("f")), &towd.url("f")]).exits(5);
    assert!(!said.stderr.contains("kept:"), "{}", said.stderr);
    said.says(&["free space there, then try again"]);
    assert_eq!(fs::read_dir(towd.root().join(".tow/partials")).unwrap().count(), 0);
}

#[test]
fn what_is_no_tow_server_is_called_so() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("tow://{}/f", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let replies =
            [&b"HTTP/1.1 400 Bad Request\r\n\r\n"[..], b"SSH-2.0-x\r\n", b"\xff\x1b[2J\n"];
        for reply in replies {
            let (mut peer, _) = listener.accept().unwrap();
            peer.write_all(reply).unwrap();
            // Until the client leaves.
            peer.read_to_end(&mut Vec::new()).ok();
        }
    });
    for _ in 0..3 {
        let said = run_tow(["get", "--give-up", "0", &url]).exits(6);
        let said = said.says(&["no greeting of a tow server", &url]);
        assert!(!said.stderr.contains('\u{1b}'));
    }
    server.join().unwrap();
}

#[test]
fn quiet_says_nothing_and_nobody_draws_where_no_terminal_is() {
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    let file = dir.join("f");
    random_file(&file, 9 << 20, 1);
    let (file, copy, url) = (text(&file), dir.join("copy"), towd.url("f"));
    for quiet in [true, false] {
        let get = ["get", &url, text(&copy)];
        let put = ["put", file, &url];
        for command in [&put, &get, &put] {
            let mut args = command.to_vec();
            args.extend(quiet.then_some("-q"));
            let said = run_tow(args).exits(0);
            assert!(said.stdout.is_empty());
            assert_eq!(said.stderr.lines().count(), usize::from(!quiet), "{}", said.stderr);
            assert!(!said.stderr.contains(['\u{1b}', '\r']), "{:?}", said.stderr);
        }
        fs::remove_file(&copy).unwrap();
        run_tow(["rm", &url]).exits(0);
    }
    assert_eq!(run_tow(["-q", "ping", "-c", "2", "-i", "0", &towd.url("")]).exits(0).stderr, "");
    assert_eq!(run_tow(["-q", "mkdir", &towd.url("d")]).exits(0).stderr, "");
    assert!(run_tow(["-q", "get", &towd.url("none")]).exits(5).stderr.contains("no such file"));
}

#[test]
fn on_a_terminal_a_bar_shows_the_phases() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: no `script` to make a terminal with");
        return;
    }
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    let file = dir.join("name\u{1b}[31m");
    random_file(&file, 8 << 20, 1);
    let slow = Slow { direction: Direction::Up, bytes_per_s: 16 << 20 };
    let proxy = Proxy::start(towd.addr(), Plan { slow: Some(slow), ..Plan::default() });
    let url = format!("tow://{}/f", proxy.addr());
    let mut terminal = Command::new("script");
    let line = format!("\"$TOW\" put \"$FILE\" {url}");
    terminal.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
    terminal.env("TOW", env!("CARGO_BIN_EXE_tow")).env("FILE", &file).env("TERM", "xterm");
    let said = run(terminal).exits(0).stdout();
    for word in ["sending", "8.00 MiB", "=>", "verifying", "verified, md5-tree"] {
        assert!(said.contains(word), "no {word:?} in {said:?}");
    }
    assert!(!said.contains("\u{1b}[31m"), "{said:?}");
    assert!(same_bytes(&file, towd.root().join("f")));
}

#[test]
fn ls_is_sorted_and_shows_no_control_characters() {
    let towd = Towd::start([""; 0]);
    let names: [&[u8]; 7] =
        [b"b", b"a", b"\x1b]0;x\x07", b"new\nline", b"\xff", "\u{202e}x".as_bytes(), b"-z"];
    for name in names {
        fs::write(towd.root().join(std::ffi::OsStr::from_bytes(name)), "123").unwrap();
    }
    fs::create_dir(towd.root().join("dir")).unwrap();
    let listed = run_tow(["ls", &towd.url("")]).exits(0).stdout();
    assert_eq!(listed, "?]0;x?\n-z\na\nb\ndir/\nnew?line\n?x\n\u{fffd}\n");
    let long = run_tow(["ls", "-l", &towd.url("/")]).exits(0).stdout();
    let columns = |name: &str| -> Vec<String> {
        let line = long.lines().find(|line| line.ends_with(name)).unwrap();
        line.split_whitespace().map(str::to_owned).collect()
    };
    assert_eq!(columns(" a")[..2], ["f", "3"]);
    assert!(columns(" a")[2].ends_with('Z'));
    assert_eq!(columns(" dir/")[..2], ["d", "0"]);
    assert!(long.chars().all(|c| c == '\n' || !c.is_control()));

    for n in 0..1000 {
        File::create(towd.root().join(format!("dir/{n:04}"))).unwrap();
    }
    let many = run_tow(["ls", &towd.url("dir")]).exits(0).stdout();
    let wanted: String = (0..1000).map(|n| format!("{n:04}\n")).collect();
    assert_eq!(many, wanted);
}

#[test]
fn files_and_folders_are_looked_at_made_moved_and_removed() {
    let towd = Towd::start([""; 0]);
    let (url, root) = (|path: &str| towd.url(path), towd.root());
    run_tow(["mkdir", &url("d")]).exits(0);
    fs::write(root.join("d/a b"), "12345").unwrap();
    let said = run_tow(["stat", &url("d/a b")]).exits(0).stdout();
    assert!(said.starts_with("/d/a%20b: file 5 bytes, changed 20"), "{said}");
    let said = run_tow(["stat", &url("d")]).exits(0).stdout();
    assert!(said.starts_with("/d: folder "), "{said}");
    let said = run_tow(["md5", &url("d/a b")]).exits(0).stdout();
    assert_eq!(said, "827ccb0eea8a706c4c34a16891f84e7b  a b\n");
    run_tow(["mv", &url("d/a b"), &url("c")]).exits(0);
    assert_eq!(fs::read(root.join("c")).unwrap(), b"12345");
    run_tow(["rmdir", &url("d")]).exits(0);
    run_tow(["rm", &url("c")]).exits(0);
    assert_eq!(run_tow(["ls", &url("")]).exits(0).stdout(), "");
    let said = run_tow(["ping", "-c", "5", "-i", "0.01", &url("")]).exits(0).stdout();
    assert_eq!(said.lines().count(), 6, "{said}");
    assert!(said.contains("\n5: ") && said.contains("5 round trips: min "), "{said}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let towd = Towd::start([""; 0]);
    for n in 0..2000 {
        File::create(towd.root().join(format!("{n:0>200}"))).unwrap();
    }
    let mut command = tow(["ls", &towd.url("")]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let status = wait_child(&mut child, PATIENCE).unwrap();
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!((status.code(), &*said), (Some(0), ""));
}

/// Starts `tow` through a slow line, and interrupts it once `moved` holds of the line's counts.
fn interrupt(command: &mut Command, proxy: &Proxy, moved: impl Fn(u64) -> bool) -> Ran {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let there = proxy.wait_for(PATIENCE, |counts| moved(counts.total.up + counts.total.down));
    assert!(there, "nothing moved");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    Ran::of(child.wait_with_output().unwrap())
}

#[test]
fn ctrl_c_keeps_what_was_moved_and_the_same_command_continues() {
    const SIZE: u64 = 40 << 20;
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    let (file, copy) = (dir.join("f"), dir.join("copy"));
    random_file(&file, SIZE, 1);
    for (direction, args) in [
        (Direction::Up, ["put", text(&file), "URL"]),
        (Direction::Down, ["get", "URL", text(&copy)]),
    ] {
        let slow = Slow { direction, bytes_per_s: 20 << 20 };
        let proxy = Proxy::start(towd.addr(), Plan { slow: Some(slow), ..Plan::default() });
        let url = format!("tow://{}/f", proxy.addr());
        let args = args.map(|arg| if arg == "URL" { &url } else { arg });
        let said = interrupt(&mut tow(args), &proxy, |moved| moved > SIZE / 4);
        let said = said.exits(130).says(&["interrupted", "the same command continues"]);
        assert!(said.stderr.contains(&url), "{}", said.stderr);
        proxy.set(Plan::default());
        let before = proxy.counts().total;
        run_tow(args).exits(0).says(&["were there"]);
        let after = proxy.counts().total;
        let moved = after.up + after.down - before.up - before.down;
        assert!(moved < SIZE * 9 / 10, "{moved} of {SIZE} went again");
    }
    assert!(same_bytes(&file, towd.root().join("f")));
    assert!(same_bytes(&file, &copy));
}

#[test]
fn a_file_that_another_client_writes_is_busy_and_free_when_that_is_done() {
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    let file = dir.join("f");
    random_file(&file, 8 << 20, 1);
    let slow = Slow { direction: Direction::Up, bytes_per_s: 4 << 20 };
    let proxy = Proxy::start(towd.addr(), Plan { slow: Some(slow), ..Plan::default() });
    let mut first = tow(["put", text(&file), &format!("tow://{}/f", proxy.addr())]);
    let first = first.stderr(Stdio::piped()).spawn().unwrap();
    assert!(proxy.wait_for(PATIENCE, |counts| counts.total.up > 1 << 20));
    let busy = run_tow(["put", "--give-up", "0", text(&file), &towd.url("f")]).exits(5);
    busy.says(&["another client is writing", "when the other client is done"]);
    // With patience it waits, and says so.
    let waited = run_tow(["put", text(&file), &towd.url("f")]).exits(0);
    waited.says(&["another client is writing", "trying again in"]);
    Ran::of(first.wait_with_output().unwrap()).exits(0);
    assert!(same_bytes(&file, towd.root().join("f")));
}

#[test]
fn ctrl_c_ends_a_wait_for_a_server_that_says_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), Plan::default());
    let mut command = tow(["ls", &format!("tow://{}/", proxy.addr())]);
    let child = command.stderr(Stdio::piped()).spawn().unwrap();
    assert!(proxy.wait_for(PATIENCE, |counts| counts.connections() == 1));
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    Ran::of(child.wait_with_output().unwrap()).exits(130).says(&["interrupted"]);
    proxy.cut_existing(How::Rst);
}

#[test]
fn a_folder_without_permission_is_named() {
    if geteuid().is_root() {
        eprintln!("skipped: root may write everywhere");
        return;
    }
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    fs::write(towd.root().join("f"), "x").unwrap();
    fs::create_dir(dir.join("closed")).unwrap();
    fs::set_permissions(dir.join("closed"), PermissionsExt::from_mode(0o500)).unwrap();
    let closed = dir.join("closed");
    run_tow(["get", &towd.url("f"), text(&closed)]).exits(1).says(&["closed/f", "not allowed"]);
}

/// Runs `towd` to its end.
fn failing_towd(args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towd"));
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null());
    run(command)
}

#[test]
fn towd_that_cannot_start_says_why() {
    let dir = TestDir::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _held = TcpListener::bind(taken).unwrap();
    let (taken, root) = (taken.to_string(), dir.join("root"));
    let busy = failing_towd(&["--no-login", "--root", text(&root), "--listen", &taken]).exits(1);
    let busy = busy.says(&[&format!("can't listen on {taken}"), "in use"]);
    assert!(busy.stdout.is_empty());
    let file = dir.join("file");
    fs::write(&file, "").unwrap();
    let said = failing_towd(&["--root", text(&file), "--listen", "127.0.0.1:0"]).exits(1);
    said.says(&[&format!("can't serve {}", text(&file)), "not a directory"]);
    let deep = dir.join("no/such/root");
    let said = failing_towd(&["--root", text(&deep), "--listen", "127.0.0.1:0"]).exits(1);
    said.says(&["can't serve", "no such file or directory"]);
    failing_towd(&["--listen", "localhost"]).exits(2).says(&["--listen"]);
    failing_towd(&["-v", "-q"]).exits(2);
}

#[test]
fn towd_says_where_it_listens_and_logs_each_transfer_in_one_line() {
    let dir = TestDir::new();
    let mut towd = Towd::start([""; 0]);
    let file = dir.join("a b");
    random_file(&file, 5 << 20, 1);
    run_tow(["put", text(&file), &towd.url("")]).exits(0);
    run_tow(["put", text(&file), &towd.url("")]).exits(0);
    let copy = dir.join("copy");
    run_tow(["get", "--digest", "md5", &towd.url("a b"), text(&copy)]).exits(0);
    run_tow(["ls", &towd.url("")]).exits(0);
    let lines = || towd.stderr().lines().map(str::to_owned).collect::<Vec<_>>();
    assert!(wait_until(PATIENCE, || lines().len() >= 4), "{:?}", lines());
    let mut lines = lines();
    assert!(lines.remove(0).contains(" layers: "), "{lines:?}");
    assert_eq!(lines.len(), 3, "{lines:?}");
    for (line, words) in lines.iter().zip([
        [" put /a%20b from=0 bytes=5242880 ", " identical"],
        [" put /a%20b from=5242880 bytes=0 ", " identical before"],
        [" get /a%20b from=0 bytes=5242880 ", " md5="],
    ]) {
        for word in words.iter().chain(&["127.0.0.1:", " seconds=", " md5-tree="]) {
            assert!(line.contains(word), "{word:?} is not in {line}");
        }
    }
    assert!(lines[2].contains(&support::md5sum(&file)));
    assert_eq!(towd.announced(1), [format!("listening on {}", towd.addr())]);
    assert!(towd.terminate().0.success());
    assert_eq!(towd.announced(1).len(), 1);
}

#[test]
fn towd_logs_as_much_as_it_is_told() {
    let dir = TestDir::new();
    let file = dir.join("f");
    random_file(&file, 10, 1);
    for (flag, transfer, connection) in
        [("--quiet", false, false), ("--keep-partials=7d", true, false), ("-v", true, true)]
    {
        let mut towd = Towd::start([flag]);
        run_tow(["put", text(&file), &towd.url("")]).exits(0);
        towd.terminate();
        let said = towd.stderr();
        assert_eq!(said.contains(" put /f "), transfer, "{flag}: {said}");
        assert_eq!(said.contains("connected"), connection, "{flag}: {said}");
    }
    let towd = Towd::start([""; 0]);
    let mut loud = tow(["ls", &towd.url("")]);
    loud.env("RUST_LOG", "off");
    assert_eq!(run(loud).exits(0).stderr, "");
}

#[test]
fn towd_outlives_a_stdout_that_is_closed() {
    let dir = TestDir::new();
    let file = dir.join("f");
    random_file(&file, 1000, 1);
    let port = free_port();
    let mut towd = Killed(
        Command::new(env!("CARGO_BIN_EXE_towd"))
            .args(["--no-login", "--root", text(&dir.join("root"))])
            .args(["--listen", &format!("127.0.0.1:{port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    drop(towd.0.stdout.take());
    drop(towd.0.stderr.take());
    for _ in 0..2 {
        // The client waits until the server is there.
        run_tow(["put", text(&file), &format!("tow://127.0.0.1:{port}/f")]).exits(0);
        assert_eq!(towd.0.try_wait().unwrap(), None);
        random_file(&file, 2000, 2);
    }
}

/// A process that ends with the test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_file_that_can_not_be_sent_does_not_hold_up_the_others() {
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    fs::write(dir.join("a"), "a").unwrap();
    fs::write(dir.join("c"), "c").unwrap();
    let files = ["a", "missing", "c"].map(|name| dir.join(name));
    let mut command = tow(["put"]);
    let ended = command.args(&files).arg(format!("tow://{}/", towd.addr())).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("missing") && said.contains("1 of 3 files failed"), "{said}");
    assert_eq!(fs::read(towd.root().join("a")).unwrap(), b"a");
    assert_eq!(fs::read(towd.root().join("c")).unwrap(), b"c");
}

#[test]
fn the_demo_comes_to_its_end() {
    let ran = run_tow(["demo", "--mebibytes", "16", "--cuts", "2"]).exits(0);
    assert!(ran.stdout().ends_with("the same bytes everywhere\n"), "{}", ran.stdout());
}
