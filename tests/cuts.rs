//! Lines are cut at any byte, in either direction, orderly or not: every transfer goes on where it
//! was, and its target is absent, old, or new and whole.
//!
//! Ten times as long: `TOW_LONG=1 cargo test --test cuts -- --nocapture`

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use support::proxy::{Cut, Direction, How, Plan, Proxy, Weight};
use support::watch::{Watch, assert_goes_on, client, is_long, patient, remote};
use support::{Rng, TestDir, Towd, fresh_seed, md5sum, random_file, same_bytes};
use towpath::client::{Event, Transferred};
use towpath::digest::{LEAF_BYTES, SEGMENT_BYTES};
use towpath::wire::DigestChoice;

mod support;

const OLD: &[u8] = b"the old version\n";

const SIZES: [u64; 9] = [
    0,
    1,
    LEAF_BYTES - 1,
    LEAF_BYTES,
    LEAF_BYTES + 1,
    SEGMENT_BYTES - 1,
    SEGMENT_BYTES,
    SEGMENT_BYTES + 1,
    10 * SEGMENT_BYTES + 12_345,
];

/// In the normal run, for each direction and digest.
const CUTS: u64 = 50;

/// After so many the rest of a transfer passes, so that no run of bad luck lasts for ever.
const CUTS_PER_TRANSFER: u64 = 12;

#[test]
fn a_put_over_lines_that_are_cut_anywhere_goes_on_and_ends_right() {
    cut_until_enough(Direction::Up, DigestChoice::Tree);
}

#[test]
fn a_put_with_the_md5_of_the_whole_file_goes_on_and_ends_right() {
    cut_until_enough(Direction::Up, DigestChoice::TreeAndMd5);
}

#[test]
fn a_get_over_lines_that_are_cut_anywhere_goes_on_and_ends_right() {
    cut_until_enough(Direction::Down, DigestChoice::Tree);
}

#[test]
fn a_get_with_the_md5_of_the_whole_file_goes_on_and_ends_right() {
    cut_until_enough(Direction::Down, DigestChoice::TreeAndMd5);
}

struct Setting {
    towd: Towd,
    local: TestDir,
    way: Direction,
    digest: DigestChoice,
}

struct Source {
    name: String,
    size: u64,
    md5: String,
}

impl Setting {
    fn source(&self, source: &Source) -> PathBuf {
        match self.way {
            Direction::Up => self.local.join(&source.name),
            Direction::Down => self.towd.root().join(&source.name),
        }
    }

    fn target(&self, source: &Source) -> PathBuf {
        match self.way {
            Direction::Up => self.towd.root().join(&source.name),
            Direction::Down => self.local.join(&source.name),
        }
    }

    /// Where partials are while they are needed.
    fn partials(&self) -> PathBuf {
        match self.way {
            Direction::Up => self.towd.root().join(".tow/partials"),
            Direction::Down => self.local.path().to_owned(),
        }
    }

    fn make_source(&self, size: u64) -> Source {
        let mut source = Source { name: format!("of-{size}"), size, md5: String::new() };
        let path = self.source(&source);
        random_file(&path, size, size);
        source.md5 = md5sum(path);
        source
    }
}

#[derive(Default)]
struct Tally {
    transfers: u64,
    cuts: u64,
    resets: u64,
    again: u64,
    read_again_most: u64,
}

fn cut_until_enough(way: Direction, digest: DigestChoice) {
    let seed = fresh_seed();
    let setting = Setting { towd: Towd::start(["-q"]), local: TestDir::new(), way, digest };
    let sources = SIZES.map(|size| setting.make_source(size));
    let wanted = if is_long() { 10 * CUTS } else { CUTS };
    let mut tally = Tally::default();
    while tally.cuts < wanted {
        for source in &sources {
            let rng = Rng::derived(seed, tally.transfers);
            transfer(&setting, source, rng, &mut tally);
        }
    }
    let Tally { transfers, cuts, resets, again, read_again_most } = tally;
    eprintln!(
        "{way:?} {digest:?}: {transfers} transfers, {cuts} cuts, {resets} of them resets; {} bytes \
         came again per cut, of those that were surely read at most {read_again_most}",
        again / cuts
    );
}

