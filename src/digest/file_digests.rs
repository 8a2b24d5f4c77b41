//! What is known of the bytes of one version of a file: so much need not be hashed again.

use std::sync::Arc;

use super::Md5Digest;

/// Digests of one version of a file. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FileDigests {
    /// The digests of all its segments, in order, if they are known. The root follows from them.
    pub segments: Option<Arc<[Md5Digest]>>,
    /// The MD5 of all its bytes, if it is known.
    pub md5: Option<Md5Digest>,
}

impl FileDigests {
    /// What either of two knows of the same bytes; where both do, what `self` knows.
    #[must_use]
    pub fn or(self, other: &Self) -> Self {
        Self {
            segments: self.segments.or_else(|| other.segments.clone()),
            md5: self.md5.or(other.md5),
        }
    }
}
