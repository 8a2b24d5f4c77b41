//! The command line.

use std::{borrow::Cow, ffi::OsString, path::PathBuf, sync::Arc, time::Duration};

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};
use towpath::{
    client::{Credentials, Options, RateLimit, Stop, Url, UrlError},
    limits::{JOBS_MAX, RATE_BYTES_MIN},
    wire::DigestChoice,
};

use crate::exit::Failure;

/// Moves files over lines that break: every byte is verified, every transfer goes on where it was
/// interrupted.
#[derive(Debug, Parser)]
#[command(
    name = "tow",
    version,
    arg_required_else_help = true,
    subcommand_negates_reqs = true,
    after_help = "Exit codes: 0 done, 1 failed, 2 usage, 3 verification failed, 4 not allowed to \
                  log in, 5 refused by the server, 6 gave up on the line, 130 interrupted."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    action: Option<Action>,

    /// Open a shell there, as tow shell does
    #[arg(required = true, value_parser = shell_url)]
    url: Option<Url>,

    /// Digest to verify with; md5 adds the MD5 of the whole file, as md5sum prints it
    #[arg(long, global = true, value_enum, default_value_t = Digest::Md5Tree)]
    digest: Digest,

    /// A file whose first line is the password, readable by nobody else; - for standard input
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,

    /// How to log in; nothing weaker is ever used
    #[arg(long, global = true, value_enum, default_value_t = Mechanism::ScramSha256)]
    pub(crate) auth: Mechanism,

    /// A line that brings and takes no byte for so long counts as broken
    #[arg(long, global = true, value_name = "TIME", default_value = "30s", value_parser = span)]
    timeout: Duration,

    /// Stop trying after so long without any verified progress; 0: do not try again
    #[arg(long, global = true, value_name = "TIME", default_value = "5m", value_parser = time)]
    give_up: Duration,

    /// Move no more than so many bytes per second, such as 500KiB or 10MiB, both ways together and
    /// over all connections
    #[arg(long, global = true, value_name = "RATE", value_parser = bytes_per_s)]
    limit_rate: Option<u64>,

    /// No progress, no summary: only errors
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,

    /// Say more of what happens; twice for everything
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Digest {
    /// A tree of MD5s, which costs almost nothing
    Md5Tree,
    /// The MD5 of the whole file besides
    Md5,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mechanism {
    /// The password never crosses the wire, and the server proves itself
    #[value(name = "scram-sha-256")]
    ScramSha256,
    /// For servers that have nothing better
    CramMd5,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum Action {
    /// Upload; the same command continues an upload that was interrupted
    ///
    /// With -r, folders go into the one that URL names, under their own names; it is made if it is
    /// absent. DIR/. stands for what is in DIR.
    Put {
        #[command(flatten)]
        tree: Tree,
        /// Follow local links; without it they are passed over
        #[arg(short = 'L', long, requires = "recursive")]
        follow: bool,
        /// Local files; folders as well with -r
        #[arg(required = true, value_name = "FILE")]
        files: Vec<OsString>,
        /// Where to: a file, or a folder, as tow://HOST[:PORT]/PATH
        url: Url,
    },
    /// Download; the same command continues a download that was interrupted
    ///
    /// With -r, a folder goes into DEST, under its own name; DEST is made if it is absent. URL/.
    /// stands for what is in the folder.
    Get {
        #[command(flatten)]
        tree: Tree,
        /// What, as tow://HOST[:PORT]/PATH
        url: Url,
        /// Where to: a file, a folder, or - for stdout [default: the same name, here]
        #[arg(value_name = "DEST")]
        to: Option<OsString>,
    },
    /// List a folder
    Ls {
        /// Kind, size and time as well
        #[arg(short)]
        long: bool,
        /// Which folder
        url: Url,
    },
    /// Show kind, size and time of a name
    Stat {
        /// Which name
        url: Url,
    },
    /// Have the server compute the MD5 of a whole file, as md5sum prints it
    Md5 {
        /// Which file
        url: Url,
    },
    /// Make a folder
    Mkdir {
        /// Which folder
        url: Url,
    },
    /// Remove a file
    Rm {
        /// Which file
        url: Url,
    },
    /// Remove an empty folder
    Rmdir {
        /// Which folder
        url: Url,
    },
    /// Rename a file or folder; a file that has the new name is replaced
    Mv {
        /// What
        from: Url,
        /// The new name, on the same server
        to: Url,
    },
    /// Make an account on a server that allows it; USER is the name that you want
    Register {
        /// The code that you were given
        #[arg(long, value_name = "CODE")]
        invite: Option<String>,
        /// Where, as tow://USER@HOST[:PORT]
        url: Url,
    },
    /// Show who the server takes you for, and what you may do
    Whoami {
        /// Which server
        url: Url,
    },
    /// Show what you store and may store
    Quota {
        /// Which server
        url: Url,
    },
    /// Run an action that the operator allows; ends with its status
    Run {
        /// Which server
        url: Url,
        /// Which action; without it, all that you may run are listed
        #[arg(value_name = "NAME")]
        name: Option<String>,
        /// What the action takes
        #[arg(value_name = "ARG", allow_hyphen_values = true, trailing_var_arg = true)]
        arguments: Vec<OsString>,
    },
    /// Open a shell: commands on the server, with folders to go to; a script, if stdin is one
    Shell {
        /// Where to begin: a folder, as tow://HOST[:PORT]/PATH
        url: Url,
    },
    /// Measure round trips
    Ping {
        /// How many
        #[arg(short, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
        count: u32,
        /// Seconds between two
        #[arg(short, value_name = "SECONDS", default_value = "0.2", value_parser = seconds)]
        interval: Duration,
        /// Which server
        url: Url,
    },
    /// Show it all at once: a server of its own, a line that is cut, up and down again
    Demo {
        /// Size of the file in MiB
        #[arg(long, value_name = "MIB", default_value_t = 256)]
        mebibytes: u64,
        /// How often the line is cut on the way up
        #[arg(long, value_name = "N", default_value_t = 5)]
        cuts: u32,
    },
}

/// Whole folders.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct Tree {
    /// Folders, with all that is in them
    #[arg(short, long)]
    pub(crate) recursive: bool,
    /// Connections at most, among which the files are shared out
    #[arg(short, long, value_name = "N", default_value = "1", requires = "recursive",
          value_parser = jobs)]
    pub(crate) jobs: usize,
}

