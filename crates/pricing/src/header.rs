//! What a price file says once, for all its models.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::civil::Date;
use tollmesh_usage::Bucket;
use toml::{Table, Value};

use crate::calendar::{Calendar, Hours, parse_days};
use crate::fields::{Fields, Report, as_date, as_texts};
use crate::names::Glob;
use crate::row::STANDARD;

/// The only schema of price files there is.
const SCHEMA: i64 = 1;

/// What a file says once, for all its models.
#[derive(Debug, Default)]
pub(crate) struct Header {
    pub(crate) provider: String,
    /// Other names of the same provider.
    pub(crate) aliases: Vec<String>,
    /// Providers whose models are this one's too.
    pub(crate) inherits: Vec<String>,
    /// Tiers of the inherited models that hold here; empty for all.
    pub(crate) inherited_tiers: Vec<String>,
    /// Inherited models that this provider does not have, by id.
    pub(crate) not_inherited: Vec<Glob>,
    /// Whether the model asked for is charged, and not the one that the response names.
    pub(crate) bills_requested: bool,
    /// Regions whose price list is another one, and not here.
    pub(crate) unlisted_regions: Vec<Glob>,
    /// What may stand behind a model's name without changing its price.
    pub(crate) suffixes: Vec<String>,
    /// Names that stand for a choice among models, of which the one that served is charged.
    pub(crate) routers: Vec<Glob>,
    pub(crate) tiers: Tiers,
    /// Facts of a call whose value names a tier.
    pub(crate) tier_facts: Vec<String>,
    /// What may stand before a model's name, up to a slash.
    pub(crate) prefixes: Vec<Glob>,
    pub(crate) sources: BTreeMap<String, String>,
    pub(crate) calendars: BTreeMap<String, Arc<Calendar>>,
    billed_as: BTreeMap<Bucket, Bucket>,
}

/// The words for service tiers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tiers {
    /// A provider's word to ours.
    words: BTreeMap<String, String>,
}

impl Tiers {
    /// Our word for the provider's.
    pub(crate) fn ours(&self, word: &str) -> Option<&str> {
        self.words.get(word).map(String::as_str)
    }

    pub(crate) fn is_known(&self, tier: &str) -> bool {
        tier == STANDARD || self.words.values().any(|t| t == tier)
    }

    pub(crate) fn known(&self) -> Vec<&str> {
        let mut known: Vec<&str> = self.words.values().map(String::as_str).collect();
        known.push(STANDARD);
        known.sort_unstable();
        known.dedup();
        known
    }

    /// Adds another file's words; its meaning wins.
    pub(crate) fn extend(&mut self, other: &Tiers) {
        self.words.extend(other.words.clone());
    }
}

impl Header {
    /// The class at whose rate the provider says that it bills this one.
    pub(crate) fn billed_as(&self, bucket: Bucket) -> Option<Bucket> {
        self.billed_as.get(&bucket).copied()
    }
}

/// Reads what stands before the models.
pub(crate) fn read(fields: &mut Fields, report: &mut Report<'_>) -> Header {
    let mistakes = report.count();
    if fields.integer("schema", report) != Some(SCHEMA) && report.count() == mistakes {
        report.add("file", format!("`schema` must be {SCHEMA}"));
    }
    let currency = fields.text("currency", report);
    if currency.is_some_and(|c| c != "USD") {
        report.add(
            "file",
            "`currency` must be \"USD\": convert before writing a price down",
        );
    }
    let mut header = Header {
        provider: fields.required("provider", report).to_lowercase(),
        aliases: lower(fields.texts("aliases", report)),
        inherits: lower(fields.texts("inherits", report)),
        bills_requested: read_bill_by(fields, report),
        unlisted_regions: globs(fields.texts("unlisted_regions", report)),
        tier_facts: fields.texts("tier_facts", report),
        prefixes: read_prefixes(fields, report),
        suffixes: lower(fields.texts("suffixes", report)),
        routers: globs(fields.texts("routers", report)),
        ..Header::default()
    };
    let mut inherit = Fields::new(fields.table("inherit", report), "[inherit]");
    header.inherited_tiers = inherit.texts("tiers", report);
    header.not_inherited = globs(inherit.texts("except", report));
    inherit.finish(report);
    for (name, value) in fields.table("source", report) {
        match value.as_str().filter(|url| url.starts_with("https://")) {
            Some(url) => drop(header.sources.insert(name, url.to_owned())),
            None => report.add("[source]", format!("`{name}` must be an https address")),
        }
    }
    header.tiers = read_tiers(fields.table("tiers", report), report);
    header.billed_as = read_billed_as(fields.table("billed_as", report), report);
    for (name, value) in fields.table("calendar", report) {
        let place = format!("[calendar.{name}]");
        match value {
            Value::Table(table) => {
                let calendar = read_calendar(Fields::new(table, place), report);
                header.calendars.insert(name, Arc::new(calendar));
            }
            _ => report.add(&place, "expected a table"),
        }
    }
    header
}

