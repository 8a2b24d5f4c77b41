//! Digests: MD5, the tree of MD5 that proves a transfer (`md5-tree`), and the engine that computes
//! many of them at once.
//!
//! One MD5 is a chain and cannot be made faster than one core turns it; MD5 of independent blocks
//! runs in SIMD lanes and costs next to nothing. So a file is verified by a tree over 32 KiB blocks
//! ([`tree`]), whose leaves the [`Engine`] hashes for all connections of a turn together. Only who
//! asks for it pays for the plain MD5 of the whole file ([`FileMd5`]); it takes a lane beside them.
//!
//! This module is pure: bytes in, digests out. It must not know a socket, a file or a clock, and
//! nothing in it fails on what a peer sent. A caller that could not read some bytes must not feed
//! others in their place: a read error yields no digest.
//!
//! MD5 guards against accidents, not against an attacker.
//!
//! Invariants:
//! - How bytes are cut into calls never changes a digest.
//! - With and without lanes, and with and without the feature `simd`, all digests are equal.

mod buffer;
mod engine;
mod file_digests;
mod file_md5;
mod lockstep;
#[cfg(not(feature = "simd"))]
mod scalar;
#[cfg(feature = "simd")]
mod simd;
mod state;
pub mod tree;

use std::fmt;
use std::str::FromStr;

use md5::Digest as _;

pub use self::buffer::Buffer;
pub use self::engine::{Engine, Job, LeafState};
pub use self::file_digests::FileDigests;
pub use self::file_md5::{FileMd5, OffBoundary, SavedMd5};
#[cfg(not(feature = "simd"))]
use self::scalar as backend;
#[cfg(feature = "simd")]
use self::simd as backend;
pub use self::tree::{RootHasher, SegmentLeaves, Tree, TreeHasher, segment_digest};

/// Bytes under one leaf of the tree.
pub const LEAF_BYTES: u64 = 32_768;

/// Bytes under one segment digest: the unit that is checked, journalled and sent again.
pub const SEGMENT_BYTES: u64 = 4 * 1024 * 1024;

/// Leaves under one segment digest.
pub const LEAVES_PER_SEGMENT: usize = 128;

/// [`LEAF_BYTES`] for slices in memory.
const LEAF_LEN: usize = 32_768;

const _: () = {
    assert!(LEAF_LEN as u64 == LEAF_BYTES);
    assert!(LEAVES_PER_SEGMENT as u64 * LEAF_BYTES == SEGMENT_BYTES);
    // The saved state of a `FileMd5` exists at every segment boundary.
    assert!(SEGMENT_BYTES.is_multiple_of(file_md5::BLOCK_BYTES));
};

/// An MD5 digest, written as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Md5Digest(pub [u8; 16]);

impl Md5Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(md5::Md5::digest(bytes).into())
    }
}

impl fmt::Display for Md5Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Md5Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Md5Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let mut digest = [0; 16];
        if text.len() != 2 * digest.len() {
            return Err(ParseDigestError);
        }
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            for &digit in pair {
                *byte = *byte << 4 | nibble(digit).ok_or(ParseDigestError)?;
            }
        }
        Ok(Self(digest))
    }
}

/// The text is not exactly 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an MD5 digest is exactly 32 hexadecimal digits")]
pub struct ParseDigestError;

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_1321_test_suite_holds() {
        let suite = [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("a", "0cc175b9c0f1b6a831c399e269772661"),
            ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
            ("abcdefghijklmnopqrstuvwxyz", "c3fcd3d76192e4007dfb496cca67e13b"),
            (
                "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
                "d174ab98d277d9f5a5611c2c9f419d9f",
            ),
            (
                "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                "57edf4a22be3c955ac49da2e2107b67a",
            ),
        ];
        for (input, digest) in suite {
            assert_eq!(Md5Digest::of(input.as_bytes()).to_string(), digest);
        }
    }

    #[test]
    fn text_form_is_lower_case_and_read_in_both_cases() {
        let digest = Md5Digest::of(b"abc");
        let text = digest.to_string();
        assert_eq!(text, "900150983cd24fb0d6963f7d28e17f72");
        assert_eq!(format!("{digest:?}"), text);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(text.to_uppercase().parse(), Ok(digest));
    }

    #[test]
    fn anything_but_32_hex_digits_is_no_digest() {
        for text in [
            "",
            "900150983cd24fb0d6963f7d28e17f7",
            "900150983cd24fb0d6963f7d28e17f722",
            "g00150983cd24fb0d6963f7d28e17f72",
            "+00150983cd24fb0d6963f7d28e17f72",
            " 00150983cd24fb0d6963f7d28e17f72",
            "é0150983cd24fb0d6963f7d28e17f72",
        ] {
            assert_eq!(text.parse::<Md5Digest>(), Err(ParseDigestError), "{text:?}");
        }
    }
}
