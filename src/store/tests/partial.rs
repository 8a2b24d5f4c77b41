//! The life of a partial.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, os::unix::fs::MetadataExt};

use super::{hook::Call, *};

const SIZE: usize = 5 * LEAF + 3;

fn started(store: &Store, upload: &Upload, source: &[u8], leaves: usize) {
    let mut receiver = store.open(upload);
    receiver.receive(source, leaves).unwrap();
    receiver.note().unwrap();
}

#[test]
fn a_partial_goes_on_where_it_was_and_keeps_its_version() {
    for store in [Store::new(), Store::beside()] {
        let source = bytes(1, SIZE);
        let first = upload("f", "a", &source);
        started(&store, &first, &source, 3);
        let receiver = store.open(&upload("f", "b", &source));
        assert_eq!(receiver.progress.frontier(), 3 * LEAF_BYTES);
        assert_eq!(receiver.tag, "a");
        drop(receiver);
        store.finish(&first, &source).unwrap();
        assert_eq!(read(store.at("f")), source);
        let meta = fs::metadata(store.at("f")).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_700_000_000, 123_456_789));
        assert_eq!(meta.mode() & 0o7133, 0);
    }
}

#[test]
fn any_name_that_a_file_may_have_can_be_uploaded() {
    let names: [&[u8]; 5] = [&[b'n'; 255], &[0xff; 255], b"new\nline", b" -rf ", b"\x1b]0;x"];
    for store in [Store::new(), Store::beside()] {
        for name in names {
            let upload = Upload { path: path(name), ..upload("f", "a", b"bytes") };
            store.finish(&upload, b"bytes").unwrap();
            assert_eq!(read(store.dir.path().join(OsStr::from_bytes(name))), b"bytes");
        }
    }
}

#[test]
fn sizes_around_leaves_and_segments_come_out_exact() {
    let store = Store::new();
    for size in [0, 1, LEAF - 1, LEAF, LEAF + 1, SEGMENT - 1, SEGMENT, SEGMENT + 1] {
        let source = bytes(size as u64, size);
        let upload = upload("f", &format!("v{size}"), &source);
        store.finish(&upload, &source).unwrap();
        assert_eq!(read(store.at("f")), source, "{size}");
    }
}

#[test]
fn the_old_version_is_there_until_the_commit_and_then_the_whole_new_one() {
    for store in [Store::new(), Store::beside()] {
        let source = bytes(2, SIZE);
        fs::write(store.at("f"), b"old").unwrap();
        let mut receiver = store.open(&upload("f", "a", &source));
        for _ in 0..6 {
            receiver.receive(&source, 1).unwrap();
            receiver.checkpoint().unwrap();
            assert_eq!(read(store.at("f")), b"old");
        }
        receiver.commit(&source).unwrap();
        assert_eq!(read(store.at("f")), source);
        // Late bytes of this writer touch nothing.
        receiver.partial.write(0, b"late").unwrap_err();
        assert_eq!(read(store.at("f")), source);
        assert!(!store.own("f", "data").exists());
    }
    let store = Store::beside();
    store.finish(&upload("f", "a", b"x"), b"x").unwrap();
    assert_eq!(fs::read_dir(store.dir.path()).unwrap().count(), 1);
}

#[test]
fn one_writer_at_a_time_and_the_next_when_it_lets_go() {
    let store = Store::new();
    let source = bytes(3, SIZE);
    let upload = upload("f", "a", &source);
    let receiver = store.open(&upload);
    let clone = receiver.partial.clone();
    for fresh in [false, true] {
        let second = Partial::open(
            &Arc::new(Root::serve(store.dir.path()).unwrap()),
            Place::Internal,
            upload.clone(),
            fresh,
        );
        assert!(matches!(second, Err(StoreError::Busy)));
    }
    drop(receiver);
    assert!(matches!(store.try_open(&upload, false), Err(StoreError::Busy)));
    drop(clone);
    store.open(&upload);
}

#[test]
fn every_writer_has_a_later_epoch() {
    let store = Store::new();
    let source = bytes(4, SIZE);
    let upload = upload("f", "a", &source);
    let epoch = || {
        let journal = read(store.own("f", "journal"));
        crate::store::journal::replay(&journal).unwrap().epoch
    };
    let mut last = 0;
    for fresh in [false, false, true, false, true] {
        drop(store.try_open(&upload, fresh).unwrap());
        assert!(epoch() > last);
        last = epoch();
    }
}

