//! Puts ahead of their answers: what is answered, in which order, and what is held meanwhile.

use super::{
    driver::data_frame,
    scenario::{STALL, Scenario, end_frame, put_line, root_of, whole_stream},
};
use crate::{
    auth::Rights,
    digest::Engine,
    limits::{
        HELD_BYTES_MAX, HELD_BYTES_SERVER_MAX, HELD_FILE_BYTES_MAX, HELD_FILES_MAX, IDLE_DEADLINE,
        LOGIN_TRIES_MAX, WORKING_INTERVAL,
    },
    progress::Progress,
    session::{Job, Outcome, Stored, Wants},
    wire::{Code, Frame, Reply, frame_bytes},
};

/// A put that is sent as a whole.
fn put(source: &[u8]) -> Vec<u8> {
    let line = put_line(source.len() as u64, " ahead=1");
    [line.as_bytes(), b"\n", &whole_stream(source)].concat()
}

/// Does what a reactor does with what has come in; returns what the session does not take yet.
fn feed<'a>(scenario: &mut Scenario, mut input: &'a [u8]) -> &'a [u8] {
    let engine = Engine::new();
    while !input.is_empty() {
        let (session, now) = (&mut scenario.session, scenario.now);
        let taken = match session.wants() {
            Wants::Ahead => session.handle_ahead(&engine, input, now),
            Wants::Discard => session.handle_discarded(input, now),
            Wants::Lines => {
                let Some(end) = input.iter().position(|&byte| byte == b'\n') else { break };
                if !session.takes_line(&input[..end]) {
                    break;
                }
                session.handle_line(&input[..end], now);
                end + 1
            }
            Wants::Frames | Wants::Nothing => break,
        };
        input = &input[taken..];
        scenario.act();
    }
    input
}

fn dry(scenario: &mut Scenario) -> Vec<String> {
    scenario.session.handle_dry(scenario.now);
    scenario.said()
}

fn stored(stored: &[Stored]) -> Outcome {
    Outcome::StoredTogether(stored.to_vec())
}

/// What lies in files, and would do harm as commands.
const HARM: &[u8] = b"\nrm /f\nquit\nput\n";

#[test]
fn files_are_stored_together_and_answered_in_the_order_of_their_commands() {
    let mut scenario = Scenario::new();
    let (first, second) = (b"first".as_slice(), b"".as_slice());
    let refused = String::from_utf8(put(HARM)).unwrap_or_default();
    assert!(refused.is_empty(), "frames are no text");
    let mut refused = put(HARM);
    refused.splice(4..6, *b"/../f");
    let input = [put(first), refused, put(second), put(HARM)].concat();
    assert_eq!(feed(&mut scenario, &input), b"");
    assert_eq!(scenario.said(), [""; 0]);
    assert_eq!(dry(&mut scenario), ["start StoreTogether"]);
    let Job::StoreTogether(files) = &scenario.jobs[0].1 else { panic!("another job") };
    let contents: Vec<&[u8]> = files.iter().map(|file| &*file.content).collect();
    assert_eq!(contents, [first, second, HARM]);
    let full = Reply::text(Code::NoSpace, "full");
    scenario.done(stored(&[Stored::Visible, Stored::Failed(full), Stored::Before]));
    let said = scenario.said();
    assert_eq!(said[..2], ["report Put".to_owned(), format!("226 root={}", root_of(first))]);
    assert!(said[2].starts_with("403 "), "{}", said[2]);
    assert_eq!(said[3..5], ["report Put", "452 full"]);
    assert_eq!(said[5..], ["report Put".to_owned(), format!("312 root={}", root_of(HARM))]);
    assert_eq!(scenario.session.wants(), Wants::Lines);
}

