//! A server that lies, stalls or never ends: the client keeps its memory and its patience, puts
//! nothing wrong in place, and prints nothing that a terminal would obey.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails the test")]

use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use support::{
    Fake, PATIENCE, Ran, Raw, TestDir, Towd,
    frames::{data, end, frame, root, segment, segments},
    random_file, run, run_tow, same_bytes, tow,
};
use towpath::{
    client::{Client, ClientError, Options, Url},
    digest::{Md5Digest, SEGMENT_BYTES},
};

mod support;

const GREETING: &str = "220 tow/1 digests=md5-tree,md5 login=none\n";
const FOUND: &str = "203 size=10 mtime=1700000000.000000000 tag=t\n";
const BYTES: [u8; 10] = [5; 10];

impl Fake {
    /// Greets, and then follows the script.
    fn greeting(script: impl Fn(&mut Raw) + Send + 'static) -> Self {
        Self::start(move |peer| {
            say(peer, GREETING);
            script(peer);
        })
    }

    /// Offers a file of ten bytes, and sends these frames of it.
    fn sending(frames: impl Fn(&mut Raw) + Send + 'static) -> Self {
        Self::greeting(move |peer| {
            hear(peer);
            say(peer, FOUND);
            hear(peer);
            say(peer, "426 offset=0 length=10\n");
            frames(peer);
        })
    }

    fn url(&self) -> String {
        format!("tow://{}/f", self.addr())
    }

    /// What `tow` says to it, without patience.
    fn tow(&self, args: &[&str]) -> Ran {
        let url = self.url();
        let args = args.iter().map(|&arg| if arg == "URL" { &*url } else { arg });
        run_tow(["--give-up", "0"].into_iter().chain(args))
    }
}

/// Says something, whether the client still listens or not.
fn say(peer: &Raw, bytes: impl AsRef<[u8]>) -> bool {
    peer.stream().write_all(bytes.as_ref()).is_ok()
}

/// What the client says, if it says something.
fn hear(peer: &mut Raw) -> String {
    peer.try_line(PATIENCE).ok().flatten().unwrap_or_default()
}

/// Fails the test if anything but hidden partials is in the folder.
#[track_caller]
fn nothing_visible(dir: &TestDir) {
    for entry in fs::read_dir(dir.path()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(name.to_string_lossy().starts_with(".tow-"), "{}", name.display());
    }
}

/// Gets ten bytes that come like this; fails the test unless it fails and leaves nothing.
#[track_caller]
fn get_fails(fake: &Fake, code: i32) -> Ran {
    let dir = TestDir::new();
    let said = fake.tow(&["get", "URL", dir.join("f").to_str().unwrap()]).exits(code);
    nothing_visible(&dir);
    // A pipe may have got what was verified before, and no more.
    let piped = fake.tow(&["get", "URL", "-"]).exits(code);
    assert!(BYTES.starts_with(&piped.stdout), "{}", piped.stdout());
    said
}

#[test]
fn a_server_of_another_version_is_refused_at_once() {
    let fake = Fake::start(|peer| {
        say(peer, "220 tow/2 \n");
    });
    // With all its patience.
    run_tow(["get", &fake.url(), "-"]).exits(5).says(&["does not speak tow/1", "tow/2"]);
    assert_eq!(fake.connections(), 1);
    let busy = Fake::start(|peer| {
        say(peer, "429 too many connections\n");
    });
    busy.tow(&["ls", "URL"]).exits(6).says(&["too many connections", "429"]);
}

#[test]
fn errors_are_typed_for_programs() {
    let url: Url = Fake::start(|_| {}).url().parse().unwrap();
    let options = || Options { give_up: Duration::ZERO, ..Options::default() };
    let dir = TestDir::new();
    let get = |url: &Url| Client::new(url, options()).get(&url.path, &dir.join("f"), &mut ());
    assert!(matches!(get(&url), Err(ClientError::GaveUp(_))));
    let wrong = Fake::sending(|peer| {
        say(peer, [data(0, &BYTES), segment(0, segments(&BYTES)[0])].concat());
        say(peer, end(10, Md5Digest([7; 16])));
    });
    let found = get(&wrong.url().parse().unwrap());
    assert!(matches!(found, Err(ClientError::Verification(_))), "{found:?}");
    let absent = Fake::greeting(|peer| {
        hear(peer);
        say(peer, "110 no such file or directory\n");
    });
    assert!(matches!(get(&absent.url().parse().unwrap()), Err(ClientError::Refused(_))));
    nothing_visible(&dir);
}

