//! Bits are flipped on the way: every wrong segment is found, only wrong segments go again, and
//! whatever is flipped, no wrong file appears.
//!
//! Many times as long: `TOW_LONG=1 cargo test --test flips -- --nocapture`

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use support::proxy::{Direction, Flip, Plan, Proxy};
use support::watch::{Watch, client, is_long, patient, remote};
use support::{Rng, TestDir, Towd, fresh_seed, random_file, run_tow, same_bytes};
use towpath::client::{Client, ClientError, Event, Options, Transferred};
use towpath::digest::SEGMENT_BYTES;
use towpath::wire::DigestChoice;

mod support;

const MIB: u64 = 1 << 20;

/// Longer than the lines at the start of a connection.
const LINES_BYTES: u64 = 1024;

fn flip(direction: Direction, every_bytes: u64, skip_bytes: u64, limit: u64) -> Option<Flip> {
    Some(Flip { direction, every_bytes, skip_bytes, limit })
}

#[test]
fn only_the_segments_that_were_spoiled_go_up_again() {
    spoil_some_segments(Direction::Up);
}

#[test]
fn only_the_segments_that_were_spoiled_come_down_again() {
    spoil_some_segments(Direction::Down);
}

fn spoil_some_segments(way: Direction) {
    let size = 64 * MIB;
    let seed = fresh_seed();
    let (towd, dir) = (Towd::start(["-q"]), TestDir::new());
    for round in 0..if is_long() { 20 } else { 1 } {
        let mut rng = Rng::derived(seed, round);
        let (from, to) = ends(&towd, &dir, way);
        drop(fs::remove_file(&to));
        random_file(&from, size, rng.word());
        let flips = flip(way, 8 * MIB, LINES_BYTES, u64::MAX);
        let proxy = Proxy::start(towd.addr(), Plan { flip: flips, ..Plan::seeded(rng.word()) });
        let mut watch = Watch::new(|event| {
            if matches!(event, Event::SegmentBad(_)) {
                assert!(!to.exists(), "a file with a wrong segment is visible");
            }
        });
        let done = transfer(
            &client(proxy.addr(), patient(DigestChoice::Tree)),
            way,
            &from,
            &to,
            &mut watch,
        );
        let done = done.expect("what is spoiled now and then comes out right in the end");
        assert!(same_bytes(&from, &to));
        let flips = proxy.counts().flips;
        assert!(flips >= 8, "{flips} flips");
        let bad = watch.bad_segments.len() as u64;
        eprintln!("{way:?}: {flips} flips, bad {:?}, {done:?}", watch.bad_segments);
        // A flip within a header or a digest is found as well, but need not spoil a segment.
        if watch.breaks.is_empty() {
            assert!(bad > 0 && bad <= flips, "{watch:?}");
            assert_eq!(done.moved, size + bad * SEGMENT_BYTES, "{watch:?}");
        }
    }
}

#[test]
fn a_line_that_spoils_every_segment_is_given_up_and_nothing_appears() {
    let seed = fresh_seed();
    let size = 4 * SEGMENT_BYTES;
    // Less than a segment, and out of step with the frames: their headers are hit by bad luck only.
    let every = 3_333_333;
    for (nth, way) in [(0, Direction::Up), (1, Direction::Down)] {
        let (towd, dir) = (Towd::start(["-q"]), TestDir::new());
        let (from, to) = ends(&towd, &dir, way);
        random_file(&from, size, seed);
        let flips = flip(way, every, LINES_BYTES, u64::MAX);
        let plan = Plan { flip: flips, ..Plan::seeded(Rng::derived(seed, nth).word()) };
        let proxy = Proxy::start(towd.addr(), plan);
        let url = format!("tow://{}/f", proxy.addr());
        let (from_arg, to_arg) = (from.display().to_string(), to.display().to_string());
        let ran = match way {
            Direction::Up => run_tow(["--give-up", "20s", "put", &from_arg, &url]),
            Direction::Down => run_tow(["--give-up", "20s", "get", &url, &to_arg]),
        };
        let counts = proxy.counts();
        if counts.connections() == 1 + usize::from(way == Direction::Up) {
            ran.exits(3).says(&["verification failed"]);
        } else {
            // A header was hit: such a line breaks, and patience may end before hope does.
            let code = ran.code;
            assert!(matches!(code, Some(3 | 6)), "{ran:?}");
        }
        assert!(!to.exists(), "a file that never came out right is visible");
        let carried = counts.total.up + counts.total.down;
        let rounds = carried.div_ceil(size);
        eprintln!("{way:?}: {carried} bytes, {rounds} rounds, {} lines", counts.connections());
        assert!(rounds <= 8 * counts.connections() as u64, "{counts:?}");
    }
}

