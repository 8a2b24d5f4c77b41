//! Room on the disk for what is still to come of a partial, made ahead of it.
//!
//! A write to where nothing is has ext4 look for each of its blocks whether there is room, and note
//! that it is taken: half of what the write costs. Where there is room it only copies; and uploads that
//! come at the same time do not lie on the disk in slices. What was made and not needed is given back
//! when the partial is let go of; after a kill, when it is opened again or expires.

use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Identity, root::regular, source::lies_in_memory, space::Awaited, sys};
use crate::limits::{ROOM_AHEAD, ROOM_BYTES_MAX, ROOM_BYTES_MIN};

/// How far there is room. Offsets are bytes from the start of the file.
#[derive(Debug)]
pub(super) struct Room {
    /// The size of the file when it is whole; 0 if no room is made.
    size: u64,
    /// How far was written.
    written: AtomicU64,
    /// How far, when room was last made or could have been.
    written_then: AtomicU64,
    /// How far room was made; 0: nowhere yet.
    made: AtomicU64,
}

impl Room {
    /// For a file of `size` bytes, of which those up to `written` are there.
    pub(super) fn new(data: &OwnedFd, size: u64, written: u64) -> Self {
        // A page is found as quickly when it is written.
        let size = if lies_in_memory(data) { 0 } else { size };
        let [written, written_then] = [written, written].map(AtomicU64::new);
        Self { size, written, written_then, made: AtomicU64::new(0) }
    }

    /// Notes a write; returns how many of its bytes take up space that was not made before. At most
    /// [`Room::make`] at the same moment counts them as well.
    pub(super) fn fill(&self, offset: u64, length: u64) -> u64 {
        let end = offset.saturating_add(length);
        self.written.fetch_max(end, Ordering::Relaxed);
        end.saturating_sub(self.made.load(Ordering::Relaxed).max(offset))
    }

    /// Makes room for what comes next, some times what came since the last time, if there is less than
    /// half of that, and it is worth it: nothing for a promise, and little for who is slow. It is
    /// taken from what is claimed. May wait for the disk.
    pub(super) fn make(&self, data: &OwnedFd, awaited: &Awaited) {
        let written = self.written.load(Ordering::Relaxed);
        let came = written - self.written_then.swap(written, Ordering::Relaxed);
        let ahead = came.saturating_mul(ROOM_AHEAD).min(ROOM_BYTES_MAX);
        let from = self.made.load(Ordering::Relaxed).max(written);
        let to = written.saturating_add(ahead).min(self.size);
        let is_enough = from >= written.saturating_add(ahead / 2);
        if is_enough || to.saturating_sub(from) < ROOM_BYTES_MIN {
            return;
        }
        // A file system that can't, or has no room: the write tells.
        if sys::allocate(data, from, to - from).is_ok() {
            self.made.store(to, Ordering::Relaxed);
            awaited.came(to - from);
        }
    }

    /// There is no more of it: the file got its size. Soon it is others' as well, and must not be cut any
    /// more.
    pub(super) fn end(&self) {
        self.made.store(0, Ordering::Relaxed);
    }

    /// Gives back what was made beyond the end of the file.
    pub(super) fn give_back(&self, data: &OwnedFd) {
        if let Ok(stat) = regular(data) {
            let end = Identity::of(&stat).size;
            if self.made.load(Ordering::Relaxed) > end {
                // What can't be given back now goes with the file.
                let _ = sys::ftruncate(data, end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_takes_up_space_once_where_room_was_made_or_not() {
        let [written, written_then, made] = [10, 10, 100].map(AtomicU64::new);
        let room = Room { size: 1000, written, written_then, made };
        assert_eq!(room.fill(10, 50), 0);
        assert_eq!(room.fill(60, 60), 20);
        assert_eq!(room.fill(120, 5), 5);
        assert_eq!(room.fill(20, 30), 0);
        assert_eq!(room.written.into_inner(), 125);
    }
}
