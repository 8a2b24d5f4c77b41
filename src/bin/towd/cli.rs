//! The command line of `towd`.

#![allow(rustdoc::broken_intra_doc_links, reason = "help texts, in which [ ] is no link")]

use std::path::PathBuf;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use towpath::{
    auth::{Home, Rights, UserName},
    config::{AnonymousAccess, ConfigFile, Count, ListenAddress, RegistrationMode, Size},
};

/// Serves a folder for transfers that survive broken lines.
///
/// People log in, each at home in a folder of his own below the root; towd user adds them.
#[derive(Debug, Clone, Parser)]
#[command(name = "towd", version)]
pub(crate) struct Flags {
    /// File that says what flags do not say; SIGHUP reads it again
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) config: Option<PathBuf>,
    /// Folder to serve; made if it is absent [default: ./towpath-data]
    #[arg(long, value_name = "DIR", global = true)]
    root: Option<PathBuf>,
    /// File of users [default: .tow/users below the root]
    #[arg(long, value_name = "FILE", global = true)]
    users: Option<PathBuf>,
    /// Address and port to listen on; may be given more than once, port 0 lets the system choose.
    /// 0.0.0.0:8690 and [::]:8690 are reached from everywhere [default: 127.0.0.1:8690]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<Vec<ListenAddress>>,
    /// How long an unfinished upload, and what is remembered of a finished one, is kept after its
    /// last byte, such as 12h or 7d [default: 7d]
    #[arg(long, value_name = "TIME")]
    keep_partials: Option<humantime::Duration>,
    /// Let people log in, which is the default, whatever the file says
    #[arg(long, overrides_with = "no_login")]
    login: bool,
    /// Let everybody who reaches the port read, write and remove everything below the root
    #[arg(long, conflicts_with_all = ["anonymous", "registration"], overrides_with = "login")]
    no_login: bool,
    /// What may be done without an account, in the folder anonymous below the root [default: off]
    #[arg(long, value_enum, value_name = "WHAT")]
    anonymous: Option<Anonymous>,
    /// Who may make an account for himself [default: off]
    #[arg(long, value_enum, value_name = "WHO")]
    registration: Option<Registration>,
    /// Line that is said to everybody who logs in
    #[arg(long, value_name = "TEXT")]
    banner: Option<String>,
    /// Free space that uploads leave, such as 1GiB [default: none]
    #[arg(long, value_name = "SIZE")]
    reserve: Option<Size>,
    /// Bytes in a second for all connections together, both ways, such as 50MiB
    #[arg(long, value_name = "SIZE")]
    max_rate: Option<Size>,
    /// Connections at one time [default: 16384]
    #[arg(long, value_name = "N")]
    max_connections: Option<usize>,
    /// Connections at one time from one address [default: 1024]
    #[arg(long, value_name = "N")]
    max_per_address: Option<usize>,
    /// Connections at one time of one user [default: 256]
    #[arg(long, value_name = "N")]
    max_per_user: Option<usize>,
    /// Processes that share the ports, for machines with more cores [default: 1]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Serve as one of several, as the process says that started this one
    #[arg(long, hide = true)]
    pub(crate) worker: bool,
    /// Do without Landlock, which keeps the server to its files if the kernel has it
    #[arg(long)]
    no_sandbox: bool,
    /// Log connections and replies as well
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Log only what went wrong
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) task: Option<Task>,
}

impl Flags {
    /// The flags, above the file if there is one.
    pub(crate) fn options(&self) -> ConfigFile {
        let file = self.config.as_deref().map(ConfigFile::read);
        self.said().over(file.unwrap_or_default())
    }

