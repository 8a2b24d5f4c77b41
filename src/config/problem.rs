//! What is wrong with a configuration, and where.

use std::{collections::BTreeMap, fmt, ops::Range, path::Path, path::PathBuf};

use toml::de::DeTable;

/// How deep keys are looked for: `actions.NAME.KEY` is the deepest.
const KEY_DEPTH_MAX: usize = 3;

/// Something that is wrong. It is safe to print.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    key: Option<String>,
    text: String,
    place: Option<Place>,
}

/// Where in a file something stands.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    file: PathBuf,
    /// From 1.
    line: usize,
    /// From 1, in characters.
    column: usize,
    /// The line itself.
    text: String,
}

/// Where the keys of a file stand.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Places(BTreeMap<String, Place>);

impl Problem {
    /// Something that has no place in a file.
    #[must_use]
    pub fn new(text: impl fmt::Display) -> Self {
        Self { key: None, text: text.to_string(), place: None }
    }

    /// Something about a key, such as `registration.mode`.
    #[must_use]
    pub fn of(key: impl Into<String>, text: impl fmt::Display) -> Self {
        Self { key: Some(key.into()), ..Self::new(text) }
    }

    /// What TOML, or one of its values, has against a file.
    pub(super) fn of_toml(file: &Path, source: &str, error: &toml::de::Error) -> Self {
        let span = error.span();
        let place = span.map(|span| Place::of(file, source, span));
        let text = error.message().trim().replace('\n', ", ");
        let text = if place.is_none() { format!("{}: {text}", file.display()) } else { text };
        Self { place, ..Self::new(text) }
    }

    /// The line it is about, and a mark below the place in it.
    #[must_use]
    pub fn snippet(&self) -> Option<String> {
        let Place { line, column, text, .. } = self.place.as_ref()?;
        let number = line.to_string();
        let (margin, before) = (number.len() + 2, column - 1);
        let text = printable(text);
        Some(format!(" {number} | {text}\n{:margin$}| {:before$}^", "", ""))
    }

    /// Number of the line it is about, from 1.
    #[must_use]
    pub fn line(&self) -> Option<usize> {
        self.place.as_ref().map(|place| place.line)
    }

    /// Which key it is about.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// Looks up where its key stands, or whatever that is a part of.
    pub(super) fn located(mut self, places: &Places) -> Self {
        let mut key = self.key.as_deref().filter(|_| self.place.is_none());
        while let Some(name) = key {
            if let Some(place) = places.0.get(name) {
                self.place = Some(place.clone());
                break;
            }
            key = name.rsplit_once('.').map(|(above, _)| above);
        }
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place { file, line, column, .. }) = &self.place {
            write!(f, "{}:{line}:{column}: ", printable(&file.to_string_lossy()))?;
        }
        if let Some(key) = &self.key {
            write!(f, "{}: ", printable(key))?;
        }
        f.write_str(&printable(&self.text))
    }
}

impl Place {
    fn of(file: &Path, source: &str, span: Range<usize>) -> Self {
        let before = source.get(..span.start).unwrap_or(source);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        let line = before.matches('\n').count() + 1;
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        let text = source.get(line_start..).and_then(|rest| rest.lines().next());
        let text = text.unwrap_or_default().to_owned();
        Self { file: file.to_owned(), line, column, text }
    }
}

impl Places {
    /// Notes where the keys of a table stand.
    pub(super) fn of(file: &Path, source: &str, table: &DeTable<'_>) -> Self {
        let mut places = Self::default();
        places.note(file, source, "", table, KEY_DEPTH_MAX);
        places
    }

    fn note(&mut self, file: &Path, source: &str, above: &str, table: &DeTable<'_>, left: usize) {
        for (key, value) in table {
            let name = format!("{above}{}", key.get_ref());
            if let (Some(table), 1..) = (value.get_ref().as_table(), left - 1) {
                self.note(file, source, &format!("{name}."), table, left - 1);
            }
            self.0.insert(name, Place::of(file, source, key.span()));
        }
    }

    /// A key that is said elsewhere stands nowhere here.
    pub(super) fn forget(&mut self, key: &str) {
        self.0.remove(key);
    }
}

/// What a terminal shows as it is.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            shown.extend(character.escape_debug());
        } else {
            shown.push(character);
        }
    }
    shown
}
