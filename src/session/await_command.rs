//! AwaitCommand: a line becomes a job, its outcome an answer or an offer.

use std::time::Instant;

use super::{
    Action, Discard, Job, Outcome, Refusal, Session, gives_up, lost_job,
    state::{Access, Offer, State, Stream, Work},
};
use crate::{
    auth::Rights,
    digest::{FileDigests, FileMd5},
    progress::Progress,
    wire::{Code, Command, CommandError, PutOffer, Reply, Tag},
};

impl Session {
    /// A command line. Where frames follow it that are not wanted, they are passed over.
    pub(super) fn command(&mut self, line: &[u8], now: Instant) {
        if !self.joins_group(line) {
            let state = State::AwaitCommand(Work::Idle);
            let text = "the files before it were not stored yet";
            return self.refuse(state, Code::BadSequence, text, now);
        }
        self.answer_command(line, now);
        if Command::has_frames_behind(line) {
            self.pass_over_ahead(now);
        }
    }

    /// Unless they are wanted, the frames that came ahead are passed over.
    fn pass_over_ahead(&mut self, now: Instant) {
        if matches!(self.state, State::AwaitCommand(Work::Idle)) {
            self.enter(State::Streaming(Stream::Discarding(Discard::default())), now);
        }
    }

    fn answer_command(&mut self, line: &[u8], now: Instant) {
        let command = match Command::parse(line) {
            Ok(command) => command,
            // A client gave up a stream that had ended or was aborted meanwhile: it has its answer.
            Err(_) if Reply::parse(line).is_ok_and(|reply| gives_up(reply.code)) => {
                return self.await_command(now);
            }
            // Nobody knows whether frames follow.
            Err(error @ CommandError::Spoiled) => {
                return self.answer_last(Reply::text(error.code(), &error.to_string()), now);
            }
            Err(error) => {
                return self.try_failed(Reply::text(error.code(), &error.to_string()), now);
            }
        };
        let rights = match &self.access {
            Access::Nobody { .. } => return self.command_of_nobody(command, now),
            Access::User(account) => account.rights,
            Access::Everybody => OPEN_RIGHTS,
        };
        if let Some(missing) = missing(needs(&command), rights) {
            let text = format!("your account has no right to {missing}");
            let reply = Reply::text(Code::NoRight, &text);
            if let Command::Run { name, .. } = command {
                self.refused("run", name, &reply);
            }
            return self.answer(reply, now);
        }
        let (work, job) = match command {
            Command::Get { path, digest } => {
                let job = Job::OpenSource(path.clone());
                (Work::OpenSource(path, digest), job)
            }
            Command::Put(offer) if offer.ahead => return self.put_ahead(offer, now),
            Command::Put(offer) => return self.open_partial(offer, false, now),
            Command::Md5 { path } => (Work::OpenForMd5, Job::OpenSource(path)),
            Command::List { path, from } => (Work::Answer, Job::List { path, from }),
            Command::Stat { path } => (Work::Answer, Job::Stat(path)),
            Command::MakeDir { path } => (Work::Answer, Job::MakeDir(path)),
            Command::Remove { path } => (Work::Answer, Job::Remove(path)),
            Command::RemoveDir { path } => (Work::Answer, Job::RemoveDir(path)),
            Command::Move { from, to } => (Work::Answer, Job::Move(from, to)),
            Command::Quota => (Work::Answer, Job::Quota),
            Command::Actions => (Work::Answer, Job::Actions),
            Command::Run { name, arguments } => {
                (Work::StartAction(name.clone()), Job::Run { name, arguments })
            }
            Command::Whoami => return self.answer(self.whoami(), now),
            Command::Auth { .. } | Command::Register { .. } => {
                let text = match self.access {
                    Access::Everybody => "this server has no logins",
                    Access::User(_) | Access::Nobody { .. } => "you are logged in already",
                };
                let reply = Reply::text(Code::NoRight, text);
                if let Command::Register { name, .. } = command {
                    self.refused("register", name, &reply);
                }
                return self.answer(reply, now);
            }
            Command::Noop => return self.answer(Reply::new(Code::Done), now),
            Command::Quit => return self.goodbye(now),
        };
        self.enter_waiting(State::AwaitCommand(work), job, now);
    }

    fn refused(&mut self, what: &'static str, name: String, why: &Reply) {
        self.actions.push_back(Action::Refused(Refusal { what, name, why: why.clone() }));
    }

    /// Opens or makes the partial for an upload; `fresh` forgets what there is of it.
    pub(super) fn open_partial(&mut self, offer: PutOffer, fresh: bool, now: Instant) {
        let replace = self.may_replace();
        let job = Job::OpenPartial { offer: offer.clone(), fresh, replace };
        self.enter_waiting(State::AwaitCommand(Work::OpenPartial(offer)), job, now);
    }

    /// Whether a file that is put may take the place of another.
    pub(super) fn may_replace(&self) -> bool {
        match &self.access {
            Access::User(account) => account.rights.contains(Rights::DELETE),
            Access::Everybody => true,
            Access::Nobody { .. } => false,
        }
    }

    /// The command's job is done.
    pub(super) fn command_done(&mut self, work: Work, outcome: Outcome, now: Instant) {
        let frames_follow = matches!(&work, Work::OpenPartial(offer) if offer.ahead);
        self.command_answered(work, outcome, now);
        if frames_follow {
            self.pass_over_ahead(now);
        }
    }

