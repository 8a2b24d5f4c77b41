//! `towd user`: who may log in.

use std::{
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::PathBuf,
    sync::Arc,
};

use towpath::{
    auth::{
        Account, Accounts, CramVerifier, Rights, ScramVerifier, UserName,
        file::{FileError, read, update},
    },
    config::show,
    limits::SCRAM_ITERATIONS,
    store::Root,
    wire::encode,
};

use crate::{
    Failure,
    cli::{Flags, PasswordFlags, Settings, UserCommand},
    options,
    password::Chosen,
};

/// Does what a command says to the user file.
pub(crate) fn run(flags: &Flags, command: &UserCommand) -> Result<(), Failure> {
    match command {
        UserCommand::Add { name, settings, password } => add(flags, name, settings, password),
        UserCommand::Set { name, settings } => {
            change(flags, name, |account| settings.apply(account))
        }
        UserCommand::Passwd { name, password, no_cram_md5 } => {
            passwd(flags, name, password, *no_cram_md5)
        }
        UserCommand::Remove { name } => update(&file(flags)?, |accounts: &mut Accounts| {
            if accounts.remove(name) { Ok(()) } else { Err(missing(accounts, name)) }
        }),
        UserCommand::Lock { name } => change(flags, name, |account| account.locked = true),
        UserCommand::Unlock { name } => change(flags, name, |account| account.locked = false),
        UserCommand::List => list(flags),
    }
}

