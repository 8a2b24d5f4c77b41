//! The journal of a partial: an append-only list of records that survives a torn tail.
//!
//! A record is its length (u32, big-endian, of what follows but for the check), a kind, a payload,
//! and a check of 8 bytes: the first half of the MD5 over the check before it, the kind and the
//! payload. The chain of checks stands for sequence numbers: a record counts only behind the very
//! records behind which it was written, so neither an old tail nor another journal's record is
//! ever taken for one.
//!
//! Pure but for [`boot_id`]: bytes in, knowledge out.

use crate::{
    digest::{Md5Digest, SavedMd5},
    progress::{Mark, Progress},
    wire::{Mtime, Tag},
};

const CHECK_BYTES: usize = 8;

/// Version of the format: a journal of another one is started anew.
const VERSION: u8 = 2;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Record {
    /// A writer took over the partial, for this version of the source.
    Open {
        /// Counts the writers; a later one fences off the earlier.
        epoch: u64,
        /// The boot during which it was written.
        boot: u128,
        size: u64,
        mtime: Mtime,
        tag: Tag,
    },
    /// More was received. If durable, its data was synced before the record was written.
    Mark { durable: bool, mark: Mark },
    /// The file is whole, verified and durable, and about to appear under its name.
    Commit { root: Md5Digest, md5: Option<Md5Digest>, inode: u64 },
    /// The file that was committed has its name, and was last changed by getting it.
    Visible { ctime: Mtime },
}

/// A file that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) root: Md5Digest,
    pub(super) md5: Option<Md5Digest>,
    pub(super) inode: u64,
    /// When it was last changed, if that could still be written down.
    pub(super) ctime: Option<Mtime>,
}

/// What a journal says.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) epoch: u64,
    pub(super) tag: Tag,
    pub(super) mtime: Mtime,
    pub(super) progress: Progress,
    /// What it was as of the last mark whose data is on the disk for certain.
    pub(super) durable: Progress,
    /// The boot of the last writer.
    pub(super) boot: u128,
    pub(super) commit: Option<Receipt>,
    /// Where the next record goes, and the check that it chains to.
    pub(super) end: Position,
    /// The same for the last durable mark.
    pub(super) durable_end: Position,
    /// No mark came since that is not durable.
    settled: bool,
}

/// A place between two records.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) offset: u64,
    pub(super) check: [u8; CHECK_BYTES],
}

/// Appends a record behind `at`, and moves `at` behind it.
pub(super) fn encode(record: &Record, at: &mut Position, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    match record {
        Record::Open { epoch, boot, size, mtime, tag } => {
            body.extend([b'O', VERSION]);
            body.extend(epoch.to_be_bytes());
            body.extend(boot.to_be_bytes());
            body.extend(size.to_be_bytes());
            body.extend(mtime.seconds.to_be_bytes());
            body.extend(mtime.nanos.to_be_bytes());
            body.extend(tag.as_str().as_bytes());
        }
        Record::Mark { durable, mark } => {
            body.extend([b'M', u8::from(*durable)]);
            encode_mark(mark, &mut body);
        }
        Record::Commit { root, md5, inode } => {
            body.push(b'C');
            body.extend(inode.to_be_bytes());
            body.extend(root.0);
            body.extend(md5.iter().flat_map(|md5| md5.0));
        }
        Record::Visible { ctime } => {
            body.push(b'V');
            body.extend(ctime.seconds.to_be_bytes());
            body.extend(ctime.nanos.to_be_bytes());
        }
    }
    at.check = check(at.check, &body);
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend(length.to_be_bytes());
    out.extend(&body);
    out.extend(at.check);
    at.offset += (4 + body.len() + CHECK_BYTES) as u64;
}

fn encode_mark(mark: &Mark, body: &mut Vec<u8>) {
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_be_bytes();
    body.extend(mark.segment_count.to_be_bytes());
    body.extend(count(mark.segments.len()));
    for (segment, digest) in &mark.segments {
        body.extend(segment.to_be_bytes());
        body.extend(digest.0);
    }
    body.extend(mark.leaves_from.to_be_bytes());
    body.extend(count(mark.leaves.len()));
    body.extend(mark.leaves.iter().flat_map(|leaf| leaf.0));
    body.extend(count(mark.bad.len()));
    body.extend(mark.bad.iter().flat_map(|bad| bad.to_be_bytes()));
    if let Some(md5) = &mark.md5 {
        body.extend(md5.position.to_be_bytes());
        body.extend(md5.state);
    }
}

