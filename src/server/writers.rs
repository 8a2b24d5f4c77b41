//! Who is writing which partial, within this process. Between processes the journal's lock
//! says; the workers of one server ask each other for it.

use std::collections::HashMap;

use mio::Token;

use super::connection::Connection;
use crate::{
    digest::Md5Digest,
    limits::{UNSYNCED_BYTES_MAX, UNSYNCED_UPLOAD_BYTES_MAX, UNSYNCED_UPLOAD_BYTES_MIN},
    session::JobId,
    store::RootId,
    wire::Owner,
};

/// Which partial: the home that it is in, and its name there.
pub(super) type PartialId = (RootId, Md5Digest);

/// One writer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer {
    pub(super) token: Token,
    pub(super) owner: Owner,
}

/// The writers by the names of their partials.
///
/// Invariant: a connection that is here knows it: its `partial` is the name.
#[derive(Debug, Default)]
pub(super) struct Writers {
    by_partial: HashMap<PartialId, Writer>,
}

impl Writers {
    /// Who writes a partial, if that is somebody else.
    pub(super) fn other_than(&self, token: Token, name: PartialId) -> Option<Writer> {
        self.by_partial.get(&name).copied().filter(|writer| writer.token != token)
    }

    /// Who writes a partial.
    pub(super) fn of(&self, name: PartialId) -> Option<Writer> {
        self.by_partial.get(&name).copied()
    }

    /// Makes a connection the writer of a partial, which `opening` opens.
    pub(super) fn set(
        &mut self,
        name: PartialId,
        owner: Owner,
        opening: JobId,
        connection: &mut Connection,
    ) {
        self.by_partial.insert(name, Writer { token: connection.token, owner });
        connection.partial = Some((name, opening));
    }

    /// How far each upload may be ahead of the disk, in bytes.
    pub(super) fn ahead_of_disk_bytes_max(&self) -> u64 {
        let writers = u64::try_from(self.by_partial.len()).unwrap_or(u64::MAX).max(1);
        (UNSYNCED_BYTES_MAX / writers).clamp(UNSYNCED_UPLOAD_BYTES_MIN, UNSYNCED_UPLOAD_BYTES_MAX)
    }

    /// A connection writes no more.
    pub(super) fn forget(&mut self, connection: &mut Connection) {
        if let Some((name, _)) = connection.partial.take()
            && self.by_partial.get(&name).is_some_and(|writer| writer.token == connection.token)
        {
            self.by_partial.remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_uploads_are_less_far_ahead_of_the_disk_each() {
        let most = |count: u8| {
            let mut writers = Writers::default();
            for number in 0..count {
                let name = (RootId::default(), Md5Digest::of(&[number]));
                let writer = Writer { token: Token(0), owner: Owner(0) };
                writers.by_partial.insert(name, writer);
            }
            writers.ahead_of_disk_bytes_max()
        };
        assert_eq!(most(0), UNSYNCED_UPLOAD_BYTES_MAX);
        assert_eq!(most(1), UNSYNCED_UPLOAD_BYTES_MAX);
        assert_eq!(most(64) * 64, UNSYNCED_BYTES_MAX);
        assert_eq!(most(255), UNSYNCED_BYTES_MAX / 255);
    }
}
