//! Small files that are stored together: each old or new and whole, and none harms another.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    time::Duration,
};

use rustix::io::Errno;

use super::{
    super::{Became, Ledger, Quota, Usage, Whole},
    expire::expire_after,
    hook::{Call, Fault, before_rename, start_trace, take_trace, with_fault},
    measure::measure,
    *,
};
use crate::digest::FileDigests;

const MTIME: Mtime = Mtime { seconds: 1_700_000_000, nanos: 123_456_789 };

/// Stores files, each of a name, its bytes, and whether it may replace another.
fn store_all(store: &Store, files: &[(&str, &[u8], bool)]) -> Vec<Result<Became, StoreError>> {
    let paths: Vec<RemotePath> = files.iter().map(|(name, ..)| path(name)).collect();
    let digests = FileDigests::default();
    let whole = paths.iter().zip(files).map(|(path, &(_, content, replace))| Whole {
        path,
        mtime: MTIME,
        replace,
        content,
        digests: &digests,
    });
    store.root.store_together(&whole.collect::<Vec<_>>())
}

fn left_over(store: &Store) -> usize {
    fs::read_dir(store.at(".tow/partials")).unwrap().count()
}

#[test]
fn files_get_their_bytes_their_time_and_the_mode_of_any_file() {
    let store = Store::new();
    store.root.make_dir(&path("d")).unwrap();
    fs::write(store.at("old"), b"old").unwrap();
    let large = bytes(1, LEAF);
    let became =
        store_all(&store, &[("a", b"", true), ("d/b", &large, true), ("old", b"new", true)]);
    assert!(became.iter().all(|it| matches!(it, Ok(Became::Visible))), "{became:?}");
    for (name, content) in [("a", b"".as_slice()), ("d/b", &large), ("old", b"new")] {
        assert_eq!(read(store.at(name)), content);
        let metadata = fs::metadata(store.at(name)).unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (MTIME.seconds, 123_456_789));
        assert_eq!(metadata.permissions().mode() & 0o777 & !0o666, 0);
    }
    assert_eq!(left_over(&store), 0);
}

#[test]
fn one_that_fails_does_not_harm_the_others() {
    let store = Store::new();
    store.root.make_dir(&path("dir")).unwrap();
    fs::write(store.at("there"), b"old").unwrap();
    symlink("there", store.at("link")).unwrap();
    symlink("/", store.at("out")).unwrap();
    let _busy = store.open(&upload("busy", "a", b"xyz"));
    let became = store_all(
        &store,
        &[
            ("first", b"1", false),
            ("dir", b"x", true),
            ("link", b"x", true),
            ("there", b"x", false),
            ("absent/f", b"x", true),
            ("out/tmp/f", b"x", true),
            ("busy", b"x", true),
            ("/", b"x", true),
            ("last", b"2", false),
        ],
    );
    use StoreError as E;
    assert!(
        matches!(
            &became[..],
            [
                Ok(Became::Visible),
                Err(E::WrongKind(_)),
                Err(E::WrongKind(_)),
                Err(E::Exists),
                Err(E::NotFound),
                Err(E::Denied),
                Err(E::Busy),
                Err(E::WrongKind(_)),
                Ok(Became::Visible),
            ]
        ),
        "{became:?}"
    );
    assert_eq!((read(store.at("first")), read(store.at("last"))), (b"1".to_vec(), b"2".to_vec()));
    assert_eq!(read(store.at("there")), b"old");
    assert!(fs::symlink_metadata(store.at("link")).unwrap().is_symlink());
}

#[test]
fn of_two_for_one_name_the_second_replaces_the_first_or_is_refused() {
    let store = Store::new();
    let became = store_all(&store, &[("f", b"one", true), ("f", b"two", true)]);
    assert!(became.iter().all(Result::is_ok), "{became:?}");
    assert_eq!(read(store.at("f")), b"two");
    let became = store_all(&store, &[("g", b"one", false), ("g", b"two", false)]);
    assert!(matches!(became[..], [Ok(_), Err(StoreError::Exists)]), "{became:?}");
    assert_eq!(read(store.at("g")), b"one");
    // Also if the second is what was there before the first.
    let became = store_all(&store, &[("f", b"one", true), ("f", b"two", true)]);
    assert!(matches!(became[..], [Ok(Became::Visible), Ok(Became::Visible)]), "{became:?}");
    assert_eq!(read(store.at("f")), b"two");
    // Unless the first was there as well.
    let became = store_all(&store, &[("f", b"two", false), ("f", b"two", false)]);
    assert!(matches!(became[..], [Ok(Became::Before), Ok(Became::Before)]), "{became:?}");
    assert_eq!(left_over(&store), 0);
}

