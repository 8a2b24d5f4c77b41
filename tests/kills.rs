//! Processes are killed at any moment, `towd` and `tow`, and `towd` is asked to end: every transfer
//! goes on where the journal was, and nothing but the whole file has its name.
//!
//! Ten times as long: `TOW_LONG=1 cargo test --test kills -- --nocapture`

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Duration;

use support::proxy::{Direction, Plan, Proxy, Slow, Traffic};
use support::watch::{Watch, client, is_long, overhead, patient, remote};
use support::{PATIENCE, Rng, TestDir, Towd, fresh_seed, random_file, same_bytes, tcp, tow};
use support::{wait_child, wait_until};
use towpath::client::{ClientError, Event, Options, Stop, Transferred};
use towpath::digest::LEAF_BYTES;
use towpath::store::partial_name;
use towpath::wire::DigestChoice;

mod support;

const MIB: u64 = 1 << 20;
const SIZE: u64 = 48 * MIB;

/// A checkpoint is due after 8 MiB: once so much went over the line, one is at least under way.
const CHECKPOINT_UNDER_WAY: u64 = 9 * MIB;

/// More than the record that opens a journal, less than that and a mark of 8 MiB.
const OPEN_RECORD_BYTES_MAX: u64 = 160;

/// In the normal run, of each kind.
const KILLS: u64 = 50;

/// Then a transfer is left alone to end.
const KILLS_PER_TRANSFER: u64 = 13;

/// Slow enough that kills land inside.
const BYTES_PER_S: u64 = 64 * MIB;

/// So slow that [`HELD_BYTES`] do not come through while a checkpoint is waited for.
const HELD_BYTES_PER_S: u64 = 100 << 10;
const HELD_BYTES: u64 = 4 * MIB;

fn kills() -> u64 {
    if is_long() { 10 * KILLS } else { KILLS }
}

struct Setting {
    towd: Towd,
    dir: TestDir,
    way: Direction,
    nth: u64,
}

impl Setting {
    fn new(way: Direction) -> Self {
        Self { towd: Towd::start([""; 0]), dir: TestDir::new(), way, nth: 0 }
    }

    /// A new file under a new name.
    fn next(&mut self, seed: u64) {
        for old in [self.source(), self.target()] {
            drop(fs::remove_file(old));
        }
        self.nth += 1;
        random_file(self.source(), SIZE, seed);
    }

    fn name(&self) -> String {
        format!("f{}", self.nth)
    }

    fn source(&self) -> PathBuf {
        match self.way {
            Direction::Up => self.dir.join(self.name()),
            Direction::Down => self.towd.root().join(self.name()),
        }
    }

    fn target(&self) -> PathBuf {
        match self.way {
            Direction::Up => self.towd.root().join(self.name()),
            Direction::Down => self.dir.join(self.name()),
        }
    }

    fn journal(&self) -> PathBuf {
        let stem = partial_name(&remote(&self.name()));
        match self.way {
            Direction::Up => self.towd.root().join(format!(".tow/partials/{stem}.journal")),
            Direction::Down => self.dir.join(format!(".tow-{stem}.journal")),
        }
    }

    fn plan(&self, bytes_per_s: u64) -> Plan {
        Plan { slow: Some(Slow { direction: self.way, bytes_per_s }), ..Plan::default() }
    }

    fn proxy(&self) -> Proxy {
        Proxy::start(self.towd.addr(), self.plan(BYTES_PER_S))
    }

    /// A checkpoint is due: the line is held back until it is in the journal, or all is over.
    fn await_checkpoint(&self, proxy: &Proxy, mut is_there: impl FnMut() -> bool) {
        proxy.set(self.plan(HELD_BYTES_PER_S));
        assert!(wait_until(PATIENCE, &mut is_there), "no checkpoint is made");
        proxy.set(self.plan(BYTES_PER_S));
    }

    /// What went the way of the file.
    fn along(&self, traffic: Traffic) -> u64 {
        match self.way {
            Direction::Up => traffic.up,
            Direction::Down => traffic.down,
        }
    }

