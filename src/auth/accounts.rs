//! What a user file holds: one line a user.
//!
//! ```text
//! # towpath users 1
//! @decoy BASE64
//! # comments and blank lines stay where they are
//! anna rights=rwd home=anna quota=10737418240 scram=200000:SALT:STOREDKEY:SERVERKEY
//! ben rights=r scram=... cram=... locked
//! ```
//!
//! A line that is odd disables the user it is about, with a warning. A name or a home that may
//! lead elsewhere makes the whole file one that is not loaded.

use std::{collections::BTreeMap, fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use zeroize::Zeroizing;

use super::{Account, Candidate, UserName, account::LineError, lookup::Lookup};

const FIRST_LINE: &str = "# towpath users 1";

/// All users of a server.
///
/// Invariant: no two lines are about the same user, unless they are disabled.
#[derive(Clone)]
pub struct Accounts {
    lines: Vec<Line>,
    decoy_key: Zeroizing<[u8; 32]>,
    lookup: Lookup,
}

#[derive(Clone)]
enum Line {
    /// A comment or a blank line.
    Kept(String),
    /// Where the secret of the decoys stands.
    Decoy,
    User(Arc<Account>),
    /// A line that lets nobody in, as it stands.
    Disabled(UserName, String),
}

/// A user who can't log in because of his line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// Number of the line, from 1.
    pub line: usize,
    /// Whom it is about.
    pub user: UserName,
    /// What is wrong; safe to print.
    pub reason: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {} can't log in: {}", self.line, self.user, self.reason)
    }
}

/// Why a file as a whole is not loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct AccountsError {
    /// Number of the line, from 1.
    pub line: usize,
    /// What is wrong; safe to print.
    pub reason: String,
}

impl Accounts {
    /// No users yet. The key must come from the system's random numbers, and stays with the file.
    #[must_use]
    pub fn new(decoy_key: [u8; 32]) -> Self {
        let lines = vec![Line::Kept(FIRST_LINE.to_owned()), Line::Decoy];
        let lookup = Lookup::new(&decoy_key, std::iter::empty());
        Self { lines, decoy_key: Zeroizing::new(decoy_key), lookup }
    }