#[test]
fn what_appears_meanwhile_is_not_replaced_without_the_right_to() {
    let store = Store::new();
    let target = store.at("f");
    before_rename(move || fs::write(target, b"theirs").unwrap());
    let became = store_all(&store, &[("f", b"ours", false)]);
    assert!(matches!(became[..], [Err(StoreError::Exists)]), "{became:?}");
    assert_eq!(read(store.at("f")), b"theirs");
}

#[test]
fn the_same_bytes_with_the_same_time_are_left_as_they_are_and_no_others_are() {
    let store = Store::new();
    store_all(&store, &[("f", b"same", true), ("g", b"other", true)]);
    let inode = |name: &str| fs::metadata(store.at(name)).unwrap().ino();
    let before = (inode("f"), inode("g"));
    // Also without the right to replace: nothing is.
    let became = store_all(&store, &[("f", b"same", false), ("g", b"OTHER", true)]);
    assert!(matches!(became[..], [Ok(Became::Before), Ok(Became::Visible)]), "{became:?}");
    assert_eq!(inode("f"), before.0);
    assert_eq!(read(store.at("g")), b"OTHER");
    assert_eq!(left_over(&store), 0);
}

/// Every name comes last, and the data of every file before the first of them.
fn names_come_behind_the_bytes(calls: &[Call], dirs: &[u64]) -> bool {
    let is_rename = |call: &Call| matches!(call, Call::Rename);
    let first = calls.iter().position(is_rename).unwrap();
    let last = calls.iter().rposition(is_rename).unwrap();
    let synced = |calls: &[Call], file| calls.contains(&Call::Sync(file));
    let durable = (0..calls.len()).all(|at| match calls[at] {
        Call::Write { inode, .. } => at < first && synced(&calls[at..first], inode),
        _ => true,
    });
    durable && dirs.iter().all(|&dir| synced(&calls[last..], dir))
}

#[test]
fn no_name_is_given_before_the_bytes_are_durable_and_none_answered_before_the_name_is() {
    let store = Store::new();
    store.root.make_dir(&path("d")).unwrap();
    fs::write(store.at("b"), b"old").unwrap();
    start_trace();
    store_all(&store, &[("a", b"1", true), ("d/b", b"22", true), ("b", b"333", true)]);
    let calls = take_trace();
    let dirs = [store.at("."), store.at("d")].map(|dir| fs::metadata(dir).unwrap().ino());
    assert!(names_come_behind_the_bytes(&calls, &dirs));
    // Each sync is needed, and each is made once.
    let syncs = (0..calls.len()).filter(|&at| matches!(calls[at], Call::Sync(_)));
    for at in syncs.clone() {
        let mut without = calls.clone();
        without.remove(at);
        assert!(!names_come_behind_the_bytes(&without, &dirs), "{:?} is not needed", calls[at]);
    }
    assert_eq!(syncs.count(), 3 + 2);
    // What was there before may have come to its name without its directory having been synced.
    start_trace();
    store_all(&store, &[("d/b", b"22", true)]);
    let file = fs::metadata(store.at("d/b")).unwrap().ino();
    let calls = take_trace();
    assert_eq!(calls[calls.len() - 2..], [Call::Sync(file), Call::Sync(dirs[1])]);
}

