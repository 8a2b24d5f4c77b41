//! Everything but transfers.

use std::time::{Duration, Instant};

use super::{Client, ClientError, Observer, line::Line, retry::sleep};
use crate::{
    auth::{Rights, UserName},
    digest::Md5Digest,
    limits::LISTING_ENTRIES_MAX,
    wire::{Code, Command, Mtime, RemotePath, Reply, decode},
};

/// Pages without a name, one after the other, after which a listing is given up.
pub(super) const EMPTY_PAGES_MAX: u32 = 1000;

/// One name on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name's bytes; nothing is promised of them but that there is no slash in them.
    pub name: Vec<u8>,
    /// `f` a file, `d` a directory, `l` a link, `o` anything else.
    pub kind: char,
    /// Size in bytes; 0 for what is no file.
    pub size: u64,
    /// Modification time.
    pub mtime: Mtime,
}

impl Entry {
    fn read(reply: &Reply, name: Vec<u8>) -> Result<Self, ClientError> {
        let kind = reply.get("kind")?;
        Ok(Self { name, kind, size: reply.bytes("size")?, mtime: reply.get("mtime")? })
    }
}

/// Who the server takes this client for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whoami {
    /// The account's name; none where nobody logs in.
    pub user: Option<UserName>,
    /// What may be done.
    pub rights: Rights,
}

/// What an account stores, and may store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaInfo {
    /// Bytes that it stores, partials among them; known only where there is a quota.
    pub bytes: Option<u64>,
    /// Bytes that it may store.
    pub max_bytes: Option<u64>,
    /// Files and folders that it has; known only where there is a quota.
    pub files: Option<u64>,
    /// Files and folders that it may have.
    pub max_files: Option<u64>,
    /// Bytes that are free on the file system, where that is known.
    pub free_bytes: Option<u64>,
}

/// An action that may be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionInfo {
    /// Its name.
    pub name: String,
    /// Its arguments' names, in order.
    pub arguments: Vec<String>,
    /// What the operator says of it; any bytes, to be made printable before they are shown.
    pub about: Vec<u8>,
}

/// Round trips of `noop`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ping {
    sorted: Vec<Duration>,
}

impl ActionInfo {
    fn read(reply: &Reply) -> Result<Self, ClientError> {
        let words =
            |key| reply.field(key).unwrap_or_default().split(',').filter(|it| !it.is_empty());
        let about = reply.field("about").and_then(|about| decode(about).ok());
        Ok(Self {
            name: reply.get("name")?,
            arguments: words("arguments").map(str::to_owned).collect(),
            about: about.unwrap_or_default(),
        })
    }
}

impl Ping {
    /// The share of round trips, from 0 to 1, that took no longer than what is returned.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Duration {
        let last = self.sorted.len().saturating_sub(1);
        #[expect(clippy::cast_possible_truncation, reason = "within the length of a Vec")]
        #[expect(clippy::cast_sign_loss, reason = "a share is not negative")]
        #[expect(clippy::cast_precision_loss, reason = "a rank, not an address")]
        let rank = (share * last as f64).round() as usize;
        self.sorted.get(rank.min(last)).copied().unwrap_or_default()
    }

    /// How many there were.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.sorted.len()
    }
}

impl Client {
    /// Sends one command and reads its answer, with as many attempts as patience allows. A
    /// command that was done although its answer was lost is told by what the next attempt finds.
    fn ask(&self, command: &Command, observer: &mut dyn Observer) -> Result<Reply, ClientError> {
        let mut asked_before = false;
        let (reply, _) = self.retry(observer, |_, _| {
            let mut line = self.line()?;
            line.send_command(command)?;
            let again = std::mem::replace(&mut asked_before, true);
            let reply = line.read_reply()?;
            if !reply.code.closes() {
                self.keep(line);
            }
            match (reply.code, command) {
                (Code::Done, _) => Ok(reply),
                (Code::Exists, Command::MakeDir { .. }) if again => Ok(reply),
                (Code::Absent, Command::Remove { .. } | Command::RemoveDir { .. }) if again => {
                    Ok(reply)
                }
                _ => Err(ClientError::from_reply(reply)),
            }
        })?;
        Ok(reply)
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn make_dir(
        &self,
        path: &RemotePath,
        observer: &mut dyn Observer,
    ) -> Result<(), ClientError> {
        self.ask(&Command::MakeDir { path: path.clone() }, observer).map(drop)
    }

    /// Removes a file.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn remove(
        &self,
        path: &RemotePath,
        observer: &mut dyn Observer,
    ) -> Result<(), ClientError> {
        self.ask(&Command::Remove { path: path.clone() }, observer).map(drop)
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn remove_dir(
        &self,
        path: &RemotePath,
        observer: &mut dyn Observer,
    ) -> Result<(), ClientError> {
        self.ask(&Command::RemoveDir { path: path.clone() }, observer).map(drop)
    }

    /// Renames, replacing a file that has the new name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn rename(
        &self,
        from: &RemotePath,
        to: &RemotePath,
        observer: &mut dyn Observer,
    ) -> Result<(), ClientError> {
        let command = Command::Move { from: from.clone(), to: to.clone() };
        self.ask(&command, observer).map(drop)
    }

