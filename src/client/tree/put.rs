//! One worker of an upload.
//!
//! The `put` of the next small file goes right behind the last frame of the one before, so that its
//! answer comes with the other's verdict: one round trip for each file. Its frames can't go ahead:
//! were it refused, the server would take them for commands.

use std::{
    collections::VecDeque,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use super::{
    TreeEvent,
    get::is_of_this,
    local::{LocalWalk, MakeDir, PutFile, bytes},
    queue::{Next, Queue},
    shared::{OfJob, Shared},
    small::{self, Stream},
};
use crate::{
    client::{
        Client, ClientError,
        line::Line,
        retry::{Gain, sleep},
    },
    digest::{Engine, Md5Digest},
    limits::{FILE_TRIES_MAX, HOLDER_SILENT, SMALL_FILE_BYTES},
    store::{Source, StoreError},
    wire::{Code, Command, PutOffer, Reply},
};

/// How long to wait for another client to end: until one that is dead may be replaced.
const BUSY_PATIENCE: Duration = HOLDER_SILENT.saturating_add(Duration::from_secs(5));

/// How often to look whether it has.
const BUSY_PAUSE: Duration = Duration::from_millis(500);

pub(super) struct PutWorker<'a> {
    client: &'a Client,
    queue: &'a Queue<LocalWalk>,
    shared: &'a Shared<'a>,
    job: usize,
    engine: Engine,
    /// The file whose answer comes next.
    current: Option<Offered>,
    /// The one whose command was sent behind it.
    next: Option<Offered>,
    /// Files to be tried once more.
    again: VecDeque<PutFile>,
    /// Files that somebody else is writing.
    busy: VecDeque<PutFile>,
    /// One that has to wait until nothing is awaited.
    alone: Option<PutFile>,
    /// A directory that is this worker's to make.
    dir: Option<MakeDir>,
    /// Files that this worker is done with.
    done: u64,
}

/// A small file that is, or will be, offered.
struct Offered {
    file: PutFile,
    command: String,
    size: u64,
    stream: Stream,
}

enum Prepared {
    Small(Box<Offered>),
    Large(PutFile),
}

impl<'a> PutWorker<'a> {
    pub(super) fn new(
        client: &'a Client,
        queue: &'a Queue<LocalWalk>,
        shared: &'a Shared<'a>,
        job: usize,
    ) -> Self {
        Self {
            client,
            queue,
            shared,
            job,
            engine: Engine::new(),
            current: None,
            next: None,
            again: VecDeque::new(),
            busy: VecDeque::new(),
            alone: None,
            dir: None,
            done: 0,
        }
    }

    /// Works until there is nothing left.
    pub(super) fn run(&mut self) -> Result<(), ClientError> {
        let mut observer = OfJob { shared: self.shared, job: self.job };
        self.client.retry(&mut observer, |_, gain| self.attempt(gain)).map(drop)
    }

    /// Over one line.
    fn attempt(&mut self, gain: &mut Gain) -> Result<(), ClientError> {
        // What was offered on a line that broke.
        for offered in [self.next.take(), self.current.take()].into_iter().flatten() {
            self.again.push_front(offered.file);
        }
        let mut line = None;
        loop {
            gain.reached(self.done);
            if self.current.is_some() {
                self.exchange(self.client.open(&mut line)?)?;
                continue;
            }
            if let Some(offered) = self.take(&mut line)? {
                let command = format!("{}\n", offered.command);
                self.current = Some(offered);
                self.client.open(&mut line)?.send(command.as_bytes())?;
            } else if let Some(file) = self.alone.take() {
                line.take().into_iter().for_each(|line| self.client.keep(line));
                self.put_alone(file)?;
            } else if !self.busy.is_empty() {
                sleep(BUSY_PAUSE, &self.client.options.stop)?;
                self.again.append(&mut self.busy);
            } else {
                break;
            }
        }
        line.into_iter().for_each(|line| self.client.keep(line));
        Ok(())
    }

