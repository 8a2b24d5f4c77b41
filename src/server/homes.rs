//! The homes of users: opened once for all connections that are in them, measured where there is
//! a quota.
//!
//! Everything here runs on the disk thread.

use std::{
    collections::{HashMap, HashSet},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use super::{
    disk::Done,
    settings::{Settings, home_of},
};
use crate::{
    auth::{Account, Accounts},
    limits::MEASURE_INTERVAL,
    store::{Expiry, Ledger, Quota, Root, StoreError, Walk},
};

/// The homes beneath the served root, or elsewhere.
#[derive(Debug)]
pub(super) struct Homes {
    root: Arc<Root>,
    known: Mutex<HashMap<PathBuf, Home>>,
}

/// What is known of one home.
#[derive(Debug, Default)]
struct Home {
    /// While connections are in it.
    open: Weak<Root>,
    /// What it holds, where there is a quota.
    ledger: Option<Arc<Ledger>>,
    measured: Option<Instant>,
    /// Somebody's login waits for a walk through it; others' logins wait for that one.
    is_measured_now: bool,
}

impl Home {
    /// What it holds, unless that was found out too long ago: others than the server may have
    /// changed it since.
    fn fresh_ledger(&self) -> Option<Arc<Ledger>> {
        let is_fresh = self.measured.is_some_and(|at| at.elapsed() < MEASURE_INTERVAL);
        self.ledger.clone().filter(|_| is_fresh)
    }
}

/// A home on the way to be opened.
#[derive(Debug)]
pub(super) struct Opening {
    pub(super) account: Arc<Account>,
    walk: Option<(Root, Walk)>,
}

impl Opening {
    pub(super) const fn new(account: Arc<Account>) -> Self {
        Self { account, walk: None }
    }
}

impl Homes {
    pub(super) fn new(root: Arc<Root>) -> Self {
        Self { root, known: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Home>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens the home of an account, and makes it if it is absent; one step of it.
    pub(super) fn open(&self, opening: Opening, settings: &Settings) -> Done {
        let path = home_of(&opening.account);
        let step = match opening.walk {
            None => self.begin(&path, &opening.account, settings),
            Some((root, walk)) => self.measure(&path, root, walk, quota_of(&opening.account)),
        };
        match step {
            Ok(Step::Open(home)) => Done::Home(opening.account, Ok(home)),
            Ok(Step::Later(walk)) => Done::Opening(Opening { walk, ..opening }),
            Err(error) => Done::Home(opening.account, Err(error)),
        }
    }

    fn begin(
        &self,
        path: &Path,
        account: &Account,
        settings: &Settings,
    ) -> Result<Step, StoreError> {
        let mut known = self.lock();
        known.retain(|_, home| {
            home.open.strong_count() > 0 || home.is_measured_now || home.fresh_ledger().is_some()
        });
        let home = known.entry(path.to_owned()).or_default();
        let quota = quota_of(account);
        if home.is_measured_now {
            return Ok(Step::Later(None));
        }
        // Whoever is still in an unmeasured home came before there was a quota, and is on his way
        // out: what he does there is not counted, and he is not waited for.
        let is_fit = |root: &Arc<Root>| quota.is_none() || root.ledger().is_some();
        if let Some(root) = home.open.upgrade().filter(is_fit) {
            root.ledger().iter().for_each(|ledger| ledger.set_quota(quota.unwrap_or_default()));
            return Ok(Step::Open(root));
        }
        let root = if path.is_absolute() { Root::serve(path) } else { self.root.home(path) }?;
        let root = root.sharing_digests_of(&self.root);
        root.set_reserve_bytes(settings.reserve_bytes);
        let Some(quota) = quota else {
            home.ledger = None;
            return Ok(Step::Open(home.opened(root)));
        };
        if let Some(ledger) = home.fresh_ledger() {
            ledger.set_quota(quota);
            return Ok(Step::Open(home.opened(root.with_ledger(ledger))));
        }
        let walk = root.measure()?;
        home.is_measured_now = true;
        Ok(Step::Later(Some((root, walk))))
    }

    fn measure(
        &self,
        path: &Path,
        root: Root,
        walk: Walk,
        quota: Option<Quota>,
    ) -> Result<Step, StoreError> {
        let usage = match root.measure_step(walk) {
            ControlFlow::Continue(walk) => return Ok(Step::Later(Some((root, walk)))),
            ControlFlow::Break(usage) => usage,
        };
        let mut known = self.lock();
        let home = known.entry(path.to_owned()).or_default();
        home.is_measured_now = false;
        let ledger = Arc::new(Ledger::new(quota.unwrap_or_default(), usage?));
        (home.ledger, home.measured) = (Some(Arc::clone(&ledger)), Some(Instant::now()));
        Ok(Step::Open(home.opened(root.with_ledger(ledger))))
    }

    /// Whoever waited for a walk is gone.
    pub(super) fn give_up(&self, opening: &Opening) {
        if opening.walk.is_some()
            && let Some(home) = self.lock().get_mut(&home_of(&opening.account))
        {
            home.is_measured_now = false;
        }
    }

    /// Begins to look for old partials in the homes of all accounts, or in the root if there are
    /// none.
    pub(super) fn expire(&self, settings: &Settings, accounts: Option<&Accounts>) -> ExpireAll {
        let keep = settings.keep_partials;
        let Some(accounts) = accounts else {
            let walk = begin_expiry(Arc::clone(&self.root), keep);
            return ExpireAll { keep, paths: Vec::new(), walk };
        };
        let anonymous = settings.logins().and_then(|logins| logins.anonymous_account());
        let users = accounts.iter().map(|account| home_of(account));
        let paths: HashSet<PathBuf> = users.chain(anonymous.iter().map(home_of)).collect();
        ExpireAll { keep, paths: paths.into_iter().collect(), walk: None }
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
        match self.find(&path) {
            Ok(Some(home)) => all.walk = begin_expiry(home, all.keep),
            // Who has never logged in has no home.
            Ok(None) => {}
            Err(error) => log::warn!("looking for expired partials: {error}"),
        }
        Done::Expiring(all)
    }

    /// A home, if it is there, as those see it who are in it.
    fn find(&self, path: &Path) -> Result<Option<Arc<Root>>, StoreError> {
        let mut known = self.lock();
        let home = known.entry(path.to_owned()).or_default();
        if let Some(root) = home.open.upgrade() {
            return Ok(Some(root));
        }
        let root = if path.is_absolute() {
            Some(Root::serve(path)?)
        } else {
            self.root.home_if_there(path)?
        };
        let with_ledger = |root: Root| match home.fresh_ledger() {
            Some(ledger) => root.with_ledger(ledger),
            None => root,
        };
        Ok(root.map(with_ledger).map(Arc::new))
    }
}

impl Home {
    fn opened(&mut self, root: Root) -> Arc<Root> {
        let root = Arc::new(root);
        self.open = Arc::downgrade(&root);
        root
    }
}

/// What opening a home has come to.
enum Step {
    Open(Arc<Root>),
    /// It goes on with the next job: the walk, or waiting for another's.
    Later(Option<(Root, Walk)>),
}

/// What an account may store, if that is limited.
pub(super) fn quota_of(account: &Account) -> Option<Quota> {
    let quota = Quota { bytes: account.quota_bytes, files: account.quota_files };
    (quota.bytes.is_some() || quota.files.is_some()).then_some(quota)
}

/// A walk through the partials of several homes.
#[derive(Debug)]
pub(super) struct ExpireAll {
    keep: Duration,
    paths: Vec<PathBuf>,
    walk: Option<(Arc<Root>, Expiry)>,
}

fn begin_expiry(home: Arc<Root>, keep: Duration) -> Option<(Arc<Root>, Expiry)> {
    match home.expire(keep) {
        Ok(walk) => Some((home, walk)),
        Err(error) => {
            log::warn!("looking for expired partials: {error}");
            None
        }
    }
}
