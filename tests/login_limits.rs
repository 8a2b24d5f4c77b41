//! How many may be in at once, what failures cost, and that a storm of wrong passwords hurts nobody.
//! What logins cost is measured by `cargo bench --bench logins`.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{
    fs,
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    process::Stdio,
    thread,
};

use support::{
    PATIENCE, Raw, TestDir,
    people::{
        House, PASSWORD, WRONG, ask, begin, client, connect_from, greeted, greeted_from, log_in,
        log_in_with, logged_in, proof_line, tow_with, url,
    },
    random_file, run, same_bytes,
    storm::{GUESSERS, Storm},
    wait_until,
    watch::{patient, remote},
};
use towpath::wire::DigestChoice;

mod support;

/// Another host than 127.0.0.1, as far as the server can see.
fn host(n: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, n).into()
}

/// Waits until a login is taken: a slot is given back when the server sees that somebody has left.
fn gets_in(addr: SocketAddr, user: &str) -> bool {
    wait_until(PATIENCE, || {
        let mut peer = Raw::connect(addr);
        peer.read_line().starts_with("220 ")
            && log_in_with(&mut peer, user, PASSWORD).starts_with("230 ")
    })
}

#[test]
fn a_user_has_so_many_connections_and_no_more() {
    let house = House::of(&["anna", "ben"]);
    let server = house.serve(|settings, _| settings.max_per_user = 2);
    let mut both = [logged_in(server.addr(), "anna"), logged_in(server.addr(), "anna")];
    let mut third = greeted(server.addr());
    for _ in 0..2 {
        let said = log_in_with(&mut third, "anna", PASSWORD);
        assert_eq!(said, "429 too many connections of this user");
        assert!(ask(&mut third, "ls /").starts_with("530 "));
    }
    log_in(&mut third, "ben");
    both.iter_mut().for_each(|peer| assert_eq!(ask(peer, "noop"), "200"));
    // One says goodbye, and the place is free: for one.
    assert_eq!(ask(&mut both[0], "quit"), "221 goodbye");
    assert!(wait_until(PATIENCE, || {
        third = greeted(server.addr());
        log_in_with(&mut third, "anna", PASSWORD).starts_with("230 ")
    }));
    let said = log_in_with(&mut greeted(server.addr()), "anna", PASSWORD);
    assert!(said.starts_with("429 "), "{said}");
}

#[test]
fn the_place_of_a_client_that_was_killed_is_free_again() {
    let house = House::of(&["anna"]);
    let server = house.serve(|settings, _| settings.max_per_user = 1);
    for _ in 0..3 {
        let url = url(server.addr(), "anna", "");
        let mut ping = tow_with(PASSWORD, ["ping", "-c", "100000", "-i", "0.01", &url]);
        let mut child = ping.stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.starts_with("1: "), "{line}");
        let said = log_in_with(&mut greeted(server.addr()), "anna", PASSWORD);
        assert!(said.starts_with("429 "), "{said}");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(gets_in(server.addr(), "anna"));
        assert!(gets_in(server.addr(), "anna"));
    }
}

#[test]
fn an_address_has_so_many_connections_and_others_do_not_notice() {
    let house = House::of(&["anna"]);
    let server = house.serve(|settings, _| settings.max_per_address = 3);
    let mut mine: Vec<Raw> = (0..3).map(|_| greeted(server.addr())).collect();
    for _ in 0..20 {
        let mut refused = Raw::connect(server.addr());
        assert_eq!(refused.read_line(), "429 too many connections from your address");
        assert_eq!(refused.try_line(PATIENCE).unwrap(), None);
        log_in(&mut greeted_from(host(2), server.addr()), "anna");
    }
    log_in(&mut mine[0], "anna");
    mine.truncate(1);
    assert!(wait_until(PATIENCE, || {
        Raw::connect(server.addr()).read_line().starts_with("220 ")
    }));
    assert_eq!(ask(&mut mine[0], "noop"), "200");
}

#[test]
fn the_server_has_so_many_connections_and_says_so() {
    let house = House::of(&["anna"]);
    let server = house.serve(|settings, _| settings.max_connections = 2);
    let mine = [greeted(server.addr()), logged_in(server.addr(), "anna")];
    let mut refused = Raw::over(connect_from(host(2), server.addr()));
    assert_eq!(refused.read_line(), "429 too many connections");
    drop(mine);
    assert!(gets_in(server.addr(), "anna"));
}

#[test]
fn a_login_that_came_to_nothing_keeps_no_place() {
    let house = House::of(&["anna", "ben"]);
    // In the way of a home, which then can't be opened.
    fs::write(house.home("anna"), "a file").unwrap();
    let server = house.serve(|settings, _| settings.max_per_user = 2);
    let fails = |user, code: &str| {
        let mut peer = greeted(server.addr());
        for _ in 0..5 {
            let said = log_in_with(&mut peer, user, PASSWORD);
            assert!(said.starts_with(code), "{said}");
        }
        assert!(peer.closes_within(PATIENCE));
    };
    for _ in 0..4 {
        fails("anna", "451 ");
    }
    fs::remove_file(house.home("anna")).unwrap();
    assert!(gets_in(server.addr(), "anna"), "anna's places are lost");
    // As many as may be tried at a time from one address, and more.
    let both = [logged_in(server.addr(), "ben"), logged_in(server.addr(), "ben")];
    for _ in 0..20 {
        fails("ben", "429 too many connections of this user");
    }
    assert_eq!(log_in_with(&mut greeted(server.addr()), "anna", "wrong"), WRONG);
    log_in(&mut greeted(server.addr()), "anna");
    drop(both);
}

