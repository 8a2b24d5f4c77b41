//! What an account may store, and the ledger that says what it does store.

use proptest::prelude::*;

use super::{
    super::{Ledger, Quota, Usage},
    expire::expire,
    measure::measure,
    *,
};

const UNLIMITED: Quota = Quota { bytes: None, files: None };

fn quota(bytes: u64, files: u64) -> Quota {
    Quota { bytes: Some(bytes), files: Some(files) }
}

/// An account's home.
fn account(quota: Quota) -> (Store, Arc<Ledger>) {
    let dir = memory();
    let root = Root::serve(dir.path()).unwrap();
    let ledger = Arc::new(Ledger::new(quota, measure(&root)));
    let root = Arc::new(root.with_ledger(Arc::clone(&ledger)));
    (Store { dir, root, place: Place::Internal }, ledger)
}

fn is_refused<T>(outcome: Result<T, StoreError>) -> bool {
    matches!(outcome, Err(StoreError::QuotaExceeded(_)))
}

fn assert_exact(store: &Store, ledger: &Ledger) {
    assert_eq!(ledger.usage(), measure(&store.root));
}

#[test]
fn exactly_the_quota_is_fine_and_one_byte_more_is_refused_before_it_comes() {
    for (size, fits) in [(LEAF - 1, true), (LEAF, true), (LEAF + 1, false)] {
        let (store, ledger) = account(quota(LEAF_BYTES, 10));
        let source = bytes(1, size);
        let upload = upload("f", "a", &source);
        if fits {
            store.finish(&upload, &source).unwrap();
        } else {
            let error = store.try_open(&upload, false).unwrap_err();
            let text = "1 byte more than the 32 KiB that this account may store";
            assert_eq!(error.to_string(), text);
            assert!(is_refused(store.try_open(&upload, true)));
            assert_eq!(fs::read_dir(store.at(".tow/partials")).unwrap().count(), 0);
            assert_eq!(ledger.usage(), Usage::default());
        }
        assert_exact(&store, &ledger);
    }
}

#[test]
fn so_many_files_and_directories_are_fine_and_one_more_is_refused() {
    let (store, ledger) = account(quota(1000, 3));
    store.finish(&upload("empty", "a", b""), b"").unwrap();
    store.root.make_dir(&path("d")).unwrap();
    store.finish(&upload("d/f", "a", b"1"), b"1").unwrap();
    assert_eq!(ledger.usage(), Usage { bytes: 1, files: 3 });
    let error = store.try_open(&upload("g", "a", b""), false).unwrap_err();
    assert_eq!(error.to_string(), "1 file more than the 3 files that this account may store");
    assert!(is_refused(store.root.make_dir(&path("e"))));
    assert!(matches!(store.root.make_dir(&path("d")), Err(StoreError::Exists)));
    // What a put replaces stays until the new file takes its place.
    assert!(is_refused(store.try_open(&upload("empty", "b", b"x"), false)));
    store.root.remove(&path("d/f")).unwrap();
    store.root.make_dir(&path("e")).unwrap();
    store.root.remove_dir(&path("e")).unwrap();
    store.finish(&upload("empty", "b", b"x"), b"x").unwrap();
    assert_exact(&store, &ledger);
}

#[test]
fn a_resume_does_not_get_past_the_quota() {
    let (store, ledger) = account(quota(10 * LEAF_BYTES, 10));
    let source = bytes(2, 20 * LEAF);
    let small = upload("f", "a", &source[..8 * LEAF]);
    let mut receiver = store.open(&small);
    receiver.receive(&source[..8 * LEAF], 6).unwrap();
    receiver.note().unwrap();
    // Nothing is written beyond what was promised.
    receiver.partial.write(8 * LEAF_BYTES, b"x").unwrap_err();
    assert_eq!(ledger.usage(), Usage { bytes: 8 * LEAF_BYTES, files: 1 });
    drop(receiver);
    assert_eq!(ledger.usage(), Usage { bytes: 6 * LEAF_BYTES, files: 1 });
    // The same partial for a longer source.
    for tag in ["a", "b"] {
        for fresh in [false, true] {
            assert!(is_refused(store.try_open(&upload("f", tag, &source), fresh)));
            assert!(is_refused(store.try_open(&upload("f", tag, &source[..11 * LEAF]), fresh)));
        }
    }
    assert_eq!(ledger.usage(), Usage { bytes: 6 * LEAF_BYTES, files: 1 });
    let fits = upload("f", "b", &source[..10 * LEAF]);
    assert_eq!(store.open(&fits).progress.frontier(), 6 * LEAF_BYTES);
    // Cut again and again under other names, the partials add up.
    let other = upload("g", "a", &source[..4 * LEAF]);
    store.open(&other).receive(&source, 4).unwrap();
    assert!(is_refused(store.try_open(&upload("h", "a", b"x"), false)));
    assert!(is_refused(store.try_open(&fits, false)));
    assert_exact(&store, &ledger);
}