#[test]
fn any_call_that_fails_leaves_each_file_old_or_new_and_says_which() {
    let files: [(&str, &[u8], bool); 3] =
        [("a", b"new a", true), ("d/b", b"new b", false), ("c", b"c", true)];
    for fault in [Fault::Nth as fn(u32, Errno) -> Fault, Fault::From] {
        for n in 0.. {
            let store = Store::new();
            store.root.make_dir(&path("d")).unwrap();
            fs::write(store.at("a"), b"old").unwrap();
            let (became, hit) = with_fault(fault(n, Errno::IO), || store_all(&store, &files));
            let mut failures = 0;
            for ((name, content, _), became) in files.iter().zip(&became) {
                let visible = fs::read(store.at(name)).ok();
                let old = (*name == "a").then(|| b"old".to_vec());
                failures += usize::from(became.is_err());
                match became {
                    Ok(_) => assert_eq!(visible.as_deref(), Some(*content), "call {n}"),
                    Err(StoreError::Io { .. }) => {
                        assert!(visible == old || visible.as_deref() == Some(*content), "call {n}");
                    }
                    Err(error) => panic!("call {n}: {error}"),
                }
            }
            let once = matches!(fault(n, Errno::IO), Fault::Nth(..));
            // A directory that can't be synced concerns all that is in it.
            assert!(!once || failures <= 2, "call {n}: {became:?}");
            let retried = store_all(&store, &files);
            let all_there = |it: &Result<Became, StoreError>| it.is_ok();
            assert!(retried.iter().all(all_there), "call {n}: {retried:?}");
            if !hit {
                assert!(n > 15, "{n} calls");
                break;
            }
        }
    }
}

#[test]
fn the_ledger_is_exact_and_what_is_too_much_is_refused_alone() {
    let dir = memory();
    let root = Root::serve(dir.path()).unwrap();
    let quota = Quota { bytes: Some(1000), files: Some(3) };
    let ledger = Arc::new(Ledger::new(quota, measure(&root)));
    let root = Arc::new(root.with_ledger(Arc::clone(&ledger)));
    let store = Store { dir, root, place: Place::Internal };
    let assert_exact = || assert_eq!(ledger.usage(), measure(&store.root));

    let (half, most) = ([7; 500], [7; 900]);
    let became = store_all(&store, &[("a", &half, true), ("b", &most, true), ("c", &half, true)]);
    assert!(matches!(became[..], [Ok(_), Err(StoreError::QuotaExceeded(_)), Ok(_)]), "{became:?}");
    assert_eq!(ledger.usage(), Usage { bytes: 1000, files: 2 });
    assert_exact();
    let became = store_all(&store, &[("d", b"", true), ("e", b"", true)]);
    assert!(matches!(became[..], [Ok(_), Err(StoreError::QuotaExceeded(_))]), "{became:?}");
    assert_exact();
    store.root.remove(&path("a")).unwrap();
    store.root.remove(&path("d")).unwrap();
    // What fails is not counted, what is replaced not any more, and what is the same not again.
    store_all(&store, &[("c", &half, true), ("c", &[1; 100], true), ("c", b"x", true)]);
    store_all(&store, &[("x/y", b"y", true), ("c", b"no", false)]);
    assert_eq!(ledger.usage(), Usage { bytes: 1, files: 1 });
    assert_exact();
    let (_, hit) =
        with_fault(Fault::From(2, Errno::IO), || store_all(&store, &[("z", b"z", true)]));
    assert!(hit);
    assert_eq!(left_over(&store), 1);
    assert_eq!(ledger.usage(), Usage { bytes: 1, files: 1 });
}

#[test]
fn what_a_kill_has_left_counts_and_expires_however_old_its_file_was() {
    let dir = memory();
    let root = Root::serve(dir.path()).unwrap();
    let name = format!(".tow/partials/{}.small", Md5Digest::of(b"x"));
    let own = dir.path().join(name);
    fs::write(&own, b"left over").unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH;
    let times = fs::FileTimes::new().set_modified(long_ago);
    fs::File::options().write(true).open(&own).unwrap().set_times(times).unwrap();
    assert_eq!(measure(&root), Usage { bytes: 9, files: 1 });
    let ledger = Arc::new(Ledger::new(Quota::default(), measure(&root)));
    let root = root.with_ledger(Arc::clone(&ledger));
    // It came just now: another process may be about to give it its name.
    assert_eq!(expire_after(&root, Duration::from_secs(3600)), 0);
    while expire_after(&root, Duration::ZERO) == 0 {
        std::thread::yield_now();
    }
    assert_eq!(ledger.usage(), Usage::default());
    assert!(!own.exists());
}
