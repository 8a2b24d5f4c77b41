//! The user file, and that nobody learns from an answer who has an account.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::auth::{
    CramVerifier, Home, Password, Rights, ScramVerifier,
    scram::{ClientFirst, ClientKeys, ScramClient, ScramServer},
};

const KEY: &str = "@decoy AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
const SCRAM: &str = "scram=200000:W22ZaJ0SNY7soEsUEjb6gQ:\
    WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU";
const CRAM: &str = "cram=00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

fn file(lines: &str) -> String {
    format!("{FIRST_LINE}\n{KEY}\n{lines}\n")
}

fn load(lines: &str) -> (Accounts, Vec<Warning>) {
    Accounts::parse(&file(lines)).unwrap()
}

fn name(text: &str) -> UserName {
    text.parse().unwrap()
}

/// A user with this password, hashed as little as is allowed.
fn account(user: &str, password: &str) -> Account {
    let scram = ScramVerifier::new(&Password::new(password).unwrap(), [9; 16], 4096);
    Account { scram: Some(scram), ..Account::new(name(user), Rights::ALL) }
}

fn logs_in(accounts: &Accounts, user: &str, password: &str) -> bool {
    let (client, first) = ScramClient::new(&name(user), [1; 18]);
    let first = ClientFirst::parse(first.as_bytes()).unwrap();
    let candidate = accounts.find(first.name());
    let (server, answer) = ScramServer::new(first, candidate.scram.clone(), [2; 18]);
    let password = Password::new(password).unwrap();
    let keys = |salt: &[u8], iterations| ClientKeys::derive(&password, salt, iterations);
    let (proof, last) = client.answer(answer.as_bytes(), keys).unwrap();
    let proven = server.verify(last.as_bytes());
    proven.is_ok_and(|v| proof.check(v.as_bytes()).is_ok()) && candidate.account().is_some()
}

#[test]
fn a_file_is_written_as_it_was_read() {
    let lines = format!(
        "# the family\n\nanna rights=rwda home=a%20b quota=10 quota_files=0 max_rate=7 {SCRAM} \
         {CRAM} locked\n  \nben rights=- {CRAM}\nodd rights=x {SCRAM}\n# the end"
    );
    let (accounts, warnings) = load(&lines);
    assert_eq!(*accounts.to_text(), file(&lines));
    assert_eq!(warnings.len(), 1);
    let anna = accounts.get(&name("anna")).unwrap();
    assert_eq!(anna.home.as_ref().unwrap().as_path(), Path::new("a b"));
    assert_eq!(anna.rights, Rights::ALL);
    assert_eq!((anna.quota_bytes, anna.quota_files), (Some(10), Some(0)));
    assert_eq!((anna.max_rate, anna.locked), (Some(7), true));
    assert_eq!(accounts.iter().count(), 2);
}

#[test]
fn an_odd_line_disables_its_user_and_nobody_else() {
    for (line, reason) in [
        ("anna rights=rwd".to_owned(), "no password"),
        ("anna".to_owned(), "no password"),
        ("anna rights=rwd scram=".to_owned(), "scram has an odd value"),
        ("anna rights=rwd scram=4096:::".to_owned(), "scram has an odd value"),
        (format!("anna rights=rwd {CRAM} scram="), "scram has an odd value"),
        (format!("anna rights=rwd {SCRAM}x"), "scram has an odd value"),
        (format!("anna rights=rwd {SCRAM} cram="), "cram has an odd value"),
        (format!("anna rights= {SCRAM}"), "rights has an odd value"),
        (format!("anna quota=10G {SCRAM}"), "quota has an odd value"),
        (format!("anna quota_files=+1 {SCRAM}"), "quota_files has an odd value"),
        (format!("anna max_rate= {SCRAM}"), "max_rate has an odd value"),
        (format!("anna lokced {SCRAM}"), "unknown word lokced"),
        (format!("anna locked=no {SCRAM}"), "unknown key locked"),
        (format!("anna \u{1b}=1 {SCRAM}"), "unknown key %1B"),
        (format!("anna {SCRAM} {SCRAM}"), "scram stands twice"),
    ] {
        let (accounts, warnings) = load(&format!("{line}\nben rights=r {SCRAM}"));
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert_eq!(warning.to_string(), format!("line 3: anna can't log in: {reason}"));
        assert!(accounts.find("anna").account().is_none(), "{line}");
        assert!(accounts.find("ben").account().is_some());
        assert_eq!(accounts.disabled().collect::<Vec<_>>(), [&name("anna")]);
        // Nothing of it is lost.
        assert!(accounts.to_text().contains(&line));
    }
}

