//! The same bytes without protocol and digest: a loop of `read` and `write` with a buffer of
//! 1 MiB on each side of a connection of its own, a thread for each end.

use std::{
    fs::File,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::unix::fs::FileExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use towpath::limits::CHUNK_BYTES;

use crate::{Crowd, folder};

/// Both ends of the bare loop.
pub(crate) struct Bare {
    listener: TcpListener,
    /// What the sender reads.
    source: TempDir,
    /// Where the receiver of a put writes.
    target: Option<TempDir>,
}

impl Bare {
    pub(crate) fn serve_gets() -> Self {
        Self { listener: listen(), source: folder::for_gets(), target: None }
    }

    pub(crate) fn serve_puts() -> Self {
        let target = Some(folder::for_puts());
        Self { listener: listen(), source: folder::for_gets(), target }
    }

    pub(crate) fn make(&self, crowd: Crowd) {
        folder::fill(self.source.path(), crowd);
    }

    /// The server's side sends a file to each client, which drops it.
    pub(crate) fn get(&self, crowd: Crowd) -> Duration {
        self.time(
            crowd,
            |client, mut line| send(&self.source.path().join(client), &mut line),
            count,
        )
    }

    /// Each client sends a file, which the server's side writes.
    pub(crate) fn put(&self, crowd: Crowd) -> Duration {
        let target = self.target.as_ref().expect("made by serve_puts").path();
        folder::empty(target);
        let receive = |client: &str, line: TcpStream| store(&target.join(client), line);
        self.time(crowd, receive, |client, mut line| {
            send(&self.source.path().join(client), &mut line)
        })
    }

    fn time(
        &self,
        crowd: Crowd,
        serve: impl Fn(&str, TcpStream) -> u64 + Sync,
        ask: impl Fn(&str, TcpStream) -> u64 + Sync,
    ) -> Duration {
        let address = self.listener.local_addr().expect("it listens");
        let began = Instant::now();
        thread::scope(|scope| {
            for client in 0..crowd.clients {
                let ask = &ask;
                scope.spawn(move || {
                    assert_eq!(ask(&folder::name(client), connect(address)), crowd.bytes_each);
                });
            }
            for client in 0..crowd.clients {
                let (line, _) = self.listener.accept().expect("a client comes");
                let serve = &serve;
                scope.spawn(move || {
                    assert_eq!(serve(&folder::name(client), line), crowd.bytes_each);
                });
            }
        });
        began.elapsed()
    }
}

fn listen() -> TcpListener {
    TcpListener::bind(("127.0.0.1", 0)).expect("loopback is there")
}

fn connect(address: SocketAddr) -> TcpStream {
    let line = TcpStream::connect(address).expect("it listens");
    line.set_nodelay(true).expect("it is a TCP socket");
    line
}

fn send(path: &Path, line: &mut TcpStream) -> u64 {
    let mut file = File::open(path).expect("the file is there");
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut sent = 0;
    loop {
        let have = file.read(&mut buffer).expect("the file can be read");
        if have == 0 {
            line.shutdown(Shutdown::Write).expect("the line is there");
            return sent;
        }
        line.write_all(&buffer[..have]).expect("the line is there");
        sent += have as u64;
    }
}

fn store(path: &Path, mut line: TcpStream) -> u64 {
    let file = File::create(path).expect("a file can be made");
    receive(&mut line, |bytes, offset| {
        file.write_all_at(bytes, offset).expect("the file can be written");
    })
}

fn count(_: &str, mut line: TcpStream) -> u64 {
    receive(&mut line, |_, _| {})
}

fn receive(line: &mut TcpStream, mut take: impl FnMut(&[u8], u64)) -> u64 {
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut received = 0;
    loop {
        let have = line.read(&mut buffer).expect("the line is there");
        if have == 0 {
            return received;
        }
        take(&buffer[..have], received);
        received += have as u64;
    }
}
