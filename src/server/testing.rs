//! Connections for tests: a socket with a peer at its other end, and a session.

use std::{
    net::{TcpListener, TcpStream},
    path::Path,
    sync::Arc,
    time::Instant,
};

use mio::Token;

use super::{connection::Connection, disk::Held};
use crate::{
    session::{Action, JobId, Memory, Outcome, Session},
    store::Source,
    wire::{Greeting, Owner},
};

/// A connection that has been greeted, and its peer.
pub(super) fn connected(now: Instant) -> (Connection, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (socket, address) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    let socket = mio::net::TcpStream::from_std(socket);
    let session = Session::new(Arc::new(Greeting::default()), Memory::default(), now);
    let mut connection = Connection::new(socket, address, Token(0), session, now);
    said(&mut connection);
    (connection, peer)
}

/// What the session has said since it was asked last; the job that it has begun comes last.
pub(super) fn said(connection: &mut Connection) -> (Vec<String>, Option<JobId>) {
    let (mut lines, mut job) = (Vec::new(), None);
    while let Some(action) = connection.session.poll_action() {
        match action {
            Action::Reply(reply) => lines.push(reply.to_string()),
            Action::Start(id, _) => job = Some(id),
            _ => {}
        }
    }
    (lines, job)
}

/// The client says `line`, and the file at `path` is open for it.
pub(super) fn opens(connection: &mut Connection, line: &str, path: &Path, now: Instant) {
    connection.session.handle_line(line.as_bytes(), now);
    let source = Source::open_local(path).unwrap();
    let identity = source.identity();
    let outcome = Outcome::SourceOpened {
        size: identity.size,
        mtime: identity.mtime,
        tag: identity.tag(),
        digests: Default::default(),
    };
    let job = said(connection).1.unwrap();
    connection.held = Some(Held::Source(Arc::new(source)));
    connection.session.handle_outcome(job, outcome, now);
}

/// The client puts a file of this size, of which nothing is there yet.
pub(super) fn puts(connection: &mut Connection, size: u64, now: Instant) {
    let owner = Owner(7);
    let line = format!("put /f size={size} mtime=1.000000000 tag=t owner={owner}");
    connection.session.handle_line(line.as_bytes(), now);
    let job = said(connection).1.unwrap();
    let progress = crate::progress::Progress::new(size);
    let outcome = Outcome::PartialOpened { progress, tag: None };
    connection.session.handle_outcome(job, outcome, now);
    connection.session.handle_line(b"426 offset=0", now);
    assert_eq!(said(connection).0, ["402"]);
}
