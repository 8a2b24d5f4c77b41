//! Accounts that people make for themselves: who may, under which names, and how often.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{fs, net::Ipv4Addr, path::Path, sync::Barrier, thread};

use support::{
    TestDir,
    people::{House, PASSWORD, ask, greeted, greeted_from, log_in, logged_in, tow_with, tree, url},
    run,
};
use towpath::auth::{Home, ScramVerifier};

mod support;

/// Runs the client to its end, with everybody's password.
fn tow(args: &[&str]) -> support::Ran {
    run(tow_with(PASSWORD, args))
}

/// What a client sends to register; the password is everybody's.
fn verifier() -> String {
    ScramVerifier::new(&support::people::password(PASSWORD), [5; 16], 4096).to_text()
}

#[test]
fn a_server_that_makes_no_accounts_makes_none() {
    let house = House::of(&["anna"]);
    let towd = house.towd([]);
    let users = fs::read(house.users()).unwrap();
    tow(&["register", &url(towd.addr(), "eve", "")]).exits(5).says(&["(433)"]);
    let said = ask(&mut greeted(towd.addr()), &format!("register eve scram={}", verifier()));
    assert!(said.starts_with("433 "), "{said}");
    assert_eq!(fs::read(house.users()).unwrap(), users);
}

#[test]
fn who_is_refused_an_account_or_an_action_stands_in_the_log_with_the_reason() {
    let house = House::of(&["anna"]);
    let towd = house.towd([]);
    let said = ask(&mut greeted(towd.addr()), &format!("register eve scram={}", verifier()));
    assert!(said.starts_with("433 "), "{said}");
    tow(&["run", &url(towd.addr(), "anna", ""), "disk"]).exits(5);
    let mut anna = logged_in(towd.addr(), "anna");
    assert!(ask(&mut anna, "run %1b[2J%disk").starts_with("406 "));
    let log = towd.stderr();
    for words in [
        "refused: register eve: 433 ",
        " anna refused: run disk: 406 your account has no right to run actions",
        " anna refused: run %251b[2J%25disk: 406 ",
    ] {
        assert!(log.contains(words), "{words} in {log}");
    }
}

#[test]
fn an_account_made_by_oneself_works_at_once_and_takes_nobodys_name() {
    let (house, dir) = (House::of(&["anna"]), TestDir::new());
    let towd = house.towd(["--registration", "open"]);
    let file = dir.join("f");
    fs::write(&file, "of eve").unwrap();
    let eve = url(towd.addr(), "eve", "");
    tow(&["register", &eve]).exits(0);
    tow(&["put", file.to_str().unwrap(), &eve]).exits(0);
    assert_eq!(fs::read(house.home("eve").join("f")).unwrap(), b"of eve");
    let users = fs::read_to_string(house.users()).unwrap();
    assert!(users.lines().any(|line| line.starts_with("eve rights=rwd ")), "{users}");
    for taken in ["eve", "anna"] {
        let ran = run(tow_with("another password", ["register", &url(towd.addr(), taken, "")]));
        ran.exits(5).says(&["somebody has this name already (435)"]);
    }
    assert_eq!(fs::read_to_string(house.users()).unwrap(), users);
    tow(&["ls", &url(towd.addr(), "anna", "")]).exits(0);
    // Refused before anything is asked: there is not even a server.
    for (password, words) in [("seven77", "at least 8"), ("", "empty")] {
        let ran = run(tow_with(password, ["register", "tow://kim@127.0.0.1:1/"]));
        ran.exits(2).says(&[words]);
    }
    tow(&["register", &format!("tow://{}/", towd.addr())]).exits(2).says(&["name yourself"]);
}

#[test]
fn a_name_that_is_a_path_or_an_odd_verifier_registers_nobody() {
    let house = House::of(&["anna"]);
    let towd = house.towd(["--registration", "open"]);
    let (users, before) = (fs::read(house.users()).unwrap(), tree(&house.root()));
    let good = verifier();
    for (from, (name, scram)) in (1..).zip([
        ("..", &*good),
        ("a/b", &good),
        (".tow", &good),
        ("a%2fb", &good),
        ("Anna", &good),
        ("-x", &good),
        (&"a".repeat(33), &good),
        ("eve", "x"),
        ("eve", "1:AAAAAAAAAAA:AA:AA"),
        ("eve", "4096:::"),
    ]) {
        // Each from elsewhere: so many from one address are too many.
        let from = Ipv4Addr::new(127, 0, 1, from).into();
        let mut peer = greeted_from(from, towd.addr());
        let said = ask(&mut peer, &format!("register {name} scram={scram}"));
        assert!(said.starts_with("400 "), "{name} {scram}: {said}");
    }
    let mut peer = greeted(towd.addr());
    let said = ask(&mut peer, &format!("register anonymous scram={good}"));
    assert!(said.starts_with("435 "), "{said}");
    assert_eq!((fs::read(house.users()).unwrap(), tree(&house.root())), (users, before));
}