#[test]
fn frames_of_a_refused_put_are_never_read_as_commands() {
    let line = put_line(HARM.len() as u64, " ahead=1");
    let big = put_line(1 << 40, " ahead=1");
    for (rights, line, code) in [
        (Rights::ALL, line.replace("/f", "/../f"), "403"),
        (Rights::ALL, line.replace("/f", "/.tow"), "403"),
        (Rights::ALL, line.replace("put", "pot"), "404"),
        (Rights::ALL, format!("sun=00000000 {line}"), "404"),
        (Rights::ALL, line.replace("tag=t", ""), "400"),
        (Rights::ALL, line.replace("/f", "/f /g /h"), "400"),
        (Rights::ALL, "get /f ahead=1".to_owned(), "400"),
        (Rights::READ, line.clone(), "406"),
        (Rights::READ, big, "406"),
    ] {
        let mut scenario = Scenario::user(rights);
        let input = [line.as_bytes(), b"\n", &whole_stream(HARM), b"noop\n"].concat();
        assert_eq!(feed(&mut scenario, &input), b"", "{line}");
        let said = scenario.said();
        assert!(said.len() == 2 && said[0].starts_with(code) && said[1] == "200", "{said:?}");
        // Neither are they where the line stands behind a file that waits.
        assert_eq!(feed(&mut scenario, &input), b"");
        scenario.said();
    }
}

#[test]
fn before_a_login_the_frames_are_passed_over_as_well() {
    let mut scenario = Scenario::nobody();
    for _ in 1..LOGIN_TRIES_MAX {
        assert_eq!(feed(&mut scenario, &put(HARM)), b"");
        assert_eq!(scenario.said(), ["530 log in first"]);
    }
    feed(&mut scenario, &put(HARM));
    assert_eq!(scenario.said(), ["530 log in first", "close"]);
}

#[test]
fn behind_a_line_that_was_spoiled_nothing_is_read() {
    for waiting in [0, 2] {
        let mut scenario = Scenario::new();
        for _ in 0..waiting {
            feed(&mut scenario, &put(b"x"));
        }
        let line = format!("sum=00000000 {}", put_line(1, " ahead=1"));
        let input = [line.as_bytes(), b"\n", &whole_stream(b"x")].concat();
        assert!(!feed(&mut scenario, &input).is_empty());
        let mut said = scenario.said();
        if waiting > 0 {
            assert_eq!(said, ["start StoreTogether"]);
            scenario.done(stored(&[Stored::Visible, Stored::Visible]));
            said = scenario.said().split_off(4);
        }
        assert_eq!(said, ["400 the line was spoiled on the way", "close"]);
        assert!(scenario.session.is_closed());
    }
}

#[test]
fn however_the_line_splits_them_the_answers_are_the_same() {
    let spoiled = {
        let mut stream = put(b"spoiled");
        let at = stream.windows(7).position(|it| it == b"spoiled").unwrap();
        stream[at] ^= 1;
        stream
    };
    let aborted = [
        put_line(9, " ahead=1").as_bytes(),
        b"\n",
        &data_frame(0, b"four"),
        &frame_bytes(&Frame::Abort(Reply::text(Code::Changed, "it changed"))),
    ]
    .concat();
    let wrong_end =
        [put_line(9, " ahead=1").as_bytes(), b"\n", &end_frame(b"another size")].concat();
    let whole = [put(b"a"), spoiled, aborted, wrong_end, put(b"bc"), b"noop\n".to_vec()].concat();
    // The disk is done with a group when so many chunks more have come, or no more do.
    let run = |step: usize, always_dry: bool, lag: usize| {
        let (mut scenario, mut said, mut waiting) = (Scenario::new(), Vec::new(), Vec::new());
        let (mut chunks, mut chunks_since) = (whole.chunks(step), 0);
        loop {
            let chunk = chunks.next();
            waiting.extend_from_slice(chunk.unwrap_or_default());
            waiting = feed(&mut scenario, &waiting).to_vec();
            said.extend(scenario.said());
            if always_dry || chunk.is_none() {
                said.extend(dry(&mut scenario));
            }
            chunks_since += 1;
            let Some((_, Job::StoreTogether(files))) = scenario.jobs.first() else {
                chunks_since = 0;
                if chunk.is_none() && waiting.is_empty() {
                    break;
                }
                continue;
            };
            if chunk.is_none() || chunks_since > lag {
                scenario.done(stored(&vec![Stored::Visible; files.len()]));
                said.extend(scenario.said());
            }
        }
        said.retain(|it| !it.starts_with("report") && it != "start StoreTogether");
        said
    };
    let expected = run(whole.len(), false, 0);
    let codes: Vec<&str> = expected.iter().map(|it| &it[..3]).collect();
    assert_eq!(codes, ["226", "409", "410", "400", "226", "200"]);
    assert!(expected.iter().all(|it| !it.contains("want=")), "{expected:?}");
    for step in 1..whole.len() {
        for (always_dry, lag) in [(false, 0), (true, 0), (true, 1), (true, 7), (true, 1000)] {
            assert_eq!(run(step, always_dry, lag), expected, "step {step}, lag {lag}");
        }
    }
}

