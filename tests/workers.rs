//! Several processes on one port: a resume may land on any of them, they come back when they are killed,
//! go when the one that started them goes, and no limit is larger because there are more of them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails the test")]

use std::{
    collections::BTreeSet,
    fs,
    ops::Deref,
    path::Path,
    process::{Command, Stdio},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{
        Pid, PidfdFlags, Resource, Rlimit, Signal, getrlimit, kill_process, pidfd_open, prlimit,
    },
};
use support::{
    PATIENCE, Ran, Raw, TestDir, Towd, Upload,
    frames::offer,
    fresh_seed,
    people::{House, ITERATIONS, PASSWORD, ask, begin, greeted, log_in, log_in_with, password},
    proxy::{Cut, Direction, Plan, Proxy},
    random_file, run, same_bytes, tcp, wait_until,
    watch::{Watch, assert_goes_on, client, patient, remote},
};
use towpath::{auth::ScramVerifier, digest::SEGMENT_BYTES, wire::DigestChoice};

mod support;

/// A server with workers. They are all gone when it is dropped.
struct Workers {
    towd: Towd,
    is_over: bool,
}

impl Deref for Workers {
    type Target = Towd;

    fn deref(&self) -> &Towd {
        &self.towd
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        if !self.is_over && !std::thread::panicking() {
            self.end();
        }
    }
}

impl Workers {
    fn start(count: &str) -> Self {
        Self::of(Towd::start(["--workers", count, "-v"]))
    }

    fn over(house: &House, args: &[&str]) -> Self {
        Self::of(house.towd(args.iter().chain(&["--workers", "2", "-v"]).copied()))
    }

    fn of(towd: Towd) -> Self {
        Self { towd, is_over: false }
    }

    fn end(&mut self) {
        self.is_over = true;
        let (status, _) = self.towd.terminate();
        assert!(status.success(), "{status}");
    }

    /// The processes that were ever started to serve.
    fn started(&self) -> Vec<u32> {
        started(&self.stderr())
    }

    /// Which process serves a connection: it says so in the log.
    fn process_of(&self, raw: &Raw) -> u32 {
        let said = format!(" {}: connected", raw.stream().local_addr().unwrap());
        let find = || {
            let log = self.stderr();
            log.lines().find(|line| line.ends_with(&said)).and_then(process_that_says)
        };
        assert!(wait_until(PATIENCE, || find().is_some()), "{}", self.stderr());
        find().unwrap()
    }

    /// A connection that another process serves than these.
    fn connect_beside(&self, others: &[u32]) -> (Raw, u32) {
        for _ in 0..1000 {
            let raw = Raw::connect(self.addr());
            let process = self.process_of(&raw);
            if !others.contains(&process) {
                return (raw, process);
            }
        }
        panic!("all connections go to {others:?}");
    }

    /// Connections to two processes, with their greetings.
    fn pair(&self) -> [Raw; 2] {
        let first = greeted(self.addr());
        let (mut second, _) = self.connect_beside(&[self.process_of(&first)]);
        assert!(second.read_line().starts_with("220 "));
        [first, second]
    }

    /// The same of a user.
    #[track_caller]
    fn pair_of(&self, user: &str) -> [Raw; 2] {
        let mut pair = self.pair();
        pair.iter_mut().for_each(|peer| log_in(peer, user));
        pair
    }
}

/// The processes that a log says were started.
fn started(log: &str) -> Vec<u32> {
    let of_line = |line: &str| line.split_once(" is process ")?.1.trim().parse().ok();
    log.lines().filter_map(of_line).collect()
}

/// The log has the process in front of each line of a worker.
fn process_that_says(line: &str) -> Option<u32> {
    line.split(' ').next()?.parse().ok()
}

fn pid(process: u32) -> Pid {
    Pid::from_raw(i32::try_from(process).unwrap()).unwrap()
}

/// Waits until a process that is no child of this one has ended.
fn wait_for_end(process: u32) {
    let Ok(handle) = pidfd_open(pid(process), PidfdFlags::empty()) else { return };
    let limit = Timespec::try_from(PATIENCE).unwrap();
    let ended = poll(&mut [PollFd::new(&handle, PollFlags::IN)], Some(&limit)).unwrap();
    assert_eq!(ended, 1, "process {process} is still there");
}

/// Offers an upload; the server's answer.
fn put(peer: &mut Raw, path: &str, size: u64) -> String {
    ask(peer, offer(path, size, "t").trim_end())
}

