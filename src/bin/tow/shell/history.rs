//! Where lines are kept from one shell to the next, and which.
//!
//! That a history can't be read or written is no reason not to work: it is passed over.

use std::{
    env,
    ffi::OsString,
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// Lines that are kept.
pub(super) const HISTORY_LINES_MAX: usize = 1000;

/// `$XDG_STATE_HOME/tow/history`, or where that is if nobody says so; its folder is made.
pub(super) fn file() -> Option<PathBuf> {
    let path = path(env::var_os("XDG_STATE_HOME"), env::var_os("HOME"))?;
    // For nobody else, as the history itself.
    DirBuilder::new().recursive(true).mode(0o700).create(path.parent()?).ok()?;
    Some(path)
}

/// A relative path is no place for it: another folder would have another history.
fn path(state: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |dir: Option<OsString>| dir.map(PathBuf::from).filter(|dir| dir.is_absolute());
    let state = absolute(state).or_else(|| absolute(home).map(|home| home.join(".local/state")));
    state.map(|state| state.join(Path::new("tow/history")))
}

/// Whether a line may be kept: not if it begins with a blank, and not if there is a URL with a
/// user in it, since there may be a password as well.
pub(super) fn may_be_kept(line: &str) -> bool {
    let secret = line.split("://").skip(1).any(|rest| {
        let authority = rest.split(['/', ' ', '\'', '"']).next();
        authority.is_some_and(|authority| authority.contains('@'))
    });
    !line.trim().is_empty() && !line.starts_with([' ', '\t']) && !secret
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_history_is_where_the_state_is() {
        let at = |state: &str, home: &str| {
            let set = |text: &str| Some(OsString::from(text)).filter(|text| !text.is_empty());
            path(set(state), set(home)).map(|path| path.to_str().unwrap().to_owned())
        };
        assert_eq!(at("/s", "/h").unwrap(), "/s/tow/history");
        assert_eq!(at("", "/h").unwrap(), "/h/.local/state/tow/history");
        assert_eq!(at("relative", "/h").unwrap(), "/h/.local/state/tow/history");
        assert_eq!(at("", ""), None);
    }

    #[test]
    fn what_may_be_secret_is_not_kept() {
        for line in ["ls", "get a b", "put me@host.txt", "get tow://host/a@b"] {
            assert!(may_be_kept(line), "{line}");
        }
        for line in
            ["", "  ", " ls", "\tls", "tow tow://me:secret@host/", "x 'tow://me:secret@host'"]
        {
            assert!(!may_be_kept(line), "{line}");
        }
    }
}
