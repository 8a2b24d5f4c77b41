//! Downloads: the receiving end.

use std::{
    io::Write,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Client, ClientError, Event, Observer, Phase, Transferred,
    here::Here,
    line::Line,
    pipe::Pipe,
    retry::{Again, Gain},
    totals::{Done, Totals},
};
use crate::{
    digest::{Buffer, Engine, Md5Digest},
    limits::{CHECKPOINT_BYTES, CHECKPOINT_INTERVAL, CHUNK_BYTES, STALL_BYTES, STALL_DEADLINE},
    progress::Progress,
    session::{Incoming, LeafJob, Piece, Settled, run_jobs},
    store::{Opened, Partial, Place, Root, StoreError, Upload, Worker},
    wire::{Code, Command, FRAME_HEADER_BYTES, Frame, Mtime, RemotePath, Reply, Tag},
};

/// What may stand before and behind the data of a chunk: two headers, the digest of a segment, and
/// less than a line of the buffer.
const BESIDE_DATA_BYTES: usize = 3 * FRAME_HEADER_BYTES + Buffer::LINE_BYTES;

impl Client {
    /// Gets a file into `local`, where it appears only whole. Until then it is in a hidden partial
    /// beside it, from which another call continues. One that is there already, of the same size and
    /// time, is compared first: if it is the same, nothing comes.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn get(
        &self,
        remote: &RemotePath,
        local: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Transferred, ClientError> {
        let local_error = |error| ClientError::local(local, error);
        let name = local.file_name().ok_or(StoreError::WrongKind("it has no file name"));
        let name = name.map_err(local_error)?;
        let name = RemotePath::new(std::os::unix::ffi::OsStrExt::as_bytes(name))?;
        let dir = local.parent().filter(|dir| !dir.as_os_str().is_empty());
        let root = Root::plain(dir.unwrap_or_else(|| Path::new("."))).map_err(local_error)?;
        let here = Here::open(&root, &name);
        let root = Arc::new(root);
        let place =
            Destination { root: &root, name: &name, here: here.as_ref(), again: Again::Always };
        self.get_beneath(remote, place, local, observer)
    }

    /// As [`Client::get`], into a folder that is open. `local` is only how it is called.
    pub(super) fn get_beneath(
        &self,
        remote: &RemotePath,
        place: Destination<'_>,
        local: &Path,
        observer: &mut dyn Observer,
    ) -> Result<Transferred, ClientError> {
        let Destination { root, name, here, again } = place;
        let syncing = Worker::spawn(|| ())
            .map_err(|error| ClientError::Output { what: "starting a thread", error })?;
        let mut totals = Totals::default();
        let (done, breaks) = self.retry_after(again, observer, |observer, gain| {
            let open = |offer: &Offer| {
                let (size, mtime, tag) = (offer.size, offer.mtime, offer.tag.clone());
                if let Some(here) = here
                    && let Some(progress) = here.same(size, mtime)
                {
                    return Ok(Target::Here { here, progress, local });
                }
                let upload = Upload { path: name.clone(), size, mtime, tag, replace: true };
                let opened = Partial::open(root, Place::Beside, upload, false);
                match opened.map_err(|error| ClientError::local(local, error))? {
                    Opened::Partial(partial, progress, _) => {
                        let checkpoints = Checkpoints::new(&syncing);
                        Ok(Target::Partial { partial, progress, checkpoints, local })
                    }
                    Opened::Committed(root, md5) => Ok(Target::There(root, md5)),
                }
            };
            let mut attempt = Attempt::begin(self, observer, gain, &mut totals)?;
            if let Some(here) = here {
                here.look(&mut attempt.line, remote, attempt.observer, &self.options.stop)?;
            }
            attempt.run(remote, open)
        })?;
        Ok(totals.transferred(&done, breaks))
    }

