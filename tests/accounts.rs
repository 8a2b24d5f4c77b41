//! Accounts as users meet them: who gets in, where he is then, what he may do there, and what
//! becomes of it when the operator changes his account.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{
    fs::{self, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    time::Duration,
};

use support::{
    PATIENCE, Raw, TestDir, Towd,
    frames::{data, frames_from, offer},
    people::{
        House, NOBODY, PASSWORD, WRONG, ask, greeted, log_in_with, logged_in, tow_with, tree, url,
    },
    proxy::{Cut, How, Plan, Proxy},
    random_file, run, run_tow, same_bytes,
    watch::{Watch, patient, remote},
};
use towpath::{
    auth::{Rights, ScramVerifier},
    digest::SEGMENT_BYTES,
    wire::DigestChoice,
};

mod support;

/// Runs the client to its end, with everybody's password.
fn tow(args: &[&str]) -> support::Ran {
    run(tow_with(PASSWORD, args))
}

/// Uploads a small file over a raw line.
#[track_caller]
fn put(peer: &mut Raw, path: &str, bytes: &[u8]) {
    assert_eq!(ask(peer, offer(path, bytes.len() as u64, "v1").trim_end()), "402");
    peer.send(format!("426 offset=0 length={}\n", bytes.len()));
    peer.send(frames_from(bytes, 0));
    let said = peer.read_line();
    assert!(said.starts_with("226 "), "{said}");
}

#[test]
fn the_right_password_moves_files_in_and_out_of_ones_own_home() {
    let (house, dir) = (House::of(&["anna", "ben"]), TestDir::new());
    fs::write(house.root().join("canary"), "of nobody").unwrap();
    let towd = house.towd([]);
    let (source, copy) = (dir.join("f"), dir.join("copy"));
    random_file(&source, 3 << 20, 1);
    let (anna, ben) = (url(towd.addr(), "anna", ""), url(towd.addr(), "ben", ""));
    let (f, of_anna) = (source.to_str().unwrap(), format!("{anna}f"));
    tow(&["put", f, &anna]).exits(0);
    tow(&["get", &of_anna, copy.to_str().unwrap()]).exits(0);
    assert!(same_bytes(&source, &copy) && same_bytes(&source, house.home("anna").join("f")));
    assert_eq!(tow(&["ls", &anna]).exits(0).stdout(), "f\n");
    assert_eq!(tow(&["ls", &ben]).exits(0).stdout(), "");
    tow(&["get", &format!("{ben}f"), copy.to_str().unwrap()]).exits(5).says(&["(110)"]);
    let whoami = tow(&["whoami", &anna]).exits(0).stdout();
    assert!(whoami.contains("anna") && !whoami.contains("ben"), "{whoami}");
    tow(&["rm", &of_anna]).exits(0);
    assert!(!house.home("anna").join("f").exists());
    assert_eq!(fs::read(house.root().join("canary")).unwrap(), b"of nobody");
    assert!(fs::read_dir(house.home("ben")).unwrap().all(|it| it.unwrap().file_name() == ".tow"));
}

#[test]
fn nobody_gets_out_of_his_home() {
    let house = House::of(&["anna", "ben"]);
    fs::write(house.root().join("canary"), "of nobody").unwrap();
    let towd = house.towd([]);
    put(&mut logged_in(towd.addr(), "ben"), "/secret", b"of ben");
    let mut anna = logged_in(towd.addr(), "anna");
    put(&mut anna, "/mine", b"of anna");
    symlink("../ben", house.home("anna").join("link")).unwrap();
    symlink(house.root().join("canary"), house.home("anna").join("out")).unwrap();
    let before = [tree(&house.home("ben")), tree(&house.root().join(".tow"))];
    for way in ["/../canary", "../ben/secret", "/link/secret", "/link/../../canary", "/out"] {
        for line in [
            format!("get {way}"),
            format!("md5 {way}"),
            format!("ls {way}"),
            format!("mkdir {way}/x"),
            format!("rm {way}/secret"),
            format!("mv /mine {way}/x"),
            format!("mv {way}/secret /mine"),
        ] {
            let said = ask(&mut anna, &line);
            let refused = ["110 ", "403 ", "405 "].iter().any(|code| said.starts_with(code));
            assert!(refused, "{line}: {said}");
        }
    }
    // From the root on, there is his home and nothing else.
    for way in ["/canary", "/ben/secret", "/anna/mine", "/root/canary"] {
        let said = ask(&mut anna, &format!("get {way}"));
        assert!(said.starts_with("110"), "{said}");
    }
    for way in ["/.tow/users", "/.tow/invites", ".tow"] {
        assert!(ask(&mut anna, &format!("get {way}")).starts_with("403 "));
    }
    assert_eq!([tree(&house.home("ben")), tree(&house.root().join(".tow"))], before);
    assert_eq!(fs::read(house.root().join("canary")).unwrap(), b"of nobody");
}