/// Runs `tow` with no more than 400 MB of address space, and without patience.
fn small_tow(args: &[&str]) -> Ran {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 400000; exec \"$0\" --give-up 0 \"$@\""]);
    command.arg(env!("CARGO_BIN_EXE_tow")).args(args);
    run(command)
}

#[test]
fn what_never_ends_takes_no_memory() {
    const ENOUGH: usize = 1 << 30;
    let flood = |peer: &Raw, piece: &[u8]| {
        let count = ENOUGH / piece.len();
        (0..count).take_while(|_| say(peer, piece)).count() == count
    };
    let endless = Fake::start(move |peer| assert!(!flood(peer, &[b'2'; 1 << 16])));
    small_tow(&["ls", &endless.url()]).exits(6).says(&["line longer than"]);

    let entries = b"150 kind=f size=1 mtime=1.000000000 name=x\n".repeat(1000);
    let listing = Fake::greeting(move |peer| {
        hear(peer);
        assert!(!flood(peer, &entries));
    });
    small_tow(&["ls", &listing.url()]).exits(6).says(&["unexpected answer: 150"]);

    // Data without an end and without a digest, of a file of any size, for a pipe.
    let stream = Fake::greeting(|peer| {
        hear(peer);
        say(peer, "203 size=9223372036854775807 mtime=1.000000000 tag=t\n");
        hear(peer);
        say(peer, "426 offset=0 length=9223372036854775807\n");
        let piece = vec![1; 1 << 20];
        let pieces = 1 << 10;
        let sent = (0..pieces).take_while(|n| say(peer, data(n << 20, &piece))).count() as u64;
        assert!(sent < pieces, "a gigabyte was taken");
    });
    small_tow(&["get", &stream.url(), "-"]).exits(6).says(&["digest"]);
    // On a disk there is no room for it.
    let dir = TestDir::new();
    let target = dir.join("f");
    let get = ["get", &stream.url(), target.to_str().unwrap()];
    small_tow(&get).exits(1).says(&["no space left", "free space"]);
    nothing_visible(&dir);
}

#[test]
fn more_or_fewer_bytes_than_announced_are_no_file() {
    let digest = segments(&BYTES)[0];
    for (name, frames, code) in [
        ("fewer", [data(0, &BYTES[..5]), vec![], end(10, root(&BYTES))].concat(), 3),
        ("none", end(10, root(&BYTES)), 3),
        ("more", [data(0, &[5; 11]), segment(0, digest)].concat(), 6),
        ("beyond", [data(0, &BYTES), data(10, &[5])].concat(), 6),
        ("elsewhere", data(SEGMENT_BYTES, &BYTES), 6),
        ("size", [data(0, &BYTES), segment(0, digest), end(11, root(&BYTES))].concat(), 6),
        ("twice", [data(0, &BYTES), data(0, &BYTES), end(10, root(&BYTES))].concat(), 6),
        ("an md5", [data(0, &BYTES), frame(b'E', 10, &[7; 32])].concat(), 3),
        ("garbage", b"here you are: the file\n".repeat(3), 6),
        ("an early end of the line", data(0, &BYTES), 6),
        ("a digest of nothing", segment(0, digest), 3),
    ] {
        eprintln!("{name}");
        let fake = Fake::sending(move |peer| {
            say(peer, &frames);
            peer.finish_sending();
        });
        get_fails(&fake, code);
    }
    let huge = Fake::greeting(|peer| {
        hear(peer);
        say(peer, "203 size=9223372036854775808 mtime=1.000000000 tag=t\n");
    });
    get_fails(&huge, 6).says(&["no valid field size"]);
}

