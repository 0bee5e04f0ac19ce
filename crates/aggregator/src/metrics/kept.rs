//! The families whose values the ledger keeps: what each counts, and how it is shown.

use std::collections::BTreeMap;

use tollmesh_usage::Bucket;

use super::series::{Direction, Kind, OUTCOMES, SOURCES};
use super::text::{pairs, push_fixed, push_pair};
use crate::ledger::Totals;
use crate::ledger::totals::Histogram;

/// A family of counters or a histogram that goes on over restarts.
pub struct Family {
    /// The metric's name, also in the ledger.
    pub name: &'static str,
    /// The help text.
    pub help: &'static str,
    /// The ledger's integer is the shown number times 10 to this power.
    pub places: usize,
    /// Upper bounds of buckets in the ledger's unit; none for a counter.
    pub bounds: &'static [i64],
    /// Labels beside the event's.
    pub own: &'static [&'static str],
    /// The kind of a series with these values of `own`; `None` where it has no slot to take.
    pub kind: fn(&[&str]) -> Option<Kind>,
}

/// Dollars are kept as pico-dollars.
const PICO: usize = 12;
/// Seconds are kept as milliseconds.
const MILLI: usize = 3;

const COUNTER: Family = Family {
    name: "",
    help: "",
    places: 0,
    bounds: &[],
    own: &[],
    kind: |_| None,
};

/// `tollmesh_cost_usd_total`
pub const COST: Family = Family {
    name: "tollmesh_cost_usd_total",
    help: "US dollars that the provider charges for calls, by the tables that priced each first.",
    places: PICO,
    kind: |_| Some(Kind::Cost),
    ..COUNTER
};

/// `tollmesh_tokens_total`
pub const TOKENS: Family = Family {
    name: "tollmesh_tokens_total",
    help: "Tokens by bucket; every token is in exactly one bucket, so sums are right.",
    own: &["bucket"],
    kind: tokens_kind,
    ..COUNTER
};

/// `tollmesh_requests_total`
pub const REQUESTS: Family = Family {
    name: "tollmesh_requests_total",
    help: "Metered calls, by how they ended and where their counts come from.",
    own: &["outcome", "usage_source"],
    kind: requests_kind,
    ..COUNTER
};

/// `tollmesh_unpriced_requests_total`
pub const UNPRICED: Family = Family {
    name: "tollmesh_unpriced_requests_total",
    help: "Billable calls that no price row covers, or whose usage is unknown; never taken as free.",
    kind: |_| Some(Kind::Unpriced),
    ..COUNTER
};

/// `tollmesh_provider_cost_usd_total`
pub const PROVIDER_COST: Family = Family {
    name: "tollmesh_provider_cost_usd_total",
    help: "US dollars that providers themselves state for calls, where their answers do.",
    places: PICO,
    kind: |_| Some(Kind::Stated),
    ..COUNTER
};

/// `tollmesh_cost_drift_usd_total`
pub const DRIFT: Family = Family {
    name: "tollmesh_cost_drift_usd_total",
    help: "US dollars by which stated costs are above or below ours, over calls that have both.",
    places: PICO,
    own: &["direction"],
    kind: drift_kind,
    ..COUNTER
};

/// `tollmesh_untagged_requests_total`
pub const UNTAGGED: Family = Family {
    name: "tollmesh_untagged_requests_total",
    help: "Calls without that tag, of the tags in metrics.labels and of those that filters require.",
    own: &["tag"],
    ..COUNTER
};

/// `tollmesh_request_duration_seconds`; long answers stream for minutes.
pub const DURATION: Family = Family {
    name: "tollmesh_request_duration_seconds",
    help: "From the first byte of a call's request to the last of its response.",
    places: MILLI,
    bounds: &[
        100, 250, 500, 1_000, 2_500, 5_000, 10_000, 20_000, 40_000, 80_000, 160_000, 320_000,
        600_000,
    ],
    kind: |_| Some(Kind::Histogram(0)),
    ..COUNTER
};

/// `tollmesh_time_to_first_token_seconds`; people notice a fifth of a second.
pub const TTFT: Family = Family {
    name: "tollmesh_time_to_first_token_seconds",
    help: "From the first byte of a call's request to the first byte of content.",
    places: MILLI,
    bounds: &[
        50, 100, 200, 300, 500, 750, 1_000, 1_500, 2_500, 5_000, 10_000, 30_000, 60_000,
    ],
    kind: |_| Some(Kind::Histogram(1)),
    ..COUNTER
};

/// `tollmesh_request_cost_usd`; from a thousandth of a cent (a small embedding) to ten dollars (a
/// long agent turn).
pub const REQUEST_COST: Family = Family {
    name: "tollmesh_request_cost_usd",
    help: "US dollars of a single priced call.",
    places: PICO,
    bounds: &[
        10_000_000,
        100_000_000,
        1_000_000_000,
        5_000_000_000,
        10_000_000_000,
        50_000_000_000,
        100_000_000_000,
        500_000_000_000,
        1_000_000_000_000,
        5_000_000_000_000,
        10_000_000_000_000,
    ],
    kind: |_| Some(Kind::Histogram(2)),
    ..COUNTER
};

/// All of them, in the order in which they are shown.
pub const FAMILIES: [&Family; 10] = [
    &COST,
    &PROVIDER_COST,
    &DRIFT,
    &TOKENS,
    &REQUESTS,
    &UNPRICED,
    &UNTAGGED,
    &DURATION,
    &TTFT,
    &REQUEST_COST,
];

