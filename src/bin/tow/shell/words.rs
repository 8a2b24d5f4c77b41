//! A line taken apart into words, and a name written so that it comes out as one word again.

use std::fmt;

/// One byte of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Char {
    pub(super) byte: u8,
    /// Quotes or a backslash took away whatever it means beyond itself.
    pub(super) quoted: bool,
}

/// A word of a line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word(Vec<Char>);

impl Word {
    pub(super) fn bytes(&self) -> Vec<u8> {
        self.0.iter().map(|c| c.byte).collect()
    }

    pub(super) fn chars(&self) -> &[Char] {
        &self.0
    }

    /// Whether it begins with this byte, unquoted.
    pub(super) fn begins_with(&self, byte: u8) -> bool {
        self.0.first() == Some(&Char { byte, quoted: false })
    }

    /// The same word with its first `count` bytes replaced by bytes that mean nothing else.
    pub(super) fn with_beginning(&self, count: usize, bytes: &[u8]) -> Self {
        let mut chars = Self::from(bytes).0;
        chars.extend_from_slice(self.0.get(count..).unwrap_or_default());
        Self(chars)
    }

    fn push(&mut self, byte: u8, quoted: bool) {
        self.0.push(Char { byte, quoted });
    }
}

/// A word of bytes that mean nothing but themselves.
impl From<&[u8]> for Word {
    fn from(bytes: &[u8]) -> Self {
        Self(bytes.iter().map(|&byte| Char { byte, quoted: true }).collect())
    }
}

/// Why a line was not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WordError {
    /// This quote has no end.
    Unterminated(char),
    /// The line ends with a backslash.
    Backslash,
    /// In `$'...'`, a backslash with something behind it that means nothing.
    Escape,
}

impl fmt::Display for WordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unterminated(quote) => write!(
                f,
                "there is a {quote} without its end: a quote in a name is written \\{quote}"
            ),
            Self::Backslash => {
                f.write_str("the line ends with a backslash: one in a name is written \\\\")
            }
            Self::Escape => f.write_str("in $'...' only \\xHH, \\\\ and \\' have a meaning"),
        }
    }
}

/// What is still open at the end of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Open {
    No,
    Single,
    Double,
    /// `$'`, in which bytes are written in hexadecimal.
    Dollar,
    /// A backslash, with nothing behind it.
    Backslash,
}

/// A line as far as it goes.
#[derive(Debug)]
pub(super) struct Scan {
    /// Where each word begins, in bytes of the line, and the word.
    pub(super) words: Vec<(usize, Word)>,
    pub(super) open: Open,
    /// Whether the line ends inside of its last word.
    pub(super) in_word: bool,
}

/// The words of a whole line. With `comments`, `#` at the start of a word hides the rest of it.
///
/// # Errors
/// [`WordError`].
pub(super) fn split(line: &[u8], comments: bool) -> Result<Vec<Word>, WordError> {
    let scan = scan(line, comments)?;
    match scan.open {
        Open::No => Ok(scan.words.into_iter().map(|(_, word)| word).collect()),
        Open::Single | Open::Dollar => Err(WordError::Unterminated('\'')),
        Open::Double => Err(WordError::Unterminated('"')),
        Open::Backslash => Err(WordError::Backslash),
    }
}