#[test]
fn logins_that_are_left_in_the_middle_keep_no_place() {
    let house = House::of(&["anna"]);
    let towd = house.towd([]);
    for nth in 0..200 {
        let mut peer = greeted(towd.addr());
        match nth % 3 {
            // Gone before the challenge is read, after it, and with a proof under way.
            0 => peer.send(support::people::auth_line("anna", [0; 18]).1),
            1 => drop(begin(&mut peer, "anna")),
            _ => {
                let Ok((client, challenge)) = begin(&mut peer, "anna") else { continue };
                peer.send(proof_line(client, &challenge, PASSWORD).1);
            }
        }
    }
    assert!(gets_in(towd.addr(), "anna"));
    // 64 at a time is what an address has: all of them are there again.
    support::tcp::wait_until_read(towd.addr());
    let all = wait_until(PATIENCE, || {
        let mut peers: Vec<Raw> = (0..64).map(|_| greeted(towd.addr())).collect();
        peers.iter_mut().all(|peer| begin(peer, "anna").is_ok())
    });
    assert!(all, "some places are lost");
}

#[test]
fn only_so_many_logins_are_tried_at_a_time_from_one_address() {
    let house = House::of(&["anna"]);
    let towd = house.towd([]);
    let mut peers: Vec<Raw> = (0..64).map(|_| greeted(towd.addr())).collect();
    for peer in &mut peers {
        begin(peer, "anna").unwrap();
    }
    let said = log_in_with(&mut greeted(towd.addr()), "anna", PASSWORD);
    assert_eq!(said, "429 too many logins at once from your address");
    log_in(&mut greeted_from(host(2), towd.addr()), "anna");
    // Who began may go on, and who is done makes room.
    peers[0].send("334 data=x\n");
    assert_eq!(peers[0].read_line(), WRONG);
    log_in(&mut greeted(towd.addr()), "anna");
}

#[test]
fn five_failures_end_a_connection() {
    let house = House::of(&["anna"]);
    let towd = house.towd([]);
    for (line, answer) in [("ls /", "530 "), ("frob", "404 "), ("auth anonymous", "430 ")] {
        let mut peer = greeted(towd.addr());
        peer.send(format!("{line}\n").repeat(50));
        for _ in 0..5 {
            let said = peer.read_line();
            assert!(said.starts_with(answer), "{said}");
        }
        assert_eq!(peer.try_line(PATIENCE).unwrap(), None);
    }
    let mut peer = greeted(towd.addr());
    for _ in 0..4 {
        assert!(ask(&mut peer, "noop").starts_with("530 "));
    }
    log_in(&mut peer, "anna");
    // From here on nothing is counted.
    for _ in 0..20 {
        assert!(ask(&mut peer, "frob").starts_with("404 "));
    }
}

#[test]
fn a_storm_of_wrong_passwords_stops_no_transfer_and_locks_nobody_out() {
    let (house, dir) = (House::of(&["anna", "ben"]), TestDir::new());
    let towd = house.towd([]);
    let source = dir.join("source");
    random_file(&source, 8 << 20, 5);
    let storm = Storm::prepared();
    thread::scope(|scope| {
        for n in 0..16 {
            let (towd, source, dir) = (&towd, &source, &dir);
            scope.spawn(move || {
                let client = client(towd.addr(), "ben", patient(DigestChoice::Tree));
                let (name, copy) = (remote(&format!("f{n}")), dir.join(format!("{n}")));
                client.put(source, &name, &mut ()).unwrap();
                client.get(&name, &copy, &mut ()).unwrap();
                assert!(same_bytes(source, &copy));
            });
        }
        // Whoever transfers is in before it begins.
        assert!(wait_until(PATIENCE, || towd.stderr().matches("ben logged in").count() >= 16));
        let stormy = scope.spawn(|| storm.blow(host(1), towd.addr()));
        assert!(wait_until(PATIENCE, || storm.wrong() > 0));
        // Elsewhere, the victim gets in meanwhile.
        log_in(&mut greeted_from(host(2), towd.addr()), "anna");
        stormy.join().unwrap();
    });
    let (wrong, too_many) = (storm.wrong(), storm.too_many());
    assert_eq!(wrong + too_many, GUESSERS);
    assert!(wrong >= 6 && too_many > 0, "{wrong} {too_many}");
    // From the same address as well, after a wait.
    let mut command = tow_with(PASSWORD, ["--give-up", "120s", "whoami"]);
    run({
        command.arg(url(towd.addr(), "anna", ""));
        command
    })
    .exits(0);
    for n in 0..16 {
        assert!(same_bytes(&source, house.home("ben").join(format!("f{n}"))));
    }
}