    /// The next small file, if there is one by now. Where nothing is awaited, what stands before
    /// it is done.
    fn take(&mut self, line: &mut Option<Line>) -> Result<Option<Offered>, ClientError> {
        while self.alone.is_none() {
            if let Some(dir) = self.dir.take() {
                self.make_dir(dir, line)?;
            }
            let file = match self.again.pop_front() {
                Some(file) => file,
                None => {
                    let idle = self.current.is_none();
                    match self.queue.next(idle, self.shared, &self.client.options.stop)? {
                        Next::File(file) => file,
                        Next::Job(dir) => {
                            self.dir = Some(dir);
                            continue;
                        }
                        Next::NotNow | Next::End => return Ok(None),
                    }
                }
            };
            match self.prepare(&file) {
                Ok(Prepared::Small(offered)) => return Ok(Some(*offered)),
                Ok(Prepared::Large(file)) => self.alone = Some(file),
                Err(error) => self.failed(file, &error),
            }
        }
        Ok(None)
    }

    /// Reads a file, if it is small.
    fn prepare(&self, file: &PutFile) -> Result<Prepared, ClientError> {
        let local = |error| file.local_error(error);
        let source = source(&file.open().map_err(local)?).map_err(local)?;
        let identity = *source.identity();
        if identity.size > SMALL_FILE_BYTES {
            return Ok(Prepared::Large(file.clone()));
        }
        let mut content = vec![0; usize::try_from(identity.size).unwrap_or(0)];
        let have = source.read(0, &mut content).map_err(local)?;
        if have < content.len() || !source.is_unchanged() {
            let text = format!("{} changed while it was read", file.shown.display());
            return Err(ClientError::Broken(text));
        }
        let digest = self.client.options.digest;
        let stream = small::stream(&content, digest, &self.engine);
        let no_stream = || ClientError::Broken("a stream without an end".to_owned());
        let offer = PutOffer {
            path: file.remote.clone(),
            size: identity.size,
            mtime: identity.mtime,
            tag: identity.tag(),
            owner: self.client.owner,
            digest,
        };
        Ok(Prepared::Small(Box::new(Offered {
            command: Command::Put(offer).summed(),
            size: identity.size,
            stream: stream.ok_or_else(no_stream)?,
            file: file.clone(),
        })))
    }

    /// From the answer to the current file's `put` to its end.
    fn exchange(&mut self, line: &mut Line) -> Result<(), ClientError> {
        let mut reply = line.read_reply()?;
        let Some(root) = self.current.as_ref().map(|it| it.stream.root) else {
            return Ok(());
        };
        if reply.code == Code::NothingLeft {
            let theirs: Md5Digest = reply.get("root")?;
            if theirs == root {
                return self.agree(line);
            }
        }
        if matches!(reply.code, Code::NothingLeft | Code::Have) {
            // What it has of so small a file is not worth a word.
            line.send_line(&Reply::new(Code::Nothing))?;
            reply = line.read_reply()?;
        }
        if reply.code != Code::Nothing {
            return self.refused(reply);
        }
        self.offer_next()?;
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        current.file.sent = true;
        let begin = Reply::new(Code::Continue).with("offset", 0).with("length", current.size);
        let mut bytes = format!("{begin}\n").into_bytes();
        bytes.extend_from_slice(&current.stream.frames);
        if let Some(next) = &self.next {
            bytes.extend_from_slice(format!("{}\n", next.command).as_bytes());
        }
        line.send(&bytes)?;
        let verdict = line.read_reply()?;
        match verdict.code {
            Code::Identical if verdict.get::<Md5Digest>("root")? == root => {
                self.is_there(true);
                Ok(())
            }
            // It awaits frames again, and has a command coming.
            Code::Differs if verdict.field("want").is_some() => {
                Err(ClientError::Broken("the line spoiled a file".to_owned()))
            }
            Code::Identical => Err(ClientError::unexpected(&verdict)),
            _ => self.refused(verdict),
        }
    }

