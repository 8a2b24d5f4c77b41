//! What a transfer costs against a `towd` in this process, beside the same bytes over loopback
//! without protocol and digest.
//!
//! Each pair runs in one group, and the table of ratios at the end is from interleaved pairs:
//! another program on the machine slows both sides of a ratio, but not the ratio. What is sent
//! is in the page cache; what is received by a server goes to [`folder::for_puts`], so that a put
//! is not a benchmark of the disk.
//!
//! Crowds of up to 256 clients, files from 4 KiB to 1 GiB, and the start of a resume. Whether equal
//! clients get equal shares is measured from outside, by `benches/fair.sh`.
//!
//! `TOW_BENCH_QUICK=1` takes under two minutes.

mod bare;
mod folder;
mod lean;
mod table;
mod tow;

use std::{env, time::Duration};

use criterion::{BenchmarkGroup, Criterion, SamplingMode, Throughput, measurement::WallTime};
use towpath::wire::DigestChoice;

use crate::{bare::Bare, tow::Tow};

const MIB: u64 = 1 << 20;

/// Clients, and the bytes of each: whole segments.
const CROWDS: [(usize, u64); 4] = [(1, 128 * MIB), (16, 8 * MIB), (64, 4 * MIB), (256, 4 * MIB)];

/// The bare loop has two threads for each client: with more of them it would measure the scheduler.
const BARE_CLIENTS_MAX: usize = 64;

/// Sizes of the file of one client, beside the one above.
const SIZES: [u64; 5] = [4 << 10, 64 << 10, MIB, 16 * MIB, 1024 * MIB];

/// Of a file of which all but a hundredth is there.
const RESUMED_BYTES: (u64, u64) = (8192 * MIB, 8110 * MIB);

/// So many clients at once, each with a file of so many bytes.
#[derive(Debug, Clone, Copy)]
struct Crowd {
    clients: usize,
    bytes_each: u64,
}

impl Crowd {
    const fn bytes(self) -> u64 {
        self.clients as u64 * self.bytes_each
    }
}

fn main() {
    let quick = env::var_os("TOW_BENCH_QUICK").is_some();
    let mut criterion = Criterion::default().configure_from_args();
    for (clients, bytes_each) in CROWDS {
        let bytes_each = if quick { (bytes_each / 4).max(MIB) } else { bytes_each };
        let crowd = Crowd { clients, bytes_each };
        gets(&mut criterion, crowd, quick);
        puts(&mut criterion, crowd, quick);
    }
    for bytes_each in SIZES.map(|size| if quick { size.min(64 * MIB) } else { size }) {
        sizes(&mut criterion, Crowd { clients: 1, bytes_each }, quick);
    }
    resumes(&mut criterion, quick);
    criterion.final_summary();
    // Only a whole run of the benchmarks, not a test or a search for one of them.
    if env::args().skip(1).all(|argument| argument == "--bench") {
        table::print(quick);
    }
}

fn gets(criterion: &mut Criterion, crowd: Crowd, quick: bool) {
    let (tow, bare) = (Tow::serve_gets(), Bare::serve_gets());
    tow.make(crowd);
    bare.make(crowd);
    let mut group = group(criterion, "get", crowd, quick);
    digests(&mut group, crowd, |digest| tow.get(crowd, digest), || bare.get(crowd));
    bench(&mut group, "md5-tree, client that only counts", || lean::get(&tow, crowd));
    group.finish();
}

fn puts(criterion: &mut Criterion, crowd: Crowd, quick: bool) {
    let (tow, bare) = (Tow::serve_puts(), Bare::serve_puts());
    tow.make(crowd);
    bare.make(crowd);
    let mut group = group(criterion, "put", crowd, quick);
    digests(&mut group, crowd, |digest| tow.put(crowd, digest), || bare.put(crowd));
    group.finish();
}

/// The same with either digest, and with none.
fn digests(
    group: &mut BenchmarkGroup<'_, WallTime>,
    crowd: Crowd,
    tow: impl Fn(DigestChoice) -> Duration,
    bare: impl Fn() -> Duration,
) {
    bench(group, "md5-tree", || tow(DigestChoice::Tree));
    if crowd.clients == 1 {
        bench(group, "md5", || tow(DigestChoice::TreeAndMd5));
    }
    if crowd.clients <= BARE_CLIENTS_MAX {
        bench(group, "bare loop", bare);
    }
}

/// One client and one file: what a transfer costs beside its bytes.
fn sizes(criterion: &mut Criterion, crowd: Crowd, quick: bool) {
    let (gets, puts) = (Tow::serve_gets(), Tow::serve_puts());
    gets.make(crowd);
    puts.make(crowd);
    let kib = crowd.bytes_each >> 10;
    let mut group = group_named(criterion, format!("one file of {kib} KiB"), crowd, quick);
    bench(&mut group, "get", || gets.get(crowd, DigestChoice::Tree));
    bench(&mut group, "put", || puts.put(crowd, DigestChoice::Tree));
    group.finish();
}

/// From the command to the first new byte.
fn resumes(criterion: &mut Criterion, quick: bool) {
    let (gets, puts) = (Tow::serve_gets(), Tow::serve_puts());
    let (size, have) = RESUMED_BYTES;
    gets.make_sparse("resumed", size);
    let put = lean::CutPut::new(puts.address(), 64 * MIB);
    let crowd = Crowd { clients: 1, bytes_each: size - have };
    let mut group = group_named(criterion, "start of a resume".to_owned(), crowd, quick);
    bench(&mut group, "get, 8 GiB of which 99 % are there", || {
        lean::resume_get(gets.address(), "resumed", have)
    });
    bench(&mut group, "put, 64 MiB of which all but one are there", || put.resume());
    group.finish();
}

fn group<'a>(
    criterion: &'a mut Criterion,
    way: &str,
    crowd: Crowd,
    quick: bool,
) -> BenchmarkGroup<'a, WallTime> {
    let plural = if crowd.clients == 1 { "client" } else { "clients" };
    group_named(criterion, format!("{way}, {} {plural}", crowd.clients), crowd, quick)
}

fn group_named(
    criterion: &mut Criterion,
    name: String,
    crowd: Crowd,
    quick: bool,
) -> BenchmarkGroup<'_, WallTime> {
    let mut group = criterion.benchmark_group(name);
    let (warm_up_ms, measure_ms) = if quick { (50, 500) } else { (500, 4000) };
    group
        .throughput(Throughput::Bytes(crowd.bytes()))
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(warm_up_ms))
        .measurement_time(Duration::from_millis(measure_ms));
    group
}

/// A benchmark of rounds that say their own time, without what each does before its clock runs.
fn bench(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    mut round: impl FnMut() -> Duration,
) {
    group.bench_function(name, |b| b.iter_custom(|rounds| (0..rounds).map(|_| round()).sum()));
}
