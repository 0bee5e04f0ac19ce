//! One row of a price table: when it holds, what it charges.

use std::sync::Arc;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};
use tollmesh_usage::{Bucket, Unit};

use crate::amount::Rate;
use crate::calendar::Calendar;
use crate::fields::{Fields, Report};
use crate::header::Header;
use crate::names::Glob;

/// The tier of calls and rows that name none.
pub(crate) const STANDARD: &str = "standard";

/// Hexadecimal digits of a row's hash: enough to tell the rows of one model apart.
const ROW_HASH_CHARS: usize = 8;

/// A rate, and whether it was taken from another class that the provider did not name.
pub(crate) type Charge = Option<(Rate, bool)>;

/// A row, ready to price.
#[derive(Clone, Debug)]
pub struct Row {
    /// `file:model:hash`; the hash covers what decides a cost, never notes or dates of checks.
    pub id: String,
    /// In our words.
    pub tier: String,
    /// Milliseconds since 1970, inclusive.
    pub from_ms: i64,
    /// Milliseconds since 1970, exclusive.
    pub until_ms: i64,
    /// The least total input in tokens, caches included.
    pub input_min: u64,
    /// The greatest total input in tokens, inclusive.
    pub input_max: u64,
    /// The named calendar in which the row holds; always, where none.
    pub at: Option<(String, Arc<Calendar>)>,
    /// The regions of the provider in which the row holds, as the file gives them; all, where none.
    pub regions: Vec<String>,
    /// US dollars for a million tokens, by bucket, as the file gives them.
    pub rates: [Option<Rate>; Bucket::ALL.len()],
    /// US dollars for one unit.
    pub units: Vec<(Unit, Rate)>,
    /// Whether the units stand for the tokens: a call that counts units is charged by them alone.
    pub either: bool,
    /// Where the row was read.
    pub source: String,
    /// When it was last compared with its source.
    pub checked: Option<Date>,
    /// Whether only one of the lists that the tables were compared with has it.
    pub is_single_source: bool,
    /// What reviewers must know.
    pub note: Option<String>,
    /// Why the row prices calls of the past otherwise than an earlier version of it did.
    pub fix: Option<String>,
    pub(crate) regions_fit: Vec<Glob>,
    pub(crate) charges: [Charge; Bucket::ALL.len()],
}

impl Row {
    /// The rate of that bucket as the file gives it.
    pub fn rate(&self, bucket: Bucket) -> Option<Rate> {
        self.rates.get(bucket as usize).copied().flatten()
    }

    pub(crate) fn charge(&self, bucket: Bucket) -> Charge {
        self.charges.get(bucket as usize).copied().flatten()
    }

    pub(crate) fn unit_rate(&self, unit: Unit) -> Option<Rate> {
        let own = self.units.iter().find(|(u, _)| *u == unit);
        own.map(|(_, rate)| *rate)
    }

    pub(crate) fn holds(&self, unix_ms: i64, input_total: u64) -> bool {
        self.from_ms <= unix_ms
            && unix_ms < self.until_ms
            && (self.input_min..=self.input_max).contains(&input_total)
    }

    fn has_no_rate(&self) -> bool {
        self.units.is_empty() && self.rates.iter().all(Option::is_none)
    }

    /// Whether the row holds for calls of one region only.
    pub(crate) fn is_regional(&self) -> bool {
        !self.regions_fit.is_empty()
    }

    /// Whether the row holds in that region (lower case; `None` where it is not known).
    pub(crate) fn holds_in(&self, region: Option<&str>) -> bool {
        !self.is_regional() || region.is_some_and(|r| self.regions_fit.iter().any(|g| g.matches(r)))
    }
}

