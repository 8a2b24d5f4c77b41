//! Memory for small files that are held until they are durable: bounded for a server as a whole.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::limits::HELD_BYTES_SERVER_MAX;

/// What all connections of a server share. Clones are the same memory.
///
/// Invariant: at most [`HELD_BYTES_SERVER_MAX`] bytes are claimed.
#[derive(Debug, Clone, Default)]
pub struct Memory(Arc<AtomicUsize>);

/// So many bytes of it; given back when this is dropped.
#[derive(Debug)]
pub(super) struct Claim {
    memory: Memory,
    bytes: usize,
}

impl Memory {
    /// Bytes that are claimed now.
    #[must_use]
    pub fn claimed_bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether there is enough for those who have some to be given more.
    pub(super) fn is_plenty(&self) -> bool {
        self.claimed_bytes() <= HELD_BYTES_SERVER_MAX / 2
    }

    /// Claims so many bytes, if they are there.
    pub(super) fn claim(&self, bytes: usize) -> Option<Claim> {
        let more =
            |claimed: usize| claimed.checked_add(bytes).filter(|&sum| sum <= HELD_BYTES_SERVER_MAX);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Claim { memory: self.clone(), bytes })
    }
}

impl Claim {
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.memory.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_claimed_stays_within_the_bound_and_is_given_back() {
        let memory = Memory::default();
        let all = memory.claim(HELD_BYTES_SERVER_MAX).unwrap();
        assert!(memory.claim(1).is_none());
        assert!(memory.claim(0).is_some());
        drop(all);
        let _one = memory.claim(1).unwrap();
        assert!(memory.claim(HELD_BYTES_SERVER_MAX).is_none());
        assert_eq!(memory.claimed_bytes(), 1);
    }
}