    fn assert_whole_and_alone(&self) {
        assert!(same_bytes(self.source(), self.target()));
        let left: Vec<_> = fs::read_dir(self.dir.path())
            .expect("the folder is there")
            .flatten()
            .map(|entry| entry.file_name())
            .filter(|name| name.to_string_lossy().starts_with(".tow"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }

    fn assert_absent_or_whole(&self) {
        assert!(!self.target().exists() || same_bytes(self.source(), self.target()));
    }
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |found| found.len())
}

#[test]
fn an_upload_goes_on_unattended_while_the_server_is_killed_again_and_again() {
    kill_the_server(Direction::Up);
}

#[test]
fn a_download_goes_on_unattended_while_the_server_is_killed_again_and_again() {
    kill_the_server(Direction::Down);
}

/// An attempt as the killer has to know it.
#[derive(Clone, Copy, Debug, Default)]
struct Begun {
    attempt: usize,
    already: u64,
    /// Length of the journal then.
    journal: u64,
}

/// A test that fails does not wait for its transfer.
struct StopIfPanicking<'a>(&'a Stop);

impl Drop for StopIfPanicking<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.stop();
        }
    }
}

fn kill_the_server(way: Direction) {
    let seed = fresh_seed();
    let mut rng = Rng::new(seed);
    let mut setting = Setting::new(way);
    let (mut killed, mut transfers) = (0, 0);
    while killed < kills() / 2 {
        setting.next(rng.word());
        killed += kill_the_server_during_one(&mut setting, &mut rng);
        transfers += 1;
    }
    eprintln!("{way:?}: towd killed {killed} times during {transfers} transfers");
}

fn kill_the_server_during_one(setting: &mut Setting, rng: &mut Rng) -> u64 {
    let proxy = setting.proxy();
    let (source, target, journal) = (setting.source(), setting.target(), setting.journal());
    let (way, remote) = (setting.way, remote(&setting.name()));
    let begun = Mutex::new(Begun::default());
    // Attempts that were killed after a checkpoint of theirs was in the journal.
    let mut marked = Vec::new();
    let mut killed = 0;
    let stop = Stop::default();
    let watch = thread::scope(|scope| {
        let _stop = StopIfPanicking(&stop);
        let transferring = scope.spawn(|| {
            let mut attempt = 0;
            let mut watch = Watch::new(|event| match event {
                Event::Connecting => attempt += 1,
                Event::Begin { already, .. } => {
                    let now = Begun { attempt, already: *already, journal: length(&journal) };
                    *begun.lock().expect("nobody panicked") = now;
                }
                _ => {}
            });
            let options = Options { stop: stop.clone(), ..patient(DigestChoice::Tree) };
            let client = client(proxy.addr(), options);
            let done = match way {
                Direction::Up => client.put(&source, &remote, &mut watch),
                Direction::Down => client.get(&remote, &target, &mut watch),
            };
            (done, std::mem::take(&mut watch.attempts))
        });
        while killed < KILLS_PER_TRANSFER {
            let moment = setting.along(proxy.counts().total) + rng.within(&(0..=14 * MIB));
            let there = || setting.along(proxy.counts().total) >= moment;
            let moves = wait_until(PATIENCE, || transferring.is_finished() || there());
            assert!(moves, "the transfer does not get on");
            let now = *begun.lock().expect("nobody panicked");
            let line = proxy.counts().per_connection.last().copied().unwrap_or_default();
            let has_mark = || length(&journal) > now.journal;
            let line = setting.along(line);
            let is_due = line > CHECKPOINT_UNDER_WAY && now.already + line + HELD_BYTES < SIZE;
            if is_due && way == Direction::Up {
                setting.await_checkpoint(&proxy, has_mark);
            }
            if transferring.is_finished() {
                break;
            }
            if has_mark() {
                marked.push(now);
            }
            setting.assert_absent_or_whole();
            setting.towd.kill();
            setting.assert_absent_or_whole();
            setting.towd.restart();
            killed += 1;
        }
        let (done, attempts) = transferring.join().expect("the client does not panic");
        let done: Result<Transferred, ClientError> = done;
        done.expect("it goes on unattended");
        attempts
    });
    setting.assert_whole_and_alone();
    let begins: Vec<(usize, u64)> =
        (1..).zip(&watch).filter_map(|(attempt, began)| Some((attempt, (*began)?))).collect();
    assert!(begins.is_sorted_by_key(|&(_, already)| already), "{begins:?}");
    for mark in marked {
        let next = begins.iter().find(|&&(attempt, _)| attempt > mark.attempt);
        assert!(
            next.is_none_or(|&(_, already)| already > mark.already),
            "{mark:?} was marked, and yet {next:?} of {begins:?}"
        );
    }
    killed
}

