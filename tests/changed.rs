//! The source changes, between two attempts or during one: what arrives is one version of it, the
//! last, and never a mixture; what did not change does not go over the line again.

use std::cell::Cell;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use support::proxy::{Cut, Direction, How, Plan, Proxy, Slow};
use support::watch::{Watch, client, impatient, overhead, patient, remote};
use support::{TestDir, Towd, fresh_seed, random_file, same_bytes, tcp};
use towpath::client::{Client, ClientError, Event, Phase, Transferred};
use towpath::digest::{LEAF_BYTES, SEGMENT_BYTES};
use towpath::wire::DigestChoice;

mod support;

const SIZE: u64 = 4 * SEGMENT_BYTES;

/// Where the first attempt is cut: within the third segment.
const CUT: u64 = 2 * SEGMENT_BYTES + SEGMENT_BYTES / 2;

const BOTH_WAYS: [Direction; 2] = [Direction::Up, Direction::Down];

struct Setting {
    towd: Towd,
    dir: TestDir,
    way: Direction,
    seed: u64,
}

impl Setting {
    fn new(way: Direction) -> Self {
        let (towd, dir) = (Towd::start(["-v"]), TestDir::new());
        let setting = Self { towd, dir, way, seed: fresh_seed() };
        random_file(setting.source(), SIZE, setting.seed);
        setting
    }

    fn source(&self) -> PathBuf {
        match self.way {
            Direction::Up => self.dir.join("f"),
            Direction::Down => self.towd.root().join("f"),
        }
    }

    fn target(&self) -> PathBuf {
        match self.way {
            Direction::Up => self.towd.root().join("f"),
            Direction::Down => self.dir.join("f"),
        }
    }

    fn transfer(&self, client: &Client, watch: &mut Watch<'_>) -> Result<Transferred, ClientError> {
        match self.way {
            Direction::Up => client.put(&self.source(), &remote("f"), watch),
            Direction::Down => client.get(&remote("f"), &self.target(), watch),
        }
    }

    fn proxy_that_cuts_once(&self) -> Proxy {
        let cut = Cut {
            budget_bytes: CUT..=CUT,
            counted: Some(self.way),
            how: How::Fin,
            limit: 1,
            ..Cut::default()
        };
        Proxy::start(self.towd.addr(), Plan { cut: Some(cut), ..Plan::seeded(self.seed) })
    }

    /// An attempt that is cut, the change, and another attempt.
    fn interrupted_by(&self, change: impl FnOnce(&Path)) -> Second {
        let proxy = self.proxy_that_cuts_once();
        let first = self.transfer(&client(proxy.addr(), impatient()), &mut Watch::quiet());
        assert!(matches!(first, Err(ClientError::GaveUp(_))), "{first:?}");
        tcp::wait_until_left(self.towd.addr());
        assert!(!self.target().exists());
        change(&self.source());

        let patient = client(proxy.addr(), patient(DigestChoice::TreeAndMd5));
        let mut watch = Watch::quiet();
        let done = self.transfer(&patient, &mut watch).expect("nothing is in its way");
        assert!(same_bytes(self.source(), self.target()), "{done:?} {watch:?}");
        assert_eq!(done.size, fs::metadata(self.source()).expect("it is there").len());
        assert_eq!(done.breaks, 0, "{watch:?}");
        let carried = proxy.counts().per_connection.last().copied().expect("there were two");
        let carried = if self.way == Direction::Up { carried.up } else { carried.down };
        assert!(carried <= done.moved + overhead(done.moved), "{carried} {done:?}");
        Second { done, bad_segments: watch.bad_segments }
    }
}

struct Second {
    done: Transferred,
    bad_segments: Vec<u64>,
}

impl Second {
    /// All that was received before is still good, up to the leaf of the cut.
    fn goes_on_at_the_cut(&self) {
        let sure = CUT - overhead(CUT) - LEAF_BYTES;
        assert!((sure..=CUT).contains(&self.done.already), "{:?}", self.done);
    }

    /// So many bytes that were there went over the line again.
    fn sends_again(&self, bytes: u64) {
        assert_eq!(self.done.moved, self.done.size - self.done.already + bytes, "{:?}", self.done);
    }
}

fn write_at(path: &Path, at: u64, bytes: &[u8]) {
    let file = OpenOptions::new().write(true).open(path).expect("the source can be written");
    file.write_all_at(bytes, at).expect("there is room");
}

fn change_byte(path: &Path, at: u64) {
    let file = File::open(path).expect("the source is readable");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("it has this byte");
    write_at(path, at, &[!byte[0]]);
}

fn set_size(path: &Path, size: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("the source can be written");
    file.set_len(size).expect("there is room");
}

#[test]
fn one_byte_changed_between_two_attempts_costs_one_segment() {
    for way in BOTH_WAYS {
        let setting = Setting::new(way);
        let second = setting.interrupted_by(|source| change_byte(source, SEGMENT_BYTES + 12_345));
        assert_eq!(second.bad_segments, [1], "{way:?}");
        second.goes_on_at_the_cut();
        second.sends_again(SEGMENT_BYTES);
    }
}

