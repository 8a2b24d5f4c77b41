//! One worker of an upload.
//!
//! Small files go ahead of their answers, one behind the other, each with all of its frames; whatever
//! the server says to one, it passes over what belongs to it and is in step for the next. What is sent
//! and what is answered go side by side: a server that has too many answers to give reads no further, and
//! a client that does not read them meanwhile would wait for ever.

use std::{
    collections::VecDeque,
    io::IoSlice,
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
    limits::{
        FILE_TRIES_MAX, HOLDER_SILENT, PUT_BYTES_AHEAD_MAX, PUT_BYTES_AHEAD_MIN, PUT_BYTES_READY,
        PUTS_AHEAD_MAX, SMALL_FILE_BYTES,
    },
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
    /// Files that were sent, or are about to be; the answer to the first one comes next.
    ahead: VecDeque<Sent>,
    /// What is said of them, in bytes.
    ahead_bytes: usize,
    /// How much may be said ahead. It grows with the answers, so that a line which breaks all the time
    /// brings something each time.
    window_bytes: usize,
    /// What is to be sent.
    output: Vec<u8>,
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

/// A small file that is on its way.
struct Sent {
    file: PutFile,
    size: u64,
    /// What is said of it, in bytes.
    length: usize,
    /// What the server has to find as well.
    root: Md5Digest,
}

enum Prepared {
    /// A file, and all that is said of it.
    Small(Box<(Sent, Vec<u8>)>),
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
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            window_bytes: PUT_BYTES_AHEAD_MIN,
            output: Vec::new(),
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
        self.begin_anew();
        let mut line = None;
        loop {
            gain.reached(self.done);
            let more = self.fill(&mut line)?;
            if !self.ahead.is_empty() {
                self.exchange(self.client.open(&mut line)?, more)?;
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

    /// What was sent on a line that broke, and not answered, is sent again.
    fn begin_anew(&mut self) {
        self.output.clear();
        (self.ahead_bytes, self.window_bytes) = (0, PUT_BYTES_AHEAD_MIN);
        while let Some(mut sent) = self.ahead.pop_back() {
            sent.file.sent = true;
            self.again.push_front(sent.file);
        }
    }

    /// Prepares files to be sent, when there are not many left that were. Returns whether there may be
    /// more once these are.
    fn fill(&mut self, line: &mut Option<Line>) -> Result<bool, ClientError> {
        if self.ahead.len() > PUTS_AHEAD_MAX / 2 || self.ahead_bytes > self.window_bytes / 2 {
            return Ok(false);
        }
        while self.ahead.len() < PUTS_AHEAD_MAX && self.ahead_bytes < self.window_bytes {
            if self.output.len() >= PUT_BYTES_READY {
                return Ok(true);
            }
            let Some((sent, bytes)) = self.take(line)? else {
                return Ok(false);
            };
            self.ahead_bytes += sent.length;
            self.output.extend_from_slice(&bytes);
            self.ahead.push_back(sent);
        }
        Ok(false)
    }

    /// The next small file, if there is one by now. Where nothing is awaited, what stands before
    /// it is done.
    fn take(&mut self, line: &mut Option<Line>) -> Result<Option<(Sent, Vec<u8>)>, ClientError> {
        while self.alone.is_none() {
            if let Some(dir) = self.dir.take() {
                self.make_dir(dir, line)?;
            }
            let file = match self.again.pop_front() {
                Some(file) => file,
                None => {
                    let idle = self.ahead.is_empty();
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
                Ok(Prepared::Small(small)) => return Ok(Some(*small)),
                Ok(Prepared::Large(file)) => self.alone = Some(file),
                Err(error) => self.failed(file, &error),
            }
        }
        Ok(None)
    }

    /// Reads a file, if it is small.
    fn prepare(&self, file: &PutFile) -> Result<Prepared, ClientError> {
        if file.alone {
            return Ok(Prepared::Large(file.clone()));
        }
        let local = |error| file.local_error(error);
        let Some(content) = file.read(SMALL_FILE_BYTES).map_err(local)? else {
            return Ok(Prepared::Large(file.clone()));
        };
        let identity = content.identity;
        let Some(content) = content.bytes else {
            let text = format!("{} changed while it was read", file.shown.display());
            return Err(ClientError::Broken(text));
        };
        let digest = self.client.options.digest;
        let stream = small::stream(&content, digest, &self.engine);
        let no_stream = || ClientError::Broken("a stream without an end".to_owned());
        let Stream { frames, root } = stream.ok_or_else(no_stream)?;
        let offer = PutOffer {
            path: file.remote.clone(),
            size: identity.size,
            mtime: identity.mtime,
            tag: identity.tag(),
            owner: self.client.owner,
            digest,
            ahead: true,
        };
        let mut bytes = format!("{}\n", Command::Put(offer).summed()).into_bytes();
        bytes.extend_from_slice(&frames);
        let (size, length) = (identity.size, bytes.len());
        let sent = Sent { file: file.clone(), size, length, root };
        Ok(Prepared::Small(Box::new((sent, bytes))))
    }

    /// Sends what the line takes, and reads what was answered. Does not wait for an answer if there
    /// is more to be sent.
    fn exchange(&mut self, line: &mut Line, more: bool) -> Result<(), ClientError> {
        if !self.output.is_empty() {
            let written = line.write(&[IoSlice::new(&self.output)])?;
            self.output.drain(..written);
            let ready = if self.output.is_empty() { line.ready_now()? } else { line.wait_ready()? };
            if !ready.readable && (more || !self.output.is_empty()) {
                return Ok(());
            }
        }
        let mut reply = line.read_reply()?;
        loop {
            self.answered(reply)?;
            if self.ahead.is_empty() || !line.has_line() {
                return Ok(());
            }
            reply = line.read_reply()?;
        }
    }

    /// The answer to the first of the files that were sent.
    fn answered(&mut self, reply: Reply) -> Result<(), ClientError> {
        if reply.code.closes() {
            return Err(ClientError::from_reply(reply));
        }
        let Some(root) = self.ahead.front().map(|sent| sent.root) else {
            return Err(ClientError::unexpected(&reply));
        };
        let is_there = matches!(reply.code, Code::Identical | Code::NothingLeft);
        if is_there && reply.get::<Md5Digest>("root")? != root {
            return Err(ClientError::unexpected(&reply));
        }
        let Some(Sent { mut file, size, length, .. }) = self.ahead.pop_front() else {
            return Ok(());
        };
        self.ahead_bytes -= length;
        self.window_bytes = (self.window_bytes + length).min(PUT_BYTES_AHEAD_MAX);
        if is_there {
            self.done += 1;
            // One that this very call sent, whose verdict was lost with the line, was not there.
            let moved = (reply.code == Code::Identical || file.sent).then_some(size);
            self.shared.done(self.job, bytes(&file.shown), size, moved);
        } else if reply.code == Code::Differs {
            // Only what was spoiled need come again then.
            file.alone = true;
            self.again.push_back(file);
        } else if reply.code == Code::UnknownCommand {
            self.failed(file, &ClientError::unexpected(&reply));
        } else {
            self.failed(file, &ClientError::from_reply(reply));
        }
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
