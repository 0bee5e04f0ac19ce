//! One price file: its models, and what is charged beside and upon their rows.

use std::sync::Arc;

use jiff::civil::Date;
use rust_decimal::Decimal;
use tollmesh_usage::Unit;
use toml::{Table, Value};

use crate::amount::Rate;
use crate::book::{Problem, SourceFile};
use crate::condition::Condition;
use crate::fields::{Fields, Report};
use crate::header::{self, Header};
use crate::names::{Glob, SNAP};
use crate::row::{self, Row, read_source};
use crate::table::{self, Span};

/// A price file, read and checked by itself.
#[derive(Debug)]
pub(crate) struct PriceFile {
    pub(crate) name: String,
    pub(crate) header: Header,
    pub(crate) models: Vec<Arc<Model>>,
    pub(crate) modifiers: Vec<Arc<Modifier>>,
    pub(crate) fees: Vec<Arc<Fee>>,
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
    let header = header::read(&mut fields, &mut report);
    let models = fields.tables("model", &mut report);
    let modifiers = fields.tables("modifier", &mut report);
    let fees = fields.tables("fee", &mut report);
    fields.finish(&mut report);
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

fn read_model(table: Table, number: usize, header: &Header, report: &mut Report<'_>) -> Model {
    let id = table.get("id").and_then(Value::as_str).map(str::to_owned);
    let place = id.map_or(format!("model {number}"), |id| format!("model {id}"));
    let mut fields = Fields::new(table, &place);
    let id = fields.required("id", report);
    let matches = read_names(&mut fields, &id, report);
    let has_audio = fields.flag("audio", false, report);
    let note = fields.text("note", report);
    let mistakes = report.count();
    let tables = fields.tables("rate", report);
    if tables.is_empty() && report.count() == mistakes {
        report.add(
            &place,
            "no `rate` row; give one for each tier and context range",
        );
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

/// The names that mean the model; its id where none is given.
fn read_names(fields: &mut Fields, id: &str, report: &mut Report<'_>) -> Vec<String> {
    if !fields.has("match") {
        return vec![id.to_owned()];
    }
    let mistakes = report.count();
    let names = fields.texts("match", report);
    if names.is_empty() && report.count() == mistakes {
        let what = "`match` names nothing; leave it out where the id is the only name";
        report.add(fields.place(), what);
    }
    for name in &names {
        if name.is_empty() {
            report.add(fields.place(), "`match` has an empty name; remove it");
        }
        if name.replace(SNAP, "").contains(['{', '}']) {
            let what = format!("`match` \"{name}\": {SNAP} is all that may stand in braces");
            report.add(fields.place(), what);
        }
    }
    names
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
