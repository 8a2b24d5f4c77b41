//! How the programs are linked.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |variable, value| env::var(variable).is_ok_and(|found| found == value);
    // The unwinder as a part of the programs, which use little of it, instead of a library that is
    // loaded: some 50 KiB less memory, and nothing is needed but libc.
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
    }
}
