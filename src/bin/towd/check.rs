//! `towd check`: what is wrong, and otherwise what would be served.

use std::{
    io::{self, ErrorKind, Write as _},
    net::TcpListener,
    path::Path,
};

use rustix::fs::{Access as Allowed, access};
use towpath::{
    auth::{
        Accounts, Invites,
        file::{FileError, Loaded, read},
    },
    config::{ConfigFile, Problem, Setup, show},
    server::{Access, Logins, Settings},
    wire::Registration,
};

use crate::{Failure, cli::Flags};

/// What was found out.
#[derive(Default)]
struct Findings {
    /// The server does not start so, or somebody can't get in.
    problems: Vec<Problem>,
    /// What is well to know.
    notes: Vec<String>,
}

/// Prints every problem, or a summary.
pub(crate) fn run(flags: &Flags) -> Result<(), Failure> {
    let options = flags.options();
    let mut findings = Findings::default();
    let setup = options.check().map_err(|problems| findings.problems.extend(problems)).ok();
    findings.root(options.root());
    if let Some(setup) = &setup {
        findings.ports(setup);
        findings.open_paths(setup);
        findings.people(&options, setup);
    }
    for note in &findings.notes {
        eprintln!("note: {note}");
    }
    match (setup, findings.problems.as_slice()) {
        (Some(setup), []) => Ok(io::stdout().write_all(summary(&options, &setup).as_bytes())?),
        (_, problems) => Err(Failure::of(problems)),
    }
}

impl Findings {
    fn problem(&mut self, text: impl std::fmt::Display) {
        self.problems.push(Problem::new(text));
    }

    /// The root, or where it would be made, takes files.
    fn root(&mut self, root: &Path) {
        let above = root.parent().filter(|above| !above.as_os_str().is_empty());
        let is_there = root.symlink_metadata().is_ok();
        let folder = if is_there { root } else { above.unwrap_or_else(|| Path::new(".")) };
        if is_there && !root.is_dir() {
            return self.problems.push(Problem::of("root", format!("{root:?} is not a directory")));
        }
        if let Err(errno) = access(folder, Allowed::WRITE_OK | Allowed::EXEC_OK) {
            self.problems.push(Problem::of("root", format!("{folder:?}: {errno}")));
        } else if !is_there {
            self.notes.push(format!("{root:?} is made by the first start"));
        }
    }

    /// What would be listened on can be, or is, perhaps by the server that runs.
    fn ports(&mut self, setup: &Setup) {
        for address in &setup.listen {
            let tried = address.resolve().and_then(TcpListener::bind);
            match tried {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::AddrInUse => {
                    self.notes.push(format!("{address} is in use, perhaps by a running towd"));
                }
                Err(error) => {
                    self.problems.push(Problem::of("listen", format!("{address}: {error}")));
                }
            }
            let is_near = address.resolve().is_ok_and(|address| address.ip().is_loopback());
            if setup.users.is_none() && !is_near {
                let who = "everybody who reaches";
                self.notes.push(format!("{who} {address} may read, write and remove everything"));
            }
        }
    }

    /// Without them, nobody enters the sandbox.
    fn open_paths(&mut self, setup: &Setup) {
        let Some(paths) = &setup.sandbox else { return };
        for (key, paths) in [("sandbox.read", &paths.read), ("sandbox.write", &paths.write)] {
            for path in paths {
                if let Err(error) = path.metadata() {
                    self.problems.push(Problem::of(key, format!("{path:?}: {error}")));
                }
            }
        }
    }

    fn people(&mut self, options: &ConfigFile, setup: &Setup) {
        let Access::Logins(logins) = &setup.settings.access else { return };
        match read::<Accounts>(&logins.users) {
            Ok(Loaded { value, warnings, .. }) => {
                for warning in warnings {
                    self.problem(format!("{:?}: {warning}", logins.users));
                }
                self.strangers(options, &value);
            }
            Err(FileError::Absent(_)) => self.notes.push("there are no users yet".to_owned()),
            Err(error) => self.problem(error),
        }
        match read::<Invites>(&logins.invites) {
            Ok(_) | Err(FileError::Absent(_)) => {}
            Err(error) => self.problem(error),
        }
    }

    /// Actions for users that there are not.
    fn strangers(&mut self, options: &ConfigFile, accounts: &Accounts) {
        for (action, config) in &options.actions {
            for name in config.users.iter().flatten() {
                if !accounts.iter().any(|account| account.name.as_str() == name) {
                    self.notes.push(format!("actions.{action}.users: there is no user {name:?}"));
                }
            }
        }
    }
}

fn summary(options: &ConfigFile, setup: &Setup) -> String {
    let actions: Vec<_> = options.actions.keys().map(String::as_str).collect();
    let Settings { access, reserve_bytes, max_connections, .. } = &setup.settings;
    let Settings { max_per_address, max_per_user, keep_partials, .. } = &setup.settings;
    let listen: Vec<_> = setup.listen.iter().map(ToString::to_string).collect();
    let sandbox = if setup.sandbox.is_some() { "on, where the kernel has it" } else { "off" };
    let rows = [
        ("root", format!("{:?}", setup.root)),
        ("listen", listen.join(", ")),
        ("people", people(access)),
        ("actions", if actions.is_empty() { "none".to_owned() } else { actions.join(", ") }),
        (
            "connections",
            format!("{max_connections}, {max_per_address} an address, {max_per_user} a user"),
        ),
        ("workers", setup.workers.to_string()),
        ("partials", format!("kept for {}", humantime::format_duration(*keep_partials))),
        ("reserve", show(*reserve_bytes)),
        ("sandbox", sandbox.to_owned()),
    ];
    let line = |(name, text): (&str, String)| format!("  {name:12}{text}\n");
    rows.map(line).into_iter().fold("ok\n".to_owned(), |all, line| all + &line)
}

fn people(access: &Access) -> String {
    let Access::Logins(Logins { users, anonymous, registration, .. }) = access else {
        return "everybody may do everything, without a login".to_owned();
    };
    let known = read::<Accounts>(users).map_or(0, |loaded| loaded.value.iter().count());
    let anonymous = anonymous.map_or_else(|| "nothing".to_owned(), |rights| rights.to_string());
    let registration = match registration {
        Registration::Off => "off",
        Registration::Invite => "invite",
        Registration::Open => "open",
    };
    format!("{known} in {users:?}, anonymous {anonymous}, registration {registration}")
}
