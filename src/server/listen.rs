//! Listening sockets.

use std::{io, net::SocketAddr, os::fd::OwnedFd, time::Duration};

use mio::net::{TcpListener, TcpStream};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::limits::STALL_DEADLINE;

/// Connections that wait to be accepted: a burst of clients that reconnect at once.
const BACKLOG: i32 = 4096;

/// Listens on an address. The port can be taken again at once after a restart; an IPv6 address
/// does not take the IPv4 port as well, so that both can be listened on.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = bind(address, false)?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// The same with `count` sockets, among which the system shares out who connects (`SO_REUSEPORT`).
/// Returns the address with the port that the system chose.
pub(super) fn listen_shared(
    address: SocketAddr,
    count: usize,
) -> io::Result<(SocketAddr, Vec<OwnedFd>)> {
    // Bound for itself at first: a port that somebody else shares already is in use all the same.
    let first = bind(address, false)?;
    let unknown = || io::Error::other("a socket without an address");
    let address = first.local_addr()?.as_socket().ok_or_else(unknown)?;
    first.set_reuse_port(true)?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(bind(address, true)?);
    }
    sockets.iter().try_for_each(|socket| socket.listen(BACKLOG))?;
    Ok((address, sockets.into_iter().map(OwnedFd::from).collect()))
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Prepares an accepted socket: small answers leave at once, and a peer that vanished is noticed.
pub(super) fn prepare(socket: &TcpStream) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(STALL_DEADLINE))
}

/// What is to be done about a failed accept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AcceptError {
    /// Nobody waits.
    Drained,
    /// That client is gone; there may be others.
    Gone,
    /// No descriptors or memory: later.
    Later,
}

impl AcceptError {
    pub(super) fn of(error: &io::Error) -> Self {
        use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
        match error.kind() {
            WouldBlock => Self::Drained,
            // Network errors of the connection itself are reported by accept as well: accept(2),
            // "Error handling".
            ConnectionAborted | ConnectionReset | Interrupted => Self::Gone,
            io::ErrorKind::NetworkDown
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable => Self::Gone,
            _ => Self::Later,
        }
    }
}