/// A server that does not come to serve, over a root of this name.
fn fails(root: &Path, args: &[&str]) -> Ran {
    let mut command = Command::new(env!("CARGO_BIN_EXE_towd"));
    command.arg("--root").arg(root).args(args).stdin(Stdio::null());
    run(command)
}

#[test]
fn uploads_that_are_cut_go_on_with_whatever_worker_they_land_on() {
    let seed = fresh_seed();
    let (towd, dir) = (Workers::start("4"), TestDir::new());
    let mut served = BTreeSet::new();
    for nth in 0..3 {
        let (name, size) = (format!("f{nth}"), 8 * SEGMENT_BYTES + 4711);
        let source = dir.join(&name);
        random_file(&source, size, seed + nth);
        let cut = Cut { budget_bytes: 1 << 20..=4 << 20, limit: 12, ..Cut::default() };
        let plan = Plan { cut: Some(cut), ..Plan::seeded(seed + nth) };
        let proxy = Proxy::start(towd.addr(), plan);
        let mut watch = Watch::quiet();
        let done = client(proxy.addr(), patient(DigestChoice::Tree))
            .put(&source, &remote(&name), &mut watch)
            .expect("it goes on");
        assert!(done.breaks >= 8, "{done:?}");
        assert_goes_on(&watch, &proxy.counts(), Direction::Up, size);
        assert!(same_bytes(&source, towd.root().join(&name)));
        let log = towd.stderr();
        let of_this = log.lines().filter(|line| line.contains(&format!(" put /{name} from=")));
        served.extend(of_this.filter_map(process_that_says));
    }
    // That thirty connections all go to one of four has a chance of 4^-29.
    assert!(served.len() > 1, "{served:?}");
}

#[test]
fn a_client_takes_over_its_own_half_open_connection_from_another_worker() {
    let (towd, upload) = (Workers::start("2"), Upload::new("/f", fresh_seed()));
    let [mut first, mut second] = towd.pair();
    assert_eq!(upload.offer(&mut first), "402");
    upload.send_first(&mut first);
    tcp::wait_until_read(towd.addr());
    let went_on = format!("000 offset={SEGMENT_BYTES} tag=t");
    assert_eq!(upload.offer(&mut second), went_on);
    assert!(first.closes_within(PATIENCE), "a line that was taken over stays open");
    let left = upload.size() - SEGMENT_BYTES;
    second.send(format!("426 offset={SEGMENT_BYTES} length={left}\n"));
    // And back, with nothing new on the way.
    let (mut third, _) = towd.connect_beside(&[towd.process_of(&second)]);
    third.read_line();
    assert_eq!(upload.offer(&mut third), went_on);
    third.send(format!("426 offset={SEGMENT_BYTES} length={left}\n"));
    upload.send_rest(&mut third);
    assert!(fs::read(towd.root().join("f")).unwrap() == upload.bytes);
}

#[test]
fn another_client_is_told_busy_by_another_worker_and_disturbs_nothing() {
    let (towd, upload) = (Workers::start("2"), Upload::new("/f", fresh_seed()));
    let [mut first, mut second] = towd.pair();
    assert_eq!(upload.offer(&mut first), "402");
    upload.send_first(&mut first);
    let other = "f".repeat(32);
    let said = upload.offer_as(&other, &mut second);
    assert!(said.starts_with("423 "), "{said}");
    upload.send_rest(&mut first);
    let said = upload.offer_as(&other, &mut second);
    assert!(said.starts_with("312 "), "{said}");
}

#[test]
fn a_worker_that_is_killed_comes_back_and_others_are_not_disturbed() {
    let (towd, upload) = (Workers::start("2"), Upload::new("/f", fresh_seed()));
    let [mut stays, mut ends] = towd.pair();
    assert_eq!(upload.offer(&mut stays), "402");
    upload.send_first(&mut stays);
    let before = towd.started();
    kill_process(pid(towd.process_of(&ends)), Signal::KILL).unwrap();
    assert!(ends.closes_within(PATIENCE));
    let (mut new, process) = towd.connect_beside(&before);
    assert!(towd.started().contains(&process));
    upload.send_rest(&mut stays);
    // It learns of the others what it has to know, and they know it.
    assert!(new.read_line().starts_with("220 "));
    let again = Upload::new("/g", fresh_seed());
    assert_eq!(again.offer(&mut stays), "402");
    again.send_first(&mut stays);
    tcp::wait_until_read(towd.addr());
    assert_eq!(again.offer(&mut new), format!("000 offset={SEGMENT_BYTES} tag=t"));
}