#[test]
fn starting_over_forgets_everything() {
    let store = Store::new();
    let source = bytes(5, SIZE);
    let upload = upload("f", "a", &source);
    started(&store, &upload, &source, 3);
    let receiver = store.open_fresh(&upload);
    assert_eq!(receiver.progress.frontier(), 0);
    assert_eq!(read(store.own("f", "data")), b"");
}

#[test]
fn a_verdict_that_was_lost_is_given_again_until_the_file_is_touched() {
    let store = Store::new();
    let source = bytes(6, SIZE);
    let upload = upload("f", "a", &source);
    store.finish(&upload, &source).unwrap();
    let is_committed = || matches!(store.try_open(&upload, false).unwrap(), Opened::Committed(..));
    assert!(is_committed() && is_committed());
    // Without the last record, as after a kill between the rename and that, the bytes tell.
    let journal = read(store.own("f", "journal"));
    fs::write(store.own("f", "journal"), &journal[..journal.len() - 25]).unwrap();
    assert!(is_committed());
    // Whoever touches it, be it to set another mode, makes it another: reading it for each offer
    // would cost more than it saves.
    fs::write(store.own("f", "journal"), &journal).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    fs::set_permissions(store.at("f"), mode).unwrap();
    assert!(!is_committed());
    // Another byte, at the same size and time, after a kill.
    fs::write(store.own("f", "journal"), &journal[..journal.len() - 25]).unwrap();
    let mtime = fs::metadata(store.at("f")).unwrap().modified().unwrap();
    let mut other = source.clone();
    other[LEAF] ^= 1;
    fs::write(store.at("f"), &other).unwrap();
    let file = fs::File::options().write(true).open(store.at("f")).unwrap();
    file.set_modified(mtime).unwrap();
    assert!(!is_committed());
    store.finish(&upload, &source).unwrap();
    assert_eq!(read(store.at("f")), source);
    // Another version is none that was committed.
    let mtime = Mtime { nanos: upload.mtime.nanos + 1, ..upload.mtime };
    let next = Upload { mtime, ..upload.clone() };
    assert!(matches!(store.try_open(&next, false).unwrap(), Opened::Partial(_, progress, _)
        if progress.frontier() == 0));
}

#[test]
fn a_source_that_was_only_touched_is_compared_by_whoever_has_it() {
    let source = bytes(19, SIZE);
    let first = upload("f", "a", &source);
    let touched = Upload { tag: "b".parse().unwrap(), ..first.clone() };
    let store = Store::new();
    store.finish(&first, &source).unwrap();
    assert!(matches!(
        store.try_open(&touched, false).unwrap(),
        Opened::Committed(root, _) if root == root_of(&source)
    ));
    // A receiver that was killed before it removed the journal has nothing to compare it with.
    let store = Store::beside();
    let (journal, kept) = (store.own("f", "journal"), store.at("kept"));
    let (from, to) = (journal.clone(), kept.clone());
    hook::before_rename(move || assert!(fs::copy(from, to).unwrap() > 0));
    store.finish(&first, &source).unwrap();
    for (upload, is_same) in [(&touched, false), (&first, true)] {
        fs::copy(&kept, &journal).unwrap();
        let opened = store.try_open(upload, false).unwrap();
        assert_eq!(matches!(opened, Opened::Committed(..)), is_same);
    }
}

#[test]
fn a_verdict_that_is_told_again_costs_a_sync_only_if_it_was_not_told_before() {
    let store = Store::new();
    let source = bytes(20, SIZE);
    let upload = upload("f", "a", &source);
    store.finish(&upload, &source).unwrap();
    let syncs = || {
        hook::start_trace();
        assert!(matches!(store.try_open(&upload, false).unwrap(), Opened::Committed(..)));
        hook::take_trace().iter().filter(|call| matches!(call, Call::Sync(_))).count()
    };
    assert_eq!(syncs(), 0);
    // Without the last record, as after a kill before that.
    let journal = read(store.own("f", "journal"));
    fs::write(store.own("f", "journal"), &journal[..journal.len() - 25]).unwrap();
    assert_eq!(syncs(), 1);
}

