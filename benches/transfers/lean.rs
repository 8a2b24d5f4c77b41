//! A client made by hand, for what the library's does not do: not to hash, and to go silent.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
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

    fn reply(&mut self, code: Code) {
        assert_eq!(self.answer(), code);
    }

    fn answer(&mut self) -> Code {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("the line is there");
        Reply::parse(line.trim_end().as_bytes()).expect("a reply").code
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
    let answer = line.answer();
    let took = began.elapsed();
    assert!(matches!(answer, Code::Have | Code::Nothing), "{answer:?}");
    drop(silent);
    took
}
