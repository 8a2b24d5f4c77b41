//! Small files as they go over the line: whole, from memory into memory.

use crate::{
    client::{ClientError, get::Pace, line::Line},
    digest::{Engine, Md5Digest},
    progress::Progress,
    session::{Incoming, LeafJob, Outgoing, Piece, Settled, run_jobs},
    wire::{DigestChoice, Reply, SegmentRuns, frame_bytes},
};

/// What is read from the line at once, beside the bytes of the file: headers, digests.
const FRAMING_BYTES: usize = 256;

/// The most that is read from the line at once.
const READ_BYTES_MAX: usize = 64 << 10;

/// Adds the stream of a file, from its first byte to its end, to `frames`. Returns the file's root.
pub(super) fn stream(
    content: &[u8],
    digest: DigestChoice,
    engine: &Engine,
    frames: &mut Vec<u8>,
) -> Option<Md5Digest> {
    let size = content.len() as u64;
    let mut outgoing = Outgoing::new(size, 0, &SegmentRuns::default(), digest).ok()?;
    frames.reserve(content.len() + FRAMING_BYTES);
    while !outgoing.has_ended() {
        if let Some(frame) = outgoing.next_frame() {
            frames.extend(frame_bytes(&frame));
            continue;
        }
        let read = outgoing.next_to_send()?;
        let start = usize::try_from(read.offset).ok()?;
        let payload = content.get(start..start.checked_add(read.length)?)?;
        let mut jobs = Vec::new();
        outgoing.read_to_send(read, start..start + read.length, &mut jobs);
        run_jobs(engine, &mut jobs, content);
        outgoing.hashed(jobs.into_iter());
        outgoing.follow_md5(read.offset, payload);
        frames.extend(outgoing.data_header(payload.len())?.to_bytes());
        frames.extend_from_slice(payload);
        outgoing.sent(payload.len());
    }
    outgoing.digests().0
}

/// What a stream from the server came to.
pub(super) enum Streamed {
    /// The file, verified.
    Whole(Vec<u8>),
    /// Something of it was spoiled.
    Spoiled,
    /// The server gave up.
    Aborted(Reply),
}

/// Receives the stream of a file of `size` bytes, from its first byte to its end.
pub(super) fn receive(
    line: &mut Line,
    size: usize,
    digest: DigestChoice,
    engine: &Engine,
) -> Result<Streamed, ClientError> {
    let mut incoming = Incoming::new(Progress::new(size as u64), digest);
    let mut content = vec![0; size];
    let mut buffer = vec![0; (size + FRAMING_BYTES).min(READ_BYTES_MAX)];
    let mut pace = Pace::new(0);
    loop {
        let have = line.receive(&mut buffer)?;
        let input = buffer.get(..have).unwrap_or_default();
        let (mut pieces, mut jobs): (Vec<Piece>, Vec<LeafJob>) = (Vec::new(), Vec::new());
        let taken = incoming.parse(input, &mut pieces, &mut jobs)?;
        run_jobs(engine, &mut jobs, input);
        incoming.hashed(jobs.into_iter());
        let mut ended = None;
        for piece in pieces {
            match piece {
                Piece::Data { offset, range } => {
                    let bytes = input.get(range).unwrap_or_default();
                    let start = usize::try_from(offset).unwrap_or(usize::MAX);
                    let room = content.get_mut(start..).and_then(|it| it.get_mut(..bytes.len()));
                    if let Some(room) = room {
                        room.copy_from_slice(bytes);
                    }
                    incoming.wrote(offset, bytes);
                }
                Piece::Frame(frame) => match incoming.settle(frame)? {
                    Settled::Good | Settled::Bad { .. } => {}
                    settled => ended = Some(settled),
                },
            }
        }
        line.unread(input.get(taken..).unwrap_or_default());
        pace.look(incoming.moved_bytes())?;
        match ended {
            None | Some(Settled::Good | Settled::Bad { .. }) => {}
            Some(Settled::Aborted(reply)) => return Ok(Streamed::Aborted(reply)),
            Some(Settled::Differs(_)) => return Ok(Streamed::Spoiled),
            Some(Settled::Whole) => {
                let whole = incoming.check_md5().is_ok();
                return Ok(if whole { Streamed::Whole(content) } else { Streamed::Spoiled });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::TreeHasher;

    #[test]
    fn a_stream_is_what_the_other_end_takes() {
        let engine = Engine::new();
        for size in [0, 1, 65_536, 65_537, 262_144] {
            for digest in [DigestChoice::Tree, DigestChoice::TreeAndMd5] {
                let content: Vec<u8> = (0_u32..).map(|n| (n % 251) as u8).take(size).collect();
                let mut frames = Vec::new();
                let root = stream(&content, digest, &engine, &mut frames).unwrap();
                let mut tree = TreeHasher::new();
                tree.update(&engine, &content);
                assert_eq!(root, tree.finish().root);
                let mut incoming = Incoming::new(Progress::new(size as u64), digest);
                let (mut pieces, mut jobs) = (Vec::new(), Vec::new());
                let taken = incoming.parse(&frames, &mut pieces, &mut jobs).unwrap();
                assert_eq!(taken, frames.len());
                run_jobs(&engine, &mut jobs, &frames);
                incoming.hashed(jobs.into_iter());
                let mut last = None;
                for piece in pieces {
                    match piece {
                        Piece::Data { offset, range } => {
                            incoming.wrote(offset, &frames[range]);
                        }
                        Piece::Frame(frame) => last = Some(incoming.settle(frame).unwrap()),
                    }
                }
                assert_eq!(last, Some(Settled::Whole), "{size}");
                assert!(incoming.check_md5().is_ok());
            }
        }
    }
}
