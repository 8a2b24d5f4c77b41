//! Passing over a stream that nobody needs any more, to stay in step with its sender.

use crate::wire::{FRAME_HEADER_BYTES, FrameError, FrameHeader, FrameKind};

/// Passes over frames up to the end of the round or its abort.
#[derive(Debug, Default)]
pub struct Discard {
    header: Vec<u8>,
    /// Payload of the frame in work that is still to come, and whether it is the last one.
    payload: Option<(u32, bool)>,
    ended: bool,
}

impl Discard {
    /// From within a header, of which these bytes have come.
    pub(super) const fn within_header(header: Vec<u8>) -> Self {
        Self { header, payload: None, ended: false }
    }

    /// From within a frame of which `left` bytes of payload are still to come.
    pub(super) fn within_payload(left: u32, kind: FrameKind) -> Self {
        Self { payload: Some((left, ends(kind))), ..Self::default() }
    }

    /// There is nothing to pass over: the round is over.
    pub(super) fn ended() -> Self {
        Self { ended: true, ..Self::default() }
    }

    /// Whether the stream is over: what follows are lines.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.ended
    }

    /// Passes over as much of `input` as belongs to the stream; returns how many bytes that is.
    ///
    /// # Errors
    /// [`FrameError`] if what comes are no frames.
    pub fn skip(&mut self, input: &[u8]) -> Result<usize, FrameError> {
        let mut at = 0;
        while at < input.len() && !self.ended {
            let rest = input.len() - at;
            match &mut self.payload {
                Some((left, last)) => {
                    let take = rest.min(*left as usize);
                    *left -= u32::try_from(take).unwrap_or(*left);
                    at += take;
                    if *left == 0 {
                        self.ended = *last;
                        self.payload = None;
                    }
                }
                None => {
                    let take = rest.min(FRAME_HEADER_BYTES.saturating_sub(self.header.len()));
                    self.header.extend_from_slice(input.get(at..at + take).unwrap_or_default());
                    at += take;
                    if let Ok(bytes) = <[u8; FRAME_HEADER_BYTES]>::try_from(&*self.header) {
                        let header = FrameHeader::parse(&bytes)?;
                        self.payload = Some((header.length, ends(header.kind)));
                        self.header.clear();
                    }
                }
            }
        }
        Ok(at)
    }
}

/// Whether a frame is the last of its round.
const fn ends(kind: FrameKind) -> bool {
    matches!(kind, FrameKind::End | FrameKind::Abort)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        digest::Md5Digest,
        wire::{Frame, frame_bytes},
    };

    #[test]
    fn a_stream_is_passed_over_to_its_last_byte_however_it_is_cut() {
        let digest = Md5Digest::of(b"");
        let mut stream =
            FrameHeader { kind: FrameKind::Data, length: 5, offset: 0 }.to_bytes().to_vec();
        stream.extend_from_slice(b"hello");
        stream.extend(frame_bytes(&Frame::Segment { segment: 0, digest }));
        stream.extend(frame_bytes(&Frame::End { size: 5, root: digest, md5: None }));
        let length = stream.len();
        stream.extend_from_slice(b"noop\n");
        for step in 1..stream.len() {
            let mut discard = Discard::default();
            let taken: usize = stream.chunks(step).map(|chunk| discard.skip(chunk).unwrap()).sum();
            assert_eq!(taken, length, "step {step}");
            assert!(discard.has_ended());
        }
    }
}
