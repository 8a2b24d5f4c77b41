//! The SIMD kernel: MD5's compression function on many states at once, one in each lane.
//!
//! `fearless_simd` picks the instructions when the program starts and keeps `unsafe` out of this
//! crate. Everything called here has to be inlined, or it is compiled without the instructions that
//! were picked: functions are `#[inline(always)]` and there are no closures (a quarter of the speed).
//! What has to be unrolled is written out, since whether a loop is depends on how the program is
//! built: with loops, fat LTO cost a fifth, and code for size, as releases are, a half.
//!
//! A step of MD5 waits for the one before it, so two vectors of lanes take turns where there are
//! streams enough (measured on an AVX-512 EPYC with bytes that were just read: 16 lanes 6.8 GB/s,
//! twice 16 lanes 9.2; one stream of `md-5` 0.64).

use fearless_simd::{Level, Simd, dispatch, prelude::*, u8x16, u8x64, u32x4, u32x8, u32x16};

use super::state::{Block, Words};

/// The most lanes of all levels: two AVX-512 vectors.
pub(super) const LANES_MAX: usize = 32;

/// The narrowest kernel: one AVX2 vector, or two of SSE or NEON. Two streams are faster in it than
/// one after the other.
const FEW: usize = 8;

/// The lanes of this CPU.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    level: Level,
    /// Lanes of one vector.
    native: usize,
}

impl Lanes {
    pub(super) fn detect() -> Option<Self> {
        let level = Level::new();
        // The words of MD5 have their low byte first, and so must those of the vectors.
        let usable = !level.is_fallback() && cfg!(target_endian = "little");
        usable.then(|| Self { level, native: dispatch!(level, simd => vector_lanes(simd)) })
    }

    /// The most states that [`compress`](Self::compress) takes.
    pub(super) fn count(&self) -> usize {
        FEW.max(2 * self.native)
    }

    /// How many states to hand to [`compress`](Self::compress) for `active` ones: the next number
    /// for which there is a kernel.
    pub(super) fn width(&self, active: usize) -> usize {
        [FEW, self.native].into_iter().find(|&width| active <= width).unwrap_or(2 * self.native)
    }

    /// Compresses into each of `words` its `blocks`, which are equally many for all.
    ///
    /// The number of states is one that [`width`](Self::width) gives.
    pub(super) fn compress(&self, words: &mut [Words], blocks: &[&[Block]]) {
        let level = self.level;
        if words.len() == FEW {
            dispatch!(level, simd => compress::<_, u32x8<_>, 1>(simd, words, blocks));
        } else if words.len() == self.native {
            dispatch!(level, simd => compress_native::<_, 1>(simd, words, blocks));
        } else {
            dispatch!(level, simd => compress_native::<_, 2>(simd, words, blocks));
        }
    }
}

/// A vector with a 32-bit lane for each of `LEN` states.
trait Vector<S: Simd>: SimdInt<S, Element = u32> {
    /// The block at `at` of each of `LEN` streams: a vector for each of its 16 words.
    fn transpose(simd: S, blocks: &[&[Block]], at: usize) -> [Self; 16];
}

impl<S: Simd> Vector<S> for u32x8<S> {
    /// Four words of all blocks at a time: to turn whole blocks, as [`u32x16`] does, takes a third
    /// longer, since AVX2 has no way to exchange words between any two lanes at once.
    #[inline(always)]
    fn transpose(simd: S, blocks: &[&[Block]], at: usize) -> [Self; 16] {
        let [a0, a1, a2, a3] = four_words_of_eight(simd, blocks, at, 0);
        let [b0, b1, b2, b3] = four_words_of_eight(simd, blocks, at, 16);
        let [c0, c1, c2, c3] = four_words_of_eight(simd, blocks, at, 32);
        let [d0, d1, d2, d3] = four_words_of_eight(simd, blocks, at, 48);
        [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3, d0, d1, d2, d3]
    }
}

