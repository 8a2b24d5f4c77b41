//! Power cuts. Here is how it works:
//!
//! 1. A scenario runs with the real code on a real folder; every call that changes the disk is
//!    noted.
//! 2. For each number of calls that were made, the power is cut: what was synced stays; of what
//!    was not, everything, nothing or parts may have reached the disk, as bytes, as zeros or torn.
//! 3. In each of these states, the real code opens the partial once more, at another boot. What
//!    it claims has to be what lies on the disk, and no less than the last checkpoint said.
//!
//! Last, each sync is left out in turn, and the boot is kept: then the same check has to fail.

use std::{fs, os::unix::fs::MetadataExt};

use super::{hook::Call, *};

const OLD_BOOT: u128 = 1;
const NEW_BOOT: u128 = 2;

/// A scenario while it runs.
struct Run {
    store: Store,
    receiver: Option<Receiver>,
    /// From so many calls on, so many bytes are durable.
    durable: Vec<(usize, u64)>,
}

impl Run {
    fn new() -> Self {
        hook::set_boot(OLD_BOOT);
        hook::start_trace();
        let (store, receiver, durable) = (Store::new(), None, vec![(0, 0)]);
        Self { store, receiver, durable }
    }

    /// From here on, less may be durable.
    fn at_most(&mut self, calls: usize, bytes: u64) {
        let before = self.durable.last().unwrap().1;
        self.durable.push((calls, before.min(bytes)));
    }

    fn open(&mut self, upload: &Upload, fresh: bool) {
        self.receiver = None;
        let calls = hook::traced();
        let receiver = Receiver::new(self.store.try_open(upload, fresh).unwrap());
        self.at_most(calls, receiver.progress.good_bytes());
        self.receiver = Some(receiver);
    }

    fn receiver(&mut self) -> &mut Receiver {
        self.receiver.as_mut().unwrap()
    }

    fn receive(&mut self, source: &[u8], leaves: usize) {
        self.receiver().receive(source, leaves).unwrap();
    }

    fn checkpoint(&mut self) {
        let (calls, good) = (hook::traced(), self.receiver().progress.good_bytes());
        self.at_most(calls, good);
        self.receiver().checkpoint().unwrap();
        self.durable.push((hook::traced(), good));
    }

    fn note(&mut self) {
        let (calls, good) = (hook::traced(), self.receiver().progress.good_bytes());
        self.at_most(calls, good);
        self.receiver().note().unwrap();
    }

    fn end(mut self, last: &Upload) -> Cuts {
        self.receiver = None;
        let store = self.store;
        let inode = |ending| {
            let name = last.path.to_string();
            fs::metadata(store.own(&name[1..], ending)).unwrap().ino()
        };
        Cuts {
            data: inode("data"),
            journal: inode("journal"),
            calls: hook::take_trace(),
            durable: self.durable,
            last: last.clone(),
            store,
        }
    }
}

/// What was noted of a scenario.
struct Cuts {
    store: Store,
    calls: Vec<Call>,
    durable: Vec<(usize, u64)>,
    data: u64,
    journal: u64,
    last: Upload,
}

/// How much of what was not synced reached the disk.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// So many of its bytes, in their order.
    Bytes(usize),
    /// So many of its bytes, and zeros for the others.
    Zeros(usize),
    /// Every second call only, from this one on.
    Every2nd(usize),
}

/// What a file may hold after `calls`.
fn after_cut(calls: &[Call], inode: u64, fate: Fate) -> Vec<u8> {
    let (mine, synced) = of_file(calls, inode);
    let mut file = Vec::new();
    let mut left = usize::MAX;
    for (at, call) in mine.iter().enumerate() {
        match fate {
            Fate::Bytes(bytes) | Fate::Zeros(bytes) if at == synced => left = bytes,
            Fate::Every2nd(from) if at >= synced && (at + from) % 2 == 0 => continue,
            Fate::Bytes(_) | Fate::Zeros(_) | Fate::Every2nd(_) => {}
        }
        match call {
            Call::Write { offset, bytes, .. } => {
                let offset = usize::try_from(*offset).unwrap();
                let (there, lost) = bytes.split_at(bytes.len().min(left));
                put(&mut file, offset, there);
                if matches!(fate, Fate::Zeros(_)) {
                    put(&mut file, offset + there.len(), &vec![0; lost.len()]);
                }
                left -= there.len();
            }
            Call::Truncate(_, length) if left > 0 => {
                file.resize(usize::try_from(*length).unwrap(), 0);
                left -= 1;
            }
            _ => {}
        }
    }
    file
}

