//! Pages of directories.

use std::{collections::BTreeSet, ffi::OsStr, os::unix::ffi::OsStrExt};

use super::{super::Kind, *};
use crate::limits::LISTING_ENTRIES_MAX;

fn names(store: &Store, dir: &str, mut between: impl FnMut(usize)) -> Vec<Vec<u8>> {
    let (mut names, mut from, mut pages) = (Vec::new(), 0, 0);
    loop {
        let page = store.root.list(&path(dir), from).unwrap();
        assert!(page.entries.len() <= LISTING_ENTRIES_MAX);
        names.extend(page.entries.into_iter().map(|entry| entry.name));
        pages += 1;
        between(pages);
        match page.next {
            Some(next) => from = next,
            None => return names,
        }
    }
}

#[test]
fn every_name_is_on_one_page_whatever_its_bytes() {
    let store = Store::new();
    let mut all: BTreeSet<Vec<u8>> = (0..1000).map(|n| format!("{n:04}").into_bytes()).collect();
    all.extend([
        b"new\nline\r".to_vec(),
        b" -rf".to_vec(),
        b"\xff\xfe\x1b[31m".to_vec(),
        vec![b'n'; 255],
        vec![0xff; 255],
    ]);
    fs::create_dir(store.at("d")).unwrap();
    fs::create_dir(store.at("d/.tow")).unwrap();
    for name in &all {
        fs::write(store.at("d").join(OsStr::from_bytes(name)), b"").unwrap();
    }
    let found = names(&store, "d", |_| ());
    assert_eq!(found.len(), all.len());
    assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), all);
    assert!(names(&store, "", |_| ()) == [b"d"]);
}

#[test]
fn long_names_make_short_pages() {
    let store = Store::new();
    for n in 0..100 {
        fs::write(store.at(&format!("{n:0255}")), b"").unwrap();
    }
    let page = store.root.list(&path(""), 0).unwrap();
    assert!(page.entries.len() < 30 && page.next.is_some());
    assert_eq!(names(&store, "", |_| ()).len(), 100);
}

#[test]
fn what_stays_is_listed_once_while_others_go() {
    // The file systems differ in what a place in a directory is.
    let on_disk = Store { dir: tempfile::tempdir().unwrap(), ..Store::new() };
    let root = Arc::new(Root::serve(on_disk.dir.path()).unwrap());
    for store in [Store::new(), Store { root, ..on_disk }] {
        for n in 0..1000 {
            fs::write(store.at(&format!("{n}")), b"").unwrap();
        }
        let remove = |pages: usize| {
            for n in (0..1000).filter(|n| n % 10 == pages % 9 + 1) {
                let _ = fs::remove_file(store.at(&format!("{n}")));
            }
        };
        let found = names(&store, "", remove);
        let set: BTreeSet<&Vec<u8>> = found.iter().collect();
        assert_eq!(set.len(), found.len());
        for n in (0..1000).step_by(10) {
            assert!(set.contains(&n.to_string().into_bytes()), "{n}");
        }
    }
}

#[test]
fn a_place_that_no_page_named_is_an_error_or_a_page() {
    let store = Store::new();
    fs::write(store.at("f"), b"").unwrap();
    for from in [1, 7, 1 << 31, 1 << 40, i64::MAX as u64, 1 << 63, u64::MAX] {
        match store.root.list(&path(""), from) {
            Ok(page) => assert!(page.entries.len() <= 1),
            Err(error) => assert!(matches!(error, StoreError::WrongKind(_)), "{error}"),
        }
    }
}

#[test]
fn kinds_and_sizes_are_those_of_the_names() {
    let store = Store::new();
    fs::write(store.at("file"), b"12345").unwrap();
    fs::create_dir(store.at("dir")).unwrap();
    std::os::unix::fs::symlink("file", store.at("link")).unwrap();
    let page = store.root.list(&path(""), 0).unwrap();
    let mut found: Vec<_> = page.entries.iter().map(|e| (e.kind, e.size)).collect();
    found.sort_by_key(|(kind, _)| kind.letter());
    assert_eq!(found, [(Kind::Directory, 0), (Kind::File, 5), (Kind::Link, 0)]);
}
