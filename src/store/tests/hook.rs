//! Watches the calls of [`sys`](crate::store::sys) on this thread, and makes some of them fail.

use std::{
    cell::{Cell, RefCell},
    os::fd::{AsFd, OwnedFd},
};

use rustix::io::Errno;

/// One call that changes the disk, in the order in which they were made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::store) enum Call {
    Open,
    Write { inode: u64, offset: u64, bytes: Vec<u8> },
    Truncate(u64, u64),
    Sync(u64),
    Attributes,
    Rename,
    Unlink,
}

/// Which calls fail.
#[derive(Debug, Clone, Copy)]
pub(in crate::store) enum Fault {
    /// The n-th call, from 0, fails with this; a write does half of its work before.
    Nth(u32, Errno),
    /// From the n-th call on, every call fails with this.
    From(u32, Errno),
}

thread_local! {
    static BOOT: Cell<Option<u128>> = const { Cell::new(None) };
    static FAULT: Cell<Option<Fault>> = const { Cell::new(None) };
    static COUNT: Cell<u32> = const { Cell::new(0) };
    static TORN: Cell<Option<Errno>> = const { Cell::new(None) };
    static RENAME: RefCell<Option<Box<dyn FnOnce()>>> = const { RefCell::new(None) };
    static TRACE: RefCell<Option<Vec<Call>>> = const { RefCell::new(None) };
}

/// The boot that this thread takes for the present one.
pub(in crate::store) fn boot() -> Option<u128> {
    BOOT.get()
}

pub(in crate::store) fn set_boot(boot: u128) {
    BOOT.set(Some(boot));
}

/// Runs `run` with a fault; returns what it came to, and whether the fault came to pass.
pub(in crate::store) fn with_fault<T>(fault: Fault, run: impl FnOnce() -> T) -> (T, bool) {
    COUNT.set(0);
    TORN.set(None);
    FAULT.set(Some(fault));
    let outcome = run();
    FAULT.set(None);
    TORN.set(None);
    let (Fault::Nth(at, _) | Fault::From(at, _)) = fault;
    (outcome, COUNT.get() > at)
}

/// Something happens right before the next rename.
pub(in crate::store) fn before_rename(what: impl FnOnce() + 'static) {
    RENAME.set(Some(Box::new(what)));
}

/// A rename is about to be made.
pub(in crate::store) fn rename() -> Result<(), Errno> {
    if let Some(what) = RENAME.take() {
        what();
    }
    call(|| Call::Rename)
}

/// From now on calls are noted.
pub(in crate::store) fn start_trace() {
    TRACE.set(Some(Vec::new()));
}

/// How many calls were noted so far.
pub(in crate::store) fn traced() -> usize {
    TRACE.with_borrow(|trace| trace.as_ref().map_or(0, Vec::len))
}

pub(in crate::store) fn take_trace() -> Vec<Call> {
    TRACE.take().unwrap_or_default()
}

pub(in crate::store) fn inode(file: impl AsFd) -> u64 {
    rustix::fs::fstat(file).unwrap().st_ino
}

fn fails() -> Option<Errno> {
    let at = COUNT.replace(COUNT.get() + 1);
    match FAULT.get()? {
        Fault::Nth(n, errno) => (at == n).then_some(errno),
        Fault::From(n, errno) => (at >= n).then_some(errno),
    }
}

/// A call is about to be made.
pub(in crate::store) fn call(call: impl FnOnce() -> Call) -> Result<(), Errno> {
    if let Some(errno) = fails() {
        return Err(errno);
    }
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace {
            trace.push(call());
        }
    });
    Ok(())
}

/// A write is about to be made; returns how much of it the disk takes.
pub(in crate::store) fn write<'a>(
    file: &OwnedFd,
    bytes: &'a [u8],
    offset: u64,
) -> Result<&'a [u8], Errno> {
    if let Some(errno) = TORN.take() {
        return Err(errno);
    }
    let taken = match fails() {
        Some(errno) if bytes.len() < 2 => return Err(errno),
        Some(errno) => {
            TORN.set(Some(errno));
            &bytes[..bytes.len() / 2]
        }
        None => bytes,
    };
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace {
            trace.push(Call::Write { inode: inode(file), offset, bytes: taken.to_vec() });
        }
    });
    Ok(taken)
}
