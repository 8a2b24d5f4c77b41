//! The store against real files, and against disks that fail or lose their power.

mod digests;
mod expire;
mod faults;
mod full;
mod home;
pub(super) mod hook;
mod jail;
mod listing;
mod measure;
mod partial;
mod power;
mod quota;
mod room;
mod source;
mod together;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Opened, Partial, Place, Root, StoreError, Upload, partial_name};
use crate::{
    digest::{Engine, LEAF_BYTES, Md5Digest, TreeHasher, segment_digest},
    progress::{Progress, segment_length},
    wire::{Mtime, RemotePath},
};

const LEAF: usize = 32 << 10;
const SEGMENT: usize = 4 << 20;

fn path(bytes: impl AsRef<[u8]>) -> RemotePath {
    RemotePath::new(bytes.as_ref()).unwrap()
}

/// Bytes that are nowhere the same, and others for another `seed`.
fn bytes(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut all: Vec<u8> = (0..length.div_ceil(8)).flat_map(|_| next()).collect();
    all.truncate(length);
    all
}

fn root_of(source: &[u8]) -> Md5Digest {
    let mut hasher = TreeHasher::new();
    hasher.update(&Engine::new(), source);
    hasher.finish().root
}

fn upload(name: &str, tag: &str, source: &[u8]) -> Upload {
    Upload {
        path: path(name),
        size: source.len() as u64,
        mtime: Mtime { seconds: 1_700_000_000, nanos: 123_456_789 },
        tag: tag.parse().unwrap(),
        replace: true,
    }
}

/// A folder in memory, where a sync costs nothing.
fn memory() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    dir.unwrap()
}

/// A root.
struct Store {
    dir: tempfile::TempDir,
    root: Arc<Root>,
    place: Place,
}

impl Store {
    fn new() -> Self {
        let dir = memory();
        let root = Arc::new(Root::serve(dir.path()).unwrap());
        let place = Place::Internal;
        Self { dir, root, place }
    }

    /// A client's folder.
    fn beside() -> Self {
        let dir = memory();
        let root = Arc::new(Root::plain(dir.path()).unwrap());
        let place = Place::Beside;
        Self { dir, root, place }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn own(&self, name: &str, ending: &str) -> PathBuf {
        let hash = partial_name(&path(name));
        match self.place {
            Place::Internal => self.at(&format!(".tow/partials/{hash}.{ending}")),
            Place::Beside => self.at(&format!(".tow-{hash}.{ending}")),
        }
    }

    fn try_open(&self, upload: &Upload, fresh: bool) -> Result<Opened, StoreError> {
        Partial::open(&self.root, self.place, upload.clone(), fresh)
    }

    fn open(&self, upload: &Upload) -> Receiver {
        Receiver::new(self.try_open(upload, false).unwrap())
    }

    fn open_fresh(&self, upload: &Upload) -> Receiver {
        Receiver::new(self.try_open(upload, true).unwrap())
    }

    /// Receives the rest of `source`, whatever is there of it.
    fn finish(&self, upload: &Upload, source: &[u8]) -> Result<(), StoreError> {
        match self.try_open(upload, false)? {
            Opened::Committed(root, _) => assert_eq!(root, root_of(source)),
            opened => {
                let mut receiver = Receiver::new(opened);
                receiver.drop_what_differs(source)?;
                receiver.receive(source, usize::MAX)?;
                receiver.commit(source)?;
            }
        }
        Ok(())
    }
}

/// What a session does with a partial.
struct Receiver {
    partial: Partial,
    progress: Progress,
    tag: String,
}

impl Receiver {
    fn new(opened: Opened) -> Self {
        match opened {
            Opened::Partial(partial, progress, tag) => {
                Self { partial, progress, tag: tag.to_string() }
            }
            Opened::Committed(..) => panic!("committed before"),
        }
    }

    /// Compares the digests of the segments with the sender's, as a stream begins with.
    fn drop_what_differs(&mut self, source: &[u8]) -> Result<(), StoreError> {
        let engine = Engine::new();
        let mut differs = false;
        for (at, known) in self.progress.segments().to_vec().into_iter().enumerate() {
            let from = at * SEGMENT;
            let mut leaves = Vec::new();
            let to = source.len().min(from + SEGMENT);
            engine.leaves(&source[from..to], &mut leaves);
            if segment_digest(&leaves) != known {
                self.progress.spoil(at as u64);
                differs = true;
            }
        }
        let start = self.progress.segments().len() * SEGMENT;
        let mut leaves = Vec::new();
        engine.leaves(&source[start.min(source.len())..], &mut leaves);
        let good = leaves.iter().zip(self.progress.tail());
        let good = good.take_while(|(a, b)| a == b).count();
        if good < self.progress.tail().len() {
            self.progress.lower((start + good * LEAF) as u64);
            differs = true;
        }
        if differs {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Writes bad segments again and then up to `leaves` leaves behind the frontier.
    fn receive(&mut self, source: &[u8], leaves: usize) -> Result<(), StoreError> {
        let engine = Engine::new();
        let size = source.len() as u64;
        for bad in self.progress.bad().clone() {
            let from = usize::try_from(bad).unwrap() * SEGMENT;
            let to = from + usize::try_from(segment_length(bad, size)).unwrap();
            self.partial.write(from as u64, &source[from..to])?;
            let mut found = Vec::new();
            engine.leaves(&source[from..to], &mut found);
            self.progress.replace(bad, segment_digest(&found));
        }
        for _ in 0..leaves {
            let from = usize::try_from(self.progress.frontier()).unwrap();
            if from == source.len() {
                break;
            }
            let leaf = &source[from..source.len().min(from + LEAF)];
            self.partial.write(from as u64, leaf)?;
            self.progress.push_leaf(Md5Digest::of(leaf));
        }
        Ok(())
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        self.partial.checkpoint(self.progress.take_mark())
    }

    fn note(&mut self) -> Result<(), StoreError> {
        self.partial.note(self.progress.take_mark())
    }

    fn commit(&mut self, source: &[u8]) -> Result<(), StoreError> {
        assert_eq!(self.progress.root(), Some(root_of(source)));
        let mark = self.progress.take_mark();
        self.partial.commit(mark, root_of(source), None)
    }
}

/// Whether every digest that `progress` claims is the digest of what lies on the disk.
fn claims_hold(progress: &Progress, data: &[u8]) -> bool {
    let engine = Engine::new();
    let leaves = |from: usize, length: usize| {
        let mut leaves = Vec::new();
        let bytes = data.get(from..from + length).unwrap_or_default();
        engine.leaves(bytes, &mut leaves);
        leaves
    };
    let segments = progress.segments().iter().enumerate().all(|(at, known)| {
        let length = usize::try_from(segment_length(at as u64, progress.size())).unwrap();
        let found = leaves(at * SEGMENT, length);
        progress.bad().contains(&(at as u64))
            || !found.is_empty() && segment_digest(&found) == *known
    });
    let tail = progress.tail();
    segments && leaves(progress.segments().len() * SEGMENT, tail.len() * LEAF) == tail
}

fn read(path: PathBuf) -> Vec<u8> {
    fs::read(path).unwrap()
}
