//! From the session's jobs to the store, on the disk thread, and back.
//!
//! The one place where errors of the store become reply codes.

use std::{collections::VecDeque, sync::Arc};

use mio::Token;

use super::{
    gate::UserFile,
    homes::{ExpireAll, Opening},
    reactor::sweep,
    running::Running,
    settings::Settings,
    workers::{Holder, Wanted},
};
use crate::{
    auth::{Account, Accounts},
    digest::FileDigests,
    progress::Mark,
    session::{Job, JobId, Outcome, SmallFile, Stored},
    store::{
        self, Became, Entry, Page, Partial, Place, Root, Source, StoreError, Upload, Whole, Worker,
    },
    wire::{Code, PutOffer, RemotePath, Reply, encode},
};

/// The disk thread as the server uses it.
pub(super) type Disk = Worker<Ticket, Done>;

/// Whom a finished job concerns.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ticket {
    /// A session's job.
    Session(Token, JobId),
    /// A cold read for a connection, numbered.
    Read(Token, u64),
    /// Nobody in particular.
    Nobody,
}

/// A file to be read that was opened, or could not be.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) path: RemotePath,
    pub(super) outcome: Outcome,
    pub(super) held: Option<Held>,
}

impl Opened {
    /// What has to be closed.
    pub(super) fn into_source(self) -> Option<Arc<Source>> {
        match self.held {
            Some(Held::Source(source)) => Some(source),
            Some(Held::Partial(_) | Held::Action(_)) | None => None,
        }
    }
}

/// What came of a job.
#[derive(Debug)]
pub(super) enum Done {
    /// An outcome for the session, and what the connection holds from now on.
    Session(Outcome, Option<Held>),
    /// Files to be read: that of the command, and those that are asked for behind it.
    Sources(VecDeque<Opened>),
    /// Bytes that were not in memory.
    Read(u64, Result<Vec<u8>, StoreError>),
    /// Nothing to tell.
    Nothing,
    /// A step of a login, and the accounts if they have changed.
    Login(Outcome, Option<Arc<Accounts>>),
    /// The home of an account is open, or can't be.
    Home(Arc<Account>, Result<Arc<Root>, StoreError>),
    /// One step of the opening of a home is done; there are more.
    Opening(Opening),
    /// The accounts, if they have changed.
    Accounts(Option<Arc<Accounts>>),
    /// So many processes that should be gone are still there.
    Swept(usize),
    /// The settings were read again.
    Reloaded(Result<Box<(Settings, Option<UserFile>)>, String>),
    /// Another process has the partial.
    Busy(Box<Wanted>),
    /// Everything before a question of a sibling is done: its answer, to whom, and to which.
    Passed((u8, u64), Holder),
    /// The expiry of old partials goes on.
    Expiring(ExpireAll),
}

/// What a connection holds open.
#[derive(Debug)]
pub(super) enum Held {
    /// A file that is sent or hashed.
    Source(Arc<Source>),
    /// A file on its way in.
    Partial(Partial),
    /// An action that runs.
    Action(Box<Running>),
}

