//! `md5-tree`: the digest that proves a file, in a shape that can be computed in lanes, checked
//! piece by piece and continued.
//!
//! Definition, to the byte:
//!
//! - A *leaf* is the MD5 of 32 KiB (32,768 bytes) of the file. Leaves lie side by side from its
//!   first byte; only the last may be shorter, and none is empty.
//! - A *segment* is 4 MiB (4,194,304 bytes) of the file, 128 leaves; only the last may be shorter,
//!   and none is empty. Its digest is the MD5 of its leaf digests in the order of the file, each
//!   as its 16 raw bytes, nothing between or after them.
//! - The *root* is the MD5 of all segment digests in the order of the file, each as its 16 raw
//!   bytes, and then the length of the file in bytes as an unsigned 64-bit big-endian number.
//!
//! An empty file has no segments: its root is the MD5 of eight zero bytes. The root over a prefix
//! is the root of a file that ends there.
//!
//! This file must not look at where leaves come from: a stream in order ([`TreeHasher`]) and leaves
//! that finish in any order ([`SegmentLeaves`]) give the same digests.

use std::mem;

use md5::Digest as _;

use super::engine::{Engine, LeafState};
use super::{LEAF_BYTES, LEAF_LEN, LEAVES_PER_SEGMENT, Md5Digest, SEGMENT_BYTES};

/// The digest of a segment from its leaf digests, of which it has 1 to [`LEAVES_PER_SEGMENT`].
#[must_use]
pub fn segment_digest(leaves: &[Md5Digest]) -> Md5Digest {
    debug_assert!((1..=LEAVES_PER_SEGMENT).contains(&leaves.len()));
    let mut md5 = md5::Md5::new();
    for leaf in leaves {
        md5.update(leaf.0);
    }
    Md5Digest(md5.finalize().into())
}

/// The root, from segment digests in the order of the file.
///
/// Clone it to take the root over a prefix and go on.
#[derive(Clone, Debug, Default)]
pub struct RootHasher {
    md5: md5::Md5,
}

impl RootHasher {
    /// Of a file with no segments yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the digest of the next segment.
    pub fn push(&mut self, segment: Md5Digest) {
        self.md5.update(segment.0);
    }

    /// The root of a file of `length` bytes whose segments are those pushed.
    #[must_use]
    pub fn finish(mut self, length: u64) -> Md5Digest {
        self.md5.update(length.to_be_bytes());
        Md5Digest(self.md5.finalize().into())
    }
}

/// What a [`TreeHasher`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The root.
    pub root: Md5Digest,
    /// The length of the file in bytes.
    pub length: u64,
}

/// The tree of one file whose bytes come in order, in pieces of any size.
///
/// Only whole leaves inside one piece go through lanes: pieces that are a multiple of 1 MiB are
/// the fastest. It remembers 16 bytes per segment for [`segments`](Self::segments).
#[derive(Clone, Debug, Default)]
pub struct TreeHasher {
    /// The leaf in progress. Invariant: shorter than [`LEAF_BYTES`].
    leaf: LeafState,
    /// Finished leaves of the segment in progress. Invariant: fewer than [`LEAVES_PER_SEGMENT`].
    leaves: Vec<Md5Digest>,
    /// Finished segments.
    segments: Vec<Md5Digest>,
    length: u64,
}

impl TreeHasher {
    /// At the start of a file.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends the bytes that follow.
    pub fn update(&mut self, engine: &Engine, bytes: &[u8]) {
        self.length += bytes.len() as u64;

        let (head, rest) = bytes.split_at(self.to_next_leaf().min(bytes.len()));
        engine.update(&mut [self.leaf.job(head)]);
        if self.leaf.len() == LEAF_BYTES {
            self.leaves.push(mem::take(&mut self.leaf).finish());
            self.close_segments();
        }

        let (whole, tail) = rest.split_at(rest.len() - rest.len() % LEAF_LEN);
        engine.leaves(whole, &mut self.leaves);
        self.close_segments();
        engine.update(&mut [self.leaf.job(tail)]);
    }

    /// Digests of the whole segments so far; one that is still open is not among them.
    #[must_use]
    pub fn segments(&self) -> &[Md5Digest] {
        &self.segments
    }

    /// The root and the length of the file that ends here.
    #[must_use]
    pub fn finish(mut self) -> Tree {
        if !self.leaf.is_empty() {
            self.leaves.push(self.leaf.finish());
        }
        if !self.leaves.is_empty() {
            self.segments.push(segment_digest(&self.leaves));
        }
        let mut root = RootHasher::new();
        for segment in self.segments {
            root.push(segment);
        }
        Tree { root: root.finish(self.length), length: self.length }
    }

