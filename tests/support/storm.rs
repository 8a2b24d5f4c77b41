//! A storm of wrong passwords.

use std::net::{IpAddr, SocketAddr};
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::people::{WRONG, greeted_from, keys, log_in_with};

/// How many try at once.
pub const GUESSERS: usize = 200;

/// How many were told what.
#[derive(Debug, Default)]
pub struct Storm {
    wrong: AtomicUsize,
    too_many: AtomicUsize,
}

impl Storm {
    /// What costs the guessers most is computed beforehand: their processors are the server's.
    pub fn prepared() -> Self {
        keys("a wrong password", &[0; 8], 4096);
        Self::default()
    }

    /// All try the wrong password at once, once each: half of them anna's, half that of a user who
    /// is not known.
    pub fn blow(&self, from: IpAddr, addr: SocketAddr) {
        let together = Barrier::new(GUESSERS);
        thread::scope(|scope| {
            for n in 0..GUESSERS {
                let together = &together;
                scope.spawn(move || {
                    let mut peer = greeted_from(from, addr);
                    together.wait();
                    let user = if n % 2 == 0 { "anna" } else { "nobody" };
                    let said = log_in_with(&mut peer, user, "a wrong password");
                    match &*said {
                        WRONG => self.wrong.fetch_add(1, Ordering::AcqRel),
                        "429 too many logins at once from your address" => {
                            self.too_many.fetch_add(1, Ordering::AcqRel)
                        }
                        other => panic!("{other}"),
                    };
                });
            }
        });
    }

    pub fn wrong(&self) -> usize {
        self.wrong.load(Ordering::Acquire)
    }

    pub fn too_many(&self) -> usize {
        self.too_many.load(Ordering::Acquire)
    }
}
