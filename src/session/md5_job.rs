//! The MD5 of a whole file as a job: handed out with a chunk, run beside the leaves of all
//! connections of a turn, and handed back.
//!
//! What is handed out is a copy. If the MD5 went on or back meanwhile, the job is passed over, and
//! what it hashed is hashed again from the place where the MD5 stands.

use std::ops::Range;

use super::{
    Session,
    state::{Ending, State, Work},
};
use crate::digest::{FileMd5, Job, SavedMd5};

/// Bytes of a chunk that the MD5 of a whole file has to take.
#[derive(Debug)]
pub struct Md5Job {
    md5: FileMd5,
    /// Where it stood when it was handed out.
    from: u64,
    /// Where in the chunk the bytes lie, in order.
    pieces: Vec<Range<usize>>,
    /// The states between the pieces.
    kept: Vec<SavedMd5>,
}

impl Md5Job {
    /// Goes on from `md5` with these parts of the chunk; `None` if they are nothing.
    pub(super) fn new(md5: &FileMd5, mut pieces: Vec<Range<usize>>) -> Option<Self> {
        pieces.retain(|piece| !piece.is_empty());
        let from = md5.position();
        (!pieces.is_empty()).then(|| Self { md5: md5.clone(), from, pieces, kept: Vec::new() })
    }

    /// The job for the engine. `chunk` is what was read or received.
    pub fn job<'a>(&'a mut self, chunk: &'a [u8]) -> Job<'a> {
        let pieces = self.pieces.drain(..).map(|piece| chunk.get(piece).unwrap_or_default());
        self.md5.job_in_pieces(pieces.collect(), &mut self.kept)
    }

    /// After the engine ran: takes `md5` on, if it stands where it stood. Gives the states
    /// between the pieces.
    pub(super) fn put_back(self, md5: &mut FileMd5) -> Vec<SavedMd5> {
        if md5.position() != self.from {
            return Vec::new();
        }
        *md5 = self.md5;
        self.kept
    }
}

impl Session {
    /// The job for the bytes that [`Session::hashing`] asked for, which lie there in the chunk.
    /// [`Session::handle_hashed`] takes it back.
    #[must_use]
    pub fn md5_job(&self, range: Range<usize>) -> Option<Md5Job> {
        match &self.state {
            State::AwaitCommand(Work::Md5(md5, _)) => Md5Job::new(md5, vec![range]),
            State::AwaitDigest(Ending::Md5(receiving)) => receiving.incoming.md5_read_job(range),
            State::AwaitCommand(_)
            | State::AwaitOffset(_)
            | State::Streaming(_)
            | State::AwaitDigest(_)
            | State::Closed => None,
        }
    }
}
