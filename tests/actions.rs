//! Named actions, over a line: output apart and as it comes, status, limits, and nothing left.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails the test")]

mod support;

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    process::Command,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use support::{PATIENCE, Ran, Raw, TestDir, resident_bytes, run, tow, wait_until};
use towpath::{
    action::{ActionConfig, Actions},
    auth::{Account, Accounts, Password, Rights, ScramVerifier, file},
    client::{Client, Credentials, Ended, Options, Url},
    server::{Access, Config, Logins, Server, Settings, Stopper},
    wire::Output,
};

const PASSWORD: &str = "a right password";

/// A server within this process, with the users ann, who may run actions, and bob, who may not.
struct Host {
    /// Its folder goes with it.
    _dir: TestDir,
    address: SocketAddr,
    stopper: Stopper,
    running: Option<JoinHandle<std::io::Result<()>>>,
}

impl Host {
    fn start(actions: &[(&str, ActionConfig)]) -> Self {
        let dir = TestDir::new();
        let users = dir.join("users");
        file::update(&users, |accounts: &mut Accounts| {
            let password = Password::new(PASSWORD).unwrap();
            for (name, rights) in [("ann", Rights::ALL), ("bob", Rights::READ)] {
                let scram = Some(ScramVerifier::new(&password, [1; 16], 4096));
                let account = Account::new(name.parse().unwrap(), rights);
                assert!(accounts.put(Account { scram, ..account }));
            }
            Ok::<_, file::FileError>(())
        })
        .unwrap();
        let root = dir.join("root");
        fs::create_dir(&root).unwrap();
        let named = |(name, action): &(&str, ActionConfig)| ((*name).to_owned(), action.clone());
        let actions: BTreeMap<_, _> = actions.iter().map(named).collect();
        let settings = Settings {
            access: Access::Logins(Logins::new(users, dir.join("invites"))),
            actions: Arc::new(Actions::load(&actions, &root).unwrap()),
            ..Settings::default()
        };
        let config = Config { settings, ..Config::loopback(root) };
        let server = Server::bind(&config).unwrap();
        let (address, stopper) = (server.addresses()[0], server.stopper());
        let running = Some(thread::spawn(move || server.run()));
        Self { _dir: dir, address, stopper, running }
    }

    fn url(&self, user: &str) -> String {
        format!("tow://{user}@{}/", self.address)
    }

    fn client(&self, user: &str) -> Client {
        let url: Url = self.url(user).parse().unwrap();
        let password = Password::new(PASSWORD).unwrap();
        let login = Some(Arc::new(Credentials::new(user.parse().unwrap(), password)));
        Client::new(&url, Options { login, give_up: Duration::ZERO, ..Options::default() })
    }

    fn tow_run(&self, user: &str, words: &[&str]) -> Ran {
        let url = self.url(user);
        let mut command = tow([&["run", &*url][..], words].concat());
        command.env("TOW_PASSWORD", PASSWORD);
        run(command)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.stopper.stop();
        self.running.take().unwrap().join().unwrap().unwrap();
    }
}

fn action(words: &[&str]) -> ActionConfig {
    let run = words.iter().map(|word| (*word).to_owned()).collect();
    ActionConfig { run, ..ActionConfig::default() }
}

fn shell(script: &str) -> ActionConfig {
    action(&["sh", "-c", script])
}

/// Whether a process has this text in its arguments.
fn is_alive(text: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes.map(|it| it.path().join("cmdline")).any(|path| {
        let line = fs::read(path).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    })
}

#[test]
fn stdout_and_stderr_come_apart_and_the_status_is_passed_on() {
    let host = Host::start(&[("both", shell("echo out; echo err >&2; exit 7"))]);
    let ran = host.tow_run("ann", &["both"]).exits(7);
    assert_eq!((ran.stdout(), &*ran.stderr), ("out\n".to_owned(), "err\n"));
}

#[test]
fn output_comes_while_the_action_runs() {
    let dir = TestDir::new();
    let fifo = dir.join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    // It ends only when somebody who has seen its first line opens the fifo.
    let script = format!("echo first; cat < {}", fifo.display());
    let host = Host::start(&[("slow", shell(&script))]);
    let mut all = Vec::new();
    let ended = host.client("ann").run("slow", &[], |output| {
        if let Output::Stdout(bytes) = output {
            if all.is_empty() && !bytes.is_empty() {
                fs::write(&fifo, b"second\n").unwrap();
            }
            all.extend_from_slice(bytes);
        }
        Ok(())
    });
    assert_eq!(ended.unwrap(), Ended::Status(0));
    assert_eq!(all, b"first\nsecond\n");
}

