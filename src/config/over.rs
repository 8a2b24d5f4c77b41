//! Flags above the file, and what a running server keeps.

use std::path::{Path, PathBuf};

use super::{ConfigFile, ListenAddress, RegistrationConfig, SandboxConfig, problem::Places};

/// What is served if nobody says.
const ROOT: &str = "./towpath-data";

/// Where it is if nobody says.
const LISTEN: &str = "127.0.0.1:8690";

impl ConfigFile {
    /// Lays this above `below`: what is said here counts, the rest is said there. Actions of the
    /// same name are replaced as a whole.
    #[must_use]
    pub fn over(self, below: Self) -> Self {
        let mut places = below.places;
        let mut problems = below.problems;
        let mut actions = below.actions;
        problems.extend(self.problems);
        actions.extend(self.actions);
        let upper = &mut Upper(&mut places);
        Self {
            root: upper.or("root", self.root, below.root),
            listen: upper.or("listen", self.listen, below.listen),
            users: upper.or("users", self.users, below.users),
            login: upper.or("login", self.login, below.login),
            anonymous: upper.or("anonymous", self.anonymous, below.anonymous),
            banner: upper.or("banner", self.banner, below.banner),
            keep_partials: upper.or("keep-partials", self.keep_partials, below.keep_partials),
            reserve: upper.or("reserve", self.reserve, below.reserve),
            max_rate: upper.or("max-rate", self.max_rate, below.max_rate),
            max_connections: upper.or(
                "max-connections",
                self.max_connections,
                below.max_connections,
            ),
            max_per_address: upper.or(
                "max-per-address",
                self.max_per_address,
                below.max_per_address,
            ),
            max_per_user: upper.or("max-per-user", self.max_per_user, below.max_per_user),
            workers: upper.or("workers", self.workers, below.workers),
            registration: self.registration.over(below.registration, upper),
            actions,
            file: self.file.or(below.file),
            sandbox: self.sandbox.over(below.sandbox, upper),
            places,
            problems,
        }
    }

    /// The folder to serve.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.root.as_deref().unwrap_or_else(|| Path::new(ROOT))
    }

    /// The user file.
    #[must_use]
    pub fn users(&self) -> PathBuf {
        self.users.clone().unwrap_or_else(|| self.root().join(".tow/users"))
    }

    /// The file of invites.
    #[must_use]
    pub fn invites(&self) -> PathBuf {
        self.root().join(".tow/invites")
    }

    /// The addresses to listen on.
    #[must_use]
    pub fn listen(&self) -> Vec<ListenAddress> {
        self.listen.clone().unwrap_or_else(|| LISTEN.parse().into_iter().collect())
    }

    /// How many processes serve.
    #[must_use]
    pub fn workers(&self) -> usize {
        self.workers.unwrap_or(1)
    }

    /// Keeps what can't change while a server runs as it was when that started, and says which keys
    /// ask for something else now: they need a restart.
    pub fn keep_started(&mut self, started: &Self) -> Vec<&'static str> {
        let differ = [
            ("root", self.root() != started.root()),
            ("listen", self.listen() != started.listen()),
            ("users", self.users() != started.users()),
            ("workers", self.workers() != started.workers()),
            ("sandbox", self.sandbox != started.sandbox),
        ];
        self.root = Some(started.root().to_owned());
        self.listen = Some(started.listen());
        self.users = Some(started.users());
        self.workers = Some(started.workers());
        self.sandbox = started.sandbox.clone();
        differ.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

/// Takes what is above, and forgets where it stands below.
struct Upper<'a>(&'a mut Places);

impl Upper<'_> {
    fn or<T>(&mut self, key: &str, above: Option<T>, below: Option<T>) -> Option<T> {
        if above.is_some() {
            self.0.forget(key);
        }
        above.or(below)
    }
}

impl RegistrationConfig {
    fn over(self, below: Self, upper: &mut Upper<'_>) -> Self {
        Self {
            mode: upper.or("registration.mode", self.mode, below.mode),
            rights: upper.or("registration.rights", self.rights, below.rights),
            quota: upper.or("registration.quota", self.quota, below.quota),
            quota_files: upper.or("registration.quota-files", self.quota_files, below.quota_files),
        }
    }
}

impl SandboxConfig {
    fn over(self, below: Self, upper: &mut Upper<'_>) -> Self {
        Self {
            enabled: upper.or("sandbox.enabled", self.enabled, below.enabled),
            read: upper.or("sandbox.read", self.read, below.read),
            write: upper.or("sandbox.write", self.write, below.write),
        }
    }
}