#[test]
fn of_two_uploads_that_fit_alone_the_second_waits_until_the_first_is_gone() {
    for commits in [false, true] {
        let (store, ledger) = account(quota(10 * LEAF_BYTES, 10));
        let source = bytes(3, 6 * LEAF);
        let (first, second) = (upload("1", "a", &source), upload("2", "a", &source));
        let mut receiver = store.open(&first);
        assert!(is_refused(store.try_open(&second, false)));
        assert!(!store.own("2", "data").exists() && !store.own("2", "journal").exists());
        if commits {
            receiver.receive(&source, usize::MAX).unwrap();
            receiver.commit(&source).unwrap();
            assert!(is_refused(store.try_open(&second, false)));
            drop(receiver);
            assert!(is_refused(store.try_open(&second, false)));
            store.root.remove(&path("1")).unwrap();
        } else {
            receiver.receive(&source, 2).unwrap();
            // Another handle of it is still there.
            let other = receiver.partial.clone();
            drop(receiver);
            assert!(is_refused(store.try_open(&second, false)));
            drop(other);
        }
        store.finish(&second, &source).unwrap();
        assert_exact(&store, &ledger);
    }
}

#[test]
fn an_old_version_counts_until_the_new_one_has_its_place() {
    let (store, ledger) = account(quota(10 * LEAF_BYTES, 10));
    let (old, new) = (bytes(4, 7 * LEAF), bytes(5, 3 * LEAF));
    store.finish(&upload("f", "a", &old), &old).unwrap();
    assert!(is_refused(store.try_open(&upload("f", "b", &old[..4 * LEAF]), false)));
    let mut receiver = store.open(&upload("f", "b", &new));
    assert_eq!(ledger.usage(), Usage { bytes: 10 * LEAF_BYTES, files: 2 });
    receiver.receive(&new, usize::MAX).unwrap();
    receiver.commit(&new).unwrap();
    assert_eq!(ledger.usage(), Usage { bytes: 3 * LEAF_BYTES, files: 1 });
    drop(receiver);
    assert_exact(&store, &ledger);
    // Of a file with two names one stays.
    fs::hard_link(store.at("f"), store.at("g")).unwrap();
    ledger.change(Usage::default(), Usage { bytes: 3 * LEAF_BYTES, files: 1 });
    store.root.rename(&path("f"), &path("g")).unwrap();
    assert_exact(&store, &ledger);
    store.finish(&upload("f", "c", b"c"), b"c").unwrap();
    assert_exact(&store, &ledger);
}

#[test]
fn a_quota_that_was_lowered_refuses_puts_and_nothing_else() {
    let (store, ledger) = account(UNLIMITED);
    let source = bytes(6, 4 * LEAF);
    store.root.make_dir(&path("d")).unwrap();
    for name in ["d/f", "g", "h"] {
        store.finish(&upload(name, "a", &source), &source).unwrap();
    }
    store.open(&upload("cut", "a", &source)).receive(&source, 2).unwrap();
    ledger.set_quota(quota(LEAF_BYTES, 100));
    for name in ["new", "cut", "g"] {
        assert!(is_refused(store.try_open(&upload(name, "b", b"x"), false)), "{name}");
    }
    // It takes no byte, but it is a put.
    assert!(is_refused(store.try_open(&upload("empty", "a", b""), false)));
    // A question for the verdict is none.
    let asked = store.try_open(&upload("g", "a", &source), false).unwrap();
    assert!(matches!(asked, Opened::Committed(..)));
    super::super::Source::open(&store.root, &path("g")).unwrap();
    store.root.make_dir(&path("e")).unwrap();
    store.root.rename(&path("g"), &path("h")).unwrap();
    store.root.rename(&path("h"), &path("e/h")).unwrap();
    ledger.set_quota(quota(1 << 30, 1));
    store.root.rename(&path("e/h"), &path("h")).unwrap();
    store.root.remove_dir(&path("e")).unwrap();
    store.root.remove(&path("d/f")).unwrap();
    store.root.remove(&path("h")).unwrap();
    assert_exact(&store, &ledger);
    assert_eq!(ledger.usage(), Usage { bytes: 2 * LEAF_BYTES, files: 2 });
}

#[test]
fn an_attempt_that_fails_at_any_call_leaves_the_ledger_right() {
    let source = bytes(7, 4 * LEAF);
    let upload = upload("f", "a", &source);
    for fault in [hook::Fault::Nth, hook::Fault::From] {
        for n in 0.. {
            let (store, ledger) = account(UNLIMITED);
            store.finish(&self::upload("f", "old", b"old"), b"old").unwrap();
            store.open(&upload).receive(&source, 1).unwrap();
            let errno = rustix::io::Errno::IO;
            let (_, hit) = hook::with_fault(fault(n, errno), || store.finish(&upload, &source));
            assert_exact(&store, &ledger);
            store.finish(&upload, &source).unwrap();
            assert_exact(&store, &ledger);
            if !hit {
                break;
            }
        }
    }
}