    /// Gets a file into a pipe or the like. Only verified segments are written, in order, so that
    /// whatever reads them never sees a wrong byte; but it may see a beginning without an end.
    ///
    /// # Errors
    /// [`ClientError`]. A file that changes on the server after its first segments were written
    /// can't be continued.
    pub fn get_to(
        &self,
        remote: &RemotePath,
        output: &mut dyn Write,
        observer: &mut dyn Observer,
    ) -> Result<Transferred, ClientError> {
        let mut totals = Totals::default();
        let mut pipe = Pipe::new(output);
        let (done, breaks) = self.retry(observer, |observer, gain| {
            let pipe = &mut pipe;
            let attempt = Attempt::begin(self, observer, gain, &mut totals)?;
            attempt.run(remote, |offer| {
                pipe.offered(offer.size, &offer.tag)?;
                Ok(Target::Pipe(pipe))
            })
        })?;
        Ok(totals.transferred(&done, breaks))
    }
}

/// Where a download goes.
pub(super) struct Destination<'a> {
    pub(super) root: &'a Arc<Root>,
    /// Its name there.
    pub(super) name: &'a RemotePath,
    /// What may make it needless.
    pub(super) here: Option<&'a Here>,
    pub(super) again: Again,
}

/// What the server has.
struct Offer {
    size: u64,
    mtime: Mtime,
    tag: Tag,
}

/// Where the bytes go.
enum Target<'a, 'w> {
    Partial {
        partial: Partial,
        progress: Progress,
        checkpoints: Checkpoints<'a>,
        local: &'a Path,
    },
    /// It was made visible before, and only the tidying-up was missing.
    There(Md5Digest, Option<Md5Digest>),
    /// It is here before anything comes; whether it is the same is to be seen.
    Here {
        here: &'a Here,
        progress: &'a Progress,
        local: &'a Path,
    },
    Pipe(&'a mut Pipe<'w>),
}

/// One attempt over one connection.
struct Attempt<'a> {
    client: &'a Client,
    line: Line,
    engine: Engine,
    observer: &'a mut dyn Observer,
    gain: &'a mut Gain,
    totals: &'a mut Totals,
}

/// Whether the stream moves: a byte now and then buys a server no time.
pub(super) struct Pace {
    /// How often as much has moved as buys time.
    steps: u64,
    since: Instant,
}

impl Pace {
    pub(super) fn new(moved: u64) -> Self {
        Self { steps: moved / STALL_BYTES, since: Instant::now() }
    }

    pub(super) fn look(&mut self, moved: u64) -> Result<(), ClientError> {
        if moved / STALL_BYTES > self.steps {
            *self = Self::new(moved);
        } else if self.since.elapsed() > STALL_DEADLINE {
            return Err(ClientError::Broken("the stream stalls".to_owned()));
        }
        Ok(())
    }
}

/// Checkpoints, which are made beside the transfer.
struct Checkpoints<'a> {
    syncing: &'a Worker<(), Result<(), StoreError>>,
    at: Instant,
    bytes: u64,
    running: bool,
}

impl<'a> Checkpoints<'a> {
    fn new(syncing: &'a Worker<(), Result<(), StoreError>>) -> Self {
        Self { syncing, at: Instant::now(), bytes: 0, running: false }
    }

    /// Makes one, if it is time.
    fn advance(&mut self, partial: &Partial, incoming: &mut Incoming) {
        if self.syncing.poll().is_some() {
            self.running = false;
        }
        let bytes = incoming.received_bytes() - self.bytes;
        let due = bytes >= CHECKPOINT_BYTES || self.at.elapsed() >= CHECKPOINT_INTERVAL;
        if self.running || bytes == 0 || !due {
            return;
        }
        (self.at, self.bytes, self.running) = (Instant::now(), incoming.received_bytes(), true);
        let (partial, mark) = (partial.clone(), incoming.take_mark());
        // If it fails, so does the commit: the partial remembers.
        self.syncing.submit((), move || partial.checkpoint(mark));
    }

