//! Who may write a file: a client that comes back takes over from its own dead line at once, any
//! other is told that the file is busy, and whoever was taken over can touch nothing any more.

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use support::people::greeted;
use support::proxy::{Cut, Direction, How, Plan, Proxy};
use support::watch::{Watch, client, impatient, overhead, patient, remote};
use support::{
    PATIENCE, Raw, TestDir, Towd, Upload, fresh_seed, random_file, same_bytes, tcp, wait_until,
};
use towpath::client::{ClientError, Event, Options};
use towpath::digest::{LEAF_BYTES, SEGMENT_BYTES};
use towpath::wire::{Code, DigestChoice};

mod support;

const SIZE: u64 = 6 * SEGMENT_BYTES + 5;

fn soon_out_of_patience() -> Options {
    Options { timeout: Duration::from_secs(1), ..patient(DigestChoice::Tree) }
}

#[test]
fn a_client_whose_line_went_silent_takes_over_its_own_upload() {
    let seed = fresh_seed();
    let (towd, dir) = (Towd::start(["-v"]), TestDir::new());
    let source = dir.join("source");
    random_file(&source, SIZE, seed);
    let proxy = Proxy::start(towd.addr(), Plan::seeded(seed));
    let (mut silent, mut resumed, mut delivered) = (None, None, 0);
    let mut watch = Watch::new(|event| match event {
        Event::Position(there) if silent.is_none() && *there > 2 * SEGMENT_BYTES => {
            proxy.blackhole_existing();
            tcp::wait_until_read(towd.addr());
            delivered = proxy.counts().total.up;
            silent = Some(Instant::now());
        }
        Event::Begin { already, .. } => {
            resumed = silent.map(|at| (at.elapsed(), *already));
        }
        _ => {}
    });
    let client = client(proxy.addr(), soon_out_of_patience());
    let done = client.put(&source, &remote("f"), &mut watch).expect("it goes on");
    drop(watch);
    assert!(same_bytes(&source, towd.root().join("f")));
    let (after, already) = resumed.expect("it began again");
    eprintln!("the upload went on {after:?} after the line fell silent; {done:?}");
    assert!(after < Duration::from_secs(20), "{after:?}");
    let sure = delivered - overhead(delivered) - LEAF_BYTES;
    assert!(already >= sure, "{already} of {delivered} bytes that were read");
}

#[test]
fn a_download_over_a_line_that_went_silent_goes_on_over_another() {
    let seed = fresh_seed();
    let (towd, dir) = (Towd::start(["-q"]), TestDir::new());
    let (source, target) = (towd.root().join("f"), dir.join("f"));
    random_file(&source, SIZE, seed);
    let proxy = Proxy::start(towd.addr(), Plan::seeded(seed));
    let (mut silent, mut resumed) = (None, None);
    let mut watch = Watch::new(|event| match event {
        Event::Position(there) if silent.is_none() && *there > 2 * SEGMENT_BYTES => {
            proxy.blackhole_existing();
            silent = Some((Instant::now(), *there));
        }
        Event::Begin { already, .. } => {
            resumed = silent.map(|(at, there)| (at.elapsed(), there, *already));
        }
        _ => {}
    });
    let client = client(proxy.addr(), soon_out_of_patience());
    client.get(&remote("f"), &target, &mut watch).expect("it goes on");
    drop(watch);
    assert!(same_bytes(&source, &target));
    let (after, there, already) = resumed.expect("it began again");
    eprintln!("the download went on {after:?} after the line fell silent");
    assert!(after < Duration::from_secs(20), "{after:?}");
    assert!(already >= there, "{already} of {there}");
}

#[test]
fn late_bytes_of_a_line_that_was_taken_over_touch_nothing() {
    let seed = fresh_seed();
    let towd = Towd::start(["-v"]);
    let upload = Upload::new("/f", seed);
    let mut first = greeted(towd.addr());
    assert_eq!(upload.offer(&mut first), "402");
    upload.send_first(&mut first);
    // Half of a frame: whatever comes next on this line would be the file's bytes.
    let (size, half) = (upload.size(), SEGMENT_BYTES + SEGMENT_BYTES / 2);
    let whole = upload.data(SEGMENT_BYTES, size);
    first.send(&whole[..whole.len() - usize::try_from(size - half).expect("it fits")]);
    tcp::wait_until_read(towd.addr());

    let mut second = greeted(towd.addr());
    assert_eq!(upload.offer(&mut second), format!("000 offset={half} tag=t"));
    // The first line may be closed already; what it says must not matter.
    let garbage = vec![0xa5; 4 << 20];
    drop(first.stream().write_all(&garbage));
    second.send(format!("426 offset={half} length={}\n", size - half));
    second.send(upload.data(half, size));
    drop(first.stream().write_all(&garbage));
    assert!(first.closes_within(PATIENCE), "a line that was taken over stays open");
    upload.finish(&mut second);
    let there = fs::read(towd.root().join("f")).expect("the file is there");
    assert!(there == upload.bytes, "late bytes are in the file");
}

#[test]
fn another_client_is_told_busy_at_once_and_may_write_when_the_first_is_done() {
    let seed = fresh_seed();
    let (towd, dir) = (Towd::start(["-q"]), TestDir::new());
    let other = dir.join("other");
    random_file(&other, SEGMENT_BYTES + 1, seed);
    let upload = Upload::new("/f", seed);
    let mut first = greeted(towd.addr());
    assert_eq!(upload.offer(&mut first), "402");
    upload.send_first(&mut first);

    let second = client(towd.addr(), patient(DigestChoice::Tree));
    let mut watch = Watch::quiet();
    let refused = second.put(&other, &remote("f"), &mut watch);
    assert!(
        matches!(&refused, Err(ClientError::Refused(reply)) if reply.code == Code::Busy),
        "{refused:?}"
    );
    assert_eq!(watch.attempts.len(), 1, "at once: {watch:?}");

    upload.send_rest(&mut first);
    assert!(fs::read(towd.root().join("f")).expect("it is there") == upload.bytes);
    second.put(&other, &remote("f"), &mut ()).expect("the first is done");
    assert!(same_bytes(&other, towd.root().join("f")));
}

