//! An upload in pieces, as a test wants them, over raw lines.

use towpath::digest::SEGMENT_BYTES;

use super::{
    Raw, Rng,
    frames::{self, OWNER},
    people::ask,
};

/// A file of two segments, and the frames that carry it.
#[derive(Debug)]
pub struct Upload {
    path: &'static str,
    pub bytes: Vec<u8>,
}

impl Upload {
    pub fn new(path: &'static str, seed: u64) -> Self {
        let size = usize::try_from(2 * SEGMENT_BYTES).expect("it fits into memory");
        let mut bytes = vec![0; size];
        Rng::new(seed).fill(&mut bytes);
        Self { path, bytes }
    }

    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Begins or goes on, as the same client each time; the server's answer.
    pub fn offer(&self, raw: &mut Raw) -> String {
        self.offer_as(OWNER, raw)
    }

    /// The same as another client.
    pub fn offer_as(&self, owner: &str, raw: &mut Raw) -> String {
        let line = frames::offer(self.path, self.size(), "t").replace(OWNER, owner);
        ask(raw, line.trim_end())
    }

    /// One frame of data.
    pub fn data(&self, from: u64, to: u64) -> Vec<u8> {
        let range = usize::try_from(from).expect("it fits")..usize::try_from(to).expect("it fits");
        frames::data(from, &self.bytes[range])
    }

    /// What comes behind the data.
    pub fn digests(&self) -> Vec<u8> {
        frames::frames_from(&self.bytes, self.size())
    }

    /// Sends the first segment of an upload that has just begun.
    pub fn send_first(&self, raw: &mut Raw) {
        raw.send(format!("426 offset=0 length={}\n", self.size()));
        raw.send(self.data(0, SEGMENT_BYTES));
    }

    /// Sends the second one, to the verdict.
    pub fn send_rest(&self, raw: &mut Raw) {
        raw.send(self.data(SEGMENT_BYTES, self.size()));
        self.finish(raw);
    }

    /// Sends what comes behind the data, to the verdict.
    pub fn finish(&self, raw: &mut Raw) {
        raw.send(self.digests());
        let verdict = raw.read_line();
        assert!(verdict.starts_with("226 root="), "{verdict}");
    }
}
