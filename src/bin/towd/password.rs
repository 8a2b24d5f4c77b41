//! Where a new password comes from. Never from an argument: everybody can see those.

use std::{
    env,
    fs::File,
    io::{self, BufRead as _, BufReader, Read, Write as _},
    path::Path,
};

use towpath::auth::{Password, random_text};
use zeroize::Zeroizing;

use crate::{Failure, cli::PasswordFlags};

/// The variable that may hold it.
const VARIABLE: &str = "TOW_PASSWORD";

/// More than any password has; a file without line ends is read no further.
const LINE_BYTES_MAX: u64 = 64 << 10;

/// A new password, and whether it has to be told to somebody.
pub(crate) struct Chosen {
    pub(crate) password: Password,
    random: Option<Zeroizing<String>>,
}

impl Chosen {
    /// Gets it from where the flags say.
    pub(crate) fn by(flags: &PasswordFlags) -> Result<Self, Failure> {
        if flags.random {
            let text = random_text()?;
            return Ok(Self { password: Password::new(&text)?, random: Some(text) });
        }
        let text = match (&flags.password_file, env::var_os(VARIABLE)) {
            (Some(path), _) if path == Path::new("-") => first_line(io::stdin().lock())?,
            (Some(path), _) => {
                let file =
                    File::open(path).map_err(|error| Failure(format!("{path:?}: {error}")))?;
                first_line(file)?
            }
            (None, Some(text)) => {
                let text = text.into_string();
                Zeroizing::new(text.map_err(|_| Failure(format!("{VARIABLE} is not UTF-8")))?)
            }
            (None, None) => ask()?,
        };
        let password = Password::new(&text)?;
        password.check_new()?;
        Ok(Self { password, random: None })
    }

    /// Prints it if nobody knows it yet.
    pub(crate) fn tell(&self) -> Result<(), Failure> {
        if let Some(text) = &self.random {
            writeln!(io::stdout(), "{}", text.as_str())?;
        }
        Ok(())
    }
}

fn first_line(from: impl Read) -> Result<Zeroizing<String>, Failure> {
    let mut line = Zeroizing::new(String::new());
    BufReader::new(from.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    let end = line.trim_end_matches(['\n', '\r']).len();
    line.truncate(end);
    Ok(line)
}

/// Asks twice, without showing what is typed.
fn ask() -> Result<Zeroizing<String>, Failure> {
    let prompt = |text| {
        rpassword::prompt_password(text).map(Zeroizing::new).map_err(|error| {
            let others = format!("--password-file, --random or the variable {VARIABLE}");
            Failure(format!("can't ask for a password ({error}): use {others}"))
        })
    };
    let (first, second) = (prompt("New password: ")?, prompt("Once more: ")?);
    if first != second {
        return Err(Failure("the two passwords are not the same".to_owned()));
    }
    Ok(first)
}
