//! Peers that take without giving, and machines that run out: the server stays small, answers in
//! order, and serves everybody else.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails the test")]

use std::{
    fs,
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use support::{
    PATIENCE, Raw, Rng, TestDir, Towd,
    frames::{abort, frames_from, offer, read_to_last_frame, root, segment, segments},
    fresh_seed, processor_time, random_file, resident_bytes, run, run_tow, same_bytes,
};
use towpath::{digest::SEGMENT_BYTES, wire::FrameKind};

mod support;

fn connect(towd: &Towd) -> Raw {
    let mut peer = Raw::connect(towd.addr());
    assert!(peer.read_line().starts_with("220 tow/1 "));
    peer
}

#[track_caller]
fn is_usable(peer: &mut Raw) {
    peer.send("noop\n");
    assert_eq!(peer.read_line(), "200");
}

#[test]
fn a_thousand_commands_in_one_write_are_answered_in_order() {
    let towd = Towd::start([""; 0]);
    fs::write(towd.root().join("f"), "x").unwrap();
    let mut peer = connect(&towd);
    let commands = ["noop", "stat /none", "frob", "ls /", "stat /f", "get /..", "md5 /f", "noop x"];
    let codes = ["200", "110", "404", "150", "200", "403", "200", "400"];
    let all: String = commands.iter().cycle().take(1000).flat_map(|line| [*line, "\n"]).collect();
    peer.send(all);
    for (n, code) in codes.iter().cycle().take(1000).enumerate() {
        let said = peer.read_line();
        assert!(said.starts_with(code), "answer {n}: {said}");
        if *code == "150" {
            assert_eq!(peer.read_line(), "200 entries=1");
        }
    }
    is_usable(&mut peer);
}

/// Everything that the server says to `input`, sent in these pieces, until it closes.
fn replay(towd: &Towd, input: &[u8], mut piece: impl FnMut() -> usize) -> Vec<u8> {
    let peer = Raw::connect(towd.addr());
    let mut rest = input;
    while !rest.is_empty() {
        let (now, behind) = rest.split_at(piece().clamp(1, rest.len()));
        peer.stream().write_all(now).unwrap();
        rest = behind;
    }
    let mut said = Vec::new();
    peer.stream().set_read_timeout(Some(PATIENCE)).unwrap();
    std::io::Read::read_to_end(&mut peer.stream(), &mut said).unwrap();
    said
}

#[test]
fn the_answers_are_the_same_however_a_session_is_split() {
    let seed = fresh_seed();
    let towd = Towd::start([""; 0]);
    random_file(towd.root().join("f"), 70_000, 1);
    let bytes: Vec<u8> = (0..200).collect();
    let part = &frames_from(&bytes, 0)[..100];
    let mut unfinished = part.to_vec();
    // The rest of the data frame, and then no more.
    unfinished.extend_from_slice(&frames_from(&bytes, 0)[100..216]);
    unfinished.extend(abort("410 changed"));
    let session = [
        b"noop\r\nls /\nstat /f\nfrob\n\nget /f\n402\n226\nget /none\n".to_vec(),
        b"get /f digest=md5\n000 offset=65536 tag=t\n226\nget /f\n410 no\nput /x\n".to_vec(),
        offer("/x", 200, "t").into_bytes(),
        b"426 offset=7\n".to_vec(),
        unfinished,
        offer("/../x", 200, "t").into_bytes(),
        b"md5 /f\nmkdir /f\nrm /none\nmv /f /none/g\nrmdir /\nquit\nnoop\n".to_vec(),
    ]
    .concat();
    let whole = replay(&towd, &session, || usize::MAX);
    assert!(String::from_utf8_lossy(&whole).ends_with("221 goodbye\n"));
    let bytewise = replay(&towd, &session, || 1);
    assert!(bytewise == whole, "{:?}", String::from_utf8_lossy(&bytewise));
    for round in 0..20 {
        let mut rng = Rng::derived(seed, round);
        let split = replay(&towd, &session, || {
            let max = [2, 20, 300][usize::try_from(rng.within(&(0..=2))).unwrap()];
            usize::try_from(rng.within(&(1..=max))).unwrap()
        });
        assert!(split == whole, "round {round}: {:?}", String::from_utf8_lossy(&split));
    }
}

#[test]
fn a_peer_that_has_said_everything_still_gets_its_answer() {
    let towd = Towd::start([""; 0]);
    random_file(towd.root().join("f"), 20 << 20, 1);
    for (line, last) in [
        ("noop\n", "200"),
        ("md5 /f\n", "200 md5="),
        ("ls /\n", "200 entries=1"),
        ("stat /f\nmkdir /d\nrmdir /d\n", "200"),
        ("frob\n", "404 "),
    ] {
        let mut peer = connect(&towd);
        peer.send(line);
        peer.finish_sending();
        let mut said = String::new();
        while let Some(line) = peer.try_line(PATIENCE).unwrap() {
            said = line;
        }
        assert!(said.starts_with(last), "{line}: {said}");
    }
    let mut peer = connect(&towd);
    peer.send("get /f\n402\n");
    peer.finish_sending();
    assert!(peer.read_line().starts_with("203 "));
    assert!(peer.read_line().starts_with("426 "));
    assert_eq!(read_to_last_frame(&mut peer).0.kind, FrameKind::End);
}

#[test]
fn a_peer_that_never_reads_costs_little_and_stops_nobody() {
    let towd = Towd::start([""; 0]);
    for n in 0..200 {
        fs::write(towd.root().join(format!("{n:0>100}")), "").unwrap();
    }
    random_file(towd.root().join("f"), 32 << 20, 1);
    let mut other = connect(&towd);
    let before = resident_bytes(towd.pid());
    let deaf: Vec<Raw> = (0..20).map(|_| connect(&towd)).collect();
    let lists = "ls /\n".repeat(100_000);
    for (n, peer) in deaf.iter().enumerate() {
        if n % 2 == 1 {
            // One that asks for a file and takes nothing of it.
            peer.stream().write_all(b"get /f\n402\n").unwrap();
            continue;
        }
        peer.stream().set_nonblocking(true).unwrap();
        let mut rest = lists.as_bytes();
        // Until the server reads no further: what it has not taken after a while, it won't.
        let patience = Instant::now() + Duration::from_millis(200);
        while !rest.is_empty() && Instant::now() < patience {
            match peer.stream().write(rest) {
                Ok(length) => rest = &rest[length..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => is_usable(&mut other),
                Err(error) => panic!("{error}"),
            }
        }
    }
    for _ in 0..100 {
        is_usable(&mut other);
    }
    let copy = TestDir::new();
    run_tow(["get", &towd.url("f"), copy.join("f").to_str().unwrap()]).exits(0);
    let growth = resident_bytes(towd.pid()).saturating_sub(before);
    eprintln!("20 deaf peers cost {} KiB", growth >> 10);
    assert!(growth < 16 << 20, "{growth} bytes");
}

#[test]
fn two_hundred_peers_that_send_a_byte_now_and_then_disturb_nobody() {
    let towd = Towd::start([""; 0]);
    let slow: Vec<Raw> = (0..200).map(|_| connect(&towd)).collect();
    let before = resident_bytes(towd.pid());
    for byte in b"stat /f" {
        for peer in &slow {
            peer.stream().write_all(&[*byte]).unwrap();
        }
        is_usable(&mut connect(&towd));
    }
    let growth = resident_bytes(towd.pid()).saturating_sub(before);
    assert!(growth < 4 << 20, "{growth} bytes");
    let dir = TestDir::new();
    random_file(dir.join("f"), 5 << 20, 1);
    run_tow(["put", dir.join("f").to_str().unwrap(), &towd.url("f")]).exits(0);
    for mut peer in slow {
        peer.send("\n");
        assert!(peer.read_line().starts_with("200 kind=f"));
    }
}

#[test]
fn without_descriptors_the_server_waits_without_spinning_and_serves_all_in_the_end() {
    const CLIENTS: usize = 200;
    let towd = Towd::start([""; 0]);
    let pid = Pid::from_raw(i32::try_from(towd.pid()).unwrap());
    let limit = Rlimit { current: Some(64), maximum: Some(64) };
    prlimit(pid, Resource::Nofile, limit).unwrap();
    let mut clients: Vec<Raw> = (0..CLIENTS).map(|_| Raw::connect(towd.addr())).collect();

    // The last one can't be greeted yet: waiting for that is the time to watch.
    let (began, before) = (Instant::now(), processor_time(towd.pid()));
    let greeted = clients[CLIENTS - 1].try_line(Duration::from_millis(1500));
    assert!(greeted.is_err_and(|error| error.kind() == ErrorKind::TimedOut));
    let used = processor_time(towd.pid()) - before;
    eprintln!("{used:?} of {:?} used", began.elapsed());
    assert!(used < began.elapsed() / 4, "{used:?} of {:?}", began.elapsed());

    for (n, mut client) in clients.drain(..).enumerate() {
        assert!(client.read_line().starts_with("220 "), "client {n}");
        // With the last descriptors, files may fail to open, but not the connection.
        is_usable(&mut client);
    }
    is_usable(&mut connect(&towd));
    assert!(towd.stderr().lines().count() < 1000, "the log is flooded");
}

/// Something mounted, and unmounted with the value.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where mounting is not allowed.
    fn tmpfs(at: &Path, mebibytes: u32) -> Option<Self> {
        fs::create_dir(at).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"]).arg(at);
        match mount.output() {
            Ok(output) if output.status.success() => Some(Self(at.to_owned())),
            _ => {
                eprintln!("skipped: this user may not mount a file system");
                None
            }
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let mut umount = Command::new("umount");
        umount.arg("-l").arg(&self.0);
        run(umount);
    }
}

#[test]
fn a_full_disk_is_said_and_nothing_is_lost_by_it() {
    let dir = TestDir::new();
    let Some(disk) = Mounted::tmpfs(&dir.join("disk"), 24) else {
        return;
    };
    let towd = Towd::start_in(&disk.0, [""; 0]);
    let old = dir.join("old");
    random_file(&old, 3_000_000, 1);
    run_tow(["put", old.to_str().unwrap(), &towd.url("f")]).exits(0);

    // What can't fit is refused before it is sent.
    let mut peer = connect(&towd);
    peer.send([offer("/f", 30 << 20, "big").as_bytes(), b"noop\n"].concat());
    let said = peer.read_line();
    assert!(said.starts_with("452 "), "{said}");
    assert_eq!(peer.read_line(), "200");
    let big = dir.join("big");
    random_file(&big, 30 << 20, 2);
    let told = run_tow(["put", big.to_str().unwrap(), &towd.url("f")]).exits(5);
    told.says(&["no space left", "are free", "free space there"]);

    // Space that goes away in the middle.
    let new = dir.join("new");
    random_file(&new, 3 * SEGMENT_BYTES, 3);
    let bytes = fs::read(&new).unwrap();
    let frames = frames_from(&bytes, 0);
    peer.send(offer("/f", 3 * SEGMENT_BYTES, "t"));
    let said = peer.read_line();
    assert!(said.starts_with("402"), "{said}");
    peer.send("426 offset=0\n");
    let first = usize::try_from(SEGMENT_BYTES).unwrap() + 16 + 32;
    peer.send(&frames[..first]);
    let free = rustix::fs::statvfs(&disk.0).unwrap();
    let filler = disk.0.join("filler");
    // Everything but what the rest of the first segment may still need.
    random_file(&filler, free.f_bavail * free.f_frsize - (5 << 20), 4);
    peer.send([&frames[first..], b"noop\n"].concat());
    let said = peer.read_line();
    assert!(said.starts_with("452 "), "{said}");
    assert_eq!(peer.read_line(), "200");
    assert!(same_bytes(&old, disk.0.join("f")));
    run_tow(["get", &towd.url("f"), dir.join("copy").to_str().unwrap()]).exits(0);
    assert!(same_bytes(&old, dir.join("copy")));

    fs::remove_file(&filler).unwrap();
    peer.send(offer("/f", 3 * SEGMENT_BYTES, "t"));
    let said = peer.read_line();
    let offset = said.strip_prefix("000 offset=").and_then(|rest| rest.split(' ').next());
    let offset: u64 = offset.unwrap_or_else(|| panic!("nothing was kept: {said}")).parse().unwrap();
    assert!(offset >= SEGMENT_BYTES, "{said}");
    peer.send(format!("426 offset={offset}\n"));
    let mut rest = Vec::new();
    for (n, digest) in (0..).zip(segments(&bytes)) {
        let start = offset.clamp(n * SEGMENT_BYTES, (n + 1) * SEGMENT_BYTES);
        let [start, end] = [start, (n + 1) * SEGMENT_BYTES].map(|at| usize::try_from(at).unwrap());
        if start < end {
            rest.extend(support::frames::data(start as u64, &bytes[start..end]));
        }
        rest.extend(segment(n, digest));
    }
    rest.extend(support::frames::end(3 * SEGMENT_BYTES, root(&bytes)));
    peer.send(rest);
    assert!(peer.read_line().starts_with("226 root="));
    assert!(same_bytes(&new, disk.0.join("f")));
}

#[test]
fn a_source_that_can_not_be_read_yields_no_digest_and_the_connection_goes_on() {
    let towd = Towd::start([""; 0]);
    let file = towd.root().join("f");
    // The kernel's own files: one whose reads fail, one that is shorter than it says.
    for (what, code) in [("/sys/class/net/lo/speed", "451 "), ("/sys/class/net/lo/mtu", "410 ")] {
        let Some(_mounted) = mount_file(Path::new(what), &file) else {
            return;
        };
        let mut peer = connect(&towd);
        peer.send("md5 /f\n");
        let said = peer.read_line();
        assert!(said.starts_with(code), "{what}: {said}");
        for digest in ["", " digest=md5"] {
            peer.send(format!("get /f{digest}\n402\n"));
            assert!(peer.read_line().starts_with("203 size=4096 "), "{what}");
            assert!(peer.read_line().starts_with("426 "), "{what}");
            let (last, why) = read_to_last_frame(&mut peer);
            assert_eq!(last.kind, FrameKind::Abort, "{what}");
            assert!(why.starts_with(code.as_bytes()), "{}", String::from_utf8_lossy(&why));
            is_usable(&mut peer);
        }
        let copy = TestDir::new();
        let copy = copy.join("copy");
        let get = ["get", "--give-up", "0", &towd.url("f"), copy.to_str().unwrap()];
        run_tow(get).exits(6).says(&[code.trim()]);
        assert!(!copy.exists());
    }
}

/// Makes a file appear under another name; `None` where that is not allowed.
fn mount_file(what: &Path, at: &Path) -> Option<Mounted> {
    fs::write(at, "").unwrap();
    let mut mount = Command::new("mount");
    mount.arg("--bind").arg(what).arg(at);
    let done = what.exists() && mount.output().is_ok_and(|output| output.status.success());
    if !done {
        eprintln!("skipped: {} can't be mounted here", what.display());
    }
    done.then(|| Mounted(at.to_owned()))
}
