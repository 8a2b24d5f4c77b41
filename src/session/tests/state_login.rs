//! AwaitCommand before the login, and what the rights allow behind it.

use std::time::Duration;

use super::scenario::{PASSWORD, Scenario, found, home_opened, put_line};
use crate::{
    auth::{
        ClientKeys, Password, Rights, UserName, cram,
        scram::{ScramClient, ScramProof},
    },
    limits::{LOGIN_DEADLINE, LOGIN_TRIES_MAX, WORKING_INTERVAL},
    session::{Job, Outcome, Wants},
    wire::{Code, Reply, from_base64, to_base64},
};

/// Sends the first message of a login, and returns the server's challenge.
fn challenge(scenario: &mut Scenario, name: &str, delay: Duration) -> (ScramClient, Vec<u8>) {
    let user: UserName = name.parse().unwrap();
    let (client, first) = ScramClient::new(&user, [5; 18]);
    scenario.line(&format!("auth scram-sha-256 data={}", to_base64(first.as_bytes())));
    assert_eq!(scenario.said(), ["start FindAccount"]);
    let not_before = scenario.now + delay;
    scenario.done(found(name, not_before));
    let said = scenario.said();
    let reply = Reply::parse(said[0].as_bytes()).unwrap();
    assert_eq!((said.len(), reply.code), (1, Code::Challenge));
    (client, from_base64(reply.field("data").unwrap()).unwrap())
}

/// The line that answers a challenge with this password.
fn proof(client: ScramClient, challenge: &[u8], password: &str) -> (ScramProof, String) {
    let password = Password::new(password).unwrap();
    let keys = |salt: &[u8], iterations| ClientKeys::derive(&password, salt, iterations);
    let (expected, proof) = client.answer(challenge, keys).unwrap();
    (expected, format!("334 data={}", to_base64(proof.as_bytes())))
}

const AT_ONCE: Duration = Duration::ZERO;
const WRONG: &str = "430 wrong name or password";

#[test]
fn the_right_password_opens_the_home_and_the_server_proves_itself() {
    let mut scenario = Scenario::nobody();
    let (client, challenge) = challenge(&mut scenario, "ann", AT_ONCE);
    let (expected, line) = proof(client, &challenge, PASSWORD);
    scenario.line(&line);
    assert_eq!(scenario.said(), ["start OpenHome"]);
    let Job::OpenHome(account) = &scenario.jobs[0].1 else { panic!("another job") };
    let account = account.clone();
    scenario.done(home_opened(account));
    let said = scenario.said();
    let reply = Reply::parse(said[0].as_bytes()).unwrap();
    assert_eq!(reply.code, Code::LoggedIn);
    assert_eq!((reply.field("user"), reply.field("rights")), (Some("ann"), Some("r")));
    expected.check(&from_base64(reply.field("data").unwrap()).unwrap()).unwrap();
    scenario.line("whoami");
    assert_eq!(scenario.said(), ["200 user=ann rights=r"]);
}

#[test]
fn wrong_unknown_and_locked_are_told_the_same() {
    for (name, password) in [("ann", "a wrong password"), ("eve", PASSWORD), ("bob", PASSWORD)] {
        let mut scenario = Scenario::nobody();
        let (client, challenge) = challenge(&mut scenario, name, AT_ONCE);
        let (_, line) = proof(client, &challenge, password);
        scenario.line(&line);
        assert_eq!(scenario.said(), [format!("login failed {name}"), WRONG.to_owned()], "{name}");
        assert_eq!(scenario.session.wants(), Wants::Lines);
    }
}

#[test]
fn a_proof_that_makes_no_sense_is_a_wrong_one_whoever_it_is_for() {
    for name in ["ann", "eve", "bob"] {
        for line in ["334 data=Yz1iaXdz", "334", "334 data=?", "226", "noop", "", "\u{7f}"] {
            let mut scenario = Scenario::nobody();
            challenge(&mut scenario, name, AT_ONCE);
            scenario.line(line);
            let expected = [format!("login failed {name}"), WRONG.to_owned()];
            assert_eq!(scenario.said(), expected, "{name} {line:?}");
        }
    }
}

#[test]
fn a_proof_is_not_looked_at_before_its_time() {
    let delay = Duration::from_secs(8);
    for (password, after) in
        [(PASSWORD, "start OpenHome"), ("a wrong password", "login failed ann")]
    {
        let mut scenario = Scenario::nobody();
        let (client, challenge) = challenge(&mut scenario, "ann", delay);
        let (_, line) = proof(client, &challenge, password);
        scenario.line(&line);
        assert_eq!(scenario.session.wants(), Wants::Nothing);
        assert_eq!(scenario.session.deadline(), scenario.now + delay);
        scenario.after(delay - Duration::from_nanos(1));
        assert_eq!(scenario.said(), [""; 0]);
        scenario.after(Duration::from_nanos(1));
        assert_eq!(scenario.said()[0], after);
    }
}

