//! Logins as the reactor sees them: jobs that need more than a home, and what comes of them.

use std::{sync::Arc, time::Instant};

use mio::Token;

use super::{Reactor, enqueue, find};
use crate::{
    auth::{Account, Accounts},
    limits::{PARKED_INTERVAL, USERS_INTERVAL},
    server::{
        connection::Connection,
        disk::{Done, Ticket, error_reply},
        gate::{self, Gate, UserFile},
        homes::{Opening, quota_of},
        settings::Settings,
        workers::{Key, Message},
    },
    session::{JobId, Outcome},
    store::{Root, StoreError},
    wire::{Code, Reply},
};

impl Reactor {
    /// Looks up the account of a name.
    pub(super) fn find_account(&mut self, token: Token, id: JobId, name: String, now: Instant) {
        let Some(connection) = find(&mut self.connections, token) else { return };
        let Some(users) = self.users.clone() else { return };
        // Whatever became of the last one.
        forget_login(&mut self.gate, connection);
        let address = connection.peer.ip();
        match self.gate.begin(address, &name, now) {
            Ok(delay) => {
                connection.login_pending = true;
                let ticket = Ticket::Session(token, id);
                let not_before = now + delay;
                self.disk.submit(ticket, move || gate::find_account(&users, &name, not_before));
            }
            Err(reply) => connection.session.handle_outcome(id, Outcome::Failed(reply), now),
        }
    }

    /// Opens the home of an account, or of nobody in particular.
    pub(super) fn open_home(
        &mut self,
        token: Token,
        id: JobId,
        account: Option<Arc<Account>>,
        now: Instant,
    ) {
        let Some(connection) = find(&mut self.connections, token) else { return };
        if account.is_none() {
            forget_login(&mut self.gate, connection);
        }
        let anonymous =
            || self.settings.logins().and_then(|logins| logins.anonymous_account()).map(Arc::new);
        let refused = match account.or_else(anonymous) {
            // Those without a name have nothing in common but that.
            Some(account)
                if account.name.is_anonymous()
                    || self.gate.enter(&account.name, self.settings.max_per_user) =>
            {
                connection.user = Some(account.name.clone());
                let opening = Opening::new(account);
                return self.go_on_opening(Ticket::Session(token, id), opening);
            }
            Some(_) => Reply::text(Code::TooMany, "too many connections of this user"),
            None => Reply::text(Code::LoginFailed, "nobody gets in without an account"),
        };
        forget_login(&mut self.gate, connection);
        connection.session.handle_outcome(id, Outcome::Failed(refused), now);
    }

    fn go_on_opening(&self, ticket: Ticket, mut opening: Opening) {
        let homes = Arc::clone(&self.homes);
        let users = self.users.clone().filter(|_| !opening.account.name.is_anonymous());
        self.disk.submit(ticket, move || {
            if let Some(users) = users {
                match gate::account_now(&users, &opening.account) {
                    Ok(account) => opening.account = account,
                    Err(reply) => return Done::Session(Outcome::Failed(reply), None),
                }
            }
            homes.open(opening)
        });
    }

    /// A step of the opening of a home is done.
    pub(super) fn take_home(
        &mut self,
        token: Token,
        id: JobId,
        account: Arc<Account>,
        home: Result<Arc<Root>, StoreError>,
        now: Instant,
    ) {
        let Some(connection) = find(&mut self.connections, token) else { return };
        let address = connection.peer.ip();
        let mut told = None;
        let outcome = match home {
            Ok(home) => {
                self.gate.tally.add(Key::Home(home.id()), usize::MAX);
                connection.home = Some(home);
                if std::mem::take(&mut connection.login_pending) {
                    self.gate.end(address);
                    self.gate.succeeded(address, account.name.as_str(), now);
                    told = Some(Message::Succeeded(address, account.name.as_str().to_owned()));
                }
                log::info!("{}: {} logged in", connection.peer, account.name);
                self.rates.limit_user(&account.name, account.max_rate, now);
                Outcome::HomeOpened { account, banner: self.settings.banner.clone() }
            }
            Err(error) => {
                forget_login(&mut self.gate, connection);
                log::error!("the home of {}: {error}", account.name);
                let text = format!("your home can't be opened: {}", error_reply(&error).message());
                Outcome::Failed(Reply::text(Code::Failed, &text))
            }
        };
        connection.session.handle_outcome(id, outcome, now);
        enqueue(&mut self.ready, connection);
        told.into_iter().for_each(|told| self.tell_siblings(&told, now));
    }

    /// It takes more than one step, unless nobody waits for it any more.
    pub(super) fn take_opening(&mut self, token: Token, id: JobId, opening: Opening) {
        if find(&mut self.connections, token).is_some() {
            let ticket = Ticket::Session(token, id);
            if opening.waits_for_others() {
                // Not at once: it would only be in the way of the walk that it waits for.
                return self.parked.push((ticket, opening));
            }
            return self.go_on_opening(ticket, opening);
        }
        // What is open for it is closed where that may take its time.
        self.disk.submit_unawaited(Ticket::Nobody, move || drop(opening));
    }

    /// Logins that wait for the walk of another look again whether it is over.
    pub(super) fn unpark(&mut self, now: Instant) {
        if self.parked.is_empty() || now < self.unpark_at {
            return;
        }
        self.unpark_at = now + PARKED_INTERVAL;
        for (ticket, opening) in std::mem::take(&mut self.parked) {
            self.go_on_opening(ticket, opening);
        }
    }

