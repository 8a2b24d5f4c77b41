//! Addresses to listen on, as people write them.

use std::{
    fmt, io,
    net::{SocketAddr, ToSocketAddrs as _},
    str::FromStr,
};

use serde::Deserialize;

/// `ADDR:PORT`, or a name in place of the address. It is looked up when the server starts, and
/// never again: what is refused later does not depend on what a name server says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ListenAddress(String);

impl ListenAddress {
    /// Looks it up, which may take as long as a name server does.
    ///
    /// # Errors
    /// Nobody knows the name.
    pub fn resolve(&self) -> io::Result<SocketAddr> {
        let found = self.0.to_socket_addrs()?.next();
        found.ok_or_else(|| io::Error::other("no address of that name"))
    }
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        const WRONG: &str = "write ADDR:PORT, such as 0.0.0.0:8690 or [::]:8690";
        let named = |(host, port): (&str, &str)| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
            let is_name = !host.is_empty() && host.chars().all(plain);
            let digits = port.bytes().all(|byte| byte.is_ascii_digit());
            is_name && digits && port.parse::<u16>().is_ok()
        };
        if text.parse::<SocketAddr>().is_ok() || text.rsplit_once(':').is_some_and(named) {
            return Ok(Self(text.to_owned()));
        }
        Err(WRONG.to_owned())
    }
}

impl TryFrom<String> for ListenAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port() {
        for text in ["127.0.0.1:0", "[::]:8690", "[fe80::1%2]:1", "localhost:8690", "a-b.example:1"]
        {
            assert_eq!(text.parse::<ListenAddress>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "localhost",
            "127.0.0.1",
            ":8690",
            "::1",
            "localhost:",
            "localhost:x",
            "a:70000",
            "a:+1",
            "a b:1",
            "a/b:1",
            "[::1]",
            "8690",
            "a:1:2",
        ] {
            assert!(text.parse::<ListenAddress>().is_err(), "{text}");
        }
        let address: ListenAddress = "127.0.0.1:8690".parse().unwrap();
        assert_eq!(address.resolve().unwrap(), SocketAddr::from(([127, 0, 0, 1], 8690)));
    }
}