impl Action {
    /// The server that it speaks to.
    pub(crate) const fn url(&self) -> Option<&Url> {
        match self {
            Self::Put { url, .. }
            | Self::Get { url, .. }
            | Self::Ls { url, .. }
            | Self::Stat { url }
            | Self::Md5 { url }
            | Self::Mkdir { url }
            | Self::Rm { url }
            | Self::Rmdir { url }
            | Self::Mv { from: url, .. }
            | Self::Whoami { url }
            | Self::Quota { url }
            | Self::Run { url, .. }
            | Self::Shell { url }
            | Self::Ping { url, .. } => Some(url),
            // Who registers has no password yet.
            Self::Register { .. } | Self::Demo { .. } => None,
        }
    }
}

impl Cli {
    /// What is to be done. A URL alone opens a shell.
    pub(crate) fn action(&self) -> Result<Cow<'_, Action>, Failure> {
        match (&self.action, &self.url) {
            (Some(action), None) => Ok(Cow::Borrowed(action)),
            (None, Some(url)) => Ok(Cow::Owned(Action::Shell { url: url.clone() })),
            (_, _) => Err(Failure::Usage("a URL in front of a command is too much".to_owned())),
        }
    }

    /// What the flags mean for the library.
    pub(crate) fn options(&self, login: Option<Arc<Credentials>>, stop: Stop) -> Options {
        Options {
            digest: match self.digest {
                Digest::Md5Tree => DigestChoice::Tree,
                Digest::Md5 => DigestChoice::TreeAndMd5,
            },
            timeout: self.timeout,
            give_up: self.give_up,
            login,
            limit: self.limit_rate.map(RateLimit::new),
            stop,
            ..Options::default()
        }
    }
}

/// Where a shell begins, in the place where a command could stand as well.
fn shell_url(text: &str) -> Result<Url, String> {
    text.parse().map_err(|error| match error {
        UrlError::Scheme(text) => format!("'{text}' is neither a command nor a tow URL"),
        error => error.to_string(),
    })
}

/// A time: `30s`, `5m`; a bare number is seconds.
fn time(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// Bytes per second: a number with KB, KiB, MB, MiB, GB or GiB behind it, or nothing.
fn bytes_per_s(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 13] = [
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("KB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("K", 1 << 10),
        ("M", 1 << 20),
        ("G", 1 << 30),
        ("k", 1 << 10),
        ("m", 1 << 20),
        ("g", 1 << 30),
        ("B", 1),
    ];
    let text = text.trim_end_matches("/s");
    let unit = UNITS.iter().find_map(|&(name, unit)| Some((text.strip_suffix(name)?, unit)));
    let (number, unit) = unit.unwrap_or((text, 1));
    let rate = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    let rate = rate.ok_or("a number of bytes per second is needed, such as 10MiB")?;
    if rate < RATE_BYTES_MIN {
        return Err(format!("at least {RATE_BYTES_MIN} bytes per second are needed"));
    }
    Ok(rate)
}

/// So many connections.
fn jobs(text: &str) -> Result<usize, String> {
    let error = || format!("a number from 1 to {JOBS_MAX} is needed");
    text.parse().ok().filter(|jobs| (1..=JOBS_MAX).contains(jobs)).ok_or_else(error)
}

/// A time in which something can happen.
fn span(text: &str) -> Result<Duration, String> {
    match time(text)? {
        Duration::ZERO => Err("it must be longer than nothing".to_owned()),
        time => Ok(time),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds is needed".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn a_bare_number_is_seconds() {
        assert_eq!(span("5"), Ok(Duration::from_secs(5)));
        assert_eq!(span("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(time("0"), Ok(Duration::ZERO));
        assert!(span("0").is_err() && span("0s").is_err() && span("soon").is_err());
    }

    #[test]
    fn rates_have_the_units_that_people_write() {
        for (text, rate) in [
            ("4096", 4096),
            ("500KiB", 500 << 10),
            ("10MiB", 10 << 20),
            ("10M/s", 10 << 20),
            ("1GB", 1_000_000_000),
            ("8192B", 8192),
        ] {
            assert_eq!(bytes_per_s(text), Ok(rate), "{text}");
        }
        for text in ["", "0", "1KiB", "-1", "fast", "18446744073709551615K", "MiB"] {
            assert!(bytes_per_s(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }
}
