//! Commands that print something.

use std::{
    io::{self, Write},
    time::Duration,
};

use indicatif::HumanBytes;
use towpath::{
    auth::Rights,
    client::{Client, Entry, Url},
    wire::Mtime,
};

use crate::{
    exit::{Exit, Failure},
    files::Context,
};

/// Up to so many names are sorted before they are printed; a larger folder is printed as it comes.
const SORTED_MAX: usize = 50_000;

/// Nothing that is printed carries a control character; names that are no text are shown lossily.
pub(crate) fn printable(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().map(|c| if is_hidden(c) { '?' } else { c }).collect()
}

/// Whether a terminal would do something else with it than show it.
pub(crate) fn is_hidden(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The operator's words to whoever logs in.
pub(crate) fn banner(client: &Client) {
    let banner = client.welcome().banner;
    for line in banner.split(|&byte| byte == b'\n').filter(|_| !banner.is_empty()) {
        eprintln!("{}", printable(line));
    }
}

pub(crate) fn list(context: &Context, url: &Url, long: bool) -> Result<Exit, Failure> {
    list_with(context, url, |out, entries| print_entries(out, entries, long))
}

/// Lists a folder as `print` prints its entries, of which it gets some at a time.
pub(crate) fn list_with(
    context: &Context,
    url: &Url,
    print: impl Fn(&mut dyn Write, &mut Vec<Entry>) -> io::Result<()>,
) -> Result<Exit, Failure> {
    let mut kept = Vec::new();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let mut written = Ok(());
    let listed = context.client(url).list(&url.path, &mut context.retries(url), |entry| {
        kept.push(entry);
        if kept.len() > SORTED_MAX && written.is_ok() {
            written = print(&mut out, &mut kept);
        }
    });
    listed.map_err(Failure::client(url))?;
    kept.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    written = written.and_then(|()| print(&mut out, &mut kept));
    finish(written.and_then(|()| out.flush()))
}

pub(crate) fn print_entries(
    out: &mut dyn Write,
    entries: &mut Vec<Entry>,
    long: bool,
) -> io::Result<()> {
    for entry in entries.drain(..) {
        let name = printable(&entry.name);
        let slash = if entry.kind == 'd' { "/" } else { "" };
        if long {
            let Entry { kind, size, mtime, .. } = entry;
            writeln!(out, "{kind} {size:>14} {} {name}{slash}", date(mtime))?;
        } else {
            writeln!(out, "{name}{slash}")?;
        }
    }
    Ok(())
}

/// A reader that has seen enough is no failure.
pub(crate) fn finish(written: io::Result<()>) -> Result<Exit, Failure> {
    match written {
        Ok(()) => Ok(Exit::Done),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => Err(error.into()),
    }
}

fn date(mtime: Mtime) -> String {
    let time = u64::try_from(mtime.seconds).ok().map(Duration::from_secs);
    let time = time.and_then(|since| std::time::UNIX_EPOCH.checked_add(since));
    time.map_or_else(
        || mtime.to_string(),
        |time| humantime::format_rfc3339_seconds(time).to_string(),
    )
}

pub(crate) fn stat(context: &Context, url: &Url) -> Result<Exit, Failure> {
    let entry = context.client(url).stat(&url.path, &mut context.retries(url));
    let entry = entry.map_err(Failure::client(url))?;
    let kind = match entry.kind {
        'f' => "file",
        'd' => "folder",
        'l' => "link",
        _ => "other",
    };
    let line = format!("{kind} {} bytes, changed {}", entry.size, date(entry.mtime));
    finish(writeln!(io::stdout(), "{}: {line}", url.path))
}

/// As `md5sum` prints it.
pub(crate) fn md5(context: &Context, url: &Url) -> Result<Exit, Failure> {
    let md5 = context.client(url).md5(&url.path, &mut context.retries(url));
    let md5 = md5.map_err(Failure::client(url))?;
    let name = url.path.split().map_or(&b""[..], |(_, name)| name);
    finish(writeln!(io::stdout(), "{md5}  {}", printable(name)))
}

pub(crate) fn whoami(context: &Context, url: &Url) -> Result<Exit, Failure> {
    let who = context.client(url).whoami(&mut context.retries(url));
    let who = who.map_err(Failure::client(url))?;
    let name = who.user.map_or_else(|| "nobody in particular".to_owned(), |user| user.to_string());
    let rights = [
        (Rights::READ, "read"),
        (Rights::WRITE, "write"),
        (Rights::DELETE, "delete"),
        (Rights::ACTIONS, "run actions"),
    ];
    let has = |(right, verb)| who.rights.contains(right).then_some(verb);
    let may: Vec<&str> = rights.into_iter().filter_map(has).collect();
    let may = if may.is_empty() { "nothing".to_owned() } else { may.join(", ") };
    finish(writeln!(io::stdout(), "{name}: may {may}"))
}

pub(crate) fn quota(context: &Context, url: &Url) -> Result<Exit, Failure> {
    let quota = context.client(url).quota(&mut context.retries(url));
    let quota = quota.map_err(Failure::client(url))?;
    let bytes = |bytes: u64| HumanBytes(bytes).to_string();
    let mut lines = Vec::new();
    match (quota.bytes, quota.max_bytes) {
        (Some(used), Some(most)) => lines.push(format!("{} of {} used", bytes(used), bytes(most))),
        (Some(used), None) => lines.push(format!("{} used", bytes(used))),
        (None, _) => lines.push("no quota".to_owned()),
    }
    if let (Some(files), Some(most)) = (quota.files, quota.max_files) {
        lines.push(format!("{files} of {most} files and folders"));
    }
    if let Some(free) = quota.free_bytes {
        lines.push(format!("{} free on the server", bytes(free)));
    }
    finish(writeln!(io::stdout(), "{}", lines.join("\n")))
}

pub(crate) fn ping(
    context: &Context,
    url: &Url,
    count: u32,
    interval: Duration,
) -> Result<Exit, Failure> {
    let mut n = 0;
    let ping = context.client(url).ping(count, interval, |took| {
        n += 1;
        if !context.quiet {
            // A reader that has seen enough does not end the measurement.
            let _ = writeln!(io::stdout(), "{n}: {}", millis(took));
        }
    });
    let ping = ping.map_err(Failure::client(url))?;
    finish(writeln!(
        io::stdout(),
        "{} round trips: min {}, median {}, p99 {}, max {}",
        ping.count(),
        millis(ping.quantile(0.0)),
        millis(ping.quantile(0.5)),
        millis(ping.quantile(0.99)),
        millis(ping.quantile(1.0)),
    ))
}

fn millis(time: Duration) -> String {
    format!("{:.3} ms", time.as_secs_f64() * 1000.0)
}
