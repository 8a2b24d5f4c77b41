//! Names of users.

use std::{fmt, str::FromStr};

use crate::limits::USER_NAME_BYTES_MAX;

/// The name under which the server itself counts who did not log in.
const ANONYMOUS: &str = "anonymous";

/// A user's name: 1 to 32 bytes of `a-z 0-9 . _ -`, the first a letter or a digit.
///
/// So it is never empty, `.` or `..`, has no slash, NUL or control character, and may stand in a
/// log, a line of a file or a path as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UserName(Box<str>);

/// Why a text is no user name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing at all.
    #[error("a user name must not be empty")]
    Empty,
    /// More than [`USER_NAME_BYTES_MAX`] bytes.
    #[error("a user name has at most {USER_NAME_BYTES_MAX} characters")]
    TooLong,
    /// It begins with one of `. _ -`.
    #[error("a user name begins with a letter a-z or a digit")]
    Start,
    /// A character that no name may have.
    #[error("a user name consists of the characters a-z 0-9 . _ -")]
    Character,
}

impl UserName {
    /// The name for those who did not log in. No user file may define it.
    #[must_use]
    pub fn anonymous() -> Self {
        Self(ANONYMOUS.into())
    }

    /// Whether it is the name for those who did not log in.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        &*self.0 == ANONYMOUS
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let first = *text.as_bytes().first().ok_or(NameError::Empty)?;
        if text.len() > USER_NAME_BYTES_MAX {
            return Err(NameError::TooLong);
        }
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if !text.bytes().all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-')) {
            return Err(NameError::Character);
        }
        if !plain(first) {
            return Err(NameError::Start);
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_that_mean_something_to_a_file_system_or_a_terminal_are_refused() {
        for (text, error) in [
            ("", NameError::Empty),
            (".", NameError::Start),
            ("..", NameError::Start),
            ("-rf", NameError::Start),
            ("_x", NameError::Start),
            ("a/b", NameError::Character),
            ("a\0", NameError::Character),
            ("a\nb", NameError::Character),
            ("\u{1b}[2J", NameError::Character),
            ("Anna", NameError::Character),
            ("änne", NameError::Character),
            ("a b", NameError::Character),
            ("a=b", NameError::Character),
            ("a,b", NameError::Character),
        ] {
            assert_eq!(text.parse::<UserName>(), Err(error), "{text:?}");
        }
        for text in ["a", "0", "anna", "x.y_z-1", "a..b"] {
            assert_eq!(text.parse::<UserName>().unwrap().to_string(), text);
        }
        assert!(!"anna".parse::<UserName>().unwrap().is_anonymous());
        assert!(UserName::anonymous().is_anonymous());
    }

    #[test]
    fn only_a_name_beyond_the_limit_is_refused() {
        for (length, fits) in [(31, true), (32, true), (33, false)] {
            assert_eq!("a".repeat(length).parse::<UserName>().is_ok(), fits, "{length}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_a_name_is_harmless(text in ".{0,40}") {
            if let Ok(name) = text.parse::<UserName>() {
                prop_assert!(name.as_str().bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert!(!name.as_str().contains(['/', '=', ',', '%', '#', '@']));
                prop_assert!(!name.as_str().starts_with('.'));
            }
        }
    }
}
