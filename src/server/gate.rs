//! Who may come in: logins, registrations, and how many at once.
//!
//! The part of it that may touch a file runs on the disk thread; what is counted is counted here.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    disk::Done,
    settings::{Access, Logins, Settings, home_of},
    workers::{Key, Tally},
};
use crate::{
    auth::{
        Account, Accounts, Brakes, Invites, NameError, ScramVerifier, TooMany, UserName,
        file::{FileError, Watched, update},
        scram::VerifierError,
    },
    limits::CONNECTIONS_MAX,
    session::{LoginBegun, Outcome},
    store::Root,
    wire::{Code, Greeting, Mechanism, Registration, Reply},
};

/// Counts connections and failed logins.
#[derive(Debug, Default)]
pub(super) struct Gate {
    brakes: Brakes,
    /// Everything that has a number at a time, here and in other workers.
    pub(super) tally: Tally,
}

impl Gate {
    /// Somebody connects, unless there are too many connections already, or too many from there.
    pub(super) fn connect(
        &mut self,
        address: IpAddr,
        settings: &Settings,
    ) -> Result<(), &'static str> {
        let most = settings.max_connections.min(CONNECTIONS_MAX);
        if !self.tally.add(Key::Connections, most) {
            return Err("too many connections");
        }
        if !self.tally.add(Key::Address(network(address)), settings.max_per_address) {
            self.tally.take(Key::Connections);
            return Err("too many connections from your address");
        }
        Ok(())
    }

    pub(super) fn disconnect(&mut self, address: IpAddr) {
        self.tally.take(Key::Connections);
        self.tally.take(Key::Address(network(address)));
    }

    /// Somebody has logged in. Not asked for the anonymous. `false`: this user has too many connections.
    pub(super) fn enter(&mut self, user: &UserName, most: usize) -> bool {
        self.tally.add(Key::User(user.clone()), most)
    }

    pub(super) fn leave(&mut self, user: &UserName) {
        self.tally.take(Key::User(user.clone()));
    }

    /// A login begins; its proof is looked at after the delay that is returned.
    pub(super) fn begin(
        &mut self,
        address: IpAddr,
        name: &str,
        now: Instant,
    ) -> Result<Duration, Reply> {
        let key = Key::Attempts(network(address));
        let elsewhere = usize::try_from(self.tally.elsewhere(&key)).unwrap_or(usize::MAX);
        let begun = self.brakes.begin_beside(elsewhere, address, name, now);
        let delay = begun.map_err(|TooMany| {
            Reply::text(Code::TooMany, "too many logins at once from your address")
        })?;
        self.tally.add(key, usize::MAX);
        Ok(delay)
    }

    /// A login that began is over.
    pub(super) fn end(&mut self, address: IpAddr) {
        self.brakes.ended(address);
        self.tally.take(Key::Attempts(network(address)));
    }

    pub(super) fn failed(&mut self, address: IpAddr, name: &str, now: Instant) {
        self.brakes.failed(address, name, now);
    }

    pub(super) fn succeeded(&mut self, address: IpAddr, name: &str, now: Instant) {
        self.brakes.succeeded(address, name, now);
    }

    /// An account was made elsewhere.
    pub(super) fn registered(&mut self, address: IpAddr, now: Instant) {
        // It counts, also where there are too many already.
        let _ = self.brakes.register(address, now);
    }

    /// Somebody wants an account.
    pub(super) fn register(
        &mut self,
        address: IpAddr,
        settings: &Settings,
        now: Instant,
    ) -> Result<(), Reply> {
        if settings.registration() == Registration::Off {
            let text = "this server makes no accounts on request";
            return Err(Reply::text(Code::RegistrationClosed, text));
        }
        self.brakes.register(address, now).map_err(|wait| {
            let text = format!("too many registrations from your address: wait {}", minutes(wait));
            Reply::text(Code::TooMany, &text)
        })
    }
}

fn minutes(wait: Duration) -> String {
    match wait.as_secs().div_ceil(60) {
        1 => "a minute".to_owned(),
        minutes => format!("{minutes} minutes"),
    }
}

/// What counts as one address: with IPv6, everybody has 2^64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() >> 64 << 64).into()),
    }
}

/// The user file, as the disk thread has it.
#[derive(Debug)]
pub(super) struct UserFile(Mutex<Watched<Accounts>>);

impl UserFile {
    /// Reads it for the first time.
    pub(super) fn open(path: &Path) -> Result<Self, FileError> {
        let watched = Watched::open(path)?;
        warn(&watched);
        Ok(Self(Mutex::new(watched)))
    }

