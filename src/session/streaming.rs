//! Streaming: frames go over the line, one way or the other, up to their end or an abort.

use std::time::Instant;

use super::{
    Action, Discard, Job, Outcome, Session, Settled, Verdict, Violation, gives_up, lost_job,
    state::{Ending, Receiving, Sending, State, Stream},
};
use crate::{
    digest::LEAF_BYTES,
    limits::{CHECKPOINT_BYTES, CHECKPOINT_INTERVAL},
    progress::Mark,
    wire::{Code, Reply, SegmentRuns},
};

/// To the client.
impl Session {
    /// While the server sends, a client says nothing but that it gives up.
    pub(super) fn line_beside_stream(&mut self, stream: Stream, line: &[u8], now: Instant) {
        let given_up = Reply::parse(line)
            .ok()
            .filter(|reply| gives_up(reply.code))
            .map(|reply| Reply::text(reply.code, "given up by the client"));
        match (stream, given_up) {
            (Stream::Out(mut sending), Some(reply)) => {
                if reply.code == Code::Differs {
                    sending.outgoing.doubt();
                }
                self.state = State::Streaming(Stream::OutAborting(sending, reply));
            }
            // It is told of the end when that has come.
            (Stream::Action, Some(_)) => {
                self.state = State::Streaming(Stream::Action);
                self.actions.push_back(Action::EndAction);
            }
            (stream, _) => {
                let text = "no command fits within a stream";
                self.refuse(State::Streaming(stream), Code::BadSequence, text, now);
            }
        }
    }

    /// If the stream is to be aborted: the reason, as soon as the line stands between two frames.
    pub fn poll_abort(&mut self, now: Instant) -> Option<Reply> {
        match self.take_state() {
            State::Streaming(Stream::OutAborting(sending, reply))
                if sending.outgoing.between_frames() =>
            {
                self.let_go_sending(&sending, Verdict::Unfinished(reply.to_string()));
                self.await_command(now);
                Some(reply)
            }
            state => {
                self.state = state;
                None
            }
        }
    }

    /// The source can't be read any further, or has changed.
    pub(super) fn source_failed(&mut self, stream: Stream, reply: Reply, now: Instant) {
        self.state = State::Streaming(match stream {
            Stream::Out(sending) if sending.outgoing.between_frames() => {
                Stream::OutAborting(sending, reply)
            }
            // Within a frame nothing else can be said: the line has to be cut.
            Stream::Out(sending) => {
                self.state = State::Streaming(Stream::Out(sending));
                return self.end(reply, now);
            }
            Stream::OutAborting(sending, first) if !sending.outgoing.between_frames() => {
                self.state = State::Streaming(Stream::OutAborting(sending, first));
                return self.end(reply, now);
            }
            // Aborted already, or nothing is read.
            stream @ (Stream::OutAborting(..)
            | Stream::In(_)
            | Stream::InAgain(..)
            | Stream::Ahead(_)
            | Stream::Discarding(_)
            | Stream::Action) => stream,
        });
    }

    /// The action that ran is over, and its client was told how.
    pub fn handle_action_ended(&mut self, now: Instant) {
        if self.runs_action() {
            self.release(None);
            self.await_command(now);
        }
    }

    /// The line took bytes of the stream, or brought some, or bytes were hashed for it: another
    /// leaf buys time.
    pub fn handle_moved(&mut self, now: Instant) {
        let (paced, bytes) = match &mut self.state {
            State::Streaming(Stream::Out(sending) | Stream::OutAborting(sending, _)) => {
                let bytes = sending.outgoing.moved_bytes();
                (&mut sending.paced, bytes)
            }
            State::Streaming(Stream::In(receiving)) => {
                let bytes = receiving.incoming.moved_bytes();
                (&mut receiving.paced, bytes)
            }
            State::Streaming(Stream::Ahead(ahead)) => {
                if ahead.moved_on() {
                    self.since = now;
                }
                return;
            }
            // Whoever is told that its frames are not wanted has one deadline for all of them.
            State::Streaming(Stream::InAgain(..) | Stream::Discarding(_) | Stream::Action)
            | State::AwaitCommand(_)
            | State::AwaitOffset(_)
            | State::AwaitDigest(_)
            | State::Closed => return,
        };
        if paced.moved_on(bytes) {
            self.since = now;
        }
    }

    /// Everything of this round was handed to the line.
    pub fn handle_sent(&mut self, now: Instant) {
        match self.take_state() {
            State::Streaming(Stream::Out(sending)) => {
                self.enter(State::AwaitDigest(Ending::Sent(sending)), now);
            }
            // The client has given up already: no word of it will follow.
            State::Streaming(Stream::OutAborting(sending, reply)) => {
                self.let_go_sending(&sending, Verdict::Unfinished(reply.to_string()));
                self.await_command(now);
            }
            state => self.state = state,
        }
    }
}

