//! AwaitDigest.

use super::{
    driver::{at, data_frame, hash},
    scenario::{
        ANSWER, Scenario, end_frame, opened, progress_of, put_line, root_of, segment_frame,
    },
};
use crate::{
    digest::{Md5Digest, SEGMENT_BYTES},
    limits::WORKING_INTERVAL,
    progress::Progress,
    session::{Job, JobId, Outcome, Wants},
    wire::{Code, Frame, Reply, frame_bytes},
};

#[test]
fn only_a_commit_makes_a_file_identical() {
    for outcome in [
        Outcome::Checkpointed,
        Outcome::Answer(vec![Reply::new(Code::Identical)]),
        Outcome::CommittedBefore { root: Md5Digest::of(b""), md5: None },
        opened(5),
        Outcome::Failed(Reply::new(Code::Failed)),
    ] {
        let mut scenario = Scenario::to_committing();
        scenario.done(outcome);
        let said = scenario.said();
        assert_eq!(said[..2], ["report Put", "release"]);
        assert!(said[2].starts_with("451") && said.len() == 3, "{said:?}");
    }
    let mut scenario = Scenario::to_committing();
    scenario.outcome(JobId(99), Outcome::Committed);
    assert_eq!(scenario.said(), [""; 0]);
    scenario.done(Outcome::Committed);
    let identical = format!("226 root={}", root_of(b"hello"));
    assert_eq!(scenario.said(), ["report Put", "release", &identical]);
}

#[test]
fn a_client_that_waits_for_the_commit_hears_of_it() {
    let mut scenario = Scenario::to_committing();
    assert_eq!(scenario.after(WORKING_INTERVAL).said(), ["100 still working"]);
    assert_eq!(scenario.session.wants(), Wants::Nothing);
}

#[test]
fn nothing_is_committed_while_a_checkpoint_may_fail() {
    let size = 8 << 20;
    let source = vec![0; size];
    let stream_to_the_end = || {
        let mut scenario = Scenario::to_streaming_in(Progress::new(size as u64));
        for segment in 0..2 {
            let start = segment * SEGMENT_BYTES;
            scenario.frames(&data_frame(start, &source[at(start)..][..4 << 20]));
        }
        for segment in 0..2 {
            scenario.frames(&segment_frame(&source, segment));
        }
        scenario.frames(&end_frame(&source));
        assert_eq!(scenario.said(), ["start Checkpoint"]);
        scenario
    };
    assert_eq!(stream_to_the_end().done(Outcome::Checkpointed).said(), ["start Commit"]);
    let mut scenario = stream_to_the_end();
    scenario.done(Outcome::Failed(Reply::new(Code::Failed)));
    assert_eq!(scenario.said(), ["report Put", "release", "451"]);
    assert_eq!(scenario.line("noop").said(), ["200"]);
}

fn with_md5(source: &[u8], leaves: u64, md5: Md5Digest) -> Scenario {
    let mut scenario = Scenario::new();
    scenario.line(&put_line(source.len() as u64, " digest=md5"));
    let progress = progress_of(source, leaves);
    let frontier = progress.frontier();
    let tag = Some("t".parse().unwrap());
    scenario.done(Outcome::PartialOpened { progress, tag });
    scenario.line(&format!("426 offset={frontier}"));
    scenario.frames(&data_frame(frontier, &source[at(frontier)..]));
    scenario.frames(&segment_frame(source, 0));
    let (size, root) = (source.len() as u64, root_of(source));
    scenario.frames(&frame_bytes(&Frame::End { size, root, md5: Some(md5) }));
    scenario
}

#[test]
fn an_md5_that_followed_the_data_reads_nothing_again() {
    let source = vec![7; 100_000];
    let mut scenario = with_md5(&source, 0, Md5Digest::of(&source));
    assert_eq!(scenario.said().last().unwrap(), "start Commit");
    let md5 = Some(Md5Digest::of(&source));
    assert!(matches!(scenario.jobs[0].1, Job::Commit { md5: told, .. } if told == md5));
}

#[test]
fn an_md5_that_missed_the_start_reads_it_before_the_commit() {
    let source = vec![7; 100_000];
    let mut scenario = with_md5(&source, 1, Md5Digest::of(&source));
    assert_eq!(scenario.session.hashing(), Some((0, 100_000)));
    scenario.said();
    hash(&mut scenario.session, &source[..60_000], scenario.now);
    assert_eq!(scenario.session.hashing(), Some((60_000, 40_000)));
    hash(&mut scenario.session, &source[60_000..], scenario.now);
    assert_eq!(scenario.said(), ["start Commit"]);
}

#[test]
fn another_md5_is_told_in_step_and_nothing_is_committed() {
    let source = vec![7; 100_000];
    let mut scenario = with_md5(&source, 0, Md5Digest::of(b"another"));
    let said = scenario.said();
    assert_eq!(said[said.len() - 3..said.len() - 1], ["report Put", "release mark"]);
    assert_eq!(said.last().unwrap(), "409 the MD5 of the whole file differs");
    assert_eq!(scenario.line("noop").said(), ["200"]);
}

#[test]
fn a_partial_that_can_not_be_read_back_is_not_committed() {
    let source = vec![7; 100_000];
    let mut scenario = with_md5(&source, 1, Md5Digest::of(&source));
    scenario.said();
    scenario.session.handle_source_failed(Reply::new(Code::Failed), scenario.now);
    assert_eq!(scenario.said(), ["report Put", "release mark", "451"]);
}

#[test]
fn a_verdict_ends_a_get() {
    for (line, learned) in [("226", true), ("409 differs", false), ("451 no space", false)] {
        let mut scenario = Scenario::to_await_verdict(70_000);
        let mut said = scenario.line(line).said();
        // What was hashed need not be hashed again, once somebody else has come to the same.
        assert_eq!(said[0] == "remember", learned, "{line}");
        assert_eq!(said.split_off(usize::from(learned)), ["report Get", "release"], "{line}");
        assert_eq!(scenario.line("noop").said(), ["200"]);
    }
}

#[test]
fn what_the_client_wants_again_is_sent_again_and_nothing_else() {
    let mut scenario = Scenario::to_await_verdict(3 * SEGMENT_BYTES);
    scenario.line("409 want=1");
    assert_eq!(scenario.said(), [""; 0]);
    let outgoing = scenario.session.outgoing().unwrap();
    assert_eq!(outgoing.left_bytes(), SEGMENT_BYTES);
    assert_eq!(outgoing.next_to_send().unwrap().offset, SEGMENT_BYTES);
    scenario.send_all();
    assert_eq!(scenario.line("226").said(), ["remember", "report Get", "release"]);
}

#[test]
fn wanting_what_is_not_there_ends_the_connection() {
    for line in ["409 want=1", "409 want=", "409 want=0-2199023255551", "200", "hello"] {
        let mut scenario = Scenario::to_await_verdict(70_000);
        let said = scenario.line(line).said();
        assert_eq!(said[..2], ["report Get", "release"], "{line}");
        assert_eq!(said[3], "close", "{line}");
    }
}

#[test]
fn whoever_owes_the_verdict_too_long_is_let_go_of() {
    let said = Scenario::to_await_verdict(5).after(ANSWER).said();
    assert_eq!(said, ["report Get", "release", "408 you took too long", "close"]);
}
