//! What a worker holds: files that wait for their turn, and a job; and where it takes more from.

use std::{collections::VecDeque, path::PathBuf, time::Instant};

use super::{
    local::bytes,
    queue::{Next, Own, Queue, Walk},
    shared::Shared,
};
use crate::{
    client::{Client, ClientError, line::Line},
    limits::{BUSY_PATIENCE, FILE_TRIES_MAX},
};

/// A file of a tree.
pub(super) trait File {
    /// Its path, as it is told.
    fn shown(&self) -> PathBuf;

    /// How it fared so far.
    fn tries(&mut self) -> &mut Tries;
}

/// How a file fared so far.
#[derive(Debug, Default)]
pub(super) struct Tries {
    /// How often it failed, on a line that was whole.
    failed: u32,
    /// Since when somebody else is writing it.
    busy_since: Option<Instant>,
}

pub(super) struct Held<'a, W: Walk> {
    pub(super) client: &'a Client,
    pub(super) queue: &'a Queue<W>,
    pub(super) shared: &'a Shared<'a>,
    /// The number of the connection.
    pub(super) job: usize,
    /// Files to be tried once more.
    pub(super) again: VecDeque<W::File>,
    /// Files that somebody is writing, here or there: their turn comes when nothing else is left.
    pub(super) later: VecDeque<W::File>,
    /// One that has to wait until nothing is awaited.
    pub(super) alone: Option<W::File>,
    /// What this worker has to do before the walk goes on.
    pub(super) to_do: Option<W::Job>,
    /// Files that this worker is done with.
    pub(super) done: u64,
    /// Whether the server ever took a connection of this worker.
    pub(super) had_line: bool,
}

impl<'a, W: Walk<File: File>> Held<'a, W> {
    pub(super) fn new(
        client: &'a Client,
        queue: &'a Queue<W>,
        shared: &'a Shared<'a>,
        job: usize,
    ) -> Self {
        let (again, later, alone, to_do) = (VecDeque::new(), VecDeque::new(), None, None);
        Self { client, queue, shared, job, again, later, alone, to_do, done: 0, had_line: false }
    }

    /// The connection in `line`, made if there is none.
    pub(super) fn open<'l>(
        &mut self,
        line: &'l mut Option<Line>,
    ) -> Result<&'l mut Line, ClientError> {
        let open = self.client.open(line)?;
        self.had_line = true;
        Ok(open)
    }

    /// Whether no file waits here for its turn.
    pub(super) fn is_empty(&self) -> bool {
        self.again.is_empty() && self.later.is_empty()
    }

    /// What comes next, of this worker's or from the queue; `awaits` says whether something is
    /// awaited on its line.
    pub(super) fn next(&mut self, awaits: bool) -> Result<Next<W::File, W::Job>, ClientError> {
        if let Some(file) = self.again.pop_front() {
            return Ok(Next::File(file));
        }
        let own = match (awaits, self.later.is_empty()) {
            (true, _) => Own::Awaited,
            (false, false) => Own::Left,
            (false, true) => Own::Nothing,
        };
        self.queue.next(own, self.shared, &self.client.options.stop)
    }

    /// The server, or this side, does not want this file; the line is in step.
    pub(super) fn failed(&mut self, mut file: W::File, error: &ClientError) {
        let tries = file.tries();
        if error.is_busy()
            && tries.busy_since.get_or_insert_with(Instant::now).elapsed() < BUSY_PATIENCE
        {
            return self.later.push_back(file);
        }
        tries.failed += 1;
        if tries.failed < FILE_TRIES_MAX {
            match error {
                ClientError::Broken(_) => return self.again.push_back(file),
                ClientError::Unsettled(_) => return self.later.push_back(file),
                _ => {}
            }
        }
        self.done += 1;
        self.shared.failed(self.job, bytes(&file.shown()), error);
    }

    /// All files that wait here, and the job.
    pub(super) fn hand_over(&mut self) -> (Vec<W::File>, Option<W::Job>) {
        let files = self.again.drain(..).chain(self.later.drain(..)).chain(self.alone.take());
        (files.collect(), self.to_do.take())
    }
}
