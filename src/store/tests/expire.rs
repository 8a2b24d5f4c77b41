//! Partials that nobody came back for.

use std::{
    ops::ControlFlow,
    time::{Duration, SystemTime},
};

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);

fn age(store: &Store, name: &str, endings: &[&str]) {
    for ending in endings {
        let file = fs::File::options().write(true).open(store.own(name, ending));
        file.unwrap().set_modified(SystemTime::now() - 9 * DAY).unwrap();
    }
}

pub(super) fn expire(store: &Store) -> usize {
    expire_after(&store.root, 7 * DAY)
}

pub(super) fn expire_after(root: &Root, keep: Duration) -> usize {
    let mut walk = root.expire(keep).unwrap();
    loop {
        match root.expire_step(walk) {
            ControlFlow::Continue(next) => walk = next,
            ControlFlow::Break(removed) => return removed,
        }
    }
}

fn partial(store: &Store, name: &str) -> Receiver {
    let source = bytes(1, 3 * LEAF);
    let mut receiver = store.open(&upload(name, "a", &source));
    receiver.receive(&source, 1).unwrap();
    receiver.checkpoint().unwrap();
    receiver
}

#[test]
fn what_is_old_goes_and_what_is_fresh_or_in_use_stays() {
    let store = Store::new();
    let in_use = partial(&store, "in use");
    for name in ["old", "fresh data", "fresh journal"] {
        partial(&store, name);
    }
    age(&store, "in use", &["data", "journal"]);
    age(&store, "old", &["data", "journal"]);
    age(&store, "fresh data", &["journal"]);
    age(&store, "fresh journal", &["data"]);
    assert_eq!(expire(&store), 2);
    let there = |name| store.own(name, "data").exists() && store.own(name, "journal").exists();
    assert!(there("in use") && there("fresh data") && there("fresh journal"));
    assert!(!store.own("old", "data").exists() && !store.own("old", "journal").exists());
    // The lock that was asked for did not harm the one who has it.
    let name = upload("in use", "a", &bytes(1, 3 * LEAF));
    assert!(matches!(store.try_open(&name, false), Err(StoreError::Busy)));
    drop(in_use);
    assert_eq!(expire(&store), 2);
}

#[test]
fn halves_of_partials_go_and_foreign_files_stay() {
    let store = Store::new();
    for name in ["no journal", "no data"] {
        partial(&store, name);
    }
    age(&store, "no journal", &["data", "journal"]);
    age(&store, "no data", &["data", "journal"]);
    fs::remove_file(store.own("no journal", "journal")).unwrap();
    fs::remove_file(store.own("no data", "data")).unwrap();
    let foreign = store.at(".tow/partials/notes.data");
    fs::write(&foreign, b"mine").unwrap();
    let file = fs::File::options().write(true).open(&foreign).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(expire(&store), 2);
    assert_eq!(fs::read_dir(store.at(".tow/partials")).unwrap().count(), 1);
    assert!(foreign.exists());
}

#[test]
fn a_walk_goes_in_slices() {
    let store = Store::new();
    for n in 0..600 {
        let name = format!("{n}");
        fs::write(store.own(&name, "journal"), b"").unwrap();
        age(&store, &name, &["journal"]);
    }
    let mut walk = store.root.expire(7 * DAY).unwrap();
    let mut steps = 1;
    while let ControlFlow::Continue(next) = store.root.expire_step(walk) {
        walk = next;
        steps += 1;
    }
    assert!(steps >= 3, "{steps}");
    assert_eq!(fs::read_dir(store.at(".tow/partials")).unwrap().count(), 0);
}
