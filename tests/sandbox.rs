//! The layers of the jail: Landlock without `openat2`, `openat2` without Landlock, and a server that
//! does its work within both.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use support::{PATIENCE, Ran, TestDir, Towd, run, tow, wait_until};
use towpath::{
    action::Prepared,
    sandbox::{Layer, Sandbox},
    server::child::{Children, Chunk, Stream},
};

mod support;

/// Does something in a thread that is confined; nothing is if the kernel has no Landlock. What a
/// thread enters counts for it and for what it starts, so the rest of this process stays free.
fn confined(sandbox: Sandbox, work: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(move || match sandbox.enter().unwrap() {
        Layer::Off => eprintln!("skipped: this kernel has no Landlock"),
        Layer::On | Layer::Partly => work(),
    });
    thread.join().unwrap();
}

fn is_denied<T>(result: io::Result<T>) -> bool {
    matches!(result, Err(error) if error.kind() == ErrorKind::PermissionDenied)
}

/// `inside`, which is left open, and `outside`, which is not, each with a file.
fn two_folders() -> (TestDir, PathBuf, PathBuf) {
    let dir = TestDir::new();
    let [inside, outside] = ["inside", "outside"].map(|name| dir.join(name));
    for folder in [&inside, &outside] {
        fs::create_dir(folder).unwrap();
        fs::create_dir(folder.join("sub")).unwrap();
        fs::write(folder.join("f"), "text").unwrap();
    }
    (dir, inside, outside)
}

#[test]
fn landlock_alone_stops_every_way_out() {
    let (_dir, inside, outside) = two_folders();
    let above = outside.join("..");
    symlink(outside.join("f"), inside.join("link")).unwrap();
    symlink(&outside, inside.join("folder")).unwrap();
    let sandbox = Sandbox { writable: vec![inside.clone()], ..Sandbox::default() };
    confined(sandbox, move || {
        for way in ["link", "folder/f", "../outside/f", "sub/../../outside/f"] {
            assert!(is_denied(fs::read(inside.join(way))), "{way}");
            assert!(is_denied(File::options().write(true).open(inside.join(way))), "{way}");
        }
        assert!(is_denied(fs::read(outside.join("f"))));
        assert!(is_denied(fs::write(outside.join("new"), "")));
        assert!(is_denied(fs::create_dir(outside.join("new"))));
        assert!(is_denied(fs::read_dir(&outside)));
        assert!(is_denied(fs::read_dir(above)));
        assert!(is_denied(fs::remove_file(outside.join("f"))));
        assert!(is_denied(symlink("x", outside.join("new"))));
        assert!(is_denied(File::options().write(true).truncate(true).open(outside.join("f"))));
        // From the one to the other: never, in either direction.
        for (from, to) in [(&inside, &outside), (&outside, &inside)] {
            assert!(fs::rename(from.join("f"), to.join("new")).is_err());
            assert!(fs::hard_link(from.join("f"), to.join("new")).is_err());
        }
        assert!(is_denied(fs::read("/etc/hostname").or_else(|_| fs::read("/etc/passwd"))));
        // Threads are confined like whoever starts them.
        let outside = outside.join("f");
        assert!(thread::spawn(move || is_denied(fs::read(outside))).join().unwrap());
    });
}

