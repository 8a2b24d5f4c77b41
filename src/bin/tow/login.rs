//! Passwords for the command line: where they come from, and making an account with one.
//!
//! Never from the command line itself, which everybody on the machine can read.

use std::{
    env, fs,
    io::{self, IsTerminal, Read},
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::Path,
    sync::Arc,
};

use towpath::{
    auth::Password,
    client::{Credentials, Url},
    limits::PASSWORD_BYTES_MAX,
};

use crate::{
    cli::{Action, Cli, Mechanism},
    exit::{Exit, Failure},
    files::Context,
    show::printable,
};

/// The variable that may hold the password.
const VARIABLE: &str = "TOW_PASSWORD";

/// What the URL's user logs in with; nothing if it names none.
pub(crate) fn credentials(cli: &Cli, action: &Action) -> Result<Option<Arc<Credentials>>, Failure> {
    let Some(user) = action.url().and_then(|url| url.user.clone()) else {
        return Ok(None);
    };
    let prompt = || ask(&format!("Password of {user}: "));
    let credentials = Credentials::new(user.clone(), password(cli, prompt)?);
    Ok(Some(Arc::new(match cli.auth {
        Mechanism::ScramSha256 => credentials,
        Mechanism::CramMd5 => credentials.with_cram_md5(),
    })))
}

/// Makes an account, with a new password.
pub(crate) fn register(
    context: &Context,
    cli: &Cli,
    url: &Url,
    invite: Option<&str>,
) -> Result<Exit, Failure> {
    let Some(user) = &url.user else {
        let text = "name yourself in the URL: tow register tow://USER@HOST";
        return Err(Failure::Usage(text.to_owned()));
    };
    let password = password(cli, || {
        let first = ask(&format!("New password for {user}: "))?;
        let second = ask("The same again: ")?;
        if first == second { Ok(first) } else { Err("the two are not the same".to_owned()) }
    })?;
    password.check_new().map_err(|error| Failure::Usage(error.to_string()))?;
    let client = context.client(url);
    let made = client.register(user, &password, invite, &mut context.retries(url));
    made.map_err(Failure::client(url))?;
    if !context.quiet {
        println!("{user} has an account now: tow {url}");
    }
    Ok(Exit::Done)
}

fn password(
    cli: &Cli,
    prompt: impl FnOnce() -> Result<String, String>,
) -> Result<Password, Failure> {
    let text = match (&cli.password_file, env::var_os(VARIABLE)) {
        (Some(path), _) => from_file(path),
        (None, Some(value)) => value.into_string().map_err(|_| format!("{VARIABLE} is not UTF-8")),
        (None, None) => prompt(),
    };
    let text = text.map_err(Failure::Local)?;
    Password::new(&text).map_err(|error| Failure::Usage(error.to_string()))
}

/// The first line of a file that nobody else can read; `-` is standard input.
fn from_file(path: &Path) -> Result<String, String> {
    let name = printable(path.as_os_str().as_bytes());
    let failed = |error: io::Error| format!("{name}: {error}");
    let mut text = String::new();
    // A character more than any password, so that one which is too long is seen to be.
    let most = PASSWORD_BYTES_MAX as u64 + 2;
    if path == Path::new("-") {
        io::stdin().take(most).read_to_string(&mut text).map_err(failed)?;
    } else {
        let file = fs::File::open(path).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(format!("{name} can be read by others: chmod 600 it"));
        }
        file.take(most).read_to_string(&mut text).map_err(failed)?;
    }
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

fn ask(prompt: &str) -> Result<String, String> {
    if !io::stdin().is_terminal() {
        return Err(format!(
            "a password is needed: set {VARIABLE}, give --password-file, or use a terminal"
        ));
    }
    rpassword::prompt_password(prompt).map_err(|error| format!("can't read the password: {error}"))
}