    /// Bytes missing to the leaf in progress; 0 if none is in progress.
    fn to_next_leaf(&self) -> usize {
        if self.leaf.is_empty() {
            return 0;
        }
        usize::try_from(LEAF_BYTES.saturating_sub(self.leaf.len())).unwrap_or(0)
    }

    fn close_segments(&mut self) {
        let whole = self.leaves.chunks_exact(LEAVES_PER_SEGMENT);
        let open = whole.remainder().len();
        self.segments.extend(whole.map(segment_digest));
        self.leaves.drain(..self.leaves.len() - open);
    }
}

/// Leaf digests of one segment, put together in any order. About 2 KiB, no heap.
#[derive(Clone, Debug)]
pub struct SegmentLeaves {
    leaves: [Option<Md5Digest>; LEAVES_PER_SEGMENT],
    /// Leaves this segment has; 0 if there is no such segment.
    count: usize,
    /// How many of them are not there yet.
    missing: usize,
}

impl SegmentLeaves {
    /// Of a segment of `segment_len_bytes`, 1 to [`SEGMENT_BYTES`].
    ///
    /// For any other length there is no segment: it has no leaves and is never complete.
    #[must_use]
    pub fn new(segment_len_bytes: u64) -> Self {
        debug_assert!((1..=SEGMENT_BYTES).contains(&segment_len_bytes));
        let count = usize::try_from(segment_len_bytes.div_ceil(LEAF_BYTES)).unwrap_or(0);
        let count = if count > LEAVES_PER_SEGMENT { 0 } else { count };
        Self { leaves: [None; LEAVES_PER_SEGMENT], count, missing: count }
    }

    /// Notes the digest of a leaf, or replaces it. An index beyond the segment is ignored.
    pub fn set(&mut self, leaf_index: usize, digest: Md5Digest) {
        let leaf = self.leaves.iter_mut().take(self.count).nth(leaf_index);
        debug_assert!(leaf.is_some(), "leaf {leaf_index} of {}", self.count);
        if let Some(leaf) = leaf {
            self.missing -= usize::from(leaf.is_none());
            *leaf = Some(digest);
        }
    }

    /// The digest of a leaf, if it is there.
    #[must_use]
    pub fn leaf(&self, leaf_index: usize) -> Option<Md5Digest> {
        self.leaves.get(leaf_index).copied().flatten()
    }