#[test]
fn a_pipe_gets_no_byte_of_a_spoiled_segment() {
    let seed = fresh_seed();
    let (towd, dir) = (Towd::start(["-q"]), TestDir::new());
    let (from, _) = ends(&towd, &dir, Direction::Down);
    let size = 5 * SEGMENT_BYTES + 7;
    random_file(&from, size, seed);
    let flips = flip(Direction::Down, 6 * MIB, LINES_BYTES, u64::MAX);
    let proxy = Proxy::start(towd.addr(), Plan { flip: flips, ..Plan::seeded(seed) });
    let client = client(proxy.addr(), patient(DigestChoice::Tree));
    let (mut out, mut watch) = (Vec::new(), Watch::quiet());
    let done = client.get_to(&remote("f"), &mut out, &mut watch).expect("it comes out right");
    assert!(out == fs::read(&from).expect("the source is readable"), "{watch:?}");
    assert!(proxy.counts().flips >= 3 && !watch.breaks.is_empty(), "{watch:?}");
    assert_eq!(done.size, size);
}

/// What a flip in a line may lead to.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Right,
    Error,
}

#[test]
fn bits_flipped_in_lines_and_headers_lead_to_the_right_file_or_to_an_error() {
    let seed = fresh_seed();
    let (towd, dir) = (Towd::start(["-q"]), TestDir::new());
    let tries = if is_long() { 5_000 } else { 250 };
    let mut ends = BTreeMap::<(String, End), u32>::new();
    for nth in 0..tries {
        let mut rng = Rng::derived(seed, nth);
        let way = if rng.flag() { Direction::Up } else { Direction::Down };
        let against = if rng.flag() { Direction::Up } else { Direction::Down };
        let end = spoil_lines(&towd, &dir, way, against, &mut rng);
        *ends.entry((format!("{way:?} against {against:?}"), end)).or_default() += 1;
    }
    eprintln!("{ends:#?}");
}

fn spoil_lines(
    towd: &Towd,
    dir: &TestDir,
    way: Direction,
    against: Direction,
    rng: &mut Rng,
) -> End {
    let (from, to) = ends(towd, dir, way);
    let old = rng.flag();
    for file in fs::read_dir(towd.root()).expect("a root").flatten() {
        drop(fs::remove_file(file.path()));
    }
    drop(fs::remove_file(&to));
    if old {
        fs::write(&to, "old").expect("room for an old version");
    }
    let size = rng.within(&(0..=3 * 65_536));
    random_file(&from, size, rng.word());
    // Few enough that some attempt comes through, and close enough to hit every line.
    let every = rng.within(&(20..=400));
    let flips = flip(against, every, 0, rng.within(&(1..=12)));
    let proxy = Proxy::start(towd.addr(), Plan { flip: flips, ..Plan::seeded(rng.word()) });
    let options = Options {
        timeout: Duration::from_secs(1),
        give_up: Duration::from_secs(5),
        ..patient(DigestChoice::TreeAndMd5)
    };
    let mut watch = Watch::quiet();
    let done = transfer(&client(proxy.addr(), options), way, &from, &to, &mut watch);
    match done {
        Ok(_) if to.exists() && same_content(&from, &to) => End::Right,
        Ok(done) => unreachable!("another file, or another name: {done:?} {watch:?}"),
        Err(ClientError::Interrupted) => unreachable!("nobody interrupts it"),
        Err(error) => {
            let there = fs::read(&to).ok();
            let whole = || fs::read(&from).expect("the source is readable");
            assert!(
                there.is_none() && !old
                    || there.as_deref() == Some(b"old") && old
                    || there == Some(whole()),
                "{error} left a wrong file; {watch:?}"
            );
            End::Error
        }
    }
}

fn same_content(a: &Path, b: &Path) -> bool {
    fs::read(a).expect("readable") == fs::read(b).expect("readable")
}

fn ends(towd: &Towd, dir: &TestDir, way: Direction) -> (PathBuf, PathBuf) {
    let (local, served) = (dir.join("f"), towd.root().join("f"));
    match way {
        Direction::Up => (local, served),
        Direction::Down => (served, local),
    }
}

fn transfer(
    client: &Client,
    way: Direction,
    from: &Path,
    to: &Path,
    watch: &mut Watch<'_>,
) -> Result<Transferred, ClientError> {
    match way {
        Direction::Up => client.put(from, &remote("f"), watch),
        Direction::Down => client.get(&remote("f"), to, watch),
    }
}
