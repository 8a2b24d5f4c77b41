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

/// Puts files and folders into the folder that the URL names, which is made if it is absent. What is
/// there already makes no difference, so that the same command continues.
pub(crate) fn put(
    context: &Context,
    paths: &[OsString],
    url: &Url,
    options: TreeOptions,
) -> Result<Exit, Failure> {
    let client = context.client(url);
    let has_folder = paths.iter().any(|path| Path::new(path).is_dir());
    if has_folder {
        make_folder(context, &client, url)?;
        tell_jobs(context, &client, options);
    }
    let into_dir =
        has_folder || url.is_dir || paths.len() > 1 || files::is_dir(context, &client, url)?;
    let mut first = None;
    for path in paths {
        let local = Path::new(path);
        let exit = if local.is_dir() {
            let target = match own_name(path) {
                Some(name) => below(url, name)?,
                None => url.clone(),
            };
            let name = format!("{} to {target}", printable(path.as_bytes()));
            run(context, &name, &target, |bars| {
                client.put_tree(local, &target.path, options, bars)
            })?
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

/// The name that a folder keeps where it goes. `DIR/.` has none: what is in it goes there.
fn own_name(path: &OsStr) -> Option<&OsStr> {
    let last = path.as_bytes().rsplit(|&byte| byte == b'/').next();
    if matches!(last, Some(b"." | b"..")) { None } else { Path::new(path).file_name() }
}

/// Sees that the folder is there which things go into.
fn make_folder(context: &Context, client: &Client, url: &Url) -> Result<(), Failure> {
    if url.path.is_root() {
        return Ok(());
    }
    match client.stat(&url.path, &mut context.retries(url)) {
        Ok(entry) if entry.kind == 'd' => return Ok(()),
        Ok(_) => {
            let reply = Reply::text(Code::WrongKind, "it is no folder");
            return Err(Failure::client(url)(ClientError::Refused(reply)));
        }
        // It is not there, or not to be looked at.
        Err(ClientError::Refused(_)) => {}
        Err(error) => return Err(Failure::client(url)(error)),
    }
    match client.make_dir(&url.path, &mut context.retries(url)) {
        Ok(()) => Ok(()),
        Err(ClientError::Refused(reply)) if reply.code == Code::Exists => Ok(()),
        Err(error @ ClientError::Refused(Reply { code: Code::Absent, .. })) => {
            Err(Failure::client(&above(url)?)(error))
        }
        Err(error) => Err(Failure::client(url)(error)),
    }
}

/// The folder that holds what the URL names.
fn above(url: &Url) -> Result<Url, Failure> {
    let path = RemotePath::new(url.path.split().unwrap_or_default().0);
    let path = path.map_err(|error| Failure::Usage(error.to_string()))?;
    Ok(Url { path, is_dir: true, ..url.clone() })
}

/// Says so if there are fewer connections than were asked for.
fn tell_jobs(context: &Context, client: &Client, options: TreeOptions) {
    let jobs = client.tree_jobs(options.jobs);
    if jobs < options.jobs && !context.quiet {
        let asked = options.jobs;
        eprintln!("over {jobs} of {asked} connections: so low a rate keeps no more of them going");
    }
}

/// Gets a folder into a folder, which is made if it is absent. What is there already makes no
/// difference, so that the same command continues.
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
    tell_jobs(context, &client, options);
    let folder = Path::new(to.unwrap_or_else(|| OsStr::new(".")));
    // The local name comes from what was asked for, never from what the server says.
    let name = url.path.split().map(|(_, name)| OsStr::from_bytes(name));
    let (target, mtime) = match name.filter(|_| !url.is_content) {
        Some(name) if to.is_none() => (PathBuf::from(name), Some(entry.mtime)),
        Some(name) => (folder.join(name), Some(entry.mtime)),
        // The folder itself is the user's, be it by a link, and so is its time.
        None => (folder.canonicalize().unwrap_or_else(|_| folder.to_owned()), None),
    };
    run(context, &printable(target.as_os_str().as_bytes()), url, |bars| {
        client.get_tree(&url.path, &target, mtime, options, bars)
    })
}

/// Runs a transfer with its bars, and says at the end what came of it.
fn run(
    context: &Context,
    name: &str,
    url: &Url,
    run: impl FnOnce(&Bars) -> TreeDone,
) -> Result<Exit, Failure> {
    let began = Instant::now();
    let bars = Bars::new(name, context.quiet);
    let done = run(&bars);
    bars.clear();
    let failed = bars.tell_failures();
    if !context.quiet {
        eprintln!("{}", summary(name, &done, began.elapsed()));
    }
    let begun = done.moved_files > 0 || done.moved_bytes > 0;
    match done.ended {
        Some(error) => Err(Failure::transfer(url, begun)(error)),
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
    if done.failed_folders > 0 {
        line.push_str(&format!("; {} folders failed", done.failed_folders));
    }
    if done.links > 0 {
        line.push_str(&format!("; {} links passed over", done.links));
    }
    if done.specials > 0 {
        line.push_str(&format!("; {} special files passed over", done.specials));
    }
    if done.own > 0 {
        line.push_str(&format!("; {} partials of tow passed over", done.own));
    }
    if done.breaks > 0 {
        line.push_str(&format!("; reconnected {}", times(done.breaks)));
    }
    line.push_str(&format!("; in {}", rate(done.moved_bytes, took)));
    line
}
