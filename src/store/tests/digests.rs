//! Digests that are remembered, and the versions of files that they are of.

use std::{os::unix::fs::MetadataExt, time::Duration};

use super::{
    super::{Identity, Source},
    *,
};
use crate::{
    digest::FileDigests,
    limits::{
        DIGESTS_BYTES_MAX, DIGESTS_FILE_BYTES_MAX, DIGESTS_FILE_SIZE_MIN, DIGESTS_FILES_MAX,
        DIGESTS_FOLDER_BYTES_MAX,
    },
};

const SIZE: usize = SEGMENT + 9;

/// Digests that are right of nothing.
fn some_digests(seed: u8, segments: usize) -> FileDigests {
    let segment = |n: usize| Md5Digest::of(&[seed, u8::try_from(n % 251).unwrap()]);
    let segments = (0..segments).map(segment).collect();
    FileDigests { segments: Some(segments), md5: Some(Md5Digest::of(&[seed])) }
}

fn nothing() -> FileDigests {
    FileDigests::default()
}

/// The version of a file that nobody has.
fn made_up(inode: u64) -> Identity {
    let time = |seconds| Mtime { seconds, nanos: 5 };
    Identity { size: SIZE as u64, mtime: time(7), ctime: time(8), inode, device: 9 }
}

impl Store {
    /// Opens a file once any change of it is sure to show.
    fn settled(&self, name: &str) -> Source {
        loop {
            let source = Source::open(&self.root, &path(name)).unwrap();
            if source.is_settled() {
                return source;
            }
            std::thread::yield_now();
        }
    }

    /// A file of which `digests` are remembered.
    fn with_digests(digests: &FileDigests) -> (Self, Source) {
        let store = Self::new();
        fs::write(store.at("f"), bytes(1, SIZE)).unwrap();
        let source = store.settled("f");
        store.root.remember(&source, digests.clone()).unwrap();
        (store, source)
    }

    fn digests(&self, name: &str) -> FileDigests {
        self.root.digests_of(&Source::open(&self.root, &path(name)).unwrap())
    }

    /// As another process finds it.
    fn restarted(&self) -> &Self {
        self.root.digest_cache().clear();
        self
    }

    fn digest_files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.at(".tow/digests")).unwrap();
        files.map(|file| file.unwrap().path()).collect()
    }
}

#[test]
fn what_is_remembered_of_a_file_is_known_of_it_and_survives_the_process() {
    let digests = some_digests(1, 2);
    let (store, source) = Store::with_digests(&digests);
    assert_eq!(store.digests("f"), digests);
    assert_eq!(store.restarted().digests("f"), digests);
    // Now from the memory again.
    fs::remove_file(&store.digest_files()[0]).unwrap();
    assert_eq!(store.digests("f"), digests);
    assert_eq!(store.restarted().digests("f"), nothing());
    // Under another name, and through a link.
    store.root.remember(&source, digests.clone()).unwrap();
    std::os::unix::fs::symlink("f", store.at("l")).unwrap();
    assert_eq!(store.digests("l"), digests);
}

#[test]
fn what_one_found_out_is_added_to_what_another_did() {
    let all = some_digests(1, 2);
    let tree = FileDigests { md5: None, ..all.clone() };
    let md5 = FileDigests { segments: None, ..all.clone() };
    let (store, source) = Store::with_digests(&tree);
    store.restarted().root.remember(&source, md5.clone()).unwrap();
    assert_eq!(store.digests("f"), all);
    assert_eq!(store.restarted().digests("f"), all);
    let (store, _) = Store::with_digests(&md5);
    assert_eq!(store.restarted().digests("f"), md5);
}

#[test]
fn what_is_forgotten_is_known_neither_in_memory_nor_on_the_disk() {
    let (store, source) = Store::with_digests(&some_digests(1, 2));
    store.root.forget(&source);
    assert_eq!(store.digests("f"), nothing());
    assert_eq!(store.digest_files(), [""; 0].map(PathBuf::from));
    store.root.forget(&source);
}

#[test]
fn any_other_field_of_the_identity_is_another_version() {
    let of = made_up(3);
    let time = Mtime { seconds: 8, nanos: 6 };
    let others = [
        Identity { size: of.size + 1, ..of },
        Identity { mtime: time, ..of },
        Identity { ctime: time, ..of },
        Identity { inode: 4, ..of },
        Identity { device: 8, ..of },
    ];
    for other in others {
        let store = Store::new();
        let digests = some_digests(1, 2);
        store.root.keep(&of, digests.clone()).unwrap();
        for _ in 0..2 {
            assert_eq!(store.root.known(&other), nothing(), "{other:?}");
            store.root.keep(&of, digests.clone()).unwrap();
            assert_eq!(store.restarted().root.known(&other), nothing(), "{other:?}");
            store.root.keep(&of, digests.clone()).unwrap();
        }
        assert_eq!(store.restarted().root.known(&of), digests);
    }
}

