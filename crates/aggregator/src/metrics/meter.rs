//! What each event adds to the counters that the ledger keeps.

use std::sync::{Arc, Mutex, PoisonError};

use tollmesh_usage::UsageSource;
use tollmesh_wire::event::{Event, Outcome};
use tollmesh_wire::plugin::is_tag_name;

use super::Metrics;
use super::kept::{self, Family};
use super::series::{Direction, Kind, LabelSet, SeriesBook};
use super::text::{pairs, push_pair};
use crate::ledger::totals::Committed;
use crate::ledger::{Entry, Increments, Meter, Occasion, Totals};

/// Counts events by the labels that the configuration allows.
pub struct LabelMeter {
    series: Arc<Mutex<SeriesBook>>,
    tags: Vec<String>,
    metrics: Arc<Metrics>,
}

/// One event being counted.
struct Tally<'a> {
    series: &'a mut SeriesBook,
    metrics: &'a Metrics,
    event: &'a Event,
    set: LabelSet,
    increments: &'a mut Increments,
}

// === impl LabelMeter ===

impl LabelMeter {
    /// A meter that gives its slots in that book and counts the lack of these tags.
    ///
    /// The ledger's totals are known only once it is open, with this meter; [`restore`] then
    /// brings the book where they stand.
    pub fn new(
        series: Arc<Mutex<SeriesBook>>,
        tags: Vec<String>,
        metrics: Arc<Metrics>,
    ) -> LabelMeter {
        LabelMeter {
            series,
            tags,
            metrics,
        }
    }
}

impl Meter for LabelMeter {
    fn measure(&mut self, entry: &Entry, occasion: Occasion<'_>, increments: &mut Increments) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let metrics = &self.metrics;
        let set = series.set_of(&entry.event, |label| metrics.overflowed(label));
        let mut tally = Tally {
            series: &mut series,
            metrics,
            event: &entry.event,
            set,
            increments,
        };
        let counted = match occasion {
            Occasion::New => None,
            Occasion::Completed(before) => Some(before),
            Occasion::NewlyPriced => {
                tally.count_cost(entry, None);
                tally.count_drift(entry, None);
                return;
            }
        };
        if counted.is_none() {
            tally.count_call(&self.tags);
            if entry.cost.total.is_none() {
                tally.add(&kept::UNPRICED, Kind::Unpriced, &[], 1);
            }
        }
        tally.count_usage(counted);
        tally.count_cost(entry, counted);
        tally.count_stated(entry, counted);
        tally.count_drift(entry, counted);
    }

    fn committed(&mut self, commit: Committed) {
        let seconds = commit.elapsed.as_secs_f64();
        self.metrics.ledger_commit_seconds.observe(seconds);
    }
}

// === impl Tally ===

