//! Folders as they go with `-r`: what is in them, and the client that moves them.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{Ran, run_tow};

/// What is in a folder: each path below it, with its bytes and the time of a file.
pub type Tree = BTreeMap<PathBuf, Option<(Vec<u8>, SystemTime)>>;

pub fn tree(top: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut folders = vec![PathBuf::new()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(top.join(&folder)).unwrap() {
            let entry = entry.unwrap();
            let path = folder.join(entry.file_name());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(path.clone());
                tree.insert(path, None);
            } else if kind.is_file() {
                let bytes = fs::read(entry.path()).unwrap();
                tree.insert(path, Some((bytes, entry.metadata().unwrap().modified().unwrap())));
            } else {
                panic!("{} is neither", path.display());
            }
        }
    }
    tree
}

pub fn write(path: impl AsRef<Path>, bytes: &[u8]) {
    fs::create_dir_all(path.as_ref().parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

/// `tow put -r`.
pub fn put(args: &[&str], from: &Path, url: &str) -> Ran {
    run_tow(
        [OsStr::new("put"), OsStr::new("-r")]
            .into_iter()
            .chain(args.iter().map(OsStr::new))
            .chain([from.as_os_str(), OsStr::new(url)]),
    )
}

/// `tow get -r`.
pub fn get(args: &[&str], url: &str, to: &Path) -> Ran {
    run_tow(
        [OsStr::new("get"), OsStr::new("-r")]
            .into_iter()
            .chain(args.iter().map(OsStr::new))
            .chain([OsStr::new(url), to.as_os_str()]),
    )
}
