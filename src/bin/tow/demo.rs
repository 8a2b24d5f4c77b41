//! `tow demo`: a server, a client and a line that is cut between them, in one process and one
//! temporary folder.

use std::{
    fs::File,
    io::{self, BufWriter, Read, Write},
    net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Instant,
};

use indicatif::HumanBytes;
use towpath::{
    client::{Client, Url},
    digest::{FileMd5, Md5Digest},
    server::{Config, Server},
    wire::DigestChoice,
};

use crate::{
    exit::{Exit, Failure},
    files::{Context, transfer},
    progress::rate,
};

const CHUNK: usize = 1 << 20;

pub(crate) fn run(context: &Context, mebibytes: u64, cuts: u32) -> Result<Exit, Failure> {
    let folder = tempfile::Builder::new().prefix("tow-demo-").tempdir()?;
    let size = mebibytes.saturating_mul(1 << 20);
    let source = folder.path().join("demo.bin");
    let copy = folder.path().join("demo-copy.bin");
    println!("making {} of random bytes in {}", HumanBytes(size), folder.path().display());
    let made = make_file(&source, size)?;

    let server = Server::bind(&Config::loopback(folder.path().join("server")))?;
    let address = server
        .addresses()
        .first()
        .copied()
        .ok_or_else(|| Failure::Local("the server listens nowhere".to_owned()))?;
    let stopper = server.stopper();
    let serving = thread::spawn(move || server.run());
    let proxy = Proxy::start(address, size, cuts)?;

    let mut options = context.options.clone();
    options.digest = DigestChoice::TreeAndMd5;
    let context = Context::new(context.quiet, options);
    let url: Url = format!("tow://{}/demo.bin", proxy.address)
        .parse()
        .map_err(|error| Failure::Local(format!("{error}")))?;
    let client = Client::new(&url, context.options.clone());

    println!("uploading, while the line is cut {cuts} times");
    let began = Instant::now();
    let up = transfer(&context, "up", &url, |bar| client.put(&source, &url.path, bar))?;
    let up_took = began.elapsed();
    println!("downloading");
    let began = Instant::now();
    let down = transfer(&context, "down", &url, |bar| client.get(&url.path, &copy, bar))?;
    let down_took = began.elapsed();
    let got = hash_file(&copy)?;

    // A line that it has kept would keep the proxy waiting.
    drop(client);
    stopper.stop();
    proxy.stop();
    let served = serving.join();
    println!();
    println!("made        md5 {made}");
    println!("uploaded    md5 {}  md5-tree {}", digest(up.md5), up.root);
    println!("downloaded  md5 {}  md5-tree {}", digest(down.md5), down.root);
    println!("on the disk md5 {got}");
    println!("up    {}; the line was cut {} times", rate(up.moved, up_took), up.breaks);
    println!("down  {}", rate(down.moved, down_took));
    println!("sent again: {} of {}", HumanBytes(up.again()), HumanBytes(size));
    let same = Some(made) == up.md5 && Some(made) == down.md5 && made == got;
    if !same || up.root != down.root || !matches!(served, Ok(Ok(()))) {
        println!("NOT the same bytes: this should never happen");
        return Ok(Exit::Verification);
    }
    println!("the same bytes everywhere");
    Ok(Exit::Done)
}

fn digest(md5: Option<Md5Digest>) -> String {
    md5.map_or_else(|| "-".to_owned(), |md5| md5.to_string())
}

/// Makes a file of random bytes; returns its MD5.
fn make_file(path: &Path, size: u64) -> io::Result<Md5Digest> {
    let mut file = BufWriter::new(File::create_new(path)?);
    let mut md5 = FileMd5::new();
    let mut chunk = vec![0; CHUNK];
    let mut left = size;
    while left > 0 {
        let take = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let bytes = chunk.get_mut(..take).unwrap_or_default();
        getrandom::fill(bytes).map_err(io::Error::other)?;
        md5.update(bytes);
        file.write_all(bytes)?;
        left -= take as u64;
    }
    file.flush()?;
    Ok(md5.finish())
}

fn hash_file(path: &Path) -> io::Result<Md5Digest> {
    let mut file = File::open(path)?;
    let mut md5 = FileMd5::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let have = file.read(&mut chunk)?;
        if have == 0 {
            return Ok(md5.finish());
        }
        md5.update(chunk.get(..have).unwrap_or_default());
    }
}

/// A line to the server that is cut, some times, at even parts of the way up.
struct Proxy {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Proxy {
    fn start(server: SocketAddr, size: u64, cuts: u32) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let address = listener.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopping = Arc::clone(&stop);
        let left = Arc::new(AtomicU32::new(cuts));
        let part = size / u64::from(cuts + 1);
        let thread = thread::spawn(move || {
            let mut lines = Vec::new();
            for client in listener.incoming() {
                if stopping.load(Ordering::Acquire) {
                    break;
                }
                let Ok(client) = client else { continue };
                let Ok(upstream) = TcpStream::connect(server) else {
                    continue;
                };
                let left = Arc::clone(&left);
                lines.push(thread::spawn(move || {
                    // A line that breaks is what this is for.
                    let _ = relay(&client, &upstream, part, &left);
                }));
            }
            for line in lines {
                let _ = line.join();
            }
        });
        Ok(Self { address, stop, thread })
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the thread out of accept.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.join();
    }
}

/// Copies both ways; cuts once `part` bytes went up, as long as there are cuts left.
fn relay(client: &TcpStream, server: &TcpStream, part: u64, left: &AtomicU32) -> io::Result<()> {
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = copy(server, client, u64::MAX);
            let _ = client.shutdown(Shutdown::Write);
        });
        let cut = left.load(Ordering::Acquire) > 0;
        let result = copy(client, server, if cut { part } else { u64::MAX });
        if matches!(result, Ok(true)) {
            left.fetch_sub(1, Ordering::AcqRel);
            client.shutdown(Shutdown::Both)?;
        }
        server.shutdown(Shutdown::Both)
    })
}

/// Copies up to `limit` bytes; `true` if it stopped there, `false` at the end of the input.
fn copy(mut from: &TcpStream, mut to: &TcpStream, limit: u64) -> io::Result<bool> {
    let mut buffer = vec![0; 256 << 10];
    let mut moved = 0;
    while moved < limit {
        let have = from.read(&mut buffer)?;
        if have == 0 {
            return Ok(false);
        }
        to.write_all(buffer.get(..have).unwrap_or_default())?;
        moved += have as u64;
    }
    Ok(true)
}