    /// The digest of the segment, once all its leaves are there. Before, it costs nothing to ask.
    #[must_use]
    pub fn complete(&self) -> Option<Md5Digest> {
        if self.count == 0 || self.missing > 0 {
            return None;
        }
        let mut md5 = md5::Md5::new();
        for leaf in self.leaves.iter().take(self.count) {
            md5.update((*leaf)?.0);
        }
        Some(Md5Digest(md5.finalize().into()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const SEGMENT_LEN: usize = LEAF_LEN * LEAVES_PER_SEGMENT;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from(i % 251).unwrap()).collect()
    }

    fn tree_in_pieces(engine: &Engine, mut bytes: &[u8], cuts: &[usize]) -> Tree {
        let mut hasher = TreeHasher::new();
        for cut in cuts {
            let (piece, rest) = bytes.split_at((*cut).min(bytes.len()));
            hasher.update(engine, piece);
            bytes = rest;
        }
        hasher.update(engine, bytes);
        hasher.finish()
    }

    /// The definition, word for word.
    fn root_by_definition(bytes: &[u8]) -> Md5Digest {
        let mut root = vec![];
        for segment in bytes.chunks(SEGMENT_LEN) {
            let leaves: Vec<u8> =
                segment.chunks(LEAF_LEN).flat_map(|leaf| Md5Digest::of(leaf).0).collect();
            root.extend(Md5Digest::of(&leaves).0);
        }
        root.extend((bytes.len() as u64).to_be_bytes());
        Md5Digest::of(&root)
    }

    /// Computed by a Python script with `hashlib`, not by this code; in `docs/protocol.md` too.
    #[test]
    fn published_vectors_hold() {
        let vectors = [
            (vec![], "7dea362b3fac8e00956a4952a3d4f474"),
            (b"a".to_vec(), "74c0a353e46e16e00f34d625ad97f655"),
            (vec![0; LEAF_LEN], "62ff043dec2e25a935b522fb9056d619"),
            (vec![0; LEAF_LEN + 1], "066b647ce6439aa6e52b5ba9d24ef60d"),
            (vec![0; SEGMENT_LEN], "3b8165f738b41686bed6af234d8a7c9a"),
            (pattern(SEGMENT_LEN + 1), "77a8639b170b9ca3079774424b277351"),
            (pattern(9 * 1024 * 1024 + 12_345), "d2f5defd0bb2631d3735021a31609c51"),
        ];
        for (bytes, root) in vectors {
            let expected = Tree { root: root.parse().unwrap(), length: bytes.len() as u64 };
            for engine in [Engine::new(), Engine::scalar()] {
                assert_eq!(tree_in_pieces(&engine, &bytes, &[]), expected);
                assert_eq!(tree_in_pieces(&engine, &bytes, &[1, 32_767, 1 << 20]), expected);
            }
        }
    }

    #[test]
    fn published_segment_digests_hold() {
        let mut hasher = TreeHasher::new();
        hasher.update(&Engine::new(), &pattern(9 * 1024 * 1024 + 12_345));
        let segments: Vec<_> = hasher.segments().iter().map(Md5Digest::to_string).collect();
        assert_eq!(
            segments,
            ["6b98fbda312c59602087be37d9a2eef8", "b5fbdb4ef979f0cc769c2418e35674cd"]
        );
        assert_eq!(
            segment_digest(&[Md5Digest::of(b"a")]).to_string(),
            "b6ff9a06b7e20bcb2858c5b8ff744aea"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn pieces_never_change_the_tree(
            len in 0usize..(2 * SEGMENT_LEN + LEAF_LEN),
            cuts in vec(0usize..400_000, 0..12),
        ) {
            let bytes = pattern(len);
            let expected = Tree { root: root_by_definition(&bytes), length: len as u64 };
            prop_assert_eq!(tree_in_pieces(&Engine::new(), &bytes, &cuts), expected);
        }

        #[test]
        fn leaves_in_any_order_give_the_same_segment(
            len in 1usize..=SEGMENT_LEN,
            order in Just((0..LEAVES_PER_SEGMENT).collect::<Vec<_>>()).prop_shuffle(),
        ) {
            let leaves: Vec<_> = pattern(len).chunks(LEAF_LEN).map(Md5Digest::of).collect();
            let mut segment = SegmentLeaves::new(len as u64);
            for index in order {
                let Some(&leaf) = leaves.get(index) else { continue };
                prop_assert_eq!(segment.complete(), None);
                prop_assert_eq!(segment.leaf(index), None);
                segment.set(index, leaf);
                prop_assert_eq!(segment.leaf(index), Some(leaf));
            }
            prop_assert_eq!(segment.complete(), Some(segment_digest(&leaves)));
        }
    }

    #[test]
    fn a_cloned_root_hasher_gives_the_root_over_the_prefix() {
        let bytes = pattern(SEGMENT_LEN + 5);
        let mut whole = TreeHasher::new();
        whole.update(&Engine::new(), &bytes);

        let mut root = RootHasher::new();
        root.push(whole.segments()[0]);
        let prefix = root.clone().finish(SEGMENT_BYTES);
        assert_eq!(prefix, root_by_definition(&bytes[..SEGMENT_LEN]));

        root.push(segment_digest(&[Md5Digest::of(&bytes[SEGMENT_LEN..])]));
        assert_eq!(root.finish(bytes.len() as u64), whole.finish().root);
    }

    #[test]
    fn the_length_is_part_of_the_root() {
        let root = RootHasher::new();
        assert_ne!(root.clone().finish(0), root.finish(1));
    }

    #[test]
    fn a_segment_has_a_leaf_for_each_32_kib_begun() {
        for (len, leaves) in [(1, 1), (LEAF_BYTES, 1), (LEAF_BYTES + 1, 2), (SEGMENT_BYTES, 128)] {
            let mut segment = SegmentLeaves::new(len);
            for index in 0..leaves {
                assert_eq!(segment.complete(), None, "{len} bytes");
                segment.set(index, Md5Digest::of(b"another"));
                segment.set(index, Md5Digest::of(b"leaf"));
            }
            assert!(segment.complete().is_some(), "{len} bytes");
        }
    }

    #[test]
    fn a_segment_in_progress_takes_little_over_2_kib() {
        assert!(size_of::<SegmentLeaves>() <= 2_200);
    }
}