    /// The server has this very file: says so as well.
    fn agree(&mut self, line: &mut Line) -> Result<(), ClientError> {
        self.offer_next()?;
        let mut bytes = format!("{}\n", Reply::new(Code::Identical));
        if let Some(next) = &self.next {
            bytes.push_str(&format!("{}\n", next.command));
        }
        line.send(bytes.as_bytes())?;
        let verdict = line.read_reply()?;
        if verdict.code != Code::Identical {
            return self.refused(verdict);
        }
        // One that this very call sent, whose verdict was lost with the line, was not there.
        let sent = self.current.as_ref().is_some_and(|current| current.file.sent);
        self.is_there(sent);
        Ok(())
    }

    /// Prepares the file whose command goes behind what is sent now.
    fn offer_next(&mut self) -> Result<(), ClientError> {
        self.next = self.take(&mut None)?;
        Ok(())
    }

    fn is_there(&mut self, moved: bool) {
        self.done += 1;
        if let Some(current) = self.current.take() {
            let moved = moved.then_some(current.size);
            self.shared.done(self.job, bytes(&current.file.shown), current.size, moved);
        }
        self.current = self.next.take();
    }

    /// The current file is not wanted, or not now. Where the connection goes on, so does the next.
    fn refused(&mut self, reply: Reply) -> Result<(), ClientError> {
        if reply.code.closes() {
            return Err(ClientError::from_reply(reply));
        }
        let error = ClientError::from_reply(reply);
        if let Some(current) = self.current.take() {
            self.failed(current.file, &error);
        }
        self.current = self.next.take();
        Ok(())
    }

    fn failed(&mut self, mut file: PutFile, error: &ClientError) {
        let is_busy = matches!(error, ClientError::Refused(reply) if reply.code == Code::Busy);
        if is_busy && file.busy_since.get_or_insert_with(Instant::now).elapsed() < BUSY_PATIENCE {
            self.busy.push_back(file);
            return;
        }
        file.tries += 1;
        if matches!(error, ClientError::Broken(_)) && file.tries < FILE_TRIES_MAX {
            self.again.push_back(file);
            return;
        }
        self.done += 1;
        self.shared.failed(self.job, bytes(&file.shown), error);
    }

    /// Makes a directory; what is in it is passed over if it can't be.
    fn make_dir(&mut self, dir: MakeDir, line: &mut Option<Line>) -> Result<(), ClientError> {
        let command = Command::MakeDir { path: dir.remote.clone() };
        let answer = self.client.open(line).and_then(|line| {
            line.send_command(&command)?;
            line.read_reply()
        });
        let reply = match answer {
            Ok(reply) if !reply.code.closes() => reply,
            answer => {
                self.dir = Some(dir);
                return Err(answer.map_or_else(|error| error, ClientError::from_reply));
            }
        };
        if matches!(reply.code, Code::Done | Code::Exists) {
            self.queue.job_done(|walk| walk.made(dir));
        } else {
            let error = ClientError::from_reply(reply);
            self.shared.failed(self.job, bytes(&dir.shown), &error);
            self.queue.job_done(|_| ());
        }
        Ok(())
    }

    /// Puts a file as [`Client::put`] does.
    fn put_alone(&mut self, file: PutFile) -> Result<(), ClientError> {
        self.shared.tell(self.job, TreeEvent::Begin { name: bytes(&file.shown) });
        let mut observer = OfJob { shared: self.shared, job: self.job };
        let open = || source(&file.open()?);
        match self.client.put_opened(open, &file.shown, &file.remote, &mut observer) {
            Ok(done) => {
                self.done += 1;
                let moved = (!done.unchanged).then_some(done.moved);
                self.shared.done(self.job, bytes(&file.shown), done.size, moved);
                Ok(())
            }
            Err(error) if is_of_this(&error) => {
                self.failed(file, &error);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

/// An open file for the store: the very one, whatever has its name now.
fn source(file: &OwnedFd) -> Result<Source, StoreError> {
    Source::open_local(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
}