#[test]
fn a_wrong_root_is_told_and_what_was_right_still_serves() {
    let fake = Fake::sending(|peer| {
        say(peer, [data(0, &BYTES), segment(0, segments(&BYTES)[0])].concat());
        say(peer, end(10, Md5Digest([7; 16])));
    });
    let said = get_fails(&fake, 3);
    said.says(&["verification failed", "nothing wrong was put in place", &fake.url()]);
    let (dir, towd) = (TestDir::new(), Towd::start([""; 0]));
    let target = dir.join("f");
    fs::write(towd.root().join("f"), BYTES).unwrap();
    fake.tow(&["get", "URL", target.to_str().unwrap()]).exits(3);
    run_tow(["get", &towd.url("f"), target.to_str().unwrap()]).exits(0);
    assert_eq!(fs::read(&target).unwrap(), BYTES);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "something is left over");
}

#[test]
fn digests_that_are_wrong_for_ever_are_given_up() {
    let round = || {
        let wrong = segment(0, Md5Digest([7; 16]));
        [data(0, &BYTES), wrong, end(10, Md5Digest([7; 16]))].concat()
    };
    let fake = Fake::sending(move |peer| {
        say(peer, round());
        let mut rounds = 0;
        while hear(peer) == "409 want=0" && say(peer, round()) {
            rounds += 1;
            assert!(rounds < 20, "it asks for ever");
        }
    });
    let dir = TestDir::new();
    let said = fake.tow(&["get", "URL", dir.join("f").to_str().unwrap()]).exits(3);
    said.says(&["the same segments keep coming out wrong"]);
    nothing_visible(&dir);
    fake.tow(&["get", "URL", "-"]).exits(6).says(&["segment 0 came out wrong"]);
}

/// What `tow put` of ten bytes says to a server that answers its lines like this.
fn put_to(answer: impl Fn(&mut Raw) + Send + 'static) -> Ran {
    let dir = TestDir::new();
    fs::write(dir.join("f"), BYTES).unwrap();
    let fake = Fake::greeting(move |peer| {
        let mut line = hear(peer);
        if line.contains(" stat ") {
            say(peer, "110 none\n");
            // Each command has its own connection.
            peer.finish_sending();
            line = hear(peer);
        }
        if line.contains(" put ") {
            answer(peer);
        }
    });
    fake.tow(&["put", dir.join("f").to_str().unwrap(), "URL"])
}

#[test]
fn an_upload_believes_no_server_that_makes_no_sense() {
    // What it has can't be: the client starts over once, and not for ever.
    let said = put_to(|peer| {
        for _ in 0..100 {
            if !say(peer, "000 offset=11 tag=t\n") || hear(peer) != "402" {
                return;
            }
        }
        panic!("it starts over for ever");
    });
    said.exits(6).says(&["unexpected answer: 000 offset=11"]);

    let said = put_to(|peer| {
        say(peer, "402\n");
        for round in 0..50 {
            hear_round(peer);
            assert!(round < 20, "it sends for ever");
            if !say(peer, "409 want=0\n") {
                return;
            }
        }
    });
    said.exits(3).says(&["the same segments again and again"]);

    let said = put_to(|peer| {
        say(peer, "402\n");
        hear_round(peer);
        say(peer, "226 root=07070707070707070707070707070707\n");
    });
    said.exits(3).says(&["names another root"]);

    for answer in ["409 want=0-2199023255551\n", "409 want=1\n", "200\n", "226\n", "000 x\n"] {
        let said = put_to(move |peer| {
            say(peer, "402\n");
            hear_round(peer);
            say(peer, answer);
        });
        assert!(!said.exits(6).stderr.is_empty(), "{answer}");
    }
    for answer in ["226 root=07070707070707070707070707070707\n", "203 size=1\n", "150 name=x\n"] {
        let answer = move |peer: &mut Raw| {
            say(peer, answer);
        };
        put_to(answer).exits(6).says(&["unexpected answer"]);
    }
}

