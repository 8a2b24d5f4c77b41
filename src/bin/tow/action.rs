//! Actions: their output, apart, as it comes, and their status as our own.

use std::{
    ffi::OsString,
    io::{self, Write},
    os::unix::ffi::OsStrExt,
};

use towpath::{
    client::{Client, Ended, Url},
    wire::Output,
};

use crate::{
    exit::{Exit, Failure},
    files::Context,
    show::{finish, printable},
};

/// Runs an action. Ended by a signal, it gives the status that a shell would.
pub(crate) fn run(
    context: &Context,
    client: &Client,
    url: &Url,
    name: &str,
    arguments: &[OsString],
) -> Result<Exit, Failure> {
    let arguments: Vec<Vec<u8>> = arguments.iter().map(|it| it.as_bytes().to_vec()).collect();
    let ended = client.run(name, &arguments, |output| match output {
        Output::Stdout(bytes) => {
            let mut out = io::stdout().lock();
            out.write_all(bytes)?;
            out.flush()
        }
        Output::Stderr(bytes) => io::stderr().write_all(bytes),
        Output::Exit(_) => Ok(()),
    });
    match ended.map_err(Failure::client(url))? {
        Ended::Status(0) => Ok(Exit::Done),
        Ended::Status(status) => Ok(Exit::Action(status)),
        Ended::Signal(signal) => {
            if !context.quiet {
                eprintln!("tow: {name} was ended by signal {signal}");
            }
            Ok(Exit::Action(signal.saturating_add(128)))
        }
        Ended::Ended(why) => {
            eprintln!("tow: {name}: {}", printable(why.as_bytes()));
            Ok(Exit::Refused)
        }
    }
}

/// Shows which actions there are.
pub(crate) fn list(context: &Context, url: &Url) -> Result<Exit, Failure> {
    let actions = context.client(url).actions(&mut context.retries(url));
    let actions = actions.map_err(Failure::client(url))?;
    let mut out = io::stdout().lock();
    finish(actions.into_iter().try_for_each(|action| {
        let mut line = action.name;
        for argument in action.arguments {
            line.push_str(&format!(" {}", argument.to_uppercase()));
        }
        if !action.about.is_empty() {
            line = format!("{line:24} {}", String::from_utf8_lossy(&action.about));
        }
        writeln!(out, "{}", printable(line.as_bytes()))
    }))
}
