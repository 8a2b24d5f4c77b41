//! Finding the user who wants to log in, such that nobody can tell from the answer, or from the
//! time it took, whether there is one.
//!
//! For every name a decoy is computed from the name and a secret of the user file: so an unknown
//! name always has the same salt, as a known one has. The place of a name among the users is found
//! by its hash under the same secret, in the same number of steps whether it is there or not, and
//! the choice between user and decoy is made without a branch.

use std::{fmt, sync::Arc};

use subtle::{Choice, ConstantTimeEq as _};

use super::{
    Account, CramVerifier, Rights, ScramVerifier, UserName,
    hmac::{Keyed, finish, keyed},
};
use crate::limits::SCRAM_ITERATIONS;

/// All users, ready to be found.
#[derive(Clone)]
pub(super) struct Lookup {
    secret: Keyed,
    /// Hashes of the names, sorted.
    hashes: Vec<u128>,
    /// The users in the order of `hashes`, and behind them one for nobody.
    slots: Vec<Slot>,
}

#[derive(Clone)]
struct Slot {
    scram: ScramVerifier,
    cram: CramVerifier,
    account: Arc<Account>,
    /// Whether a right proof lets him in.
    open: bool,
}

/// Verifiers that nothing fits, always the same ones for a name.
struct Decoy {
    scram: ScramVerifier,
    cram: CramVerifier,
}

/// Whom a login is checked against: a user, or a decoy in his place.
#[derive(Clone)]
pub struct Candidate {
    /// For SCRAM-SHA-256; one that nothing fits if the user is unknown or locked, or has none.
    pub scram: ScramVerifier,
    /// For CRAM-MD5; one that nothing fits if the user is unknown or locked, or has none.
    pub cram: CramVerifier,
    account: Arc<Account>,
    open: Choice,
}

impl Candidate {
    /// The user, if there is one who may log in. To be asked for only after the proof was right;
    /// `None` means that none can be.
    #[must_use]
    pub fn account(&self) -> Option<&Arc<Account>> {
        bool::from(self.open).then_some(&self.account)
    }
}

impl fmt::Debug for Candidate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Candidate").field("account", &self.account()).finish_non_exhaustive()
    }
}

impl Lookup {
    /// Over users with different names; `disabled` ones are there but can't log in.
    pub(super) fn new<'a>(
        secret: &[u8; 32],
        accounts: impl Iterator<Item = &'a Arc<Account>>,
    ) -> Self {
        let secret = keyed(secret);
        let mut sorted: Vec<(u128, Slot)> = accounts
            .map(|account| {
                let name = account.name.as_str();
                (name_hash(&secret, name), Slot::new(account, Decoy::of(&secret, name)))
            })
            .collect();
        sorted.sort_unstable_by_key(|(hash, _)| *hash);
        let (hashes, mut slots): (Vec<_>, Vec<_>) = sorted.into_iter().unzip();
        let nobody = Arc::new(Account::new(UserName::anonymous(), Rights::NONE));
        slots.push(Slot::new(&nobody, Decoy::of(&secret, "")));
        Self { secret, hashes, slots }
    }

    /// The user of this name, or a decoy.
    pub(super) fn find(&self, name: &str) -> Candidate {
        let hash = name_hash(&self.secret, name);
        let Decoy { scram, cram } = Decoy::of(&self.secret, name);
        let at = self.hashes.partition_point(|other| *other < hash);
        let there = self.hashes.get(at).copied().unwrap_or(!hash);
        // 128 bits under a secret: no two names ever have the same.
        let known = there.ct_eq(&hash);
        let Some(slot) = self.slots.get(at) else {
            unreachable!("there is one slot more than there are places")
        };
        Candidate {
            scram: scram.or(&slot.scram, known),
            cram: cram.or(&slot.cram, known),
            account: Arc::clone(&slot.account),
            open: known & Choice::from(u8::from(slot.open)),
        }
    }
}

impl Slot {
    fn new(account: &Arc<Account>, decoy: Decoy) -> Self {
        let open = !account.locked && (account.scram.is_some() || account.cram_md5.is_some());
        let scram = match &account.scram {
            Some(scram) if open => scram.clone(),
            // Before the proof nobody learns that he is locked.
            Some(scram) => scram.with_keys_of(&decoy.scram),
            None => decoy.scram,
        };
        let cram = account.cram_md5.clone().filter(|_| open).unwrap_or(decoy.cram);
        Self { scram, cram, account: Arc::clone(account), open }
    }
}

impl Decoy {
    fn of(secret: &Keyed, name: &str) -> Self {
        let derive = |label: &[u8]| finish(secret.clone(), &[label, name.as_bytes()]);
        let first = |bytes: [u8; 32]| *bytes.first_chunk::<16>().unwrap_or(&[0; 16]);
        let last = |bytes: [u8; 32]| *bytes.last_chunk::<16>().unwrap_or(&[0; 16]);
        let (salt, cram) = (first(derive(b"salt:")), derive(b"cram:"));
        let (stored, server) = (derive(b"stored:"), derive(b"server:"));
        Self {
            scram: ScramVerifier::from_parts(SCRAM_ITERATIONS, salt, stored, server),
            cram: CramVerifier::from_parts(first(cram), last(cram)),
        }
    }
}

fn name_hash(secret: &Keyed, name: &str) -> u128 {
    let hash = finish(secret.clone(), &[b"name:", name.as_bytes()]);
    u128::from_be_bytes(*hash.first_chunk().unwrap_or(&[0; 16]))
}
