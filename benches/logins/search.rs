//! Whether the time of a search for an account tells who has one.
//!
//! Of two names that stay the same the time would tell where they lie in memory, which is another
//! place in each run. So known names are compared with unknown ones, each search being for one
//! that is drawn anew, among users who are others every few searches.

use std::{hint::black_box, time::Instant};

use towpath::auth::{Accounts, ScramVerifier};

use crate::{
    bounds::Bounds,
    support::{
        Rng, fresh_seed,
        people::{ITERATIONS, PASSWORD, password},
    },
};

/// Searches for names of each of the two kinds that are compared.
const SEARCHES: usize = 100_000;

/// Users among whom is searched, with the names of the first numbers.
const USERS: u64 = 500;

/// Numbers that a name can have; beyond those of the users nobody has them.
const NUMBERS: u64 = 100_000;

/// Searches among the same users. Before them are as many that do not count, and bring into the
/// caches what the others find there.
const AMONG_SAME: usize = 1000;

/// Beyond this, Welch's t is no chance: one in 100,000.
const T_MAX: f64 = 4.5;

/// What the machine did in between looks like a difference now and then; one that is there shows
/// each time.
const TRIES: usize = 3;

/// The t of known names against unknown ones, beside that of known ones against one another.
pub(crate) fn measure(bounds: &mut Bounds) {
    let mut rng = Rng::new(fresh_seed());
    let verifier = ScramVerifier::new(&password(PASSWORD), [9; 16], ITERATIONS).to_text();
    let mut least = |others_known| {
        let tries = (0..TRIES).map(|_| compare(&mut rng, &verifier, others_known));
        tries.map(f64::abs).min_by(f64::total_cmp).unwrap_or(f64::NAN)
    };
    bounds.figure("t of known names and known ones", least(true), 0.0..=T_MAX);
    bounds.figure("t of known names and unknown ones", least(false), 0.0..=T_MAX);
}

/// Users under a secret that is drawn for them.
fn accounts(rng: &mut Rng, verifier: &str) -> Accounts {
    let mut secret = [0; 32];
    rng.fill(&mut secret);
    let mut text = Accounts::new(secret).to_text();
    for number in 0..USERS {
        text.push_str(&format!("{} rights=r scram={verifier}\n", name(number)));
    }
    Accounts::parse(&text).expect("a user file").0
}

/// All are of one length, and made in one way.
fn name(number: u64) -> String {
    format!("user{}", NUMBERS + number)
}

/// Welch's t of the times that searches for known names take, and those for others.
fn compare(rng: &mut Rng, verifier: &str, others_known: bool) -> f64 {
    let mut times = [Vec::new(), Vec::new()];
    while times.iter().any(|times| times.len() < SEARCHES) {
        let accounts = accounts(rng, verifier);
        let draw = |_| {
            // Interleaved by chance, so that nothing periodic favours one.
            let other = rng.flag();
            let known = !other || others_known;
            let numbers = if known { 0..=USERS - 1 } else { USERS..=NUMBERS - 1 };
            (usize::from(other), name(rng.within(&numbers)))
        };
        // All names are there before the first one is searched for.
        let draws: Vec<_> = (0..2 * AMONG_SAME).map(draw).collect();
        for (n, (which, name)) in draws.iter().enumerate() {
            let began = Instant::now();
            drop(black_box(accounts.find(black_box(name))));
            let took = 1e9 * began.elapsed().as_secs_f64();
            if n >= AMONG_SAME {
                times[*which].push(took);
            }
        }
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
    let t = (a.0 - b.0) / (a.1 + b.1).sqrt();
    println!("searches take {:.2} ns and {:.2} ns, t {t:.2}", a.0, b.0);
    t
}
