//! Calls that fail: each of them once, and each from some time on.

use std::fs;

use rustix::io::Errno;

use super::{
    hook::{Fault, with_fault},
    *,
};

/// A second attempt of an upload over an older file: opens, writes, checkpoints, commits.
fn attempt(store: &Store, upload: &Upload, source: &[u8]) -> Result<(), StoreError> {
    let mut receiver = match store.try_open(upload, false)? {
        Opened::Committed(..) => return Ok(()),
        opened => Receiver::new(opened),
    };
    receiver.receive(source, 2)?;
    receiver.checkpoint()?;
    receiver.receive(source, 1)?;
    receiver.note()?;
    receiver.receive(source, usize::MAX)?;
    receiver.commit(source)
}

/// With an older file to replace, or without.
fn every_call_fails(place: fn() -> Store, fault: fn(u32, Errno) -> Fault, replace: bool) {
    let old = if replace { b"old".to_vec() } else { Vec::new() };
    let source = bytes(20, 6 * LEAF + 1);
    let upload = Upload { replace, ..upload("f", "a", &source) };
    for errno in [Errno::IO, Errno::NOSPC, Errno::DQUOT, Errno::ROFS] {
        for n in 0.. {
            let store = place();
            if replace {
                fs::write(store.at("f"), &old).unwrap();
            }
            let mut receiver = store.open(&upload);
            receiver.receive(&source, 2).unwrap();
            receiver.checkpoint().unwrap();
            drop(receiver);

            let (outcome, hit) = with_fault(fault(n, errno), || attempt(&store, &upload, &source));
            let visible = fs::read(store.at("f")).unwrap_or_default();
            if outcome.is_ok() {
                assert_eq!(visible, source, "call {n}, {errno}");
            } else {
                assert!(visible == old || visible == source, "call {n}, {errno}");
            }
            match outcome {
                Ok(()) | Err(StoreError::Io { .. }) => {}
                Err(StoreError::NoSpace(_)) => assert!(errno != Errno::IO, "call {n}"),
                Err(StoreError::Denied) => assert_eq!(errno, Errno::ROFS, "call {n}"),
                Err(error) => panic!("call {n}, {errno}: {error}"),
            }
            // What was durable before still is, unless the file is there.
            if visible == old {
                let receiver = store.open(&upload);
                let good = receiver.progress.good_bytes();
                assert!(good >= 2 * LEAF_BYTES, "call {n}, {errno}: {good}");
                assert!(claims_hold(&receiver.progress, &read(store.own("f", "data"))));
            }
            store.finish(&upload, &source).unwrap();
            assert_eq!(read(store.at("f")), source, "call {n}, {errno}");
            if !hit {
                assert!(n > 10, "{n} calls");
                break;
            }
        }
    }
}

#[test]
fn any_call_that_fails_once_leaves_old_or_new_and_a_partial_that_goes_on() {
    every_call_fails(Store::new, Fault::Nth, true);
    every_call_fails(Store::new, Fault::Nth, false);
    every_call_fails(Store::beside, Fault::Nth, true);
}

#[test]
fn a_disk_that_fails_for_good_leaves_old_or_new_and_a_partial_that_goes_on() {
    every_call_fails(Store::new, Fault::From, true);
    every_call_fails(Store::new, Fault::From, false);
}

/// The first call that is a sync of the data, in a checkpoint.
const DATA_SYNC: u32 = 0;

#[test]
fn a_failed_sync_is_never_tried_again_and_what_it_was_for_does_not_count() {
    let source = bytes(21, 8 * LEAF);
    let upload = upload("f", "a", &source);
    let store = Store::new();
    let mut receiver = store.open(&upload);
    receiver.receive(&source, 2).unwrap();
    receiver.checkpoint().unwrap();
    receiver.receive(&source, 1).unwrap();
    receiver.note().unwrap();
    receiver.receive(&source, 1).unwrap();
    let (failed, hit) = with_fault(Fault::Nth(DATA_SYNC, Errno::IO), || receiver.checkpoint());
    assert!(hit && matches!(failed, Err(StoreError::Io { .. })), "{failed:?}");

    // The line still brings bytes, and a clone of the handle still asks for checkpoints.
    let late = receiver.partial.write(3 * LEAF_BYTES, b"late");
    assert!(matches!(late, Err(StoreError::SyncFailed)));
    assert!(matches!(receiver.checkpoint(), Err(StoreError::SyncFailed)));
    assert!(matches!(receiver.note(), Err(StoreError::SyncFailed)));
    let mark = receiver.progress.take_mark();
    let commit = receiver.partial.commit(mark, root_of(&source), None);
    assert!(matches!(commit, Err(StoreError::SyncFailed)));
    drop(receiver);

    // The pages whose sync failed are gone from the cache as well.
    let mut data = read(store.own("f", "data"));
    data[2 * LEAF..].fill(0);
    fs::write(store.own("f", "data"), &data).unwrap();
    let receiver = store.open(&upload);
    assert_eq!(receiver.progress.frontier(), 2 * LEAF_BYTES);
    drop(receiver);
    store.finish(&upload, &source).unwrap();
    assert_eq!(read(store.at("f")), source);
}

#[test]
fn falling_back_does_not_bring_back_what_was_overwritten() {
    let (old, mut new) = (bytes(22, SEGMENT + LEAF), bytes(23, SEGMENT));
    new.extend(&old[SEGMENT..]);
    let store = Store::new();
    let mut receiver = store.open(&upload("f", "a", &old));
    receiver.receive(&old, 128).unwrap();
    receiver.checkpoint().unwrap();
    drop(receiver);

    // A writer learns that the segment differs, and its line breaks.
    let upload = upload("f", "b", &new);
    let mut receiver = store.open(&upload);
    receiver.progress.spoil(0);
    receiver.note().unwrap();
    drop(receiver);
    // The next overwrites it, and the sync of that fails.
    let mut receiver = store.open(&upload);
    assert!(receiver.progress.bad().contains(&0));
    receiver.partial.write(0, &new[..10 * LEAF]).unwrap();
    let failed = with_fault(Fault::Nth(DATA_SYNC, Errno::IO), || receiver.checkpoint());
    failed.0.unwrap_err();
    drop(receiver);
    let receiver = store.open(&upload);
    assert!(claims_hold(&receiver.progress, &read(store.own("f", "data"))));
}

#[test]
fn falling_back_does_not_bring_back_another_size() {
    let (old, new) = (bytes(24, 10 * LEAF), bytes(25, 4 * LEAF + 3));
    let store = Store::new();
    let mut receiver = store.open(&upload("f", "a", &old));
    receiver.receive(&old, 8).unwrap();
    receiver.checkpoint().unwrap();
    drop(receiver);
    let mut receiver = store.open(&upload("f", "b", &new));
    assert_eq!(receiver.progress.frontier(), 4 * LEAF_BYTES);
    receiver.receive(&new, 1).unwrap();
    let failed = with_fault(Fault::Nth(DATA_SYNC, Errno::IO), || receiver.checkpoint());
    failed.0.unwrap_err();
    drop(receiver);
    let receiver = store.open(&upload("f", "a", &old));
    assert!(claims_hold(&receiver.progress, &read(store.own("f", "data"))));
}
