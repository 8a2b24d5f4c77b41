//! What a configuration file may say, and how it is read.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use rustix::process::geteuid;
use serde::{Deserialize, Deserializer, de::Error as _};
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

use super::{Count, ListenAddress, Problem, Size, problem::Places};
use crate::{action::ActionConfig, auth::Rights, limits::CONFIG_BYTES_MAX, wire::Registration};

/// Problems of a file that are told at most: the first one may have brought about the others.
const PROBLEMS_MAX: usize = 50;

/// Everything that a file, or the flags, may say. What is absent is not said.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ConfigFile {
    /// The folder that clients see.
    pub root: Option<PathBuf>,
    /// Addresses to listen on.
    pub listen: Option<Vec<ListenAddress>>,
    /// The user file.
    pub users: Option<PathBuf>,
    /// Whether people log in. Otherwise everybody may do everything.
    pub login: Option<bool>,
    /// What may be done without an account.
    pub anonymous: Option<AnonymousAccess>,
    /// What is said to everybody who logs in.
    pub banner: Option<String>,
    /// How long partials are kept.
    #[serde(deserialize_with = "written")]
    pub keep_partials: Option<humantime::Duration>,
    /// Space that uploads leave free.
    pub reserve: Option<Size>,
    /// Bytes in a second for all connections together, both ways.
    pub max_rate: Option<Size>,
    /// Connections at one time.
    pub max_connections: Option<usize>,
    /// The same of one address.
    pub max_per_address: Option<usize>,
    /// The same of one user.
    pub max_per_user: Option<usize>,
    /// Processes that serve.
    pub workers: Option<usize>,
    /// How people make accounts for themselves.
    pub registration: RegistrationConfig,
    /// What users may run.
    pub actions: BTreeMap<String, ActionConfig>,
    /// What the system holds the server to.
    pub sandbox: SandboxConfig,
    /// The file itself, if there is one.
    #[serde(skip)]
    pub(super) file: Option<PathBuf>,
    /// Where all of this stands.
    #[serde(skip)]
    pub(super) places: Places,
    /// What could not be read.
    #[serde(skip)]
    pub(super) problems: Vec<Problem>,
}

/// What may be done without an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnonymousAccess {
    /// Nothing.
    Off,
    /// Look and download.
    Read,
    /// Look, download, and upload without replacing anything.
    Write,
}

impl AnonymousAccess {
    /// The same as rights.
    #[must_use]
    pub const fn rights(self) -> Option<Rights> {
        match self {
            Self::Off => None,
            Self::Read => Some(Rights::READ),
            Self::Write => Some(Rights::READ.union(Rights::WRITE)),
        }
    }
}

/// Who may make an account for himself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegistrationMode {
    /// Nobody.
    Off,
    /// Whoever has a code.
    Invite,
    /// Everybody.
    Open,
}

impl From<RegistrationMode> for Registration {
    fn from(mode: RegistrationMode) -> Self {
        match mode {
            RegistrationMode::Off => Self::Off,
            RegistrationMode::Invite => Self::Invite,
            RegistrationMode::Open => Self::Open,
        }
    }
}

/// The table `registration`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RegistrationConfig {
    /// Who may make an account for himself.
    pub mode: Option<RegistrationMode>,
    /// What such an account may do.
    #[serde(deserialize_with = "written")]
    pub rights: Option<Rights>,
    /// Bytes that its files may take.
    pub quota: Option<Size>,
    /// Files and folders that it may have.
    pub quota_files: Option<Count>,
}

/// The table `sandbox`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct SandboxConfig {
    /// Whether there is one.
    pub enabled: Option<bool>,
    /// Files and folders that actions may read besides those of the system.
    pub read: Option<Vec<PathBuf>>,
    /// Files and folders that actions may change.
    pub write: Option<Vec<PathBuf>>,
}

