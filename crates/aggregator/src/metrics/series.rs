//! Which series an event counts in, however many values its labels take.

use std::collections::{HashMap, HashSet};

use tollmesh_usage::{Bucket, UsageSource};
use tollmesh_wire::event::{Event, Outcome};

use super::text::push_pair;
use crate::config;

/// What stands for every value beyond a cap.
pub const OTHER: &str = "__other__";
/// A label's value is for people to read; the ledger keeps the whole of a tag.
const VALUE_BYTES_MAX: usize = 128;
/// The labels that every series has, before the configured ones.
const FIXED: [&str; 4] = ["provider", "model", "namespace", "service"];
/// Histograms have many series a label set, so they carry provider and model alone.
const HISTOGRAM_LABELS: usize = 2;

/// What a series counts. Each kind stands at most once under a label set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Tokens of one bucket.
    Tokens(Bucket),
    /// Dollars.
    Cost,
    /// Calls that no row prices.
    Unpriced,
    /// Dollars that providers state.
    Stated,
    /// Dollars by which they differ from ours.
    Drift(Direction),
    /// Calls that ended so, with counts from there.
    Requests(Outcome, UsageSource),
    /// A histogram, with as many series as it has buckets: the first, second or third.
    Histogram(u32),
}

/// Where what a provider states is from our cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// It states more.
    Above,
    /// It states less.
    Below,
}

/// Every outcome.
pub const OUTCOMES: [Outcome; 5] = [
    Outcome::Success,
    Outcome::Error,
    Outcome::Aborted,
    Outcome::Denied,
    Outcome::Relayed,
];
/// Every source of counts.
pub const SOURCES: [UsageSource; 3] = [
    UsageSource::Reported,
    UsageSource::Estimated,
    UsageSource::Absent,
];

/// A histogram's buckets (at most 20), `+Inf`, sum and count.
const HISTOGRAM_SERIES: usize = 23;
/// Series that everything beyond `max_series` goes to: each kind once.
const OVERFLOW_SERIES: usize =
    Bucket::ALL.len() + 5 + OUTCOMES.len() * SOURCES.len() + 3 * HISTOGRAM_SERIES;

/// Gives events their label sets within the caps. A slot once given stays given.
#[derive(Debug)]
pub struct SeriesBook {
    labels: Vec<Label>,
    max_values: usize,
    max_series: usize,
    n_series: usize,
    /// Which kinds of series each label set has, as a set of bits.
    sets: HashMap<String, u64>,
    /// The label set of everything beyond `max_series`.
    overflow: String,
    overflow_of_histograms: String,
}

#[derive(Debug)]
struct Label {
    name: String,
    values: HashSet<String>,
}

/// An event's labels as they stand in the exposition: `provider="openai",model="gpt-5"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelSet {
    text: String,
    histogram_bytes: usize,
}

// === impl LabelSet ===

impl LabelSet {
    /// All labels.
    pub fn all(&self) -> &str {
        &self.text
    }

    /// The labels of a histogram.
    pub fn of_histogram(&self) -> &str {
        self.text.get(..self.histogram_bytes).unwrap_or_default()
    }
}

// === impl Label ===

impl Label {
    fn new(name: &str) -> Label {
        Label {
            name: name.to_owned(),
            values: HashSet::new(),
        }
    }

    /// Whether the value has a slot, or gets one.
    fn admits(&mut self, value: &str, max_values: usize) -> bool {
        if self.values.contains(value) {
            return true;
        }
        let has_room = self.values.len() < max_values;
        if has_room {
            self.values.insert(value.to_owned());
        }
        has_room
    }
}

// === impl Direction ===

impl Direction {
    /// Both.
    pub const ALL: [Direction; 2] = [Direction::Above, Direction::Below];

    /// The label's value.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Above => "above",
            Direction::Below => "below",
        }
    }
}

// === impl Kind ===

impl Kind {
    fn bit(self) -> u64 {
        let place = match self {
            Kind::Tokens(bucket) => bucket as u32,
            Kind::Cost => 16,
            Kind::Unpriced => 17,
            Kind::Histogram(n) => 18 + n.min(2),
            Kind::Stated => 21,
            Kind::Drift(direction) => 22 + direction as u32,
            Kind::Requests(outcome, source) => 24 + 3 * (outcome as u32) + source as u32,
        };
        1 << place
    }

