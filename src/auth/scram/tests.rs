//! The vectors of RFC 7677, and what an attacker on either side may try.

use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;
use crate::auth::{Password, UserName};

const CLIENT_FIRST: &str = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
const SERVER_NONCE: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
const SERVER_FIRST: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                            s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
const CLIENT_FINAL: &str = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                            p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
const SERVER_FINAL: &str = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";

fn pencil() -> Password {
    Password::new("pencil").unwrap()
}

fn user() -> UserName {
    "user".parse().unwrap()
}

fn verifier() -> ScramVerifier {
    static VERIFIER: LazyLock<ScramVerifier> = LazyLock::new(|| {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap().try_into().unwrap();
        ScramVerifier::new(&pencil(), salt, 4096)
    });
    VERIFIER.clone()
}

fn server_with(verifier: ScramVerifier, nonce: &str) -> ScramServer {
    let first = ClientFirst::parse(CLIENT_FIRST.as_bytes()).unwrap();
    ScramServer::with_nonce_text(first, verifier, nonce).0
}

fn server() -> ScramServer {
    server_with(verifier(), SERVER_NONCE)
}

fn client() -> ScramClient {
    ScramClient::with_nonce_text(&user(), "rOprNGfwEbeRWgbNEkqO").0
}

fn keys(salt: &[u8], iterations: u32) -> ClientKeys {
    ClientKeys::derive(&pencil(), salt, iterations)
}

#[test]
fn both_sides_say_what_rfc_7677_says() {
    let (client, first) = ScramClient::with_nonce_text(&user(), "rOprNGfwEbeRWgbNEkqO");
    assert_eq!(first, CLIENT_FIRST);
    let parsed = ClientFirst::parse(first.as_bytes()).unwrap();
    assert_eq!((parsed.name(), parsed.nonce()), ("user", "rOprNGfwEbeRWgbNEkqO"));
    let (server, answer) = ScramServer::with_nonce_text(parsed, verifier(), SERVER_NONCE);
    assert_eq!(answer, SERVER_FIRST);
    let (proof, last) = client.answer(answer.as_bytes(), keys).unwrap();
    assert_eq!(last, CLIENT_FINAL);
    let proven = server.verify(last.as_bytes()).unwrap();
    assert_eq!(proven, SERVER_FINAL);
    assert_eq!(proof.check(proven.as_bytes()), Ok(()));
}

#[test]
fn a_login_with_random_nonces_works_and_only_with_the_right_password() {
    let name = "anna.b-c_1".parse().unwrap();
    for (typed, right) in [("pencil", true), ("pencil ", false), ("Pencil", false)] {
        let (client, first) = ScramClient::new(&name, [3; 18]);
        let first = ClientFirst::parse(first.as_bytes()).unwrap();
        let (server, answer) = ScramServer::new(first, verifier(), [250; 18]);
        let typed = Password::new(typed).unwrap();
        let keys = |salt: &[u8], iterations| ClientKeys::derive(&typed, salt, iterations);
        let (proof, last) = client.answer(answer.as_bytes(), keys).unwrap();
        let proven = server.verify(last.as_bytes());
        assert_eq!(proven.is_ok(), right);
        assert_eq!(proven.is_ok_and(|v| proof.check(v.as_bytes()).is_ok()), right);
    }
}

#[test]
fn a_replayed_proof_is_worth_nothing_for_another_nonce() {
    assert!(server().verify(CLIENT_FINAL.as_bytes()).is_ok());
    let other = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k1";
    let replayed = server_with(verifier(), other).verify(CLIENT_FINAL.as_bytes());
    assert_eq!(replayed, Err(ScramError::Refused));
    // Nor does it help to name the nonce of the day.
    let renamed = CLIENT_FINAL.replace(SERVER_NONCE, other);
    let replayed = server_with(verifier(), other).verify(renamed.as_bytes());
    assert_eq!(replayed, Err(ScramError::Refused));
}

#[test]
fn a_proof_over_a_nonce_that_is_not_the_servers_is_refused() {
    // Made by somebody who knows the password, over another server nonce.
    let forged = SERVER_FIRST.replace("$k0", "$k9");
    let (_, last) = client().answer(forged.as_bytes(), keys).unwrap();
    assert_eq!(server().verify(last.as_bytes()), Err(ScramError::Refused));
}