#[test]
fn two_servers_of_one_root_let_one_client_write_and_tell_the_other() {
    let seed = fresh_seed();
    let dir = TestDir::new();
    let (root, other) = (dir.join("root"), dir.join("other"));
    let one = Towd::start_in(&root, ["-q"]);
    let two = Towd::start_in(&root, ["-q"]);
    random_file(&other, SEGMENT_BYTES + 1, seed);
    let upload = Upload::new("/f", seed);
    let mut first = greeted(one.addr());
    assert_eq!(upload.offer(&mut first), "402");
    let second = client(two.addr(), patient(DigestChoice::Tree));
    let refused = second.put(&other, &remote("f"), &mut ());
    assert!(
        matches!(&refused, Err(ClientError::Refused(reply)) if reply.code == Code::Busy),
        "{refused:?}"
    );
    upload.send_first(&mut first);
    upload.send_rest(&mut first);
    assert!(fs::read(root.join("f")).expect("it is there") == upload.bytes);
    // The lock goes with the last handle, behind the verdict.
    let again = || second.put(&other, &remote("f"), &mut ()).is_ok();
    assert!(wait_until(PATIENCE, again), "the first is done");
    assert!(same_bytes(&other, root.join("f")));
}

#[test]
fn a_download_whose_client_was_reset_is_let_go_of_at_once() {
    let seed = fresh_seed();
    let towd = Towd::start([""; 0]);
    random_file(towd.root().join("f"), 128 << 20, seed);
    let mut raw = Raw::connect(towd.addr());
    raw.read_line();
    raw.send("get /f\n");
    raw.read_line();
    raw.send("402\n");
    // Nothing is read: the server sends as much as kernels take, and waits.
    let pair = tcp::Pair::of(raw.stream()).expect("it is up");
    let mut before = 0;
    let stalls = wait_until(PATIENCE, || {
        let unread = tcp::queues(pair).unread;
        std::thread::sleep(Duration::from_millis(50));
        std::mem::replace(&mut before, unread) == unread && unread > 0
    });
    assert!(stalls, "128 MiB went into buffers");
    let abort = Some(Duration::ZERO);
    socket2::SockRef::from(raw.stream()).set_linger(abort).expect("a socket can be reset");
    drop(raw);
    // The reset was there before this connection is: whoever is served next comes behind it.
    tcp::wait_until_left(towd.addr());
    let log = towd.stderr();
    assert!(log.contains("unfinished: the line broke"), "{log}");
}

#[test]
fn a_verdict_that_was_lost_with_the_line_is_told_again_without_the_data() {
    let seed = fresh_seed();
    let (towd, dir) = (Towd::start(["-q"]), TestDir::new());
    let source = dir.join("source");
    random_file(&source, SIZE, seed);
    // What the server says to an upload that nothing happens to.
    let proxy = Proxy::start(towd.addr(), Plan::seeded(seed));
    let calm = client(proxy.addr(), patient(DigestChoice::Tree));
    let done = calm.put(&source, &remote("calm"), &mut ()).expect("nothing happens to it");
    let said = proxy.counts().total.down;
    let verdict = format!("226 root={}\n", done.root).len() as u64;

    for (nth, lost) in [1, verdict / 2, verdict - 1].into_iter().enumerate() {
        for how in [How::Fin, How::Rst] {
            let name = format!("f{nth}{how:?}");
            // The cut comes within the verdict: the file is visible by then.
            let budget = said - lost;
            let cut = Cut {
                budget_bytes: budget..=budget,
                counted: Some(Direction::Down),
                how,
                limit: 2,
                ..Cut::default()
            };
            let proxy = Proxy::start(towd.addr(), Plan { cut: Some(cut), ..Plan::seeded(seed) });
            let first = client(proxy.addr(), impatient()).put(&source, &remote(&name), &mut ());
            assert!(matches!(first, Err(ClientError::GaveUp(_))), "{first:?}");
            let target = towd.root().join(&name);
            assert!(same_bytes(&source, &target));
            let before = proxy.counts().total.up;

            // One that has not sent it, and one that goes on by itself.
            let late = client(proxy.addr(), patient(DigestChoice::Tree));
            let done = late.put(&source, &remote(&name), &mut ()).expect("it is there");
            assert!(done.unchanged && done.moved == 0, "{done:?}");
            fs::remove_file(&target).expect("it is there");
            let mut watch = Watch::quiet();
            proxy.set(Plan {
                cut: Some(Cut {
                    budget_bytes: budget..=budget,
                    counted: Some(Direction::Down),
                    how,
                    limit: 1,
                    ..Cut::default()
                }),
                ..Plan::seeded(seed)
            });
            let between = proxy.counts().total.up;
            assert!(between - before < 1024, "{} bytes to be told a verdict", between - before);
            let own = client(proxy.addr(), patient(DigestChoice::Tree));
            let done = own.put(&source, &remote(&name), &mut watch).expect("it goes on");
            assert_eq!((done.moved, done.breaks), (SIZE, 1), "{watch:?}");
            assert!(!done.unchanged, "this very call sent it");
            let counts = proxy.counts();
            let last = counts.per_connection.last().expect("there were some").up;
            assert!(last < 1024, "{last} bytes to be told a verdict");
            assert!(same_bytes(&source, &target));
        }
    }
}
