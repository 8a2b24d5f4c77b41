//! Ratios, from pairs that run in turns, and what small things cost beside large ones.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use towpath::wire::DigestChoice;

use crate::{Crowd, MIB, bare::Bare, lean, tow::Tow};

/// Prints everything.
pub(crate) fn print(quick: bool) {
    let (rounds, bytes_each) = if quick { (3, 64 * MIB) } else { (9, 256 * MIB) };
    let one = Crowd { clients: 1, bytes_each };
    let many = Crowd { clients: 64, bytes_each: 4 * MIB };
    println!("\nPairs in turns, {rounds} of each, medians:\n");
    println!("| A / B | A GiB/s | B GiB/s | A / B | claim |");
    println!("|---|---|---|---|---|");
    gets(one, rounds);
    puts(one, rounds);
    crowds(many, rounds);
    println!("\n| what | measured | claim |\n|---|---|---|");
    pings(many, quick);
    take_overs(rounds);
}

fn gets(one: Crowd, rounds: usize) {
    let (tow, bare) = (Tow::serve_gets(), Bare::serve_gets());
    tow.make(one);
    bare.make(one);
    let tree = || tow.get(one, DigestChoice::Tree);
    row("get md5-tree / bare loop", ">= 0.6", one, rounds, tree, || bare.get(one));
    let lean = || lean::get(&tow, one);
    row("get md5-tree, client that only counts / bare loop", "", one, rounds, lean, || {
        bare.get(one)
    });
    let md5 = || tow.get(one, DigestChoice::TreeAndMd5);
    row("get md5-tree / get md5", ">= 3", one, rounds, tree, md5);
}

fn puts(one: Crowd, rounds: usize) {
    let (tow, bare) = (Tow::serve_puts(), Bare::serve_puts());
    tow.make(one);
    bare.make(one);
    let tree = || tow.put(one, DigestChoice::Tree);
    row("put md5-tree / bare loop", ">= 0.6", one, rounds, tree, || bare.put(one));
    let md5 = || tow.put(one, DigestChoice::TreeAndMd5);
    row("put md5-tree / put md5", ">= 3", one, rounds, tree, md5);
}

fn crowds(many: Crowd, rounds: usize) {
    let (tow, bare) = (Tow::serve_gets(), Bare::serve_gets());
    tow.make(many);
    bare.make(many);
    let tree = || tow.get(many, DigestChoice::Tree);
    row("64 gets md5-tree / 64 bare loops", "", many, rounds, tree, || bare.get(many));
    let (tow, bare) = (Tow::serve_puts(), Bare::serve_puts());
    tow.make(many);
    bare.make(many);
    let tree = || tow.put(many, DigestChoice::Tree);
    row("64 puts md5-tree / 64 bare loops", "", many, rounds, tree, || bare.put(many));
}

/// One line: A B A B, of which the first pair warms up.
fn row(
    name: &str,
    claim: &str,
    crowd: Crowd,
    rounds: usize,
    mut a: impl FnMut() -> Duration,
    mut b: impl FnMut() -> Duration,
) {
    let pairs: Vec<_> = (0..=rounds).map(|_| (a(), b())).skip(1).collect();
    let gib = crowd.bytes() as f64 / (1024 * MIB) as f64;
    let speed = |time: Duration| gib / time.as_secs_f64();
    let a = median(pairs.iter().map(|(a, _)| speed(*a)));
    let b = median(pairs.iter().map(|(_, b)| speed(*b)));
    let ratio = median(pairs.iter().map(|(a, b)| b.as_secs_f64() / a.as_secs_f64()));
    println!("| {name} | {a:.2} | {b:.2} | {ratio:.2} | {claim} |");
}

/// A small command beside clients that are all busy, and on an idle server.
fn pings(many: Crowd, quick: bool) {
    let (count, interval) = (if quick { 500 } else { 2000 }, Duration::from_millis(2));
    let tow = Tow::serve_gets();
    tow.make(many);
    let idle = tow.ping(count, interval);
    let busy = AtomicBool::new(true);
    let ping = thread::scope(|scope| {
        scope.spawn(|| {
            while busy.load(Ordering::Acquire) {
                lean::get(&tow, many);
            }
        });
        let ping = tow.ping(count, interval);
        busy.store(false, Ordering::Release);
        ping
    });
    let millis = |ping: &towpath::client::Ping, share| ping.quantile(share).as_secs_f64() * 1e3;
    for (name, ping, claim) in
        [("idle server", &idle, ""), ("64 busy clients", &ping, "p99 < 20 ms")]
    {
        let [p50, p99, most] = [0.5, 0.99, 1.0].map(|share| millis(ping, share));
        println!("| ping, {name} | p50 {p50:.2} p99 {p99:.2} max {most:.2} ms | {claim} |");
    }
}

fn take_overs(rounds: usize) {
    let tow = Tow::serve_puts();
    let times = (0..rounds).map(|number| lean::take_over(tow.address(), number).as_secs_f64());
    let times: Vec<_> = times.map(|seconds| seconds * 1e3).collect();
    let most = times.iter().copied().fold(0.0, f64::max);
    let half = median(times.into_iter());
    println!("| black-holed upload is taken over | p50 {half:.2} max {most:.2} ms | < 1 s |");
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
