//! HMAC-SHA-256 (RFC 2104) with keys of 32 bytes, which are all that SCRAM has.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroize;

/// What hashes a message under a key; cheap to clone once the key is in it.
pub(super) type Keyed = Hmac<Sha256>;

/// A key, ready to be used more than once.
pub(super) fn keyed(key: &[u8; 32]) -> Keyed {
    // A key shorter than a block is filled up with zeros, so says the RFC.
    let mut block = [0; 64];
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    let keyed = Keyed::new(&block.into());
    block.zeroize();
    keyed
}

/// The HMAC of the parts, one behind the other.
pub(super) fn finish(mut keyed: Keyed, parts: &[&[u8]]) -> [u8; 32] {
    for part in parts {
        keyed.update(part);
    }
    keyed.finalize().into_bytes().into()
}

/// The HMAC of the parts, one behind the other, under a key.
pub(super) fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    finish(keyed(key), parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_key_filled_up_with_zeros_is_the_same_key() {
        let mut plain = Keyed::new_from_slice(&[7; 32]).unwrap();
        plain.update(b"what do ya want for nothing?");
        let plain: [u8; 32] = plain.finalize().into_bytes().into();
        assert_eq!(hmac(&[7; 32], &[b"what do ya want ", b"for nothing?"]), plain);
    }
}
