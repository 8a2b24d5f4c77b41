//! What a server keeps of a password: enough to check a proof, not enough to make one.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _};

use super::ClientKeys;
use crate::{
    auth::Password,
    limits::{SALT_BYTES_MAX, SALT_BYTES_MIN, SCRAM_ITERATIONS_MAX, SCRAM_ITERATIONS_MIN},
};

/// `StoredKey` and `ServerKey` of RFC 5802 with salt and iterations.
///
/// Who reads it can guess passwords against it, and pose as the server, but not log in. As text
/// it is `ITERATIONS:SALT:STOREDKEY:SERVERKEY`, in base64 without padding.
///
/// Invariant: 8 to 64 bytes of salt, iterations within their limits. The salt's place has a fixed
/// size, so that one verifier can be taken instead of another in constant time.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramVerifier {
    iterations: u32,
    salt: [u8; SALT_BYTES_MAX],
    salt_bytes: u8,
    pub(super) stored_key: [u8; 32],
    pub(super) server_key: [u8; 32],
}

/// A text is no verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not ITERATIONS:SALT:STOREDKEY:SERVERKEY, or a value out of its bounds")]
pub struct VerifierError;

impl ScramVerifier {
    /// From a password. Takes as long as the iterations want.
    #[must_use]
    pub fn new(password: &Password, salt: [u8; 16], iterations: u32) -> Self {
        let iterations = iterations.clamp(SCRAM_ITERATIONS_MIN, SCRAM_ITERATIONS_MAX);
        Self::of_keys(&ClientKeys::derive(password, &salt, iterations), salt, iterations)
    }

    /// From keys that a client has made with this salt.
    fn of_keys(keys: &ClientKeys, salt: [u8; 16], iterations: u32) -> Self {
        let stored_key = Sha256::digest(keys.client_key).into();
        Self::from_parts(iterations, salt, stored_key, keys.server_key)
    }

    /// From its parts.
    pub(in crate::auth) fn from_parts(
        iterations: u32,
        salt: [u8; 16],
        stored_key: [u8; 32],
        server_key: [u8; 32],
    ) -> Self {
        let mut place = [0; SALT_BYTES_MAX];
        for (to, from) in place.iter_mut().zip(salt) {
            *to = from;
        }
        Self { iterations, salt: place, salt_bytes: 16, stored_key, server_key }
    }

    /// How often the password was hashed.
    #[must_use]
    pub const fn iterations(&self) -> u32 {
        self.iterations
    }

    /// What was hashed with it, 8 to 64 bytes.
    #[must_use]
    pub fn salt(&self) -> &[u8] {
        self.salt.get(..usize::from(self.salt_bytes)).unwrap_or_default()
    }

    /// The same salt and iterations, with the keys of another: nobody can tell them apart before
    /// the proof, and no proof fits.
    pub(in crate::auth) fn with_keys_of(&self, other: &Self) -> Self {
        let Self { stored_key, server_key, .. } = *other;
        Self { stored_key, server_key, ..self.clone() }
    }

    /// `if_set` if `choice` is set, else `self`, in constant time.
    pub(in crate::auth) fn or(&self, if_set: &Self, choice: Choice) -> Self {
        let mut chosen = self.clone();
        chosen.iterations.conditional_assign(&if_set.iterations, choice);
        chosen.salt.conditional_assign(&if_set.salt, choice);
        chosen.salt_bytes.conditional_assign(&if_set.salt_bytes, choice);
        chosen.stored_key.conditional_assign(&if_set.stored_key, choice);
        chosen.server_key.conditional_assign(&if_set.server_key, choice);
        chosen
    }
}

impl FromStr for ScramVerifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        let mut parts = text.split(':');
        let mut part = || parts.next().ok_or(VerifierError);
        let (count, salt, stored, server) = (part()?, part()?, part()?, part()?);
        if parts.next().is_some() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(VerifierError);
        }
        let iterations: u32 = count.parse().map_err(|_| VerifierError)?;
        if !(SCRAM_ITERATIONS_MIN..=SCRAM_ITERATIONS_MAX).contains(&iterations) {
            return Err(VerifierError);
        }
        let decode = |text: &str| STANDARD_NO_PAD.decode(text).map_err(|_| VerifierError);
        let salt = decode(salt)?;
        if !(SALT_BYTES_MIN..=SALT_BYTES_MAX).contains(&salt.len()) {
            return Err(VerifierError);
        }
        let salt_bytes = u8::try_from(salt.len()).map_err(|_| VerifierError)?;
        let mut place = [0; SALT_BYTES_MAX];
        for (to, from) in place.iter_mut().zip(salt) {
            *to = from;
        }
        let key = |text| <[u8; 32]>::try_from(decode(text)?).map_err(|_| VerifierError);
        let (stored_key, server_key) = (key(stored)?, key(server)?);
        Ok(Self { iterations, salt: place, salt_bytes, stored_key, server_key })
    }
}

impl ScramVerifier {
    /// Its form in the user file, and in a registration; not a `Display`, since it does not belong
    /// anywhere else.
    #[must_use]
    pub fn to_text(&self) -> String {
        let [salt, stored, server] = [self.salt(), &self.stored_key, &self.server_key]
            .map(|bytes| STANDARD_NO_PAD.encode(bytes));
        format!("{}:{salt}:{stored}:{server}", self.iterations)
    }
}

impl fmt::Debug for ScramVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramVerifier")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}