#[test]
fn a_proof_of_another_exchange_is_refused() {
    let mut first = Scenario::nobody();
    let (client, challenge_of_first) = challenge(&mut first, "ann", AT_ONCE);
    let (_, line) = proof(client, &challenge_of_first, PASSWORD);
    let mut second = Scenario::nobody();
    second.line(&format!("auth scram-sha-256 data={}", to_base64(b"n,,n=ann,r=another")));
    let now = second.now;
    second.done(found("ann", now));
    second.said();
    second.line(&line);
    assert_eq!(second.said(), ["login failed ann", WRONG]);
}

#[test]
fn cram_md5_lets_in_whom_it_was_begun_for() {
    let (ann, eve) = ("ann".parse().unwrap(), "eve".parse().unwrap());
    for (name, signer, password, after) in [
        ("ann", &ann, PASSWORD, "start OpenHome"),
        ("ann", &ann, "a wrong password", "login failed ann"),
        ("eve", &eve, PASSWORD, "login failed eve"),
        // Begun for one, signed by another.
        ("eve", &ann, PASSWORD, "login failed eve"),
    ] {
        let mut scenario = Scenario::nobody();
        scenario.line(&format!("auth cram-md5 data={}", to_base64(name.as_bytes())));
        let now = scenario.now;
        scenario.done(found(name, now));
        let reply = Reply::parse(scenario.said().last().unwrap().as_bytes()).unwrap();
        let challenge = from_base64(reply.field("data").unwrap()).unwrap();
        let password = Password::new(password).unwrap();
        let answer = cram::answer(signer, &password, &challenge).unwrap();
        scenario.line(&format!("334 data={}", to_base64(answer.as_bytes())));
        assert_eq!(scenario.said()[0], after, "{name} {signer}");
    }
}

#[test]
fn before_the_login_there_is_nothing_but_the_login() {
    for verb in [
        "get /f",
        "ls /",
        "stat /f",
        "md5 /f",
        "mkdir /d",
        "rm /f",
        "rmdir /d",
        "mv /a /b",
        "whoami",
        "quota",
        "actions",
        "run a",
        "noop",
        &put_line(5, ""),
    ] {
        let mut scenario = Scenario::nobody();
        scenario.line(verb);
        assert_eq!(scenario.said(), ["530 log in first"], "{verb}");
        assert!(scenario.jobs.is_empty(), "{verb}");
    }
    let mut scenario = Scenario::nobody();
    scenario.line("register eve scram=x");
    assert_eq!(scenario.said(), ["start Register"]);
    let mut scenario = Scenario::nobody();
    scenario.line("quit");
    assert_eq!(scenario.said(), ["221 goodbye", "close"]);
}

#[test]
fn who_tries_too_often_is_sent_away_with_little_said() {
    let bad = [
        "noop",
        "nonsense",
        "auth scram-sha-256 data=YQ",
        "auth nothing",
        "get ../x",
        "auth cram-md5",
        "\u{7f}",
    ];
    for line in bad {
        let mut scenario = Scenario::nobody();
        let mut said = Vec::new();
        for _ in 0..LOGIN_TRIES_MAX {
            assert!(!scenario.session.is_closed(), "{line}");
            said.extend(scenario.line(line).said());
        }
        assert_eq!(said.last().unwrap(), "close", "{line}");
        let greeting = 120;
        assert!(said.concat().len() + greeting < 1024, "{said:?}");
    }
}

#[test]
fn a_login_has_one_deadline_for_all_of_it() {
    let mut scenario = Scenario::nobody();
    challenge(&mut scenario, "ann", AT_ONCE);
    // A command now and then buys no time.
    for _ in 0..3 {
        scenario.after(LOGIN_DEADLINE / 4).line("noop");
    }
    scenario.said();
    scenario.after(LOGIN_DEADLINE / 4);
    assert_eq!(scenario.said(), ["408 you took too long to log in", "close"]);
}

#[test]
fn the_time_that_the_server_takes_for_a_login_does_not_count() {
    let mut scenario = Scenario::nobody();
    scenario.line("auth anonymous").said();
    scenario.after(WORKING_INTERVAL);
    assert_eq!(scenario.said(), ["100 still working"]);
    scenario.after(LOGIN_DEADLINE * 2);
    assert_eq!(scenario.said(), ["100 still working"]);
    scenario.done(home_opened(None));
    assert!(scenario.said()[0].starts_with("230 "));
}

#[test]
fn a_login_that_is_done_has_no_deadline_left() {
    let mut scenario = Scenario::user(Rights::READ);
    scenario.after(LOGIN_DEADLINE);
    assert_eq!(scenario.said(), [""; 0]);
}

