//! What a session asks for: carried out at once, or by the disk thread.

use std::time::Instant;

use mio::Token;

use super::{Reactor, find};
use crate::{
    digest::FileDigests,
    server::{
        connection::Cold,
        disk::{self, Held, Ticket},
        report::{log_refusal, log_reply, log_report, log_run},
    },
    session::{Action, Job, JobId, Outcome, SmallFile},
    store::partial_name,
    wire::{Code, Reply},
};

impl Reactor {
    /// Carries out what the session asks for.
    pub(super) fn act(&mut self, token: Token, now: Instant) {
        loop {
            let Some(connection) = find(&mut self.connections, token) else {
                return;
            };
            let Some(action) = connection.session.poll_action() else {
                return;
            };
            match action {
                Action::Reply(reply) => {
                    log_reply(connection.peer, &reply);
                    connection.push_reply(&reply);
                }
                Action::Start(id, job) => self.start(token, id, job, now),
                Action::Release(mark) => {
                    self.writers.forget(connection);
                    (connection.cold, connection.fetched_to) = (Cold::No, 0);
                    if let Some(held) = connection.held.take() {
                        log_run(connection, &held, now);
                        match held {
                            Held::Source(source) => self.released.push(source),
                            held => disk::release(&self.disk, held, mark),
                        }
                    }
                }
                Action::Remember(digests) => self.remember(token, Some(digests)),
                Action::Forget => self.remember(token, None),
                Action::Report(report) => log_report(connection, &report, now),
                Action::LoginFailed(name) => self.login_failed(token, &name, now),
                Action::Refused(refusal) => log_refusal(connection, &refusal),
                Action::EndAction => self.end_action(token, now),
                Action::Pulse => self.pulse_action(token, now),
                Action::Close => {}
            }
        }
    }

    fn remember(&mut self, token: Token, digests: Option<FileDigests>) {
        if let Some(connection) = find(&mut self.connections, token)
            && let Some(home) = &connection.home
        {
            disk::remember(&self.disk, home, connection.held.as_ref(), digests);
        }
    }

    fn start(&mut self, token: Token, id: JobId, job: Job, now: Instant) {
        let job = match job {
            Job::FindAccount(name) => return self.find_account(token, id, name, now),
            Job::OpenHome(account) => return self.open_home(token, id, account, now),
            Job::Register { name, verifier, invite } => {
                return self.register(token, id, (name, verifier, invite), now);
            }
            Job::OpenSource(path) => return self.open_source(token, id, path, now),
            Job::StoreTogether(files) => return self.store_together(token, id, files, now),
            Job::Actions => return self.list_actions(token, id, now),
            Job::Run { name, arguments } => {
                return self.run_action(token, id, &name, &arguments, now);
            }
            job => job,
        };
        let home = find(&mut self.connections, token).and_then(|it| it.home.clone());
        let Some(home) = home else { return };
        if let Job::OpenPartial { offer, .. } = &job {
            let name = (home.id(), partial_name(&offer.path));
            let owner = offer.owner;
            if !self.take_over(name, token, id, owner, now) {
                let Some(connection) = find(&mut self.connections, token) else {
                    return;
                };
                let text = "another client is writing this file";
                let outcome = Outcome::Failed(Reply::text(Code::Busy, text));
                connection.session.handle_outcome(id, outcome, now);
                return;
            }
        }
        let Some(connection) = find(&mut self.connections, token) else {
            return;
        };
        let ticket = Ticket::Session(token, id);
        disk::start(&self.disk, &home, ticket, job, connection.held.as_ref());
    }

    /// Has small files stored together, but for those that another client is writing.
    fn store_together(&mut self, token: Token, id: JobId, files: Vec<SmallFile>, now: Instant) {
        let home = find(&mut self.connections, token).and_then(|it| it.home.clone());
        let Some(home) = home else { return };
        let files = files.into_iter().map(|file| {
            let name = (home.id(), partial_name(&file.path));
            let is_busy = !self.may_write(name, token, file.owner, now);
            (file, is_busy)
        });
        let files = files.collect();
        disk::store_together(&self.disk, &home, Ticket::Session(token, id), files);
    }
}
