//! The equipment is tested before it tests anything: each fault of [`support::proxy`] does what
//! it says, and nothing else.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use support::proxy::{Cut, Direction, Flip, How, Plan, Proxy, Slow, Traffic, Weight};
use support::{PATIENCE, Rng};

mod support;

#[test]
fn without_faults_everything_passes_in_both_directions_and_half_closed() {
    let (upstream, server) = serve(1, echo);
    let proxy = Proxy::start(upstream, Plan::default());
    let sent = random_bytes(4 << 20, 1);

    let received = thread::scope(|scope| {
        let mut client = connect(&proxy);
        let mut reading = client.try_clone().unwrap();
        let reader = scope.spawn(move || read_to_end(&mut reading).unwrap());
        client.write_all(&sent).unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        reader.join().unwrap()
    });

    assert!(received == sent, "the echo differs from what was sent");
    assert!(server.join().unwrap() == [sent], "the server got something else");
    let counts = proxy.counts();
    assert_eq!(counts.total, Traffic { up: 4 << 20, down: 4 << 20 });
    assert_eq!(counts.per_connection, [counts.total]);
    assert_eq!((counts.cuts, counts.flips), (0, 0));
}

#[test]
fn a_fin_cut_comes_after_exactly_the_budget() {
    let (upstream, server) = serve(1, sink);
    let cut = Cut {
        budget_bytes: 1000..=1000,
        counted: Some(Direction::Up),
        how: How::Fin,
        ..Cut::default()
    };
    let proxy = Proxy::start(upstream, Plan { cut: Some(cut), ..Plan::seeded(2) });

    let mut client = connect(&proxy);
    client.write_all(&[7; 1000]).unwrap();

    assert_eq!(read_to_end(&mut client).unwrap(), b"", "an orderly end");
    assert_eq!(server.join().unwrap(), [vec![7; 1000]]);
    let counts = proxy.counts();
    assert_eq!((counts.cuts, counts.resets), (1, 0));
    assert_eq!(counts.per_connection, [Traffic { up: 1000, down: 0 }]);
}

