//! Waiting for facts: the only way in which a test may wait.

use std::time::{Duration, Instant};

/// How long a fact may take to become true. Generous, because shared machines stall; a test that
/// passes never waits longer than the fact takes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The pause between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// How long something is away in tests of absence: long enough for filters to wait their longest
/// between two tries. A whole minute where `TOLLMESH_FAULTS` is `full`.
pub fn absence() -> Duration {
    match std::env::var_os("TOLLMESH_FAULTS").is_some_and(|how| how == "full") {
        true => Duration::from_secs(60),
        false => Duration::from_secs(6),
    }
}

/// Looks until `look` finds what it wants, or says what was seen last.
///
/// `look` answers `Ok` with the fact, or `Err` with what it saw instead.
pub fn until<T>(
    patience: Duration,
    mut look: impl FnMut() -> Result<T, String>,
) -> Result<T, String> {
    let started = Instant::now();
    loop {
        let seen = match look() {
            Ok(fact) => return Ok(fact),
            Err(seen) => seen,
        };
        if started.elapsed() >= patience {
            return Err(format!("after {} s: {seen}", patience.as_secs()));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// [`until`] with the usual patience, for tests: panics with `what` and what was seen last.
#[track_caller]
pub fn eventually<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    match until(PATIENCE, look) {
        Ok(fact) => fact,
        Err(seen) => panic!("{what}: {seen}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_seen_last_is_told() {
        let mut n_looks = 0;
        let verdict = until(Duration::ZERO, || -> Result<(), String> {
            n_looks += 1;
            Err(format!("look {n_looks}"))
        });
        assert_eq!(verdict, Err("after 0 s: look 1".to_string()));
    }

    #[test]
    fn a_fact_ends_the_wait() {
        let mut n_looks = 0;
        let verdict = until(PATIENCE, || {
            n_looks += 1;
            if n_looks == 3 {
                Ok(n_looks)
            } else {
                Err("not yet".to_string())
            }
        });
        assert_eq!(verdict, Ok(3));
    }
}