#[test]
fn an_upload_goes_on_with_the_next_tow_after_each_that_was_killed() {
    kill_the_client(Direction::Up);
}

#[test]
fn a_download_goes_on_with_the_next_tow_after_each_that_was_killed() {
    kill_the_client(Direction::Down);
}

fn kill_the_client(way: Direction) {
    let seed = fresh_seed();
    let mut rng = Rng::new(seed);
    let mut setting = Setting::new(way);
    let (mut killed, mut transfers, mut moved) = (0, 0, 0);
    while killed < kills() {
        setting.next(rng.word());
        let (kills, bytes) = kill_the_client_during_one(&setting, &mut rng);
        killed += kills;
        moved += bytes;
        transfers += 1;
    }
    eprintln!(
        "{way:?}: tow killed {killed} times during {transfers} transfers; {} bytes again per kill",
        moved.saturating_sub(transfers * SIZE) / killed
    );
}

/// A running `tow`, which does not outlive a test that fails.
struct Tow(Child);

impl Tow {
    fn has_ended(&mut self) -> bool {
        self.0.try_wait().expect("the child is ours").is_some()
    }

    fn kill(&mut self) {
        // An error means that it has ended already, which is what is wanted.
        drop(self.0.kill());
        self.0.wait().expect("the child is ours");
    }
}

