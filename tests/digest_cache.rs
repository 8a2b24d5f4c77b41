//! Digests are computed once: a second get, a resume and `md5` hash nothing, and neither a file that
//! has changed nor a digest that is wrong is ever taken for what it is not.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails the test")]

use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use support::{
    PATIENCE, Ran, TestDir, Towd, frames, fresh_seed, md5sum,
    proxy::{Cut, Direction, How, Plan, Proxy},
    random_file, run_tow, same_bytes, tcp, wait_until,
    watch::{Watch, client, impatient, patient, remote},
};
use towpath::{
    digest::{FileDigests, LEAF_BYTES, Md5Digest, SEGMENT_BYTES},
    store::{Root, Source},
    wire::{DigestChoice, RemotePath},
};

mod support;

const SIZE: u64 = 64 << 20;

/// Waits until a change of a file is sure to show in its times: sooner, nothing is remembered of it.
fn settle(path: &Path) {
    let is_old = || {
        let stat = fs::metadata(path).unwrap();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        i64::try_from(now.as_secs()).unwrap() - stat.ctime() > 3
    };
    assert!(wait_until(PATIENCE, is_old));
}

/// A server with one file that has not changed for a while.
struct Setting {
    towd: Towd,
    dir: TestDir,
}

impl Setting {
    fn new() -> Self {
        let setting = Self::empty();
        random_file(setting.file(), SIZE, fresh_seed());
        settle(&setting.file());
        setting
    }

    fn empty() -> Self {
        Self { towd: Towd::start(["-v"]), dir: TestDir::new() }
    }

    fn file(&self) -> PathBuf {
        self.towd.root().join("f")
    }

    /// Gets the file; returns how many bytes the server hashed for it.
    fn get(&self, digest: &str) -> u64 {
        let (before, copy) = (self.hashed().len(), self.dir.join("copy"));
        let url = self.towd.url("f");
        run_tow(["get", "--digest", digest, &url, copy.to_str().unwrap()]).exits(0);
        assert!(same_bytes(self.file(), &copy));
        fs::remove_file(&copy).unwrap();
        self.next_hashed(before)
    }

    fn md5(&self) {
        let answer = format!("{}  f\n", md5sum(self.file()));
        assert_eq!(run_tow(["md5", &self.towd.url("f")]).exits(0).stdout(), answer);
    }

    /// What the server has hashed for each get that is over.
    fn hashed(&self) -> Vec<u64> {
        let said = self.towd.stderr();
        let gets = said.lines().filter(|line| line.contains(" get /f from="));
        gets.map(|line| number(line, " hashed=")).collect()
    }

    fn next_hashed(&self, before: usize) -> u64 {
        assert!(wait_until(PATIENCE, || self.hashed().len() > before));
        self.hashed()[before]
    }

    /// Whether the server knew the tree and the MD5 of the file when it opened it last.
    fn known(&self) -> (bool, bool) {
        let said = self.towd.stderr();
        let line = said.lines().rfind(|line| line.contains("/f: opened")).unwrap().to_owned();
        (line.contains("md5-tree=true"), line.contains(" md5=true"))
    }

    fn digest_files(&self) -> Vec<PathBuf> {
        let files = fs::read_dir(self.towd.root().join(".tow/digests")).unwrap();
        files.map(|file| file.unwrap().path()).collect()
    }

    /// Makes the server, which is down, know digests of the file as it is now.
    fn forge(&self, digests: FileDigests) {
        let root = Root::serve(self.towd.root()).unwrap();
        let source = Source::open(&root, &RemotePath::new(b"f").unwrap()).unwrap();
        root.forget(&source);
        root.remember(&source, digests).unwrap();
        assert_eq!(self.digest_files().len(), 1);
    }
}

fn number(line: &str, key: &str) -> u64 {
    let (_, rest) = line.split_once(key).unwrap_or_else(|| panic!("no {key:?} in {line}"));
    rest.split_whitespace().next().unwrap().parse().unwrap()
}

fn put(file: &Path, url: &str) -> Ran {
    run_tow(["put", file.to_str().unwrap(), url]).exits(0)
}

fn digests_of(path: &Path) -> FileDigests {
    let bytes = fs::read(path).unwrap();
    let segments = frames::segments(&bytes).into();
    FileDigests { segments: Some(segments), md5: Some(Md5Digest::of(&bytes)) }
}

fn change_byte(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x5a], at).unwrap();
}

