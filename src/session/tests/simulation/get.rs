//! The client of a get, in the simulation.

use std::time::Duration;

use super::{Attempt, Line, Server, World, at, receive_alone};
use crate::{
    digest::Md5Digest,
    progress::Progress,
    session::{Incoming, Settled},
    wire::{Code, Reply},
};

/// The client of a get.
enum Getting {
    AwaitFound,
    AwaitContinue(Progress),
    Streaming(Box<Incoming>),
    /// The client gave up: what still comes of the stream is not looked at.
    GaveUp(Box<Incoming>),
}

impl World {
    pub(super) fn get_once(&mut self) -> Attempt {
        let mut server = Server::new(self.now);
        let (mut to_server, mut inbox) = (Line::default(), Line::default());
        let mut client = Getting::AwaitFound;
        to_server.push(self.get_line().as_bytes());
        for _ in 0..200_000 {
            self.now += Duration::from_millis(self.rng.below(300));
            client = match self.get_step(client, &mut inbox, &mut to_server, &mut server) {
                Some(next) => next,
                None => return Attempt::Whole,
            };
            let mut arrived = std::mem::take(&mut server.input);
            let carried = self.carry(&mut to_server, &mut arrived);
            server.input = arrived;
            let mut leaving = std::mem::take(&mut server.output);
            let back = carried.and_then(|()| self.carry(&mut leaving, &mut inbox));
            server.output = leaving;
            if back.is_none() {
                self.keep_what_came(client);
                return Attempt::Broken;
            }
            server.turn(self);
        }
        panic!("it hangs");
    }

    fn get_line(&self) -> String {
        format!("get /f{}\n", if self.md5 { " digest=md5" } else { "" })
    }

    /// The client's process ends with the line, or writes down what it has.
    fn keep_what_came(&mut self, client: Getting) {
        if self.rng.one_in(3) {
            self.disk.fall_back();
        } else if let Getting::Streaming(mut incoming) | Getting::GaveUp(mut incoming) = client {
            self.disk.append(incoming.take_mark());
        }
    }

    fn get_step(
        &mut self,
        client: Getting,
        inbox: &mut Line,
        out: &mut Line,
        server: &mut Server,
    ) -> Option<Getting> {
        match client {
            Getting::AwaitFound | Getting::AwaitContinue(_) => {
                let Some(line) = inbox.take_line() else {
                    return Some(client);
                };
                let reply = Reply::parse(line.as_bytes()).unwrap();
                Some(self.get_reply(client, &reply, out, server))
            }
            Getting::Streaming(incoming) => {
                if self.rng.one_in(300) {
                    out.push(b"451 enough\n");
                    return Some(Getting::GaveUp(incoming));
                }
                self.get_frames(incoming, inbox, out)
            }
            Getting::GaveUp(mut incoming) => {
                let input = inbox.peek(1 << 20).to_vec();
                let (taken, _) = receive_alone(&mut incoming, &input, &mut self.disk).unwrap();
                inbox.take(taken);
                if !incoming.has_ended() {
                    return Some(Getting::GaveUp(incoming));
                }
                self.disk.append(incoming.take_mark());
                out.push(self.get_line().as_bytes());
                Some(Getting::AwaitFound)
            }
        }
    }

    fn get_reply(
        &mut self,
        client: Getting,
        reply: &Reply,
        out: &mut Line,
        server: &mut Server,
    ) -> Getting {
        match (client, reply.code) {
            (client, Code::Greeting | Code::Working) => client,
            (Getting::AwaitFound, Code::Found) => {
                let progress = self.disk.open(reply.bytes("size").unwrap(), self.version);
                server.opened_at = progress.frontier();
                let (offset, bad) = (progress.frontier(), progress.bad_runs());
                if offset == 0 {
                    out.push(b"402\n");
                } else if bad.is_empty() {
                    out.push(format!("000 offset={offset}\n").as_bytes());
                } else {
                    out.push(format!("000 offset={offset} bad={bad}\n").as_bytes());
                }
                Getting::AwaitContinue(progress)
            }
            (Getting::AwaitContinue(progress), Code::Continue | Code::NothingLeft) => {
                Getting::Streaming(Box::new(Incoming::new(progress, self.digest())))
            }
            (_, code) => panic!("{code:?} does not fit"),
        }
    }

    fn get_frames(
        &mut self,
        mut incoming: Box<Incoming>,
        inbox: &mut Line,
        out: &mut Line,
    ) -> Option<Getting> {
        let most = self.rng.pick(&[100, 50_000, 1 << 20]);
        let input = inbox.peek(most).to_vec();
        let (taken, settled) = receive_alone(&mut incoming, &input, &mut self.disk).unwrap();
        inbox.take(taken);
        for settled in settled {
            match settled {
                Settled::Good => {}
                Settled::Bad { segment } => assert!(self.pace.spoiled.contains(&segment)),
                Settled::Differs(want) => {
                    incoming.next_round().unwrap();
                    let marks = self.disk.append(incoming.take_mark());
                    self.disk.synced(marks);
                    out.push(format!("409 want={want}\n").as_bytes());
                }
                Settled::Whole => {
                    self.check_what_was_got(&mut incoming);
                    return None;
                }
                Settled::Aborted(_) => {
                    self.disk.append(incoming.take_mark());
                    out.push(self.get_line().as_bytes());
                    return Some(Getting::AwaitFound);
                }
            }
        }
        if self.rng.one_in(20) {
            let marks = self.disk.append(incoming.take_mark());
            self.disk.synced(marks);
        }
        Some(Getting::Streaming(incoming))
    }

    fn check_what_was_got(&self, incoming: &mut Incoming) {
        let pending = incoming.md5_pending();
        incoming.md5_read(&self.disk.bytes[at(pending.start)..at(pending.end)]);
        let md5 = self.md5.then(|| Md5Digest::of(&self.source));
        assert_eq!(incoming.check_md5(), Ok(md5));
        assert!(self.disk.bytes[..self.source.len()] == self.source, "other bytes");
    }
}
