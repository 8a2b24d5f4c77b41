//! What the language costs: lines, frames and paths, in memory and without a single system call.
//!
//! The frames of one segment stand here twice: split and settled without hashing them, and with
//! it, so that the first can be read as the price of the protocol on top of its digests.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use towpath::{
    digest::{Engine, LEAVES_PER_SEGMENT, Md5Digest, RootHasher, SEGMENT_BYTES, segment_digest},
    limits::{CHUNK_BYTES, RUNS_MAX},
    progress::Progress,
    session::{Incoming, Piece, Settled, run_jobs},
    wire::{
        Code, Command, DigestChoice, Frame, FrameHeader, FrameKind, RemotePath, Reply, SegmentRuns,
        encode, frame_bytes, next_line,
    },
};

const KIB: usize = 1024;
const SEGMENT_LEN: usize = 4 * KIB * KIB;

const GET: &str = "get /pub/images/towpath-2026.11.iso digest=md5-tree";
const PUT: &str = "put /pub/images/towpath-2026.11.iso size=5368709120 \
    mtime=1795262724.123456789 tag=5368709120-6a1b2c3d-123456789-1a2b3c4d \
    owner=0123456789abcdef0123456789abcdef digest=md5";

fn commands(c: &mut Criterion) {
    let mut group = c.benchmark_group("command_parse");
    for (name, line) in [("noop", "noop"), ("get", GET), ("put", PUT)] {
        assert!(Command::parse(line.as_bytes()).is_ok(), "{line}");
        group.throughput(throughput(line.len()));
        group.bench_function(name, |b| b.iter(|| Command::parse(black_box(line.as_bytes()))));
    }
    group.finish();
}

fn replies(c: &mut Criterion) {
    let root = Md5Digest::of(b"root");
    let have = Reply::new(Code::Have).with("offset", 4_294_967_296_u64);
    let have = have.with("tag", "5368709120-6a1b2c3d").with("root", root);
    let cases = [
        ("done", Reply::new(Code::Done)),
        ("have", have),
        ("failed", Reply::text(Code::Failed, "writing: Input/output error (os error 5)")),
    ];
    let mut parse = c.benchmark_group("reply_parse");
    for (name, reply) in &cases {
        let line = reply.to_string();
        assert_eq!(Reply::parse(line.as_bytes()).as_ref(), Ok(reply));
        parse.throughput(throughput(line.len()));
        parse.bench_function(*name, |b| b.iter(|| Reply::parse(black_box(line.as_bytes()))));
    }
    parse.finish();
    let mut format = c.benchmark_group("reply_format");
    for (name, reply) in &cases {
        format.throughput(throughput(reply.to_string().len()));
        format.bench_function(*name, |b| b.iter(|| black_box(reply).to_string()));
    }
    format.finish();
}

/// Sixty-four pipelined commands in one buffer, as the loop takes them.
fn lines(c: &mut Criterion) {
    let input = format!("{GET}\r\n").repeat(64).into_bytes();
    let mut group = c.benchmark_group("next_line");
    group.throughput(throughput(input.len()));
    group.bench_function("64 pipelined", |b| {
        b.iter(|| {
            let (mut rest, mut found) = (black_box(&*input), 0);
            let mut searched = 0;
            while let Ok(Some((_, taken))) = next_line(rest, &mut searched) {
                rest = &rest[taken..];
                found += 1;
            }
            assert_eq!(found, 64);
        });
    });
    group.finish();
}

fn headers(c: &mut Criterion) {
    let header = FrameHeader { kind: FrameKind::Data, length: 1 << 20, offset: 3 << 20 };
    let bytes = header.to_bytes();
    let mut group = c.benchmark_group("frame_header");
    group.throughput(throughput(bytes.len()));
    group.bench_function("parse", |b| b.iter(|| FrameHeader::parse(black_box(&bytes))));
    group.bench_function("to_bytes", |b| b.iter(|| black_box(header).to_bytes()));
    group.finish();
}

fn paths(c: &mut Criterion) {
    let mut group = c.benchmark_group("path_parse");
    let plain = "/pub/images/2026/november/towpath-2026.11-amd64.iso".to_owned();
    let encoded = encode("ein Ordner/mit Ümläuten/und Leerzeichen, 100 % davon".as_bytes());
    let long = "/directory".repeat(400);
    for (name, word) in [("plain", plain), ("encoded", encoded), ("4000 bytes", long)] {
        assert!(RemotePath::parse(&word).is_ok(), "{word}");
        group.throughput(throughput(word.len()));
        group.bench_function(name, |b| b.iter(|| RemotePath::parse(black_box(&word))));
    }
    group.finish();
}

