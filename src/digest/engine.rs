//! The engine: takes jobs, each with a state and the bytes that follow, from all connections of a
//! turn and hashes them in SIMD lanes, whichever connection they came from and whether they are
//! leaves or whole files.
//!
//! It only decides between lanes and one at a time; who runs in which lane is in `lockstep`, the
//! lanes themselves in `simd` (feature `simd`). It must not hold state between calls: a state
//! belongs to its connection, the engine to the loop.

use std::{fmt, iter, option, vec};

use md5::block_api::compress;

use super::{
    FileMd5, LEAF_LEN, Md5Digest, SavedMd5,
    backend::Lanes,
    lockstep,
    state::{Block, State},
};

/// MD5 of one leaf that may arrive in pieces. 88 bytes, no heap.
///
/// It does not know how long a leaf is; whoever cuts the stream into leaves does.
#[derive(Clone)]
pub struct LeafState(State);

impl LeafState {
    /// A leaf of which nothing has arrived yet.
    #[must_use]
    pub fn new() -> Self {
        Self(State::new())
    }

    /// Bytes hashed so far.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.0.len()
    }

    /// Whether nothing has arrived yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The job to append the bytes that follow.
    pub fn job<'a>(&'a mut self, bytes: &'a [u8]) -> Job<'a> {
        Job::new(&mut self.0, bytes)
    }

    /// The digest, without lanes. The leaf can still be continued afterwards.
    #[must_use]
    pub fn finish(&self) -> Md5Digest {
        self.0.finish()
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

/// Bytes that continue one MD5: see [`LeafState::job`] and [`FileMd5::job`].
pub struct Job<'a> {
    pub(super) state: &'a mut State,
    /// What was not begun yet, in order.
    pieces: iter::Chain<option::IntoIter<&'a [u8]>, vec::IntoIter<&'a [u8]>>,
    len: usize,
    /// Where to note the state between two pieces.
    kept: Option<&'a mut Vec<SavedMd5>>,
    begun: bool,
}

impl<'a> Job<'a> {
    pub(super) fn new(state: &'a mut State, bytes: &'a [u8]) -> Self {
        // Most jobs are one piece: an empty Vec is no memory.
        let pieces = Some(bytes).into_iter().chain(Vec::new());
        Self { state, pieces, len: bytes.len(), kept: None, begun: false }
    }

    pub(super) fn in_pieces(
        state: &'a mut State,
        pieces: Vec<&'a [u8]>,
        kept: &'a mut Vec<SavedMd5>,
    ) -> Self {
        let len = pieces.iter().map(|piece| piece.len()).sum();
        let pieces = None.into_iter().chain(pieces);
        Self { state, pieces, len, kept: Some(kept), begun: false }
    }

    /// Bytes of all pieces.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The next whole blocks, to be compressed before this is called again. `None` at the end.
    pub(super) fn next_blocks(&mut self) -> Option<&'a [Block]> {
        loop {
            self.keep();
            let blocks = self.state.take(self.pieces.next()?);
            self.begun = true;
            if !blocks.is_empty() {
                return Some(blocks);
            }
        }
    }

    /// Notes the state at the end of a piece, if it can be saved there.
    fn keep(&mut self) {
        if let Some(kept) = self.kept.as_mut().filter(|_| self.begun) {
            kept.extend(FileMd5::saved(self.state));
        }
    }

    fn run_alone(&mut self) {
        while let Some(blocks) = self.next_blocks() {
            compress(&mut self.state.words, blocks);
        }
    }
}

impl fmt::Debug for Job<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, len, .. } = self;
        f.debug_struct("Job").field("at", &state.len()).field("bytes", len).finish_non_exhaustive()
    }
}

/// Hashes many streams at once. Build one and keep it: building it asks the CPU what it can do.
#[derive(Clone, Debug)]
pub struct Engine {
    /// `None`: one stream after the other.
    lanes: Option<Lanes>,
}

impl Engine {
    /// An engine with the widest lanes of this CPU, if it has any.
    #[must_use]
    pub fn new() -> Self {
        Self { lanes: Lanes::detect() }
    }

    /// An engine that never uses lanes.
    #[must_use]
    pub fn scalar() -> Self {
        Self { lanes: None }
    }

