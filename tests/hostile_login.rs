//! Logins against somebody who does not play by the rules, on either side of the line.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use support::{
    Fake, PATIENCE, Ran, Raw, TestDir,
    canary::has_no_canary,
    frames::offer,
    people::{
        House, NOBODY, PASSWORD, WRONG, ask, auth_line, begin, challenge, greeted, greeted_from,
        log_in, log_in_with, logged_in, proof_line, tow_with, tree, url,
    },
    run,
};
use towpath::{
    auth::{CramVerifier, ScramVerifier, scram::ClientFirst, scram::ScramServer},
    limits::SCRAM_ITERATIONS,
    wire::{Command as Said, from_base64, to_base64},
};

mod support;

#[test]
fn before_a_login_no_verb_does_anything() {
    let house = House::of(&["anna"]);
    let towd = house.towd(["--anonymous", "write"]);
    let mut anna = logged_in(towd.addr(), "anna");
    assert_eq!(ask(&mut anna, "mkdir /d"), "200");
    fs::write(house.root().join("canary"), "of nobody").unwrap();
    let before = (tree(&house.root()), fs::read(house.users()).unwrap());
    let put = offer("/new", 1, "t");
    let empty = offer("/empty", 0, "t");
    for (from, line) in (1..).zip([
        "get /canary",
        "get /anna/d digest=md5",
        put.trim_end(),
        empty.trim_end(),
        "ls /",
        "ls / from=1",
        "stat /canary",
        "md5 /canary",
        "mkdir /new",
        "rm /canary",
        "rmdir /anna/d",
        "mv /canary /mine",
        "whoami",
        "quota",
        "actions",
        "run disk",
        "noop",
    ]) {
        // Each from elsewhere: who fails again and again has to wait.
        let from = std::net::Ipv4Addr::new(127, 0, 5, from).into();
        let mut peer = greeted_from(from, towd.addr());
        assert_eq!(ask(&mut peer, line), NOBODY, "{line}");
        // Nor amid a login, where it is a wrong proof, nor after one that failed.
        begin(&mut peer, "eve").unwrap();
        assert_eq!(ask(&mut peer, line), WRONG, "{line}");
        assert_eq!(ask(&mut peer, line), NOBODY, "{line}");
        assert_eq!(ask(&mut peer, "quit"), "221 goodbye");
    }
    // All at once with the login behind: each is looked at in its turn.
    let mut peer = greeted(towd.addr());
    peer.send("mkdir /new\nauth anonymous\nmkdir /made\n");
    assert_eq!(peer.read_line(), NOBODY);
    assert_eq!(peer.read_line(), "230 user=anonymous rights=rw");
    assert_eq!(peer.read_line(), "200");
    assert!(!house.root().join("new").exists() && house.home("anonymous").join("made").exists());
    fs::remove_dir_all(house.home("anonymous")).unwrap();
    let mut after = tree(&house.root());
    // Making and removing that folder is all that the root has seen.
    after.insert(house.root(), before.0[&house.root()].clone());
    assert_eq!((after, fs::read(house.users()).unwrap()), before);
}

#[test]
fn who_is_in_does_not_log_in_again() {
    let house = House::of(&["anna", "ben"]);
    let towd = house.towd(["--anonymous", "read", "--registration", "open"]);
    let mut anna = logged_in(towd.addr(), "anna");
    let (_, line) = auth_line("ben", [0; 18]);
    for line in ["auth anonymous", line.trim_end(), "register eve scram=x"] {
        assert!(ask(&mut anna, line).starts_with("406 "), "{line}");
        assert_eq!(ask(&mut anna, "whoami"), "200 user=anna rights=rwd");
    }
    // What stands where a proof did is no proof any more.
    assert!(!ask(&mut anna, "334 data=biws").starts_with('2'));
}

/// All that a server says to somebody who tries to log in so, and what he is told at last.
fn all_that_is_said(addr: SocketAddr, from: u8, user: &str, proof: &str) -> (String, String) {
    let from = std::net::Ipv4Addr::new(127, 0, 3, from).into();
    let mut peer = greeted_from(from, addr);
    let (client, line) = auth_line(user, [1; 18]);
    let begins = ask(&mut peer, line.trim_end());
    let challenge = challenge(&begins).unwrap();
    let line = match proof {
        "" => proof_line(client, &challenge, "a wrong password").1,
        proof => format!("{proof}\n"),
    };
    let said = ask(&mut peer, line.trim_end());
    // Without what is drawn by chance, or is each user's own: nonce and salt.
    let text = String::from_utf8(challenge).unwrap();
    let lengths: Vec<usize> = text.split(',').map(str::len).collect();
    let (_, iterations) = text.rsplit_once(',').unwrap();
    (format!("{lengths:?} {iterations}"), said)
}

