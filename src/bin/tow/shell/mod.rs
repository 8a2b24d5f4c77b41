//! The interactive shell: commands on a server, with a current folder on each side.
//!
//! The current folder is known here and not on the server: every path that is sent begins at the
//! root. A line that breaks takes nothing with it, so that healing it is all there is to do.

mod columns;
mod commands;
mod complete;
mod editor;
mod expand;
mod glob;
mod history;
mod local;
mod names;
mod path;
mod script;
mod signals;
mod table;
mod words;

use std::{
    fmt,
    io::{IsTerminal, stdin},
};

use towpath::{
    client::{ClientError, Options, Url},
    wire::{Code, RemotePath},
};

use self::{
    path::{Place, join},
    signals::Signals,
    table::Command,
};
use crate::{
    exit::{Exit, Failure},
    files::Context,
    show::printable,
};

/// Runs a shell on the server of `url`, beginning in the folder that it names: with a person, if
/// stdin is a terminal, else with the script that stdin is.
pub(crate) fn run(context: &Context, url: &Url) -> Result<Exit, Failure> {
    let interactive = stdin().is_terminal();
    let signals = Signals::catch(interactive)?;
    let options = Options { stop: signals.stop(), ..context.options.clone() };
    let context = Context::new(context.quiet, options);
    let mut shell = Shell::open(&context, url)?;
    if interactive { editor::run(&mut shell, &signals) } else { script::run(&mut shell, &signals) }
}

/// What the commands work on.
#[derive(Debug)]
struct Shell<'a> {
    context: &'a Context,
    /// The server, and whoever talks to it.
    base: Url,
    current: RemotePath,
    /// Where `cd -` goes.
    previous: Option<RemotePath>,
    /// `quit` was said.
    ended: bool,
}

impl<'a> Shell<'a> {
    /// Sees that the server and the folder are there.
    fn open(context: &'a Context, url: &Url) -> Result<Self, Failure> {
        let start = url.path.clone();
        let base = url.clone();
        let shell = Self { context, base, current: start, previous: None, ended: false };
        let kind = shell.kind(url).map_err(Failure::client(url))?;
        if kind != 'd' {
            return Err(Failure::Usage(format!("{url} is no folder: a shell begins in one")));
        }
        Ok(shell)
    }

    /// Runs one line. With `comments`, `#` begins one.
    fn execute(&mut self, line: &[u8], comments: bool) -> Result<Exit, Error> {
        let words =
            words::split(line, comments).map_err(|error| Error::Usage(error.to_string()))?;
        let Some((name, words)) = words.split_first() else { return Ok(Exit::Done) };
        let name = name.bytes();
        let command = Command::find(&name).ok_or_else(|| table::unknown(&name))?;
        let call = command.parse(words)?;
        let done = (command.run)(self, &call);
        let exit = done.as_ref().map_or_else(Error::exit, |exit| *exit);
        if exit == Exit::Refused && self.is_gone() {
            let current = self.current.to_string();
            eprintln!("tow: the current folder {current} is gone: go to another one with cd");
        }
        done
    }

    /// Whether the current folder is no longer there, as far as the server can be asked.
    fn is_gone(&self) -> bool {
        match self.kind(&self.url(&self.here())) {
            Ok(kind) => kind != 'd',
            Err(ClientError::Refused(reply)) => {
                matches!(reply.code, Code::Absent | Code::WrongKind)
            }
            Err(_) => false,
        }
    }

    fn here(&self) -> Place {
        Place { path: self.current.clone(), is_dir: true, is_content: true }
    }

    /// The place that a path names, as it was written.
    fn place(&self, written: &[u8]) -> Result<Place, Error> {
        join(&self.current, written)
            .map_err(|error| Error::Usage(format!("{}: {error}", printable(written))))
    }

    fn url(&self, place: &Place) -> Url {
        let Place { path, is_dir, is_content } = place.clone();
        Url { path, is_dir, is_content, ..self.base.clone() }
    }

    /// What a place is: `f`, `d` and the like.
    fn kind(&self, url: &Url) -> Result<char, ClientError> {
        let context = self.context;
        Ok(context.client(url).stat(&url.path, &mut context.retries(url))?.kind)
    }
}

/// Why a line did not succeed.
#[derive(Debug)]
enum Error {
    /// It makes no sense.
    Usage(String),
    /// It failed.
    Failure(Failure),
}

impl Error {
    fn nothing_matches(pattern: &[u8]) -> Self {
        Failure::Local(format!("{} matches nothing", printable(pattern))).into()
    }

    fn exit(&self) -> Exit {
        match self {
            Self::Usage(_) => Exit::Usage,
            Self::Failure(failure) => failure.exit(),
        }
    }

    /// Whether it would be the same for every other name.
    fn ends_everything(&self) -> bool {
        match self {
            Self::Usage(_) => false,
            Self::Failure(failure) => failure.ends_everything(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(text) => {
                write!(f, "{}\n     help says what there is", printable(text.as_bytes()))
            }
            Self::Failure(failure) => failure.fmt(f),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Self::Failure(error.into())
    }
}