#[test]
fn a_kept_line_that_the_server_closes_is_no_failure() {
    let dir = TestDir::new();
    fs::write(dir.join("f"), BYTES).unwrap();
    let puts = AtomicU32::new(0);
    let fake = Fake::greeting(move |peer| {
        let mut line = hear(peer);
        if line.contains(" stat ") {
            say(peer, "110 none\n");
            line = hear(peer);
        }
        // The first command on the line was answered; the second comes to nothing.
        if line.contains(" put ") && puts.fetch_add(1, Ordering::Relaxed) > 0 {
            say(peer, "452 no space\n");
        }
    });
    let file = dir.join("f");
    fake.tow(&["put", file.to_str().unwrap(), "URL"]).exits(5).says(&["no space"]);
}

/// Reads the line that begins a stream, and the stream of ten bytes.
fn hear_round(peer: &mut Raw) {
    let frames = [data(0, &BYTES), segment(0, segments(&BYTES)[0]), end(10, root(&BYTES))].concat();
    let mut line = Vec::new();
    // In later rounds there is no line.
    let mut have = 0;
    while have < frames.len() {
        let Some(byte) = peer.try_byte() else {
            return;
        };
        if frames[have] == byte {
            have += 1;
        } else {
            line.push(byte);
            have = 0;
        }
    }
    assert!(line.is_empty() || line.starts_with(b"426 "), "{}", String::from_utf8_lossy(&line));
}

#[test]
fn names_in_a_listing_are_shown_harmlessly_or_not_at_all() {
    let list = |name: &'static str| {
        let fake = Fake::greeting(move |peer| {
            hear(peer);
            say(peer, format!("150 kind=f size=1 mtime=1.000000000 name={name}\n200 entries=1\n"));
        });
        fake.tow(&["ls", "URL"])
    };
    for name in ["..%2fx", "../x", "/etc/x", "%2fetc%2fx", "..", ".", "", "%", "%zz", "\u{1b}[2J"] {
        let said = list(name).exits(6);
        assert!(said.stdout.is_empty(), "{name:?}: {}", said.stdout());
        assert!(!said.stderr.contains('\u{1b}'), "{:?}", said.stderr);
    }
    for (name, shown) in [
        ("%1b]52;c;x%07", "?]52;c;x?\n"),
        ("a%0ab%0dc", "a?b?c\n"),
        ("%c2%9b2J", "?2J\n"),
        ("%e2%80%aex", "?x\n"),
        ("-rf", "-rf\n"),
        ("%00", "?\n"),
    ] {
        assert_eq!(list(name).exits(0).stdout(), shown);
    }
}

#[test]
fn what_a_server_says_can_not_reach_the_terminal_raw() {
    for text in
        ["403 \u{1b}[2Jno\n", "403 no\u{7}\n", "403 \u{9b}2Jno\n", "\u{1b}c\n", "403 \rok\n"]
    {
        let fake = Fake::greeting(move |peer| {
            hear(peer);
            say(peer, text);
        });
        for args in [["get", "URL", "-"], ["stat", "URL", "-v"], ["ls", "URL", "-l"]] {
            let said = fake.tow(&args);
            assert!(matches!(said.code, Some(5 | 6)), "{said:?}");
            let shown = said.stderr.chars().all(|c| c == '\n' || !c.is_control());
            assert!(shown && !said.stderr.contains('\u{9b}'), "{:?}", said.stderr);
        }
    }
}

#[test]
fn a_server_that_stalls_is_left_at_the_clients_own_limit() {
    let offer = [GREETING, FOUND, "426 offset=0\n"].concat().into_bytes();
    let most = [offer.clone(), data(0, &BYTES), segment(0, segments(&BYTES)[0])].concat();
    for (name, bytes) in [
        ("before the greeting", Vec::new()),
        ("within the greeting", b"220 tow".to_vec()),
        ("before an answer", GREETING.into()),
        ("within a frame", [&offer, &data(0, &BYTES)[..20]].concat()),
        ("before the end", most),
    ] {
        let fake = Fake::start(move |peer| {
            say(peer, &bytes);
        });
        let dir = TestDir::new();
        let target = dir.join("f");
        let args = ["--timeout", "200ms", "get", "URL", target.to_str().unwrap()];
        fake.tow(&args).exits(6).says(&["no byte for 200ms"]);
        eprintln!("{name}");
        nothing_visible(&dir);
    }
    // One that takes nothing.
    let dir = TestDir::new();
    let fake = Fake::start(|peer| {
        say(peer, "220 tow/1\n402\n");
    });
    let file = dir.join("f");
    random_file(&file, 64 << 20, 1);
    let put = ["--timeout", "200ms", "put", file.to_str().unwrap(), "URL"];
    fake.tow(&put).exits(6);
}

