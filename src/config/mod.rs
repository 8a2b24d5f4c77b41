//! The configuration: a file, flags that go above it, and whether both together make sense.
//!
//! [`ConfigFile`] is what was written, in a file or as flags; [`ConfigFile::over`] lays the one upon
//! the other; [`ConfigFile::check`] makes a [`Setup`] of it, or says everything that is wrong, with
//! its key and its place. Nothing is half applied: whatever is wrong anywhere, there is no setup.
//!
//! May read files and look at programs: for the start and the disk thread, never the loop.

mod check;
mod file;
mod listen;
mod over;
mod problem;
mod size;

pub use self::{
    check::{SandboxPaths, Setup},
    file::{AnonymousAccess, ConfigFile, RegistrationConfig, RegistrationMode, SandboxConfig},
    listen::ListenAddress,
    problem::Problem,
    size::{Count, Size, show},
};

#[cfg(test)]
mod tests;
