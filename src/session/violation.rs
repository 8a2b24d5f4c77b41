//! Why a stream from the peer can't go on.

use crate::wire::{FrameError, ReplyError};

/// The peer broke the protocol; the stream can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// A header that makes no sense.
    #[error("{0}")]
    Frame(#[from] FrameError),
    /// Data that was not wanted, or not in order.
    #[error("data out of place")]
    OutOfPlace,
    /// A digest of a segment that is not whole, or an end that does not fit.
    #[error("a digest that does not fit")]
    Digest,
    /// The size at the end is not the size that was announced.
    #[error("the size at the end is another than announced")]
    Size,
    /// An abort frame without a valid reply.
    #[error("{0}")]
    Abort(#[from] ReplyError),
    /// Bytes after the end or the abort of a round.
    #[error("frames after the end")]
    AfterEnd,
    /// Round after round, no further segment came out right.
    #[error("the same segments keep coming out wrong")]
    Hopeless,
}
