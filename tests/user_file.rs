//! The user file as people edit it: what is odd lets nobody in, and what makes no sense changes
//! nothing.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
};

use support::{
    people::{House, PASSWORD, WRONG, greeted, log_in, log_in_with, logged_in},
    run,
};

mod support;

#[test]
fn a_user_file_edited_to_nonsense_leaves_the_old_accounts_in_force() {
    let house = House::of(&["anna"]);
    let towd = house.towd([]);
    let good = fs::read_to_string(house.users()).unwrap();
    let complaints = || towd.stderr().matches("the accounts stay as they were").count();
    let rewrite = |text: &str, mode| {
        // A new file, as editors write it.
        let new = house.outside("users.edited");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, Permissions::from_mode(mode)).unwrap();
        fs::rename(&new, house.users()).unwrap();
    };
    let with_path = format!("{good}../x rights=rwd\n");
    let no_decoys = good.lines().filter(|line| !line.starts_with('@')).collect::<Vec<_>>();
    let no_decoys = no_decoys.join("\n");
    for (nth, (text, mode)) in
        [("what is this?\n", 0o600), ("", 0o600), (&with_path, 0o600), (&no_decoys, 0o600)]
            .into_iter()
            .chain([(&*good, 0o644)])
            .enumerate()
    {
        rewrite(text, mode);
        for _ in 0..3 {
            drop(logged_in(towd.addr(), "anna"));
        }
        // Once for each version of it.
        assert_eq!(complaints(), nth + 1, "{}", towd.stderr());
    }
    fs::remove_file(house.users()).unwrap();
    drop(logged_in(towd.addr(), "anna"));
    assert_eq!(complaints(), 6);
    // Put right, it counts again.
    rewrite(&good, 0o600);
    house.add("ben", "r");
    drop(logged_in(towd.addr(), "ben"));
    assert_eq!(complaints(), 6);
    assert!(!towd.stderr().contains(PASSWORD));
}

#[test]
fn an_odd_line_keeps_out_whom_it_is_about_and_nobody_else() {
    let house = House::of(&["anna"]);
    let mut text = fs::read_to_string(house.users()).unwrap();
    let anna = text.lines().find(|line| line.starts_with("anna ")).unwrap().to_owned();
    let scram = anna.split(' ').find(|word| word.starts_with("scram=")).unwrap();
    let odd = [
        ("empty", "rights=rwd scram=".to_owned(), "scram has an odd value"),
        ("nopass", "rights=rwd".to_owned(), "no password"),
        ("badrights", format!("rights=rwx {scram}"), "rights has an odd value"),
        ("unknown", format!("rights=rwd {scram} shell=yes"), "unknown key shell"),
        ("twice", format!("rights=rwd {scram} rights=r"), "rights stands twice"),
        ("cram", "rights=rwd cram=".to_owned(), "cram has an odd value"),
        ("twin", format!("rights=rwd {scram}"), "more than one line"),
        ("twin", format!("rights=r {scram}"), "more than one line"),
    ];
    for (user, rest, _) in &odd {
        text.push_str(&format!("{user} {rest}\n"));
    }
    fs::write(house.users(), &text).unwrap();
    let towd = house.towd([]);
    let stderr = towd.stderr();
    for (user, _, words) in &odd {
        let about = |line: &&str| line.contains("user file: line") && line.contains(words);
        let said = stderr.lines().filter(about).any(|line| line.contains(&format!("{user} can't")));
        assert!(said, "{user}: {stderr}");
        assert_eq!(log_in_with(&mut greeted(towd.addr()), user, PASSWORD), WRONG);
    }
    log_in(&mut greeted(towd.addr()), "anna");
}

#[test]
fn a_user_file_that_may_lead_elsewhere_keeps_the_server_from_starting() {
    for line in [
        ".. rights=rwd",
        "a/b rights=rwd",
        "a%00 rights=rwd",
        " rights=rwd",
        "anna rights=rwd home=..",
        "anna rights=rwd home=a/../../b",
        "anna rights=rwd home=.tow",
        "anonymous rights=rwd",
        "@decoy AAAA",
    ] {
        let house = House::of(&[]);
        let text = fs::read_to_string(house.users()).unwrap();
        fs::write(house.users(), format!("{text}{line}\n")).unwrap();
        refuses_to_start(&house, "line 3");
    }
    let house = House::of(&["anna"]);
    fs::set_permissions(house.users(), Permissions::from_mode(0o640)).unwrap();
    refuses_to_start(&house, "chmod 600");
}

#[track_caller]
fn refuses_to_start(house: &House, words: &str) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_towd"));
    command.args(["--listen", "127.0.0.1:0", "--root"]).arg(house.root());
    command.arg("--users").arg(house.users());
    let ran = run(command).exits(1).says(&[words]);
    assert!(ran.stdout.is_empty());
}
