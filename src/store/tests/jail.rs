//! Nothing outside the root is reached, and nothing of the internal folder.

use std::{
    os::unix::{fs::symlink, net::UnixListener},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, mknodat, renameat_with};

use super::{super::Source, *};

/// A root beside a file that nobody may reach: `<dir>/outside` and `<dir>/root`.
fn jail() -> (tempfile::TempDir, Root) {
    let dir = memory();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/canary"), b"canary").unwrap();
    let root = Root::serve(&dir.path().join("root")).unwrap();
    (dir, root)
}

fn get(root: &Root, name: &str) -> Result<Vec<u8>, StoreError> {
    let source = Source::open(root, &path(name))?;
    let mut buffer = vec![0; 100];
    let have = source.read(0, &mut buffer)?;
    buffer.truncate(have);
    Ok(buffer)
}

#[test]
fn links_are_followed_within_the_root_and_never_out_of_it() {
    let (dir, root) = jail();
    let at = |name: &str| dir.path().join("root").join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/file"), b"inside").unwrap();
    for (name, to) in [
        ("link", "d/file"),
        ("d/up", "../d/file"),
        ("chain", "link"),
        ("dir", "d"),
        ("d/self", "."),
    ] {
        symlink(to, at(name)).unwrap();
    }
    for name in ["link", "d/up", "chain", "dir/file", "dir/up", "d/self/self/file"] {
        assert_eq!(get(&root, name).unwrap(), b"inside", "{name}");
        assert_eq!(root.stat(&path(name)).unwrap().size, 6, "{name}");
    }

    let outside = dir.path().join("outside");
    symlink(&outside, at("abs")).unwrap();
    symlink(outside.join("canary"), at("absfile")).unwrap();
    symlink("../outside", at("rel")).unwrap();
    symlink("../outside/canary", at("relfile")).unwrap();
    symlink("absfile", at("twice")).unwrap();
    symlink("loop", at("loop")).unwrap();
    symlink("/proc/self/root", at("magic")).unwrap();
    symlink("/proc/self/fd", at("fds")).unwrap();
    for name in ["abs/canary", "absfile", "rel/canary", "relfile", "twice", "loop", "fds/0"] {
        assert!(matches!(get(&root, name), Err(StoreError::Denied)), "{name}");
    }
    for name in ["absfile", "relfile", "loop", "twice"] {
        // A link and no more: not even whether there is something at its end.
        let entry = root.stat(&path(name)).unwrap();
        assert_eq!(entry.kind, super::super::Kind::Link, "{name}");
    }
    for dir in ["abs", "rel", "magic", "fds"] {
        let inner = path(format!("{dir}/x"));
        assert!(matches!(root.list(&path(dir), 0), Err(StoreError::Denied)), "{dir}");
        assert!(matches!(root.make_dir(&inner), Err(StoreError::Denied)), "{dir}");
        assert!(matches!(root.remove(&inner), Err(StoreError::Denied)), "{dir}");
        assert!(matches!(root.remove_dir(&inner), Err(StoreError::Denied)), "{dir}");
        let file = path("d/file");
        assert!(matches!(root.rename(&file, &inner), Err(StoreError::Denied)), "{dir}");
        assert!(matches!(root.rename(&inner, &file), Err(StoreError::Denied)), "{dir}");
        let upload = upload(&format!("{dir}/x"), "a", b"x");
        let root = Arc::new(Root::serve(&at("")).unwrap());
        let opened = Partial::open(&root, Place::Internal, upload, false);
        assert!(matches!(opened, Err(StoreError::Denied)), "{dir}");
    }
    // Removing or moving a link means the link.
    root.rename(&path("absfile"), &path("moved")).unwrap();
    root.remove(&path("moved")).unwrap();
    assert_eq!(fs::read(outside.join("canary")).unwrap(), b"canary");
}

