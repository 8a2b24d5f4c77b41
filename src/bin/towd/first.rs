//! The first start: a user, so that somebody can get in.

use std::{
    io::{self, Write as _},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
};

use towpath::{
    auth::{
        Account, Accounts, Password, Rights, ScramVerifier, UserName,
        file::{FileError, read, update},
        random_text,
    },
    config::Setup,
    limits::SCRAM_ITERATIONS,
    server::Access,
    wire::Registration,
};
use zeroize::Zeroizing;

use crate::Failure;

/// Whom the first start makes.
const NAME: &str = "tow";

/// A user whose password nobody knows yet.
pub(crate) struct First {
    name: UserName,
    password: Zeroizing<String>,
}

/// Makes a user if there is none. Where people get in without one, there is only a file for those
/// to come.
pub(crate) fn user(setup: &Setup) -> Result<Option<First>, Failure> {
    let Access::Logins(logins) = &setup.settings.access else { return Ok(None) };
    if !is_empty(&logins.users)? {
        return Ok(None);
    }
    if logins.anonymous.is_some() || logins.registration == Registration::Open {
        update(&logins.users, |_: &mut Accounts| Ok::<_, FileError>(()))?;
        return Ok(None);
    }
    let (name, text) = (NAME.parse::<UserName>()?, random_text()?);
    let rights = Rights::READ.union(Rights::WRITE).union(Rights::DELETE);
    let mut salt = [0; 16];
    getrandom::fill(&mut salt)?;
    let mut account = Account::new(name.clone(), rights);
    account.scram = Some(ScramVerifier::new(&Password::new(&text)?, salt, SCRAM_ITERATIONS));
    let made = update(&logins.users, |accounts: &mut Accounts| {
        // Somebody may have been quicker.
        Ok::<_, FileError>(has_nobody(accounts) && accounts.put(account))
    })?;
    Ok(made.then_some(First { name, password: text }))
}

fn is_empty(users: &Path) -> Result<bool, FileError> {
    match read::<Accounts>(users) {
        Ok(loaded) => Ok(has_nobody(&loaded.value)),
        Err(FileError::Absent(_)) => Ok(true),
        Err(error) => Err(error),
    }
}

fn has_nobody(accounts: &Accounts) -> bool {
    accounts.iter().next().is_none() && accounts.disabled().next().is_none()
}

impl First {
    /// Says, once and only on stdout, how to log in.
    pub(crate) fn tell(&self, address: Option<SocketAddr>) {
        let Self { name, password } = self;
        let address = address.map_or_else(|| "HOST".to_owned(), |it| reachable(it).to_string());
        let text = format!(
            "no users yet: made one\n  TOW_PASSWORD={} tow ls tow://{name}@{address}/\n\
             keep the password: it is not shown again; towd user passwd {name} changes it, with the \
             same --root or --config\n",
            password.as_str()
        );
        let text = Zeroizing::new(text);
        if io::stdout().write_all(text.as_bytes()).is_err() {
            log::warn!("nobody saw the password of {name}: towd user passwd {name} sets another");
        }
    }
}

/// Where somebody on this machine reaches what listens on an address.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(it) if it.ip().is_unspecified() => {
            address.set_ip(Ipv4Addr::LOCALHOST.into())
        }
        SocketAddr::V6(it) if it.ip().is_unspecified() => {
            address.set_ip(Ipv6Addr::LOCALHOST.into())
        }
        _ => {}
    }
    address
}
