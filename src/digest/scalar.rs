//! What stands in for `simd` without the feature: [`Lanes`] that cannot be built.

use super::state::{Block, Words};

/// No lanes.
pub(super) const LANES_MAX: usize = 1;

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

    pub(super) fn width(&self, _: usize) -> usize {
        match *self {}
    }

    pub(super) fn compress(&self, _: &mut [Words], _: &[&[Block]]) {
        match *self {}
    }
}
