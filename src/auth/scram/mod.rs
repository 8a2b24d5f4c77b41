//! SCRAM-SHA-256 (RFC 5802, RFC 7677): both sides prove that they know the password, or what was
//! made from it, and nobody who listens or reads the user file can log in with what he saw.
//!
//! Only the header `n,,` is spoken: no channel binding, no other identity, no extensions. What
//! asks for those is refused and not misunderstood. The four messages:
//!
//! ```text
//! client   n,,n=anna,r=CLIENT_NONCE
//! server   r=CLIENT_NONCE+SERVER_NONCE,s=SALT,i=ITERATIONS
//! client   c=biws,r=CLIENT_NONCE+SERVER_NONCE,p=PROOF
//! server   v=SIGNATURE
//! ```

mod client;
mod server;
#[cfg(test)]
mod tests;
mod verifier;

use base64::{Engine as _, engine::general_purpose::STANDARD};

pub use self::{
    client::{ClientKeys, ScramClient, ScramProof},
    server::{ClientFirst, ScramServer},
    verifier::{ScramVerifier, VerifierError},
};
use crate::limits::{
    LOGIN_MESSAGE_BYTES_MAX, SCRAM_ITERATIONS_MAX, SCRAM_ITERATIONS_MIN, SCRAM_NONCE_BYTES_MAX,
};

/// Name of the mechanism.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// Why a login by SCRAM goes no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ScramError {
    /// A message beyond [`LOGIN_MESSAGE_BYTES_MAX`] bytes.
    #[error("login message longer than {LOGIN_MESSAGE_BYTES_MAX} bytes")]
    TooLong,
    /// A message that does not follow the grammar.
    #[error("malformed login message: {0}")]
    Malformed(&'static str),
    /// The header asks for, or offers, channel binding.
    #[error("channel binding is not supported")]
    ChannelBinding,
    /// An attribute that is not known, mandatory (`m=`) or not.
    #[error("extensions of SCRAM are not supported")]
    Extension,
    /// The server asks for absurdly few or many iterations.
    #[error(
        "the server asks for {0} iterations; only {SCRAM_ITERATIONS_MIN} to \
         {SCRAM_ITERATIONS_MAX} are acceptable"
    )]
    Iterations(u32),
    /// The server's nonce does not go on where the client's ends.
    #[error("the server's nonce does not extend the client's")]
    Nonce,
    /// What the client sent proves nothing: the one error for whatever is wrong with it.
    #[error("login refused")]
    Refused,
    /// The server could not prove that it knows the user's password.
    #[error("the server could not prove that it knows this user")]
    ServerUnproven,
}

/// A message as text, if it is not too long.
fn text(message: &[u8]) -> Result<&str, ScramError> {
    if message.len() > LOGIN_MESSAGE_BYTES_MAX {
        return Err(ScramError::TooLong);
    }
    std::str::from_utf8(message).map_err(|_| ScramError::Malformed("not UTF-8"))
}

/// The value of an attribute that must stand here.
fn attribute<'a>(
    parts: &mut std::str::Split<'a, char>,
    key: &str,
    missing: &'static str,
) -> Result<&'a str, ScramError> {
    let part = parts.next().ok_or(ScramError::Malformed(missing))?;
    if part.starts_with("m=") {
        return Err(ScramError::Extension);
    }
    part.strip_prefix(key).ok_or(ScramError::Malformed(missing))
}

/// Nothing may stand behind the last attribute.
fn end(mut parts: std::str::Split<'_, char>) -> Result<(), ScramError> {
    parts.next().map_or(Ok(()), |_| Err(ScramError::Extension))
}

/// Whether a client's nonce is one: printable, without a comma, and not too long.
fn is_nonce(text: &str) -> bool {
    let printable = |byte| matches!(byte, 0x21..=0x7e) && byte != b',';
    !text.is_empty() && text.len() <= SCRAM_NONCE_BYTES_MAX && text.bytes().all(printable)
}

/// The 32 bytes that a base64 text stands for.
fn decode_32(text: &str) -> Option<[u8; 32]> {
    STANDARD.decode(text).ok()?.try_into().ok()
}

/// Proof and client key are each other's mask.
fn xor(one: &[u8; 32], other: &[u8; 32]) -> [u8; 32] {
    let mut out = *one;
    for (byte, mask) in out.iter_mut().zip(other) {
        *byte ^= mask;
    }
    out
}
