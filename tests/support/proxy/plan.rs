//! What a proxy does to the lines that go through it, and what it counts.

use std::ops::RangeInclusive;

use crate::support::Rng;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    Up,
    /// From the server to the client.
    Down,
}

/// What the proxy does to the lines through it. The default passes everything on untouched.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub seed: u64,
    pub cut: Option<Cut>,
    pub flip: Option<Flip>,
    pub slow: Option<Slow>,
    /// Hand bytes on in pieces of 1 to this many.
    pub split: Option<u64>,
}

impl Plan {
    /// Passes everything on, until faults are added by struct update.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }
}

/// Each connection may carry some number of bytes, exactly, and is then cut.
#[derive(Clone, Debug)]
pub struct Cut {
    /// How many bytes a connection may carry. With 0, it ends at the first byte that arrives.
    pub budget_bytes: RangeInclusive<u64>,
    pub weight: Weight,
    /// The direction whose bytes count; both, if `None`.
    pub counted: Option<Direction>,
    pub how: How,
    /// After this many cuts under this plan, everything passes.
    pub limit: u64,
}

impl Default for Cut {
    fn default() -> Self {
        Self {
            budget_bytes: 1..=1 << 20,
            weight: Weight::Uniform,
            counted: None,
            how: How::Either,
            limit: u64::MAX,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    Uniform,
    /// Every order of magnitude equally often: many cuts land inside lines and digests.
    Tiny,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Shut down in both directions. Bytes that a peer still sends meet a closed socket, so that
    /// it may see a reset after the FIN, as it does with any peer that goes away.
    Fin,
    /// A reset without a FIN before it.
    Rst,
    /// One of the two, at random.
    Either,
}

/// One bit of every so many bytes arrives wrong.
#[derive(Clone, Debug)]
pub struct Flip {
    pub direction: Direction,
    /// Counted over all connections under this plan, so that short ones have their share.
    pub every_bytes: u64,
    /// The first bytes of each connection that stay intact, and are not counted.
    pub skip_bytes: u64,
    /// After this many flips under this plan, everything passes intact.
    pub limit: u64,
}

#[derive(Clone, Debug)]
pub struct Slow {
    pub direction: Direction,
    /// For each connection by itself.
    pub bytes_per_s: u64,
}

/// Bytes handed on, to the socket of the other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub up: u64,
    pub down: u64,
}

impl Traffic {
    pub(super) fn add(&mut self, direction: Direction, bytes: u64) {
        match direction {
            Direction::Up => self.up += bytes,
            Direction::Down => self.down += bytes,
        }
    }
}

/// What has happened since the start of the proxy, over all plans.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    pub cuts: u64,
    /// How many of the cuts were resets.
    pub resets: u64,
    pub flips: u64,
    /// Writes to a socket; what a peer reads at once may be several.
    pub pieces: u64,
    pub total: Traffic,
    /// In the order of arrival; its length is the number of connections.
    pub per_connection: Vec<Traffic>,
    /// For each connection that was cut: how much of what was handed on may not have been read
    /// by its receiver at that moment. A reset, or a receiver that closes, throws it away.
    pub in_flight: Vec<Option<Traffic>>,
}

impl Counts {
    pub fn connections(&self) -> usize {
        self.per_connection.len()
    }
}

impl How {
    pub(super) fn choose(self, rng: &mut Rng) -> Self {
        match self {
            Self::Either if rng.flag() => Self::Rst,
            Self::Either => Self::Fin,
            Self::Fin | Self::Rst => self,
        }
    }
}

impl Cut {
    pub(super) fn draw(&self, rng: &mut Rng) -> (u64, How) {
        let (least, most) = (*self.budget_bytes.start(), *self.budget_bytes.end());
        let bytes = match self.weight {
            Weight::Uniform => rng.within(&self.budget_bytes),
            Weight::Tiny => {
                // Shifting by a random number of bits makes each number of bits equally likely.
                let width = most - least;
                let unused = u64::from(width.leading_zeros().min(63));
                let shift = rng.within(&(unused..=63));
                least + (rng.word() >> shift) % width.saturating_add(1)
            }
        };
        (bytes, self.how.choose(rng))
    }
}
