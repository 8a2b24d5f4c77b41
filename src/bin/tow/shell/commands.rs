//! The commands that work on the server. Moving and showing is what `tow` does without a shell as
//! well; here words become URLs.

use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    io::{self, IsTerminal, Write},
    os::unix::ffi::OsStringExt,
};

use rustix::termios::tcgetwinsize;
use towpath::{
    client::{ClientError, Entry, TreeOptions, Url},
    wire::{Code, Mtime},
};

use super::{
    Error, Shell,
    columns::columns,
    expand::{Found, expand},
    local,
    path::Place,
    table::{COMMANDS, Call, Command, unknown},
    words::Word,
};
use crate::{
    action,
    exit::{Exit, Failure},
    files, many,
    show::{self, printable},
};

pub(super) fn cd(shell: &mut Shell<'_>, call: &Call) -> Result<Exit, Error> {
    let place = match call.word() {
        None => shell.place(b"/")?,
        Some(word) if word.bytes() == b"-" => {
            let previous = shell.previous.clone();
            let none = || Error::Usage("there is no folder to go back to".to_owned());
            Place { path: previous.ok_or_else(none)?, is_dir: true, is_content: false }
        }
        Some(word) => shell.one_place(word)?,
    };
    let url = shell.url(&place);
    if shell.kind(&url).map_err(Failure::client(&url))? != 'd' {
        return Err(Failure::Local(format!("{}: it is no folder", place.path)).into());
    }
    shell.previous = Some(std::mem::replace(&mut shell.current, place.path));
    Ok(Exit::Done)
}

pub(super) fn pwd(shell: &mut Shell<'_>, _: &Call) -> Result<Exit, Error> {
    Ok(show::finish(writeln!(io::stdout(), "{}", shown(&shell.here())))?)
}

/// A place as people read it.
pub(super) fn shown(place: &Place) -> String {
    format!("/{}", printable(place.path.as_bytes()))
}

pub(super) fn ls(shell: &mut Shell<'_>, call: &Call) -> Result<Exit, Error> {
    let long = call.has(b'l');
    let mut all = shell.all(&call.words)?;
    if all.is_empty() {
        all.push(Found { path: b".".to_vec(), kind: None });
    }
    // What a pattern found is shown itself, folders too; what was named is looked into.
    let (named, matched): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.kind.is_none());
    let mut entries = Vec::new();
    for one in matched {
        entries.push(shell.entry(one, long)?);
    }
    show::finish(print(&mut io::stdout(), &mut entries, long))?;
    let several = named.len() > 1;
    each(&named, |one| {
        let url = shell.url(&shell.place(&one.path)?);
        if several && shell.is_dir(&url)? {
            show::finish(writeln!(io::stdout(), "{}:", printable(&one.path)))?;
        }
        shell.list(one, long)
    })
}

pub(super) fn get(shell: &mut Shell<'_>, call: &Call) -> Result<Exit, Error> {
    let (from, to) = sources(&call.words);
    let to = to.map(local::one_path).transpose()?;
    let whole = call.has(b'r');
    let files = if whole { shell.places(from)? } else { shell.files(from)? };
    if files.len() > 1 {
        let folder = to.as_deref().unwrap_or_else(|| OsStr::new("."));
        if !std::path::Path::new(folder).is_dir() {
            let folder = local::shown(folder);
            return Err(Error::Usage(format!("{folder} is no folder: several files need one")));
        }
        let mut names = BTreeSet::new();
        for place in &files {
            let name = place.path.split().unwrap_or_default().1;
            if !names.insert(name) {
                let name = printable(name);
                return Err(Error::Usage(format!("two of the files have the name {name}")));
            }
        }
    }
    each(&files, |place| {
        let (context, url) = (shell.context, shell.url(place));
        Ok(if whole {
            many::get(context, &url, to.as_deref(), TreeOptions::default())?
        } else {
            files::get(context, &url, to.as_deref())?
        })
    })
}

pub(super) fn put(shell: &mut Shell<'_>, call: &Call) -> Result<Exit, Error> {
    let (from, to) = sources(&call.words);
    let to = to.map_or_else(|| Ok(shell.here()), |word| shell.one_place(word))?;
    let (whole, follow) = (call.has(b'r'), call.has(b'L'));
    if !whole && follow {
        return Err(Error::Usage("-L is for folders: it needs -r".to_owned()));
    }
    if whole {
        let options = TreeOptions { follow, ..TreeOptions::default() };
        return Ok(many::put(shell.context, &local::paths(from)?, &shell.url(&to), options)?);
    }
    let files: Vec<OsString> = local::files(from, shell.context.quiet)?;
    Ok(files::put(shell.context, &files, &shell.url(&to))?)
}

pub(super) fn rm(shell: &mut Shell<'_>, call: &Call) -> Result<Exit, Error> {
    each_url(shell, call, |shell, url| files::remove(shell.context, url))
}

pub(super) fn rmdir(shell: &mut Shell<'_>, call: &Call) -> Result<Exit, Error> {
    each_url(shell, call, |shell, url| files::remove_dir(shell.context, url))
}

