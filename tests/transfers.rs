//! Files go up and down and come out the same: sizes, names, times, places.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails the test")]

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File},
    net::TcpListener,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
    time::{Duration, SystemTime},
};

use support::{
    Ran, TestDir, Towd, md5sum,
    proxy::{Cut, Direction, How, Plan, Proxy},
    random_file, run_tow, same_bytes,
};
use towpath::digest::{LEAF_BYTES, SEGMENT_BYTES};

mod support;

const GIB: u64 = 1 << 30;

fn os(path: &Path) -> OsString {
    path.as_os_str().to_owned()
}

fn put(options: &[&str], file: &Path, url: &str) -> Ran {
    let mut args: Vec<OsString> = vec!["put".into()];
    args.extend(options.iter().map(Into::into));
    args.extend(["--".into(), os(file), url.into()]);
    run_tow(args)
}

fn get(options: &[&str], url: &str, to: &Path) -> Ran {
    let mut args: Vec<OsString> = vec!["get".into()];
    args.extend(options.iter().map(Into::into));
    args.extend(["--".into(), url.into(), os(to)]);
    run_tow(args)
}

/// A name as it stands in a URL when every byte of it is percent-encoded.
fn encoded(name: &OsStr) -> String {
    name.as_bytes().iter().map(|byte| format!("%{byte:02x}")).collect()
}

/// The word behind `key` in a summary.
fn word_after(said: &str, key: &str) -> String {
    let (_, rest) = said.split_once(key).unwrap_or_else(|| panic!("no {key:?} in {said}"));
    rest.chars().take_while(char::is_ascii_hexdigit).collect()
}

#[test]
fn a_gibibyte_is_the_same_after_up_and_down_with_either_digest() {
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    let (source, copy) = (dir.join("source"), dir.join("copy"));
    random_file(&source, GIB, 1);
    let md5 = md5sum(&source);
    let url = towd.url("g");

    let up = put(&[], &source, &url).exits(0).says(&["1.00 GiB moved", "md5-tree "]);
    let down = get(&["--digest", "md5"], &url, &copy).exits(0).says(&["1.00 GiB moved"]);
    assert_eq!(word_after(&down.stderr, ", md5 "), md5);
    assert_eq!(word_after(&up.stderr, "md5-tree "), word_after(&down.stderr, "md5-tree "));
    assert_eq!(run_tow(["md5", &url]).exits(0).stdout(), format!("{md5}  g\n"));
    assert!(same_bytes(&source, towd.root().join("g")));
    assert!(same_bytes(&source, &copy));

    fs::remove_file(&copy).unwrap();
    run_tow(["rm", &url]).exits(0);
    let up = put(&["--digest", "md5"], &source, &url).exits(0).says(&["1.00 GiB moved"]);
    assert_eq!(word_after(&up.stderr, ", md5 "), md5);
    get(&[], &url, &copy).exits(0).says(&["1.00 GiB moved"]);
    assert!(same_bytes(&source, towd.root().join("g")));
    assert!(same_bytes(&source, &copy));
}

#[test]
fn sizes_around_leaf_and_segment_come_out_exact_both_ways() {
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    let around = |size: u64| [size - 1, size, size + 1];
    let sizes = [vec![0, 1], around(LEAF_BYTES).into(), around(SEGMENT_BYTES).into()].concat();
    for size in sizes {
        let name = size.to_string();
        let (source, copy) = (dir.join(&name), dir.join("copy"));
        random_file(&source, size, size);
        let url = towd.url(&name);
        for digest in ["md5-tree", "md5"] {
            put(&["--digest", digest], &source, &url).exits(0);
            assert!(same_bytes(&source, towd.root().join(&name)), "{size} up");
            get(&["--digest", digest], &url, &copy).exits(0);
            assert!(same_bytes(&source, &copy), "{size} down");
            fs::remove_file(&copy).unwrap();
            run_tow(["rm", &url]).exits(0);
        }
    }
}