#[test]
fn what_was_planted_at_the_name_of_a_partial_is_not_followed() {
    let (towd, dir, elsewhere) = (Towd::start([""; 0]), TestDir::new(), TestDir::new());
    random_file(towd.root().join("f"), 100_000, 1);
    let victim = elsewhere.join("victim");
    fs::write(&victim, "mine").unwrap();
    let target = dir.join("f");
    let stem = Md5Digest::of(b"f");
    let plant: [fn(&Path, &Path); 4] = [
        |victim, at| symlink(victim, at).unwrap(),
        |victim, at| symlink(victim.with_extension("new"), at).unwrap(),
        |victim, at| fs::hard_link(victim, at).unwrap(),
        |_, at| fs::create_dir(at).unwrap(),
    ];
    for ending in ["data", "journal"] {
        for plant in plant {
            let at = dir.join(format!(".tow-{stem}.{ending}"));
            plant(&victim, &at);
            let said = run_tow(["get", &towd.url("f"), target.to_str().unwrap()]).exits(1);
            said.says(&[target.to_str().unwrap()]);
            assert!(!target.exists());
            assert_eq!(fs::read(&victim).unwrap(), b"mine");
            assert!(!victim.with_extension("new").exists());
            for entry in fs::read_dir(dir.path()).unwrap() {
                let left = entry.unwrap().path();
                fs::remove_file(&left).or_else(|_| fs::remove_dir(&left)).unwrap();
            }
        }
    }
    run_tow(["get", &towd.url("f"), target.to_str().unwrap()]).exits(0);
    assert!(same_bytes(towd.root().join("f"), &target));

    // A link at the target's own name is not written through either.
    fs::remove_file(&target).unwrap();
    symlink(&victim, &target).unwrap();
    let mut get = tow(["get", &towd.url("f"), target.to_str().unwrap()]);
    get.current_dir(dir.path());
    run(get).exits(1).says(&["a link has this name"]);
    assert_eq!(fs::read(&victim).unwrap(), b"mine");
}

#[test]
fn a_pipe_never_asks_again_for_what_it_has_written() {
    let mut bytes = vec![7; usize::try_from(SEGMENT_BYTES).unwrap()];
    bytes.extend([9; 1000]);
    let (head, tail) = bytes.split_at(usize::try_from(SEGMENT_BYTES).unwrap());
    let (head, tail, all) = (head.to_vec(), tail.to_vec(), bytes.clone());
    let asked = AtomicU32::new(0);
    let fake = Fake::greeting(move |peer| {
        let digests = segments(&all);
        hear(peer);
        say(peer, format!("203 size={} mtime=1.000000000 tag=t\n", all.len()));
        let wants = hear(peer);
        match asked.fetch_add(1, Ordering::AcqRel) {
            0 => {
                say(peer, format!("426 offset=0 length={}\n", all.len()));
                say(peer, [data(0, &head), segment(0, digests[0])].concat());
                peer.finish_sending();
            }
            // The digest of what was written comes spoiled.
            1 => {
                say(peer, format!("426 offset={SEGMENT_BYTES} length=1000\n"));
                say(peer, segment(0, Md5Digest([1; 16])));
                peer.finish_sending();
            }
            _ => {
                assert_eq!(wants.trim_end(), format!("000 offset={SEGMENT_BYTES} tag=t"));
                say(peer, format!("426 offset={SEGMENT_BYTES} length=1000\n"));
                say(peer, [segment(0, digests[0]), data(SEGMENT_BYTES, &tail)].concat());
                say(peer, [segment(1, digests[1]), end(all.len() as u64, root(&all))].concat());
            }
        }
    });
    let got = tow(["get", "-q", &fake.url(), "-"]).output().unwrap();
    assert!(got.status.success(), "{}", String::from_utf8_lossy(&got.stderr));
    assert!(got.stdout == bytes, "other bytes were written");
}
