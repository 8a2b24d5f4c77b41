//! A new user's first hour, at a real terminal: an account, a login, files both ways over a line
//! that breaks, an action, goodbye.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails the test")]

mod support;

use std::{fs, process::Command};

use support::{
    PATIENCE, TestDir, Towd,
    people::{self, House, tow_with, url},
    proxy::{Direction, How, Plan, Proxy, Slow},
    pty::Pty,
    random_file, run, same_bytes, wait_until,
};

/// What is typed here.
const PASSWORD: &str = "correct horse battery";

/// Types the password, once it is not shown.
fn answer(pty: &mut Pty, question: &str) {
    pty.wait_for(question);
    assert!(wait_until(PATIENCE, || !pty.is_cooked()), "what is typed would be shown");
    pty.send(&format!("{PASSWORD}\r"));
}

#[test]
fn a_newcomer_registers_and_finds_his_way() {
    const SIZE: u64 = 16 << 20;
    let dir = TestDir::new();
    let config = dir.join("towd.toml");
    fs::write(
        &config,
        "banner = \"Welcome aboard\"\n\
         [registration]\nmode = \"invite\"\nquota = \"1GiB\"\nrights = \"rwda\"\n\
         [actions.greet]\nrun = [\"echo\", \"hello\", \"{name}\"]\narguments.name = \"[a-z]+\"\n",
    )
    .unwrap();
    let root = dir.join("root");
    fs::create_dir(&root).unwrap();
    let towd = Towd::start_in(&root, ["--config".as_ref(), config.as_os_str()]);
    let invite = Command::new(env!("CARGO_BIN_EXE_towd"))
        .arg("--root")
        .arg(&root)
        .arg("invite")
        .output()
        .unwrap();
    let code = String::from_utf8(invite.stdout).unwrap();

    let slow = Slow { direction: Direction::Up, bytes_per_s: 20 << 20 };
    let proxy = Proxy::start(towd.addr(), Plan { slow: Some(slow), ..Plan::default() });
    let here = dir.join("here");
    fs::create_dir(&here).unwrap();
    random_file(here.join("letter.bin"), SIZE, 7);
    let mut shell = Command::new("sh");
    let bin = std::path::Path::new(env!("CARGO_BIN_EXE_tow")).parent().unwrap();
    shell.current_dir(&here).env_remove("TOW_PASSWORD").env("PS1", "my machine> ");
    shell.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).env("HOME", dir.path());
    let mut pty = Pty::spawn(&shell);
    pty.wait_for("my machine> ");

    // An account.
    pty.send(&format!("tow register --invite {} tow://ann@{}\r", code.trim(), proxy.addr()));
    answer(&mut pty, "New password for ann: ");
    answer(&mut pty, "again: ");
    pty.wait_for("ann has an account now");
    pty.wait_for("my machine> ");

    // In.
    pty.send(&format!("tow tow://ann@{}/\r", proxy.addr()));
    answer(&mut pty, "Password of ann: ");
    pty.wait_for("Welcome aboard");
    pty.wait_for("/> ");
    assert!(pty.run("whoami", "/> ").contains("ann: may read, write, delete, run actions"));
    pty.run("mkdir letters", "/> ");
    pty.run("cd letters", "/letters> ");

    // There, over a line that breaks.
    pty.send("put letter.bin\r");
    assert!(proxy.wait_for(PATIENCE, |counts| counts.total.up > SIZE / 4));
    proxy.cut_existing(How::Rst);
    let said = pty.prompt("/letters> ");
    assert!(said.contains("verified") && said.contains("reconnected once"), "{said}");
    assert!(pty.run("ls", "/letters> ").contains("letter.bin"));

    // And back.
    pty.run("get letter.bin copy.bin", "/letters> ");
    assert!(same_bytes(here.join("letter.bin"), here.join("copy.bin")));
    assert!(same_bytes(here.join("letter.bin"), root.join("ann/letters/letter.bin")));

    assert!(pty.run("run greet world", "/letters> ").contains("hello world"));
    let said = pty.run("run greet WORLD", "/letters> ");
    assert!(said.contains("(411)"), "{said}");
    let said = pty.run("quota", "/letters> ");
    assert!(said.contains("16.00 MiB of 1.00 GiB used"), "{said}");
    pty.send("quit\r");
    pty.wait_for("my machine> ");
    pty.send("exit\r");
    assert_eq!(pty.exit_code(), Some(0));
    assert!(!pty.said().contains(PASSWORD), "the password was shown");
}

#[test]
fn the_banner_is_shown_once_to_a_person_and_to_nobody_else() {
    let house = House::of(&["anna"]);
    let towd = house.towd(["--banner", "Back at six"]);
    let ls = |flags: &[&str]| {
        let url = url(towd.addr(), "anna", "");
        tow_with(people::PASSWORD, flags.iter().copied().chain(["ls", &*url]))
    };
    let on_terminal = |flags: &[&str]| {
        let mut pty = Pty::spawn(&ls(flags));
        let said = pty.said_to_the_end();
        assert_eq!(pty.exit_code(), Some(0));
        said
    };
    assert_eq!(on_terminal(&[]).matches("Back at six").count(), 1);
    assert_eq!(on_terminal(&["-q"]).matches("Back at six").count(), 0);
    let said = run(ls(&[])).exits(0);
    assert!(said.stderr.is_empty() && said.stdout.is_empty(), "{said:?}");
}