fn runs(c: &mut Criterion) {
    let mut group = c.benchmark_group("segment_runs");
    for (name, count) in [("1 run", 1), ("512 runs", RUNS_MAX as u64)] {
        let runs = SegmentRuns::collect((0..count).flat_map(|run| [9 * run, 9 * run + 1]));
        let text = runs.to_string();
        assert_eq!(SegmentRuns::parse(&text).as_ref(), Some(&runs));
        group.throughput(throughput(text.len()));
        group.bench_function(BenchmarkId::new("parse", name), |b| {
            b.iter(|| SegmentRuns::parse(black_box(&text)));
        });
        group.bench_function(BenchmarkId::new("format", name), |b| {
            b.iter(|| black_box(&runs).to_string());
        });
    }
    group.finish();
}

/// One segment on its way in, in data frames of one size, in chunks like those of the loop.
fn frames(c: &mut Criterion) {
    let mut group = c.benchmark_group("incoming_4MiB");
    group.throughput(throughput(SEGMENT_LEN));
    let engine = Engine::new();
    let data: Vec<u8> = (0..=250).cycle().take(SEGMENT_LEN).collect();
    let mut leaves = Vec::new();
    engine.leaves(&data, &mut leaves);
    let hashed = segment_digest(&leaves);
    // A leaf that no engine has run is that of no bytes.
    let unhashed = segment_digest(&[Md5Digest::of(b""); LEAVES_PER_SEGMENT]);
    for frame_len in [64 * KIB, CHUNK_BYTES, SEGMENT_LEN] {
        let name = format!("frames of {} KiB", frame_len / KIB);
        let stream = stream_of(&data, frame_len, unhashed);
        group.bench_function(BenchmarkId::new("without hashing", &name), |b| {
            b.iter(|| receive(&engine, black_box(&stream), false));
        });
    }
    let stream = stream_of(&data, CHUNK_BYTES, hashed);
    group.bench_function(BenchmarkId::new("with hashing", "frames of 1024 KiB"), |b| {
        b.iter(|| receive(&engine, black_box(&stream), true));
    });
    group.finish();
}

fn receive(engine: &Engine, stream: &[u8], hash: bool) {
    let mut incoming = Incoming::new(Progress::new(SEGMENT_BYTES), DigestChoice::Tree);
    let mut last = None;
    for chunk in stream.chunks(CHUNK_BYTES) {
        let (mut pieces, mut jobs) = (Vec::new(), Vec::new());
        let taken = incoming.parse(chunk, &mut pieces, &mut jobs);
        assert_eq!(taken, Ok(chunk.len()));
        if hash {
            run_jobs(engine, &mut jobs, chunk);
        }
        incoming.hashed(jobs.into_iter());
        for piece in pieces {
            match piece {
                Piece::Data { offset, range } => incoming.wrote(offset, &chunk[range]),
                Piece::Frame(frame) => last = Some(incoming.settle(frame)),
            }
        }
    }
    assert_eq!(last, Some(Ok(Settled::Whole)));
}

/// The frames of a file of one segment.
fn stream_of(data: &[u8], frame_len: usize, digest: Md5Digest) -> Vec<u8> {
    let mut stream = Vec::new();
    let mut offset = 0;
    for payload in data.chunks(frame_len) {
        let length = u32::try_from(payload.len()).expect("a frame is no longer than a segment");
        let header = FrameHeader { kind: FrameKind::Data, length, offset };
        stream.extend(header.to_bytes());
        stream.extend(payload);
        offset += u64::from(length);
    }
    stream.extend(frame_bytes(&Frame::Segment { segment: 0, digest }));
    let mut root = RootHasher::new();
    root.push(digest);
    let root = root.finish(SEGMENT_BYTES);
    stream.extend(frame_bytes(&Frame::End { size: SEGMENT_BYTES, root, md5: None }));
    stream
}

fn throughput(len: usize) -> Throughput {
    Throughput::Bytes(len as u64)
}

criterion_group!(benches, commands, replies, lines, headers, paths, runs, frames);
criterion_main!(benches);