    fn command_answered(&mut self, work: Work, outcome: Outcome, now: Instant) {
        match (work, outcome) {
            (
                Work::OpenSource(path, digest),
                Outcome::SourceOpened { size, mtime, tag, digests },
            ) => {
                let reply = Reply::new(Code::Found).with("size", size).with("mtime", mtime);
                let offer = Offer::Get { path, size, digest, known: digests };
                self.offer(offer, reply.with("tag", &tag), now);
            }
            (
                Work::OpenForMd5,
                Outcome::SourceOpened { size, digests: FileDigests { md5: Some(md5), .. }, .. },
            ) => {
                self.release(None);
                self.answer(Reply::new(Code::Done).with("md5", md5).with("size", size), now);
            }
            (Work::OpenForMd5, Outcome::SourceOpened { size, .. }) => {
                self.enter(State::AwaitCommand(Work::Md5(FileMd5::new(), size)), now);
                // An empty file has no bytes to come.
                self.answer_if_hashed(now);
            }
            (Work::OpenPartial(offer), Outcome::PartialOpened { progress, .. })
                if offer.ahead && progress.frontier() == 0 =>
            {
                self.receive(offer, progress, now);
            }
            (Work::OpenPartial(offer), Outcome::PartialOpened { progress, tag })
                if !offer.ahead =>
            {
                let reply = offer_reply(&progress, tag);
                self.offer(Offer::Put(offer, progress), reply, now);
            }
            (Work::OpenPartial(offer), Outcome::CommittedBefore { root, md5 }) if !offer.ahead => {
                let mut reply = Reply::new(Code::NothingLeft).with("root", root);
                if let Some(md5) = md5 {
                    reply = reply.with("md5", md5);
                }
                self.offer(Offer::Committed(offer, root), reply, now);
            }
            (Work::StartAction(_), Outcome::ActionStarted) => {
                self.reply(Reply::new(Code::Running));
                self.enter(State::Streaming(Stream::Action), now);
            }
            (Work::StartAction(name), Outcome::Failed(reply)) => {
                self.refused("run", name, &reply);
                self.answer(reply, now);
            }
            (Work::Register(name), Outcome::Failed(reply)) => {
                self.refused("register", name, &reply);
                self.try_failed(reply, now);
            }
            (_, Outcome::Answer(lines)) => {
                self.actions.extend(lines.into_iter().map(Action::Reply));
                self.await_command(now);
            }
            (_, Outcome::Failed(reply)) => self.answer(reply, now),
            (
                _,
                Outcome::SourceOpened { .. }
                | Outcome::PartialOpened { .. }
                | Outcome::CommittedBefore { .. }
                | Outcome::AccountFound(_)
                | Outcome::HomeOpened { .. }
                | Outcome::ActionStarted
                | Outcome::Checkpointed
                | Outcome::StoredTogether(_)
                | Outcome::Committed,
            ) => {
                self.release(None);
                self.answer(lost_job(), now);
            }
        }
    }

    pub(super) fn goodbye(&mut self, now: Instant) {
        let state = State::AwaitCommand(Work::Idle);
        self.refuse(state, Code::Bye, "goodbye", now);
    }

    fn whoami(&self) -> Reply {
        let reply = Reply::new(Code::Done);
        match self.account() {
            Some(account) => reply.with("user", &account.name).with("rights", account.rights),
            None => reply.with("rights", OPEN_RIGHTS),
        }
    }

    fn offer(&mut self, offer: Offer, reply: Reply, now: Instant) {
        self.reply(reply);
        self.enter(State::AwaitOffset(Box::new(offer)), now);
    }

    /// Once the MD5 of a remote file has seen all of it: the answer.
    pub(super) fn answer_if_hashed(&mut self, now: Instant) {
        let State::AwaitCommand(Work::Md5(md5, size)) = &self.state else {
            return;
        };
        if md5.position() < *size {
            return;
        }
        let md5 = md5.clone().finish();
        let reply = Reply::new(Code::Done).with("md5", md5).with("size", *size);
        let learned = FileDigests { segments: None, md5: Some(md5) };
        self.actions.push_back(Action::Remember(learned));
        self.release(None);
        self.answer(reply, now);
    }
}

/// What everybody may do on a server without logins. Actions are for people with names.
const OPEN_RIGHTS: Rights = Rights::READ.union(Rights::WRITE).union(Rights::DELETE);

/// The first right that is needed and not there, in words.
fn missing(needed: Rights, has: Rights) -> Option<&'static str> {
    let words = [
        (Rights::READ, "read"),
        (Rights::WRITE, "write"),
        (Rights::DELETE, "delete"),
        (Rights::ACTIONS, "run actions"),
    ];
    let lacks = |&(right, _): &(Rights, _)| needed.contains(right) && !has.contains(right);
    words.into_iter().find(lacks).map(|(_, word)| word)
}

/// The rights that a command needs.
const fn needs(command: &Command) -> Rights {
    match command {
        Command::Get { .. } | Command::List { .. } | Command::Stat { .. } | Command::Md5 { .. } => {
            Rights::READ
        }
        // Replacing a file needs the right to delete besides.
        Command::Put(_) | Command::MakeDir { .. } => Rights::WRITE,
        Command::Remove { .. } | Command::RemoveDir { .. } => Rights::DELETE,
        Command::Move { .. } => Rights::WRITE.union(Rights::DELETE),
        Command::Actions | Command::Run { .. } => Rights::ACTIONS,
        Command::Auth { .. }
        | Command::Register { .. }
        | Command::Whoami
        | Command::Quota
        | Command::Noop
        | Command::Quit => Rights::NONE,
    }
}

/// What the server has of a file that is offered.
fn offer_reply(progress: &Progress, tag: Option<Tag>) -> Reply {
    let Some(tag) = tag.filter(|_| progress.frontier() > 0) else {
        return Reply::new(Code::Nothing);
    };
    let reply = Reply::new(Code::Have).with("offset", progress.frontier()).with("tag", tag);
    let bad = progress.bad_runs();
    if bad.is_empty() { reply } else { reply.with("bad", bad) }
}
