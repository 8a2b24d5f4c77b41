//! SIMD lanes: `md5-many`, fed only the shapes in which it is fast.
//!
//! `Md5Many::update_many` takes any mix of streams, but (0.1.0-alpha.4, measured on an AVX-512 EPYC)
//! it is at full speed only for streams that stand at a block boundary, get equally many blocks, and
//! are as many as a multiple of the native lanes: 16 streams run at 6 GB/s, 15 at 1.5 and 6 at 0.2,
//! slower than one at a time. So this module cuts each job at the block boundaries, sorts by length,
//! runs all streams in lockstep up to the end of the shortest, drops that one, and so on; lanes that
//! have no stream repeat another's work, and the result is thrown away.
//!
//! All scratch is on the stack. Nothing here allocates but the digests appended for the caller.

use std::cmp::Reverse;

use md5_many::Md5Many;
pub(super) use md5_many::Md5State as State;

use super::engine::Job;
use super::{LEAF_LEN, Md5Digest};

/// Streams that run together: three AVX-512 groups, the widest kernel of `md5-many`.
const GROUP: usize = 48;

/// Up to this many streams, the 8-lane kernel is faster than a half empty 16-lane one.
const FEW: usize = 8;

/// Bytes that MD5 takes at a time.
const BLOCK: usize = 64;

pub(super) fn len(state: &State) -> u64 {
    state.bytes_hashed()
}

pub(super) fn finish(state: &State) -> Md5Digest {
    Md5Digest(state.finalize())
}

/// The lanes of this CPU.
#[derive(Clone, Debug)]
pub(super) struct Lanes {
    many: Md5Many,
}

impl Lanes {
    pub(super) fn detect() -> Option<Self> {
        let many = Md5Many::new();
        (many.lanes() > 1).then_some(Self { many })
    }

    pub(super) fn count(&self) -> usize {
        self.many.lanes()
    }

    pub(super) fn update(&self, jobs: &mut [Job<'_>]) {
        // Neighbours in a group should end together; see `run`.
        jobs.sort_unstable_by_key(|job| Reverse(Cut::of(job).body.len()));
        for group in jobs.chunks_mut(GROUP) {
            self.update_group(group);
        }
    }

    pub(super) fn finish_many<'a>(
        &self,
        mut states: impl Iterator<Item = &'a State>,
        out: &mut Vec<Md5Digest>,
    ) {
        loop {
            let mut group = [State::new(); GROUP];
            let mut count = 0;
            for (slot, state) in group.iter_mut().zip(&mut states) {
                *slot = *state;
                count += 1;
            }
            if count == 0 {
                return;
            }
            self.finish_group(&group, count, out);
        }
    }

    pub(super) fn leaves(&self, bytes: &[u8], out: &mut Vec<Md5Digest>) {
        for group in bytes.chunks(GROUP * LEAF_LEN) {
            let mut states = [State::new(); GROUP];
            let mut bodies: [&[u8]; GROUP] = [&[]; GROUP];
            let leaves = group.chunks(LEAF_LEN);
            let count = leaves.len();
            let mut tail: &[u8] = &[];
            for (body, leaf) in bodies.iter_mut().zip(leaves) {
                // Only the last leaf of all can have a tail.
                (*body, tail) = leaf.split_at(whole_blocks(leaf.len()));
            }
            self.run(&mut states[..count], &bodies[..count]);
            if let Some(last) = states[..count].last_mut() {
                last.update(tail);
            }
            self.finish_group(&states, count, out);
        }
    }