#[test]
fn a_command_waits_until_the_files_before_it_are_stored() {
    let mut scenario = Scenario::new();
    let input = [put(b"x"), b"rm /f\n".to_vec()].concat();
    assert_eq!(feed(&mut scenario, &input), b"rm /f\n");
    assert_eq!(dry(&mut scenario), ["start StoreTogether"]);
    assert_eq!(feed(&mut scenario, b"rm /f\n"), b"rm /f\n");
    scenario.done(stored(&[Stored::Visible]));
    assert_eq!(feed(&mut scenario, b"rm /f\n"), b"");
    assert_eq!(scenario.said().last().unwrap(), "start Remove");
}

#[test]
fn while_files_are_stored_the_next_come_in_and_are_answered_behind_them() {
    let mut scenario = Scenario::new();
    feed(&mut scenario, &put(b"first"));
    assert_eq!(dry(&mut scenario), ["start StoreTogether"]);
    let refused = format!("{}\n", put_line(1, " ahead=1").replace("/f", "/../f"));
    let input = [put(b"second"), refused.into_bytes(), whole_stream(b"x")].concat();
    assert_eq!(feed(&mut scenario, &input), b"");
    // One job at a time.
    assert_eq!(dry(&mut scenario), [""; 0]);
    scenario.done(stored(&[Stored::Visible]));
    assert_eq!(scenario.said()[1..], [format!("226 root={}", root_of(b"first"))]);
    assert_eq!(dry(&mut scenario), ["start StoreTogether"]);
    scenario.done(stored(&[Stored::Visible]));
    let said = scenario.said();
    assert_eq!(said[1], format!("226 root={}", root_of(b"second")));
    assert!(said.len() == 3 && said[2].starts_with("403 "), "{said:?}");
    assert!(!scenario.session.holds_answers());
}

#[test]
fn behind_answers_alone_nothing_waits_for_the_disk() {
    let mut scenario = Scenario::new();
    feed(&mut scenario, &put(b"x"));
    dry(&mut scenario);
    let refused = put_line(1, " ahead=1").replace("/f", "/../f");
    let input = [refused.as_bytes(), b"\n", &whole_stream(b"x"), b"noop\n"].concat();
    assert_eq!(feed(&mut scenario, &input), b"noop\n");
    scenario.done(stored(&[Stored::Visible]));
    assert_eq!(scenario.said().len(), 2);
    assert_eq!(feed(&mut scenario, b"noop\n"), b"noop\n");
    let said = dry(&mut scenario);
    assert!(said.len() == 1 && said[0].starts_with("403 "), "{said:?}");
    assert_eq!(feed(&mut scenario, b"noop\n"), b"");
    assert_eq!(scenario.said(), ["200"]);
}

#[test]
fn beside_a_group_that_is_stored_there_is_one_more_and_no_third() {
    let (mut scenario, one) = (Scenario::new(), put(b"x"));
    let fill = |scenario: &mut Scenario| {
        let mut files = 0;
        while feed(scenario, &one).is_empty() {
            files += 1;
            assert!(files <= HELD_FILES_MAX);
        }
        assert_eq!(files, HELD_FILES_MAX);
    };
    fill(&mut scenario);
    assert_eq!(dry(&mut scenario), ["start StoreTogether"]);
    fill(&mut scenario);
    assert_eq!(dry(&mut scenario), [""; 0]);
    scenario.done(stored(&vec![Stored::Visible; HELD_FILES_MAX]));
    assert_eq!(scenario.said().len(), 2 * HELD_FILES_MAX);
    assert_eq!(dry(&mut scenario), ["start StoreTogether"]);
}

#[test]
fn where_memory_is_short_the_next_group_waits_until_the_one_before_is_stored() {
    let mut scenario = Scenario::new();
    let _others = scenario.session.memory.claim(HELD_BYTES_SERVER_MAX / 2).unwrap();
    let (first, second) = (put(b"first"), put(b"second"));
    feed(&mut scenario, &first);
    feed(&mut scenario, &second);
    assert_eq!(dry(&mut scenario), ["start StoreTogether"]);
    assert_eq!(feed(&mut scenario, &first), first);
    scenario.done(stored(&[Stored::Visible, Stored::Visible]));
    assert_eq!(feed(&mut scenario, &first), b"");
}

