//! One user, and his line in the user file.

use std::{fmt::Write as _, path::Path};

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use super::{CramVerifier, Home, HomeError, NameError, Rights, ScramVerifier, UserName};
use crate::wire::{PathError, decode, encode};

/// What is known of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The name to log in with; never that of the anonymous.
    pub name: UserName,
    /// For SCRAM-SHA-256.
    pub scram: Option<ScramVerifier>,
    /// For CRAM-MD5, if an administrator allowed it.
    pub cram_md5: Option<CramVerifier>,
    /// What he may do.
    pub rights: Rights,
    /// Where his files are; a folder of his name beneath the server's root if it does not say.
    pub home: Option<Home>,
    /// Bytes that his files may take.
    pub quota_bytes: Option<u64>,
    /// Number of files and folders that he may have.
    pub quota_files: Option<u64>,
    /// Bytes per second over all of his connections.
    pub max_rate: Option<u64>,
    /// Whether he is kept from logging in, for as long as this stands.
    pub locked: bool,
}

/// Why a line is no account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LineError {
    /// The name or the home is such that nothing of the file may be believed.
    Fatal(String),
    /// This user can't log in.
    Disabled(UserName, String),
}

impl Account {
    /// A user who may do `rights`, and has no password yet.
    #[must_use]
    pub const fn new(name: UserName, rights: Rights) -> Self {
        Self {
            name,
            scram: None,
            cram_md5: None,
            rights,
            home: None,
            quota_bytes: None,
            quota_files: None,
            max_rate: None,
            locked: false,
        }
    }

    /// Reads `NAME key=value ...`.
    pub(super) fn parse(line: &str) -> Result<Self, LineError> {
        let (name, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
        let name = name_of(name).map_err(|error| LineError::Fatal(error.to_string()))?;
        if name.is_anonymous() {
            return Err(LineError::Fatal(format!("the name {name} is the server's own")));
        }
        // Who has no rights field has none.
        let mut account = Self::new(name.clone(), Rights::NONE);
        let mut seen = Vec::new();
        for word in rest.split_ascii_whitespace() {
            let (key, value) = word.split_once('=').unwrap_or((word, ""));
            if key == "home" {
                // Before anything else may be wrong with the line.
                account.home = Some(home_of(value).map_err(LineError::Fatal)?);
            }
            seen.push(key);
        }
        let disabled = |reason: String| LineError::Disabled(name.clone(), reason);
        for (at, word) in rest.split_ascii_whitespace().enumerate() {
            account.read_field(word).map_err(disabled)?;
            let key = word.split_once('=').map_or(word, |(key, _)| key);
            if seen.get(..at).is_some_and(|before| before.contains(&key)) {
                return Err(disabled(format!("{key} stands twice")));
            }
        }
        if account.scram.is_none() && account.cram_md5.is_none() {
            return Err(disabled("no password".to_owned()));
        }
        Ok(account)
    }

    fn read_field(&mut self, word: &str) -> Result<(), String> {
        let odd = |key: &str| format!("{key} has an odd value");
        let number = |key, value: &str| {
            let digits = value.bytes().all(|byte| byte.is_ascii_digit());
            value.parse().ok().filter(|_| digits).ok_or_else(|| odd(key)).map(Some)
        };
        match word.split_once('=') {
            Some(("scram", value)) => {
                self.scram = Some(value.parse().map_err(|_| odd("scram"))?);
            }
            Some(("cram", value)) => self.cram_md5 = Some(value.parse().map_err(|_| odd("cram"))?),
            Some(("rights", value)) => self.rights = value.parse().map_err(|_| odd("rights"))?,
            Some(("quota", value)) => self.quota_bytes = number("quota", value)?,
            Some(("quota_files", value)) => self.quota_files = number("quota_files", value)?,
            Some(("max_rate", value)) => self.max_rate = number("max_rate", value)?,
            // Read already.
            Some(("home", _)) => {}
            None if word == "locked" => self.locked = true,
            Some((key, _)) => return Err(format!("unknown key {}", encode(key.as_bytes()))),
            None => return Err(format!("unknown word {}", encode(word.as_bytes()))),
        }
        Ok(())
    }

    /// The line of the user file, without its end.
    pub(super) fn to_line(&self) -> String {
        let mut line = self.name.to_string();
        let mut field = |key: &str, value: Option<String>| {
            if let Some(value) = value {
                // Writing to a string can't fail.
                let _ = write!(line, " {key}={value}");
            }
        };
        field("rights", Some(self.rights.to_string()));
        let home = |home: &Home| encode(home.as_path().as_os_str().as_bytes());
        field("home", self.home.as_ref().map(home));
        field("quota", self.quota_bytes.map(|bytes| bytes.to_string()));
        field("quota_files", self.quota_files.map(|files| files.to_string()));
        field("max_rate", self.max_rate.map(|rate| rate.to_string()));
        field("scram", self.scram.as_ref().map(ScramVerifier::to_text));
        field("cram", self.cram_md5.as_ref().map(CramVerifier::to_text));
        if self.locked {
            line.push_str(" locked");
        }
        line
    }
}

fn name_of(text: &str) -> Result<UserName, NameError> {
    text.parse()
}

fn home_of(text: &str) -> Result<Home, String> {
    let bytes = decode(text).map_err(|error: PathError| error.to_string())?;
    Home::new(Path::new(OsStr::from_bytes(&bytes))).map_err(|error: HomeError| error.to_string())
}
