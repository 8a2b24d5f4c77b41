//! The mark in a child's environment by which it is known again, whatever becomes of it.

use std::{fmt, io};

/// The variable that carries it.
pub(super) const VARIABLE: &str = "TOW_ACTION";

/// One run of an action. Its text is 32 hexadecimal digits: those of the [`Children`] it belongs
/// to, and its own, all random.
///
/// [`Children`]: super::Children
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ActionId {
    family: u64,
    own: u64,
}

/// Draws the ids of one [`Children`](super::Children).
#[derive(Debug, Clone, Copy)]
pub(super) struct Marks {
    family: u64,
}

impl Marks {
    pub(super) fn draw() -> io::Result<Self> {
        Ok(Self { family: random()? })
    }

    pub(super) fn next(self) -> io::Result<ActionId> {
        Ok(ActionId { family: self.family, own: random()? })
    }

    /// The id in an environment as `/proc` shows it, if it is one of these marks.
    pub(super) fn find(self, environ: &[u8]) -> Option<ActionId> {
        let value = |entry: &'_ [u8]| {
            let value = entry.strip_prefix(VARIABLE.as_bytes())?.strip_prefix(b"=")?;
            ActionId::parse(str::from_utf8(value).ok()?)
        };
        let mut marks = environ.split(|&byte| byte == 0).filter_map(value);
        marks.find(|id| id.family == self.family)
    }
}

impl ActionId {
    fn parse(text: &str) -> Option<Self> {
        // Only what `Display` writes; `from_str_radix` would take a sign.
        if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let (family, own) = text.split_at_checked(16)?;
        let part = |text| u64::from_str_radix(text, 16).ok();
        Some(Self { family: part(family)?, own: part(own)? })
    }
}

impl fmt::Display for ActionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.family, self.own)
    }
}

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_in_an_environment_by_its_own_family_only() {
        let (marks, others) = (Marks::draw().unwrap(), Marks::draw().unwrap());
        let (id, other) = (marks.next().unwrap(), others.next().unwrap());
        let environ = format!("A=1\0TOW_ACTION={other}\0XTOW_ACTION={other}\0TOW_ACTION={id}\0");
        assert_eq!(marks.find(environ.as_bytes()), Some(id));
        assert_eq!(others.find(environ.as_bytes()), Some(other));
        for environ in
            ["", "A=1\0", "TOW_ACTION=\0", &format!("TOW_ACTION={id}0\0XTOW_ACTION={id}")]
        {
            assert_eq!(marks.find(environ.as_bytes()), None, "{environ:?}");
        }
        assert_eq!(marks.find(b"TOW_ACTION=+123456789abcdef+123456789abcdef"), None);
    }
}
