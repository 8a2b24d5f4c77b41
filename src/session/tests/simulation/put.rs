//! The client of a put, in the simulation.

use std::time::Duration;

use super::{Attempt, Line, Sent, Server, World, send};
use crate::{
    digest::LEAF_BYTES,
    session::Outgoing,
    wire::{Code, Frame, Reply, SegmentRuns, frame_bytes},
};

/// The client of a put.
enum Putting {
    AwaitHave,
    Streaming(Outgoing),
    /// The server refused: the stream is aborted, and the put begins again.
    Aborting(Outgoing),
    AwaitVerdict(Outgoing),
    /// The client aborted the stream and begins again: one line comes before the offer.
    GaveUp,
}

impl World {
    pub(super) fn put_once(&mut self) -> Attempt {
        let mut server = Server::new(self.now);
        let (mut to_server, mut inbox) = (Line::default(), Line::default());
        let mut client = Putting::AwaitHave;
        to_server.push(self.put_line().as_bytes());
        for _ in 0..200_000 {
            self.now += Duration::from_millis(self.rng.below(300));
            while let Some(line) = inbox.take_line() {
                let reply = Reply::parse(line.as_bytes()).unwrap();
                match self.put_reply(client, &reply, &mut to_server) {
                    Some(next) => client = next,
                    None => {
                        assert!(server.committed, "226 came before the commit");
                        return Attempt::Whole;
                    }
                }
            }
            client = self.put_send(client, &server, &mut to_server);
            let mut arrived = std::mem::take(&mut server.input);
            let carried = self.carry(&mut to_server, &mut arrived);
            server.input = arrived;
            let mut leaving = std::mem::take(&mut server.output);
            let back = carried.and_then(|()| self.carry(&mut leaving, &mut inbox));
            server.output = leaving;
            if back.is_none() {
                server.broken(self);
                return self.after_put_broke(&server);
            }
            server.turn(self);
        }
        panic!("it hangs");
    }

    fn put_line(&self) -> String {
        let (size, version) = (self.source.len(), self.version);
        let digest = if self.md5 { " digest=md5" } else { "" };
        let owner = "00000000000000000000000000000001";
        format!("put /f size={size} mtime=0.000000000 tag=v{version} owner={owner}{digest}\n")
    }

    fn put_reply(&self, client: Putting, reply: &Reply, out: &mut Line) -> Option<Putting> {
        let size = self.source.len() as u64;
        Some(match (client, reply.code) {
            (client, Code::Greeting | Code::Working) => client,
            (Putting::AwaitHave, Code::Have | Code::Nothing) => {
                let offset = reply.bytes("offset").unwrap_or(0);
                let bad = reply
                    .field("bad")
                    .map_or_else(SegmentRuns::default, |bad| SegmentRuns::parse(bad).unwrap());
                let outgoing = Outgoing::new(size, offset, &bad, self.digest()).unwrap();
                if offset == size && size > 0 {
                    out.push(b"312\n");
                } else {
                    out.push(format!("426 offset={offset}\n").as_bytes());
                }
                Putting::Streaming(outgoing)
            }
            (Putting::AwaitVerdict(_), Code::Identical) => return None,
            (Putting::AwaitVerdict(mut outgoing), Code::Differs) => {
                let want = SegmentRuns::parse(reply.field("want").unwrap()).unwrap();
                for segment in want.segments() {
                    assert!(self.pace.spoiled.contains(&segment), "{segment} was not spoiled");
                }
                outgoing.again(&want).unwrap();
                Putting::Streaming(outgoing)
            }
            (Putting::Streaming(outgoing), Code::Failed) => Putting::Aborting(outgoing),
            (Putting::GaveUp, Code::Failed) => Putting::AwaitHave,
            (Putting::AwaitVerdict(_), Code::Failed) => {
                out.push(self.put_line().as_bytes());
                Putting::AwaitHave
            }
            (_, code) => panic!("{code:?} does not fit"),
        })
    }

    fn put_send(&mut self, client: Putting, server: &Server, out: &mut Line) -> Putting {
        if out.len() > 4 << 20 || self.rng.one_in(3) {
            return client;
        }
        match client {
            Putting::Streaming(mut outgoing) => {
                if outgoing.between_frames() && self.rng.one_in(200) {
                    out.push(&frame_bytes(&Frame::Abort(Reply::text(Code::Failed, "enough"))));
                    out.push(self.put_line().as_bytes());
                    return Putting::GaveUp;
                }
                match send(&mut outgoing, &self.source, out, &mut self.pace, &mut self.rng) {
                    Sent::Data(offset) => self.assert_needed(offset, server.opened_at),
                    Sent::End => return Putting::AwaitVerdict(outgoing),
                    Sent::Nothing | Sent::Something => {}
                }
                Putting::Streaming(outgoing)
            }
            Putting::Aborting(outgoing) if outgoing.between_frames() => {
                out.push(&frame_bytes(&Frame::Abort(Reply::text(Code::Failed, "refused"))));
                out.push(self.put_line().as_bytes());
                Putting::AwaitHave
            }
            Putting::Aborting(mut outgoing) => {
                send(&mut outgoing, &self.source, out, &mut self.pace, &mut self.rng);
                Putting::Aborting(outgoing)
            }
            client @ (Putting::AwaitHave | Putting::AwaitVerdict(_) | Putting::GaveUp) => client,
        }
    }

    /// What was received in order is there at the next attempt, but for a leaf in the middle.
    fn after_put_broke(&mut self, server: &Server) -> Attempt {
        if !server.failed_checkpoint && server.wrote_to > 0 {
            let progress = self.disk.open(self.source.len() as u64, self.disk.version);
            assert!(progress.frontier() + LEAF_BYTES > server.wrote_to, "received, and forgotten");
        }
        Attempt::Broken
    }
}