#[test]
fn a_reset_cut_reaches_both_sides_as_a_reset() {
    let (upstream, server) = serve(1, |mut stream| read_to_end(&mut stream).unwrap_err().kind());
    let cut = Cut { budget_bytes: 10..=10, how: How::Rst, ..Cut::default() };
    let proxy = Proxy::start(upstream, Plan { cut: Some(cut), ..Plan::seeded(3) });

    let mut client = connect(&proxy);
    client.write_all(&[7; 10]).unwrap();

    assert_eq!(read_to_end(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
    assert_eq!(server.join().unwrap(), [ErrorKind::ConnectionReset]);
    let counts = proxy.counts();
    assert_eq!((counts.cuts, counts.resets), (1, 1));
}

#[test]
fn a_budget_counts_both_directions_unless_told_otherwise() {
    let (upstream, server) = serve(1, echo);
    let cut = Cut { budget_bytes: 1500..=1500, how: How::Fin, ..Cut::default() };
    let proxy = Proxy::start(upstream, Plan { cut: Some(cut), ..Plan::seeded(4) });

    let mut client = connect(&proxy);
    client.write_all(&[7; 1000]).unwrap();

    assert_eq!(read_to_end(&mut client).unwrap(), [7; 500]);
    assert_eq!(proxy.counts().total, Traffic { up: 1000, down: 500 });
    drop(proxy);
    server.join().unwrap();
}

#[test]
fn a_reset_cut_frees_a_pump_that_is_stuck_in_writing() {
    // The server sends more than the sockets hold, and the client reads none of it.
    let (upstream, server) = serve(1, |mut stream| {
        let mut reading = stream.try_clone().unwrap();
        let writer = thread::spawn(move || while stream.write_all(&[7; 1 << 16]).is_ok() {});
        drop(read_to_end(&mut reading));
        writer.join().unwrap();
    });
    let cut = Cut {
        budget_bytes: 10..=10,
        counted: Some(Direction::Up),
        how: How::Rst,
        ..Cut::default()
    };
    let proxy = Proxy::start(upstream, Plan { cut: Some(cut), ..Plan::seeded(5) });

    let mut client = connect(&proxy);
    assert!(proxy.wait_for(PATIENCE, |counts| counts.total.down >= 64 << 10));
    client.write_all(&[7; 10]).unwrap();

    assert!(proxy.wait_for(PATIENCE, |counts| counts.resets == 1));
    server.join().unwrap();
    assert_eq!(read_to_end(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn after_the_limit_of_cuts_everything_passes() {
    let (upstream, server) = serve(5, sink);
    let cut = Cut { budget_bytes: 1..=100, limit: 3, ..Cut::default() };
    let proxy = Proxy::start(upstream, Plan { cut: Some(cut), ..Plan::seeded(6) });

    for _ in 0..5 {
        send_and_wait_for_the_end(&proxy, &[7; 1000]);
    }

    let received: Vec<usize> = server.join().unwrap().iter().map(Vec::len).collect();
    assert!(received[..3].iter().all(|&len| len <= 100), "{received:?}");
    assert_eq!(received[3..], [1000, 1000]);
    assert_eq!(proxy.counts().cuts, 3);
}

#[test]
fn the_same_seed_makes_the_same_cuts() {
    let [first, again, other] = [7, 7, 8].map(|seed| budgets(seed, Weight::Uniform));
    assert_eq!(first, again);
    assert_ne!(first, other);
    let (_, resets) = first;
    assert!((1..BUDGET_LINES).contains(&resets), "both ways of cutting occur: {resets} resets");
}

#[test]
fn tiny_weight_cuts_inside_lines_and_uniform_weight_does_not() {
    let below_a_line = |weight| {
        let (budgets, _) = budgets(9, weight);
        budgets.iter().filter(|&&bytes| bytes < 256).count()
    };
    let (tiny, uniform) = (below_a_line(Weight::Tiny), below_a_line(Weight::Uniform));
    // Of 24 lines, 13 and 0.1 are to be expected.
    assert!(tiny >= 6 && uniform <= 2, "{tiny} and {uniform} of {BUDGET_LINES} lines");
}

#[test]
fn one_bit_of_every_so_many_bytes_is_flipped_after_the_skipped_ones() {
    let flip =
        Flip { direction: Direction::Up, every_bytes: 1000, skip_bytes: 100, limit: u64::MAX };
    for split in [None, Some(7)] {
        let (upstream, server) = serve(1, sink);
        let plan = Plan { flip: Some(flip.clone()), split, ..Plan::seeded(10) };
        let proxy = Proxy::start(upstream, plan);
        let sent = random_bytes(5100, 10);

        send_and_wait_for_the_end(&proxy, &sent);

        let received = server.join().unwrap().remove(0);
        assert_eq!(flipped(&sent, &received), [1099, 2099, 3099, 4099, 5099]);
        assert_eq!(proxy.counts().flips, 5);
    }
}

#[test]
fn flips_keep_to_their_direction_and_limit() {
    let (upstream, server) = serve(1, echo);
    let flip = Flip { direction: Direction::Down, every_bytes: 10, skip_bytes: 0, limit: 2 };
    let proxy = Proxy::start(upstream, Plan { flip: Some(flip), ..Plan::seeded(11) });
    let sent = random_bytes(1000, 11);

    let mut client = connect(&proxy);
    client.write_all(&sent).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let received = read_to_end(&mut client).unwrap();

    assert_eq!(server.join().unwrap()[0], sent, "the way up is intact");
    assert_eq!(flipped(&sent, &received), [9, 19]);
}

#[test]
fn a_black_hole_swallows_what_is_there_and_lets_the_new_pass() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap(), Plan::default());
    let mut old = connect(&proxy);
    let (mut old_server, _) = listener.accept().unwrap();
    old.write_all(b"hello").unwrap();
    old_server.read_exact(&mut [0; 5]).unwrap();

    proxy.blackhole_existing();
    old.write_all(b"anybody there?").unwrap();
    // Neither bytes nor the end of the other side come through.
    old_server.write_all(b"yes").unwrap();
    drop(old_server);
    let mut new = connect(&proxy);
    let (mut new_server, _) = listener.accept().unwrap();
    new_server.write_all(b"hello").unwrap();
    new.read_exact(&mut [0; 5]).unwrap();

    old.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let silence = old.read(&mut [0; 64]).unwrap_err().kind();
    assert_eq!(silence, ErrorKind::WouldBlock, "neither an answer nor an end");
    let expected = [Traffic { up: 5, down: 0 }, Traffic { up: 0, down: 5 }];
    assert_eq!(proxy.counts().per_connection, expected);
}

#[test]
fn a_slow_line_keeps_its_pace() {
    let (upstream, server) = serve(1, echo);
    let slow = Slow { direction: Direction::Down, bytes_per_s: 100_000 };
    let proxy = Proxy::start(upstream, Plan { slow: Some(slow), ..Plan::default() });
    let started = Instant::now();

    let mut client = connect(&proxy);
    client.write_all(&[7; 30_000]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(proxy.wait_for(PATIENCE, |counts| counts.total.up == 30_000));
    let sent_after = started.elapsed();
    let received = read_to_end(&mut client).unwrap();

    assert_eq!(received.len(), 30_000);
    let took = started.elapsed();
    assert!(took >= Duration::from_millis(280), "30 kB at 100 kB/s took {took:?}");
    assert!(sent_after < took, "the other direction is not slowed");
    server.join().unwrap();
}

#[test]
fn split_forwards_in_small_pieces() {
    let (upstream, server) = serve(1, sink);
    let proxy = Proxy::start(upstream, Plan { split: Some(3), ..Plan::seeded(12) });
    let sent = random_bytes(3000, 12);

    send_and_wait_for_the_end(&proxy, &sent);

    assert_eq!(server.join().unwrap(), [sent]);
    let pieces = proxy.counts().pieces;
    assert!((1001..3000).contains(&pieces), "{pieces} pieces of 1 to 3 bytes");
}

#[test]
fn a_new_plan_holds_for_connections_that_are_up() {
    let (upstream, server) = serve(1, echo);
    let proxy = Proxy::start(upstream, Plan::default());
    let mut client = connect(&proxy);
    assert!(echoes(&mut client));

    let cut = Cut { budget_bytes: 3..=3, how: How::Fin, ..Cut::default() };
    proxy.set(Plan { cut: Some(cut), ..Plan::seeded(13) });
    client.write_all(b"abc").unwrap();

    assert_eq!(read_to_end(&mut client).unwrap(), b"");
    assert_eq!(server.join().unwrap().concat(), b"ping!abc");
}

#[test]
fn existing_connections_can_be_cut_at_a_chosen_moment() {
    let (upstream, server) = serve(2, echo);
    let proxy = Proxy::start(upstream, Plan::default());
    let mut clients = [connect(&proxy), connect(&proxy)];
    assert!(clients.iter_mut().all(echoes));

    proxy.cut_existing(How::Rst);

    for client in &mut clients {
        assert_eq!(read_to_end(client).unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
    assert_eq!(proxy.counts().resets, 2);
    server.join().unwrap();
}

#[test]
fn a_server_that_is_away_is_seen_as_a_reset() {
    let upstream = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let proxy = Proxy::start(upstream, Plan::default());
    let mut client = connect(&proxy);
    assert_eq!(read_to_end(&mut client).unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[test]
fn dropping_the_proxy_ends_every_connection_whatever_it_waits_for() {
    let (upstream, server) = serve(3, echo);
    let proxy = Proxy::start(upstream, Plan::default());
    let mut holed = connect(&proxy);
    assert!(echoes(&mut holed));
    proxy.blackhole_existing();
    let mut idle = connect(&proxy);
    assert!(echoes(&mut idle));
    let slow = Slow { direction: Direction::Up, bytes_per_s: 1 };
    proxy.set(Plan { slow: Some(slow), ..Plan::default() });
    let mut slowed = connect(&proxy);
    slowed.write_all(&[7; 1000]).unwrap();
    assert!(proxy.wait_for(PATIENCE, |counts| counts.total.up > 5 + 5));
    let addr = proxy.addr();

    let started = Instant::now();
    drop(proxy);

    assert!(started.elapsed() < Duration::from_secs(5), "took {:?}", started.elapsed());
    for client in [&mut idle, &mut holed, &mut slowed] {
        drop(read_to_end(client));
    }
    server.join().unwrap();
    assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

const BUDGET_LINES: u64 = 24;

/// What each of some connections could carry before it was cut, and how many were reset.
fn budgets(seed: u64, weight: Weight) -> (Vec<u64>, u64) {
    let count = usize::try_from(BUDGET_LINES).expect("a small number");
    let (upstream, server) = serve(count, sink);
    let cut = Cut { budget_bytes: 1..=60_000, weight, ..Cut::default() };
    let proxy = Proxy::start(upstream, Plan { cut: Some(cut), ..Plan::seeded(seed) });
    for _ in 0..count {
        send_and_wait_for_the_end(&proxy, &[7; 60_000]);
    }
    server.join().expect("the server does not panic");
    let counts = proxy.counts();
    assert_eq!(counts.cuts, BUDGET_LINES);
    (counts.per_connection.iter().map(|traffic| traffic.up).collect(), counts.resets)
}

/// A server for this many connections, each with a thread that runs `handle`; the results come
/// in the order in which the connections did.
fn serve<T: Send + 'static>(
    connections: usize,
    handle: fn(TcpStream) -> T,
) -> (SocketAddr, JoinHandle<Vec<T>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let addr = listener.local_addr().expect("a bound listener has an address");
    let server = thread::spawn(move || {
        let accept = |_| listener.accept().expect("a connection").0;
        let handlers: Vec<_> = (0..connections)
            .map(accept)
            .map(|stream| thread::spawn(move || handle(stream)))
            .collect();
        handlers.into_iter().map(|handler| handler.join().expect("no panic")).collect()
    });
    (addr, server)
}

/// Sends back what comes, until the line ends in whatever way; returns what came.
fn echo(mut stream: TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(len @ 1..) = stream.read(&mut piece) {
        received.extend_from_slice(&piece[..len]);
        if stream.write_all(&piece[..len]).is_err() {
            break;
        }
    }
    received
}

/// Takes what comes, until the line ends in whatever way.
fn sink(mut stream: TcpStream) -> Vec<u8> {
    let mut received = Vec::new();
    // After an error `received` still has all that came before.
    drop(stream.read_to_end(&mut received));
    received
}

fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.addr()).expect("the proxy accepts");
    stream.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    stream
}

fn echoes(client: &mut TcpStream) -> bool {
    let mut answer = [0; 5];
    client.write_all(b"ping!").is_ok()
        && client.read_exact(&mut answer).is_ok()
        && &answer == b"ping!"
}

fn read_to_end(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut received = Vec::new();
    stream.read_to_end(&mut received).map(|_| received)
}

/// Sends as much of it as the line lets pass, and returns when the other side has ended too.
fn send_and_wait_for_the_end(proxy: &Proxy, bytes: &[u8]) {
    let mut client = connect(proxy);
    // The line may be cut at any moment: that is what the callers are about.
    drop(client.write_all(bytes));
    drop(client.shutdown(Shutdown::Write));
    drop(read_to_end(&mut client));
}

fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    Rng::new(seed).fill(&mut bytes);
    bytes
}

/// Where exactly one bit differs. More than one differing bit in a byte fails the test.
fn flipped(sent: &[u8], received: &[u8]) -> Vec<usize> {
    assert_eq!(sent.len(), received.len());
    let differing = sent.iter().zip(received).map(|(a, b)| (a ^ b).count_ones()).enumerate();
    let differing: Vec<_> = differing.filter(|&(_, bits)| bits != 0).collect();
    assert!(differing.iter().all(|&(_, bits)| bits == 1), "{differing:?}");
    differing.into_iter().map(|(at, _)| at).collect()
}
