//! Quotas and the reserve, over a line: what does not fit is refused before its first byte.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails the test")]

mod support;

use std::fs;

use support::{
    Raw,
    people::{House, PASSWORD, ask, logged_in, tow_with, url},
    random_file, run,
};

fn put_line(path: &str, size: u64) -> String {
    let owner = "00000000000000000000000000000001";
    format!("put {path} size={size} mtime=0.000000000 tag=t owner={owner}")
}

/// What is said to a put of this size; it is given up if it may begin.
fn offer(peer: &mut Raw, path: &str, size: u64) -> String {
    let said = ask(peer, &put_line(path, size));
    if said.starts_with("402") || said.starts_with("000") {
        assert!(ask(peer, "410 enough").starts_with("410"));
    }
    said
}

#[test]
fn an_upload_beyond_the_quota_is_refused_before_it_begins_and_says_so() {
    let house = House::of(&["ann"]);
    house.change("ann", |account| account.quota_bytes = Some(1 << 20));
    let towd = house.towd([]);
    let file = house.outside("f");
    random_file(&file, (1 << 20) + 1, 1);
    let target = url(towd.addr(), "ann", "f");
    let args = ["put".as_ref(), file.as_os_str(), target.as_ref()];
    run(tow_with(PASSWORD, args)).exits(5).says(&[
        "1 byte more than the 1 MiB",
        "(453)",
        "tow quota",
    ]);
    assert!(!house.home("ann").join("f").exists());
    random_file(&file, 1 << 20, 1);
    run(tow_with(PASSWORD, args)).exits(0);
    let said = run(tow_with(PASSWORD, ["quota", &*url(towd.addr(), "ann", "")])).exits(0).stdout();
    assert!(said.starts_with("1.00 MiB of 1.00 MiB used"), "{said}");
    run(tow_with(PASSWORD, args)).exits(0).says(&["it was there already"]);
}

#[test]
fn what_was_there_before_the_server_counts_and_so_do_partials_of_others() {
    let house = House::of(&["ann"]);
    house.change("ann", |account| account.quota_bytes = Some(1000));
    fs::create_dir_all(house.home("ann").join("d")).unwrap();
    fs::write(house.home("ann").join("d/old"), [7; 600]).unwrap();
    let towd = house.towd([]);
    let mut first = logged_in(towd.addr(), "ann");
    let mut second = logged_in(towd.addr(), "ann");
    assert!(offer(&mut first, "/f", 401).starts_with("453 "));
    // One that fits alone keeps the other out, as long as it is open.
    assert!(ask(&mut first, &put_line("/f", 300)).starts_with("402"));
    assert!(offer(&mut second, "/g", 200).starts_with("453 "));
    assert!(ask(&mut first, "410 enough").starts_with("410"));
    assert!(offer(&mut second, "/g", 200).starts_with("402"));
    let said = ask(&mut second, "quota");
    assert!(said.starts_with("200 bytes=600 max-bytes=1000 files="), "{said}");
}

#[test]
fn files_are_counted_as_well() {
    let house = House::of(&["ann"]);
    house.change("ann", |account| account.quota_files = Some(2));
    let towd = house.towd([]);
    let mut peer = logged_in(towd.addr(), "ann");
    assert!(ask(&mut peer, "mkdir /a").starts_with("200"));
    assert!(ask(&mut peer, "mkdir /b").starts_with("200"));
    assert!(ask(&mut peer, "mkdir /c").starts_with("453 "));
    assert!(offer(&mut peer, "/f", 0).starts_with("453 "));
    assert!(ask(&mut peer, "rmdir /a").starts_with("200"));
    assert!(ask(&mut peer, "mkdir /c").starts_with("200"));
}

#[test]
fn a_quota_that_changes_holds_for_whoever_is_connected() {
    let house = House::of(&["ann", "bob"]);
    house.change("ann", |account| account.quota_bytes = Some(1000));
    let towd = house.towd([]);
    let mut peer = logged_in(towd.addr(), "ann");
    assert!(offer(&mut peer, "/f", 900).starts_with("402"));
    house.change("ann", |account| account.quota_bytes = Some(800));
    // Any login has the server look at the user file.
    drop(logged_in(towd.addr(), "bob"));
    assert!(offer(&mut peer, "/f", 900).starts_with("453 "));
    // A home that was never measured has to be: its connections begin anew.
    let mut other = logged_in(towd.addr(), "bob");
    house.change("bob", |account| account.quota_bytes = Some(10));
    drop(logged_in(towd.addr(), "ann"));
    assert!(other.read_line().starts_with("421 "));
    assert!(offer(&mut logged_in(towd.addr(), "bob"), "/f", 11).starts_with("453 "));
}

#[test]
fn the_reserve_is_left_free() {
    let house = House::of(&["ann"]);
    let server = house.serve(|settings, _| settings.reserve_bytes = u64::MAX);
    let mut peer = logged_in(server.addr(), "ann");
    let said = offer(&mut peer, "/f", 1);
    assert!(said.starts_with("452 "), "{said}");
    assert!(ask(&mut peer, "quota").starts_with("200 free=0"));
}
