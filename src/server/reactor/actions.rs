//! Actions as the reactor sees them: started by a job, then a part of their connection.

use std::{sync::Arc, time::Instant};

use mio::Token;

use super::{Reactor, enqueue, find};
use crate::{
    action::ActionError,
    limits::{ACTIONS_RUNNING_MAX, LISTING_ENTRIES_MAX, SWEEP_INTERVAL},
    server::{
        child::{Budget, SpawnError},
        disk::{Done, Held, Ticket},
        running::{Pumped, Running, pulse, pump},
        workers::Key,
    },
    session::{JobId, Outcome},
    wire::{Code, Reply, encode},
};

impl Reactor {
    /// Which actions somebody may run.
    pub(super) fn list_actions(&mut self, token: Token, id: JobId, now: Instant) {
        let Some(connection) = find(&mut self.connections, token) else { return };
        let user = connection.user.as_ref().map_or("", |user| user.as_str());
        let actions = self.settings.actions.for_user(user).take(LISTING_ENTRIES_MAX);
        let mut lines: Vec<Reply> = actions
            .map(|action| {
                let mut line = Reply::new(Code::Entry).with("name", action.name);
                if !action.arguments.is_empty() {
                    line = line.with("arguments", encode(action.arguments.join(",").as_bytes()));
                }
                if !action.description.is_empty() {
                    line = line.with("about", encode(action.description.as_bytes()));
                }
                line
            })
            .collect();
        lines.push(Reply::new(Code::Done).with("entries", lines.len()));
        connection.session.handle_outcome(id, Outcome::Answer(lines), now);
    }

    /// Starts an action.
    pub(super) fn run_action(
        &mut self,
        token: Token,
        id: JobId,
        name: &str,
        arguments: &[Vec<u8>],
        now: Instant,
    ) {
        let Some(connection) = find(&mut self.connections, token) else { return };
        let user = connection.user.as_ref().map_or("", |user| user.as_str()).to_owned();
        let arguments: Vec<&[u8]> = arguments.iter().map(Vec::as_slice).collect();
        let mut prepared = match self.settings.actions.prepare(&user, name, &arguments) {
            Ok(prepared) => prepared,
            Err(error) => {
                let code = match error {
                    ActionError::Unknown => Code::UnknownAction,
                    ActionError::Argument { .. } => Code::BadArgument,
                };
                let outcome = Outcome::Failed(Reply::text(code, &error.to_string()));
                return connection.session.handle_outcome(id, outcome, now);
            }
        };
        // Those of other workers count, and so does every process that this one has started.
        let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
        let tally = &self.gate.tally;
        let of_this = count(tally.elsewhere(&Key::Action(prepared.name.clone())));
        let of_all = tally.elsewhere(&Key::Actions).saturating_add(tally.own(&Key::Actions));
        prepared.max_running = match count(of_all) {
            ACTIONS_RUNNING_MAX.. => 0,
            _ => prepared.max_running.saturating_sub(of_this),
        };
        let children = Arc::clone(&self.children);
        self.disk.submit(Ticket::Session(token, id), move || {
            match children.spawn(&prepared, &user) {
                Ok(child) => {
                    let began = Instant::now();
                    let budget = Budget::new(&prepared, began);
                    let (name, bytes, exit) = (prepared.name, 0, None);
                    let running = Running { child, budget, children, name, began, bytes, exit };
                    let held = Some(Held::Action(Box::new(running)));
                    Done::Session(Outcome::ActionStarted, held)
                }
                Err(SpawnError::TooMany) => {
                    let reply = Reply::text(Code::TooMany, "it runs often enough at the moment");
                    Done::Session(Outcome::Failed(reply), None)
                }
                Err(error) => {
                    log::error!("action {}: {error}", prepared.name);
                    let reply = Reply::text(Code::Failed, "the action can't be started");
                    Done::Session(Outcome::Failed(reply), None)
                }
            }
        });
    }

    /// Moves what an action says.
    pub(super) fn pump_action(&mut self, token: Token, now: Instant) {
        let Some(connection) = find(&mut self.connections, token) else { return };
        match pump(connection, now) {
            Pumped::Waits => {}
            Pumped::More => enqueue(&mut self.ready, connection),
            Pumped::Over => {
                connection.session.handle_action_ended(now);
                self.act(token, now);
            }
        }
    }

    /// Has an action end before its time.
    pub(super) fn end_action(&mut self, token: Token, now: Instant) {
        let held = find(&mut self.connections, token).and_then(|it| it.held.as_mut());
        if let Some(Held::Action(running)) = held {
            running.budget.stop(now);
        }
    }

    pub(super) fn pulse_action(&mut self, token: Token, now: Instant) {
        let Some(connection) = find(&mut self.connections, token) else { return };
        if !pulse(connection, now) {
            connection.broken = true;
        }
    }

    /// What actions have left behind is looked for again as long as something is there.
    pub(super) fn sweep(&mut self, now: Instant) {
        if self.sweep_at.is_none_or(|at| now < at) {
            return;
        }
        self.sweep_at = None;
        let children = Arc::clone(&self.children);
        self.disk.submit(Ticket::Nobody, move || sweep(&children));
    }

    pub(super) fn take_swept(&mut self, left: usize, now: Instant) {
        if left > 0 {
            self.sweep_at = Some(now + SWEEP_INTERVAL);
        }
    }
}

/// On the disk thread: ends what actions that are over have left behind.
pub(in crate::server) fn sweep(children: &crate::server::child::Children) -> Done {
    match children.sweep() {
        Ok(swept) => {
            if swept.ended > 0 {
                log::info!("ended {} processes that actions had left behind", swept.ended);
            }
            Done::Swept(swept.left)
        }
        Err(error) => {
            log::warn!("can't look for what actions have left behind: {error}");
            Done::Swept(1)
        }
    }
}