/// The kind of a token series, from its bucket's name.
fn tokens_kind(own: &[&str]) -> Option<Kind> {
    Bucket::parse(own.first()?).map(Kind::Tokens)
}

/// The kind of a drift series, from its direction's name.
fn drift_kind(own: &[&str]) -> Option<Kind> {
    let name = own.first()?;
    let direction = Direction::ALL.into_iter().find(|d| d.name() == *name)?;
    Some(Kind::Drift(direction))
}

/// The kind of a request series, from the names of outcome and source.
fn requests_kind(own: &[&str]) -> Option<Kind> {
    let [outcome, source] = own else { return None };
    let outcome = OUTCOMES.into_iter().find(|o| o.name() == *outcome)?;
    let source = SOURCES.into_iter().find(|s| s.name() == *source)?;
    Some(Kind::Requests(outcome, source))
}

/// Whether a series has a label that is no longer configured.
pub fn has_stale_labels(totals: &Totals, labels: &[String]) -> bool {
    FAMILIES.iter().any(|family| {
        let mut series = totals.counter(family.name);
        series.any(|(text, _)| pairs(text).any(|(name, _)| !is_shown(name, family, labels)))
    })
}

/// Appends all families in the text format.
///
/// Written straight from the ledger's texts and not through `prometheus::core::Collector`, which
/// would copy every label of every series at each scrape. The numbers stay exact.
///
/// `only` names the event labels to be shown, where series with others exist: those are summed
/// under what is left of them.
pub fn push_families(out: &mut String, totals: &Totals, only: Option<&[String]>) {
    for family in FAMILIES {
        match only {
            _ if !family.bounds.is_empty() => push_histogram(out, family, totals),
            None => push_counter(out, family, totals.counter(family.name)),
            Some(labels) => {
                let sums = summed(family, totals, labels);
                let series = sums.iter().map(|(text, sum)| (text.as_str(), *sum));
                push_counter(out, family, series);
            }
        }
    }
}

fn push_counter<'s>(
    out: &mut String,
    family: &Family,
    series: impl Iterator<Item = (&'s str, i128)>,
) {
    let mut series = series.peekable();
    if series.peek().is_some() {
        push_head(out, family, "counter");
    }
    for (text, value) in series {
        push_sample(out, (family.name, ""), text, value, family.places);
    }
}

fn push_histogram(out: &mut String, family: &Family, totals: &Totals) {
    let mut series = totals.histogram(family.name).peekable();
    if series.peek().is_some() {
        push_head(out, family, "histogram");
    }
    for (text, histogram) in series {
        push_buckets(out, family, text, histogram);
        push_sample(
            out,
            (family.name, "_sum"),
            text,
            histogram.sum,
            family.places,
        );
        let count = i128::from(histogram.count());
        push_sample(out, (family.name, "_count"), text, count, 0);
    }
}

/// Every bound of today, each with what is at or below it. Bounds of an earlier release count in
/// the next bound above them.
fn push_buckets(out: &mut String, family: &Family, text: &str, histogram: &Histogram) {
    let mut cumulative = 0_i128;
    let mut seen = histogram.buckets.iter().peekable();
    for bound in family.bounds {
        while let Some((_, n)) = seen.next_if(|(upper, _)| *upper <= bound) {
            cumulative += i128::from(*n);
        }
        let mut le = String::new();
        push_fixed(&mut le, i128::from(*bound), family.places);
        push_bucket(out, family, text, &le, cumulative);
    }
    push_bucket(out, family, text, "+Inf", i128::from(histogram.count()));
}

fn push_bucket(out: &mut String, family: &Family, text: &str, le: &str, cumulative: i128) {
    let mut series = text.to_owned();
    push_pair(&mut series, "le", le);
    push_sample(out, (family.name, "_bucket"), &series, cumulative, 0);
}

fn push_head(out: &mut String, family: &Family, kind: &str) {
    for part in ["# HELP ", family.name, " ", family.help, "\n"] {
        out.push_str(part);
    }
    for part in ["# TYPE ", family.name, " ", kind, "\n"] {
        out.push_str(part);
    }
}

fn push_sample(
    out: &mut String,
    (name, suffix): (&str, &str),
    series: &str,
    value: i128,
    places: usize,
) {
    out.push_str(name);
    out.push_str(suffix);
    if !series.is_empty() {
        out.push('{');
        out.push_str(series);
        out.push('}');
    }
    out.push(' ');
    push_fixed(out, value, places);
    out.push('\n');
}

/// The counters with only those event labels, summed where they fall together.
fn summed(family: &Family, totals: &Totals, labels: &[String]) -> BTreeMap<String, i128> {
    let mut sums: BTreeMap<String, i128> = BTreeMap::new();
    for (text, value) in totals.counter(family.name) {
        let mut kept = String::with_capacity(text.len());
        for (name, label) in pairs(text).filter(|(name, _)| is_shown(name, family, labels)) {
            push_pair(&mut kept, name, &label);
        }
        let sum = sums.entry(kept).or_default();
        *sum = sum.saturating_add(value);
    }
    sums
}

fn is_shown(name: &str, family: &Family, labels: &[String]) -> bool {
    family.own.contains(&name) || labels.iter().any(|label| label == name)
}
