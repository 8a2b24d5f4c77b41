//! A sender that knows the digests of its file from before, rightly or not.

use std::{collections::BTreeSet, time::Duration};

use super::{
    driver::{Disk, Line, Pace, Rng, Sent, at, digest_of, receive_alone, send},
    scenario::{STALL, Scenario, knowing, progress_of},
};
use crate::{
    digest::{FileDigests, LEAF_BYTES, Md5Digest, SEGMENT_BYTES},
    limits::STALL_BYTES,
    progress::{Progress, segment_count},
    session::{Incoming, Outgoing, Settled},
    wire::{Code, DigestChoice, Frame, SegmentRuns},
};

const SIZE: u64 = 3 * SEGMENT_BYTES + 70_000;

/// A file of several segments.
fn source() -> Vec<u8> {
    let mut rng = Rng(7);
    std::iter::repeat_with(|| rng.next().to_le_bytes()).flatten().take(at(SIZE)).collect()
}

fn digests_of(source: &[u8]) -> FileDigests {
    let segments = (0..segment_count(source.len() as u64)).map(|it| digest_of(source, it));
    FileDigests { segments: Some(segments.collect()), md5: Some(Md5Digest::of(source)) }
}

/// A receiver that has the first leaves of `had`.
struct Receiver {
    disk: Disk,
    progress: Progress,
}

impl Receiver {
    fn with(had: &[u8], leaves: u64) -> Self {
        let mut disk = Disk::new();
        disk.write(0, had.get(..at(leaves * LEAF_BYTES)).unwrap_or(had));
        Self { disk, progress: progress_of(had, leaves) }
    }

    fn nothing() -> Self {
        Self::with(&source(), 0)
    }
}

/// What a transfer came to.
struct Sending {
    outgoing: Outgoing,
    rounds: u32,
    /// Segments that came out wrong.
    bad: BTreeSet<u64>,
}

/// Sends `source` until the receiver has it.
fn transfer(
    source: &[u8],
    receiver: &mut Receiver,
    known: &FileDigests,
    digest: DigestChoice,
) -> Sending {
    let none = SegmentRuns::default();
    let offset = receiver.progress.frontier();
    let outgoing = Outgoing::new(source.len() as u64, offset, &none, digest).unwrap();
    let mut sending =
        Sending { outgoing: outgoing.knowing(known), rounds: 1, bad: BTreeSet::new() };
    let mut incoming = Incoming::new(receiver.progress.clone(), digest);
    let mut pace = Pace { read: 1 << 20, flips: 0, spoiled: BTreeSet::new() };
    let (mut line, mut rng) = (Line::default(), Rng(1));
    loop {
        let sent = send(&mut sending.outgoing, source, &mut line, &mut pace, &mut rng);
        assert_ne!(sent, Sent::Nothing);
        let input = line.peek(usize::MAX).to_vec();
        let (taken, settled) = receive_alone(&mut incoming, &input, &mut receiver.disk).unwrap();
        line.take(taken);
        for settled in settled {
            match settled {
                Settled::Good => {}
                Settled::Bad { segment } => drop(sending.bad.insert(segment)),
                Settled::Differs(want) => {
                    incoming.next_round().unwrap();
                    sending.outgoing.again(&want).unwrap();
                    sending.rounds += 1;
                }
                Settled::Whole => {
                    let pending = incoming.md5_pending();
                    incoming.md5_read(&receiver.disk.bytes[at(pending.start)..at(pending.end)]);
                    incoming.check_md5().unwrap();
                    return sending;
                }
                Settled::Aborted(reply) => panic!("{reply}"),
            }
        }
    }
}

#[test]
fn what_is_known_is_not_hashed_and_the_receiver_verifies_it_all_the_same() {
    let (source, mut receiver) = (source(), Receiver::nothing());
    let sending = transfer(&source, &mut receiver, &digests_of(&source), DigestChoice::TreeAndMd5);
    assert!(receiver.disk.bytes == source);
    assert_eq!((sending.rounds, sending.outgoing.hashed_bytes()), (1, 0));
    assert_eq!(sending.outgoing.learned(), None);
}