/// Reads one row of a model.
pub(crate) fn read(
    mut fields: Fields,
    model: &str,
    has_audio: bool,
    header: &Header,
    report: &mut Report<'_>,
) -> Row {
    let place = fields.place().to_owned();
    let zone = fields.zone("tz", report);
    let from = fields.date("from", report);
    let until = fields.date("until", report);
    let tier = fields.text("tier", report);
    let (input_min, input_max) = read_context(&mut fields, report);
    let at = read_calendar(&mut fields, header, report);
    let regions = fields.texts("region", report);
    let (source, checked) = read_source(&mut fields, header, report);
    let is_single_source = read_confidence(&mut fields, report);
    let note = fields.text("note", report);
    let fix = fields.text("fix", report);
    let is_free = fields.flag("free", false, report);
    let either = fields.flag("either", false, report);
    let mistakes = report.count();
    let (rates, units) = read_rates(&mut fields, report);
    let is_misread = report.count() > mistakes || !fields.is_done();
    let mut row = Row {
        id: String::new(),
        tier: tier.unwrap_or_else(|| STANDARD.to_owned()),
        from_ms: from.map_or(i64::MIN, |d| midnight_ms(d, &zone)),
        until_ms: until.map_or(i64::MAX, |d| midnight_ms(d, &zone)),
        input_min,
        input_max,
        at,
        regions_fit: regions.iter().map(|r| Glob::new(r)).collect(),
        regions,
        charges: charges(&rates, has_audio, header),
        rates,
        units,
        either,
        source,
        checked,
        is_single_source,
        note,
        fix,
    };
    row.id = format!("{}:{model}:{}", report.file(), row_hash(&row));
    if !(is_misread && row.has_no_rate()) {
        check_rates(&row, is_free, &place, report);
    }
    check_row(&row, &place, header, report);
    fields.finish(report);
    row
}

type Rates = [Option<Rate>; Bucket::ALL.len()];

fn read_rates(fields: &mut Fields, report: &mut Report<'_>) -> (Rates, Vec<(Unit, Rate)>) {
    let mut rates = Rates::default();
    for (bucket, rate) in fields.rates(&Bucket::ALL.map(Bucket::name), Bucket::parse, report) {
        if let Some(slot) = rates.get_mut(bucket as usize) {
            *slot = Some(rate);
        }
    }
    let units = fields.rates(&Unit::ALL.map(Unit::name), Unit::parse, report);
    (rates, units)
}

/// What the rates must be together.
fn check_rates(row: &Row, is_free: bool, place: &str, report: &mut Report<'_>) {
    let units = row.units.iter().map(|(_, rate)| rate);
    let mut rates = row.rates.iter().flatten().chain(units);
    if row.has_no_rate() {
        report.add(place, "no rate at all; give at least one class or unit");
    } else if rates.all(|r| r.is_zero()) != is_free {
        let what = "a row that charges nothing must say `free = true`, and no other row may";
        report.add(place, what);
    }
    if row.either && (row.units.is_empty() || row.rates.iter().all(Option::is_none)) {
        report.add(place, "`either` needs a rate for a unit and one for tokens");
    }
}

fn check_row(row: &Row, place: &str, header: &Header, report: &mut Report<'_>) {
    if row.from_ms >= row.until_ms {
        report.add(place, "`until` is not after `from`");
    }
    if !header.tiers.is_known(&row.tier) {
        let known = header.tiers.known().join(", ");
        let what = format!(
            "unknown tier \"{}\"; [tiers] has {known}: add it there, with the provider's words",
            row.tier
        );
        report.add(place, what);
    }
}

fn read_confidence(fields: &mut Fields, report: &mut Report<'_>) -> bool {
    let Some(word) = fields.text("confidence", report) else {
        return false;
    };
    if word != "single-source" {
        let what = format!("`confidence` is \"{word}\"; the only word is \"single-source\"");
        report.add(fields.place(), what);
    }
    true
}

pub(crate) fn read_source(
    fields: &mut Fields,
    header: &Header,
    report: &mut Report<'_>,
) -> (String, Option<Date>) {
    let source = fields.required("src", report);
    let url = header.sources.get(&source).cloned();
    let is_url = |s: &String| s.starts_with("https://");
    let url = url.or_else(|| Some(source.clone()).filter(is_url));
    if url.is_none() && !source.is_empty() {
        let what = format!("`src` \"{source}\" is neither in [source] nor an https address");
        report.add(fields.place(), what);
    }
    if !fields.has("checked") {
        let what = "`checked` is missing: the day the source was read";
        report.add(fields.place(), what);
    }
    let checked = fields.date("checked", report);
    (url.unwrap_or_default(), checked)
}

fn read_calendar(
    fields: &mut Fields,
    header: &Header,
    report: &mut Report<'_>,
) -> Option<(String, Arc<Calendar>)> {
    let name = fields.text("at", report)?;
    let calendar = header.calendars.get(&name).cloned();
    if calendar.is_none() {
        let what = format!("`at`: no [calendar.{name}] in this file; add it, or remove `at`");
        report.add(fields.place(), what);
    }
    Some((name, calendar?))
}

