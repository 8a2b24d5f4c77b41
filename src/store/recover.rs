//! What is there of a partial: how much of its journal is true of its data, and whether it was
//! committed already.

use std::os::fd::OwnedFd;

use super::{
    Identity, StoreError,
    error::Doing,
    journal::{Receipt, Record, Replay, boot_id},
    journal_file::JournalFile,
    partial::Upload,
    root::regular,
    source::read_full,
    sys,
};
use crate::{
    digest::{Buffer, Engine, LEAF_BYTES, SEGMENT_BYTES, TreeHasher, segment_digest},
    limits::CHUNK_BYTES,
    progress::{Progress, segment_length},
};

/// Begins at nothing. What an older journal claims is taken back, durably, before the bytes go of
/// which it speaks; if both files were made just now (`is_new`), there is no such claim.
pub(super) fn start_anew(
    journal: &mut JournalFile,
    dir: &OwnedFd,
    data: &OwnedFd,
    upload: &Upload,
    epoch: u64,
    is_new: bool,
) -> Result<Progress, StoreError> {
    journal.start()?;
    journal.append(&[open_record(upload, epoch)])?;
    if !is_new {
        journal.sync()?;
        journal.sync_names(dir)?;
        sys::ftruncate(data, 0).doing("starting the partial")?;
    }
    journal.settle();
    Ok(Progress::new(upload.size))
}

/// Goes on from what is there. Claims that turn out wrong, or do not fit the new size, are taken
/// back durably before anything can be overwritten.
pub(super) fn go_on(
    journal: &mut JournalFile,
    dir: &OwnedFd,
    data: &OwnedFd,
    upload: &Upload,
    replay: Replay,
) -> Result<Progress, StoreError> {
    journal.resume(&replay)?;
    let Replay { mut progress, durable, .. } = replay;
    let told = (progress.frontier(), progress.bad().len());

    let length = Identity::of(&regular(data)?).size;
    if length < progress.size() {
        progress.lower(length / LEAF_BYTES * LEAF_BYTES);
    }
    let rebooted = replay.boot != boot_id();
    if rebooted {
        check_again(data, &mut progress, &durable)?;
    }
    let takes_back = (progress.frontier(), progress.bad().len()) != told;
    let settles = rebooted || takes_back || upload.size != progress.size();

    // The mark comes before the new epoch: were the two torn apart, this boot would be taken for
    // the one that wrote what was found to be wrong.
    if settles {
        if let Err(error) = sys::fdatasync(data).doing("syncing the partial") {
            journal.fall_back(dir);
            return Err(error);
        }
        let (durable, mark) = (true, progress.take_mark());
        journal.append(&[Record::Mark { durable, mark }])?;
    }
    journal.append(&[open_record(upload, replay.epoch + 1)])?;
    progress.resize(upload.size);
    journal.tell(&progress);
    if settles {
        if let Err(error) = journal.sync() {
            journal.fall_back(dir);
            return Err(error);
        }
        journal.settle();
    }
    Ok(progress)
}

fn open_record(upload: &Upload, epoch: u64) -> Record {
    Record::Open {
        epoch,
        boot: boot_id(),
        size: upload.size,
        mtime: upload.mtime,
        tag: upload.tag.clone(),
    }
}

/// After a boot: whatever was not durable is read back and counts only if it is what the journal
/// says. A file's size proves nothing.
fn check_again(
    data: &OwnedFd,
    progress: &mut Progress,
    durable: &Progress,
) -> Result<(), StoreError> {
    let engine = Engine::new();
    let mut buffer = Buffer::new(usize::try_from(SEGMENT_BYTES).unwrap_or(0));
    let mut read = |segment: u64, length: u64| {
        let length = usize::try_from(length).unwrap_or(buffer.len());
        let bytes = buffer.get_mut(..length).unwrap_or_default();
        let have = read_full(data, segment * SEGMENT_BYTES, bytes)?;
        let mut leaves = Vec::new();
        engine.leaves(bytes.get(..have).unwrap_or_default(), &mut leaves);
        Ok::<_, StoreError>(leaves)
    };
    let size = progress.size();
    for (at, known) in progress.segments().to_vec().into_iter().enumerate() {
        let segment = at as u64;
        let is_durable =
            durable.segments().get(at) == Some(&known) && !durable.bad().contains(&segment);
        if is_durable || progress.bad().contains(&segment) {
            continue;
        }
        let leaves = read(segment, segment_length(segment, size))?;
        if leaves.is_empty() || segment_digest(&leaves) != known {
            progress.spoil(segment);
        }
    }
    let segment = progress.segments().len() as u64;
    let tail = progress.tail().to_vec();
    let is_durable = durable.segments().len() as u64 == segment && durable.tail() == tail;
    if !is_durable && !tail.is_empty() {
        let found = read(segment, tail.len() as u64 * LEAF_BYTES)?;
        let good = found.iter().zip(&tail).take_while(|(a, b)| a == b).count() as u64;
        progress.lower(segment * SEGMENT_BYTES + good * LEAF_BYTES);
    }
    // Bad segments at the end are nothing but a frontier that lies further back.
    if progress.tail().is_empty() {
        while let Some(last) = (progress.segments().len() as u64).checked_sub(1)
            && progress.bad().contains(&last)
        {
            progress.lower(last * SEGMENT_BYTES);
        }
    }
    Ok(())
}

/// Whether a file is the one that was committed, and nobody has touched it since.
pub(super) fn is_as_committed(
    receipt: &Receipt,
    file: &OwnedFd,
    upload: &Upload,
) -> Result<bool, StoreError> {
    let now = Identity::of(&regular(file)?);
    if (now.inode, now.size, now.mtime) != (receipt.inode, upload.size, upload.mtime) {
        return Ok(false);
    }
    // Touched since: it may have other bytes. Reading it would tell, but then a peer could have any
    // file of his read, as often as he offers it; so it is sent again. Only where the server died
    // before it could note the ctime is it read, once.
    if let Some(ctime) = receipt.ctime {
        return Ok(ctime == now.ctime);
    }
    let (engine, mut hasher) = (Engine::new(), TreeHasher::new());
    let (mut buffer, mut offset) = (Buffer::new(CHUNK_BYTES), 0);
    loop {
        let have = read_full(file, offset, &mut buffer)?;
        hasher.update(&engine, buffer.get(..have).unwrap_or_default());
        offset += have as u64;
        if have < buffer.len() {
            return Ok(hasher.finish().root == receipt.root);
        }
    }
}