#[test]
fn what_the_receiver_has_is_neither_read_nor_hashed() {
    let source = source();
    // Within a segment, at the start of one, and at the end of the file.
    for leaves in [1, 127, 128, 129, 3 * 128, SIZE.div_ceil(LEAF_BYTES)] {
        let mut receiver = Receiver::with(&source, leaves);
        let sending = transfer(&source, &mut receiver, &digests_of(&source), DigestChoice::Tree);
        assert!(receiver.disk.bytes == source, "{leaves}");
        assert_eq!((sending.rounds, sending.outgoing.hashed_bytes()), (1, 0), "{leaves}");
        assert_eq!(sending.outgoing.sent_bytes(), SIZE.saturating_sub(leaves * LEAF_BYTES));
    }
}

#[test]
fn the_first_new_byte_goes_before_the_digests_of_what_is_there() {
    let source = source();
    let none = SegmentRuns::default();
    let outgoing = Outgoing::new(SIZE, 2 * SEGMENT_BYTES, &none, DigestChoice::Tree).unwrap();
    let mut outgoing = outgoing.knowing(&digests_of(&source));
    assert_eq!(outgoing.next_frame(), None);
    assert_eq!(outgoing.next_to_check(), None);
    outgoing.data_header(1);
    outgoing.sent(1);
    let told = std::iter::from_fn(|| outgoing.next_frame());
    let told: Vec<_> =
        told.map(|frame| matches!(frame, Frame::Segment { segment: 0 | 1, .. })).collect();
    assert_eq!(told, [true, true]);
}

#[test]
fn only_what_is_not_known_is_hashed_and_it_is_learned() {
    let source = source();
    let all = digests_of(&source);
    let tree = FileDigests { md5: None, ..all.clone() };
    let md5 = FileDigests { segments: None, ..all.clone() };
    for known in [tree, md5] {
        let mut receiver = Receiver::nothing();
        let sending = transfer(&source, &mut receiver, &known, DigestChoice::TreeAndMd5);
        assert_eq!(sending.outgoing.hashed_bytes(), SIZE);
        assert_eq!(sending.outgoing.learned(), Some(all.clone()));
    }
}

#[test]
fn a_byte_that_the_line_spoiled_does_not_disprove_what_is_known() {
    let source = source();
    let mut receiver = Receiver::with(&source, 2 * 128);
    receiver.progress = {
        let mut spoiled = source.clone();
        spoiled[5] ^= 1;
        receiver.disk.write(0, &spoiled[..at(2 * SEGMENT_BYTES)]);
        progress_of(&spoiled, 2 * 128)
    };
    let sending = transfer(&source, &mut receiver, &digests_of(&source), DigestChoice::TreeAndMd5);
    assert!(receiver.disk.bytes == source);
    assert_eq!((sending.rounds, sending.bad), (2, BTreeSet::from([0])));
    // Only what went again was hashed, and what it was doubted for is known once more.
    assert_eq!(sending.outgoing.hashed_bytes(), SEGMENT_BYTES);
    assert_eq!(sending.outgoing.learned(), Some(digests_of(&source)));
}

#[test]
fn a_file_that_is_not_what_is_known_of_it_arrives_as_it_is() {
    let before = source();
    for place in [0, SEGMENT_BYTES + 9, SIZE - 1] {
        let mut source = before.clone();
        source[at(place)] ^= 1;
        let mut receiver = Receiver::nothing();
        let sending =
            transfer(&source, &mut receiver, &digests_of(&before), DigestChoice::TreeAndMd5);
        assert!(receiver.disk.bytes == source);
        assert_eq!(sending.rounds, 2, "{place}");
        assert_eq!(sending.bad, BTreeSet::from([place / SEGMENT_BYTES]));
        assert_eq!(sending.outgoing.learned(), Some(digests_of(&source)));
    }
}

