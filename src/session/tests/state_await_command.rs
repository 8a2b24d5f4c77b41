//! AwaitCommand.

use super::{
    driver::{data_frame, hash},
    scenario::{IDLE, Scenario, knowing, opened, put_line},
};
use crate::{
    digest::{FileDigests, Md5Digest},
    limits::WORKING_INTERVAL,
    progress::Progress,
    session::{JobId, Outcome, Wants},
    wire::{Code, Reply},
};

#[test]
fn lines_wait_while_a_job_does() {
    let mut scenario = Scenario::new();
    scenario.line("stat /f");
    assert_eq!(scenario.said(), ["start Stat"]);
    assert_eq!(scenario.session.wants(), Wants::Nothing);
    scenario.line("noop");
    assert_eq!(scenario.said(), [""; 0]);
    scenario.done(Outcome::Answer(vec![Reply::new(Code::Done)]));
    assert_eq!(scenario.said(), ["200"]);
    assert_eq!(scenario.session.wants(), Wants::Lines);
}

#[test]
fn an_outcome_of_another_job_answers_nothing() {
    let mut scenario = Scenario::new();
    scenario.line("stat /f");
    scenario.outcome(JobId(77), Outcome::Answer(vec![Reply::new(Code::Done)]));
    assert_eq!(scenario.said(), ["start Stat"]);
    assert_eq!(scenario.session.wants(), Wants::Nothing);
}

#[test]
fn an_outcome_of_another_kind_is_no_success() {
    let mut scenario = Scenario::new();
    scenario.line(&put_line(5, "")).done(Outcome::Committed);
    let said = scenario.said();
    assert!(said[2].starts_with("451 "), "{said:?}");
    assert_eq!(scenario.session.wants(), Wants::Lines);
}

#[test]
fn a_client_that_waits_hears_of_the_work_until_it_is_done() {
    let mut scenario = Scenario::new();
    scenario.line("stat /f").after(WORKING_INTERVAL).after(WORKING_INTERVAL);
    assert_eq!(scenario.said(), ["start Stat", "100 still working", "100 still working"]);
}

#[test]
fn an_idle_client_is_closed_at_its_deadline_and_not_before() {
    let mut scenario = Scenario::new();
    scenario.after(IDLE - std::time::Duration::from_nanos(1));
    assert_eq!(scenario.said(), [""; 0]);
    scenario.after(std::time::Duration::from_nanos(1));
    assert_eq!(scenario.said(), ["408 you took too long", "close"]);
}

#[test]
fn the_md5_of_a_file_comes_when_all_of_it_was_hashed() {
    let mut scenario = Scenario::new();
    scenario.line("md5 /f").done(opened(5));
    assert_eq!(scenario.session.hashing(), Some((0, 5)));
    hash(&mut scenario.session, b"hel", scenario.now);
    assert_eq!(scenario.session.hashing(), Some((3, 2)));
    hash(&mut scenario.session, b"lo", scenario.now);
    let answer = format!("200 md5={} size=5", Md5Digest::of(b"hello"));
    assert_eq!(scenario.said(), ["start OpenSource", "remember", "release", &answer]);
}

#[test]
fn an_md5_that_is_known_is_told_at_once() {
    let mut scenario = Scenario::new();
    let md5 = Some(Md5Digest::of(b"hello"));
    scenario.line("md5 /f").done(knowing(5, FileDigests { segments: None, md5 }));
    assert_eq!(scenario.session.hashing(), None);
    let answer = format!("200 md5={} size=5", Md5Digest::of(b"hello"));
    assert_eq!(scenario.said(), ["start OpenSource", "release", &answer]);
}

#[test]
fn the_md5_of_an_empty_file_needs_no_bytes() {
    let mut scenario = Scenario::new();
    scenario.line("md5 /f").done(opened(0));
    assert_eq!(scenario.session.hashing(), None);
    assert!(scenario.said()[3].starts_with("200 md5=d41d8cd98f00b204e9800998ecf8427e"));
}

#[test]
fn a_file_that_was_being_hashed_is_let_go_of_when_the_line_breaks() {
    let mut scenario = Scenario::new();
    scenario.line("md5 /f").done(opened(5));
    scenario.session.handle_broken("gone");
    assert_eq!(scenario.said(), ["start OpenSource", "release"]);
}

#[test]
fn what_was_opened_for_a_session_that_ended_is_let_go_of() {
    let mut scenario = Scenario::new();
    scenario.line("get /f");
    scenario.session.handle_broken("gone");
    scenario.done(opened(5));
    assert_eq!(scenario.said(), ["start OpenSource", "release"]);
}

#[test]
fn giving_up_a_stream_that_is_over_already_is_not_answered() {
    let mut scenario = Scenario::new();
    scenario.line("451 enough").line("noop");
    assert_eq!(scenario.said(), ["200"]);
}

#[test]
fn an_unknown_command_keeps_the_connection_in_step() {
    let mut scenario = Scenario::new();
    scenario.line("frob").line("get ../a").line("noop");
    let said = scenario.said();
    assert!(said[0].starts_with("404 ") && said[1].starts_with("403 "), "{said:?}");
    assert_eq!(said[2], "200");
}

#[test]
fn a_checkpoint_left_over_from_one_put_can_not_fail_the_next() {
    let size = 9 << 20;
    let mut scenario = Scenario::to_streaming_in(Progress::new(size));
    let bytes = vec![0; 4 << 20];
    for segment in 0..2 {
        scenario.frames(&data_frame(segment * (4 << 20), &bytes));
    }
    assert_eq!(scenario.said(), ["start Checkpoint"]);
    let (left_over, _) = scenario.jobs.remove(0);
    scenario.frames(b"A\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x00451");
    scenario.line(&put_line(size, ""));
    let progress = Progress::new(size);
    scenario.done(Outcome::PartialOpened { progress, tag: None }).line("426 offset=0");
    scenario.said();
    scenario.outcome(left_over, Outcome::Failed(Reply::new(Code::Failed)));
    assert_eq!(scenario.said(), [""; 0]);
    assert_eq!(scenario.session.wants(), Wants::Frames);
}
