//! Steps of connections that have a socket and a file.

use std::{fs, io::Write as _, path::Path};

use super::*;
use crate::{
    server::testing::{connected, opens, puts, said},
    store::Worker,
};

/// What a reactor has.
struct Loop {
    disk: Disk,
    engine: Engine,
    buffers: Buffers,
    cold: Cell<usize>,
    now: Instant,
}

impl Loop {
    fn new(now: Instant) -> Self {
        let disk = Worker::spawn(|| ()).unwrap();
        let (engine, buffers) = (Engine::new(), Buffers::new());
        Self { disk, engine, buffers, cold: Cell::new(0), now }
    }

    /// One step; something happens between reading and hashing. `None` if there was nothing to do.
    fn step(&mut self, connection: &mut Connection, between: impl FnOnce()) -> Option<Moved> {
        let Self { disk, engine, buffers, cold, now } = self;
        let turn = Turn { disk, now: *now, crowd: 1, chunk_bytes: SHARED_CHUNK_BYTES, cold };
        let buffer = buffers.all().next().unwrap();
        let mut load = Some(gather(turn, connection, buffer)?);
        between();
        hash(engine, std::iter::once((&mut load, &*buffer)));
        Some(apply(connection, load?, buffer, *now))
    }
}

/// What `md5` of a file answers to which something happens at each step but the first.
fn md5_while(path: &Path, mut happens: impl FnMut()) -> String {
    let now = Instant::now();
    let (mut connection, _peer) = connected(now);
    let mut reactor = Loop::new(now);
    opens(&mut connection, "md5 /f", path, now);
    let mut steps = 0;
    while has_work(&mut connection, true) {
        steps += 1;
        reactor.step(&mut connection, || (steps > 1).then(&mut happens).unwrap_or_default());
    }
    assert!(steps > 1);
    said(&mut connection).0.concat()
}

#[test]
fn md5_answers_a_digest_only_of_a_version_that_there_was() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    let bytes = vec![5; 2 * SHARED_CHUNK_BYTES + 1];
    fs::write(&file, &bytes).unwrap();
    let answer = md5_while(&file, || ());
    assert!(answer.starts_with("200 md5="), "{answer}");
    // Behind what was read already, and before.
    for at in [0, bytes.len() - 1] {
        let answer = md5_while(&file, || {
            let mut other = bytes.clone();
            other[at] ^= 1;
            fs::write(&file, &other).unwrap();
        });
        assert!(answer.starts_with("410 "), "{answer}");
    }
}

#[test]
fn what_is_only_hashed_does_not_wait_for_a_limit_on_the_rate() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    fs::write(&file, vec![5; 3 << 20]).unwrap();
    let now = Instant::now();
    let mut reactor = Loop::new(now);

    let (mut connection, _peer) = connected(now);
    opens(&mut connection, "md5 /f", &file, now);
    assert!(has_work(&mut connection, false));

    // What the receiver has is checked meanwhile.
    let (mut connection, _peer) = connected(now);
    opens(&mut connection, "get /f", &file, now);
    connection.session.handle_line(b"000 offset=2097152 tag=t", now);
    connection.may_move = false;
    while has_work(&mut connection, false) {
        let moved = reactor.step(&mut connection, || ()).unwrap();
        assert_eq!(moved.bytes, 0);
    }
    let hashed = connection.session.outgoing().unwrap().hashed_bytes();
    assert_eq!(hashed, 2 << 20);
    assert!(has_work(&mut connection, true));
    connection.may_move = true;
    assert!(reactor.step(&mut connection, || ()).unwrap().bytes > 0);

    let (mut connection, mut peer) = connected(now);
    puts(&mut connection, 10, now);
    peer.write_all(b"D").unwrap();
    assert!(!has_work(&mut connection, false) && has_work(&mut connection, true));
}

#[test]
fn frames_that_came_behind_a_line_are_counted_as_they_are_taken() {
    let now = Instant::now();
    let mut reactor = Loop::new(now);
    let (mut connection, _peer) = connected(now);
    puts(&mut connection, 1 << 20, now);
    let header = [&b"D\0\0\0"[..], &(1_u32 << 20).to_be_bytes(), &[0; 8]].concat();
    assert!(connection.keep_input(&[&header[..], &[0; 10_000]].concat()));
    assert_eq!(reactor.step(&mut connection, || ()).unwrap().bytes, 10_016);
}

#[test]
fn who_waits_for_the_disk_belongs_to_the_crowd() {
    assert_eq!(cold_bytes(CHUNK_BYTES, 1), CHUNK_BYTES);
    assert_eq!(cold_bytes(CHUNK_BYTES, COLD_CROWD), STEP_BYTES / LOOP_BUFFERS);
    assert_eq!(cold_bytes(CHUNK_BYTES, COLD_CROWD + 1), COLD_BYTES_MIN);
    assert_eq!(cold_bytes(7, COLD_CROWD + 1), 7);
}

#[test]
fn the_md5_of_a_file_takes_no_more_of_a_step_than_its_share() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    fs::write(&file, vec![5; SHARED_CHUNK_BYTES]).unwrap();
    let now = Instant::now();
    let mut reactor = Loop::new(now);
    let (mut connection, _peer) = connected(now);
    opens(&mut connection, "md5 /f", &file, now);
    let Loop { disk, buffers, cold, .. } = &mut reactor;
    let share = STEP_BYTES / LOOP_BUFFERS;
    let turn = Turn { disk, now, crowd: LOOP_BUFFERS, chunk_bytes: share, cold };
    let load = gather(turn, &mut connection, buffers.all().next().unwrap());
    assert_eq!(load.map(|load| load.bytes), Some(share));
}
