//! The configuration as an operator meets it: `towd check`, flags above the file, the first start,
//! and SIGHUP.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{
    ffi::OsStr,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use support::{PATIENCE, Ran, Raw, TestDir, Towd, run, wait_until};
use towpath::config::ConfigFile;

mod support;

/// Runs `towd` to its end.
fn towd(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towd"));
    command.args(args).env_remove("RUST_LOG").stdin(Stdio::null());
    run(command)
}

/// A folder with a configuration in it.
struct Place(TestDir);

impl Place {
    fn new(text: &str) -> Self {
        let place = Self(TestDir::new());
        fs::create_dir(place.0.join("conf")).unwrap();
        fs::create_dir(place.root()).unwrap();
        place.write(text);
        place
    }

    fn root(&self) -> PathBuf {
        self.0.join("root")
    }

    fn file(&self) -> PathBuf {
        self.0.join("conf/towd.toml")
    }

    fn arg(&self) -> String {
        format!("--config={}", self.file().display())
    }

    /// Replaces the file, as editors do.
    fn write(&self, text: &str) {
        let new = self.0.join("conf/new");
        fs::write(&new, text).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    fn towd(&self, args: &[&str]) -> Ran {
        towd(std::iter::once(self.arg().as_str()).chain(args.iter().copied()))
    }

    fn start(&self) -> Towd {
        Towd::start_in(&self.root(), [self.arg()])
    }
}

/// Sends SIGHUP, and waits until the log has `words` once more.
fn hang_up(towd: &Towd, words: &str) {
    let count = || towd.stderr().matches(words).count();
    let before = count();
    kill_process(Pid::from_raw(towd.pid().cast_signed()).unwrap(), Signal::HUP).unwrap();
    assert!(wait_until(PATIENCE, || count() > before), "{words:?} is not in\n{}", towd.stderr());
}

/// How many connections the server takes from here, up to a few.
fn admitted(towd: &Towd) -> usize {
    let mut lines = Vec::new();
    // All of them stay until the last one is counted.
    let mut peers: Vec<_> = (0..5).map(|_| Raw::connect(towd.addr())).collect();
    lines.extend(peers.iter_mut().map(Raw::read_line));
    let admitted = lines.iter().filter(|line| line.starts_with("220 ")).count();
    for (peer, _) in peers.iter_mut().zip(&lines).filter(|(_, line)| line.starts_with("220 ")) {
        // It leaves in order, so that its place is free once it is told goodbye.
        peer.send("quit\n");
        assert!(peer.closes_within(PATIENCE));
    }
    admitted
}

fn operations() -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md");
    fs::read_to_string(docs).unwrap()
}

