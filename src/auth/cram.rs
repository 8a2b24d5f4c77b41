//! CRAM-MD5 (RFC 2195), for users to whom an administrator gives it: the client sends
//! `NAME HMAC-MD5(password, challenge)`.
//!
//! It is weaker than SCRAM: the server does not prove itself, who listens can guess passwords
//! against what he saw, and what the server keeps is enough to log in with. MD5 being broken for
//! collisions does not break HMAC-MD5.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use zeroize::{Zeroize, Zeroizing};

use super::{Password, UserName};
use crate::{
    digest::{FileMd5, Md5Digest, SavedMd5},
    limits::LOGIN_MESSAGE_BYTES_MAX,
};

/// Name of the mechanism.
pub const MECHANISM: &str = "CRAM-MD5";

/// Bytes that MD5 takes at a time; a key is filled up to it.
const BLOCK: usize = 64;

/// Why a login by CRAM-MD5 goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CramError {
    /// A message beyond [`LOGIN_MESSAGE_BYTES_MAX`] bytes.
    #[error("login message longer than {LOGIN_MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    /// Not a challenge, or no name in front of a digest.
    #[error("malformed login message")]
    Malformed,
}

/// What a server keeps of a password: the states of HMAC's two MD5s after their key blocks.
///
/// They hide the password, but for this mechanism they are as good as it: who reads them can log
/// in. As text they are 64 hexadecimal digits, the inner state first. Overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct CramVerifier {
    inner: [u8; 16],
    outer: [u8; 16],
}

/// A text is no verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 64 hexadecimal digits")]
pub struct CramVerifierError;

impl CramVerifier {
    /// From a password.
    #[must_use]
    pub fn new(password: &Password) -> Self {
        Self::of_key(password.as_bytes())
    }

    fn of_key(key: &[u8]) -> Self {
        let digest = Zeroizing::new(Md5Digest::of(key).0);
        let key = if key.len() > BLOCK { digest.as_slice() } else { key };
        let state = |pad: u8| {
            let mut block = Zeroizing::new([pad; BLOCK]);
            for (to, from) in block.iter_mut().zip(key) {
                *to ^= from;
            }
            let mut md5 = FileMd5::new();
            md5.update(&*block);
            // A whole block can always be saved.
            md5.save().map_or([0; 16], |saved| saved.state)
        };
        Self { inner: state(0x36), outer: state(0x5c) }
    }

    /// From its parts.
    pub(super) fn from_parts(inner: [u8; 16], outer: [u8; 16]) -> Self {
        Self { inner, outer }
    }

    /// HMAC-MD5 of a message.
    fn hmac(&self, message: &[u8]) -> [u8; 16] {
        let go_on = |state, bytes: &[u8]| {
            // No state is refused at a multiple of the block.
            let mut md5 = FileMd5::restore(SavedMd5 { state, position: 64 }).unwrap_or_default();
            md5.update(bytes);
            md5.finish().0
        };
        go_on(self.outer, &go_on(self.inner, message))
    }

    /// `if_set` if `choice` is set, else `self`, in constant time.
    pub(super) fn or(&self, if_set: &Self, choice: Choice) -> Self {
        let mut chosen = self.clone();
        chosen.inner.conditional_assign(&if_set.inner, choice);
        chosen.outer.conditional_assign(&if_set.outer, choice);
        chosen
    }

    /// The text of the user file; not a `Display`, since it does not belong anywhere else.
    pub(super) fn to_text(&self) -> String {
        format!("{}{}", Md5Digest(self.inner), Md5Digest(self.outer))
    }
}

impl FromStr for CramVerifier {
    type Err = CramVerifierError;

    fn from_str(text: &str) -> Result<Self, CramVerifierError> {
        let (inner, outer) = text.split_at_checked(32).ok_or(CramVerifierError)?;
        let state = |half: &str| half.parse::<Md5Digest>().map_err(|_| CramVerifierError);
        Ok(Self { inner: state(inner)?.0, outer: state(outer)?.0 })
    }
}

impl Drop for CramVerifier {
    fn drop(&mut self) {
        self.inner.zeroize();
        self.outer.zeroize();
    }
}

impl fmt::Debug for CramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CramVerifier(..)")
    }
}

/// What a server asks to be signed, and nobody can have signed before: `<RANDOM@tow>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge(String);

impl Challenge {
    /// `random` must come from the system's random numbers, anew for each attempt.
    #[must_use]
    pub fn new(random: [u8; 18]) -> Self {
        Self(format!("<{}@tow>", STANDARD_NO_PAD.encode(random)))
    }

    /// What to send: one word of printable ASCII.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a client has sent: a name, and what shall prove it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CramResponse {
    name: String,
    /// `None` if it is no digest at all.
    digest: Option<Md5Digest>,
}

impl CramResponse {
    /// Reads `NAME DIGEST`. A digest that is none is found wrong only by [`verify`](Self::verify),
    /// as any other wrong one.
    ///
    /// # Errors
    /// Without a name in it. Depends on the message alone, never on whether there is such a user.
    pub fn parse(message: &[u8]) -> Result<Self, CramError> {
        let message = text(message)?;
        // RFC 2195: a name may have spaces, a digest has none.
        let (name, digest) = message.rsplit_once(' ').ok_or(CramError::Malformed)?;
        if name.is_empty() {
            return Err(CramError::Malformed);
        }
        Ok(Self { name: name.to_owned(), digest: digest.parse().ok() })
    }

