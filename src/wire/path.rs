//! Paths on the wire: percent-encoded bytes, and the checked form that the server works with.

use std::fmt;

use crate::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX};

/// The name that holds what no peer may reach, at any depth: a home may lie within what another
/// account sees.
const INTERNAL_NAME: &[u8] = b".tow";

/// Why a path was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A percent sign without two hexadecimal digits.
    #[error("bad percent-encoding in path")]
    Encoding,
    /// A byte that has to be encoded stands as it is.
    #[error("path has a byte that must be percent-encoded")]
    Unencoded,
    /// Longer than [`PATH_BYTES_MAX`], or a name in it longer than [`NAME_BYTES_MAX`].
    #[error("path or name too long")]
    TooLong,
    /// NUL can't be part of a name.
    #[error("path has a NUL byte")]
    Nul,
    /// `..` leads out, or might.
    #[error("path has a '..' in it")]
    Parent,
    /// The folder of partials and journals.
    #[error("that name is reserved")]
    Reserved,
}

/// Whether a byte may stand as it is in an encoded path.
const fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e) && !matches!(byte, b'%' | b'=')
}

/// Percent-encodes every byte that is not plain: control characters, space, `%`, `=` and all
/// above 0x7e. What comes out is one word of a line and safe to print.
#[must_use]
pub fn encode(bytes: &[u8]) -> String {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if is_plain(byte) {
            text.push(char::from(byte));
        } else {
            text.push('%');
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(HEX.get(usize::from(digit)).copied().unwrap_or(b'0')));
            }
        }
    }
    text
}

/// The bytes that `text` encodes.
///
/// # Errors
/// [`PathError::Encoding`], [`PathError::Unencoded`], or [`PathError::TooLong`] beyond
/// [`PATH_BYTES_MAX`] bytes.
pub fn decode(text: &str) -> Result<Vec<u8>, PathError> {
    let mut bytes = Vec::with_capacity(text.len().min(PATH_BYTES_MAX));
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if bytes.len() == PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if byte == b'%' {
            let (Some(high), Some(low)) = (rest.next(), rest.next()) else {
                return Err(PathError::Encoding);
            };
            bytes.push(hex(high)? << 4 | hex(low)?);
        } else if is_plain(byte) {
            bytes.push(byte);
        } else {
            return Err(PathError::Unencoded);
        }
    }
    Ok(bytes)
}

const fn hex(digit: u8) -> Result<u8, PathError> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        b'A'..=b'F' => Ok(digit - b'A' + 10),
        _ => Err(PathError::Encoding),
    }
}

/// A path below the root of the server, in its one canonical form: names joined by single
/// slashes, no `.` or `..`, no leading slash. Empty for the root itself.
///
/// Invariant: never longer than [`PATH_BYTES_MAX`], no name longer than [`NAME_BYTES_MAX`], no
/// NUL, and no name is that of an internal folder. That it leads nowhere else through links
/// is the store's part: a path is only ever resolved beneath a directory handle.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemotePath {
    bytes: Vec<u8>,
}

impl RemotePath {
    /// The canonical form of decoded bytes.
    ///
    /// # Errors
    /// Whatever breaks the invariant; `..` is refused and not resolved.
    pub fn new(bytes: &[u8]) -> Result<Self, PathError> {
        if bytes.len() > PATH_BYTES_MAX {
            return Err(PathError::TooLong);
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul);
        }
        let mut canonical = Vec::with_capacity(bytes.len());
        for name in bytes.split(|&byte| byte == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return Err(PathError::Parent),
                INTERNAL_NAME => return Err(PathError::Reserved),
                _ if name.len() > NAME_BYTES_MAX => return Err(PathError::TooLong),
                _ => {}
            }
            if !canonical.is_empty() {
                canonical.push(b'/');
            }
            canonical.extend_from_slice(name);
        }
        Ok(Self { bytes: canonical })
    }

    /// The canonical form of a percent-encoded word.
    ///
    /// # Errors
    /// As [`decode`] and [`RemotePath::new`].
    pub fn parse(word: &str) -> Result<Self, PathError> {
        Self::new(&decode(word)?)
    }

    /// The path's bytes; empty for the root.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether this is the root itself.
    #[must_use]
    pub const fn is_root(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The folder that holds it and its last name; `None` for the root.
    #[must_use]
    pub fn split(&self) -> Option<(&[u8], &[u8])> {
        if self.bytes.is_empty() {
            return None;
        }
        match self.bytes.iter().rposition(|&byte| byte == b'/') {
            Some(at) => Some((self.bytes.get(..at)?, self.bytes.get(at + 1..)?)),
            None => Some((b"", &self.bytes)),
        }
    }
}

impl fmt::Display for RemotePath {
    /// The encoded form, with a leading slash: safe to print, log and send.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", encode(&self.bytes))
    }
}

impl fmt::Debug for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_place_has_one_form() {
        for same in ["a/b", "/a/b", "//a///b/", "./a/./b/."] {
            assert_eq!(RemotePath::parse(same).unwrap().as_bytes(), b"a/b", "{same}");
        }
        assert!(RemotePath::parse("/").unwrap().is_root());
        assert_eq!(RemotePath::parse("a/b/c").unwrap().split(), Some((&b"a/b"[..], &b"c"[..])));
        assert_eq!(RemotePath::parse("c").unwrap().split(), Some((&b""[..], &b"c"[..])));
    }

    #[test]
    fn what_leads_out_or_in_is_refused() {
        for (word, error) in [
            ("..", PathError::Parent),
            ("a/../b", PathError::Parent),
            ("%2e%2E/x", PathError::Parent),
            ("a%00b", PathError::Nul),
            (".tow", PathError::Reserved),
            ("/./.tow/partials", PathError::Reserved),
            ("%2etow/x", PathError::Reserved),
            ("a/.tow", PathError::Reserved),
            ("/a/b/%2etow/partials", PathError::Reserved),
            ("a%2", PathError::Encoding),
            ("a%zz", PathError::Encoding),
            ("a b", PathError::Unencoded),
        ] {
            assert_eq!(RemotePath::parse(word), Err(error), "{word}");
        }
        for near in ["a/.towx", ".TOW", "x.tow", ".tow-x"] {
            assert!(RemotePath::parse(near).is_ok(), "{near}");
        }
    }

    #[test]
    fn names_and_paths_are_refused_only_beyond_their_limits() {
        for (length, fits) in [(254, true), (255, true), (256, false)] {
            assert_eq!(RemotePath::new(&vec![b'n'; length]).is_ok(), fits, "{length}");
        }
        for (length, fits) in [(4095, true), (4096, true), (4097, false)] {
            let path: Vec<u8> = b"ab/".iter().copied().cycle().take(length).collect();
            assert_eq!(RemotePath::new(&path).is_ok(), fits, "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_survive_the_wire(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let word = encode(&bytes);
            prop_assert!(word.bytes().all(|byte| (0x21..0x7f).contains(&byte)));
            prop_assert_eq!(decode(&word).unwrap(), bytes);
        }

        #[test]
        fn no_word_makes_a_path_that_breaks_the_invariant(word in ".{0,300}") {
            if let Ok(path) = RemotePath::parse(&word) {
                for name in path.as_bytes().split(|&byte| byte == b'/') {
                    prop_assert!(path.is_root() || !name.is_empty());
                    prop_assert!(name != b".." && name != b"." && name.len() <= NAME_BYTES_MAX);
                    prop_assert!(name != b".tow");
                }
            }
        }
    }
}