#[test]
fn a_file_rewritten_with_its_size_and_time_has_no_old_digest() {
    let (store, _) = Store::with_digests(&some_digests(1, 2));
    let before = fs::metadata(store.at("f")).unwrap();
    let file = fs::File::options().write(true).open(store.at("f")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"other", 7).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    let after = fs::metadata(store.at("f")).unwrap();
    let same = |it: &fs::Metadata| (it.len(), it.mtime(), it.mtime_nsec(), it.ino());
    assert_eq!(same(&before), same(&after));
    assert_eq!(store.digests("f"), nothing());
    assert_eq!(store.restarted().digests("f"), nothing());
}

#[test]
fn a_file_that_changed_a_moment_ago_or_meanwhile_is_not_remembered() {
    let store = Store::new();
    // A clock that jumps could make this one old at once; the next try is another one.
    let fresh = |name: &str| loop {
        fs::write(store.at(name), bytes(1, SIZE)).unwrap();
        let source = Source::open(&store.root, &path(name)).unwrap();
        if !source.is_settled() {
            return source;
        }
    };
    let source = fresh("f");
    store.root.remember(&source, some_digests(1, 2)).unwrap();
    assert_eq!(store.digests("f"), nothing());
    // However long the hashing took: it may have begun before the change.
    drop(store.settled("f"));
    store.root.remember(&source, some_digests(1, 2)).unwrap();
    assert_eq!(store.digests("f"), nothing());

    let source = store.settled("f");
    fs::write(store.at("f"), bytes(2, SIZE)).unwrap();
    store.root.remember(&source, some_digests(1, 2)).unwrap();
    assert_eq!(store.digest_files(), [""; 0].map(PathBuf::from));
    assert_eq!(store.root.digests_of(&source), nothing());
    assert_eq!(store.digests("f"), nothing());
}

#[test]
fn times_that_lie_too_close_together_tell_nothing() {
    let at = |millis: i64| Mtime {
        seconds: 1000 + millis.div_euclid(1000),
        nanos: u32::try_from(millis.rem_euclid(1000) * 1_000_000).unwrap(),
    };
    // Under test a tick is 50 ms.
    for (ctime, now, is_settled) in [
        (0, 0, false),
        (0, 50, false),
        (0, 51, true),
        (990, 1_020, false),
        (990, 1_041, true),
        (60, 0, false),
    ] {
        let identity = Identity { ctime: at(ctime), ..made_up(1) };
        assert_eq!(identity.is_settled(at(now)), is_settled, "{ctime} {now}");
    }
    for (mtime, ctime, shows) in
        [(0, 0, false), (0, 50, false), (50, 0, false), (0, 51, true), (51, 0, true)]
    {
        let identity = Identity { mtime: at(mtime), ctime: at(ctime), ..made_up(1) };
        assert_eq!(identity.shows_writes(), shows, "{mtime} {ctime}");
    }
}

#[test]
fn a_file_of_digests_with_any_bit_flipped_or_any_byte_missing_is_ignored_and_removed() {
    let digests = some_digests(1, 2);
    let (store, source) = Store::with_digests(&digests);
    let file = store.digest_files().remove(0);
    let whole = fs::read(&file).unwrap();
    let look = |bytes: &[u8], what: &dyn std::fmt::Debug| {
        fs::write(&file, bytes).unwrap();
        assert_eq!(store.restarted().root.digests_of(&source), nothing(), "{what:?}");
        assert!(!file.exists(), "{what:?}");
    };
    for bit in 0..whole.len() * 8 {
        let mut flipped = whole.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        look(&flipped, &bit);
    }
    for length in 0..whole.len() {
        look(&whole[..length], &length);
        // As a power cut leaves it that took the bytes but not the length.
        let mut zeros = whole.clone();
        zeros[length..].fill(0);
        look(&zeros, &length);
    }
    look(&[&whole[..], b"x"].concat(), &"longer");
    look(&vec![0; usize::try_from(DIGESTS_FILE_BYTES_MAX).unwrap() + 1], &"long");
    // No memory is taken for it.
    fs::File::create(&file).unwrap().set_len(1 << 46).unwrap();
    assert_eq!(store.restarted().root.digests_of(&source), nothing());
    assert!(!file.exists());
    fs::write(&file, &whole).unwrap();
    assert_eq!(store.restarted().root.digests_of(&source), digests);
}

