//! The commands that work on this machine, and names on it.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs, io,
    io::Write,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::MetadataExt,
    },
    path::{Path, PathBuf},
};

use towpath::{client::Entry, wire::Mtime};

use super::{
    Error, Shell,
    commands::{each, print, without_folders},
    expand::{Found, expand},
    table::Call,
    words::Word,
};
use crate::{
    exit::{Exit, Failure},
    show::{self, printable},
};

pub(super) fn lcd(_: &mut Shell<'_>, call: &Call) -> Result<Exit, Error> {
    let folder = match call.word() {
        Some(word) => one_path(word)?,
        None => home()?,
    };
    env::set_current_dir(&folder).map_err(|error| failed(&folder, &error))?;
    Ok(Exit::Done)
}

pub(super) fn lpwd(_: &mut Shell<'_>, _: &Call) -> Result<Exit, Error> {
    let folder = env::current_dir()?;
    Ok(show::finish(writeln!(io::stdout(), "{}", shown(folder.as_os_str())))?)
}

pub(super) fn lls(_: &mut Shell<'_>, call: &Call) -> Result<Exit, Error> {
    let long = call.has(b'l');
    let mut all = all(&call.words)?;
    if all.is_empty() {
        all.push(Found { path: b".".to_vec(), kind: None });
    }
    // As with ls: what a pattern found is shown itself.
    let (named, matched): (Vec<_>, Vec<_>) = all.into_iter().partition(|one| one.kind.is_none());
    let mut entries = Vec::new();
    for one in matched {
        let path = Path::new(OsStr::from_bytes(&one.path));
        entries.push(entry(path, one.path.clone()).map_err(|error| failed(path, &error))?);
    }
    show::finish(print(&mut io::stdout(), &mut entries, long))?;
    each(&named, |one| {
        let path = Path::new(OsStr::from_bytes(&one.path));
        let mut entries = list(path).map_err(|error| failed(path, &error))?;
        Ok(show::finish(print(&mut io::stdout(), &mut entries, long))?)
    })
}

/// What is in a folder, sorted; or what is there instead of one.
fn list(path: &Path) -> io::Result<Vec<Entry>> {
    if !path.is_dir() {
        return Ok(vec![entry(path, path.as_os_str().as_bytes().to_vec())?]);
    }
    let mut entries = Vec::new();
    for found in fs::read_dir(path)? {
        let found = found?;
        // What went away since is not there.
        entries.extend(entry(&found.path(), found.file_name().into_vec()));
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

fn entry(path: &Path, name: Vec<u8>) -> io::Result<Entry> {
    let metadata = path.symlink_metadata()?;
    let kind = kind(metadata.file_type());
    let size = if kind == 'f' { metadata.len() } else { 0 };
    let nanos = u32::try_from(metadata.mtime_nsec()).unwrap_or(0);
    Ok(Entry { name, kind, size, mtime: Mtime { seconds: metadata.mtime(), nanos } })
}

/// As a server would say it.
fn kind(of: fs::FileType) -> char {
    match of {
        of if of.is_file() => 'f',
        of if of.is_dir() => 'd',
        of if of.is_symlink() => 'l',
        _ => 'o',
    }
}

/// Names in a folder, and what they are.
pub(super) fn look(folder: &Path, each: &mut dyn FnMut(&[u8], char)) -> io::Result<()> {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        each(entry.file_name().as_bytes(), entry.file_type().map_or('o', kind));
    }
    Ok(())
}

/// The files that the words stand for. Of what a pattern matches, folders are left out.
pub(super) fn files(words: &[Word], quiet: bool) -> Result<Vec<OsString>, Error> {
    Ok(names(without_folders(all(words)?, quiet)?))
}

/// The files and folders that the words stand for.
pub(super) fn paths(words: &[Word]) -> Result<Vec<OsString>, Error> {
    Ok(names(all(words)?))
}

fn names(found: Vec<Found>) -> Vec<OsString> {
    found.into_iter().map(|one| OsString::from_vec(one.path)).collect()
}

/// What the words stand for, patterns replaced by the names that match.
fn all(words: &[Word]) -> Result<Vec<Found>, Error> {
    let mut all = Vec::new();
    for word in words {
        let word = at_home(word)?;
        all.extend(expand(&word, &mut |folder, each| {
            let folder = Path::new(OsStr::from_bytes(folder));
            look(folder, each).map_err(|error| failed(folder, &error))
        })?);
    }
    Ok(all)
}

/// The only path that a word stands for.
pub(super) fn one_path(word: &Word) -> Result<OsString, Error> {
    let mut all = all(std::slice::from_ref(word))?;
    match (all.pop(), all.len()) {
        (Some(one), 0) => Ok(OsString::from_vec(one.path)),
        (_, more) => {
            let word = printable(&word.bytes());
            Err(Error::Usage(format!("{word} matches {} names: one is needed", more + 1)))
        }
    }
}

/// A word that begins with `~` begins at home.
fn at_home(word: &Word) -> Result<Word, Error> {
    let bytes = word.bytes();
    if !word.begins_with(b'~') || !matches!(bytes.get(1), None | Some(b'/')) {
        return Ok(word.clone());
    }
    let home = home()?;
    Ok(word.with_beginning(1, home.as_bytes()))
}

/// Where whoever runs this is at home.
pub(super) fn home() -> Result<OsString, Error> {
    let home = env::var_os("HOME").filter(|home| !home.is_empty());
    home.ok_or_else(|| {
        Failure::Local("HOME is not set: nobody knows where it is".to_owned()).into()
    })
}

pub(super) fn shown(path: &OsStr) -> String {
    printable(path.as_bytes())
}

fn failed(path: impl AsRef<Path>, error: &io::Error) -> Error {
    let path: PathBuf = path.as_ref().to_owned();
    Failure::Local(format!("{}: {error}", shown(path.as_os_str()))).into()
}