#[test]
fn a_second_get_hashes_nothing_and_so_does_one_after_a_restart() {
    let mut setting = Setting::new();
    assert_eq!(setting.get("md5-tree"), SIZE);
    assert_eq!(setting.get("md5-tree"), 0);
    setting.towd.restart();
    assert_eq!(setting.get("md5-tree"), 0);
    // The MD5 of the whole file is still to be found out, once; for that the tree is not hashed.
    assert_eq!(setting.get("md5"), SIZE);
    assert_eq!(setting.get("md5"), 0);
    setting.towd.restart();
    assert_eq!(setting.get("md5"), 0);
    setting.md5();
    assert_eq!(setting.known(), (true, true));
}

#[test]
fn md5_is_computed_once_and_is_of_use_to_a_get() {
    let setting = Setting::new();
    setting.md5();
    assert_eq!(setting.known(), (false, false));
    setting.md5();
    assert_eq!(setting.known(), (false, true));
    // Only the tree is hashed.
    assert_eq!(setting.get("md5"), SIZE);
    assert_eq!(setting.get("md5"), 0);
}

#[test]
fn a_resume_hashes_nothing_of_what_is_there() {
    let setting = Setting::new();
    setting.get("md5-tree");
    let gets = setting.hashed().len();
    let budget = SIZE / 100 * 99;
    let cut = Cut {
        budget_bytes: budget..=budget,
        counted: Some(Direction::Down),
        how: How::Fin,
        limit: 1,
        ..Cut::default()
    };
    let plan = Plan { cut: Some(cut), ..Plan::seeded(fresh_seed()) };
    let proxy = Proxy::start(setting.towd.addr(), plan);
    let copy = setting.dir.join("copy");
    let first = client(proxy.addr(), impatient()).get(&remote("f"), &copy, &mut Watch::quiet());
    first.unwrap_err();
    tcp::wait_until_left(setting.towd.addr());
    let second = client(proxy.addr(), patient(DigestChoice::Tree));
    let done = second.get(&remote("f"), &copy, &mut Watch::quiet()).unwrap();
    assert!(done.already > budget - (8 << 20) && done.moved == SIZE - done.already, "{done:?}");
    assert!(same_bytes(setting.file(), &copy));
    setting.next_hashed(gets + 1);
    assert_eq!(setting.hashed()[gets..], [0, 0]);
}

#[test]
fn a_file_that_changed_is_hashed_anew() {
    let setting = Setting::new();
    setting.get("md5");
    setting.md5();
    let before = fs::metadata(setting.file()).unwrap();
    change_byte(&setting.file(), SIZE / 2);
    let file = File::options().write(true).open(setting.file()).unwrap();
    file.set_modified(before.modified().unwrap()).unwrap();
    let after = fs::metadata(setting.file()).unwrap();
    let same = |it: &fs::Metadata| (it.len(), it.mtime(), it.mtime_nsec(), it.ino());
    assert_eq!(same(&before), same(&after));
    setting.md5();
    assert_eq!(setting.known(), (false, false));
    assert_eq!(setting.get("md5"), 2 * SIZE);

    // Another file under its name.
    settle(&setting.file());
    setting.get("md5-tree");
    random_file(setting.dir.join("other"), SIZE, fresh_seed());
    fs::copy(setting.dir.join("other"), setting.towd.root().join("other")).unwrap();
    fs::rename(setting.towd.root().join("other"), setting.file()).unwrap();
    assert_eq!(setting.get("md5-tree"), SIZE);
}

#[test]
fn what_was_put_is_known_to_the_first_get() {
    let mut setting = Setting::empty();
    let source = setting.dir.join("source");
    random_file(&source, SIZE, fresh_seed());
    let long_ago = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_700_000_000);
    File::options().write(true).open(&source).unwrap().set_modified(long_ago).unwrap();
    put(&source, &setting.towd.url("f"));
    assert_eq!(setting.get("md5-tree"), 0);
    setting.towd.restart();
    assert_eq!(setting.get("md5-tree"), 0);
    // Another version in its place is known as what it is.
    change_byte(&source, 9);
    File::options().write(true).open(&source).unwrap().set_modified(long_ago).unwrap();
    put(&source, &setting.towd.url("f"));
    assert_eq!(setting.get("md5-tree"), 0);
    assert!(same_bytes(&source, setting.file()));
}

