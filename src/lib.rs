//! File transfer over links that break.
//!
//! `towd` and `tow` are two front ends of this library. `docs/architecture.md` has the map of the
//! house, `docs/protocol.md` the protocol.

pub mod action;
pub mod auth;
mod bucket;
pub mod client;
pub mod config;
pub mod digest;
pub mod limits;
pub mod progress;
pub mod sandbox;
pub mod server;
pub mod session;
pub mod store;
pub mod wire;
