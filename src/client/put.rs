//! Uploads: the sending end.

use std::{io::IoSlice, path::Path};

use super::{
    Client, ClientError, Event, Observer, Phase, Transferred,
    line::Line,
    retry::{Again, Gain},
    totals::{Done, Totals},
};
use crate::{
    digest::{Buffer, Engine, FileMd5, Md5Digest, TreeHasher},
    limits::{CHUNK_BYTES, ROUNDS_WITHOUT_PROGRESS_MAX, RUNS_MAX},
    session::{Outgoing, Read, run_jobs},
    store::{Source, StoreError},
    wire::{
        Code, Command, DigestChoice, Frame, PutOffer, RemotePath, Reply, SegmentRuns, frame_bytes,
    },
};

impl Client {
    /// Puts a local file onto the server, where it appears only whole.
    ///
    /// # Errors
    /// [`ClientError`]. Whatever it is, what the server has received is kept for another call.
    pub fn put(
        &self,
        local: &Path,
        remote: &RemotePath,
        observer: &mut dyn Observer,
    ) -> Result<Transferred, ClientError> {
        self.put_opened(Again::Always, || Source::open_local(local), local, remote, observer)
    }

    /// As [`Client::put`], of a file that `open` opens. `local` is only how it is called.
    pub(super) fn put_opened(
        &self,
        again: Again,
        open: impl Fn() -> Result<Source, StoreError>,
        local: &Path,
        remote: &RemotePath,
        observer: &mut dyn Observer,
    ) -> Result<Transferred, ClientError> {
        let mut totals = Totals::default();
        let (done, breaks) = self.retry_after(again, observer, |observer, gain| {
            observer.event(Event::Connecting);
            let source = open().map_err(|error| ClientError::local(local, error))?;
            let line = self.line()?;
            let mut attempt = Attempt {
                client: self,
                line,
                source,
                local,
                buffer: Buffer::new(CHUNK_BYTES),
                engine: Engine::new(),
                observer,
                gain,
                totals: &mut totals,
            };
            let done = attempt.run(remote)?;
            self.keep(attempt.line);
            Ok(done)
        })?;
        Ok(totals.transferred(&done, breaks))
    }
}

/// Counts rounds, so that a server which never has enough is not served for ever.
#[derive(Debug, Default)]
struct Rounds {
    fewest: Option<usize>,
    without_progress: u32,
}

impl Rounds {
    fn next(&mut self, want: &SegmentRuns) -> Result<(), ClientError> {
        let count = want.segments().count();
        // A list that is full says nothing of how many there are.
        if self.fewest.is_none_or(|fewest| count < fewest) || want.runs().count() == RUNS_MAX {
            self.fewest = Some(count);
            self.without_progress = 0;
            return Ok(());
        }
        self.without_progress += 1;
        // The server counts as well: its own word on it comes first.
        if self.without_progress > ROUNDS_WITHOUT_PROGRESS_MAX {
            let text = "the server wants the same segments again and again";
            return Err(ClientError::Verification(text.to_owned()));
        }
        Ok(())
    }
}

/// One attempt over one connection.
struct Attempt<'a> {
    client: &'a Client,
    line: Line,
    source: Source,
    local: &'a Path,
    buffer: Buffer,
    engine: Engine,
    observer: &'a mut dyn Observer,
    gain: &'a mut Gain,
    totals: &'a mut Totals,
}

