//! What all workers of one proxy share: values by key, replaced only as they were last seen.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;

/// How often a change is tried while other workers change the same value. Each try that fails is
/// another worker's success, so that as many workers as a machine has cores cannot exhaust this.
const TRIES_MAX: usize = 256;
/// How far ahead of its rate a pace may run, microseconds: a second's calls may come at once.
const BURST_US: i64 = 1_000_000;

/// Values that every worker of a proxy sees.
pub trait Shared: fmt::Debug {
    /// The value, and a mark that changes with it.
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)>;

    /// Sets the value if its mark is still that one (`None`: if there is no value yet). False where
    /// somebody else was first.
    fn set(&self, key: &str, value: &[u8], mark: Option<u32>) -> bool;

    /// Sets the value, whatever it was.
    fn put(&self, key: &str, value: &[u8]);
}

/// Takes `n` out of what `max` allows in all; whether that was still there.
pub fn spend(shared: &dyn Shared, key: &str, n: u64, max: u64) -> bool {
    change(shared, key, |spent| {
        let spent = spent.map_or(Some(0), |spent| u64::try_from(spent).ok())?;
        let spent = spent.checked_add(n).filter(|spent| *spent <= max)?;
        i64::try_from(spent).ok()
    })
}

/// Whether one more call keeps to so many a second. What was not used for a second is not saved up.
pub fn pace(shared: &dyn Shared, key: &str, per_second: u32, now_ms: i64) -> bool {
    if per_second == 0 {
        return false;
    }
    let interval_us = (1_000_000 / i64::from(per_second)).max(1);
    let now_us = now_ms.saturating_mul(1_000);
    change(shared, key, |due| {
        // By then all calls so far were due. A clock that was set back would keep calls out for
        // long, so what is too far ahead is none of this clock's.
        let due = due.filter(|due| due - now_us <= 2 * BURST_US);
        let due = due.unwrap_or(now_us).max(now_us);
        (due + interval_us - now_us <= BURST_US.max(interval_us)).then_some(due + interval_us)
    })
}

/// Leaves a number there for whoever takes it; it is added to what is there.
pub fn leave(shared: &dyn Shared, key: &str, n: u64) {
    let n = i64::try_from(n).unwrap_or(i64::MAX);
    change(shared, key, |left| {
        Some(left.unwrap_or(0).saturating_add(n))
    });
}

/// Takes what was left there.
pub fn take(shared: &dyn Shared, key: &str) -> u64 {
    let taken = Cell::new(0);
    let is_taken = change(shared, key, |left| {
        taken.set(u64::try_from(left?).unwrap_or(0));
        (taken.get() > 0).then_some(0)
    });
    if is_taken { taken.get() } else { 0 }
}

/// Changes a number, unless `next` says that it must stay; whether it was changed.
fn change(shared: &dyn Shared, key: &str, next: impl Fn(Option<i64>) -> Option<i64>) -> bool {
    for _ in 0..TRIES_MAX {
        let (number, mark) = match shared.get(key) {
            Some((bytes, mark)) => (number(&bytes), Some(mark)),
            None => (None, None),
        };
        let Some(next) = next(number) else {
            return false;
        };
        if shared.set(key, &next.to_le_bytes(), mark) {
            return true;
        }
    }
    false
}

/// A number as [`Shared`] values have it.
pub fn number(bytes: &[u8]) -> Option<i64> {
    Some(i64::from_le_bytes(bytes.try_into().ok()?))
}

/// Values that one process keeps for itself, where there is no host.
#[derive(Debug, Default)]
pub struct Private {
    values: RefCell<BTreeMap<String, (Vec<u8>, u32)>>,
    n_changes: Cell<u32>,
}

impl Shared for Private {
    fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
        self.values.borrow().get(key).cloned()
    }

    fn set(&self, key: &str, value: &[u8], mark: Option<u32>) -> bool {
        let is_as_seen = self.values.borrow().get(key).map(|(_, mark)| *mark) == mark;
        if is_as_seen {
            self.put(key, value);
        }
        is_as_seen
    }

    fn put(&self, key: &str, value: &[u8]) {
        let mark = self.n_changes.get().wrapping_add(1);
        self.n_changes.set(mark);
        let mut values = self.values.borrow_mut();
        values.insert(key.to_owned(), (value.to_vec(), mark));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_spent_never_passes_what_is_allowed() {
        let shared = Private::default();
        assert!(spend(&shared, "k", 6, 10));
        assert!(!spend(&shared, "k", 5, 10));
        assert!(spend(&shared, "k", 4, 10));
        assert!(!spend(&shared, "k", 1, 10));
        assert!(spend(&shared, "k", 0, 10));
        assert!(!spend(&shared, "k", u64::MAX, u64::MAX));
        assert!(spend(&shared, "other", 1, 1));
    }

    #[test]
    fn what_is_left_is_taken_once() {
        let shared = Private::default();
        assert_eq!(take(&shared, "k"), 0);
        leave(&shared, "k", 3);
        leave(&shared, "k", 4);
        assert_eq!(take(&shared, "other"), 0);
        assert_eq!(take(&shared, "k"), 7);
        assert_eq!(take(&shared, "k"), 0);
        leave(&shared, "k", 1);
        assert_eq!(take(&shared, "k"), 1);
    }

    /// Another worker is faster at each first try.
    #[derive(Debug, Default)]
    struct Rival(Private, Cell<u32>);

    impl Shared for Rival {
        fn get(&self, key: &str) -> Option<(Vec<u8>, u32)> {
            self.0.get(key)
        }

        fn set(&self, key: &str, value: &[u8], mark: Option<u32>) -> bool {
            self.1.set(self.1.get() + 1);
            if self.1.get() % 2 == 1 {
                let now = self.0.get(key).and_then(|(bytes, _)| number(&bytes));
                self.0.put(key, &(now.unwrap_or(0) + 1).to_le_bytes());
            }
            self.0.set(key, value, mark)
        }

        fn put(&self, key: &str, value: &[u8]) {
            self.0.put(key, value);
        }
    }

    #[test]
    fn a_rivals_change_is_not_lost() {
        let rival = Rival::default();
        assert!(spend(&rival, "k", 2, 10));
        assert!(spend(&rival, "k", 2, 10));
        let (bytes, _) = rival.get("k").expect("is there");
        assert_eq!(number(&bytes), Some(6));
    }

    #[test]
    fn a_clock_that_was_set_back_keeps_nobody_out() {
        let shared = Private::default();
        assert!(pace(&shared, "k", 1, 3_600_000));
        assert!(!pace(&shared, "k", 1, 3_600_000));
        assert!(pace(&shared, "k", 1, 0));
        assert!(!pace(&shared, "none", 0, 0));
    }

    proptest! {
        #[test]
        fn no_more_pass_than_the_pace_and_one_burst(
            per_second in 1_u32..50,
            steps_ms in proptest::collection::vec(0_i64..400, 1..200),
        ) {
            let shared = Private::default();
            let (mut now_ms, mut n_passed) = (0, 0_i64);
            for step_ms in &steps_ms {
                now_ms += step_ms;
                n_passed += i64::from(pace(&shared, "k", per_second, now_ms));
            }
            let rate = i64::from(per_second);
            prop_assert!(n_passed <= rate + now_ms * rate / 1_000 + 1, "{n_passed} in {now_ms} ms");
        }
    }
}
