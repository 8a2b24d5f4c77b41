//! Login and registration: the part of AwaitCommand that comes before every other command.
//!
//! The account is looked up by a job, which also draws the nonce and says how long the answer is
//! held back; then the client owes its proof; a right one opens its home by a second job. An
//! unknown name, a locked account and a wrong password take the same steps and get the same
//! answer.

use std::time::Instant;

use super::{
    Action, Job, LoginBegun, Outcome, Session,
    state::{Access, State, Work},
};
use crate::{
    auth::{
        Candidate,
        cram::{Challenge, CramResponse},
        scram::{ClientFirst, ScramServer},
    },
    wire::{Code, Command, Mechanism, Reply, encode, from_base64, to_base64},
};

/// Where a login stands.
#[derive(Debug)]
pub(super) enum Login {
    /// The account of this name is being looked up.
    Finding(Asked, String),
    /// The client owes its proof.
    AwaitProof(Begun),
    /// The proof is here; it is looked at when its time has come.
    HeldBack(Begun, Vec<u8>),
    /// It was right; the home is being opened. What the server says to prove itself.
    OpeningHome(Option<String>),
}

/// What the client began with.
#[derive(Debug)]
pub(super) enum Asked {
    Scram(ClientFirst),
    Cram,
}

/// An exchange in which the client is next.
#[derive(Debug)]
pub(super) struct Begun {
    exchange: Exchange,
    name: String,
    candidate: Candidate,
    /// Before it, the proof is not looked at.
    pub(super) not_before: Instant,
}

#[derive(Debug)]
enum Exchange {
    Scram(ScramServer),
    Cram(Challenge),
}

impl Session {
    /// A command of somebody who is not logged in yet.
    pub(super) fn command_of_nobody(&mut self, command: Command, now: Instant) {
        match command {
            Command::Auth { mechanism, initial } => self.begin_login(mechanism, initial, now),
            Command::Register { name, verifier, invite } => {
                let work = Work::Register(name.clone());
                let job = Job::Register { name, verifier, invite };
                self.enter_waiting(State::AwaitCommand(work), job, now);
            }
            Command::Quit => self.goodbye(now),
            Command::Get { .. }
            | Command::Put(_)
            | Command::List { .. }
            | Command::Stat { .. }
            | Command::Md5 { .. }
            | Command::MakeDir { .. }
            | Command::Remove { .. }
            | Command::RemoveDir { .. }
            | Command::Move { .. }
            | Command::Whoami
            | Command::Quota
            | Command::Actions
            | Command::Run { .. }
            | Command::Noop => {
                self.try_failed(Reply::text(Code::NotLoggedIn, "log in first"), now);
            }
        }
    }

    fn begin_login(&mut self, mechanism: Mechanism, initial: Vec<u8>, now: Instant) {
        if !self.greeting.login.contains(&mechanism) {
            let reply = Reply::text(Code::LoginFailed, "the server does not take this mechanism");
            return self.try_failed(reply, now);
        }
        let malformed = |text: &str| Reply::text(Code::Malformed, text);
        let (asked, name) = match mechanism {
            Mechanism::Anonymous => {
                let login = Login::OpeningHome(None);
                let state = State::AwaitCommand(Work::Login(Box::new(login)));
                return self.enter_waiting(state, Job::OpenHome(None), now);
            }
            Mechanism::ScramSha256 => match ClientFirst::parse(&initial) {
                Ok(first) => {
                    let name = first.name().to_owned();
                    (Asked::Scram(first), name)
                }
                Err(error) => return self.try_failed(malformed(&error.to_string()), now),
            },
            Mechanism::CramMd5 => match String::from_utf8(initial) {
                Ok(name) if !name.is_empty() => (Asked::Cram, name),
                _ => return self.try_failed(malformed("the name is missing"), now),
            },
        };
        let job = Job::FindAccount(name.clone());
        let login = Login::Finding(asked, name);
        self.enter_waiting(State::AwaitCommand(Work::Login(Box::new(login))), job, now);
    }

