//! Power cuts. Here is how it works:
//!
//! 1. A scenario runs with the real code on a real folder; every call that changes the disk is
//!    noted.
//! 2. For each number of calls that were made, the power is cut: what was synced stays; of what
//!    was not, everything, nothing or parts may have reached the disk, as bytes, as zeros or torn.
//! 3. In each of these states, the real code opens the partial once more, at another boot. What
//!    it claims has to be what lies on the disk, and no less than the last checkpoint said.
//!
//! Last, each sync is left out in turn, and the boot is kept: then the same check has to fail.

use std::fs;

use super::{hook::Call, *};

const OLD_BOOT: u128 = 1;
const NEW_BOOT: u128 = 2;

/// A scenario while it runs.
struct Run {
    store: Store,
    receiver: Option<Receiver>,
    /// From so many calls on, so many bytes are durable.
    durable: Vec<(usize, u64)>,
}

impl Run {
    fn new() -> Self {
        hook::set_boot(OLD_BOOT);
        hook::start_trace();
        let (store, receiver, durable) = (Store::new(), None, vec![(0, 0)]);
        Self {
            store,
            receiver,
            durable,
        }
    }

    /// From here on, less may be durable.
    fn at_most(&mut self, calls: usize, bytes: u64) {
        let before = self.durable.last().unwrap().1;
        self.durable.push((calls, before.min(bytes)));
    }

    fn open(&mut self, upload: &Upload, fresh: bool) {
        self.receiver = None;
        let calls = hook::traced();
        let receiver = Receiver::new(self.store.try_open(upload, fresh).unwrap());
        self.at_most(calls, receiver.progress.good_bytes());
        self.receiver = Some(receiver);
    }

    fn receiver(&mut self) -> &mut Receiver {
        self.receiver.as_mut().unwrap()
    }

    fn receive(&mut self, source: &[u8], leaves: usize) {
        self.receiver().receive(source, leaves).unwrap();
    }

    fn checkpoint(&mut self) {
        let (calls, good) = (hook::traced(), self.receiver().progress.good_bytes());
        self.at_most(calls, good);
        self.receiver().checkpoint().unwrap();
        self.durable.push((hook::traced(), good));
    }

    fn note(&mut self) {
        let (calls, good) = (hook::traced(), self.receiver().progress.good_bytes());
        self.at_most(calls, good);
        self.receiver().note().unwrap();
    }

    fn end(mut self, last: &Upload) -> Cuts {
        self.receiver = None;
        let store = self.store;
        let inode = |ending| {
            use std::os::unix::fs::MetadataExt;
            let name = last.path.to_string();
            fs::metadata(store.own(&name[1..], ending)).unwrap().ino()
        };
        Cuts {
            data: inode("data"),
            journal: inode("journal"),
            calls: hook::take_trace(),
            durable: self.durable,
            last: last.clone(),
            store,
        }
    }
}

/// What was noted of a scenario.
struct Cuts {
    store: Store,
    calls: Vec<Call>,
    durable: Vec<(usize, u64)>,
    data: u64,
    journal: u64,
    last: Upload,
}

/// How much of what was not synced reached the disk.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// So many of its bytes, in their order.
    Bytes(usize),
    /// So many of its bytes, and zeros for the others.
    Zeros(usize),
    /// Every second call only, from this one on.
    Every2nd(usize),
}

/// What a file may hold after `calls`.
fn after_cut(calls: &[Call], inode: u64, fate: Fate) -> Vec<u8> {
    let mine = calls.iter().filter(|call| match call {
        Call::Write { inode: at, .. } | Call::Truncate(at, _) | Call::Sync(at) => *at == inode,
        Call::Open | Call::Attributes | Call::Rename | Call::Unlink => false,
    });
    let mine: Vec<&Call> = mine.collect();
    let is_sync = |call: &&Call| matches!(call, Call::Sync(_));
    let synced = mine.iter().rposition(is_sync).map_or(0, |at| at + 1);
    let mut file = Vec::new();
    let mut put = |offset: usize, bytes: &[u8]| {
        let end = offset + bytes.len();
        if file.len() < end {
            file.resize(end, 0);
        }
        file[offset..end].copy_from_slice(bytes);
    };
    let mut left = usize::MAX;
    let mut truncate = None;
    for (at, call) in mine.iter().enumerate() {
        if at == synced {
            if let Fate::Bytes(bytes) | Fate::Zeros(bytes) = fate {
                left = bytes;
            }
        }
        if let Fate::Every2nd(from) = fate
            && at >= synced
            && (at + from) % 2 == 0
        {
            continue;
        }
        match call {
            Call::Write { offset, bytes, .. } => {
                let offset = usize::try_from(*offset).unwrap();
                let have = bytes.len().min(left);
                put(offset, &bytes[..have]);
                if have < bytes.len() && matches!(fate, Fate::Zeros(_)) {
                    put(offset + have, &vec![0; bytes.len() - have]);
                }
                left -= have;
            }
            Call::Truncate(_, length) if left > 0 => {
                truncate = Some(usize::try_from(*length).unwrap());
                left -= 1;
            }
            _ => {}
        }
        if let Some(length) = truncate.take() {
            // The closure holds the file.
            let mut cut = std::mem::take(&mut file);
            cut.resize(length, 0);
            file = cut;
            put = |_, _| ();
        }
    }
    file
}
