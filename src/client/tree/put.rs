//! One worker of an upload.
//!
//! Small files go ahead of their answers, one behind the other, each with all of its frames; whatever
//! the server says to one, it passes over what belongs to it and is in step for the next. What is sent
//! and what is answered go side by side: a server that has too many answers to give reads no further, and
//! a client that does not read them meanwhile would wait for ever.

use std::{collections::VecDeque, io::IoSlice, time::Instant};

use super::{
    TreeEvent,
    local::{LocalWalk, MakeDir, PutFile, bytes},
    queue::{Next, Own, Queue},
    shared::{OfJob, Shared},
    small::{self, Stream},
    worker::{Held, Worker},
};
use crate::{
    client::{
        Client, ClientError,
        line::Line,
        retry::{Again, Gain, sleep},
    },
    digest::{Engine, Md5Digest},
    limits::{
        BUSY_PATIENCE, BUSY_PAUSE, FILE_TRIES_MAX, PUT_BYTES_AHEAD_MAX, PUT_BYTES_AHEAD_MIN,
        PUT_BYTES_READY, PUTS_AHEAD_MAX, SMALL_FILE_BYTES,
    },
    store::Source,
    wire::{Code, Command, PutOffer, RemotePath, Reply},
};

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
    /// Files that somebody is writing, here or there: their turn comes when nothing else is left.
    later: VecDeque<PutFile>,
    /// One that has to wait until nothing is awaited.
    alone: Option<PutFile>,
    /// A directory that is this worker's to make.
    dir: Option<MakeDir>,
    /// Files that this worker is done with.
    done: u64,
    had_line: bool,
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
            later: VecDeque::new(),
            alone: None,
            dir: None,
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
                    let own = match (self.ahead.is_empty(), self.later.is_empty()) {
                        (false, _) => Own::Awaited,
                        (true, false) => Own::Left,
                        (true, true) => Own::Nothing,
                    };
                    match self.queue.next(own, self.shared, &self.client.options.stop)? {
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
            return Err(ClientError::Unsettled(text));
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
        self.shared.failed(self.job, bytes(&file.shown), error);
    }

    /// Makes a directory; what is in it is passed over if it can't be.
    fn make_dir(&mut self, dir: MakeDir, line: &mut Option<Line>) -> Result<(), ClientError> {
        let made = self.open(line).and_then(|line| make_dir(line, &dir.remote));
        match made {
            Ok(()) => self.queue.job_done(|walk| walk.made(dir)),
            Err(error) if error.is_of_one_file() => {
                let name = dir.remote.to_string();
                self.shared.folder_failed(self.job, name.as_bytes(), &error);
                self.queue.job_done(|_| ());
            }
            Err(error) => {
                self.dir = Some(dir);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Puts a file as [`Client::put`] does.
    fn put_alone(&mut self, file: PutFile) -> Result<(), ClientError> {
        self.shared.tell(self.job, TreeEvent::Begin { name: bytes(&file.shown) });
        let mut observer = OfJob { shared: self.shared, job: self.job };
        // The very file that is open, whatever has its name now.
        let open = || Source::of_file(file.open()?);
        let put = self.client.put_opened(
            Again::AfterBreaks,
            open,
            &file.shown,
            &file.remote,
            &mut observer,
        );
        match put {
            Ok(done) => {
                self.done += 1;
                // Its bytes were counted as they went.
                let moved = (!done.unchanged).then_some(0);
                self.shared.done(self.job, bytes(&file.shown), done.size, moved);
                Ok(())
            }
            Err(error) if error.is_of_one_file() => {
                self.failed(file, &error);
                Ok(())
            }
            Err(error) => {
                self.alone = Some(file);
                Err(error)
            }
        }
    }
}

/// Makes a directory, unless it is there. What has its name may be something else: it is asked for
/// along with it, so that nothing waits for a second answer.
fn make_dir(line: &mut Line, path: &RemotePath) -> Result<(), ClientError> {
    let make = Command::MakeDir { path: path.clone() }.summed();
    let look = Command::Stat { path: path.clone() }.summed();
    line.send(format!("{make}\n{look}\n").as_bytes())?;
    let mut read = || match line.read_reply() {
        Ok(reply) if reply.code.closes() => Err(ClientError::from_reply(reply)),
        reply => reply,
    };
    let (made, there) = (read()?, read()?);
    match made.code {
        Code::Done => Ok(()),
        // Who may not look is believed to know what is there.
        Code::Exists if there.code != Code::Done || there.field("kind") == Some("d") => Ok(()),
        Code::Exists => {
            let text = "something that is no folder has this name";
            Err(ClientError::Refused(Reply::text(Code::WrongKind, text)))
        }
        _ => Err(ClientError::from_reply(made)),
    }
}

impl Worker for PutWorker<'_> {
    type Walk = LocalWalk;

    fn attempt(&mut self, gain: &mut Gain) -> Result<(), ClientError> {
        self.begin_anew();
        let mut line = None;
        loop {
            gain.reached(self.done);
            let more = self.fill(&mut line)?;
            if !self.ahead.is_empty() {
                let line = self.open(&mut line)?;
                let exchanged = self.exchange(line, more);
                gain.reached(self.done);
                exchanged?;
            } else if self.alone.is_some() {
                self.open(&mut line)?;
                line.take().into_iter().for_each(|line| self.client.keep(line));
                if let Some(file) = self.alone.take() {
                    self.put_alone(file)?;
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

    fn hand_over(&mut self) -> Held<LocalWalk> {
        self.begin_anew();
        let files = self.again.drain(..).chain(self.later.drain(..)).chain(self.alone.take());
        (files.collect(), self.dir.take())
    }

    fn had_line(&self) -> bool {
        self.had_line
    }
}
