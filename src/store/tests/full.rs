//! A disk that is full.

use std::{path::Path, process::Command};

use super::*;

/// A file system of 1 MiB, as long as it lives.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(dir.path())
            .output();
        match mount {
            Ok(output) if output.status.success() => Some(Self(dir)),
            Ok(output) => {
                println!("skipped: {}", String::from_utf8_lossy(&output.stderr));
                None
            }
            Err(error) => {
                println!("skipped: mount: {error}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

#[test]
fn a_full_disk_is_a_clear_error_and_the_upload_goes_on_when_there_is_room() {
    let Some(disk) = Small::mount() else { return };
    let root = Arc::new(Root::serve(disk.path()).unwrap());
    let place = Place::Internal;
    let source = bytes(30, 12 * LEAF);
    let upload = upload("f", "a", &source);
    fs::write(disk.path().join("f"), b"old").unwrap();
    let open = || Partial::open(&root, place, upload.clone(), false);

    let mut receiver = Receiver::new(open().unwrap());
    receiver.receive(&source, 4).unwrap();
    receiver.checkpoint().unwrap();
    // Somebody else fills the disk.
    let hog = disk.path().join("hog");
    let _ = fs::write(&hog, vec![1; 1 << 20]);
    let error = receiver.receive(&source, usize::MAX).unwrap_err();
    assert!(matches!(error, StoreError::NoSpace(_)), "{error}");
    let _ = receiver.note();
    drop(receiver);
    assert_eq!(read(disk.path().join("f")), b"old");
    let error = open().unwrap_err();
    assert!(matches!(error, StoreError::NoSpace(_)), "{error}");

    // Emptied, not removed: a process that is just being started elsewhere may have it open still.
    fs::write(hog, b"").unwrap();
    let mut receiver = Receiver::new(open().unwrap());
    assert!(receiver.progress.frontier() >= 4 * LEAF_BYTES);
    receiver.receive(&source, usize::MAX).unwrap();
    receiver.commit(&source).unwrap();
    assert_eq!(read(disk.path().join("f")), source);
}

#[test]
fn what_can_not_fit_is_refused_before_it_comes() {
    let Some(disk) = Small::mount() else { return };
    let root = Arc::new(Root::serve(disk.path()).unwrap());
    for size in [2 << 20, 1 << 62] {
        let upload = Upload { size, ..upload("f", "a", b"") };
        let error = Partial::open(&root, Place::Internal, upload, false).unwrap_err();
        assert!(matches!(error, StoreError::NoSpace(_)), "{error}");
    }
}

#[test]
fn what_is_refused_before_anything_came_leaves_nothing_behind() {
    let store = Store::new();
    let open = |place| {
        store.root.set_reserve_bytes(u64::MAX);
        let refused = Partial::open(&store.root, place, upload("f", "a", b"some bytes"), false);
        store.root.set_reserve_bytes(0);
        assert!(matches!(refused, Err(StoreError::NoSpace(_))), "{refused:?}");
    };
    let names = |folder: &str| {
        let found = fs::read_dir(store.at(folder)).unwrap();
        found.map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>()
    };
    let before = [names("."), names(".tow/partials")];
    open(Place::Beside);
    open(Place::Internal);
    assert_eq!([names("."), names(".tow/partials")], before);

    // What was there before stays, with all that came.
    let source = bytes(33, 3 * LEAF);
    let again = || store.try_open(&upload("g", "a", &source), false);
    let mut receiver = Receiver::new(again().unwrap());
    receiver.receive(&source, 2).unwrap();
    receiver.checkpoint().unwrap();
    drop(receiver);
    store.root.set_reserve_bytes(u64::MAX);
    assert!(matches!(again(), Err(StoreError::NoSpace(_))));
    store.root.set_reserve_bytes(0);
    assert!(Receiver::new(again().unwrap()).progress.frontier() >= 2 * LEAF_BYTES);
}

#[test]
fn a_name_on_another_file_system_is_refused_before_the_bytes_come() {
    let Some(disk) = Small::mount() else { return };
    let store = Store::new();
    fs::create_dir(store.at("d")).unwrap();
    let mut bind = Command::new("mount");
    let bind = bind.arg("--bind").arg(disk.path()).arg(store.at("d"));
    if !bind.status().unwrap().success() {
        println!("skipped: no bind mount");
        return;
    }
    let refused = store.try_open(&upload("d/f", "a", b"x"), false);
    let _ = Command::new("umount").arg(store.at("d")).status();
    assert!(matches!(refused, Err(StoreError::WrongKind(_))), "{refused:?}");
}

#[test]
fn what_is_kept_back_and_what_others_await_is_not_free() {
    let Some(disk) = Small::mount() else { return };
    let served = Root::serve(disk.path()).unwrap();
    let home = |name: &str| Arc::new(served.home(Path::new(name)).unwrap());
    let (ann, bob) = (home("ann"), home("bob"));
    let source = bytes(31, 12 * LEAF);
    let open = |root: &Arc<Root>, name: &str| {
        Partial::open(root, Place::Internal, upload(name, "a", &source), false)
    };
    let refused = |opened: Result<Opened, StoreError>, words: [&str; 2]| match opened {
        Err(StoreError::NoSpace(text)) => {
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
        opened => panic!("{opened:?}"),
    };
    // A MiB has room for two of 384 KiB, not for three.
    let mut first = Receiver::new(open(&ann, "1").unwrap());
    let second = open(&bob, "2").unwrap();
    refused(open(&ann, "3"), ["393216 bytes are needed", "await 786432"]);
    // What came is not counted twice.
    first.receive(&source, usize::MAX).unwrap();
    refused(open(&ann, "3"), ["393216 bytes are needed", "await 393216"]);
    first.commit(&source).unwrap();
    drop(first);
    drop(second);
    let third = open(&bob, "3").unwrap();
    drop(third);

    served.set_reserve_bytes(512 << 10);
    refused(open(&ann, "4"), ["are free", "524288 are kept back"]);
    served.set_reserve_bytes(0);
    open(&ann, "4").unwrap();
}
