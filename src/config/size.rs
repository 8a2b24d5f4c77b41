//! Sizes and numbers as people write them.

use std::{fmt, str::FromStr};

use serde::{
    Deserialize, Deserializer,
    de::{Error, Visitor},
};

const UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("B", 1),
];

/// Bytes such as `10GiB`, `500MB` or `1000`; `none` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub Option<u64>);

/// A number, or `none` for no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count(pub Option<u64>);

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WRONG: &str = "write a size such as 10GiB, 500MB or 1000, or none";
        if text == "none" {
            return Ok(Self(None));
        }
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or(WRONG)?;
        let number: u64 = number.parse().map_err(|_| WRONG)?;
        let unit = if unit.is_empty() { "B" } else { unit };
        let known = UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit));
        let (_, bytes) = known.ok_or(WRONG)?;
        Ok(Self(Some(number.checked_mul(*bytes).ok_or("too much")?)))
    }
}

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WRONG: &str = "write a number, or none";
        if text == "none" {
            return Ok(Self(None));
        }
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(WRONG.to_owned());
        }
        Ok(Self(Some(text.parse().map_err(|_| WRONG)?)))
    }
}

/// In TOML, a string or a plain number.
struct Written<T>(T);

impl<T: FromStr<Err = String>> Visitor<'_> for Written<fn(u64) -> T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or a string with one in it")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        Ok(self.0(number))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        u64::try_from(number).map(self.0).map_err(|_| E::custom("it can't be less than nothing"))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Written::<fn(u64) -> Self>(|number| Self(Some(number))))
    }
}

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Written::<fn(u64) -> Self>(|number| Self(Some(number))))
    }
}

/// A size in the largest unit that leaves no rest, in a form that can be read again.
#[must_use]
pub fn show(bytes: u64) -> String {
    let fits = |&&(_, unit): &&(&str, u64)| bytes >= unit && bytes.is_multiple_of(unit);
    // The first that fits is binary where both would.
    match UNITS.iter().find(fits) {
        Some((name, unit)) if *unit > 1 => format!("{}{name}", bytes / unit),
        _ => bytes.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_their_units() {
        for (text, bytes) in [
            ("0", Some(0)),
            ("1000", Some(1000)),
            ("7B", Some(7)),
            ("10GiB", Some(10 << 30)),
            ("500MB", Some(500_000_000)),
            ("500mb", Some(500_000_000)),
            ("2KiB", Some(2048)),
            ("1TB", Some(1_000_000_000_000)),
            ("none", None),
        ] {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "GiB", "-1", "+1", "1.5GiB", "1 GiB", "10G", "1é", "99999999TiB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
            assert!(text.parse::<Count>().is_err(), "{text}");
        }
        assert_eq!("12".parse(), Ok(Count(Some(12))));
        assert_eq!("none".parse(), Ok(Count(None)));
    }

    #[test]
    fn sizes_are_shown_such_that_they_can_be_read_again() {
        for (bytes, text) in [
            (0, "0"),
            (1, "1"),
            (1023, "1023"),
            (1024, "1KiB"),
            (10 << 30, "10GiB"),
            (500_000_000, "500MB"),
            ((1 << 30) + 1, "1073741825"),
        ] {
            assert_eq!(show(bytes), text);
            assert_eq!(text.parse(), Ok(Size(Some(bytes))));
        }
    }
}