fn read_context(fields: &mut Fields, report: &mut Report<'_>) -> (u64, u64) {
    let Some(text) = fields.text("ctx", report) else {
        return (0, u64::MAX);
    };
    parse_context(&text).unwrap_or_else(|| {
        let known = "<=N, <N, >N, >=N, or two of them as in \">32000 <=128000\"";
        let what = format!("`ctx` = \"{text}\": expected {known}");
        report.add(fields.place(), what);
        (0, u64::MAX)
    })
}

/// Total input tokens from and to, both inclusive.
fn parse_context(text: &str) -> Option<(u64, u64)> {
    let (mut low, mut high) = (0, u64::MAX);
    for bound in text.split(' ') {
        let number = |sign: &str| bound.strip_prefix(sign)?.parse::<u64>().ok();
        if let Some(n) = number("<=") {
            high = high.min(n);
        } else if let Some(n) = number(">=") {
            low = low.max(n);
        } else if let Some(n) = number("<") {
            high = high.min(n.checked_sub(1)?);
        } else {
            low = low.max(number(">")?.checked_add(1)?);
        }
    }
    (low <= high).then_some((low, high))
}

/// Fills each class without a rate of its own from its parent.
fn charges(
    rates: &[Option<Rate>; Bucket::ALL.len()],
    has_audio: bool,
    header: &Header,
) -> [Charge; Bucket::ALL.len()] {
    let own = |b: Bucket| rates.get(b as usize).copied().flatten();
    Bucket::ALL.map(|bucket| {
        let mut class = bucket;
        let mut is_assumed = false;
        loop {
            if let Some(rate) = own(class) {
                return Some((rate, is_assumed));
            }
            if let Some(named) = header.billed_as(class) {
                class = named;
                continue;
            }
            if has_audio && is_audio(class) {
                return None;
            }
            class = parent(class, own(Bucket::AudioInput).is_some())?;
            is_assumed = true;
        }
    })
}

const fn is_audio(bucket: Bucket) -> bool {
    matches!(bucket, Bucket::AudioInput | Bucket::AudioOutput)
}

/// The class whose rate stands in for a missing one.
const fn parent(bucket: Bucket, prices_audio: bool) -> Option<Bucket> {
    match bucket {
        Bucket::CacheWrite1h => Some(Bucket::CacheWrite),
        // The dearer parent: a cached sound is charged as a fresh one unless text is all there is.
        Bucket::CacheReadAudio if prices_audio => Some(Bucket::AudioInput),
        Bucket::CacheReadAudio => Some(Bucket::CacheRead),
        Bucket::CacheRead | Bucket::CacheWrite | Bucket::AudioInput | Bucket::ImageInput => {
            Some(Bucket::Input)
        }
        Bucket::Reasoning | Bucket::AudioOutput | Bucket::ImageOutput => Some(Bucket::Output),
        Bucket::Input | Bucket::Output => None,
    }
}

pub(crate) fn midnight_ms(date: Date, zone: &TimeZone) -> i64 {
    let start = date.to_zoned(zone.clone());
    start.map_or(i64::MAX, |z| z.timestamp().as_millisecond())
}

fn row_hash(row: &Row) -> String {
    let mut hash = Sha256::new();
    let mut add = |text: &str| {
        hash.update(text);
        hash.update(b"\n");
    };
    add(&row.tier);
    add(row.at.as_ref().map_or("", |(name, _)| name));
    add(&format!("{} {}", row.from_ms, row.until_ms));
    add(&format!("{} {}", row.input_min, row.input_max));
    for region in &row.regions {
        add(region);
    }
    if row.either {
        add("either");
    }
    let rates = Bucket::ALL.iter().zip(row.rates);
    let rates = rates.filter_map(|(bucket, rate)| Some((bucket.name(), rate?)));
    let units = row.units.iter().map(|(unit, rate)| (unit.name(), *rate));
    for (name, rate) in rates.chain(units) {
        add(name);
        add(&rate.to_string());
    }
    let mut hex = format!("{:x}", hash.finalize());
    hex.truncate(ROW_HASH_CHARS);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn context_bounds_are_inclusive_inside() {
        for (text, want) in [
            ("<=200000", Some((0, 200_000))),
            ("<200000", Some((0, 199_999))),
            (">200000", Some((200_001, u64::MAX))),
            (">=200000", Some((200_000, u64::MAX))),
            (">32000 <=128000", Some((32_001, 128_000))),
            ("<0", None),
            (">9 <5", None),
            ("200000", None),
            (">=x", None),
            ("", None),
        ] {
            assert_eq!(parse_context(text), want, "{text}");
        }
    }
}