    fn update_group(&self, jobs: &mut [Job<'_>]) {
        let count = jobs.len();
        let mut states = [State::new(); GROUP];
        let mut bodies: [&[u8]; GROUP] = [&[]; GROUP];
        let mut tails: [&[u8]; GROUP] = [&[]; GROUP];
        for (slot, job) in jobs.iter_mut().enumerate() {
            let cut = Cut::of(job);
            job.state.0.update(cut.head);
            states[slot] = job.state.0;
            bodies[slot] = cut.body;
            tails[slot] = cut.tail;
        }
        self.run(&mut states[..count], &bodies[..count]);
        for (slot, job) in jobs.iter_mut().enumerate() {
            job.state.0 = states[slot];
            job.state.0.update(tails[slot]);
        }
    }

    /// Continues each of `states` by its body.
    ///
    /// At most [`GROUP`] states; bodies are whole blocks, longest first, and a state that has any
    /// stands at a block boundary.
    fn run(&self, states: &mut [State], bodies: &[&[u8]]) {
        debug_assert_eq!(states.len(), bodies.len());
        debug_assert!(bodies.is_sorted_by_key(|body| Reverse(body.len())));
        debug_assert!(bodies.iter().all(|body| body.len().is_multiple_of(BLOCK)));

        // A state without a body may stand inside a block: in no lane, not even an idle one.
        let mut active = bodies.partition_point(|body| !body.is_empty());
        debug_assert!(states[..active].iter().all(|s| len(s).is_multiple_of(BLOCK as u64)));
        // A copy, because a lane whose stream has ended goes on with borrowed work.
        let mut work = [State::new(); GROUP];
        work[..active].copy_from_slice(&states[..active]);
        let mut done = 0;
        while let Some(shortest) = bodies[..active].last() {
            if shortest.len() > done {
                self.lockstep(&mut work, bodies[..active].iter().map(|b| &b[done..shortest.len()]));
                done = shortest.len();
            }
            active -= 1;
            states[active] = work[active];
        }
    }

    /// Continues the first of `work` by `pieces`, which are equally long.
    fn lockstep<'a>(
        &self,
        work: &mut [State; GROUP],
        mut pieces: impl ExactSizeIterator<Item = &'a [u8]>,
    ) {
        let active = pieces.len();
        let Some(first) = pieces.next() else { return };
        if active == 1 {
            return work[0].update(first);
        }
        let mut filled = [first; GROUP];
        for (slot, piece) in filled[1..].iter_mut().zip(pieces) {
            *slot = piece;
        }
        let width = self.width(active);
        self.many.update_many(&mut work[..width], &filled[..width]);
    }

    /// Appends the digests of the first `count` of `states`; what the others hold does not matter.
    fn finish_group(&self, states: &[State; GROUP], count: usize, out: &mut Vec<Md5Digest>) {
        let width = self.width(count);
        let mut digests = [[0; 16]; GROUP];
        self.many.finalize_many(&states[..width], &mut digests[..width]);
        out.extend(digests[..count].iter().copied().map(Md5Digest));
    }

    /// How many lanes to run for `active` streams: the next number for which there is a kernel.
    fn width(&self, active: usize) -> usize {
        let kernel = if active <= FEW { self.count().min(FEW) } else { self.count() };
        active.next_multiple_of(kernel).min(GROUP)
    }
}

/// The bytes of a job, cut at the block boundaries of its stream.
struct Cut<'a> {
    /// Completes the block that the stream stands in: less than a block.
    head: &'a [u8],
    /// Whole blocks.
    body: &'a [u8],
    /// Less than a block, kept by the state for the next time.
    tail: &'a [u8],
}

impl<'a> Cut<'a> {
    fn of(job: &Job<'a>) -> Self {
        let to_boundary = job.state.len().wrapping_neg() % BLOCK as u64;
        let to_boundary = usize::try_from(to_boundary).unwrap_or(0);
        let (head, rest) = job.bytes.split_at(to_boundary.min(job.bytes.len()));
        let (body, tail) = rest.split_at(whole_blocks(rest.len()));
        Self { head, body, tail }
    }
}

/// The part of `len` that is whole blocks.
fn whole_blocks(len: usize) -> usize {
    len - len % BLOCK
}
