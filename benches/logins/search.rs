//! Whether the time of a search for an account tells who has one.

use std::{hint::black_box, time::Instant};

use towpath::auth::{Account, Accounts, Rights, ScramVerifier};

use crate::{
    bounds::Bounds,
    support::people::{ITERATIONS, PASSWORD, name, password},
};

/// Searches for each of the two names that are compared.
const SEARCHES: usize = 100_000;

/// Beyond this, Welch's t is no chance: one in 100,000.
const T_MAX: f64 = 4.5;

/// What the machine did in between looks like a difference now and then; one that is there shows
/// each time.
const TRIES: usize = 3;

/// The t of a known name against an unknown one, beside that of two known ones.
pub(crate) fn measure(bounds: &mut Bounds) {
    let accounts = accounts();
    let least = |names: [&str; 2]| {
        let tries = (0..TRIES).map(|_| compare(&accounts, names));
        tries.map(f64::abs).min_by(f64::total_cmp).unwrap_or(f64::NAN)
    };
    bounds.figure("t of two known names", least(["user250", "user123"]), 0.0..=T_MAX);
    bounds.figure("t of a known name and none", least(["user250", "nobody0"]), 0.0..=T_MAX);
}

fn accounts() -> Accounts {
    let verifier = ScramVerifier::new(&password(PASSWORD), [9; 16], ITERATIONS);
    let mut accounts = Accounts::new([0; 32]);
    for n in 0..500 {
        let account = Account::new(name(&format!("user{n:03}")), Rights::READ);
        assert!(accounts.put(Account { scram: Some(verifier.clone()), ..account }));
    }
    accounts
}

/// Welch's t of the times that two names take.
fn compare(accounts: &Accounts, names: [&str; 2]) -> f64 {
    let mut times = [Vec::new(), Vec::new()];
    let mut random = 1_u64;
    for _ in 0..2 * SEARCHES {
        // Interleaved by chance, so that nothing periodic favours one.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let which = usize::from(random >> 63 == 1);
        let began = Instant::now();
        drop(black_box(accounts.find(black_box(names[which]))));
        times[which].push(1e9 * began.elapsed().as_secs_f64());
    }
    // What the system did in between is cut off, at the same time for both.
    let mut all: Vec<f64> = times.concat();
    all.sort_by(f64::total_cmp);
    let cut = all[all.len() * 95 / 100];
    let [a, b] = times.map(|times| {
        let kept: Vec<f64> = times.into_iter().filter(|&time| time <= cut).collect();
        let count = kept.len() as f64;
        let mean = kept.iter().sum::<f64>() / count;
        let variance = kept.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (count - 1.0);
        (mean, variance / count)
    });
    println!("searches take {:.1} ns and {:.1} ns", a.0, b.0);
    (a.0 - b.0) / (a.1 + b.1).sqrt()
}
