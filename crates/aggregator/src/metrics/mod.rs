//! Everything that `/metrics` shows.

mod kept;
mod meter;
mod series;
pub(crate) mod text;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
};
use prometheus::{Registry, TextEncoder};

use crate::config;
use crate::ledger::{Ledger, Totals};
pub use meter::LabelMeter;
use series::SeriesBook;
pub use text::push_pair;

/// Declares the metrics of the process: the doc comment is the help text, the field's name with
/// `tollmesh_` before it the metric's, the words in brackets its labels.
macro_rules! metrics {
    (
        $(#[$outer:meta])*
        pub struct $name:ident {
            $( $(#[doc = $help:literal])+ pub $field:ident: $kind:ty $([$($label:literal),+])?, )+
        }
    ) => {
        $(#[$outer])*
        pub struct $name {
            registry: Registry,
            drops: Mutex<Drops>,
            releases: Mutex<HashSet<String>>,
            $( $(#[doc = $help])+ pub $field: $kind, )+
        }

        impl $name {
            /// All metrics, at zero.
            pub fn new() -> Result<$name, prometheus::Error> {
                let registry = Registry::new();
                Ok($name {
                    $( $field: <$kind as Declared>::declare(
                        concat!("tollmesh_", stringify!($field)),
                        concat!($($help),+).trim(),
                        &[$($($label),+)?],
                        &registry,
                    )?, )+
                    registry,
                    drops: Mutex::default(),
                    releases: Mutex::default(),
                })
            }
        }
    };
}

metrics! {
    /// What the process counts itself; what the ledger keeps for it is declared in `kept`.
    pub struct Metrics {
        /// Events that are now in the ledger.
        pub events_accepted_total: IntCounter,
        /// Events that were in the ledger already; nothing was counted twice.
        pub events_duplicate_total: IntCounter,
        /// Events in quarantine, because they could not be read or contradict themselves.
        pub events_rejected_total: IntCounter,
        /// Events that came when rows of their time were deleted; not counted, since they may have been.
        pub events_forgotten_total: IntCounter,
        /// Events that filters lost because their queues were full, as they tell it.
        pub events_dropped_total: IntCounter,
        /// Retrieved usage that no recorded call waits for; nothing was charged.
        pub late_usage_unmatched_total: IntCounter,
        /// Batches that were not taken because the ledger could not keep up; they come again.
        pub batches_deferred_total: IntCounter,
        /// Batches that could not be read: of another wire version, or not a filter's.
        pub batches_refused_total: IntCounter,
        /// Requests of filters whose bodies did not come in time; they were cut, and answered 408.
        pub bodies_late_total: IntCounter,
        /// Batches that had to wait for room before they were read or priced.
        pub batches_delayed_total: IntCounter,
        /// Times that a listener could not accept a connection: mostly no descriptor was left.
        pub accept_failures_total: IntCounter,
        /// Batches that were taken, by the release of the filter that sent them.
        pub filter_batches_total: IntCounterVec ["version"],
        /// When the last batch was taken, in seconds since 1970; 0 where none was since the start.
        pub last_batch_timestamp_seconds: IntGauge,
        /// Values and series that a cap turned into __other__, by label; "series" is max_series.
        pub label_overflows_total: IntCounterVec ["label"],
        /// Request-level rows in the ledger.
        pub ledger_rows: IntGauge,
        /// The size of the ledger's file with damaged ones beside it, without its write-ahead log.
        pub ledger_bytes: IntGauge,
        /// What retention.max_size allows; 0 where it sets no bound.
        pub ledger_bytes_max: IntGauge,
        /// Whether the ledger is larger than that, and because of what: calls that are "pending" for
        /// postgres.url, "recent" calls, or "sums".
        pub ledger_over_bound: IntGaugeVec ["because"],
        /// How far the clock is ahead of when it was last believed; 0 where it is. Else no call is deleted
        /// for its age.
        pub ledger_clock_ahead_seconds: IntGauge,
        /// Single calls that retention deleted: for their "age", or for the file's "size".
        pub ledger_deleted_rows_total: IntCounterVec ["reason"],
        /// Whether the last commit succeeded.
        pub ledger_writable: IntGauge,
        /// Damaged ledger files that were set aside since the process began; alert on any.
        pub ledger_set_aside: IntGauge,
        /// How often the ledger's files were moved, deleted or replaced while they were written, since
        /// the process began; alert on any.
        pub ledger_moved: IntGauge,
        /// From the begin of a ledger transaction to its durability.
        pub ledger_commit_seconds: Histogram,
        /// Since the newest date on which a price in force was checked.
        pub price_table_age_seconds: IntGauge,
        /// Whether the newest price files are in force; 0 where they are bad and the old ones stay.
        pub price_reload_successful: IntGauge,
        /// Age of the oldest call that is yet to be forwarded to postgres.url; 0 where none waits.
        pub forward_lag_seconds: IntGauge,
        /// Calls that are yet to be forwarded, new ones and altered ones.
        pub forward_pending_rows: IntGauge,
        /// Calls that postgres.url has taken, each as often as it was sent.
        pub forwarded_rows_total: IntCounter,
        /// Visits to postgres.url that failed; what was to be forwarded waits in the ledger.
        pub forward_failures_total: IntCounter,
        /// Calls that postgres.url does not keep, by reason: refused, outside_retention, or no_room (the
        /// ledger had to delete them first).
        pub forward_skipped_rows_total: IntCounterVec ["reason"],
        /// Age of the oldest call that otlp.endpoint is yet to be told of; 0 where none waits.
        pub otlp_lag_seconds: IntGauge,
        /// Calls that otlp.endpoint is yet to be told of.
        pub otlp_pending_rows: IntGauge,
        /// Calls that otlp.endpoint was told of, by signal.
        pub otlp_exported_rows_total: IntCounterVec ["signal"],
        /// Visits to otlp.endpoint that failed; what it is to be told of waits in the ledger.
        pub otlp_failures_total: IntCounter,
        /// Calls that otlp.endpoint never takes, by signal and reason: refused, rejected, or deleted (by
        /// retention, before it was told).
        pub otlp_skipped_rows_total: IntCounterVec ["signal", "reason"],
        /// Calls that a budget refused.
        pub budget_denied_requests_total: IntCounterVec ["budget"],
        /// Calls in flight that something is reserved for.
        pub budget_open_reservations: IntGauge,
        /// Time that a reservation took here, from its last byte to its answer.
        pub budget_reservation_seconds: Histogram,
        /// Whether the store of leases answered the last time; 1 without redis.url.
        pub budget_store_up: IntGauge,
        /// Whether the newest budgets' file is in force; 0 where it is bad and the old one stays.
        pub budget_reload_successful: IntGauge,
        /// Calls charged to the account that keys beyond a budget's first 10,000 share.
        pub budget_other_keys_requests_total: IntCounterVec ["budget"],
        /// Keys above a tier that found no room in the table for filters.
        pub budget_keys_untold_total: IntCounter,
        /// Attempts to tell a receiver of an alert, by outcome: taken, failed (it is tried again), or
        /// given_up.
        pub alert_deliveries_total: IntCounterVec ["receiver", "channel", "outcome"],
        /// Alerts that found no room in a queue; one that is noticed again is told then.
        pub alerts_dropped_total: IntCounter,
        /// Calls that a guard found wrong, by reason and what was done: deny, warn or observe.
        pub guard_trips_total: IntCounterVec ["guard", "reason", "action"],
        /// Traces, sessions and the like that guards forgot, since too many are alive.
        pub guard_forgotten_total: IntCounter,
        /// 1, with what is running.
        pub build_info: IntGaugeVec ["version"],
    }
}

/// What each filter VM has said it dropped.
#[derive(Default)]
struct Drops {
    by_vm: HashMap<String, u64>,
}

/// VMs remembered; beyond it all are forgotten, so that a restart storm costs no memory. A VM that
/// is still there would then have its drops counted twice, which errs on the side of alarm.
const VMS_MAX: usize = 4096;

/// Releases of filters that are told apart: a rollout has two. Whoever reaches the ingest listener
/// could name any.
const RELEASES_MAX: usize = 16;
const RELEASE_BYTES_MAX: usize = 32;

/// Reservations take tens of microseconds; commits a fraction of a millisecond on a good disk and a
/// second on a bad one.
const SECONDS: &[f64] = &[
    0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0,
];

/// What a metric's type must be able to do to be declared.
trait Declared: Sized {
    fn declare(
        name: &str,
        help: &str,
        labels: &[&str],
        registry: &Registry,
    ) -> prometheus::Result<Self>;
}

macro_rules! declared {
    ($kind:ty, |$name:ident, $help:ident, $labels:ident| $make:expr) => {
        impl Declared for $kind {
            fn declare(
                $name: &str,
                $help: &str,
                $labels: &[&str],
                registry: &Registry,
            ) -> prometheus::Result<$kind> {
                let metric = $make?;
                registry.register(Box::new(metric.clone()))?;
                Ok(metric)
            }
        }
    };
}

declared!(IntCounter, |name, help, _labels| IntCounter::new(
    name, help
));
declared!(IntGauge, |name, help, _labels| IntGauge::new(name, help));
declared!(IntCounterVec, |name, help, labels| IntCounterVec::new(
    Opts::new(name, help),
    labels
));
declared!(IntGaugeVec, |name, help, labels| IntGaugeVec::new(
    Opts::new(name, help),
    labels
));
declared!(Histogram, |name, help, _labels| Histogram::with_opts(
    HistogramOpts::new(name, help).buckets(SECONDS.to_vec())
));

// === impl Metrics ===

impl Metrics {
    /// Counts what a cap turned into `__other__`.
    fn overflowed(&self, label: &str) {
        self.label_overflows_total.with_label_values(&[label]).inc();
    }

    /// Notes that a filter of that release was heard, at that time.
    pub fn heard(&self, version: &str, now_seconds: i64) {
        self.last_batch_timestamp_seconds.set(now_seconds);
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || ".-+".contains(letter);
        let is_release =
            (1..=RELEASE_BYTES_MAX).contains(&version.len()) && version.chars().all(is_plain);
        let mut releases = self.releases.lock().unwrap_or_else(PoisonError::into_inner);
        if is_release && (releases.len() < RELEASES_MAX || releases.contains(version)) {
            releases.insert(version.to_owned());
            self.filter_batches_total
                .with_label_values(&[version])
                .inc();
        } else {
            self.filter_batches_total
                .with_label_values(&["other"])
                .inc();
        }
    }

    /// Takes a filter's word on how many events it has dropped since its VM started.
    pub fn dropped(&self, vm: &str, dropped_total: u64) {
        if dropped_total == 0 {
            return;
        }
        let mut drops = self.drops.lock().unwrap_or_else(PoisonError::into_inner);
        if drops.by_vm.len() >= VMS_MAX && !drops.by_vm.contains_key(vm) {
            drops.by_vm.clear();
        }
        let before = drops.by_vm.entry(vm.to_owned()).or_default();
        // Batches may overtake each other; the counter of a VM never falls.
        self.events_dropped_total
            .inc_by(dropped_total.saturating_sub(*before));
        *before = dropped_total.max(*before);
    }
}

/// The whole exposition: the process's own metrics, and what the ledger keeps.
pub struct Exposition {
    metrics: Arc<Metrics>,
    /// The labels to show, where the ledger has series with others.
    only: Option<Vec<String>>,
}

/// The meter for a ledger that is yet to be opened, and what will restore it.
pub fn meter(config: &config::Metrics, metrics: &Arc<Metrics>) -> (LabelMeter, Slots) {
    let series = Arc::new(Mutex::new(SeriesBook::new(config)));
    let slots = Slots(Arc::clone(&series));
    let meter = LabelMeter::new(series, config.labels.clone(), Arc::clone(metrics));
    (meter, slots)
}

/// The slots of a meter that do not know yet what the ledger holds.
pub struct Slots(Arc<Mutex<SeriesBook>>);

impl Slots {
    /// Gives every series of the ledger its slot again.
    pub fn restore(self, totals: &Totals, metrics: Arc<Metrics>) -> Exposition {
        let mut series = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        meter::restore(&mut series, totals);
        let names = series.names();
        Exposition {
            metrics,
            only: kept::has_stale_labels(totals, &names).then_some(names),
        }
    }
}

impl Exposition {
    /// The text format, version 0.0.4; `more` appends families of its own.
    pub fn text(
        &self,
        ledger: &Ledger,
        more: impl FnOnce(&mut String),
    ) -> Result<String, prometheus::Error> {
        let mut out = String::with_capacity(64 * 1024);
        more(&mut out);
        ledger.totals(|totals| kept::push_families(&mut out, totals, self.only.as_deref()));
        TextEncoder::new().encode_utf8(&self.metrics.registry.gather(), &mut out)?;
        Ok(text::without_controls(out))
    }
}

#[cfg(test)]
mod tests;
