//! One worker of a download: a line on which small files are asked for ahead.
//!
//! `get`, `402` and `226` of each are sent before the answers to earlier ones have come: a server takes a
//! line only where it fits, so that each waits for its turn. The `226` is a word for the
//! server's log, said ahead: what counts here is the comparison, and a file that came out wrong is
//! got once more on its own. Where a `get` is refused, or its stream aborted, the `402` is passed
//! over and the `226` answered with `404`, as any word that is no command.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::{
    TreeEvent,
    group::{Group, Received},
    local::bytes,
    queue::{Next, Own, Queue},
    remote::{GetFile, List, Listed, RemoteWalk},
    shared::{OfJob, Shared},
    small::{self, Streamed},
    worker::{Held, Worker},
};
use crate::{
    client::{
        Client, ClientError,
        get::Destination,
        line::Line,
        retry::{Again, Gain, sleep},
    },
    digest::Engine,
    limits::{
        AHEAD_BYTES_MAX, BUSY_PATIENCE, BUSY_PAUSE, FILE_TRIES_MAX, GETS_AHEAD_MAX,
        SMALL_FILE_BYTES,
    },
    wire::{Code, Command, Mtime},
};

/// What is said behind each `get`: there is nothing of it here; it is identical.
const AHEAD: &str = "\n402\n226\n";

pub(super) struct GetWorker<'a> {
    client: &'a Client,
    queue: &'a Queue<RemoteWalk>,
    shared: &'a Shared<'a>,
    job: usize,
    group: Group<'a>,
    engine: Engine,
    /// Files that were asked for, in the order of their answers, and the bytes of their lines.
    ahead: VecDeque<(GetFile, usize)>,
    /// Files to be tried once more.
    again: VecDeque<GetFile>,
    /// Files that somebody is writing, here or there: their turn comes when nothing else is left.
    later: VecDeque<GetFile>,
    /// One that has to wait for the answers.
    alone: Option<GetFile>,
    /// A listing that is this worker's to read.
    list: Option<List>,
    /// Files that this worker is done with.
    done: u64,
    had_line: bool,
}

/// What came of a file that was asked for ahead.
enum Got {
    Content(Vec<u8>, Mtime),
    /// It has to be got on its own.
    Spoiled,
    Refused(ClientError),
}

impl<'a> GetWorker<'a> {
    pub(super) fn new(
        client: &'a Client,
        queue: &'a Queue<RemoteWalk>,
        shared: &'a Shared<'a>,
        group: Group<'a>,
        job: usize,
    ) -> Self {
        Self {
            client,
            queue,
            shared,
            job,
            group,
            engine: Engine::new(),
            ahead: VecDeque::new(),
            again: VecDeque::new(),
            later: VecDeque::new(),
            alone: None,
            list: None,
            done: 0,
            had_line: false,
        }
    }