    fn lock(&self) -> MutexGuard<'_, Watched<Accounts>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The accounts, if they have changed since they were read. A file that makes no sense leaves
    /// the old ones in force.
    pub(super) fn refresh(&self) -> Option<Arc<Accounts>> {
        let mut watched = self.lock();
        match watched.refresh() {
            Ok(true) => {
                warn(&watched);
                Some(Arc::clone(watched.current()))
            }
            Ok(false) => None,
            Err(error) => {
                log::error!("the accounts stay as they were: {error}");
                None
            }
        }
    }

    /// The accounts as they were last read.
    pub(super) fn accounts(&self) -> Arc<Accounts> {
        Arc::clone(self.lock().current())
    }
}

/// Looks up an account, in the file as it is now.
pub(super) fn find_account(file: &UserFile, name: &str, not_before: Instant) -> Done {
    let changed = file.refresh();
    let mut nonce = [0; 18];
    let outcome = match getrandom::fill(&mut nonce) {
        Ok(()) => {
            let candidate = file.accounts().find(name);
            Outcome::AccountFound(Box::new(LoginBegun { candidate, nonce, not_before }))
        }
        Err(error) => Outcome::Failed(Reply::text(Code::Failed, &error.to_string())),
    };
    Done::Login(outcome, changed)
}

/// The account of somebody whose proof was right, as it is now. Between the challenge and the
/// proof there may be a minute, in which it was locked, removed, or given another password.
pub(super) fn account_now(file: &UserFile, account: &Account) -> Result<Arc<Account>, Reply> {
    let found = file.accounts().find(account.name.as_str());
    let now = found
        .account()
        .filter(|now| (&now.scram, &now.cram_md5) == (&account.scram, &account.cram_md5));
    let refused = || Reply::text(Code::LoginFailed, "wrong name or password");
    now.cloned().ok_or_else(refused)
}

/// Makes an account for somebody who asked for one.
pub(super) fn register(
    logins: &Logins,
    root: &Root,
    name: &str,
    verifier: &str,
    invite: Option<&str>,
) -> Result<UserName, Reply> {
    let malformed = |text: String| Reply::text(Code::Malformed, &text);
    let name: UserName = name.parse().map_err(|error: NameError| malformed(error.to_string()))?;
    let scram: ScramVerifier =
        verifier.parse().map_err(|error: VerifierError| malformed(error.to_string()))?;
    let account = Account { scram: Some(scram), ..logins.new_account(name.clone()) };
    let add = |accounts: &mut Accounts| {
        let taken = |text| Err(Refused(Reply::text(Code::NameTaken, text)));
        let is_known = accounts.get(&name).is_some() || accounts.disabled().any(|it| *it == name);
        // What lies there already is not given away: a folder of the operator's, that of somebody
        // who was removed, or one within which others are at home.
        let home = PathBuf::from(name.as_str());
        let is_others = accounts.iter().any(|account| home_of(account).starts_with(&home));
        if is_known || is_others || !root.is_free(&home) {
            return taken("somebody has this name already");
        }
        if accounts.put(account) { Ok(()) } else { taken("this name is the server's own") }
    };
    let added = update(&logins.users, |accounts: &mut Accounts| match logins.registration {
        Registration::Invite => use_up(&logins.invites, invite, || add(accounts)),
        Registration::Open | Registration::Off => add(accounts),
    });
    added.map(|()| name).map_err(|Refused(reply)| reply)
}

/// Why a registration came to nothing.
struct Refused(Reply);

impl From<FileError> for Refused {
    fn from(error: FileError) -> Self {
        log::error!("registration: {error}");
        Self(Reply::text(Code::Failed, "the account can't be stored"))
    }
}

/// Spends an invite on what `add` does: who has none does not even learn whether the name is taken,
/// and who can't have the name keeps his invite.
fn use_up(
    invites: &Path,
    code: Option<&str>,
    add: impl FnOnce() -> Result<(), Refused>,
) -> Result<(), Refused> {
    let refused = |text: &str| Refused(Reply::text(Code::BadInvite, text));
    let code = code.ok_or_else(|| refused("an invite is needed: ask whoever runs the server"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    update(invites, |invites: &mut Invites| {
        let invalid = |_| refused("the invite is not valid, or not any more");
        invites.use_up(code, now).map_err(invalid)?;
        add()
    })
}

/// Says which users can't log in because their lines make no sense.
fn warn(watched: &Watched<Accounts>) {
    for warning in watched.warnings() {
        log::warn!("user file: {warning}");
    }
}

/// What a server says of itself.
pub(super) fn greeting(access: &Access, accounts: Option<&Accounts>) -> Greeting {
    let Access::Logins(logins) = access else {
        return Greeting::default();
    };
    let mut login = vec![Mechanism::ScramSha256];
    if accounts.is_some_and(|it| it.iter().any(|account| account.cram_md5.is_some())) {
        login.push(Mechanism::CramMd5);
    }
    if logins.anonymous.is_some() {
        login.push(Mechanism::Anonymous);
    }
    Greeting { login, registration: logins.registration }
}