/// From the client.
impl Session {
    /// What a frame came to, by [`Incoming::settle`](super::Incoming::settle), or why it could
    /// not be.
    pub fn handle_settled(&mut self, settled: Result<Settled, Violation>, now: Instant) {
        match self.take_state() {
            State::Streaming(Stream::In(receiving)) => match settled {
                Ok(Settled::Good | Settled::Bad { .. }) => {
                    self.state = State::Streaming(Stream::In(receiving));
                }
                Ok(Settled::Differs(_)) if receiving.ahead => {
                    let reply = Reply::text(Code::Differs, "what came differs");
                    self.refuse_stream(*receiving, reply, now);
                }
                Ok(Settled::Differs(want)) => self.send_again(receiving, want, now),
                Ok(Settled::Whole) => {
                    self.enter(State::AwaitDigest(Ending::Md5(receiving)), now);
                    self.commit_if_hashed(now);
                }
                Ok(Settled::Aborted(reply)) => {
                    let code = if gives_up(reply.code) { reply.code } else { Code::Failed };
                    self.refuse_stream(
                        *receiving,
                        Reply::text(code, "given up by the client"),
                        now,
                    );
                }
                Err(violation) => self.violated(receiving, violation, now),
            },
            // Told already, and now out of step as well.
            state @ State::Streaming(Stream::Discarding(_)) => {
                self.state = state;
                if let Err(violation) = settled {
                    self.end(Reply::text(Code::Malformed, &violation.to_string()), now);
                }
            }
            state => self.state = state,
        }
    }

    /// What came can't be gone on with.
    fn violated(&mut self, receiving: Box<Receiving>, violation: Violation, now: Instant) {
        let text = violation.to_string();
        match violation {
            // Whole frames that say something wrong.
            Violation::Hopeless | Violation::Digest => {
                self.refuse_stream(*receiving, Reply::text(Code::Differs, &text), now);
            }
            Violation::Size => {
                self.refuse_stream(*receiving, Reply::text(Code::Malformed, &text), now);
            }
            // Nobody knows where the next frame begins.
            Violation::Frame(_)
            | Violation::OutOfPlace
            | Violation::Abort(_)
            | Violation::AfterEnd => {
                let state = State::Streaming(Stream::In(receiving));
                self.refuse(state, Code::Malformed, &text, now);
            }
        }
    }

    /// The end of a round in which something came out wrong. Data that was good once will be
    /// overwritten: the journal has to know before the client does.
    fn send_again(&mut self, mut receiving: Box<Receiving>, want: SegmentRuns, now: Instant) {
        if let Err(violation) = receiving.incoming.next_round() {
            return self.violated(receiving, violation, now);
        }
        let mark = receiving.incoming.take_mark();
        let state = State::Streaming(Stream::InAgain(receiving, want));
        self.enter_waiting(state, Job::Checkpoint(mark), now);
    }

    /// The journal knows which segments are bad: now they may be overwritten.
    pub(super) fn journal_knows(
        &mut self,
        mut receiving: Box<Receiving>,
        want: SegmentRuns,
        outcome: Outcome,
        now: Instant,
    ) {
        if let Err(reply) = checkpointed(outcome) {
            return self.fallen_back(*receiving, reply, Discard::ended(), now);
        }
        receiving.checkpoints.at = now;
        receiving.checkpoints.bytes = receiving.incoming.received_bytes();
        self.enter(State::Streaming(Stream::In(receiving)), now);
        self.reply(Reply::new(Code::Differs).with("want", want));
    }

    /// A chunk was received, hashed, written and settled: perhaps a checkpoint is due.
    pub fn handle_chunk(&mut self, now: Instant) {
        self.handle_moved(now);
        let Some(receiving) = self.state.receiving() else {
            return;
        };
        let received = receiving.incoming.received_bytes();
        let last = &mut receiving.checkpoints;
        let bytes = received - last.bytes;
        let due = bytes >= CHECKPOINT_BYTES
            || bytes >= LEAF_BYTES && now >= last.at + CHECKPOINT_INTERVAL;
        if !due || last.running.is_some() {
            return;
        }
        (last.at, last.bytes) = (now, received);
        let mark = receiving.incoming.take_mark();
        let id = self.start(Job::Checkpoint(mark));
        if let Some(receiving) = self.state.receiving() {
            receiving.checkpoints.running = Some(id);
        }
    }