#[test]
fn a_mechanism_that_is_not_offered_is_refused() {
    let mut scenario = Scenario::new();
    scenario.line("auth anonymous");
    assert_eq!(scenario.said(), ["406 this server has no logins"]);
}

#[test]
fn each_command_needs_its_rights_and_no_others() {
    let (r, w, d, a) = (Rights::READ, Rights::WRITE, Rights::DELETE, Rights::ACTIONS);
    let commands = [
        ("get /f", r),
        ("ls /", r),
        ("stat /f", r),
        ("md5 /f", r),
        (&*put_line(5, ""), w),
        ("mkdir /d", w),
        ("rm /f", d),
        ("rmdir /d", d),
        ("mv /a /b", w.union(d)),
        ("actions", a),
        ("run x", a),
        ("quota", Rights::NONE),
    ];
    let sets = (0..16).map(|bits| {
        let all = [r, w, d, a].into_iter().enumerate();
        let chosen = all.filter(|(at, _)| bits >> at & 1 == 1);
        chosen.fold(Rights::NONE, |sum, (_, right)| sum.union(right))
    });
    for rights in sets {
        for (command, needed) in commands {
            let mut scenario = Scenario::user(rights);
            scenario.line(command);
            let allowed = scenario.said()[0].starts_with("start ");
            assert_eq!(allowed, rights.contains(needed), "{command} with {rights}");
            assert_eq!(scenario.session.wants() == Wants::Lines, !allowed);
        }
    }
}

#[test]
fn replacing_a_file_needs_the_right_to_delete() {
    let replaces = |mut scenario: Scenario| {
        scenario.line(&put_line(5, ""));
        matches!(scenario.jobs[0].1, Job::OpenPartial { replace: true, .. })
    };
    assert!(!replaces(Scenario::user(Rights::WRITE)));
    assert!(replaces(Scenario::user(Rights::WRITE.union(Rights::DELETE))));
    assert!(replaces(Scenario::new()));
}

#[test]
fn nobody_runs_actions_on_a_server_without_logins() {
    let mut scenario = Scenario::new();
    scenario.line("run disk");
    let refused = "refused run \"disk\"";
    assert_eq!(scenario.said(), [refused, "406 your account has no right to run actions"]);
}

#[test]
fn the_log_learns_of_each_run_and_each_account_that_was_refused() {
    let mut scenario = Scenario::user(Rights::ALL);
    scenario.line("run disk arg=/");
    scenario.said();
    scenario.done(Outcome::Failed(Reply::text(Code::UnknownAction, "no such action")));
    assert_eq!(scenario.said(), ["refused run \"disk\"", "407 no such action"]);
    scenario.line("register eve scram=x");
    assert_eq!(scenario.said(), ["refused register \"eve\"", "406 you are logged in already"]);

    let mut scenario = Scenario::nobody();
    scenario.line("register eve scram=x");
    scenario.said();
    scenario.done(Outcome::Failed(Reply::text(Code::NameTaken, "taken")));
    assert_eq!(scenario.said(), ["refused register \"eve\"", "435 taken"]);
}

#[test]
fn a_lock_ends_a_connection_and_new_rights_hold_at_once() {
    let mut scenario = Scenario::user(Rights::ALL);
    let mut account = (**scenario.session.account().unwrap()).clone();
    account.rights = Rights::READ;
    let now = scenario.now;
    scenario.session.handle_account(Some(account.into()), now);
    scenario.line("mkdir /d");
    assert_eq!(scenario.said(), ["406 your account has no right to write"]);
    scenario.session.handle_account(None, now);
    assert_eq!(scenario.said(), ["530 the account is closed", "close"]);
}

#[test]
fn output_goes_on_until_the_action_ends_and_a_refusal_ends_it() {
    let mut scenario = Scenario::to_running();
    scenario.after(WORKING_INTERVAL);
    assert_eq!(scenario.said(), ["pulse"]);
    assert!(!scenario.session.takes_line(b"noop"), "a command waits for the end");
    scenario.line("410 enough");
    assert_eq!(scenario.said(), ["end action"]);
    assert!(scenario.session.runs_action());
    let now = scenario.now;
    scenario.session.handle_action_ended(now);
    assert_eq!(scenario.said(), ["release"]);
    scenario.line("noop");
    assert_eq!(scenario.said(), ["200"]);
}

#[test]
fn a_line_that_breaks_lets_go_of_the_action() {
    let mut scenario = Scenario::to_running();
    scenario.session.handle_broken("the line broke");
    assert_eq!(scenario.said(), ["release"]);
}

#[test]
fn a_failed_registration_counts_as_a_try() {
    let mut scenario = Scenario::nobody();
    for _ in 0..LOGIN_TRIES_MAX {
        scenario.line("register eve scram=x");
        scenario.done(Outcome::Failed(Reply::text(Code::BadInvite, "no")));
    }
    assert!(scenario.session.is_closed());
}
