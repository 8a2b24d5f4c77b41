//! Whatever a client says, the server answers it once, stays in step and lives.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{
    fs::{self, File},
    io::Write,
    os::unix::{fs::symlink, net::UnixListener},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use support::{
    PATIENCE, Raw, Towd,
    frames::{abort, data, end, frame, frames_from, offer, read_frame, read_to_last_frame, root},
    frames::{segment, segments},
    random_file, resident_bytes, same_bytes,
};
use towpath::{
    digest::{Md5Digest, SEGMENT_BYTES},
    limits::LINE_BYTES_MAX,
    wire::FrameKind,
};

mod support;

fn towd() -> Towd {
    Towd::start([""; 0])
}

fn connect(towd: &Towd) -> Raw {
    let mut peer = Raw::connect(towd.addr());
    assert!(peer.read_line().starts_with("220 tow/1 "));
    peer
}

/// Sends a line and fails the test unless the one answer to it begins like this.
#[track_caller]
fn answers(peer: &mut Raw, line: impl AsRef<[u8]>, code: &str) -> String {
    let line = line.as_ref();
    peer.send([line, b"\nnoop\n"].concat());
    let said = peer.read_line();
    assert!(said.starts_with(code), "{:?}: {said}", String::from_utf8_lossy(line));
    assert_eq!(peer.read_line(), "200", "after {:?}: {said}", String::from_utf8_lossy(line));
    said
}

#[track_caller]
fn is_usable(peer: &mut Raw) {
    peer.send("noop\n");
    assert_eq!(peer.read_line(), "200");
}

/// Fails the test unless the server says a line of this code and closes, and serves others.
#[track_caller]
fn is_closed_with(towd: &Towd, mut peer: Raw, code: &str) {
    let said = peer.read_line();
    assert!(said.starts_with(code), "{said}");
    assert!(peer.closes_within(PATIENCE));
    is_usable(&mut connect(towd));
}

#[test]
fn what_is_no_command_is_answered_and_the_connection_goes_on() {
    let towd = towd();
    let mut peer = connect(&towd);
    for line in ["frob", "", " ", "\r", "GET /f", "Noop", "220 tow/1", "226", "put\u{21}"] {
        answers(&mut peer, line, "404 ");
    }
    let telnet = b"\xff\xf4\xff\xfdnoop";
    for line in [&b"get \0"[..], b"get /a\0b", b"\xff", telnet, b"get\t/a", b"\x1b[2J", b"a\rb"] {
        answers(&mut peer, line, "400 ");
    }
    for line in ["get", "get /a /b", "noop x", "ls / /", "mv /a", "stat", "get /a size=1", "put /a"]
    {
        answers(&mut peer, line, "400 ");
    }
    answers(&mut peer, ["word"; 17].join(" "), "40");
    answers(&mut peer, "noop ".repeat(100), "40");
}

#[test]
fn a_line_is_refused_only_beyond_its_limit_and_takes_no_memory() {
    let towd = towd();
    let mut peer = connect(&towd);
    answers(&mut peer, vec![b'x'; LINE_BYTES_MAX], "404 ");
    peer.send(vec![b'x'; LINE_BYTES_MAX + 1]);
    peer.send("\n");
    is_closed_with(&towd, peer, "414 ");

    let before = resident_bytes(towd.pid());
    let endless = connect(&towd);
    let piece = vec![b'x'; 1 << 20];
    // It reads on for a moment, so that we can read its last line, and then closes on us.
    while endless.stream().write_all(&piece).is_ok() {}
    is_usable(&mut connect(&towd));
    let growth = resident_bytes(towd.pid()).saturating_sub(before);
    assert!(growth < 8 << 20, "{growth} bytes for a line");
}

#[test]
fn numbers_are_plain_decimals_of_63_bits_wherever_they_stand() {
    let towd = towd();
    fs::write(towd.root().join("f"), vec![1; 200_000]).unwrap();
    let mut peer = connect(&towd);
    let bad = ["-1", "+1", "0x10", "1e3", "", "9223372036854775808", "18446744073709551616", "1,0"];
    for number in bad {
        let line = offer("/x", 1, "t").replace("size=1 ", &format!("size={number} "));
        answers(&mut peer, line.trim_end(), "400 ");
        peer.send("get /f\n");
        assert!(peer.read_line().starts_with("203 "));
        answers(&mut peer, format!("000 offset={number} tag=t"), "400 ");
    }
    // As a position in a folder, a number may be larger: what it means is the file system's.
    for number in ["-1", "+1", "0x10", "", "18446744073709551616"] {
        answers(&mut peer, format!("ls / from={number}"), "400 ");
    }
    for line in ["get /f digest=md4", "get /f digest=", "ls / from=1 from=1"] {
        answers(&mut peer, line, "400 ");
    }
    for tag in ["", "a/b", "a.b", "\u{21}", &"t".repeat(65)] {
        answers(&mut peer, offer("/x", 1, tag).trim_end(), "400 ");
    }
}

