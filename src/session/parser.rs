//! Where a stream of frames stands, for whoever receives it: what was begun, and how much to read next.

use super::{Discard, Violation};
use crate::{
    digest::{Buffer, LEAF_BYTES, Md5Digest, SEGMENT_BYTES},
    wire::{FRAME_HEADER_BYTES, Frame, FrameHeader, FrameKind, Reply},
};

/// A digest and its header.
const DIGEST_FRAME_BYTES: usize = FRAME_HEADER_BYTES + 16;

/// Where parsing stands.
#[derive(Debug)]
pub(super) enum Parser {
    /// Waits for a header, of which some bytes may be here.
    Header(Vec<u8>),
    /// Within the payload of a data frame.
    Data { offset: u64, left: u32 },
    /// Within the payload of another frame.
    Payload { header: FrameHeader, bytes: Vec<u8> },
    /// The round has ended.
    Ended,
}

/// What is to be expected of a stream by what has come of it.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rhythm {
    /// Whether the last data frame had a leaf or more.
    pub(super) has_large_frames: bool,
    /// Whether the last data frame ended a segment, whose digest is likely to follow.
    pub(super) awaits_digest: bool,
}

impl Parser {
    /// Passes over the rest of the round.
    pub(super) fn pass_over(&self) -> Discard {
        match self {
            Self::Header(have) => Discard::within_header(have.clone()),
            Self::Data { left, .. } => Discard::within_payload(*left, FrameKind::Data),
            Self::Payload { header, bytes } => {
                let have = u32::try_from(bytes.len()).unwrap_or(header.length);
                Discard::within_payload(header.length.saturating_sub(have), header.kind)
            }
            Self::Ended => Discard::ended(),
        }
    }

    /// How many bytes that are no data of the file come before the next that are, most likely.
    fn lead_bytes(&self, rhythm: Rhythm) -> usize {
        match self {
            Self::Header(have) => {
                let digest = if rhythm.awaits_digest { DIGEST_FRAME_BYTES } else { 0 };
                (digest + FRAME_HEADER_BYTES).saturating_sub(have.len())
            }
            Self::Payload { header, bytes } => {
                (header.length as usize).saturating_sub(bytes.len()) + FRAME_HEADER_BYTES
            }
            Self::Data { .. } | Self::Ended => 0,
        }
    }

    /// See [`Incoming::skew`](super::Incoming::skew). The next data is at `position` of the file.
    pub(super) fn skew(&self, position: u64, rhythm: Rhythm) -> usize {
        let lead = self.lead_bytes(rhythm) as u64;
        usize::try_from(position.wrapping_sub(lead) % Buffer::LINE_BYTES as u64).unwrap_or(0)
    }

    /// See [`Incoming::next_read_bytes`](super::Incoming::next_read_bytes).
    pub(super) fn next_read_bytes(&self, most: usize, rhythm: Rhythm) -> usize {
        let leaf = usize::try_from(LEAF_BYTES).unwrap_or(usize::MAX);
        match self {
            Self::Header(_) | Self::Payload { .. } => self.lead_bytes(rhythm) + most,
            Self::Data { offset, left } => {
                let at = usize::try_from(*offset % LEAF_BYTES).unwrap_or(0);
                let (beyond, left) = ((at + most) % leaf, *left as usize);
                let to_leaf = if beyond < most { most - beyond } else { most };
                if to_leaf < left {
                    to_leaf
                } else if rhythm.has_large_frames {
                    left + FRAME_HEADER_BYTES
                } else {
                    // Small frames come together.
                    let behind = most.saturating_sub(left);
                    let beyond = if behind >= leaf { behind % leaf } else { 0 };
                    left + FRAME_HEADER_BYTES + behind - beyond
                }
            }
            Self::Ended => most,
        }
    }
}

/// Adds to `have` from `input` up to `want` bytes; returns how many were taken.
pub(super) fn fill(have: &mut Vec<u8>, input: &[u8], want: usize) -> usize {
    let take = want.saturating_sub(have.len()).min(input.len());
    have.extend_from_slice(input.get(..take).unwrap_or_default());
    take
}

/// Reads the payload of a frame that is not data.
pub(super) fn read_frame(header: FrameHeader, payload: &[u8]) -> Result<Frame, Violation> {
    let digest = |at: usize| {
        let bytes = payload.get(at..at + 16)?;
        <[u8; 16]>::try_from(bytes).ok().map(Md5Digest)
    };
    match header.kind {
        FrameKind::Data => Err(Violation::OutOfPlace),
        FrameKind::Segment => Ok(Frame::Segment {
            segment: header.offset / SEGMENT_BYTES,
            digest: digest(0).ok_or(Violation::Digest)?,
        }),
        FrameKind::End => Ok(Frame::End {
            size: header.offset,
            root: digest(0).ok_or(Violation::Digest)?,
            md5: digest(16),
        }),
        FrameKind::Abort => Ok(Frame::Abort(Reply::parse(payload)?)),
    }
}
