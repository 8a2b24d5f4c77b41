//! What the engine stands on without the feature `simd`: `md-5`, one leaf after the other.
//!
//! It has the same names as `simd`, and a [`Lanes`] that cannot be built.

use md5::Digest as _;

use super::Md5Digest;
use super::engine::Job;

/// MD5 of one leaf, and how much of it there was.
#[derive(Clone)]
pub(super) struct State {
    md5: md5::Md5,
    len: u64,
}

impl State {
    pub(super) fn new() -> Self {
        Self { md5: md5::Md5::new(), len: 0 }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.md5.update(bytes);
        self.len += bytes.len() as u64;
    }
}

pub(super) fn len(state: &State) -> u64 {
    state.len
}

pub(super) fn finish(state: &State) -> Md5Digest {
    Md5Digest(state.md5.clone().finalize().into())
}

/// There are no lanes.
#[derive(Clone, Debug)]
pub(super) enum Lanes {}

impl Lanes {
    pub(super) fn detect() -> Option<Self> {
        None
    }

    pub(super) fn count(&self) -> usize {
        match *self {}
    }

    pub(super) fn update(&self, _: &mut [Job<'_>]) {
        match *self {}
    }

    pub(super) fn finish_many<'a>(
        &self,
        _: impl Iterator<Item = &'a State>,
        _: &mut Vec<Md5Digest>,
    ) {
        match *self {}
    }

    pub(super) fn leaves(&self, _: &[u8], _: &mut Vec<Md5Digest>) {
        match *self {}
    }
}
