//! Servers whose listings lie: nothing is written outside, and nothing goes on for ever.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{
    fs,
    io::Write,
    net::{SocketAddr, TcpListener},
    os::unix::{ffi::OsStrExt, fs::symlink},
    path::{Path, PathBuf},
    thread,
};

use support::{
    PATIENCE, Raw, TestDir,
    folders::{get, tree, write},
    frames::frames_from,
    run, tow,
};
use towpath::wire::encode;

mod support;

/// Lists `entries` in its one folder, and sends four bytes for whatever is asked for.
fn lie(peer: &mut Raw, list: impl Fn(&str, &str) -> String) {
    let say = |peer: &Raw, bytes: &[u8]| {
        let mut stream = peer.stream();
        stream.write_all(bytes).is_ok()
    };
    say(peer, b"220 tow/1 digests=md5-tree,md5 login=none\n");
    while let Ok(Some(line)) = peer.try_line(PATIENCE) {
        let words: Vec<&str> = line.split(' ').filter(|it| !it.starts_with("sum=")).collect();
        let answer = match words[..] {
            ["stat", ..] => b"200 kind=d size=0 mtime=1700000000.000000000\n".to_vec(),
            ["ls", path, from] => list(path, from).into_bytes(),
            ["ls", path] => list(path, "").into_bytes(),
            ["get", path, ..] if path.ends_with("gone") => b"110\n404\n".to_vec(),
            ["get", ..] => {
                let found = b"203 size=4 mtime=1700000000.000000000 tag=t\n426 offset=0 length=4\n";
                [&found[..], &frames_from(b"evil", 0)].concat()
            }
            _ => continue,
        };
        if !say(peer, &answer) {
            return;
        }
    }
}

/// A server that lies so, on every connection.
fn liar(list: impl Fn(&str, &str) -> String + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    // Ends with the test's process: it has nothing that would have to be let go of.
    thread::spawn(move || {
        for peer in listener.incoming() {
            let (mut peer, list) = (Raw::over(peer.unwrap()), list.clone());
            thread::spawn(move || lie(&mut peer, list));
        }
    });
    addr
}

fn entry(kind: char, name: &[u8]) -> String {
    format!("150 kind={kind} size=4 mtime=1700000000.000000000 name={}\n", encode(name))
}

