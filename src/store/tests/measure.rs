//! Measuring a home.

use std::{
    ops::ControlFlow,
    os::unix::fs::{PermissionsExt, symlink},
};

use rustix::fs::{CWD, FileType, Mode, OFlags, mkdirat, mknodat, openat};

use super::{
    super::{Usage, Walk},
    *,
};

/// Walks to the end; `between` is called between two steps.
pub(super) fn try_measure(
    root: &Root,
    mut between: impl FnMut(&Walk),
) -> Result<(Usage, usize), StoreError> {
    let (mut walk, mut steps) = (root.measure()?, 1);
    loop {
        match root.measure_step(walk) {
            ControlFlow::Continue(next) => walk = next,
            ControlFlow::Break(usage) => return usage.map(|usage| (usage, steps)),
        }
        between(&walk);
        steps += 1;
    }
}

pub(super) fn measure(root: &Root) -> Usage {
    try_measure(root, |_| ()).unwrap().0
}

#[test]
fn files_directories_and_partials_count_and_nothing_else() {
    let store = Store::new();
    assert_eq!(measure(&store.root), Usage::default());
    fs::create_dir_all(store.at("d/e")).unwrap();
    fs::write(store.at("f"), b"12345").unwrap();
    fs::write(store.at("d/e/empty"), b"").unwrap();
    fs::hard_link(store.at("f"), store.at("d/second name")).unwrap();
    symlink("f", store.at("link")).unwrap();
    symlink("..", store.at("d/up")).unwrap();
    symlink("/", store.at("d/out")).unwrap();
    mknodat(CWD, store.at("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    // Two directories, a file with two names, an empty file.
    assert_eq!(measure(&store.root), Usage { bytes: 10, files: 5 });

    let source = bytes(1, 3 * LEAF);
    let mut receiver = store.open(&upload("p", "a", &source));
    receiver.receive(&source, 2).unwrap();
    receiver.note().unwrap();
    drop(receiver);
    fs::write(store.at(".tow/partials/notes.data"), b"foreign").unwrap();
    assert_eq!(measure(&store.root), Usage { bytes: 10 + 2 * LEAF_BYTES, files: 6 });

    // A home within counts with what can be seen of it.
    let inner = store.root.home(Path::new("d/home")).unwrap();
    let inner = Store { dir: memory(), root: Arc::new(inner), place: Place::Internal };
    inner.finish(&upload("g", "a", b"123"), b"123").unwrap();
    inner.open(&upload("h", "a", &source)).receive(&source, 1).unwrap();
    assert_eq!(measure(&store.root), Usage { bytes: 13 + 2 * LEAF_BYTES, files: 8 });
    assert_eq!(measure(&inner.root), Usage { bytes: 3 + LEAF_BYTES, files: 2 });
}

#[test]
fn a_large_home_is_measured_in_slices() {
    let store = Store::new();
    for dir in 0..30 {
        fs::create_dir(store.at(&format!("{dir}"))).unwrap();
        for file in 0..100 {
            fs::write(store.at(&format!("{dir}/{file}")), b"ab").unwrap();
        }
    }
    let (usage, steps) = try_measure(&store.root, |_| ()).unwrap();
    assert_eq!(usage, Usage { bytes: 6000, files: 3030 });
    assert!(steps > 10, "{steps}");
}

#[test]
fn a_tree_deeper_than_any_path_is_measured() {
    let store = Store::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut dir = openat(CWD, store.dir.path(), flags, Mode::empty()).unwrap();
    let name = "twenty bytes of name";
    for _ in 0..300 {
        mkdirat(&dir, name, Mode::RWXU).unwrap();
        dir = openat(&dir, name, flags, Mode::empty()).unwrap();
        let file = openat(&dir, "f", OFlags::WRONLY | OFlags::CREATE, Mode::RWXU).unwrap();
        rustix::io::write(&file, b"x").unwrap();
    }
    assert_eq!(measure(&store.root), Usage { bytes: 300, files: 600 });
}

#[test]
fn what_vanishes_or_is_moved_meanwhile_leads_nowhere_else() {
    let dir = memory();
    fs::create_dir_all(dir.path().join("outside/far")).unwrap();
    fs::write(dir.path().join("outside/big"), vec![0; 1 << 20]).unwrap();
    let root = Root::serve(&dir.path().join("root")).unwrap();
    let at = |name: &str| dir.path().join("root").join(name);
    let mut deep = "d".to_owned();
    for _ in 0..20 {
        fs::create_dir_all(at(&deep)).unwrap();
        for n in 0..50 {
            fs::write(at(&format!("{deep}/{n}")), b"x").unwrap();
        }
        deep.push_str("/d");
    }
    // In the middle of the walk the directory goes out of the home, with the walk in it.
    let mut moved = false;
    let (usage, _) = try_measure(&root, |_| {
        if !moved {
            moved = true;
            fs::rename(at("d/d/d"), dir.path().join("outside/far/d")).unwrap();
        }
    })
    .unwrap();
    assert!(moved);
    assert_eq!(usage, Usage { bytes: 100, files: 102 });

    fs::rename(dir.path().join("outside/far/d"), at("d/d/d")).unwrap();
    let mut removed = false;
    let (usage, _) = try_measure(&root, |_| {
        if !removed {
            removed = true;
            fs::remove_dir_all(at("d")).unwrap();
        }
    })
    .unwrap();
    assert!(removed && usage.files < 20 * 51);
    assert_eq!(measure(&root), Usage::default());
}

#[test]
fn a_home_that_does_not_hold_still_is_not_measured_wrongly() {
    let dir = memory();
    let root = Root::serve(&dir.path().join("root")).unwrap();
    let at = |name: &str| dir.path().join("root").join(name);
    fs::create_dir_all(at("a")).unwrap();
    fs::create_dir_all(at("b")).unwrap();
    fs::create_dir_all(at("a/d")).unwrap();
    for n in 0..1000 {
        fs::write(at(&format!("a/d/{n}")), b"x").unwrap();
    }
    let mut is_at_b = false;
    let outcome = try_measure(&root, |_| {
        let (from, to) = if is_at_b { ("b/d", "a/d") } else { ("a/d", "b/d") };
        fs::rename(at(from), at(to)).unwrap();
        is_at_b = !is_at_b;
    });
    match outcome {
        Ok((usage, _)) => assert_eq!(usage, Usage { bytes: 1000, files: 1003 }),
        Err(error) => assert!(matches!(error, StoreError::Io { .. }), "{error}"),
    }
    assert_eq!(measure(&root), Usage { bytes: 1000, files: 1003 });
}

#[test]
fn a_directory_that_may_not_be_read_is_passed_over() {
    let store = Store::new();
    fs::create_dir_all(store.at("closed/in")).unwrap();
    fs::write(store.at("f"), b"1").unwrap();
    for mode in [0o000, 0o400, 0o100] {
        fs::set_permissions(store.at("closed"), fs::Permissions::from_mode(mode)).unwrap();
        let usage = measure(&store.root);
        // The administrator may read everything.
        assert!(usage.bytes == 1 && (2..=3).contains(&usage.files), "{usage:?}");
    }
    fs::set_permissions(store.at("closed"), fs::Permissions::from_mode(0o700)).unwrap();
}