    fn n_series(self) -> usize {
        match self {
            Kind::Histogram(_) => HISTOGRAM_SERIES,
            _ => 1,
        }
    }
}

// === impl SeriesBook ===

impl SeriesBook {
    /// An empty book under those caps.
    pub fn new(config: &config::Metrics) -> SeriesBook {
        let mut configured: Vec<&str> = config.labels.iter().map(String::as_str).collect();
        // Sorted, since the same labels in another order would be another text, hence a twin.
        configured.sort_unstable();
        let names = FIXED.into_iter().chain(configured);
        let labels: Vec<Label> = names.map(Label::new).collect();
        let other = |labels: &[Label]| {
            let mut set = String::new();
            for label in labels {
                push_pair(&mut set, &label.name, OTHER);
            }
            set
        };
        SeriesBook {
            max_values: config.max_values_per_label,
            max_series: config.max_series,
            n_series: 0,
            sets: HashMap::new(),
            overflow: other(&labels),
            overflow_of_histograms: other(&labels[..HISTOGRAM_LABELS]),
            labels,
        }
    }

    /// Takes back a slot that was given before a restart. Labels that are no longer configured
    /// are left out, as the exposition leaves them out.
    pub fn restore(&mut self, pairs: &[(&str, String)], kind: Kind) {
        let mut set = String::new();
        for (name, value) in pairs {
            if let Some(label) = self.labels.iter_mut().find(|label| label.name == *name) {
                push_pair(&mut set, name, value);
                if value != OTHER {
                    label.values.insert(value.clone());
                }
            }
        }
        if set != self.overflow && set != self.overflow_of_histograms {
            self.give(&set, kind);
        }
    }

    /// The label set of that event; labels whose values overflow are named to `overflowed`.
    pub fn set_of(&mut self, event: &Event, mut overflowed: impl FnMut(&str)) -> LabelSet {
        let mut set = LabelSet {
            text: String::with_capacity(160),
            histogram_bytes: 0,
        };
        for (n, label) in self.labels.iter_mut().enumerate() {
            let value = short(value_of(event, &label.name));
            if value.is_empty() {
                // An absent label and an empty one are the same to Prometheus.
            } else if label.admits(value, self.max_values) {
                push_pair(&mut set.text, &label.name, value);
            } else {
                overflowed(&label.name);
                push_pair(&mut set.text, &label.name, OTHER);
            }
            if n < HISTOGRAM_LABELS {
                set.histogram_bytes = set.text.len();
            }
        }
        set
    }

    /// The set itself where a series of that kind may stand under it, else the overflow's, which
    /// is told to `overflowed`.
    pub fn admit<'s>(
        &'s mut self,
        set: &'s str,
        kind: Kind,
        mut overflowed: impl FnMut(&str),
    ) -> &'s str {
        if self.has(set, kind) {
            return set;
        }
        if self.has_room(kind) {
            self.give(set, kind);
            return set;
        }
        overflowed("series");
        &self.overflow
    }

    /// As [`SeriesBook::admit`], for a histogram, whose labels are fewer.
    pub fn admit_histogram<'s>(
        &'s mut self,
        set: &'s LabelSet,
        kind: Kind,
        mut overflowed: impl FnMut(&str),
    ) -> &'s str {
        let set = set.of_histogram();
        if self.has(set, kind) {
            return set;
        }
        if self.has_room(kind) {
            self.give(set, kind);
            return set;
        }
        overflowed("series");
        &self.overflow_of_histograms
    }

    /// The names of all labels, in their order.
    pub fn names(&self) -> Vec<String> {
        self.labels.iter().map(|label| label.name.clone()).collect()
    }

    fn has(&self, set: &str, kind: Kind) -> bool {
        let kinds = self.sets.get(set);
        kinds.is_some_and(|kinds| kinds & kind.bit() != 0)
    }

    fn has_room(&self, kind: Kind) -> bool {
        self.n_series + kind.n_series() + OVERFLOW_SERIES <= self.max_series
    }

    fn give(&mut self, set: &str, kind: Kind) {
        let kinds = match self.sets.get_mut(set) {
            Some(kinds) => kinds,
            None => self.sets.entry(set.to_owned()).or_default(),
        };
        if *kinds & kind.bit() == 0 {
            *kinds |= kind.bit();
            self.n_series += kind.n_series();
        }
    }
}

