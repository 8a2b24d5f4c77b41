//! The client's side.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize, Zeroizing};

use super::{ScramError, attribute, decode_32, end, text, xor};
use crate::{
    auth::{Password, UserName, hmac::hmac},
    limits::{SALT_BYTES_MAX, SALT_BYTES_MIN, SCRAM_ITERATIONS_MAX, SCRAM_ITERATIONS_MIN},
};

/// What a client makes of a password for one salt and number of iterations. As good as the
/// password, for that salt; overwritten when dropped.
#[derive(Clone)]
pub struct ClientKeys {
    pub(super) client_key: [u8; 32],
    pub(super) server_key: [u8; 32],
}

impl ClientKeys {
    /// Hashes a password. This is the one step that takes long, so a client should keep the
    /// result for as long as salt and iterations stay the same.
    #[must_use]
    pub fn derive(password: &Password, salt: &[u8], iterations: u32) -> Self {
        let mut salted = Zeroizing::new([0; 32]);
        pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), salt, iterations, &mut *salted);
        Self {
            client_key: hmac(&salted, &[b"Client Key"]),
            server_key: hmac(&salted, &[b"Server Key"]),
        }
    }
}

impl Drop for ClientKeys {
    fn drop(&mut self) {
        self.client_key.zeroize();
        self.server_key.zeroize();
    }
}

impl fmt::Debug for ClientKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKeys(..)")
    }
}

/// A client that has sent its first message.
#[derive(Debug)]
pub struct ScramClient {
    first_bare: String,
    nonce: String,
}

impl ScramClient {
    /// Begins a login, and gives the first message. `nonce` must come from the system's random
    /// numbers, anew for each login.
    #[must_use]
    pub fn new(name: &UserName, nonce: [u8; 18]) -> (Self, String) {
        Self::with_nonce_text(name, &STANDARD.encode(nonce))
    }

    pub(super) fn with_nonce_text(name: &UserName, nonce: &str) -> (Self, String) {
        // A user name has neither a comma nor an equals sign.
        let first_bare = format!("n={name},r={nonce}");
        let message = format!("n,,{first_bare}");
        (Self { first_bare, nonce: nonce.to_owned() }, message)
    }

    /// Answers the server's first message. `keys` is asked for the keys to a salt and a number of
    /// iterations, which are acceptable: 4096 to 10 million.
    ///
    /// # Errors
    /// Whatever is wrong with the message. `keys` is not asked then.
    pub fn answer(
        self,
        server_first: &[u8],
        keys: impl FnOnce(&[u8], u32) -> ClientKeys,
    ) -> Result<(ScramProof, String), ScramError> {
        let server_first = text(server_first)?;
        let mut parts = server_first.split(',');
        let nonce = attribute(&mut parts, "r=", "no nonce")?;
        let salt = attribute(&mut parts, "s=", "no salt")?;
        let iterations = attribute(&mut parts, "i=", "no iterations")?;
        end(parts)?;
        let theirs = nonce.strip_prefix(&*self.nonce).ok_or(ScramError::Nonce)?;
        if theirs.is_empty() || !theirs.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(ScramError::Nonce);
        }
        let salt = STANDARD.decode(salt).map_err(|_| ScramError::Malformed("bad salt"))?;
        if !(SALT_BYTES_MIN..=SALT_BYTES_MAX).contains(&salt.len()) {
            return Err(ScramError::Malformed("salt too short or too long"));
        }
        if !iterations.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(ScramError::Malformed("bad iterations"));
        }
        let iterations = iterations.parse().map_err(|_| ScramError::Malformed("bad iterations"))?;
        if !(SCRAM_ITERATIONS_MIN..=SCRAM_ITERATIONS_MAX).contains(&iterations) {
            return Err(ScramError::Iterations(iterations));
        }
        let keys = keys(&salt, iterations);
        let without_proof = format!("c=biws,r={nonce}");
        let auth_message = format!("{},{server_first},{without_proof}", self.first_bare);
        let stored_key: [u8; 32] = Sha256::digest(keys.client_key).into();
        let client_signature = hmac(&stored_key, &[auth_message.as_bytes()]);
        let proof = STANDARD.encode(xor(&keys.client_key, &client_signature));
        let server_signature = hmac(&keys.server_key, &[auth_message.as_bytes()]);
        Ok((ScramProof { server_signature }, format!("{without_proof},p={proof}")))
    }
}

/// A client that has sent its proof, and wants the server's.
pub struct ScramProof {
    server_signature: [u8; 32],
}

impl ScramProof {
    /// Checks that the server knows this user's password, or what was made from it.
    ///
    /// # Errors
    /// [`ScramError::ServerUnproven`]: it is another server, or one that lets everybody in.
    pub fn check(self, server_final: &[u8]) -> Result<(), ScramError> {
        let signature = text(server_final)?.strip_prefix("v=").and_then(decode_32);
        let signature = signature.ok_or(ScramError::ServerUnproven)?;
        if bool::from(signature.ct_eq(&self.server_signature)) {
            Ok(())
        } else {
            Err(ScramError::ServerUnproven)
        }
    }
}

impl fmt::Debug for ScramProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramProof(..)")
    }
}