#[test]
fn an_offset_is_a_leaf_within_the_file() {
    let towd = towd();
    random_file(towd.root().join("f"), 2 * SEGMENT_BYTES + 5, 1);
    let mut peer = connect(&towd);
    for (line, code) in [
        ("000 offset=8388614 tag=t", "416 "),
        ("000 offset=9223372036854775807 tag=t", "416 "),
        ("000 offset=1 tag=t", "400 "),
        ("000 offset=65535 tag=t", "400 "),
        ("000 offset=4194304 tag=t bad=1", "400 "),
        ("000 offset=8388613 tag=t bad=3", "400 "),
        ("000 offset=8388613 tag=t bad=2-1", "400 "),
        ("000 offset=8388613 tag=t bad=", "400 "),
        ("000 offset=8388613 tag=t bad=0-99999999999999999999", "400 "),
        ("000 tag=t", "400 "),
        ("410 no", "410 "),
    ] {
        peer.send("get /f\n");
        assert!(peer.read_line().starts_with("203 "));
        answers(&mut peer, line, code);
    }
}

#[test]
fn paths_that_lead_out_or_in_are_refused() {
    let towd = towd();
    fs::write(towd.root().join("f"), "x").unwrap();
    let mut peer = connect(&towd);
    for verb in ["get", "md5", "ls", "stat", "mkdir", "rm", "rmdir", "mv /f"] {
        for (path, code) in [
            ("..", "403 "),
            ("/../etc/passwd", "403 "),
            ("a/../../b", "403 "),
            ("%2e%2e/x", "403 "),
            ("/.tow", "403 "),
            ("./.tow/partials", "403 "),
            ("%2Etow", "403 "),
            ("/a%00b", "400 "),
            ("/a%", "400 "),
            ("/a%2", "400 "),
            ("/a%zz", "400 "),
            ("/a%+1", "400 "),
        ] {
            answers(&mut peer, format!("{verb} {path}"), code);
        }
        let long = "n".repeat(256);
        answers(&mut peer, format!("{verb} /{long}"), "400 ");
        answers(&mut peer, format!("{verb} /{}", "d/".repeat(2049)), "400 ");
    }
    answers(&mut peer, offer("/../x", 1, "t").trim_end(), "403 ");
    answers(&mut peer, offer("/.tow/x", 1, "t").trim_end(), "403 ");
    peer.send("ls /\n");
    assert!(peer.read_line().ends_with(" name=f"));
    assert_eq!(peer.read_line(), "200 entries=1");
}

#[test]
fn what_is_no_file_is_refused_at_once_and_disturbs_nobody() {
    let towd = towd();
    let root = towd.root();
    let make = |name: &str, kind, device| {
        mknodat(CWD, root.join(name), kind, Mode::from_raw_mode(0o666), device)
    };
    make("fifo", FileType::Fifo, 0).unwrap();
    let mut names = vec!["fifo", "socket", "folder"];
    match make("device", FileType::CharacterDevice, makedev(1, 3)) {
        Ok(()) => names.push("device"),
        Err(error) => eprintln!("skipped in part: no device can be made here: {error}"),
    }
    let _socket = UnixListener::bind(root.join("socket")).unwrap();
    fs::create_dir(root.join("folder")).unwrap();
    let (mut peer, mut other) = (connect(&towd), connect(&towd));
    for name in names {
        for verb in ["get", "md5"] {
            answers(&mut peer, format!("{verb} /{name}"), "405 ");
            is_usable(&mut other);
        }
        answers(&mut peer, offer(&format!("/{name}"), 1, "t").trim_end(), "405 ");
        answers(&mut peer, format!("stat /{name}"), "200 kind=");
        answers(
            &mut peer,
            format!("get /{name}/below"),
            if name == "folder" { "110" } else { "405" },
        );
    }
    answers(&mut peer, "get /", "405 ");
    answers(&mut peer, "ls /fifo", "405 ");
}

