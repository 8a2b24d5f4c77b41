//! The language of `tow/1`: bytes to commands, replies and frames, and back.
//!
//! Pure: nothing here knows a socket, a file or a clock. Every decoder is incremental, bounded by
//! [`crate::limits`], and answers any input with a value or an error, never with a panic. The
//! grammar is written down in `docs/protocol.md`.

mod arguments;
mod command;
mod frame;
mod line;
mod login;
mod output;
mod path;
mod reply;
mod runs;

pub use command::{Command, CommandError, DigestChoice, Mtime, Owner, PutOffer, Tag};
pub use frame::{FRAME_HEADER_BYTES, Frame, FrameError, FrameHeader, FrameKind, frame_bytes};
pub use line::{LineError, Token, Tokens, next_line};
pub use login::{Greeting, Mechanism, Registration, from_base64, to_base64};
pub use output::{OUTPUT_HEADER_BYTES, Output, OutputHeader, OutputKind, output_bytes};
pub use path::{PathError, RemotePath, decode, encode};
pub use reply::{Code, Reply, ReplyError};
pub use runs::SegmentRuns;

/// Name of the protocol and its major version.
pub const VERSION: &str = "tow/1";