#[test]
fn two_hundred_hostile_names_write_nothing_outside() {
    let mut names: Vec<Vec<u8>> = (1_u8..=255)
        .filter(|&byte| byte != b'/' && byte != b'.')
        .step_by(2)
        .map(|byte| vec![byte, b'x', byte])
        .collect();
    let own = b".tow-0123456789abcdef0123456789abcdef.journal";
    let more: [&[u8]; 15] = [
        b"...",
        b".. ",
        b"..\n",
        b"~",
        b"~root",
        b"-rf",
        b"|sh",
        b"$(touch pwned)",
        b"`id`",
        b"%2e%2e%2fx",
        b"..\\..\\x",
        b".tow",
        b".tow-x.journal",
        own,
        b"CON",
    ];
    names.extend(more.iter().map(|name| name.to_vec()));
    names.extend((0..50).map(|n| vec![b'n'; 210 + n]));
    assert!(names.len() >= 190, "{}", names.len());
    // With those that no directory can hold, each of which spoils its listing.
    let broken: [&[u8]; 8] =
        [b"..", b".", b"", b"/", b"/tmp/x", b"../x", b"a/../../x", b"sub/../x"];

    let dir = TestDir::new();
    let (inside, canary) = (dir.join("a/b/inside"), dir.join("a/canary"));
    write(&canary, b"alive");
    let pages = names.clone();
    let addr = liar(move |_, from| {
        let first = from.strip_prefix("from=").map_or(0, |from| from.parse().unwrap());
        let page: String = pages.iter().skip(first).take(100).map(|it| entry('f', it)).collect();
        let next = if first + 100 < pages.len() {
            format!(" next={}", first + 100)
        } else {
            String::new()
        };
        format!("{page}200 entries=1{next}\n")
    });
    fs::create_dir_all(&inside).unwrap();
    let mut command = tow(["get", "-r", "--give-up", "0", &format!("tow://{addr}/x")]);
    command.arg(&inside).current_dir(dir.join("a"));
    let said = run(command).exits(1);
    // What a terminal would obey is in no line.
    assert!(said.stderr.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", said.stderr);
    let got = tree(&inside.join("x"));
    assert!(got.len() > 150, "{}", got.len());
    for (path, file) in &got {
        assert_eq!(path.components().count(), 1);
        assert_eq!(file.as_ref().unwrap().0, b"evil");
        assert!(names.iter().any(|name| name == path.as_os_str().as_bytes()));
        assert!(path.as_os_str().as_bytes() != own && path != Path::new(".tow"));
    }
    for name in broken {
        let page = format!("{}200 entries=1\n", entry('f', name));
        let addr = liar(move |_, _| page.clone());
        let mut command = tow(["get", "-r", "--give-up", "0", &format!("tow://{addr}/y")]);
        command.arg(&inside).current_dir(dir.join("a"));
        run(command).exits(6);
        assert!(tree(&inside.join("y")).is_empty());
    }
    let outside: Vec<PathBuf> =
        tree(dir.path()).into_keys().filter(|path| !path.starts_with("a/b/inside")).collect();
    assert_eq!(outside, ["a", "a/b", "a/canary"].map(PathBuf::from));
    assert_eq!(fs::read(canary).unwrap(), b"alive");
}

#[test]
fn a_link_that_is_planted_first_is_not_written_through() {
    let dir = TestDir::new();
    let addr = liar(|path, _| match path {
        "/x" => {
            format!("{}{}{}200 entries=3\n", entry('l', b"a"), entry('d', b"a"), entry('f', b"b"))
        }
        _ => format!("{}200 entries=1\n", entry('f', b"f")),
    });
    let url = format!("tow://{addr}/x");
    get(&["--give-up", "0"], &url, &dir.join("first")).exits(0);
    assert!(fs::symlink_metadata(dir.join("first/x/a")).unwrap().is_dir());
    // As if it had managed to plant them.
    let (outside, second) = (dir.join("outside"), dir.join("second"));
    write(outside.join("b"), b"alive");
    fs::create_dir(&second).unwrap();
    symlink(&outside, second.join("a")).unwrap();
    symlink(outside.join("b"), second.join("b")).unwrap();
    fs::create_dir(dir.join("third")).unwrap();
    fs::rename(&second, dir.join("third/x")).unwrap();
    let said = get(&["--give-up", "0"], &url, &dir.join("third")).exits(1);
    said.says(&["; 1 failed; 1 folders failed"]);
    assert_eq!(tree(&outside).into_keys().collect::<Vec<_>>(), [Path::new("b")]);
    assert_eq!(fs::read(outside.join("b")).unwrap(), b"alive");
}

#[test]
fn folders_without_end_are_bounded() {
    let dir = TestDir::new();
    let addr = liar(|_, _| format!("{}200 entries=1\n", entry('d', b"d")));
    let said = get(&["--give-up", "0"], &format!("tow://{addr}/x"), &dir.join("deep")).exits(1);
    said.says(&["too many folders within one another", "1 folders failed"]);
    let addr = liar(|_, _| format!("{}200 entries=1 next=7\n", entry('f', b"f")));
    let said = get(&["--give-up", "0"], &format!("tow://{addr}/x"), &dir.join("round")).exits(3);
    said.says(&["the listing goes in a circle"]);
}

#[test]
fn a_file_that_is_refused_leaves_what_was_asked_for_behind_it_in_step() {
    let addr = liar(|_, _| {
        let names = ["a", "b gone", "c", "d gone", "e"];
        let entries: String = names.iter().map(|name| entry('f', name.as_bytes())).collect();
        format!("{entries}200 entries=5\n")
    });
    let dir = TestDir::new();
    let said = get(&["--give-up", "0"], &format!("tow://{addr}/x/."), &dir.join("x")).exits(5);
    said.says(&["3 moved", "2 failed", "/b gone: ", "/d gone: ", "no such file or directory"]);
    assert_eq!(tree(&dir.join("x")).len(), 3);
}