#[test]
fn large_output_of_both_streams_arrives_whole() {
    let script = "head -c 3000000 /dev/zero; head -c 2000000 /dev/zero >&2";
    let host = Host::start(&[("much", shell(script))]);
    let ran = host.tow_run("ann", &["much"]).exits(0);
    assert_eq!((ran.stdout.len(), ran.stderr.len()), (3_000_000, 2_000_000));
}

#[test]
fn an_argument_is_what_was_given_and_never_a_word_of_a_shell() {
    let mut echo = action(&["printf", "<%s>", "{text}"]);
    echo.arguments.insert("text".to_owned(), "[^x]*".to_owned());
    let host = Host::start(&[("echo", echo)]);
    for text in ["a b", "$(id)", "`id`", ";id", "|id", "&", "'\"\\", "*", "", "ü", "a=b", "%41"] {
        let ran = host.tow_run("ann", &["echo", text]).exits(0);
        assert_eq!(ran.stdout(), format!("<{text}>"));
    }
    host.tow_run("ann", &["echo", "x"]).exits(5).says(&["(411)", "text"]);
    host.tow_run("ann", &["echo", "-v"]).exits(5).says(&["(411)"]);
    host.tow_run("ann", &["echo"]).exits(5).says(&["(411)"]);
    host.tow_run("ann", &["echo", "a", "b"]).exits(5).says(&["(411)"]);
}

#[test]
fn what_is_not_allowed_is_refused_and_what_is_allowed_is_listed() {
    let mut private = action(&["true"]);
    private.users = Some(vec!["operator".to_owned()]);
    let mut disk = action(&["df", "{path}"]);
    disk.arguments.insert("path".to_owned(), "/".to_owned());
    disk.description = "free space".to_owned();
    let host = Host::start(&[("private", private), ("disk", disk)]);
    host.tow_run("ann", &["nothing"]).exits(5).says(&["(407)", "tow run"]);
    // It exists, but not for ann: she is told the same.
    host.tow_run("ann", &["private"]).exits(5).says(&["no such action (407)"]);
    host.tow_run("bob", &["disk", "/"]).exits(5).says(&["(406)", "run actions"]);
    let listed = host.tow_run("ann", &[]).exits(0).stdout();
    assert!(listed.starts_with("disk PATH") && listed.contains("free space"), "{listed}");
    assert!(!listed.contains("private"), "{listed}");
}

#[test]
fn an_action_that_takes_too_long_is_ended_and_its_client_told() {
    let mut hang = shell("trap '' TERM; echo begun; sleep 1000.125");
    hang.timeout = Some("100ms".to_owned());
    let host = Host::start(&[("hang", hang)]);
    let ran = host.tow_run("ann", &["hang"]).exits(5).says(&["took too long"]);
    assert_eq!(ran.stdout(), "begun\n");
    assert!(wait_until(PATIENCE, || !is_alive("1000.125")));
}

#[test]
fn an_action_that_says_too_much_is_ended_at_its_limit() {
    let mut flood = action(&["yes"]);
    flood.max_output = Some(100_000);
    let host = Host::start(&[("flood", flood)]);
    let ran = host.tow_run("ann", &["flood"]).exits(5).says(&["said too much"]);
    assert_eq!(ran.stdout.len(), 100_000);
}

