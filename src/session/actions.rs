//! What a session asks for, and what comes back: its vocabulary, without any of its rules.

use std::{sync::Arc, time::Instant};

use super::memory::Claim;
use crate::{
    auth::{Account, Candidate},
    digest::{FileDigests, Md5Digest},
    progress::{Mark, Progress},
    wire::{Mtime, Owner, PutOffer, RemotePath, Reply, Tag},
};

/// What the session wants done.
#[derive(Debug)]
pub enum Action {
    /// Send this line.
    Reply(Reply),
    /// Work that may wait for a disk. Its [`Outcome`] comes back by [`Session::handle_outcome`](super::Session::handle_outcome).
    Start(JobId, Job),
    /// Let go of the source or the partial that is open; append the mark to the journal first.
    Release(Option<Mark>),
    /// What the source that is open was found to hash to, if it has not changed meanwhile.
    Remember(FileDigests),
    /// What is known of the source that is open may be wrong.
    Forget,
    /// A transfer is over.
    Report(Report),
    /// Somebody gave a wrong proof for this name.
    LoginFailed(String),
    /// Somebody may not do this, for the log.
    Refused(Refusal),
    /// End the action that runs: its client has had enough. Its end comes all the same, by
    /// [`Session::handle_action_ended`](super::Session::handle_action_ended).
    EndAction,
    /// Show the client, within the output of an action, that the server is alive.
    Pulse,
    /// Close the connection once everything has been sent.
    Close,
}

/// Tells the jobs of one session apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JobId(pub u64);

/// Work for the disk.
#[derive(Debug)]
pub enum Job {
    /// Look up the account of a name, which may be nobody's.
    FindAccount(String),
    /// Open the home of an account; `None`: that of nobody in particular.
    OpenHome(Option<Arc<Account>>),
    /// Make an account.
    Register {
        /// Its name, as it was given.
        name: String,
        /// What verifies its password, in text form.
        verifier: String,
        /// A code that allows it.
        invite: Option<String>,
    },
    /// Open a file to be read.
    OpenSource(RemotePath),
    /// Open or make the partial for an upload. `fresh` forgets what there is of it.
    OpenPartial {
        /// What the client offers.
        offer: PutOffer,
        /// Whether to forget what is there.
        fresh: bool,
        /// Whether a file that has the name may be replaced.
        replace: bool,
    },
    /// Make what was written so far durable, then say so in the journal.
    Checkpoint(Mark),
    /// Make the file durable, then visible.
    Commit {
        /// The last step of the journal.
        mark: Mark,
        /// Root over the whole file.
        root: Md5Digest,
        /// MD5 of the whole file, if it was asked for.
        md5: Option<Md5Digest>,
        /// Digests of all segments.
        segments: Arc<[Md5Digest]>,
    },
    /// Make these files durable, then visible, in their order.
    StoreTogether(Vec<SmallFile>),
    /// One page of a directory.
    List {
        /// Which directory.
        path: RemotePath,
        /// Where the page starts.
        from: u64,
    },
    /// Kind, size and times.
    Stat(RemotePath),
    /// Make a directory.
    MakeDir(RemotePath),
    /// Remove a file.
    Remove(RemotePath),
    /// Remove an empty directory.
    RemoveDir(RemotePath),
    /// Rename.
    Move(RemotePath, RemotePath),
    /// What the account may store, and does.
    Quota,
    /// Which actions this user may run.
    Actions,
    /// Start an action.
    Run {
        /// Which.
        name: String,
        /// Its arguments.
        arguments: Vec<Vec<u8>>,
    },
}

/// A small file that was verified, in memory.
#[derive(Debug)]
pub struct SmallFile {
    /// Where it shall appear.
    pub path: RemotePath,
    /// The modification time that it shall have.
    pub mtime: Mtime,
    /// Who uploads it.
    pub owner: Owner,
    /// Whether a file that has the name may be replaced.
    pub replace: bool,
    /// Its bytes.
    pub content: Vec<u8>,
    /// What they hash to.
    pub digests: FileDigests,
    /// The memory that it takes.
    pub(super) claim: Claim,
}

/// What became of a [`SmallFile`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stored {
    /// It is durable and visible.
    Visible,
    /// These very bytes were there before, with this time, and are durable.
    Before,
    /// It is not there, for this reason.
    Failed(Reply),
}

/// What a login goes on with.
#[derive(Debug)]
pub struct LoginBegun {
    /// The account of the name that was given, or one that nobody can log in to.
    pub candidate: Candidate,
    /// Drawn by chance, for the challenge.
    pub nonce: [u8; 18],
    /// The proof is not looked at before this time.
    pub not_before: Instant,
}

/// What came of a [`Job`].
#[derive(Debug)]
pub enum Outcome {
    /// An account was looked up.
    AccountFound(Box<LoginBegun>),
    /// The home is open and belongs to the connection.
    HomeOpened {
        /// Whose it is.
        account: Arc<Account>,
        /// What the operator says to everybody who logs in.
        banner: Option<Arc<str>>,
    },
    /// The file is open and belongs to the connection.
    SourceOpened {
        /// Size in bytes.
        size: u64,
        /// Modification time.
        mtime: Mtime,
        /// Which version of it this is.
        tag: Tag,
        /// What is known of this version, so that it need not be hashed.
        digests: FileDigests,
    },
    /// The partial is open and belongs to the connection.
    PartialOpened {
        /// What is there of it.
        progress: Progress,
        /// The version of the source that it was made from, if anything is there.
        tag: Option<Tag>,
    },
    /// A version like this one was committed before: its verdict may have been lost with the line, or
    /// the source may only have been touched. Its sender compares the root.
    CommittedBefore {
        /// Root over the whole file.
        root: Md5Digest,
        /// MD5 of the whole file, if it is known.
        md5: Option<Md5Digest>,
    },
    /// The action runs.
    ActionStarted,
    /// The checkpoint is durable.
    Checkpointed,
    /// The file is durable and visible.
    Committed,
    /// What became of each file, in their order.
    StoredTogether(Vec<Stored>),
    /// Lines to answer with.
    Answer(Vec<Reply>),
    /// It failed; nothing of the job belongs to the connection.
    Failed(Reply),
}

/// Which way a file went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the client.
    Get,
    /// To the server.
    Put,
}

/// How a transfer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Both sides have the same bytes.
    Identical,
    /// The client had all of it already.
    Unchanged,
    /// It ended before that, for this reason.
    Unfinished(String),
}

/// One finished transfer, for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which way.
    pub direction: Direction,
    /// Which file.
    pub path: RemotePath,
    /// The offset it went on from, in bytes.
    pub offset: u64,
    /// Data bytes moved, those that went again counted again.
    pub bytes: u64,
    /// Bytes hashed for it here, those hashed twice counted twice.
    pub hashed: u64,
    /// When it began, as the time was given.
    pub began: Instant,
    /// Root over the whole file, if it is known.
    pub root: Option<Md5Digest>,
    /// MD5 of the whole file, if it was asked for.
    pub md5: Option<Md5Digest>,
    /// How it ended.
    pub verdict: Verdict,
}

/// A command that is about more than files, and was not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The verb.
    pub what: &'static str,
    /// The name that was given with it, as it came.
    pub name: String,
    /// What was answered.
    pub why: Reply,
}