#[test]
fn an_invite_makes_one_account_and_only_in_time() {
    let house = House::of(&["anna"]);
    house.invite("goodgoodgood", None);
    house.invite("expiredexpired", Some(1));
    let towd = house.towd(["--registration", "invite"]);
    let eve = url(towd.addr(), "eve", "");
    tow(&["register", &eve]).exits(5).says(&["an invite is needed", "(434)"]);
    for code in ["expiredexpired", "Goodgoodgood", "goodgoodgoo"] {
        let ran = tow(&["register", "--invite", code, &eve]);
        ran.exits(5).says(&["not valid, or not any more (434)"]);
    }
    let other = Ipv4Addr::new(127, 0, 0, 2).into();
    let mut peer = greeted_from(other, towd.addr());
    // Who has none does not learn who has an account.
    let line = format!("register anna scram={} invite=expiredexpired", verifier());
    assert!(ask(&mut peer, &line).starts_with("434 "));
    // Whoever can't have the name keeps his invite.
    for taken in ["anna", "anonymous"] {
        let line = format!("register {taken} scram={} invite=goodgoodgood", verifier());
        assert!(ask(&mut peer, &line).starts_with("435 "));
    }
    let line = format!("register eve scram={} invite=goodgoodgood", verifier());
    assert!(ask(&mut peer, &line).starts_with("200"));
    let line = format!("register fay scram={} invite=goodgoodgood", verifier());
    assert!(ask(&mut peer, &line).starts_with("434 "));
    log_in(&mut peer, "eve");
}

#[test]
fn the_sixth_registration_from_one_address_has_to_wait() {
    let house = House::of(&[]);
    let towd = house.towd(["--registration", "open"]);
    for n in 0..5 {
        let said = ask(&mut greeted(towd.addr()), &format!("register u{n} scram={}", verifier()));
        assert!(said.starts_with("200"), "{said}");
    }
    let line = format!("register u5 scram={}", verifier());
    let said = ask(&mut greeted(towd.addr()), &line);
    assert!(said.starts_with("429 too many registrations"), "{said}");
    assert!(!fs::read_to_string(house.users()).unwrap().contains("\nu5 "));
    let other = Ipv4Addr::new(127, 0, 0, 2).into();
    let mut other = greeted_from(other, towd.addr());
    assert!(ask(&mut other, &line).starts_with("200"));
    // Who has an account is not kept from logging in.
    log_in(&mut greeted(towd.addr()), "u0");
}

#[test]
fn of_two_who_want_one_name_at_once_one_gets_it() {
    let house = House::of(&[]);
    let towd = house.towd(["--registration", "open"]);
    for round in 0..4_u8 {
        let together = Barrier::new(2);
        let said: Vec<String> = thread::scope(|scope| {
            let racers: Vec<_> = (0..2_u8)
                .map(|n| {
                    let (towd, together) = (&towd, &together);
                    scope.spawn(move || {
                        let from = Ipv4Addr::new(127, 0, 2 + n, 1 + round).into();
                        let mut peer = greeted_from(from, towd.addr());
                        together.wait();
                        ask(&mut peer, &format!("register u{round} scram={}", verifier()))
                    })
                })
                .collect();
            racers.into_iter().map(|racer| racer.join().unwrap()).collect()
        });
        let won = said.iter().filter(|said| said.starts_with("200")).count();
        let lost = said.iter().filter(|said| said.starts_with("435 ")).count();
        assert_eq!((won, lost), (1, 1), "{said:?}");
    }
    let users = fs::read_to_string(house.users()).unwrap();
    assert_eq!(users.lines().filter(|line| line.starts_with('u')).count(), 4, "{users}");
}

#[test]
fn what_lies_there_already_is_not_given_away() {
    let house = House::of(&["anna"]);
    fs::create_dir_all(house.root().join("archive")).unwrap();
    fs::write(house.root().join("archive/secret"), "secret").unwrap();
    house.change("anna", |account| {
        account.home = Some(Home::new(Path::new("shared/anna")).unwrap());
    });
    let towd = house.towd(["--registration", "open"]);
    for name in ["archive", "shared", "anna"] {
        let said = ask(&mut greeted(towd.addr()), &format!("register {name} scram={}", verifier()));
        assert!(said.starts_with("435 "), "{name}: {said}");
    }
    assert!(
        ask(&mut greeted(towd.addr()), &format!("register eve scram={}", verifier()))
            .starts_with("200")
    );
}