#[test]
fn two_users_with_the_same_path_do_not_meet() {
    let house = House::of(&["anna", "ben"]);
    let towd = house.towd([]);
    let size = usize::try_from(SEGMENT_BYTES).unwrap() + 10;
    let (of_anna, of_ben) = (vec![1; size], vec![2; size]);
    let length = size as u64;
    let line = offer("/f", length, "v1");
    let half = usize::try_from(SEGMENT_BYTES).unwrap();
    let stream = |peer: &mut Raw, bytes: &[u8], from: usize| {
        let rest = size - from;
        peer.send(format!("426 offset={from} length={rest}\n"));
        peer.send(frames_from(bytes, from as u64));
        peer.read_line()
    };
    // Anna leaves half of it; Ben, who says the same words, finds nothing of that.
    let mut anna = logged_in(towd.addr(), "anna");
    anna.send(&line);
    assert_eq!(anna.read_line(), "402");
    anna.send(format!("426 offset=0 length={size}\n"));
    anna.send(data(0, &of_anna[..half]));
    anna.send(support::frames::abort("410 later"));
    assert!(anna.read_line().starts_with("410 "));
    let mut ben = logged_in(towd.addr(), "ben");
    assert_eq!(ask(&mut ben, line.trim_end()), "402");
    // While Ben holds his, Anna gets hers.
    let said = ask(&mut anna, line.trim_end());
    assert!(said.starts_with(&format!("000 offset={half} tag=v1")), "{said}");
    assert!(stream(&mut anna, &of_anna, half).starts_with("226 "));
    assert!(stream(&mut ben, &of_ben, 0).starts_with("226 "));
    assert!(fs::read(house.home("anna").join("f")).unwrap() == of_anna);
    assert!(fs::read(house.home("ben").join("f")).unwrap() == of_ben);
    // Two connections of one user do meet.
    let other = "put /f size=3 mtime=1700000000.000000000 tag=v2 owner=";
    assert_eq!(ask(&mut ben, &format!("{other}{:032x}", 1)), "402");
    let mut second = logged_in(towd.addr(), "ben");
    assert!(ask(&mut second, &format!("{other}{:032x}", 2)).starts_with("423 "));
    let said = ask(&mut anna, &format!("{other}{:032x}", 2));
    assert!(said.starts_with("402"), "{said}");
}

#[test]
fn a_login_that_fails_ends_the_client_with_its_own_code_and_clear_words() {
    let house = House::of(&["anna", "ben"]);
    house.lock("ben");
    let towd = house.towd([]);
    for (user, password) in
        [("anna", "another password"), ("eve", PASSWORD), ("ben", PASSWORD), ("anna", "x")]
    {
        let ran = run(tow_with(password, ["ls", &url(towd.addr(), user, "")])).exits(4);
        ran.says(&["not logged in: wrong name or password (430)", "name and password are right"]);
    }
    run_tow(["ls", &format!("tow://{}/", towd.addr())])
        .exits(4)
        .says(&["the server wants a login", "tow://USER@HOST/"]);
    // Nothing to ask with, and nobody to ask.
    let mut command = support::tow(["ls", &url(towd.addr(), "anna", "")]);
    command.env_remove("TOW_PASSWORD");
    run(command).exits(1).says(&["TOW_PASSWORD", "--password-file"]);
    assert_eq!(fs::read_dir(house.root()).unwrap().count(), 1, "nobody got a home");
}

