//! The log's line for each transfer.

use std::{net::SocketAddr, time::Instant};

use super::{connection::Connection, disk::Held};
use crate::{
    digest::Md5Digest,
    session::{Direction, Refusal, Report, Verdict},
    wire::{Reply, encode},
};

/// Whose connection it is, as a line begins.
fn who(connection: &Connection) -> String {
    match &connection.user {
        Some(user) => format!("{} {user}", connection.peer),
        None => connection.peer.to_string(),
    }
}

/// A reply, for whoever looks closely. Messages of a login stay out of the log: with them,
/// passwords can be tried at leisure.
pub(super) fn log_reply(peer: SocketAddr, reply: &Reply) {
    if reply.field("data").is_some() {
        log::debug!("{peer}: {:03} data=(left out)", reply.code.number());
    } else {
        log::debug!("{peer}: {reply}");
    }
}

/// One line for each transfer.
pub(super) fn log_report(connection: &Connection, report: &Report, now: Instant) {
    let who = who(connection);
    let Report { direction, path, offset, bytes, hashed, began, root, md5, verdict } = report;
    let way = match direction {
        Direction::Get => "get",
        Direction::Put => "put",
    };
    let seconds = now.saturating_duration_since(*began).as_secs_f64();
    let digest = |name: &str, digest: &Option<Md5Digest>| match digest {
        Some(digest) => format!(" {name}={digest}"),
        None => String::new(),
    };
    let digests = digest("md5-tree", root) + &digest("md5", md5);
    let verdict = match verdict {
        Verdict::Identical => "identical".to_owned(),
        Verdict::Unchanged => "identical before".to_owned(),
        Verdict::Unfinished(why) => format!("unfinished: {why}"),
    };
    log::info!(
        "{who} {way} {path} from={offset} bytes={bytes} hashed={hashed} seconds={seconds:.3}{digests} {verdict}"
    );
}

/// One line for each action, and each account, that was not to be had.
pub(super) fn log_refusal(connection: &Connection, refusal: &Refusal) {
    let Refusal { what, name, why } = refusal;
    log::warn!("{} refused: {what} {}: {why}", who(connection), encode(name.as_bytes()));
}

/// One line for each action that ran.
pub(super) fn log_run(connection: &Connection, held: &Held, now: Instant) {
    if let Held::Action(running) = held {
        log::info!("{} {}", who(connection), running.report(now));
    }
}
