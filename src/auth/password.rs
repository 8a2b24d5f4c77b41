//! Passwords as people choose them, and random ones.

use std::fmt;

use zeroize::Zeroizing;

use crate::limits::{NEW_PASSWORD_CHARS_MIN, PASSWORD_BYTES_MAX};

/// Characters of a random text, five bits each: 100 bits.
const RANDOM_CHARS: usize = 20;

/// Digits and letters that nobody takes for one another: those of Crockford's base 32.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// A password, prepared by SASLprep (RFC 4013): 1 to 1024 bytes of UTF-8, so that it is the same
/// however it was typed. Overwritten when dropped, and never shown.
#[derive(Clone)]
pub struct Password(Zeroizing<String>);

/// Why a text is no password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PasswordError {
    /// Nothing at all, or nothing that SASLprep leaves.
    #[error("a password must not be empty")]
    Empty,
    /// More than [`PASSWORD_BYTES_MAX`] bytes.
    #[error("a password has at most {PASSWORD_BYTES_MAX} bytes")]
    TooLong,
    /// A character that SASLprep forbids.
    #[error("a password must not have control characters, or such as nobody can type")]
    Forbidden,
    /// Fewer than [`NEW_PASSWORD_CHARS_MIN`] characters.
    #[error("a new password needs at least {NEW_PASSWORD_CHARS_MIN} characters")]
    TooShort,
}

impl Password {
    /// Prepares a text. Its length is looked at before anything else.
    ///
    /// # Errors
    /// [`PasswordError`], other than `TooShort`.
    pub fn new(text: &str) -> Result<Self, PasswordError> {
        if text.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::TooLong);
        }
        let prepared = stringprep::saslprep(text).map_err(|_| PasswordError::Forbidden)?;
        let prepared = Zeroizing::new(prepared.into_owned());
        match prepared.len() {
            0 => Err(PasswordError::Empty),
            // One character may become several.
            length if length > PASSWORD_BYTES_MAX => Err(PasswordError::TooLong),
            _ => Ok(Self(prepared)),
        }
    }

    /// Whether it may be chosen today. Not asked of one that logs in: it may be older than the rule.
    ///
    /// # Errors
    /// [`PasswordError::TooShort`].
    pub fn check_new(&self) -> Result<(), PasswordError> {
        if self.0.chars().count() < NEW_PASSWORD_CHARS_MIN {
            return Err(PasswordError::TooShort);
        }
        Ok(())
    }

    /// What is hashed.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// Twenty random letters and digits, which carry 100 bits: a password, or the code of an invite.
///
/// # Errors
/// The system has no random numbers.
pub fn random_text() -> Result<Zeroizing<String>, getrandom::Error> {
    let mut random = Zeroizing::new([0; RANDOM_CHARS]);
    getrandom::fill(&mut *random)?;
    let letter = |byte: &u8| ALPHABET.get(usize::from(byte % 32)).map(|&letter| char::from(letter));
    Ok(Zeroizing::new(random.iter().filter_map(letter).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_prepared_as_rfc_4013_shows() {
        // The examples of its section 3.
        for (text, prepared) in [
            ("I\u{ad}X", Ok("IX")),
            ("user", Ok("user")),
            ("USER", Ok("USER")),
            ("\u{aa}", Ok("a")),
            ("\u{2168}", Ok("IX")),
            ("\u{7}", Err(PasswordError::Forbidden)),
            ("\u{627}1", Err(PasswordError::Forbidden)),
        ] {
            let found = Password::new(text);
            let found = found.as_ref().map(|password| password.0.as_str());
            assert_eq!(found.map_err(|&error| error), prepared, "{text:?}");
        }
        assert_eq!(Password::new("").unwrap_err(), PasswordError::Empty);
        assert_eq!(Password::new("\u{ad}").unwrap_err(), PasswordError::Empty);
    }

    #[test]
    fn only_a_password_beyond_the_limit_is_too_long() {
        for (length, fits) in [(1023, true), (1024, true), (1025, false), (64 << 20, false)] {
            assert_eq!(Password::new(&"x".repeat(length)).is_ok(), fits, "{length}");
        }
        // 18 characters come out of one of three bytes.
        let grows = "\u{fdfa}".repeat(300);
        assert_eq!(Password::new(&grows).unwrap_err(), PasswordError::TooLong);
    }

    #[test]
    fn a_short_password_still_logs_in_but_is_not_chosen_anew() {
        let short = Password::new("seven77").unwrap();
        assert_eq!(short.check_new(), Err(PasswordError::TooShort));
        assert_eq!(Password::new("eight888").unwrap().check_new(), Ok(()));
        // Characters, not bytes.
        assert!(Password::new("ääääääää").unwrap().check_new().is_ok());
        assert!(Password::new("äääääää").unwrap().check_new().is_err());
    }

    #[test]
    fn a_password_is_never_shown() {
        let password = Password::new("hovercraft").unwrap();
        assert!(!format!("{password:?}").contains("hover"));
    }

    #[test]
    fn random_texts_are_long_unambiguous_and_never_the_same() {
        let texts: Vec<_> = (0..100).map(|_| random_text().unwrap()).collect();
        for (at, text) in texts.iter().enumerate() {
            assert_eq!(text.len(), 20);
            assert!(!text.contains(['i', 'l', 'o', 'u']) && text.is_ascii());
            assert!(!texts[..at].contains(text));
            Password::new(text).unwrap().check_new().unwrap();
        }
        let used: std::collections::BTreeSet<char> = texts.iter().flat_map(|t| t.chars()).collect();
        assert_eq!(used.len(), 32);
    }
}
