//! What wakes a thread of the [`proxy`](super::proxy) that waits for a socket.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Instant;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// Rung once, heard for ever, by any number of threads that block in `poll`.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    pub fn new() -> Self {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Self(eventfd(0, flags).expect("a file descriptor for the proxy"))
    }

    pub fn ring(&self) {
        rustix::io::write(&self.0, &1_u64.to_ne_bytes()).expect("an eventfd can be written to");
    }

    pub fn wait(&self) {
        self.poll(None, None);
    }

    /// Whether the bell was rung by then.
    pub fn wait_until(&self, due: Instant) -> bool {
        self.poll(None, Some(due))
    }

    /// `true` once the socket is ready, `false` once the bell is rung, which goes first.
    pub fn wait_or_ready(&self, socket: BorrowedFd<'_>, flags: PollFlags) -> bool {
        !self.poll(Some((socket, flags)), None)
    }

    fn poll(&self, socket: Option<(BorrowedFd<'_>, PollFlags)>, until: Option<Instant>) -> bool {
        let mut fds = vec![PollFd::new(&self.0, PollFlags::IN)];
        fds.extend(socket.map(|(socket, flags)| PollFd::from_borrowed_fd(socket, flags)));
        loop {
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            let left = left.map(|left| Timespec::try_from(left).expect("a pause of seconds"));
            match poll(&mut fds, left.as_ref()) {
                Err(Errno::INTR) => {}
                Err(error) => panic!("poll: {error}"),
                Ok(_) => return !fds[0].revents().is_empty(),
            }
        }
    }
}