impl Attempt<'_> {
    fn run(&mut self, remote: &RemotePath) -> Result<Done, ClientError> {
        let identity = *self.source.identity();
        let digest = self.client.options.digest;
        self.line.send_command(&Command::Put(PutOffer {
            path: remote.clone(),
            size: identity.size,
            mtime: identity.mtime,
            tag: identity.tag(),
            owner: self.client.owner,
            digest,
            ahead: false,
        }))?;
        let reply = self.line.read_reply()?;
        let reply = match reply.code {
            Code::NothingLeft => match self.compare(&reply)? {
                Some(done) => return Ok(done),
                None => {
                    self.line.send_line(&Reply::new(Code::Nothing))?;
                    self.line.read_reply()?
                }
            },
            _ => reply,
        };
        let outgoing = self.begin(reply, identity.size, digest)?;
        self.stream(outgoing)
    }

    /// The server says that it has this very file: is it so?
    fn compare(&mut self, reply: &Reply) -> Result<Option<Done>, ClientError> {
        let theirs: Md5Digest = reply.get("root")?;
        let size = self.source.identity().size;
        self.observer.event(Event::Begin { size, already: 0 });
        self.observer.event(Event::Phase(Phase::Checking));
        let (root, md5) = self.hash_source()?;
        if root != theirs {
            return Ok(None);
        }
        self.line.send_line(&Reply::new(Code::Identical))?;
        let verdict = self.line.read_reply()?;
        if verdict.code != Code::Identical {
            return Err(ClientError::from_reply(verdict));
        }
        // A file that this very call sent, whose verdict was lost with the line, is no old one. An
        // empty one was sent as well as soon as its transfer began.
        let unchanged = self.totals.already.is_none();
        self.totals.already.get_or_insert(size);
        Ok(Some(Done { size, root, md5, unchanged }))
    }

    fn hash_source(&mut self) -> Result<(Md5Digest, Option<Md5Digest>), ClientError> {
        let mut tree = TreeHasher::new();
        let with_md5 = self.client.options.digest == DigestChoice::TreeAndMd5;
        let mut md5 = with_md5.then(FileMd5::new);
        let mut offset = 0;
        loop {
            let have = self.read(offset, CHUNK_BYTES)?;
            let bytes = self.buffer.get(..have).unwrap_or_default();
            tree.update(&self.engine, bytes);
            if let Some(md5) = &mut md5 {
                md5.update(bytes);
            }
            offset += have as u64;
            self.observer.event(Event::Position(offset));
            if have == 0 || offset >= self.source.identity().size {
                break;
            }
            if self.client.options.stop.is_set() {
                return Err(ClientError::Interrupted);
            }
        }
        self.check_unchanged()?;
        Ok((tree.finish().root, md5.map(FileMd5::finish)))
    }

    fn read(&mut self, offset: u64, length: usize) -> Result<usize, ClientError> {
        let buffer = self.buffer.get_mut(..length).unwrap_or_default();
        self.source.read(offset, buffer).map_err(|error| ClientError::local(self.local, error))
    }

    /// A source that changed is sent anew, as the version that it is now.
    fn check_unchanged(&self) -> Result<(), ClientError> {
        if self.source.is_unchanged() {
            return Ok(());
        }
        let name = self.local.display();
        Err(ClientError::Unsettled(format!("{name} changed while it was sent")))
    }

    /// Agrees with the server on where to go on.
    fn begin(
        &mut self,
        mut reply: Reply,
        size: u64,
        digest: DigestChoice,
    ) -> Result<Outgoing, ClientError> {
        let mut started_over = false;
        loop {
            let none = SegmentRuns::default();
            let start = match reply.code {
                Code::Nothing => Outgoing::new(size, 0, &none, digest),
                Code::Have => {
                    let bad = match reply.field("bad") {
                        Some(bad) => SegmentRuns::parse(bad),
                        None => Some(none),
                    };
                    let unreadable = || ClientError::unexpected(&reply);
                    let bad = bad.ok_or_else(unreadable)?;
                    Outgoing::new(size, reply.bytes("offset")?, &bad, digest)
                }
                _ => return Err(ClientError::from_reply(reply)),
            };
            let Ok(outgoing) = start else {
                // What the server has can't be of this file: start over, but not for ever.
                if std::mem::replace(&mut started_over, true) {
                    return Err(ClientError::unexpected(&reply));
                }
                self.line.send_line(&Reply::new(Code::Nothing))?;
                reply = self.line.read_reply()?;
                continue;
            };
            let (offset, left) = (outgoing.offset(), outgoing.left_bytes());
            if left == 0 && size > 0 {
                self.line.send_line(&Reply::new(Code::NothingLeft))?;
            } else {
                let line = Reply::new(Code::Continue).with("offset", offset);
                self.line.send_line(&line.with("length", left))?;
            }
            let already = size - left;
            self.totals.already.get_or_insert(already);
            self.gain.reached(already);
            self.observer.event(Event::Begin { size, already });
            self.observer.event(Event::Phase(Phase::Sending));
            return Ok(outgoing);
        }
    }

    /// Sends rounds until the server has everything.
    fn stream(&mut self, mut outgoing: Outgoing) -> Result<Done, ClientError> {
        let mut rounds = Rounds::default();
        loop {
            let sent_before = outgoing.sent_bytes();
            let round = self.round(&mut outgoing);
            let moved = outgoing.sent_bytes() - sent_before;
            self.totals.moved += moved;
            self.observer.event(Event::Moved(moved));
            round?;
            self.observer.event(Event::Phase(Phase::Verifying));
            let reply = self.line.read_reply()?;
            match reply.code {
                Code::Identical => {
                    let (root, md5) = outgoing.digests();
                    let theirs = reply.get("root")?;
                    let root = root.filter(|&root| root == theirs).ok_or_else(|| {
                        let text = "the server names another root than was sent";
                        ClientError::Verification(text.to_owned())
                    })?;
                    let size = outgoing.size();
                    return Ok(Done { size, root, md5, unchanged: false });
                }
                Code::Differs => match reply.field("want").and_then(SegmentRuns::parse) {
                    Some(want) => {
                        if outgoing.again(&want).is_err() {
                            return Err(ClientError::unexpected(&reply));
                        }
                        for segment in want.segments() {
                            self.observer.event(Event::SegmentBad(segment));
                        }
                        rounds.next(&want)?;
                        self.observer.event(Event::Phase(Phase::Sending));
                    }
                    None => return Err(ClientError::from_reply(reply)),
                },
                _ => return Err(ClientError::from_reply(reply)),
            }
        }
    }

    /// Sends everything that is wanted, and the digests.
    fn round(&mut self, outgoing: &mut Outgoing) -> Result<(), ClientError> {
        // What is to go before the next data: digests, and the head of a data frame.
        let mut frames = Vec::new();
        // What of the file is in the buffer.
        let mut loaded = Read { offset: 0, length: 0 };
        loop {
            while let Some(frame) = outgoing.next_frame() {
                if matches!(frame, Frame::End { .. }) {
                    self.check_unchanged()?;
                }
                frames.extend(frame_bytes(&frame));
            }
            if outgoing.has_ended() {
                return self.line.send(&frames);
            }
            let ready = self.line.ready_now()?;
            if ready.readable {
                // While frames are sent, a server speaks only to refuse.
                let reply = self.line.read_reply()?;
                return Err(ClientError::from_reply(reply));
            }
            match (outgoing.next_to_send(), outgoing.next_to_check()) {
                (Some(read), check) if ready.writable || check.is_none() => {
                    if !ready.writable {
                        self.line.wait_ready()?;
                        continue;
                    }
                    self.send(outgoing, read, &mut loaded, &mut frames)?;
                }
                (_, Some(read)) => {
                    loaded.length = 0;
                    self.check(outgoing, read)?;
                }
                (_, None) => {
                    return Err(ClientError::Broken("nothing to send and no end".to_owned()));
                }
            }
        }
    }

    fn send(
        &mut self,
        outgoing: &mut Outgoing,
        read: Read,
        loaded: &mut Read,
        frames: &mut Vec<u8>,
    ) -> Result<(), ClientError> {
        let end = loaded.offset + loaded.length as u64;
        if !(loaded.offset..end).contains(&read.offset) {
            self.load(outgoing, read)?;
            *loaded = read;
        }
        let skip = usize::try_from(read.offset - loaded.offset).unwrap_or(0);
        let payload = self.buffer.get(skip..loaded.length).unwrap_or_default();
        let payload = payload.get(..read.length.min(payload.len())).unwrap_or_default();
        if let Some(header) = outgoing.data_header(payload.len()) {
            frames.extend(header.to_bytes());
        }
        let written = self.line.write(&[IoSlice::new(frames), IoSlice::new(payload)])?;
        let of_frames = written.min(frames.len());
        frames.drain(..of_frames);
        outgoing.sent(written - of_frames);
        let there = outgoing.size() - outgoing.left_bytes();
        self.observer.event(Event::Position(there));
        Ok(())
    }

    /// Reads and hashes what is to be sent next.
    fn load(&mut self, outgoing: &mut Outgoing, read: Read) -> Result<(), ClientError> {
        let have = self.read_all(read)?;
        let mut jobs = Vec::new();
        outgoing.read_to_send(read, 0..have, &mut jobs);
        let bytes = self.buffer.get(..have).unwrap_or_default();
        run_jobs(&self.engine, &mut jobs, bytes);
        outgoing.hashed(jobs.into_iter());
        outgoing.follow_md5(read.offset, bytes);
        Ok(())
    }

    /// Reads and hashes what only has to be checked.
    fn check(&mut self, outgoing: &mut Outgoing, read: Read) -> Result<(), ClientError> {
        let have = self.read_all(read)?;
        let mut jobs = Vec::new();
        let bytes = self.buffer.get(..have).unwrap_or_default();
        outgoing.read_to_check(read, 0..have, &mut jobs);
        run_jobs(&self.engine, &mut jobs, bytes);
        outgoing.hashed(jobs.into_iter());
        outgoing.follow_md5(read.offset, bytes);
        if outgoing.left_bytes() == 0 {
            self.observer.event(Event::Phase(Phase::Checking));
            let there = outgoing.size() - outgoing.left_to_check_bytes();
            self.observer.event(Event::Position(there));
        }
        Ok(())
    }

    /// Reads all that was asked for: less means that the source became shorter.
    fn read_all(&mut self, read: Read) -> Result<usize, ClientError> {
        let have = self.read(read.offset, read.length)?;
        if have < read.length {
            self.check_unchanged()?;
            let name = self.local.display();
            let text = format!("{name} became shorter while it was sent");
            return Err(ClientError::Unsettled(text));
        }
        Ok(have)
    }
}