    /// The connection in `line`, made if there is none.
    fn open<'l>(&mut self, line: &'l mut Option<Line>) -> Result<&'l mut Line, ClientError> {
        let open = self.client.open(line)?;
        self.had_line = true;
        Ok(open)
    }

    /// What was asked for on a line that broke is asked for again.
    fn begin_anew(&mut self) {
        while let Some((file, _)) = self.ahead.pop_back() {
            self.again.push_front(file);
        }
    }

    /// Asks for as many files as may be asked for ahead.
    fn ask(&mut self, line: &mut Option<Line>) -> Result<(), ClientError> {
        let mut lines = String::new();
        let mut waiting: usize = self.ahead.iter().map(|(_, length)| length).sum();
        while self.ahead.len() < GETS_AHEAD_MAX && waiting < AHEAD_BYTES_MAX && self.alone.is_none()
        {
            let Some(file) = self.next(line)? else {
                break;
            };
            if file.folder.has(file.name.as_bytes(), file.size, file.mtime) {
                self.done += 1;
                self.shared.done(self.job, bytes(&file.shown()), file.size, None);
                continue;
            }
            if file.alone || file.size > SMALL_FILE_BYTES {
                self.alone = Some(file);
                break;
            }
            let digest = self.client.options.digest;
            let command = Command::Get { path: file.remote.clone(), digest }.summed();
            let length = command.len() + AHEAD.len();
            lines.push_str(&command);
            lines.push_str(AHEAD);
            waiting += length;
            self.ahead.push_back((file, length));
        }
        if lines.is_empty() {
            return Ok(());
        }
        self.open(line)?.send(lines.as_bytes())
    }

    /// The next file to be asked for, if there is one by now.
    fn next(&mut self, line: &mut Option<Line>) -> Result<Option<GetFile>, ClientError> {
        loop {
            // Comes up only where nothing is awaited, also after a break.
            if let Some(list) = self.list.take() {
                self.list(list, line)?;
            }
            if let Some(file) = self.again.pop_front() {
                return Ok(Some(file));
            }
            let own = match (self.ahead.is_empty(), self.later.is_empty()) {
                (false, _) => Own::Awaited,
                (true, false) => Own::Left,
                (true, true) => Own::Nothing,
            };
            if own == Own::Nothing {
                // It may have to wait for the others.
                self.group.flush();
            }
            match self.queue.next(own, self.shared, &self.client.options.stop)? {
                Next::File(file) => return Ok(Some(file)),
                Next::Job(list) => self.list = Some(list),
                Next::NotNow | Next::End => return Ok(None),
            }
        }
    }

    /// Reads a part of a listing.
    fn list(&mut self, mut list: List, line: &mut Option<Line>) -> Result<(), ClientError> {
        // What is there by now need not wait for what is listed.
        self.group.flush();
        let read = self.open(line).and_then(|line| list.read(line));
        let listed = match read {
            Ok(listed) => listed,
            Err(error) if error.is_of_one_file() => {
                // Nobody knows where the line stands.
                *line = None;
                list.tries += 1;
                if matches!(error, ClientError::Unsettled(_)) && list.tries < FILE_TRIES_MAX {
                    self.list = Some(list);
                    return Err(ClientError::Broken(error.to_string()));
                }
                let name = list.path().as_bytes();
                self.shared.folder_failed(self.job, name, &error);
                Listed::default()
            }
            Err(error) => {
                self.list = Some(list);
                return Err(error);
            }
        };
        self.queue.job_done(|walk| walk.listed(listed));
        Ok(())
    }

    /// Takes the answer for the file that was asked for first.
    fn receive_next(&mut self, line: &mut Line) -> Result<(), ClientError> {
        let got = self.receive(line)?;
        let Some((mut file, _)) = self.ahead.pop_front() else {
            return Ok(());
        };
        match got {
            Got::Content(content, mtime) => {
                self.done += 1;
                self.group.push(Received { file, mtime, content });
            }
            Got::Spoiled => {
                file.alone = true;
                self.again.push_back(file);
            }
            Got::Refused(error) => self.refused(file, &error),
        }
        Ok(())
    }

    fn receive(&mut self, line: &mut Line) -> Result<Got, ClientError> {
        let reply = line.read_reply()?;
        if reply.code.closes() {
            return Err(ClientError::from_reply(reply));
        }
        if reply.code != Code::Found {
            let error = ClientError::from_reply(reply);
            pass_over_verdict(line)?;
            return Ok(Got::Refused(error));
        }
        let (size, mtime) = (reply.bytes("size")?, reply.get("mtime")?);
        let Some(size) = usize::try_from(size).ok().filter(|_| size <= SMALL_FILE_BYTES) else {
            if let Some((file, _)) = self.ahead.front_mut() {
                file.alone = true;
            }
            return Err(ClientError::Broken("a file grew since it was listed".to_owned()));
        };
        let reply = line.read_reply()?;
        if reply.code != Code::Continue {
            return Err(ClientError::unexpected(&reply));
        }
        let received = small::receive(line, size, self.client.options.digest, &self.engine);
        match received.inspect_err(|error| self.blame(error))? {
            Streamed::Whole(content) => Ok(Got::Content(content, mtime)),
            Streamed::Spoiled => Ok(Got::Spoiled),
            Streamed::Aborted(reply) => {
                pass_over_verdict(line)?;
                Ok(Got::Refused(ClientError::from_reply(reply)))
            }
        }
    }

    /// A stream that makes no sense is not asked for ahead again.
    fn blame(&mut self, error: &ClientError) {
        if let (ClientError::Verification(_), Some((file, _))) = (error, self.ahead.front_mut()) {
            file.alone = true;
        }
    }

    /// The server, or this side, does not want this file; the line is in step.
    fn refused(&mut self, mut file: GetFile, error: &ClientError) {
        if error.is_busy()
            && file.busy_since.get_or_insert_with(Instant::now).elapsed() < BUSY_PATIENCE
        {
            self.later.push_back(file);
            return;
        }
        file.tries += 1;
        if file.tries < FILE_TRIES_MAX {
            match error {
                ClientError::Broken(_) => return self.again.push_back(file),
                ClientError::Unsettled(_) => return self.later.push_back(file),
                _ => {}
            }
        }
        self.done += 1;
        self.shared.failed(self.job, bytes(&file.shown()), error);
    }

    /// Gets a file as [`Client::get`] does.
    fn get_alone(&mut self, file: GetFile) -> Result<(), ClientError> {
        self.group.flush();
        let shown = file.shown();
        self.shared.tell(self.job, TreeEvent::Begin { name: bytes(&shown) });
        let mut observer = OfJob { shared: self.shared, job: self.job };
        let got = file
            .folder
            .root()
            .map_err(|error| ClientError::Local { what: shown.display().to_string(), error })
            .and_then(|root| {
                let (root, name) = (&Arc::new(root), &file.name);
                let place = Destination { root, name, here: None, again: Again::AfterBreaks };
                self.client.get_beneath(&file.remote, place, &shown, &mut observer)
            });
        match got {
            Ok(done) => {
                self.done += 1;
                // Its bytes were counted as they came.
                self.shared.done(self.job, bytes(&shown), done.size, Some(0));
                Ok(())
            }
            Err(error) if error.is_of_one_file() => {
                self.refused(file, &error);
                Ok(())
            }
            Err(error) => {
                self.alone = Some(file);
                Err(error)
            }
        }
    }
}