impl Tally<'_> {
    fn count_call(&mut self, tags: &[String]) {
        let event = self.event;
        let source = source_of(event);
        let own = [
            ("outcome", event.outcome.name()),
            ("usage_source", source.name()),
        ];
        let kind = Kind::Requests(event.outcome, source);
        self.add(&kept::REQUESTS, kind, &own, 1);
        let is_missing = |tag: &&String| event.tags.get(*tag).is_none_or(String::is_empty);
        let is_other = |tag: &&String| !tags.contains(tag) && is_tag_name(tag);
        let required = event.missing_tags.iter().filter(is_other);
        for tag in tags.iter().filter(is_missing).chain(required) {
            let mut series = String::new();
            push_pair(&mut series, "tag", tag);
            self.increments.add(kept::UNTAGGED.name, &series, 1);
        }
        if event.outcome != Outcome::Denied {
            self.observe(&kept::DURATION, saturate(event.duration_ms));
        }
        if let Some(ttft_ms) = event.ttft_ms {
            self.observe(&kept::TTFT, saturate(ttft_ms));
        }
    }

    /// A nearer filter counts the tokens of a relayed call. What an earlier state of the row had is
    /// counted; only what is more can be added.
    fn count_usage(&mut self, counted: Option<&Entry>) {
        if self.event.outcome == Outcome::Relayed {
            return;
        }
        for (bucket, n_tokens) in self.event.usage.tokens() {
            let before = counted.and_then(|entry| entry.event.usage.get(bucket));
            let n_tokens = n_tokens.saturating_sub(before.unwrap_or(0));
            if n_tokens == 0 {
                continue;
            }
            let own = [("bucket", bucket.name())];
            self.add(
                &kept::TOKENS,
                Kind::Tokens(bucket),
                &own,
                i128::from(n_tokens),
            );
        }
    }

    /// A call that nothing is charged for has no line and does not show among costs.
    fn count_cost(&mut self, entry: &Entry, counted: Option<&Entry>) {
        let Some(cost) = shown_cost(entry) else {
            return;
        };
        let Some(before) = counted.and_then(shown_cost) else {
            self.add(&kept::COST, Kind::Cost, &[], i128::from(cost));
            self.observe(&kept::REQUEST_COST, cost);
            return;
        };
        if cost > before {
            let more = i128::from(cost) - i128::from(before);
            self.add(&kept::COST, Kind::Cost, &[], more);
        }
    }

    /// What providers state grows like the cost.
    fn count_stated(&mut self, entry: &Entry, counted: Option<&Entry>) {
        let Some(stated) = entry.stated() else {
            return;
        };
        let before = counted.and_then(Entry::stated).unwrap_or_default();
        let more = i128::from(stated.as_pico()) - i128::from(before.as_pico());
        self.add(&kept::PROVIDER_COST, Kind::Stated, &[], more.max(0));
    }

    /// The difference of both directions is how far the statements are from our costs; a correction
    /// is counted in the other direction.
    fn count_drift(&mut self, entry: &Entry, counted: Option<&Entry>) {
        let Some(now) = drift(entry) else { return };
        let more = now - counted.and_then(drift).unwrap_or(0);
        let direction = match more < 0 {
            true => Direction::Below,
            false => Direction::Above,
        };
        let own = [("direction", direction.name())];
        let amount = more.saturating_abs();
        self.add(&kept::DRIFT, Kind::Drift(direction), &own, amount);
    }

    /// Adds under the event's labels and the family's own.
    fn add(&mut self, family: &Family, kind: Kind, own: &[(&str, &str)], amount: i128) {
        let told = |label: &str| self.metrics.overflowed(label);
        let under = self.series.admit(self.set.all(), kind, told);
        if own.is_empty() {
            self.increments.add(family.name, under, amount);
            return;
        }
        let mut series = String::with_capacity(under.len() + 48);
        series.push_str(under);
        for (name, value) in own {
            push_pair(&mut series, name, value);
        }
        self.increments.add(family.name, &series, amount);
    }

    fn observe(&mut self, family: &Family, value: i64) {
        let Some(kind) = (family.kind)(&[]) else {
            return;
        };
        let told = |label: &str| self.metrics.overflowed(label);
        let under = self.series.admit_histogram(&self.set, kind, told);
        self.increments
            .observe(family.name, under, family.bounds, value);
    }
}

/// Brings a book where these totals stand: each series has its slot again.
pub fn restore(book: &mut SeriesBook, totals: &Totals) {
    for family in kept::FAMILIES {
        let counters = totals.counter(family.name).map(|(text, _)| text);
        let histograms = totals.histogram(family.name).map(|(text, _)| text);
        for text in counters.chain(histograms) {
            let (own, event): (Vec<_>, Vec<_>) =
                pairs(text).partition(|(name, _)| family.own.contains(name));
            let own: Vec<&str> = own.iter().map(|(_, value)| value.as_str()).collect();
            if let Some(kind) = (family.kind)(&own) {
                book.restore(&event, kind);
            }
        }
    }
}

