//! Whether a configuration makes sense as a whole, and what comes out of it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{ConfigFile, ListenAddress, Problem, RegistrationMode};
use crate::{
    action::{self, ActionConfig, Actions},
    limits::{
        ADDRESS_CONNECTIONS_MAX, BANNER_BYTES_MAX, CONNECTIONS_MAX, KEEP_PARTIALS,
        LISTEN_ADDRESSES_MAX, USER_CONNECTIONS_MAX, WORKERS_MAX,
    },
    server::{Access, Logins, Settings},
};

/// A folder that no program lies in, for as long as there is none to be served.
const NO_FOLDER: &str = "/dev/null";

/// What a server is started with.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The folder to serve.
    pub root: PathBuf,
    /// The addresses to listen on, which are looked up when the server starts.
    pub listen: Vec<ListenAddress>,
    /// Processes that serve.
    pub workers: usize,
    /// The user file; `None` where nobody logs in.
    pub users: Option<PathBuf>,
    /// What may change while it runs.
    pub settings: Settings,
    /// What the sandbox leaves open besides; `None`: there is none.
    pub sandbox: Option<SandboxPaths>,
    /// The folders of the programs of actions; `None` where there are no actions.
    pub programs: Option<Vec<PathBuf>>,
}

/// Paths that the operator leaves open, for actions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SandboxPaths {
    /// To be read.
    pub read: Vec<PathBuf>,
    /// To be read and changed.
    pub write: Vec<PathBuf>,
}

impl ConfigFile {
    /// Checks all of it, and looks up the programs of actions.
    ///
    /// # Errors
    /// Everything that is wrong, also what could not be read.
    pub fn check(&self) -> Result<Setup, Vec<Problem>> {
        let mut check = Check { config: self, problems: self.problems.clone() };
        check.paths();
        check.listen();
        check.banner();
        check.number("workers", self.workers(), WORKERS_MAX);
        let max_connections = self.max_connections.unwrap_or(CONNECTIONS_MAX);
        let max_per_address = self.max_per_address.unwrap_or(ADDRESS_CONNECTIONS_MAX);
        let max_per_user = self.max_per_user.unwrap_or(USER_CONNECTIONS_MAX);
        check.number("max-connections", max_connections, CONNECTIONS_MAX);
        check.number("max-per-address", max_per_address, CONNECTIONS_MAX);
        check.number("max-per-user", max_per_user, CONNECTIONS_MAX);
        let access = check.access();
        let actions = check.actions();
        if !check.problems.is_empty() {
            let located = |problem: Problem| problem.located(&self.places);
            let mut problems: Vec<_> = check.problems.into_iter().map(located).collect();
            problems.sort_by_key(Problem::line);
            return Err(problems);
        }
        let settings = Settings {
            keep_partials: self.keep_partials.map_or(KEEP_PARTIALS, Duration::from),
            max_connections,
            max_per_address,
            max_per_user,
            max_rate: self.max_rate.and_then(|size| size.0).filter(|&rate| rate > 0),
            reserve_bytes: self.reserve.and_then(|size| size.0).unwrap_or(0),
            banner: self.banner.as_deref().filter(|banner| !banner.is_empty()).map(Arc::from),
            actions: Arc::new(actions),
            access,
        };
        let open = |paths: &Option<Vec<PathBuf>>| paths.clone().unwrap_or_default();
        let sandbox = self.sandbox.enabled.unwrap_or(true).then(|| SandboxPaths {
            read: open(&self.sandbox.read),
            write: open(&self.sandbox.write),
        });
        Ok(Setup {
            root: self.root().to_owned(),
            listen: self.listen(),
            workers: self.workers(),
            users: settings_users(&settings),
            programs: (!self.actions.is_empty()).then(|| programs(&self.actions)),
            settings,
            sandbox,
        })
    }
}

struct Check<'a> {
    config: &'a ConfigFile,
    problems: Vec<Problem>,
}

