//! `tollmesh budgets override`, `overrides` and `recount`.

use anyhow::Context;
use clap::Args;
use hyper::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::output::{self, Format};
use super::say::put_line;
use super::{Files, Outcome, running};
use crate::budgets::recount::RECOUNTED_COLUMNS;
use crate::rows::{OVERRIDDEN_COLUMNS, Rows};

/// Another limit for a while, on the record.
///
/// Asks the aggregator that is running on the same configuration, which writes down who, when and why,
/// and tells all others that share its store. The file's limit comes back by itself.
///
/// Example: tollmesh budgets override checkout-daily --limit 300USD --until 4h --reason "the launch"
#[derive(Debug, Args)]
pub struct Override {
    /// The budget.
    #[arg(value_name = "NAME")]
    name: String,
    /// The limit, as in the file, such as "300 USD".
    #[arg(long, value_name = "LIMIT", required_unless_present = "end")]
    limit: Option<String>,
    /// Until when: 2026-11-23T00:00:00Z, 2026-11-23, or a span such as 4h; at most 31 days.
    #[arg(long, value_name = "TIME", required_unless_present = "end")]
    until: Option<String>,
    /// Why.
    #[arg(long, value_name = "TEXT", required_unless_present = "end")]
    reason: Option<String>,
    /// Who; the user that runs this, where not given.
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// End what overrides the limit now.
    #[arg(long, conflicts_with_all = ["limit", "until", "reason"])]
    end: bool,
}

/// Every temporary limit that was set, and whether it holds.
#[derive(Debug, Args)]
pub struct Overrides {
    /// How rows are written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Reckon spend anew from the ledger's rows, after the store of budgets has lost its data.
///
/// Accounts that are below their rows are raised. The store then gives up what it holds back for
/// nodes that it has not heard of since: run this when every ledger that spent from the budget has
/// been served again, or its spend is known to be in.
#[derive(Debug, Args)]
pub struct Recount {
    /// The budget; all, where none is named.
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// How rows are written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Sets another limit, or ends it.
pub fn set(files: &Files, arguments: &Override) -> anyhow::Result<Outcome> {
    let config = files.load()?;
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let path = format!("/api/v1/budgets/{}/overrides", encoded(&arguments.name));
    let by = arguments.by.clone().or_else(who);
    let by = by.context("--by: missing, and USER is not set; say who asks")?;
    if arguments.end {
        let path = format!("{path}?by={}", encoded(&by));
        running::ask(&config, Method::DELETE, &path, None)?;
        put_line(format_args!(
            "{}: the file's limit holds again",
            arguments.name
        ))?;
        return Ok(Outcome::Done);
    }
    let limit = arguments.limit.as_deref().map(spaced);
    let body = json!({
        "limit": limit,
        "until": arguments.until,
        "reason": arguments.reason,
        "by": by,
    });
    let made = running::ask(&config, Method::POST, &path, Some(&body))?;
    let text = |name: &str| made.get(name).and_then(Value::as_str).unwrap_or_default();
    put_line(format_args!(
        "{}: {} until {}, by {}",
        text("budget"),
        text("limit"),
        text("until"),
        text("by")
    ))?;
    Ok(Outcome::Done)
}

/// Lists them.
pub fn list(files: &Files, arguments: &Overrides) -> anyhow::Result<Outcome> {
    let config = files.load()?;
    let answer = running::ask(&config, Method::GET, "/api/v1/budgets/overrides", None)?;
    let rows = rows_of(answer, OVERRIDDEN_COLUMNS)?;
    output::write(&rows, arguments.format, OVERRIDDEN_COLUMNS)?;
    Ok(Outcome::Done)
}

/// Has it reckoned anew.
pub fn recount(files: &Files, arguments: &Recount) -> anyhow::Result<Outcome> {
    let config = files.load()?;
    let mut path = "/api/v1/budgets/recount".to_owned();
    if let Some(name) = &arguments.name {
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
        path.push_str(&format!("?budget={name}"));
    }
    let answer = running::ask(&config, Method::POST, &path, None)?;
    let rows = rows_of(answer, RECOUNTED_COLUMNS)?;
    output::write(&rows, arguments.format, RECOUNTED_COLUMNS)?;
    let raised = |item: &Map<String, Value>| item.get("raised") == Some(&true.into());
    Ok(match rows.items.iter().any(raised) {
        true => Outcome::Findings,
        false => Outcome::Done,
    })
}

/// The rows of an answer.
pub fn rows_of(mut answer: Map<String, Value>, columns: &[&str]) -> anyhow::Result<Rows> {
    let items = answer.remove("items").unwrap_or_default();
    Ok(Rows {
        columns: columns.iter().map(ToString::to_string).collect(),
        items: serde_json::from_value(items).context("not an aggregator's answer")?,
        next_cursor: None,
    })
}

/// Who runs this.
fn who() -> Option<String> {
    let names = ["USER", "LOGNAME"].into_iter();
    names.filter_map(|name| std::env::var(name).ok()).next()
}

/// `300USD` as `300 USD`.
fn spaced(limit: &str) -> String {
    let units = ["usd", "tokens", "requests"];
    let lower = limit.to_ascii_lowercase();
    let unit = units.into_iter().find(|unit| lower.ends_with(unit));
    let number = unit.and_then(|unit| limit.get(..limit.len() - unit.len()));
    match (number, unit) {
        (Some(number), Some(unit)) => format!("{} {unit}", number.trim()),
        _ => limit.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_as_people_type_them() {
        for (typed, limit) in [
            ("300USD", "300 usd"),
            ("300 USD", "300 usd"),
            ("5Mtokens", "5M tokens"),
            ("300", "300"),
            ("5 EUR", "5 EUR"),
        ] {
            assert_eq!(spaced(typed), limit);
        }
    }
}
