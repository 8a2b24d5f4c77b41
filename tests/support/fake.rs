//! A server that is none: a script says what each connection gets to hear.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use super::{PATIENCE, Raw};

/// Follows a script for each connection, one after the other, until it is dropped.
#[derive(Debug)]
pub struct Fake {
    addr: SocketAddr,
    stop: Arc<AtomicBool>,
    connections: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    /// The script ends with the connection; the client is waited for.
    pub fn start(script: impl Fn(&mut Raw) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port on loopback");
        let addr = listener.local_addr().expect("a listener has an address");
        let stop = Arc::new(AtomicBool::new(false));
        let connections = Arc::new(AtomicU32::new(0));
        let (stopping, counting) = (Arc::clone(&stop), Arc::clone(&connections));
        let thread = thread::spawn(move || {
            for peer in listener.incoming() {
                if stopping.load(Ordering::Acquire) {
                    return;
                }
                counting.fetch_add(1, Ordering::AcqRel);
                let mut peer = Raw::over(peer.expect("a connection"));
                script(&mut peer);
                peer.closes_within(PATIENCE);
            }
        });
        Self { addr, stop, connections, thread: Some(thread) }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many there were so far.
    pub fn connections(&self) -> u32 {
        self.connections.load(Ordering::Acquire)
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(TcpStream::connect(self.addr));
        let ended = self.thread.take().map(JoinHandle::join);
        if !thread::panicking() {
            ended.expect("it is joined once").expect("the script has no complaint");
        }
    }
}
