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
    workers::{Holdings, clock_nanos},
};
use crate::{
    auth::{Account, Accounts},
    limits::MEASURE_INTERVAL,
    store::{Expiry, Ledger, Quota, Root, RootId, StoreError, Walk},
};

/// The homes beneath the served root, or elsewhere.
#[derive(Debug)]
pub(super) struct Homes {
    root: Arc<Root>,
    known: Known,
    /// What all workers know, if there are several.
    holdings: Option<Arc<Holdings>>,
}

/// What is known of homes, by their paths.
#[derive(Debug, Clone, Default)]
struct Known(Arc<Mutex<HashMap<PathBuf, Home>>>);

impl Known {
    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Home>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    measuring: Option<Box<Measuring>>,
}

impl Opening {
    pub(super) const fn new(account: Arc<Account>) -> Self {
        Self { account, measuring: None }
    }

    /// Whether somebody else is measuring the home.
    pub(super) const fn waits_for_others(&self) -> bool {
        self.measuring.is_none()
    }
}

/// A walk through a home, for which all others wait who want to go there.
#[derive(Debug)]
struct Measuring {
    turn: Turn,
    root: Root,
    walk: Walk,
    /// When it began, by the clock that all processes share.
    began: u64,
}

/// The right to measure a home. Whatever becomes of the walk, it is given back.
#[derive(Debug)]
struct Turn {
    known: Known,
    path: PathBuf,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(home) = self.known.lock().get_mut(&self.path) {
            home.is_measured_now = false;
        }
    }
}

impl Homes {
    pub(super) fn new(root: Arc<Root>) -> Self {
        Self { root, known: Known::default(), holdings: None }
    }

    /// The same as one of several workers.
    pub(super) fn shared(root: Arc<Root>, holdings: Arc<Holdings>) -> Self {
        Self { holdings: Some(holdings), ..Self::new(root) }
    }

    /// Opens the home of an account, and makes it if it is absent; one step of it.
    pub(super) fn open(&self, opening: Opening) -> Done {
        let Opening { account, measuring } = opening;
        let step = match measuring {
            Some(measuring) if measuring.turn.path != home_of(&account) => {
                // The operator has moved him meanwhile.
                drop(measuring);
                self.begin(&account)
            }
            None => self.begin(&account),
            Some(measuring) => self.measure(measuring, quota_of(&account)),
        };
        match step {
            Ok(Step::Open(home)) => Done::Home(account, Ok(home)),
            Ok(Step::Later(measuring)) => Done::Opening(Opening { account, measuring }),
            Err(error) => Done::Home(account, Err(error)),
        }
    }

    fn begin(&self, account: &Account) -> Result<Step, StoreError> {
        let path = home_of(account);
        let mut known = self.known.lock();
        known.retain(|_, home| {
            home.open.strong_count() > 0 || home.is_measured_now || home.fresh_ledger().is_some()
        });
        let home = known.entry(path.clone()).or_default();
        let quota = quota_of(account);
        if home.is_measured_now {
            return Ok(Step::Later(None));
        }
        // Whoever is still in an unmeasured home came before there was a quota, and is on his way
        // out: what he does there is not counted, and he is not waited for.
        let is_fit = |root: &Arc<Root>| quota.is_none() || root.ledger().is_some();
        if let Some(root) = home.open.upgrade().filter(is_fit) {
            // Of several users of one home, one without a quota takes nobody's away.
            if let (Some(ledger), Some(quota)) = (root.ledger(), quota) {
                ledger.set_quota(quota);
            }
            return Ok(Step::Open(root));
        }
        let root = self.root.home_anywhere(&path)?;
        let Some(quota) = quota else {
            home.ledger = None;
            return Ok(Step::Open(home.opened(root)));
        };
        if let Some(ledger) = self.fresh_ledger(home, root.id()) {
            home.ledger = Some(Arc::clone(&ledger));
            ledger.set_quota(quota);
            return Ok(Step::Open(home.opened(root.with_ledger(ledger))));
        }
        let walk = root.measure()?;
        home.is_measured_now = true;
        let turn = Turn { known: self.known.clone(), path };
        let began = clock_nanos();
        Ok(Step::Later(Some(Box::new(Measuring { turn, root, walk, began }))))
    }