#[test]
fn a_password_file_has_to_be_of_ones_own() {
    let (house, dir) = (House::of(&["anna"]), TestDir::new());
    let towd = house.towd([]);
    let file = dir.join("password");
    fs::write(&file, format!("{PASSWORD}\nand more\n")).unwrap();
    let ls = |mode| {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let url = url(towd.addr(), "anna", "");
        let mut command = support::tow(["ls", &url, "--password-file", file.to_str().unwrap()]);
        command.env_remove("TOW_PASSWORD");
        run(command)
    };
    for mode in [0o644, 0o640, 0o604, 0o620, 0o602] {
        ls(mode).exits(1).says(&["chmod 600"]);
    }
    ls(0o600).exits(0);
    ls(0o400).exits(0);
}

#[test]
fn who_is_locked_or_removed_while_connected_is_sent_away_and_keeps_what_he_sent() {
    let house = House::of(&["anna", "ben", "carl", "dora"]);
    let towd = house.towd([]);
    let (mut idle, mut busy) = (logged_in(towd.addr(), "anna"), logged_in(towd.addr(), "anna"));
    let mut removed = logged_in(towd.addr(), "ben");
    let mut other = logged_in(towd.addr(), "carl");
    let half = vec![3; usize::try_from(SEGMENT_BYTES).unwrap()];
    let line = offer("/f", 2 * SEGMENT_BYTES, "v1");
    assert_eq!(ask(&mut busy, line.trim_end()), "402");
    busy.send(format!("426 offset=0 length={}\n", 2 * SEGMENT_BYTES));
    busy.send(data(0, &half));
    support::tcp::wait_until_read(towd.addr());
    house.lock("anna");
    house.remove("ben");
    // The file is looked at whenever somebody logs in.
    drop(logged_in(towd.addr(), "dora"));
    for peer in [&mut idle, &mut removed] {
        assert_eq!(peer.read_line(), "530 the account is closed");
        assert_eq!(peer.try_line(PATIENCE).unwrap(), None);
    }
    // A stream has no place for a line: it breaks, and what came is kept.
    assert!(busy.closes_within(PATIENCE));
    assert_eq!(ask(&mut other, "noop"), "200");
    assert_eq!(log_in_with(&mut greeted(towd.addr()), "anna", PASSWORD), WRONG);
    house.change("anna", |account| account.locked = false);
    let said = ask(&mut logged_in(towd.addr(), "anna"), line.trim_end());
    assert!(said.starts_with(&format!("000 offset={SEGMENT_BYTES} tag=v1")), "{said}");
}

#[test]
fn who_is_locked_in_the_middle_of_his_login_does_not_get_in() {
    for remove in [false, true] {
        let house = House::of(&["anna", "ben", "carl"]);
        let towd = house.towd([]);
        let mut late = greeted(towd.addr());
        let (client, challenge) = support::people::begin(&mut late, "anna").unwrap();
        let mut changed = greeted(towd.addr());
        let (of_ben, challenge_of_ben) = support::people::begin(&mut changed, "ben").unwrap();
        if remove {
            house.remove("anna")
        } else {
            house.lock("anna")
        }
        house.change("ben", |account| account.rights = Rights::READ);
        // The server knows it by now.
        drop(logged_in(towd.addr(), "carl"));
        let (_, line) = support::people::proof_line(client, &challenge, PASSWORD);
        assert_eq!(ask(&mut late, line.trim_end()), WRONG);
        assert_eq!(ask(&mut late, "ls /"), NOBODY);
        let (_, line) = support::people::proof_line(of_ben, &challenge_of_ben, PASSWORD);
        let said = ask(&mut changed, line.trim_end());
        assert!(said.starts_with("230 user=ben rights=r data="), "{said}");
        assert!(ask(&mut changed, "mkdir /d").starts_with("406 "));
    }
}

