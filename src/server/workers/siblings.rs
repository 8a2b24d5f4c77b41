//! The ways between workers: an inbox of one's own, and those of the others.
//!
//! Nothing here waits. What a sibling does not take is kept for it, up to a bound; beyond that all is
//! forgotten, and it is told anew how things stand once it listens again.

use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::net::UnixDatagram,
    },
    time::Instant,
};

use mio::{Interest, Registry, Token, unix::SourceFd};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use super::{Message, Seat};
use crate::limits::{
    SIBLING_BACKLOG_MAX, SIBLING_INTERVAL, SIBLING_MESSAGE_BYTES_MAX, SIBLING_WELCOME,
};

/// What is said to the supervisor once connections are accepted.
const READY: &[u8] = b"ready";

/// The siblings of a worker, and its supervisor.
#[derive(Debug)]
pub(in crate::server) struct Siblings {
    index: u8,
    /// Which process of those that were this worker one after another: its id.
    incarnation: u32,
    supervisor: OwnedFd,
    inbox: UnixDatagram,
    /// By worker; `None` at one's own index.
    others: Vec<Option<Sibling>>,
    /// The first message of a new sibling.
    ahead: Option<(u8, Message)>,
    /// Siblings that will still tell how things stand, and how long they are waited for; `None` once
    /// connections are accepted.
    welcomes: Option<(Vec<u8>, Instant)>,
    /// When to try again to tell what was not taken.
    retry_at: Option<Instant>,
}

#[derive(Debug)]
struct Sibling {
    outbox: UnixDatagram,
    incarnation: Option<u32>,
    backlog: VecDeque<Vec<u8>>,
    /// How long that may become.
    backlog_max: usize,
    /// More had to be told than may be kept.
    behind: bool,
}

/// What there is in the inbox.
#[derive(Debug)]
pub(in crate::server) enum Heard {
    /// A sibling that was never heard of, or another process in its place: what the one before has
    /// told holds no longer. It has to be told how things stand.
    New(u8),
    /// What a sibling says.
    Said(u8, Message),
    /// Nothing more for now.
    Nothing,
}

impl Siblings {
    /// Takes the ways of a seat. What waits in the inbox was for the one before.
    pub(in crate::server) fn new(
        seat: Seat,
        registry: &Registry,
        (supervisor, inbox): (Token, Token),
    ) -> io::Result<Self> {
        let mut buffer = [0; SIBLING_MESSAGE_BYTES_MAX];
        for _ in 0..SIBLING_BACKLOG_MAX {
            if seat.inbox.recv(&mut buffer).is_err() {
                break;
            }
        }
        let other = |(index, outbox): (usize, UnixDatagram)| {
            let (incarnation, backlog, behind) = (None, VecDeque::new(), false);
            let backlog_max = SIBLING_BACKLOG_MAX;
            let sibling = Sibling { outbox, incarnation, backlog, backlog_max, behind };
            (index != usize::from(seat.index)).then_some(sibling)
        };
        let siblings = Self {
            index: seat.index,
            incarnation: std::process::id(),
            supervisor: seat.control,
            inbox: seat.inbox,
            others: seat.outboxes.into_iter().enumerate().map(other).collect(),
            ahead: None,
            welcomes: Some((seat.there, Instant::now() + SIBLING_WELCOME)),
            retry_at: None,
        };
        let fds =
            [(siblings.supervisor.as_raw_fd(), supervisor), (siblings.inbox.as_raw_fd(), inbox)];
        for (fd, token) in fds {
            registry.register(&mut SourceFd(&fd), token, Interest::READABLE)?;
        }
        Ok(siblings)
    }

    /// Whether this one does what one of them has to do.
    pub(in crate::server) const fn is_first(&self) -> bool {
        self.index == 0
    }

    /// The others.
    pub(in crate::server) fn others(&self) -> impl Iterator<Item = u8> {
        let all = self.others.iter().zip(0..);
        all.filter_map(|(other, index)| other.as_ref().map(|_| index))
    }

    /// Whether connections are accepted by now: if all siblings have told how things stand, or were
    /// waited for long enough. When that is so, the supervisor is told.
    pub(in crate::server) fn accepts(&mut self, now: Instant) -> bool {
        let Some((unheard, until)) = &self.welcomes else { return true };
        if !unheard.is_empty() && now < *until {
            return false;
        }
        self.welcomes = None;
        // If it is gone, that is told by an event.
        let _ = send(&self.supervisor, READY, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
        true
    }

    /// A sibling has told how things stand.
    pub(in crate::server) fn welcomed(&mut self, by: u8) {
        if let Some((unheard, _)) = &mut self.welcomes {
            unheard.retain(|&it| it != by);
        }
    }

    /// Whether the supervisor has gone.
    pub(in crate::server) fn is_alone(&self) -> bool {
        let mut buffer = [0; 1];
        !matches!(
            recv(&self.supervisor, &mut buffer, RecvFlags::DONTWAIT),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR)
        )
    }

