//! An output that takes each byte once: a pipe, a terminal.
//!
//! Only verified segments are written, in order. What was written can neither be mended nor read
//! back, so a segment that came out wrong ends the attempt, and the next one goes on before it.

use std::io::{self, Write};

use super::ClientError;
use crate::{
    digest::{FileMd5, SEGMENT_BYTES},
    limits::CHUNK_BYTES,
    progress::{Progress, segment_length},
    session::Incoming,
    wire::Tag,
};

/// What may come before the digest of the first of it: a segment, and the chunk that its digest
/// is in.
const HELD_BYTES_MAX: usize = SEGMENT_LEN + CHUNK_BYTES;
const SEGMENT_LEN: usize = 4 << 20;
const _: () = assert!(SEGMENT_LEN as u64 == SEGMENT_BYTES);

/// The output, and what is on its way there.
pub(super) struct Pipe<'w> {
    output: &'w mut dyn Write,
    tag: Option<Tag>,
    /// How much was written: whole verified segments.
    written: u64,
    /// What the last attempt had received, up to what was written.
    progress: Progress,
    /// What was received but not verified.
    held: Vec<u8>,
    /// MD5 of what was written, if it was asked for.
    md5: Option<FileMd5>,
}

impl<'w> Pipe<'w> {
    pub(super) fn new(output: &'w mut dyn Write) -> Self {
        let (held, progress) = (Vec::new(), Progress::new(0));
        Self { output, tag: None, written: 0, progress, held, md5: None }
    }

    /// The server offers a file: it must be the one whose beginning was written.
    pub(super) fn offered(&mut self, size: u64, tag: &Tag) -> Result<(), ClientError> {
        if self.written == 0 {
            self.progress = Progress::new(size);
        } else if self.tag.as_ref() != Some(tag) || self.progress.size() != size {
            let text = "the file changed on the server after a part of it was written out";
            return Err(ClientError::Verification(text.to_owned()));
        }
        self.tag = Some(tag.clone());
        self.held.clear();
        self.held.reserve(HELD_BYTES_MAX.min(usize::try_from(size).unwrap_or(usize::MAX)));
        Ok(())
    }

    /// What an attempt goes on from.
    pub(super) const fn progress(&self) -> &Progress {
        &self.progress
    }

    /// Hands a new attempt the MD5 of what was written.
    pub(super) fn resume(&self, incoming: &mut Incoming) {
        if let Some(md5) = &self.md5 {
            incoming.continue_md5(md5.clone());
        }
    }

    /// Received bytes, in order.
    pub(super) fn hold(&mut self, offset: u64, bytes: &[u8]) -> Result<(), ClientError> {
        if offset != self.written + self.held.len() as u64 {
            return Err(ClientError::Broken("data out of order".to_owned()));
        }
        if self.held.len() + bytes.len() > HELD_BYTES_MAX {
            return Err(ClientError::Broken("the digest of a segment is missing".to_owned()));
        }
        self.held.extend_from_slice(bytes);
        Ok(())
    }

    /// A segment agrees with the sender: out with it.
    pub(super) fn verified(
        &mut self,
        segment: Option<u64>,
        incoming: &Incoming,
    ) -> Result<(), ClientError> {
        // Digests of what was written out come again with each attempt.
        let Some(segment) = segment.filter(|&it| it * SEGMENT_BYTES >= self.written) else {
            return Ok(());
        };
        let length = segment_length(segment, incoming.progress().size());
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let next = segment * SEGMENT_BYTES == self.written;
        let Some(bytes) = self.held.get(..length).filter(|_| next) else {
            return Err(ClientError::Broken("digests out of order".to_owned()));
        };
        self.output.write_all(bytes).map_err(output_error)?;
        self.held.drain(..length);
        self.written += length as u64;
        // The digest of a segment comes right behind its data.
        self.md5 = incoming.md5_so_far().filter(|md5| md5.position() == self.written).cloned();
        Ok(())
    }

    pub(super) fn flush(&mut self) -> Result<(), ClientError> {
        if self.written != self.progress.size() || !self.held.is_empty() {
            let text = "not everything was written out";
            return Err(ClientError::Verification(text.to_owned()));
        }
        self.output.flush().map_err(output_error)
    }

    /// After an attempt: only what was written counts.
    pub(super) fn keep(&mut self, incoming: &Incoming) {
        let mut progress = incoming.progress().clone();
        progress.lower(self.written);
        // Written and verified: a digest that says otherwise now was spoiled on the line, or the
        // next attempt will hear it again. To ask for these bytes again would mend nothing.
        progress.believe();
        self.progress = progress;
    }
}

fn output_error(error: io::Error) -> ClientError {
    ClientError::Output { what: "writing to the output", error }
}