#[test]
fn one_byte_changed_in_the_segment_of_the_cut_costs_that_segment() {
    for way in BOTH_WAYS {
        let setting = Setting::new(way);
        let second = setting.interrupted_by(|source| change_byte(source, 2 * SEGMENT_BYTES));
        assert_eq!(second.bad_segments, [2], "{way:?}");
        second.goes_on_at_the_cut();
        second.sends_again(SEGMENT_BYTES);
    }
}

#[test]
fn one_byte_changed_behind_the_cut_costs_nothing() {
    for way in BOTH_WAYS {
        let setting = Setting::new(way);
        let second = setting.interrupted_by(|source| change_byte(source, SIZE - 1));
        assert!(second.bad_segments.is_empty(), "{way:?}");
        second.goes_on_at_the_cut();
        second.sends_again(0);
    }
}

#[test]
fn a_source_that_grew_between_two_attempts_goes_on() {
    for way in BOTH_WAYS {
        let setting = Setting::new(way);
        let second = setting.interrupted_by(|source| write_at(source, SIZE, &[7; 5_000_000]));
        assert!(second.bad_segments.is_empty(), "{way:?}");
        second.goes_on_at_the_cut();
        second.sends_again(0);
    }
}

#[test]
fn a_source_that_shrank_between_two_attempts_keeps_what_is_within() {
    for (size, kept) in [
        (SIZE - 1, CUT - overhead(CUT) - LEAF_BYTES),
        (CUT - 3 * LEAF_BYTES - 5, CUT - 4 * LEAF_BYTES - 5),
        (2 * SEGMENT_BYTES, 2 * SEGMENT_BYTES),
        // The leaves of a segment that was whole are not known any more.
        (SEGMENT_BYTES + 5 * LEAF_BYTES, SEGMENT_BYTES),
        (SEGMENT_BYTES - 1, 0),
        (1, 0),
        (0, 0),
    ] {
        for way in BOTH_WAYS {
            let setting = Setting::new(way);
            let second = setting.interrupted_by(|source| set_size(source, size));
            assert!(second.bad_segments.is_empty(), "{way:?}");
            assert!(second.done.already >= kept, "{way:?} {size} {:?}", second.done);
            second.sends_again(0);
        }
    }
}

#[test]
fn the_same_content_in_another_inode_costs_nothing() {
    for way in BOTH_WAYS {
        let setting = Setting::new(way);
        let second = setting.interrupted_by(|source| {
            let copy = source.with_extension("copy");
            fs::copy(source, &copy).expect("there is room");
            fs::rename(&copy, source).expect("it takes its place");
        });
        assert!(second.bad_segments.is_empty(), "{way:?}");
        second.goes_on_at_the_cut();
        second.sends_again(0);
    }
}

#[test]
fn other_content_of_the_same_size_goes_over_whole_and_no_more() {
    for way in BOTH_WAYS {
        let setting = Setting::new(way);
        let second = setting.interrupted_by(|source| random_file(source, SIZE, !setting.seed));
        let mut bad = second.bad_segments.clone();
        bad.sort_unstable();
        assert_eq!(bad, [0, 1, 2], "{way:?}");
        second.sends_again(3 * SEGMENT_BYTES);
    }
}

/// Changes the source once, when half of it is there. If its sender had looked at it for the last
/// time by then, which only a server can have, the version before arrives, whole.
fn changed_midway(way: Direction, change: impl FnOnce(&Path)) {
    let setting = Setting::new(way);
    let (source, target) = (setting.source(), setting.target());
    let old = fs::read(&source).expect("the source is readable");
    // Slow enough that a server is not through with all of it long before its client.
    let slow = Some(Slow { direction: way, bytes_per_s: 64 << 20 });
    let proxy = Proxy::start(setting.towd.addr(), Plan { slow, ..Plan::seeded(setting.seed) });
    let changed = Cell::new(false);
    let mut watch = Watch::at_position(SIZE / 2, || {
        change(&source);
        changed.set(true);
    });
    let client = client(proxy.addr(), patient(DigestChoice::TreeAndMd5));
    let done =
        setting.transfer(&client, &mut watch).expect("the next attempt has the last version");
    assert!(changed.get());
    if done.breaks == 0 {
        eprintln!("{way:?}: it was sent before it changed");
        assert!(way == Direction::Down, "nobody saw that it changed: {watch:?}");
        assert!(fs::read(&target).expect("the target is readable") == old, "{done:?} {watch:?}");
        return;
    }
    assert!(same_bytes(&source, &target), "{way:?} {done:?} {watch:?}");
    // The second attempt sends what was not there yet, and what was but changed.
    let size = fs::metadata(&source).expect("it is there").len();
    let began = watch.attempts.last().copied().flatten().expect("it began");
    let again = watch.bad_segments.len() as u64 * SEGMENT_BYTES;
    assert!(done.moved <= SIZE + (size - began) + again, "{way:?} {done:?} {watch:?}");
}