#[test]
fn a_kill_after_any_call_of_a_commit_is_found_out_by_the_next_attempt() {
    let source = bytes(7, SIZE);
    let upload = upload("f", "a", &source);
    for place in [Store::new, Store::beside] {
        for n in 0.. {
            let store = place();
            let mut receiver = store.open(&upload);
            receiver.receive(&source, usize::MAX).unwrap();
            receiver.checkpoint().unwrap();
            let fault = hook::Fault::From(n, rustix::io::Errno::IO);
            let (_, hit) = hook::with_fault(fault, || receiver.commit(&source));
            drop(receiver);
            if !hit {
                break;
            }
            let there = store.at("f").exists();
            match store.try_open(&upload, false).unwrap() {
                Opened::Committed(root, _) => assert!(there && root == root_of(&source)),
                opened => {
                    assert!(!there, "call {n}");
                    assert!(Receiver::new(opened).progress.is_complete(), "call {n}");
                }
            }
            store.finish(&upload, &source).unwrap();
            assert_eq!(read(store.at("f")), source);
        }
    }
}

#[test]
fn a_source_of_another_size_keeps_what_it_can_share() {
    let long = bytes(8, SIZE);
    for (size, frontier) in [(SIZE + LEAF, 4), (4 * LEAF + 1, 4), (4 * LEAF, 4), (2 * LEAF + 9, 2)]
    {
        let store = Store::new();
        started(&store, &upload("f", "a", &long), &long, 4);
        let mut other = bytes(8, SIZE + LEAF);
        other.truncate(size);
        let upload = upload("f", "b", &other);
        let receiver = store.open(&upload);
        assert_eq!(receiver.progress.frontier(), frontier * LEAF_BYTES, "{size}");
        drop(receiver);
        store.finish(&upload, &other).unwrap();
        assert_eq!(read(store.at("f")), other, "{size}");
    }
}

#[test]
fn a_data_file_that_is_longer_than_the_source_takes_nothing_away() {
    let store = Store::new();
    let (long, short) = (bytes(9, SIZE), bytes(10, 100));
    started(&store, &upload("f", "a", &long), &long, 5);
    let upload = upload("f", "b", &short);
    started(&store, &upload, &short, 1);
    assert!(store.open(&upload).progress.is_complete());
}

#[test]
fn journals_that_are_empty_foreign_or_huge_begin_anew() {
    let source = bytes(11, SIZE);
    let upload = upload("f", "a", &source);
    for journal in [Vec::new(), b"garbage".to_vec(), vec![0; 10_000], vec![0xff; 100]] {
        let store = Store::new();
        started(&store, &upload, &source, 3);
        fs::write(store.own("f", "journal"), journal).unwrap();
        assert_eq!(store.open(&upload).progress.frontier(), 0);
        store.finish(&upload, &source).unwrap();
    }
    let store = Store::new();
    started(&store, &upload, &source, 3);
    let journal = fs::File::options().write(true).open(store.own("f", "journal")).unwrap();
    journal.set_len(1 << 40).unwrap();
    assert_eq!(store.open(&upload).progress.frontier(), 0);
}

#[test]
fn a_data_file_that_is_gone_or_cut_is_found_out() {
    let source = bytes(12, SIZE);
    let upload = upload("f", "a", &source);
    for (length, frontier) in [(0, 0), (LEAF + 1, 1), (3 * LEAF, 3)] {
        let store = Store::new();
        started(&store, &upload, &source, 3);
        let data = fs::File::options().write(true).open(store.own("f", "data")).unwrap();
        data.set_len(length as u64).unwrap();
        assert_eq!(store.open(&upload).progress.frontier(), frontier * LEAF_BYTES);
        fs::remove_file(store.own("f", "data")).unwrap();
        assert_eq!(store.open(&upload).progress.frontier(), 0);
    }
}

