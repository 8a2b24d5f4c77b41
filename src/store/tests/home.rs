//! Homes beneath a served root.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::{super::Source, *};

fn homes() -> (tempfile::TempDir, Root) {
    let dir = memory();
    fs::create_dir(dir.path().join("outside")).unwrap();
    fs::write(dir.path().join("outside/canary"), b"canary").unwrap();
    let root = Root::serve(&dir.path().join("root")).unwrap();
    (dir, root)
}

fn store(root: Root) -> Store {
    Store { dir: memory(), root: Arc::new(root), place: Place::Internal }
}

#[test]
fn a_home_is_made_with_all_on_the_way_to_it_for_its_owner_alone() {
    let (dir, root) = homes();
    assert!(root.home_if_there(Path::new("a/b/c")).unwrap().is_none());
    assert!(!dir.path().join("root/a").exists());
    root.home(Path::new("a/b/c")).unwrap();
    for made in ["a", "a/b", "a/b/c", "a/b/c/.tow", "a/b/c/.tow/partials"] {
        let mode = fs::metadata(dir.path().join("root").join(made)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{made}");
    }
    assert!(!dir.path().join("root/a/.tow").exists());
    assert!(root.home_if_there(Path::new("./a//b/c/")).unwrap().is_some());
    // One in which nobody ever was.
    fs::create_dir(dir.path().join("root/bare")).unwrap();
    assert!(root.home_if_there(Path::new("bare")).unwrap().is_none());
    assert!(!dir.path().join("root/bare/.tow").exists());
}

#[test]
fn a_home_that_leads_elsewhere_or_is_no_directory_is_refused() {
    let (dir, root) = homes();
    let at = |name: &str| dir.path().join("root").join(name);
    fs::write(at("file"), b"x").unwrap();
    fs::create_dir(at("real")).unwrap();
    symlink("../outside", at("out")).unwrap();
    symlink("real", at("within")).unwrap();
    symlink("nowhere", at("dangling")).unwrap();
    let denied =
        ["out", "within", "dangling", "out/x", "within/x", "..", "a/../..", "/tmp", ".tow"];
    for path in denied.map(Path::new) {
        assert!(matches!(root.home(path), Err(StoreError::Denied)), "{path:?}");
        assert!(matches!(root.home_if_there(path), Err(StoreError::Denied)), "{path:?}");
    }
    for path in ["file", "file/x"].map(Path::new) {
        assert!(matches!(root.home(path), Err(StoreError::WrongKind(_))), "{path:?}");
        assert!(matches!(root.home_if_there(path), Err(StoreError::WrongKind(_))), "{path:?}");
    }
    assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(at("real")).unwrap().count(), 0);
    assert!(!at("nowhere").exists());
}

#[test]
fn a_home_that_is_opened_again_has_the_same_partials() {
    let (dir, root) = homes();
    let source = bytes(1, 5 * LEAF);
    let upload = upload("f", "a", &source);
    let first = store(root.home(Path::new("ann")).unwrap());
    let mut receiver = first.open(&upload);
    receiver.receive(&source, 3).unwrap();
    receiver.checkpoint().unwrap();
    let second = store(root.home(Path::new("ann")).unwrap());
    assert!(matches!(second.try_open(&upload, false), Err(StoreError::Busy)));
    drop(receiver);
    assert_eq!(second.open(&upload).progress.frontier(), 3 * LEAF_BYTES);
    second.finish(&upload, &source).unwrap();
    assert_eq!(read(dir.path().join("root/ann/f")), source);
}

