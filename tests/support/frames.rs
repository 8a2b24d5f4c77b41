//! The binary half of the protocol, for peers that say exactly what a test says.

use towpath::{
    digest::{Engine, Md5Digest, SEGMENT_BYTES, TreeHasher, segment_digest},
    wire::{FRAME_HEADER_BYTES, Frame, FrameHeader, FrameKind, Reply, frame_bytes},
};

use super::Raw;

/// An owner that no `tow` draws.
pub const OWNER: &str = "000102030405060708090a0b0c0d0e0f";

/// A `put` line, with its end.
pub fn offer(path: &str, size: u64, tag: &str) -> String {
    format!("put {path} size={size} mtime=1700000000.000000000 tag={tag} owner={OWNER}\n")
}

pub fn frame(kind: u8, offset: u64, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a payload fits");
    let header = FrameHeader { kind: FrameKind::Data, length, offset }.to_bytes();
    [&[kind], &header[1..], payload].concat()
}

pub fn data(offset: u64, bytes: &[u8]) -> Vec<u8> {
    frame(b'D', offset, bytes)
}

pub fn segment(segment: u64, digest: Md5Digest) -> Vec<u8> {
    frame_bytes(&Frame::Segment { segment, digest })
}

pub fn end(size: u64, root: Md5Digest) -> Vec<u8> {
    frame_bytes(&Frame::End { size, root, md5: None })
}

pub fn abort(line: &str) -> Vec<u8> {
    frame_bytes(&Frame::Abort(Reply::parse(line.as_bytes()).expect("a reply")))
}

/// The digests of a file's segments.
pub fn segments(bytes: &[u8]) -> Vec<Md5Digest> {
    let length = usize::try_from(SEGMENT_BYTES).expect("a segment fits into memory");
    let of = |segment: &[u8]| {
        let mut leaves = Vec::new();
        Engine::scalar().leaves(segment, &mut leaves);
        segment_digest(&leaves)
    };
    bytes.chunks(length).map(of).collect()
}

pub fn root(bytes: &[u8]) -> Md5Digest {
    let mut tree = TreeHasher::new();
    tree.update(&Engine::new(), bytes);
    tree.finish().root
}

/// All frames of a file from `offset` on, which is where a segment starts.
pub fn frames_from(bytes: &[u8], offset: u64) -> Vec<u8> {
    let length = usize::try_from(SEGMENT_BYTES).expect("a segment fits into memory");
    let digests = segments(bytes);
    let mut frames = Vec::new();
    for (n, (piece, digest)) in (0..).zip(bytes.chunks(length).zip(digests)) {
        if n * SEGMENT_BYTES >= offset {
            frames.extend(data(n * SEGMENT_BYTES, piece));
        }
        frames.extend(segment(n, digest));
    }
    frames.extend(end(bytes.len() as u64, root(bytes)));
    frames
}

/// Reads the next frame.
pub fn read_frame(peer: &mut Raw) -> (FrameHeader, Vec<u8>) {
    let bytes = peer.read_bytes(FRAME_HEADER_BYTES).try_into().expect("as many as were asked for");
    let header = FrameHeader::parse(&bytes).expect("a frame");
    let payload = peer.read_bytes(header.length as usize);
    (header, payload)
}

/// Reads frames up to the one that ends the stream; returns that one.
pub fn read_to_last_frame(peer: &mut Raw) -> (FrameHeader, Vec<u8>) {
    loop {
        let frame = read_frame(peer);
        if matches!(frame.0.kind, FrameKind::End | FrameKind::Abort) {
            return frame;
        }
    }
}
