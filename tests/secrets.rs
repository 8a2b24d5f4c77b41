//! A password is in no process list, no log, no history and no file.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use support::{
    PATIENCE, Ran, TestDir,
    canary::{has_no_canary, no_canary_beneath},
    people::{House, PASSWORD, tow_with, url},
    proxy::{Direction, Plan, Proxy, Slow},
    pty::Pty,
    random_file, run,
};

mod support;

#[test]
fn a_password_is_in_no_process_list_no_log_no_history_and_no_file() {
    has_no_canary("a text without it", b"nothing to be seen");
    let (house, dir) = (House::of(&["anna"]), TestDir::new());
    let towd = house.towd(["-vv", "--registration", "open"]);
    let here = dir.join("here");
    fs::create_dir(&here).unwrap();
    let source = here.join("f");
    random_file(&source, 2 << 20, 7);
    let file = dir.join("password");
    fs::write(&file, format!("{PASSWORD}\n")).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let slow = Slow { direction: Direction::Up, bytes_per_s: 4 << 20 };
    let proxy = Proxy::start(towd.addr(), Plan { slow: Some(slow), ..Plan::default() });
    let home = |mut command: Command| {
        command.current_dir(&here).env("HOME", &here).env("XDG_STATE_HOME", here.join("state"));
        command
    };
    let target = url(proxy.addr(), "anna", "");
    let put = ["-vv", "put", source.to_str().unwrap(), &target];
    let by_file =
        support::tow(put.iter().copied().chain(["--password-file", file.to_str().unwrap()]));
    for (by_variable, command) in [(true, tow_with(PASSWORD, put)), (false, by_file)] {
        let mut command = home(command);
        let logins = towd.stderr().matches("anna logged in").count();
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // In the middle of it.
        let is_in = || towd.stderr().matches("anna logged in").count() > logins;
        assert!(support::wait_until(PATIENCE, is_in));
        let proc = format!("/proc/{}", child.id());
        has_no_canary("the process list", &fs::read(format!("{proc}/cmdline")).unwrap());
        if !by_variable {
            has_no_canary("the environment", &fs::read(format!("{proc}/environ")).unwrap());
        }
        has_no_canary("towd", &fs::read(format!("/proc/{}/cmdline", towd.pid())).unwrap());
        let ran = Ran::of(child.wait_with_output().unwrap()).exits(0);
        has_no_canary("tow's log", ran.stderr.as_bytes());
        has_no_canary("tow's output", &ran.stdout);
        fs::remove_file(house.home("anna").join("f")).unwrap();
    }
    // In a shell, with a history; wrong; and as somebody new.
    let mut pty = Pty::spawn(&home(tow_with(PASSWORD, ["shell", &target])));
    pty.prompt("tow anna@127.0.0.1:/> ");
    pty.run("ls", "tow anna@127.0.0.1:/> ");
    pty.send("exit\r");
    assert_eq!(pty.exit_code(), Some(0));
    has_no_canary("the terminal", pty.said().as_bytes());
    let eve = url(towd.addr(), "eve", "");
    for (args, code) in
        [(["-vv", "ls", &*eve], 4), (["-vv", "register", &eve], 0), (["-vv", "ls", &eve], 0)]
    {
        let ran = run(home(tow_with(PASSWORD, args))).exits(code);
        has_no_canary("tow's log", ran.stderr.as_bytes());
    }
    has_no_canary("the server's log", towd.stderr().as_bytes());
    assert!(here.join("state/tow/history").exists());
    no_canary_beneath(&here);
    no_canary_beneath(&house.root());
    has_no_canary("the user file", &fs::read(house.users()).unwrap());
}

#[test]
fn a_password_in_a_url_is_refused() {
    let house = House::of(&["anna"]);
    let towd = house.towd([]);
    let url = format!("tow://anna:{PASSWORD}@{}/", towd.addr());
    run(support::tow(["ls", &url])).exits(2).says(&["password"]);
    assert!(!towd.stderr().contains("anna"));
}

#[test]
fn a_password_of_absurd_length_is_refused_before_it_is_hashed() {
    let (house, dir) = (House::of(&["anna"]), TestDir::new());
    let towd = house.towd([]);
    let file = dir.join("password");
    fs::write(&file, "x".repeat(8 << 20)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let url = url(towd.addr(), "anna", "");
    let ran = run(support::tow(["--password-file", file.to_str().unwrap(), "ls", &url]));
    ran.exits(2).says(&["at most 1024 bytes"]);
    assert!(!towd.stderr().contains("login"));
}