#[test]
fn any_name_survives_both_ways_on_both_sides() {
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    let long = "n".repeat(255);
    let names: &[&[u8]] = &[
        long.as_bytes(),
        b"with  two spaces ",
        b"new\nline",
        b"-rf",
        b"--help",
        b"100%",
        b"%41%2e%2F",
        b"a=b?c#d&e",
        b"\xff\xfe not UTF-8 \x80",
        b"\x1b[2J\x07",
        "\u{202e}gpj.\u{e4}".as_bytes(),
        b"...",
        b".hidden",
        b"~",
        b"$(id) | `id`",
    ];
    for (n, name) in names.iter().enumerate() {
        let name = OsStr::from_bytes(name);
        let folder = format!("d{n}");
        let source = dir.join(&folder).join(name);
        fs::create_dir(dir.join(&folder)).unwrap();
        fs::write(&source, name.as_bytes()).unwrap();
        run_tow(["mkdir", &towd.url(&folder)]).exits(0);

        // Into a folder: the name comes from the local file.
        put(&[], &source, &towd.url(&folder)).exits(0);
        assert!(same_bytes(&source, towd.root().join(&folder).join(name)), "{name:?}");
        // From the URL: the name comes from there.
        let url = towd.url(&format!("{folder}/{}", encoded(name)));
        let copies = dir.join(format!("copies{n}"));
        fs::create_dir(&copies).unwrap();
        let mut default = support::tow(["get", "--", &url]);
        default.current_dir(&copies);
        let said = support::run(default).exits(0);
        assert!(same_bytes(&source, copies.join(name)), "{name:?}");
        // What people read has no control characters.
        assert!(said.stderr.trim_end().chars().all(|c| !c.is_control()), "{:?}", said.stderr);
        // Nothing is left beside it.
        assert_eq!(fs::read_dir(&copies).unwrap().count(), 1, "{name:?}");
    }
}

#[test]
fn the_time_of_a_file_goes_with_it() {
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    let source = dir.join("f");
    fs::write(&source, "x").unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    File::options().append(true).open(&source).unwrap().set_modified(old).unwrap();
    put(&[], &source, &towd.url("f")).exits(0);
    get(&[], &towd.url("f"), &dir.join("copy")).exits(0);
    let time = |path: &Path| {
        let meta = fs::metadata(path).unwrap();
        (meta.mtime(), meta.mtime_nsec())
    };
    for path in [&source, &towd.root().join("f"), &dir.join("copy")] {
        assert_eq!(time(path), (1_000_000_000, 123_456_789), "{}", path.display());
    }
}

#[test]
fn a_file_arrives_without_permission_to_be_executed() {
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    let source = dir.join("f");
    fs::write(&source, "#!/bin/sh").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o6777);
    fs::set_permissions(&source, mode).unwrap();
    put(&[], &source, &towd.url("f")).exits(0);
    let mode = fs::metadata(towd.root().join("f")).unwrap().mode();
    assert_eq!(mode & 0o7111, 0, "{mode:o}");
}

#[test]
fn get_puts_a_file_where_it_is_told() {
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    let there = towd.root().join("f");
    random_file(&there, 100_000, 3);
    let (folder, url) = (dir.join("folder"), towd.url("f"));
    fs::create_dir(&folder).unwrap();

    get(&[], &url, &folder).exits(0);
    assert!(same_bytes(&there, folder.join("f")));
    get(&[], &url, &dir.join("folder/named")).exits(0);
    assert!(same_bytes(&there, folder.join("named")));
    let mut here = support::tow(["get", &url]);
    here.current_dir(dir.path());
    support::run(here).exits(0);
    assert!(same_bytes(&there, dir.join("f")));
    let out = run_tow(["get", &url, "-"]).exits(0).says(&["verified"]);
    assert!(out.stdout == fs::read(&there).unwrap());
    let missing = dir.join("no/");
    get(&[], &url, &missing).exits(2).says(&["there is no such folder"]);
    assert!(!missing.exists());
}

