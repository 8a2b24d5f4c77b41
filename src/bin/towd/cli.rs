//! The command line of `towd`.

#![allow(rustdoc::broken_intra_doc_links, reason = "help texts, in which [ ] is no link")]

use std::{
    net::{SocketAddr, ToSocketAddrs},
    path::PathBuf,
};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use towpath::{
    auth::{Home, Rights, UserName},
    limits::KEEP_PARTIALS,
};

use crate::size::{Count, Size};

/// Serves a folder for transfers that survive broken lines.
///
/// People log in, each at home in a folder of his own below the root; towd user adds them.
#[derive(Debug, Parser)]
#[command(name = "towd", version)]
pub(crate) struct Flags {
    /// Folder to serve; made if it is absent
    #[arg(long, value_name = "DIR", default_value = "./towpath-data", global = true)]
    pub(crate) root: PathBuf,
    /// File of users [default: .tow/users below the root]
    #[arg(long, value_name = "FILE", global = true)]
    pub(crate) users: Option<PathBuf>,
    /// Address and port to listen on; may be given more than once, port 0 lets the system choose.
    /// 0.0.0.0:8690 and [::]:8690 are reached from everywhere
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8690", value_parser = address)]
    pub(crate) listen: Vec<SocketAddr>,
    /// How long an unfinished upload, and what is remembered of a finished one, is kept after its
    /// last byte, such as 12h or 7d
    #[arg(long, value_name = "TIME", default_value_t = humantime::Duration::from(KEEP_PARTIALS))]
    pub(crate) keep_partials: humantime::Duration,
    /// Let everybody who reaches the port read, write and remove everything below the root
    #[arg(long, conflicts_with_all = ["anonymous", "registration"])]
    pub(crate) no_login: bool,
    /// What may be done without an account, in the folder anonymous below the root
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = Anonymous::Off)]
    pub(crate) anonymous: Anonymous,
    /// Who may make an account for himself
    #[arg(long, value_enum, value_name = "WHO", default_value_t = Registration::Off)]
    pub(crate) registration: Registration,
    /// Log connections and replies as well
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "quiet")]
    pub(crate) verbose: u8,
    /// Log only what went wrong
    #[arg(short, long)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) task: Option<Task>,
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

/// What else there is to do than to serve.
#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Adds, changes, removes and lists users
    User {
        #[command(subcommand)]
        command: UserCommand,
    },
    /// Makes codes with which people can make accounts for themselves, once each
    Invite(InviteFlags),
}

#[derive(Debug, Subcommand)]
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

#[derive(Debug, Args)]
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
#[derive(Debug, Args)]
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

#[derive(Debug, Args)]
pub(crate) struct InviteFlags {
    /// How many
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) count: u16,
    /// For how long they can be used, such as 7d [default: for ever]
    #[arg(long, value_name = "TIME")]
    pub(crate) expires: Option<humantime::Duration>,
}

/// An address and a port, or a name that stands for one.
fn address(text: &str) -> Result<SocketAddr, String> {
    let found = text.to_socket_addrs().map_err(|error| format!("{error}; write ADDR:PORT"))?;
    found.into_iter().next().ok_or_else(|| "no address of that name".to_owned())
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
