//! Digests of those segments of a file that are known, which may be any.
//!
//! Little more than 16 bytes for each: 32 neighbours share a block, and blocks of which none is
//! known are not there.

use std::collections::BTreeMap;

use crate::digest::Md5Digest;

/// Segments of a block: one for each bit of [`Block::known`].
const PER_BLOCK: usize = u32::BITS as usize;

/// Digests by the number of their segment.
#[derive(Debug, Default)]
pub(super) struct SegmentDigests {
    blocks: BTreeMap<u64, Box<Block>>,
    count: u64,
}

#[derive(Debug)]
struct Block {
    known: u32,
    /// Those that are not known are zeros.
    digests: [Md5Digest; PER_BLOCK],
}

impl SegmentDigests {
    /// Notes a digest, or replaces it.
    pub(super) fn insert(&mut self, segment: u64, digest: Md5Digest) {
        let (number, bit, at) = place(segment);
        let none = || Box::new(Block { known: 0, digests: [Md5Digest([0; 16]); PER_BLOCK] });
        let block = self.blocks.entry(number).or_insert_with(none);
        self.count += u64::from(block.known & bit == 0);
        block.known |= bit;
        if let Some(slot) = block.digests.get_mut(at) {
            *slot = digest;
        }
    }

    /// Forgets a digest.
    pub(super) fn remove(&mut self, segment: u64) {
        let (number, bit, _) = place(segment);
        if let Some(block) = self.blocks.get_mut(&number) {
            self.count -= u64::from(block.known & bit != 0);
            block.known &= !bit;
            if block.known == 0 {
                self.blocks.remove(&number);
            }
        }
    }

    pub(super) fn get(&self, segment: u64) -> Option<Md5Digest> {
        let (number, bit, at) = place(segment);
        let block = self.blocks.get(&number).filter(|block| block.known & bit != 0)?;
        block.digests.get(at).copied()
    }

    /// How many are known.
    pub(super) const fn count(&self) -> u64 {
        self.count
    }

    /// The segments whose digests are known, in the order of the file.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        self.blocks.iter().flat_map(|(number, block)| {
            let all = (0..PER_BLOCK as u64).filter(|at| block.known >> at & 1 == 1);
            all.map(move |at| number * PER_BLOCK as u64 + at)
        })
    }

    /// Those that are known, in the order of the file.
    pub(super) fn in_order(&self) -> impl Iterator<Item = Md5Digest> {
        self.blocks.values().flat_map(|block| {
            let all = block.digests.iter().enumerate();
            all.filter(|(at, _)| block.known >> at & 1 == 1).map(|(_, digest)| *digest)
        })
    }
}

/// The number of a segment's block, its bit there, and its place.
const fn place(segment: u64) -> (u64, u32, usize) {
    let per_block = PER_BLOCK as u64;
    #[expect(clippy::cast_possible_truncation, reason = "less than 32")]
    let at = (segment % per_block) as usize;
    (segment / per_block, 1 << at, at)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn digest(n: u64) -> Md5Digest {
        Md5Digest::of(&n.to_be_bytes())
    }

    proptest! {
        #[test]
        fn they_are_those_of_a_plain_map(
            steps in vec((any::<bool>(), prop_oneof![0..100u64, u64::MAX - 70..=u64::MAX]), 0..300),
        ) {
            let (mut known, mut plain) = (SegmentDigests::default(), BTreeMap::new());
            for (step, (insert, segment)) in (0..).zip(steps) {
                if insert {
                    known.insert(segment, digest(step));
                    plain.insert(segment, digest(step));
                } else {
                    known.remove(segment);
                    plain.remove(&segment);
                }
                prop_assert_eq!(known.get(segment), plain.get(&segment).copied());
                prop_assert_eq!(known.count(), plain.len() as u64);
            }
            prop_assert_eq!(
                known.in_order().collect::<Vec<_>>(),
                plain.values().copied().collect::<Vec<_>>()
            );
            prop_assert_eq!(
                known.numbers().collect::<Vec<_>>(),
                plain.into_keys().collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_tib_takes_little_more_than_4_mib_and_one_far_segment_one_block() {
        let mut known = SegmentDigests::default();
        known.insert(1 << 40, digest(1));
        assert_eq!(known.blocks.len(), 1);
        let entry = size_of::<Block>() + size_of::<(u64, Box<Block>)>();
        let segments = (1 << 40) / (4 << 20);
        assert!(segments / 32 * entry < 4_500_000, "{entry} bytes for 32 segments");
    }
}
