//! A file that is here already under the name that is to be got: what its bytes come to, so that the
//! server's digests tell whether it is the same, and nothing has to come.

use super::{ClientError, Stop};
use crate::{
    digest::Engine,
    limits::CHUNK_BYTES,
    progress::Progress,
    store::{Root, Source},
    wire::{Mtime, RemotePath},
};

/// The file and what it comes to, if it may be the one that the server offers: as to its size and its
/// time, which a file that was got has from the server. An empty one is as soon got.
pub(super) fn look(
    root: &Root,
    name: &RemotePath,
    (size, mtime): (u64, Mtime),
    stop: &Stop,
) -> Result<Option<(Source, Progress)>, ClientError> {
    let Ok(source) = Source::open(root, name) else { return Ok(None) };
    let identity = source.identity();
    if size == 0 || (identity.size, identity.mtime) != (size, mtime) {
        return Ok(None);
    }
    let (engine, mut progress) = (Engine::new(), Progress::new(size));
    let (mut buffer, mut leaves) = (vec![0; CHUNK_BYTES], Vec::new());
    while progress.frontier() < size {
        if stop.is_set() {
            return Err(ClientError::Interrupted);
        }
        // What can't be read is not known to be the same.
        let Ok(have) = source.read(progress.frontier(), &mut buffer) else { return Ok(None) };
        let left = usize::try_from(size - progress.frontier()).unwrap_or(usize::MAX);
        if have < left.min(buffer.len()) {
            return Ok(None);
        }
        engine.leaves(buffer.get(..have.min(left)).unwrap_or_default(), &mut leaves);
        leaves.drain(..).for_each(|leaf| progress.push_leaf(leaf));
    }
    Ok(Some((source, progress)))
}