#[test]
fn a_password_that_was_changed_in_the_middle_of_a_login_is_the_old_one_no_longer() {
    let house = House::of(&["anna", "carl"]);
    let towd = house.towd([]);
    let mut late = greeted(towd.addr());
    let (client, challenge) = support::people::begin(&mut late, "anna").unwrap();
    house.change("anna", |account| {
        let password = support::people::password("a new password");
        account.scram = Some(ScramVerifier::new(&password, [9; 16], 4096));
    });
    drop(logged_in(towd.addr(), "carl"));
    let (_, line) = support::people::proof_line(client, &challenge, PASSWORD);
    assert_eq!(ask(&mut late, line.trim_end()), WRONG);
    let said = log_in_with(&mut late, "anna", "a new password");
    assert!(said.starts_with("230 "), "{said}");
}

#[test]
fn rights_that_change_hold_at_once_also_for_who_is_connected() {
    let house = House::of(&["anna", "ben"]);
    let towd = house.towd([]);
    let mut anna = logged_in(towd.addr(), "anna");
    put(&mut anna, "/f", b"old");
    house.change("anna", |account| account.rights = Rights::READ);
    drop(logged_in(towd.addr(), "ben"));
    assert_eq!(ask(&mut anna, "whoami"), "200 user=anna rights=r");
    for line in ["mkdir /d", "rm /f", "mv /f /g", offer("/f", 1, "v2").trim_end()] {
        let said = ask(&mut anna, line);
        assert!(said.starts_with("406 "), "{said}");
    }
    house.change("anna", |account| account.rights = Rights::READ.union(Rights::WRITE));
    drop(logged_in(towd.addr(), "ben"));
    assert_eq!(ask(&mut anna, "mkdir /d"), "200");
}

#[test]
fn who_may_only_read_changes_nothing_whatever_he_says() {
    let house = House::of(&[]);
    house.add("anna", "rwd");
    let towd = house.towd([]);
    let mut anna = logged_in(towd.addr(), "anna");
    put(&mut anna, "/f", b"file");
    assert_eq!(ask(&mut anna, "mkdir /d"), "200");
    house.change("anna", |account| account.rights = Rights::READ);
    let mut reader = logged_in(towd.addr(), "anna");
    let before = tree(&house.root());
    for (line, code) in [
        ("put /new size=1 mtime=1.000000000 tag=t owner=000102030405060708090a0b0c0d0e0f", "406"),
        ("put /f size=1 mtime=1.000000000 tag=t owner=000102030405060708090a0b0c0d0e0f", "406"),
        ("put /f size=0 mtime=1.000000000 tag=t owner=000102030405060708090a0b0c0d0e0f", "406"),
        ("mkdir /new", "406"),
        ("rm /f", "406"),
        ("rmdir /d", "406"),
        ("mv /f /g", "406"),
        ("mv /f /f", "406"),
        ("actions", "406"),
        ("run anything arg=x", "406"),
        ("auth anonymous", "406"),
        ("register eve scram=x", "406"),
        ("stat /f", "200"),
        ("md5 /f", "200"),
        ("whoami", "200"),
        ("quota", "200"),
        ("noop", "200"),
        ("get /f", "203"),
    ] {
        let said = ask(&mut reader, line);
        assert!(said.starts_with(code), "{line}: {said}");
    }
    reader.send("402\n");
    assert_eq!(reader.read_line(), "426 offset=0 length=4");
    support::frames::read_to_last_frame(&mut reader);
    reader.send("226\nls /\n");
    assert!(reader.read_line().starts_with("150 ") && reader.read_line().starts_with("150 "));
    assert_eq!(reader.read_line(), "200 entries=2");
    assert_eq!(ask(&mut reader, "quit"), "221 goodbye");
    assert_eq!(tree(&house.root()), before);
}

