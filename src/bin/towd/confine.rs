//! What the server is kept to: which layers there are, and entering the one that is Landlock.

use std::{
    fmt, fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{CWD, Mode, OFlags, ResolveFlags, openat2},
    process::geteuid,
};
use towpath::{
    auth::{Account, Accounts, Home, file::read},
    config::Setup,
    sandbox::{Layer, Sandbox},
    server::Access,
    store::Root,
    wire::Registration,
};

use crate::{Failure, cli::Flags};

/// The layers of the jail that are on.
pub(crate) struct Layers {
    /// `None`: it was switched off.
    landlock: Option<Layer>,
}

/// Enters the sandbox, if there is to be one. No thread may have been started before.
pub(crate) fn enter(
    flags: &Flags,
    setup: &Setup,
    listen: &[SocketAddr],
) -> Result<Layers, Failure> {
    let beneath = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat2(CWD, &setup.root, beneath, Mode::empty(), ResolveFlags::NO_MAGICLINKS).map_err(
        |errno| Failure(format!("openat2: {errno}; without it (Linux 5.6) nothing is served")),
    )?;
    let Some(paths) = &setup.sandbox else { return Ok(Layers { landlock: None }) };
    let mut sandbox = Sandbox {
        writable: vec![setup.root.clone()],
        readable: paths.read.clone(),
        programs: setup.programs.clone(),
        ports: listen.iter().map(SocketAddr::port).collect(),
    };
    sandbox.writable.extend(paths.write.iter().cloned());
    if let Access::Logins(logins) = &setup.settings.access {
        // Files are replaced by renaming, so it is their folders that have to be open.
        let folder = folder_of(&logins.users);
        let is_written = logins.registration != Registration::Off;
        if is_written { &mut sandbox.writable } else { &mut sandbox.readable }.push(folder);
        sandbox.writable.extend(homes(&logins.users)?);
    }
    if let Some(config) = &flags.config {
        sandbox.readable.push(folder_of(config));
        sandbox.readable.extend(fs::canonicalize(config).map(|real| folder_of(&real)));
    }
    Ok(Layers { landlock: Some(sandbox.enter()?) })
}

/// Whether actions need more than the sandbox was told when the server started.
pub(crate) fn is_wider(setup: &Setup, started: &Setup) -> bool {
    let Some(folders) = &setup.programs else { return false };
    let Some(open) = &started.programs else { return true };
    folders.iter().any(|folder| !open.contains(folder))
}

/// The homes that do not lie beneath the root. They are made if they are absent; one that can't be
/// keeps its user out, and nobody else.
fn homes(users: &Path) -> Result<Vec<PathBuf>, Failure> {
    let accounts = read::<Accounts>(users)?.value;
    let home = |account: &Account| account.home.as_ref().map(Home::as_path).map(Path::to_owned);
    let mut homes: Vec<_> = accounts.iter().filter_map(|account| home(account)).collect();
    homes.retain(|home| home.is_absolute());
    homes.retain(|home| match Root::serve(home) {
        Ok(_) => true,
        Err(error) => {
            log::warn!("the home {home:?}: {error}");
            false
        }
    });
    Ok(homes)
}

fn folder_of(file: &Path) -> PathBuf {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or_else(|| Path::new(".")).to_owned()
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("layers: paths beneath a directory handle (openat2): on; Landlock: ")?;
        match self.landlock {
            Some(layer) => write!(f, "{layer}")?,
            None => f.write_str("off: it was switched off")?,
        }
        f.write_str(match geteuid().is_root() {
            true => "; running as root: yes, a user of its own is better",
            false => "; running as root: no",
        })
    }
}