#[test]
fn one_digest_that_is_wrong_takes_the_belief_from_all_others() {
    let before = source();
    let mut source = before.clone();
    // The receiver has the first as it was; only the last shows that the file is another.
    source[5] ^= 1;
    source[at(SIZE) - 1] ^= 1;
    for digest in [DigestChoice::Tree, DigestChoice::TreeAndMd5] {
        let mut receiver = Receiver::with(&before, 2 * 128);
        let sending = transfer(&source, &mut receiver, &digests_of(&before), digest);
        assert!(receiver.disk.bytes == source, "a mixture of two versions");
        assert_eq!(sending.bad, BTreeSet::from([0, 3]));
        assert_eq!(sending.rounds, 3);
        assert_eq!(sending.outgoing.learned().unwrap().segments, digests_of(&source).segments);
    }
}

#[test]
fn digests_of_a_file_of_another_size_are_not_believed() {
    let (source, mut receiver) = (source(), Receiver::nothing());
    let known = digests_of(&source[..at(SEGMENT_BYTES)]);
    let known = FileDigests { md5: None, ..known };
    let sending = transfer(&source, &mut receiver, &known, DigestChoice::Tree);
    assert_eq!((sending.rounds, sending.outgoing.hashed_bytes()), (1, SIZE));
}

/// A get of zeros for which so much is known, up to the verdict.
fn to_verdict(known: FileDigests) -> Scenario {
    let mut scenario = Scenario::new();
    scenario.line("get /f").done(knowing(2 * SEGMENT_BYTES, known)).line("402").send_all().said();
    scenario
}

#[test]
fn whoever_finds_other_bytes_has_what_is_known_forgotten() {
    let zeros = vec![0; at(2 * SEGMENT_BYTES)];
    let known = || digests_of(&zeros);
    assert_eq!(to_verdict(known()).line("226").said(), ["report Get", "release"]);
    // Without telling where, as one does whose MD5 differs.
    assert_eq!(
        to_verdict(known()).line("409 it differs").said(),
        ["forget", "report Get", "release"]
    );
    assert_eq!(to_verdict(known()).line("451 no space").said(), ["report Get", "release"]);

    // At once, since the line may break before it is known who is right.
    let mut scenario = to_verdict(known());
    assert_eq!(scenario.line("409 want=1").said(), ["forget"]);
    scenario.session.handle_broken("gone");
    assert_eq!(scenario.said(), ["forget", "report Get", "release"]);

    // It was the line: what was known is known again.
    let mut scenario = to_verdict(known());
    scenario.line("409 want=1").send_all().said();
    assert_eq!(scenario.line("226").said(), ["remember", "report Get", "release"]);

    // Beside the stream, as one does that can't take a segment twice.
    let mut scenario = Scenario::new();
    scenario.line("get /f").done(knowing(2 * SEGMENT_BYTES, known())).line("402").said();
    scenario.line("409 it differs");
    assert_eq!(scenario.session.poll_abort(scenario.now).unwrap().code, Code::Differs);
    assert_eq!(scenario.said(), ["forget", "report Get", "release"]);
}

#[test]
fn digests_that_are_told_buy_a_slow_receiver_time() {
    let size = 12_000 * SEGMENT_BYTES;
    let segments = Some(vec![Md5Digest::of(b""); 12_000].into());
    let mut scenario = Scenario::new();
    scenario.line("get /f").done(knowing(size, FileDigests { segments, md5: None }));
    scenario.line(&format!("000 offset={size} tag=t"));
    assert_eq!(scenario.said().last().unwrap(), "312");
    let tell = |scenario: &mut Scenario, count: u64| {
        let outgoing = scenario.session.outgoing().unwrap();
        (0..count).for_each(|_| assert!(outgoing.next_frame().is_some()));
        scenario.session.handle_moved(scenario.now);
    };
    for _ in 0..4 {
        scenario.after(STALL - Duration::from_secs(1));
        tell(&mut scenario, STALL_BYTES / 32);
    }
    assert_eq!(scenario.said(), [""; 0]);
    tell(&mut scenario, STALL_BYTES / 32 - 1);
    assert_eq!(scenario.after(STALL).said().last().unwrap(), "close");
}

#[test]
fn nothing_is_forgotten_of_what_was_not_known() {
    let mut scenario = to_verdict(FileDigests::default());
    assert_eq!(scenario.line("409 want=1").said(), [""; 0]);
    scenario.session.handle_broken("gone");
    assert_eq!(scenario.said(), ["report Get", "release"]);
}
