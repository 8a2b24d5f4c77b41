//! A file that is here already under the name that is to be got: what its bytes come to, so that the
//! server's digests tell whether it is the same, and nothing has to come.

use std::cell::Cell;

use super::{Client, ClientError, Event, Observer, Phase};
use crate::{
    digest::Engine,
    limits::CHUNK_BYTES,
    progress::Progress,
    store::{Root, Source},
    wire::{Mtime, RemotePath},
};

/// A file, and what it comes to.
pub(super) struct Here {
    pub(super) source: Source,
    pub(super) progress: Progress,
    /// The server has another one.
    is_other: Cell<bool>,
}

impl Here {
    /// Whether it may be the one that the server offers.
    pub(super) fn may_be(&self, size: u64, mtime: Mtime) -> bool {
        let identity = self.source.identity();
        !self.is_other.get() && (identity.size, identity.mtime) == (size, mtime)
    }

    /// It is not the one: it comes as if there were none.
    pub(super) fn is_other(&self) {
        self.is_other.set(true);
    }
}

impl Client {
    /// The file of this name, read and hashed, if it has the size and the time of the one on the
    /// server, as a file that was got has. An empty one is as soon got. No transfer waits meanwhile:
    /// it would take a server's patience to read a large file.
    pub(super) fn look_here(
        &self,
        remote: &RemotePath,
        root: &Root,
        name: &RemotePath,
        observer: &mut dyn Observer,
    ) -> Result<Option<Here>, ClientError> {
        let Ok(source) = Source::open(root, name) else { return Ok(None) };
        let size = source.identity().size;
        if size == 0 {
            return Ok(None);
        }
        let here = Here { source, progress: Progress::new(size), is_other: Cell::new(false) };
        match self.stat(remote, observer) {
            Ok(there) if here.may_be(there.size, there.mtime) => {}
            // Whatever is wrong with it, the transfer will say it better.
            Ok(_) | Err(ClientError::Refused(_)) => return Ok(None),
            Err(error) => return Err(error),
        }
        observer.event(Event::Phase(Phase::Checking));
        self.hash(here)
    }

    /// `None` if it can't be read as a whole: then it is not known to be the same.
    fn hash(&self, mut here: Here) -> Result<Option<Here>, ClientError> {
        let engine = Engine::new();
        let (mut buffer, mut leaves) = (vec![0; CHUNK_BYTES], Vec::new());
        let Here { source, progress, .. } = &mut here;
        while progress.frontier() < progress.size() {
            if self.options.stop.is_set() {
                return Err(ClientError::Interrupted);
            }
            let left = usize::try_from(progress.size() - progress.frontier()).unwrap_or(usize::MAX);
            let wanted = left.min(CHUNK_BYTES);
            let Some(bytes) = buffer.get_mut(..wanted) else { return Ok(None) };
            if !source.read(progress.frontier(), bytes).is_ok_and(|have| have == wanted) {
                return Ok(None);
            }
            engine.leaves(bytes, &mut leaves);
            leaves.drain(..).for_each(|leaf| progress.push_leaf(leaf));
        }
        Ok(Some(here))
    }
}
