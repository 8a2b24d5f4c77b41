//! One worker of an upload.
//!
//! Small files go ahead of their answers, one behind the other, each with all of its frames; whatever
//! the server says to one, it passes over what belongs to it and is in step for the next. What is sent
//! and what is answered go side by side: a server that has too many answers to give reads no further, and
//! a client that does not read them meanwhile would wait for ever.

use std::{collections::VecDeque, io::IoSlice, path::Path};

use super::{
    held::Held,
    local::{Content, LocalWalk, MakeDir, PutFile, bytes},
    small,
    worker::Worker,
};
use crate::{
    client::{ClientError, Observer, Transferred, line::Line, retry::Again},
    digest::{Engine, Md5Digest},
    limits::{
        PUT_BYTES_AHEAD_MAX, PUT_BYTES_AHEAD_MIN, PUT_BYTES_READY, PUTS_AHEAD_MAX, SMALL_FILE_BYTES,
    },
    wire::{Code, Command, PutOffer, RemotePath, Reply},
};

pub(super) struct PutWorker<'a> {
    held: Held<'a, LocalWalk>,
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
}

/// A small file that is on its way.
struct Sent {
    file: PutFile,
    said: Said,
}

/// What was said of a file.
struct Said {
    size: u64,
    /// In bytes.
    length: usize,
    /// What the server has to find as well.
    root: Md5Digest,
}

impl<'a> PutWorker<'a> {
    pub(super) fn new(held: Held<'a, LocalWalk>) -> Self {
        Self {
            held,
            engine: Engine::new(),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            window_bytes: PUT_BYTES_AHEAD_MIN,
            output: Vec::new(),
        }
    }

    /// Prepares files to be sent, when there are not many left that were. Returns whether there may be
    /// more once these are.
    fn fill(&mut self, line: &mut Option<Line>) -> Result<bool, ClientError> {
        if self.ahead.len() > PUTS_AHEAD_MAX / 2 || self.ahead_bytes > self.window_bytes / 2 {
            return Ok(false);
        }
        while self.held.alone.is_none()
            && self.ahead.len() < PUTS_AHEAD_MAX
            && self.ahead_bytes < self.window_bytes
        {
            if self.output.len() >= PUT_BYTES_READY {
                return Ok(true);
            }
            let Some(file) = self.next(line, !self.ahead.is_empty())? else {
                return Ok(false);
            };
            match self.say(&file) {
                Ok(Some(said)) => {
                    self.ahead_bytes += said.length;
                    self.ahead.push_back(Sent { file, said });
                }
                Ok(None) => self.held.alone = Some(file),
                Err(error) => self.held.failed(file, &error),
            }
        }
        Ok(false)
    }

    /// Adds a small file to what is to be sent; `None` if it has to be moved alone.
    fn say(&mut self, file: &PutFile) -> Result<Option<Said>, ClientError> {
        if file.alone {
            return Ok(None);
        }
        let content = file.read(SMALL_FILE_BYTES);
        let content = content.map_err(|error| ClientError::local(&file.shown, error))?;
        let Some(Content { identity, bytes }) = content else {
            return Ok(None);
        };
        let changed = || format!("{} changed while it was read", file.shown.display());
        let bytes = bytes.ok_or_else(|| ClientError::Unsettled(changed()))?;
        let digest = self.held.client.options.digest;
        let offer = PutOffer {
            path: file.remote.clone(),
            size: identity.size,
            mtime: identity.mtime,
            tag: identity.tag(),
            owner: self.held.client.owner,
            digest,
            ahead: true,
        };
        let before = self.output.len();
        self.output.extend(Command::Put(offer).summed().bytes());
        self.output.push(b'\n');
        let Some(root) = small::stream(&bytes, digest, &self.engine, &mut self.output) else {
            self.output.truncate(before);
            return Err(ClientError::Broken("a stream without an end".to_owned()));
        };
        Ok(Some(Said { size: identity.size, length: self.output.len() - before, root }))
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
        let Some(root) = self.ahead.front().map(|sent| sent.said.root) else {
            return Err(ClientError::unexpected(&reply));
        };
        let is_there = matches!(reply.code, Code::Identical | Code::NothingLeft);
        if is_there && reply.get::<Md5Digest>("root")? != root {
            return Err(ClientError::unexpected(&reply));
        }
        let Some(Sent { mut file, said: Said { size, length, .. } }) = self.ahead.pop_front()
        else {
            return Ok(());
        };
        self.ahead_bytes -= length;
        self.window_bytes = (self.window_bytes + length).min(PUT_BYTES_AHEAD_MAX);
        if is_there {
            self.held.done += 1;
            // One that this very call sent, whose verdict was lost with the line, was not there.
            let moved = (reply.code == Code::Identical || file.sent).then_some(size);
            self.held.shared.done(self.held.job, bytes(&file.shown), size, moved);
        } else if reply.code == Code::Differs {
            // Only what was spoiled need come again then.
            file.alone = true;
            self.held.again.push_back(file);
        } else if reply.code == Code::UnknownCommand {
            self.held.failed(file, &ClientError::unexpected(&reply));
        } else {
            self.held.failed(file, &ClientError::from_reply(reply));
        }
        Ok(())
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

impl<'a> Worker<'a> for PutWorker<'a> {
    type Walk = LocalWalk;

    fn held(&mut self) -> &mut Held<'a, LocalWalk> {
        &mut self.held
    }

    fn take_back(&mut self) {
        self.output.clear();
        (self.ahead_bytes, self.window_bytes) = (0, PUT_BYTES_AHEAD_MIN);
        while let Some(mut sent) = self.ahead.pop_back() {
            sent.file.sent = true;
            self.held.again.push_front(sent.file);
        }
    }

    /// Makes a directory; what is in it is passed over if it can't be.
    fn do_job(&mut self, dir: MakeDir, line: &mut Option<Line>) -> Result<(), ClientError> {
        let made = self.held.open(line).and_then(|line| make_dir(line, &dir.remote));
        match made {
            Ok(()) => self.held.queue.job_done(|walk| walk.made(dir)),
            Err(error) if error.is_of_one_file() => {
                let name = dir.remote.to_string();
                self.held.shared.folder_failed(self.held.job, name.as_bytes(), &error);
                self.held.queue.job_done(|_| ());
            }
            Err(error) => {
                self.held.to_do = Some(dir);
                return Err(error);
            }
        }
        Ok(())
    }

    fn advance(&mut self, line: &mut Option<Line>) -> Result<bool, ClientError> {
        let more = self.fill(line)?;
        if self.ahead.is_empty() {
            return Ok(false);
        }
        let line = self.held.open(line)?;
        self.exchange(line, more)?;
        Ok(true)
    }

    fn move_alone(
        &mut self,
        file: &PutFile,
        shown: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Transferred, ClientError> {
        let open = || file.open();
        self.held.client.put_opened(Again::AfterBreaks, open, shown, &file.remote, observer)
    }
}
