//! Which job runs in which lane: as many as there are lanes run in lockstep up to the end of the
//! shortest, whose lane the next job takes.
//!
//! The longest jobs begin first, so that the last ones to run alone are short. Lanes for which
//! there is no job repeat another's work, and the result is thrown away.

use std::cmp::Reverse;

use md5::block_api::compress;

use super::{
    backend::{LANES_MAX, Lanes},
    engine::Job,
    state::Block,
};

/// A job whose turn it is, and what it has still to compress.
struct Lane<'j, 'a> {
    job: &'j mut Job<'a>,
    /// Not empty.
    blocks: &'a [Block],
}

impl<'j, 'a> Lane<'j, 'a> {
    /// `None` if the job has no whole blocks: then it is done.
    fn begin(job: &'j mut Job<'a>) -> Option<Self> {
        let blocks = job.next_blocks()?;
        Some(Self { job, blocks })
    }

    /// Whether there is more to do, once `done` blocks were compressed.
    fn go_on(&mut self, done: usize) -> bool {
        self.blocks = self.blocks.get(done..).unwrap_or_default();
        if self.blocks.is_empty() {
            let Some(blocks) = self.job.next_blocks() else {
                return false;
            };
            self.blocks = blocks;
        }
        true
    }
}

/// Runs all jobs; their order is changed.
pub(super) fn run(lanes: &Lanes, jobs: &mut [Job<'_>]) {
    jobs.sort_unstable_by_key(|job| Reverse(job.len()));
    let mut waiting = jobs.iter_mut().filter_map(Lane::begin);
    let mut active = Vec::with_capacity(lanes.count());
    loop {
        active.extend(waiting.by_ref().take(lanes.count() - active.len()));
        let Some(shortest) = active.iter().map(|lane: &Lane<'_, '_>| lane.blocks.len()).min()
        else {
            return;
        };
        advance(lanes, &mut active, shortest);
        active.retain_mut(|lane| lane.go_on(shortest));
    }
}

/// Compresses `count` blocks into each state.
fn advance(lanes: &Lanes, active: &mut [Lane<'_, '_>], count: usize) {
    if let [lane] = active {
        return compress(&mut lane.job.state.words, &lane.blocks[..count]);
    }
    let Some(first) = active.first() else { return };
    let width = lanes.width(active.len());
    let mut words = [first.job.state.words; LANES_MAX];
    let mut blocks = [&first.blocks[..count]; LANES_MAX];
    for ((words, blocks), lane) in words.iter_mut().zip(&mut blocks).zip(active.iter()) {
        *words = lane.job.state.words;
        *blocks = &lane.blocks[..count];
    }
    lanes.compress(&mut words[..width], &blocks[..width]);
    for (lane, words) in active.iter_mut().zip(words) {
        lane.job.state.words = words;
    }
}