/// Something that is done to a home.
#[derive(Debug, Clone)]
enum Op {
    Put { name: usize, version: u64, leaves: usize, replace: bool },
    Begin { name: usize, version: u64, leaves: usize },
    End { commits: bool },
    Remove(usize),
    MakeDir(usize),
    RemoveDir(usize),
    Move(usize, usize),
    Expire,
}

const NAMES: [&str; 8] = ["a", "b", "d", "d/x", "d/y", "e", "e/z", "e/d"];

fn op() -> impl Strategy<Value = Op> {
    let name = || 0..NAMES.len();
    prop_oneof![
        4 => (name(), 0..4_u64, 0..4_usize, any::<bool>())
            .prop_map(|(name, version, leaves, replace)| Op::Put { name, version, leaves, replace }),
        2 => (name(), 0..4_u64, 0..4_usize)
            .prop_map(|(name, version, leaves)| Op::Begin { name, version, leaves }),
        2 => any::<bool>().prop_map(|commits| Op::End { commits }),
        1 => name().prop_map(Op::Remove),
        2 => name().prop_map(Op::MakeDir),
        1 => name().prop_map(Op::RemoveDir),
        3 => (name(), name()).prop_map(|(from, to)| Op::Move(from, to)),
        1 => Just(Op::Expire),
    ]
}

/// One of four versions of a source, of other sizes, one of them empty.
fn version(version: u64) -> Vec<u8> {
    let size = usize::try_from(version).unwrap() * LEAF;
    bytes(version, size.saturating_sub(usize::from(version == 2)))
}

fn begin(store: &Store, name: usize, at: u64, replace: bool) -> Option<(Receiver, Vec<u8>)> {
    let source = version(at);
    let upload = Upload { replace, ..upload(NAMES[name], &format!("v{at}"), &source) };
    match store.try_open(&upload, false) {
        Ok(opened @ Opened::Partial(..)) => {
            let mut receiver = Receiver::new(opened);
            receiver.drop_what_differs(&source).unwrap();
            Some((receiver, source))
        }
        Ok(Opened::Committed(..)) | Err(_) => None,
    }
}

fn age_all(store: &Store) {
    for file in fs::read_dir(store.at(".tow/partials")).unwrap() {
        let file = fs::File::options().write(true).open(file.unwrap().path()).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    }
}

fn run(store: &Store, op: Op, open: &mut Vec<(Receiver, Vec<u8>)>) {
    match op {
        Op::Put { name, version, leaves, replace } => {
            if let Some((mut receiver, source)) = begin(store, name, version, replace) {
                receiver.receive(&source, leaves).unwrap();
                if receiver.progress.is_complete() {
                    let _ = receiver.commit(&source);
                } else {
                    receiver.note().unwrap();
                }
            }
        }
        Op::Begin { name, version, leaves } => {
            if let Some((mut receiver, source)) = begin(store, name, version, true) {
                receiver.receive(&source, leaves).unwrap();
                open.push((receiver, source));
            }
        }
        Op::End { commits } => {
            if let Some((mut receiver, source)) = open.pop()
                && commits
            {
                receiver.receive(&source, usize::MAX).unwrap();
                let _ = receiver.commit(&source);
            }
        }
        Op::Remove(name) => drop(store.root.remove(&path(NAMES[name]))),
        Op::MakeDir(name) => drop(store.root.make_dir(&path(NAMES[name]))),
        Op::RemoveDir(name) => drop(store.root.remove_dir(&path(NAMES[name]))),
        Op::Move(from, to) => drop(store.root.rename(&path(NAMES[from]), &path(NAMES[to]))),
        Op::Expire => {
            age_all(store);
            expire(store);
        }
    }
}

fn holds(ops: Vec<Op>, quota: Quota) {
    let (store, ledger) = account(quota);
    let mut open = Vec::new();
    for op in ops {
        run(&store, op.clone(), &mut open);
        let (said, found) = (ledger.usage(), measure(&store.root));
        if open.is_empty() {
            assert_eq!(said, found, "{op:?}");
        }
        assert!(said.bytes >= found.bytes && said.files == found.files, "{op:?}: {said:?}");
        quota.check(said).unwrap();
    }
    open.clear();
    assert_exact(&store, &ledger);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_the_ledger_says_what_a_measurement_finds(
        ops in proptest::collection::vec(op(), 0..60),
    ) {
        holds(ops, UNLIMITED);
    }

    #[test]
    fn whatever_is_done_the_quota_holds(ops in proptest::collection::vec(op(), 0..60)) {
        holds(ops, quota(7 * LEAF_BYTES, 7));
    }
}
