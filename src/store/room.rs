//! Room on the disk for what is still to come of a partial, made ahead of it.
//!
//! A write to where nothing is has ext4 look for each of its blocks whether there is room, and note
//! that it is taken: more than half of what the write costs. Where there is room it only copies; and
//! uploads that come at the same time do not lie on the disk in slices. What was made and not needed is
//! given back when the partial is let go of; after a kill, when it is opened again, or expires.

use std::{
    os::fd::OwnedFd,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
};

use rustix::fs::{FsWord, fstatfs};

use super::{root::regular, space::Awaited, sys};
use crate::limits::{ROOM_AHEAD, ROOM_BYTES_MAX, ROOM_BYTES_MIN, ROOM_PIECE_BYTES};

/// How far there is room. Offsets are bytes from the start of the file.
#[derive(Debug)]
pub(super) struct Room {
    /// The size of the file when it is whole.
    size: u64,
    /// What of it was there when it was opened.
    there: u64,
    /// How far was written.
    written: AtomicU64,
    /// How far, when room was last made or could have been.
    written_then: AtomicU64,
    /// How far the file takes up space: it was written, or room was made. 0: it has its final size.
    taken: AtomicU64,
    /// No room is made, since none can be.
    is_off: AtomicBool,
}

impl Room {
    /// For a file of `size` bytes, of which those up to `there` are.
    pub(super) fn new(data: &OwnedFd, size: u64, there: u64) -> Self {
        Self::with(size, there, !takes_up_space(data))
    }

    fn with(size: u64, there: u64, is_off: bool) -> Self {
        let [written, written_then, taken] = [there; 3].map(AtomicU64::new);
        Self { size, there, written, written_then, taken, is_off: AtomicBool::new(is_off) }
    }

    /// Notes a write; returns how many of the bytes that were claimed it settles: those that take up
    /// space only now, and those that were there and had to come again.
    pub(super) fn fill(&self, offset: u64, length: u64) -> u64 {
        let end = offset.saturating_add(length);
        self.written.fetch_max(end, Ordering::Relaxed);
        let anew = end.saturating_sub(self.take(end).max(offset));
        anew + end.min(self.there).saturating_sub(offset)
    }

    /// From now on, space is taken up to `end`. How far it was before: of two who ask at the same time,
    /// each byte is told to one.
    fn take(&self, end: u64) -> u64 {
        self.taken.fetch_max(end, Ordering::Relaxed)
    }

    /// Makes room for what comes next, some times what came since the last time, if there is less than
    /// half of that, and it is worth it: nothing for a promise, and little for who is slow. It is
    /// taken from what is claimed. May wait for the disk.
    pub(super) fn make(&self, data: &OwnedFd, awaited: &Awaited) {
        let written = self.written.load(Ordering::Relaxed);
        let came = written - self.written_then.swap(written, Ordering::Relaxed);
        let ahead = came.saturating_mul(ROOM_AHEAD).min(ROOM_BYTES_MAX);
        let mut from = self.taken.load(Ordering::Relaxed);
        let to = written.saturating_add(ahead).min(self.size);
        let is_enough = from >= written.saturating_add(ahead / 2);
        if is_enough || to.saturating_sub(from) < ROOM_BYTES_MIN {
            return;
        }
        while from < to && !self.is_off.load(Ordering::Relaxed) {
            // In pieces: a write, for which the loop would wait, comes in between.
            let end = to.min(from + ROOM_PIECE_BYTES);
            // Before it is: what is made of it when it fails has to be given back as well.
            let before = self.take(end);
            match sys::allocate(data, from, end - from) {
                Ok(()) => awaited.came(end.saturating_sub(before.max(from))),
                // A file system that can't, or has no room: the write tells.
                Err(_) => self.is_off.store(true, Ordering::Relaxed),
            }
            from = end;
        }
    }

    /// There is no more of it: the file got its size. Soon it is others' as well, and must not be cut any
    /// more.
    pub(super) fn end(&self) {
        self.is_off.store(true, Ordering::Relaxed);
        self.taken.store(0, Ordering::Relaxed);
    }

    /// Gives back what was made beyond the end of the file, to which nobody writes now.
    pub(super) fn give_back(&self, data: &OwnedFd) {
        if self.taken.load(Ordering::Relaxed) > self.written.load(Ordering::Relaxed) {
            cut_room(data);
        }
    }
}

/// Whether room that is made is known to be taken from the free space at once, and used by what is
/// written. Others only say that they made it (ZFS), or write elsewhere all the same (btrfs); in
/// memory a page is found as quickly when it is written.
fn takes_up_space(file: &OwnedFd) -> bool {
    /// statfs(2), "XFS_SUPER_MAGIC".
    const XFS: FsWord = 0x5846_5342;
    fstatfs(file).is_ok_and(|fs| [sys::EXT4, XFS].contains(&fs.f_type))
}

/// Gives back what a process that was killed has made beyond the end of a file.
pub(super) fn give_back_left_over(data: &OwnedFd) {
    /// stat(3type), "st_blocks".
    const BLOCK_BYTES: u64 = 512;
    let has_room = regular(data).is_ok_and(|stat| {
        let [blocks, size] =
            [stat.st_blocks, stat.st_size].map(|it| u64::try_from(it).unwrap_or(0));
        blocks.saturating_mul(BLOCK_BYTES) >= size.saturating_add(ROOM_BYTES_MIN)
    });
    if has_room {
        cut_room(data);
    }
}

fn cut_room(data: &OwnedFd) {
    // What can't be given back now goes with the file.
    let _ =
        regular(data).map(|stat| sys::ftruncate(data, u64::try_from(stat.st_size).unwrap_or(0)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_that_was_claimed_is_settled_once() {
        let room = Room::with(1000, 10, false);
        assert_eq!(room.take(100), 10);
        assert_eq!(room.fill(10, 50), 0);
        assert_eq!(room.fill(60, 60), 20);
        assert_eq!(room.fill(120, 5), 5);
        // What came spoiled comes again.
        assert_eq!(room.fill(20, 30), 0);
        // What was bad when it was opened.
        assert_eq!(room.fill(4, 8), 6);
        assert_eq!(room.written.into_inner(), 125);
    }
}