impl<S: Simd> Vector<S> for u32x16<S> {
    /// Each block is loaded once and whole: the leaves of a stream lie such that their blocks push
    /// one another out of the cache.
    #[inline(always)]
    fn transpose(simd: S, blocks: &[&[Block]], at: usize) -> [Self; 16] {
        let rows = [
            whole(simd, &blocks[0][at]),
            whole(simd, &blocks[1][at]),
            whole(simd, &blocks[2][at]),
            whole(simd, &blocks[3][at]),
            whole(simd, &blocks[4][at]),
            whole(simd, &blocks[5][at]),
            whole(simd, &blocks[6][at]),
            whole(simd, &blocks[7][at]),
            whole(simd, &blocks[8][at]),
            whole(simd, &blocks[9][at]),
            whole(simd, &blocks[10][at]),
            whole(simd, &blocks[11][at]),
            whole(simd, &blocks[12][at]),
            whole(simd, &blocks[13][at]),
            whole(simd, &blocks[14][at]),
            whole(simd, &blocks[15][at]),
        ];
        turn(turn(turn(turn(rows))))
    }
}

/// The sixteen words of a block, side by side.
#[inline(always)]
fn whole<S: Simd>(simd: S, block: &Block) -> u32x16<S> {
    u32x16::from_bytes(u8x64::from_slice(simd, block))
}

/// A place among the words is eight bits, those of the row before those of the column. To interleave
/// the upper rows with the lower ones turns these bits by one: four times, and rows are columns.
#[inline(always)]
fn turn<S: Simd>(rows: [u32x16<S>; 16]) -> [u32x16<S>; 16] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = rows;
    let (a, i) = a.interleave(i);
    let (b, j) = b.interleave(j);
    let (c, k) = c.interleave(k);
    let (d, l) = d.interleave(l);
    let (e, m) = e.interleave(m);
    let (f, n) = f.interleave(n);
    let (g, o) = g.interleave(o);
    let (h, p) = h.interleave(p);
    [a, i, b, j, c, k, d, l, e, m, f, n, g, o, h, p]
}

/// The four words from byte `from` on of eight blocks: a vector for each.
#[inline(always)]
fn four_words_of_eight<S: Simd>(
    simd: S,
    blocks: &[&[Block]],
    at: usize,
    from: usize,
) -> [u32x8<S>; 4] {
    let a = pair(simd, &blocks[0][at], &blocks[1][at], from);
    let b = pair(simd, &blocks[2][at], &blocks[3][at], from);
    let c = pair(simd, &blocks[4][at], &blocks[5][at], from);
    let d = pair(simd, &blocks[6][at], &blocks[7][at], from);
    let ((a, b), (c, d)) = (a.deinterleave(b), c.deinterleave(d));
    let ((a, c), (b, d)) = (a.deinterleave(c), b.deinterleave(d));
    [a, b, c, d]
}

/// Four words of each of two blocks, side by side.
#[inline(always)]
fn pair<S: Simd>(simd: S, low: &Block, high: &Block, from: usize) -> u32x8<S> {
    let low: u32x4<S> = u32x4::from_bytes(u8x16::from_slice(simd, &low[from..from + 16]));
    low.combine(u32x4::from_bytes(u8x16::from_slice(simd, &high[from..from + 16])))
}

#[inline(always)]
fn vector_lanes<S: Simd>(_: S) -> usize {
    S::u32s::LEN
}

/// [`compress`] with `K` of the widest vectors of a level, or with [`FEW`] lanes if that is more.
#[inline(always)]
fn compress_native<S: Simd, const K: usize>(simd: S, words: &mut [Words], blocks: &[&[Block]]) {
    match S::u32s::LEN {
        16 => compress::<_, u32x16<_>, K>(simd, words, blocks),
        8 => compress::<_, u32x8<_>, K>(simd, words, blocks),
        _ => compress::<_, u32x8<_>, 1>(simd, words, blocks),
    }
}