#[test]
fn planted_files_are_refused() {
    let source = bytes(13, SIZE);
    let upload = upload("f", "a", &source);
    for ending in ["data", "journal"] {
        let store = Store::beside();
        fs::write(store.at("victim"), b"victim").unwrap();
        let own = store.own("f", ending);
        std::os::unix::fs::symlink("victim", &own).unwrap();
        assert!(matches!(store.try_open(&upload, false), Err(StoreError::Denied)));
        fs::remove_file(&own).unwrap();
        fs::hard_link(store.at("victim"), &own).unwrap();
        assert!(matches!(store.try_open(&upload, false), Err(StoreError::Denied)));
        fs::remove_file(&own).unwrap();
        let mode = rustix::fs::Mode::RWXU;
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &own, kind, mode, 0).unwrap();
        assert!(matches!(store.try_open(&upload, false), Err(StoreError::WrongKind(_))));
        assert_eq!(read(store.at("victim")), b"victim");
    }
}

#[test]
fn bytes_beyond_the_end_are_refused() {
    let store = Store::new();
    let receiver = store.open(&upload("f", "a", b"12345"));
    receiver.partial.write(0, b"12345").unwrap();
    receiver.partial.write(1, b"23456").unwrap_err();
    receiver.partial.write(u64::MAX, b"1").unwrap_err();
    assert_eq!(read(store.own("f", "data")), b"12345");
}

#[test]
fn going_on_again_and_again_does_not_make_the_journal_longer_than_the_news() {
    let store = Store::new();
    let source = bytes(14, SEGMENT + 9 * LEAF);
    let upload = upload("f", "a", &source);
    started(&store, &upload, &source, 72);
    let before = read(store.own("f", "journal")).len();
    for _ in 0..100 {
        store.open(&upload);
    }
    let after = read(store.own("f", "journal")).len();
    assert!(after - before < 100 * 80, "{} bytes", after - before);
}

#[test]
fn a_journal_of_a_terabyte_is_replayed_in_a_moment() {
    use crate::store::journal::{Position, Record, encode, replay};
    let size = 1 << 40;
    let mut progress = Progress::new(size);
    let (mut bytes, mut at) = (Vec::new(), Position::default());
    let open = Record::Open {
        epoch: 1,
        boot: 1,
        size,
        mtime: Mtime::default(),
        tag: "a".parse().unwrap(),
    };
    encode(&open, &mut at, &mut bytes);
    let leaf = Md5Digest::of(b"leaf");
    for _ in 0..50_000 {
        for _ in 0..2 * 128 {
            progress.push_leaf(leaf);
        }
        let (durable, mark) = (true, progress.take_mark());
        encode(&Record::Mark { durable, mark }, &mut at, &mut bytes);
    }
    let began = std::time::Instant::now();
    let replayed = replay(&bytes).unwrap();
    assert_eq!(replayed.durable.segments().len(), 100_000);
    assert!(began.elapsed() < std::time::Duration::from_secs(5));
    // A single record may be as long as the file makes it.
    let (mut bytes, mut at) = (Vec::new(), Position::default());
    encode(&open, &mut at, &mut bytes);
    let (durable, mark) = (true, progress.whole_mark());
    encode(&Record::Mark { durable, mark }, &mut at, &mut bytes);
    assert_eq!(replay(&bytes).unwrap().progress.segments().len(), 100_000);
}

#[test]
fn a_long_journal_is_written_anew_and_says_the_same() {
    let source = bytes(15, 220 * LEAF);
    let upload = upload("f", "a", &source);
    let store = Store::new();
    let mut receiver = store.open(&upload);
    let mut longest = 0;
    for _ in 0..210 {
        receiver.receive(&source, 1).unwrap();
        receiver.checkpoint().unwrap();
        longest = longest.max(fs::metadata(store.own("f", "journal")).unwrap().len());
    }
    assert!(((8 << 10) - 100..8 << 10).contains(&longest), "{longest}");
    assert!(fs::metadata(store.own("f", "journal")).unwrap().len() < longest);
    assert!(!store.own("f", "new").exists());
    assert!(matches!(store.try_open(&upload, false), Err(StoreError::Busy)));
    drop(receiver);
    hook::set_boot(77);
    let receiver = store.open(&upload);
    assert_eq!(receiver.progress.frontier(), 210 * LEAF_BYTES);
    assert!(claims_hold(&receiver.progress, &read(store.own("f", "data"))));
    drop(receiver);
    store.finish(&upload, &source).unwrap();
    assert_eq!(read(store.at("f")), source);
}

