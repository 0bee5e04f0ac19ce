//! How the table comes: one worker of a proxy asks the aggregator, the others read what it got.

use super::{Decisions, Table};
use crate::shared::{Shared, number};

/// How long the aggregator may wait for a change before it answers, milliseconds. As long as that a
/// table may be out of date where the aggregator fell silent without a word.
pub const WAIT_MS: u32 = 15_000;
/// The longest table that is taken, bytes: some 50,000 keys that have reached a tier.
pub const TABLE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How long one worker is the one that asks, milliseconds, unless it renews that. It does on each
/// tick, so that another takes over soon after it was unloaded.
const LEASE_MS: i64 = 3_000;
/// The first wait after a failure, milliseconds. It doubles with each.
const BACKOFF_MS_MIN: i64 = 250;
/// The longest wait between two attempts, milliseconds.
const BACKOFF_MS_MAX: i64 = 5_000;

/// One worker's part in it.
#[derive(Debug)]
pub struct Poller {
    /// Who asks: a worker's name, and until when.
    lease_key: String,
    /// The version of the table at `table_key`.
    version_key: String,
    /// The table, as it came.
    table_key: String,
    worker: String,
    is_asking: bool,
    n_failures: u32,
    not_before_ms: i64,
}

/// What came of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Another table is in force.
    Table,
    /// Nothing has changed.
    None,
    /// It was no answer.
    Failure,
}

impl Poller {
    /// The part of that worker; workers whose aggregator is the same cluster share a table.
    pub fn new(cluster: &str, worker: &str) -> Poller {
        let key = |thing| format!("tollmesh/{thing}/{cluster}");
        Poller {
            lease_key: key("decisions-lease"),
            version_key: key("decisions-version"),
            table_key: key("decisions"),
            worker: worker.to_owned(),
            is_asking: false,
            n_failures: 0,
            not_before_ms: 0,
        }
    }

    /// Takes over the table that another worker got, if there is a newer one.
    pub fn refresh(&self, shared: &dyn Shared, decisions: &Decisions) {
        let version = shared.get(&self.version_key);
        let version = version.and_then(|(bytes, _)| number(&bytes));
        if version.is_none() || version == decisions.version().map(u64::cast_signed) {
            return;
        }
        let stored = shared.get(&self.table_key);
        let table = stored.and_then(|(json, _)| Table::read(&json).ok());
        if let Some(table) = table {
            decisions.replace(table);
        }
    }

    /// The path to ask for, where it is this worker's turn to ask.
    pub fn next(
        &mut self,
        shared: &dyn Shared,
        decisions: &Decisions,
        now_ms: i64,
    ) -> Option<String> {
        if !self.holds_lease(shared, now_ms) || self.is_asking || self.is_waiting(now_ms) {
            return None;
        }
        self.is_asking = true;
        // Whoever knows no table takes any, at once.
        let (after, wait_ms) = match decisions.version() {
            Some(version) => (version, WAIT_MS),
            None => (0, 0),
        };
        Some(format!("/v1/decisions?after={after}&wait_ms={wait_ms}"))
    }

    /// Takes the answer to what [`Poller::next`] asked; `None` where the question could not be sent.
    pub fn answered(
        &mut self,
        shared: &dyn Shared,
        decisions: &Decisions,
        answer: Option<(u16, &[u8])>,
        now_ms: i64,
    ) -> News {
        self.is_asking = false;
        let news = match answer {
            Some((200, json)) => self.take(shared, decisions, json),
            Some((204 | 304, _)) => News::None,
            _ => News::Failure,
        };
        match news {
            News::Failure => {
                let pause_ms = BACKOFF_MS_MIN << self.n_failures.min(10);
                self.not_before_ms = now_ms + pause_ms.min(BACKOFF_MS_MAX);
                self.n_failures = self.n_failures.saturating_add(1);
            }
            News::Table | News::None => self.n_failures = 0,
        }
        news
    }

    fn take(&self, shared: &dyn Shared, decisions: &Decisions, json: &[u8]) -> News {
        if json.len() > TABLE_BYTES_MAX {
            return News::Failure;
        }
        let Ok(table) = Table::read(json) else {
            return News::Failure;
        };
        if decisions.version() == Some(table.version()) {
            return News::None;
        }
        shared.put(&self.table_key, json);
        // After the table, so that who sees the version finds the table.
        let version = table.version().cast_signed();
        shared.put(&self.version_key, &version.to_le_bytes());
        decisions.replace(table);
        News::Table
    }

