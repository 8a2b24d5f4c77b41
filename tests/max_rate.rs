//! `towd --max-rate`: nobody gets around it, and what moves nothing does not wait for it. How exact it
//! is, `cargo bench --bench rates` tells.

use std::time::{Duration, Instant};

use support::{
    PATIENCE, Raw, Towd,
    frames::{frames_from, offer},
    random_file,
};

mod support;

fn greeted(towd: &Towd) -> Raw {
    let mut peer = Raw::connect(towd.addr());
    assert!(peer.read_line().starts_with("220 "));
    peer
}

#[test]
fn small_files_whose_frames_follow_their_lines_at_once_keep_to_the_rate() {
    const FILES: u64 = 80;
    const SIZE: u64 = 25_000;
    const RATE: u64 = 1 << 20;
    let towd = Towd::start(["--max-rate", "1MiB"]);
    let content = vec![7; usize::try_from(SIZE).expect("it is small")];
    let mut peer = greeted(&towd);
    let began = Instant::now();
    for n in 0..FILES {
        let mut all = offer(&format!("/{n}"), SIZE, "t").into_bytes();
        all.extend(b"426 offset=0\n");
        all.extend(frames_from(&content, 0));
        peer.send(&all);
        assert_eq!(peer.read_line(), "402");
        assert!(peer.read_line().starts_with("226 "));
    }
    // It may be slower, but not faster, but for what the first moment brings.
    let least = Duration::from_secs_f64((FILES * SIZE) as f64 / RATE as f64 * 0.8);
    assert!(began.elapsed() > least, "{:?}", began.elapsed());
}

#[test]
fn a_digest_is_computed_while_others_use_up_the_rate() {
    // At most one step of 256 KiB in a second, if each had to wait for its turn.
    const SIZE: u64 = 64 << 20;
    let towd = Towd::start(["--max-rate", "4KiB"]);
    random_file(towd.root().join("large"), SIZE, 1);
    let mut reader = greeted(&towd);
    reader.send("get /large\n402\n");
    assert!(reader.read_line().starts_with("203 "));
    assert!(reader.read_line().starts_with("426 "));
    reader.read_bytes(4 << 10);
    let mut peer = greeted(&towd);
    peer.send("md5 /large\n");
    let began = Instant::now();
    while !peer.read_line().starts_with("200 md5=") {
        assert!(began.elapsed() < PATIENCE, "it waits for the rate");
    }
}