/// What the provider states less our cost, in pico-dollars, where both are known.
fn drift(entry: &Entry) -> Option<i128> {
    let (stated, ours) = entry.stated().zip(entry.cost.total)?;
    Some(i128::from(stated.as_pico()) - i128::from(ours.as_pico()))
}

/// The cost that is counted, in pico-dollars.
fn shown_cost(entry: &Entry) -> Option<i64> {
    let total = entry.cost.total.filter(|_| !entry.cost.lines.is_empty());
    total.map(|cost| cost.as_pico())
}

fn saturate(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The source by its name; what no release writes counts as absent.
fn source_of(event: &Event) -> UsageSource {
    [UsageSource::Reported, UsageSource::Estimated]
        .into_iter()
        .find(|source| source.name() == event.usage_source)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use rust_decimal::Decimal;
    use tollmesh_usage::{Bucket, Usage};

    use super::*;
    use crate::config;
    use crate::ledger::{CostLine, CostRecord};
    use crate::money::PicoUsd;

    fn entry(output: u64, pico: i64) -> Entry {
        let line = CostLine {
            what: Cow::Borrowed("output"),
            amount: Decimal::from(output),
            rate: Decimal::ONE,
            times: Decimal::ONE,
            usd: Decimal::ONE,
            assumed: false,
            extra: None,
            row: None,
        };
        Entry {
            event: Event {
                usage: Usage::new().with(Bucket::Output, output),
                ..Event::default()
            },
            cost: CostRecord {
                total: Some(PicoUsd::from_pico(pico)),
                lines: vec![line],
                ..CostRecord::free(Arc::from("digest"))
            },
        }
    }

    /// What the correction of an estimate of 20 tokens for 40 adds: tokens, cost, observed costs.
    fn corrected(output: u64, pico: i64) -> (i128, i128, usize) {
        let book = SeriesBook::new(&config::Metrics {
            labels: Vec::new(),
            max_values_per_label: 10,
            max_series: 100,
        });
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut meter = LabelMeter::new(Arc::new(Mutex::new(book)), Vec::new(), metrics);
        let mut increments = Increments::default();
        let before = entry(20, 40);
        let occasion = Occasion::Completed(&before);
        meter.measure(&entry(output, pico), occasion, &mut increments);
        let sum = |metric: &str| {
            let of_metric = increments.counters().filter(|(name, ..)| *name == metric);
            of_metric.map(|(_, _, n)| n).sum()
        };
        let n_observed = increments.histograms().count();
        (sum(kept::TOKENS.name), sum(kept::COST.name), n_observed)
    }

    #[test]
    fn a_missing_tag_is_counted_once_by_its_name() {
        let labels = vec!["team".to_owned()];
        let book = SeriesBook::new(&config::Metrics {
            labels: labels.clone(),
            max_values_per_label: 10,
            max_series: 100,
        });
        let metrics = Arc::new(Metrics::new().unwrap());
        let mut meter = LabelMeter::new(Arc::new(Mutex::new(book)), labels, metrics);
        let mut increments = Increments::default();
        let mut untagged = entry(20, 40);
        untagged.event.missing_tags = vec!["team".to_owned(), "tier".to_owned(), "\"".to_owned()];
        meter.measure(&untagged, Occasion::New, &mut increments);
        let counters = increments.counters();
        let mut told: Vec<(&str, i128)> = counters
            .filter(|(name, ..)| *name == kept::UNTAGGED.name)
            .map(|(_, series, n)| (series, n))
            .collect();
        told.sort_unstable();
        assert_eq!(told, [("tag=\"team\"", 1), ("tag=\"tier\"", 1)]);
    }

    #[test]
    fn a_corrected_estimate_adds_only_what_is_more() {
        assert_eq!(corrected(50, 100), (30, 60, 0));
        assert_eq!(corrected(20, 40), (0, 0, 0));
        assert_eq!(corrected(7, 14), (0, 0, 0));
    }
}
