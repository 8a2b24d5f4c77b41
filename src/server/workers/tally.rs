//! What is counted here, and in sum over all workers. Pure.

use std::collections::{BTreeMap, HashMap, HashSet, hash_map::Entry};

use super::Key;

/// Counts of this worker, and what its siblings have told of theirs.
///
/// Invariant: `elsewhere` is the sum of what is in `told`, and neither has a zero.
#[derive(Debug, Default)]
pub(in crate::server) struct Tally {
    own: HashMap<Key, u64>,
    elsewhere: HashMap<Key, u64>,
    told: HashMap<u8, HashMap<Key, u64>>,
    /// What has to be told; `None` where there is nobody.
    changed: Option<HashSet<Key>>,
}

impl Tally {
    /// Notes from now on what changes.
    pub(in crate::server) fn share(&mut self) {
        self.changed = Some(self.own.keys().cloned().collect());
    }

    /// One more, unless there are `most` of them already, here and elsewhere.
    pub(in crate::server) fn add(&mut self, key: Key, most: usize) -> bool {
        let own = self.own.get(&key).copied().unwrap_or_default();
        if own.saturating_add(self.elsewhere(&key)) >= most as u64 {
            return false;
        }
        self.set(key, own + 1);
        true
    }

    /// One less.
    pub(in crate::server) fn take(&mut self, key: Key) {
        if let Some(own) = self.own.get(&key) {
            self.set(key, own - 1);
        }
    }

    /// So many are there.
    pub(in crate::server) fn set(&mut self, key: Key, count: u64) {
        if self.own(&key) == count {
            return;
        }
        if let Some(changed) = &mut self.changed {
            changed.insert(key.clone());
        }
        set(&mut self.own, key, count);
    }

    /// So many are there of each action, and none of any other.
    pub(in crate::server) fn set_actions(&mut self, running: BTreeMap<String, usize>, all: usize) {
        let actions = self.own.keys().filter(|key| matches!(key, Key::Action(_)));
        let before: Vec<Key> = actions.cloned().collect();
        let over = before.into_iter().map(|key| (key, 0));
        let now = running.into_iter().map(|(name, count)| (Key::Action(name), count));
        for (key, count) in over.chain(now).chain([(Key::Actions, all)]) {
            self.set(key, count as u64);
        }
    }

    /// How many the siblings have.
    pub(in crate::server) fn elsewhere(&self, key: &Key) -> u64 {
        self.elsewhere.get(key).copied().unwrap_or_default()
    }

    /// How many this worker has.
    pub(in crate::server) fn own(&self, key: &Key) -> u64 {
        self.own.get(key).copied().unwrap_or_default()
    }

    /// A sibling has so many.
    pub(in crate::server) fn hear(&mut self, from: u8, key: Key, count: u64) {
        let told = self.told.entry(from).or_default();
        let before = told.get(&key).copied().unwrap_or_default();
        set(told, key.clone(), count);
        let sum = self.elsewhere(&key).saturating_sub(before).saturating_add(count);
        set(&mut self.elsewhere, key, sum);
    }

    /// A sibling has none of all that it told.
    pub(in crate::server) fn forget(&mut self, from: u8) {
        for (key, count) in self.told.remove(&from).unwrap_or_default() {
            let sum = self.elsewhere(&key).saturating_sub(count);
            set(&mut self.elsewhere, key, sum);
        }
    }

    /// What has changed since this was asked last.
    pub(in crate::server) fn changes(&mut self) -> Vec<(Key, u64)> {
        let changed = self.changed.as_mut().map(std::mem::take).unwrap_or_default();
        changed.into_iter().map(|key| (key.clone(), self.own(&key))).collect()
    }

    /// All that is counted here.
    pub(in crate::server) fn all(&self) -> impl Iterator<Item = (Key, u64)> {
        self.own.iter().map(|(key, count)| (key.clone(), *count))
    }
}

fn set(counts: &mut HashMap<Key, u64>, key: Key, count: u64) {
    match counts.entry(key) {
        Entry::Occupied(entry) if count == 0 => drop(entry.remove()),
        Entry::Occupied(mut entry) => *entry.get_mut() = count,
        Entry::Vacant(_) if count == 0 => {}
        Entry::Vacant(entry) => drop(entry.insert(count)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key::Connections;

    #[test]
    fn a_limit_counts_those_of_all_workers() {
        let mut tally = Tally::default();
        tally.hear(1, KEY, 2);
        tally.hear(2, KEY, 1);
        assert!(tally.add(KEY, 5) && tally.add(KEY, 5) && !tally.add(KEY, 5));
        // Told once more, or anew, it is no more than it was.
        tally.hear(1, KEY, 2);
        tally.hear(1, KEY, 1);
        assert!(tally.add(KEY, 5) && !tally.add(KEY, 5));
        tally.forget(1);
        assert!(tally.add(KEY, 5) && !tally.add(KEY, 5));
        tally.take(KEY);
        assert!(tally.add(KEY, 5) && !tally.add(KEY, 5));
    }

    #[test]
    fn an_action_that_is_over_counts_no_longer() {
        let mut tally = Tally::default();
        tally.share();
        let running = |name: &str| BTreeMap::from([(name.to_owned(), 2)]);
        tally.set_actions(running("a"), 3);
        assert_eq!(tally.changes().len(), 2);
        tally.set_actions(running("b"), 3);
        let mut changes = tally.changes();
        changes.sort_by_key(|(_, count)| *count);
        assert_eq!(changes, [("a", 0), ("b", 2)].map(|(it, n)| (Key::Action(it.to_owned()), n)));
    }

    #[test]
    fn what_is_over_takes_no_memory() {
        let mut tally = Tally::default();
        tally.share();
        tally.add(KEY, 9);
        tally.hear(1, KEY, 2);
        assert_eq!(tally.changes(), [(KEY, 1)]);
        tally.take(KEY);
        tally.hear(1, KEY, 0);
        assert_eq!(tally.changes(), [(KEY, 0)]);
        assert_eq!(tally.changes(), []);
        assert!(tally.own.is_empty() && tally.elsewhere.is_empty());
        tally.hear(1, KEY, 2);
        tally.forget(1);
        assert!(tally.elsewhere.is_empty());
    }
}
