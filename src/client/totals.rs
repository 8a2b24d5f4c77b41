//! What a transfer comes to, over all its attempts.

use super::Transferred;
use crate::digest::Md5Digest;

/// What adds up over all attempts.
#[derive(Debug, Default)]
pub(super) struct Totals {
    /// What was there when the first attempt began, in bytes.
    pub(super) already: Option<u64>,
    /// Data bytes that went over the line.
    pub(super) moved: u64,
}

/// How the last one ended.
pub(super) struct Done {
    pub(super) size: u64,
    pub(super) root: Md5Digest,
    pub(super) md5: Option<Md5Digest>,
    /// The other side had it before, all of it.
    pub(super) unchanged: bool,
}

impl Totals {
    pub(super) fn transferred(&self, done: &Done, breaks: u32) -> Transferred {
        Transferred {
            size: done.size,
            already: self.already.unwrap_or(done.size),
            moved: self.moved,
            breaks,
            root: done.root,
            md5: done.md5,
            unchanged: done.unchanged,
        }
    }
}