#[test]
fn twins_are_disabled_all_of_them() {
    let twin = format!("anna rights=rwd {SCRAM}");
    let (mut accounts, warnings) = load(&format!("{twin}\nben rights=r {SCRAM}\n{twin}\nanna"));
    let lines: Vec<_> = warnings.iter().map(|warning| warning.line).collect();
    assert_eq!(lines, [3, 5, 6]);
    assert!(accounts.find("anna").account().is_none() && accounts.find("ben").account().is_some());
    // Whoever replaces her replaces them all.
    assert!(accounts.put(account("anna", "new password")));
    assert_eq!(accounts.to_text().matches("anna").count(), 1);
    assert!(logs_in(&accounts, "anna", "new password"));
}

#[test]
fn a_name_or_a_home_that_leads_elsewhere_spoils_the_whole_file() {
    for line in [
        "..",
        "a/b",
        "",
        "a\0b",
        "Anna",
        ".tow",
        "rights=r",
        "anonymous",
        "x home=..",
        "x home=",
        "x home=a%2F..%2Fb",
        "x home=a%00",
        "x home=a%",
        "x home=.tow",
        "x home=%2Etow/y",
        "x home",
        // Also if something else is wrong with it.
        "x odd=1 home=..",
    ] {
        let line = if line.is_empty() { format!(" {SCRAM}") } else { format!("{line} {SCRAM}") };
        let error = Accounts::parse(&file(&format!("ok rights=r {SCRAM}\n{line}"))).unwrap_err();
        assert_eq!(error.line, 4, "{line:?}");
        assert!(!error.to_string().contains('\0'));
    }
}

#[test]
fn a_file_without_its_head_is_none() {
    for (text, line) in [
        (String::new(), 1),
        ("anna rights=r".to_owned(), 1),
        ("# towpath users 2".to_owned(), 1),
        (FIRST_LINE.to_owned(), 1),
        (format!("{FIRST_LINE}\n@decoy AAAA"), 2),
        (format!("{FIRST_LINE}\n{KEY}\n{KEY}"), 3),
        (format!("{FIRST_LINE}\n{KEY}\n@other x"), 3),
        (format!("{FIRST_LINE}\nanna rights=r {SCRAM}"), 2),
    ] {
        assert_eq!(Accounts::parse(&text).unwrap_err().line, line, "{text:?}");
    }
}

#[test]
fn users_are_added_replaced_and_removed() {
    let mut accounts = load("# first\nben rights=r cram=00\n# last").0;
    assert!(accounts.put(account("anna", "swordfish")));
    assert!(logs_in(&accounts, "anna", "swordfish") && !logs_in(&accounts, "anna", "other"));
    assert!(accounts.put(account("ben", "hovercraft")));
    assert!(logs_in(&accounts, "ben", "hovercraft"));
    let text = accounts.to_text();
    let at = |word| text.find(word).unwrap();
    assert!(at("# first") < at("ben") && at("ben") < at("# last") && at("# last") < at("anna"));
    assert!(accounts.remove(&name("ben")) && !accounts.remove(&name("ben")));
    assert!(!logs_in(&accounts, "ben", "hovercraft"));
    assert!(!accounts.put(Account::new(UserName::anonymous(), Rights::ALL)));
    let (read, warnings) = Accounts::parse(&accounts.to_text()).unwrap();
    assert!(warnings.is_empty() && logs_in(&read, "anna", "swordfish"));
}

#[test]
fn a_locked_user_is_refused_and_looks_as_before() {
    let mut accounts = Accounts::new([5; 32]);
    let mut anna = account("anna", "swordfish");
    anna.cram_md5 = Some(CramVerifier::new(&Password::new("swordfish").unwrap()));
    assert!(accounts.put(anna.clone()));
    let before = accounts.find("anna");
    assert!(accounts.put(Account { locked: true, ..anna }));
    let after = accounts.find("anna");
    assert_eq!(before.scram.salt(), after.scram.salt());
    assert_eq!(before.scram.iterations(), after.scram.iterations());
    assert!(before.account().is_some() && after.account().is_none());
    assert!(before.scram != after.scram && before.cram != after.cram);
    assert!(!logs_in(&accounts, "anna", "swordfish"));
}

