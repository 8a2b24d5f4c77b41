//! Memory for bytes that are to be hashed.

use std::{
    fmt,
    ops::{Deref, DerefMut, Range},
};

use super::state::BLOCK_LEN;

/// Zeroed memory whose first byte is the first of a cache line, as long as a block of MD5 is. The
/// lanes load whole blocks: where each lies across two lines, they take a third longer.
///
/// Memory that was not touched yet is not there: a buffer costs nothing before it is used.
pub struct Buffer {
    bytes: Vec<u8>,
    /// Where the first line starts.
    start: usize,
}

impl Buffer {
    /// Bytes of a line.
    pub const LINE_BYTES: usize = BLOCK_LEN;

    /// A buffer of `len` bytes.
    #[must_use]
    pub fn new(len: usize) -> Self {
        let bytes = vec![0; len + BLOCK_LEN - 1];
        let start = bytes.as_ptr().align_offset(BLOCK_LEN).min(BLOCK_LEN - 1);
        Self { bytes, start }
    }

    fn range(&self) -> Range<usize> {
        self.start..self.start + self.bytes.len().saturating_sub(BLOCK_LEN - 1)
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(self.range()).unwrap_or_default()
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        let range = self.range();
        self.bytes.get_mut(range).unwrap_or_default()
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_as_long_as_asked_for_and_starts_with_a_line() {
        for len in [0, 1, 63, 64, 65, 1 << 20, (1 << 20) + 48] {
            let mut buffer = Buffer::new(len);
            assert_eq!(buffer.len(), len);
            assert_eq!(buffer.as_ptr().align_offset(BLOCK_LEN), 0, "{len} bytes");
            buffer.fill(7);
            assert!(buffer.iter().all(|&byte| byte == 7));
        }
    }
}
