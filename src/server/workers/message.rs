//! What workers tell one another, in bytes. They run the same program: there is one version of it.
//!
//! Pure. Nothing here panics, whatever it is given.

use std::net::{IpAddr, Ipv6Addr};

use crate::{
    auth::UserName,
    digest::Md5Digest,
    limits::SIBLING_MESSAGE_BYTES_MAX,
    server::writers::PartialId,
    store::{Change, RootId, Usage},
    wire::Owner,
};

/// Something that is counted in sum over all workers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(in crate::server) enum Key {
    /// Connections.
    Connections,
    /// Connections from one address.
    Address(IpAddr),
    /// Connections of one user.
    User(UserName),
    /// Logins of one address that are being tried.
    Attempts(IpAddr),
    /// Processes of all actions.
    Actions,
    /// Processes of one action.
    Action(String),
    /// Connections within a home.
    Home(RootId),
    /// Bytes that uploads still await, on the device of the served root.
    Awaited(u64),
}

/// What a sibling has of a partial that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Holder {
    /// Nothing, and nothing is left of what it had.
    Nobody,
    /// It had it, and has let go of it.
    Released,
    /// It has it, and keeps it.
    Stays,
}

/// What one worker knows of a home with a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) struct HomeState {
    /// When it was measured, in nanoseconds of the clock that all processes share.
    pub(in crate::server) measured: u64,
    /// What was found then.
    pub(in crate::server) base: Usage,
    /// What this worker has changed since.
    pub(in crate::server) change: Change,
}

/// Something that a worker tells its siblings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) enum Message {
    /// It has just begun, and knows nothing.
    Hello,
    /// To one that has just begun: that is all there is to know.
    Welcome,
    /// It counts so many.
    Count(Key, u64),
    /// A login failed.
    Failed(IpAddr, String),
    /// A login succeeded.
    Succeeded(IpAddr, String),
    /// An account was made.
    Registered(IpAddr),
    /// So many bytes were moved, for nobody in particular or for a user, at a limited rate.
    Took(Option<UserName>, u64),
    /// A client came for a partial that another process has, at this time of the shared clock.
    Ask {
        /// To be given back.
        ask: u64,
        partial: PartialId,
        owner: Owner,
        since: u64,
    },
    /// The answer.
    Answer(u64, Holder),
    /// What it knows of a home.
    Home(RootId, HomeState),
}

impl Message {
    /// The message as bytes, behind whose it is.
    pub(super) fn to_bytes(&self, from: u8, incarnation: u32) -> Vec<u8> {
        let mut out = vec![from];
        out.extend(incarnation.to_le_bytes());
        match self {
            Self::Hello => out.push(0),
            Self::Welcome => out.push(9),
            Self::Count(key, count) => {
                out.push(1);
                put(&mut out, *count);
                put_key(&mut out, key);
            }
            Self::Failed(address, name) => put_address(&mut out, 2, *address, name),
            Self::Succeeded(address, name) => put_address(&mut out, 3, *address, name),
            Self::Registered(address) => put_address(&mut out, 4, *address, ""),
            Self::Took(user, bytes) => {
                out.push(5);
                put(&mut out, *bytes);
                out.extend(user.iter().flat_map(|user| user.as_str().bytes()));
            }
            Self::Ask { ask, partial: (root, name), owner, since } => {
                out.push(6);
                put_all(&mut out, &[*ask, root.0, root.1, *since]);
                out.extend(name.0);
                out.extend(owner.0.to_le_bytes());
            }
            Self::Answer(ask, holder) => {
                out.push(7);
                put(&mut out, *ask);
                out.push(*holder as u8);
            }
            Self::Home(root, HomeState { measured, base, change }) => {
                out.push(8);
                put_all(&mut out, &[root.0, root.1, *measured]);
                put_all(&mut out, &[base.bytes, base.files, change.claimed]);
                out.extend([change.bytes, change.files].iter().flat_map(|it| it.to_le_bytes()));
            }
        }
        debug_assert!(out.len() <= SIBLING_MESSAGE_BYTES_MAX, "{self:?}");
        out
    }

    /// Whose it is, and what it says; `None` if it makes no sense.
    pub(super) fn parse(bytes: &[u8]) -> Option<(u8, u32, Self)> {
        let mut rest = Rest(bytes);
        let [from] = rest.take()?;
        let incarnation = u32::from_le_bytes(rest.take()?);
        let [kind] = rest.take()?;
        let message = match kind {
            0 => Self::Hello,
            9 => Self::Welcome,
            1 => {
                let count = rest.number()?;
                Self::Count(rest.key()?, count)
            }
            2 => Self::Failed(rest.address()?, rest.text()?),
            3 => Self::Succeeded(rest.address()?, rest.text()?),
            4 => Self::Registered(rest.address()?),
            5 => {
                let bytes = rest.number()?;
                let user = rest.text()?;
                let user = if user.is_empty() { None } else { Some(user.parse().ok()?) };
                Self::Took(user, bytes)
            }
            6 => {
                let (ask, root) = (rest.number()?, (rest.number()?, rest.number()?));
                let since = rest.number()?;
                let partial = (root, Md5Digest(rest.take()?));
                Self::Ask { ask, partial, owner: Owner(u128::from_le_bytes(rest.take()?)), since }
            }
            7 => {
                let ask = rest.number()?;
                let all = [Holder::Nobody, Holder::Released, Holder::Stays];
                let [holder] = rest.take()?;
                Self::Answer(ask, all.into_iter().find(|it| *it as u8 == holder)?)
            }
            8 => {
                let root = (rest.number()?, rest.number()?);
                let measured = rest.number()?;
                let base = Usage { bytes: rest.number()?, files: rest.number()? };
                let claimed = rest.number()?;
                let mut signed = || Some(i64::from_le_bytes(rest.take()?));
                let change = Change { bytes: signed()?, files: signed()?, claimed };
                Self::Home(root, HomeState { measured, base, change })
            }
            _ => return None,
        };
        rest.0.is_empty().then_some((from, incarnation, message))
    }
}