#[test]
fn known_unknown_and_locked_users_get_answers_of_one_form() {
    let lines = format!("anna rights=r {SCRAM}\nben rights=r {SCRAM} locked\ncleo rights=r {CRAM}");
    let accounts = load(&lines).0;
    let answer = |user: &str| {
        let first = ClientFirst::parse(format!("n,,n={user},r=abc").as_bytes()).unwrap();
        let candidate = accounts.find(first.name());
        let (server, answer) = ScramServer::new(first, candidate.scram, [7; 18]);
        let refused = [&b""[..], b"c=biws", b"c=biws,r=abc,p=AAAA"].map(|last| {
            let first = ClientFirst::parse(format!("n,,n={user},r=abc").as_bytes()).unwrap();
            let (server, _) = ScramServer::new(first, accounts.find(user).scram, [7; 18]);
            server.verify(last).unwrap_err()
        });
        drop(server);
        let salt = answer.split(',').nth(1).unwrap().to_owned();
        (answer.replace(&salt, "s="), salt.len(), refused)
    };
    let wanted = answer("anna");
    for user in ["ben", "cleo", "dora", "..", "é", &"x".repeat(300)] {
        assert_eq!(answer(user), wanted, "{user}");
    }
    // A salt stays the same, and differs from everybody else's.
    let salt = |user: &str| accounts.find(user).scram.salt().to_vec();
    assert_eq!(salt("dora"), salt("dora"));
    assert_ne!(salt("dora"), salt("dorb"));
    assert_ne!(salt("dora"), Accounts::new([1; 32]).find("dora").scram.salt());
}

#[test]
fn everybody_is_found_among_many_and_nobody_else() {
    let lines: Vec<_> = (0..500).map(|n| format!("u{n} rights=r {SCRAM}")).collect();
    let accounts = load(&lines.join("\n")).0;
    for n in 0..600 {
        let found = accounts.find(&format!("u{n}"));
        let found = found.account().map(|account| account.name.to_string());
        assert_eq!(found, (n < 500).then(|| format!("u{n}")));
    }
    assert!(accounts.find("").account().is_none());
    assert!(accounts.find("anonymous").account().is_none());
}

#[test]
fn no_secret_is_shown() {
    let accounts = load(&format!("anna rights=r {SCRAM} {CRAM}")).0;
    let shown =
        format!("{accounts:?} {:?} {:?}", accounts.find("anna"), accounts.get(&name("anna")));
    for secret in ["WG5d8o", "wfPLwc", "00112233", "AAAA"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[test]
fn homes_survive_the_file() {
    for path in [".", "a b=c%", "/srv/ä\n#", "x/.tow"] {
        let mut accounts = Accounts::new([0; 32]);
        let home = Some(Home::new(Path::new(path)).unwrap());
        assert!(accounts.put(Account { home: home.clone(), ..account("anna", "swordfish") }));
        let (read, warnings) = Accounts::parse(&accounts.to_text()).unwrap();
        assert!(warnings.is_empty());
        assert_eq!(read.get(&name("anna")).unwrap().home, home);
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}", lines in "([a-z./=@# %-]{0,20}\n){0,8}") {
        let _ = Accounts::parse(&text);
        if let Ok((accounts, _)) = Accounts::parse(&file(&lines)) {
            let again = Accounts::parse(&accounts.to_text()).unwrap().0;
            prop_assert_eq!(again.to_text(), accounts.to_text());
        }
    }
}

#[test]
fn a_user_is_got_by_name_and_nobody_else() {
    let mut accounts = Accounts::new([0; 32]);
    assert!(accounts.get(&UserName::anonymous()).is_none());
    let names: Vec<UserName> = (0..50).map(|n| name(&format!("user{n}"))).collect();
    for (count, new) in names.iter().enumerate() {
        assert!(accounts.put(Account::new(new.clone(), Rights::READ)));
        for (at, name) in names.iter().enumerate() {
            let got = accounts.get(name).map(|account| &account.name);
            assert_eq!(got, (at <= count).then_some(name));
        }
    }
    assert!(accounts.get(&UserName::anonymous()).is_none());
}