    /// The checkpoint beside the stream is done. If it failed, what was written since the last
    /// durable mark may be lost, whatever a later one says: the partial has fallen back.
    pub(super) fn checkpoint_done(&mut self, outcome: Outcome, now: Instant) {
        let failed = checkpointed(outcome).err();
        match (self.take_state(), failed) {
            (State::Streaming(Stream::In(receiving)), Some(reply)) => {
                let rest = receiving.incoming.pass_over();
                self.fallen_back(*receiving, reply, rest, now);
            }
            (
                State::Streaming(Stream::InAgain(receiving, _))
                | State::AwaitDigest(Ending::Md5(receiving)),
                Some(reply),
            ) => self.fallen_back(*receiving, reply, Discard::ended(), now),
            (mut state, None) => {
                if let State::Streaming(Stream::In(receiving) | Stream::InAgain(receiving, _))
                | State::AwaitDigest(Ending::Md5(receiving)) = &mut state
                {
                    receiving.checkpoints.running = None;
                }
                self.state = state;
                self.commit_if_hashed(now);
            }
            (state, Some(_)) => self.state = state,
        }
    }

    /// The journal stays at its last durable mark; the client is told.
    fn fallen_back(&mut self, receiving: Receiving, reply: Reply, rest: Discard, now: Instant) {
        self.report(receiving.report(Verdict::Unfinished(reply.to_string())));
        self.release(None);
        self.pass_over(rest, reply, now);
    }

    /// The partial can't be written: the client is told, and its stream passed over. What was
    /// not written must not have gone to [`Incoming::hashed`](super::Incoming::hashed).
    pub fn handle_write_failed(&mut self, reply: Reply, now: Instant) {
        match self.take_state() {
            State::Streaming(Stream::In(receiving)) => self.refuse_stream(*receiving, reply, now),
            state => self.state = state,
        }
    }

    /// Gives up a stream from the client with one last line; what was received is kept.
    fn refuse_stream(&mut self, receiving: Receiving, reply: Reply, now: Instant) {
        let rest = receiving.incoming.pass_over();
        self.let_go_receiving(receiving, &reply.to_string());
        self.pass_over(rest, reply, now);
    }

    /// Says a last line on a stream and passes over what is still to come of it.
    pub(super) fn pass_over(&mut self, rest: Discard, reply: Reply, now: Instant) {
        self.reply(reply);
        if rest.has_ended() {
            self.await_command(now);
        } else {
            self.enter(State::Streaming(Stream::Discarding(rest)), now);
        }
    }

    /// Frames that nobody needs; returns how many bytes of `input` belonged to them.
    pub fn handle_discarded(&mut self, input: &[u8], now: Instant) -> usize {
        let State::Streaming(Stream::Discarding(discard)) = &mut self.state else {
            return 0;
        };
        match discard.skip(input) {
            Ok(taken) => {
                if discard.has_ended() {
                    self.await_command(now);
                }
                taken
            }
            Err(error) => {
                self.answer_last(Reply::text(Code::Malformed, &error.to_string()), now);
                input.len()
            }
        }
    }
}

/// Letting go.
impl Session {
    /// Lets go of a stream before its end; what was received is kept.
    pub(super) fn let_go(&mut self, stream: Stream, why: &str) {
        match stream {
            Stream::Out(sending) | Stream::OutAborting(sending, _) => {
                self.let_go_sending(&sending, Verdict::Unfinished(why.to_owned()));
            }
            Stream::In(receiving) | Stream::InAgain(receiving, _) => {
                self.let_go_receiving(*receiving, why);
            }
            Stream::Ahead(ahead) => {
                self.report(ahead.report(Verdict::Unfinished(why.to_owned())));
            }
            // Let go of when it was refused.
            Stream::Action => self.release(None),
            Stream::Discarding(_) => {}
        }
    }

    pub(super) fn let_go_sending(&mut self, sending: &Sending, verdict: Verdict) {
        let learned = (verdict == Verdict::Identical).then(|| sending.outgoing.learned());
        if let Some(learned) = learned.flatten() {
            self.actions.push_back(Action::Remember(learned));
        } else if sending.outgoing.is_in_doubt() {
            self.actions.push_back(Action::Forget);
        }
        self.report(sending.report(verdict));
        self.release(None);
    }

    pub(super) fn let_go_receiving(&mut self, mut receiving: Receiving, why: &str) {
        self.report(receiving.report(Verdict::Unfinished(why.to_owned())));
        let mark: Mark = receiving.incoming.take_mark();
        self.release(Some(mark));
    }
}

/// Nothing but this outcome says that a checkpoint is durable.
fn checkpointed(outcome: Outcome) -> Result<(), Reply> {
    match outcome {
        Outcome::Checkpointed => Ok(()),
        Outcome::Failed(reply) => Err(reply),
        Outcome::SourceOpened { .. }
        | Outcome::PartialOpened { .. }
        | Outcome::CommittedBefore { .. }
        | Outcome::AccountFound(_)
        | Outcome::HomeOpened { .. }
        | Outcome::ActionStarted
        | Outcome::Committed
        | Outcome::StoredTogether(_)
        | Outcome::Answer(_) => Err(lost_job()),
    }
}