/// Cuts that land in data, in lines and digests, or in what the receiving end says.
fn choose_cut(rng: &mut Rng, size: u64, way: Direction) -> Cut {
    let all = size + 1024;
    let against = if way == Direction::Up { Direction::Down } else { Direction::Up };
    let (budget_bytes, weight, counted) = match rng.within(&(0..=4)) {
        0 => (0..=all, Weight::Tiny, None),
        1 => (0..=all, Weight::Uniform, None),
        2 => (0..=all / 4, Weight::Uniform, Some(way)),
        3 => (0..=400, Weight::Uniform, Some(against)),
        _ => (0..=400, Weight::Uniform, None),
    };
    Cut { budget_bytes, weight, counted, how: How::Either, limit: CUTS_PER_TRANSFER }
}

fn transfer(setting: &Setting, source: &Source, mut rng: Rng, tally: &mut Tally) {
    let (from, to) = (setting.source(source), setting.target(source));
    let has_old = rng.flag();
    drop(fs::remove_file(&to));
    if has_old {
        fs::write(&to, OLD).expect("room for an old version");
    }
    let cut = choose_cut(&mut rng, source.size, setting.way);
    let plan = Plan { cut: Some(cut), ..Plan::seeded(rng.word()) };
    let proxy = Proxy::start(setting.towd.addr(), plan);
    let mut watch = Watch::new(|event| {
        if matches!(event, Event::Begin { .. } | Event::Broke { .. }) {
            assert_old_or_whole(&to, has_old, &from);
        }
    });
    let client = client(proxy.addr(), patient(setting.digest));
    let remote = remote(&source.name);
    let done = match setting.way {
        Direction::Up => client.put(&from, &remote, &mut watch),
        Direction::Down => client.get(&remote, &to, &mut watch),
    };
    let done = done.expect("every line that breaks is mended");

    assert_right(&done, source, setting.digest, &watch);
    assert!(same_bytes(&from, &to));
    assert_eq!(md5sum(&to), source.md5);
    assert_no_partial(&setting.partials());
    let counts = proxy.counts();
    assert_eq!(u64::from(done.breaks), counts.cuts, "{watch:?}");
    let again = assert_goes_on(&watch, &counts, setting.way, source.size);
    tally.transfers += 1;
    tally.cuts += counts.cuts;
    tally.resets += counts.resets;
    tally.again += again.bytes;
    tally.read_again_most = tally.read_again_most.max(again.read_bytes_most);
}

fn assert_right(done: &Transferred, source: &Source, digest: DigestChoice, watch: &Watch<'_>) {
    let md5 = (digest == DigestChoice::TreeAndMd5).then(|| source.md5.clone());
    assert_eq!(done.md5.map(|md5| md5.to_string()), md5);
    assert_eq!(done.size, source.size);
    assert_eq!(done.already, 0, "{watch:?}");
    assert!(done.moved >= source.size && !done.unchanged, "{done:?} {watch:?}");
    assert_eq!(watch.bad_segments, [0; 0], "a cut spoils nothing");
}

/// One look at one open file: by name, it could be replaced between two looks.
fn assert_old_or_whole(target: &Path, has_old: bool, new: &Path) {
    let mut file = match File::open(target) {
        Ok(file) => file,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotFound);
            assert!(!has_old, "the old version has gone before the new one came");
            return;
        }
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).expect("the target is readable");
    let whole = || fs::read(new).expect("the source is readable") == bytes;
    assert!(has_old && bytes == OLD || whole(), "{} is neither old nor whole", target.display());
}

fn assert_no_partial(folder: &Path) {
    let names = fs::read_dir(folder).expect("the folder of partials is there");
    let names = names.map(|entry| entry.expect("it is readable").file_name());
    let left: Vec<_> = names.filter(|name| name.to_string_lossy().ends_with(".data")).collect();
    assert!(left.is_empty(), "{left:?}");
}
