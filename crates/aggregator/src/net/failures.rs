//! Connections that cannot be accepted: counted each, told once a minute.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::IntCounter;

/// A listener without descriptors fails twenty times a second; one line a minute says so as well.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What a listener could not accept.
#[derive(Debug, Default)]
pub struct Failures {
    /// Counts them for operators.
    pub counter: Option<IntCounter>,
    untold: Mutex<Untold>,
}

#[derive(Debug, Default)]
struct Untold {
    n: u64,
    told: Option<Instant>,
}

impl Failures {
    /// Notes one.
    pub fn note(&self, error: &io::Error, listener: &str) {
        if let Some(counter) = &self.counter {
            counter.inc();
        }
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = untold.note(Instant::now()) {
            tracing::warn!(%error, listener, n, "cannot accept connections");
        }
    }
}

impl Untold {
    /// How many are to be told of now.
    fn note(&mut self, now: Instant) -> Option<u64> {
        self.n += 1;
        let is_early = self
            .told
            .is_some_and(|told| now.duration_since(told) < TELL_EVERY);
        if is_early {
            return None;
        }
        self.told = Some(now);
        Some(std::mem::take(&mut self.n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_a_minute_says_how_many() {
        let begun = Instant::now();
        let mut untold = Untold::default();
        let told: Vec<Option<u64>> = [0, 1, 59, 60, 61, 600]
            .map(|seconds| untold.note(begun + Duration::from_secs(seconds)))
            .to_vec();
        assert_eq!(told, [Some(1), None, None, Some(3), None, Some(2)]);
    }

    #[test]
    fn each_is_counted() {
        let counter = IntCounter::new("n", "n").unwrap();
        let failures = Failures {
            counter: Some(counter.clone()),
            ..Failures::default()
        };
        for _ in 0..3 {
            failures.note(&io::Error::other("none left"), "127.0.0.1:1");
        }
        assert_eq!(counter.get(), 3);
    }
}
