//! One price file: its header, its models, what it says about each.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::civil::Date;
use rust_decimal::Decimal;
use tollmesh_usage::{Bucket, Unit};
use toml::{Table, Value};

use crate::amount::Rate;
use crate::book::{Problem, SourceFile};
use crate::calendar::{Calendar, Hours, parse_days};
use crate::condition::Condition;
use crate::fields::{Fields, Report, as_date, as_texts};
use crate::names::Glob;
use crate::row::{self, Row, STANDARD, read_source};
use crate::table::{self, Span};

/// The only schema of price files there is.
const SCHEMA: i64 = 1;

/// A price file, read and checked by itself.
#[derive(Debug)]
pub(crate) struct PriceFile {
    pub(crate) name: String,
    pub(crate) header: Header,
    pub(crate) models: Vec<Arc<Model>>,
    pub(crate) modifiers: Vec<Arc<Modifier>>,
    pub(crate) fees: Vec<Arc<Fee>>,
}

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
    /// Whether the model asked for is charged, and not the one that the response names.
    pub(crate) bills_requested: bool,
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

/// A model with its rows.
#[derive(Clone, Debug)]
pub struct Model {
    /// The provider's name for it.
    pub id: String,
    /// The names that mean it.
    pub matches: Vec<String>,
    /// In the file's order.
    pub rows: Vec<Row>,
    /// What reviewers must know.
    pub note: Option<String>,
}

/// A factor on every token line of a call.
#[derive(Debug)]
pub(crate) struct Modifier {
    pub(crate) id: String,
    pub(crate) when: Condition,
    pub(crate) span: Span,
    pub(crate) models: Vec<Glob>,
    pub(crate) times: Decimal,
}

