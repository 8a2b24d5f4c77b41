//! AwaitOffset: a file is open, and the client says from where it goes on.

use std::time::Instant;

use super::{
    Direction, Discard, Incoming, OfferError, Outgoing, Report, Session, Verdict, gives_up,
    state::{Checkpoints, Offer, Paced, Receiving, Sending, State, Stream, Transfer},
};
use crate::{
    digest::Md5Digest,
    progress::Progress,
    wire::{Code, DigestChoice, PutOffer, RemotePath, Reply, SegmentRuns},
};

impl Session {
    /// The answer to `203`, `402`, `000` or `312`.
    pub(super) fn offset(&mut self, offer: Offer, line: &[u8], now: Instant) {
        let reply = match Reply::parse(line) {
            Ok(reply) => reply,
            Err(error) => {
                let state = State::AwaitOffset(Box::new(offer));
                return self.refuse(state, Code::BadSequence, &error.to_string(), now);
            }
        };
        match (offer, reply.code) {
            (Offer::Get { path, size, digest, known }, Code::Nothing | Code::Have) => {
                match first_round(size, digest, &reply) {
                    Ok(outgoing) => self.send(path, outgoing.knowing(&known), now),
                    Err(reply) => {
                        self.release(None);
                        self.answer(reply, now);
                    }
                }
            }
            (Offer::Put(offer, progress), Code::Continue | Code::NothingLeft) => {
                self.go_on(offer, progress, &reply, now);
            }
            (Offer::Put(offer, progress), Code::Nothing) if progress.frontier() == 0 => {
                self.receive(offer, progress, now);
            }
            // It is forgotten; the client is told `402` and answers once more.
            (Offer::Put(offer, _) | Offer::Committed(offer, _), Code::Nothing) => {
                self.release(None);
                self.open_partial(offer, true, now);
            }
            (Offer::Committed(offer, root), Code::Identical) => self.unchanged(offer, root, now),
            (Offer::Get { .. } | Offer::Put(..) | Offer::Committed(..), code) if gives_up(code) => {
                self.release(None);
                self.answer(Reply::text(code, "given up"), now);
            }
            (offer @ (Offer::Get { .. } | Offer::Put(..) | Offer::Committed(..)), _) => {
                let text = "402, 000, 426 or 312 was awaited";
                self.refuse(State::AwaitOffset(Box::new(offer)), Code::BadSequence, text, now);
            }
        }
    }

    fn send(&mut self, path: RemotePath, outgoing: Outgoing, now: Instant) {
        let (offset, left) = (outgoing.offset(), outgoing.left_bytes());
        if left == 0 && outgoing.size() > 0 {
            self.reply(Reply::new(Code::NothingLeft));
        } else {
            let reply = Reply::new(Code::Continue).with("offset", offset);
            self.reply(reply.with("length", left));
        }
        let sending = Sending {
            transfer: Transfer { path, offset, began: now },
            outgoing,
            paced: Paced::default(),
        };
        self.enter(State::Streaming(Stream::Out(Box::new(sending))), now);
    }

    /// `426` or `312`: the stream follows, wanted or not.
    fn go_on(&mut self, offer: PutOffer, progress: Progress, reply: &Reply, now: Instant) {
        let at = match reply.code {
            Code::NothingLeft => Some(progress.size()),
            _ => reply.bytes("offset").ok(),
        };
        let have = progress.frontier();
        if at == Some(have) {
            return self.receive(offer, progress, now);
        }
        let code = match at {
            Some(at) if at > have => Code::BeyondEnd,
            _ => Code::Malformed,
        };
        let reply = Reply::text(code, "not the offset that 000 named").with("offset", have);
        self.release(None);
        self.pass_over(Discard::default(), reply, now);
    }

    pub(super) fn receive(&mut self, offer: PutOffer, progress: Progress, now: Instant) {
        let receiving = Receiving {
            transfer: Transfer { path: offer.path, offset: progress.frontier(), began: now },
            incoming: Incoming::new(progress, offer.digest),
            paced: Paced::default(),
            checkpoints: Checkpoints { at: now, bytes: 0, running: None },
            ahead: offer.ahead,
        };
        self.enter(State::Streaming(Stream::In(Box::new(receiving))), now);
    }

    /// The client agrees that what was committed before is its file.
    fn unchanged(&mut self, offer: PutOffer, root: Md5Digest, now: Instant) {
        self.report(Report {
            direction: Direction::Put,
            path: offer.path,
            offset: offer.size,
            bytes: 0,
            hashed: 0,
            began: now,
            root: Some(root),
            md5: None,
            verdict: Verdict::Unchanged,
        });
        self.release(None);
        self.answer(Reply::new(Code::Identical).with("root", root), now);
    }
}

/// What a client that answered `402` or `000` is sent, or why not.
fn first_round(size: u64, digest: DigestChoice, reply: &Reply) -> Result<Outgoing, Reply> {
    let malformed = |text: &str| Reply::text(Code::Malformed, text);
    let mut bad = SegmentRuns::default();
    let mut offset = 0;
    if reply.code == Code::Have {
        offset = reply.bytes("offset").map_err(|error| malformed(&error.to_string()))?;
        if let Some(runs) = reply.field("bad") {
            bad = SegmentRuns::parse(runs).ok_or_else(|| malformed("bad value of bad"))?;
        }
    }
    Outgoing::new(size, offset, &bad, digest).map_err(|error| {
        let code = match error {
            OfferError::BeyondEnd => Code::BeyondEnd,
            OfferError::NotAtLeaf | OfferError::Segments => Code::Malformed,
        };
        Reply::text(code, &error.to_string())
    })
}