fn check(before: [u8; CHECK_BYTES], body: &[u8]) -> [u8; CHECK_BYTES] {
    let mut all = before.to_vec();
    all.extend_from_slice(body);
    let mut check = [0; CHECK_BYTES];
    check.iter_mut().zip(Md5Digest::of(&all).0).for_each(|(to, from)| *to = from);
    check
}

/// Reads bytes off the front of a record's body.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }

    fn digest(&mut self) -> Option<Md5Digest> {
        self.take().map(Md5Digest)
    }

    fn time(&mut self) -> Option<Mtime> {
        Some(Mtime { seconds: i64::from_be_bytes(self.take()?), nanos: self.u32()? })
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()?;
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(item(self)?);
        }
        Some(items)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn decode(body: &[u8]) -> Option<Record> {
    let mut body = Body(body);
    let record = match body.take()? {
        [b'O'] => {
            let [VERSION] = body.take()? else { return None };
            Record::Open {
                epoch: body.u64()?,
                boot: u128::from_be_bytes(body.take()?),
                size: body.u64().filter(|&size| size <= crate::limits::FILE_BYTES_MAX)?,
                mtime: body.time()?,
                tag: std::str::from_utf8(body.rest()).ok()?.parse().ok()?,
            }
        }
        [b'M'] => {
            let [durable @ (0 | 1)] = body.take()? else {
                return None;
            };
            let mut mark = Mark {
                segment_count: body.u64()?,
                segments: body.list(|body| Some((body.u64()?, body.digest()?)))?,
                leaves_from: body.u32()?,
                leaves: body.list(Body::digest)?,
                bad: body.list(Body::u64)?,
                md5: None,
            };
            if !body.is_empty() {
                mark.md5 = Some(SavedMd5 { position: body.u64()?, state: body.take()? });
            }
            Record::Mark { durable: durable == 1, mark }
        }
        [b'C'] => {
            let (inode, root) = (body.u64()?, body.digest()?);
            let md5 = if body.is_empty() { None } else { Some(body.digest()?) };
            Record::Commit { root, md5, inode }
        }
        [b'V'] => Record::Visible { ctime: body.time()? },
        _ => return None,
    };
    body.is_empty().then_some(record)
}

/// Takes the first record off `input`, if it chains to `at`, which then moves behind it.
fn next(input: &[u8], at: &mut Position) -> Option<(Record, usize)> {
    let (length, rest) = input.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (body, rest) = rest.split_at_checked(length)?;
    let (found, _) = rest.split_first_chunk::<CHECK_BYTES>()?;
    let expected = check(at.check, body);
    if *found != expected {
        return None;
    }
    let record = decode(body)?;
    let taken = 4 + length + CHECK_BYTES;
    *at = Position { offset: at.offset + taken as u64, check: expected };
    Some((record, taken))
}

/// Replays the longest valid prefix of a journal; `None` if not even its first record is valid.
pub(super) fn replay(journal: &[u8]) -> Option<Replay> {
    let mut all = run(journal)?;
    // Once more up to the last durable mark: to keep a copy at each would be quadratic work.
    let settled = usize::try_from(all.durable_end.offset).unwrap_or(0);
    if let Some(durable) = journal.get(..settled).and_then(run) {
        all.durable = durable.progress;
        all.durable.resize(all.progress.size());
    }
    Some(all)
}

fn run(journal: &[u8]) -> Option<Replay> {
    let mut at = Position::default();
    let (first, mut taken) = next(journal, &mut at)?;
    let Record::Open { epoch, boot, size, mtime, tag } = first else {
        return None;
    };
    let mut state = Replay {
        epoch,
        tag,
        mtime,
        progress: Progress::new(size),
        durable: Progress::new(size),
        boot,
        commit: None,
        end: at,
        durable_end: at,
        settled: true,
    };
    while let Some((record, bytes)) = journal.get(taken..).and_then(|rest| next(rest, &mut at)) {
        if state.take(record, at).is_none() {
            break;
        }
        taken += bytes;
        state.end = at;
    }
    Some(state)
}