/// Runs `K` vectors of states, one or two, through their blocks.
#[inline(always)]
fn compress<S: Simd, V: Vector<S>, const K: usize>(
    simd: S,
    words: &mut [Words],
    blocks: &[&[Block]],
) {
    const { assert!(K == 1 || K == 2) }
    assert_eq!((words.len(), blocks.len()), (K * V::LEN, K * V::LEN));
    let count = blocks[0].len();
    assert!(blocks.iter().all(|blocks| blocks.len() == count));

    let mut states = [[V::splat(simd, 0); 4]; K];
    for (words, state) in words.chunks_exact(V::LEN).zip(&mut states) {
        *state = [
            gather(simd, words, 0),
            gather(simd, words, 1),
            gather(simd, words, 2),
            gather(simd, words, 3),
        ];
    }
    let mut input = [[V::splat(simd, 0); 16]; K];
    for at in 0..count {
        input[0] = V::transpose(simd, &blocks[..V::LEN], at);
        if K > 1 {
            input[1] = V::transpose(simd, &blocks[V::LEN..], at);
        }
        let before = states;
        round::<S, V, K, 0>(&mut states, &input);
        round::<S, V, K, 1>(&mut states, &input);
        round::<S, V, K, 2>(&mut states, &input);
        round::<S, V, K, 3>(&mut states, &input);
        add(&mut states[0], before[0]);
        if K > 1 {
            add(&mut states[1], before[1]);
        }
    }
    for (words, [a, b, c, d]) in words.chunks_exact_mut(V::LEN).zip(states) {
        for (lane, words) in words.iter_mut().enumerate() {
            *words = [a[lane], b[lane], c[lane], d[lane]];
        }
    }
}

/// One word of each state.
#[inline(always)]
fn gather<S: Simd, V: Vector<S>>(simd: S, states: &[Words], word: usize) -> V {
    let mut lanes = [0; LANES_MAX];
    for (lane, state) in lanes.iter_mut().zip(states) {
        *lane = state[word];
    }
    V::from_slice(simd, &lanes[..V::LEN])
}

#[inline(always)]
fn add<S: Simd, V: Vector<S>>(state: &mut [V; 4], before: [V; 4]) {
    let [a, b, c, d] = before;
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
}

/// Sixteen steps (RFC 1321, 3.4).
#[inline(always)]
fn round<S: Simd, V: Vector<S>, const K: usize, const ROUND: usize>(
    states: &mut [[V; 4]; K],
    input: &[[V; 16]; K],
) {
    four_steps::<S, V, K, ROUND>(states, input, 0);
    four_steps::<S, V, K, ROUND>(states, input, 4);
    four_steps::<S, V, K, ROUND>(states, input, 8);
    four_steps::<S, V, K, ROUND>(states, input, 12);
}

#[inline(always)]
fn four_steps<S: Simd, V: Vector<S>, const K: usize, const ROUND: usize>(
    states: &mut [[V; 4]; K],
    input: &[[V; 16]; K],
    i: usize,
) {
    let [s0, s1, s2, s3] = SHIFTS[ROUND];
    step::<S, V, K, ROUND>(states, input, i, [0, 1, 2, 3], s0);
    step::<S, V, K, ROUND>(states, input, i + 1, [3, 0, 1, 2], s1);
    step::<S, V, K, ROUND>(states, input, i + 2, [2, 3, 0, 1], s2);
    step::<S, V, K, ROUND>(states, input, i + 3, [1, 2, 3, 0], s3);
}

/// Step `i` of a round; A, B, C, D stand at `[a, b, c, d]` of each state.
#[inline(always)]
fn step<S: Simd, V: Vector<S>, const K: usize, const ROUND: usize>(
    states: &mut [[V; 4]; K],
    input: &[[V; 16]; K],
    i: usize,
    places: [usize; 4],
    shift: u32,
) {
    step_of_one::<S, V, ROUND>(&mut states[0], &input[0], i, places, shift);
    if K > 1 {
        step_of_one::<S, V, ROUND>(&mut states[1], &input[1], i, places, shift);
    }
}

#[inline(always)]
fn step_of_one<S: Simd, V: Vector<S>, const ROUND: usize>(
    state: &mut [V; 4],
    input: &[V; 16],
    i: usize,
    [a, b, c, d]: [usize; 4],
    shift: u32,
) {
    let (first, stride) = WORD_ORDER[ROUND];
    let word = (first + stride * i) % 16;
    let mixed = mix::<S, V, ROUND>(state[b], state[c], state[d]);
    let sum = input[word] + SINES[16 * ROUND + i] + state[a] + mixed;
    state[a] = ((sum << shift) | (sum >> (32 - shift))) + state[b];
}