impl Drop for Tow {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start_tow(setting: &Setting, proxy: &Proxy) -> Tow {
    let url = format!("tow://{}/{}", proxy.addr(), setting.name());
    let mut command = match setting.way {
        Direction::Up => tow(["put", "-q", &setting.source().display().to_string(), &url]),
        Direction::Down => tow(["get", "-q", &url, &setting.target().display().to_string()]),
    };
    Tow(command.stderr(Stdio::inherit()).spawn().expect("tow starts"))
}

/// How often it was killed, and how many bytes went over the line in all.
fn kill_the_client_during_one(setting: &Setting, rng: &mut Rng) -> (u64, u64) {
    let proxy = setting.proxy();
    let journal = setting.journal();
    let said = setting.towd.stderr().len();
    let log = || runs(&setting.towd.stderr()[said..], &setting.name());
    // Of the runs in the log, those that were killed after a checkpoint of theirs.
    let (mut killed, mut marked) = (0, Vec::new());
    let mut last = loop {
        let (before, length_before) = (setting.along(proxy.counts().total), length(&journal));
        let logged = log().len();
        let mut child = start_tow(setting, &proxy);
        if killed == KILLS_PER_TRANSFER {
            break child;
        }
        let moment = rng.within(&(0..=14 * MIB));
        let carried = || setting.along(proxy.counts().total) - before;
        let mut ended = || child.has_ended();
        assert!(wait_until(PATIENCE, || carried() >= moment || ended()), "tow does not get on");
        // Each run writes one record when it opens the journal; whatever is behind it are marks.
        let has_mark = || length(&journal) > length_before + OPEN_RECORD_BYTES_MAX;
        if carried() > CHECKPOINT_UNDER_WAY && setting.way == Direction::Down {
            setting.await_checkpoint(&proxy, || has_mark() || ended());
        }
        if ended() {
            break child;
        }
        let has_mark = has_mark();
        setting.assert_absent_or_whole();
        child.kill();
        killed += 1;
        tcp::wait_until_left(setting.towd.addr());
        setting.assert_absent_or_whole();
        if has_mark {
            let logged = wait_until(PATIENCE, || log().len() > logged);
            assert!(logged, "a transfer without a word in the log");
            marked.push(log().len() - 1);
        }
        if setting.way == Direction::Down && setting.target().exists() && !journal.exists() {
            // It was done, and died on its way out: another would get the file anew.
            return (killed, setting.along(proxy.counts().total));
        }
    };
    let status = wait_child(&mut last.0, PATIENCE).expect("nothing is in its way");
    assert!(status.success(), "{status}");
    setting.assert_whole_and_alone();
    tcp::wait_until_left(setting.towd.addr());
    let carried = setting.along(proxy.counts().total);
    let runs = log();
    assert!(runs.is_sorted_by_key(|run| run.from), "{runs:?}");
    match setting.way {
        Direction::Up => {
            // The server reads what a client sent before it died: but for a leaf, all of it.
            for pair in runs.windows(2) {
                let sure = (pair[0].from + pair[0].bytes).saturating_sub(LEAF_BYTES);
                assert!(pair[1].from >= sure, "{pair:?}");
            }
            let most = SIZE + killed * (LEAF_BYTES + 4096) + overhead(SIZE);
            assert!(carried <= most, "{carried} bytes for {killed} kills");
        }
        Direction::Down => {
            for run in marked {
                let next = runs.get(run + 1);
                let goes_on = next.is_none_or(|next| next.from > runs[run].from);
                assert!(goes_on, "the checkpoint of run {run} is lost: {runs:?}");
            }
        }
    }
    (killed, carried)
}

/// A transfer as the server's log has it.
#[derive(Debug)]
struct Run {
    from: u64,
    bytes: u64,
}

/// `... get /f1 from=0 bytes=4096 seconds=...`, a line for each.
fn runs(log: &str, name: &str) -> Vec<Run> {
    let number = |line: &str, key: &str| {
        let (_, rest) = line.split_once(key)?;
        rest.split(' ').next()?.parse().ok()
    };
    log.lines()
        .filter(|line| {
            line.contains(&format!("get /{name} ")) || line.contains(&format!("put /{name} "))
        })
        .filter_map(|line| {
            Some(Run { from: number(line, " from=")?, bytes: number(line, " bytes=")? })
        })
        .collect()
}

#[test]
fn a_server_that_is_asked_to_end_does_so_and_its_clients_go_on_with_the_next() {
    let seed = fresh_seed();
    for way in [Direction::Up, Direction::Down] {
        let mut setting = Setting::new(way);
        setting.next(seed);
        let proxy = setting.proxy();
        let (source, target) = (setting.source(), setting.target());
        let remote = remote(&setting.name());
        let (attempts, done) = thread::scope(|scope| {
            let transferring = scope.spawn(|| {
                let mut watch = Watch::quiet();
                let client = client(proxy.addr(), patient(DigestChoice::TreeAndMd5));
                let done = match way {
                    Direction::Up => client.put(&source, &remote, &mut watch),
                    Direction::Down => client.get(&remote, &target, &mut watch),
                };
                (std::mem::take(&mut watch.attempts), done)
            });
            let midway = |traffic| setting.along(traffic) >= SIZE / 2;
            assert!(proxy.wait_for(PATIENCE, |counts| midway(counts.total)));
            let (status, took) = setting.towd.terminate();
            eprintln!("{way:?}: towd ended {took:?} after SIGTERM: {status}");
            assert!(status.success(), "{status}");
            assert!(took < Duration::from_secs(10), "{took:?}");
            drop(TcpListener::bind(setting.towd.addr()).expect("the port is free at once"));
            setting.towd.restart();
            transferring.join().expect("the client does not panic")
        });
        let done = done.expect("it goes on unattended");
        setting.assert_whole_and_alone();
        let begins: Vec<u64> = attempts.into_iter().flatten().collect();
        eprintln!("{way:?}: began at {begins:?}; {done:?}");
        assert!(done.breaks > 0 && begins.len() >= 2, "it was over before: {done:?}");
        assert!(begins.is_sorted(), "{begins:?}");
        assert!(begins[1] > 0, "{begins:?}");
    }
}
