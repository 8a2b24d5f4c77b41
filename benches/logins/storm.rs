//! What a storm of wrong passwords costs those who are in: round trips, and the pace of transfers.

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use towpath::{
    client::{Options, Stop},
    wire::DigestChoice,
};

use crate::{
    bounds::Bounds,
    host,
    support::{
        people::{House, ask, client, logged_in},
        random_file,
        storm::{GUESSERS, Storm},
        watch::{patient, remote},
    },
};

/// So long the calm, or the storm, is looked at. Of a storm it is the beginning: what it still does
/// behind it is to wait for answers that are held back.
const WINDOW: Duration = Duration::from_secs(1);

/// Calm, storm, calm, and so on: so many storms.
const STORMS: u8 = 5;

/// Transfers that run at once.
const TRANSFERS: usize = 16;

/// Round trips of `noop`: calm, in a storm, calm again.
pub(crate) fn measure_round_trips(bounds: &mut Bounds) {
    let house = House::of(&["anna", "ben"]);
    let towd = house.towd(["-q"]);
    let mut peer = logged_in(towd.addr(), "ben");
    let p99 = |weather: &str| {
        let mut took = Vec::new();
        let until = Instant::now() + WINDOW;
        while Instant::now() < until {
            let began = Instant::now();
            assert_eq!(ask(&mut peer, "noop"), "200");
            took.push(1e3 * began.elapsed().as_secs_f64());
            thread::sleep(Duration::from_millis(1));
        }
        took.sort_unstable_by(f64::total_cmp);
        let (p99, max) = (took[(took.len() - 1) * 99 / 100], took[took.len() - 1]);
        println!("{} round trips, {weather}: p99 {p99:.3} ms, max {max:.3} ms", took.len());
        p99
    };
    let turns = in_turns(towd.addr(), p99);
    let more = turns.into_iter().map(|(calm, stormy)| stormy - calm).collect();
    bounds.figure("p99 of noop, ms more in a storm", median(more), -20.0..=20.0);
}

/// Bytes per second of downloads: calm, in a storm, calm again.
pub(crate) fn measure_pace(bounds: &mut Bounds) {
    let house = House::of(&["anna", "ben"]);
    let towd = house.towd(["-q"]);
    drop(logged_in(towd.addr(), "ben"));
    random_file(house.home("ben").join("f"), 64 << 20, 5);
    let (moved, stop) = (AtomicU64::new(0), Stop::default());
    let turns = thread::scope(|scope| {
        let _ends = Ends(stop.clone());
        for _ in 0..TRANSFERS {
            let options = Options { stop: stop.clone(), ..patient(DigestChoice::Tree) };
            let client = client(towd.addr(), "ben", options);
            let mut sink = Sink(&moved);
            scope.spawn(move || while client.get_to(&remote("f"), &mut sink, &mut ()).is_ok() {});
        }
        in_turns(towd.addr(), |weather| {
            let (began, before) = (Instant::now(), moved.load(Ordering::Acquire));
            thread::sleep(WINDOW);
            let bytes = moved.load(Ordering::Acquire) - before;
            let pace = bytes as f64 / began.elapsed().as_secs_f64() / f64::from(1 << 20);
            println!("{TRANSFERS} downloads, {weather}: {pace:.0} MiB/s");
            pace
        })
    });
    let ratios = turns.into_iter().map(|(calm, stormy)| stormy / calm).collect();
    bounds.figure("pace of downloads in a storm, in that of the calm", median(ratios), 0.5..=2.0);
}

/// Measures in the calm and in storms, by turns; returns what each storm came to, behind the mean of
/// the calm before it and behind it.
fn in_turns(addr: SocketAddr, mut measure: impl FnMut(&str) -> f64) -> Vec<(f64, f64)> {
    let storm = Storm::prepared();
    // What guessers have to compute for somebody who is not known is known then, and who runs beside
    // it is in.
    storm.blow(host(9), addr);
    let (mut turns, mut before) = (Vec::new(), measure("calm"));
    for n in 0..STORMS {
        // Each from an address of which nothing bad is known.
        let stormy = thread::scope(|scope| {
            scope.spawn(|| storm.blow(host(10 + n), addr));
            measure("in a storm")
        });
        let after = measure("calm");
        turns.push((f64::midpoint(before, after), stormy));
        before = after;
    }
    let (wrong, too_many) = (storm.wrong(), storm.too_many());
    println!("storms of {GUESSERS}: {wrong} were wrong, {too_many} too many at once");
    turns
}

/// The one in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Whatever comes of the measurement, what runs beside it ends.
struct Ends(Stop);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Counts what is written to it.
struct Sink<'a>(&'a AtomicU64);

impl Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.fetch_add(bytes.len() as u64, Ordering::AcqRel);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
