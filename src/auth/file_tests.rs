//! Files that are changed by many at once, left half done, or not what they should be.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, fs::symlink},
    thread,
};

use tempfile::TempDir;

use super::*;
use crate::auth::{Account, CramVerifier, Password, Rights, UserName};

fn anywhere() -> (TempDir, PathBuf) {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("users");
    (dir, path)
}

fn account(user: &str) -> Account {
    let name: UserName = user.parse().unwrap();
    let cram_md5 = Some(CramVerifier::new(&Password::new("swordfish").unwrap()));
    Account { cram_md5, ..Account::new(name, Rights::READ) }
}

fn add(path: &Path, user: &str) -> Result<(), FileError> {
    update(path, |accounts: &mut Accounts| {
        assert!(accounts.put(account(user)));
        Ok(())
    })
}

fn users(path: &Path) -> Vec<String> {
    read::<Accounts>(path).unwrap().value.iter().map(|account| account.name.to_string()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_file_that_is_made_is_ours_alone() {
    let (dir, path) = anywhere();
    assert!(matches!(read::<Accounts>(&path), Err(FileError::Absent(_))));
    add(&path, "anna").unwrap();
    add(&path, "ben").unwrap();
    assert_eq!(users(&path), ["anna", "ben"]);
    assert_eq!((mode(&path), mode(&dir.path().join("users.lock"))), (0o600, 0o600));
    assert!(!dir.path().join("users.new").exists());
    // Two servers do not have the same decoys.
    let (_other_dir, other) = anywhere();
    add(&other, "anna").unwrap();
    let second_line = |path| fs::read_to_string(path).unwrap().lines().nth(1).unwrap().to_owned();
    assert_ne!(second_line(&path), second_line(&other));
}

#[test]
fn nothing_is_lost_when_many_change_it_at_once() {
    let (_dir, path) = anywhere();
    thread::scope(|scope| {
        for thread in 0..8 {
            let path = &path;
            scope.spawn(move || {
                for n in 0..8 {
                    add(path, &format!("u{thread}-{n}")).unwrap();
                }
            });
        }
    });
    assert_eq!(users(&path).len(), 64);
}

#[test]
fn what_a_crash_left_behind_changes_nothing() {
    let (dir, path) = anywhere();
    add(&path, "anna").unwrap();
    let new = dir.path().join("users.new");
    fs::write(&new, "# towpath users 1\nhalf a li").unwrap();
    assert_eq!(users(&path), ["anna"]);
    add(&path, "ben").unwrap();
    assert_eq!(users(&path), ["anna", "ben"]);
    assert!(!new.exists());
    // Nor is one followed that leads elsewhere.
    let target = dir.path().join("target");
    fs::write(&target, "precious").unwrap();
    symlink(&target, &new).unwrap();
    add(&path, "cleo").unwrap();
    assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    assert_eq!(users(&path), ["anna", "ben", "cleo"]);
}

#[test]
fn a_change_that_fails_writes_nothing() {
    let (_dir, path) = anywhere();
    add(&path, "anna").unwrap();
    let before = read::<Accounts>(&path).unwrap().identity;
    let failed: Result<(), FileError> = update(&path, |accounts: &mut Accounts| {
        assert!(accounts.put(account("ben")));
        Err(FileError::TooLong(PathBuf::new()))
    });
    failed.unwrap_err();
    assert_eq!(read::<Accounts>(&path).unwrap().identity, before);
    // A file that is bad is not replaced by a good one either.
    fs::write(&path, "mine\n").unwrap();
    assert!(matches!(add(&path, "ben"), Err(FileError::Bad(..))));
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine\n");
}

#[test]
fn a_file_that_others_may_touch_is_refused() {
    let (_dir, path) = anywhere();
    add(&path, "anna").unwrap();
    for bits in [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o777] {
        fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
        let error = read::<Accounts>(&path).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{bits:o}: {error}");
        assert!(add(&path, "ben").is_err());
    }
    for bits in [0o600, 0o400] {
        fs::set_permissions(&path, fs::Permissions::from_mode(bits)).unwrap();
        assert_eq!(users(&path), ["anna"]);
    }
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting_for_it() {
    let (dir, path) = anywhere();
    add(&path, "anna").unwrap();
    let other = dir.path().join("other");
    symlink(&path, &other).unwrap();
    assert!(matches!(read::<Accounts>(&other), Err(FileError::NotRegular(_))));
    assert!(matches!(read::<Accounts>(dir.path()), Err(FileError::NotRegular(_))));
    let fifo = dir.path().join("fifo");
    let mode = Mode::RUSR | Mode::WUSR;
    rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
    assert!(matches!(read::<Accounts>(&fifo), Err(FileError::NotRegular(_))));
    assert!(matches!(add(Path::new("/"), "anna"), Err(FileError::NotRegular(_))));
}

#[test]
fn a_file_that_is_too_long_or_no_text_is_refused() {
    let (_dir, path) = anywhere();
    add(&path, "anna").unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(u64::try_from(USER_FILE_BYTES_MAX).unwrap()).unwrap();
    // Zeros at the end are an odd line, not too much of it.
    assert!(matches!(read::<Accounts>(&path), Err(FileError::Bad(..))));
    file.set_len(u64::try_from(USER_FILE_BYTES_MAX + 1).unwrap()).unwrap();
    assert!(matches!(read::<Accounts>(&path), Err(FileError::TooLong(_))));
    fs::write(&path, b"# towpath users 1\n\xff").unwrap();
    assert!(read::<Accounts>(&path).unwrap_err().to_string().ends_with("line 2: not UTF-8"));
}

#[test]
fn a_bad_change_is_reported_once_and_leaves_the_old_users_in_force() {
    let (_dir, path) = anywhere();
    add(&path, "anna").unwrap();
    let mut watched = Watched::<Accounts>::open(&path).unwrap();
    assert!(!watched.refresh().unwrap());
    add(&path, "ben").unwrap();
    assert!(watched.refresh().unwrap());
    assert!(!watched.refresh().unwrap());
    let known = |watched: &Watched<Accounts>| watched.current().iter().count();
    assert_eq!(known(&watched), 2);

    let good = fs::read(&path).unwrap();
    fs::write(&path, [&good[..], b"../x rights=r\n"].concat()).unwrap();
    assert!(matches!(watched.refresh(), Err(FileError::Bad(..))));
    assert!(!watched.refresh().unwrap());
    assert_eq!(known(&watched), 2);

    fs::remove_file(&path).unwrap();
    assert!(matches!(watched.refresh(), Err(FileError::Absent(_))));
    assert!(!watched.refresh().unwrap());
    assert_eq!(known(&watched), 2);

    add(&path, "cleo").unwrap();
    assert!(watched.refresh().unwrap());
    assert_eq!(known(&watched), 1);
    fs::write(&path, [&fs::read(&path).unwrap()[..], b"dora rights=r\n"].concat()).unwrap();
    assert!(watched.refresh().unwrap());
    assert_eq!((known(&watched), watched.warnings().len()), (1, 1));
}

#[test]
fn an_invite_can_be_used_by_one_of_many_only() {
    let (dir, _) = anywhere();
    let path = dir.path().join("invites");
    update(&path, |invites: &mut Invites| {
        invites.add("code", None, 0);
        Ok::<_, FileError>(())
    })
    .unwrap();
    let take = || {
        update(&path, |invites: &mut Invites| Ok::<_, FileError>(invites.use_up("code", 0).is_ok()))
    };
    let taken = thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(take)).collect();
        threads.into_iter().map(|t| t.join().unwrap().unwrap()).filter(|&t| t).count()
    });
    assert_eq!(taken, 1);
}