#[test]
fn a_right_check_over_the_wrong_number_of_digests_is_ignored() {
    let (store, source) = Store::with_digests(&some_digests(1, 2));
    let file = store.digest_files().remove(0);
    let whole = fs::read(&file).unwrap();
    let head = whole.iter().position(|&byte| byte == b'\n').unwrap() + 1;
    for (has, length) in [(0, 0), (1, 16), (4, 32), (5, 48)] {
        for (has, length, good) in [
            (has, length, true),
            (has, length + 16, false),
            (has, length + 1, false),
            (2 | has, length + 16, false),
        ] {
            let mut bytes = whole[..head].to_vec();
            bytes.push(has);
            bytes.resize(head + 1 + length, 7);
            bytes.extend(Md5Digest::of(&bytes).0);
            fs::write(&file, &bytes).unwrap();
            let _ = store.restarted().root.digests_of(&source);
            assert_eq!(file.exists(), good, "{has} {length}");
        }
    }
}

#[test]
fn ten_thousand_files_stay_within_the_bounds_and_the_last_are_known() {
    let store = Store::new();
    let count = 10_000;
    for inode in 0..count {
        // Some of 1 GiB, most smaller.
        let segments = if inode % 16 == 0 { 256 } else { 2 };
        let size = (segments * SEGMENT) as u64;
        let identity = Identity { size, ..made_up(inode) };
        store.root.keep(&identity, some_digests(1, segments)).unwrap();
        let (entries, bytes) = store.root.digest_cache().usage();
        assert!(entries > 0 && bytes <= DIGESTS_BYTES_MAX, "{entries} {bytes}");
    }
    let files = store.digest_files();
    let bytes: u64 = files.iter().map(|file| fs::metadata(file).unwrap().len()).sum();
    assert!(files.len() <= DIGESTS_FILES_MAX && bytes <= DIGESTS_FOLDER_BYTES_MAX);
    assert!(files.len() > DIGESTS_FILES_MAX / 2, "{}", files.len());
    let size = (2 * SEGMENT) as u64;
    let last = Identity { size, ..made_up(count - 1) };
    assert_eq!(store.root.known(&last), some_digests(1, 2));
    assert_eq!(store.restarted().root.known(&last), some_digests(1, 2));
    assert_eq!(store.root.known(&Identity { size, ..made_up(1) }), nothing());
}

#[test]
fn what_another_process_left_counts_as_well_and_other_names_are_left_alone() {
    let store = Store::new();
    let name = |n: u32| Md5Digest::of(&n.to_be_bytes()).to_string();
    for n in 0..=u32::try_from(DIGESTS_FILES_MAX).unwrap() {
        fs::write(store.at(".tow/digests").join(name(n)), b"").unwrap();
    }
    fs::write(store.at(".tow/digests/notes"), b"mine").unwrap();
    store.root.keep(&made_up(1), some_digests(1, 2)).unwrap();
    assert_eq!(store.digest_files().len(), DIGESTS_FILES_MAX / 4 * 3 + 1);
    assert!(store.at(".tow/digests/notes").exists());
    assert_eq!(store.restarted().root.known(&made_up(1)), some_digests(1, 2));
}

#[test]
fn what_was_used_last_stays_in_memory_longest() {
    let store = Store::new();
    let segments = 1000;
    let identity = |n| Identity { size: (segments * SEGMENT) as u64, ..made_up(n) };
    let keep = |n| store.root.keep(&identity(n), some_digests(1, segments)).unwrap();
    let fits = u64::try_from(DIGESTS_BYTES_MAX / (segments * 16 + 320)).unwrap();
    (0..fits).for_each(keep);
    assert_eq!(store.root.digest_cache().usage().0 as u64, fits);
    store.root.known(&identity(0));
    keep(fits);
    assert_eq!(store.root.digest_cache().usage().0 as u64, fits);
    store.digest_files().iter().for_each(|file| fs::remove_file(file).unwrap());
    assert_eq!(store.root.known(&identity(0)), some_digests(1, segments));
    assert_eq!(store.root.known(&identity(1)), nothing());
    assert_eq!(store.root.known(&identity(2)), some_digests(1, segments));
}