    fn said(&self) -> ConfigFile {
        let login = match (self.login, self.no_login) {
            (false, false) => None,
            (_, no_login) => Some(!no_login),
        };
        let mut said = ConfigFile::default();
        said.root.clone_from(&self.root);
        said.listen.clone_from(&self.listen);
        said.users.clone_from(&self.users);
        said.login = login;
        said.anonymous = self.anonymous.map(Into::into);
        said.banner.clone_from(&self.banner);
        said.keep_partials = self.keep_partials;
        said.reserve = self.reserve;
        said.max_rate = self.max_rate;
        said.max_connections = self.max_connections;
        said.max_per_address = self.max_per_address;
        said.max_per_user = self.max_per_user;
        said.workers = self.workers;
        said.registration.mode = self.registration.map(Into::into);
        said.sandbox.enabled = self.no_sandbox.then_some(false);
        said
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Anonymous {
    /// Nothing
    Off,
    /// Look and download
    Read,
    /// Look, download, and upload without replacing anything
    Write,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Registration {
    /// Nobody
    Off,
    /// Whoever has a code of towd invite
    Invite,
    /// Everybody
    Open,
}

impl From<Anonymous> for AnonymousAccess {
    fn from(what: Anonymous) -> Self {
        match what {
            Anonymous::Off => Self::Off,
            Anonymous::Read => Self::Read,
            Anonymous::Write => Self::Write,
        }
    }
}

impl From<Registration> for RegistrationMode {
    fn from(who: Registration) -> Self {
        match who {
            Registration::Off => Self::Off,
            Registration::Invite => Self::Invite,
            Registration::Open => Self::Open,
        }
    }
}

/// What else there is to do than to serve.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Task {
    /// Adds, changes, removes and lists users
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Makes codes with which people can make accounts for themselves, once each
    Invite(InviteFlags),
    /// Says what is wrong with the configuration, the users and the actions, and serves nothing
    Check,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum UserCommand {
    /// Adds a user
    Add {
        #[arg(value_parser = user_name)]
        name: UserName,
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        password: PasswordFlags,
    },
    /// Changes what a user may do; what is not named stays as it is
    Set {
        #[arg(value_parser = user_name)]
        name: UserName,
        #[command(flatten)]
        settings: Settings,
    },
    /// Gives a user another password
    Passwd {
        #[arg(value_parser = user_name)]
        name: UserName,
        #[command(flatten)]
        password: PasswordFlags,
        /// No longer allow CRAM-MD5
        #[arg(long, conflicts_with = "cram_md5")]
        no_cram_md5: bool,
    },
    /// Removes a user; his files stay
    Remove {
        #[arg(value_parser = user_name)]
        name: UserName,
    },
    /// Keeps a user from logging in, until he is unlocked
    Lock {
        #[arg(value_parser = user_name)]
        name: UserName,
    },
    /// Lets a locked user log in again
    Unlock {
        #[arg(value_parser = user_name)]
        name: UserName,
    },
    /// Shows all users
    List,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// What he may do: letters of rwda for read, write, delete and actions, or - for nothing
    /// [default of a new user: rwd]
    #[arg(long, value_name = "RWDA", allow_hyphen_values = true)]
    pub(crate) rights: Option<Rights>,
    /// His folder, below the root or absolute; . is the root [default of a new user: his name]
    #[arg(long, value_name = "DIR", value_parser = home)]
    pub(crate) home: Option<Home>,
    /// Bytes that his files may take, such as 10GiB, 500MB or none
    #[arg(long, value_name = "SIZE")]
    pub(crate) quota: Option<Size>,
    /// Files and folders that he may have, or none for any number
    #[arg(long, value_name = "N")]
    pub(crate) quota_files: Option<Count>,
    /// Bytes per second that he gets, such as 10MiB or none
    #[arg(long, value_name = "SIZE")]
    pub(crate) max_rate: Option<Size>,
}

/// Where a password comes from. Never from an argument, which everybody can see; without one of
/// these, from the variable TOW_PASSWORD or else the terminal.
#[derive(Debug, Clone, Args)]
pub(crate) struct PasswordFlags {
    /// Take the password from the first line of a file, - for stdin; otherwise from the variable
    /// TOW_PASSWORD, or the terminal
    #[arg(long, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Make a random password and print it
    #[arg(long, conflicts_with = "password_file")]
    pub(crate) random: bool,
    /// Allow the login CRAM-MD5 too, which is weaker: what the user file has is then enough to
    /// log in with
    #[arg(long)]
    pub(crate) cram_md5: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct InviteFlags {
    /// How many
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) count: u16,
    /// For how long they can be used, such as 7d [default: for ever]
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<humantime::Duration>,
}

fn user_name(text: &str) -> Result<UserName, String> {
    let name: UserName = text.parse().map_err(|error| format!("{error}"))?;
    if name.is_anonymous() {
        return Err("this name is for those who do not log in".to_owned());
    }
    Ok(name)
}

fn home(text: &str) -> Result<Home, String> {
    Home::new(text.as_ref()).map_err(|error| error.to_string())
}