/// The functions F, G, H, I.
#[inline(always)]
fn mix<S: Simd, V: Vector<S>, const ROUND: usize>(b: V, c: V, d: V) -> V {
    match ROUND {
        0 => d ^ (b & (c ^ d)),
        1 => c ^ (d & (b ^ c)),
        2 => b ^ c ^ d,
        _ => c ^ (b | !d),
    }
}

/// The first word of each round, and from each word to the next.
const WORD_ORDER: [(usize, usize); 4] = [(0, 1), (1, 5), (5, 3), (0, 7)];

/// How far the steps of each round rotate, four in turn.
const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];

/// 2^32 times |sin(1)|, |sin(2)|, and so on: the table T.
#[rustfmt::skip]
const SINES: [u32; 64] = [
    0xd76a_a478, 0xe8c7_b756, 0x2420_70db, 0xc1bd_ceee, 0xf57c_0faf, 0x4787_c62a, 0xa830_4613, 0xfd46_9501,
    0x6980_98d8, 0x8b44_f7af, 0xffff_5bb1, 0x895c_d7be, 0x6b90_1122, 0xfd98_7193, 0xa679_438e, 0x49b4_0821,
    0xf61e_2562, 0xc040_b340, 0x265e_5a51, 0xe9b6_c7aa, 0xd62f_105d, 0x0244_1453, 0xd8a1_e681, 0xe7d3_fbc8,
    0x21e1_cde6, 0xc337_07d6, 0xf4d5_0d87, 0x455a_14ed, 0xa9e3_e905, 0xfcef_a3f8, 0x676f_02d9, 0x8d2a_4c8a,
    0xfffa_3942, 0x8771_f681, 0x6d9d_6122, 0xfde5_380c, 0xa4be_ea44, 0x4bde_cfa9, 0xf6bb_4b60, 0xbebf_bc70,
    0x289b_7ec6, 0xeaa1_27fa, 0xd4ef_3085, 0x0488_1d05, 0xd9d4_d039, 0xe6db_99e5, 0x1fa2_7cf8, 0xc4ac_5665,
    0xf429_2244, 0x432a_ff97, 0xab94_23a7, 0xfc93_a039, 0x655b_59c3, 0x8f0c_cc92, 0xffef_f47d, 0x8584_5dd1,
    0x6fa8_7e4f, 0xfe2c_e6e0, 0xa301_4314, 0x4e08_11a1, 0xf753_7e82, 0xbd3a_f235, 0x2ad7_d2bb, 0xeb86_d391,
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Every set of instructions that this CPU has, not only the best.
    fn levels() -> Vec<Level> {
        let best = Level::new();
        let mut levels = vec![best];
        #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
        {
            levels.extend(best.as_avx2().map(Level::Avx2));
            levels.extend(best.as_sse4_2().map(Level::Sse4_2));
            levels.extend(best.as_sse2().map(Level::Sse2));
        }
        levels
    }

    #[test]
    fn every_kernel_of_every_level_agrees_with_md5_from_any_state() {
        let bytes: Vec<u8> = (0..=250).cycle().take(64 * 40).collect();
        let (all, _) = bytes.as_chunks();
        for level in levels() {
            let native = dispatch!(level, simd => vector_lanes(simd));
            let lanes = Lanes { level, native };
            for (width, count) in [(1, 0), (2, 1), (8, 2), (9, 3), (16, 1), (17, 7), (32, 5)] {
                let width = lanes.width(width).min(lanes.count());
                let blocks: Vec<&[Block]> = (0..width).map(|lane| &all[lane..][..count]).collect();
                let mut words: Vec<Words> =
                    (1..).map(|n| [n, !n, n << 9, n * 7]).take(width).collect();
                let mut expected = words.clone();
                for (words, blocks) in expected.iter_mut().zip(&blocks) {
                    md5::block_api::compress(words, blocks);
                }
                lanes.compress(&mut words, &blocks);
                assert_eq!(words, expected, "{level:?}, {width} states, {count} blocks");
            }
        }
    }

    #[test]
    fn the_table_of_sines_is_that_of_rfc_1321() {
        for (i, entry) in (1..=64).zip(SINES) {
            let sine = (f64::from(i).sin().abs() * 4_294_967_296.0).floor();
            assert_eq!(f64::from(entry), sine, "entry {i}");
        }
    }
}