pub(super) fn md5(shell: &mut Shell<'_>, call: &Call) -> Result<Exit, Error> {
    each_url(shell, call, |shell, url| show::md5(shell.context, url))
}

pub(super) fn stat(shell: &mut Shell<'_>, call: &Call) -> Result<Exit, Error> {
    each_url(shell, call, |shell, url| show::stat(shell.context, url))
}

/// The words go to the action as they are: a `*` in them means nothing here.
pub(super) fn run(shell: &mut Shell<'_>, call: &Call) -> Result<Exit, Error> {
    let url = shell.url(&shell.here());
    let Some((name, arguments)) = call.words.split_first() else {
        return Ok(action::list(shell.context, &url)?);
    };
    let name = String::from_utf8_lossy(&name.bytes()).into_owned();
    let arguments: Vec<OsString> =
        arguments.iter().map(|word| OsString::from_vec(word.bytes())).collect();
    let client = shell.context.client(&url);
    Ok(action::run(shell.context, &client, &url, &name, &arguments)?)
}

pub(super) fn quota(shell: &mut Shell<'_>, _: &Call) -> Result<Exit, Error> {
    Ok(show::quota(shell.context, &shell.url(&shell.here()))?)
}

pub(super) fn whoami(shell: &mut Shell<'_>, _: &Call) -> Result<Exit, Error> {
    Ok(show::whoami(shell.context, &shell.url(&shell.here()))?)
}

pub(super) fn mv(shell: &mut Shell<'_>, call: &Call) -> Result<Exit, Error> {
    let (from, to) = sources(&call.words);
    let mut to = shell.url(&to.map_or_else(|| Ok(shell.here()), |word| shell.one_place(word))?);
    to.is_dir |= shell.is_dir(&to)?;
    let from = shell.all(from)?;
    if from.len() > 1 && !to.is_dir {
        let text = format!("{} is no folder: several names need one", to.path);
        return Err(Error::Usage(text));
    }
    each(&from, |one| {
        let url = shell.url(&shell.place(&one.path)?);
        Ok(files::rename(shell.context, &url, &to)?)
    })
}

pub(super) fn mkdir(shell: &mut Shell<'_>, call: &Call) -> Result<Exit, Error> {
    let above = call.has(b'p');
    each_url(shell, call, |shell, url| {
        if !above {
            return files::make_dir(shell.context, url);
        }
        let path = url.path.as_bytes();
        let ends = (0..=path.len()).filter(|&end| matches!(path.get(end), None | Some(b'/')));
        for end in ends {
            let part = shell.place(&[b"/", path.get(..end).unwrap_or_default()].concat());
            let Ok(part) = part.map(|place| shell.url(&place)) else { continue };
            match files::make_dir(shell.context, &part) {
                // It is enough that it is there, if it is a folder.
                Err(failure) if !is_there(&failure) || !shell.is_dir(&part)? => {
                    return Err(failure);
                }
                Ok(_) | Err(_) => {}
            }
        }
        Ok(Exit::Done)
    })
}

fn is_there(failure: &Failure) -> bool {
    let Failure::Client { error: ClientError::Refused(reply), .. } = failure else { return false };
    reply.code == Code::Exists
}

pub(super) fn help(_: &mut Shell<'_>, call: &Call) -> Result<Exit, Error> {
    let mut text = String::new();
    match call.word().map(Word::bytes) {
        Some(name) => {
            let command = Command::find(&name).ok_or_else(|| unknown(&name))?;
            text.push_str(&format!("{}\n", command.help()));
        }
        None => {
            COMMANDS.iter().for_each(|command| text.push_str(&format!("{}\n", command.help())));
            text.push_str(
                "Patterns: * ? [a-z] [!x]. Quotes: '...', \"...\", \\ before one character, \
                 $'\\xHH' for any byte.\n",
            );
        }
    }
    Ok(show::finish(write!(io::stdout(), "{text}"))?)
}

pub(super) fn quit(shell: &mut Shell<'_>, _: &Call) -> Result<Exit, Error> {
    shell.ended = true;
    Ok(Exit::Done)
}

/// The last of several words is where to.
fn sources(words: &[Word]) -> (&[Word], Option<&Word>) {
    match words {
        [from @ .., to] if !from.is_empty() => (from, Some(to)),
        all => (all, None),
    }
}