    /// Waits for the one that runs. The journal's records must stay in the order of their marks,
    /// and its lock must be free before another attempt opens it.
    fn finish(&mut self) {
        const STEP: Duration = Duration::from_secs(1);
        while std::mem::take(&mut self.running) {
            self.running = self.syncing.wait(STEP).is_none();
        }
    }
}

impl<'a> Attempt<'a> {
    fn begin(
        client: &'a Client,
        observer: &'a mut dyn Observer,
        gain: &'a mut Gain,
        totals: &'a mut Totals,
    ) -> Result<Self, ClientError> {
        observer.event(Event::Connecting);
        let line = client.line()?;
        Ok(Self { client, line, engine: Engine::new(), observer, gain, totals })
    }

    fn run<'t, 'w: 't>(
        mut self,
        remote: &RemotePath,
        open: impl FnOnce(&Offer) -> Result<Target<'t, 'w>, ClientError>,
    ) -> Result<Done, ClientError> {
        let digest = self.client.options.digest;
        self.line.send_command(&Command::Get { path: remote.clone(), digest })?;
        let reply = self.line.read_reply()?;
        if reply.code != Code::Found {
            return Err(ClientError::from_reply(reply));
        }
        let offer = Offer {
            size: reply.bytes("size")?,
            mtime: reply.get("mtime")?,
            tag: reply.get("tag")?,
        };
        let mut target = open(&offer)?;
        let progress = match &target {
            Target::There(root, md5) => {
                return Ok(Done { size: offer.size, root: *root, md5: *md5, unchanged: false });
            }
            Target::Partial { progress, .. } => progress.clone(),
            Target::Here { progress, .. } => (*progress).clone(),
            Target::Pipe(pipe) => pipe.progress().clone(),
        };
        let mut incoming = Incoming::new(progress, digest);
        if let Target::Pipe(pipe) = &target {
            pipe.resume(&mut incoming);
        }
        let result = self.receive(&offer, &mut incoming, &mut target);
        self.totals.moved += incoming.received_bytes();
        self.observer.event(Event::Moved(incoming.received_bytes()));
        Self::keep(&mut incoming, &mut target);
        if result.is_ok() {
            self.client.keep(self.line);
        }
        result
    }

    /// After the end, good or bad: what was received is kept.
    fn keep(incoming: &mut Incoming, target: &mut Target<'_, '_>) {
        match target {
            Target::Partial { partial, checkpoints, .. } => {
                checkpoints.finish();
                // Fails after a commit, and after a sync that failed: then there is nothing to
                // keep.
                let _ = partial.note(incoming.take_mark());
            }
            Target::Pipe(pipe) => pipe.keep(incoming),
            Target::There(..) | Target::Here { .. } => {}
        }
    }

    fn receive(
        &mut self,
        offer: &Offer,
        incoming: &mut Incoming,
        target: &mut Target<'_, '_>,
    ) -> Result<Done, ClientError> {
        let progress = incoming.progress();
        let already = progress.good_bytes();
        self.totals.already.get_or_insert(already);
        self.observer.event(Event::Begin { size: offer.size, already });
        if progress.frontier() == 0 {
            self.line.send_line(&Reply::new(Code::Nothing))?;
        } else {
            let bad = progress.bad_runs();
            let line = Reply::new(Code::Have).with("offset", progress.frontier());
            let line = line.with("tag", &offer.tag);
            let line = if bad.is_empty() { line } else { line.with("bad", bad) };
            self.line.send_line(&line)?;
        }
        let reply = self.line.read_reply()?;
        if !matches!(reply.code, Code::Continue | Code::NothingLeft) {
            return Err(ClientError::from_reply(reply));
        }
        let is_here = matches!(target, Target::Here { .. });
        self.observer.event(Event::Phase(if is_here {
            Phase::Verifying
        } else {
            Phase::Receiving
        }));
        let mut buffer = Buffer::new(CHUNK_BYTES + BESIDE_DATA_BYTES);
        let mut pace = Pace::new(incoming.moved_bytes());
        loop {
            // A line that is always full never waits, and only waits look at it.
            if self.client.options.stop.is_set() {
                return Err(ClientError::Interrupted);
            }
            let buffer = buffer.get_mut(incoming.skew()..).unwrap_or_default();
            let room = incoming.next_read_bytes(CHUNK_BYTES).min(buffer.len());
            let have = self.line.receive(buffer.get_mut(..room).unwrap_or_default())?;
            let input = buffer.get(..have).unwrap_or_default();
            let settled = self.chunk(incoming, target, input)?;
            pace.look(incoming.moved_bytes())?;
            match settled {
                None => {
                    if let Target::Partial { partial, checkpoints, .. } = target {
                        checkpoints.advance(partial, incoming);
                    }
                }
                Some(Settled::Whole) => return self.finish(incoming, target),
                Some(Settled::Differs(want)) => {
                    incoming.next_round()?;
                    // First the journal has to know what will be overwritten.
                    if let Target::Partial { partial, local, checkpoints, .. } = target {
                        checkpoints.finish();
                        let marked = partial.checkpoint(incoming.take_mark());
                        marked.map_err(|error| ClientError::local(local, error))?;
                    }
                    self.line.send_line(&Reply::new(Code::Differs).with("want", want))?;
                }
                Some(Settled::Aborted(reply)) => return Err(ClientError::from_reply(reply)),
                Some(Settled::Good | Settled::Bad { .. }) => {}
            }
        }
    }

    /// Takes one chunk of the stream; returns what ended the round, if something did.
    fn chunk(
        &mut self,
        incoming: &mut Incoming,
        target: &mut Target<'_, '_>,
        input: &[u8],
    ) -> Result<Option<Settled>, ClientError> {
        let (mut pieces, mut jobs): (Vec<Piece>, Vec<LeafJob>) = (Vec::new(), Vec::new());
        let parsed = incoming.parse(input, &mut pieces, &mut jobs);
        run_jobs(&self.engine, &mut jobs, input);
        // Written before it is told: a leaf that could not be written is never marked.
        for piece in &pieces {
            if let Piece::Data { offset, range } = piece {
                let bytes = input.get(range.clone()).unwrap_or_default();
                write(target, *offset, bytes)?;
            }
        }
        incoming.hashed(jobs.into_iter());
        let mut ended = None;
        for piece in pieces {
            match piece {
                Piece::Data { offset, range } => {
                    incoming.wrote(offset, input.get(range).unwrap_or_default());
                }
                Piece::Frame(frame) => ended = self.settle(incoming, target, frame)?,
            }
        }
        let there = incoming.progress().good_bytes();
        self.gain.reached(there);
        self.observer.event(Event::Position(there));
        let taken = parsed?;
        self.line.unread(input.get(taken..).unwrap_or_default());
        Ok(ended)
    }

    fn settle(
        &mut self,
        incoming: &mut Incoming,
        target: &mut Target<'_, '_>,
        frame: Frame,
    ) -> Result<Option<Settled>, ClientError> {
        let number = match &frame {
            Frame::Segment { segment, .. } => Some(*segment),
            Frame::End { .. } | Frame::Abort(_) => None,
        };
        let settled = incoming.settle(frame)?;
        match (&settled, target) {
            (Settled::Bad { .. }, Target::Here { here, .. }) => {
                here.is_other();
                let text = "the file that is here is another one";
                let _ = self.line.send_line(&Reply::text(Code::Differs, text));
                return Err(ClientError::Broken(text.to_owned()));
            }
            (Settled::Bad { segment }, target) => {
                self.observer.event(Event::SegmentBad(*segment));
                if matches!(target, Target::Pipe(_)) {
                    // What is written out can't be mended: begin again before it.
                    let text = format!("segment {segment} came out wrong");
                    // The server may have told a digest of before, which it will then forget.
                    let _ = self.line.send_line(&Reply::text(Code::Differs, &text));
                    return Err(ClientError::Broken(text));
                }
            }
            (Settled::Good, Target::Pipe(pipe)) => pipe.verified(number, incoming)?,
            (Settled::Good, Target::Partial { .. } | Target::There(..) | Target::Here { .. }) => {}
            (Settled::Differs(_) | Settled::Whole | Settled::Aborted(_), _) => {
                return Ok(Some(settled));
            }
        }
        Ok(None)
    }

    /// Reads back what the MD5 of the whole file has not followed yet, if it was asked for.
    fn follow_md5(
        &self,
        incoming: &mut Incoming,
        target: &Target<'_, '_>,
    ) -> Result<(), ClientError> {
        let pending = incoming.md5_pending();
        let mut buffer = vec![0; if pending.is_empty() { 0 } else { CHUNK_BYTES }];
        let mut offset = pending.start;
        while offset < pending.end {
            let (read, local) = match target {
                Target::Partial { partial, local, .. } => {
                    (partial.read(offset, &mut buffer), local)
                }
                Target::Here { here, local, .. } => (here.source.read(offset, &mut buffer), local),
                Target::There(..) | Target::Pipe(_) => {
                    let text = "the MD5 of the whole file was lost with the line";
                    return Err(ClientError::Verification(text.to_owned()));
                }
            };
            let have = read.map_err(|error| ClientError::local(local, error))?;
            let left = usize::try_from(pending.end - offset).unwrap_or(usize::MAX);
            let have = have.min(left);
            if have == 0 {
                let text = "the partial became shorter while it was read";
                return Err(ClientError::Verification(text.to_owned()));
            }
            incoming.md5_read(buffer.get(..have).unwrap_or_default());
            offset += have as u64;
            if self.client.options.stop.is_set() {
                return Err(ClientError::Interrupted);
            }
        }
        Ok(())
    }

    /// Everything is here: the MD5 of the whole file, then the commit.
    fn finish(
        &mut self,
        incoming: &mut Incoming,
        target: &mut Target<'_, '_>,
    ) -> Result<Done, ClientError> {
        self.observer.event(Event::Phase(Phase::Verifying));
        self.follow_md5(incoming, target)?;
        // If it is wrong, so may be what the journal kept of it.
        let md5 = incoming.check_md5().inspect_err(|_| {
            incoming.forget_md5();
            let reply = Reply::text(Code::Differs, "the MD5 of the whole file differs");
            let _ = self.line.send_line(&reply);
        })?;
        let root = incoming.progress().root();
        let text = || ClientError::Verification("segments are missing".to_owned());
        let root = root.ok_or_else(text)?;
        match target {
            Target::Partial { partial, local, checkpoints, .. } => {
                checkpoints.finish();
                let committed = partial.commit(incoming.take_mark(), root, md5);
                committed.map_err(|error| ClientError::local(local, error))?;
            }
            Target::Pipe(pipe) => pipe.flush()?,
            Target::Here { here, .. } if !here.source.is_unchanged() => {
                here.is_other();
                let text = "the file that is here changed while it was compared";
                return Err(ClientError::Unsettled(text.to_owned()));
            }
            Target::There(..) | Target::Here { .. } => {}
        }
        let unchanged = matches!(target, Target::Here { .. });
        // The file is there: a line that breaks now loses nothing but a word.
        let _ = self.line.send_line(&Reply::new(Code::Identical));
        Ok(Done { size: incoming.progress().size(), root, md5, unchanged })
    }
}

fn write(target: &mut Target<'_, '_>, offset: u64, bytes: &[u8]) -> Result<(), ClientError> {
    match target {
        Target::Partial { partial, local, .. } => {
            partial.write(offset, bytes).map_err(|error| ClientError::local(local, error))
        }
        Target::Pipe(pipe) => pipe.hold(offset, bytes),
        Target::Here { .. } => {
            Err(ClientError::Broken("the server sends what nobody asked for".to_owned()))
        }
        Target::There(..) => Ok(()),
    }
}