    /// What a home holds, as far as that is known.
    fn fresh_ledger(&self, home: &Home, id: RootId) -> Option<Arc<Ledger>> {
        match &self.holdings {
            Some(holdings) => holdings.join(id),
            None => home.fresh_ledger(),
        }
    }

    fn measure(&self, measuring: Box<Measuring>, quota: Option<Quota>) -> Result<Step, StoreError> {
        let Measuring { turn, root, walk, began } = *measuring;
        let usage = match root.measure_step(walk) {
            ControlFlow::Continue(walk) => {
                return Ok(Step::Later(Some(Box::new(Measuring { turn, root, walk, began }))));
            }
            ControlFlow::Break(usage) => usage?,
        };
        let path = turn.path.clone();
        // Before the lock is taken here.
        drop(turn);
        let mut known = self.known.lock();
        let home = known.entry(path).or_default();
        let ledger = match &self.holdings {
            Some(holdings) => holdings.settle(root.id(), usage, began),
            None => Arc::new(Ledger::new(Quota::default(), usage)),
        };
        ledger.set_quota(quota.unwrap_or_default());
        (home.ledger, home.measured) = (Some(Arc::clone(&ledger)), Some(Instant::now()));
        Ok(Step::Open(home.opened(root.with_ledger(ledger))))
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
        let mut known = self.known.lock();
        let home = known.entry(path.to_owned()).or_default();
        if let Some(root) = home.open.upgrade() {
            return Ok(Some(root));
        }
        let root = self.root.home_anywhere_if_there(path)?;
        let with_ledger = |root: Root| match self.fresh_ledger(home, root.id()) {
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
    Later(Option<Box<Measuring>>),
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

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;
    use crate::auth::Rights;

    fn account(quota_bytes: Option<u64>) -> Arc<Account> {
        let account = Account::new("ann".parse().unwrap(), Rights::ALL);
        Arc::new(Account { quota_bytes, ..account })
    }

    fn opening(done: Done) -> Opening {
        let Done::Opening(opening) = done else { panic!("it took one step: {done:?}") };
        opening
    }

    #[test]
    fn a_walk_that_nobody_finishes_leaves_the_home_to_the_next() {
        let dir = TempDir::new().unwrap();
        let homes = Homes::new(Arc::new(Root::serve(dir.path()).unwrap()));
        let first = opening(homes.open(Opening::new(account(Some(1000)))));
        let second = opening(homes.open(Opening::new(account(Some(1000)))));
        assert!(!first.waits_for_others() && second.waits_for_others());
        drop(first);
        let mut second = opening(homes.open(second));
        assert!(!second.waits_for_others(), "the home is measured for ever");
        loop {
            match homes.open(second) {
                Done::Opening(again) => second = again,
                Done::Home(_, home) => break assert!(home.unwrap().ledger().is_some()),
                done => panic!("{done:?}"),
            }
        }
    }

    #[test]
    fn who_is_moved_while_his_home_is_measured_gets_the_new_one() {
        let dir = TempDir::new().unwrap();
        let homes = Homes::new(Arc::new(Root::serve(dir.path()).unwrap()));
        let mut first = opening(homes.open(Opening::new(account(Some(1000)))));
        let moved = crate::auth::Home::new(Path::new("elsewhere")).unwrap();
        let mut account = Account::clone(&first.account);
        (account.home, account.quota_bytes) = (Some(moved), None);
        first.account = Arc::new(account);
        let Done::Home(_, home) = homes.open(first) else { panic!("no home") };
        let id = home.unwrap().id();
        assert_eq!(id, homes.root.home(Path::new("elsewhere")).unwrap().id());
    }

    #[test]
    fn one_without_a_quota_takes_nobodys_away() {
        let dir = TempDir::new().unwrap();
        let homes = Homes::new(Arc::new(Root::serve(dir.path()).unwrap()));
        let mut first = opening(homes.open(Opening::new(account(Some(1000)))));
        let home = loop {
            match homes.open(first) {
                Done::Opening(again) => first = again,
                Done::Home(_, home) => break home.unwrap(),
                done => panic!("{done:?}"),
            }
        };
        assert!(matches!(homes.open(Opening::new(account(None))), Done::Home(_, Ok(_))));
        assert_eq!(home.ledger().unwrap().quota().bytes, Some(1000));
    }
}
