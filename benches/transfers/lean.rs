//! A client made by hand, for what the library's does not do: not to hash, and to go silent.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use towpath::{
    limits::CHUNK_BYTES,
    session::Discard,
    wire::{Code, Command, DigestChoice, FrameHeader, FrameKind, Mtime, Owner, PutOffer, Reply},
};

use crate::{
    Crowd, MIB, folder,
    tow::{Tow, remote},
};

/// A connection that was greeted.
struct Line(BufReader<TcpStream>);

impl Line {
    fn connect(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).expect("it listens");
        socket.set_nodelay(true).expect("it is a TCP socket");
        let mut line = Self(BufReader::new(socket));
        line.reply(Code::Greeting);
        line
    }

    fn send(&mut self, line: &impl std::fmt::Display) {
        let line = format!("{line}\n");
        self.0.get_mut().write_all(line.as_bytes()).expect("the line is there");
    }

    fn reply(&mut self, code: Code) -> Reply {
        let reply = self.answer();
        assert_eq!(reply.code, code);
        reply
    }

    fn answer(&mut self) -> Reply {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the line is there");
        Reply::parse(line.trim_end().as_bytes()).expect("a reply")
    }

    /// Breaks off once the server has taken everything.
    fn leave(mut self) {
        self.0.get_mut().shutdown(Shutdown::Write).expect("the line is there");
        io::copy(&mut self.0, &mut io::sink()).expect("the line is there");
    }
}

/// Each client gets a file, passes over its frames without a look at them, and says that all is
/// well: what remains is the server's time.
pub(crate) fn get(tow: &Tow, crowd: Crowd) -> Duration {
    let began = Instant::now();
    thread::scope(|scope| {
        for client in 0..crowd.clients {
            scope.spawn(move || get_one(tow.address(), &folder::name(client)));
        }
    });
    began.elapsed()
}

fn get_one(address: SocketAddr, name: &str) {
    let mut line = Line::connect(address);
    line.send(&Command::Get { path: remote(name), digest: DigestChoice::Tree });
    line.reply(Code::Found);
    line.send(&Reply::new(Code::Nothing));
    line.reply(Code::Continue);
    let mut frames = Discard::default();
    let mut buffer = vec![0; CHUNK_BYTES];
    while !frames.has_ended() {
        let have = line.0.read(&mut buffer).expect("the line is there");
        assert!(have > 0, "the stream ends with a frame");
        frames.skip(&buffer[..have]).expect("frames");
    }
    line.send(&Reply::new(Code::Identical));
}

/// From the command of a client that has so much of a file to its first new byte.
pub(crate) fn resume_get(address: SocketAddr, name: &str, have: u64) -> Duration {
    let mut line = Line::connect(address);
    let began = Instant::now();
    line.send(&Command::Get { path: remote(name), digest: DigestChoice::Tree });
    let found = line.reply(Code::Found);
    let tag = found.field("tag").expect("a version").to_owned();
    line.send(&Reply::new(Code::Have).with("offset", have).with("tag", tag));
    line.reply(Code::Continue);
    // Digests of what is there may come first: a kind, and in all 32 bytes.
    let mut frame = [0; 32];
    loop {
        line.0.read_exact(&mut frame[..17]).expect("the line is there");
        if frame[0] == b'D' {
            return began.elapsed();
        }
        line.0.read_exact(&mut frame[17..]).expect("the line is there");
    }
}

/// An upload that was cut before its last mebibyte.
pub(crate) struct CutPut {
    address: SocketAddr,
    offer: PutOffer,
}

impl CutPut {
    pub(crate) fn new(address: SocketAddr, size: u64) -> Self {
        let path = remote("cut");
        let tag = "as-it-was".parse().expect("a tag");
        let (mtime, digest) = (Mtime::default(), DigestChoice::Tree);
        let ahead = false;
        let offer = PutOffer { path, size, mtime, tag, owner: Owner(8), digest, ahead };
        let mut line = Line::connect(address);
        line.send(&Command::Put(offer.clone()));
        line.reply(Code::Nothing);
        line.send(&Reply::new(Code::Continue).with("offset", 0).with("length", size));
        let block = vec![7; CHUNK_BYTES];
        for number in 0..size / MIB - 1 {
            let length = u32::try_from(MIB).expect("a frame");
            let header = FrameHeader { kind: FrameKind::Data, length, offset: number * MIB };
            let socket = line.0.get_mut();
            socket.write_all(&header.to_bytes()).expect("the line is there");
            socket.write_all(&block).expect("the line is there");
        }
        line.leave();
        Self { address, offer }
    }

    /// From the command to the answer that says how much is there: the first new byte follows it.
    pub(crate) fn resume(&self) -> Duration {
        let mut line = Line::connect(self.address);
        let began = Instant::now();
        line.send(&Command::Put(self.offer.clone()));
        line.reply(Code::Have);
        let took = began.elapsed();
        line.leave();
        took
    }
}

/// From the connect of a client that takes over its own upload to the answer that tells it how
/// far that came, while the old connection is open but says nothing any more.
pub(crate) fn take_over(address: SocketAddr, number: usize) -> Duration {
    let offer = PutOffer {
        path: remote(&format!("taken-over-{number}")),
        size: 64 * MIB,
        mtime: Mtime::default(),
        tag: "as-it-was".parse().expect("a tag"),
        owner: Owner(7),
        digest: DigestChoice::Tree,
        ahead: false,
    };
    let put = Command::Put(offer);
    let mut silent = Line::connect(address);
    silent.send(&put);
    silent.reply(Code::Nothing);
    silent.send(&Reply::new(Code::Continue).with("offset", 0).with("length", 64 * MIB));
    let length = 1 << 20;
    let header = FrameHeader { kind: FrameKind::Data, length, offset: 0 };
    let socket = silent.0.get_mut();
    socket.write_all(&header.to_bytes()).expect("the line is there");
    socket.write_all(&vec![7; length as usize / 2]).expect("the line is there");
    // The server has time to take it: what it has is then told to the one that takes over.
    thread::sleep(Duration::from_millis(100));

    let began = Instant::now();
    let mut line = Line::connect(address);
    line.send(&put);
    let answer = line.answer().code;
    let took = began.elapsed();
    assert!(matches!(answer, Code::Have | Code::Nothing), "{answer:?}");
    drop(silent);
    took
}