#[test]
fn a_pipe_gets_every_byte_once_and_only_verified_ones() {
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    let there = towd.root().join("f");
    random_file(&there, 3 * SEGMENT_BYTES + 5, 4);
    let line = Proxy::start(
        towd.addr(),
        Plan {
            cut: Some(Cut {
                budget_bytes: SEGMENT_BYTES + 100_000..=SEGMENT_BYTES + 200_000,
                limit: 2,
                ..Default::default()
            }),
            ..Plan::seeded(4)
        },
    );
    let url = format!("tow://{}/f", line.addr());
    let out = run_tow(["get", "--digest", "md5", &url, "-"]).exits(0).says(&["reconnected"]);
    fs::write(dir.join("out"), &out.stdout).unwrap();
    assert!(same_bytes(&there, dir.join("out")));
    assert_eq!(word_after(&out.stderr, ", md5 "), md5sum(&there));
}

#[test]
fn several_files_go_into_a_folder_with_one_command() {
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    fs::create_dir(towd.root().join("d")).unwrap();
    let mut args: Vec<OsString> = vec!["put".into()];
    for n in 0..3 {
        let file = dir.join(format!("f{n}"));
        random_file(&file, 70_000 + n, n);
        args.push(os(&file));
    }
    for folder in ["d", "d/"] {
        args.push(towd.url(folder).into());
        run_tow(&args).exits(0).says(&["f0: ", "f1: ", "f2: "]);
        args.pop();
        for n in 0..3 {
            let name = format!("f{n}");
            assert!(same_bytes(dir.join(&name), towd.root().join("d").join(&name)));
        }
    }
    args.push(towd.url("nothing").into());
    run_tow(&args).exits(5).says(&["no such file or directory", "tow mkdir"]);
}

#[test]
fn put_to_the_name_of_a_folder_puts_into_it() {
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    fs::create_dir(towd.root().join("d")).unwrap();
    let file = dir.join("f");
    random_file(&file, 1000, 1);
    put(&[], &file, &towd.url("d")).exits(0);
    assert!(same_bytes(&file, towd.root().join("d/f")));
    put(&[], &file, &towd.url("e")).exits(0);
    assert!(same_bytes(&file, towd.root().join("e")));
}

#[test]
fn a_file_is_replaced_by_a_later_version_in_both_directions() {
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    let (source, copy, url) = (dir.join("f"), dir.join("copy"), towd.url("f"));
    for (size, seed) in [(5 << 20, 1), (5 << 20, 2), (3, 3), (0, 4), (SEGMENT_BYTES, 5)] {
        random_file(&source, size, seed);
        put(&[], &source, &url).exits(0);
        assert!(same_bytes(&source, towd.root().join("f")));
        get(&[], &url, &copy).exits(0);
        assert!(same_bytes(&source, &copy));
    }
}

#[test]
fn an_unchanged_file_is_there_already_and_nothing_moves() {
    let dir = TestDir::new();
    let towd = Towd::start([""; 0]);
    let file = dir.join("f");
    random_file(&file, 2 * SEGMENT_BYTES + 1, 1);
    put(&[], &file, &towd.url("f")).exits(0);
    let line = Proxy::start(towd.addr(), Plan::default());
    let url = format!("tow://{}/f", line.addr());
    for digest in ["md5-tree", "md5"] {
        let again =
            put(&["--digest", digest], &file, &url).exits(0).says(&["it was there already"]);
        assert!(!again.stderr.contains("moved"), "{}", again.stderr);
    }
    // Touched, or a copy: the tag is another one.
    let copy = dir.join("copy");
    fs::copy(&file, &copy).unwrap();
    let time = fs::metadata(&file).unwrap().modified().unwrap();
    File::options().write(true).open(&copy).unwrap().set_modified(time).unwrap();
    fs::rename(&copy, &file).unwrap();
    put(&[], &file, &url).exits(0).says(&["it was there already"]);
    let moved = line.counts().total;
    assert!(moved.up + moved.down < 4096, "{moved:?}");

    // What was changed on the server since is not there.
    random_file(towd.root().join("f"), 2 * SEGMENT_BYTES + 1, 2);
    put(&[], &file, &url).exits(0).says(&["moved"]);
    assert!(same_bytes(&file, towd.root().join("f")));
}