#[test]
fn each_verb_needs_its_right_and_no_other() {
    let house = House::of(&[]);
    for (user, rights) in [("none", "-"), ("w", "w"), ("d", "d"), ("wd", "wd"), ("a", "a")] {
        house.add(user, rights);
    }
    let towd = house.towd([]);
    let owner = "owner=000102030405060708090a0b0c0d0e0f";
    let put = format!("put /n size=1 mtime=1.000000000 tag=t {owner}");
    let verbs = [
        ("get /f", "r"),
        ("ls /", "r"),
        ("stat /f", "r"),
        ("md5 /f", "r"),
        (&*put, "w"),
        ("mkdir /new", "w"),
        ("rm /nothing", "d"),
        ("rmdir /nothing", "d"),
        ("mv /nothing /x", "wd"),
        ("actions", "a"),
        ("run nothing", "a"),
    ];
    for (user, rights) in [("none", ""), ("w", "w"), ("d", "d"), ("wd", "wd"), ("a", "a")] {
        for (line, needed) in verbs {
            let mut peer = logged_in(towd.addr(), user);
            let said = ask(&mut peer, line);
            let may = needed.chars().all(|letter| rights.contains(letter));
            assert_eq!(!said.starts_with("406"), may, "{user} {line}: {said}");
        }
    }
}

#[test]
fn who_may_not_delete_adds_files_and_replaces_none() {
    let house = House::of(&["anna"]);
    let towd = house.towd([]);
    put(&mut logged_in(towd.addr(), "anna"), "/f", b"old");
    house.change("anna", |account| account.rights = Rights::READ.union(Rights::WRITE));
    let mut anna = logged_in(towd.addr(), "anna");
    put(&mut anna, "/g", b"new");
    for (size, tag) in [(4, "v2"), (0, "v3")] {
        let said = ask(&mut anna, offer("/f", size, tag).trim_end());
        assert!(said.starts_with("413 "), "{said}");
    }
    // Of the same size and time it may be the same file. If it is not, nothing has changed.
    let said = ask(&mut anna, offer("/f", 3, "v4").trim_end());
    assert!(said.starts_with("312 "), "{said}");
    let said = ask(&mut anna, "402");
    assert!(said.starts_with("413 "), "{said}");
    // Also if it comes into being while the upload runs.
    assert_eq!(ask(&mut anna, offer("/h", 3, "v1").trim_end()), "402");
    fs::write(house.home("anna").join("h"), "here").unwrap();
    anna.send("426 offset=0 length=3\n");
    anna.send(frames_from(b"new", 0));
    let said = anna.read_line();
    assert!(said.starts_with("413 "), "{said}");
    for (file, bytes) in [("f", "old"), ("g", "new"), ("h", "here")] {
        assert_eq!(fs::read_to_string(house.home("anna").join(file)).unwrap(), bytes);
    }
}

#[test]
fn without_an_account_one_may_do_what_the_operator_says_in_a_folder_of_its_own() {
    let (house, dir) = (House::of(&["anna"]), TestDir::new());
    let file = dir.join("f");
    fs::write(&file, "of nobody").unwrap();
    let file = file.to_str().unwrap();
    let nobody = |towd: &Towd, path: &str| format!("tow://{}/{path}", towd.addr());
    {
        let towd = house.towd(["--anonymous", "off"]);
        run_tow(["ls", &nobody(&towd, "")]).exits(4).says(&["wants a login"]);
        let mut peer = greeted(towd.addr());
        assert!(ask(&mut peer, "auth anonymous").starts_with("430 "));
        assert_eq!(ask(&mut peer, "ls /"), NOBODY);
    }
    assert!(!house.home("anonymous").exists());
    {
        let towd = house.towd(["--anonymous", "write"]);
        put(&mut logged_in(towd.addr(), "anna"), "/secret", b"of anna");
        run_tow(["put", file, &nobody(&towd, "")]).exits(0);
        assert_eq!(run_tow(["ls", &nobody(&towd, "")]).exits(0).stdout(), "f\n");
        fs::write(file, "other").unwrap();
        run_tow(["put", file, &nobody(&towd, "")]).exits(5).says(&["(413)"]);
        run_tow(["rm", &nobody(&towd, "f")]).exits(5).says(&["(406)"]);
        run_tow(["get", &nobody(&towd, "anna/secret"), "-"]).exits(5).says(&["(110)"]);
        let mut peer = greeted(towd.addr());
        assert_eq!(ask(&mut peer, "auth anonymous"), "230 user=anonymous rights=rw");
        for way in ["../anna/secret", "/../users", "/.tow"] {
            assert!(ask(&mut peer, &format!("get {way}")).starts_with("403 "), "{way}");
        }
        // His name is nobody's to log in with.
        let said = log_in_with(&mut greeted(towd.addr()), "anonymous", PASSWORD);
        assert_eq!(said, WRONG);
    }
    let towd = house.towd(["--anonymous", "read"]);
    assert_eq!(run_tow(["get", &nobody(&towd, "f"), "-"]).exits(0).stdout(), "of nobody");
    run_tow(["mkdir", &nobody(&towd, "d")]).exits(5).says(&["(406)"]);
    run_tow(["put", file, &nobody(&towd, "g")]).exits(5).says(&["(406)"]);
    assert_eq!(fs::read(house.home("anonymous").join("f")).unwrap(), b"of nobody");
    // Whoever has an account has not become anonymous.
    assert_eq!(tow(&["ls", &url(towd.addr(), "anna", "")]).exits(0).stdout(), "secret\n");
}

