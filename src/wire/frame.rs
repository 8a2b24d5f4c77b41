//! Frames: the binary part of a transfer.
//!
//! A header of 16 bytes, then the payload: kind (one ASCII byte), three zero bytes, the payload's
//! length (u32), the offset in the file (u64), both big-endian.

use super::reply::Reply;
use crate::{
    digest::{Md5Digest, SEGMENT_BYTES},
    limits::{ABORT_BYTES_MAX, FILE_BYTES_MAX, FRAME_BYTES_MAX},
};

/// Length of a header.
pub const FRAME_HEADER_BYTES: usize = 16;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameKind {
    /// Bytes of the file at the offset.
    Data,
    /// The digest of the segment that starts at the offset.
    Segment,
    /// The end: the root, and the MD5 of the file if it was asked for. The offset is the size.
    End,
    /// The sender gives up; the payload is a reply line that says why.
    Abort,
}

/// A header that has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// What it carries.
    pub kind: FrameKind,
    /// Bytes of payload.
    pub length: u32,
    /// Where in the file.
    pub offset: u64,
}

/// Why a header was refused. The stream can't be brought back into step after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The first byte is no known kind, or the reserved bytes are not zero.
    #[error("not a frame")]
    NotAFrame,
    /// The length does not fit the kind.
    #[error("a frame of a wrong length")]
    Length,
    /// The offset does not fit the kind, or lies beyond any file.
    #[error("a frame at a wrong offset")]
    Offset,
}

impl FrameHeader {
    /// Reads a header.
    ///
    /// # Errors
    /// [`FrameError`] for whatever no sender of ours makes.
    pub fn parse(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Self, FrameError> {
        let [kind, 0, 0, 0, l0, l1, l2, l3, o0, o1, o2, o3, o4, o5, o6, o7] = *bytes else {
            return Err(FrameError::NotAFrame);
        };
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let offset = u64::from_be_bytes([o0, o1, o2, o3, o4, o5, o6, o7]);
        if offset > FILE_BYTES_MAX {
            return Err(FrameError::Offset);
        }
        let (kind, length_fits, offset_fits) = match kind {
            b'D' => {
                let within = offset % SEGMENT_BYTES + u64::from(length) <= SEGMENT_BYTES;
                (FrameKind::Data, (1..=FRAME_BYTES_MAX).contains(&length) && within, true)
            }
            b'S' => (FrameKind::Segment, length == 16, offset % SEGMENT_BYTES == 0),
            b'E' => (FrameKind::End, length == 16 || length == 32, true),
            b'A' => (FrameKind::Abort, (1..=ABORT_BYTES_MAX).contains(&length), offset == 0),
            _ => return Err(FrameError::NotAFrame),
        };
        if !length_fits {
            return Err(FrameError::Length);
        }
        if !offset_fits {
            return Err(FrameError::Offset);
        }
        Ok(Self { kind, length, offset })
    }

    /// The header's bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; FRAME_HEADER_BYTES] {
        let kind = match self.kind {
            FrameKind::Data => b'D',
            FrameKind::Segment => b'S',
            FrameKind::End => b'E',
            FrameKind::Abort => b'A',
        };
        let [l0, l1, l2, l3] = self.length.to_be_bytes();
        let [o0, o1, o2, o3, o4, o5, o6, o7] = self.offset.to_be_bytes();
        [kind, 0, 0, 0, l0, l1, l2, l3, o0, o1, o2, o3, o4, o5, o6, o7]
    }
}

/// A whole frame but for data, which never stands in memory as a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// The digest of one segment.
    Segment {
        /// Its number, from 0.
        segment: u64,
        /// Its digest.
        digest: Md5Digest,
    },
    /// The end of a round.
    End {
        /// Size of the file in bytes.
        size: u64,
        /// Root of the tree over the whole file.
        root: Md5Digest,
        /// MD5 of the whole file, if it was asked for.
        md5: Option<Md5Digest>,
    },
    /// The sender gives up.
    Abort(Reply),
}

/// The bytes of a whole frame.
#[must_use]
pub fn frame_bytes(frame: &Frame) -> Vec<u8> {
    let (kind, offset, payload) = match frame {
        Frame::Segment { segment, digest } => {
            (FrameKind::Segment, segment * SEGMENT_BYTES, digest.0.to_vec())
        }
        Frame::End { size, root, md5 } => {
            let mut payload = root.0.to_vec();
            payload.extend(md5.iter().flat_map(|md5| md5.0));
            (FrameKind::End, *size, payload)
        }
        Frame::Abort(reply) => {
            let mut line = reply.to_string().into_bytes();
            line.truncate(ABORT_BYTES_MAX as usize);
            (FrameKind::Abort, 0, line)
        }
    };
    let length = u32::try_from(payload.len()).unwrap_or(ABORT_BYTES_MAX);
    let mut bytes = FrameHeader { kind, length, offset }.to_bytes().to_vec();
    bytes.extend_from_slice(&payload);
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn header(kind: u8, length: u32, offset: u64) -> Result<FrameHeader, FrameError> {
        let mut bytes = FrameHeader { kind: FrameKind::Data, length, offset }.to_bytes();
        bytes[0] = kind;
        FrameHeader::parse(&bytes)
    }

    #[test]
    fn data_never_crosses_a_segment() {
        assert!(header(b'D', FRAME_BYTES_MAX, 0).is_ok());
        assert!(header(b'D', 1, SEGMENT_BYTES - 1).is_ok());
        assert_eq!(header(b'D', 2, SEGMENT_BYTES - 1), Err(FrameError::Length));
        assert_eq!(header(b'D', FRAME_BYTES_MAX + 1, 0), Err(FrameError::Length));
        assert_eq!(header(b'D', 0, 0), Err(FrameError::Length));
    }

    #[test]
    fn each_kind_has_its_lengths_and_offsets() {
        assert!(header(b'S', 16, SEGMENT_BYTES).is_ok());
        assert_eq!(header(b'S', 17, 0), Err(FrameError::Length));
        assert_eq!(header(b'S', 16, 1), Err(FrameError::Offset));
        assert!(header(b'E', 16, 5).is_ok() && header(b'E', 32, 5).is_ok());
        assert_eq!(header(b'E', 24, 5), Err(FrameError::Length));
        assert_eq!(header(b'A', ABORT_BYTES_MAX + 1, 0), Err(FrameError::Length));
        assert_eq!(header(b'A', 4, 1), Err(FrameError::Offset));
        assert_eq!(header(b'X', 4, 0), Err(FrameError::NotAFrame));
        assert_eq!(header(b'D', 1, 1 << 63), Err(FrameError::Offset));
        assert_eq!(header(b'D', 1, u64::MAX), Err(FrameError::Offset));
    }

    proptest! {
        #[test]
        fn any_header_is_an_error_or_comes_out_as_it_went_in(bytes: [u8; 16]) {
            if let Ok(header) = FrameHeader::parse(&bytes) {
                prop_assert_eq!(header.to_bytes(), bytes);
            }
        }
    }
}