    /// The next message.
    pub(in crate::server) fn hear(&mut self) -> Heard {
        if let Some((from, message)) = self.ahead.take() {
            return Heard::Said(from, message);
        }
        let mut buffer = [0; SIBLING_MESSAGE_BYTES_MAX];
        loop {
            let length = match self.inbox.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(_) => return Heard::Nothing,
            };
            let parsed = buffer.get(..length).and_then(Message::parse);
            let Some((from, incarnation, message)) = parsed else { continue };
            let Some(Some(sibling)) = self.others.get_mut(usize::from(from)) else { continue };
            let before = sibling.incarnation.replace(incarnation);
            let is_hello = message == Message::Hello;
            if !is_hello && before.is_none_or(|before| before == incarnation) {
                return Heard::Said(from, message);
            }
            // Messages come in order: this is the later process, also if its first one was lost.
            sibling.backlog.clear();
            sibling.behind = false;
            self.ahead = (!is_hello).then_some((from, message));
            return Heard::New(from);
        }
    }

    /// Tells all others.
    pub(in crate::server) fn tell_all(&mut self, message: &Message, now: Instant) {
        let bytes = message.to_bytes(self.index, self.incarnation);
        let mut waits = false;
        for sibling in self.others.iter_mut().flatten() {
            waits |= !sibling.tell(&bytes);
        }
        self.retry_later(waits, now);
    }

    /// Tells one.
    pub(in crate::server) fn tell(&mut self, to: u8, message: &Message, now: Instant) {
        let bytes = message.to_bytes(self.index, self.incarnation);
        if let Some(Some(sibling)) = self.others.get_mut(usize::from(to)) {
            let waits = !sibling.tell(&bytes);
            self.retry_later(waits, now);
        }
    }

    /// Tells one how all stands. Nothing of that is forgotten, however much it is: it would have to be
    /// told anew for ever.
    pub(in crate::server) fn tell_anew(
        &mut self,
        to: u8,
        all: impl Iterator<Item = Message>,
        now: Instant,
    ) {
        if let Some(Some(sibling)) = self.others.get_mut(usize::from(to)) {
            let bytes = all.map(|message| message.to_bytes(self.index, self.incarnation));
            sibling.backlog.extend(bytes);
            sibling.backlog_max = sibling.backlog.len() + SIBLING_BACKLOG_MAX;
            let waits = !sibling.flush();
            self.retry_later(waits, now);
        }
    }

    fn retry_later(&mut self, waits: bool, now: Instant) {
        if waits {
            self.retry_at.get_or_insert(now + SIBLING_INTERVAL);
        }
    }

    /// When there is something to try again, or nobody to wait for any more.
    pub(in crate::server) fn wake_at(&self) -> Option<Instant> {
        let until = self.welcomes.as_ref().map(|(_, until)| *until);
        self.retry_at.into_iter().chain(until).min()
    }

    /// Tries again what was not taken. Returns who has to be told anew how things stand.
    pub(in crate::server) fn retry(&mut self, now: Instant) -> Vec<u8> {
        if self.retry_at.is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.retry_at = None;
        let (mut waits, mut behind) = (false, Vec::new());
        for (sibling, index) in self.others.iter_mut().zip(0..) {
            let Some(sibling) = sibling else { continue };
            waits |= !sibling.flush();
            if sibling.backlog.is_empty() && std::mem::take(&mut sibling.behind) {
                behind.push(index);
            }
        }
        self.retry_later(waits, now);
        behind
    }
}

impl Sibling {
    /// `false`: it waits.
    fn tell(&mut self, bytes: &[u8]) -> bool {
        if self.backlog.is_empty() && !self.behind && self.sent(bytes) {
            return true;
        }
        if self.backlog.len() >= self.backlog_max {
            self.backlog.clear();
            self.behind = true;
        }
        if !self.behind {
            self.backlog.push_back(bytes.to_vec());
        }
        false
    }

    /// `false`: something still waits.
    fn flush(&mut self) -> bool {
        while let Some(bytes) = self.backlog.pop_front() {
            if !self.sent(&bytes) {
                self.backlog.push_front(bytes);
                return false;
            }
        }
        self.backlog_max = SIBLING_BACKLOG_MAX;
        true
    }

    fn sent(&self, bytes: &[u8]) -> bool {
        loop {
            match self.outbox.send(bytes) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                sent => return sent.is_ok(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, os::fd::AsFd as _, path::Path};

    use mio::Poll;

    use super::*;
    use crate::server::workers::{Key, Seats};

    /// Two workers, who have heard of nobody yet.
    fn pair() -> [Siblings; 2] {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let seats = Seats::bind(&[any], 2, Path::new("/r"), Path::new("/u")).unwrap();
        let poll = Poll::new().unwrap();
        [0, 1].map(|index| {
            let (ours, theirs) = Seats::line().unwrap();
            seats.hand_over(index, &[], ours.as_fd()).unwrap();
            let seat = Seat::take(theirs.as_fd()).unwrap();
            Siblings::new(seat, poll.registry(), (Token(0), Token(1))).unwrap()
        })
    }

    #[test]
    fn who_is_told_anew_is_told_all_however_much_that_is() {
        let [mut tells, mut hears] = pair();
        let mut now = Instant::now();
        let count = 3 * SIBLING_BACKLOG_MAX as u64;
        let all = || {
            let counts = (0..count).map(|n| Message::Count(Key::Awaited(n), n));
            counts.chain([Message::Welcome])
        };
        tells.tell_anew(1, all(), now);
        let mut heard = 0;
        for _ in 0..100_000 {
            match hears.hear() {
                Heard::Said(0, Message::Welcome) => break,
                Heard::Said(0, Message::Count(Key::Awaited(n), _)) => heard = heard.max(n + 1),
                Heard::Said(..) | Heard::New(_) => {}
                Heard::Nothing => {
                    now += SIBLING_INTERVAL;
                    for behind in tells.retry(now) {
                        tells.tell_anew(behind, all(), now);
                    }
                }
            }
        }
        assert_eq!(heard, count);
    }
}
