//! What a worker gets from its supervisor: listening sockets, an inbox, ways to its siblings, and a
//! line whose end tells that the supervisor is gone.
//!
//! Descriptors go over that line, which is the worker's standard input: so none of them is inherited
//! by a process that it is not for, and no `unsafe` is needed to take them.

use std::{
    ffi::OsString,
    io::{self, IoSlice, IoSliceMut},
    mem::MaybeUninit,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{
            ffi::{OsStrExt as _, OsStringExt as _},
            net::UnixDatagram,
        },
    },
    path::{Path, PathBuf},
};

use mio::net::TcpListener;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use socket2::SockRef;

use crate::{
    limits::{LISTEN_ADDRESSES_MAX, PATH_BYTES_MAX, WORKERS_MAX},
    server::{StartError, listen::listen_shared},
};

/// Descriptors that a seat has at most: fewer than what one message may carry, 253.
const FDS_MAX: usize = LISTEN_ADDRESSES_MAX + 1 + WORKERS_MAX;

/// Indices, two paths, and what is in front of them.
const HEAD_BYTES: usize = 5;
const BYTES_MAX: usize = HEAD_BYTES + WORKERS_MAX + 2 * PATH_BYTES_MAX;

/// The places of all workers of a server, as the supervisor keeps them.
#[derive(Debug)]
pub struct Seats {
    addresses: Vec<SocketAddr>,
    /// By worker, one for each address.
    listeners: Vec<Vec<OwnedFd>>,
    inboxes: Vec<UnixDatagram>,
    outboxes: Vec<UnixDatagram>,
    root: PathBuf,
    users: PathBuf,
}

/// The place of one worker.
#[derive(Debug)]
pub struct Seat {
    /// Which of the workers it is, from 0.
    pub(in crate::server) index: u8,
    /// The line to the supervisor.
    pub(in crate::server) control: OwnedFd,
    listeners: Vec<OwnedFd>,
    pub(in crate::server) inbox: UnixDatagram,
    /// By worker, its own among them.
    pub(in crate::server) outboxes: Vec<UnixDatagram>,
    /// Siblings that serve already, and will tell how things stand.
    pub(in crate::server) there: Vec<u8>,
    root: PathBuf,
    users: PathBuf,
}

/// A seat can't be taken.
#[derive(Debug, thiserror::Error)]
pub enum SeatError {
    /// Whoever started this process gives it none.
    #[error("workers are started by towd itself, with --workers")]
    NoSupervisor,
    /// The system says no.
    #[error("can't take the place of a worker: {0}")]
    System(#[from] io::Error),
}

impl Seats {
    /// Listens for `count` workers, at most [`WORKERS_MAX`], which serve `root` with the user file
    /// `users`.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn bind(
        listen: &[SocketAddr],
        count: usize,
        root: &Path,
        users: &Path,
    ) -> Result<Self, StartError> {
        let count = count.clamp(1, WORKERS_MAX);
        let mut listeners: Vec<Vec<OwnedFd>> = (0..count).map(|_| Vec::new()).collect();
        let mut addresses = Vec::new();
        for &address in listen.iter().take(LISTEN_ADDRESSES_MAX) {
            let failed = |error| StartError::Listen { address, error };
            let (address, sockets) = listen_shared(address, count).map_err(failed)?;
            addresses.push(address);
            listeners.iter_mut().zip(sockets).for_each(|(of_one, socket)| of_one.push(socket));
        }
        let (mut inboxes, mut outboxes) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let (inbox, outbox) = UnixDatagram::pair()?;
            inbox.set_nonblocking(true)?;
            outbox.set_nonblocking(true)?;
            inboxes.push(inbox);
            outboxes.push(outbox);
        }
        let (root, users) = (root.to_owned(), users.to_owned());
        Ok(Self { addresses, listeners, inboxes, outboxes, root, users })
    }

    /// The addresses that are listened on, with the ports that the system chose.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A line between the supervisor and a worker: one end for each.
    ///
    /// # Errors
    /// No descriptor is left.
    pub fn line() -> io::Result<(OwnedFd, OwnedFd)> {
        let kind = SocketType::SEQPACKET;
        Ok(socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?)
    }

    /// Gives worker `index` its seat, over its line. `there` are the workers that serve already.
    ///
    /// # Errors
    /// The worker is gone, or there is no such seat.
    pub fn hand_over(&self, index: usize, there: &[u8], line: BorrowedFd<'_>) -> io::Result<()> {
        let none = || io::Error::other("there is no such seat");
        let listeners = self.listeners.get(index).ok_or_else(none)?;
        let inbox = self.inboxes.get(index).ok_or_else(none)?;
        let mut fds: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        let listening = fds.len();
        fds.push(inbox.as_fd());
        fds.extend(self.outboxes.iter().map(AsFd::as_fd));
        let [root, users] = [&self.root, &self.users].map(|path| path.as_os_str().as_bytes());
        let mut bytes = Vec::new();
        for number in [index, listening, there.len()] {
            bytes.push(u8::try_from(number).map_err(io::Error::other)?);
        }
        bytes.extend(u16::try_from(root.len()).map_err(io::Error::other)?.to_le_bytes());
        bytes.extend(there.iter().chain(root).chain(users));
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if bytes.len() > BYTES_MAX || !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::other("a seat with too much in it"));
        }
        sendmsg(line, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
        Ok(())
    }
}

