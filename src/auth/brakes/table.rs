//! A table that never has more than its share: the entry that was quiet for longest makes room.

use std::{
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

/// Entries by key, and by the order in which they were last used.
///
/// Invariant: `order` has exactly the keys of `entries`, each under its entry's turn.
#[derive(Debug)]
pub(super) struct Table<K, V> {
    entries: HashMap<K, (u64, V)>,
    order: BTreeMap<u64, K>,
    turn: u64,
    most: usize,
}

impl<K: Copy + Eq + Hash, V: Default> Table<K, V> {
    /// For at most so many entries.
    pub(super) fn new(most: usize) -> Self {
        Self { entries: HashMap::new(), order: BTreeMap::new(), turn: 0, most }
    }

    /// The entry, if there is one. Looking does not count as use.
    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key).map(|(_, value)| value)
    }

    /// The entry, made if it is absent, as the one used last.
    pub(super) fn touch(&mut self, key: K) -> &mut V {
        if !self.entries.contains_key(&key)
            && self.entries.len() >= self.most
            && let Some((_, oldest)) = self.order.pop_first()
        {
            self.entries.remove(&oldest);
        }
        self.turn += 1;
        let (turn, value) = self.entries.entry(key).or_default();
        self.order.remove(turn);
        *turn = self.turn;
        self.order.insert(self.turn, key);
        value
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, key: &K) {
        if let Some((turn, _)) = self.entries.remove(key) {
            self.order.remove(&turn);
        }
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        assert_eq!(self.entries.len(), self.order.len());
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_quietest_makes_room() {
        let mut table = Table::<u8, u8>::new(3);
        for key in [1, 2, 3, 1] {
            *table.touch(key) += 1;
        }
        table.touch(4);
        assert_eq!(table.get_mut(&2), None);
        assert_eq!(table.get_mut(&1), Some(&mut 2));
        table.remove(&3);
        table.touch(5);
        assert_eq!((table.len(), table.get_mut(&4)), (3, Some(&mut 0)));
    }
}