#[test]
fn a_transfer_that_is_cut_logs_in_again_and_goes_on() {
    let (house, dir) = (House::of(&["anna"]), TestDir::new());
    let towd = house.towd([]);
    let cut = Cut { budget_bytes: 1 << 20..=2 << 20, how: How::Either, limit: 6, ..Cut::default() };
    let proxy = Proxy::start(towd.addr(), Plan { cut: Some(cut.clone()), ..Plan::seeded(7) });
    let (source, copy) = (dir.join("f"), dir.join("copy"));
    random_file(&source, 9 << 20, 3);
    let client = support::people::client(proxy.addr(), "anna", patient(DigestChoice::Tree));
    let mut watch = Watch::quiet();
    let up = client.put(&source, &remote("f"), &mut watch).unwrap();
    assert!(up.breaks >= 4, "{watch:?}");
    assert!(same_bytes(&source, house.home("anna").join("f")));
    proxy.set(Plan { cut: Some(cut), ..Plan::seeded(8) });
    let down = client.get(&remote("f"), &copy, &mut Watch::quiet()).unwrap();
    assert!(down.breaks >= 4 && down.root == up.root && same_bytes(&source, &copy));
    let logins = towd.stderr().matches("anna logged in").count();
    assert!(logins >= 9, "{logins}");
    // Cut before and amid the login, too.
    let tiny = Cut { budget_bytes: 0..=400, limit: 40, ..Cut::default() };
    proxy.set(Plan { cut: Some(tiny), ..Plan::seeded(9) });
    let client = support::people::client(proxy.addr(), "anna", patient(DigestChoice::Tree));
    let md5 = client.md5(&remote("f"), &mut ()).unwrap();
    assert_eq!(md5.to_string(), support::md5sum(&source));
}

#[test]
fn an_account_that_is_closed_in_a_transfer_ends_it_with_the_right_words() {
    let (house, dir) = (House::of(&["anna", "ben"]), TestDir::new());
    let towd = house.towd([]);
    let source = dir.join("f");
    random_file(&source, 12 << 20, 3);
    let mut options = patient(DigestChoice::Tree);
    options.timeout = Duration::from_secs(20);
    let client = support::people::client(towd.addr(), "anna", options);
    let lock = || {
        house.lock("anna");
        drop(logged_in(towd.addr(), "ben"));
    };
    let slow =
        support::proxy::Slow { direction: support::proxy::Direction::Up, bytes_per_s: 8 << 20 };
    let proxy = Proxy::start(towd.addr(), Plan { slow: Some(slow), ..Plan::default() });
    let through = support::people::client(proxy.addr(), "anna", patient(DigestChoice::Tree));
    let mut watch = Watch::at_position(4 << 20, lock);
    let error = through.put(&source, &remote("f"), &mut watch).unwrap_err();
    assert!(matches!(&error, towpath::client::ClientError::Login(_)), "{error:?}");
    assert!(!house.home("anna").join("f").exists());
    // Unlocked, it goes on where it was.
    house.change("anna", |account| account.locked = false);
    let up = client.put(&source, &remote("f"), &mut ()).unwrap();
    assert!(up.already > 0 && same_bytes(&source, house.home("anna").join("f")));
}
