//! `tow://[user@]host[:port]/path`.

use std::{fmt, str::FromStr};

use crate::{
    auth::{NameError, UserName},
    wire::{PathError, RemotePath, decode},
};

/// The port of `towd` unless it is told otherwise.
pub const DEFAULT_PORT: u16 = 8690;

/// Where something is on a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// Who logs in; nobody in particular without it.
    pub user: Option<UserName>,
    /// Name or address; IPv6 without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The path below the server's root.
    pub path: RemotePath,
    /// Whether the path was written with a slash at its end: a directory is meant.
    pub is_dir: bool,
    /// Whether it was written with `/.` at its end, or is the root: what is in the directory is
    /// meant, where it makes a difference.
    pub is_content: bool,
}

/// Why a URL was not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// It does not begin with `tow://`.
    #[error("'{0}' is no tow URL: write tow://HOST[:PORT]/PATH")]
    Scheme(String),
    /// No host in it.
    #[error("the URL has no host: write tow://HOST[:PORT]/PATH")]
    Host,
    /// The port is no number from 1 to 65535.
    #[error("'{0}' is no port: a number from 1 to 65535 is needed")]
    Port(String),
    /// The user's name can't be one.
    #[error("bad user name in the URL: {0}")]
    User(#[from] NameError),
    /// A password, which would be seen by everybody who sees the command line.
    #[error("no password in a URL: it is asked for, or comes by --password-file or TOW_PASSWORD")]
    Password,
    /// The path.
    #[error("bad path in the URL: {0}")]
    Path(#[from] PathError),
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let rest = text.strip_prefix("tow://").ok_or_else(|| UrlError::Scheme(safe(text)))?;
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, authority) = match authority.rsplit_once('@') {
            Some((user, _)) if user.contains(':') => return Err(UrlError::Password),
            Some((user, host)) => (Some(user.parse()?), host),
            None => (None, authority),
        };
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => v6.split_once(']').ok_or(UrlError::Host)?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            None if port.is_empty() => DEFAULT_PORT,
            Some(port) => port
                .parse()
                .ok()
                .filter(|&port| port > 0)
                .ok_or_else(|| UrlError::Port(safe(port)))?,
            None => return Err(UrlError::Host),
        };
        if host.is_empty() {
            return Err(UrlError::Host);
        }
        let is_content = path.trim_end_matches('/').ends_with("/.");
        let is_dir = is_content || path.ends_with('/');
        let path = RemotePath::new(&path_bytes(path)?)?;
        let (is_dir, is_content) = (is_dir || path.is_root(), is_content || path.is_root());
        Ok(Self { user, host: host.to_owned(), port, path, is_dir, is_content })
    }
}

/// A path as people type it: what is percent-encoded is decoded, all else is taken as it stands.
fn path_bytes(path: &str) -> Result<Vec<u8>, PathError> {
    let mut bytes = Vec::new();
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        let (plain, encoded) = rest.split_at(at);
        bytes.extend_from_slice(plain.as_bytes());
        let (byte, behind) = encoded.split_at_checked(3).ok_or(PathError::Encoding)?;
        bytes.extend(decode(byte)?);
        rest = behind;
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// Nothing that is printed carries a control character.
fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Host and port as they stand in a URL.
pub(super) fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("tow://")?;
        self.user.iter().try_for_each(|user| write!(f, "{user}@"))?;
        write!(f, "{}{}", host_port(&self.host, self.port), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_dot_behind_a_slash_means_what_is_in_a_directory() {
        for (url, is_dir, is_content) in [
            ("tow://h", true, true),
            ("tow://h/", true, true),
            ("tow://h/a", false, false),
            ("tow://h/a/", true, false),
            ("tow://h/a/.", true, true),
            ("tow://h/a/./", true, true),
            ("tow://h/./a", false, false),
            ("tow://h/a.", false, false),
            ("tow://h/.", true, true),
        ] {
            let url: Url = url.parse().unwrap();
            assert_eq!((url.is_dir, url.is_content), (is_dir, is_content), "{url}");
        }
    }

    #[test]
    fn host_port_and_path_are_taken_apart() {
        for (text, host, port, path) in [
            ("tow://h/a", "h", 8690, &b"a"[..]),
            ("tow://h", "h", 8690, b""),
            ("tow://h:9/a b/", "h", 9, b"a b"),
            ("tow://[::1]:9/a%20b%ff", "::1", 9, b"a b\xff"),
            ("tow://[::1]", "::1", 8690, b""),
            ("tow://h/a=b?c#d", "h", 8690, b"a=b?c#d"),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!((&*url.host, url.port, url.path.as_bytes()), (host, port, path), "{text}");
        }
        assert!("tow://h/d/".parse::<Url>().unwrap().is_dir);
        assert!(!"tow://h/d".parse::<Url>().unwrap().is_dir);
    }

    #[test]
    fn what_is_no_url_is_refused_with_a_hint() {
        for (text, error) in [
            ("http://h/", UrlError::Scheme("http://h/".to_owned())),
            ("tow:///x", UrlError::Host),
            ("tow://:8/x", UrlError::Host),
            ("tow://h:0/x", UrlError::Port("0".to_owned())),
            ("tow://h:99999/x", UrlError::Port("99999".to_owned())),
            ("tow://u:secret@h/x", UrlError::Password),
            ("tow://h/../x", UrlError::Path(PathError::Parent)),
            ("tow://h/a%2", UrlError::Path(PathError::Encoding)),
        ] {
            assert_eq!(text.parse::<Url>(), Err(error), "{text}");
        }
    }
}
