//! Commands that move or change files.

use std::{
    cell::RefCell,
    ffi::{OsStr, OsString},
    io::{self, IsTerminal},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    rc::Rc,
    thread,
    time::Instant,
};

use towpath::{
    client::{Client, ClientError, Event, Observer, Options, Transferred, Url},
    limits::{BUSY_PATIENCE, BUSY_PAUSE},
    wire::{Code, RemotePath},
};

use crate::{
    exit::{Exit, Failure},
    progress::{Bar, Retries, summary},
    show::{self, printable},
};

/// What every command needs.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) quiet: bool,
    pub(crate) options: Options,
    /// The client of the last server, and a URL of that server.
    client: RefCell<Option<(Url, Rc<Client>)>>,
}

impl Context {
    pub(crate) const fn new(quiet: bool, options: Options) -> Self {
        Self { quiet, options, client: RefCell::new(None) }
    }

    /// The client for a server. It is one and the same for all that is done there, so that an
    /// upload that was interrupted is taken over at once.
    pub(crate) fn client(&self, url: &Url) -> Rc<Client> {
        let mut kept = self.client.borrow_mut();
        match &*kept {
            Some((at, client))
                if (&url.user, &url.host, url.port) == (&at.user, &at.host, at.port) =>
            {
                Rc::clone(client)
            }
            _ => {
                let client = Rc::new(Client::new(url, self.options.clone()));
                *kept = Some((url.clone(), Rc::clone(&client)));
                client
            }
        }
    }

    /// What the server said at the login, for a person who looks.
    pub(crate) fn show_banner(&self) {
        if let Some((_, client)) = &*self.client.borrow()
            && !self.quiet
            && io::stderr().is_terminal()
        {
            show::banner(client);
        }
    }

    /// Tells a person who waits for an answer why it does not come.
    pub(crate) fn retries(&self, url: &Url) -> Retries {
        Retries::new(&url.to_string(), self.quiet)
    }
}

pub(crate) fn put(context: &Context, files: &[OsString], url: &Url) -> Result<Exit, Failure> {
    let client = context.client(url);
    let into_dir = url.is_dir || files.len() > 1 || is_dir(context, &client, url)?;
    let mut failed: Vec<Failure> = Vec::new();
    for file in files {
        match put_one(context, &client, file, url, into_dir) {
            Ok(()) => {}
            // A file that can't go does not hold up the others, but they share the line.
            Err(failure) if files.len() > 1 && !failure.ends_everything() => {
                eprintln!("tow: {failure}");
                failed.push(failure);
            }
            Err(failure) => return Err(failure),
        }
    }
    match failed.first() {
        None => Ok(Exit::Done),
        Some(first) => {
            eprintln!("tow: {} of {} files failed", failed.len(), files.len());
            Ok(first.exit())
        }
    }
}

pub(crate) fn put_one(
    context: &Context,
    client: &Client,
    file: &OsStr,
    url: &Url,
    into_dir: bool,
) -> Result<(), Failure> {
    let path = Path::new(file);
    let name = path.file_name().ok_or_else(|| {
        Failure::Usage(format!("{} has no file name", printable(file.as_bytes())))
    })?;
    let target = if into_dir { below(url, name)? } else { url.clone() };
    let shown = printable(name.as_bytes());
    transfer(context, &shown, &target, |bar| {
        put_when_free(context, client, path, &target.path, bar)
    })?;
    Ok(())
}

/// Uploads. An upload that was interrupted a moment ago may not have ended for the server, whose
/// end of the line still has bytes of it: the same command has to continue nevertheless.
fn put_when_free(
    context: &Context,
    client: &Client,
    local: &Path,
    remote: &RemotePath,
    bar: &mut Bar,
) -> Result<Transferred, ClientError> {
    let options = &context.options;
    let patience = options.give_up.min(BUSY_PATIENCE);
    let began = Instant::now();
    let mut told = false;
    loop {
        match client.put(local, remote, bar) {
            Err(ClientError::Refused(reply))
                if reply.code == Code::Busy && began.elapsed() + BUSY_PAUSE < patience =>
            {
                if !std::mem::replace(&mut told, true) {
                    let reason =
                        "another client is writing this file, or has just been interrupted";
                    bar.event(Event::Broke { reason, pause: BUSY_PAUSE });
                }
                thread::sleep(BUSY_PAUSE);
            }
            done => return done,
        }
    }
}

