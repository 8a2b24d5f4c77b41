//! One MD5 in progress: 16 bytes of state, how many bytes it has seen, and the block it stands in.
//!
//! Whoever compresses the whole blocks, `md-5` or the lanes, works on the same state; padding and
//! the block in progress are handled here alone.

use md5::block_api::compress;

use super::Md5Digest;

/// Bytes that MD5 takes at a time, and between which its state is 16 bytes.
pub(super) const BLOCK_LEN: usize = 64;

/// What MD5 takes at a time.
pub(super) type Block = [u8; BLOCK_LEN];

/// The words A, B, C, D.
pub(super) type Words = [u32; 4];

/// What they are at the start (RFC 1321, 3.3).
const START: Words = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];

/// An MD5 that may be anywhere in its bytes. 88 bytes, no heap.
#[derive(Clone, Copy)]
pub(super) struct State {
    pub(super) words: Words,
    /// Bytes so far.
    len: u64,
    /// Its first `len % 64` bytes are those of the block in progress.
    partial: Block,
}

impl State {
    pub(super) const fn new() -> Self {
        Self::at(START, 0)
    }

    /// Between two blocks, with `len` bytes seen: a multiple of 64.
    pub(super) const fn at(words: Words, len: u64) -> Self {
        Self { words, len, partial: [0; BLOCK_LEN] }
    }

    pub(super) const fn len(&self) -> u64 {
        self.len
    }

    /// Bytes of the block in progress.
    const fn partial_len(&self) -> usize {
        #[expect(clippy::cast_possible_truncation, reason = "less than 64")]
        let partial = (self.len % BLOCK_LEN as u64) as usize;
        partial
    }

    /// Takes the bytes that follow, except for the whole blocks in their middle. The caller has to
    /// compress these into `words` before anything else happens to this state.
    #[must_use]
    pub(super) fn take<'a>(&mut self, bytes: &'a [u8]) -> &'a [Block] {
        let have = self.partial_len();
        self.len = self.len.wrapping_add(bytes.len() as u64);
        let mut rest = bytes;
        if have > 0 {
            let (head, behind) = bytes.split_at(bytes.len().min(BLOCK_LEN - have));
            self.partial[have..have + head.len()].copy_from_slice(head);
            if have + head.len() < BLOCK_LEN {
                return &[];
            }
            compress(&mut self.words, &[self.partial]);
            rest = behind;
        }
        let (blocks, tail) = rest.as_chunks();
        self.partial[..tail.len()].copy_from_slice(tail);
        blocks
    }

    /// Takes the bytes that follow.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        let blocks = self.take(bytes);
        compress(&mut self.words, blocks);
    }

    /// What completes the last block (RFC 1321, 3.1 and 3.2). The digest is in the words behind it.
    pub(super) fn padding(&self) -> Padding {
        let mut bytes = [0; BLOCK_LEN + 8];
        bytes[0] = 0x80;
        // Up to the last eight bytes of this block, or of the next if they don't fit in.
        let zeros_end = (2 * BLOCK_LEN - 8 - self.partial_len() - 1) % BLOCK_LEN + 1;
        bytes[zeros_end..zeros_end + 8].copy_from_slice(&self.len.wrapping_mul(8).to_le_bytes());
        Padding { bytes, len: zeros_end + 8 }
    }

    /// The digest, once the padding was taken.
    pub(super) fn digest(&self) -> Md5Digest {
        Md5Digest(word_bytes(self.words))
    }

    /// The digest of all bytes so far.
    pub(super) fn finish(mut self) -> Md5Digest {
        let padding = self.padding();
        self.update(padding.as_bytes());
        self.digest()
    }
}

/// What completes the last block of an MD5.
pub(super) struct Padding {
    bytes: [u8; BLOCK_LEN + 8],
    len: usize,
}

impl Padding {
    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The words as they are written: each with its low byte first.
pub(super) fn word_bytes(words: Words) -> [u8; 16] {
    let mut bytes = [0; 16];
    for (to, word) in bytes.as_chunks_mut().0.iter_mut().zip(words) {
        *to = word.to_le_bytes();
    }
    bytes
}

/// The words that [`word_bytes`] has written.
pub(super) fn words_of(bytes: &[u8; 16]) -> Words {
    let mut words = [0; 4];
    for (word, from) in words.iter_mut().zip(bytes.as_chunks().0) {
        *word = u32::from_le_bytes(*from);
    }
    words
}