#[test]
fn the_largest_are_on_the_disk_only_and_the_smallest_in_memory_only() {
    let store = Store::new();
    let segments = DIGESTS_BYTES_MAX / 32;
    let large = Identity { size: (segments * SEGMENT) as u64, ..made_up(1) };
    store.root.keep(&made_up(2), some_digests(2, 2)).unwrap();
    store.root.keep(&large, some_digests(1, segments)).unwrap();
    assert_eq!(store.root.known(&large), some_digests(1, segments));
    assert_eq!(store.root.digest_cache().usage().0, 1);

    let too_large = usize::try_from(DIGESTS_FILE_BYTES_MAX / 16).unwrap();
    let size = (too_large * SEGMENT) as u64;
    store.root.keep(&Identity { size, ..made_up(3) }, some_digests(1, too_large)).unwrap();
    assert_eq!(store.digest_files().len(), 2);

    let small = Identity { size: DIGESTS_FILE_SIZE_MIN - 1, ..made_up(4) };
    store.root.keep(&small, some_digests(1, 1)).unwrap();
    assert_eq!(store.root.known(&small), some_digests(1, 1));
    assert_eq!(store.restarted().root.known(&small), nothing());
    assert_eq!(store.digest_files().len(), 2);
}

#[test]
fn a_disk_that_takes_nothing_leaves_what_is_in_memory() {
    // The first call looks for what is there already.
    for at in 1..5 {
        let store = Store::new();
        let fault = hook::Fault::Nth(at, rustix::io::Errno::NOSPC);
        let keep = || store.root.keep(&made_up(1), some_digests(1, 2));
        let (kept, struck) = hook::with_fault(fault, keep);
        assert!(struck && kept.is_err(), "{at}");
        assert_eq!(store.digest_files(), [""; 0].map(PathBuf::from), "{at}");
        assert_eq!(store.root.known(&made_up(1)), some_digests(1, 2), "{at}");
        assert_eq!(store.restarted().root.known(&made_up(1)), nothing(), "{at}");
    }
}

#[test]
fn a_file_that_was_received_is_known_as_it_became_visible() {
    let (store, source) = (Store::new(), bytes(1, SIZE));
    let receive = |name: &str, mtime: Mtime| {
        let upload = Upload { mtime, ..upload(name, "t", &source) };
        let mut receiver = store.open(&upload);
        receiver.receive(&source, usize::MAX).unwrap();
        receiver.commit(&source).unwrap();
        store.root.remember_visible(&receiver.partial, some_digests(1, 2)).unwrap();
        receiver.partial.visible().copied()
    };
    let visible = receive("f", Mtime { seconds: 1_700_000_000, nanos: 5 });
    assert_eq!(visible.as_ref(), Some(Source::open(&store.root, &path("f")).unwrap().identity()));
    assert_eq!(store.digests("f"), some_digests(1, 2));
    assert_eq!(store.restarted().digests("f"), some_digests(1, 2));
    fs::write(store.at("f"), &source).unwrap();
    assert_eq!(store.digests("f"), nothing());

    // A time within a tick of the rename: whoever writes to it now might not show.
    let now = || {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let soon = now + Duration::from_millis(30);
        Mtime { seconds: i64::try_from(soon.as_secs()).unwrap(), nanos: soon.subsec_nanos() }
    };
    // On a machine that is busy for longer than that it is no longer soon.
    assert!((0..1000).any(|_| receive("g", now()).is_none()));
}

#[test]
fn a_file_that_others_change_as_it_becomes_visible_is_not_known() {
    let (store, source) = (Store::new(), bytes(1, SIZE));
    let mut receiver = store.open(&upload("f", "t", &source));
    receiver.receive(&source, usize::MAX).unwrap();
    let data = store.own("f", "data");
    hook::before_rename(move || {
        let file = fs::File::options().write(true).open(data).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"other", 7).unwrap();
    });
    receiver.commit(&source).unwrap();
    assert_eq!(receiver.partial.visible(), None);
}

#[test]
fn two_roots_of_a_server_share_the_memory() {
    let (one, other) = (Store::new(), Store::new());
    let dir = memory();
    let shared = Root::serve(dir.path()).unwrap().sharing_digests_of(&one.root);
    shared.keep(&made_up(1), some_digests(1, 2)).unwrap();
    assert_eq!(one.root.digest_cache().usage().0, 1);
    assert_eq!(other.root.digest_cache().usage().0, 0);
    assert_eq!(one.digest_files().len(), 0);
}
