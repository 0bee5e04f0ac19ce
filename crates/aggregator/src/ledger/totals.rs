//! Counters that outlive rows: what was counted stays counted, whatever happens to the rows.
//!
//! A [`Meter`] says what each new event adds; the ledger writes it in the event's transaction and
//! shows the sums as [`Totals`]. They are never derived from rows, so restarts, retention and
//! repricing never make them fall.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use crate::ledger::Entry;

/// Which part of an event's life is being counted.
#[derive(Clone, Copy, Debug)]
pub enum Occasion<'a> {
    /// The event is new to the ledger.
    New,
    /// A row that was counted before, without usage or with an estimate, received its usage and
    /// cost. The entry is the completed row; its request is counted already, and so is what this
    /// earlier state of it had.
    Completed(&'a Entry),
    /// A row that never had a cost has one now. All else of it is counted already.
    NewlyPriced,
}

/// What a commit did.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    /// From the transaction's begin to its durability.
    pub elapsed: Duration,
    /// Rows that it added.
    pub n_rows: u64,
}

/// Says what events add to which series. Called on the writer thread, so it has to be quick.
pub trait Meter: Send + 'static {
    /// Called once for each event that is new, newly completed or newly priced, before its
    /// transaction ends.
    /// Should the transaction fail, the increments are forgotten, and the event will come again.
    fn measure(&mut self, entry: &Entry, occasion: Occasion<'_>, increments: &mut Increments);

    /// Called after each commit, when [`Totals`] already show it.
    fn committed(&mut self, commit: Committed) {
        let _ = commit;
    }
}

/// The meter that counts nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoMeter;

/// What one transaction adds. Series are text that the meter chooses, such as
/// `team="checkout",model="gpt-5"`; the ledger only compares them.
#[derive(Clone, Debug, Default)]
pub struct Increments {
    counters: Vec<(&'static str, Series<i128>)>,
    histograms: Vec<(&'static str, Series<Histogram>)>,
}

/// What is known of the series of a metric, with one look for a known one.
#[derive(Clone, Debug, Default)]
struct Series<T> {
    places: HashMap<String, usize>,
    values: Vec<T>,
}

/// Observations by upper bound, in the metric's own integer unit (milliseconds, pico-dollars).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// Observations in each bucket alone (not cumulative), by the bucket's upper bound;
    /// [`Histogram::ABOVE`] holds what is above all bounds. Buckets without observations may miss.
    pub buckets: BTreeMap<i64, u64>,
    /// The sum of all observations.
    pub sum: i128,
}

/// All counters and histograms since the ledger began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    counters: BTreeMap<String, BTreeMap<String, i128>>,
    histograms: BTreeMap<String, BTreeMap<String, Histogram>>,
}

/// What some totals have and others have not.
#[derive(Debug, Default)]
pub(super) struct Beyond<'a> {
    /// Metric, series, amount.
    pub(super) totals: Vec<(&'a str, &'a str, i128)>,
    /// Metric, series, upper bound, observations.
    pub(super) buckets: Vec<(&'a str, &'a str, i64, u64)>,
}

impl Meter for NoMeter {
    fn measure(&mut self, _: &Entry, _: Occasion<'_>, _: &mut Increments) {}
}

// === impl Histogram ===

impl Histogram {
    /// The bound of the bucket above all others (`+Inf`).
    pub const ABOVE: i64 = i64::MAX;

    /// Observations in all buckets.
    pub fn count(&self) -> u64 {
        self.buckets.values().sum()
    }

    fn merge(&mut self, more: &Histogram) {
        self.sum = self.sum.saturating_add(more.sum);
        for (bound, n) in &more.buckets {
            let slot = self.buckets.entry(*bound).or_default();
            *slot = slot.saturating_add(*n);
        }
    }
}

// === impl Increments ===

impl Increments {
    /// Adds to a counter; an amount of zero makes the series known. Counters never fall: a negative
    /// amount is taken as zero.
    pub fn add(&mut self, metric: &'static str, series: &str, amount: i128) {
        let slot = slot(&mut self.counters, metric, series);
        *slot = slot.saturating_add(amount.max(0));
    }

    /// Counts an observation in the bucket that ends at the first of `bounds` (ascending) that is
    /// not below it.
    pub fn observe(&mut self, metric: &'static str, series: &str, bounds: &[i64], value: i64) {
        let i = bounds.partition_point(|bound| *bound < value);
        let bound = bounds.get(i).copied().unwrap_or(Histogram::ABOVE);
        let histogram = slot(&mut self.histograms, metric, series);
        *histogram.buckets.entry(bound).or_default() += 1;
        histogram.sum = histogram.sum.saturating_add(i128::from(value.max(0)));
    }

    pub(crate) fn counters(&self) -> impl Iterator<Item = (&'static str, &str, i128)> {
        self.counters
            .iter()
            .flat_map(|(metric, series)| series.iter().map(|(name, n)| (*metric, name, *n)))
    }