    /// How many streams run together at most; 1 without lanes.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes.as_ref().map_or(1, Lanes::count)
    }

    /// Runs all `jobs`. Their order in the slice is changed: the longest begin first.
    ///
    /// Any mix of lengths is fine. Lanes pay from two jobs on and are full from
    /// [`lanes`](Self::lanes) jobs on, so collect a turn's jobs into one call.
    pub fn update(&self, jobs: &mut [Job<'_>]) {
        match &self.lanes {
            Some(lanes) => lockstep::run(lanes, jobs),
            None => jobs.iter_mut().for_each(Job::run_alone),
        }
    }

    /// Appends the digests of `states` to `out`, in their order. The leaves can still be continued
    /// afterwards.
    pub fn finish_many<'a>(
        &self,
        states: impl IntoIterator<Item = &'a LeafState>,
        out: &mut Vec<Md5Digest>,
    ) {
        let states = states.into_iter().map(|leaf| (leaf.0, leaf.0.padding()));
        let mut states: Vec<_> = states.collect();
        let jobs = states.iter_mut().map(|(state, padding)| Job::new(state, padding.as_bytes()));
        self.update(&mut jobs.collect::<Vec<_>>());
        out.extend(states.iter().map(|(state, _)| state.digest()));
    }

    /// Appends to `out` the digests of the leaves in `bytes`, which begin with the first byte of a
    /// leaf. The last leaf may be short; no bytes have no leaf.
    pub fn leaves(&self, bytes: &[u8], out: &mut Vec<Md5Digest>) {
        let leaves = bytes.chunks(LEAF_LEN);
        let mut states = vec![LeafState::new(); leaves.len()];
        let jobs = states.iter_mut().zip(leaves).map(|(state, leaf)| state.job(leaf));
        self.update(&mut jobs.collect::<Vec<_>>());
        self.finish_many(&states, out);
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
                jobs.push(state.job(bytes));
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
        let one_by_one: Vec<_> = states.iter().map(LeafState::finish).collect();
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

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn whole_files_beside_leaves_agree_with_md5_wherever_they_are_cut_and_saved(
            files in vec((0usize..2_000, vec(vec(0usize..500, 0..4), 0..5), 0usize..6), 0..80),
            leaves in vec(0usize..3_000, 0..20),
        ) {
            for engine in [Engine::new(), Engine::scalar()] {
                let leaf_bytes: Vec<_> = leaves.iter().map(|len| stream(3, *len)).collect();
                let mut states = vec![LeafState::new(); leaves.len()];
                let lens = files.iter().map(|(rest, turns, _)| rest + turns.concat().iter().sum::<usize>());
                let bytes: Vec<_> = lens.enumerate().map(|(seed, len)| stream(seed, len)).collect();
                let mut md5s = vec![FileMd5::new(); files.len()];
                let mut kept: Vec<Vec<SavedMd5>> = vec![vec![]; files.len()];

                for turn in 0..6 {
                    let mut jobs = Vec::new();
                    for ((md5, kept), (bytes, (_, turns, restore))) in
                        md5s.iter_mut().zip(&mut kept).zip(bytes.iter().zip(&files))
                    {
                        // As after a restart: from what was saved last, what followed again.
                        if turn == *restore && let Some(saved) = kept.last() {
                            *md5 = FileMd5::restore(*saved).unwrap();
                        }
                        let mut rest = &bytes[usize::try_from(md5.position()).unwrap()..];
                        let mut pieces = vec![];
                        if let Some(lens) = turns.get(turn) {
                            for len in lens {
                                let piece;
                                (piece, rest) = rest.split_at((*len).min(rest.len()));
                                pieces.push(piece);
                            }
                        } else {
                            pieces.push(rest);
                        }
                        jobs.push(md5.job_in_pieces(pieces, kept));
                    }
                    if turn == 1 {
                        let leaves = states.iter_mut().zip(&leaf_bytes);
                        jobs.extend(leaves.map(|(state, bytes)| state.job(bytes)));
                    }
                    engine.update(&mut jobs);
                }

                for ((md5, kept), bytes) in md5s.into_iter().zip(kept).zip(&bytes) {
                    prop_assert_eq!(md5.finish(), Md5Digest::of(bytes));
                    for saved in kept {
                        let at = usize::try_from(saved.position).unwrap();
                        let mut md5 = FileMd5::new();
                        md5.update(&bytes[..at]);
                        prop_assert_eq!(Some(saved), md5.save());
                        let mut rest = FileMd5::restore(saved).unwrap();
                        engine.update(&mut [rest.job(&bytes[at..])]);
                        prop_assert_eq!(rest.finish(), Md5Digest::of(bytes));
                    }
                }
                for (state, bytes) in states.iter().zip(&leaf_bytes) {
                    prop_assert_eq!(state.finish(), Md5Digest::of(bytes));
                }
            }
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
    fn leaves_of_a_buffer_are_the_md5_of_its_32_kib_blocks() {
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
        engine.update(&mut [state.job(b"a")]);
        assert_eq!(state.finish(), Md5Digest::of(b"a"));
        engine.update(&mut [state.job(b"bc")]);
        assert_eq!(state.finish(), Md5Digest::of(b"abc"));
    }

    #[test]
    fn the_scalar_engine_has_one_lane() {
        assert_eq!(Engine::scalar().lanes(), 1);
        assert!(Engine::new().lanes() >= 1);
    }
}