/// A value that is written as a string.
fn written<'de, D: Deserializer<'de>, T: FromStr<Err: std::fmt::Display>>(
    from: D,
) -> Result<Option<T>, D::Error> {
    String::deserialize(from)?.parse().map(Some).map_err(D::Error::custom)
}

impl ConfigFile {
    /// Reads a file. Relative paths in it begin at its own folder. What is wrong with it is told by
    /// [`Self::problems`] and [`Self::check`].
    #[must_use]
    pub fn read(path: &Path) -> Self {
        match read_text(path) {
            Ok((text, is_ours)) => {
                let mut config = Self::parse(&text, path);
                if !is_ours && !config.actions.is_empty() {
                    let text = "whoever may write this file decides what is run: it must belong to \
                                root or the server's user, and be writable for nobody else";
                    config.problems.push(Problem::of("actions", text).located(&config.places));
                }
                config
            }
            Err(error) => {
                let problem = Problem::new(format!("{}: {error}", path.display()));
                Self { problems: vec![problem], ..Self::default() }
            }
        }
    }

    /// Reads the text of a file, each key for itself: one that is wrong does not hide the others.
    #[must_use]
    pub fn parse(text: &str, file: &Path) -> Self {
        let (table, mut errors) = DeTable::parse_recoverable(text);
        let places = Places::of(file, text, table.get_ref());
        let mut config = Self::default();
        let is_broken = !errors.is_empty();
        if !is_broken {
            for entry in entries(table.into_inner()) {
                match Self::deserialize(ValueDeserializer::from(entry)) {
                    Ok(entry) => config = entry.over(config),
                    Err(error) => errors.push(error),
                }
            }
        }
        let told = errors.iter().map(|error| Problem::of_toml(file, text, error));
        config.problems = told.collect();
        config.problems.sort_by_key(Problem::line);
        if is_broken {
            // One thing that is out of place makes more of them behind it.
            config.problems.dedup_by_key(|problem| problem.line());
        }
        config.problems.truncate(PROBLEMS_MAX);
        config.places = places;
        config.file = Some(file.to_owned());
        config.begin_paths_at(file.parent().unwrap_or_else(|| Path::new("")));
        config
    }

    /// What could not be read.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    fn begin_paths_at(&mut self, folder: &Path) {
        let sandbox = [&mut self.sandbox.read, &mut self.sandbox.write];
        let sandbox = sandbox.into_iter().flatten().flatten();
        for path in self.root.iter_mut().chain(&mut self.users).chain(sandbox) {
            // An empty path is wrong, and stays so.
            if !path.as_os_str().is_empty() {
                *path = folder.join(&*path);
            }
        }
    }
}

/// A table for each key, and for each action.
fn entries(table: DeTable<'_>) -> Vec<Spanned<DeValue<'_>>> {
    let mut entries = Vec::new();
    for (key, value) in table {
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(actions) if key.get_ref() == "actions" => {
                for (name, action) in actions {
                    let span = action.span();
                    let action = alone(name, action, span.clone());
                    entries.push(alone(key.clone(), action, span));
                }
            }
            value => entries.push(alone(key, Spanned::new(span.clone(), value), span)),
        }
    }
    entries
}

/// A table of one key.
fn alone<'a>(
    key: Spanned<toml::de::DeString<'a>>,
    value: Spanned<DeValue<'a>>,
    span: std::ops::Range<usize>,
) -> Spanned<DeValue<'a>> {
    let mut table = DeTable::new();
    table.insert(key, value);
    Spanned::new(span, DeValue::Table(table))
}

/// The text, and whether nobody can have written it but root and ourselves.
fn read_text(path: &Path) -> io::Result<(String, bool)> {
    let file = File::open(path)?;
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let is_ours = [0, geteuid().as_raw()].contains(&found.uid()) && found.mode() & 0o022 == 0;
    let mut text = String::new();
    file.take(CONFIG_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > CONFIG_BYTES_MAX {
        return Err(io::Error::other(format!("more than {CONFIG_BYTES_MAX} bytes")));
    }
    Ok((text, is_ours))
}
