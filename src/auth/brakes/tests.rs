//! Guessing over simulated hours, and that it hurts nobody else.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

fn v4(host: u8) -> IpAddr {
    IpAddr::from([192, 0, 2, host])
}

fn v6(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// One attempt that fails; how long it had to wait.
fn fails(brakes: &mut Brakes, address: IpAddr, name: &str, now: Instant) -> Duration {
    let wait = brakes.begin(address, name, now).unwrap();
    brakes.failed(address, name, now);
    brakes.ended(address);
    wait
}

/// How long an attempt would have to wait.
fn wait(brakes: &mut Brakes, address: IpAddr, name: &str, now: Instant) -> Duration {
    let wait = brakes.begin(address, name, now).unwrap();
    brakes.ended(address);
    wait
}

#[test]
fn an_address_waits_after_its_first_failures_twice_as_long_each_time() {
    let (mut brakes, now) = (Brakes::new(), Instant::now());
    let waits: Vec<_> =
        (0..13).map(|n| fails(&mut brakes, v4(1), &format!("user{n}"), now).as_millis()).collect();
    assert_eq!(waits, [0, 0, 0, 0, 0, 0, 250, 500, 1000, 2000, 4000, 8000, 8000]);
    assert_eq!(wait(&mut brakes, v4(2), "user", now), Duration::ZERO);
}

#[test]
fn a_name_waits_from_wherever_it_is_asked_for() {
    let (mut brakes, now) = (Brakes::new(), Instant::now());
    let waits: Vec<_> =
        (0..30).map(|host| fails(&mut brakes, v4(host), "anna", now).as_millis()).collect();
    assert!(waits[..=20].iter().all(|&wait| wait == 0), "{waits:?}");
    assert_eq!(waits[21..26], [250, 500, 1000, 2000, 2000]);
    assert_eq!(wait(&mut brakes, v4(99), "ben", now), Duration::ZERO);
}

#[test]
fn failures_are_forgotten_by_halves() {
    let (mut brakes, now) = (Brakes::new(), Instant::now());
    for n in 0..20 {
        fails(&mut brakes, v4(1), &n.to_string(), now);
    }
    let at = |brakes: &mut Brakes, time| wait(brakes, v4(1), "x", now + time);
    assert_eq!(at(&mut brakes, MINUTE - Duration::from_secs(1)).as_secs(), 8);
    assert_eq!(at(&mut brakes, MINUTE).as_secs(), 4);
    assert_eq!(at(&mut brakes, MINUTE * 2), Duration::ZERO);
    for n in 0..20 {
        fails(&mut brakes, v4(1), &n.to_string(), now + HOUR * 1000);
    }
    assert_eq!(at(&mut brakes, HOUR * 1000).as_secs(), 8);
    assert_eq!(at(&mut brakes, HOUR * 2000), Duration::ZERO);
}

#[test]
fn a_success_takes_no_failure_back() {
    let (mut brakes, now) = (Brakes::new(), Instant::now());
    for _ in 0..12 {
        fails(&mut brakes, v4(1), "victim", now);
        brakes.succeeded(v4(1), "attacker", now);
    }
    assert_eq!(wait(&mut brakes, v4(1), "victim", now).as_secs(), 8);
}

#[test]
fn who_has_logged_in_lately_does_not_wait_for_the_failures_of_others() {
    let (mut brakes, now) = (Brakes::new(), Instant::now());
    brakes.succeeded(v4(1), "anna", now);
    for host in 100..200 {
        fails(&mut brakes, v4(host), "anna", now);
    }
    let day = HOUR * 24;
    assert_eq!(wait(&mut brakes, v4(1), "anna", now), Duration::ZERO);
    assert_eq!(wait(&mut brakes, v4(2), "anna", now).as_secs(), 2);
    // A day later he is a stranger again.
    for (age, waits) in [(day - MINUTE, 0), (day, 2)] {
        for host in 100..200 {
            fails(&mut brakes, v4(host), "anna", now + age);
        }
        assert_eq!(wait(&mut brakes, v4(1), "anna", now + age).as_secs(), waits);
    }
    // And so he is if he fails too often himself.
    brakes.succeeded(v4(1), "anna", now + day);
    for failures in 1..=6 {
        fails(&mut brakes, v4(1), "anna", now + day);
        assert_eq!(wait(&mut brakes, v4(3), "anna", now + day).as_secs(), 2);
        let at = wait(&mut brakes, v4(1), "anna", now + day).as_secs();
        assert_eq!(at, if failures <= 5 { 0 } else { 2 }, "{failures}");
    }
}

#[test]
fn only_so_many_attempts_are_pending_at_a_time() {
    let (mut brakes, now) = (Brakes::new(), Instant::now());
    for _ in 0..ATTEMPTS_PENDING_MAX {
        brakes.begin(v4(1), "anna", now).unwrap();
    }
    assert_eq!(brakes.begin(v4(1), "ben", now), Err(TooMany));
    brakes.begin(v4(2), "ben", now).unwrap();
    brakes.ended(v4(1));
    brakes.begin(v4(1), "ben", now).unwrap();
    assert_eq!(brakes.begin(v4(1), "ben", now), Err(TooMany));
    for _ in 0..ATTEMPTS_PENDING_MAX + 1 {
        brakes.ended(v4(1));
    }
    brakes.ended(v4(2));
    assert!(brakes.pending.is_empty());

    // Fewer, once there were failures; not for who was here before.
    brakes.succeeded(v4(1), "anna", now);
    for n in 0..6 {
        fails(&mut brakes, v4(1), &n.to_string(), now);
    }
    for _ in 0..ATTEMPTS_PENDING_BRAKED_MAX {
        brakes.begin(v4(1), "ben", now).unwrap();
    }
    assert_eq!(brakes.begin(v4(1), "ben", now), Err(TooMany));
    assert!(brakes.begin(v4(1), "anna", now).is_ok());
}

#[test]
fn a_household_of_ipv6_is_one_address_and_so_is_a_mapped_one() {
    let (mut brakes, now) = (Brakes::new(), Instant::now());
    for host in 0..20 {
        fails(&mut brakes, v6(&format!("2001:db8:0:7::{host}")), &host.to_string(), now);
        fails(&mut brakes, v4(1), &host.to_string(), now);
    }
    assert_eq!(wait(&mut brakes, v6("2001:db8:0:7:8::1"), "x", now).as_secs(), 8);
    assert_eq!(wait(&mut brakes, v6("2001:db8:0:8::1"), "x", now), Duration::ZERO);
    assert_eq!(wait(&mut brakes, v6("::ffff:192.0.2.1"), "x", now).as_secs(), 8);
    assert_eq!(wait(&mut brakes, v6("::ffff:192.0.2.2"), "x", now), Duration::ZERO);
}

/// Guesses from one address, as many at a time as it may; how many were evaluated in each hour.
fn guess(brakes: &mut Brakes, start: Instant, parallel: usize, guesses: usize) -> Vec<usize> {
    let mut pending = VecDeque::<Instant>::new();
    let (mut now, mut begun, mut hours) = (start, 0, vec![]);
    loop {
        while begun < guesses && pending.len() < parallel {
            let Ok(wait) = brakes.begin(v4(66), "victim", now) else { break };
            begun += 1;
            pending.push_back(now + wait);
        }
        let Some(next) = pending.iter().min().copied() else { return hours };
        now = next.max(now);
        let at = pending.iter().position(|&time| time == next).unwrap();
        pending.remove(at);
        let hour = usize::try_from((now - start).as_secs() / 3600).unwrap();
        hours.resize(hours.len().max(hour + 1), 0);
        hours[hour] += 1;
        brakes.failed(v4(66), "victim", now);
        brakes.ended(v4(66));
    }
}

#[test]
fn ten_thousand_guesses_take_hours_and_the_victim_hardly_waits() {
    for (parallel, most) in [(1, 1_000), (64, 3_700)] {
        let (mut brakes, start) = (Brakes::new(), Instant::now());
        brakes.succeeded(v4(1), "victim", start);
        let hours = guess(&mut brakes, start, parallel, 10_000);
        assert_eq!(hours.iter().sum::<usize>(), 10_000);
        assert!(hours.iter().all(|&evaluated| evaluated <= most), "{parallel}: {hours:?}");
        // Who comes from anywhere else, at the worst time.
        let mut brakes = Brakes::new();
        brakes.succeeded(v4(1), "victim", start);
        guess(&mut brakes, start, parallel, 1_000);
        assert!(wait(&mut brakes, v4(2), "victim", start) <= Duration::from_secs(2));
        assert_eq!(wait(&mut brakes, v4(1), "victim", start), Duration::ZERO);
    }
}

#[test]
fn tables_stay_bounded_under_a_hundred_thousand_addresses() {
    let (mut brakes, now) = (Brakes::new(), Instant::now());
    for n in 0..100_000u32 {
        let address = IpAddr::from(n.to_be_bytes());
        fails(&mut brakes, address, &n.to_string(), now);
        brakes.succeeded(address, &n.to_string(), now);
        brakes.register(address, now).unwrap();
    }
    for len in [
        brakes.addresses.len(),
        brakes.names.len(),
        brakes.friends.len(),
        brakes.registrations.len(),
    ] {
        assert_eq!(len, BRAKE_ENTRIES_MAX);
    }
    assert!(brakes.pending.is_empty());
    for host in 0..=u32::try_from(CONNECTIONS_MAX).unwrap() {
        let begun = brakes.begin(IpAddr::from(host.to_be_bytes()), "x", now);
        assert_eq!(begun.is_ok(), host < u32::try_from(CONNECTIONS_MAX).unwrap());
    }
    assert_eq!(brakes.pending.len(), CONNECTIONS_MAX);
}

#[test]
fn five_accounts_an_hour_may_be_registered_from_one_address() {
    let (mut brakes, now) = (Brakes::new(), Instant::now());
    for n in 0..5 {
        assert_eq!(brakes.register(v4(1), now + MINUTE * n), Ok(()));
    }
    assert_eq!(brakes.register(v4(1), now + MINUTE * 5), Err(MINUTE * 55));
    assert_eq!(brakes.register(v4(2), now + MINUTE * 5), Ok(()));
    assert_eq!(brakes.register(v4(1), now + MINUTE * 60), Ok(()));
    assert_eq!(brakes.register(v4(1), now + MINUTE * 60), Err(MINUTE));
}
