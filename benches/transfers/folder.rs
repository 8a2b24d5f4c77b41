//! Where the files of a benchmark lie.

use std::{
    env,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use tempfile::TempDir;
use towpath::limits::CHUNK_BYTES;

use crate::Crowd;

/// For what is read: on a disk, and in its cache. `TOW_BENCH_DIR` names another place.
pub(crate) fn for_gets() -> TempDir {
    match env::var_os("TOW_BENCH_DIR") {
        Some(dir) => TempDir::new_in(dir),
        None => TempDir::new(),
    }
    .expect("a temporary folder can be made")
}

/// For what is written: in memory where there is such a place, so that a sync costs nothing.
pub(crate) fn for_puts() -> TempDir {
    let memory = Path::new("/dev/shm");
    if env::var_os("TOW_BENCH_DIR").is_none() && memory.is_dir() {
        return TempDir::new_in(memory).expect("a temporary folder can be made in memory");
    }
    for_gets()
}

/// The name of a client's file.
pub(crate) fn name(client: usize) -> String {
    format!("file-{client}")
}

/// Makes a file for each client, and reads it once so that it is in memory.
pub(crate) fn fill(folder: &Path, crowd: Crowd) {
    let mut block = vec![0; CHUNK_BYTES];
    for client in 0..crowd.clients {
        let path = folder.join(name(client));
        let mut file = File::create(&path).expect("a file can be made");
        let mut left = crowd.bytes_each;
        for number in 0_u64.. {
            if left == 0 {
                break;
            }
            let salt = (client as u64 + 1).wrapping_mul(0x9e37_79b9) ^ number;
            for (at, eight) in block.chunks_exact_mut(8).enumerate() {
                let bits = (at as u64 ^ salt << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                eight.copy_from_slice(&bits.to_le_bytes());
            }
            let length = usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES));
            file.write_all(&block[..length]).expect("a file can be written");
            left -= length as u64;
        }
        // Dirty pages would be written out while something else is measured.
        file.sync_all().expect("a file can be synced");
        drop(file);
        fs::read(&path).expect("a file can be read");
    }
}

/// Removes what a put made before, so that the next one is as the first.
pub(crate) fn empty(folder: &Path) {
    let partials = folder.join(".tow/partials");
    for folder in [folder.to_path_buf(), partials] {
        for path in files(&folder) {
            // A server may be about to remove it too.
            let _ = fs::remove_file(path);
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}