    /// Reads the text of a user file.
    ///
    /// # Errors
    /// No such file at all, no key for decoys, a bad name, or a home that leads elsewhere.
    pub fn parse(text: &str) -> Result<(Self, Vec<Warning>), AccountsError> {
        let mut lines = Vec::new();
        let mut decoy_key = None;
        let mut warnings = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let fail = |reason: &str| AccountsError { line: at + 1, reason: reason.to_owned() };
            if at == 0 && line != FIRST_LINE {
                return Err(fail("no user file of towpath: its first line is another"));
            }
            lines.push(if line.trim().is_empty() || line.starts_with('#') {
                Line::Kept(line.to_owned())
            } else if let Some(rest) = line.strip_prefix('@') {
                let key = rest.strip_prefix("decoy ").ok_or_else(|| fail("unknown setting"))?;
                let key = STANDARD_NO_PAD.decode(key).ok().and_then(|key| key.try_into().ok());
                let key: [u8; 32] = key.ok_or_else(|| fail("the key for decoys is odd"))?;
                if decoy_key.replace(Zeroizing::new(key)).is_some() {
                    return Err(fail("a second key for decoys"));
                }
                Line::Decoy
            } else {
                match Account::parse(line) {
                    Ok(account) => Line::User(Arc::new(account)),
                    Err(LineError::Fatal(reason)) => return Err(fail(&reason)),
                    Err(LineError::Disabled(user, reason)) => {
                        warnings.push(Warning { line: at + 1, user: user.clone(), reason });
                        Line::Disabled(user, line.to_owned())
                    }
                }
            });
        }
        let reason = "no line @decoy, which hides who has an account".to_owned();
        let error = AccountsError { line: lines.len().max(1), reason };
        let decoy_key = decoy_key.ok_or(error)?;
        disable_twins(&mut lines, &mut warnings);
        let lookup = Lookup::new(&decoy_key, users(&lines));
        Ok((Self { lines, decoy_key, lookup }, warnings))
    }

    /// The text of the file, with all comments in their places.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut text = Zeroizing::new(String::new());
        for line in &self.lines {
            match line {
                Line::Kept(line) | Line::Disabled(_, line) => text.push_str(line),
                Line::Decoy => {
                    text.push_str("@decoy ");
                    text.push_str(&STANDARD_NO_PAD.encode(*self.decoy_key));
                }
                Line::User(account) => text.push_str(&account.to_line()),
            }
            text.push('\n');
        }
        text
    }

    /// Whom to check a login against. For every name there is somebody, after the same work.
    #[must_use]
    pub fn find(&self, name: &str) -> Candidate {
        self.lookup.find(name)
    }

    /// The user of this name, also a locked one; not one whose line is odd.
    #[must_use]
    pub fn get(&self, name: &UserName) -> Option<&Arc<Account>> {
        self.lookup.get(name)
    }

    /// All users in the order of the file, without those whose lines are odd.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Account>> {
        users(&self.lines)
    }

    /// The names of users who can't log in because of their lines.
    pub fn disabled(&self) -> impl Iterator<Item = &UserName> {
        self.lines.iter().filter_map(|line| match line {
            Line::Disabled(name, _) => Some(name),
            Line::Kept(_) | Line::Decoy | Line::User(_) => None,
        })
    }

    /// Adds a user, or replaces him. The name of the anonymous is not taken, which is what the
    /// answer says.
    #[must_use]
    pub fn put(&mut self, account: Account) -> bool {
        if account.name.is_anonymous() {
            return false;
        }
        let first = self.lines.iter().position(|line| line.is_about(&account.name));
        let line = Line::User(Arc::new(account.clone()));
        match first.and_then(|at| self.lines.get_mut(at)) {
            Some(place) => *place = line,
            None => self.lines.push(line),
        }
        // Odd twins of his, if there were any.
        let mut index = 0;
        self.lines.retain(|line| {
            index += 1;
            first.is_none_or(|first| index - 1 <= first) || !line.is_about(&account.name)
        });
        self.refresh();
        true
    }

    /// Removes a user with all lines about him; says whether there was one.
    pub fn remove(&mut self, name: &UserName) -> bool {
        let before = self.lines.len();
        self.lines.retain(|line| !line.is_about(name));
        self.refresh();
        self.lines.len() < before
    }

    fn refresh(&mut self) {
        self.lookup = Lookup::new(&self.decoy_key, users(&self.lines));
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter().map(|account| &account.name)).finish()
    }
}

impl Line {
    fn is_about(&self, user: &UserName) -> bool {
        match self {
            Self::User(account) => account.name == *user,
            Self::Disabled(name, _) => name == user,
            Self::Kept(_) | Self::Decoy => false,
        }
    }

    fn user(&self) -> Option<&UserName> {
        match self {
            Self::User(account) => Some(&account.name),
            Self::Disabled(name, _) => Some(name),
            Self::Kept(_) | Self::Decoy => None,
        }
    }
}

fn users(lines: &[Line]) -> impl Iterator<Item = &Arc<Account>> {
    lines.iter().filter_map(|line| match line {
        Line::User(account) => Some(account),
        Line::Kept(_) | Line::Decoy | Line::Disabled(..) => None,
    })
}

/// Of two lines about one user, nobody knows which one is meant.
fn disable_twins(lines: &mut [Line], warnings: &mut Vec<Warning>) {
    let mut counts = BTreeMap::<UserName, usize>::new();
    for name in lines.iter().filter_map(Line::user) {
        *counts.entry(name.clone()).or_default() += 1;
    }
    for (at, line) in lines.iter_mut().enumerate() {
        let Line::User(account) = line else { continue };
        if counts.get(&account.name).is_some_and(|&count| count > 1) {
            let user = account.name.clone();
            let reason = "there is more than one line for this name".to_owned();
            warnings.push(Warning { line: at + 1, user: user.clone(), reason });
            *line = Line::Disabled(user, account.to_line());
        }
    }
    warnings.sort_by_key(|warning| warning.line);
}

#[cfg(test)]
#[path = "accounts_tests.rs"]
mod tests;