/// The calls that changed a file, and how many of them were synced.
fn of_file(calls: &[Call], file: u64) -> (Vec<&Call>, usize) {
    let mine = calls.iter().filter(|call| match call {
        Call::Write { inode, .. } | Call::Truncate(inode, _) | Call::Sync(inode) => *inode == file,
        Call::Open | Call::Attributes | Call::Rename | Call::Unlink => false,
    });
    let mine: Vec<&Call> = mine.collect();
    let is_sync = |call: &&Call| matches!(call, Call::Sync(_));
    let synced = mine.iter().rposition(is_sync).map_or(0, |at| at + 1);
    (mine, synced)
}

/// Bytes, and lengths, of a file that were not synced.
fn unsynced(calls: &[Call], file: u64) -> usize {
    let (mine, synced) = of_file(calls, file);
    let weight = |call: &&Call| match call {
        Call::Write { bytes, .. } => bytes.len(),
        _ => 1,
    };
    mine[synced..].iter().map(weight).sum()
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if bytes.is_empty() {
        return;
    }
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

impl Cuts {
    /// Cuts the power after every call, in every way; what went wrong, if anything did.
    fn check(&self, boot: u128, finish: Option<&[u8]>) -> Result<usize, String> {
        self.check_some(boot, finish, 300)
    }

    /// The same with so many ways at most for the journal, and fewer calls in a run of writes.
    fn check_some(&self, boot: u128, finish: Option<&[u8]>, ways: usize) -> Result<usize, String> {
        let mut states = 0;
        for cut in 0..=self.calls.len() {
            let calls = &self.calls[..cut];
            let is_write =
                |call: &Call| matches!(call, Call::Write { inode, .. } if *inode == self.data);
            if ways < 300 && cut % 16 > 0 && calls.last().is_some_and(is_write) {
                continue;
            }
            let durable = self.durable.iter().rfind(|(at, _)| *at <= cut).unwrap().1;
            let left = unsynced(calls, self.journal);
            // Where the journal's records begin and end matters most.
            let step = 1 + left / ways;
            let fates = (0..left).step_by(step).chain([left]).map(Fate::Bytes);
            let fates = fates.chain((0..left).step_by(7 * step).map(Fate::Zeros));
            for (at, journal) in fates.enumerate() {
                let whole = matches!(journal, Fate::Bytes(bytes) if bytes == left || bytes == 0);
                for (n, data) in self.data_fates(calls).into_iter().enumerate() {
                    if whole || at % 6 == n % 6 {
                        states += 1;
                        let finish = finish.filter(|_| states % 5 == 0);
                        self.state(calls, journal, data, boot, durable, finish).map_err(|why| {
                            format!("after {cut} calls, journal {journal:?}, data {data:?}: {why}")
                        })?;
                    }
                }
            }
        }
        Ok(states)
    }

    fn data_fates(&self, calls: &[Call]) -> Vec<Fate> {
        let left = unsynced(calls, self.data);
        vec![
            Fate::Bytes(left),
            Fate::Zeros(0),
            Fate::Bytes(0),
            Fate::Every2nd(0),
            Fate::Zeros(left / 3 + 5),
            Fate::Every2nd(1),
        ]
    }

    fn state(
        &self,
        calls: &[Call],
        journal: Fate,
        data: Fate,
        boot: u128,
        durable: u64,
        finish: Option<&[u8]>,
    ) -> Result<(), String> {
        let name = self.last.path.to_string();
        let name = &name[1..];
        let data = after_cut(calls, self.data, data);
        fs::write(self.store.own(name, "journal"), after_cut(calls, self.journal, journal))
            .unwrap();
        fs::write(self.store.own(name, "data"), &data).unwrap();
        hook::set_boot(boot);
        let mut receiver = self.store.open(&self.last);
        if !claims_hold(&receiver.progress, &data) {
            return Err(format!("claims what is not there: {:?}", receiver.progress));
        }
        let good = receiver.progress.good_bytes();
        if good < durable {
            return Err(format!("{durable} bytes were durable, {good} are left"));
        }
        if let Some(source) = finish {
            receiver.drop_what_differs(source).unwrap();
            receiver.receive(source, usize::MAX).unwrap();
            receiver.commit(source).unwrap();
            if read(self.store.at(name)) != source {
                return Err("the file is not what was sent".to_owned());
            }
            fs::remove_file(self.store.at(name)).unwrap();
        }
        Ok(())
    }

    /// The same as if some calls had never been made.
    fn without(&self, drop: impl Fn(usize, &Call) -> bool) -> Self {
        let keep = |at: usize| !drop(at, &self.calls[at]);
        let kept = |until: usize| (0..until).filter(|&at| keep(at)).count();
        Self {
            store: Store::new(),
            calls: (0..self.calls.len())
                .filter(|&at| keep(at))
                .map(|at| self.calls[at].clone())
                .collect(),
            durable: self.durable.iter().map(|&(at, bytes)| (kept(at), bytes)).collect(),
            last: self.last.clone(),
            ..*self
        }
    }
}

const SIZE: usize = 10 * LEAF + 5;

/// Checkpoints, and what a broken line and another writer of the same boot leave.
fn one_version() -> (Cuts, Vec<u8>) {
    let source = bytes(1, SIZE);
    let upload = upload("f", "a", &source);
    let mut run = Run::new();
    run.open(&upload, false);
    run.receive(&source, 3);
    run.checkpoint();
    run.receive(&source, 2);
    run.note();
    run.open(&upload, false);
    run.receive(&source, 1);
    run.note();
    run.receive(&source, 1);
    run.checkpoint();
    run.receive(&source, 2);
    run.note();
    (run.end(&upload), source)
}

/// The source changes, in size as well, with something left of the version before.
fn versions_of_other_sizes() -> (Cuts, Vec<u8>) {
    let old = bytes(2, 6 * LEAF + 9);
    let mut new = old[..4 * LEAF].to_vec();
    new.extend(bytes(3, SIZE - 4 * LEAF));
    let mut run = Run::new();
    run.open(&upload("f", "a", &old), false);
    run.receive(&old, 2);
    run.checkpoint();
    run.receive(&old, 3);
    run.note();
    let upload = upload("f", "b", &new);
    run.open(&upload, false);
    run.receiver().drop_what_differs(&new).unwrap();
    let (calls, good) = (hook::traced(), run.receiver().progress.good_bytes());
    run.at_most(calls, good);
    run.receive(&new, 2);
    run.note();
    run.receive(&new, 2);
    run.checkpoint();
    run.receive(&new, 1);
    (run.end(&upload), new)
}

/// A size that is shorter than what is there, and grows again.
fn a_shorter_version_between() -> (Cuts, Vec<u8>) {
    let long = bytes(4, SIZE);
    let short = bytes(5, 2 * LEAF + 7);
    let mut run = Run::new();
    run.open(&upload("f", "a", &long), false);
    run.receive(&long, 5);
    run.checkpoint();
    run.open(&upload("f", "b", &short), false);
    run.receiver().progress.lower(0);
    run.checkpoint();
    run.receive(&short, 3);
    run.note();
    let upload = upload("f", "c", &long);
    run.open(&upload, false);
    run.receive(&long, 2);
    run.note();
    (run.end(&upload), long)
}

fn started_over() -> (Cuts, Vec<u8>) {
    let (old, new) = (bytes(6, SIZE), bytes(7, SIZE));
    let mut run = Run::new();
    run.open(&upload("f", "a", &old), false);
    run.receive(&old, 3);
    run.checkpoint();
    run.receive(&old, 2);
    run.note();
    let upload = upload("f", "a", &new);
    run.open(&upload, true);
    run.receive(&new, 2);
    run.note();
    (run.end(&upload), new)
}

/// A segment that was good for one version is overwritten for the next.
fn a_segment_comes_again() -> (Cuts, Vec<u8>) {
    let old = bytes(8, SEGMENT + 3 * LEAF);
    let mut new = bytes(9, SEGMENT);
    new.extend(&old[SEGMENT..]);
    let mut run = Run::new();
    run.open(&upload("f", "a", &old), false);
    run.receive(&old, 66);
    run.checkpoint();
    let upload = upload("f", "b", &new);
    run.open(&upload, false);
    run.receiver().progress.spoil(0);
    run.checkpoint();
    run.receive(&new, 0);
    run.note();
    run.open(&upload, false);
    run.receive(&new, 1);
    run.note();
    (run.end(&upload), new)
}

#[test]
fn after_a_power_cut_nothing_is_claimed_that_is_not_on_the_disk() {
    for (cuts, source) in
        [one_version(), versions_of_other_sizes(), a_shorter_version_between(), started_over()]
    {
        let states = cuts.check(NEW_BOOT, Some(&source)).unwrap();
        assert!(states > 1000, "{states}");
    }
}

#[test]
fn segments_that_come_again_are_not_claimed_half_overwritten() {
    let (cuts, source) = a_segment_comes_again();
    cuts.check_some(NEW_BOOT, Some(&source), 8).unwrap();
}

#[test]
fn a_second_cut_during_recovery_changes_nothing() {
    let (cuts, source) = one_version();
    // The first cut loses what was not synced last; then everything is noted once more.
    let cut = cuts.calls.len();
    let calls = &cuts.calls[..cut];
    let left = unsynced(calls, cuts.journal);
    hook::set_boot(NEW_BOOT);
    let journal = after_cut(calls, cuts.journal, Fate::Bytes(left));
    let data = after_cut(calls, cuts.data, Fate::Zeros(LEAF));
    let name = |ending| cuts.store.own("f", ending);
    fs::write(name("journal"), &journal).unwrap();
    fs::write(name("data"), &data).unwrap();
    hook::start_trace();
    let receiver = cuts.store.open(&cuts.last);
    let good = receiver.progress.good_bytes();
    drop(receiver);
    let write = |inode, bytes| {
        let (offset, bytes) = (0, bytes);
        let write = Call::Write { inode, offset, bytes };
        [write, Call::Sync(inode)]
    };
    let mut calls: Vec<Call> = [write(cuts.data, data), write(cuts.journal, journal)].concat();
    let before = calls.len();
    calls.extend(hook::take_trace());
    let again = Cuts {
        durable: vec![(0, 0), (before, good.min(7 * LEAF_BYTES)), (calls.len(), good)],
        calls,
        ..cuts
    };
    again.check(NEW_BOOT + 1, Some(&source)).unwrap();
    // A process that was killed in the middle of it leaves no torn epoch that would be believed.
    for cut in before..again.calls.len() {
        let left = unsynced(&again.calls[..cut], again.journal);
        for bytes in 0..=left {
            let (journal, data) = (Fate::Bytes(bytes), Fate::Bytes(usize::MAX));
            let calls = &again.calls[..cut];
            again.state(calls, journal, data, NEW_BOOT, 0, None).unwrap();
        }
    }
}

#[test]
fn to_trust_another_boot_would_be_caught() {
    let (cuts, _) = one_version();
    let error = cuts.check(OLD_BOOT, None).unwrap_err();
    assert!(error.contains("claims what is not there"), "{error}");
}

#[test]
fn every_sync_that_is_left_out_would_be_caught() {
    let (cuts, _) = one_version();
    let syncs = |file: u64| {
        let is_sync = move |(_, call): &(usize, &Call)| **call == Call::Sync(file);
        cuts.calls.iter().enumerate().filter(is_sync)
    };
    assert_eq!(syncs(cuts.data).count(), 2);
    assert_eq!(syncs(cuts.journal).count(), 2);
    for (sync, _) in syncs(cuts.data).chain(syncs(cuts.journal)) {
        let seeded = cuts.without(|at, _| at == sync);
        seeded.check(NEW_BOOT, None).unwrap_err();
    }
    for scenario in [versions_of_other_sizes, a_shorter_version_between, started_over] {
        let (cuts, _) = scenario();
        let no_data = cuts.without(|_, call| *call == Call::Sync(cuts.data));
        let no_journal = cuts.without(|_, call| *call == Call::Sync(cuts.journal));
        no_journal.check(NEW_BOOT, None).unwrap_err();
        no_data.check(NEW_BOOT, None).unwrap_err();
    }
}

#[test]
fn a_journal_ahead_of_its_data_would_be_caught() {
    let (cuts, _) = one_version();
    let mut calls = cuts.calls.clone();
    // Each sync of the data comes after that of the journal.
    for at in (0..calls.len()).rev() {
        if calls[at] == Call::Sync(cuts.data) {
            let later = calls[at..].iter().position(|call| *call == Call::Sync(cuts.journal));
            let sync = calls.remove(at);
            calls.insert(at + later.unwrap(), sync);
        }
    }
    let seeded = Cuts { calls, ..cuts };
    let error = seeded.check(NEW_BOOT, None).unwrap_err();
    assert!(error.contains("claims what is not there"), "{error}");
}

#[test]
fn a_killed_process_loses_nothing_that_was_noted() {
    for (cuts, _) in [one_version(), versions_of_other_sizes(), started_over()] {
        for cut in 0..=cuts.calls.len() {
            let calls = &cuts.calls[..cut];
            let all = Fate::Bytes(usize::MAX);
            cuts.state(calls, all, all, OLD_BOOT, 0, None).unwrap();
        }
    }
}

#[test]
fn what_becomes_visible_is_on_the_disk_before_that() {
    hook::start_trace();
    let source = bytes(10, SIZE);
    let store = Store::new();
    store.finish(&upload("f", "a", &source), &source).unwrap();
    let calls = hook::take_trace();
    let rename = calls.iter().position(|call| *call == Call::Rename).unwrap();
    let data = fs::metadata(store.at("f")).unwrap().ino();
    let directory = fs::metadata(store.dir.path()).unwrap().ino();
    assert_eq!(after_cut(&calls[..rename], data, Fate::Bytes(0)), source);
    assert!(calls[rename..].contains(&Call::Sync(directory)));
    // The promise that tells a lost verdict is on the disk before the file has its name.
    let journal = fs::metadata(store.own("f", "journal")).unwrap().ino();
    assert_eq!(unsynced(&calls[..rename], journal), 0);
}