    /// A job of the login is done.
    pub(super) fn login_job_done(&mut self, login: Login, outcome: Outcome, now: Instant) {
        match (login, outcome) {
            (Login::Finding(asked, name), Outcome::AccountFound(found)) => {
                self.challenge(asked, name, *found, now);
            }
            (Login::OpeningHome(proof), Outcome::HomeOpened { account, banner }) => {
                let mut reply = Reply::new(Code::LoggedIn).with("user", &account.name);
                reply = reply.with("rights", account.rights);
                if let Some(banner) = banner {
                    reply = reply.with("banner", encode(banner.as_bytes()));
                }
                if let Some(proof) = proof {
                    reply = reply.with("data", to_base64(proof.as_bytes()));
                }
                self.access = Access::User(account);
                self.answer(reply, now);
            }
            (_, Outcome::Failed(reply)) => self.try_failed(reply, now),
            _ => self.answer(super::lost_job(), now),
        }
    }

    fn challenge(&mut self, asked: Asked, name: String, found: LoginBegun, now: Instant) {
        let LoginBegun { candidate, nonce, not_before } = found;
        let (exchange, challenge) = match asked {
            Asked::Scram(first) => {
                let verifier = candidate.scram.clone();
                let (server, challenge) = ScramServer::new(first, verifier, nonce);
                (Exchange::Scram(server), challenge)
            }
            Asked::Cram => {
                let challenge = Challenge::new(nonce);
                let text = challenge.as_str().to_owned();
                (Exchange::Cram(challenge), text)
            }
        };
        self.reply(Reply::new(Code::Challenge).with("data", to_base64(challenge.as_bytes())));
        let begun = Begun { exchange, name, candidate, not_before };
        let login = Login::AwaitProof(begun);
        self.enter(State::AwaitCommand(Work::Login(Box::new(login))), now);
    }

    /// The line that answers a challenge.
    pub(super) fn proof(&mut self, begun: Begun, line: &[u8], now: Instant) {
        let reply = Reply::parse(line).ok().filter(|reply| reply.code == Code::Challenge);
        let proof = reply.and_then(|reply| from_base64(reply.field("data").unwrap_or_default()));
        // What makes no sense is a wrong proof: it takes as long, and says as little.
        let login = Login::HeldBack(begun, proof.unwrap_or_default());
        self.enter(State::AwaitCommand(Work::Login(Box::new(login))), now);
        self.look_at_proof(now);
    }

    /// Looks at a proof that has been held back for long enough.
    pub(super) fn look_at_proof(&mut self, now: Instant) {
        let held = |login: &Login| match login {
            Login::HeldBack(begun, _) => now < begun.not_before,
            Login::Finding(..) | Login::AwaitProof(_) | Login::OpeningHome(_) => true,
        };
        if self.state.login().is_none_or(held) {
            return;
        }
        let State::AwaitCommand(Work::Login(login)) = self.take_state() else { return };
        let Login::HeldBack(begun, proof) = *login else { return };
        let Begun { exchange, name, candidate, .. } = begun;
        let verified = match exchange {
            Exchange::Scram(server) => server.verify(&proof).map(Some).ok(),
            Exchange::Cram(challenge) => {
                let response = CramResponse::parse(&proof).ok();
                // The challenge was for one name, and so is the answer.
                let response = response.filter(|response| response.name() == name);
                let right = response.is_some_and(|it| it.verify(&challenge, &candidate.cram));
                right.then_some(None)
            }
        };
        let account = verified.as_ref().and_then(|_| candidate.account().cloned());
        let Some((account, proof)) = account.zip(verified) else {
            self.actions.push_back(Action::LoginFailed(name));
            let reply = Reply::text(Code::LoginFailed, "wrong name or password");
            return self.try_failed(reply, now);
        };
        let login = Login::OpeningHome(proof);
        let state = State::AwaitCommand(Work::Login(Box::new(login)));
        self.enter_waiting(state, Job::OpenHome(Some(account)), now);
    }

    /// Answers what led to no login. After some of that, the connection is closed.
    pub(super) fn try_failed(&mut self, reply: Reply, now: Instant) {
        self.await_command(now);
        let Access::Nobody { tries_left, .. } = &mut self.access else {
            return self.reply(reply);
        };
        *tries_left -= 1;
        if *tries_left == 0 {
            return self.end(reply, now);
        }
        self.reply(reply);
    }
}