fn add(
    flags: &Flags,
    name: &UserName,
    settings: &Settings,
    password: &PasswordFlags,
) -> Result<(), Failure> {
    let file = file(flags)?;
    let free = |accounts: &Accounts| {
        let taken = accounts.get(name).is_some() || accounts.disabled().any(|other| other == name);
        if taken { Err(Failure(format!("there is a user {name} already"))) } else { Ok(()) }
    };
    // Nobody should type a password in vain.
    match read::<Accounts>(&file) {
        Ok(loaded) => free(&loaded.value)?,
        Err(FileError::Absent(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let chosen = Chosen::by(password)?;
    let default = Rights::READ.union(Rights::WRITE).union(Rights::DELETE);
    let mut account = Account::new(name.clone(), default);
    settings.apply(&mut account);
    account.scram = Some(scram(&chosen)?);
    account.cram_md5 = password.cram_md5.then(|| CramVerifier::new(&chosen.password));
    update(&file, |accounts: &mut Accounts| {
        free(accounts)?;
        put(accounts, account)
    })?;
    chosen.tell()
}

fn passwd(
    flags: &Flags,
    name: &UserName,
    password: &PasswordFlags,
    no_cram_md5: bool,
) -> Result<(), Failure> {
    let path = file(flags)?;
    match read::<Accounts>(&path) {
        Ok(loaded) => _ = find(&loaded.value, name)?,
        Err(FileError::Absent(_)) => return Err(Failure(format!("there is no user {name}"))),
        Err(error) => return Err(error.into()),
    }
    let chosen = Chosen::by(password)?;
    let scram = scram(&chosen)?;
    change(flags, name, |account| {
        account.scram = Some(scram);
        // The old password must not go on working this way.
        let cram_md5 = (account.cram_md5.is_some() || password.cram_md5) && !no_cram_md5;
        account.cram_md5 = cram_md5.then(|| CramVerifier::new(&chosen.password));
    })?;
    chosen.tell()
}

fn list(flags: &Flags) -> Result<(), Failure> {
    let path = path(flags)?;
    let loaded = match read::<Accounts>(&path) {
        Err(FileError::Absent(_)) => {
            eprintln!("towd: no users yet; towd user add makes one");
            return Ok(());
        }
        other => other?,
    };
    for warning in &loaded.warnings {
        eprintln!("towd: {path:?}: {warning}");
    }
    let head = ["NAME", "RIGHTS", "HOME", "QUOTA", "FILES", "RATE", "STATE", "LOGIN"];
    let mut rows = vec![head.map(str::to_owned)];
    rows.extend(loaded.value.iter().map(|account| row(account)));
    let mut disabled: Vec<_> = loaded.value.disabled().collect();
    disabled.sort();
    disabled.dedup();
    rows.extend(
        disabled.into_iter().map(|name| {
            [name.as_str(), "-", "-", "-", "-", "-", "disabled", "-"].map(str::to_owned)
        }),
    );
    let mut out = io::stdout().lock();
    for row in &rows {
        let mut line = String::new();
        for (at, cell) in row.iter().enumerate() {
            let width = rows.iter().filter_map(|row| row.get(at)).map(String::len).max();
            line.push_str(&format!("{cell:<0$}  ", width.unwrap_or(0)));
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn row(account: &Account) -> [String; 8] {
    let size = |limit: Option<u64>| limit.map_or_else(|| "-".to_owned(), show);
    let home = account.home.as_ref().map(|home| encode(home.as_path().as_os_str().as_bytes()));
    let scram = account.scram.as_ref().map(|_| "scram-sha-256");
    let cram = account.cram_md5.as_ref().map(|_| "cram-md5");
    let logins: Vec<_> = scram.into_iter().chain(cram).collect();
    [
        account.name.to_string(),
        account.rights.to_string(),
        home.unwrap_or_else(|| account.name.to_string()),
        size(account.quota_bytes),
        account.quota_files.map_or_else(|| "-".to_owned(), |files| files.to_string()),
        size(account.max_rate),
        if account.locked { "locked" } else { "open" }.to_owned(),
        logins.join(","),
    ]
}

impl Settings {
    fn apply(&self, account: &mut Account) {
        account.rights = self.rights.unwrap_or(account.rights);
        account.home = self.home.clone().or_else(|| account.home.take());
        account.quota_bytes = self.quota.map_or(account.quota_bytes, |size| size.0);
        account.quota_files = self.quota_files.map_or(account.quota_files, |count| count.0);
        account.max_rate = self.max_rate.map_or(account.max_rate, |size| size.0);
    }
}

fn scram(chosen: &Chosen) -> Result<ScramVerifier, Failure> {
    let mut salt = [0; 16];
    getrandom::fill(&mut salt)?;
    Ok(ScramVerifier::new(&chosen.password, salt, SCRAM_ITERATIONS))
}

/// Changes one user.
fn change(
    flags: &Flags,
    name: &UserName,
    change: impl FnOnce(&mut Account),
) -> Result<(), Failure> {
    update(&file(flags)?, |accounts: &mut Accounts| {
        let mut account = Account::clone(find(accounts, name)?);
        change(&mut account);
        put(accounts, account)
    })
}

fn find<'a>(accounts: &'a Accounts, name: &UserName) -> Result<&'a Arc<Account>, Failure> {
    accounts.get(name).ok_or_else(|| missing(accounts, name))
}

fn put(accounts: &mut Accounts, account: Account) -> Result<(), Failure> {
    let name = account.name.clone();
    if accounts.put(account) { Ok(()) } else { Err(Failure(format!("{name} can't be a user"))) }
}

fn missing(accounts: &Accounts, name: &UserName) -> Failure {
    if accounts.disabled().any(|other| other == name) {
        let what = "correct or remove it; towd user list says what is wrong";
        return Failure(format!("the line of {name} in the user file is odd: {what}"));
    }
    Failure(format!("there is no user {name}"))
}

/// Where the user file is.
fn path(flags: &Flags) -> Result<PathBuf, Failure> {
    Ok(options(flags)?.users())
}

/// The same, with a folder for it if that is ours to make.
fn file(flags: &Flags) -> Result<PathBuf, Failure> {
    let options = options(flags)?;
    if options.users.is_none() {
        let root = options.root();
        Root::serve(root).map_err(|error| Failure(format!("{root:?}: {error}")))?;
    }
    Ok(options.users())
}