#[test]
fn within_it_a_store_can_do_all_it_does() {
    let (_dir, inside, _) = two_folders();
    let kept = TestDir::new();
    let read_only = kept.path().to_owned();
    fs::write(read_only.join("f"), "x").unwrap();
    let sandbox = Sandbox {
        writable: vec![inside.clone()],
        readable: vec![read_only.clone(), read_only.join("f")],
        ..Sandbox::default()
    };
    confined(sandbox, move || {
        fs::rename(inside.join("f"), inside.join("sub/g")).unwrap();
        fs::hard_link(inside.join("sub/g"), inside.join("h")).unwrap();
        fs::write(inside.join("new"), "x").unwrap();
        File::options().write(true).open(inside.join("new")).unwrap().set_len(10).unwrap();
        File::open(&inside).unwrap().sync_all().unwrap();
        fs::remove_file(inside.join("h")).unwrap();
        for looked_at in ["/proc/sys/kernel/random/boot_id", "/proc/meminfo"] {
            assert!(!fs::read(looked_at).unwrap().is_empty(), "{looked_at}");
        }
        File::options().write(true).open("/dev/null").unwrap().write_all(b"x").unwrap();
        // A file that is replaced in a folder that may be read can be read.
        assert_eq!(fs::read(read_only.join("f")).unwrap(), b"x");
        assert!(is_denied(fs::write(read_only.join("f"), "y")));
    });
}

#[test]
fn what_proc_makes_anew_is_held_open() {
    confined(Sandbox::default(), || {});
    let fds = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let is_boot_id = |link: io::Result<PathBuf>| link.is_ok_and(|path| path.ends_with("boot_id"));
    let is_held = fds.map(|fd| fs::read_link(fd.path())).any(is_boot_id);
    assert!(is_held || confinement().is_none());
}

/// What this kernel has of Landlock, if anything.
fn confinement() -> Option<Layer> {
    let enter = || Sandbox::default().enter().unwrap();
    Some(thread::spawn(enter).join().unwrap()).filter(|layer| *layer != Layer::Off)
}

#[test]
fn an_action_runs_within_it_and_is_swept() {
    let (kept, inside, outside) = two_folders();
    let served = inside.clone();
    let with = Sandbox { writable: vec![inside], programs: Some(vec![]), ..Sandbox::default() };
    confined(with, move || {
        let children = Children::new(&served).unwrap();
        let script = "cat \"$0\" || cat \"$1\"; echo new > \"$2\"";
        let [secret, open, made] =
            [outside.join("f"), served.join("f"), served.join("made")].map(Into::into);
        let prepared = Prepared {
            name: "it".to_owned(),
            program: "/bin/sh".into(),
            arguments: vec!["-c".into(), script.into(), secret, open, made],
            timeout: PATIENCE,
            max_output: 1000,
            max_running: 1,
        };
        let mut child = children.spawn(&prepared, "anna").unwrap();
        assert!(wait_until(PATIENCE, || child.reap().is_some()));
        let mut said = |stream| {
            let mut buffer = [0; 1000];
            match child.read(stream, &mut buffer).unwrap() {
                Chunk::Bytes(count) => String::from_utf8_lossy(&buffer[..count]).into_owned(),
                Chunk::Later | Chunk::End => String::new(),
            }
        };
        assert_eq!(said(Stream::Stdout), "text");
        assert!(said(Stream::Stderr).contains("Permission denied"));
        drop(child);
        assert!(wait_until(PATIENCE, || children.sweep().unwrap().left == 0));
        assert_eq!(fs::read(served.join("made")).unwrap(), b"new\n");
    });
    drop(kept);
}

#[test]
fn nothing_in_it_is_executed_and_no_device_made() {
    let (_dir, inside, outside) = two_folders();
    for folder in [&inside, &outside] {
        fs::copy("/bin/true", folder.join("true")).unwrap();
        fs::set_permissions(folder.join("true"), PermissionsExt::from_mode(0o755)).unwrap();
    }
    let start = |program: &Path| Command::new(program).status();
    let without = Sandbox { writable: vec![inside.clone()], ..Sandbox::default() };
    let (in_root, elsewhere) = (inside.join("true"), outside.join("true"));
    let with = Sandbox { programs: Some(vec![outside]), ..without.clone() };
    {
        let (in_root, elsewhere) = (in_root.clone(), elsewhere.clone());
        confined(without, move || {
            for program in [Path::new("/bin/true"), &in_root, &elsewhere] {
                assert!(is_denied(start(program)), "{program:?}");
            }
        });
    }
    confined(with, move || {
        assert!(start(Path::new("/bin/true")).unwrap().success());
        assert!(start(&elsewhere).unwrap().success());
        assert!(is_denied(start(&in_root)));
        let made =
            mknodat(CWD, inside.join("device"), FileType::CharacterDevice, Mode::RUSR, 0x103);
        assert!(made.is_err());
        // A program is as confined as who starts it.
        let cat = |path: &Path| Command::new("cat").arg(path).stdout(Stdio::null()).status();
        assert!(cat(&inside.join("f")).unwrap().success());
        let stderr = Command::new("cat").arg(inside.join("../../x")).output().unwrap().stderr;
        assert!(!stderr.is_empty());
    });
}