#[test]
fn a_client_that_waits_for_the_disk_is_told_so_and_is_not_late_thereafter() {
    let mut scenario = Scenario::new();
    feed(&mut scenario, &put(b"first"));
    dry(&mut scenario);
    feed(&mut scenario, &put(b"second"));
    let late = scenario.now + IDLE_DEADLINE;
    while scenario.now <= late {
        assert_eq!(scenario.after(WORKING_INTERVAL).said(), ["100 still working"]);
    }
    scenario.done(stored(&[Stored::Visible]));
    assert_eq!(scenario.after(WORKING_INTERVAL).said().len(), 2);
    dry(&mut scenario);
    scenario.done(stored(&[Stored::Visible]));
    assert_eq!(scenario.said()[1], format!("226 root={}", root_of(b"second")));
    scenario.after(IDLE_DEADLINE);
    assert_eq!(scenario.said(), ["408 you took too long", "close"]);
}

#[test]
fn a_large_file_waits_for_the_small_ones_before_it_whether_they_are_stored_or_wait() {
    let mut scenario = Scenario::new();
    feed(&mut scenario, &put(b"first"));
    dry(&mut scenario);
    feed(&mut scenario, &put(b"second"));
    let large = format!("{}\n", put_line(1 << 30, " ahead=1"));
    assert_eq!(feed(&mut scenario, large.as_bytes()), b"");
    assert_eq!(scenario.session.wants(), Wants::Nothing);
    assert_eq!(dry(&mut scenario), [""; 0]);
    for said in ["start StoreTogether", "start OpenPartial"] {
        scenario.done(stored(&[Stored::Visible]));
        assert_eq!(scenario.said()[2..], [said]);
    }
}

#[test]
fn who_is_out_of_step_hears_all_answers_and_why_last() {
    let mut scenario = Scenario::new();
    feed(&mut scenario, &put(b"first"));
    dry(&mut scenario);
    feed(&mut scenario, &put(b"second"));
    feed(&mut scenario, format!("sum=00000000 {}\n", put_line(1, " ahead=1")).as_bytes());
    assert_eq!(scenario.said(), [""; 0]);
    scenario.done(stored(&[Stored::Visible]));
    assert_eq!(scenario.said()[2..], ["start StoreTogether"]);
    scenario.done(stored(&[Stored::Visible]));
    let last = ["400 the line was spoiled on the way", "close"];
    assert_eq!(scenario.said()[2..], last);
}

#[test]
fn a_file_that_has_begun_does_not_hold_up_those_before_it() {
    let mut scenario = Scenario::new();
    let (first, second) = (put(b"first"), put(b"second"));
    feed(&mut scenario, &first);
    feed(&mut scenario, &second[..second.len() - 20]);
    assert_eq!(dry(&mut scenario), ["start StoreTogether"]);
    scenario.done(stored(&[Stored::Visible]));
    assert_eq!(scenario.said().len(), 2);
    assert_eq!(feed(&mut scenario, &second[second.len() - 20..]), b"");
    assert_eq!(dry(&mut scenario), ["start StoreTogether"]);
    scenario.done(stored(&[Stored::Visible]));
    assert_eq!(scenario.said()[1], format!("226 root={}", root_of(b"second")));
}

#[test]
fn a_file_whose_rest_does_not_come_has_a_deadline() {
    let mut scenario = Scenario::new();
    let whole = put(&[7; 1000]);
    feed(&mut scenario, &whole[..500]);
    scenario.after(STALL);
    assert_eq!(scenario.said(), ["report Put", "408 you took too long", "close"]);
    assert_eq!(scenario.session.memory.claimed_bytes(), 0);
}

