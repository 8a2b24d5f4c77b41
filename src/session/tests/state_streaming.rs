//! Streaming, in both directions.

use std::time::Duration;

use super::{
    driver::{at, data_frame},
    scenario::{
        IDLE, STALL, Scenario, end_frame, progress_of, segment_data, segment_frame, whole_stream,
    },
};
use crate::{
    digest::{Engine, LEAF_BYTES, Md5Digest, SEGMENT_BYTES},
    limits::{FILE_BYTES_MAX, ROUNDS_WITHOUT_PROGRESS_MAX},
    progress::Progress,
    session::{Incoming, Job, Outcome, Piece, Wants, run_jobs},
    wire::{Code, DigestChoice, Frame, Reply, frame_bytes},
};

const ABORT: &[u8] = b"A\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x00451";

fn noise(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

/// Two segments of which the first came out wrong: its round is over.
fn one_bad_of_two(source: &[u8]) -> Scenario {
    let mut scenario = Scenario::to_streaming_in(Progress::new(source.len() as u64));
    let mut spoiled = source.to_vec();
    spoiled[5] ^= 1;
    for segment in 0..2 {
        scenario.frames(&segment_data(&spoiled, segment));
        scenario.frames(&segment_frame(source, segment));
    }
    scenario.frames(&end_frame(source));
    scenario
}

#[test]
fn the_journal_knows_what_is_bad_before_the_client_does() {
    let source = noise(at(SEGMENT_BYTES) + 9);
    let mut scenario = one_bad_of_two(&source);
    assert_eq!(scenario.said(), ["start Checkpoint"]);
    assert_eq!(scenario.session.wants(), Wants::Nothing);
    assert!(matches!(&scenario.jobs[0].1, Job::Checkpoint(mark) if mark.bad == [0]));
    scenario.done(Outcome::Checkpointed);
    assert_eq!(scenario.said(), ["409 want=0"]);
    assert_eq!(scenario.session.wants(), Wants::Frames);
}

#[test]
fn a_journal_that_can_not_be_written_ends_the_put_in_step() {
    for outcome in [Outcome::Failed(Reply::new(Code::Failed)), Outcome::Committed] {
        let mut scenario = one_bad_of_two(&noise(at(SEGMENT_BYTES) + 9));
        scenario.done(outcome);
        let said = scenario.said();
        assert_eq!(&said[1..3], ["report Put", "release"]);
        assert!(said[3].starts_with("451") && said.len() == 4, "{said:?}");
        assert_eq!(scenario.line("noop").said(), ["200"]);
    }
}

#[test]
fn a_bad_segment_can_not_come_again_before_the_round_is_over() {
    let source = noise(2 * at(SEGMENT_BYTES));
    let mut scenario = Scenario::to_streaming_in(progress_of(&source, 128));
    let digest = Md5Digest::of(b"another");
    scenario.frames(&frame_bytes(&Frame::Segment { segment: 0, digest }));
    assert_eq!(scenario.said(), [""; 0]);
    scenario.frames(&segment_data(&source, 0));
    assert_eq!(scenario.said()[2], "400 data out of place");
}

#[test]
fn a_bad_segment_stays_bad_until_it_came_again_as_a_whole() {
    let source = noise(at(SEGMENT_BYTES) + 9);
    let mut scenario = one_bad_of_two(&source);
    // The old digest of what is half overwritten now.
    let old = scenario.session.incoming().map(|incoming| incoming.progress().segments()[0]);
    assert_eq!(old, None, "nothing is wanted before the journal knows");
    scenario.done(Outcome::Checkpointed);
    let old = scenario.session.incoming().unwrap().progress().segments()[0];
    scenario.said();
    scenario.frames(&segment_data(&source, 0)[..100_000]);
    scenario.session.handle_broken("gone");
    assert_eq!(scenario.said(), ["report Put", "release mark"]);

    // The next attempt names the old digest, and has the root of it as well.
    let mut progress = progress_of(&source, 129);
    progress.spoil(0);
    let mut scenario = Scenario::to_streaming_in(progress);
    scenario.frames(&frame_bytes(&Frame::Segment { segment: 0, digest: old }));
    let own = scenario.session.incoming().unwrap().progress().segments()[0];
    scenario.frames(&frame_bytes(&Frame::Segment { segment: 0, digest: own }));
    scenario.frames(&end_frame(&source));
    assert_eq!(scenario.said(), ["start Checkpoint"]);
    scenario.done(Outcome::Checkpointed);
    assert_eq!(scenario.said(), ["409 want=0"]);
    scenario.frames(&segment_data(&source, 0)).frames(&segment_frame(&source, 0));
    scenario.frames(&end_frame(&source));
    assert_eq!(scenario.said(), ["start Commit"]);
}

#[test]
fn a_segment_left_in_the_middle_leaves_nothing_in_the_next_one() {
    let source = noise(2 * at(SEGMENT_BYTES));
    let mut progress = progress_of(&source, 128);
    progress.spoil(0);
    progress.spoil(1);
    let mut scenario = Scenario::to_streaming_in(progress);
    let second = &source[at(SEGMENT_BYTES)..];
    let mut chunk = data_frame(0, &source[..100]);
    chunk.extend(data_frame(SEGMENT_BYTES, &second[..32_768]));
    scenario.frames(&chunk);
    scenario.frames(&data_frame(SEGMENT_BYTES + LEAF_BYTES, &second[32_768..]));
    scenario.frames(&segment_frame(&source, 1)).frames(&end_frame(&source));
    scenario.done(Outcome::Checkpointed);
    assert_eq!(scenario.said().last().unwrap(), "409 want=0");
}

#[test]
fn the_same_segment_spoiled_over_and_over_is_given_up_in_step() {
    let source = noise(100);
    let mut scenario = Scenario::to_streaming_in(Progress::new(100));
    let mut spoiled = source.clone();
    spoiled[0] ^= 1;
    let mut round = segment_data(&spoiled, 0);
    round.extend(segment_frame(&source, 0));
    round.extend(end_frame(&source));
    for _ in 0..ROUNDS_WITHOUT_PROGRESS_MAX {
        scenario.frames(&round).done(Outcome::Checkpointed);
        assert_eq!(scenario.said(), ["start Checkpoint", "409 want=0"]);
    }
    scenario.frames(&round);
    let said = scenario.said();
    assert_eq!(said[..2], ["report Put", "release mark"]);
    assert_eq!(said[2], "409 the same segments keep coming out wrong");
    assert_eq!(scenario.line("noop").said(), ["200"]);
}

#[test]
fn frames_of_any_size_within_one_chunk_make_the_same_digests() {
    let source = noise(200_001);
    for step in [1, 7, 1_000, 32_767, 32_768, 32_769, 200_001] {
        let mut stream = Vec::new();
        for (number, piece) in source.chunks(step).enumerate() {
            stream.extend(data_frame((number * step) as u64, piece));
        }
        stream.extend(segment_frame(&source, 0));
        stream.extend(end_frame(&source));
        let mut scenario = Scenario::to_streaming_in(Progress::new(200_001));
        assert_eq!(scenario.frames(&stream).said(), ["start Commit"], "{step}");
    }
}

#[test]
fn a_file_of_every_awkward_size_is_received_byte_by_byte_and_at_once() {
    for size in [0, 1, 32_767, 32_768, 32_769] {
        let source = noise(size);
        let stream = whole_stream(&source);
        let mut scenario = Scenario::to_streaming_in(Progress::new(size as u64));
        assert_eq!(scenario.frames(&stream).said(), ["start Commit"], "{size}");
        let mut scenario = Scenario::to_streaming_in(Progress::new(size as u64));
        for byte in &stream {
            scenario.frames(std::slice::from_ref(byte));
        }
        assert_eq!(scenario.said(), ["start Commit"], "{size}");
    }
    for size in [at(SEGMENT_BYTES) - 1, at(SEGMENT_BYTES), at(SEGMENT_BYTES) + 1] {
        let source = noise(size);
        let mut scenario = Scenario::to_streaming_in(Progress::new(size as u64));
        for chunk in whole_stream(&source).chunks(1_000_003) {
            scenario.frames(chunk);
        }
        assert_eq!(scenario.said(), ["start Commit"], "{size}");
    }
}

#[test]
fn an_end_before_everything_came_is_refused_at_once_however_large_the_file() {
    let mut scenario = Scenario::to_streaming_in(Progress::new(FILE_BYTES_MAX));
    let root = Md5Digest::of(b"root");
    scenario.frames(&frame_bytes(&Frame::End { size: FILE_BYTES_MAX, root, md5: None }));
    let said = scenario.said();
    assert_eq!(said[2], "409 a digest that does not fit");
    assert_eq!(scenario.line("noop").said(), ["200"]);
}

#[test]
fn data_at_the_edge_of_numbers_is_out_of_place() {
    for offset in [FILE_BYTES_MAX, FILE_BYTES_MAX - 10, SEGMENT_BYTES, 1] {
        let mut scenario = Scenario::to_streaming_in(Progress::new(FILE_BYTES_MAX));
        scenario.frames(&data_frame(offset, b"x"));
        let said = scenario.said();
        assert_eq!(said.last().unwrap(), "close", "{offset}");
    }
}

#[test]
fn an_abort_is_answered_with_one_line_and_what_came_is_kept() {
    let source = noise(200_000);
    let mut scenario = Scenario::to_streaming_in(Progress::new(200_000));
    scenario.frames(&data_frame(0, &source[..70_000])).frames(ABORT);
    assert_eq!(scenario.said(), ["report Put", "release mark", "451 given up by the client"]);
    assert_eq!(scenario.line("noop").said(), ["200"]);
}

#[test]
fn an_abort_can_not_forge_a_verdict() {
    let mut scenario = Scenario::to_streaming_in(Progress::new(5));
    scenario.frames(b"A\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x00226");
    assert_eq!(scenario.said()[2], "451 given up by the client");
}

#[test]
fn a_refused_stream_is_passed_over_from_the_middle_of_a_frame_without_a_second_line() {
    for last in [ABORT.to_vec(), end_frame(&[0; 1000])] {
        let mut scenario = Scenario::to_discarding();
        let mut rest = data_frame(0, &[0; 1000])[100..].to_vec();
        rest.extend(segment_frame(&[0; 1000], 0));
        rest.extend(last);
        let length = rest.len();
        rest.extend_from_slice(b"noop\n");
        assert_eq!(scenario.session.handle_discarded(&rest, scenario.now), length);
        assert_eq!(scenario.said(), [""; 0]);
        assert_eq!(scenario.line("noop").said(), ["200"]);
    }
}

#[test]
fn a_refusal_behind_the_end_has_nothing_to_pass_over() {
    let source = noise(1000);
    let mut scenario = Scenario::to_streaming_in(Progress::new(1000));
    // The whole round was parsed in one chunk when its data could not be written.
    let stream = whole_stream(&source);
    let incoming = scenario.session.incoming().unwrap();
    incoming.parse(&stream, &mut Vec::new(), &mut Vec::new()).unwrap();
    scenario.session.handle_write_failed(Reply::new(Code::NoSpace), scenario.now);
    assert_eq!(scenario.said(), ["report Put", "release mark", "452"]);
    assert_eq!(scenario.line("noop").said(), ["200"]);
}

#[test]
fn a_failed_checkpoint_beside_the_stream_refuses_it_and_drops_the_mark() {
    let size = 9 << 20;
    let mut scenario = Scenario::to_streaming_in(Progress::new(size));
    let bytes = vec![0; 4 << 20];
    scenario.frames(&data_frame(0, &bytes)).frames(&data_frame(4 << 20, &bytes));
    assert_eq!(scenario.said(), ["start Checkpoint"]);
    scenario.done(Outcome::Failed(Reply::new(Code::Failed)));
    assert_eq!(scenario.said(), ["report Put", "release", "451"]);
    assert_eq!(scenario.session.wants(), Wants::Discard);
}

#[test]
fn a_checkpoint_is_due_after_a_while_and_only_one_runs() {
    let bytes = vec![0; 32_768];
    let mut scenario = Scenario::to_streaming_in(Progress::new(1 << 20));
    scenario.frames(&data_frame(0, &bytes));
    assert_eq!(scenario.said(), [""; 0]);
    scenario.now += Duration::from_secs(1);
    scenario.frames(&data_frame(32_768, &bytes));
    assert_eq!(scenario.said(), ["start Checkpoint"]);
    scenario.now += Duration::from_secs(5);
    scenario.frames(&data_frame(2 * 32_768, &bytes));
    assert_eq!(scenario.said(), [""; 0]);
    scenario.done(Outcome::Checkpointed).frames(&data_frame(3 * 32_768, &bytes));
    assert_eq!(scenario.said(), ["start Checkpoint"]);
}

#[test]
fn what_came_since_a_checkpoint_began_is_ahead_of_the_disk_until_that_is_done() {
    let bytes = vec![0; 32_768];
    let mut scenario = Scenario::to_streaming_in(Progress::new(1 << 20));
    scenario.frames(&data_frame(0, &bytes));
    assert_eq!(scenario.session.ahead_of_disk_bytes(), 0, "no checkpoint runs");
    scenario.now += Duration::from_secs(1);
    scenario.frames(&data_frame(32_768, &bytes));
    assert_eq!(scenario.said(), ["start Checkpoint"]);
    assert_eq!(scenario.session.ahead_of_disk_bytes(), 0);
    scenario.frames(&data_frame(2 * 32_768, &bytes)).frames(&data_frame(3 * 32_768, &bytes));
    assert_eq!(scenario.session.ahead_of_disk_bytes(), 2 * 32_768);
    scenario.done(Outcome::Checkpointed);
    assert_eq!(scenario.session.ahead_of_disk_bytes(), 0);
}

#[test]
fn the_deadline_of_a_refused_stream_is_not_renewed_by_what_comes() {
    let mut scenario = Scenario::to_discarding();
    for _ in 0..59 {
        scenario.now += Duration::from_secs(1);
        scenario.session.handle_discarded(&[0; 10], scenario.now);
        scenario.session.handle_moved(scenario.now);
    }
    assert_eq!(scenario.after(Duration::from_secs(1)).said(), ["close"]);
}

#[test]
fn only_the_time_that_the_server_holds_a_stream_up_is_no_stall() {
    let mut scenario = Scenario::to_streaming_in(Progress::new(1000));
    for _ in 0..5 {
        scenario.now += STALL;
        scenario.session.handle_held_up(STALL, scenario.now);
        scenario.after(Duration::from_secs(10));
    }
    assert_eq!(scenario.said(), [""; 0]);
    // More than was waited is not to be had.
    let (now, deadline) = (scenario.now, scenario.session.deadline());
    assert_eq!(deadline, now + STALL - Duration::from_secs(50));
    scenario.session.handle_held_up(STALL, now);
    assert_eq!(scenario.session.deadline(), now + STALL);
    scenario.after(STALL);
    assert!(scenario.session.is_closed());
}

#[test]
fn a_byte_now_and_then_buys_a_sender_no_time_but_64_kib_do() {
    let mut scenario = Scenario::to_streaming_in(Progress::new(1 << 20));
    let stream = data_frame(0, &[0; 1 << 20]);
    scenario.frames(&stream[..16 + 65_535]);
    scenario.now += Duration::from_secs(30);
    assert!(scenario.session.deadline() < scenario.now + STALL);
    scenario.frames(&stream[16 + 65_535..16 + 65_536]);
    assert_eq!(scenario.session.deadline(), scenario.now + STALL);
    for byte in 0..40 {
        scenario.now += Duration::from_secs(1);
        scenario.frames(&stream[16 + 65_536 + byte..][..1]);
    }
    scenario.after(STALL - Duration::from_secs(40));
    assert_eq!(scenario.said().last().unwrap(), "close");
}

#[test]
fn a_sender_that_only_owes_digests_may_read_its_file_first() {
    let source = noise(70_000);
    let mut scenario = Scenario::to_streaming_in(progress_of(&source, 3));
    assert_eq!(scenario.after(STALL).said(), [""; 0]);
    assert!(scenario.after(IDLE).said().contains(&"close".to_owned()));
}

#[test]
fn hashing_at_the_end_of_a_get_does_not_cost_the_client_its_time() {
    let size = 8 * SEGMENT_BYTES;
    let mut scenario = Scenario::to_await_offset_get(size);
    scenario.line(&format!("000 offset={size}"));
    scenario.said();
    for _ in 0..8 {
        for _ in 0..2 {
            scenario.send_step(1 << 20);
        }
        scenario.after(STALL - Duration::from_secs(1));
    }
    assert_eq!(scenario.said(), [""; 0]);
}

#[test]
fn a_client_that_takes_nothing_is_not_held_by_our_hashing() {
    let size = 8 * SEGMENT_BYTES;
    let mut scenario = Scenario::to_await_offset_get(size);
    scenario.line(&format!("000 offset={}", 7 * SEGMENT_BYTES));
    scenario.said();
    for _ in 0..6 {
        scenario.now += Duration::from_secs(10);
        let outgoing = scenario.session.outgoing().unwrap();
        let read = outgoing.next_to_check().unwrap();
        outgoing.read_to_check(read, 0..read.length, &mut Vec::new());
        scenario.session.handle_moved(scenario.now);
    }
    // Within a stream to the client there is no place for a line.
    assert_eq!(scenario.after(Duration::ZERO).said(), ["report Get", "release", "close"]);
}

#[test]
fn a_client_that_gives_up_gets_an_abort_between_two_frames() {
    let mut scenario = Scenario::to_streaming_out(1 << 20);
    let outgoing = scenario.session.outgoing().unwrap();
    let read = outgoing.next_to_send().unwrap();
    outgoing.read_to_send(read, 0..100, &mut Vec::new());
    outgoing.data_header(100);
    outgoing.sent(40);
    scenario.line("451 enough");
    assert_eq!(scenario.session.poll_abort(scenario.now), None);
    scenario.session.outgoing().unwrap().sent(60);
    let abort = scenario.session.poll_abort(scenario.now).unwrap();
    assert_eq!(abort.to_string(), "451 given up by the client");
    assert_eq!(scenario.said(), ["report Get", "release"]);
    assert_eq!(scenario.line("noop").said(), ["200"]);
}

#[test]
fn a_client_that_gave_up_owes_no_verdict_on_an_end_that_was_sent_before() {
    let mut scenario = Scenario::to_streaming_out(0);
    scenario.line("451 enough");
    scenario.send_all();
    assert_eq!(scenario.said(), ["report Get", "release"]);
    assert_eq!(scenario.line("noop").said(), ["200"]);
}

#[test]
fn a_source_that_fails_within_a_frame_cuts_the_line_without_a_word() {
    let mut scenario = Scenario::to_streaming_out(1 << 20);
    let outgoing = scenario.session.outgoing().unwrap();
    let read = outgoing.next_to_send().unwrap();
    outgoing.read_to_send(read, 0..100, &mut Vec::new());
    outgoing.data_header(100);
    scenario.session.handle_source_failed(Reply::new(Code::Failed), scenario.now);
    assert_eq!(scenario.said(), ["report Get", "release", "close"]);
}

#[test]
fn a_command_within_a_stream_ends_it_and_lets_go() {
    let mut scenario = Scenario::to_streaming_out(LEAF_BYTES);
    scenario.line("noop");
    assert_eq!(scenario.said(), ["report Get", "release", "close"]);
}

/// Sizes and places of the pieces that a stream comes in, if each step reads as much as is wanted.
fn pieces_of(stream: &[u8], size: u64, most: usize) -> Vec<(u64, usize)> {
    let mut incoming = Incoming::new(Progress::new(size), DigestChoice::Tree);
    let (mut at, mut all) = (0, Vec::new());
    while at < stream.len() {
        let (wanted, skew) = (incoming.next_read_bytes(most), incoming.skew());
        assert!(wanted > 0 && wanted <= most + 48, "{wanted}");
        let input = &stream[at..(at + wanted).min(stream.len())];
        at += input.len();
        let (mut pieces, mut jobs) = (Vec::new(), Vec::new());
        assert_eq!(incoming.parse(input, &mut pieces, &mut jobs), Ok(input.len()));
        run_jobs(&Engine::scalar(), &mut jobs, input);
        incoming.hashed(jobs.into_iter());
        for piece in pieces {
            match piece {
                Piece::Data { offset, range } => {
                    // A block of the file is a line of the buffer.
                    assert_eq!((skew + range.start) as u64 % 64, offset % 64, "at {offset}");
                    all.push((offset, range.len()));
                }
                Piece::Frame(frame) => drop(incoming.settle(frame).unwrap()),
            }
        }
    }
    all
}

#[test]
fn a_step_takes_whole_leaves_whatever_stands_between_them() {
    const CHUNK: usize = 1 << 20;
    let source = noise(2 * at(SEGMENT_BYTES) + 100_000);
    let size = source.len() as u64;
    for frame in [at(SEGMENT_BYTES), CHUNK] {
        let mut stream = Vec::new();
        for (n, segment) in (0..).zip(source.chunks(at(SEGMENT_BYTES))) {
            for (m, piece) in (0..).zip(segment.chunks(frame)) {
                stream.extend(data_frame(n * SEGMENT_BYTES + m * frame as u64, piece));
            }
            stream.extend(segment_frame(&source, n));
        }
        let chunks = (0..8).map(|n| (n * CHUNK as u64, CHUNK));
        let chunks: Vec<_> = chunks.chain([(8 * CHUNK as u64, 100_000)]).collect();
        assert_eq!(pieces_of(&stream, size, CHUNK), chunks);
    }
    // Small steps go on, and small frames come together.
    let stream = data_frame(0, &source[..at(LEAF_BYTES)]);
    assert_eq!(pieces_of(&stream, size, 4096).len(), 8);
    let small: Vec<u8> = (0..4096).flat_map(|n| data_frame(n, &source[at(n)..at(n) + 1])).collect();
    let mut incoming = Incoming::new(Progress::new(size), DigestChoice::Tree);
    let taken = incoming.parse(&small[..20 * 17 + 16], &mut Vec::new(), &mut Vec::new());
    assert_eq!(taken, Ok(20 * 17 + 16));
    assert!(incoming.next_read_bytes(CHUNK) > CHUNK / 2);
}
