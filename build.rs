//! How the programs are linked.

use std::{env, path::Path, process::Command};

/// The unwinder as a part of the programs, which use little of it, instead of a library that is
/// loaded: some 50 KiB less memory, and nothing is needed but libc. It comes with GCC.
const UNWINDER: &str = "gcc_eh";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |variable, value: &str| env::var(variable).is_ok_and(|found| found == value);
    let is_gnu = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    let is_native = env::var("HOST").is_ok_and(|host| is("TARGET", &host));
    if is_gnu && is_native && is_there() {
        println!("cargo::rustc-link-lib=static:-bundle={UNWINDER}");
    }
}

/// Whether the compiler that links finds it: it names no folder otherwise.
fn is_there() -> bool {
    let asked = Command::new("cc").arg(format!("-print-file-name=lib{UNWINDER}.a")).output();
    asked.is_ok_and(|said| Path::new(String::from_utf8_lossy(&said.stdout).trim()).is_absolute())
}
