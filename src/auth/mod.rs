//! Who may log in, and how that is found out: names, rights, the mechanisms SCRAM-SHA-256 and
//! CRAM-MD5, the user file, the brakes against guessing, and invites.
//!
//! Pure but for [`mod@file`]: bytes and random numbers and the time are handed in, answers come out.
//! Nothing here knows a connection. What must hold throughout:
//!
//! - Whether a user exists, is locked or has no password shows neither in an answer nor in the
//!   work that was done for it: [`Accounts::find`] always has a verifier to try.
//! - A secret has no `Display`, a redacted `Debug`, and is overwritten when it is dropped.
//! - A file that is half understood lets nobody in by mistake.

mod account;
mod accounts;
mod brakes;
pub mod cram;
pub mod file;
mod hmac;
mod home;
mod invites;
mod lookup;
mod name;
mod password;
mod rights;
pub mod scram;

pub use self::{
    account::Account,
    accounts::{Accounts, AccountsError, Warning},
    brakes::{Brakes, TooMany},
    cram::CramVerifier,
    home::{Home, HomeError},
    invites::{InviteError, Invites},
    lookup::Candidate,
    name::{NameError, UserName},
    password::{Password, PasswordError, random_text},
    rights::{Rights, RightsError},
    scram::{ClientKeys, ScramVerifier},
};
