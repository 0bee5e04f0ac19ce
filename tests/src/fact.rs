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

/// Waits until `count` has grown to `wanted`, for as long as it goes on growing: how long much work
/// takes on a machine that is busy says nothing, and that it stands still does.
#[track_caller]
pub fn grows_to(what: &str, wanted: u64, count: impl FnMut() -> Result<u64, String>) {
    if let Err(seen) = grown_to(PATIENCE, wanted, count) {
        panic!("{what}: {seen}");
    }
}

fn grown_to(
    patience: Duration,
    wanted: u64,
    mut count: impl FnMut() -> Result<u64, String>,
) -> Result<(), String> {
    let mut most = None;
    loop {
        // Until it is there, or is more than it was.
        let look = || match count()? {
            n if n >= wanted || most.is_none_or(|most| n > most) => Ok(n),
            n => Err(format!("{n} of {wanted}")),
        };
        match until(patience, look)? {
            n if n >= wanted => return Ok(()),
            n => most = Some(n),
        }
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
    fn what_grows_is_waited_for_and_what_stands_still_is_not() {
        let mut n = 0;
        let grown = grown_to(PATIENCE, 5, || {
            n += 1;
            Ok(n)
        });
        assert_eq!(grown, Ok(()));
        let still = grown_to(Duration::ZERO, 5, || Ok(4));
        assert_eq!(still, Err("after 0 s: 4 of 5".to_string()));
        let away = grown_to(Duration::ZERO, 5, || Err("no answer".to_string()));
        assert_eq!(away, Err("after 0 s: no answer".to_string()));
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