    /// Makes an account for somebody.
    pub(super) fn register(
        &mut self,
        token: Token,
        id: JobId,
        (name, verifier, invite): (String, String, Option<String>),
        now: Instant,
    ) {
        let Some(connection) = find(&mut self.connections, token) else { return };
        let (peer, settings) = (connection.peer, Arc::clone(&self.settings));
        if let Err(reply) = self.gate.register(peer.ip(), &settings, now) {
            return connection.session.handle_outcome(id, Outcome::Failed(reply), now);
        }
        self.tell_siblings(&Message::Registered(peer.ip()), now);
        let root = Arc::clone(&self.root);
        self.disk.submit(Ticket::Session(token, id), move || {
            let logins = settings.logins().ok_or_else(|| Reply::new(Code::RegistrationClosed));
            let made = logins
                .and_then(|it| gate::register(it, &root, &name, &verifier, invite.as_deref()));
            Done::Session(
                match made {
                    Ok(name) => {
                        log::info!("{peer}: {name} registered");
                        Outcome::Answer(vec![Reply::text(Code::Done, "you can log in now")])
                    }
                    Err(reply) => Outcome::Failed(reply),
                },
                None,
            )
        });
    }

    /// Somebody gave a wrong proof.
    pub(super) fn login_failed(&mut self, token: Token, name: &str, now: Instant) {
        let Some(connection) = find(&mut self.connections, token) else { return };
        let peer = connection.peer;
        log::warn!("{peer}: failed login as {}", crate::wire::encode(name.as_bytes()));
        self.gate.failed(peer.ip(), name, now);
        self.tell_siblings(&Message::Failed(peer.ip(), name.to_owned()), now);
        let Some(connection) = find(&mut self.connections, token) else { return };
        if std::mem::take(&mut connection.login_pending) {
            self.gate.end(peer.ip());
        }
    }

    /// The user file has changed: who is locked or gone goes, the others get their new rights.
    pub(super) fn take_accounts(&mut self, accounts: &Accounts, now: Instant) {
        self.greeting = Arc::new(gate::greeting(&self.settings.access, Some(accounts)));
        let tokens: Vec<Token> = self.connections.iter().map(|(_, it)| it.token).collect();
        for token in tokens {
            let Some(connection) = find(&mut self.connections, token) else { continue };
            let Some(account) = connection.session.account() else { continue };
            if account.name.is_anonymous() {
                continue;
            }
            let had_quota = has_quota(account);
            let account = accounts.get(&account.name).filter(|account| !account.locked).cloned();
            let rate = account.as_ref().and_then(|account| account.max_rate);
            connection.user.iter().for_each(|user| self.rates.limit_user(user, rate, now));
            let ledger = connection.home.as_ref().and_then(|home| home.ledger());
            if let (Some(account), Some(ledger), true) = (&account, ledger, had_quota) {
                ledger.set_quota(quota_of(account).unwrap_or_default());
            } else if account.as_deref().is_some_and(has_quota) && !had_quota {
                // What the home holds was never measured: that is a part of the login.
                let text = "your account has changed: log in again";
                connection.session.end(Reply::text(Code::GoingDown, text), now);
            }
            connection.session.handle_account(account, now);
            enqueue(&mut self.ready, connection);
        }
    }

    /// Now and then the user file is looked at, so that a lock also ends what goes on.
    pub(super) fn look_at_users(&mut self, now: Instant) {
        let Some(users) = self.users.clone().filter(|_| now >= self.users_at) else { return };
        self.users_at = now + USERS_INTERVAL;
        self.disk.submit(Ticket::Nobody, move || Done::Accounts(users.refresh()));
    }

    /// SIGHUP: reads the settings again. What makes no sense changes nothing.
    pub(super) fn reload(&self) {
        let Some(reload) = self.reload.clone() else {
            log::warn!("there is no configuration to read again");
            return;
        };
        self.disk.submit(Ticket::Nobody, move || {
            let loaded = reload.read().and_then(|settings| {
                let users = settings.logins().map(|logins| UserFile::open(&logins.users));
                let users = users.transpose().map_err(|error| error.to_string())?;
                Ok((settings, users))
            });
            Done::Reloaded(loaded.map(Box::new))
        });
    }

    pub(super) fn take_settings(
        &mut self,
        loaded: Result<Box<(Settings, Option<UserFile>)>, String>,
        now: Instant,
    ) {
        match loaded {
            Ok(loaded) => {
                let (settings, users) = *loaded;
                // Who is connected came in under the old rules; from one kind of server to the
                // other there is no way but a new start.
                if settings.logins().is_some() != self.settings.logins().is_some() {
                    log::error!("whether people log in can't change while the server runs");
                    return;
                }
                self.settings = Arc::new(settings);
                self.rates.limit_server(self.settings.max_rate, now);
                self.root.set_reserve_bytes(self.settings.reserve_bytes);
                self.users = users.map(Arc::new);
                let accounts = self.users.as_ref().map(|users| users.accounts());
                self.greeting =
                    Arc::new(gate::greeting(&self.settings.access, accounts.as_deref()));
                if let Some(accounts) = accounts {
                    self.take_accounts(&accounts, now);
                }
                log::info!("the configuration was read again");
            }
            Err(error) => log::error!("the configuration stays as it was: {error}"),
        }
    }
}

fn has_quota(account: &Account) -> bool {
    quota_of(account).is_some()
}

/// What was counted for a login that came to nothing is counted no longer.
pub(super) fn forget_login(gate: &mut Gate, connection: &mut Connection) {
    if std::mem::take(&mut connection.login_pending) {
        gate.end(connection.peer.ip());
    }
    if let Some(user) = connection.user.take() {
        gate.leave(&user);
    }
}
