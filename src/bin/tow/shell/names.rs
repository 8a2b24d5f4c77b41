//! The names that Tab completes. The server is asked for them with little patience, and whatever
//! goes wrong there are just no names: nothing may be printed into a line.

use std::{
    cell::RefCell,
    ffi::OsStr,
    os::unix::ffi::OsStrExt,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
    time::{Duration, Instant},
};

use rustyline::{
    Context, Helper, Result,
    completion::{Completer, Pair},
    highlight::Highlighter,
    hint::Hinter,
    validate::Validator,
};
use towpath::{
    client::{Client, Options, Stop, Url},
    wire::RemotePath,
};

use super::{
    Shell,
    complete::{Candidate, Request, Wanted, request},
    local,
    path::join,
};

/// How long a person who pressed Tab waits.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long names are taken for true.
const FRESH: Duration = Duration::from_secs(5);

/// More names of a folder are not looked at.
const NAMES_MAX: usize = 20_000;

/// A name, and whether it is a folder.
type Name = (Vec<u8>, bool);

/// What completion needs to know of a shell.
#[derive(Debug)]
pub(super) struct Names {
    options: Options,
    base: Url,
    current: RemotePath,
    last: RefCell<Option<Listed>>,
}

/// The folder that was asked for last.
#[derive(Debug)]
struct Listed {
    folder: RemotePath,
    at: Instant,
    names: Vec<Name>,
}

impl Names {
    pub(super) fn new(shell: &Shell<'_>) -> Self {
        let options = shell.context.options.clone();
        let options = Options { timeout: PATIENCE, give_up: Duration::ZERO, ..options };
        let (base, current) = (shell.base.clone(), shell.current.clone());
        Self { options, base, current, last: RefCell::new(None) }
    }

    /// A command was run: the current folder may be another one, and hold other names.
    pub(super) fn refresh(&mut self, shell: &Shell<'_>) {
        self.current.clone_from(&shell.current);
        self.last.replace(None);
    }

    fn candidates(&self, asked: &Request) -> Vec<Candidate> {
        match asked.wanted {
            Wanted::Commands => asked.commands(),
            Wanted::Names { remote, local, .. } => {
                let mut names = if remote { self.remote(&asked.folder) } else { Vec::new() };
                if local {
                    names.extend(here(asked));
                }
                asked.names(names)
            }
        }
    }

    fn remote(&self, folder: &[u8]) -> Vec<Name> {
        let Ok(place) = join(&self.current, folder) else { return Vec::new() };
        let mut last = self.last.borrow_mut();
        match &*last {
            Some(listed) if listed.folder == place.path && listed.at.elapsed() < FRESH => {
                listed.names.clone()
            }
            _ => {
                let names = self.ask(&place.path);
                let listed = Listed { folder: place.path, at: Instant::now(), names };
                last.insert(listed).names.clone()
            }
        }
    }

    /// Asks the server. What came in until patience ended is better than nothing.
    fn ask(&self, folder: &RemotePath) -> Vec<Name> {
        let flag = Arc::default();
        let stop = Stop::new(Arc::clone(&flag));
        let options = Options { stop: stop.clone(), ..self.options.clone() };
        let (done, waiting) = mpsc::channel::<()>();
        // A server that always says something would keep a line busy for ever.
        let watch = thread::spawn({
            let stop = stop.clone();
            move || {
                if waiting.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                    stop.stop();
                }
            }
        });
        let mut names = Vec::new();
        let listed = Client::new(&self.base, options).list(folder, &mut (), |entry| {
            if names.len() < NAMES_MAX {
                names.push((entry.name, entry.kind == 'd'));
            } else {
                stop.stop();
            }
        });
        if let Err(error) = listed {
            log::debug!("no names of {folder}: {error}");
        }
        drop(done);
        // It ends at once, and can't have failed.
        let _ = watch.join();
        names
    }
}

/// The names in a folder of this machine.
fn here(asked: &Request) -> Vec<Name> {
    let mut folder = PathBuf::new();
    let mut written = &*asked.folder;
    if asked.home {
        let Ok(home) = local::home() else { return Vec::new() };
        folder.push(home);
        written = written.strip_prefix(b"~/").unwrap_or(written);
    }
    folder.push(OsStr::from_bytes(written));
    let mut names = Vec::new();
    let looked = local::look(&folder, &mut |name, kind| {
        if names.len() < NAMES_MAX {
            // A link to a folder can be gone into like one.
            let is_dir =
                kind == 'd' || (kind == 'l' && folder.join(OsStr::from_bytes(name)).is_dir());
            names.push((name.to_vec(), is_dir));
        }
    });
    if let Err(error) = looked {
        log::debug!("no names: {error}");
    }
    names
}

impl Completer for Names {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> Result<(usize, Vec<Pair>)> {
        let Some(asked) = line.get(..pos).and_then(request) else { return Ok((pos, Vec::new())) };
        let pair = |one: Candidate| Pair { display: one.shown, replacement: one.written };
        Ok((asked.start, self.candidates(&asked).into_iter().map(pair).collect()))
    }
}

impl Helper for Names {}
impl Highlighter for Names {}
impl Hinter for Names {
    type Hint = String;
}
impl Validator for Names {}
