//! `towd user` and `towd invite`: what administrators see and get, and that no secret is shown.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{
    ffi::OsStr,
    fs::{self, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use support::{Ran, TestDir, run};
use towpath::auth::{Accounts, Password, Rights, ScramVerifier, UserName, file};

mod support;

/// A password that must not be seen anywhere.
const CANARY: &str = "canary-in-a-coal-mine";

/// A root, and the commands about it.
struct Place(TestDir);

impl Place {
    fn new() -> Self {
        Self(TestDir::new())
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn users(&self) -> PathBuf {
        self.root().join(".tow/users")
    }

    /// The command, with a password in its environment.
    fn command(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_towd"));
        command.arg("--root").arg(self.root()).args(args).env_remove("RUST_LOG");
        command.env("TOW_PASSWORD", CANARY).stdin(Stdio::null());
        command
    }

    /// Runs it, and sees that nothing of the password is shown.
    fn towd(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
        let ran = run(self.command(args));
        assert!(!ran.stdout().contains(CANARY) && !ran.stderr.contains(CANARY), "{ran:?}");
        ran
    }

    fn accounts(&self) -> Accounts {
        let loaded = file::read::<Accounts>(&self.users()).unwrap();
        assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
        loaded.value
    }

    /// The columns of one user's row.
    fn listed(&self, user: &str) -> Option<Vec<String>> {
        let table = self.towd(["user", "list"]).exits(0).stdout();
        let row = table.lines().find(|line| line.split_whitespace().next() == Some(user))?;
        Some(row.split_whitespace().map(str::to_owned).collect())
    }

    /// Whether a login is open to this user, with this password.
    fn logs_in(&self, user: &str, password: &str) -> bool {
        let accounts = self.accounts();
        let candidate = accounts.find(user);
        let kept = &candidate.scram;
        let salt = kept.salt().try_into().unwrap();
        let password = Password::new(password).unwrap();
        let fits = ScramVerifier::new(&password, salt, kept.iterations()) == *kept;
        fits && candidate.account().is_some()
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_user_is_added_listed_locked_unlocked_and_removed() {
    let place = Place::new();
    assert!(place.towd(["user", "list"]).exits(0).says(&["no users yet"]).stdout.is_empty());
    assert!(!place.root().exists(), "a list makes nothing");
    assert!(place.towd(["user", "add", "anna"]).exits(0).stdout.is_empty());
    assert_eq!((mode(&place.users()), mode(&place.root().join(".tow"))), (0o600, 0o700));
    assert!(!fs::read_to_string(place.users()).unwrap().contains(CANARY));
    let row = ["anna", "rwd", "anna", "-", "-", "-", "open", "scram-sha-256"];
    assert_eq!(place.listed("anna").unwrap(), row);
    assert!(place.logs_in("anna", CANARY) && !place.logs_in("anna", "something else"));

    place.towd(["user", "add", "anna"]).exits(1).says(&["there is a user anna already"]);
    place.towd(["user", "lock", "anna"]).exits(0);
    assert_eq!(place.listed("anna").unwrap()[6], "locked");
    assert!(!place.logs_in("anna", CANARY));
    place.towd(["user", "unlock", "anna"]).exits(0);
    assert!(place.logs_in("anna", CANARY));

    place.towd(["user", "remove", "anna"]).exits(0);
    assert_eq!(place.listed("anna"), None);
    for command in ["remove", "lock", "unlock", "set", "passwd"] {
        place.towd(["user", command, "anna"]).exits(1).says(&["there is no user anna"]);
    }
}

#[test]
fn what_a_user_may_do_is_set_when_he_is_added_and_later() {
    let place = Place::new();
    let all = ["--rights=ar", "--home=a b", "--quota=10GiB", "--quota-files=7", "--max-rate=10MB"];
    place.towd(["user", "add", "anna", "--cram-md5"].iter().chain(&all)).exits(0);
    let row = ["anna", "ra", "a%20b", "10GiB", "7", "10MB", "open", "scram-sha-256,cram-md5"];
    assert_eq!(place.listed("anna").unwrap(), row);
    let anna: UserName = "anna".parse().unwrap();
    let account = place.accounts().get(&anna).unwrap().clone();
    assert_eq!((account.quota_bytes, account.max_rate), (Some(10 << 30), Some(10_000_000)));
    assert_eq!(account.rights, Rights::READ.union(Rights::ACTIONS));

    // What is not named stays.
    place.towd(["user", "set", "anna", "--quota", "none", "--rights", "-"]).exits(0);
    let row = ["anna", "-", "a%20b", "-", "7", "10MB", "open", "scram-sha-256,cram-md5"];
    assert_eq!(place.listed("anna").unwrap(), row);
    place.towd(["user", "set", "anna", "--quota-files=none", "--max-rate=none"]).exits(0);
    assert_eq!(place.listed("anna").unwrap()[4..6], ["-", "-"]);
    assert!(place.logs_in("anna", CANARY));
}

#[test]
fn a_new_password_replaces_the_old_one_for_every_login() {
    let place = Place::new();
    place.towd(["user", "add", "anna", "--cram-md5"]).exits(0);
    let cram =
        || fs::read_to_string(place.users()).unwrap().split_once(" cram=").unwrap().1.to_owned();
    let before = cram();
    let file = place.0.join("password");
    fs::write(&file, "the second password\r\nanother line\n").unwrap();
    place
        .towd([
            OsStr::new("user"),
            "passwd".as_ref(),
            "anna".as_ref(),
            "--password-file".as_ref(),
            file.as_ref(),
        ])
        .exits(0);
    assert!(place.logs_in("anna", "the second password") && !place.logs_in("anna", CANARY));
    assert_ne!(cram(), before);
    place.towd(["user", "passwd", "anna", "--no-cram-md5"]).exits(0);
    assert!(place.logs_in("anna", CANARY));
    assert_eq!(place.listed("anna").unwrap()[7], "scram-sha-256");
}

#[test]
fn a_random_password_is_printed_once_and_works() {
    let place = Place::new();
    let said = place.towd(["user", "add", "anna", "--random"]).exits(0).stdout();
    let password = said.strip_suffix('\n').unwrap();
    assert_eq!(password.len(), 20);
    assert!(place.logs_in("anna", password) && !place.logs_in("anna", CANARY));
    assert!(!fs::read_to_string(place.users()).unwrap().contains(password));
}

#[test]
fn a_password_may_come_from_stdin() {
    let place = Place::new();
    let mut command = place.command(["user", "add", "anna", "--password-file", "-"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"from a pipe\n").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(place.logs_in("anna", "from a pipe"));
}

#[test]
fn on_a_terminal_a_password_is_asked_for_twice() {
    if Command::new("script").arg("--version").output().is_err() {
        eprintln!("skipped: no `script` to make a terminal with");
        return;
    }
    let place = Place::new();
    for (second, code) in [("typed twice", 0), ("mistyped", 1)] {
        let mut terminal = Command::new("script");
        terminal.args(["-qec", "\"$TOWD\" --root \"$ROOT\" user add u$CODE", "/dev/null"]);
        terminal.env("TOWD", env!("CARGO_BIN_EXE_towd")).env("ROOT", place.root());
        terminal.env("CODE", code.to_string()).env_remove("TOW_PASSWORD");
        let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let typed = format!("typed twice\n{second}\n");
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(typed.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        drop(stdin);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert_eq!(said.contains("not the same"), code == 1, "{said}");
    }
    assert!(place.logs_in("u0", "typed twice"));
    assert_eq!(place.accounts().iter().count(), 1);
}

#[test]
fn wrong_words_are_a_matter_of_usage() {
    let place = Place::new();
    for name in ["..", "a/b", "", "-x", "Anna", "a b", "anonymous", &"a".repeat(33)] {
        place.towd(["user", "add", "--", name]).exits(2);
    }
    for (flag, words) in [
        ("--rights=x", "rwda"),
        ("--rights=rr", "rwda"),
        ("--home=..", "'..'"),
        ("--home=", ""),
        ("--home=.tow/x", ".tow"),
        ("--quota=10G", "10GiB"),
        ("--quota=-1", "10GiB"),
        ("--quota-files=many", "a number"),
        ("--password=x", "unexpected"),
    ] {
        place.towd(["user", "add", "anna", flag]).exits(2).says(&[words]);
    }
    place.towd(["user"]).exits(2);
    place.towd(["user", "frob"]).exits(2);
    place.towd(["user", "add", "anna", "password"]).exits(2);
    place.towd(["invite", "--count=0"]).exits(2);
    assert!(!place.users().exists());
}

#[test]
fn a_password_that_is_too_short_or_too_long_is_refused() {
    let place = Place::new();
    for (password, words) in [
        ("".to_owned(), "must not be empty"),
        ("seven77".to_owned(), "at least 8 characters"),
        ("x".repeat(1025), "at most 1024 bytes"),
        ("bell \u{7} rings".to_owned(), "control characters"),
    ] {
        let mut command = place.command(["user", "add", "anna"]);
        let ran = run({
            command.env("TOW_PASSWORD", &password);
            command
        });
        ran.exits(1).says(&[words]);
    }
    assert!(!place.users().exists());
}

#[test]
fn a_file_that_is_not_as_it_should_be_is_left_alone() {
    let place = Place::new();
    place.towd(["user", "add", "anna"]).exits(0);
    fs::set_permissions(place.users(), Permissions::from_mode(0o640)).unwrap();
    for command in [&["user", "list"][..], &["user", "add", "ben"], &["user", "lock", "anna"]] {
        place.towd(command).exits(1).says(&["chmod 600"]);
    }
    fs::set_permissions(place.users(), Permissions::from_mode(0o600)).unwrap();
    let good = fs::read_to_string(place.users()).unwrap();

    let odd = format!("{good}# a comment\nben rights=rwd scram=\n");
    fs::write(place.users(), &odd).unwrap();
    let listed = place.towd(["user", "list"]).exits(0);
    let listed = listed.says(&["line 5", "ben can't log in", "scram has an odd value"]);
    assert!(listed.stdout().lines().any(|row| row.starts_with("ben ") && row.contains("disabled")));
    place.towd(["user", "passwd", "ben"]).exits(1).says(&["odd"]);
    place.towd(["user", "add", "ben"]).exits(1).says(&["already"]);
    place.towd(["user", "lock", "anna"]).exits(0);
    place.towd(["user", "unlock", "anna"]).exits(0);
    assert_eq!(fs::read_to_string(place.users()).unwrap(), odd);
    place.towd(["user", "remove", "ben"]).exits(0);

    fs::write(place.users(), format!("{good}../x rights=rwd\n")).unwrap();
    for command in [&["user", "list"][..], &["user", "add", "ben"], &["user", "lock", "anna"]] {
        place.towd(command).exits(1).says(&["line 4", "a user name"]);
    }
}

#[test]
fn many_at_once_lose_nobody() {
    let place = Place::new();
    let children: Vec<_> = (0..8)
        .map(|n| place.command(["user", "add", &format!("user{n}")]).spawn().unwrap())
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(place.accounts().iter().count(), 8);
}

#[test]
fn the_user_file_may_be_elsewhere() {
    let place = Place::new();
    let elsewhere = place.0.join("elsewhere");
    let flag = format!("--users={}", elsewhere.display());
    place.towd(["user", "add", "anna", &flag]).exits(0);
    place.towd([&flag, "user", "lock", "anna"]).exits(0);
    assert!(place.towd([&flag, "user", "list"]).exits(0).stdout().contains("locked"));
    assert_eq!(mode(&elsewhere), 0o600);
    assert!(!place.root().exists());
    let nowhere = format!("--users={}/no/users", place.0.path().display());
    place.towd(["user", "add", "anna", &nowhere]).exits(1).says(&["No such file"]);
}

#[test]
fn invites_are_printed_and_only_their_hashes_are_kept() {
    let place = Place::new();
    let first = place.towd(["invite"]).exits(0).stdout();
    let more = place.towd(["invite", "--count", "3", "--expires", "7d"]).exits(0).stdout();
    let codes: Vec<_> = first.lines().chain(more.lines()).collect();
    assert_eq!(codes.len(), 4);
    let path = place.root().join(".tow/invites");
    assert_eq!(mode(&path), 0o600);
    let text = fs::read_to_string(&path).unwrap();
    assert_eq!(text.matches("expires=").count(), 3);
    let mut invites = file::read::<towpath::auth::Invites>(&path).unwrap().value;
    for code in codes {
        assert!(code.len() == 20 && !text.contains(code));
        assert!(invites.use_up(code, 0).is_ok() && invites.use_up(code, 0).is_err());
    }
}