#[test]
fn a_file_that_is_here_already_is_compared_and_comes_only_if_it_is_another_one() {
    const SIZE: u64 = 2 * SEGMENT_BYTES + 1;
    let dir = TestDir::new();
    let towd = Towd::start(["-v"]);
    let (there, here) = (towd.root().join("f"), dir.join("f"));
    random_file(&there, SIZE, 1);
    get(&[], &towd.url("f"), &here).exits(0).says(&["moved"]);
    let inode = fs::metadata(&here).unwrap().ino();
    for digest in ["md5-tree", "md5"] {
        let again = get(&["--digest", digest], &towd.url("f"), &here).exits(0);
        assert!(!again.stderr.contains("moved"), "{}", again.stderr);
        again.says(&["8.00 MiB verified", "it was there already"]);
    }
    assert_eq!(fs::metadata(&here).unwrap().ino(), inode);
    assert_eq!(
        towd.stderr().matches("get /f from=8388609 bytes=0 ").count(),
        2,
        "{}",
        towd.stderr()
    );

    // A line that breaks meanwhile is no reason to fetch it.
    let cut = Cut {
        budget_bytes: 100..=300,
        counted: Some(Direction::Down),
        how: How::Rst,
        limit: 3,
        ..Cut::default()
    };
    let line = Proxy::start(towd.addr(), Plan { cut: Some(cut), ..Plan::seeded(1) });
    let again = get(&[], &format!("tow://{}/f", line.addr()), &here).exits(0);
    assert!(!again.stderr.contains("moved"), "{}", again.stderr);
    again.says(&["trying again", "it was there already"]);

    // The same size and time are not enough.
    let time = fs::metadata(&here).unwrap().modified().unwrap();
    random_file(&here, SIZE, 2);
    File::options().write(true).open(&here).unwrap().set_modified(time).unwrap();
    get(&[], &towd.url("f"), &here).exits(0).says(&["another one", "8.00 MiB moved"]);
    assert!(same_bytes(&there, &here));
    // Another size or time is not looked at any further.
    fs::write(&here, "short").unwrap();
    let said = get(&[], &towd.url("f"), &here).exits(0).says(&["8.00 MiB moved"]);
    assert!(!said.stderr.contains("another one"), "{}", said.stderr);
    assert!(same_bytes(&there, &here));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "a partial stayed");
}

#[test]
fn ipv6_and_several_addresses_are_served_at_once() {
    let mut addresses = vec!["127.0.0.1:0"];
    if TcpListener::bind("[::1]:0").is_ok() {
        addresses.push("[::1]:0");
    } else {
        eprintln!("skipped in part: this machine has no IPv6");
    }
    let dir = TestDir::new();
    let args: Vec<&str> = addresses.iter().flat_map(|address| ["--listen", address]).collect();
    let towd = Towd::start(&args);
    let said = towd.announced(1 + addresses.len());
    assert_eq!(said.iter().filter(|line| line.contains("[::1]:")).count(), addresses.len() - 1);
    let file = dir.join("f");
    random_file(&file, 1 << 20, 1);
    for (n, line) in said.iter().enumerate() {
        let addr = line.strip_prefix("listening on ").unwrap();
        assert!(addr.parse::<std::net::SocketAddr>().is_ok_and(|addr| addr.port() > 0), "{line}");
        put(&[], &file, &format!("tow://{addr}/f{n}")).exits(0);
        assert!(same_bytes(&file, towd.root().join(format!("f{n}"))));
    }
}
