//! What the kernel has in its hands of a TCP connection on this machine, by `/proc/net/tcp`.

use std::fs;
use std::net::{SocketAddr, TcpStream};

use super::{PATIENCE, Raw, wait_until};

/// A connection as one of its ends sees it. Ports are enough: all of it is on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    local: u16,
    remote: u16,
}

impl Pair {
    /// `None` once the connection is gone.
    pub fn of(socket: &TcpStream) -> Option<Self> {
        let (local, remote) = (socket.local_addr().ok()?.port(), socket.peer_addr().ok()?.port());
        Some(Self { local, remote })
    }

    /// As the other end sees it.
    pub fn turned(self) -> Self {
        Self { local: self.remote, remote: self.local }
    }
}

/// Bytes in the queues of one end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Queues {
    /// Written here, and not yet acknowledged by the kernel of the other end.
    pub unsent: u64,
    /// Arrived here, and not yet read.
    pub unread: u64,
}

/// The queues of one end; empty if there is no such connection.
pub fn queues(pair: Pair) -> Queues {
    let found = rows().into_iter().find(|row| row.pair == pair);
    found.map(|row| row.queues).unwrap_or_default()
}

/// Waits until a server has read, and closed, every connection whose client has left.
pub fn wait_until_left(server: SocketAddr) {
    const ESTABLISHED: u8 = 1;
    const CLOSE_WAIT: u8 = 8;
    let open = |row: &Row| {
        row.pair.local == server.port() && matches!(row.state, ESTABLISHED | CLOSE_WAIT)
    };
    assert!(
        wait_until(PATIENCE, || !rows().iter().any(open)),
        "{server} did not close the connections of clients that are gone"
    );
    // One that was reset is gone for the kernel before the server knows.
    let mut raw = Raw::connect(server);
    raw.read_line();
    raw.send("noop\n");
    raw.read_line();
}

/// Waits until a server has read everything that has arrived.
pub fn wait_until_read(server: SocketAddr) {
    let waiting = |row: &Row| row.pair.local == server.port() && row.queues.unread > 0;
    assert!(
        wait_until(PATIENCE, || !rows().iter().any(waiting)),
        "{server} does not read what has arrived"
    );
}

struct Row {
    pair: Pair,
    state: u8,
    queues: Queues,
}

fn rows() -> Vec<Row> {
    const LISTEN: u8 = 10;
    let text = fs::read_to_string("/proc/net/tcp").expect("Linux lists its connections");
    // For a listener the numbers mean something else.
    text.lines().skip(1).filter_map(row).filter(|row| row.state != LISTEN).collect()
}

/// `  0: 0100007F:AF25 0100007F:B976 01 00000000:00000000 ...`, all of it hexadecimal.
fn row(line: &str) -> Option<Row> {
    let mut words = line.split_ascii_whitespace().skip(1);
    let mut port = || u16::from_str_radix(words.next()?.split_once(':')?.1, 16).ok();
    let pair = Pair { local: port()?, remote: port()? };
    let state = u8::from_str_radix(words.next()?, 16).ok()?;
    let (unsent, unread) = words.next()?.split_once(':')?;
    let bytes = |text| u64::from_str_radix(text, 16).ok();
    let queues = Queues { unsent: bytes(unsent)?, unread: bytes(unread)? };
    Some(Row { pair, state, queues })
}
