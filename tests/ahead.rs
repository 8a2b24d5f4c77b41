//! Small files that go ahead of their answers, and those that are asked for ahead.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails the test")]

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    net::{SocketAddr, TcpListener},
    thread,
    time::Duration,
};

use support::{
    PATIENCE, Raw, TestDir, Towd,
    frames::{OWNER, abort, data, frames_from, offer, read_to_last_frame, root},
    resident_bytes, run_tow, tcp, wait_until,
};
use towpath::digest::Md5Digest;

mod support;

/// A put that is sent as a whole.
fn put(path: &str, bytes: &[u8]) -> Vec<u8> {
    let line = offer(path, bytes.len() as u64, "t").replace('\n', " ahead=1\n");
    [line.as_bytes(), &frames_from(bytes, 0)].concat()
}

fn greeted(addr: SocketAddr) -> Raw {
    let mut peer = Raw::connect(addr);
    peer.read_line();
    peer
}

fn identical(bytes: &[u8]) -> String {
    format!("226 root={}", root(bytes))
}

/// What lies in files, and would do harm as commands.
const HARM: &[u8] = b"\nrm /victim\nmv /victim /gone\nquit\n";

#[test]
fn what_is_refused_is_passed_over_and_what_stands_beside_it_is_stored() {
    let towd = Towd::start([""; 0]);
    fs::write(towd.root().join("victim"), b"alive").unwrap();
    fs::create_dir(towd.root().join("dir")).unwrap();
    let mut peer = greeted(towd.addr());
    let large = vec![b'\n'; 200_000];
    let all = [
        put("/a", HARM),
        put("/dir", HARM),
        put("/../x", HARM),
        put("/absent/x", HARM),
        put("/dir", &large),
        put("/large", &large),
        put("/b", b""),
        b"stat /b\n".to_vec(),
    ];
    peer.send(all.concat());
    let answers: Vec<String> = (0..all.len()).map(|_| peer.read_line()).collect();
    let large_root = identical(&large);
    let expected =
        [&*identical(HARM), "405", "403", "110", "405", &large_root, &identical(b""), "200"];
    for (answer, expected) in answers.iter().zip(expected) {
        assert!(answer.starts_with(expected), "{answers:#?}");
    }
    assert_eq!(fs::read(towd.root().join("victim")).unwrap(), b"alive");
    assert_eq!(fs::read(towd.root().join("a")).unwrap(), HARM);
    assert_eq!(fs::read(towd.root().join("large")).unwrap(), large);
}

#[test]
fn a_client_that_has_said_all_is_answered_all() {
    let towd = Towd::start([""; 0]);
    let mut peer = greeted(towd.addr());
    let files: Vec<Vec<u8>> = (0..300_usize).map(|n| vec![b'x'; n * 20]).collect();
    for (n, bytes) in files.iter().enumerate() {
        peer.send(put(&format!("/{n}"), bytes));
    }
    peer.finish_sending();
    for (n, bytes) in files.iter().enumerate() {
        assert_eq!(peer.read_line(), identical(bytes), "{n}");
        assert_eq!(&fs::read(towd.root().join(n.to_string())).unwrap(), bytes);
    }
    assert!(peer.closes_within(PATIENCE));
    assert_eq!(fs::read_dir(towd.root().join(".tow/partials")).unwrap().count(), 0);
}

#[test]
fn what_somebody_else_is_writing_is_busy_and_what_the_same_client_was_is_taken_over() {
    let towd = Towd::start([""; 0]);
    let mut writer = greeted(towd.addr());
    writer.send(offer("/f", 100_000, "t"));
    assert_eq!(writer.read_line(), "402");
    writer.send("426 offset=0\n");
    writer.send(&data(0, &[7; 70_000])[..50_000]);
    tcp::wait_until_read(towd.addr());
    let mut other = greeted(towd.addr());
    let theirs = |path: &str| {
        let line = offer(path, 1, "t").replace('\n', " ahead=1\n").replace(OWNER, &"7".repeat(32));
        [line.as_bytes(), &frames_from(b"x", 0)].concat()
    };
    other.send([theirs("/f"), theirs("/g")].concat());
    assert!(other.read_line().starts_with("423 "));
    assert_eq!(other.read_line(), identical(b"x"));
    other.send(put("/f", b"mine"));
    assert_eq!(other.read_line(), identical(b"mine"));
    assert!(writer.closes_within(PATIENCE));
    assert_eq!(fs::read(towd.root().join("f")).unwrap(), b"mine");
}

#[test]
fn many_that_hold_files_back_share_little_memory() {
    let towd = Towd::start([""; 0]);
    let before = resident_bytes(towd.pid());
    let begun = put("/f", &[7; 65_000]);
    let peers: Vec<Raw> = (0..600)
        .map(|n| {
            let mut peer = greeted(towd.addr());
            let line = offer(&format!("/{n}"), 65_000, "t").replace('\n', " ahead=1\n");
            let frames = begun.iter().position(|&byte| byte == b'\n').unwrap() + 1;
            peer.send([line.as_bytes(), &begun[frames..begun.len() - 100]].concat());
            peer
        })
        .collect();
    tcp::wait_until_read(towd.addr());
    let mut peer = greeted(towd.addr());
    peer.send("noop\n");
    assert_eq!(peer.read_line(), "200");
    let more = resident_bytes(towd.pid()).saturating_sub(before);
    assert!(more < 24 << 20, "{more} bytes more for {} connections", peers.len());
}

