//! The output of an action: frames with the header of a transfer's, in kinds of their own.

use super::{
    frame::FRAME_HEADER_BYTES,
    reply::{Reply, ReplyError},
};
use crate::limits::{ABORT_BYTES_MAX, OUTPUT_FRAME_BYTES_MAX};

/// Length of a header.
pub const OUTPUT_HEADER_BYTES: usize = FRAME_HEADER_BYTES;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// Bytes of its standard output.
    Stdout,
    /// Bytes of its standard error.
    Stderr,
    /// The end: a reply line that says how it ended.
    Exit,
}

/// A header that has been checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputHeader {
    /// What it carries.
    pub kind: OutputKind,
    /// Bytes of payload.
    pub length: u32,
}

/// A whole frame of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<'a> {
    /// Bytes of its standard output.
    Stdout(&'a [u8]),
    /// Bytes of its standard error.
    Stderr(&'a [u8]),
    /// How it ended.
    Exit(Reply),
}

impl OutputHeader {
    /// Reads a header; `None` for what no server sends.
    #[must_use]
    pub fn parse(bytes: &[u8; OUTPUT_HEADER_BYTES]) -> Option<Self> {
        let [kind, 0, 0, 0, l0, l1, l2, l3, 0, 0, 0, 0, 0, 0, 0, 0] = *bytes else {
            return None;
        };
        let length = u32::from_be_bytes([l0, l1, l2, l3]);
        let (kind, most) = match kind {
            b'O' => (OutputKind::Stdout, OUTPUT_FRAME_BYTES_MAX),
            b'R' => (OutputKind::Stderr, OUTPUT_FRAME_BYTES_MAX),
            b'X' => (OutputKind::Exit, ABORT_BYTES_MAX),
            _ => return None,
        };
        // An empty one is a sign of life.
        let least = u32::from(kind == OutputKind::Exit);
        (least..=most).contains(&length).then_some(Self { kind, length })
    }
}

impl<'a> Output<'a> {
    /// The frame of a header and its payload.
    ///
    /// # Errors
    /// An exit that is no reply.
    pub fn read(kind: OutputKind, payload: &'a [u8]) -> Result<Self, ReplyError> {
        Ok(match kind {
            OutputKind::Stdout => Self::Stdout(payload),
            OutputKind::Stderr => Self::Stderr(payload),
            OutputKind::Exit => Self::Exit(Reply::parse(payload)?),
        })
    }
}

/// The bytes of a frame. The payload must be at most [`OUTPUT_FRAME_BYTES_MAX`].
#[must_use]
pub fn output_bytes(output: &Output<'_>) -> Vec<u8> {
    let line;
    let (kind, payload) = match output {
        Output::Stdout(bytes) => (b'O', *bytes),
        Output::Stderr(bytes) => (b'R', *bytes),
        Output::Exit(reply) => {
            line = reply.to_string();
            (b'X', line.as_bytes())
        }
    };
    debug_assert!(payload.len() <= OUTPUT_FRAME_BYTES_MAX as usize);
    let length = u32::try_from(payload.len()).unwrap_or(OUTPUT_FRAME_BYTES_MAX);
    let [l0, l1, l2, l3] = length.to_be_bytes();
    let header = [kind, 0, 0, 0, l0, l1, l2, l3, 0, 0, 0, 0, 0, 0, 0, 0];
    [&header[..], payload].concat()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::Code;

    #[test]
    fn a_frame_survives_the_wire() {
        let exit = Reply::new(Code::Done).with("status", 3);
        for output in [Output::Stdout(b"a\0b"), Output::Stderr(b"\n"), Output::Exit(exit)] {
            let bytes = output_bytes(&output);
            let (header, payload) = bytes.split_at(OUTPUT_HEADER_BYTES);
            let header = OutputHeader::parse(header.try_into().unwrap()).unwrap();
            assert_eq!(header.length as usize, payload.len());
            assert_eq!(Output::read(header.kind, payload), Ok(output));
        }
    }

    #[test]
    fn a_length_beyond_the_limit_is_refused() {
        for (kind, length, fits) in [
            (b'O', OUTPUT_FRAME_BYTES_MAX, true),
            (b'O', OUTPUT_FRAME_BYTES_MAX + 1, false),
            (b'R', 0, true),
            (b'X', 0, false),
            (b'X', ABORT_BYTES_MAX, true),
            (b'X', ABORT_BYTES_MAX + 1, false),
            (b'D', 1, false),
        ] {
            let mut header = [0; OUTPUT_HEADER_BYTES];
            header[0] = kind;
            header[4..8].copy_from_slice(&length.to_be_bytes());
            assert_eq!(OutputHeader::parse(&header).is_some(), fits, "{kind} {length}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_read_or_refused(bytes: [u8; 16]) {
            let _ = OutputHeader::parse(&bytes);
        }
    }
}