#[test]
fn unknown_and_locked_users_and_wrong_passwords_are_answered_byte_for_byte_the_same() {
    let house = House::of(&[]);
    // As they come from the command line.
    house.add_with("anna", "rwd", SCRAM_ITERATIONS);
    house.add_with("ben", "rwd", SCRAM_ITERATIONS);
    house.lock("ben");
    let towd = house.towd([]);
    let proofs = ["", "334 data=biws", "334 data=", "334", "226", "334 data=*", "noop", "\u{7f}"];
    let mut from = 0;
    for proof in proofs {
        let told = ["anna", "eve", "ben"].map(|user| {
            from += 1;
            all_that_is_said(towd.addr(), from, user, proof)
        });
        assert_eq!(told[0].1, WRONG);
        assert!(told.iter().all(|it| *it == told[0]), "{proof}: {told:?}");
    }
    // The salt of a name is always the same, whether there is such a user or not.
    for user in ["anna", "eve", "ben"] {
        let salts: BTreeSet<String> = (0..3)
            .map(|_| {
                let (_, challenge) = begin(&mut greeted(towd.addr()), user).unwrap();
                let text = String::from_utf8(challenge).unwrap();
                text.split(',').nth(1).unwrap().to_owned()
            })
            .collect();
        assert_eq!(salts.len(), 1, "{user}: {salts:?}");
    }
    // And the log does not say it either.
    let log = towd.stderr();
    for user in ["anna", "eve", "ben"] {
        let lines = log.lines().filter(|line| line.ends_with(&format!("failed login as {user}")));
        assert_eq!(lines.count(), proofs.len(), "{log}");
    }
}

#[test]
fn a_name_that_is_none_takes_the_same_steps_and_reaches_no_log_as_it_is() {
    let house = House::of(&["anna"]);
    let towd = house.towd(["-vv"]);
    let names =
        ["..", "a/b", "A", "anna ", "an\u{1b}[2Jna", "x\u{9b}31m", "a\nb", &"x".repeat(400)];
    for (from, name) in (1..).zip(names) {
        let from = std::net::Ipv4Addr::new(127, 0, 4, from).into();
        let mut peer = greeted_from(from, towd.addr());
        let first = to_base64(format!("n,,n={name},r=abcdefgh").as_bytes());
        let said = ask(&mut peer, &format!("auth scram-sha-256 data={first}"));
        assert!(said.starts_with("334 "), "{name:?}: {said}");
        assert_eq!(ask(&mut peer, "334 data=biws"), WRONG);
    }
    let log = towd.stderr();
    assert!(!log.contains(['\u{1b}', '\u{9b}']) && !log.contains("a\nb"), "{log:?}");
    assert_eq!(fs::read_dir(house.root()).unwrap().count(), 1);
}

#[test]
fn a_message_that_is_no_login_is_refused_without_a_challenge() {
    let house = House::of(&["anna"]);
    let towd = house.towd([]);
    let long = "x".repeat(1025);
    for message in [
        "",
        "n,,n=anna",
        "n,,n=,r=abc",
        "n,,r=abc,n=anna",
        "y,,n=anna,r=abc",
        "p=tls-unique,,n=anna,r=abc",
        "n,a=root,n=anna,r=abc",
        "n,,m=x,n=anna,r=abc",
        "n,,n=anna,r=abc,x=y",
        "n,,n=a=2na,r=abc",
        &long,
    ] {
        let mut peer = greeted(towd.addr());
        let line = format!("auth scram-sha-256 data={}", to_base64(message.as_bytes()));
        assert!(ask(&mut peer, &line).starts_with("400 "), "{message}");
        assert_eq!(ask(&mut peer, "ls /"), NOBODY);
    }
    // Never offered here: no account allows it.
    let mut peer = greeted(towd.addr());
    let line = format!("auth cram-md5 data={}", to_base64(b"anna"));
    assert!(ask(&mut peer, &line).starts_with("430 the server does not take this"));
    assert!(ask(&mut peer, "auth plain data=AGFubmEAeA").starts_with("400 "));
}

