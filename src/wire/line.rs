//! Lines and their words.

use crate::limits::{LINE_BYTES_MAX, LINE_TOKENS_MAX};

/// Why a line could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// No line end within [`LINE_BYTES_MAX`].
    #[error("line longer than {LINE_BYTES_MAX} bytes")]
    TooLong,
    /// A byte outside printable ASCII.
    #[error("line has a byte that is not printable ASCII")]
    NotPrintable,
    /// More words than any command has.
    #[error("line has more than {LINE_TOKENS_MAX} words")]
    TooManyWords,
}

/// Takes the first line off `input`: the line without its end, and how many bytes to consume.
///
/// `Ok(None)` asks for more input. A line ends with LF; a CR before it belongs to the end.
/// `searched` says how far earlier calls looked in vain and is kept up to date, so that a line
/// that comes in byte by byte is not scanned over and over.
///
/// # Errors
/// [`LineError::TooLong`] as soon as the limit is passed, with or without a line end in sight.
pub fn next_line<'a>(
    input: &'a [u8],
    searched: &mut usize,
) -> Result<Option<(&'a [u8], usize)>, LineError> {
    let from = (*searched).min(input.len());
    let found = input.get(from..).and_then(|rest| rest.iter().position(|&byte| byte == b'\n'));
    match found {
        Some(at) => {
            *searched = 0;
            let end = from + at;
            let line = input.get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if line.len() > LINE_BYTES_MAX {
                return Err(LineError::TooLong);
            }
            Ok(Some((line, end + 1)))
        }
        None if input.len() > LINE_BYTES_MAX + 1 => Err(LineError::TooLong),
        None => {
            *searched = input.len();
            Ok(None)
        }
    }
}

/// One word of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// A word without an equals sign.
    Word(&'a str),
    /// `key=value`.
    Field(&'a str, &'a str),
}

/// The words of a line, in order.
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    words: std::str::SplitAsciiWhitespace<'a>,
    left: usize,
}

impl<'a> Tokens<'a> {
    /// Checks that `line` is printable ASCII and looks at its words.
    ///
    /// # Errors
    /// [`LineError::NotPrintable`] for control characters and bytes above 0x7e.
    pub fn new(line: &'a [u8]) -> Result<Self, LineError> {
        if !line.iter().all(|&byte| (0x20..0x7f).contains(&byte)) {
            return Err(LineError::NotPrintable);
        }
        let text = std::str::from_utf8(line).map_err(|_| LineError::NotPrintable)?;
        Ok(Self { words: text.split_ascii_whitespace(), left: LINE_TOKENS_MAX })
    }

    /// The next word as it stands, or `None` at the end.
    ///
    /// # Errors
    /// [`LineError::TooManyWords`].
    pub fn word(&mut self) -> Result<Option<&'a str>, LineError> {
        let Some(word) = self.words.next() else {
            return Ok(None);
        };
        if self.left == 0 {
            return Err(LineError::TooManyWords);
        }
        self.left -= 1;
        Ok(Some(word))
    }

    /// The next word, told apart by its equals sign.
    ///
    /// # Errors
    /// [`LineError::TooManyWords`].
    pub fn token(&mut self) -> Result<Option<Token<'a>>, LineError> {
        Ok(self.word()?.map(|word| match word.split_once('=') {
            Some((key, value)) => Token::Field(key, value),
            None => Token::Word(word),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_fed_byte_by_byte_is_found_at_its_end_and_not_before() {
        let whole = b"get a/b\r\nnoop\n";
        let mut searched = 0;
        for end in 0..9 {
            assert_eq!(next_line(&whole[..end], &mut searched), Ok(None), "{end}");
        }
        assert_eq!(next_line(whole, &mut searched), Ok(Some((&b"get a/b"[..], 9))));
        assert_eq!(next_line(&whole[9..], &mut searched), Ok(Some((&b"noop"[..], 5))));
    }

    #[test]
    fn only_a_line_beyond_the_limit_is_refused() {
        for (length, fits) in
            [(LINE_BYTES_MAX - 1, true), (LINE_BYTES_MAX, true), (LINE_BYTES_MAX + 1, false)]
        {
            let mut line = vec![b'x'; length];
            line.push(b'\n');
            assert_eq!(next_line(&line, &mut 0).is_ok(), fits, "{length}");
        }
        let endless = vec![b'x'; LINE_BYTES_MAX + 2];
        assert_eq!(next_line(&endless, &mut 0), Err(LineError::TooLong));
    }

    #[test]
    fn control_characters_and_high_bytes_make_no_words() {
        for bad in [&b"get a\0b"[..], b"get \x1b[2J", b"get \xff", b"get\ta"] {
            assert!(matches!(Tokens::new(bad), Err(LineError::NotPrintable)), "{bad:?}");
        }
    }
}