#[test]
fn a_link_that_leads_out_is_refused_and_tells_nothing() {
    let towd = towd();
    let outside = support::TestDir::new();
    fs::write(outside.join("secret"), "secret").unwrap();
    let root = towd.root();
    symlink(outside.join("secret"), root.join("file")).unwrap();
    symlink(outside.path(), root.join("folder")).unwrap();
    symlink("../..", root.join("up")).unwrap();
    symlink("/proc/self/fd", root.join("magic")).unwrap();
    symlink("loop", root.join("loop")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    let mut peer = connect(&towd);
    let mut refused = |line: &str| {
        let said = answers(&mut peer, line, "40");
        assert!(!said.contains("secret") && !said.contains("towpath-"), "{said}");
    };
    for path in ["/file", "/folder/secret", "/up/etc", "/magic/0", "/loop"] {
        refused(&format!("get {path}"));
        refused(&format!("md5 {path}"));
    }
    for path in ["/folder/new", "/up/new"] {
        refused(&format!("mkdir {path}"));
        refused(&format!("mv /dangling {path}"));
        refused(offer(path, 1, "t").trim_end());
    }
    for path in ["/folder", "/up", "/magic"] {
        refused(&format!("ls {path}"));
    }
    refused("rm /folder/secret");
    refused(offer("/file", 1, "t").trim_end());
    refused(offer("/dangling", 1, "t").trim_end());
    answers(&mut peer, "stat /file", "200 kind=l");
    answers(&mut peer, "rm /file", "200");
    assert_eq!(fs::read(outside.join("secret")).unwrap(), b"secret");
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
}

#[test]
fn frames_that_make_no_sense_end_the_connection_and_nothing_else() {
    let towd = towd();
    let digest = Md5Digest([7; 16]);
    let whole = segment(0, digest);
    for (name, bytes) in [
        ("garbage", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".repeat(10)),
        ("zeros", vec![0; 64]),
        ("data beyond the end", data(0, &[1; 11])),
        ("data at another offset", data(3, &[1; 7])),
        ("data far beyond", data(SEGMENT_BYTES * 9, &[1])),
        ("data without bytes", frame(b'D', 0, b"")),
        ("a digest of 15 bytes", frame(b'S', 0, &[0; 15])),
        ("a digest of 17 bytes", frame(b'S', 0, &[0; 17])),
        ("a digest of no segment", frame(b'S', 1, &[0; 16])),
        ("an end of 24 bytes", frame(b'E', 10, &[0; 24])),
        ("an abort that is no reply", frame(b'A', 0, b"what?")),
        ("an abort beyond its limit", frame(b'A', 0, &[b'4'; 1025])),
        ("reserved bytes", [&whole[..1], &[1], &whole[2..]].concat()),
        ("an offset of 64 bits", frame(b'D', u64::MAX, &[1])),
    ] {
        let mut peer = connect(&towd);
        peer.send(offer("/x", 10, "t"));
        assert!(peer.read_line().starts_with("402"), "{name}");
        peer.send("426 offset=0 length=10\n");
        peer.send(bytes);
        eprintln!("{name}");
        is_closed_with(&towd, peer, "400 ");
        assert!(!towd.root().join("x").exists(), "{name}");
    }
}

#[test]
fn whole_frames_that_say_something_wrong_are_refused_once() {
    let towd = towd();
    let bytes = [5; 10];
    let (good, wrong) = (segments(&bytes)[0], Md5Digest([7; 16]));
    for (name, frames, code) in [
        ("another size", [data(0, &bytes), segment(0, good), end(11, root(&bytes))], "400 "),
        ("another root", [data(0, &bytes), segment(0, good), end(10, wrong)], "409 "),
        ("an early end", [data(0, &bytes[..5]), vec![], end(10, root(&bytes))], "409 "),
        ("no such segment", [data(0, &bytes), segment(1, good), end(10, root(&bytes))], "409 "),
        ("given up", [data(0, &bytes), segment(0, good), abort("410 changed")], "410 "),
    ] {
        let mut peer = connect(&towd);
        peer.send(offer("/x", 10, name.split(' ').next_back().unwrap()));
        let start = peer.read_line();
        if !start.starts_with("402") {
            peer.send("402\n");
            assert!(peer.read_line().starts_with("402"), "{name}");
        }
        peer.send("426 offset=0 length=10\n");
        peer.send([frames.concat(), b"noop\n".to_vec()].concat());
        let said = peer.read_line();
        assert!(said.starts_with(code) && !said.contains("want="), "{name}: {said}");
        assert_eq!(peer.read_line(), "200", "{name}");
        assert!(!towd.root().join("x").exists(), "{name}");
    }
}

#[test]
fn frames_behind_a_refusal_are_passed_over() {
    let towd = towd();
    let mut bytes = vec![3; 3_000_000];
    bytes[7] = 4;
    for last in [end(3_000_000, root(&bytes)), abort("410 changed")] {
        let mut peer = connect(&towd);
        peer.send(offer("/x", 3_000_000, "t"));
        assert!(peer.read_line().starts_with("402"));
        // An offset that was never named, and the whole stream right behind it.
        let stream = [data(0, &bytes), segment(0, segments(&bytes)[0]), last].concat();
        peer.send([b"426 offset=65536 length=1\n".to_vec(), stream, b"noop\n".to_vec()].concat());
        assert!(peer.read_line().starts_with("416 "));
        assert_eq!(peer.read_line(), "200");
    }
    assert!(!towd.root().join("x").exists());
}

#[test]
fn segments_that_keep_coming_out_wrong_are_given_up() {
    let towd = towd();
    let mut peer = connect(&towd);
    let bytes = [5; 10];
    let wrong = [data(0, &bytes), segment(0, Md5Digest([7; 16])), end(10, root(&bytes))].concat();
    peer.send(offer("/x", 10, "t"));
    assert!(peer.read_line().starts_with("402"));
    peer.send("426 offset=0 length=10\n");
    let mut rounds = 0;
    loop {
        peer.send(&wrong);
        let said = peer.read_line();
        assert!(said.starts_with("409 "), "{said}");
        if !said.contains("want=") {
            break;
        }
        assert_eq!(said, "409 want=0");
        rounds += 1;
        assert!(rounds < 20);
    }
    is_usable(&mut peer);
    assert!(!towd.root().join("x").exists());
    // The same upload, right this time.
    peer.send(offer("/x", 10, "t"));
    let said = peer.read_line();
    assert!(said.starts_with("000 ") || said.starts_with("402"), "{said}");
    if said.starts_with("000 ") {
        peer.send("402\n");
        assert!(peer.read_line().starts_with("402"));
    }
    peer.send("426 offset=0 length=10\n");
    peer.send(frames_from(&bytes, 0));
    assert!(peer.read_line().starts_with("226 root="));
    assert_eq!(fs::read(towd.root().join("x")).unwrap(), bytes);
}

#[test]
fn a_download_that_the_client_gives_up_ends_between_two_frames() {
    let towd = towd();
    random_file(towd.root().join("f"), 64 << 20, 1);
    let mut peer = connect(&towd);
    peer.send("get /f\n402\n");
    assert!(peer.read_line().starts_with("203 "));
    assert!(peer.read_line().starts_with("426 "));
    read_frame(&mut peer);
    peer.send("410 I have seen enough\nnoop\n");
    let (last, _) = read_to_last_frame(&mut peer);
    assert_eq!(last.kind, FrameKind::Abort);
    assert_eq!(peer.read_line(), "200");
    // A command that is sent within a stream is answered behind it.
    peer.send("get /f\n402\nnoop\n226\n");
    assert!(peer.read_line().starts_with("203 "));
    assert!(peer.read_line().starts_with("426 "));
    assert_eq!(read_to_last_frame(&mut peer).0.kind, FrameKind::End);
    let said = peer.read_line();
    assert!(said.starts_with("503 "), "a noop is no verdict: {said}");
}

/// A large file, and a connection over which the rest of it comes.
fn within_a_get() -> (Towd, PathBuf, Raw) {
    let towd = towd();
    let path = towd.root().join("f");
    random_file(&path, 64 << 20, 1);
    let mut peer = connect(&towd);
    peer.send("get /f\n402\n");
    assert!(peer.read_line().starts_with("203 "));
    assert!(peer.read_line().starts_with("426 "));
    read_frame(&mut peer);
    (towd, path, peer)
}

#[test]
fn a_source_that_changes_is_aborted_in_band() {
    let (_towd, path, mut peer) = within_a_get();
    File::options().append(true).open(&path).unwrap().write_all(b"x").unwrap();
    let (last, why) = read_to_last_frame(&mut peer);
    assert_eq!(last.kind, FrameKind::Abort);
    assert!(why.starts_with(b"410 "), "{}", String::from_utf8_lossy(&why));
    is_usable(&mut peer);
}

#[test]
fn a_source_that_is_cut_short_never_ends_well() {
    let (towd, path, peer) = within_a_get();
    File::options().write(true).open(&path).unwrap().set_len(1 << 20).unwrap();
    // Between two frames it is an abort; within one, nothing but the end of the line is left.
    let mut rest = Vec::new();
    let mut stream = peer.stream();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut piece = vec![0; 1 << 20];
    loop {
        match std::io::Read::read(&mut stream, &mut piece) {
            Ok(0) | Err(_) => break,
            Ok(length) => rest.extend_from_slice(&piece[..length]),
        }
        if rest.windows(4).rev().take(200).any(|four| four == b"410 ") {
            break;
        }
    }
    assert!(rest.len() < 64 << 20);
    assert!(is_intact(&towd, &path));
}

/// Whether the server still serves a file as it is now.
fn is_intact(towd: &Towd, path: &Path) -> bool {
    let dir = support::TestDir::new();
    let copy = dir.join("copy");
    support::run_tow(["get", &towd.url("f"), copy.to_str().unwrap()]).exits(0);
    same_bytes(path, copy)
}