#[test]
fn a_proof_is_worth_nothing_for_another_exchange() {
    let house = House::of(&["anna", "ben"]);
    let towd = house.towd([]);
    let mut first = greeted(towd.addr());
    let (client, begins) = auth_line("anna", [4; 18]);
    let said = ask(&mut first, begins.trim_end());
    let (_, proof) = proof_line(client, &challenge(&said).unwrap(), PASSWORD);
    assert!(ask(&mut first, proof.trim_end()).starts_with("230 "));
    // The very bytes, on another connection, twice on one, and for somebody else.
    let mut second = greeted(towd.addr());
    for _ in 0..2 {
        assert_ne!(ask(&mut second, begins.trim_end()), said);
        assert_eq!(ask(&mut second, proof.trim_end()), WRONG);
    }
    begin(&mut second, "ben").unwrap();
    assert_eq!(ask(&mut second, proof.trim_end()), WRONG);
    // All of it at once, as somebody would who has recorded it.
    let mut third = greeted(towd.addr());
    third.send(format!("{begins}{proof}ls /\n"));
    assert!(third.read_line().starts_with("334 "));
    assert_eq!(third.read_line(), WRONG);
    assert_eq!(third.read_line(), NOBODY);
}

#[test]
fn no_nonce_comes_twice() {
    let house = House::of(&["anna"]);
    let towd = house.towd(["-q"]);
    let mut nonces = BTreeSet::new();
    let (_, line) = auth_line("anna", [4; 18]);
    while nonces.len() < 2000 {
        let mut message = None;
        // Some that were left may still count as being tried.
        assert!(support::wait_until(PATIENCE, || {
            message = challenge(&ask(&mut greeted(towd.addr()), line.trim_end()));
            message.is_some()
        }));
        let text = String::from_utf8(message.unwrap()).unwrap();
        let nonce = text.split(',').next().unwrap().to_owned();
        let ours = STANDARD.encode([4; 18]);
        let theirs = nonce.strip_prefix("r=").unwrap().strip_prefix(&ours).unwrap();
        assert_eq!(STANDARD.decode(theirs).unwrap().len(), 18);
        assert!(nonces.insert(nonce));
    }
}

#[test]
fn cram_md5_lets_in_only_whom_the_operator_allows_it() {
    let house = House::of(&["anna", "ben"]);
    let password = support::people::password(PASSWORD);
    house.change("ben", |account| account.cram_md5 = Some(CramVerifier::new(&password)));
    let towd = house.towd([]);
    let ls = |user| {
        let url = url(towd.addr(), user, "");
        run(tow_with(PASSWORD, ["--auth", "cram-md5", "ls", &url]))
    };
    ls("ben").exits(0);
    ls("anna").exits(4).says(&["(430)"]);
    ls("eve").exits(4).says(&["(430)"]);
    // A challenge is for the name that it was asked for, whoever else has the same password.
    house.change("anna", |account| account.cram_md5 = Some(CramVerifier::new(&password)));
    ls("anna").exits(0);
    let mut peer = greeted(towd.addr());
    let line = format!("auth cram-md5 data={}", to_base64(b"anna"));
    let message = challenge(&ask(&mut peer, &line)).unwrap();
    let ben = support::people::name("ben");
    let answer = towpath::auth::cram::answer(&ben, &password, &message).unwrap();
    let said = ask(&mut peer, &format!("334 data={}", to_base64(answer.as_bytes())));
    assert_eq!(said, WRONG);
}