    /// The name that wants to log in: any text, to be escaped before it is shown.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it proves that the client knows the password. The work is the same for every
    /// response.
    #[must_use]
    pub fn verify(&self, challenge: &Challenge, verifier: &CramVerifier) -> bool {
        let right = verifier.hmac(challenge.0.as_bytes());
        let sent = self.digest.unwrap_or(Md5Digest([0; 16]));
        let well_formed = Choice::from(u8::from(self.digest.is_some()));
        bool::from(sent.0.ct_eq(&right) & well_formed)
    }
}

/// The client's answer to a challenge.
///
/// # Errors
/// When the challenge is too long, or not printable ASCII in angle brackets.
pub fn answer(name: &UserName, password: &Password, challenge: &[u8]) -> Result<String, CramError> {
    let challenge = text(challenge)?;
    let printable = challenge.bytes().all(|byte| byte.is_ascii_graphic());
    if !printable || !challenge.starts_with('<') || !challenge.ends_with('>') {
        return Err(CramError::Malformed);
    }
    let digest = CramVerifier::new(password).hmac(challenge.as_bytes());
    Ok(format!("{name} {}", Md5Digest(digest)))
}

fn text(message: &[u8]) -> Result<&str, CramError> {
    if message.len() > LOGIN_MESSAGE_BYTES_MAX {
        return Err(CramError::TooLong);
    }
    std::str::from_utf8(message).map_err(|_| CramError::Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHALLENGE: &str = "<1896.697170952@postoffice.reston.mci.net>";
    const ANSWER: &str = "tim b913a602c7eda7a495b4e6e7334d3890";

    fn password() -> Password {
        Password::new("tanstaaftanstaaf").unwrap()
    }

    fn check(response: &str, challenge: &str) -> bool {
        let verifier = CramVerifier::new(&password());
        let challenge = Challenge(challenge.to_owned());
        CramResponse::parse(response.as_bytes()).is_ok_and(|r| r.verify(&challenge, &verifier))
    }

    #[test]
    fn both_sides_say_what_rfc_2195_says() {
        let tim = "tim".parse().unwrap();
        assert_eq!(answer(&tim, &password(), CHALLENGE.as_bytes()).unwrap(), ANSWER);
        assert!(check(ANSWER, CHALLENGE));
        assert_eq!(CramResponse::parse(ANSWER.as_bytes()).unwrap().name(), "tim");
    }

    #[test]
    fn hmac_md5_is_that_of_rfc_2202() {
        for (key, message, digest) in [
            (vec![0x0b; 16], &b"Hi There"[..], "9294727a3638bb1c13f48ef8158bfc9d"),
            (b"Jefe".to_vec(), b"what do ya want for nothing?", "750c783e6ab0b503eaa86e310a5db738"),
            // Longer than a block.
            (
                vec![0xaa; 80],
                b"Test Using Larger Than Block-Size Key - Hash Key First",
                "6b1ab7fe4bd7bf8f0b62e6ce61b9d0cd",
            ),
        ] {
            let found = Md5Digest(CramVerifier::of_key(&key).hmac(message));
            assert_eq!(found.to_string(), digest);
        }
    }

    #[test]
    fn every_digit_of_the_digest_counts() {
        for at in "tim ".len()..ANSWER.len() {
            let mut wrong = ANSWER.as_bytes().to_vec();
            wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
            assert!(!check(std::str::from_utf8(&wrong).unwrap(), CHALLENGE), "{at}");
        }
        for end in 0..ANSWER.len() {
            assert!(!check(&ANSWER[..end], CHALLENGE), "{end}");
        }
        assert!(!check(&format!("{ANSWER}0"), CHALLENGE));
    }

    #[test]
    fn a_replayed_answer_is_worth_nothing_for_another_challenge() {
        let challenge = |random| Challenge::new([random; 18]);
        let tim = "tim".parse().unwrap();
        let sent = answer(&tim, &password(), challenge(1).as_str().as_bytes()).unwrap();
        assert!(check(&sent, challenge(1).as_str()));
        assert!(!check(&sent, challenge(2).as_str()));
    }

    #[test]
    fn a_verifier_survives_its_text_and_odd_ones_are_refused() {
        let text = CramVerifier::new(&password()).to_text();
        assert_eq!(text.parse(), Ok(CramVerifier::new(&password())));
        assert!(!text.contains("tanstaaf"));
        for odd in ["", &text[1..], &format!("{text}0"), &text.replace(&text[..1], "x"), "é"] {
            assert!(odd.parse::<CramVerifier>().is_err(), "{odd}");
        }
        assert_eq!(format!("{:?}", CramVerifier::new(&password())), "CramVerifier(..)");
    }

    #[test]
    fn only_a_challenge_is_answered() {
        let tim = "tim".parse().unwrap();
        let long = format!("<{}>", "x".repeat(LOGIN_MESSAGE_BYTES_MAX - 1));
        for odd in ["", "x", "<x", "<a b>", "<\n>", &long] {
            assert!(answer(&tim, &password(), odd.as_bytes()).is_err(), "{odd}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_log_in(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
        ) {
            if let Ok(response) = CramResponse::parse(&bytes) {
                let verifier = CramVerifier::from_parts([0; 16], [0; 16]);
                prop_assert!(!response.verify(&Challenge::new([0; 18]), &verifier));
            }
        }
    }
}
