//! Whole folders, up and down.

use std::{
    ffi::{OsStr, OsString},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use indicatif::HumanBytes;
use towpath::{
    client::{Client, ClientError, TreeDone, TreeOptions, Url},
    wire::{Code, RemotePath, Reply},
};

use crate::{
    bars::Bars,
    exit::{Exit, Failure},
    files::{self, Context, below, put_one},
    progress::{rate, times},
    show::printable,
};

/// Puts files and folders, each below a folder that is there; a single folder gets the name in the
/// URL if that does not exist.
pub(crate) fn put(
    context: &Context,
    paths: &[OsString],
    url: &Url,
    options: TreeOptions,
) -> Result<Exit, Failure> {
    let client = context.client(url);
    let into_dir = url.is_dir || paths.len() > 1 || files::is_dir(context, &client, url)?;
    let mut first = None;
    for path in paths {
        let local = Path::new(path);
        let exit = if local.is_dir() {
            let target = match local.file_name() {
                Some(name) if into_dir => below(url, name)?,
                // `.` and `..` have no name: what is in them goes there.
                _ => url.clone(),
            };
            folder_above(context, &client, &target)?;
            run(context, path, url, |bars| client.put_tree(local, &target.path, options, bars))?
        } else {
            match put_one(context, &client, path, url, into_dir) {
                Ok(()) => Exit::Done,
                // A file that can't go does not hold up the others.
                Err(failure) if paths.len() > 1 && !failure.ends_everything() => {
                    eprintln!("tow: {failure}");
                    failure.exit()
                }
                Err(failure) => return Err(failure),
            }
        };
        if exit != Exit::Done {
            first.get_or_insert(exit);
        }
    }
    Ok(first.unwrap_or(Exit::Done))
}

/// Sees that the folder is there in which one is to be made: else it would be the one of this
/// machine that is said to be missing.
fn folder_above(context: &Context, client: &Client, url: &Url) -> Result<(), Failure> {
    let Some((above, _)) = url.path.split().filter(|(above, _)| !above.is_empty()) else {
        return Ok(());
    };
    let path = RemotePath::new(above).map_err(|error| Failure::Usage(error.to_string()))?;
    let above = Url { path, is_dir: true, ..url.clone() };
    match client.stat(&above.path, &mut context.retries(&above)) {
        Err(error @ ClientError::Refused(Reply { code: Code::Absent, .. })) => {
            Err(Failure::client(&above)(error))
        }
        // Whatever else it is, the folder itself will say it better.
        Ok(_) | Err(ClientError::Refused(_)) => Ok(()),
        Err(error) => Err(Failure::client(&above)(error)),
    }
}

/// Gets a folder into a folder that is there, or as one that is not.
pub(crate) fn get(
    context: &Context,
    url: &Url,
    to: Option<&OsStr>,
    options: TreeOptions,
) -> Result<Exit, Failure> {
    if to == Some(OsStr::new("-")) {
        return Err(Failure::Usage("a folder can't go to stdout".to_owned()));
    }
    let client = context.client(url);
    let entry = client.stat(&url.path, &mut context.retries(url)).map_err(Failure::client(url))?;
    if entry.kind != 'd' {
        return files::get(context, url, to);
    }
    // The local name comes from what was asked for, never from what the server says.
    let name = url.path.split().map(|(_, name)| OsStr::from_bytes(name));
    let target = match (to.map(Path::new), name) {
        (None, Some(name)) => PathBuf::from(name),
        (None, None) => PathBuf::from("."),
        (Some(to), Some(name)) if to.is_dir() => to.join(name),
        (Some(to), None) => to.canonicalize().unwrap_or_else(|_| to.to_owned()),
        (Some(to), Some(_)) => to.to_owned(),
    };
    // The time of a folder that was there is the user's.
    let mtime = (!target.is_dir()).then_some(entry.mtime);
    run(context, target.as_os_str(), url, |bars| {
        client.get_tree(&url.path, &target, mtime, options, bars)
    })
}

/// Runs a transfer with its bars, and says at the end what came of it.
fn run(
    context: &Context,
    name: &OsStr,
    url: &Url,
    run: impl FnOnce(&Bars) -> TreeDone,
) -> Result<Exit, Failure> {
    let began = Instant::now();
    let name = printable(name.as_bytes());
    let bars = Bars::new(&name, context.quiet);
    let done = run(&bars);
    bars.clear();
    let failed = bars.tell_failures();
    if !context.quiet {
        eprintln!("{}", summary(&name, &done, began.elapsed()));
    }
    match done.ended {
        Some(error) => Err(Failure::transfer(url, done.moved_files > 0)(error)),
        None => Ok(failed.unwrap_or(Exit::Done)),
    }
}

/// One line for all.
fn summary(name: &str, done: &TreeDone, took: Duration) -> String {
    let files = done.moved_files + done.there_files + done.failed;
    let mut line = format!(
        "{name}: {files} files; {} moved, {}; {} there already, {}; {} failed",
        done.moved_files,
        HumanBytes(done.moved_bytes),
        done.there_files,
        HumanBytes(done.there_bytes),
        done.failed,
    );
    if done.links > 0 {
        line.push_str(&format!("; {} links passed over", done.links));
    }
    if done.specials > 0 {
        line.push_str(&format!("; {} special files passed over", done.specials));
    }
    if done.breaks > 0 {
        line.push_str(&format!("; reconnected {}", times(done.breaks)));
    }
    line.push_str(&format!("; in {}", rate(done.moved_bytes, took)));
    line
}