/// A server that follows a script, once for each connection, and takes down what it hears.
struct Liar {
    fake: Fake,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Liar {
    /// Greets like this; then the script gets each line of the client and says what comes next.
    fn start(
        greeting: &'static str,
        script: impl Fn(usize, &str) -> Option<String> + Send + 'static,
    ) -> Self {
        let heard = Arc::default();
        let hears = Arc::clone(&heard);
        let fake = Fake::start(move |peer| converse(peer, greeting, &script, &hears));
        Self { fake, heard }
    }

    /// What `tow` makes of it, with patience for some tries, and what it has said.
    fn tow(&self, args: &[&str]) -> (Ran, Vec<String>) {
        let url = url(self.fake.addr(), "anna", "");
        let ran = run(tow_with(PASSWORD, ["--give-up", "2s"].iter().chain(args).chain([&&*url])));
        (ran, std::mem::take(&mut self.heard.lock().unwrap()))
    }
}

fn converse(
    peer: &mut Raw,
    greeting: &str,
    script: &dyn Fn(usize, &str) -> Option<String>,
    heard: &Mutex<Vec<String>>,
) {
    let mut next = Some(greeting.to_owned());
    let mut count = 0;
    while let Some(line) = next {
        if peer.stream().write_all(format!("{line}\n").as_bytes()).is_err() {
            return;
        }
        let Ok(Some(line)) = peer.try_line(PATIENCE) else { return };
        next = script(count, &line);
        count += 1;
        heard.lock().unwrap().push(line);
    }
}

#[test]
fn a_server_that_offers_less_than_it_should_is_told_nothing() {
    for (greeting, words) in [
        ("220 tow/1 digests=md5-tree,md5 login=cram-md5", "does not offer scram-sha-256"),
        ("220 tow/1 digests=md5-tree,md5 login=anonymous", "does not offer scram-sha-256"),
        ("220 tow/1 digests=md5-tree,md5 login=cram-md5,anonymous", "does not offer scram-sha-256"),
        ("220 tow/1 digests=md5-tree,md5 login=none", "has no logins"),
    ] {
        let liar = Liar::start(greeting, |_, _| Some("230 user=anna rights=rwd".to_owned()));
        let (ran, heard) = liar.tow(&["ls"]);
        ran.exits(4).says(&["not logged in", words]);
        assert!(heard.is_empty(), "{greeting}: {heard:?}");
        let file = TestDir::new();
        fs::write(file.join("f"), "secret").unwrap();
        let (ran, heard) = liar.tow(&["put", file.join("f").to_str().unwrap()]);
        ran.exits(4);
        assert!(heard.is_empty(), "{greeting}: {heard:?}");
    }
    // Nor does one that says nothing of logins, or of ways that are not known, get more.
    for greeting in ["220 tow/1 digests=md5-tree,md5", "220 tow/1 login=plain"] {
        let liar = Liar::start(greeting, |_, _| Some("230 user=anna rights=rwd".to_owned()));
        let (ran, heard) = liar.tow(&["ls"]);
        assert_ne!(ran.code, Some(0));
        assert!(heard.is_empty(), "{greeting}: {heard:?}");
    }
}

const SCRAM: &str = "220 tow/1 digests=md5-tree,md5 login=scram-sha-256,cram-md5,anonymous";

/// The client's first message in its line.
fn first_of(line: &str) -> ClientFirst {
    let line = line.split_once(' ').map(|(sum, rest)| (sum.starts_with("sum="), rest));
    let line = line.filter(|(sum, _)| *sum).map_or_else(String::new, |(_, rest)| rest.to_owned());
    match Said::parse(line.as_bytes()).unwrap() {
        Said::Auth { initial, .. } => ClientFirst::parse(&initial).unwrap(),
        other => unreachable!("{other}"),
    }
}

/// A challenge from somebody who does not know the password.
fn challenge_of(first: ClientFirst) -> String {
    let another = support::people::password("a guess");
    let verifier = ScramVerifier::new(&another, [1; 16], 4096);
    let (_, challenge) = ScramServer::new(first, verifier, [5; 18]);
    format!("334 data={}", to_base64(challenge.as_bytes()))
}

#[test]
fn a_server_that_cannot_prove_itself_is_not_trusted() {
    let welcome = "230 user=anna rights=rwd";
    let other = to_base64(format!("v={}", STANDARD.encode([7; 32])).as_bytes());
    for after in [
        welcome.to_owned(),
        format!("{welcome} data="),
        format!("{welcome} data=dj0"),
        format!("{welcome} data=*"),
        format!("{welcome} data={other}"),
        format!("{welcome} data={}", to_base64(b"e=other-error")),
    ] {
        let liar = Liar::start(SCRAM, move |nth, line| {
            (nth == 0)
                .then(|| {
                    let first = first_of(line);
                    challenge_of(first)
                })
                .or_else(|| (nth == 1).then(|| after.clone()))
        });
        let (ran, heard) = liar.tow(&["ls"]);
        ran.exits(4).says(&["could not prove that it knows this user"]);
        // It has the proof, which is what SCRAM gives away, and no command.
        assert_eq!(heard.len(), 2, "{heard:?}");
        assert!(heard[1].starts_with("334 data="));
    }
}

#[test]
fn a_server_that_asks_for_no_proof_at_all_is_not_trusted() {
    for answer in ["230 user=anna rights=rwd", "230 user=anna rights=rwd data=dj0"] {
        let liar = Liar::start(SCRAM, move |nth, _| (nth == 0).then(|| answer.to_owned()));
        for auth in ["scram-sha-256", "cram-md5"] {
            let (ran, heard) = liar.tow(&["--auth", auth, "ls"]);
            ran.exits(4).says(&["could not prove that it knows this user"]);
            assert_eq!(heard.len(), 1, "{heard:?}");
        }
    }
}

#[test]
fn a_challenge_that_asks_for_the_wrong_thing_is_refused_before_anything_is_computed() {
    type Make = fn(&str) -> String;
    let salt = STANDARD.encode([1; 16]);
    let challenges: [(Make, &str); 9] = [
        (|nonce| format!("r={nonce}x,s=SALT,i=1"), "asks for 1 iterations"),
        (|nonce| format!("r={nonce}x,s=SALT,i=4095"), "asks for 4095 iterations"),
        (|nonce| format!("r={nonce}x,s=SALT,i=4000000000"), "asks for 4000000000 iterations"),
        (|nonce| format!("r={nonce}x,s=SALT,i=99999999999999999999"), "bad iterations"),
        (|nonce| format!("r={nonce}x,s=,i=4096"), "salt too short"),
        (|nonce| format!("r={nonce},s=SALT,i=4096"), "does not extend"),
        (|_| "r=other,s=SALT,i=4096".to_owned(), "does not extend"),
        (|nonce| format!("m=x,r={nonce}x,s=SALT,i=4096"), "not supported"),
        (|_| "<1896.697170952@post.office>".to_owned(), "malformed"),
    ];
    for (make, words) in challenges {
        let salt = salt.clone();
        let liar = Liar::start(SCRAM, move |nth, line| {
            (nth == 0).then(|| {
                let challenge = make(first_of(line).nonce()).replace("SALT", &salt);
                format!("334 data={}", to_base64(challenge.as_bytes()))
            })
        });
        let (ran, heard) = liar.tow(&["ls"]);
        ran.exits(4).says(&["not logged in", words]);
        // No proof, and no second try.
        assert_eq!(heard.len(), 1, "{words}: {heard:?}");
    }
}

#[test]
fn what_a_server_says_about_a_login_shows_no_control_characters() {
    let liar = Liar::start(SCRAM, |nth, _| {
        (nth == 0).then(|| "430 \u{1b}]0;owned\u{7} wrong\u{9b}".to_owned())
    });
    let (ran, _) = liar.tow(&["ls"]);
    assert_ne!(ran.code, Some(0));
    assert!(!ran.stderr.contains(['\u{1b}', '\u{7}', '\u{9b}']), "{:?}", ran.stderr);
}

#[test]
fn a_password_does_not_cross_the_line() {
    let liar = Liar::start("220 tow/1 digests=md5-tree,md5 login=scram-sha-256 register=open", {
        |nth, line| {
            Some(match nth {
                0 if line.contains("register") => "200 you can log in now".to_owned(),
                0 => challenge_of(first_of(line)),
                _ => "430 wrong name or password".to_owned(),
            })
        }
    });
    for (args, code, lines) in [(["ls"], 4, 2), (["register"], 0, 1)] {
        let (ran, heard) = liar.tow(&args);
        ran.exits(code);
        assert_eq!(heard.len(), lines, "{heard:?}");
        for line in heard {
            has_no_canary("the line", line.as_bytes());
            let data = line.split_once("data=").and_then(|(_, data)| from_base64(data));
            has_no_canary("what the line says", &data.unwrap_or_default());
        }
    }
}

#[test]
fn somebody_who_failed_leaves_nothing_to_whoever_comes_next_on_the_connection() {
    let house = House::of(&["anna", "ben"]);
    let towd = house.towd([]);
    let mut peer = greeted(towd.addr());
    assert_eq!(log_in_with(&mut peer, "anna", "a wrong password"), WRONG);
    log_in(&mut peer, "ben");
    assert_eq!(ask(&mut peer, "whoami"), "200 user=ben rights=rwd");
    assert_eq!(ask(&mut peer, "mkdir /d"), "200");
    assert!(house.home("ben").join("d").exists() && !house.home("anna").exists());
}