impl Held {
    /// Reads, waiting for the disk if need be, which goes on with what comes next.
    fn fetch(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, StoreError> {
        match self {
            Self::Source(source) => source.fetch(offset, buffer),
            Self::Partial(partial) => partial.fetch(offset, buffer),
            Self::Action(_) => Err(NO_FILE),
        }
    }

    /// Has the disk fetch bytes that will be wanted.
    fn fetch_ahead(&self, offset: u64, bytes: u64) {
        match self {
            Self::Source(source) => source.fetch_ahead(offset, bytes),
            Self::Partial(partial) => partial.fetch_ahead(offset, bytes),
            Self::Action(_) => {}
        }
    }

    /// Another handle of the file.
    fn another(&self) -> Option<Self> {
        match self {
            Self::Source(source) => Some(Self::Source(Arc::clone(source))),
            Self::Partial(partial) => Some(Self::Partial(partial.clone())),
            Self::Action(_) => None,
        }
    }
}

/// What is read from an action comes by its pipes.
const NO_FILE: StoreError = StoreError::WrongKind("no file is open");

/// The reply for an error of the store.
pub(super) fn error_reply(error: &StoreError) -> Reply {
    let code = match error {
        StoreError::NotFound => Code::Absent,
        StoreError::Denied | StoreError::NameTooLong => Code::Denied,
        StoreError::WrongKind(_) => Code::WrongKind,
        StoreError::Exists => Code::Exists,
        StoreError::NoSpace(_) => Code::NoSpace,
        StoreError::QuotaExceeded(_) => Code::QuotaExceeded,
        StoreError::Busy => Code::Busy,
        StoreError::SyncFailed | StoreError::Io { .. } => Code::Failed,
    };
    Reply::text(code, &error.to_string())
}

fn failed(error: &StoreError) -> Done {
    Done::Session(Outcome::Failed(error_reply(error)), None)
}

/// Hands a session's job to the disk thread. `held` is what the connection has open.
pub(super) fn start(disk: &Disk, root: &Arc<Root>, ticket: Ticket, job: Job, held: Option<&Held>) {
    let root = Arc::clone(root);
    let partial = match held {
        Some(Held::Partial(partial)) => Some(partial.clone()),
        Some(Held::Source(_) | Held::Action(_)) | None => None,
    };
    disk.submit(ticket, move || run(&root, job, partial.as_ref()));
}

/// Runs a job, on the disk thread.
fn run(root: &Arc<Root>, job: Job, partial: Option<&Partial>) -> Done {
    let outcome = match job {
        Job::OpenPartial { offer, fresh, replace } => {
            return open_partial(root, offer, fresh, replace);
        }
        Job::Checkpoint(mark) => {
            on(partial, |partial| partial.checkpoint(mark).map(|()| Outcome::Checkpointed))
        }
        Job::Commit { mark, root: tree, md5, segments } => on(partial, |partial| {
            partial.commit(mark, tree, md5)?;
            let digests = FileDigests { segments: Some(segments), md5 };
            written_down(root.remember_visible(partial, digests));
            Ok(Outcome::Committed)
        }),
        Job::List { path, from } => root.list(&path, from).map(page_answer),
        Job::Stat(path) => root.stat(&path).map(|entry| stat_answer(&entry)),
        Job::MakeDir(path) => root.make_dir(&path).map(|()| done()),
        Job::Remove(path) => root.remove(&path).map(|()| done()),
        Job::RemoveDir(path) => root.remove_dir(&path).map(|()| done()),
        Job::Move(from, to) => root.rename(&from, &to).map(|()| done()),
        Job::Quota => quota_answer(root),
        // These need more than a home: the reactor does them.
        Job::FindAccount(_)
        | Job::OpenHome(_)
        | Job::Register { .. }
        | Job::OpenSource(_)
        | Job::StoreTogether(_)
        | Job::Actions
        | Job::Run { .. } => Ok(Outcome::Failed(Reply::new(Code::Failed))),
    };
    match outcome {
        Ok(outcome) => Done::Session(outcome, None),
        Err(error) => failed(&error),
    }
}

/// Opens files to be read, in one job.
pub(super) fn open_sources(disk: &Disk, root: &Arc<Root>, ticket: Ticket, paths: Vec<RemotePath>) {
    let root = Arc::clone(root);
    disk.submit(ticket, move || {
        let mut opened = VecDeque::new();
        for path in paths {
            let next = open_source(&root, path);
            // What can't be opened ahead may be when its turn has come.
            let is_open = next.held.is_some();
            if is_open || opened.is_empty() {
                opened.push_back(next);
            }
            if !is_open {
                break;
            }
        }
        Done::Sources(opened)
    });
}

fn open_source(root: &Root, path: RemotePath) -> Opened {
    let source = match Source::open(root, &path) {
        Ok(source) => source,
        Err(error) => {
            return Opened { path, outcome: Outcome::Failed(error_reply(&error)), held: None };
        }
    };
    let identity = source.identity();
    let digests = root.digests_of(&source);
    let FileDigests { segments, md5 } = &digests;
    let (tree, md5) = (segments.is_some(), md5.is_some());
    log::debug!("{path}: opened, known before: md5-tree={tree} md5={md5}");
    let outcome = Outcome::SourceOpened {
        size: identity.size,
        mtime: identity.mtime,
        tag: identity.tag(),
        digests,
    };
    Opened { path, outcome, held: Some(Held::Source(Arc::new(source))) }
}

/// Closes files that were read.
pub(super) fn close(disk: &Disk, sources: Vec<Arc<Source>>) {
    disk.submit_unawaited(Ticket::Nobody, move || drop(sources));
}

/// Has small files stored together. One that another client is writing says so.
pub(super) fn store_together(
    disk: &Disk,
    root: &Arc<Root>,
    ticket: Ticket,
    files: Vec<(SmallFile, bool)>,
) {
    let root = Arc::clone(root);
    disk.submit(ticket, move || {
        let free = files.iter().filter(|(_, is_busy)| !is_busy).map(|(file, _)| Whole {
            path: &file.path,
            mtime: file.mtime,
            replace: file.replace,
            content: &file.content,
            digests: &file.digests,
        });
        let mut became = root.store_together(&free.collect::<Vec<_>>()).into_iter();
        let stored = files.iter().map(|(_, is_busy)| {
            let became = if *is_busy { None } else { became.next() };
            match became.unwrap_or(Err(StoreError::Busy)) {
                Ok(Became::Visible) => Stored::Visible,
                Ok(Became::Before) => Stored::Before,
                Err(error) => Stored::Failed(error_reply(&error)),
            }
        });
        Done::Session(Outcome::StoredTogether(stored.collect()), None)
    });
}

fn on(
    partial: Option<&Partial>,
    job: impl FnOnce(&Partial) -> Result<Outcome, StoreError>,
) -> Result<Outcome, StoreError> {
    debug_assert!(partial.is_some(), "a partial is held while it is received");
    partial.map_or(Err(StoreError::NotFound), job)
}

fn open_partial(root: &Arc<Root>, offer: PutOffer, fresh: bool, replace: bool) -> Done {
    let PutOffer { path, size, mtime, tag, .. } = offer.clone();
    let upload = Upload { path, size, mtime, tag, replace };
    match Partial::open(root, Place::Internal, upload, fresh) {
        Ok(store::Opened::Partial(partial, progress, tag)) => {
            let outcome = Outcome::PartialOpened { progress, tag: Some(tag) };
            Done::Session(outcome, Some(Held::Partial(partial)))
        }
        Ok(store::Opened::Committed(root, md5)) => {
            Done::Session(Outcome::CommittedBefore { root, md5 }, None)
        }
        Err(StoreError::Busy) => Done::Busy(Box::new(Wanted { offer, fresh, replace })),
        Err(error) => failed(&error),
    }
}

fn done() -> Outcome {
    Outcome::Answer(vec![Reply::new(Code::Done)])
}

fn describe(reply: Reply, entry: &Entry) -> Reply {
    reply.with("kind", entry.kind.letter()).with("size", entry.size).with("mtime", entry.mtime)
}

fn quota_answer(root: &Root) -> Result<Outcome, StoreError> {
    let free = root.free_bytes()?;
    let ledger = root.ledger();
    let (usage, quota) = (ledger.map(|it| it.usage()), ledger.map(|it| it.quota()));
    let fields = [
        ("bytes", usage.map(|usage| usage.bytes)),
        ("max-bytes", quota.and_then(|quota| quota.bytes)),
        ("files", usage.map(|usage| usage.files)),
        ("max-files", quota.and_then(|quota| quota.files)),
        ("free", free),
    ];
    let reply =
        fields.into_iter().fold(Reply::new(Code::Done), |reply, (key, value)| match value {
            Some(value) => reply.with(key, value),
            None => reply,
        });
    Ok(Outcome::Answer(vec![reply]))
}

fn stat_answer(entry: &Entry) -> Outcome {
    Outcome::Answer(vec![describe(Reply::new(Code::Done), entry)])
}

fn page_answer(page: Page) -> Outcome {
    let mut lines: Vec<Reply> = page
        .entries
        .iter()
        .map(|entry| describe(Reply::new(Code::Entry), entry).with("name", encode(&entry.name)))
        .collect();
    let last = Reply::new(Code::Done).with("entries", page.entries.len());
    lines.push(match page.next {
        Some(next) => last.with("next", next),
        None => last,
    });
    Outcome::Answer(lines)
}

/// Remembers what a file that a connection holds was found to hash to; with `None`, forgets what
/// is known of it.
pub(super) fn remember(
    disk: &Disk,
    root: &Arc<Root>,
    held: Option<&Held>,
    digests: Option<FileDigests>,
) {
    let Some(Held::Source(source)) = held else { return };
    let (root, source) = (Arc::clone(root), Arc::clone(source));
    disk.submit_unawaited(Ticket::Nobody, move || match digests {
        Some(digests) => written_down(root.remember(&source, digests)),
        None => root.forget(&source),
    });
}

/// Digests that were not written down are computed again: no more than that.
fn written_down(result: Result<(), StoreError>) {
    if let Err(error) = result {
        log::debug!("digests are kept in memory only: {error}");
    }
}

/// Lets go of what a connection holds. On the disk thread, since closing the last handle of a
/// large file that was replaced takes as long as removing it.
pub(super) fn release(disk: &Disk, held: Held, mark: Option<Mark>) {
    disk.submit(Ticket::Nobody, move || {
        if let Held::Action(running) = held {
            let children = Arc::clone(&running.children);
            drop(running);
            return sweep(&children);
        }
        if let (Held::Partial(partial), Some(mark)) = (&held, mark)
            && let Err(error) = partial.note(mark)
        {
            log::warn!("a partial was not noted and will continue further back: {error}");
        }
        drop(held);
        Done::Nothing
    });
}

/// Fetches bytes that are not in memory.
pub(super) fn read(disk: &Disk, ticket: Ticket, held: &Held, offset: u64, length: usize) {
    let held = held.another();
    disk.submit(ticket, move || {
        let mut bytes = vec![0; length];
        let read = held.map_or(Err(NO_FILE), |held| held.fetch(offset, &mut bytes));
        Done::Read(
            offset,
            read.map(|have| {
                bytes.truncate(have);
                bytes
            }),
        )
    });
}

/// Has bytes fetched that a connection will want, beside what it does.
pub(super) fn fetch_ahead(disk: &Disk, held: &Held, offset: u64, bytes: u64) {
    let held = held.another();
    disk.submit_unawaited(Ticket::Nobody, move || {
        if let Some(held) = held {
            held.fetch_ahead(offset, bytes);
        }
    });
}