fn put(out: &mut Vec<u8>, number: u64) {
    out.extend(number.to_le_bytes());
}

fn put_all(out: &mut Vec<u8>, numbers: &[u64]) {
    numbers.iter().for_each(|&number| put(out, number));
}

/// A kind, an address, and a name behind it, if there is one.
fn put_address(out: &mut Vec<u8>, kind: u8, address: IpAddr, name: &str) {
    let address = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped(),
        IpAddr::V6(address) => address,
    };
    out.push(kind);
    out.extend(address.octets());
    out.extend(name.bytes());
}

fn put_key(out: &mut Vec<u8>, key: &Key) {
    match key {
        Key::Connections => out.push(0),
        Key::Address(address) => put_address(out, 1, *address, ""),
        Key::User(user) => {
            out.push(2);
            out.extend(user.as_str().bytes());
        }
        Key::Attempts(address) => put_address(out, 3, *address, ""),
        Key::Actions => out.push(4),
        Key::Action(name) => {
            out.push(5);
            out.extend(name.bytes());
        }
        Key::Home((device, inode)) => {
            out.push(6);
            put_all(out, &[*device, *inode]);
        }
        Key::Awaited(device) => {
            out.push(7);
            put(out, *device);
        }
    }
}

/// What of a message is not read yet.
struct Rest<'a>(&'a [u8]);

impl Rest<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn number(&mut self) -> Option<u64> {
        Some(u64::from_le_bytes(self.take()?))
    }

    fn address(&mut self) -> Option<IpAddr> {
        Some(IpAddr::V6(Ipv6Addr::from(self.take::<16>()?)).to_canonical())
    }

    /// All that is left.
    fn text(&mut self) -> Option<String> {
        let text = std::mem::take(&mut self.0);
        str::from_utf8(text).ok().map(str::to_owned)
    }

    fn key(&mut self) -> Option<Key> {
        let [kind] = self.take()?;
        Some(match kind {
            0 => Key::Connections,
            1 => Key::Address(self.address()?),
            2 => Key::User(self.text()?.parse().ok()?),
            3 => Key::Attempts(self.address()?),
            4 => Key::Actions,
            5 => Key::Action(self.text()?),
            6 => Key::Home((self.number()?, self.number()?)),
            7 => Key::Awaited(self.number()?),
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::LOGIN_MESSAGE_BYTES_MAX;

    fn all() -> Vec<Message> {
        let (v4, v6) = (IpAddr::from([192, 0, 2, 1]), "2001:db8::".parse().unwrap());
        let ann: UserName = "ann".parse().unwrap();
        let keys = [
            Key::Connections,
            Key::Address(v4),
            Key::User(ann.clone()),
            Key::Attempts(v6),
            Key::Actions,
            Key::Action("free".to_owned()),
            Key::Home((1, u64::MAX)),
            Key::Awaited(7),
        ];
        let counts = keys.into_iter().map(|key| Message::Count(key, 5));
        let base = Usage { bytes: 1, files: 2 };
        let change = Change { bytes: -3, files: i64::MIN, claimed: 4 };
        let state = HomeState { measured: 9, base, change };
        let ask = 1 << 40;
        let partial = ((1, 2), Md5Digest([3; 16]));
        counts
            .chain([
                Message::Hello,
                Message::Welcome,
                Message::Failed(v4, "é".repeat(LOGIN_MESSAGE_BYTES_MAX / 2)),
                Message::Succeeded(v6, String::new()),
                Message::Registered(v4),
                Message::Took(None, u64::MAX),
                Message::Took(Some(ann), 1),
                Message::Ask { ask, partial, owner: Owner(u128::MAX - 1), since: 2 },
                Message::Answer(3, Holder::Nobody),
                Message::Answer(3, Holder::Released),
                Message::Answer(3, Holder::Stays),
                Message::Home((4, 5), state),
            ])
            .collect()
    }

    #[test]
    fn every_message_comes_through_and_none_that_is_cut_panics() {
        for message in all() {
            let bytes = message.to_bytes(63, 4711);
            assert_eq!(Message::parse(&bytes), Some((63, 4711, message)));
            for length in 0..bytes.len() {
                // A name that is shorter is a name.
                let _ = Message::parse(&bytes[..length]);
            }
            assert_eq!(Message::parse(&bytes[..5]), None);
        }
    }

    #[test]
    fn what_makes_no_sense_says_nothing() {
        for kind in 0..=255 {
            let _ = Message::parse(&[0, 0, 0, 0, 0, kind]);
            let _ = Message::parse(&[&[0, 0, 0, 0, 0, kind][..], &[0xff; 100]].concat());
        }
        assert_eq!(Message::parse(&[0, 0, 0, 0, 0, 0, 0]), None, "something behind the end");
    }
}
