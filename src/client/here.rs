//! A file that is here already under the name that is to be got: what its bytes come to, so that the
//! server's digests tell whether it is the same, and nothing has to come.

use std::cell::{Cell, OnceCell};

use super::{ClientError, Event, Observer, Phase, Stop, line::Line};
use crate::{
    digest::{Buffer, Engine},
    limits::CHUNK_BYTES,
    progress::Progress,
    store::{Root, Source},
    wire::{Code, Command, Mtime, RemotePath},
};

/// A file that may be the same as the one on the server.
pub(super) struct Here {
    pub(super) source: Source,
    /// What it comes to, once it was read.
    progress: OnceCell<Progress>,
    /// The server has another one.
    is_other: Cell<bool>,
}

impl Here {
    /// The file of this name, if there is one. An empty one is as soon got.
    pub(super) fn open(root: &Root, name: &RemotePath) -> Option<Self> {
        let source = Source::open(root, name).ok().filter(|source| source.identity().size > 0)?;
        Some(Self { source, progress: OnceCell::new(), is_other: Cell::new(false) })
    }

    /// It is not the one: it comes as if there were none.
    pub(super) fn is_other(&self) {
        self.is_other.set(true);
    }

    /// What it comes to, if it may be the one that the server offers.
    pub(super) fn same(&self, size: u64, mtime: Mtime) -> Option<&Progress> {
        self.progress.get().filter(|_| self.is_of(size, mtime))
    }

    fn is_of(&self, size: u64, mtime: Mtime) -> bool {
        let identity = self.source.identity();
        !self.is_other.get() && (identity.size, identity.mtime) == (size, mtime)
    }

    /// Reads it, if the one on the server has the same size and time, as a file that was got has. No
    /// transfer waits meanwhile: a large file would take longer to read than a server waits.
    pub(super) fn look(
        &self,
        line: &mut Line,
        remote: &RemotePath,
        observer: &mut dyn Observer,
        stop: &Stop,
    ) -> Result<(), ClientError> {
        if self.is_other.get() || self.progress.get().is_some() {
            return Ok(());
        }
        line.send_command(&Command::Stat { path: remote.clone() })?;
        let reply = line.read_reply()?;
        if reply.code.closes() {
            return Err(ClientError::from_reply(reply));
        }
        // Whatever is wrong with it, the transfer will say it better.
        let same =
            reply.code == Code::Done && self.is_of(reply.bytes("size")?, reply.get("mtime")?);
        if same {
            observer.event(Event::Phase(Phase::Checking));
        }
        match if same { self.hash(stop)? } else { None } {
            Some(progress) => _ = self.progress.set(progress),
            None => self.is_other(),
        }
        Ok(())
    }

    /// `None` if it can't be read as a whole: then it is not known to be the same.
    fn hash(&self, stop: &Stop) -> Result<Option<Progress>, ClientError> {
        let (engine, mut progress) = (Engine::new(), Progress::new(self.source.identity().size));
        let (mut buffer, mut leaves) = (Buffer::new(CHUNK_BYTES), Vec::new());
        while progress.frontier() < progress.size() {
            if stop.is_set() {
                return Err(ClientError::Interrupted);
            }
            let left = usize::try_from(progress.size() - progress.frontier()).unwrap_or(usize::MAX);
            let wanted = left.min(CHUNK_BYTES);
            let Some(bytes) = buffer.get_mut(..wanted) else { return Ok(None) };
            if !self.source.read(progress.frontier(), bytes).is_ok_and(|have| have == wanted) {
                return Ok(None);
            }
            engine.leaves(bytes, &mut leaves);
            leaves.drain(..).for_each(|leaf| progress.push_leaf(leaf));
        }
        Ok(Some(progress))
    }
}
