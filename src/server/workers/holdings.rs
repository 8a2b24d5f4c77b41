//! What homes with a quota hold, as all workers together know it.
//!
//! One worker measures a home while nobody is in it, and tells. From then on each tells what it has
//! itself added and removed since, as one number that only it changes. So what a home holds is
//! what was measured and the sum of these, in whatever order they are heard, and however often.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{HomeState, clock_nanos};
use crate::{
    limits::MEASURE_INTERVAL,
    store::{Change, Ledger, Quota, RootId, Usage},
};

/// The homes. The lock is held for moments only: the loop takes it, too.
#[derive(Debug, Default)]
pub(in crate::server) struct Holdings(Mutex<Entries>);

#[derive(Debug, Default)]
struct Entries {
    homes: HashMap<RootId, Holding>,
    /// Who has connections in which home.
    inside: HashMap<RootId, Vec<u8>>,
}

#[derive(Debug)]
struct Holding {
    /// When it was measured, by the clock that all processes share.
    measured: u64,
    base: Usage,
    /// What this worker counts, once somebody was in it here.
    ledger: Option<Arc<Ledger>>,
    /// What siblings have changed.
    told: HashMap<u8, Change>,
    /// The same of those that are no more.
    gone: [i64; 2],
    /// What siblings know of this worker's.
    published: Option<Change>,
}

impl Holdings {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger of a home, if it was measured not too long ago, or somebody is in it elsewhere: then
    /// it can't be measured.
    pub(in crate::server) fn join(&self, home: RootId) -> Option<Arc<Ledger>> {
        let mut entries = self.lock();
        let is_inside = entries.inside.contains_key(&home);
        let holding = entries.homes.get_mut(&home)?;
        let is_fresh = holding.age(clock_nanos()) < MEASURE_INTERVAL;
        (is_inside || is_fresh).then(|| holding.ledger())
    }

    /// A home was measured, by a walk that began at a time of the shared clock. If a sibling was
    /// quicker, what that one found counts.
    pub(in crate::server) fn settle(&self, home: RootId, found: Usage, began: u64) -> Arc<Ledger> {
        let mut entries = self.lock();
        if let Some(holding) = entries.homes.get_mut(&home).filter(|it| it.measured > began) {
            return holding.ledger();
        }
        let now = clock_nanos();
        entries.tidy(now);
        let mut holding = Holding::new(now, found);
        let ledger = holding.ledger();
        entries.homes.insert(home, holding);
        ledger
    }

    /// A sibling says what it knows. `is_inside`: somebody is in the home here.
    pub(in crate::server) fn hear(
        &self,
        from: u8,
        home: RootId,
        state: &HomeState,
        is_inside: bool,
    ) {
        let mut entries = self.lock();
        let new = || Holding::new(state.measured, state.base);
        let holding = entries.homes.entry(home).or_insert_with(new);
        if state.measured > holding.measured {
            let ledger = holding.ledger.take();
            *holding = new();
            if let Some(ledger) = ledger {
                // Two that measured at the same time; nobody was in it, unless by a hair.
                ledger.rebase(state.base, is_inside);
                holding.ledger = Some(ledger);
            }
        }
        if state.measured == holding.measured {
            holding.told.insert(from, state.change);
            holding.add_up();
        }
    }

    /// A sibling says whether somebody is in a home there.
    pub(in crate::server) fn hear_inside(&self, from: u8, home: RootId, is_inside: bool) {
        let mut entries = self.lock();
        let who = entries.inside.entry(home).or_default();
        who.retain(|&it| it != from);
        if is_inside {
            who.push(from);
        }
        if who.is_empty() {
            entries.inside.remove(&home);
        }
    }

    /// A sibling is no more. What it did stays done, but for what it expected of uploads.
    pub(in crate::server) fn forget(&self, from: u8) {
        let mut entries = self.lock();
        entries.inside.retain(|_, who| {
            who.retain(|&it| it != from);
            !who.is_empty()
        });
        for holding in entries.homes.values_mut() {
            if let Some(Change { bytes, files, claimed }) = holding.told.remove(&from) {
                let [gone_bytes, gone_files] = &mut holding.gone;
                *gone_bytes = gone_bytes.saturating_add(bytes).saturating_sub_unsigned(claimed);
                *gone_files = gone_files.saturating_add(files);
                holding.add_up();
            }
        }
    }

    /// What siblings have to be told: what has changed, or all.
    pub(in crate::server) fn to_tell(&self, all: bool) -> Vec<(RootId, HomeState)> {
        let mut entries = self.lock();
        let told = entries.homes.iter_mut().filter_map(|(home, holding)| {
            let change = holding.ledger.as_ref()?.change_since();
            if !all && holding.published == Some(change) {
                return None;
            }
            holding.published = Some(change);
            let base = holding.base.changed_by(holding.gone);
            Some((*home, HomeState { measured: holding.measured, base, change }))
        });
        told.collect()
    }
}

impl Entries {
    /// Forgets homes that will be measured again before anybody is in them: not as soon as that is
    /// so, since what siblings tell takes its time.
    fn tidy(&mut self, now: u64) {
        self.homes.retain(|home, holding| {
            // Whoever is in it here has the ledger as well.
            let is_used = holding.ledger.as_ref().is_some_and(|it| Arc::strong_count(it) > 1);
            is_used || self.inside.contains_key(home) || holding.age(now) < 2 * MEASURE_INTERVAL
        });
    }
}

