//! AwaitOffset.

use super::{
    driver::data_frame,
    scenario::{ANSWER, Scenario, end_frame, progress_of, put_line},
};
use crate::{
    digest::{LEAF_BYTES, Md5Digest, SEGMENT_BYTES},
    limits::FILE_BYTES_MAX,
    progress::Progress,
    session::{Outcome, Wants},
};

#[test]
fn a_get_goes_on_from_any_leaf_or_from_the_size() {
    let size = SEGMENT_BYTES + LEAF_BYTES + 5;
    for (offset, code) in [
        (0, "426"),
        (LEAF_BYTES, "426"),
        (SEGMENT_BYTES, "426"),
        (size - 5, "426"),
        (size, "312"),
        (1, "400"),
        (size - 1, "400"),
        (size + 1, "416"),
        (FILE_BYTES_MAX, "416"),
    ] {
        let mut scenario = Scenario::to_await_offset_get(size);
        scenario.line(&format!("000 offset={offset}"));
        let said = scenario.said();
        assert!(said.last().unwrap().starts_with(code), "{offset}: {said:?}");
        // Whatever it was, the connection is in step.
        assert_eq!(scenario.session.wants(), Wants::Lines);
    }
}

#[test]
fn bad_segments_must_lie_in_what_the_receiver_has() {
    let size = 3 * SEGMENT_BYTES + 5;
    for (offset, bad, code) in [
        (size, "3", "426"),
        (size, "0-3", "426"),
        (size, "4", "400"),
        (2 * SEGMENT_BYTES + LEAF_BYTES, "0-1", "426"),
        (2 * SEGMENT_BYTES + LEAF_BYTES, "2", "400"),
        (0, "0", "400"),
        (size, "2199023255551", "400"),
        (size, "1,0", "400"),
        (size, "", "400"),
    ] {
        let mut scenario = Scenario::to_await_offset_get(size);
        scenario.line(&format!("000 offset={offset} bad={bad}"));
        let said = scenario.said();
        assert!(said.last().unwrap().starts_with(code), "{offset} {bad}: {said:?}");
    }
}

#[test]
fn the_largest_sparse_file_costs_no_memory_until_it_is_sent() {
    let mut scenario = Scenario::to_await_offset_get(FILE_BYTES_MAX);
    scenario.line(&format!("000 offset={FILE_BYTES_MAX} bad=0,2199023255551"));
    assert!(scenario.said()[0].starts_with("426 "));
    assert!(scenario.session.outgoing().unwrap().next_to_check().is_some());
    scenario.session.handle_moved(scenario.now);
}

#[test]
fn an_empty_file_has_an_end_to_be_sent() {
    let mut scenario = Scenario::to_await_offset_get(0);
    scenario.line("000 offset=0");
    assert_eq!(scenario.said(), ["426 offset=0 length=0"]);
}

#[test]
fn a_wrong_offset_of_a_put_is_refused_once_and_its_frames_are_passed_over() {
    let source = vec![0; 3 * 32_768];
    for (line, code) in [("426 offset=32768", "400"), ("426", "400"), ("312", "416")] {
        let mut scenario = Scenario::to_await_offset_put(progress_of(&source, 2));
        scenario.line(line);
        let said = scenario.said();
        assert_eq!((said.len(), &said[0][..], &said[1][..3]), (2, "release", code), "{line}");
        let mut stream = data_frame(0, b"whatever");
        stream.extend(end_frame(&source));
        let length = stream.len();
        stream.extend_from_slice(b"noop\n");
        assert_eq!(scenario.session.handle_discarded(&stream, scenario.now), length);
        assert_eq!(scenario.line("noop").said(), ["200"]);
    }
}

#[test]
fn to_start_over_forgets_what_was_there_and_asks_once_more() {
    let mut scenario = Scenario::to_await_offset_put(progress_of(&[0; 200_000], 2));
    scenario.line("402");
    assert_eq!(scenario.said(), ["release", "start OpenPartial"]);
    let progress = Progress::new(200_000);
    scenario.done(Outcome::PartialOpened { progress, tag: None });
    assert_eq!(scenario.said(), ["402"]);
}

#[test]
fn what_was_committed_before_is_agreed_upon_without_a_stream() {
    let root = Md5Digest::of(b"root");
    let mut scenario = Scenario::new();
    scenario.line(&put_line(5, "")).done(Outcome::CommittedBefore { root, md5: None });
    scenario.said();
    scenario.line("226");
    assert_eq!(scenario.said(), ["report Put", "release", &format!("226 root={root}")]);
}

#[test]
fn bad_segments_and_tag_are_told_with_the_offset() {
    let mut progress = progress_of(&vec![0; 9 << 20], 260);
    progress.spoil(1);
    let mut scenario = Scenario::new();
    scenario.line(&put_line(9 << 20, ""));
    let tag = Some("t".parse().unwrap());
    scenario.done(Outcome::PartialOpened { progress, tag });
    assert_eq!(scenario.said()[1], "000 offset=8519680 tag=t bad=1");
}

#[test]
fn whoever_owes_the_offset_too_long_is_let_go_of() {
    let mut scenario = Scenario::to_await_offset_put(Progress::new(5));
    scenario.after(ANSWER);
    assert_eq!(scenario.said(), ["release", "408 you took too long", "close"]);
}

#[test]
fn whoever_answers_nonsense_is_let_go_of() {
    for line in ["hello", "226", "\u{1b}", "203"] {
        let mut scenario = Scenario::to_await_offset_get(5);
        scenario.line(line);
        let said = scenario.said();
        assert_eq!((&said[0][..], &said[1][..4], &said[2][..]), ("release", "503 ", "close"));
    }
}
