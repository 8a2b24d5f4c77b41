//! Room that is made on the disk ahead of an upload.

use std::os::unix::fs::MetadataExt;

use rustix::fs::{FallocateFlags, fallocate, statfs};

use super::{super::sys, *};
const MIB: usize = 1 << 20;
/// The same, of files.
const FILE_MIB: u64 = MIB as u64;

/// A root on ext4, which takes up what it is asked to and no more.
fn on_disk() -> Option<Store> {
    let dir = tempfile::tempdir().unwrap();
    if statfs(dir.path()).unwrap().f_type != sys::EXT4 {
        println!("skipped: {} is not on ext4", dir.path().display());
        return None;
    }
    let root = Arc::new(Root::serve(dir.path()).unwrap());
    Some(Store { dir, root, place: Place::Internal })
}

/// An upload of so many bytes, none of which is there.
fn of_size(mib: usize) -> Upload {
    Upload { size: (mib * MIB) as u64, ..upload("f", "a", b"") }
}

/// What the partial takes up on the disk, and its size, both in MiB.
fn takes_up(store: &Store) -> (u64, u64) {
    let data = fs::metadata(store.own("f", "data")).unwrap();
    (data.blocks() * 512 / FILE_MIB, data.size() / FILE_MIB)
}

#[test]
fn room_is_made_as_an_upload_goes_on_and_given_back_when_it_is_let_go_of() {
    let Some(store) = on_disk() else { return };
    let awaited = || store.root.space().awaited() / FILE_MIB;
    let mut receiver = store.open(&of_size(200));
    let mut write = |from: u64, to: u64| {
        for at in from..to {
            receiver.partial.write(at * FILE_MIB, &[7; MIB]).unwrap();
        }
        receiver.checkpoint().unwrap();
    };
    // Nothing for a promise.
    write(0, 0);
    assert_eq!((takes_up(&store), awaited()), ((0, 0), 200));
    // Eight times what came.
    write(0, 1);
    assert_eq!((takes_up(&store), awaited()), ((1 + 8, 1), 200 - 1 - 8));
    // At most 64 MiB, and nothing while there is half of it.
    write(1, 10);
    assert_eq!((takes_up(&store), awaited()), ((10 + 64, 10), 200 - 10 - 64));
    write(10, 42);
    assert_eq!((takes_up(&store), awaited()), ((10 + 64, 42), 200 - 10 - 64));
    // What overtakes it takes up space by itself, and what is to come no more than there is.
    write(42, 150);
    assert_eq!((takes_up(&store), awaited()), ((200, 150), 0));
    drop(receiver);
    assert_eq!((takes_up(&store), awaited()), ((150, 150), 0));
    // Nothing that is there is lost.
    assert!(fs::read(store.own("f", "data")).unwrap().iter().all(|&byte| byte == 7));
}

#[test]
fn who_is_slow_gets_no_room_and_what_is_committed_has_none_left() {
    let Some(store) = on_disk() else { return };
    let mut receiver = store.open(&of_size(200));
    for at in 0..20 {
        receiver.partial.write(at * FILE_MIB / 4, &[7; MIB / 4]).unwrap();
        receiver.checkpoint().unwrap();
    }
    assert_eq!(takes_up(&store), (5, 5));
    drop(receiver);
    let source = bytes(1, 20 * MIB + 1);
    let mut receiver = store.open(&upload("g", "a", &source));
    receiver.receive(&source, 10 * MIB / LEAF).unwrap();
    receiver.checkpoint().unwrap();
    let room = fs::metadata(store.own("g", "data")).unwrap().blocks() * 512;
    assert_eq!(room / FILE_MIB, 20);
    receiver.receive(&source, usize::MAX).unwrap();
    receiver.commit(&source).unwrap();
    let done = fs::metadata(store.at("g")).unwrap();
    assert_eq!((done.size(), done.blocks() * 512 / FILE_MIB), (20 * FILE_MIB + 1, 20));
    // It is others' as well now: nothing is given back of it.
    let shared = fs::File::options().write(true).open(store.at("g")).unwrap();
    shared.set_len(5).unwrap();
    let then = std::time::SystemTime::UNIX_EPOCH;
    shared.set_modified(then).unwrap();
    drop(receiver);
    assert_eq!(shared.metadata().unwrap().modified().unwrap(), then);
}

#[test]
fn what_a_kill_has_left_is_given_back_when_the_partial_is_opened_again() {
    let Some(store) = on_disk() else { return };
    let mut receiver = store.open(&of_size(200));
    receiver.partial.write(0, &[7; MIB]).unwrap();
    receiver.note().unwrap();
    drop(receiver);
    let data = fs::File::options().write(true).open(store.own("f", "data")).unwrap();
    fallocate(&data, FallocateFlags::KEEP_SIZE, FILE_MIB, 64 * FILE_MIB).unwrap();
    assert_eq!(takes_up(&store), (65, 1));
    let _receiver = store.open(&of_size(200));
    assert_eq!(takes_up(&store), (1, 1));
}
