//! What a transfer costs against a `towd` in this process, beside the same bytes over loopback
//! without protocol and digest.
//!
//! Each pair runs in one group, and the table of ratios at the end is from interleaved pairs:
//! another program on the machine slows both sides of a ratio, but not the ratio. What is sent
//! is in the page cache; what is received by a server goes to [`folder::for_puts`], so that a put
//! is not a benchmark of the disk.
//!
//! `TOW_BENCH_QUICK=1` takes under a minute.

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
const CROWDS: [(usize, u64); 3] = [(1, 128 * MIB), (16, 8 * MIB), (64, 4 * MIB)];

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
        let bytes_each = if quick { (bytes_each / 2).max(MIB) } else { bytes_each };
        let crowd = Crowd { clients, bytes_each };
        gets(&mut criterion, crowd, quick);
        puts(&mut criterion, crowd, quick);
    }
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
    group.bench_function("md5-tree", |b| {
        b.iter_custom(|rounds| total(rounds, || tow.get(crowd, DigestChoice::Tree)));
    });
    group.bench_function("md5-tree, client that only counts", |b| {
        b.iter_custom(|rounds| total(rounds, || lean::get(&tow, crowd)));
    });
    if crowd.clients == 1 {
        group.bench_function("md5", |b| {
            b.iter_custom(|rounds| total(rounds, || tow.get(crowd, DigestChoice::TreeAndMd5)));
        });
    }
    group.bench_function("bare loop", |b| {
        b.iter_custom(|rounds| total(rounds, || bare.get(crowd)));
    });
    group.finish();
}

fn puts(criterion: &mut Criterion, crowd: Crowd, quick: bool) {
    let (tow, bare) = (Tow::serve_puts(), Bare::serve_puts());
    tow.make(crowd);
    bare.make(crowd);
    let mut group = group(criterion, "put", crowd, quick);
    group.bench_function("md5-tree", |b| {
        b.iter_custom(|rounds| total(rounds, || tow.put(crowd, DigestChoice::Tree)));
    });
    if crowd.clients == 1 {
        group.bench_function("md5", |b| {
            b.iter_custom(|rounds| total(rounds, || tow.put(crowd, DigestChoice::TreeAndMd5)));
        });
    }
    group.bench_function("bare loop", |b| {
        b.iter_custom(|rounds| total(rounds, || bare.put(crowd)));
    });
    group.finish();
}

fn group<'a>(
    criterion: &'a mut Criterion,
    way: &str,
    crowd: Crowd,
    quick: bool,
) -> BenchmarkGroup<'a, WallTime> {
    let plural = if crowd.clients == 1 { "client" } else { "clients" };
    let mut group = criterion.benchmark_group(format!("{way}, {} {plural}", crowd.clients));
    let (warm_up_ms, measure_ms) = if quick { (50, 500) } else { (500, 4000) };
    group
        .throughput(Throughput::Bytes(crowd.bytes()))
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_millis(warm_up_ms))
        .measurement_time(Duration::from_millis(measure_ms));
    group
}

/// The time of so many rounds, without what each does before its clock runs.
fn total(rounds: u64, mut round: impl FnMut() -> Duration) -> Duration {
    (0..rounds).map(|_| round()).sum()
}