#[test]
fn a_flood_waits_for_a_slow_reader_and_takes_no_memory() {
    let mut flood = action(&["yes"]);
    flood.max_output = Some(1 << 40);
    let host = Host::start(&[("flood", flood)]);
    let before = resident_bytes(std::process::id());
    let mut taken = 0;
    let mut fat = 0;
    let result = host.client("ann").run("flood", &[], |output| {
        if let Output::Stdout(bytes) = output {
            taken += bytes.len();
        }
        fat = fat.max(resident_bytes(std::process::id()).saturating_sub(before));
        if taken > 20_000_000 { Err(std::io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    });
    assert!(result.is_err());
    assert!(fat < 16 << 20, "{fat} bytes more in use");
    // The others are served meanwhile, and after it.
    host.client("bob").ping(3, Duration::ZERO, |_| {}).unwrap();
}

#[test]
fn who_leaves_takes_everything_that_was_started_along() {
    let script = "sleep 1000.25 & setsid sleep 1000.25 & echo begun; wait";
    let host = Host::start(&[("family", shell(script))]);
    let result = host.client("ann").run("family", &[], |output| match output {
        Output::Stdout(bytes) if !bytes.is_empty() => Err(std::io::ErrorKind::BrokenPipe.into()),
        _ => Ok(()),
    });
    assert!(result.is_err());
    // In this process orphans are not adopted, so only those of the group are ours to end; see
    // tests/children.rs for the others.
    let group_is_gone = || !is_alive("wait");
    assert!(wait_until(PATIENCE, group_is_gone));
    kill_all("1000.25");
}

/// Ends what a test has left behind on purpose.
fn kill_all(text: &str) {
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let pid = entry.file_name().to_string_lossy().parse::<i32>().ok();
        let is_it = String::from_utf8_lossy(&line).contains(text);
        if let Some(pid) = pid.and_then(Pid::from_raw).filter(|_| is_it) {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

#[test]
fn a_line_of_4xx_ends_the_action_and_the_connection_goes_on() {
    let host = Host::start(&[("hang", action(&["sleep", "1000.375"]))]);
    let mut peer = logged_in(&host);
    peer.send(b"run hang\n");
    assert_eq!(peer.read_line().trim_end(), "210");
    assert!(wait_until(PATIENCE, || is_alive("1000.375")));
    peer.send(b"410 enough\nnoop\n");
    let header = peer.read_bytes(16);
    assert_eq!(header[0], b'X');
    let length = usize::from(header[7]);
    let end = String::from_utf8(peer.read_bytes(length)).unwrap();
    assert_eq!(end, "200 signal=15");
    assert_eq!(peer.read_line().trim_end(), "200");
    assert!(!is_alive("1000.375"));
}

/// A raw connection on which ann is logged in.
fn logged_in(host: &Host) -> Raw {
    use towpath::auth::{ClientKeys, scram::ScramClient};
    use towpath::wire::{Reply, from_base64, to_base64};
    let mut peer = Raw::connect(host.address);
    peer.read_line();
    let (client, first) = ScramClient::new(&"ann".parse().unwrap(), [3; 18]);
    peer.send(format!("auth scram-sha-256 data={}\n", to_base64(first.as_bytes())).as_bytes());
    let challenge = Reply::parse(peer.read_line().trim_end().as_bytes()).unwrap();
    let challenge = from_base64(challenge.field("data").unwrap()).unwrap();
    let password = Password::new(PASSWORD).unwrap();
    let keys = |salt: &[u8], iterations| ClientKeys::derive(&password, salt, iterations);
    let (_, proof) = client.answer(&challenge, keys).unwrap();
    peer.send(format!("334 data={}\n", to_base64(proof.as_bytes())).as_bytes());
    assert!(peer.read_line().starts_with("230 "));
    peer
}

#[test]
fn only_so_many_run_at_once() {
    let mut one = action(&["sleep", "1000.5"]);
    one.max_running = Some(1);
    let host = Host::start(&[("one", one)]);
    let mut first = logged_in(&host);
    first.send(b"run one\n");
    assert_eq!(first.read_line().trim_end(), "210");
    let mut second = logged_in(&host);
    second.send(b"run one\n");
    assert!(second.read_line().starts_with("429 "));
    drop(first);
    // Its place is free once it has gone.
    let place_is_free = || {
        let mut third = logged_in(&host);
        third.send(b"run one\n");
        third.read_line().starts_with("210")
    };
    assert!(wait_until(PATIENCE, place_is_free));
}

#[test]
fn a_program_that_users_could_change_is_not_run() {
    let dir = TestDir::new();
    let root = dir.join("root");
    fs::create_dir(&root).unwrap();
    let program = root.join("tool");
    fs::write(&program, "#!/bin/sh\n").unwrap();
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o755);
    fs::set_permissions(&program, mode).unwrap();
    let actions = BTreeMap::from([("tool".to_owned(), action(&[program.to_str().unwrap()]))]);
    assert!(Actions::load(&actions, Path::new(&root)).is_err());
}