/// Reads a line that may not be complete yet.
pub(super) fn scan(line: &[u8], comments: bool) -> Result<Scan, WordError> {
    let mut words: Vec<(usize, Word)> = Vec::new();
    let mut open = Open::No;
    let mut in_word = false;
    let mut bytes = line.iter().copied().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        let blank = matches!(byte, b' ' | b'\t' | b'\r' | b'\n');
        if open == Open::No && blank {
            in_word = false;
            continue;
        }
        if !in_word {
            if comments && byte == b'#' {
                break;
            }
            in_word = true;
            words.push((at, Word::default()));
        }
        let Some((_, word)) = words.last_mut() else { continue };
        let next = bytes.peek().map(|&(_, next)| next);
        match (open, byte) {
            (Open::No, b'\'') => open = Open::Single,
            (Open::No, b'"') => open = Open::Double,
            (Open::No, b'$') if next == Some(b'\'') => {
                bytes.next();
                open = Open::Dollar;
            }
            (Open::No, b'\\') => match bytes.next() {
                Some((_, next)) => word.push(next, true),
                None => open = Open::Backslash,
            },
            (Open::No, _) => word.push(byte, false),
            (Open::Single | Open::Dollar, b'\'') | (Open::Double, b'"') => open = Open::No,
            (Open::Double, b'\\') if matches!(next, Some(b'"' | b'\\')) => {
                word.push(next.unwrap_or(byte), true);
                bytes.next();
            }
            (Open::Dollar, b'\\') => match bytes.next().map(|(_, next)| next) {
                None => {}
                Some(b'x') => {
                    let digits = [bytes.next(), bytes.next()].map(|digit| hex(digit?.1));
                    let [Some(high), Some(low)] = digits else { return Err(WordError::Escape) };
                    word.push(high << 4 | low, true);
                }
                Some(next @ (b'\'' | b'\\')) => word.push(next, true),
                Some(_) => return Err(WordError::Escape),
            },
            (Open::Single | Open::Double | Open::Dollar | Open::Backslash, _) => {
                word.push(byte, true);
            }
        }
    }
    Ok(Scan { words, open, in_word })
}

const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// How a name is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// With backslashes where they are needed.
    Bare,
    Single,
    Double,
}

/// The name as one word, as it may be shown on a terminal. Names with bytes that may not be shown
/// are written as `$'...'`. Without `closed`, a quote is left open, so that more can follow.
pub(super) fn escape(name: &[u8], style: Style, closed: bool) -> String {
    let shown = std::str::from_utf8(name).ok().filter(|text| !text.chars().any(is_hidden));
    let Some(text) = shown else { return escape_bytes(name, closed) };
    let (quote, special): (&str, &[char]) = match style {
        Style::Single if !text.contains('\'') => ("'", &[]),
        Style::Single | Style::Double => ("\"", &['"', '\\']),
        Style::Bare if text.is_empty() => return "''".to_owned(),
        Style::Bare => ("", &[' ', '\'', '"', '\\', '*', '?', '[', '$']),
    };
    let mut word = quote.to_owned();
    for (at, c) in text.char_indices() {
        // What means something only at the beginning of a word.
        let first = at == 0 && matches!(c, '#' | '~' | '-' | '!');
        if special.contains(&c) || (first && style == Style::Bare) {
            word.push('\\');
        }
        word.push(c);
    }
    if closed {
        word.push_str(quote);
    }
    word
}

fn escape_bytes(name: &[u8], closed: bool) -> String {
    let mut word = "$'".to_owned();
    for &byte in name {
        match byte {
            b'\'' | b'\\' => word.extend(['\\', char::from(byte)]),
            0x20..=0x7e => word.push(char::from(byte)),
            _ => word.push_str(&format!("\\x{byte:02x}")),
        }
    }
    if closed {
        word.push('\'');
    }
    word
}