    pub(crate) fn histograms(&self) -> impl Iterator<Item = (&'static str, &str, &Histogram)> {
        self.histograms
            .iter()
            .flat_map(|(metric, series)| series.iter().map(|(name, h)| (*metric, name, h)))
    }
}

/// The place of a series, made where it is new; known ones cost no allocation.
fn slot<'a, T: Default>(
    metrics: &'a mut Vec<(&'static str, Series<T>)>,
    metric: &'static str,
    series: &str,
) -> &'a mut T {
    let at = match metrics.iter().position(|(name, _)| *name == metric) {
        Some(at) => at,
        None => {
            metrics.push((metric, Series::default()));
            metrics.len() - 1
        }
    };
    metrics[at].1.slot(series)
}

// === impl Series ===

impl<T: Default> Series<T> {
    fn slot(&mut self, series: &str) -> &mut T {
        let at = match self.places.get(series) {
            Some(at) => *at,
            None => {
                self.places.insert(series.to_owned(), self.values.len());
                self.values.push(T::default());
                self.values.len() - 1
            }
        };
        &mut self.values[at]
    }

    fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        let places = self.places.iter();
        places.map(|(series, at)| (series.as_str(), &self.values[*at]))
    }
}

// === impl Totals ===

impl Totals {
    /// The series of a counter with their values, in the order of their names.
    pub fn counter(&self, metric: &str) -> impl Iterator<Item = (&str, i128)> {
        self.counters
            .get(metric)
            .into_iter()
            .flatten()
            .map(|(series, n)| (series.as_str(), *n))
    }

    /// The series of a histogram, in the order of their names.
    pub fn histogram(&self, metric: &str) -> impl Iterator<Item = (&str, &Histogram)> {
        self.histograms
            .get(metric)
            .into_iter()
            .flatten()
            .map(|(series, histogram)| (series.as_str(), histogram))
    }

    /// The names of all counters that have a series.
    pub fn counter_names(&self) -> impl Iterator<Item = &str> {
        self.counters.keys().map(String::as_str)
    }

    /// Sets what a counter or the sum of a histogram holds; buckets are to be set before.
    pub(super) fn set_total(&mut self, metric: &str, series: &str, value: i128) {
        let histogram = self
            .histograms
            .get_mut(metric)
            .and_then(|known| known.get_mut(series));
        match histogram {
            Some(histogram) => histogram.sum = value,
            None => *total_slot(&mut self.counters, metric, series) = value,
        }
    }

    pub(super) fn set_bucket(&mut self, metric: &str, series: &str, upto: i64, n: u64) {
        let histogram: &mut Histogram = total_slot(&mut self.histograms, metric, series);
        histogram.buckets.insert(upto, n);
    }

    /// What these totals have and `stored` has not.
    pub(super) fn beyond<'a>(&'a self, stored: &Totals) -> Beyond<'a> {
        let mut beyond = Beyond::default();
        for (metric, known) in &self.counters {
            for (series, n) in known {
                let there = stored.counters.get(metric).and_then(|s| s.get(series));
                let missing = n - there.copied().unwrap_or(0);
                if missing > 0 {
                    beyond.totals.push((metric, series, missing));
                }
            }
        }
        for (metric, known) in &self.histograms {
            for (series, histogram) in known {
                let there = stored.histograms.get(metric).and_then(|s| s.get(series));
                beyond.add_histogram(metric, series, histogram, there);
            }
        }
        beyond
    }

    pub(super) fn merge(&mut self, increments: &Increments) {
        for (metric, series, n) in increments.counters() {
            let total = total_slot(&mut self.counters, metric, series);
            *total = total.saturating_add(n);
        }
        for (metric, series, histogram) in increments.histograms() {
            total_slot(&mut self.histograms, metric, series).merge(histogram);
        }
    }
}

impl<'a> Beyond<'a> {
    /// Whether nothing is missing.
    pub(super) fn is_empty(&self) -> bool {
        self.totals.is_empty() && self.buckets.is_empty()
    }

    fn add_histogram(
        &mut self,
        metric: &'a str,
        series: &'a str,
        known: &'a Histogram,
        stored: Option<&Histogram>,
    ) {
        let missing = known.sum - stored.map_or(0, |there| there.sum);
        if missing > 0 {
            self.totals.push((metric, series, missing));
        }
        for (upto, n) in &known.buckets {
            let there = stored.and_then(|there| there.buckets.get(upto));
            let missing = n.saturating_sub(there.copied().unwrap_or(0));
            if missing > 0 {
                self.buckets.push((metric, series, *upto, missing));
            }
        }
    }
}

fn total_slot<'a, T: Default>(
    metrics: &'a mut BTreeMap<String, BTreeMap<String, T>>,
    metric: &str,
    series: &str,
) -> &'a mut T {
    if !metrics.contains_key(metric) {
        metrics.insert(metric.to_owned(), BTreeMap::new());
    }
    let known = metrics
        .get_mut(metric)
        .expect("was inserted above if it was missing");
    if !known.contains_key(series) {
        known.insert(series.to_owned(), T::default());
    }
    known
        .get_mut(series)
        .expect("was inserted above if it was missing")
}
