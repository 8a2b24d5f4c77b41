//! What verification costs: MD5 one at a time, in lanes of one stream, in lanes over many streams,
//! of leaves and of whole files.
//!
//! `memcpy` of the same bytes stands beside them as the price of touching memory at all.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use towpath::digest::{Engine, FileMd5, Job, LeafState, Md5Digest};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// The copy is the floor under everything below.
fn memcpy(c: &mut Criterion) {
    let mut group = c.benchmark_group("memcpy");
    for len in [MIB, 4 * MIB] {
        let from = bytes(len);
        let mut to = vec![0; len];
        group.throughput(throughput(len));
        group.bench_function(BenchmarkId::from_parameter(name(len)), |b| {
            b.iter(|| black_box(&mut to).copy_from_slice(black_box(&from)));
        });
    }
}

/// The whole-file MD5 of one stream, which has to take one byte after the other.
fn one_md5(c: &mut Criterion) {
    let mut group = c.benchmark_group("one_md5");
    let buffer = bytes(MIB);
    group.throughput(throughput(MIB));
    group.bench_function(BenchmarkId::from_parameter(name(MIB)), |b| {
        b.iter(|| {
            let mut md5 = FileMd5::new();
            md5.update(black_box(&buffer));
            md5.finish()
        });
    });
}

/// The leaves of one fast stream, out of one read buffer.
fn one_stream(c: &mut Criterion) {
    let mut group = c.benchmark_group("leaves_of_one_stream");
    for (engine, label) in [(Engine::new(), "lanes"), (Engine::scalar(), "scalar")] {
        for len in [64 * KIB, 256 * KIB, MIB, 4 * MIB] {
            let buffer = bytes(len);
            let mut leaves: Vec<Md5Digest> = Vec::new();
            group.throughput(throughput(len));
            group.bench_function(BenchmarkId::new(label, name(len)), |b| {
                b.iter(|| {
                    leaves.clear();
                    engine.leaves(black_box(&buffer), &mut leaves);
                });
            });
        }
    }
}

/// One turn over many slow streams: each has a piece of a leaf.
fn many_streams(c: &mut Criterion) {
    let mut group = c.benchmark_group("pieces_of_many_streams");
    let shapes: [(&str, Vec<usize>); 5] = [
        ("64x16KiB", vec![16 * KIB; 64]),
        ("64x1460B", vec![1460; 64]),
        // All lengths differ, and soon so do the places at which the streams stand in a block.
        ("64x8..16KiB", (0..64).map(|i| 16 * KIB - 127 * i).collect()),
        ("6x16KiB", vec![16 * KIB; 6]),
        ("15x16KiB", vec![16 * KIB; 15]),
    ];
    for (shape, lengths) in shapes {
        let count = lengths.len();
        let pieces: Vec<Vec<u8>> = lengths.into_iter().map(bytes).collect();
        group.throughput(throughput(pieces.iter().map(Vec::len).sum()));
        for (engine, label) in [(Engine::new(), "lanes"), (Engine::scalar(), "scalar")] {
            let mut states = vec![LeafState::new(); count];
            group.bench_function(BenchmarkId::new(label, shape), |b| {
                b.iter(|| {
                    let mut jobs: Vec<Job<'_>> = states
                        .iter_mut()
                        .zip(&pieces)
                        .map(|(state, piece)| state.job(black_box(piece)))
                        .collect();
                    engine.update(&mut jobs);
                });
            });
        }
    }
}

/// The whole-file MD5 of many streams: a piece of each, as in a turn of the loop.
fn many_files(c: &mut Criterion) {
    let mut group = c.benchmark_group("whole_files");
    let piece = bytes(256 * KIB);
    for count in [1, 2, 4, 8, 16, 64] {
        group.throughput(throughput(count * piece.len()));
        for (engine, label) in [(Engine::new(), "lanes"), (Engine::scalar(), "scalar")] {
            let mut files = vec![FileMd5::new(); count];
            group.bench_function(BenchmarkId::new(label, format!("{count}x256KiB")), |b| {
                b.iter(|| {
                    let jobs = files.iter_mut().map(|md5| md5.job(black_box(&piece)));
                    engine.update(&mut jobs.collect::<Vec<Job<'_>>>());
                });
            });
        }
    }
}

/// A turn of eight streams of both digests: four leaves and a piece of the whole file of each.
fn tree_and_md5(c: &mut Criterion) {
    let mut group = c.benchmark_group("tree_and_md5_of_8_streams");
    let chunks: Vec<_> = (0..8).map(|_| bytes(256 * KIB)).collect();
    group.throughput(throughput(chunks.iter().map(Vec::len).sum()));
    for (engine, label) in [(Engine::new(), "lanes"), (Engine::scalar(), "scalar")] {
        let mut files = vec![FileMd5::new(); chunks.len()];
        let mut leaves = vec![LeafState::new(); 4 * chunks.len()];
        group.bench_function(label, |b| {
            b.iter(|| {
                let files = files.iter_mut().zip(&chunks);
                let blocks = chunks.iter().flat_map(|chunk| chunk.chunks(64 * KIB));
                let leaves = leaves.iter_mut().zip(blocks);
                let files = files.map(|(md5, chunk)| md5.job(black_box(chunk)));
                let leaves = leaves.map(|(leaf, block)| leaf.job(black_box(block)));
                engine.update(&mut files.chain(leaves).collect::<Vec<Job<'_>>>());
            });
        });
    }
}

/// The padding blocks of many leaves that end in the same turn.
fn finish(c: &mut Criterion) {
    let mut group = c.benchmark_group("finish_64_leaves");
    let states = vec![LeafState::new(); 64];
    let mut digests: Vec<Md5Digest> = Vec::new();
    for (engine, label) in [(Engine::new(), "lanes"), (Engine::scalar(), "scalar")] {
        group.bench_function(label, |b| {
            b.iter(|| {
                digests.clear();
                engine.finish_many(black_box(&states), &mut digests);
            });
        });
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

fn throughput(len: usize) -> Throughput {
    Throughput::Bytes(len as u64)
}

fn name(len: usize) -> String {
    if len < MIB { format!("{}KiB", len / KIB) } else { format!("{}MiB", len / MIB) }
}

criterion_group!(
    benches,
    memcpy,
    one_md5,
    one_stream,
    many_streams,
    many_files,
    tree_and_md5,
    finish
);
criterion_main!(benches);