/// The block of a language in the documentation.
fn block(language: &str) -> String {
    let text = operations();
    let (_, rest) = text.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

/// What serde says may stand in a table.
fn keys(table: &str) -> Vec<String> {
    let wrong = ConfigFile::parse(&format!("{table}no-such-key = 1"), Path::new("f"));
    let text = wrong.problems().first().unwrap().to_string();
    let (_, expected) = text.split_once("expected one of").unwrap();
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[test]
fn the_documented_configuration_has_every_key_and_is_good() {
    let example = block("toml");
    let config = ConfigFile::parse(&example, Path::new("/etc/towpath/towd.toml"));
    let setup = config.check().unwrap();
    assert_eq!(setup.root, Path::new("/srv/towpath"));
    assert_eq!(config.actions.len(), 2);
    for key in
        ["", "[registration]\n", "[sandbox]\n", "[actions.x]\n"].iter().flat_map(|it| keys(it))
    {
        let is_there = |line: &str| {
            line.starts_with(&format!("{key} = ")) || line.starts_with(&format!("[{key}"))
        };
        assert!(example.lines().any(is_there), "{key} is not documented");
    }
}

#[test]
fn the_documented_unit_starts_what_there_is() {
    let unit = block("ini");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let flags: Vec<_> = start.split(' ').skip(1).filter(|word| word.starts_with("--")).collect();
    let help = towd(["--help"]).exits(0).stdout();
    assert!(flags == ["--config"] && flags.iter().all(|flag| help.contains(flag)));
    assert!(unit.contains("\nExecReload=/bin/kill -HUP $MAINPID\n"));
    for hardening in ["User=towd", "NoNewPrivileges=yes", "ProtectSystem=strict", "TasksMax="] {
        assert!(unit.contains(&format!("\n{hardening}")), "{hardening}");
    }
}

#[test]
fn a_check_of_what_is_right_says_ok_and_what_would_be_served() {
    let place = Place::new("root = \"../root\"\nlisten = [\"127.0.0.1:0\"]\nbanner = \"hi\"\n");
    let said = place.towd(&["check"]).exits(0).says(&["note: there are no users yet"]);
    assert!(said.stdout().starts_with("ok\n"), "{}", said.stdout());
    for words in ["root\"", "127.0.0.1:0", "anonymous nothing", "1024 an address", "7days"] {
        assert!(said.stdout().contains(words), "{words}: {}", said.stdout());
    }
    assert!(!place.root().join(".tow").exists(), "a check makes nothing");
    let running =
        Towd::start_in(&place.root(), ["--users", text(&place.root().join(".tow/users"))]);
    let busy = format!("listen = [\"{}\"]\nroot = \"../root\"", running.addr());
    place.write(&busy);
    place.towd(&["check"]).exits(0).says(&["is in use, perhaps by a running towd"]);
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_check_tells_everything_that_is_wrong_and_where() {
    let place = Place::new(
        "root = \"../root\"\nlisten = [\"192.0.2.1:1\"]\n\n[sandbox]\nread = [\"/no/such\"]\n",
    );
    place.towd(&["user", "add", "anna", "--random"]).exits(0);
    let users = place.root().join(".tow/users");
    let good = fs::read_to_string(&users).unwrap();
    fs::write(&users, format!("{good}ben rights=rwd scram=\n")).unwrap();
    fs::write(place.root().join(".tow/invites"), "x").unwrap();
    let invites = place.root().join(".tow/invites");
    fs::set_permissions(&invites, fs::Permissions::from_mode(0o600)).unwrap();
    let said = place.towd(&["check"]).exits(1);
    assert!(said.stdout.is_empty());
    said.says(&[
        "line 4: ben can't log in",
        "192.0.2.1:1: Cannot assign",
        "/no/such",
        "line 1: no invites",
    ]);

    place.write("root = \"../root\"\nfrob = 1\n[actions.a]\nrun = [\"/no/such\"]\n");
    let place_of = |line, column| format!("{}:{line}:{column}: ", place.file().display());
    let said = place.towd(&["check"]).exits(1);
    said.says(&[
        &place_of(2, 1),
        "unknown field `frob`",
        " 2 | frob = 1\n",
        &place_of(4, 1),
        "actions.a.run",
    ]);
    // What can't be served is not served, with the same words.
    place.towd(&[]).exits(1).says(&[&place_of(2, 1), &place_of(4, 1), "actions.a.run"]);
    place.towd(&["user", "list"]).exits(1).says(&[&place_of(2, 1)]);

    fs::write(place.0.join("file"), "").unwrap();
    place.write("root = \"../file\"");
    place.towd(&["check"]).exits(1).says(&["root: ", "is not a directory"]);
    towd(["--config", "/no/such.toml", "check"]).exits(1).says(&["/no/such.toml", "No such file"]);
}

#[test]
fn flags_go_above_the_file_and_must_not_contradict_it() {
    let place = Place::new("root = \"../elsewhere\"\nmax-per-address = 3\nanonymous = \"read\"\n");
    let towd = Towd::start_in(&place.root(), [&place.arg(), "--max-per-address=2"]);
    assert!(place.root().join(".tow").exists() && !place.0.join("elsewhere").exists());
    assert_eq!(admitted(&towd), 2);
    let said = place.towd(&["--no-login", "check"]).exits(1);
    said.says(&["towd.toml:3:1: anonymous: login = false"]);
    place.towd(&["--no-login", "--anonymous=read"]).exits(2);
    place.towd(&["--no-login", "--anonymous=off", "check"]).exits(2);
    place.write("login = false\nroot = \"../root\"");
    assert!(place.towd(&["check"]).exits(0).stdout().contains("everybody may do everything"));
    assert!(place.towd(&["--login", "check"]).exits(0).stdout().contains("anonymous nothing"));
}

#[test]
fn users_and_invites_are_where_the_file_says() {
    let place = Place::new("root = \"../root\"\nusers = \"people\"\n");
    place.towd(&["user", "add", "anna", "--random"]).exits(0);
    assert!(place.0.join("conf/people").exists());
    assert!(place.towd(&["user", "list"]).exits(0).stdout().contains("anna"));
    place.towd(&["invite"]).exits(0);
    assert!(place.root().join(".tow/invites").exists());
}

#[test]
fn the_first_start_makes_a_user_and_says_once_how_to_log_in() {
    let place = Place::new("");
    let mut towd = place.start();
    let said = towd.announced(4);
    assert_eq!(said[0], format!("listening on {}", towd.addr()));
    assert_eq!(said[1], "no users yet: made one");
    assert!(said[3].starts_with("keep the password"), "{said:?}");
    let command = said[2].trim();
    assert!(command.ends_with(&format!(" tow ls tow://tow@{}/", towd.addr())), "{command}");
    let shell = || {
        let mut shell = Command::new("sh");
        let folder = Path::new(env!("CARGO_BIN_EXE_tow")).parent().unwrap();
        shell.args(["-c", command]).env("PATH", format!("{}:/usr/bin:/bin", folder.display()));
        shell.stdin(Stdio::null());
        shell
    };
    run(shell()).exits(0);
    let password = command.split(['=', ' ']).nth(1).unwrap();
    assert_eq!(password.len(), 20);
    assert!(!towd.stderr().contains(password), "{}", towd.stderr());
    let limits = fs::read_to_string(format!("/proc/{}/limits", towd.pid())).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    // Now and for good, whatever the test itself was started with.
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"], "{core}");

    towd.restart();
    run(shell()).exits(0);
    assert_eq!(towd.announced(1).len(), 1, "it is said once");
    let list = place.towd(&["--root", text(&place.root()), "user", "list"]).exits(0).stdout();
    assert!(list.lines().count() == 2 && list.contains("tow   rwd "), "{list}");
}

#[test]
fn a_user_that_was_made_is_told_even_if_the_server_can_not_start() {
    let place = Place::new("");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let root = place.root();
    let said = place.towd(&["--root", text(&root), "--listen", &address]).exits(1);
    assert!(said.stdout().contains(&format!(" tow ls tow://tow@{address}/")));
    assert!(said.says(&["in use"]).stdout().starts_with("no users yet"));
}

#[test]
fn nobody_is_made_where_people_get_in_without() {
    for (text, made) in [
        ("anonymous = \"read\"", false),
        ("[registration]\nmode = \"open\"", false),
        ("[registration]\nmode = \"invite\"", true),
    ] {
        let place = Place::new(text);
        let mut towd = place.start();
        assert!(admitted(&towd) > 0);
        let users = fs::read_to_string(place.root().join(".tow/users")).unwrap();
        assert_eq!(users.contains("scram="), made, "{text}: {users}");
        assert!(towd.terminate().0.success());
        let lines = towd.announced(1).len();
        assert_eq!(lines, if made { 4 } else { 1 }, "{text}");
    }
}

#[test]
fn sighup_takes_a_good_file_and_a_bad_one_leaves_the_old_in_force() {
    let place = Place::new("max-per-address = 2\n");
    let towd = place.start();
    assert_eq!(admitted(&towd), 2);
    place.write("max-per-address = 3\n");
    hang_up(&towd, "the configuration was read again");
    assert_eq!(admitted(&towd), 3);
    for bad in [
        "max-per-address = 4\nfrob = 1",
        "max-per-address = 4\nmax-per-user = 0",
        "max-per-address = 4\nlogin = false\nanonymous = \"read\"",
        "max-per-address = 4\n[actions.a]\nrun = [\"/no/such\"]",
        "max-per-address = 4 4",
    ] {
        place.write(bad);
        hang_up(&towd, "the configuration stays as it was: ");
        assert_eq!(admitted(&towd), 3, "{bad}");
    }
    fs::remove_file(place.file()).unwrap();
    hang_up(&towd, "the configuration stays as it was: ");
    // The log has the place.
    assert!(towd.stderr().contains("conf/towd.toml:2:1: "), "{}", towd.stderr());
    // It still reads what comes then.
    place.write("max-per-address = 1\n");
    hang_up(&towd, "the configuration was read again");
    assert_eq!(admitted(&towd), 1);
}

#[test]
fn sighup_leaves_what_needs_a_restart_as_it_is_and_says_so() {
    let place = Place::new("users = \"people\"\n");
    let towd = place.start();
    place.write("users = \"others\"\nmax-per-address = 1\n[sandbox]\nread = [\"/srv\"]\n");
    hang_up(&towd, "the configuration was read again");
    for key in ["users", "sandbox"] {
        let words = format!("{key} has changed: that needs a restart");
        assert!(towd.stderr().contains(&words), "{}", towd.stderr());
    }
    // Flags say where this server is, whatever the file says.
    assert!(!towd.stderr().contains("root has changed"), "{}", towd.stderr());
    assert_eq!(admitted(&towd), 1);
    assert!(place.0.join("conf/people").exists() && !place.0.join("conf/others").exists());
    place.write("login = false\n");
    hang_up(&towd, "whether people log in can't change");
}