#[test]
fn a_worker_that_cannot_be_started_for_now_is_started_later_and_the_others_go_on() {
    let towd = Workers::start("2");
    let [mut stays, ends] = towd.pair();
    let (supervisor, before) = (Some(pid(towd.pid())), towd.started());
    let all = getrlimit(Resource::Nofile).maximum;
    let allow = |current| {
        prlimit(supervisor, Resource::Nofile, Rlimit { current, maximum: all }).unwrap();
    };
    allow(Some(0));
    kill_process(pid(towd.process_of(&ends)), Signal::KILL).unwrap();
    let said = || towd.stderr().contains("can't be started for now");
    assert!(wait_until(PATIENCE, said), "{}", towd.stderr());
    assert_eq!(ask(&mut stays, "noop"), "200");
    allow(all);
    let (mut new, _) = towd.connect_beside(&before);
    assert!(new.read_line().starts_with("220 "));
}

#[test]
fn who_waited_for_a_worker_that_was_killed_is_served_by_the_next() {
    let towd = Workers::start("2");
    let first = towd.started()[0];
    // It accepts nobody any more, and still they are not refused.
    kill_process(pid(first), Signal::STOP).unwrap();
    let mut waiting: Vec<Raw> = (0..40).map(|_| Raw::connect(towd.addr())).collect();
    kill_process(pid(first), Signal::KILL).unwrap();
    for raw in &mut waiting {
        assert!(raw.read_line().starts_with("220 "));
    }
}

#[test]
fn no_worker_outlives_the_process_that_started_it() {
    let mut towd = Towd::start(["--workers", "3", "-v"]);
    let workers = started(&towd.stderr());
    assert_eq!(workers.len(), 3);
    // Also not one that is busy, and one that nobody has connected to.
    let upload = Upload::new("/f", fresh_seed());
    let mut raw = greeted(towd.addr());
    assert_eq!(upload.offer(&mut raw), "402");
    upload.send_first(&mut raw);
    towd.kill();
    workers.into_iter().for_each(wait_for_end);
}