#[test]
fn only_its_own_port_is_listened_on_and_nobody_called() {
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let [ours, other] = [(), ()].map(|()| {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    });
    let sandbox = Sandbox { ports: vec![ours.port()], ..Sandbox::default() };
    confined(sandbox.clone(), move || {
        assert!(!is_denied(TcpListener::bind(ours)));
        assert!(is_denied(TcpListener::bind(other)));
        assert!(is_denied(TcpStream::connect(address)));
    });
    // Actions may have somebody to talk to.
    confined(Sandbox { programs: Some(Vec::new()), ..sandbox }, move || {
        TcpStream::connect(address).unwrap();
        assert!(is_denied(TcpListener::bind(other)));
    });
}

#[test]
fn a_path_that_is_not_there_is_told() {
    for (writable, readable) in
        [(vec!["/no/such".into()], vec![]), (vec![], vec!["/no/such".into()])]
    {
        let sandbox = Sandbox { writable, readable, ..Sandbox::default() };
        let entered = thread::spawn(move || sandbox.enter()).join().unwrap();
        match entered {
            Ok(layer) => assert_eq!(layer, Layer::Off),
            Err(error) => assert!(error.to_string().contains("/no/such"), "{error}"),
        }
    }
}

const PASSWORD: &str = "correct horse battery";

/// `tow COMMAND [FILE] tow://USER@ADDR/PATH`.
fn as_user(towd: &Towd, name: &str, args: &[&str], path: &str) -> Ran {
    let mut command = tow(args);
    command.arg(format!("tow://{name}@{}/{path}", towd.addr())).env("TOW_PASSWORD", PASSWORD);
    run(command)
}

/// What `/proc` says of a process.
fn status(towd: &Towd, key: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{}/status", towd.pid())).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(key)).unwrap();
    line.trim_start_matches(':').trim().to_owned()
}

/// A root with the users `anna`, at home in it, and `ben`, at home elsewhere; they stand in a file
/// that lies elsewhere, too.
struct Place {
    dir: TestDir,
    users: String,
}

impl Place {
    fn new() -> Self {
        let dir = TestDir::new();
        for folder in ["root", "people", "other"] {
            fs::create_dir(dir.join(folder)).unwrap();
        }
        fs::write(dir.join("other/secret"), "secret").unwrap();
        let users = format!("--users={}", dir.join("people/users").display());
        let place = Self { dir, users };
        place.user(&["add", "anna"]);
        place.user(&["add", "ben", "--home", place.dir.join("ben").to_str().unwrap()]);
        place
    }

    /// `towd user ...`.
    fn user(&self, args: &[&str]) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_towd"));
        command.args([&self.users, "user"]).args(args);
        command.env("TOW_PASSWORD", PASSWORD).stdin(Stdio::null());
        run(command).exits(0);
    }

    fn start(&self, flags: &[&str]) -> Towd {
        let users = self.users.as_str();
        Towd::start_in(&self.dir.join("root"), std::iter::once(&users).chain(flags))
    }
}

fn kernel_has_landlock(towd: &Towd) -> bool {
    let has = towd.stderr().contains("Landlock: on");
    if !has {
        assert!(towd.stderr().contains("Landlock: off: this kernel"), "{}", towd.stderr());
        eprintln!("skipped: this kernel has no Landlock");
    }
    has
}

