//! Invites: codes with which somebody may make an account for himself, once each.
//!
//! ```text
//! # towpath invites 1
//! SHA256_OF_THE_CODE expires=1767225600
//! ```
//!
//! The file has only the hashes: who reads it can't use them. A code has 100 random bits, so its
//! hash needs neither a salt nor iterations.

use std::fmt;

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::AccountsError;
use crate::{digest::Md5Digest, limits::INVITE_BYTES_MAX};

const FIRST_LINE: &str = "# towpath invites 1";

/// The invites that nobody has used yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invites {
    lines: Vec<Line>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    /// A comment or a blank line.
    Kept(String),
    Invite(Invite),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Invite {
    hash: [u8; 32],
    /// Seconds since 1970.
    expires: Option<u64>,
}

/// A code is worth nothing: wrong, used already, or expired. Which one is nobody's business.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such invite, or it was used, or has expired")]
pub struct InviteError;

impl Invites {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { lines: vec![Line::Kept(FIRST_LINE.to_owned())] }
    }

    /// Reads the text of a file of invites.
    ///
    /// # Errors
    /// Any line that is odd.
    pub fn parse(text: &str) -> Result<Self, AccountsError> {
        let mut lines = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let fail = |reason: &str| AccountsError { line: at + 1, reason: reason.to_owned() };
            if at == 0 && line != FIRST_LINE {
                return Err(fail("no invites of towpath: the first line is another"));
            }
            lines.push(if line.trim().is_empty() || line.starts_with('#') {
                Line::Kept(line.to_owned())
            } else {
                Line::Invite(Invite::parse(line).ok_or_else(|| fail("not an invite"))?)
            });
        }
        if lines.is_empty() {
            return Err(AccountsError { line: 1, reason: "the file is empty".to_owned() });
        }
        Ok(Self { lines })
    }

    /// The text of the file, with all comments in their places.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let line = |line: &Line| match line {
            Line::Kept(line) => format!("{line}\n"),
            Line::Invite(invite) => format!("{invite}\n"),
        };
        Zeroizing::new(self.lines.iter().map(line).collect())
    }

    /// Adds a code, for use until `expires` (seconds since 1970), and drops those that have
    /// expired at `now`.
    pub fn add(&mut self, code: &str, expires: Option<u64>, now: u64) {
        self.lines.retain(|line| !matches!(line, Line::Invite(invite) if !invite.holds(now)));
        self.lines.push(Line::Invite(Invite { hash: hash(code), expires }));
    }

    /// Takes a code out, for somebody who may make an account now. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// [`InviteError`], with nothing changed.
    pub fn use_up(&mut self, code: &str, now: u64) -> Result<(), InviteError> {
        if code.len() > INVITE_BYTES_MAX {
            return Err(InviteError);
        }
        let hash = hash(code);
        let fits = |line: &Line| match line {
            Line::Invite(invite) => invite.hash == hash && invite.holds(now),
            Line::Kept(_) => false,
        };
        let at = self.lines.iter().position(fits).ok_or(InviteError)?;
        self.lines.remove(at);
        Ok(())
    }
}

impl Default for Invites {
    fn default() -> Self {
        Self::new()
    }
}

impl Invite {
    fn parse(line: &str) -> Option<Self> {
        let (hash, rest) = line.split_once(' ').unwrap_or((line, ""));
        // Two halves, each of as many digits as an MD5 has.
        let (first, second) = hash.split_at_checked(32)?;
        let halves = [first.parse::<Md5Digest>().ok()?.0, second.parse::<Md5Digest>().ok()?.0];
        let hash = halves.as_flattened().try_into().ok()?;
        let digits = |text: &&str| text.bytes().all(|byte| byte.is_ascii_digit());
        let expires = match rest {
            "" => None,
            _ => Some(rest.strip_prefix("expires=").filter(digits)?.parse().ok()?),
        };
        Some(Self { hash, expires })
    }

    fn holds(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

impl fmt::Display for Invite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hash.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        self.expires.map_or(Ok(()), |expires| write!(f, " expires={expires}"))
    }
}

fn hash(code: &str) -> [u8; 32] {
    Sha256::digest(code.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_invite_is_used_once_and_before_it_expires() {
        let mut invites = Invites::new();
        invites.add("forever", None, 100);
        invites.add("short", Some(200), 100);
        assert_eq!(invites.use_up("short", 200), Err(InviteError));
        assert_eq!(invites.use_up("short", 199), Ok(()));
        assert_eq!(invites.use_up("short", 199), Err(InviteError));
        for wrong in ["", "Forever", "forever ", &"x".repeat(1 << 20)] {
            assert_eq!(invites.use_up(wrong, 0), Err(InviteError));
        }
        assert_eq!(invites.use_up("forever", u64::MAX), Ok(()));
        assert_eq!(invites, Invites::new());
    }

    #[test]
    fn only_a_code_beyond_the_limit_is_not_looked_at() {
        for (length, fits) in [(INVITE_BYTES_MAX, true), (INVITE_BYTES_MAX + 1, false)] {
            let mut invites = Invites::new();
            invites.add(&"x".repeat(length), None, 0);
            assert_eq!(invites.use_up(&"x".repeat(length), 0).is_ok(), fits);
        }
    }

    #[test]
    fn the_file_survives_and_has_no_code_in_it() {
        let mut invites = Invites::parse("# towpath invites 1\n# mine\n\n").unwrap();
        invites.add("secretcode", Some(7), 0);
        invites.add("other", None, 0);
        let text = invites.to_text();
        assert!(
            !text.contains("secretcode") && text.starts_with("# towpath invites 1\n# mine\n\n")
        );
        let mut read = Invites::parse(&text).unwrap();
        assert_eq!(read, invites);
        assert!(read.clone().use_up("secretcode", 6).is_ok());
        // The next one drops what has expired.
        read.add("third", None, 7);
        assert!(!read.to_text().contains("expires=") && read.use_up("other", 7).is_ok());
    }

    #[test]
    fn an_odd_file_is_refused() {
        let hash = "0".repeat(64);
        for odd in [
            "x",
            &hash[1..],
            &format!("{hash}0"),
            &format!("{hash} expires=x"),
            &format!("{hash} expires="),
            &format!("{hash} other=1"),
            &format!(" {hash}"),
            &format!("{hash} expires=+1"),
        ] {
            let error = Invites::parse(&format!("{FIRST_LINE}\n{odd}")).unwrap_err();
            assert_eq!(error.line, 2, "{odd}");
        }
        assert!(Invites::parse("").is_err() && Invites::parse(&hash).is_err());
        assert!(Invites::parse(&format!("{FIRST_LINE}\n{hash} expires=1")).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9a-f =é\n]{0,80}") {
            let _ = Invites::parse(&format!("{FIRST_LINE}\n{text}"));
        }
    }
}
