//! Rows that have ended, and whether a later file still prices their calls as they did.

use crate::book::Problem;
use crate::file::{Model, PriceFile};
use crate::names::{Names, Pattern, SNAP};
use crate::row::Row;
use crate::table;

/// Every row that ended before that instant, in milliseconds since 1970, and that a later file of
/// the same provider changes or leaves out without saying why in `fix`.
pub(crate) fn edits(files: &[PriceFile], now_ms: i64) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (n, later) in files.iter().enumerate() {
        let of_same = |f: &&PriceFile| f.header.provider == later.header.provider;
        for earlier in files.iter().take(n).filter(of_same) {
            problems.extend(edits_of(earlier, later, now_ms));
        }
    }
    problems
}

fn edits_of(earlier: &PriceFile, later: &PriceFile, now_ms: i64) -> Vec<Problem> {
    let names = names(later);
    let mut problems = Vec::new();
    for model in &earlier.models {
        let mut ended = model
            .rows
            .iter()
            .filter(|r| r.until_ms <= now_ms)
            .peekable();
        if ended.peek().is_none() {
            continue;
        }
        let Some(heir) = heir(model, later, &names) else {
            continue;
        };
        problems.extend(ended.filter_map(|row| {
            let (place, what) = edit(row, heir)?;
            let whose = calls(row);
            Some(Problem {
                file: later.name.clone(),
                place,
                what: format!(
                    "the row of {} for {whose} is {what} here; it prices calls of the past: restore \
                     it, or give the row in its place a `fix = \"why\"`",
                    earlier.name
                ),
            })
        }));
    }
    problems
}

fn names(file: &PriceFile) -> Names {
    let mut names = Names::default();
    for (index, model) in file.models.iter().enumerate() {
        for text in &model.matches {
            names.add(Pattern::new(text), index);
        }
    }
    names
}

/// The model of the later file that takes over a name of this one.
fn heir<'f>(model: &Model, later: &'f PriceFile, names: &Names) -> Option<&'f Model> {
    let same = later.models.iter().find(|m| m.id == model.id);
    let by_name = || {
        let stems = model.matches.iter().map(|text| text.trim_end_matches(SNAP));
        let index = stems.into_iter().find_map(|stem| names.find(stem));
        index.and_then(|index| later.models.get(index))
    };
    same.or_else(by_name).map(AsRef::as_ref)
}

/// Where and how the heir prices the row's calls otherwise; `None` where it does not, or says why.
fn edit(row: &Row, heir: &Model) -> Option<(String, &'static str)> {
    let says_why = |r: &Row| r.fix.is_some() || row.fix.is_some();
    let model = &heir.id;
    let same = (1..)
        .zip(&heir.rows)
        .find(|(_, r)| is_for_same_calls(row, r));
    let Some((n, kept)) = same else {
        let mut instead = heir.rows.iter().filter(|r| table::meet(row, r));
        let is_said = row.fix.is_some() || instead.any(says_why);
        return (!is_said).then(|| (format!("model {model}"), "missing"));
    };
    let is_kept = kept.rates == row.rates && kept.units == row.units;
    (!is_kept && !says_why(kept)).then(|| (format!("model {model} row {n}"), "changed"))
}

fn is_for_same_calls(a: &Row, b: &Row) -> bool {
    let hours = |r: &Row| r.at.as_ref().map(|(name, _)| name.clone());
    a.tier == b.tier
        && (a.from_ms, a.until_ms) == (b.from_ms, b.until_ms)
        && (a.input_min, a.input_max) == (b.input_min, b.input_max)
        && a.regions == b.regions
        && hours(a) == hours(b)
}

/// Which calls a row prices, in words.
fn calls(row: &Row) -> String {
    let day =
        |ms| jiff::Timestamp::from_millisecond(ms).map(|t| t.strftime("%Y-%m-%d").to_string());
    let mut words = format!("tier {}", row.tier);
    if let Some(Ok(from)) = (row.from_ms != i64::MIN).then(|| day(row.from_ms)) {
        words.push_str(&format!(" from {from}"));
    }
    if let Ok(until) = day(row.until_ms) {
        words.push_str(&format!(" until {until}"));
    }
    if row.input_min > 0 {
        words.push_str(&format!(", input of {} tokens and more", row.input_min));
    } else if row.input_max < u64::MAX {
        words.push_str(&format!(", input up to {} tokens", row.input_max));
    }
    words
}
