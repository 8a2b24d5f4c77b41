//! The homes of users: opened once for all connections that are in them.
//!
//! Everything here runs on the disk thread.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use super::{
    disk::Done,
    settings::{Settings, home_of},
};
use crate::{
    auth::{Account, Accounts},
    store::{Expiry, Root, StoreError},
};

/// The homes that are open, beneath the served root or elsewhere.
#[derive(Debug)]
pub(super) struct Homes {
    root: Arc<Root>,
    open: Mutex<HashMap<PathBuf, Weak<Root>>>,
}

/// A home on the way to be opened.
#[derive(Debug)]
pub(super) struct Opening {
    account: Arc<Account>,
}

impl Opening {
    pub(super) const fn new(account: Arc<Account>) -> Self {
        Self { account }
    }
}

impl Homes {
    pub(super) fn new(root: Arc<Root>) -> Self {
        Self { root, open: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Weak<Root>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the home of an account, and makes it if it is absent.
    pub(super) fn open(&self, opening: Opening, settings: &Settings) -> Done {
        let Opening { account } = opening;
        let home = self.get(home_of(&account), settings);
        Done::Home(account, home)
    }

    fn get(&self, path: PathBuf, settings: &Settings) -> Result<Arc<Root>, StoreError> {
        let mut open = self.lock();
        if let Some(home) = open.get(&path).and_then(Weak::upgrade) {
            return Ok(home);
        }
        open.retain(|_, home| home.strong_count() > 0);
        let home = if path.is_absolute() {
            Root::serve(&path).map(|home| home.sharing_digests_of(&self.root))
        } else {
            self.root.home(&path)
        };
        let home = Arc::new(home?);
        home.set_reserve_bytes(settings.reserve_bytes);
        open.insert(path, Arc::downgrade(&home));
        Ok(home)
    }

    /// Begins to look for old partials in the homes of all accounts, or in the root if there are
    /// none.
    pub(super) fn expire(&self, settings: &Settings, accounts: Option<&Accounts>) -> ExpireAll {
        let mut paths = HashSet::new();
        if let Some(accounts) = accounts {
            paths.extend(accounts.iter().map(|account| home_of(account)));
        }
        let anonymous = settings.logins().and_then(|logins| logins.anonymous_account());
        paths.extend(anonymous.iter().map(|account| home_of(account)));
        let walk = match accounts {
            Some(_) => None,
            None => begin(Arc::clone(&self.root), settings.keep_partials),
        };
        ExpireAll { keep: settings.keep_partials, paths: paths.into_iter().collect(), walk }
    }

    /// Goes on with it, for as long as other jobs can wait.
    pub(super) fn expire_step(&self, mut all: ExpireAll) -> Done {
        if let Some((home, walk)) = all.walk.take() {
            match home.expire_step(walk) {
                ControlFlow::Continue(walk) => all.walk = Some((home, walk)),
                ControlFlow::Break(0) => {}
                ControlFlow::Break(removed) => {
                    log::info!("removed {removed} files of expired partials");
                }
            }
            return Done::Expiring(all);
        }
        let Some(path) = all.paths.pop() else { return Done::Nothing };
        match self.find(path) {
            Ok(Some(home)) => all.walk = begin(home, all.keep),
            // Who has never logged in has no home.
            Ok(None) => {}
            Err(error) => log::warn!("looking for expired partials: {error}"),
        }
        Done::Expiring(all)
    }

    fn find(&self, path: PathBuf) -> Result<Option<Arc<Root>>, StoreError> {
        if let Some(home) = self.lock().get(&path).and_then(Weak::upgrade) {
            return Ok(Some(home));
        }
        let home = if path.is_absolute() {
            Root::serve(&path).map(Some)
        } else {
            self.root.home_if_there(&path)
        };
        Ok(home?.map(Arc::new))
    }
}

/// A walk through the partials of several homes.
#[derive(Debug)]
pub(super) struct ExpireAll {
    keep: Duration,
    paths: Vec<PathBuf>,
    walk: Option<(Arc<Root>, Expiry)>,
}

fn begin(home: Arc<Root>, keep: Duration) -> Option<(Arc<Root>, Expiry)> {
    match home.expire(keep) {
        Ok(walk) => Some((home, walk)),
        Err(error) => {
            log::warn!("looking for expired partials: {error}");
            None
        }
    }
}