#[test]
fn a_source_that_grows_while_it_is_sent_arrives_as_its_last_version() {
    for way in BOTH_WAYS {
        changed_midway(way, |source| write_at(source, SIZE, &[7; 100_000]));
    }
}

#[test]
fn a_byte_that_changes_after_it_was_sent_arrives_as_its_last_version() {
    for way in BOTH_WAYS {
        changed_midway(way, |source| change_byte(source, 5));
    }
}

#[test]
fn a_source_that_shrinks_while_it_is_sent_arrives_as_its_last_version() {
    for way in BOTH_WAYS {
        changed_midway(way, |source| set_size(source, SIZE / 4 + 1));
    }
}

/// The open file is still the old one: that is a version as well, and it is whole.
#[test]
fn a_source_that_is_replaced_while_it_is_sent_arrives_as_either_version() {
    for way in BOTH_WAYS {
        let setting = Setting::new(way);
        let (source, target) = (setting.source(), setting.target());
        let old = fs::read(&source).expect("the source is readable");
        let mut watch = Watch::at_position(SIZE / 2, || {
            let copy = source.with_extension("copy");
            random_file(&copy, SIZE + 1, !setting.seed);
            fs::rename(&copy, &source).expect("it takes its place");
        });
        let client = client(setting.towd.addr(), patient(DigestChoice::Tree));
        setting.transfer(&client, &mut watch).expect("it is one of the two");
        let is_old = fs::read(&target).expect("the target is readable") == old;
        assert!(is_old || same_bytes(&source, &target), "{way:?} {watch:?}");
        assert!(fs::read(&source).expect("the source is readable") != old, "it was replaced");
    }
}

#[test]
fn a_get_has_the_old_version_whole_until_a_put_has_committed_the_new_one() {
    let setting = Setting::new(Direction::Up);
    let old = setting.dir.join("old");
    random_file(&old, 2 * SEGMENT_BYTES + 1, !setting.seed);
    let addr = setting.towd.addr();
    client(addr, impatient()).put(&old, &remote("f"), &mut ()).expect("nothing is in its way");
    let (copy, mut looks) = (setting.dir.join("copy"), 0);
    let mut watch = Watch::new(|event| {
        let looked = matches!(event, Event::Phase(Phase::Sending))
            || matches!(event, Event::Position(there) if there % SEGMENT_BYTES == 0);
        if looked {
            client(addr, impatient()).get(&remote("f"), &copy, &mut ()).expect("it is there");
            assert!(same_bytes(&old, &copy));
            looks += 1;
        }
    });
    let client = client(addr, patient(DigestChoice::Tree));
    setting.transfer(&client, &mut watch).expect("nothing is in its way");
    drop(watch);
    assert!(looks >= 2, "{looks} looks");
    client.get(&remote("f"), &copy, &mut ()).expect("it is there");
    assert!(same_bytes(setting.source(), &copy));
}

#[test]
fn a_pipe_that_has_a_part_of_the_old_version_gets_an_error_and_no_mixture() {
    for change in [
        (|source| change_byte(source, 5)) as fn(&Path),
        |source| write_at(source, SIZE, &[7; 100_000]),
        |source| set_size(source, 3 * SEGMENT_BYTES),
        |source| fs::write(source, "").expect("it can be written"),
    ] {
        let setting = Setting::new(Direction::Down);
        let source = setting.source();
        let old = fs::read(&source).expect("the source is readable");
        let proxy = setting.proxy_that_cuts_once();
        let mut watch = Watch::new(|event| {
            if matches!(event, Event::Broke { .. }) {
                change(&source);
            }
        });
        let client = client(proxy.addr(), patient(DigestChoice::Tree));
        let mut out = Vec::new();
        let end = client.get_to(&remote("f"), &mut out, &mut watch);
        assert!(matches!(end, Err(ClientError::Verification(_))), "{end:?} {watch:?}");
        assert!(!out.is_empty() && out.len() < old.len(), "{} bytes", out.len());
        assert!(old.starts_with(&out), "a mixture");
    }
}

#[test]
fn a_pipe_over_lines_that_are_cut_gets_every_byte_once() {
    let setting = Setting::new(Direction::Down);
    let cut = Cut { budget_bytes: 0..=SIZE / 2, limit: 12, ..Cut::default() };
    let proxy =
        Proxy::start(setting.towd.addr(), Plan { cut: Some(cut), ..Plan::seeded(setting.seed) });
    let client = client(proxy.addr(), patient(DigestChoice::TreeAndMd5));
    let (mut out, mut watch) = (Vec::new(), Watch::quiet());
    let done = client.get_to(&remote("f"), &mut out, &mut watch).expect("it comes through");
    let source = fs::read(setting.source()).expect("the source is readable");
    assert!(out == source, "{done:?} {watch:?}");
    assert_eq!(done.md5.map(|md5| md5.to_string()), Some(support::md5sum(setting.source())));
}
