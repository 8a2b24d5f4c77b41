//! What a user may do.

use std::{fmt, str::FromStr};

/// A set of rights, written with the letters `rwda` in that order, or `-` for none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Rights(u8);

/// A text is not a set of rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("rights are letters of rwda (read, write, delete, actions), each once, or - for none")]
pub struct RightsError;

const LETTERS: [(Rights, char); 4] =
    [(Rights::READ, 'r'), (Rights::WRITE, 'w'), (Rights::DELETE, 'd'), (Rights::ACTIONS, 'a')];

impl Rights {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// To fetch files, list folders and ask for digests.
    pub const READ: Self = Self(1);
    /// To put files and make folders.
    pub const WRITE: Self = Self(2);
    /// To remove, replace and rename what is there.
    pub const DELETE: Self = Self(4);
    /// To start what the server offers to do beside transfers.
    pub const ACTIONS: Self = Self(8);
    /// Everything.
    pub const ALL: Self = Self(15);

    /// Whether all of `wanted` is in it.
    #[must_use]
    pub const fn contains(self, wanted: Self) -> bool {
        self.0 & wanted.0 == wanted.0
    }

    /// What is in either.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromStr for Rights {
    type Err = RightsError;

    fn from_str(text: &str) -> Result<Self, RightsError> {
        if text == "-" {
            return Ok(Self::NONE);
        }
        if text.is_empty() {
            return Err(RightsError);
        }
        let mut rights = Self::NONE;
        for letter in text.chars() {
            let (right, _) =
                LETTERS.iter().find(|(_, known)| *known == letter).ok_or(RightsError)?;
            if rights.contains(*right) {
                return Err(RightsError);
            }
            rights = rights.union(*right);
        }
        Ok(rights)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::NONE {
            return f.pad("-");
        }
        let has = |&&(right, _): &&(Self, char)| self.contains(right);
        f.pad(&LETTERS.iter().filter(has).map(|(_, letter)| letter).collect::<String>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_survives_its_text() {
        for bits in 0..16 {
            let rights = Rights(bits);
            assert_eq!(rights.to_string().parse(), Ok(rights), "{rights}");
        }
        assert_eq!("adwr".parse(), Ok(Rights::ALL));
        assert_eq!(Rights::ALL.to_string(), "rwda");
        assert_eq!(Rights::NONE.to_string(), "-");
    }

    #[test]
    fn other_texts_are_no_rights() {
        for text in ["", "rr", "x", "r-", "R", "r w", "--", "rwdax"] {
            assert_eq!(text.parse::<Rights>(), Err(RightsError), "{text:?}");
        }
    }

    #[test]
    fn a_set_contains_its_parts_and_no_others() {
        let both = Rights::READ.union(Rights::DELETE);
        assert!(both.contains(Rights::READ) && both.contains(both) && both.contains(Rights::NONE));
        assert!(!both.contains(Rights::WRITE) && !both.contains(Rights::ALL));
        assert!(!Rights::NONE.contains(Rights::READ));
    }
}