#[test]
fn a_server_does_its_work_within_both_layers() {
    let place = Place::new();
    let towd = place.start(&["--registration=open"]);
    let file = place.dir.join("f");
    support::random_file(&file, 9 << 20, 1);
    let file_arg = file.to_str().unwrap();
    for (name, home) in [("anna", "root/anna"), ("ben", "ben")] {
        as_user(&towd, name, &["mkdir"], "d").exits(0);
        as_user(&towd, name, &["put", file_arg], "f").exits(0);
        let to = format!("tow://{name}@{}/d/g", towd.addr());
        let from = format!("tow://{name}@{}/f", towd.addr());
        let mut moved = tow(["mv", &from, &to]);
        moved.env("TOW_PASSWORD", PASSWORD);
        run(moved).exits(0);
        assert!(support::same_bytes(&file, place.dir.join(home).join("d/g")));
        let copy = place.dir.join("copy");
        let mut get = tow(["get", &to, copy.to_str().unwrap()]);
        get.env("TOW_PASSWORD", PASSWORD);
        run(get).exits(0);
        assert!(support::same_bytes(&file, &copy));
        fs::remove_file(copy).unwrap();
        as_user(&towd, name, &["rm"], "d/g").exits(0);
    }
    as_user(&towd, "cara", &["register"], "").exits(0);
    as_user(&towd, "cara", &["put", file_arg], "f").exits(0);
    assert!(support::same_bytes(&file, place.dir.join("root/cara/f")));
    // The user file is replaced, and read again.
    place.user(&["lock", "anna"]);
    as_user(&towd, "anna", &["ls"], "").exits(4);
    assert_eq!(status(&towd, "NoNewPrivs"), "1");
    kernel_has_landlock(&towd);
}

#[test]
fn a_running_server_opens_nothing_that_was_not_there_at_its_start() {
    let place = Place::new();
    let elsewhere = place.dir.join("other");
    for (flags, is_open) in [(&[][..], false), (&["--no-sandbox"], true)] {
        let towd = place.start(flags);
        assert_eq!(status(&towd, "NoNewPrivs"), if is_open { "0" } else { "1" });
        if is_open {
            assert!(towd.stderr().contains("Landlock: off: it was switched off"));
        } else if !kernel_has_landlock(&towd) {
            return;
        }
        // Nothing but Landlock is in the way of a home that an administrator names.
        let added = format!("dora{}", u8::from(is_open));
        place.user(&["add", &added, "--home", elsewhere.to_str().unwrap()]);
        let said = as_user(&towd, &added, &["md5", "--give-up=0"], "secret");
        assert_eq!(said.code == Some(0), is_open, "{said:?}");
        let refused = format!("the home of {added}: ");
        let is_told = || towd.stderr().contains(&refused) != is_open;
        assert!(wait_until(PATIENCE, is_told), "{}", towd.stderr());
        place.user(&["remove", &added]);
    }
}

#[test]
fn openat2_alone_stops_every_way_out() {
    let place = Place::new();
    let towd = place.start(&["--no-sandbox"]);
    let home = place.dir.join("root/anna");
    as_user(&towd, "anna", &["ls"], "").exits(0);
    symlink(place.dir.join("other"), home.join("folder")).unwrap();
    symlink("../../other/secret", home.join("link")).unwrap();
    let file = place.dir.join("f");
    fs::write(&file, "x").unwrap();
    for path in ["folder/secret", "link"] {
        as_user(&towd, "anna", &["md5"], path).exits(5);
        as_user(&towd, "anna", &["rm"], &format!("folder/../{path}")).exits(2);
    }
    as_user(&towd, "anna", &["put", file.to_str().unwrap()], "folder/new").exits(5);
    assert_eq!(fs::read_dir(place.dir.join("other")).unwrap().count(), 1);
}
