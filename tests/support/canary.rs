//! Looking for a password where it must not be.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::people::{PASSWORD, tree};

/// Ways in which a password may be written.
fn disguises() -> Vec<Vec<u8>> {
    let hex = PASSWORD.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
    // In base64, whatever stands in front of it: the middle is the same for one of three.
    let inner = |skip: usize| {
        let encoded = STANDARD.encode([&b"xxx"[..skip], PASSWORD.as_bytes()].concat());
        encoded[4..encoded.len() - 4].to_owned().into_bytes()
    };
    let plain = PASSWORD.as_bytes().to_vec();
    vec![plain, hex.into_bytes(), inner(0), inner(1), inner(2)]
}

/// Fails the test if the password is in there.
#[track_caller]
pub fn has_no_canary(what: &str, bytes: &[u8]) {
    for disguise in disguises() {
        let found = bytes.windows(disguise.len()).any(|window| window == disguise);
        assert!(!found, "{what} shows the password");
    }
}

/// Fails the test if a file beneath the folder has it in its name or its contents.
#[track_caller]
pub fn no_canary_beneath(folder: &Path) {
    for path in tree(folder).keys() {
        let about = path.display().to_string();
        has_no_canary(&about, about.as_bytes());
        if path.is_file() {
            has_no_canary(&about, &fs::read(path).expect("a file that can be read"));
        }
    }
}
