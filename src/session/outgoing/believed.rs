//! Digests of a file that were computed before: a sender believes them, until its receiver finds
//! something else.

use std::{
    collections::{BTreeSet, VecDeque},
    ops::Range,
    sync::Arc,
};

use super::{Outgoing, Run, byte_range, start_of};
use crate::{
    digest::{FileDigests, FileMd5, Md5Digest, SEGMENT_BYTES},
    progress::segment_count,
    session::leaves::LeafCursor,
};

/// What was known of the file before: nothing, or digests that make hashing superfluous.
#[derive(Debug, Default)]
pub(super) struct Believed {
    /// Of all segments, as long as nothing has disproved one of them.
    pub(super) segments: Option<Arc<[Md5Digest]>>,
    pub(super) md5: Option<Md5Digest>,
    /// Numbers of the segments that the receiver has, whose digests have to be sent.
    pub(super) due: VecDeque<Range<u64>>,
    pub(super) told_bytes: u64,
    /// The receiver has found something else than was known: from now on, what is sent is hashed.
    pub(super) doubted: bool,
}

impl Outgoing {
    /// Believes digests of this very version of the file that were computed before: neither what
    /// is sent nor what the receiver has is hashed for them again. A receiver that finds other
    /// bytes asks for them again; then they are hashed, and if they are not what was known,
    /// everything is.
    #[must_use]
    pub fn knowing(mut self, digests: &FileDigests) -> Self {
        let is_of_this = |it: &&Arc<[_]>| it.len() as u64 == segment_count(self.size);
        self.believed.segments = digests.segments.as_ref().filter(is_of_this).cloned();
        if self.believed.segments.is_some() {
            // The segment in which the stream goes on gets its digest behind its data.
            let is_whole = |end: u64| end == self.size || end.is_multiple_of(SEGMENT_BYTES);
            let prefix = self.check.drain(..).filter(|range| is_whole(range.end));
            let numbers = |it: Range<u64>| it.start / SEGMENT_BYTES..it.end.div_ceil(SEGMENT_BYTES);
            self.believed.due = prefix.map(numbers).collect();
        }
        if self.md5.is_some() && digests.md5.is_some() {
            (self.md5, self.believed.md5) = (None, digests.md5);
        }
        self
    }

    /// The receiver does not agree with what was known, or says so without telling where.
    pub fn doubt(&mut self) {
        self.believed.doubted |= self.believed.segments.is_some() || self.believed.md5.is_some();
    }

    /// Whether what was known may be wrong.
    #[must_use]
    pub const fn is_in_doubt(&self) -> bool {
        self.believed.doubted
    }

    /// The file has other bytes than was known. Whatever else was believed may be as wrong: it is
    /// hashed, and told anew, before the end.
    pub(super) fn disprove(&mut self) {
        self.believed.segments = None;
        let of_range = |it: &Range<u64>| it.start / SEGMENT_BYTES..it.end.div_ceil(SEGMENT_BYTES);
        let mut hashed: BTreeSet<u64> = self.stream.iter().flat_map(of_range).collect();
        hashed.extend(self.digests.numbers());
        let believed = (0..segment_count(self.size)).filter(|segment| !hashed.contains(segment));
        for segment in believed {
            let range = byte_range((segment, segment), self.size);
            match self.check.back_mut().filter(|last| last.end == range.start) {
                Some(last) => last.end = range.end,
                None => self.check.push_back(range),
            }
        }
        self.check_hash = LeafCursor::new(Run::Beside, start_of(&self.check));
        if self.believed.md5.take().is_some() {
            self.md5 = Some(FileMd5::default());
        }
    }

    /// After the receiver has agreed: what is worth being remembered of the file. `None` if all of
    /// it was known before.
    #[must_use]
    pub fn learned(&self) -> Option<FileDigests> {
        let (root, md5) = self.digests();
        let is_new = self.believed.segments.is_none()
            || self.believed.doubted
            || md5.is_some() && self.believed.md5.is_none();
        if root.is_none() || !is_new {
            return None;
        }
        let hashed = || self.digests.in_order().collect();
        let segments = self.believed.segments.clone().unwrap_or_else(hashed);
        Some(FileDigests { segments: Some(segments), md5 })
    }
}

pub(super) fn known_of(known: &[Md5Digest], segment: u64) -> Option<Md5Digest> {
    known.get(usize::try_from(segment).ok()?).copied()
}
