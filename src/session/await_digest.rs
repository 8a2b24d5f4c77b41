//! AwaitDigest: everything went over the line. A get waits for the client's verdict; a put hashes
//! what is left, is made durable and visible, and only then is its verdict told.

use std::time::Instant;

use super::{
    Action, Job, Outcome, Session, Verdict, gives_up, lost_job,
    state::{Commit, Ending, Receiving, Sending, State, Stream},
};
use crate::wire::{Code, Reply, SegmentRuns};

impl Session {
    /// The client's word on what it received.
    pub(super) fn verdict(&mut self, mut sending: Box<Sending>, line: &[u8], now: Instant) {
        let reply = match Reply::parse(line) {
            Ok(reply) => reply,
            Err(error) => {
                let state = State::AwaitDigest(Ending::Sent(sending));
                return self.refuse(state, Code::BadSequence, &error.to_string(), now);
            }
        };
        let verdict = match reply.code {
            Code::Identical => Verdict::Identical,
            Code::Differs if reply.field("want").is_some() => {
                let want = reply.field("want").and_then(SegmentRuns::parse);
                if want.is_some_and(|want| sending.outgoing.again(&want).is_ok()) {
                    // Also if this line does not live to tell whether it was right.
                    if sending.outgoing.is_in_doubt() {
                        self.actions.push_back(Action::Forget);
                    }
                    return self.enter(State::Streaming(Stream::Out(sending)), now);
                }
                let state = State::AwaitDigest(Ending::Sent(sending));
                let text = "409 needs want= within the file";
                return self.refuse(state, Code::Malformed, text, now);
            }
            code if gives_up(code) => {
                if code == Code::Differs {
                    sending.outgoing.doubt();
                }
                Verdict::Unfinished(reply.to_string())
            }
            _ => {
                let state = State::AwaitDigest(Ending::Sent(sending));
                return self.refuse(state, Code::BadSequence, "226 or 409 was awaited", now);
            }
        };
        self.let_go_sending(&sending, verdict);
        self.await_command(now);
    }

    /// Once the MD5 of the whole file has seen everything, and no checkpoint can fail any more
    /// behind the back of a commit: compares the MD5 and commits.
    pub(super) fn commit_if_hashed(&mut self, now: Instant) {
        match self.take_state() {
            State::AwaitDigest(Ending::Md5(receiving))
                if receiving.incoming.md5_pending().is_empty()
                    && receiving.checkpoints.running.is_none() =>
            {
                self.commit(*receiving, now);
            }
            state => self.state = state,
        }
    }

    fn commit(&mut self, mut receiving: Receiving, now: Instant) {
        let (Ok(md5), Some(root)) =
            (receiving.incoming.check_md5(), receiving.incoming.progress().root())
        else {
            receiving.incoming.forget_md5();
            let reply = Reply::text(Code::Differs, "the MD5 of the whole file differs");
            self.let_go_receiving(receiving, &reply.to_string());
            return self.answer(reply, now);
        };
        let mark = receiving.incoming.take_mark();
        let segments = receiving.incoming.progress().segments().into();
        let commit = Commit { receiving, root, md5 };
        let state = State::AwaitDigest(Ending::Commit(Box::new(commit)));
        self.enter_waiting(state, Job::Commit { mark, root, md5, segments }, now);
    }

    /// The file is visible, or is not.
    pub(super) fn committed(&mut self, commit: Commit, outcome: Outcome, now: Instant) {
        let (reply, verdict) = match outcome {
            Outcome::Committed => {
                let mut reply = Reply::new(Code::Identical).with("root", commit.root);
                if let Some(md5) = commit.md5 {
                    reply = reply.with("md5", md5);
                }
                (reply, Verdict::Identical)
            }
            Outcome::Failed(reply) => {
                let verdict = Verdict::Unfinished(reply.to_string());
                (reply, verdict)
            }
            Outcome::SourceOpened { .. }
            | Outcome::PartialOpened { .. }
            | Outcome::CommittedBefore { .. }
            | Outcome::AccountFound(_)
            | Outcome::HomeOpened { .. }
            | Outcome::ActionStarted
            | Outcome::Checkpointed
            | Outcome::StoredTogether(_)
            | Outcome::Answer(_) => {
                let reply = lost_job();
                let verdict = Verdict::Unfinished(reply.to_string());
                (reply, verdict)
            }
        };
        self.report(commit.report(verdict));
        self.release(None);
        self.answer(reply, now);
    }

    /// Lets go of what is open when the line breaks before the verdict.
    pub(super) fn let_go_ending(&mut self, ending: Ending, why: &str) {
        let unfinished = Verdict::Unfinished(why.to_owned());
        match ending {
            Ending::Sent(sending) => self.let_go_sending(&sending, unfinished),
            Ending::Md5(receiving) => self.let_go_receiving(*receiving, why),
            // Its mark is with the commit, which comes to its end without us.
            Ending::Commit(commit) => {
                self.report(commit.report(unfinished));
                self.release(None);
            }
            // Nothing was begun yet.
            Ending::Together(_) => {}
        }
    }
}
