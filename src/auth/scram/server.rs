//! The server's side.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::{ScramError, ScramVerifier, attribute, decode_32, end, is_nonce, text, xor};
use crate::{auth::hmac::hmac, limits::LOGIN_MESSAGE_BYTES_MAX};

/// The header `n,,` in base64: what a client-final has to repeat.
const HEADER_BASE64: &[u8] = b"c=biws,r=";

/// A client's first message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientFirst {
    bare: String,
    name: String,
    nonce: String,
}

impl ClientFirst {
    /// Reads the first message of a client.
    ///
    /// # Errors
    /// Whatever the grammar, or this implementation of it, does not allow. Depends on the message
    /// alone, never on whether there is such a user.
    pub fn parse(message: &[u8]) -> Result<Self, ScramError> {
        let message = text(message)?;
        if message.starts_with(['y', 'p']) {
            return Err(ScramError::ChannelBinding);
        }
        let bare = message.strip_prefix("n,,").ok_or(ScramError::Malformed("no header n,,"))?;
        let mut parts = bare.split(',');
        let name = decode_name(attribute(&mut parts, "n=", "no user name")?)?;
        let nonce = attribute(&mut parts, "r=", "no nonce")?.to_owned();
        if !is_nonce(&nonce) {
            return Err(ScramError::Malformed("not a nonce"));
        }
        end(parts)?;
        Ok(Self { bare: bare.to_owned(), name, nonce })
    }

    /// The name that wants to log in, at most [`LOGIN_MESSAGE_BYTES_MAX`] bytes of any text: it
    /// may be no user name at all, and must be escaped before it is shown.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The client's random part of the nonce.
    #[must_use]
    pub fn nonce(&self) -> &str {
        &self.nonce
    }
}

/// Comma and equals sign come as `=2C` and `=3D`, and nothing else does.
fn decode_name(name: &str) -> Result<String, ScramError> {
    const BAD: ScramError = ScramError::Malformed("bad user name");
    let mut pieces = name.split('=');
    let mut decoded = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (sign, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            (None, None) => return Err(BAD),
        };
        decoded.push(sign);
        decoded.push_str(rest);
    }
    if decoded.is_empty() { Err(BAD) } else { Ok(decoded) }
}

/// A server that waits for the proof.
#[derive(Debug)]
pub struct ScramServer {
    client_first_bare: String,
    server_first: String,
    /// Both parts.
    nonce: String,
    verifier: ScramVerifier,
}

impl ScramServer {
    /// Answers the first message. `nonce` must come from the system's random numbers, anew for
    /// each attempt: a proof is worth nothing for another one.
    #[must_use]
    pub fn new(first: ClientFirst, verifier: ScramVerifier, nonce: [u8; 18]) -> (Self, String) {
        Self::with_nonce_text(first, verifier, &STANDARD.encode(nonce))
    }

    pub(super) fn with_nonce_text(
        first: ClientFirst,
        verifier: ScramVerifier,
        nonce: &str,
    ) -> (Self, String) {
        let nonce = format!("{}{nonce}", first.nonce);
        let salt = STANDARD.encode(verifier.salt());
        let server_first = format!("r={nonce},s={salt},i={}", verifier.iterations());
        let answer = server_first.clone();
        (Self { client_first_bare: first.bare, server_first, nonce, verifier }, answer)
    }

    /// Checks the proof; with it comes the proof of the server.
    ///
    /// The work is the same for every message, two HMACs, also for one that is no client-final
    /// at all: so neither the error nor the time says what was wrong.
    ///
    /// # Errors
    /// [`ScramError::Refused`].
    pub fn verify(self, client_final: &[u8]) -> Result<String, ScramError> {
        let attempt = Attempt::read(client_final, self.nonce.as_bytes());
        let message: [&[u8]; 5] = [
            self.client_first_bare.as_bytes(),
            b",",
            self.server_first.as_bytes(),
            b",",
            attempt.without_proof,
        ];
        let client_signature = hmac(&self.verifier.stored_key, &message);
        let server_signature = hmac(&self.verifier.server_key, &message);
        let client_key = xor(&attempt.proof, &client_signature);
        let key: [u8; 32] = Sha256::digest(client_key).into();
        let right = key.ct_eq(&self.verifier.stored_key) & attempt.well_formed;
        if bool::from(right) {
            Ok(format!("v={}", STANDARD.encode(server_signature)))
        } else {
            Err(ScramError::Refused)
        }
    }
}

/// What a client-final comes to, however broken it is.
struct Attempt<'a> {
    /// What the proof is about.
    without_proof: &'a [u8],
    /// The proof, or zeros.
    proof: [u8; 32],
    /// Whether header, nonce and proof have their form, and the nonce is ours.
    well_formed: Choice,
}

impl<'a> Attempt<'a> {
    fn read(message: &'a [u8], nonce: &[u8]) -> Self {
        let fits = message.len() <= LOGIN_MESSAGE_BYTES_MAX;
        let message = message.get(..LOGIN_MESSAGE_BYTES_MAX).unwrap_or(message);
        let comma = message.windows(3).rposition(|window| window == b",p=");
        let (without_proof, rest) =
            message.split_at_checked(comma.unwrap_or(message.len())).unwrap_or((message, &[]));
        let proof = rest.strip_prefix(b",p=").and_then(|proof| std::str::from_utf8(proof).ok());
        let proof = proof.and_then(decode_32);
        // No extension has room here: header and nonce are all there is.
        let theirs = without_proof.strip_prefix(HEADER_BASE64).unwrap_or_default();
        let form = Choice::from(u8::from(fits && proof.is_some()));
        Self {
            without_proof,
            proof: proof.unwrap_or_default(),
            well_formed: theirs.ct_eq(nonce) & form,
        }
    }
}