fn lower(texts: Vec<String>) -> Vec<String> {
    texts.iter().map(|t| t.to_lowercase()).collect()
}

fn globs(texts: Vec<String>) -> Vec<Glob> {
    texts.iter().map(|t| Glob::new(t)).collect()
}

/// What may stand before a model's name, up to its last slash.
fn read_prefixes(fields: &mut Fields, report: &mut Report<'_>) -> Vec<Glob> {
    let prefixes = fields.texts("prefixes", report);
    for prefix in prefixes.iter().filter(|p| !p.ends_with('/')) {
        let what = format!("`prefixes`: \"{prefix}\" must end in a slash; no name fits it");
        report.add("file", what);
    }
    globs(prefixes)
}

fn read_bill_by(fields: &mut Fields, report: &mut Report<'_>) -> bool {
    match fields.text("bill_by", report).as_deref() {
        None | Some("served") => false,
        Some("requested") => true,
        Some(other) => {
            let what = format!("`bill_by` is \"{other}\"; expected \"served\" or \"requested\"");
            report.add("file", what);
            false
        }
    }
}

fn read_tiers(table: Table, report: &mut Report<'_>) -> Tiers {
    let mut tiers = Tiers::default();
    tiers.words.insert(STANDARD.into(), STANDARD.into());
    for (ours, value) in table {
        let Some(words) = as_texts(&value) else {
            let what = format!("`{ours}` must be the list of the provider's words for it");
            report.add("[tiers]", what);
            continue;
        };
        for word in words.iter().chain([&ours]) {
            let other = tiers.words.insert(word.to_lowercase(), ours.clone());
            if other.is_some_and(|o| o != ours) {
                report.add(
                    "[tiers]",
                    format!("\"{word}\" stands for two tiers; keep it for one"),
                );
            }
        }
    }
    tiers
}

fn read_billed_as(table: Table, report: &mut Report<'_>) -> BTreeMap<Bucket, Bucket> {
    let mut billed_as = BTreeMap::new();
    for (name, value) in table {
        let buckets = (Bucket::parse(&name), value.as_str().and_then(Bucket::parse));
        // Only downwards in the order of classes, so that the chain ends.
        match buckets {
            (Some(from), Some(to)) if to < from => drop(billed_as.insert(from, to)),
            _ => report.add(
                "[billed_as]",
                format!("`{name}` must name an earlier class"),
            ),
        }
    }
    billed_as
}

fn read_calendar(mut fields: Fields, report: &mut Report<'_>) -> Calendar {
    let place = fields.place().to_owned();
    let days = fields.text("days", report);
    let days = days.map_or(Some([true; 7]), |d| parse_days(&d));
    if days.is_none() {
        report.add(&place, "`days` must be such as \"mon-fri\" or \"sat,sun\"");
    }
    let mistakes = report.count();
    let mut hours = Vec::new();
    for text in fields.texts("hours_utc", report) {
        match Hours::parse(&text) {
            Some(span) => hours.push(span),
            None => report.add(
                &place,
                format!("\"{text}\" is no span such as \"16:30-00:30\""),
            ),
        }
    }
    if hours.is_empty() && report.count() == mistakes {
        report.add(&place, "`hours_utc` is missing or empty");
    }
    let calendar = Calendar {
        zone: fields.zone("tz_days", report),
        days: days.unwrap_or([true; 7]),
        days_off: read_days_off(&mut fields, report),
        hours,
    };
    fields.finish(report);
    calendar
}

fn read_days_off(fields: &mut Fields, report: &mut Report<'_>) -> Vec<Date> {
    let Some(value) = fields.take("days_off") else {
        return Vec::new();
    };
    let dates = value
        .as_array()
        .and_then(|a| a.iter().map(as_date).collect());
    dates.unwrap_or_else(|| {
        report.add(
            fields.place(),
            "`days_off` must be a list of dates, unquoted",
        );
        Vec::new()
    })
}