/// Whether the URL names a folder that is there.
pub(crate) fn is_dir(context: &Context, client: &Client, url: &Url) -> Result<bool, Failure> {
    match client.stat(&url.path, &mut context.retries(url)) {
        Ok(entry) => Ok(entry.kind == 'd'),
        // Whatever it is, the upload itself will say it better.
        Err(ClientError::Refused(_)) => Ok(false),
        Err(error) => Err(Failure::client(url)(error)),
    }
}

/// A name in the folder that the URL names.
pub(crate) fn below(url: &Url, name: &OsStr) -> Result<Url, Failure> {
    let mut bytes = url.path.as_bytes().to_vec();
    bytes.push(b'/');
    bytes.extend_from_slice(name.as_bytes());
    let path = RemotePath::new(&bytes)
        .map_err(|error| Failure::Usage(format!("{}: {error}", printable(name.as_bytes()))))?;
    Ok(Url { path, is_dir: false, is_content: false, ..url.clone() })
}

pub(crate) fn get(context: &Context, url: &Url, to: Option<&OsStr>) -> Result<Exit, Failure> {
    let client = context.client(url);
    let (_, name) = url
        .path
        .split()
        .ok_or_else(|| Failure::Usage(format!("{url} names a folder: a file is needed, or -r")))?;
    if to == Some(OsStr::new("-")) {
        let mut out = io::stdout().lock();
        let shown = printable(name);
        transfer(context, &shown, url, |bar| client.get_to(&url.path, &mut out, bar))?;
        return Ok(Exit::Done);
    }
    // The local name comes from what was asked for, never from what the server says.
    let name = OsStr::from_bytes(name);
    let target = match to.map(Path::new) {
        None => PathBuf::from(name),
        Some(to) if to.is_dir() => to.join(name),
        Some(to) if to.as_os_str().as_bytes().ends_with(b"/") => {
            let to = printable(to.as_os_str().as_bytes());
            return Err(Failure::Usage(format!("{to}: there is no such folder")));
        }
        Some(to) => to.to_owned(),
    };
    let shown = printable(target.as_os_str().as_bytes());
    transfer(context, &shown, url, |bar| client.get(&url.path, &target, bar))?;
    Ok(Exit::Done)
}

/// Runs a transfer with a bar, and says at the end what was verified.
pub(crate) fn transfer(
    context: &Context,
    name: &str,
    url: &Url,
    run: impl FnOnce(&mut Bar) -> Result<Transferred, ClientError>,
) -> Result<Transferred, Failure> {
    let began = Instant::now();
    let mut bar = Bar::new(name, context.quiet);
    let done = run(&mut bar);
    bar.clear();
    let done = done.map_err(Failure::transfer(url, bar.has_begun()))?;
    if !context.quiet {
        eprintln!("{}", summary(name, &done, began.elapsed()));
    }
    Ok(done)
}

pub(crate) fn make_dir(context: &Context, url: &Url) -> Result<Exit, Failure> {
    let made = context.client(url).make_dir(&url.path, &mut context.retries(url));
    made.map_err(Failure::client(url))?;
    Ok(Exit::Done)
}

pub(crate) fn remove(context: &Context, url: &Url) -> Result<Exit, Failure> {
    let removed = context.client(url).remove(&url.path, &mut context.retries(url));
    removed.map_err(Failure::client(url))?;
    Ok(Exit::Done)
}

pub(crate) fn remove_dir(context: &Context, url: &Url) -> Result<Exit, Failure> {
    let removed = context.client(url).remove_dir(&url.path, &mut context.retries(url));
    removed.map_err(Failure::client(url))?;
    Ok(Exit::Done)
}

pub(crate) fn rename(context: &Context, from: &Url, to: &Url) -> Result<Exit, Failure> {
    if (&from.user, &from.host, from.port) != (&to.user, &to.host, to.port) {
        let text = "both names must be on the same server, and of the same user";
        return Err(Failure::Usage(text.to_owned()));
    }
    let client = context.client(from);
    let name = from.path.split().map_or(&b""[..], |(_, name)| name);
    let to = if to.is_dir { below(to, OsStr::from_bytes(name))? } else { to.clone() };
    let renamed = client.rename(&from.path, &to.path, &mut context.retries(from));
    renamed.map_err(|error| Failure::client(from)(error).towards(&to))?;
    Ok(Exit::Done)
}