#[test]
fn a_put_does_not_go_through_or_over_a_link() {
    let (dir, root) = jail();
    let at = |name: &str| dir.path().join("root").join(name);
    symlink("../outside/canary", at("out")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    let root = Arc::new(root);
    for name in ["out", "dangling"] {
        let opened = Partial::open(&root, Place::Internal, upload(name, "a", b"x"), false);
        assert!(matches!(opened, Err(StoreError::WrongKind(_))), "{name}");
    }
}

#[test]
fn pipes_sockets_and_devices_are_refused_at_once() {
    let (dir, root) = jail();
    let at = |name: &str| dir.path().join("root").join(name);
    mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = UnixListener::bind(at("socket")).unwrap();
    symlink("fifo", at("to-fifo")).unwrap();
    symlink("socket", at("to-socket")).unwrap();
    let mut names = vec!["fifo", "socket", "to-fifo", "to-socket"];
    let zero = rustix::fs::makedev(1, 5);
    if mknodat(CWD, at("zero"), FileType::CharacterDevice, Mode::RWXU, zero).is_ok() {
        names.push("zero");
    }
    let root = Arc::new(root);
    let began = Instant::now();
    for name in names {
        assert!(matches!(get(&root, name), Err(StoreError::WrongKind(_))), "{name}");
        let local = Source::open_local(&at(name));
        assert!(matches!(local, Err(StoreError::WrongKind(_))), "{name}");
        let opened = Partial::open(&root, Place::Internal, upload(name, "a", b"x"), false);
        assert!(matches!(opened, Err(StoreError::WrongKind(_))), "{name}");
    }
    assert!(matches!(get(&root, ""), Err(StoreError::WrongKind(_))));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_internal_folder_is_not_there_by_any_name() {
    let (dir, root) = jail();
    let at = |name: &str| dir.path().join("root").join(name);
    let root = Arc::new(root);
    let source = bytes(1, 3 * LEAF);
    let opened = Partial::open(&root, Place::Internal, upload("f", "a", &source), false);
    let mut receiver = Receiver::new(opened.unwrap());
    receiver.receive(&source, 2).unwrap();
    let data = format!(".tow/partials/{}.data", partial_name(&path("f")));
    assert!(at(&data).exists());

    fs::create_dir(at("d")).unwrap();
    for (name, to) in [
        ("self", "."),
        ("d/up", ".."),
        ("tow", ".tow"),
        ("partials", ".tow/partials"),
        ("slash", ".tow/"),
        ("by-self", "self/.tow"),
        ("by-up", "d/up/.tow"),
        ("by-all", "self/self/.tow/partials"),
        ("self-data", &format!("self/{data}")),
        ("data", &data),
        ("tow-data", &format!("tow/partials/../{}", &data[5..])),
    ] {
        symlink(to, at(name)).unwrap();
    }
    let inner = &data[5..];
    let ways = ["by-self", "by-up", "by-all", "tow", "partials", "slash", "tow/partials"];
    for way in ways {
        assert!(matches!(root.list(&path(way), 0), Err(StoreError::NotFound)), "{way}");
    }
    for way in ["data", "tow-data", "self-data", &format!("tow/{inner}")] {
        assert!(matches!(get(&root, way), Err(StoreError::NotFound)), "{way}");
        let entry = root.stat(&path(way));
        let link = |entry: super::super::Entry| entry.kind == super::super::Kind::Link;
        assert!(entry.map_or(true, link), "{way}");
    }
    for way in ["by-self/partials", "by-up/x", "tow/partials", "tow/new"] {
        let way = path(way);
        assert!(matches!(root.rename(&way, &path("x")), Err(StoreError::NotFound)), "{way}");
        assert!(matches!(root.rename(&path("d"), &way), Err(StoreError::NotFound)), "{way}");
        assert!(matches!(root.make_dir(&way), Err(StoreError::NotFound)), "{way}");
        assert!(matches!(root.remove_dir(&way), Err(StoreError::NotFound)), "{way}");
        assert!(matches!(root.remove(&way), Err(StoreError::NotFound)), "{way}");
    }
    let listed = root.list(&path(""), 0).unwrap().entries;
    assert!(listed.iter().all(|entry| entry.name != b".tow"));
    assert!(at(&data).exists());
}

#[test]
fn errors_say_what_is_the_matter() {
    let (dir, root) = jail();
    let at = |name: &str| dir.path().join("root").join(name);
    fs::create_dir_all(at("d/e")).unwrap();
    fs::write(at("f"), b"x").unwrap();
    let is = |outcome: Result<(), StoreError>, what: &str| {
        let error = format!("{:?}", outcome.unwrap_err());
        assert!(error.starts_with(what), "{error} is not {what}");
    };
    is(root.remove(&path("none")), "NotFound");
    is(root.remove(&path("d")), "WrongKind");
    is(root.remove_dir(&path("f")), "WrongKind");
    is(root.remove_dir(&path("d")), "WrongKind");
    is(root.remove_dir(&path("")), "WrongKind");
    is(root.make_dir(&path("d")), "Exists");
    is(root.make_dir(&path("")), "Exists");
    is(root.make_dir(&path("f/x")), "WrongKind");
    is(root.make_dir(&path("none/x")), "NotFound");
    is(root.rename(&path("d"), &path("d/e/x")), "WrongKind");
    is(root.rename(&path("f"), &path("d")), "WrongKind");
    is(root.rename(&path("d"), &path("f")), "WrongKind");
    is(get(&root, "d").map(drop), "WrongKind");
    is(root.list(&path("f"), 0).map(drop), "WrongKind");
    root.rename(&path("d"), &path("g")).unwrap();
    root.rename(&path("f"), &path("g/e/f")).unwrap();
    assert!(at("g/e/f").exists());
}

#[test]
fn a_planted_internal_folder_is_not_followed() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("elsewhere")).unwrap();
    fs::create_dir(dir.path().join("root")).unwrap();
    symlink("../elsewhere", dir.path().join("root/.tow")).unwrap();
    Root::serve(&dir.path().join("root")).unwrap_err();
    assert_eq!(fs::read_dir(dir.path().join("elsewhere")).unwrap().count(), 0);
}

#[test]
fn a_directory_that_turns_into_a_link_meanwhile_lets_nobody_out() {
    let (dir, root) = jail();
    let at = |name: &str| dir.path().join("root").join(name);
    fs::create_dir(at("d")).unwrap();
    fs::write(at("d/canary"), b"inside").unwrap();
    symlink("../outside", at("link")).unwrap();
    /// Ends the other thread, also if this one panics.
    struct Stop<'a>(&'a AtomicBool);
    impl Drop for Stop<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let stop = AtomicBool::new(false);
    let (mut inside, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                let flags = RenameFlags::EXCHANGE;
                renameat_with(CWD, at("d"), CWD, at("link"), flags).unwrap();
            }
        });
        let _stop = Stop(&stop);
        for _ in 0..20_000 {
            match get(&root, "d/canary") {
                Ok(found) => {
                    assert_eq!(found, b"inside");
                    inside += 1;
                }
                Err(StoreError::Denied) => refused += 1,
                Err(error) => panic!("{error}"),
            }
            let made = root.make_dir(&path("d/made"));
            let _ = made.and_then(|()| root.remove_dir(&path("d/made")));
        }
    });
    assert!(inside > 0 && refused > 0, "{inside} inside, {refused} refused");
    assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 1);
}