impl Worker for GetWorker<'_> {
    type Walk = RemoteWalk;

    fn attempt(&mut self, gain: &mut Gain) -> Result<(), ClientError> {
        self.begin_anew();
        let mut line = None;
        loop {
            if self.ahead.len() <= GETS_AHEAD_MAX / 2 {
                self.ask(&mut line)?;
            }
            gain.reached(self.done);
            if !self.ahead.is_empty() {
                let line = self.open(&mut line)?;
                self.receive_next(line)?;
            } else if self.alone.is_some() {
                self.open(&mut line)?;
                line.take().into_iter().for_each(|line| self.client.keep(line));
                if let Some(file) = self.alone.take() {
                    self.get_alone(file)?;
                }
            } else if !self.later.is_empty() {
                sleep(BUSY_PAUSE, &self.client.options.stop)?;
                self.again.append(&mut self.later);
            } else {
                break;
            }
        }
        line.into_iter().for_each(|line| self.client.keep(line));
        Ok(())
    }

    fn hand_over(&mut self) -> Held<RemoteWalk> {
        self.begin_anew();
        let files = self.again.drain(..).chain(self.later.drain(..)).chain(self.alone.take());
        (files.collect(), self.list.take())
    }

    fn had_line(&self) -> bool {
        self.had_line
    }
}

/// The `226` that was said ahead stood where a command was awaited.
fn pass_over_verdict(line: &mut Line) -> Result<(), ClientError> {
    let reply = line.read_reply()?;
    if reply.code == Code::UnknownCommand {
        return Ok(());
    }
    Err(ClientError::unexpected(&reply))
}
