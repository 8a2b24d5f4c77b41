//! What a login costs the server: time on a processor, and memory while it lasts.

use std::{fs, time::Duration};

use crate::{
    bounds::Bounds,
    host,
    support::{
        Raw,
        people::{House, greeted, greeted_from, log_in, logged_in},
        resident_bytes,
    },
};

/// Logins whose cost is measured.
const LOGINS: u32 = 500;

/// Users, and connections of each, that are idle at once.
const IDLE: (u8, u8) = (8, 250);

/// A login, beside a connection that is greeted and closed.
pub(crate) fn measure_login(bounds: &mut Bounds) {
    let house = House::of(&["anna"]);
    let towd = house.towd(["-q"]);
    drop(logged_in(towd.addr(), "anna"));
    let measure = |connect: &dyn Fn() -> Raw| {
        let before = processor_time(towd.pid());
        (0..LOGINS).for_each(|_| drop(connect()));
        (processor_time(towd.pid()) - before) / LOGINS
    };
    let login = measure(&|| logged_in(towd.addr(), "anna"));
    let greeting = measure(&|| greeted(towd.addr()));
    println!("a login takes {login:?} of processor time, a connection without one {greeting:?}");
    let times = login.as_secs_f64() / greeting.as_secs_f64();
    bounds.figure("processor time of a login, in connections", times, 0.0..=12.0);
}

/// An idle connection that is logged in, beside one that is not.
pub(crate) fn measure_memory(bounds: &mut Bounds) {
    let names: Vec<String> = (0..IDLE.0).map(|n| format!("user{n}")).collect();
    let house = House::of(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let measure = |logs_in: bool| {
        let towd = house.towd(["-q"]);
        // All homes are open, and the server has found its size.
        let first: Vec<Raw> = names.iter().map(|user| logged_in(towd.addr(), user)).collect();
        let before = resident_bytes(towd.pid());
        let mut idle = Vec::new();
        for (n, user) in (0..).zip(&names) {
            for _ in 1..IDLE.1 {
                let mut peer = greeted_from(host(2 + n / 2), towd.addr());
                if logs_in {
                    log_in(&mut peer, user);
                }
                idle.push(peer);
            }
        }
        let grown = resident_bytes(towd.pid()).saturating_sub(before);
        drop(first);
        grown as f64 / idle.len() as f64
    };
    let (logged_in, greeted) = (measure(true), measure(false));
    println!("an idle login takes {logged_in:.0} bytes, a connection without one {greeted:.0}");
    bounds.figure("memory of an idle login, in connections", logged_in / greeted, 0.0..=4.0);
}

/// What all threads of a process have spent on processors.
fn processor_time(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let of = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    };
    tasks.filter_map(|task| of(task.ok()?)).sum()
}