impl Seat {
    /// Takes what the supervisor gives over a line; waits for it.
    ///
    /// # Errors
    /// [`SeatError`].
    pub fn take(line: BorrowedFd<'_>) -> Result<Self, SeatError> {
        let mut bytes = [0; BYTES_MAX];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let got = recvmsg(line, &mut slices, &mut control, RecvFlags::CMSG_CLOEXEC);
        let length = got.map_err(|_| SeatError::NoSupervisor)?.bytes;
        let mut fds = control.drain().flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => fds.collect(),
            _ => Vec::new(),
        });
        let bytes = bytes.get(..length).unwrap_or_default();
        let (head, rest) = bytes.split_first_chunk().ok_or(SeatError::NoSupervisor)?;
        let &[index, listening, there, low, high] = head;
        let there = rest.split_at_checked(usize::from(there));
        let (there, paths) = there.ok_or(SeatError::NoSupervisor)?;
        let root_bytes = usize::from(u16::from_le_bytes([low, high]));
        let (root, users) = paths.split_at_checked(root_bytes).ok_or(SeatError::NoSupervisor)?;
        let path = |bytes: &[u8]| PathBuf::from(OsString::from_vec(bytes.to_vec()));
        let listeners = fds.by_ref().take(usize::from(listening)).collect();
        let inbox = fds.next().ok_or(SeatError::NoSupervisor)?.into();
        let outboxes: Vec<UnixDatagram> = fds.map(UnixDatagram::from).collect();
        let (root, users, there) = (path(root), path(users), there.to_vec());
        let control = line.try_clone_to_owned()?;
        Ok(Self { index, control, listeners, inbox, outboxes, there, root, users })
    }

    /// The sockets to accept from.
    pub(in crate::server) fn listeners(&mut self) -> Vec<TcpListener> {
        let sockets = std::mem::take(&mut self.listeners).into_iter();
        sockets.map(|socket| TcpListener::from_std(socket.into())).collect()
    }

    /// Which of the workers it is, from 0.
    #[must_use]
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// The addresses of the sockets.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let address = |socket: &OwnedFd| SockRef::from(socket).local_addr().ok()?.as_socket();
        self.listeners.iter().filter_map(address).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.outboxes.len()
    }

    /// What all of them serve.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The user file of all of them.
    #[must_use]
    pub fn users(&self) -> &Path {
        &self.users
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_comes_through_a_line_with_all_that_belongs_to_it() {
        let any = [SocketAddr::from(([127, 0, 0, 1], 0)); 2];
        let seats = Seats::bind(&any, 3, Path::new("/r"), Path::new("/r/u")).unwrap();
        assert_ne!(seats.addresses()[0], seats.addresses()[1]);
        let (ours, theirs) = Seats::line().unwrap();
        seats.hand_over(2, &[1, 0], ours.as_fd()).unwrap();
        let seat = Seat::take(theirs.as_fd()).unwrap();
        assert_eq!((seat.index(), seat.count(), seat.listeners.len()), (2, 3, 2));
        assert_eq!(seat.there, [1, 0]);
        assert_eq!((seat.root(), seat.users()), (Path::new("/r"), Path::new("/r/u")));
        seats.outboxes[2].send(b"x").unwrap();
        assert_eq!(seat.inbox.recv(&mut [0; 9]).unwrap(), 1);
        seat.outboxes[0].send(b"yy").unwrap();
        assert_eq!(seats.inboxes[0].recv(&mut [0; 9]).unwrap(), 2);
        assert!(seats.hand_over(3, &[], ours.as_fd()).is_err());
    }

    #[test]
    fn as_many_as_there_may_be_fit_a_message() {
        let any = [SocketAddr::from(([127, 0, 0, 1], 0)); LISTEN_ADDRESSES_MAX];
        let path = PathBuf::from("p".repeat(PATH_BYTES_MAX));
        let mut seats = Seats::bind(&any[..1], WORKERS_MAX, &path, &path).unwrap();
        let more = (1..LISTEN_ADDRESSES_MAX).map(|_| seats.inboxes[0].try_clone().unwrap().into());
        seats.listeners[0].extend(more.collect::<Vec<_>>());
        let (ours, theirs) = Seats::line().unwrap();
        seats.hand_over(0, &[9; WORKERS_MAX], ours.as_fd()).unwrap();
        let seat = Seat::take(theirs.as_fd()).unwrap();
        assert_eq!((seat.count(), seat.listeners.len()), (WORKERS_MAX, LISTEN_ADDRESSES_MAX));
        assert_eq!(seat.users(), path);
    }

    #[test]
    fn who_gives_nothing_is_no_supervisor() {
        let (ours, theirs) = Seats::line().unwrap();
        drop(ours);
        assert!(matches!(Seat::take(theirs.as_fd()), Err(SeatError::NoSupervisor)));
        let null = std::fs::File::open("/dev/null").unwrap();
        assert!(matches!(Seat::take(null.as_fd()), Err(SeatError::NoSupervisor)));
    }
}