impl Holding {
    /// How long ago it was measured.
    fn age(&self, now: u64) -> Duration {
        Duration::from_nanos(now.saturating_sub(self.measured))
    }

    fn new(measured: u64, base: Usage) -> Self {
        let (told, gone) = (HashMap::new(), [0; 2]);
        Self { measured, base, ledger: None, told, gone, published: None }
    }

    fn ledger(&mut self) -> Arc<Ledger> {
        let new = || Arc::new(Ledger::new(Quota::default(), self.base));
        let ledger = Arc::clone(self.ledger.get_or_insert_with(new));
        self.add_up();
        ledger
    }

    /// Tells the ledger what was changed elsewhere.
    fn add_up(&self) {
        let Some(ledger) = &self.ledger else { return };
        let add = |[bytes, files]: [i64; 2], it: &Change| {
            [bytes.saturating_add(it.bytes), files.saturating_add(it.files)]
        };
        ledger.set_elsewhere(self.told.values().fold(self.gone, add));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: RootId = (1, 2);

    fn usage(bytes: u64) -> Usage {
        Usage { bytes, files: 1 }
    }

    /// Each hears what the others have to tell.
    fn exchange(workers: &[&Holdings]) {
        for (from, worker) in (0..).zip(workers) {
            for (home, state) in worker.to_tell(false) {
                for (to, other) in (0..).zip(workers) {
                    if from != to {
                        // Twice is as good as once.
                        other.hear(from, home, &state, true);
                        other.hear(from, home, &state, true);
                    }
                }
            }
        }
    }

    #[test]
    fn what_one_changes_all_know() {
        let [a, b, c] = [(); 3].map(|()| Holdings::default());
        let of_a = a.settle(HOME, usage(100), 0);
        exchange(&[&a, &b, &c]);
        let of_b = b.join(HOME).unwrap();
        of_a.change(usage(30), usage(0));
        of_b.change(usage(0), usage(500));
        exchange(&[&a, &b, &c]);
        let of_c = c.join(HOME).unwrap();
        of_c.change(usage(0), usage(7));
        exchange(&[&a, &b, &c]);
        assert_eq!([of_a, of_b, of_c].map(|ledger| ledger.usage().bytes), [577; 3]);
    }

    #[test]
    fn of_two_that_measure_at_the_same_time_one_counts() {
        let [a, b] = [(); 2].map(|()| Holdings::default());
        let began = clock_nanos();
        let of_a = a.settle(HOME, usage(100), began);
        exchange(&[&a, &b]);
        assert_eq!(b.settle(HOME, usage(160), began).usage(), usage(100), "that one was later");
        let b = Holdings::default();
        let of_b = b.settle(HOME, usage(160), began);
        of_b.change(usage(0), usage(5));
        exchange(&[&a, &b]);
        exchange(&[&a, &b]);
        assert_eq!((of_a.usage().bytes, of_b.usage().bytes), (165, 165));
    }

    #[test]
    fn what_a_worker_did_outlives_it_and_what_it_expected_does_not() {
        let [a, b] = [(); 2].map(|()| Holdings::default());
        let of_a = a.settle(HOME, usage(100), 0);
        exchange(&[&a, &b]);
        let of_b = b.join(HOME).unwrap();
        of_b.change(usage(0), usage(1050));
        of_b.claim(1000);
        exchange(&[&a, &b]);
        assert_eq!(of_a.usage().bytes, 1150);
        a.forget(1);
        assert_eq!(of_a.usage().bytes, 150);
        // Who comes in its place knows it as well.
        let new = Holdings::default();
        a.to_tell(true).iter().for_each(|(home, state)| new.hear(0, *home, state, false));
        assert_eq!(new.join(HOME).unwrap().usage().bytes, 150);
    }

    #[test]
    fn homes_that_nobody_comes_back_to_are_forgotten() {
        let a = Holdings::default();
        let used = a.settle((1, 1), usage(1), 0);
        a.settle((1, 2), usage(1), 0);
        a.settle((1, 3), usage(1), 0);
        a.hear_inside(7, (1, 3), true);
        let known = |later: Duration| {
            let later = u64::try_from(later.as_nanos()).unwrap();
            let mut entries = a.lock();
            entries.tidy(clock_nanos() + later);
            let mut known: Vec<u64> = entries.homes.keys().map(|(_, number)| *number).collect();
            known.sort_unstable();
            known
        };
        assert_eq!(known(MEASURE_INTERVAL), [1, 2, 3]);
        assert_eq!(known(2 * MEASURE_INTERVAL), [1, 3]);
        drop(used);
        a.forget(7);
        assert_eq!(known(2 * MEASURE_INTERVAL), []);
    }

    #[test]
    fn a_home_is_measured_again_only_when_nobody_is_in_it_anywhere() {
        let a = Holdings::default();
        a.lock().homes.insert(HOME, Holding::new(0, usage(1)));
        let is_old = clock_nanos() > u64::try_from(MEASURE_INTERVAL.as_nanos()).unwrap();
        assert_eq!(a.join(HOME).is_none(), is_old);
        a.hear_inside(3, HOME, true);
        assert!(a.join(HOME).is_some());
        a.hear_inside(3, HOME, false);
        assert_eq!(a.join(HOME).is_none(), is_old);
    }
}