#[test]
fn a_home_that_is_moved_and_replaced_while_it_is_open_stays_the_home() {
    let (dir, root) = homes();
    let at = |name: &str| dir.path().join(name);
    let home = store(root.home(Path::new("ann")).unwrap());
    let source = bytes(2, 3 * LEAF);
    let upload = upload("d/f", "a", &source);
    home.root.make_dir(&path("d")).unwrap();
    let mut receiver = home.open(&upload);
    receiver.receive(&source, 1).unwrap();

    fs::rename(at("root/ann"), at("moved")).unwrap();
    symlink("../outside", at("root/ann")).unwrap();
    receiver.receive(&source, usize::MAX).unwrap();
    receiver.commit(&source).unwrap();
    home.root.make_dir(&path("e")).unwrap();
    home.root.rename(&path("d/f"), &path("e/f")).unwrap();
    home.root.remove_dir(&path("d")).unwrap();
    assert_eq!(read(at("moved/e/f")), source);
    let canary = home.root.stat(&path("canary"));
    assert!(matches!(canary, Err(StoreError::NotFound)));
    assert_eq!(fs::read_dir(at("outside")).unwrap().count(), 1);
    assert!(matches!(root.home(Path::new("ann")), Err(StoreError::Denied)));
}

#[test]
fn homes_do_not_see_each_other_by_any_name() {
    let (dir, root) = homes();
    let at = |name: &str| dir.path().join("root").join(name);
    let ann = root.home(Path::new("ann")).unwrap();
    root.home(Path::new("bob")).unwrap();
    fs::write(at("bob/secret"), b"bob's").unwrap();
    for (name, to) in [
        ("up", "..".to_owned()),
        ("link", "../bob".to_owned()),
        ("file", "../bob/secret".to_owned()),
        ("abs", at("bob").display().to_string()),
        ("proc", "/proc/self/cwd".to_owned()),
    ] {
        symlink(to, at("ann").join(name)).unwrap();
    }
    for way in ["up/bob/secret", "link/secret", "file", "abs/secret", "proc/x"] {
        let found = Source::open(&ann, &path(way));
        assert!(matches!(found, Err(StoreError::Denied)), "{way}");
        assert!(matches!(ann.remove(&path(format!("{way}/x"))), Err(StoreError::Denied)), "{way}");
        let to = path(format!("{way}/x"));
        assert!(matches!(ann.rename(&path("up"), &to), Err(StoreError::Denied)), "{way}");
    }
    assert!(RemotePath::new(b"../bob/secret").is_err());
    assert_eq!(read(at("bob/secret")), b"bob's");
}

#[test]
fn the_partials_of_a_home_are_not_there_for_an_account_that_sees_the_home() {
    let (dir, root) = homes();
    let at = |name: &str| dir.path().join("root").join(name);
    let bob = store(root.home(Path::new("all/bob")).unwrap());
    let source = bytes(3, 2 * LEAF);
    let receiver = bob.open(&upload("f", "a", &source));
    let data = format!(".tow/partials/{}.data", partial_name(&path("f")));
    assert!(at("all/bob").join(&data).exists());

    symlink("bob/.tow", at("all/tow")).unwrap();
    symlink("bob/.tow/partials", at("all/partials")).unwrap();
    symlink("partials", at("all/again")).unwrap();
    symlink(format!("bob/{data}"), at("all/data")).unwrap();
    symlink("bob", at("all/link")).unwrap();
    fs::create_dir(at("all/bob/.tow/partials/deep")).unwrap();
    let inner = &data[".tow/partials/".len()..];
    for seer in [root.home(Path::new("all")).unwrap(), root] {
        let prefix = if seer.stat(&path("all")).is_ok() { "all/" } else { "" };
        let way = |way: &str| path(format!("{prefix}{way}"));
        for dir in ["tow", "partials", "again", "tow/partials", "partials/deep"] {
            let listed = seer.list(&way(dir), 0);
            assert!(matches!(listed, Err(StoreError::NotFound)), "{dir}");
            let made = seer.make_dir(&way(&format!("{dir}/x")));
            assert!(matches!(made, Err(StoreError::NotFound)), "{dir}");
        }
        for file in ["data", &format!("partials/{inner}"), &format!("again/{inner}")] {
            let found = Source::open(&seer, &way(file));
            assert!(matches!(found, Err(StoreError::NotFound)), "{file}");
        }
        for dir in ["bob", "link"] {
            let listed = seer.list(&way(dir), 0).unwrap().entries;
            assert!(listed.is_empty(), "{dir}");
        }
    }
    // A client's folder hides nothing.
    let plain = Root::plain(&at("all/bob")).unwrap();
    assert_eq!(plain.list(&path(""), 0).unwrap().entries.len(), 1);
    drop(receiver);
}