#[test]
fn who_takes_no_answers_is_not_asked_for_more_however_he_spreads_his_files() {
    let towd = Towd::start([""; 0]);
    let (mut deaf, mut other) = (greeted(towd.addr()), greeted(towd.addr()));
    let before = resident_bytes(towd.pid());
    // The end of a file, some that are refused, and all but the end of another: each time there is nothing
    // more in the middle of a file, and what waits is stored and answered.
    let mut file = put("/a", b"");
    let last = file.pop().unwrap();
    let text = "x".repeat(200);
    let refused = [format!("get /{text}/a b ahead=1\n").as_bytes(), &abort("410")].concat();
    let burst = [&[last], &*refused.repeat(100), &*file].concat();
    deaf.send(&file);
    deaf.stream().set_nonblocking(true).unwrap();
    let mut bursts = 0;
    while bursts < 6000 && deaf.stream().write(&burst).is_ok_and(|length| length == burst.len()) {
        bursts += 1;
        // Behind the storing, on the disk thread.
        for _ in 0..2 {
            other.send("stat /\n");
            assert!(other.read_line().starts_with("200"));
        }
    }
    let more = resident_bytes(towd.pid()).saturating_sub(before);
    assert!(more < 4 << 20, "{more} bytes");
}

#[test]
fn what_is_asked_for_ahead_is_answered_in_its_order_and_nothing_stays_open() {
    let towd = Towd::start([""; 0]);
    for n in 0..100 {
        fs::write(towd.root().join(n.to_string()), format!("file {n}")).unwrap();
    }
    let open = || fs::read_dir(format!("/proc/{}/fd", towd.pid())).unwrap().count();
    let mut peer = greeted(towd.addr());
    let before = open();
    let mut lines = String::new();
    for n in 0..100 {
        lines += &format!("get /{n}\n402\n226\n");
        if n % 30 == 17 {
            lines += &format!("get /absent\n402\n226\nrm /{}\nget /{}\n402\n226\n", n + 1, n + 1);
        }
    }
    peer.send(&lines);
    for n in 0..100 {
        if n % 30 != 18 {
            assert!(peer.read_line().starts_with("203 "), "{n}");
            assert!(peer.read_line().starts_with("426 "), "{n}");
            let (_, end) = read_to_last_frame(&mut peer);
            assert_eq!(end, root(format!("file {n}").as_bytes()).0);
        } else {
            assert!(peer.read_line().starts_with("110 "), "{n}");
            assert!(peer.read_line().starts_with("404 "), "{n}");
        }
        if n % 30 == 17 {
            for code in ["110", "404", "200", "110", "404"] {
                assert!(peer.read_line().starts_with(code), "{n}");
            }
        }
    }
    assert!(wait_until(PATIENCE, || open() <= before));
    // Neither does what nobody has come to.
    peer.send("get /1\n402\n".to_owned() + &"get /2\n402\n226\n".repeat(50));
    peer.read_line();
    drop(peer);
    assert!(wait_until(PATIENCE, || open() < before));
}

/// One `put` with its frames: the path, and the root that its end tells.
fn read_put(peer: &mut Raw) -> (String, Md5Digest) {
    let line = peer.read_line();
    assert!(line.contains(" put ") && line.ends_with(" ahead=1"), "{line}");
    let path = line.split(' ').nth(2).unwrap().to_owned();
    let (_, payload) = read_to_last_frame(peer);
    (path, Md5Digest(payload[..16].try_into().unwrap()))
}

#[test]
fn files_go_ahead_of_their_answers_and_those_without_one_again_after_a_break() {
    let dir = TestDir::new();
    let from = dir.join("from");
    fs::create_dir(&from).unwrap();
    for n in 0..8 {
        fs::write(from.join(n.to_string()), format!("file {n}")).unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let server = thread::spawn(move || {
        let mut seen = Vec::new();
        for answered in [3, 5] {
            let mut peer = Raw::over(listener.accept().unwrap().0);
            peer.send("220 tow/1 digests=md5-tree,md5 login=none\n");
            if seen.is_empty() {
                // Whether it is a folder that is there.
                let said = [peer.read_line(), peer.read_line()];
                assert!(said[0].contains(" mkdir ") && said[1].contains(" stat "), "{said:?}");
                peer.send("200\n110\n");
            }
            // All that are left come before the first is answered.
            let left = 8 - if seen.is_empty() { 0 } else { 3 };
            let puts: Vec<_> = (0..left).map(|_| read_put(&mut peer)).collect();
            for (_, root) in puts.iter().take(answered) {
                peer.send(format!("226 root={root}\n"));
            }
            seen.push(puts.into_iter().map(|(path, _)| path).collect::<Vec<_>>());
            if answered == 5 {
                peer.closes_within(Duration::from_secs(5));
            }
        }
        seen
    });
    let url = format!("tow://{addr}/");
    run_tow([OsStr::new("put"), OsStr::new("-r"), from.as_os_str(), OsStr::new(&url)])
        .exits(0)
        .says(&["8 files", " 0 failed"]);
    let seen = server.join().unwrap();
    let names = |range: std::ops::Range<i32>| -> Vec<String> {
        range.map(|n| format!("/from/{n}")).collect()
    };
    assert_eq!(seen, [names(0..8), names(3..8)]);
}
