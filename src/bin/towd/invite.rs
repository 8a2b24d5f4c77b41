//! `towd invite`.

use std::{
    io::{self, Write as _},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use towpath::{
    auth::{
        Invites,
        file::{FileError, update},
        random_text,
    },
    store::Root,
};

use crate::{
    Failure,
    cli::{Flags, InviteFlags},
    options,
};

/// Makes codes, keeps their hashes, and prints them.
pub(crate) fn run(flags: &Flags, invite: &InviteFlags) -> Result<(), Failure> {
    let options = options(flags)?;
    let root = options.root();
    Root::serve(root).map_err(|error| Failure(format!("{root:?}: {error}")))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let last = |time: humantime::Duration| now.saturating_add(Duration::from(time).as_secs());
    let expires = invite.expires.map(last);
    let codes = (0..invite.count).map(|_| random_text()).collect::<Result<Vec<_>, _>>()?;
    update(&options.invites(), |invites: &mut Invites| {
        codes.iter().for_each(|code| invites.add(code, expires, now));
        Ok::<_, FileError>(())
    })?;
    // Only what is in the file is told.
    let mut out = io::stdout().lock();
    codes.iter().try_for_each(|code| writeln!(out, "{}", code.as_str()))?;
    Ok(())
}
