//! One worker of a download: a line on which small files are asked for ahead.
//!
//! `get`, `402` and `226` of each are sent before the answers to earlier ones have come: a server takes a
//! line only where it fits, so that each waits for its turn. The `226` is a word for the
//! server's log, said ahead: what counts here is the comparison, and a file that came out wrong is
//! got once more on its own. Where a `get` is refused, or its stream aborted, the `402` is passed
//! over and the `226` answered with `404`, as any word that is no command.

use std::{collections::VecDeque, path::Path, sync::Arc};

use super::{
    group::{Group, Received},
    held::{File, Held},
    local::bytes,
    remote::{GetFile, List, Listed, RemoteWalk},
    small::{self, Streamed},
    worker::Worker,
};
use crate::{
    client::{ClientError, Observer, Transferred, get::Destination, line::Line, retry::Again},
    digest::Engine,
    limits::{AHEAD_BYTES_MAX, FILE_TRIES_MAX, GETS_AHEAD_MAX, SMALL_FILE_BYTES},
    wire::{Code, Command, Mtime},
};

/// What is said behind each `get`: there is nothing of it here; it is identical.
const AHEAD: &str = "\n402\n226\n";

pub(super) struct GetWorker<'a> {
    held: Held<'a, RemoteWalk>,
    group: Group<'a>,
    engine: Engine,
    /// Files that were asked for, in the order of their answers, and the bytes of their lines.
    ahead: VecDeque<(GetFile, usize)>,
}

/// What came of a file that was asked for ahead.
enum Got {
    Content(Vec<u8>, Mtime),
    /// It has to be got on its own.
    Spoiled,
    Refused(ClientError),
}

impl<'a> GetWorker<'a> {
    pub(super) fn new(held: Held<'a, RemoteWalk>, group: Group<'a>) -> Self {
        Self { held, group, engine: Engine::new(), ahead: VecDeque::new() }
    }

    /// Asks for as many files as may be asked for ahead.
    fn ask(&mut self, line: &mut Option<Line>) -> Result<(), ClientError> {
        let mut lines = String::new();
        let mut waiting: usize = self.ahead.iter().map(|(_, length)| length).sum();
        while self.ahead.len() < GETS_AHEAD_MAX
            && waiting < AHEAD_BYTES_MAX
            && self.held.alone.is_none()
        {
            let awaits = !self.ahead.is_empty();
            if !awaits && self.held.is_empty() {
                // It may have to wait for the others.
                self.group.flush();
            }
            let Some(file) = self.next(line, awaits)? else {
                break;
            };
            if file.folder.has(file.name.as_bytes(), file.size, file.mtime) {
                self.held.done += 1;
                self.held.shared.done(self.held.job, bytes(&file.shown()), file.size, None);
                continue;
            }
            if file.alone || file.size > SMALL_FILE_BYTES {
                self.held.alone = Some(file);
                break;
            }
            let digest = self.held.client.options.digest;
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
        self.held.open(line)?.send(lines.as_bytes())
    }

    /// Takes the answer for the file that was asked for first.
    fn receive_next(&mut self, line: &mut Line) -> Result<(), ClientError> {
        let got = self.receive(line)?;
        let Some((mut file, _)) = self.ahead.pop_front() else {
            return Ok(());
        };
        match got {
            Got::Content(content, mtime) => {
                self.held.done += 1;
                self.group.push(Received { file, mtime, content });
            }
            Got::Spoiled => {
                file.alone = true;
                self.held.again.push_back(file);
            }
            Got::Refused(error) => self.held.failed(file, &error),
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
        let received = small::receive(line, size, self.held.client.options.digest, &self.engine);
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
}

impl<'a> Worker<'a> for GetWorker<'a> {
    type Walk = RemoteWalk;

    fn held(&mut self) -> &mut Held<'a, RemoteWalk> {
        &mut self.held
    }

    fn take_back(&mut self) {
        while let Some((file, _)) = self.ahead.pop_back() {
            self.held.again.push_front(file);
        }
    }

    /// Reads a part of a listing.
    fn do_job(&mut self, mut list: List, line: &mut Option<Line>) -> Result<(), ClientError> {
        // What is there by now need not wait for what is listed.
        self.group.flush();
        let read = self.held.open(line).and_then(|line| list.read(line));
        let listed = match read {
            Ok(listed) => listed,
            Err(error) if error.is_of_one_file() => {
                // Nobody knows where the line stands.
                *line = None;
                list.tries += 1;
                if matches!(error, ClientError::Unsettled(_)) && list.tries < FILE_TRIES_MAX {
                    self.held.to_do = Some(list);
                    return Err(ClientError::Broken(error.to_string()));
                }
                let name = list.path().as_bytes();
                self.held.shared.folder_failed(self.held.job, name, &error);
                Listed::default()
            }
            Err(error) => {
                self.held.to_do = Some(list);
                return Err(error);
            }
        };
        self.held.queue.job_done(|walk| walk.listed(listed));
        Ok(())
    }

    fn advance(&mut self, line: &mut Option<Line>) -> Result<bool, ClientError> {
        if self.ahead.len() <= GETS_AHEAD_MAX / 2 {
            self.ask(line)?;
        }
        if self.ahead.is_empty() {
            return Ok(false);
        }
        let line = self.held.open(line)?;
        self.receive_next(line)?;
        Ok(true)
    }

    fn move_alone(
        &mut self,
        file: &GetFile,
        shown: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Transferred, ClientError> {
        self.group.flush();
        let root = file.folder.root().map_err(|error| ClientError::local(shown, error))?;
        let (root, name) = (&Arc::new(root), &file.name);
        let place = Destination { root, name, here: None, again: Again::AfterBreaks };
        self.held.client.get_beneath(&file.remote, place, shown, observer)
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
