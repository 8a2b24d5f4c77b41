//! The engine: takes `(state, bytes)` jobs from all connections of a turn and hashes them in SIMD
//! lanes, whichever connection they came from.
//!
//! It only decides between lanes and one-at-a-time; the lanes themselves are in `simd` (feature
//! `simd`), and `scalar` stands in for them when the feature is off. It must not hold state between
//! calls: a leaf belongs to its connection, the engine to the loop.

use std::fmt;

#[cfg(not(feature = "simd"))]
use super::scalar as backend;
#[cfg(feature = "simd")]
use super::simd as backend;
use super::{LEAF_LEN, Md5Digest};

/// MD5 of one leaf that may arrive in pieces. About 90 bytes, no heap.
///
/// It does not know how long a leaf is; whoever cuts the stream into leaves does.
#[derive(Clone)]
pub struct LeafState(pub(super) backend::State);

impl LeafState {
    /// A leaf of which nothing has arrived yet.
    #[must_use]
    pub fn new() -> Self {
        Self(backend::State::new())
    }

    /// Bytes hashed so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        backend::len(&self.0)
    }

    /// Whether nothing has arrived yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for LeafState {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for LeafState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeafState").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Bytes that continue one leaf.
pub struct Job<'a> {
    /// The leaf.
    pub state: &'a mut LeafState,
    /// What follows the bytes it already has.
    pub bytes: &'a [u8],
}

impl fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").field("state", &self.state).field("bytes", &self.bytes.len()).finish()
    }
}

/// Hashes many leaves at once. Build one and keep it: building it asks the CPU what it can do.
#[derive(Clone, Debug)]
pub struct Engine {
    /// `None`: one leaf after the other.
    lanes: Option<backend::Lanes>,
}

impl Engine {
    /// An engine with the widest lanes of this CPU, if it has any.
    #[must_use]
    pub fn new() -> Self {
        Self { lanes: backend::Lanes::detect() }
    }

    /// An engine that never uses lanes.
    #[must_use]
    pub fn scalar() -> Self {
        Self { lanes: None }
    }