    /// Kind, size and time of a name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn stat(
        &self,
        path: &RemotePath,
        observer: &mut dyn Observer,
    ) -> Result<Entry, ClientError> {
        let reply = self.ask(&Command::Stat { path: path.clone() }, observer)?;
        let name = path.split().map_or(&b""[..], |(_, name)| name);
        Entry::read(&reply, name.to_vec())
    }

    /// MD5 of a whole file, as `md5sum` prints it, computed by the server.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn md5(
        &self,
        path: &RemotePath,
        observer: &mut dyn Observer,
    ) -> Result<Md5Digest, ClientError> {
        let reply = self.ask(&Command::Md5 { path: path.clone() }, observer)?;
        Ok(reply.get("md5")?)
    }

    /// Who is logged in, and what may be done.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn whoami(&self, observer: &mut dyn Observer) -> Result<Whoami, ClientError> {
        let reply = self.ask(&Command::Whoami, observer)?;
        let user = reply.field("user").map(|_| reply.get("user")).transpose()?;
        Ok(Whoami { user, rights: reply.get("rights")? })
    }

    /// What the account stores, and may store.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn quota(&self, observer: &mut dyn Observer) -> Result<QuotaInfo, ClientError> {
        let reply = self.ask(&Command::Quota, observer)?;
        Ok(QuotaInfo {
            bytes: reply.number("bytes").ok(),
            max_bytes: reply.number("max-bytes").ok(),
            files: reply.number("files").ok(),
            max_files: reply.number("max-files").ok(),
            free_bytes: reply.number("free").ok(),
        })
    }

    /// The actions that may be run.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn actions(&self, observer: &mut dyn Observer) -> Result<Vec<ActionInfo>, ClientError> {
        let (actions, _) = self.retry(observer, |_, _| {
            let mut line = self.line()?;
            line.send_command(&Command::Actions)?;
            let mut actions = Vec::new();
            loop {
                let reply = line.read_reply()?;
                match reply.code {
                    Code::Entry if actions.len() < LISTING_ENTRIES_MAX => {
                        actions.push(ActionInfo::read(&reply)?);
                    }
                    Code::Done => {
                        self.keep(line);
                        return Ok(actions);
                    }
                    _ => return Err(ClientError::from_reply(reply)),
                }
            }
        })?;
        Ok(actions)
    }

    /// Lists a directory, a page at a time: `each` gets every name, in the order in which the
    /// server's file system has them.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Broken`] for names that no directory can hold.
    pub fn list(
        &self,
        path: &RemotePath,
        observer: &mut dyn Observer,
        mut each: impl FnMut(Entry),
    ) -> Result<(), ClientError> {
        let mut from = Some(0);
        let mut line = None;
        let mut empty = 0;
        while let Some(page) = from {
            let ((entries, next), _) = self.retry(observer, |_, _| {
                // A line that breaks is not put back: the next attempt makes a new one.
                let mut open = line.take().map_or_else(|| self.line(), Ok)?;
                let found = list_page(&mut open, path, page)?;
                line = Some(open);
                Ok(found)
            })?;
            // The server passes over names that went away, but not over page after page of them.
            empty = if entries.is_empty() { empty + 1 } else { 0 };
            entries.into_iter().for_each(&mut each);
            if next == Some(page) || empty > EMPTY_PAGES_MAX {
                return Err(ClientError::Broken("the listing goes in a circle".to_owned()));
            }
            from = next;
        }
        line.into_iter().for_each(|line| self.keep(line));
        Ok(())
    }

    /// Measures `count` round trips of `noop` over one connection, `interval` apart; `each` gets
    /// every one as it comes.
    ///
    /// # Errors
    /// [`ClientError`]; a line that breaks is not mended here, since that would not be measured.
    pub fn ping(
        &self,
        count: u32,
        interval: Duration,
        mut each: impl FnMut(Duration),
    ) -> Result<Ping, ClientError> {
        let mut line = self.line()?;
        let mut sorted = Vec::new();
        for n in 0..count {
            if n > 0 {
                sleep(interval, &self.options.stop)?;
            }
            let began = Instant::now();
            line.send_command(&Command::Noop)?;
            let reply = line.read_reply()?;
            if reply.code != Code::Done {
                return Err(ClientError::from_reply(reply));
            }
            let took = began.elapsed();
            each(took);
            sorted.push(took);
        }
        sorted.sort_unstable();
        Ok(Ping { sorted })
    }
}

/// Reads one page of a listing, and where the next one starts.
pub(super) fn list_page(
    line: &mut Line,
    path: &RemotePath,
    from: u64,
) -> Result<(Vec<Entry>, Option<u64>), ClientError> {
    line.send_command(&Command::List { path: path.clone(), from })?;
    let mut entries = Vec::new();
    loop {
        let reply = line.read_reply()?;
        match reply.code {
            Code::Entry if entries.len() < LISTING_ENTRIES_MAX => {
                let name = reply.field("name").and_then(|name| decode(name).ok());
                let name = name.unwrap_or_default();
                if name.is_empty() || name.contains(&b'/') || name == b"." || name == b".." {
                    return Err(ClientError::unexpected(&reply));
                }
                entries.push(Entry::read(&reply, name)?);
            }
            Code::Done => return Ok((entries, reply.number("next").ok())),
            _ => return Err(ClientError::from_reply(reply)),
        }
    }
}
