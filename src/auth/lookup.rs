//! Finding the user who wants to log in, such that nobody can tell from the answer, or from the
//! time it took, whether there is one.
//!
//! For every name a decoy is computed from the name and a secret of the user file: so an unknown
//! name always has the same salt, as a known one has. A name is searched for by its hash under the
//! same secret, in the same number of steps whether it is there or not. At the end of the search an
//! unknown one has drawn the place of some user, and is treated like him until the choice between
//! him and the decoy, so that what a place takes tells nothing either. Neither the steps nor the
//! choices are branches: the processor would guess those by what was searched for before.

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
    /// Hashes of the names, sorted. Never empty.
    hashes: Vec<u128>,
    /// The users in the order of `hashes`; one for nobody if there are no users.
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
        if sorted.is_empty() {
            let nobody = Arc::new(Account::new(UserName::anonymous(), Rights::NONE));
            sorted.push((0, Slot::new(&nobody, Decoy::of(&secret, ""))));
        }
        sorted.sort_unstable_by_key(|(hash, _)| *hash);
        let (hashes, slots) = sorted.into_iter().unzip();
        Self { secret, hashes, slots }
    }

    /// The user of this name. The time tells whether there is one.
    pub(super) fn get(&self, name: &UserName) -> Option<&Arc<Account>> {
        let hash = name_hash(&self.secret, name.as_str());
        let at = last_not_beyond(&self.hashes, hash);
        self.hashes.get(at).filter(|there| **there == hash)?;
        self.slots.get(at).map(|slot| &slot.account)
    }

    /// The user of this name, or a decoy.
    pub(super) fn find(&self, name: &str) -> Candidate {
        let hash = name_hash(&self.secret, name);
        let Decoy { scram, cram } = Decoy::of(&self.secret, name);
        let at = last_not_beyond(&self.hashes, hash);
        // 128 bits under a secret: no two names ever have the same.
        let known = self.hashes.get(at).copied().unwrap_or(!hash).ct_eq(&hash);
        let slot = self.slots.get(select(lot(hash, self.slots.len()), at, known));
        let Some(slot) = slot else {
            unreachable!("there is a slot for each hash, and for each lot")
        };
        Candidate {
            scram: scram.or(&slot.scram, known),
            cram: cram.or(&slot.cram, known),
            account: Arc::clone(&slot.account),
            open: known & Choice::from(u8::from(slot.open)),
        }
    }
}

/// The index of the last hash that is not beyond `wanted`, or 0. The hashes are sorted; their number
/// alone says how many steps it takes.
///
/// So it is with the standard library's search, but the compiler makes branches of its steps.
fn last_not_beyond(hashes: &[u128], wanted: u128) -> usize {
    let (mut at, mut left) = (0, hashes.len());
    while left > 1 {
        let half = left / 2;
        let further = hashes.get(at + half).is_some_and(|hash| *hash <= wanted);
        at = select(at, at + half, Choice::from(u8::from(further)));
        left -= half;
    }
    at
}

/// One of `count` indices, each for as many hashes: that of the hash if all had even distances.
fn lot(hash: u128, count: usize) -> usize {
    usize::try_from(((hash >> 64) * count as u128) >> 64).unwrap_or(0)
}

/// `if_set` if `choice` is set, else `other`, without a branch.
fn select(other: usize, if_set: usize, choice: Choice) -> usize {
    let set = usize::from(choice.unwrap_u8());
    (1 - set) * other + set * if_set
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Looks at all of them, one after the other.
    fn naive(hashes: &[u128], wanted: u128) -> usize {
        hashes.iter().rposition(|hash| *hash <= wanted).unwrap_or(0)
    }

    #[test]
    fn every_place_among_any_number_is_found() {
        for count in 0..70 {
            let hashes: Vec<u128> = (1..=count).map(|n| 10 * n).collect();
            for wanted in 0..=10 * (count + 1) {
                assert_eq!(last_not_beyond(&hashes, wanted), naive(&hashes, wanted), "{count}");
            }
        }
    }

    #[test]
    fn unknown_names_come_to_every_user_equally_often() {
        let name = |n| format!("user{n}").parse().unwrap();
        let users: Vec<_> = (0..4).map(|n| Arc::new(Account::new(name(n), Rights::ALL))).collect();
        let lookup = Lookup::new(&[0; 32], users.iter());
        let drawn: Vec<_> =
            (0..4000).map(|n| lookup.find(&format!("nobody{n}")).account.name.clone()).collect();
        for user in users {
            let count = drawn.iter().filter(|name| **name == user.name).count();
            assert!((900..1100).contains(&count), "{} is drawn {count} times", user.name);
        }
    }

    #[test]
    fn a_lot_is_always_a_place() {
        for count in [1, 2, 3, 500] {
            assert_eq!((lot(0, count), lot(u128::MAX, count)), (0, count - 1));
        }
    }

    proptest! {
        #[test]
        fn the_search_finds_what_a_look_at_all_would(
            mut hashes in proptest::collection::vec(any::<u128>(), 0..300),
            others in proptest::collection::vec(any::<u128>(), 10),
        ) {
            hashes.sort_unstable();
            for &wanted in hashes.iter().chain(&others).chain(&[0, u128::MAX]) {
                prop_assert_eq!(last_not_beyond(&hashes, wanted), naive(&hashes, wanted));
            }
        }
    }
}