impl Check<'_> {
    fn problem(&mut self, key: &str, text: impl std::fmt::Display) {
        self.problems.push(Problem::of(key, text));
    }

    fn paths(&mut self) {
        let config = self.config;
        let named = [("root", config.root()), ("users", &config.users())];
        let sandbox =
            [("sandbox.read", &config.sandbox.read), ("sandbox.write", &config.sandbox.write)];
        let sandbox = sandbox
            .into_iter()
            .flat_map(|(key, paths)| paths.iter().flatten().map(move |path| (key, path.as_path())));
        for (key, path) in named.into_iter().chain(sandbox) {
            if path.as_os_str().is_empty() {
                self.problem(key, "a path must not be empty");
            }
        }
        if is_served(&config.users(), config.root()) {
            self.problem("users", "it lies below root, where users could read or replace it");
        }
        if let Some(file) = config.file.as_ref().filter(|file| is_served(file, config.root())) {
            let text = "the configuration lies below root, where users could replace it";
            self.problems.push(Problem::new(format!("{}: {text}", file.display())));
        }
    }

    fn listen(&mut self) {
        let listen = self.config.listen();
        if !(1..=LISTEN_ADDRESSES_MAX).contains(&listen.len()) {
            let text = format!("1 to {LISTEN_ADDRESSES_MAX} addresses, not {}", listen.len());
            self.problem("listen", text);
        }
        for (at, address) in listen.iter().enumerate() {
            if listen.iter().take(at).any(|before| before == address) && !is_any_port(address) {
                self.problem("listen", format!("{address} stands there twice"));
            }
        }
    }

    fn banner(&mut self) {
        let banner = self.config.banner.as_deref().unwrap_or_default();
        if banner.len() > BANNER_BYTES_MAX || banner.contains(char::is_control) {
            let text = format!("it is one line of at most {BANNER_BYTES_MAX} bytes");
            self.problem("banner", text);
        }
    }

    fn number(&mut self, key: &str, number: usize, most: usize) {
        if !(1..=most).contains(&number) {
            self.problem(key, format!("it is a number from 1 to {most}, not {number}"));
        }
    }

    fn access(&mut self) -> Access {
        let config = self.config;
        let registration = &config.registration;
        let anonymous = config.anonymous.and_then(|anonymous| anonymous.rights());
        let mode = registration.mode.unwrap_or(RegistrationMode::Off);
        let others = [
            ("rights", registration.rights.is_some()),
            ("quota", registration.quota.is_some()),
            ("quota-files", registration.quota_files.is_some()),
        ];
        for (key, _) in others.iter().filter(|(_, said)| *said && registration.mode.is_none()) {
            let text = "it says nothing without registration.mode, which is missing";
            self.problem(&format!("registration.{key}"), text);
        }
        if config.login != Some(false) {
            let mut logins = Logins::new(config.users(), config.invites());
            logins.anonymous = anonymous;
            logins.registration = mode.into();
            logins.new_rights = registration.rights.unwrap_or(logins.new_rights);
            logins.new_quota_bytes = registration.quota.and_then(|size| size.0);
            logins.new_quota_files = registration.quota_files.and_then(|count| count.0);
            return Access::Logins(logins);
        }
        let without = "login = false lets everybody do everything";
        if anonymous.is_some() {
            self.problem("anonymous", format!("{without}: nobody is anonymous then"));
        }
        if mode != RegistrationMode::Off {
            self.problem("registration.mode", format!("{without}: there are no accounts then"));
        }
        if !config.actions.is_empty() {
            let text = "login = false: only users with the right to actions run them";
            self.problem("actions", text);
        }
        Access::Everybody
    }

    fn actions(&mut self) -> Actions {
        let config = self.config;
        let root = config.root();
        let served = if root.is_dir() { root } else { Path::new(NO_FOLDER) };
        let before = self.problems.len();
        for (name, action) in &config.actions {
            let one = BTreeMap::from([(name.clone(), action.clone())]);
            if let Err(error) = Actions::load(&one, served) {
                self.problem(&format!("actions.{name}.{}", error.key), error.why);
            }
        }
        if self.problems.len() > before {
            return Actions::default();
        }
        Actions::load(&config.actions, served).unwrap_or_else(|error| {
            self.problem("actions", error);
            Actions::default()
        })
    }
}

fn settings_users(settings: &Settings) -> Option<PathBuf> {
    match &settings.access {
        Access::Everybody => None,
        Access::Logins(logins) => Some(logins.users.clone()),
    }
}

/// Whether a file can be reached by users: it lies below the root, but not in its internal folder.
/// What is not there yet lies where its folder does.
fn is_served(file: &Path, root: &Path) -> bool {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or_else(|| Path::new("."));
    let (Ok(root), Ok(folder)) = (fs::canonicalize(root), fs::canonicalize(folder)) else {
        return false;
    };
    folder.starts_with(&root) && !folder.starts_with(root.join(".tow"))
}

/// Port 0 is another port each time.
fn is_any_port(address: &ListenAddress) -> bool {
    address.to_string().ends_with(":0")
}

/// The folders that programs lie in, under the name they are called by and where links lead.
fn programs(actions: &BTreeMap<String, ActionConfig>) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for name in actions.values().filter_map(|action| action.run.first()) {
        let mut candidates = action::PATH.split(':').map(|folder| Path::new(folder).join(name));
        // A name that is a path replaces what it is joined to.
        let program = candidates.find(|path| path.is_file());
        let real = program.as_ref().and_then(|program| fs::canonicalize(program).ok());
        let found = program.iter().chain(&real).filter_map(|path| path.parent());
        folders.extend(found.map(Path::to_owned));
    }
    folders.sort();
    folders.dedup();
    folders
}