#[test]
fn a_proof_with_another_header_or_an_extension_is_refused() {
    let (client_first_bare, nonce) = (&CLIENT_FIRST[3..], &SERVER_FIRST[2..52]);
    for (without_proof, fits) in [
        (format!("c=biws,r={nonce}"), true),
        (format!("c=eSws,r={nonce}"), false),
        (format!("c=biws,r={nonce}x"), false),
        (format!("c=biws,r={}", &nonce[1..]), false),
        (format!("c=biws,r={nonce},x=1"), false),
        (format!("m=1,c=biws,r={nonce}"), false),
        (format!("r={nonce},c=biws"), false),
    ] {
        // Whoever sends this knows the keys, and signs what he sends.
        let message = format!("{client_first_bare},{SERVER_FIRST},{without_proof}");
        let keys = keys(verifier().salt(), 4096);
        let signature = crate::auth::hmac::hmac(&verifier().stored_key, &[message.as_bytes()]);
        let proof = STANDARD.encode(xor(&keys.client_key, &signature));
        let sent = format!("{without_proof},p={proof}");
        assert_eq!(server().verify(sent.as_bytes()).is_ok(), fits, "{sent}");
    }
}

#[test]
fn every_byte_of_the_proof_counts() {
    let at = CLIENT_FINAL.find("p=").unwrap() + 2;
    let proof = decode_32(&CLIENT_FINAL[at..]).unwrap();
    for byte in 0..32 {
        for bit in 0..8 {
            let mut wrong = proof;
            wrong[byte] ^= 1 << bit;
            let sent = format!("{}{}", &CLIENT_FINAL[..at], STANDARD.encode(wrong));
            assert_eq!(server().verify(sent.as_bytes()), Err(ScramError::Refused));
        }
    }
    for place in 0..CLIENT_FINAL.len() {
        let mut wrong = CLIENT_FINAL.as_bytes().to_vec();
        wrong[place] ^= 1;
        assert_eq!(server().verify(&wrong), Err(ScramError::Refused), "{place}");
    }
    // Nor is there a second way to write it.
    for more in ["=", " ", "\n", ",p=", "\0"] {
        let sent = format!("{CLIENT_FINAL}{more}");
        assert_eq!(server().verify(sent.as_bytes()), Err(ScramError::Refused), "{more:?}");
    }
}

#[test]
fn messages_cut_short_are_errors() {
    for end in 0..CLIENT_FINAL.len() {
        let cut = &CLIENT_FINAL.as_bytes()[..end];
        assert_eq!(server().verify(cut), Err(ScramError::Refused), "{end}");
    }
    for end in 0..CLIENT_FIRST.len() {
        let cut = ClientFirst::parse(&CLIENT_FIRST.as_bytes()[..end]);
        // What is cut within the nonce is still a message, with a shorter nonce.
        assert_eq!(cut.is_ok(), end > CLIENT_FIRST.find("r=").unwrap() + 2, "{end}");
    }
    for end in 0..SERVER_FIRST.len() {
        assert!(client().answer(&SERVER_FIRST.as_bytes()[..end], keys).is_err(), "{end}");
    }
    for end in 0..SERVER_FINAL.len() {
        let (proof, _) = client().answer(SERVER_FIRST.as_bytes(), keys).unwrap();
        assert!(proof.check(&SERVER_FINAL.as_bytes()[..end]).is_err(), "{end}");
    }
}

#[test]
fn a_message_beyond_the_limit_is_refused() {
    for (padding, fits) in [(0, true), (1, false)] {
        let name = "x".repeat(LOGIN_MESSAGE_BYTES_MAX - "n,,n=,r=abc".len() + padding);
        let message = format!("n,,n={name},r=abc");
        assert_eq!(ClientFirst::parse(message.as_bytes()).is_ok(), fits);
    }
    let endless = vec![b','; 1 << 20];
    assert_eq!(ClientFirst::parse(&endless), Err(ScramError::TooLong));
    assert_eq!(server().verify(&endless), Err(ScramError::Refused));
    assert_eq!(client().answer(&endless, keys).unwrap_err(), ScramError::TooLong);
    for (length, fits) in [(64, true), (65, false)] {
        let message = format!("n,,n=a,r={}", "n".repeat(length));
        assert_eq!(ClientFirst::parse(message.as_bytes()).is_ok(), fits, "{length}");
    }
}

#[test]
fn channel_binding_identities_and_extensions_are_refused() {
    for (message, error) in [
        ("y,,n=user,r=abc", ScramError::ChannelBinding),
        ("p=tls-unique,,n=user,r=abc", ScramError::ChannelBinding),
        ("n,,m=x,n=user,r=abc", ScramError::Extension),
        ("n,,n=user,r=abc,x=y", ScramError::Extension),
        ("n,a=other,n=user,r=abc", ScramError::Malformed("no header n,,")),
        ("n,,n=,r=abc", ScramError::Malformed("bad user name")),
        ("n,,n=a=2cb,r=abc", ScramError::Malformed("bad user name")),
        ("n,,n=a=,r=abc", ScramError::Malformed("bad user name")),
        ("n,,n=user,r=", ScramError::Malformed("not a nonce")),
        ("n,,n=user,r=a c", ScramError::Malformed("not a nonce")),
        ("n,,r=abc,n=user", ScramError::Malformed("no user name")),
    ] {
        assert_eq!(ClientFirst::parse(message.as_bytes()), Err(error), "{message}");
    }
    let odd = ClientFirst::parse("n,,n=../=2C=3D\0é,r=abc".as_bytes()).unwrap();
    assert_eq!(odd.name(), "../,=\0é");
}

