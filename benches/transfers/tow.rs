//! A server on a thread of its own, and clients of the library.

use std::{
    fs::File,
    io,
    net::SocketAddr,
    path::Path,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use towpath::{
    client::{Client, Options, Ping, Url},
    server::{Config, Server, Stopper},
    wire::{DigestChoice, RemotePath},
};

use crate::{Crowd, folder};

/// A running server and the files that are read on either side.
pub(crate) struct Tow {
    address: SocketAddr,
    stopper: Stopper,
    thread: Option<JoinHandle<io::Result<()>>>,
    /// What the server serves.
    root: TempDir,
    /// What clients put; without it, they get what is in `root`.
    source: Option<TempDir>,
}

impl Tow {
    pub(crate) fn serve_gets() -> Self {
        Self::serve(folder::for_gets(), None)
    }

    pub(crate) fn serve_puts() -> Self {
        Self::serve(folder::for_puts(), Some(folder::for_gets()))
    }

    fn serve(root: TempDir, source: Option<TempDir>) -> Self {
        let config = Config::loopback(root.path().to_path_buf());
        let server = Server::bind(&config).expect("a server can listen on loopback");
        let (address, stopper) = (server.addresses()[0], server.stopper());
        let thread = Some(thread::spawn(move || server.run()));
        Self { address, stopper, thread, root, source }
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn make(&self, crowd: Crowd) {
        folder::fill(self.source.as_ref().unwrap_or(&self.root).path(), crowd);
    }

    /// A served file that takes no room.
    pub(crate) fn make_sparse(&self, name: &str, size: u64) {
        let file = File::create(self.root.path().join(name)).expect("a file can be made");
        file.set_len(size).expect("a file can have holes");
    }

    /// Each client gets a file and drops it.
    pub(crate) fn get(&self, crowd: Crowd, digest: DigestChoice) -> Duration {
        let began = Instant::now();
        self.all(crowd, |client, name| {
            self.client(digest).get_to(&remote(name), &mut io::sink(), &mut ()).map(|_| client)
        });
        began.elapsed()
    }

    /// Each client puts a file that the server has nothing of.
    pub(crate) fn put(&self, crowd: Crowd, digest: DigestChoice) -> Duration {
        folder::empty(self.root.path());
        let source: &Path = self.source.as_ref().expect("made by serve_puts").path();
        let began = Instant::now();
        self.all(crowd, |client, name| {
            self.client(digest).put(&source.join(name), &remote(name), &mut ()).map(|_| client)
        });
        began.elapsed()
    }

    /// Round trips of a small command.
    pub(crate) fn ping(&self, count: u32, interval: Duration) -> Ping {
        let client = self.client(DigestChoice::Tree);
        client.ping(count, interval, |_| {}).expect("the server answers")
    }

    fn all<E: std::fmt::Debug>(
        &self,
        crowd: Crowd,
        transfer: impl Fn(usize, &str) -> Result<usize, E> + Sync,
    ) {
        thread::scope(|scope| {
            for client in 0..crowd.clients {
                let transfer = &transfer;
                scope.spawn(move || {
                    transfer(client, &folder::name(client)).expect("nothing breaks on loopback")
                });
            }
        });
    }

    fn client(&self, digest: DigestChoice) -> Client {
        let url: Url = format!("tow://{}/", self.address).parse().expect("a URL");
        Client::new(&url, Options { digest, give_up: Duration::ZERO, ..Options::default() })
    }
}

impl Drop for Tow {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server does not panic").expect("poll does not fail");
        }
    }
}

pub(crate) fn remote(name: &str) -> RemotePath {
    RemotePath::new(name.as_bytes()).expect("a plain name")
}
