//! Files: the jail, sources to be read, partials with their journals, commit, listing, expiry.
//!
//! The only place that touches files. Everything here may wait for a disk, so the server calls it
//! from its [`Worker`] thread, except where a function says that it never waits. Knows no socket.
//!
//! **Invariants**
//! - A path is resolved beneath a directory handle, never by joining strings, and a name that was
//!   checked is never used again by name: what was opened is what is used.
//! - A file appears under its name only after its root was verified and its data is durable.
//! - What a journal says about bytes is true of the bytes on the disk, at any power cut.

mod digest_cache;
mod digest_folder;
mod error;
mod expire;
mod home;
mod identity;
mod journal;
mod journal_file;
mod listing;
mod measure;
mod own;
mod partial;
mod quota;
mod recover;
mod room;
mod root;
mod source;
mod space;
mod sync;
mod sys;
mod together;
mod worker;

#[cfg(test)]
mod tests;

pub use error::StoreError;
pub use expire::Expiry;
pub use identity::Identity;
pub(crate) use journal_file::write_all;
pub use listing::{Entry, Kind, Page};
pub use measure::Walk;
pub(crate) use partial::check_target;
pub use partial::{Opened, Partial, Place, Upload, is_partial_name, partial_name};
pub use quota::{Change, Ledger, Quota, Usage};
pub use root::{Root, RootId};
pub use source::{ReadNow, Source, fetched_bytes};
pub(crate) use sync::sync_together;
pub use together::{Became, Whole};
pub use worker::{Panicked, Worker};