/// Does something with each name on the server that the words stand for.
fn each_url(
    shell: &Shell<'_>,
    call: &Call,
    run: impl Fn(&Shell<'_>, &Url) -> Result<Exit, Failure>,
) -> Result<Exit, Error> {
    each(&shell.all(&call.words)?, |one| Ok(run(shell, &shell.url(&shell.place(&one.path)?))?))
}

/// Does something with each; one that fails does not hold up the others, unless it is the line or
/// somebody who interrupts.
pub(super) fn each<T>(
    all: &[T],
    mut run: impl FnMut(&T) -> Result<Exit, Error>,
) -> Result<Exit, Error> {
    if let [only] = all {
        return run(only);
    }
    let mut first = Exit::Done;
    for one in all {
        let exit = match run(one) {
            Ok(exit) => exit,
            Err(error) if error.ends_everything() => return Err(error),
            Err(error) => {
                eprintln!("tow: {error}");
                error.exit()
            }
        };
        if first == Exit::Done {
            first = exit;
        }
    }
    Ok(first)
}

/// Prints names: side by side on a terminal, else one a line.
pub(super) fn print(
    out: &mut dyn Write,
    entries: &mut Vec<Entry>,
    long: bool,
) -> Result<(), io::Error> {
    let stdout = io::stdout();
    let width = tcgetwinsize(&stdout).ok().filter(|_| stdout.is_terminal());
    match width.map(|size| usize::from(size.ws_col)).filter(|&width| width > 0 && !long) {
        Some(width) => {
            let name = |entry: Entry| {
                let slash = if entry.kind == 'd' { "/" } else { "" };
                format!("{}{slash}", printable(&entry.name))
            };
            let names: Vec<String> = entries.drain(..).map(name).collect();
            out.write_all(columns(&names, width).as_bytes())
        }
        None => show::print_entries(out, entries, long),
    }
}

impl Shell<'_> {
    /// What the words stand for, patterns replaced by the names that match.
    fn all(&self, words: &[Word]) -> Result<Vec<Found>, Error> {
        let mut all = Vec::new();
        for word in words {
            all.extend(expand(word, &mut |folder, each| self.look(folder, each))?);
        }
        Ok(all)
    }

    /// Names in a folder of the server, and what they are.
    fn look(&self, folder: &[u8], each: &mut dyn FnMut(&[u8], char)) -> Result<(), Error> {
        let url = self.url(&self.place(folder)?);
        let mut retries = self.context.retries(&url);
        let client = self.context.client(&url);
        let listed = client.list(&url.path, &mut retries, |entry| each(&entry.name, entry.kind));
        Ok(listed.map_err(Failure::client(&url))?)
    }

    /// The only place that a word stands for.
    fn one_place(&self, word: &Word) -> Result<Place, Error> {
        match &*self.all(std::slice::from_ref(word))? {
            [one] => self.place(&one.path),
            all => {
                let word = printable(&word.bytes());
                Err(Error::Usage(format!("{word} matches {} names: one is needed", all.len())))
            }
        }
    }

    /// The files that the words stand for. Of what a pattern matches, folders are left out.
    fn files(&self, words: &[Word]) -> Result<Vec<Place>, Error> {
        let files = without_folders(self.all(words)?, self.context.quiet)?;
        files.iter().map(|one| self.place(&one.path)).collect()
    }

    /// The files and folders that the words stand for.
    fn places(&self, words: &[Word]) -> Result<Vec<Place>, Error> {
        self.all(words)?.iter().map(|one| self.place(&one.path)).collect()
    }

    fn is_dir(&self, url: &Url) -> Result<bool, Failure> {
        match self.kind(url) {
            Ok(kind) => Ok(kind == 'd'),
            Err(ClientError::Refused(_)) => Ok(false),
            Err(error) => Err(Failure::client(url)(error)),
        }
    }

    /// Lists a folder, or shows what is there instead.
    fn list(&self, one: &Found, long: bool) -> Result<Exit, Error> {
        let place = self.place(&one.path)?;
        let url = self.url(&place);
        match show::list_with(self.context, &url, |out, entries| print(out, entries, long)) {
            Err(Failure::Client { error: ClientError::Refused(reply), .. })
                if reply.code == Code::WrongKind && !place.is_dir =>
            {
                let mut entries = vec![self.entry(one.clone(), true)?];
                Ok(show::finish(print(&mut io::stdout(), &mut entries, long))?)
            }
            listed => Ok(listed?),
        }
    }

    /// What is shown of a name; with `whole`, everything that there is to know.
    fn entry(&self, one: Found, whole: bool) -> Result<Entry, Error> {
        if let Some(kind) = one.kind.filter(|_| !whole) {
            let mtime = Mtime { seconds: 0, nanos: 0 };
            return Ok(Entry { name: one.path, kind, size: 0, mtime });
        }
        let url = self.url(&self.place(&one.path)?);
        let entry = self.context.client(&url).stat(&url.path, &mut self.context.retries(&url));
        Ok(Entry { name: one.path, ..entry.map_err(Failure::client(&url))? })
    }
}

/// Leaves out the folders that patterns matched, and says so. Folders that were named stay in:
/// whoever named one has to be told that it can't be moved.
pub(super) fn without_folders(all: Vec<Found>, quiet: bool) -> Result<Vec<Found>, Error> {
    let (folders, files): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.kind == Some('d'));
    for folder in folders.iter().filter(|_| !quiet) {
        eprintln!("tow: {} is a folder: left out", printable(&folder.path));
    }
    match (files.is_empty(), folders.first()) {
        (true, Some(_)) => Err(Failure::Local("only folders match".to_owned()).into()),
        _ => Ok(files),
    }
}