#[test]
fn what_rotted_on_the_disk_is_found_by_the_receiver_and_known_anew() {
    let mut setting = Setting::new();
    // No write can keep the ctime: so it is the digests of before that are put beside the file.
    let mut before = digests_of(&setting.file());
    let right = before.clone();
    let mut segments = before.segments.unwrap().to_vec();
    segments[5] = Md5Digest::of(b"before it rotted");
    before.segments = Some(segments.into());
    before.md5 = Some(Md5Digest::of(b"before it rotted"));
    for digest in ["md5-tree", "md5"] {
        setting.towd.kill();
        setting.forge(before.clone());
        setting.towd.restart();
        let copy = setting.dir.join("copy");
        let url = setting.towd.url("f");
        let gets = setting.hashed().len();
        let args = ["get", "--digest", digest, &url, copy.to_str().unwrap()];
        run_tow(args).exits(0).says(&["4.00 MiB of it again"]);
        assert!(same_bytes(setting.file(), &copy));
        fs::remove_file(&copy).unwrap();
        // Nothing of what was known is believed any more.
        let all = if digest == "md5" { 2 * SIZE } else { SIZE };
        assert_eq!(setting.next_hashed(gets), all, "{digest}");
        // And the next one is told the truth at once.
        assert_eq!(setting.get(digest), 0);
    }
    setting.towd.kill();
    let root = Root::serve(setting.towd.root()).unwrap();
    let source = Source::open(&root, &RemotePath::new(b"f").unwrap()).unwrap();
    assert_eq!(root.digests_of(&source), right);
}

#[test]
fn a_pipe_that_can_not_take_a_segment_twice_gets_the_file_all_the_same() {
    let mut setting = Setting::new();
    let mut wrong = digests_of(&setting.file());
    let mut segments = wrong.segments.unwrap().to_vec();
    segments[5] = Md5Digest::of(b"before it rotted");
    wrong.segments = Some(segments.into());
    setting.towd.kill();
    setting.forge(wrong);
    setting.towd.restart();
    let got = run_tow(["get", &setting.towd.url("f"), "-"]).exits(0);
    assert!(got.stdout == fs::read(setting.file()).unwrap());
    // An attempt that ends in the middle of the stream may take its last word with it; sooner or
    // later one is heard, and the next hashes everything.
    assert!(wait_until(PATIENCE, || setting.hashed().contains(&SIZE)), "{:?}", setting.hashed());
    assert_eq!(setting.get("md5-tree"), 0);
}

#[test]
fn a_wrong_md5_is_told_once_and_no_more() {
    let mut setting = Setting::new();
    let mut wrong = digests_of(&setting.file());
    wrong.md5 = Some(Md5Digest::of(b"another"));
    setting.towd.kill();
    setting.forge(wrong);
    setting.towd.restart();
    let (copy, url) = (setting.dir.join("copy"), setting.towd.url("f"));
    let args = ["get", "--digest", "md5", &url, copy.to_str().unwrap()];
    let refused = run_tow(args);
    assert_ne!(refused.code, Some(0), "{}", refused.stderr);
    assert!(!copy.exists());
    run_tow(args).exits(0);
    assert!(same_bytes(setting.file(), &copy));
    setting.md5();
}

#[test]
fn a_file_of_digests_that_a_power_cut_tore_is_ignored() {
    let mut setting = Setting::new();
    setting.get("md5-tree");
    setting.towd.kill();
    let files = setting.digest_files();
    assert_eq!(files.len(), 1);
    let whole = fs::read(&files[0]).unwrap();
    fs::write(&files[0], &whole[..whole.len() / 2]).unwrap();
    setting.towd.restart();
    assert_eq!(setting.get("md5-tree"), SIZE);
    assert_eq!(setting.get("md5-tree"), 0);
    assert!(fs::read(&files[0]).unwrap() == whole);
}

#[test]
fn no_path_leads_to_the_digests() {
    let setting = Setting::empty();
    random_file(setting.towd.root().join("f"), SEGMENT_BYTES + LEAF_BYTES, 1);
    settle(&setting.file());
    setting.get("md5-tree");
    let name = setting.digest_files()[0].file_name().unwrap().to_str().unwrap().to_owned();
    std::os::unix::fs::symlink(".tow/digests", setting.towd.root().join("d")).unwrap();
    for path in [".tow/digests".to_owned(), "d".to_owned(), format!("d/{name}")] {
        let said = run_tow(["ls", &setting.towd.url(&path)]);
        assert_ne!(said.code, Some(0), "{path}");
        let to = setting.dir.join("stolen");
        let said = run_tow(["get", &setting.towd.url(&path), to.to_str().unwrap()]);
        assert_ne!(said.code, Some(0), "{path}");
    }
}
