//! Many at once: everybody is served, and what everybody gets is right.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{
    net::TcpStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use support::{
    PATIENCE, Raw, TestDir, Towd,
    proxy::{Direction, Plan, Proxy, Slow},
    random_file, resident_bytes, same_bytes,
};
use towpath::{
    client::{Client, Options, Stop, Url},
    wire::DigestChoice,
};

mod support;

const CLIENTS: u64 = 64;
const SIZE: u64 = (4 << 20) + 12_345;

fn client(url: &Url, n: u64) -> Client {
    let digest = if n.is_multiple_of(4) { DigestChoice::TreeAndMd5 } else { DigestChoice::Tree };
    Client::new(url, Options { digest, ..Options::default() })
}

fn url(addr: std::net::SocketAddr, path: &str) -> Url {
    format!("tow://{addr}/{path}").parse().unwrap()
}

/// Round trips of `noop`, until it is asked to stop.
fn ping_until(stop: &AtomicBool, towd: &Towd) -> Vec<Duration> {
    let mut peer = Raw::connect(towd.addr());
    peer.read_line();
    let mut took = Vec::new();
    while !stop.load(Ordering::Acquire) {
        let began = Instant::now();
        peer.send("noop\n");
        assert_eq!(peer.read_line(), "200");
        took.push(began.elapsed());
        thread::sleep(Duration::from_millis(2));
    }
    took.sort_unstable();
    took
}

/// A file goes up, comes down, and is the same.
fn there_and_back(towd: &Towd, dir: &Path, n: u64) {
    let (source, copy) = (dir.join(format!("{n}")), dir.join(format!("{n}.copy")));
    let size = SIZE + n * 4096;
    random_file(&source, size, n);
    let url = url(towd.addr(), &format!("f{n}"));
    let up = client(&url, n).put(&source, &url.path, &mut ()).unwrap();
    let down = client(&url, n).get(&url.path, &copy, &mut ()).unwrap();
    assert_eq!((up.size, up.moved, up.root), (size, size, down.root));
    assert_eq!(down.moved, size);
    assert!(same_bytes(&source, &copy) && same_bytes(&source, towd.root().join(format!("f{n}"))));
}

#[test]
fn sixty_four_clients_both_ways_beside_slow_and_silent_ones_are_all_right() {
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let large = dir.join("large");
    random_file(&large, 64 << 20, 99);
    std::fs::copy(&large, towd.root().join("large")).unwrap();
    let before = resident_bytes(towd.pid());

    // One that reads slowly, one that asks and takes nothing, one that offers and sends nothing.
    let slow = Slow { direction: Direction::Down, bytes_per_s: 1 << 20 };
    let proxy = Proxy::start(towd.addr(), Plan { slow: Some(slow), ..Plan::default() });
    let mut silent = Raw::connect(towd.addr());
    silent.send("get /large\n402\n");
    let mut owing = Raw::connect(towd.addr());
    owing.send(support::frames::offer("/owed", 1 << 20, "t") + "426 offset=0\n");

    let done = AtomicBool::new(false);
    let stop = Stop::new(Arc::new(AtomicBool::new(false)));
    thread::scope(|scope| {
        let slow_url = url(proxy.addr(), "large");
        let options = Options { stop: stop.clone(), ..Options::default() };
        let target = dir.join("slow");
        scope.spawn(move || {
            // Let go of in the end: what it has by then is its own affair.
            drop(Client::new(&slow_url, options).get(&slow_url.path, &target, &mut ()));
        });
        let pings = scope.spawn(|| ping_until(&done, &towd));
        let workers: Vec<_> = (0..CLIENTS)
            .map(|n| {
                scope.spawn({
                    let (t, d) = (&towd, dir.path());
                    move || there_and_back(t, d, n)
                })
            })
            .collect();
        let failed = workers.into_iter().filter_map(|worker| worker.join().err()).count();
        done.store(true, Ordering::Release);
        stop.stop();
        let pings = pings.join().unwrap();
        let p99 = pings[(pings.len() - 1) * 99 / 100];
        eprintln!("{} pings beside, p99 {p99:?}, max {:?}", pings.len(), pings[pings.len() - 1]);
        assert_eq!(failed, 0);
        assert!(p99 < Duration::from_secs(2), "{p99:?}");
    });
    let growth = resident_bytes(towd.pid()).saturating_sub(before);
    eprintln!("{CLIENTS} clients cost {} KiB", growth >> 10);
    assert!(proxy.counts().total.down > 0);
    // The silent one is in step still.
    assert!(silent.read_line().starts_with("220 "));
    assert!(silent.read_line().starts_with("203 "));
}

#[test]
fn two_thousand_idle_connections_are_greeted_and_served_in_the_end() {
    let towd = Towd::start(["--max-per-address", "3000"]);
    let before = resident_bytes(towd.pid());
    // All connect before the first is looked at: a burst.
    let mut idle: Vec<Raw> = (0..2000)
        .map(|_| Raw::over(TcpStream::connect_timeout(&towd.addr(), PATIENCE).unwrap()))
        .collect();
    for peer in &mut idle {
        assert!(peer.read_line().starts_with("220 "));
    }
    let each = resident_bytes(towd.pid()).saturating_sub(before) / idle.len() as u64;
    eprintln!("{each} bytes for each idle connection");
    assert!(each < 4096, "{each} bytes for each idle connection");
    let dir = TestDir::new();
    there_and_back(&towd, dir.path(), 0);
    for peer in &mut idle {
        peer.send("noop\n");
    }
    for peer in &mut idle {
        assert_eq!(peer.read_line(), "200");
    }
    // Every second one leaves without a word; the others do not notice.
    let rest: Vec<Raw> = idle.into_iter().step_by(2).collect();
    for mut peer in rest {
        peer.send("stat /f0\nquit\n");
        assert!(peer.read_line().starts_with("200 kind=f"));
        assert!(peer.read_line().starts_with("221 "));
    }
}

#[test]
fn a_thousand_connections_that_come_and_go_leave_nothing_behind() {
    let towd = Towd::start([""; 0]);
    let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", towd.pid())).unwrap().count();
    let before = descriptors();
    thread::scope(|scope| {
        for n in 0..4 {
            let towd = &towd;
            scope.spawn(move || {
                for m in 0..250 {
                    let mut peer = Raw::connect(towd.addr());
                    match (n + m) % 3 {
                        0 => peer.send("ls /\nget /none\n"),
                        1 => assert!(peer.read_line().starts_with("220 ")),
                        _ => peer.send(support::frames::offer(&format!("/{n}-{m}"), 100, "t")),
                    }
                }
            });
        }
    });
    let settled = support::wait_until(PATIENCE, || descriptors() <= before);
    assert!(settled, "{before} descriptors became {}", descriptors());
}