#[test]
fn a_fault_while_the_journal_is_written_anew_loses_no_checkpoint() {
    let source = bytes(16, 220 * LEAF);
    let upload = upload("f", "a", &source);
    for n in 0.. {
        let store = Store::new();
        let mut receiver = store.open(&upload);
        let mut length = 0;
        let journal = || fs::metadata(store.own("f", "journal")).unwrap().len();
        while journal() < (8 << 10) - 100 && length < 210 {
            receiver.receive(&source, 1).unwrap();
            receiver.checkpoint().unwrap();
            length += 1;
        }
        let before = receiver.progress.frontier();
        let fault = hook::Fault::Nth(n, rustix::io::Errno::IO);
        let (_, hit) = hook::with_fault(fault, || {
            for _ in 0..4 {
                receiver.receive(&source, 1)?;
                receiver.checkpoint()?;
            }
            Ok::<_, StoreError>(())
        });
        drop(receiver);
        for boot in [None, Some(78)] {
            if let Some(boot) = boot {
                hook::set_boot(boot);
            }
            let receiver = store.open(&upload);
            assert!(receiver.progress.frontier() >= before, "call {n}");
            assert!(claims_hold(&receiver.progress, &read(store.own("f", "data"))));
        }
        if !hit {
            assert!(n > 20, "{n} {length} {}", journal());
            break;
        }
    }
}

#[test]
fn a_commit_that_finds_no_directory_keeps_what_was_received() {
    let store = Store::new();
    let source = bytes(1, 3 * LEAF);
    fs::create_dir(store.at("d")).unwrap();
    let upload = upload("d/name", "a", &source);
    let mut receiver = store.open(&upload);
    receiver.receive(&source, 3).unwrap();
    fs::rename(store.at("d"), store.at("e")).unwrap();
    assert!(matches!(receiver.commit(&source), Err(StoreError::NotFound)));
    drop(receiver);
    fs::rename(store.at("e"), store.at("d")).unwrap();
    assert_eq!(store.open(&upload).progress.frontier(), source.len() as u64);
}

#[test]
fn a_file_that_may_not_be_replaced_is_refused_at_once_and_kept() {
    let store = Store::new();
    let source = bytes(17, SIZE);
    let upload = Upload { replace: false, ..upload("f", "a", &source) };
    fs::write(store.at("f"), b"old").unwrap();
    for fresh in [false, true] {
        let refused = store.try_open(&upload, fresh);
        assert!(matches!(refused, Err(StoreError::Exists)), "{refused:?}");
    }
    assert_eq!(read(store.at("f")), b"old");
    assert_eq!(fs::read_dir(store.at(".tow/partials")).unwrap().count(), 0);
    // Its own earlier version is no obstacle to the verdict.
    fs::remove_file(store.at("f")).unwrap();
    store.finish(&upload, &source).unwrap();
    assert!(matches!(store.try_open(&upload, false).unwrap(), Opened::Committed(..)));
    let next = Upload { size: upload.size - 1, ..upload };
    assert!(matches!(store.try_open(&next, false), Err(StoreError::Exists)));
}

#[test]
fn a_file_that_appears_before_the_commit_is_kept_and_so_is_what_was_received() {
    let source = bytes(18, SIZE);
    let upload = Upload { replace: false, ..upload("f", "a", &source) };
    for is_late in [false, true] {
        let store = Store::new();
        let mut receiver = store.open(&upload);
        receiver.receive(&source, usize::MAX).unwrap();
        let at = store.at("f");
        // At the latest, after the last look at the name.
        let appears = move || fs::write(&at, b"theirs").unwrap();
        if is_late {
            hook::before_rename(appears);
        } else {
            appears();
        }
        let refused = receiver.commit(&source);
        assert!(matches!(refused, Err(StoreError::Exists)), "{refused:?}");
        drop(receiver);
        assert_eq!(read(store.at("f")), b"theirs");
        assert!(matches!(store.try_open(&upload, false), Err(StoreError::Exists)));
        fs::remove_file(store.at("f")).unwrap();
        assert!(store.open(&upload).progress.is_complete());
        store.finish(&upload, &source).unwrap();
        assert_eq!(read(store.at("f")), source);
    }
}