/// What a terminal must not get, or would not show.
fn is_hidden(c: char) -> bool {
    crate::show::is_hidden(c) || c == char::REPLACEMENT_CHARACTER
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        let words = split(line.as_bytes(), true).unwrap();
        words.iter().map(|word| String::from_utf8(word.bytes()).unwrap()).collect()
    }

    #[test]
    fn quotes_and_backslashes_hold_words_together() {
        for (line, expected) in [
            ("", &[][..]),
            ("  \t ", &[]),
            ("get a b", &["get", "a", "b"]),
            ("get  'a b'\r", &["get", "a b"]),
            (r#"get "a 'b" c"#, &["get", "a 'b", "c"]),
            (r"get a\ b\'", &["get", "a b'"]),
            (r#"a'b'"c"d"#, &["abcd"]),
            (r#""a\"b\\c\d""#, &[r#"a"b\c\d"#]),
            (r"'a\b'", &[r"a\b"]),
            ("'' \"\"", &["", ""]),
            (r"$'a\x41\'\\' $HOME", &[r"aA'\", "$HOME"]),
            ("é ü", &["é", "ü"]),
        ] {
            assert_eq!(words(line), expected, "{line}");
        }
    }

    #[test]
    fn a_comment_begins_only_where_a_word_would_and_only_where_comments_are() {
        assert_eq!(words("ls # x 'y"), ["ls"]);
        assert_eq!(words("# 'y"), [""; 0]);
        assert_eq!(words("ls a#b '#c' \\#d"), ["ls", "a#b", "#c", "#d"]);
        assert_eq!(split(b"#a", false).unwrap().len(), 1);
    }

    #[test]
    fn what_has_no_end_is_refused_with_a_hint() {
        for (line, error, hint) in [
            ("get 'a b", WordError::Unterminated('\''), "\\'"),
            ("get \"a\\\"", WordError::Unterminated('"'), "\\\""),
            ("get $'a", WordError::Unterminated('\''), "\\'"),
            ("get a\\", WordError::Backslash, "\\\\"),
            (r"$'\q'", WordError::Escape, "\\xHH"),
            (r"$'\x4'", WordError::Escape, "\\xHH"),
            (r"$'\x+4'", WordError::Escape, "\\xHH"),
        ] {
            assert_eq!(split(line.as_bytes(), true), Err(error), "{line}");
            assert!(error.to_string().contains(hint), "{error}");
        }
    }

    #[test]
    fn what_was_quoted_is_known() {
        let line = split(br#"*'*'\*"*""#, true).unwrap();
        let quoted: Vec<bool> = line[0].chars().iter().map(|c| c.quoted).collect();
        assert_eq!(quoted, [false, true, true, true]);
    }

    #[test]
    fn names_are_written_as_a_person_would() {
        for (name, style, expected) in [
            ("a", Style::Bare, "a"),
            ("my file", Style::Bare, r"my\ file"),
            ("my file", Style::Single, "'my file'"),
            ("it's", Style::Single, "\"it's\""),
            ("a\"b", Style::Double, r#""a\"b""#),
            ("-x", Style::Bare, r"\-x"),
            ("a-x", Style::Bare, "a-x"),
            ("~", Style::Bare, r"\~"),
            ("", Style::Bare, "''"),
            ("é", Style::Bare, "é"),
            ("a\u{1b}'", Style::Bare, r"$'a\x1b\''"),
            ("\u{202e}x", Style::Double, r"$'\xe2\x80\xaex'"),
        ] {
            assert_eq!(escape(name.as_bytes(), style, true), expected, "{name:?}");
        }
        assert_eq!(escape(b"a b", Style::Double, false), "\"a b");
    }

    proptest! {
        #[test]
        fn any_name_comes_back_from_its_written_form_as_nothing_but_itself(
            name in proptest::collection::vec(any::<u8>(), 0..40),
            odd in "[-~#!$'\"\\\\ *?\\[\\]a]{0,8}",
        ) {
            for name in [&name[..], odd.as_bytes()] {
                for style in [Style::Bare, Style::Single, Style::Double] {
                    let written = escape(name, style, true);
                    prop_assert!(!written.chars().any(char::is_control));
                    let words = split(written.as_bytes(), true).unwrap();
                    prop_assert_eq!(words.len(), 1);
                    prop_assert_eq!(words[0].bytes(), name);
                    let special = |c: &Char| !c.quoted && b"*?[~#-!".contains(&c.byte);
                    prop_assert!(!words[0].chars().first().is_some_and(special));
                    let glob = |c: &Char| !c.quoted && b"*?[".contains(&c.byte);
                    prop_assert!(!words[0].chars().iter().any(glob));
                }
            }
        }

        #[test]
        fn no_line_panics(line in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = split(&line, true);
            let _ = split(&line, false);
        }
    }
}