    /// Whether this worker is the one that asks; it becomes it where nobody is.
    fn holds_lease(&self, shared: &dyn Shared, now_ms: i64) -> bool {
        let lease = shared.get(&self.lease_key);
        let mark = lease.as_ref().map(|(_, mark)| *mark);
        let lease = lease.as_ref().and_then(|(bytes, _)| read_lease(bytes));
        if let Some((holder, until_ms)) = lease {
            let left_ms = until_ms - now_ms;
            // One that ends later than any lease does is of a clock that was set back.
            let is_held = (1..=LEASE_MS).contains(&left_ms);
            let is_ours = holder == self.worker;
            if is_held && (!is_ours || left_ms > LEASE_MS / 2) {
                return is_ours;
            }
        }
        let until_ms = now_ms + LEASE_MS;
        let renewed = format!("{until_ms} {}", self.worker);
        shared.set(&self.lease_key, renewed.as_bytes(), mark)
    }

    fn is_waiting(&self, now_ms: i64) -> bool {
        let left_ms = self.not_before_ms.saturating_sub(now_ms);
        (1..=BACKOFF_MS_MAX).contains(&left_ms)
    }
}

fn read_lease(bytes: &[u8]) -> Option<(&str, i64)> {
    let (until_ms, holder) = std::str::from_utf8(bytes).ok()?.split_once(' ')?;
    Some((holder, until_ms.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::Private;

    const FIRST: &[u8] = br#"{"v":1,"version":5,"budgets":[{"budget":"b"}]}"#;
    const SECOND: &[u8] = br#"{"v":1,"version":2}"#;

    #[test]
    fn one_asks_and_all_know() {
        let shared = Private::default();
        let (a, b) = (Decisions::default(), Decisions::default());
        let (mut first, mut second) = (Poller::new("c", "vm-1"), Poller::new("c", "vm-2"));
        let at_once = Some("/v1/decisions?after=0&wait_ms=0".to_owned());
        assert_eq!(first.next(&shared, &a, 0), at_once);
        assert_eq!(first.next(&shared, &a, 10), None, "one question at a time");
        assert_eq!(second.next(&shared, &b, 10), None, "one worker asks");
        let news = first.answered(&shared, &a, Some((200, FIRST)), 20);
        assert_eq!((news, a.version()), (News::Table, Some(5)));
        second.refresh(&shared, &b);
        assert_eq!(b.version(), Some(5));
        assert!(b.has_budgets());

        let long = Some(format!("/v1/decisions?after=5&wait_ms={WAIT_MS}"));
        assert_eq!(first.next(&shared, &a, 30), long);
        let news = first.answered(&shared, &a, Some((200, FIRST)), 40);
        assert_eq!(news, News::None);
        assert_eq!(
            first.answered(&shared, &a, Some((304, b"")), 40),
            News::None
        );
        // Another life of the aggregator counts from elsewhere.
        first.answered(&shared, &a, Some((200, SECOND)), 50);
        second.refresh(&shared, &b);
        assert_eq!((a.version(), b.version()), (Some(2), Some(2)));
        assert!(!b.has_budgets());
    }

    #[test]
    fn the_lease_is_renewed_and_passes_on() {
        let shared = Private::default();
        let decisions = Decisions::default();
        let (mut first, mut second) = (Poller::new("c", "vm-1"), Poller::new("c", "vm-2"));
        assert!(first.next(&shared, &decisions, 1_000_000).is_some());
        for at_ms in [1_001_000, 1_002_000, 1_003_500, 1_005_000] {
            assert_eq!(first.next(&shared, &decisions, at_ms), None);
            assert_eq!(second.next(&shared, &decisions, at_ms), None, "{at_ms}");
        }
        // The first was unloaded.
        assert!(second.next(&shared, &decisions, 1_009_000).is_some());
        assert_eq!(first.next(&shared, &decisions, 1_009_001), None);
        // The clock is set back by hours.
        first.answered(&shared, &decisions, None, 1_009_001);
        assert!(first.next(&shared, &decisions, 1_000).is_some());
    }

    #[test]
    fn failures_are_asked_again_after_a_pause_and_change_nothing() {
        let shared = Private::default();
        let decisions = Decisions::default();
        let mut poller = Poller::new("c", "vm");
        poller.next(&shared, &decisions, 0);
        poller.answered(&shared, &decisions, Some((200, FIRST)), 0);
        let too_long = vec![b' '; TABLE_BYTES_MAX + 1];
        let failures: [Option<(u16, &[u8])>; 5] = [
            None,
            Some((503, b"")),
            Some((404, b"")),
            Some((200, b"{")),
            Some((200, &too_long)),
        ];
        let mut now_ms = 0;
        for (n, failure) in failures.into_iter().enumerate() {
            assert!(poller.next(&shared, &decisions, now_ms).is_some());
            let news = poller.answered(&shared, &decisions, failure, now_ms);
            assert_eq!(news, News::Failure);
            let pause_ms = (250 << n).min(BACKOFF_MS_MAX);
            assert_eq!(
                poller.next(&shared, &decisions, now_ms + pause_ms - 1),
                None
            );
            now_ms += pause_ms;
        }
        assert_eq!(decisions.version(), Some(5));
    }
}
