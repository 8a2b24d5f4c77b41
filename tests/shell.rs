//! The shell of `tow`, on a terminal and with scripts, against a real server.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{
    fs::{self, Permissions},
    io::{self, BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use rustix::process::{Pid, Signal, kill_process};
use support::{
    PATIENCE, Ran, TestDir, Towd,
    proxy::{Direction, How, Plan, Proxy, Slow},
    pty::{CTRL_C, CTRL_D, Pty},
    random_file, same_bytes, tow, wait_until,
};

mod support;

/// A shell in this folder, with its history there.
fn shell(addr: SocketAddr, here: &Path) -> Command {
    let mut command = tow([format!("tow://{addr}/")]);
    command.current_dir(here).env("XDG_STATE_HOME", here.join("state")).env("HOME", here);
    command
}

/// Runs a script to its end.
fn script(towd: &Towd, here: &Path, lines: &str) -> Ran {
    let mut command = shell(towd.addr(), here);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It may end before it has read all of it.
    child.stdin.take().unwrap().write_all(lines.as_bytes()).ok();
    Ran::of(child.wait_with_output().unwrap())
}

/// A shell on a terminal, at its first prompt.
fn terminal(addr: SocketAddr, here: &Path) -> Pty {
    let mut pty = Pty::spawn(&shell(addr, here));
    pty.prompt("tow 127.0.0.1:/> ");
    pty
}

#[test]
fn a_script_moves_files_around() {
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    let here = dir.join("here");
    fs::create_dir_all(here.join("sub")).unwrap();
    for name in ["my file", "a.txt", "b.txt", "-x", "it's"] {
        fs::write(here.join(name), name).unwrap();
    }
    let said = script(
        &towd,
        &here,
        "# a comment\n\
         \n\
         mkdir -p one/two 'with blank'   # and another\n\
         cd one/two\r\n\
         put my\\ file *.txt ./-x \"it's\" .\n\
         pwd\n\
         ls\n\
         cd ..\n\
         pwd\n\
         mv two/[ab].txt '/with blank'\n\
         ls /with\\ blank two/my*\n\
         cd '/with blank'\n\
         cd -\n\
         pwd\n\
         md5 two/my?file\n\
         lcd sub\n\
         get ../one/two/my\\ file copy\n\
         get /*/?.txt .\n\
         lls\n\
         rm /with\\ blank/* two/$'\\x2dx'\n\
         rmdir /with*\n\
         cd\n\
         pwd\n\
         cd ../../..\n\
         ls\n\
         quit\n\
         rm everything\n",
    )
    .exits(0);
    let stdout = said.stdout();
    let lines: Vec<&str> = stdout.lines().collect();
    assert_eq!(
        lines[..8],
        ["/one/two", "-x", "a.txt", "b.txt", "it's", "my file", "/one", "two/my file"]
    );
    assert_eq!(lines[8..11], ["a.txt", "b.txt", "/one"]);
    assert!(lines[11].ends_with("  my file"), "{stdout}");
    assert_eq!(lines[12..], ["a.txt", "b.txt", "copy", "/", "one/"]);
    assert_eq!(fs::read(here.join("sub/copy")).unwrap(), b"my file");
    assert_eq!(fs::read(here.join("sub/a.txt")).unwrap(), b"a.txt");
    assert!(!said.stderr.contains("tow:"), "{}", said.stderr);
    assert!(!here.join("state").exists(), "a script leaves no history");
}

#[test]
fn folders_go_up_and_down_with_all_that_is_in_them() {
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    let here = dir.join("here");
    fs::create_dir_all(here.join("a/deep")).unwrap();
    fs::create_dir_all(here.join("b")).unwrap();
    for name in ["a/1", "a/deep/2", "b/3", "c"] {
        fs::write(here.join(name), name).unwrap();
    }
    std::os::unix::fs::symlink("1", here.join("a/link")).unwrap();
    let lines = "mkdir up\nput -r [ab] c up\nput -rL a/. followed\nlcd ..\nmkdir -p x\n";
    script(&towd, &here, lines).exits(0);
    let there = |name: &str| fs::read_to_string(towd.root().join(name)).ok();
    for name in ["a/1", "a/deep/2", "b/3", "c"] {
        assert_eq!(there(&format!("up/{name}")).as_deref(), Some(name));
    }
    assert_eq!((there("up/a/link"), there("followed/link").as_deref()), (None, Some("a/1")));
    fs::create_dir(dir.join("down")).unwrap();
    script(&towd, dir.path(), "cd up\nget -r [ab] c down\nget -r /up/. whole\n").exits(0);
    for name in ["a/1", "a/deep/2", "b/3", "c"] {
        for top in ["down", "whole"] {
            assert_eq!(fs::read_to_string(dir.join(top).join(name)).unwrap(), name);
        }
    }
    script(&towd, &here, "put -L a\n").exits(2).says(&["it needs -r"]);
}

#[test]
fn ls_looks_into_folders_and_shows_files_and_what_a_pattern_found() {
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    fs::create_dir_all(towd.root().join("d/inner")).unwrap();
    fs::create_dir_all(dir.join("e/inner")).unwrap();
    for file in [towd.root().join("f"), towd.root().join("d/g\n"), dir.join("e/h")] {
        fs::write(file, "123").unwrap();
    }
    let ls = |line: &str| script(&towd, dir.path(), line).exits(0).stdout();
    assert_eq!(ls("ls"), "d/\nf\n");
    assert_eq!(ls("ls d f"), "d:\ng?\ninner/\nf\n");
    assert_eq!(ls("ls ?"), "d/\nf\n");
    assert_eq!(ls("ls d/*"), "d/g?\nd/inner/\n");
    for line in ["ls -l f", "ls -l ?"] {
        let said = ls(line);
        let words: Vec<_> = said.lines().last().unwrap().split_whitespace().collect();
        assert_eq!((words[0], words[1], words[3]), ("f", "3", "f"), "{line}");
    }
    script(&towd, dir.path(), "ls f/").exits(5).says(&["/f", "not a directory"]);
    assert_eq!(ls("lls e"), "h\ninner/\n");
    assert_eq!(ls("lls e/h"), "e/h\n");
    assert_eq!(ls("lls e/i*"), "e/inner/\n");
    assert!(ls("lls -l e").starts_with("f              3 20"));
    // A home is at home only where nothing is quoted.
    assert_eq!(ls("lcd e\nlls ~/e"), "h\ninner/\n");
    script(&towd, dir.path(), "lls '~/e'").exits(1).says(&["~/e"]);
}

#[test]
fn a_script_stops_at_the_first_failure_with_its_code() {
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    fs::write(towd.root().join("f"), "x").unwrap();
    fs::create_dir(towd.root().join("d")).unwrap();
    fs::write(dir.join("here"), "x").unwrap();
    for (lines, code, words) in [
        ("pwd\n\nget none\nrm f\n", 5, &["line 3: ", "/none", "no such file"][..]),
        ("cd none\nrm f\n", 5, &["line 1: ", "/none", "no such file"]),
        ("cd f\nrm f\n", 1, &["line 1: ", "/f", "no folder"]),
        ("cd -\nrm f\n", 2, &["line 1: ", "no folder to go back to"]),
        ("ls *.none\nrm f\n", 1, &["line 1: ", "*.none matches nothing"]),
        ("put none*\nrm f\n", 1, &["line 1: ", "none* matches nothing"]),
        ("put none\nrm f\n", 1, &["line 1: ", "none", "no such file"]),
        ("get d\nrm f\n", 5, &["line 1: ", "/d", "it is a directory"]),
        ("get *\nget d*\nrm f\n", 1, &["d is a folder: left out", "line 2: ", "only folders"]),
        ("get f d none\nrm f\n", 2, &["line 1: ", "none is no folder"]),
        ("get /f f .\nrm f\n", 2, &["line 1: ", "two of the files have the name f"]),
        ("mv f d none\nrm f\n", 2, &["line 1: ", "/none is no folder"]),
        ("mkdir d\nrm f\n", 5, &["line 1: ", "/d", "exists"]),
        ("mkdir -p f\nrm f\n", 5, &["line 1: ", "/f", "exists"]),
        ("rm none1 none2\nrm f\n", 5, &["none1", "none2", "line 1: this is where"]),
        ("rm -r d\nrm f\n", 2, &["line 1: ", "knows no -r", "\\-r"]),
        ("gte f\nrm f\n", 2, &["line 1: ", "no gte", "did you mean get?"]),
        ("!ls\nrm f\n", 2, &["line 1: ", "can't be run"]),
        ("get 'f\nrm f\n", 2, &["line 1: ", "without its end"]),
        ("ls .tow\nrm f\n", 2, &["line 1: ", "reserved"]),
        ("lcd none\nrm f\n", 1, &["line 1: ", "none: No such file"]),
        ("pwd x", 2, &["line 1: ", "fewer words"]),
        ("help frob", 2, &["line 1: ", "no frob"]),
    ] {
        script(&towd, dir.path(), lines).exits(code).says(words);
        assert!(towd.root().join("f").exists(), "{lines}");
        fs::remove_file(dir.join("f")).ok();
    }
    script(&towd, dir.path(), "mkdir -p d d/e/../g\nls d\n# no newline at the end").exits(0);
    assert!(towd.root().join("d/g").is_dir() && !towd.root().join("d/e").exists());
}

#[test]
fn a_shell_begins_only_in_a_folder_of_a_server_that_is_there() {
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    fs::write(towd.root().join("f"), "x").unwrap();
    fs::create_dir(towd.root().join("d")).unwrap();
    let run = |args: &[&str]| support::run_tow(args);
    run(&["shell", &towd.url("f")]).exits(2).says(&["/f is no folder"]);
    run(&[&towd.url("none")]).exits(5).says(&["/none", "no such file"]);
    run(&[&towd.url("d")]).exits(0);
    run(&[&towd.url("d"), "ls", &towd.url("")]).exits(2).says(&["in front of a command"]);
    let addr = towd.addr();
    drop(towd);
    let mut gone = shell(addr, dir.path());
    gone.args(["--give-up", "0"]);
    support::run(gone).exits(6).says(&["can't connect"]);
}

#[test]
fn sigterm_and_ctrl_c_end_a_script() {
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    for signal in [Signal::TERM, Signal::INT] {
        let mut command = shell(towd.addr(), dir.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(b"mkdir made\n").unwrap();
        assert!(wait_until(PATIENCE, || towd.root().join("made").exists()));
        kill_process(Pid::from_child(&child), signal).unwrap();
        Ran::of(child.wait_with_output().unwrap()).exits(130);
        fs::remove_dir(towd.root().join("made")).unwrap();
    }
}

#[test]
fn on_a_terminal_there_is_a_prompt_and_failures_end_nothing() {
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    random_file(dir.join("f"), 3 << 20, 1);
    let mut pty = terminal(towd.addr(), dir.path());
    let said = pty.run("put f", "/> ");
    assert!(said.contains("verified, md5-tree"), "{said}");
    assert!(same_bytes(dir.join("f"), towd.root().join("f")));
    assert!(pty.run("get none", "/> ").contains("no such file"));
    assert!(pty.run("frob", "/> ").contains("there is no frob"));
    pty.run("mkdir d e", "/> ");
    // Side by side: this is a terminal.
    assert!(pty.run("ls", "/> ").contains("d/  e/  f\r\n"));
    pty.run("cd d", "tow 127.0.0.1:/d> ");
    // What is typed and taken back is never run.
    pty.send("rm /f");
    pty.wait_for("rm /f");
    pty.send(CTRL_C);
    pty.prompt("/d> ");
    assert!(towd.root().join("f").exists());
    pty.send(CTRL_D);
    assert_eq!(pty.exit_code(), Some(0));
    assert!(pty.is_cooked());
}

#[test]
fn a_current_folder_that_went_away_is_called_so_and_left() {
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    fs::create_dir(towd.root().join("d")).unwrap();
    fs::write(dir.join("f"), "x").unwrap();
    let mut pty = terminal(towd.addr(), dir.path());
    pty.run("cd d", "/d> ");
    fs::remove_dir(towd.root().join("d")).unwrap();
    for line in ["ls", "put f", "mkdir x"] {
        let said = pty.run(line, "/d> ");
        assert!(said.contains("the current folder /d is gone"), "{said}");
    }
    pty.run("cd ..", "tow 127.0.0.1:/> ");
    assert!(!pty.run("ls none", "/> ").contains("is gone"));
}

#[test]
fn tab_completes_commands_and_names_on_both_sides() {
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    for name in ["my file", "red\u{1b}[31m", "two a", "two b"] {
        fs::write(towd.root().join(name), name).unwrap();
    }
    fs::create_dir_all(towd.root().join("a folder/inner")).unwrap();
    fs::write(dir.join("local one"), "x").unwrap();
    let mut pty = terminal(towd.addr(), dir.path());
    pty.send("mkd\t");
    pty.wait_for("mkdir ");
    pty.send(CTRL_C);
    pty.prompt("/> ");
    // A name with a blank is one word.
    pty.send("get my\t");
    pty.wait_for("get my\\ file ");
    assert!(pty.run("copy", "/> ").contains("verified"));
    assert_eq!(fs::read(dir.join("copy")).unwrap(), b"my file");
    pty.send("get \"my\t");
    pty.wait_for("get \"my file\" ");
    assert!(pty.run("copy2", "/> ").contains("verified"));
    // Folders one after the other.
    pty.send("cd a\t");
    pty.wait_for("cd a\\ folder/");
    pty.send("i\t");
    pty.wait_for("cd a\\ folder/inner/");
    pty.run("", "tow 127.0.0.1:/a folder/inner> ");
    pty.run("cd", "tow 127.0.0.1:/> ");
    // What two names have in common, then both.
    pty.send("get t\t\t");
    pty.wait_for("two a");
    pty.wait_for("two b");
    pty.send(CTRL_C);
    pty.prompt("/> ");
    // A name that a terminal must not see comes through all the same.
    pty.send("get red\t");
    pty.wait_for("get $'red\\x1b[31m' ");
    assert!(pty.run("copy3", "/> ").contains("verified"));
    pty.send("put loc\t");
    pty.wait_for("put local\\ one ");
    assert!(pty.run("", "/> ").contains("verified"));
    assert!(towd.root().join("local one").exists());
    fs::create_dir(towd.root().join("blue\u{1b}[34m")).unwrap();
    pty.send("cd blue\t");
    pty.wait_for("cd $'blue\\x1b[34m/");
    pty.run("'", "tow 127.0.0.1:/blue?[34m> ");
    pty.run("pwd", "34m> ");
    assert!(!pty.said().contains("\u{1b}[31m") && !pty.said().contains("\u{1b}[34m"));
}

#[test]
fn tab_waits_only_so_long_and_prints_nothing() {
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    fs::write(towd.root().join("name"), "x").unwrap();
    let proxy = Proxy::start(towd.addr(), Plan::default());
    let mut pty = terminal(proxy.addr(), dir.path());
    let slow = Slow { direction: Direction::Down, bytes_per_s: 1 };
    proxy.set(Plan { slow: Some(slow), ..Plan::default() });
    pty.send("ls n\t\u{15}pwd\r");
    let said = pty.prompt("/> ");
    assert!(!said.contains("tow:") && !said.contains("trying") && said.contains("\n/"), "{said}");
    proxy.cut_existing(How::Rst);
}

/// Answers a client that asks what something is, and is busy with everything else for ever.
fn always_busy(client: &TcpStream) -> io::Result<()> {
    let mut out = client;
    out.write_all(b"220 tow/1 login=none\n")?;
    for line in BufReader::new(client).lines() {
        if line?.contains("stat") {
            out.write_all(b"200 kind=d size=0 mtime=0.000000000\n")?;
        } else {
            loop {
                out.write_all(b"100\n")?;
                thread::yield_now();
            }
        }
    }
    Ok(())
}

#[test]
fn tab_does_not_wait_for_a_server_that_is_always_busy() {
    let dir = TestDir::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // Ends when the shell leaves: it makes one connection for itself and one for Tab.
    let server = thread::spawn(move || {
        thread::scope(|scope| {
            for client in listener.incoming().take(2) {
                scope.spawn(|| always_busy(&client.unwrap()));
            }
        });
    });
    let mut pty = terminal(addr, dir.path());
    pty.send("ls n\t\u{15}pwd\r");
    let said = pty.prompt("/> ");
    assert!(said.contains("\n/\r\n") && !said.contains("tow:"), "{said}");
    drop(pty);
    server.join().unwrap();
}

#[test]
fn ctrl_c_stops_the_transfer_and_the_same_command_continues() {
    const SIZE: u64 = 40 << 20;
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    random_file(dir.join("f"), SIZE, 1);
    let proxy = Proxy::start(towd.addr(), Plan::default());
    let mut pty = terminal(proxy.addr(), dir.path());
    for (direction, line) in [(Direction::Up, "put f"), (Direction::Down, "get f copy")] {
        let slow = Slow { direction, bytes_per_s: 20 << 20 };
        proxy.set(Plan { slow: Some(slow), ..Plan::default() });
        let before = proxy.counts().total;
        let moved =
            move |total: support::proxy::Traffic| total.up + total.down - before.up - before.down;
        pty.send(&format!("{line}\r"));
        assert!(proxy.wait_for(PATIENCE, |counts| moved(counts.total) > SIZE / 4));
        // From here on nothing comes through, not even the end of the line.
        proxy.blackhole_existing();
        pty.send(CTRL_C);
        let said = pty.prompt("/> ");
        assert!(said.contains("interrupted") && said.contains("same command"), "{said}");
        proxy.set(Plan::default());
        let said = pty.run(line, "/> ");
        assert!(said.contains("verified") && said.contains("were there"), "{said}");
        // It takes over from itself.
        assert!(!said.contains("another client"), "{said}");
        proxy.cut_existing(How::Rst);
    }
    assert!(same_bytes(dir.join("f"), towd.root().join("f")));
    assert!(same_bytes(dir.join("f"), dir.join("copy")));
}

#[test]
fn a_line_that_breaks_is_healed_inside_of_the_shell() {
    const SIZE: u64 = 24 << 20;
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    fs::create_dir(towd.root().join("d")).unwrap();
    random_file(dir.join("f"), SIZE, 1);
    let slow = Slow { direction: Direction::Up, bytes_per_s: 20 << 20 };
    let proxy = Proxy::start(towd.addr(), Plan { slow: Some(slow), ..Plan::default() });
    let mut pty = terminal(proxy.addr(), dir.path());
    pty.run("cd d", "/d> ");
    pty.send("put f\r");
    assert!(proxy.wait_for(PATIENCE, |counts| counts.total.up > SIZE / 4));
    proxy.cut_existing(How::Rst);
    let said = pty.prompt("/d> ");
    for word in ["sending", "=>", "verified", "reconnected once"] {
        assert!(said.contains(word), "no {word} in {said}");
    }
    assert!(same_bytes(dir.join("f"), towd.root().join("d/f")));
    assert!(pty.run("ls", "/d> ").contains("f\r\n"));
}

#[test]
fn sigterm_ends_the_shell_and_leaves_the_terminal_as_it_was() {
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    let mut pty = terminal(towd.addr(), dir.path());
    assert!(!pty.is_cooked());
    pty.signal(Signal::TERM);
    assert_eq!(pty.exit_code(), Some(130));
    assert!(pty.is_cooked());

    random_file(dir.join("f"), 40 << 20, 1);
    let slow = Slow { direction: Direction::Up, bytes_per_s: 10 << 20 };
    let proxy = Proxy::start(towd.addr(), Plan { slow: Some(slow), ..Plan::default() });
    let mut pty = terminal(proxy.addr(), dir.path());
    pty.send("put f\r");
    assert!(proxy.wait_for(PATIENCE, |counts| counts.total.up > 1 << 20));
    pty.signal(Signal::TERM);
    pty.wait_for("interrupted");
    assert_eq!(pty.exit_code(), Some(130));
    assert!(pty.is_cooked());
    proxy.cut_existing(How::Rst);
}

#[test]
fn the_history_has_what_was_typed_and_no_secrets_and_is_nobody_elses() {
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    let mut pty = terminal(towd.addr(), dir.path());
    for line in ["pwd", " lpwd", "ls tow://me:secret@host/", "ls", "pwd"] {
        pty.run(line, "/> ");
    }
    pty.send(CTRL_D);
    assert_eq!(pty.exit_code(), Some(0));
    let file = dir.join("state/tow/history");
    let kept = fs::read_to_string(&file).unwrap();
    assert_eq!(kept.lines().skip(1).collect::<Vec<_>>(), ["pwd", "ls", "pwd"]);
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);

    // The next shell knows it.
    let mut pty = terminal(towd.addr(), dir.path());
    pty.send("\u{1b}[A\u{1b}[A");
    pty.wait_for("ls");
    pty.send(CTRL_C);
    pty.prompt("/> ");
    pty.send("quit\r");
    assert_eq!(pty.exit_code(), Some(0));

    // It does not grow for ever.
    let many: String = (0..3000).map(|n| format!("ls {n}\n")).collect();
    fs::write(&file, format!("#V2\n{many}")).unwrap();
    let mut pty = terminal(towd.addr(), dir.path());
    pty.run("pwd", "/> ");
    drop(pty);
    assert_eq!(fs::read_to_string(&file).unwrap().lines().count(), 1 + 1000);
}

#[test]
fn a_shell_without_a_history_works_all_the_same() {
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    // No folder can be made below a file; a history that is no text can't be read.
    fs::write(dir.join("state"), "").unwrap();
    for state in ["state", "other"] {
        fs::create_dir_all(dir.join("other/tow")).unwrap();
        fs::write(dir.join("other/tow/history"), b"\xff\xff\n").unwrap();
        fs::set_permissions(dir.join("other/tow/history"), Permissions::from_mode(0o000)).unwrap();
        let mut command = shell(towd.addr(), dir.path());
        command.env("XDG_STATE_HOME", dir.join(state));
        let mut pty = Pty::spawn(&command);
        pty.prompt("/> ");
        assert!(pty.run("pwd", "/> ").contains("\n/\r\n"));
        pty.send(CTRL_D);
        assert_eq!(pty.exit_code(), Some(0));
    }
}

#[test]
fn lines_that_are_pasted_are_run_one_after_the_other() {
    let (towd, dir) = (Towd::start([""; 0]), TestDir::new());
    let mut pty = terminal(towd.addr(), dir.path());
    pty.send("\u{1b}[200~mkdir a\nfrob\nmkdir b\n\u{1b}[201~\r");
    let said = pty.prompt("/> ");
    assert!(said.contains("no frob"), "{said}");
    assert!(towd.root().join("a").is_dir() && !towd.root().join("b").exists());
    // Typed ahead, while the first one runs.
    pty.send("mkdir c\rmkdir d\r");
    assert!(wait_until(PATIENCE, || towd.root().join("d").exists()));
}