/// The event's value for a label: what the mesh knows where the name is one of ours, else a tag.
fn value_of<'e>(event: &'e Event, name: &str) -> &'e str {
    let value = match name {
        "provider" => Some(event.provider.as_str()),
        "model" => event.model.as_deref().or(event.model_requested.as_deref()),
        "namespace" => event.source.namespace.as_deref(),
        "service" => event.source.workload.as_deref(),
        tag => event.tags.get(tag).map(String::as_str),
    };
    value.unwrap_or_default()
}

/// At most [`VALUE_BYTES_MAX`] bytes of it, cut between characters.
fn short(value: &str) -> &str {
    let end = value.floor_char_boundary(VALUE_BYTES_MAX);
    value.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::text::pairs;
    use super::*;

    fn config(labels: &[&str], values: usize, series: usize) -> config::Metrics {
        config::Metrics {
            labels: labels.iter().map(|label| label.to_string()).collect(),
            max_values_per_label: values,
            max_series: series,
        }
    }

    fn event(model: &str, team: &str) -> Event {
        Event {
            provider: "openai".into(),
            model: Some(model.into()),
            tags: [("team".into(), team.into())].into(),
            ..Event::default()
        }
    }

    #[test]
    fn values_beyond_the_cap_are_other_and_told() {
        let mut book = SeriesBook::new(&config(&["team"], 2, 1000));
        let mut told = Vec::new();
        let mut sets = Vec::new();
        for team in ["red", "blue", "green", "red"] {
            let set = book.set_of(&event("m", team), |label| told.push(label.to_owned()));
            sets.push(set.all().to_owned());
        }
        assert_eq!(
            sets,
            [
                r#"provider="openai",model="m",team="red""#,
                r#"provider="openai",model="m",team="blue""#,
                r#"provider="openai",model="m",team="__other__""#,
                r#"provider="openai",model="m",team="red""#,
            ]
        );
        assert_eq!(told, ["team"]);
    }

    #[test]
    fn series_beyond_the_cap_go_to_the_overflow() {
        let mut book = SeriesBook::new(&config(&["team"], 1000, 200));
        let mut told = 0;
        let mut n_own = 0;
        for n in 0..500 {
            let set = book.set_of(&event("m", &format!("team-{n}")), |_| {});
            let under = book.admit(set.all(), Kind::Cost, |_| told += 1).to_owned();
            n_own += usize::from(under == set.all());
        }
        assert_eq!(n_own, 200 - OVERFLOW_SERIES);
        assert_eq!(told, 500 - n_own);
    }

    #[test]
    fn slots_survive_a_restart() {
        let mut book = SeriesBook::new(&config(&["team"], 1, 1000));
        let red = [("provider", "openai"), ("model", "m"), ("team", "red")];
        book.restore(&red.map(|(n, v)| (n, v.to_owned())), Kind::Cost);
        let set = book.set_of(&event("m", "blue"), |_| {});
        assert_eq!(set.all(), r#"provider="openai",model="m",team="__other__""#);
        let set = book.set_of(&event("m", "red"), |_| {});
        assert_eq!(set.all(), r#"provider="openai",model="m",team="red""#);
    }

    #[test]
    fn a_value_cannot_break_out_of_its_label() {
        let mut book = SeriesBook::new(&config(&[], 10, 1000));
        let set = book.set_of(&event("a\",namespace=\"x\n\\", ""), |_| {});
        assert_eq!(
            set.of_histogram(),
            r#"provider="openai",model="a\",namespace=\"x\n\\""#
        );
        assert_eq!(set.all(), set.of_histogram());
        assert_eq!(pairs(set.all()).count(), 2);
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(short(&"é".repeat(100)), "é".repeat(64));
        assert_eq!(short(&format!("a{}", "é".repeat(100))).len(), 127);
    }

    #[test]
    fn kinds_do_not_share_a_bit() {
        let mut seen = 0;
        let requests = OUTCOMES
            .into_iter()
            .flat_map(|o| SOURCES.map(|s| Kind::Requests(o, s)));
        let kinds = Bucket::ALL.map(Kind::Tokens).into_iter().chain(requests);
        let drift = Direction::ALL.map(Kind::Drift);
        let more = [Kind::Cost, Kind::Unpriced, Kind::Stated];
        for kind in kinds
            .chain(more)
            .chain(drift)
            .chain((0..3).map(Kind::Histogram))
        {
            assert_eq!(seen & kind.bit(), 0, "{kind:?}");
            seen |= kind.bit();
        }
    }
}