impl Replay {
    /// Takes one more record, which ends at `at`; `None` if it does not follow.
    fn take(&mut self, record: Record, at: Position) -> Option<()> {
        // Behind a commit only another writer can begin.
        let goes_on = matches!(record, Record::Open { .. } | Record::Visible { .. });
        if self.commit.is_some() && !goes_on {
            return None;
        }
        match record {
            Record::Open { epoch, boot, size, mtime, tag } => {
                if epoch <= self.epoch {
                    return None;
                }
                self.progress.resize(size);
                self.commit = None;
                (self.epoch, self.boot, self.mtime, self.tag) = (epoch, boot, mtime, tag);
                if self.settled {
                    self.durable_end = at;
                }
            }
            Record::Mark { durable, mark } => {
                self.progress.apply(&mark).ok()?;
                self.settled = durable;
                if durable {
                    self.durable_end = at;
                }
            }
            Record::Commit { root, md5, inode } => {
                self.commit = Some(Receipt { root, md5, inode, ctime: None });
            }
            Record::Visible { ctime } => self.commit.as_mut()?.ctime = Some(ctime),
        }
        Some(())
    }
}

/// Tells this boot of the machine from every other: within one, the page cache has survived
/// whatever happened to the process.
pub(super) fn boot_id() -> u128 {
    #[cfg(test)]
    if let Some(boot) = super::tests::hook::boot() {
        return boot;
    }
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let hex: String = text.chars().filter(char::is_ascii_hexdigit).collect();
    // Without it no boot is the same as another: everything is checked again.
    u128::from_str_radix(&hex, 16).unwrap_or_else(|_| {
        let mut random = [0; 16];
        let _ = getrandom::fill(&mut random);
        u128::from_be_bytes(random)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::LEAF_BYTES;

    fn open(epoch: u64, size: u64) -> Record {
        Record::Open { epoch, boot: 7, size, mtime: Mtime::default(), tag: "t".parse().unwrap() }
    }

    /// A journal of two writers, with the positions between its records.
    fn sample() -> (Vec<u8>, Vec<Position>) {
        let size = 200 * LEAF_BYTES;
        let mut progress = Progress::new(size);
        let (mut bytes, mut at, mut positions) = (Vec::new(), Position::default(), Vec::new());
        let mut write = |record: Record| {
            encode(&record, &mut at, &mut bytes);
            positions.push(at);
        };
        write(open(1, size));
        for step in 0..3_u64 {
            for leaf in 0..60 {
                progress.push_leaf(Md5Digest::of(&[u8::try_from(leaf * step).unwrap()]));
            }
            write(Record::Mark { durable: step == 1, mark: progress.take_mark() });
        }
        progress.spoil(0);
        write(open(2, size));
        write(Record::Mark { durable: false, mark: progress.take_mark() });
        (bytes, positions)
    }

    #[test]
    fn a_whole_journal_gives_everything_back() {
        let (bytes, positions) = sample();
        let replay = replay(&bytes).unwrap();
        assert_eq!(replay.progress.frontier(), 180 * LEAF_BYTES);
        assert_eq!(replay.durable.frontier(), 120 * LEAF_BYTES);
        assert!(replay.progress.bad().contains(&0));
        assert_eq!(replay.epoch, 2);
        assert_eq!(replay.end, *positions.last().unwrap());
        assert_eq!(replay.durable_end, positions[2]);
    }

    #[test]
    fn cut_anywhere_it_gives_the_longest_valid_prefix() {
        let (bytes, positions) = sample();
        for length in 0..bytes.len() {
            let whole = positions.iter().rfind(|at| at.offset <= length as u64);
            let found = replay(&bytes[..length]).map(|replay| replay.end);
            assert_eq!(found, whole.copied(), "{length}");
        }
    }

    #[test]
    fn a_flipped_bit_ends_it_before_the_record_it_is_in() {
        let (bytes, positions) = sample();
        for bit in 0..bytes.len() * 8 {
            let mut spoiled = bytes.clone();
            spoiled[bit / 8] ^= 1 << (bit % 8);
            let before = positions.iter().rfind(|at| at.offset <= bit as u64 / 8);
            let found = replay(&spoiled).map(|replay| replay.end);
            assert_eq!(found, before.copied(), "{bit}");
        }
    }

    #[test]
    fn a_record_of_another_place_is_no_continuation() {
        let (bytes, positions) = sample();
        let cut = |at: usize| usize::try_from(positions[at].offset).unwrap();
        let mut swapped = bytes[..cut(1)].to_vec();
        swapped.extend(&bytes[cut(2)..cut(3)]);
        assert_eq!(replay(&swapped).unwrap().end, positions[1]);
    }

    #[test]
    fn an_earlier_epoch_is_fenced_off() {
        let (mut bytes, mut at) = (Vec::new(), Position::default());
        encode(&open(2, 10), &mut at, &mut bytes);
        let fence = at;
        encode(&open(2, 20), &mut at, &mut bytes);
        assert_eq!(replay(&bytes).unwrap().end, fence);
    }
}