#[test]
fn a_worker_that_ends_again_and_again_ends_them_all() {
    let mut towd = Towd::start(["--workers", "2", "-v"]);
    let mut killed = BTreeSet::new();
    let gave_up = || {
        let log = towd.stderr();
        let last = *started(&log).last().unwrap();
        if killed.insert(last) {
            kill_process(pid(last), Signal::KILL).unwrap();
        }
        log.contains("ends again and again")
    };
    assert!(wait_until(PATIENCE, gave_up), "{}", towd.stderr());
    let log = towd.stderr();
    started(&log).into_iter().for_each(wait_for_end);
    assert!(started(&log).len() < 12, "{log}");
    let (status, _) = towd.terminate();
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_signal_ends_all_and_a_hang_up_reaches_all() {
    let house = House::of(&["ann"]);
    let config = house.outside("towd.toml");
    fs::write(&config, "banner = \"old\"\n").unwrap();
    let mut towd = Workers::over(&house, &["--config", config.to_str().unwrap()]);
    fs::write(&config, "banner = \"new\"\nworkers = 3\n").unwrap();
    kill_process(pid(towd.pid()), Signal::HUP).unwrap();
    let readers = || {
        let log = towd.stderr();
        let of_this = log.lines().filter(|line| line.contains("the configuration was read again"));
        of_this.filter_map(process_that_says).collect::<BTreeSet<_>>()
    };
    assert!(wait_until(PATIENCE, || readers().len() == 2), "{}", towd.stderr());
    for mut peer in towd.pair() {
        assert!(log_in_with(&mut peer, "ann", PASSWORD).contains("new"));
    }
    let workers = towd.started();
    towd.end();
    workers.into_iter().for_each(wait_for_end);
    assert!(towd.stderr().matches("signal 15: going down").count() >= 3);
}

#[test]
fn wrong_passwords_are_braked_as_if_there_were_one_worker() {
    let house = House::of(&["ann"]);
    let towd = Workers::over(&house, &[]);
    let [mut first, other] = towd.pair();
    for _ in 0..3 {
        let said = log_in_with(&mut first, "ann", "wrong password");
        assert!(said.starts_with("430 "), "{said}");
    }
    let mut second = other;
    for _ in 0..3 {
        let said = log_in_with(&mut second, "ann", "wrong password");
        assert!(said.starts_with("430 "), "{said}");
    }
    // Six failures, of which each saw three: now eight may be tried at a time, wherever.
    let mut tried = Vec::new();
    for _ in 0..8 {
        let mut peer = greeted(towd.addr());
        begin(&mut peer, "ann").unwrap();
        tried.push(peer);
    }
    for _ in 0..2 {
        for mut peer in towd.pair() {
            let said = begin(&mut peer, "ann").unwrap_err();
            assert_eq!(said, "429 too many logins at once from your address");
        }
    }
}

#[test]
fn registrations_are_counted_over_all_workers() {
    let house = House::of(&[]);
    let towd = Workers::over(&house, &["--registration", "open"]);
    let verifier = ScramVerifier::new(&password(PASSWORD), [5; 16], ITERATIONS).to_text();
    let [mut first, mut second] = towd.pair();
    let mut register = |nth: u32| {
        let peer = if nth.is_multiple_of(2) { &mut first } else { &mut second };
        ask(peer, &format!("register user{nth} scram={verifier}"))
    };
    for nth in 0..5 {
        let said = register(nth);
        assert!(said.starts_with("200 "), "{said}");
    }
    for nth in 5..7 {
        let said = register(nth);
        assert!(said.starts_with("429 too many registrations"), "{said}");
    }
}

#[test]
fn actions_are_counted_over_all_workers() {
    let house = House::of(&[]);
    house.add("ann", "rwa");
    let config = house.outside("towd.toml");
    let one = "[actions.one]\nrun = [\"sleep\", \"1000.625\"]\nmax-running = 1\n";
    fs::write(&config, one).unwrap();
    let towd = Workers::over(&house, &["--config", config.to_str().unwrap()]);
    let [mut first, mut second] = towd.pair_of("ann");
    assert_eq!(ask(&mut first, "run one"), "210");
    assert!(ask(&mut second, "run one").starts_with("429 "));
    drop(first);
    assert!(wait_until(PATIENCE, || ask(&mut second, "run one").starts_with("210")));
}

#[test]
fn a_user_has_so_many_connections_over_all_workers() {
    let house = House::of(&["ann", "ben"]);
    let towd = Workers::over(&house, &["--max-per-user", "2"]);
    let both = towd.pair_of("ann");
    let refused = "429 too many connections of this user";
    for mut peer in towd.pair() {
        assert_eq!(log_in_with(&mut peer, "ann", PASSWORD), refused);
        log_in(&mut peer, "ben");
    }
    drop(both);
    for mut peer in towd.pair() {
        let gets_in = || log_in_with(&mut peer, "ann", PASSWORD).starts_with("230 ");
        assert!(wait_until(PATIENCE, gets_in));
    }
}

#[test]
fn connections_are_counted_over_all_workers() {
    let towd = Workers::of(Towd::start(["--workers", "2", "-v", "--max-per-address", "40"]));
    // The chance that all of them go to one worker is 2^-39.
    let mut peers: Vec<Raw> = (0..40).map(|_| greeted(towd.addr())).collect();
    for _ in 0..8 {
        let said = Raw::connect(towd.addr()).read_line();
        assert_eq!(said, "429 too many connections from your address");
    }
    peers.iter_mut().for_each(|peer| assert_eq!(ask(peer, "noop"), "200"));
}

#[test]
fn a_quota_holds_over_all_workers() {
    let house = House::of(&["ann"]);
    house.change("ann", |account| account.quota_bytes = Some(1000));
    let towd = Workers::over(&house, &[]);
    let [mut first, mut second] = towd.pair_of("ann");
    assert_eq!(put(&mut first, "/a", 600), "402");
    let said = put(&mut second, "/b", 401);
    assert!(said.starts_with("453 1 byte more"), "{said}");
    assert_eq!(put(&mut second, "/b", 400), "402");
    // What is given up is free again, and who comes anew knows what there is.
    assert!(ask(&mut first, "410 enough").starts_with("410"));
    assert!(wait_until(PATIENCE, || ask(&mut first, "quota").contains(" bytes=400 ")));
    for mut peer in towd.pair_of("ann") {
        let said = put(&mut peer, "/c", 601);
        assert!(said.starts_with("453 1 byte more"), "{said}");
    }
}

#[test]
fn a_worker_that_is_started_anew_knows_what_others_know() {
    let house = House::of(&["ann"]);
    house.change("ann", |account| account.quota_bytes = Some(1000));
    let towd = Workers::over(&house, &["--max-per-user", "2"]);
    let [mut first, second] = towd.pair();
    log_in(&mut first, "ann");
    assert_eq!(put(&mut first, "/a", 600), "402");
    let before = towd.started();
    kill_process(pid(towd.process_of(&second)), Signal::KILL).unwrap();
    let [mut new, mut last] = [(); 2].map(|()| towd.connect_beside(&before).0);
    for peer in [&mut new, &mut last] {
        assert!(peer.read_line().starts_with("220 "));
    }
    log_in(&mut new, "ann");
    let said = put(&mut new, "/b", 401);
    assert!(said.starts_with("453 1 byte more"), "{said}");
    let said = log_in_with(&mut last, "ann", PASSWORD);
    assert_eq!(said, "429 too many connections of this user");
}

#[test]
fn space_that_an_upload_awaits_is_taken_for_all_workers() {
    let house = House::of(&["ann"]);
    let towd = Workers::over(&house, &[]);
    let [mut first, mut second] = towd.pair_of("ann");
    let free = |peer: &mut Raw| -> u64 {
        let said = ask(peer, "quota");
        said.split_once("free=").unwrap().1.split(' ').next().unwrap().parse().unwrap()
    };
    // More than others on this disk give back meanwhile.
    let size = free(&mut first) / 2;
    assert_eq!(put(&mut first, "/f", size), "402");
    assert!(wait_until(PATIENCE, || free(&mut second) < size + size / 2));
    assert!(ask(&mut first, "410 enough").starts_with("410"));
    assert!(wait_until(PATIENCE, || free(&mut second) > size + size / 2));
}

#[test]
fn a_file_is_never_sent_with_the_digest_that_another_worker_knew_of_an_older_one() {
    let towd = Workers::start("2");
    let file = towd.root().join("f");
    let mut digests = BTreeSet::new();
    let mut both = towd.pair();
    for seed in 0..3 {
        random_file(&file, 3 << 20, seed);
        let now = support::md5sum(&file);
        for peer in &mut both {
            assert!(ask(peer, "md5 /f").contains(&now));
        }
        digests.insert(now);
    }
    assert_eq!(digests.len(), 3);
}

#[test]
fn a_number_of_workers_that_makes_no_sense_is_refused() {
    let dir = TestDir::new();
    let towd = |args: &[&str]| fails(&dir.join("root"), args);
    for count in ["0", "65", "1000000"] {
        let said = format!("workers: it is a number from 1 to 64, not {count}");
        towd(&["--workers", count]).exits(1).says(&[&said]);
    }
    towd(&["--workers", "-1"]).exits(2);
    towd(&["--workers", "many"]).exits(2).says(&["--workers"]);
    towd(&["--worker"]).exits(1).says(&["--workers"]);
    // Not even for a moment was there anything to serve.
    assert!(!dir.join("root").exists());
    let config = dir.join("towd.toml");
    fs::write(&config, "workers = 0\n").unwrap();
    let said = [":1:1: workers: it is a number from 1 to 64"];
    towd(&["--config", config.to_str().unwrap(), "check"]).exits(1).says(&said);
}

#[test]
fn a_port_that_others_share_is_in_use_all_the_same() {
    let (first, dir) = (Workers::start("2"), TestDir::new());
    let args = ["--no-login", "--workers", "2", "--listen", &first.addr().to_string()];
    fails(&dir.join("root"), &args).exits(1).says(&["can't listen on", "in use"]);
    assert_eq!(ask(&mut greeted(first.addr()), "noop"), "200");
}

#[test]
fn what_keeps_a_worker_from_starting_is_said_once_and_leaves_nothing_running() {
    let dir = TestDir::new();
    fs::create_dir(dir.join("root")).unwrap();
    // No sandbox can be entered that has to leave open what is not there.
    let config = dir.join("towd.toml");
    fs::write(&config, "sandbox.write = [\"absent\"]\n").unwrap();
    let args = ["--config", config.to_str().unwrap(), "--no-login", "--workers", "3"];
    let ran = fails(&dir.join("root"), &[&args[..], &["--listen", "127.0.0.1:0"]].concat());
    let ran = ran.exits(1).says(&["worker 0 could not start"]);
    assert_eq!(ran.stderr.matches("Landlock").count(), 1, "{}", ran.stderr);
    assert!(ran.stdout.is_empty());
}