#[test]
fn a_server_that_asks_for_too_little_or_too_much_is_refused_before_any_hashing() {
    let first = |nonce: &str, salt: &str, count: &str| {
        let message = format!("r={nonce},s={salt},i={count}");
        let answered = client().answer(message.as_bytes(), |_, _| panic!("hashed"));
        answered.map(|_| ()).unwrap_err()
    };
    let (nonce, salt) = ("rOprNGfwEbeRWgbNEkqO0", "W22ZaJ0SNY7soEsUEjb6gQ==");
    for (count, error) in [
        ("1", ScramError::Iterations(1)),
        ("4095", ScramError::Iterations(4095)),
        ("10000001", ScramError::Iterations(10_000_001)),
        ("99999999999", ScramError::Malformed("bad iterations")),
        ("+4096", ScramError::Malformed("bad iterations")),
        ("", ScramError::Malformed("bad iterations")),
    ] {
        assert_eq!(first(nonce, salt, count), error, "{count}");
    }
    for wrong in ["rOprNGfwEbeRWgbNEkqO", "rOprNGfwEbeRWgbNEkqX0", "0", ""] {
        assert_eq!(first(wrong, salt, "4096"), ScramError::Nonce, "{wrong}");
    }
    let short = ScramError::Malformed("salt too short or too long");
    assert_eq!(first(nonce, "AAAA", "4096"), short);
    assert_eq!(first(nonce, "!", "4096"), ScramError::Malformed("bad salt"));
}

#[test]
fn a_server_that_does_not_know_the_user_is_found_out() {
    let (proof, _) = client().answer(SERVER_FIRST.as_bytes(), keys).unwrap();
    let other = "v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
    assert_eq!(proof.check(other.as_bytes()), Err(ScramError::ServerUnproven));
    let (proof, _) = client().answer(SERVER_FIRST.as_bytes(), keys).unwrap();
    assert_eq!(proof.check(b"e=other-error"), Err(ScramError::ServerUnproven));
}

#[test]
fn a_verifier_survives_its_text_and_odd_ones_are_refused() {
    let text = verifier().to_text();
    let [count, salt, stored, server] = text.split(':').collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!(text.parse(), Ok(verifier()));
    assert!(!text.contains('='));
    let salt_of = |bytes| base64::engine::general_purpose::STANDARD_NO_PAD.encode(vec![7u8; bytes]);
    for (bytes, fits) in [(7, false), (8, true), (64, true), (65, false)] {
        let text = format!("{count}:{}:{stored}:{server}", salt_of(bytes));
        let parsed = text.parse::<ScramVerifier>();
        assert_eq!(parsed.is_ok(), fits, "{bytes}");
        assert!(parsed.is_ok_and(|v| v.to_text() == text && v.salt().len() == bytes) == fits);
    }
    for (iterations, fits) in
        [("4095", false), ("4096", true), ("10000000", true), ("10000001", false)]
    {
        let text = format!("{iterations}:{salt}:{stored}:{server}");
        assert_eq!(text.parse::<ScramVerifier>().is_ok(), fits, "{iterations}");
    }
    for text in [
        String::new(),
        ":::".to_owned(),
        format!("{count}:{salt}:{stored}"),
        format!("{count}:{salt}:{stored}:"),
        format!("{count}:{salt}::{server}"),
        format!("{count}:{salt}:{stored}:{server}:"),
        format!("{count}:{salt}:{stored}:{server}="),
        format!("+{count}:{salt}:{stored}:{server}"),
        format!("{count}:{salt}:{}:{server}", &stored[1..]),
    ] {
        assert!(text.parse::<ScramVerifier>().is_err(), "{text}");
    }
}

#[test]
fn no_secret_is_shown() {
    let shown = format!("{:?} {:?} {:?}", verifier(), server(), keys(&[1; 16], 4096));
    let text = verifier().to_text();
    for secret in text.split(':').skip(2) {
        assert!(!shown.contains(secret));
    }
    assert!(!shown.contains("stored_key"), "{shown}");
}

proptest! {
    #[test]
    fn no_bytes_make_either_side_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = ClientFirst::parse(&bytes);
        prop_assert_eq!(server().verify(&bytes), Err(ScramError::Refused));
        prop_assert!(client().answer(&bytes, keys).is_err());
    }

    #[test]
    fn no_text_makes_either_side_panic(
        text in "(n,,|c=biws,|r=|s=|i=|n=|p=|v=|m=|,|=2C|[a-zA-Z0-9+/=]{0,40}){0,12}"
    ) {
        let _ = ClientFirst::parse(text.as_bytes());
        let _ = text.parse::<ScramVerifier>();
        prop_assert!(server().verify(text.as_bytes()).is_err());
    }
}