#[test]
fn what_a_connection_holds_is_bounded_in_files_and_in_bytes() {
    let leaf = vec![7; HELD_FILE_BYTES_MAX];
    for source in [b"".as_slice(), b"x", &leaf] {
        let (mut scenario, one) = (Scenario::new(), put(source));
        let mut files = 0;
        while feed(&mut scenario, &one).is_empty() {
            files += 1;
            assert!(files <= HELD_FILES_MAX);
        }
        let held = scenario.session.memory.claimed_bytes();
        assert!(held <= HELD_BYTES_MAX, "{held} bytes of {files} files");
        assert!(files == HELD_FILES_MAX || held > HELD_BYTES_MAX - 2 * leaf.len());
        assert_eq!(dry(&mut scenario), ["start StoreTogether"]);
        scenario.done(stored(&vec![Stored::Visible; files]));
        scenario.said();
        assert_eq!(scenario.session.memory.claimed_bytes(), 0);
    }
}

#[test]
fn a_line_that_breaks_gives_the_memory_back_and_answers_nothing() {
    let mut scenario = Scenario::new();
    feed(&mut scenario, &put(b"one"));
    feed(&mut scenario, &put(&[7; 1000])[..500]);
    assert!(scenario.session.memory.claimed_bytes() > 1000);
    scenario.session.handle_broken("cut");
    assert_eq!(scenario.said(), ["report Put", "report Put"]);
    assert_eq!(scenario.session.memory.claimed_bytes(), 0);
    // What is being stored has its memory for so long; what came of it, nobody hears.
    let mut scenario = Scenario::new();
    feed(&mut scenario, &put(b"one"));
    dry(&mut scenario);
    feed(&mut scenario, &put(b"two"));
    scenario.session.handle_broken("cut");
    assert_eq!(scenario.said(), ["report Put", "report Put"]);
    assert!(scenario.session.memory.claimed_bytes() > 0);
    scenario.done(stored(&[Stored::Visible]));
    assert_eq!(scenario.said(), [""; 0]);
    assert_eq!(scenario.session.memory.claimed_bytes(), 0);
}

#[test]
fn where_memory_is_short_a_file_gets_a_partial_and_one_answer_all_the_same() {
    let mut scenario = Scenario::new();
    feed(&mut scenario, &put(b"first"));
    let left = HELD_BYTES_SERVER_MAX - scenario.session.memory.claimed_bytes();
    let _all = scenario.session.memory.claim(left).unwrap();
    let second = put(b"second");
    let frames = feed(&mut scenario, &second);
    assert_eq!(frames, whole_stream(b"second"));
    // The answers keep their order.
    assert_eq!(scenario.said(), ["start StoreTogether"]);
    scenario.done(stored(&[Stored::Visible]));
    assert_eq!(
        scenario.said()[1..],
        [format!("226 root={}", root_of(b"first")), "start OpenPartial".to_owned()]
    );
    scenario.done(Outcome::PartialOpened { progress: Progress::new(6), tag: None });
    assert_eq!(scenario.said(), [""; 0]);
    assert!(scenario.session.comes_ahead());
    scenario.frames(frames);
    assert_eq!(scenario.said(), ["start Commit"]);
    scenario.done(Outcome::Committed);
    assert_eq!(scenario.said().last().unwrap(), &format!("226 root={}", root_of(b"second")));
}

#[test]
fn a_large_file_ahead_that_is_refused_or_differs_is_answered_once_and_in_step() {
    let source = vec![7; 70_000];
    let refuse: fn(&mut Scenario) = |scenario| {
        scenario.done(Outcome::Failed(Reply::text(Code::Busy, "busy")));
    };
    let differ: fn(&mut Scenario) = |scenario| {
        scenario.done(Outcome::PartialOpened { progress: Progress::new(70_000), tag: None });
    };
    for (answer, code) in [(refuse, "423"), (differ, "409")] {
        let mut scenario = Scenario::new();
        let mut stream = put(&source);
        let line = stream.iter().position(|&byte| byte == b'\n').unwrap();
        stream[line + 40] ^= 1;
        let frames = feed(&mut scenario, &stream);
        assert_eq!(scenario.said(), ["start OpenPartial"]);
        answer(&mut scenario);
        if scenario.session.wants() == Wants::Frames {
            scenario.frames(frames);
        } else {
            assert_eq!(feed(&mut scenario, frames), b"");
        }
        let mut said = scenario.said();
        said.retain(|it| !it.starts_with("re"));
        assert!(said.len() == 1 && said[0].starts_with(code), "{said:?}");
        assert!(!said[0].contains("want"), "{said:?}");
        assert_eq!(scenario.session.wants(), Wants::Lines);
    }
}