/// What is charged beside tokens.
#[derive(Debug)]
pub(crate) struct Fee {
    pub(crate) id: String,
    pub(crate) when: Condition,
    pub(crate) span: Span,
    pub(crate) models: Vec<Glob>,
    /// `None` for what no response shows, which is written down and never charged.
    pub(crate) unit: Option<Unit>,
    pub(crate) each: Rate,
    pub(crate) checked: Option<Date>,
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

/// Reads a file, with all its mistakes.
pub(crate) fn read(source: &SourceFile) -> (Option<PriceFile>, Vec<Problem>) {
    let mut report = Report::new(&source.name);
    let table = match source.text.parse::<Table>() {
        Ok(table) => table,
        Err(error) => {
            report.add_broken(&source.text, &error);
            return (None, report.into_problems());
        }
    };
    let mut fields = Fields::new(table, "file");
    let mut header = read_header(&mut fields, &mut report);
    let models = fields.tables("model", &mut report);
    let modifiers = fields.tables("modifier", &mut report);
    let fees = fields.tables("fee", &mut report);
    fields.finish(&mut report);
    header.tiers.words.insert(STANDARD.into(), STANDARD.into());
    let file = PriceFile {
        name: source.name.clone(),
        models: (1..)
            .zip(models)
            .map(|(n, t)| Arc::new(read_model(t, n, &header, &mut report)))
            .collect(),
        modifiers: (1..)
            .zip(modifiers)
            .map(|(n, t)| Arc::new(read_modifier(t, n, &header, &mut report)))
            .collect(),
        fees: (1..)
            .zip(fees)
            .map(|(n, t)| Arc::new(read_fee(t, n, &header, &mut report)))
            .collect(),
        header,
    };
    (Some(file), report.into_problems())
}

fn read_header(fields: &mut Fields, report: &mut Report<'_>) -> Header {
    if fields.integer("schema", report) != Some(SCHEMA) {
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
        tier_facts: fields.texts("tier_facts", report),
        prefixes: fields
            .texts("prefixes", report)
            .iter()
            .map(|p| Glob::new(p))
            .collect(),
        ..Header::default()
    };
    let mut inherit = Fields::new(fields.table("inherit", report), "[inherit]");
    header.inherited_tiers = inherit.texts("tiers", report);
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
    for (ours, value) in table {
        let Some(words) = as_texts(&value) else {
            let what = format!("`{ours}` must be the list of the provider's words for it");
            report.add("[tiers]", what);
            continue;
        };
        for word in words.iter().chain([&ours]) {
            let other = tiers.words.insert(word.to_lowercase(), ours.clone());
            if other.is_some_and(|o| o != ours) {
                report.add("[tiers]", format!("\"{word}\" stands for two tiers"));
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
    if hours.is_empty() {
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

fn read_model(table: Table, number: usize, header: &Header, report: &mut Report<'_>) -> Model {
    let id = table.get("id").and_then(Value::as_str).map(str::to_owned);
    let place = id.map_or(format!("model {number}"), |id| format!("model {id}"));
    let mut fields = Fields::new(table, &place);
    let id = fields.required("id", report);
    let mut matches = fields.texts("match", report);
    if matches.is_empty() {
        matches.push(id.clone());
    }
    let has_audio = fields.flag("audio", false, report);
    let note = fields.text("note", report);
    let tables = fields.tables("rate", report);
    if tables.is_empty() {
        report.add(&place, "no `rate` row");
    }
    let rows = (1..).zip(tables).map(|(n, table)| {
        let fields = Fields::new(table, format!("{place} row {n}"));
        row::read(fields, &id, has_audio, header, report)
    });
    let rows: Vec<Row> = rows.collect();
    table::check(&rows, &place, report);
    fields.finish(report);
    Model {
        id,
        matches,
        rows,
        note,
    }
}

fn read_modifier(
    table: Table,
    number: usize,
    header: &Header,
    report: &mut Report<'_>,
) -> Modifier {
    let mut fields = Fields::new(table, format!("modifier {number}"));
    let id = fields.required("id", report);
    let place = format!("modifier {id}");
    let when = Condition::read(fields.table("when", report), &place, report);
    if when.is_always() {
        report.add(
            &place,
            "`when` is missing: a factor that always holds belongs in the rates",
        );
    }
    let times = fields.money("times", report);
    if times.is_none_or(Rate::is_zero) {
        report.add(&place, "`times` is missing, or nothing");
    }
    let span = Span::read(&mut fields, report);
    let models = read_models(&mut fields, report);
    read_source(&mut fields, header, report);
    for documentation in ["note", "confidence"] {
        fields.text(documentation, report);
    }
    fields.finish(report);
    let times = times.map_or(Decimal::ONE, Rate::as_decimal);
    Modifier {
        id,
        when,
        span,
        models,
        times,
    }
}

fn read_fee(table: Table, number: usize, header: &Header, report: &mut Report<'_>) -> Fee {
    let mut fields = Fields::new(table, format!("fee {number}"));
    let id = fields.required("id", report);
    let place = format!("fee {id}");
    let when = Condition::read(fields.table("when", report), &place, report);
    let name = fields.required("unit", report);
    let is_visible = fields.flag("visible", true, report);
    let unit = Unit::parse(&name).filter(|_| is_visible);
    if unit.is_none() && is_visible {
        let known = Unit::ALL.map(Unit::name).join(", ");
        let what = format!("unknown unit \"{name}\"; known are {known}");
        report.add(&place, what);
    }
    let each = fields.money("each", report);
    let is_free = fields.flag("free", false, report);
    if each.is_none_or(Rate::is_zero) != is_free || each.is_none() {
        report.add(
            &place,
            "`each` is missing, or nothing without `free = true`",
        );
    }
    let span = Span::read(&mut fields, report);
    let models = read_models(&mut fields, report);
    let (_, checked) = read_source(&mut fields, header, report);
    for documentation in ["note", "quota", "confidence"] {
        fields.text(documentation, report);
    }
    fields.finish(report);
    let each = each.unwrap_or(Rate::of(Decimal::ZERO));
    Fee {
        id,
        when,
        span,
        models,
        unit,
        each,
        checked,
    }
}

/// Globs over model ids; all models where none is given.
fn read_models(fields: &mut Fields, report: &mut Report<'_>) -> Vec<Glob> {
    let models = fields.texts("models", report);
    match models.is_empty() {
        true => vec![Glob::new("*")],
        false => models.iter().map(|m| Glob::new(m)).collect(),
    }
}
