//! One argument that users may give: the operator's pattern for the whole of it.

use regex_lite::Regex;

use crate::limits::ACTION_ARGUMENT_BYTES_MAX;

/// A placeholder's name and pattern.
#[derive(Debug)]
pub(super) struct Parameter {
    name: String,
    /// Anchored at both ends.
    pattern: Regex,
    /// Whether an argument may look like an option.
    may_be_option: bool,
}

/// What is wrong with an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ArgumentFault {
    /// It was not given.
    #[error("it is missing")]
    Missing,
    /// The action has no place for it.
    #[error("the action takes {takes} arguments")]
    TooMany {
        /// How many it takes.
        takes: usize,
    },
    /// Longer than [`ACTION_ARGUMENT_BYTES_MAX`].
    #[error("it is longer than {ACTION_ARGUMENT_BYTES_MAX} bytes")]
    TooLong,
    /// NUL can't be handed to a program.
    #[error("it has a NUL byte")]
    Nul,
    /// Patterns are for text.
    #[error("it is not UTF-8")]
    NotText,
    /// It begins with `-`, which many programs take for an option.
    #[error("it begins with '-'")]
    Option,
    /// The operator's pattern does not allow it.
    #[error("it is not of the form that is allowed")]
    Mismatch,
}

/// Why a pattern is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a pattern: {0}")]
pub struct PatternError(String);

impl Parameter {
    pub(super) fn new(name: &str, pattern: &str) -> Result<Self, PatternError> {
        let error = |error: regex_lite::Error| PatternError(error.to_string());
        // On its own first: `a)|(?:b` is no pattern, but would be one between the brackets, and
        // each of its halves anchored at one end only.
        Regex::new(pattern).map_err(error)?;
        // Not `^` and `$`, which a flag could make match at the end of a line.
        let whole = Regex::new(&format!(r"\A(?:{pattern})\z")).map_err(error)?;
        let may_be_option = pattern.starts_with('-');
        Ok(Self { name: name.to_owned(), pattern: whole, may_be_option })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn check<'a>(&self, bytes: &'a [u8]) -> Result<&'a str, ArgumentFault> {
        if bytes.len() > ACTION_ARGUMENT_BYTES_MAX {
            return Err(ArgumentFault::TooLong);
        }
        if bytes.contains(&0) {
            return Err(ArgumentFault::Nul);
        }
        let text = str::from_utf8(bytes).map_err(|_| ArgumentFault::NotText)?;
        if text.starts_with('-') && !self.may_be_option {
            return Err(ArgumentFault::Option);
        }
        if !self.pattern.is_match(text) {
            return Err(ArgumentFault::Mismatch);
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pattern: &str, argument: &str) -> Result<(), ArgumentFault> {
        Parameter::new("it", pattern).unwrap().check(argument.as_bytes()).map(|_| ())
    }

    #[test]
    fn a_pattern_is_for_the_whole_argument() {
        assert_eq!(check("[a-z]+", "abc"), Ok(()));
        for argument in ["", "abc1", "1abc", "abc\n", "\nabc", "abc\nabc", "abc\n1"] {
            assert_eq!(check("[a-z]+", argument), Err(ArgumentFault::Mismatch), "{argument:?}");
        }
        // Each alternative is anchored at both ends.
        for argument in ["ax", "xb", "ab"] {
            assert_eq!(check("a|b", argument), Err(ArgumentFault::Mismatch), "{argument:?}");
        }
    }

    #[test]
    fn a_newline_slips_past_no_flag() {
        for pattern in ["(?m)^[a-z]+$", "(?m)[a-z]+$", "(?m:^[a-z]+$)", "^[a-z]+$", "[a-z]+.*"] {
            assert_eq!(check(pattern, "abc"), Ok(()), "{pattern}");
            for argument in ["abc\n", "abc\n; rm", "; rm\nabc"] {
                let checked = check(pattern, argument);
                assert_eq!(checked, Err(ArgumentFault::Mismatch), "{pattern} {argument:?}");
            }
        }
    }

    #[test]
    fn a_pattern_that_closes_the_brackets_around_it_is_refused() {
        for pattern in ["a)|(?:b", "a)|(b", "(", "[", "a{2,1}", "(?x)a # "] {
            assert!(Parameter::new("it", pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn an_option_needs_a_pattern_that_begins_with_a_dash() {
        assert_eq!(check("[-a-z]+", "-rf"), Err(ArgumentFault::Option));
        assert_eq!(check(".*", "--output=/etc/passwd"), Err(ArgumentFault::Option));
        assert_eq!(check(".*", "-"), Err(ArgumentFault::Option));
        assert_eq!(check("(-v|-q)", "-v"), Err(ArgumentFault::Option));
        assert_eq!(check("-[vq]", "-v"), Ok(()));
        assert_eq!(check("-[vq]", "-x"), Err(ArgumentFault::Mismatch));
        assert_eq!(check("[-a-z]+", "a-b"), Ok(()));
    }

    #[test]
    fn only_the_argument_beyond_the_limit_is_too_long() {
        assert_eq!(check("a*", &"a".repeat(ACTION_ARGUMENT_BYTES_MAX)), Ok(()));
        let longer = "a".repeat(ACTION_ARGUMENT_BYTES_MAX + 1);
        assert_eq!(check("a*", &longer), Err(ArgumentFault::TooLong));
    }

    #[test]
    fn what_is_no_text_for_a_program_is_refused() {
        let any = Parameter::new("it", r"(?s).*").unwrap();
        assert_eq!(any.check(b"a\0b"), Err(ArgumentFault::Nul));
        assert_eq!(any.check(b"\xff"), Err(ArgumentFault::NotText));
    }
}
