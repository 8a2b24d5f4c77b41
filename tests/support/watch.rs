//! The library client under observation: every attempt with where it began, and what may be said
//! of a run of attempts over lines that break.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use towpath::client::{Client, Event, Observer, Options, Phase};
use towpath::digest::LEAF_BYTES;
use towpath::wire::{DigestChoice, RemotePath};

use super::proxy::{Counts, Direction, Traffic};

/// Whether the long version of a test is wanted.
pub fn is_long() -> bool {
    std::env::var_os("TOW_LONG").is_some_and(|value| value != "0")
}

pub fn remote(name: &str) -> RemotePath {
    RemotePath::new(name.as_bytes()).expect("a name that can be sent")
}

pub fn client(addr: SocketAddr, options: Options) -> Client {
    let url = format!("tow://{addr}/").parse().expect("an address makes a URL");
    Client::new(&url, options)
}

/// Tries again at once, and for longer than any machine is busy.
pub fn patient(digest: DigestChoice) -> Options {
    Options {
        digest,
        give_up: Duration::from_secs(120),
        backoff_min: Duration::from_millis(1),
        backoff_max: Duration::from_millis(20),
        ..Options::default()
    }
}

/// Ends at the first break.
pub fn impatient() -> Options {
    Options { give_up: Duration::ZERO, ..patient(DigestChoice::Tree) }
}

/// Takes down what happens, and lets the test act on it.
pub struct Watch<'a> {
    /// One for each connection that was tried: where it began to send or receive, if it came so
    /// far. Having to compare a whole file that is there already is no such beginning.
    pub attempts: Vec<Option<u64>>,
    pub bad_segments: Vec<u64>,
    pub breaks: Vec<String>,
    announced: u64,
    hook: Box<dyn FnMut(&Event<'_>) + 'a>,
}

impl<'a> Watch<'a> {
    pub fn new(hook: impl FnMut(&Event<'_>) + 'a) -> Self {
        let (attempts, bad_segments, breaks) = (Vec::new(), Vec::new(), Vec::new());
        Self { attempts, bad_segments, breaks, announced: 0, hook: Box::new(hook) }
    }

    /// Only takes down.
    pub fn quiet() -> Self {
        Self::new(|_| ())
    }

    /// Acts once, as soon as so many bytes are there.
    pub fn at_position(at: u64, act: impl FnOnce() + 'a) -> Self {
        let mut act = Some(act);
        Self::new(move |event| {
            if matches!(event, Event::Position(there) if *there >= at)
                && let Some(act) = act.take()
            {
                act();
            }
        })
    }
}

impl Observer for Watch<'_> {
    fn event(&mut self, event: Event<'_>) {
        match event {
            Event::Connecting => self.attempts.push(None),
            Event::Begin { already, .. } => self.announced = already,
            Event::Phase(Phase::Sending | Phase::Receiving) => {
                let attempt = self.attempts.last_mut().expect("it connected before");
                attempt.get_or_insert(self.announced);
            }
            Event::Phase(Phase::Checking | Phase::Verifying)
            | Event::Position(_)
            | Event::Moved(_) => {}
            Event::SegmentBad(segment) => self.bad_segments.push(segment),
            Event::Broke { reason, .. } => self.breaks.push(reason.to_owned()),
        }
        (self.hook)(&event);
    }
}

impl fmt::Debug for Watch<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch")
            .field("attempts", &self.attempts)
            .field("bad_segments", &self.bad_segments)
            .field("breaks", &self.breaks)
            .finish()
    }
}

/// Lines and frame headers among `bytes`: a few lines, a header for each frame of 64 KiB or more,
/// and a digest for each segment.
pub fn overhead(bytes: u64) -> u64 {
    2048 + bytes / 2048
}

/// What a run of attempts came to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Again {
    /// Data bytes that were handed on and had to come again after a cut: all of them.
    pub bytes: u64,
    /// The most that came again after one cut although its receiver had surely read it.
    pub read_bytes_most: u64,
}

/// Asserts that no attempt began before the one before it, nor, by more than a leaf, before what
/// the receiver had read when the line was cut. The attempts are those of one transfer of `size`
/// bytes, and all that went through the proxy.
pub fn assert_goes_on(watch: &Watch<'_>, counts: &Counts, way: Direction, size: u64) -> Again {
    assert_eq!(watch.attempts.len(), counts.connections(), "{watch:?} {counts:?}");
    let along = |traffic: Traffic| match way {
        Direction::Up => traffic.up,
        Direction::Down => traffic.down,
    };
    let mut again = Again::default();
    // Where the next attempt may begin at the earliest, what was handed on, what was surely read.
    let (mut floor, mut handed_on, mut read) = (0, 0, 0);
    for (index, &began) in watch.attempts.iter().enumerate() {
        let Some(began) = began else { continue };
        assert!(
            began >= floor,
            "attempt {index} began at {began} although {floor} was sure; {watch:?} {counts:?}"
        );
        again.bytes += u64::saturating_sub(handed_on, began);
        again.read_bytes_most = again.read_bytes_most.max(u64::saturating_sub(read, began));
        let bytes = along(counts.per_connection[index]);
        let data = |bytes: u64| (began + bytes.saturating_sub(overhead(bytes))).min(size);
        handed_on = data(bytes);
        if let Some(in_flight) = counts.in_flight[index] {
            read = data(bytes.saturating_sub(along(in_flight)));
            floor = began.max(read.saturating_sub(LEAF_BYTES));
        } else {
            (floor, read) = (began, began);
        }
    }
    again
}
