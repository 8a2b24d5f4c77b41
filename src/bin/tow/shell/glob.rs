//! Patterns for names: `*`, `?`, `[a-z]`, `[!x]`, matched on the bytes of one name.

use super::words::Char;

/// A pattern for one name.
#[derive(Debug, Clone)]
pub(super) struct Glob(Vec<Part>);

#[derive(Debug, Clone)]
enum Part {
    Byte(u8),
    /// Any one byte.
    Any,
    /// Any bytes, or none.
    Star,
    /// One of these bytes, from and to; or none of them.
    Set {
        ranges: Vec<(u8, u8)>,
        negated: bool,
    },
}

/// Whether the bytes are a pattern at all.
pub(super) fn is_glob(chars: &[Char]) -> bool {
    chars.iter().any(|c| !c.quoted && matches!(c.byte, b'*' | b'?' | b'['))
}

impl Glob {
    pub(super) fn new(chars: &[Char]) -> Self {
        let mut parts = Vec::new();
        // A bracket behind the last closing one is only a bracket.
        let last_close = chars.iter().rposition(|c| !c.quoted && c.byte == b']').unwrap_or(0);
        let mut at = 0;
        while let Some(&Char { byte, quoted }) = chars.get(at) {
            at += 1;
            parts.push(match byte {
                b'*' if !quoted => Part::Star,
                b'?' if !quoted => Part::Any,
                b'[' if !quoted => match set(chars, at, last_close) {
                    Some((part, end)) => {
                        at = end;
                        part
                    }
                    None => Part::Byte(byte),
                },
                _ => Part::Byte(byte),
            });
        }
        Self(parts)
    }

    /// Whether the name matches. A dot at its beginning is matched only by a dot.
    ///
    /// Only the last star is ever tried again, so that this takes at most as many steps as the
    /// product of both lengths.
    pub(super) fn matches(&self, name: &[u8]) -> bool {
        let hidden = name.first() == Some(&b'.');
        if hidden && !matches!(self.0.first(), Some(Part::Byte(b'.'))) {
            return false;
        }
        let (mut part, mut at) = (0, 0);
        // Behind the last star, and where what it took ends.
        let mut star = None;
        loop {
            match (self.0.get(part), name.get(at)) {
                (None, None) => return true,
                (Some(Part::Star), _) => {
                    part += 1;
                    star = Some((part, at));
                    continue;
                }
                (Some(one), Some(&byte)) if one.takes(byte) => {
                    (part, at) = (part + 1, at + 1);
                    continue;
                }
                _ => {}
            }
            match star {
                Some((behind, end)) if end < name.len() => {
                    star = Some((behind, end + 1));
                    (part, at) = (behind, end + 1);
                }
                _ => return false,
            }
        }
    }
}

impl Part {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Self::Byte(own) => *own == byte,
            Self::Any => true,
            Self::Star => false,
            Self::Set { ranges, negated } => {
                ranges.iter().any(|&(from, to)| (from..=to).contains(&byte)) != *negated
            }
        }
    }
}

/// Reads a set behind its opening bracket; returns it and where it ends.
fn set(chars: &[Char], mut at: usize, last_close: usize) -> Option<(Part, usize)> {
    if at > last_close {
        return None;
    }
    let is = |at: usize, byte: u8| chars.get(at) == Some(&Char { byte, quoted: false });
    let negated = is(at, b'!') || is(at, b'^');
    at += usize::from(negated);
    let mut ranges = Vec::new();
    // A closing bracket in the first place is one of the set.
    while ranges.is_empty() || !is(at, b']') {
        let from = chars.get(at)?.byte;
        let to = chars.get(at + 2).filter(|_| is(at + 1, b'-') && !is(at + 2, b']'));
        at += if to.is_some() { 3 } else { 1 };
        ranges.push((from, to.map_or(from, |to| to.byte)));
    }
    Some((Part::Set { ranges, negated }, at + 1))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::words, *};

    fn matches(pattern: &str, name: &str) -> bool {
        let word = words::split(pattern.as_bytes(), false).unwrap().remove(0);
        Glob::new(word.chars()).matches(name.as_bytes())
    }

    #[test]
    fn patterns_match_what_they_should() {
        for (pattern, yes, no) in [
            ("*", &["a", "abc"][..], &[".a", "."][..]),
            ("*.txt", &["a.txt", "a.b.txt"], &["a.txt.gz", ".txt", "txt"]),
            ("a*b*c", &["abc", "axxbyyc", "abcbc"], &["ab", "abcd"]),
            ("a?c", &["abc", "a?c"], &["ac", "abbc"]),
            ("?", &["a"], &["", "ab", "é", "."]),
            ("[a-c]x", &["ax", "cx"], &["dx", "x", "-x"]),
            ("[!a-c]x", &["dx"], &["ax", ".x"]),
            ("[^a]", &["b"], &["a"]),
            ("[]a]", &["]", "a"], &["b"]),
            ("[a-]", &["a", "-"], &["b"]),
            ("[-a]", &["a", "-"], &["b"]),
            ("[a", &["[a"], &["a"]),
            ("a]", &["a]"], &["a"]),
            ("[z-a]", &[], &["m"]),
            (".*", &[".a", ".."], &["a"]),
            ("[.]a", &[], &[".a"]),
            (r"\**", &["*a"], &["a"]),
            ("'*'", &["*"], &["a"]),
            ("'[a]'*", &["[a]b"], &["ab"]),
            ("['*'-b]", &["*", "b", "5"], &["c"]),
            ("**a**", &["a", "bab"], &["b"]),
        ] {
            for name in yes {
                assert!(matches(pattern, name), "{pattern} {name}");
            }
            for name in no {
                assert!(!matches(pattern, name), "{pattern} {name}");
            }
        }
    }

    /// Whoever tries everything does not come to the end of this test.
    #[test]
    fn a_name_made_to_take_for_ever_takes_no_time() {
        let name = "a".repeat(255);
        let pattern = format!("{}b", "a*".repeat(127));
        assert!(!matches(&pattern, &name));
        assert!(!matches(&"[".repeat(4096), &name));
        assert!(!matches(&format!("{}b", "*".repeat(4096)), &name));
    }

    proptest! {
        #[test]
        fn the_quick_way_agrees_with_the_simple_one(
            pattern in "[ab*?]{1,10}", name in "[ab]{0,10}",
        ) {
            fn simple(pattern: &[u8], name: &[u8]) -> bool {
                match (pattern.split_first(), name.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => {
                        (0..=name.len()).any(|taken| simple(rest, &name[taken..]))
                    }
                    (Some((b'?', rest)), Some((_, more))) => simple(rest, more),
                    (Some((one, rest)), Some((byte, more))) => one == byte && simple(rest, more),
                    _ => false,
                }
            }
            let expected = simple(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(matches(&pattern, &name), expected);
        }
    }
}
