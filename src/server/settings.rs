//! What an operator can change while the server runs.

use std::{path::PathBuf, sync::Arc, time::Duration};

use crate::{
    action::Actions,
    auth::{Account, Home, Rights, UserName},
    limits::{ADDRESS_CONNECTIONS_MAX, CONNECTIONS_MAX, KEEP_PARTIALS, USER_CONNECTIONS_MAX},
    wire::Registration,
};

/// Settings that a running server takes over when it is told to read them again.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who may do what.
    pub access: Access,
    /// How long partials are kept after the last byte came in.
    pub keep_partials: Duration,
    /// Connections at one time, at most [`CONNECTIONS_MAX`].
    pub max_connections: usize,
    /// Connections at one time from one address.
    pub max_per_address: usize,
    /// Connections at one time of one user.
    pub max_per_user: usize,
    /// Bytes in a second for all connections together, both ways; `None` for as many as can be.
    pub max_rate: Option<u64>,
    /// Bytes of each file system that uploads leave free.
    pub reserve_bytes: u64,
    /// What is said to everybody who logs in.
    pub banner: Option<Arc<str>>,
    /// What users may run.
    pub actions: Arc<Actions>,
}

impl Default for Settings {
    /// No logins, and the limits that the server has by default.
    fn default() -> Self {
        Self {
            access: Access::Everybody,
            keep_partials: KEEP_PARTIALS,
            max_connections: CONNECTIONS_MAX,
            max_per_address: ADDRESS_CONNECTIONS_MAX,
            max_per_user: USER_CONNECTIONS_MAX,
            max_rate: None,
            reserve_bytes: 0,
            banner: None,
            actions: Arc::default(),
        }
    }
}

impl Settings {
    /// Who may make an account.
    pub(super) const fn registration(&self) -> Registration {
        match &self.access {
            Access::Everybody => Registration::Off,
            Access::Logins(logins) => logins.registration,
        }
    }

    /// Whether, and how, people log in.
    pub(super) const fn logins(&self) -> Option<&Logins> {
        match &self.access {
            Access::Everybody => None,
            Access::Logins(logins) => Some(logins),
        }
    }
}

/// Who may do what.
#[derive(Debug, Clone)]
pub enum Access {
    /// Whoever reaches the port may read, write and remove everything below the root.
    Everybody,
    /// People log in, each at home in a folder of his own.
    Logins(Logins),
}

/// How people log in.
#[derive(Debug, Clone)]
pub struct Logins {
    /// The user file.
    pub users: PathBuf,
    /// The file of invites.
    pub invites: PathBuf,
    /// What may be done without an account, in a folder of its own.
    pub anonymous: Option<Rights>,
    /// Who may make an account for himself.
    pub registration: Registration,
    /// The rights of an account that was made so.
    pub new_rights: Rights,
    /// Bytes that such an account may store.
    pub new_quota_bytes: Option<u64>,
    /// Files and folders that it may have.
    pub new_quota_files: Option<u64>,
}

impl Logins {
    /// People with accounts in these files, and nobody else.
    #[must_use]
    pub const fn new(users: PathBuf, invites: PathBuf) -> Self {
        Self {
            users,
            invites,
            anonymous: None,
            registration: Registration::Off,
            new_rights: Rights::READ.union(Rights::WRITE).union(Rights::DELETE),
            new_quota_bytes: None,
            new_quota_files: None,
        }
    }

    /// The account of somebody who made it for himself, still without a password.
    pub(super) fn new_account(&self, name: UserName) -> Account {
        Account {
            quota_bytes: self.new_quota_bytes,
            quota_files: self.new_quota_files,
            ..Account::new(name, self.new_rights)
        }
    }

    /// The account of whoever has none, if that is allowed.
    pub(super) fn anonymous_account(&self) -> Option<Account> {
        let rights = self.anonymous?;
        Some(Account::new(UserName::anonymous(), rights))
    }
}

/// Where an account is at home: beneath the root, under its name, unless the user file says more.
pub(super) fn home_of(account: &Account) -> PathBuf {
    let home = account.home.as_ref().map(Home::as_path);
    home.map_or_else(|| PathBuf::from(account.name.as_str()), PathBuf::from)
}