    /// How many leaves one instruction works on; 1 without lanes.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes.as_ref().map_or(1, backend::Lanes::count)
    }

    /// Runs all `jobs`. Their order in the slice is changed, to bring equal lengths together.
    ///
    /// Any mix of lengths is fine. Lanes pay from two jobs on and are full from
    /// [`lanes`](Self::lanes) jobs on, so collect a turn's jobs into one call.
    pub fn update(&self, jobs: &mut [Job<'_>]) {
        if let Some(lanes) = &self.lanes {
            return lanes.update(jobs);
        }
        for job in jobs {
            job.state.0.update(job.bytes);
        }
    }

    /// The digest of one leaf, which can still be continued afterwards.
    #[must_use]
    pub fn finish(&self, state: &LeafState) -> Md5Digest {
        backend::finish(&state.0)
    }

    /// Appends the digests of `states` to `out`, in their order.
    pub fn finish_many<'a>(
        &self,
        states: impl IntoIterator<Item = &'a LeafState>,
        out: &mut Vec<Md5Digest>,
    ) {
        match &self.lanes {
            Some(lanes) => lanes.finish_many(states.into_iter().map(|state| &state.0), out),
            None => out.extend(states.into_iter().map(|state| self.finish(state))),
        }
    }

    /// Appends to `out` the digests of the leaves in `bytes`, which begin with the first byte of a
    /// leaf. The last leaf may be short; no bytes have no leaf.
    pub fn leaves(&self, bytes: &[u8], out: &mut Vec<Md5Digest>) {
        match &self.lanes {
            Some(lanes) => lanes.leaves(bytes, out),
            None => out.extend(bytes.chunks(LEAF_LEN).map(Md5Digest::of)),
        }
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    /// Bytes that differ from one stream to the next.
    fn stream(seed: usize, len: usize) -> Vec<u8> {
        (0..len).map(|i| u8::try_from((seed * 37 + i * 7 + i / 251) % 256).unwrap()).collect()
    }

    /// Hashes `streams`, each cut into the pieces of `cuts`, one piece of each per turn.
    fn in_turns(engine: &Engine, streams: &[Vec<u8>], cuts: &[Vec<usize>]) -> Vec<Md5Digest> {
        let mut states = vec![LeafState::new(); streams.len()];
        let mut rest: Vec<&[u8]> = streams.iter().map(Vec::as_slice).collect();
        for turn in 0.. {
            let mut jobs = Vec::new();
            for ((state, rest), cuts) in states.iter_mut().zip(&mut rest).zip(cuts) {
                let take = cuts.get(turn).copied().unwrap_or(usize::MAX).min(rest.len());
                let (bytes, after) = rest.split_at(take);
                *rest = after;
                jobs.push(Job { state, bytes });
            }
            engine.update(&mut jobs);
            if rest.iter().all(|rest| rest.is_empty()) {
                break;
            }
        }
        for (state, stream) in states.iter().zip(streams) {
            assert_eq!(state.len(), stream.len() as u64);
        }
        let mut digests = Vec::new();
        engine.finish_many(&states, &mut digests);
        let one_by_one: Vec<_> = states.iter().map(|state| engine.finish(state)).collect();
        assert_eq!(digests, one_by_one);
        digests
    }

    fn by_md5(streams: &[Vec<u8>]) -> Vec<Md5Digest> {
        streams.iter().map(|stream| Md5Digest::of(stream)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn lanes_agree_with_md5_over_any_lengths_and_splits(
            shape in vec((0usize..3_000, vec(0usize..700, 0..6)), 0..110),
        ) {
            let streams: Vec<_> =
                shape.iter().enumerate().map(|(seed, (len, _))| stream(seed, *len)).collect();
            let cuts: Vec<_> = shape.into_iter().map(|(_, cuts)| cuts).collect();
            let expected = by_md5(&streams);
            prop_assert_eq!(in_turns(&Engine::new(), &streams, &cuts), expected.clone());
            prop_assert_eq!(in_turns(&Engine::scalar(), &streams, &cuts), expected);
        }

        #[test]
        fn lanes_agree_with_md5_over_whole_leaves_and_block_aligned_splits(
            shape in vec((0usize..40, vec(0usize..5, 0..4)), 0..60),
        ) {
            let streams: Vec<_> =
                shape.iter().enumerate().map(|(seed, (n, _))| stream(seed, n * 64)).collect();
            let cuts: Vec<Vec<_>> = shape
                .into_iter()
                .map(|(_, cuts)| cuts.into_iter().map(|n| n * 64).collect())
                .collect();
            prop_assert_eq!(in_turns(&Engine::new(), &streams, &cuts), by_md5(&streams));
        }
    }

    #[test]
    fn every_number_of_jobs_from_0_to_200_gives_the_right_digests() {
        for count in 0..=200 {
            let streams: Vec<_> = (0..count).map(|seed| stream(seed, 192 + seed % 3)).collect();
            assert_eq!(in_turns(&Engine::new(), &streams, &vec![vec![]; count]), by_md5(&streams));
        }
    }

    #[test]
    fn one_short_job_among_long_ones_gives_the_right_digests() {
        let mut streams: Vec<_> = (0..33).map(|seed| stream(seed, 65_536)).collect();
        streams[7].truncate(1);
        streams[20].clear();
        let cuts = vec![vec![]; streams.len()];
        assert_eq!(in_turns(&Engine::new(), &streams, &cuts), by_md5(&streams));
    }

    #[test]
    fn leaves_of_a_buffer_are_the_md5_of_its_64_kib_blocks() {
        let leaf = LEAF_LEN;
        let buffer = stream(3, 51 * leaf);
        let lengths = [0, 1, leaf - 1, leaf, leaf + 1, 2 * leaf, 7 * leaf + 63, 16 * leaf];
        for len in lengths.into_iter().chain([48 * leaf, 50 * leaf + 17]) {
            let bytes = &buffer[..len];
            let expected: Vec<_> = bytes.chunks(leaf).map(Md5Digest::of).collect();
            for engine in [Engine::new(), Engine::scalar()] {
                let mut leaves = vec![];
                engine.leaves(bytes, &mut leaves);
                assert_eq!(leaves, expected, "{len} bytes, {} lanes", engine.lanes());
            }
        }
    }

    #[test]
    fn a_finished_leaf_can_be_continued() {
        let engine = Engine::new();
        let mut state = LeafState::new();
        engine.update(&mut [Job { state: &mut state, bytes: b"a" }]);
        assert_eq!(engine.finish(&state), Md5Digest::of(b"a"));
        engine.update(&mut [Job { state: &mut state, bytes: b"bc" }]);
        assert_eq!(engine.finish(&state), Md5Digest::of(b"abc"));
    }

    #[test]
    fn the_scalar_engine_has_one_lane() {
        assert_eq!(Engine::scalar().lanes(), 1);
        assert!(Engine::new().lanes() >= 1);
    }
}
