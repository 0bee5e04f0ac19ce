//! The daily report for a terminal or a mail.

use std::fmt;

use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use rust_decimal::Decimal;

use super::values::{budget_name, unit};
use super::{Daily, DaySum};
use crate::money::PICO_PER_USD;
use crate::report::budgets::BudgetState;
use crate::report::causes::Cause;
use crate::report::movers::Mover;
use crate::report::show;

/// Groups in the table; all are in the other formats.
const GROUPS_MAX: usize = 20;
/// Budgets in the table; all are in the other formats.
const BUDGETS_MAX: usize = 50;

impl fmt::Display for Daily {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n", self.title())?;
        for line in self.headlines() {
            writeln!(f, "{line}")?;
        }
        if !self.budgets.is_empty() {
            let budgets = self.budgets.iter().take(BUDGETS_MAX).map(budget_cells);
            section(f, "Budgets", &BUDGET_HEADER, 2, budgets.collect())?;
            more(f, self.budgets.len(), BUDGETS_MAX)?;
        }
        let days = self.days.iter().map(day_cells).collect();
        section(f, "Days", &DAY_HEADER, 1, days)?;
        if !self.by.is_empty() {
            let groups = self.moved.groups.iter().take(GROUPS_MAX).map(group_cells);
            let by = show::key(&self.by.join(" / "));
            let header = [by.as_str(), "requests", "cost", "average", "change", "%"];
            section(f, "Groups", &header, 1, groups.collect())?;
            more(f, self.moved.groups.len(), GROUPS_MAX)?;
        }
        self.write_movers(f)
    }
}

/// The columns of the table of days.
const DAY_HEADER: [&str; 5] = ["day", "requests", "cost", "mean of 7 days before", "%"];

fn day_cells(sum: &DaySum) -> [String; 5] {
    [
        sum.day.to_string(),
        show::count(sum.requests),
        show::usd(sum.cost),
        sum.average.map_or("-".to_owned(), show::usd),
        sum.change_per_mille()
            .map_or("-".to_owned(), show::signed_percent),
    ]
}

/// The columns of the table of budgets.
pub const BUDGET_HEADER: [&str; 8] = [
    "budget", "window", "unit", "spent", "limit", "left", "used", "reached",
];

/// A budget's cells under [`BUDGET_HEADER`].
pub fn budget_cells(state: &BudgetState) -> [String; 8] {
    let amount = |amount: Decimal| match unit(state) {
        "USD" => show::usd(pico(amount)),
        _ => show::whole(amount.trunc().mantissa()),
    };
    let tier = state.tier.map(|(at, action)| {
        let percent = (at * Decimal::ONE_HUNDRED).normalize();
        format!("{action} at {percent} %")
    });
    [
        show::key(&budget_name(state)),
        state.window.clone(),
        unit(state).to_owned(),
        amount(state.spent),
        amount(state.limit.amount()),
        amount(state.left()),
        state.used_per_mille().map_or("-".to_owned(), show::percent),
        tier.unwrap_or_else(|| "-".to_owned()),
    ]
}

/// Dollars as pico-dollars, for show.
fn pico(usd: Decimal) -> i128 {
    let pico = usd.checked_mul(Decimal::from(PICO_PER_USD));
    pico.map_or(i128::MAX, |pico| pico.trunc().mantissa())
}

/// A group's cells: name, requests, cost, average, change, change in percent.
pub fn group_cells(mover: &Mover) -> [String; 6] {
    let compared = |text: String| match mover.n_days {
        0 => "-".to_owned(),
        _ => text,
    };
    [
        show::keys(&mover.key),
        show::count(mover.after.requests),
        show::usd(mover.causes.after),
        compared(show::usd(mover.causes.before)),
        compared(show::signed_usd(mover.difference())),
        mover
            .change_per_mille()
            .map_or("-".to_owned(), show::signed_percent),
    ]
}

impl Daily {
    /// What it is a report of.
    pub fn title(&self) -> String {
        let so_far = match self.is_whole() {
            true => String::new(),
            false => {
                let until = self.until.to_string();
                let time = until.get(11..16).unwrap_or_default();
                format!(", so far: until {time} UTC")
            }
        };
        let filters = match self.filters.is_empty() {
            true => String::new(),
            false => format!(", where {}", show::key(&self.filters.join(", "))),
        };
        format!("LLM spend on {} (UTC){so_far}{filters}", self.day)
    }

    /// The sums of the day, and what stands beside them.
    pub fn headlines(&self) -> Vec<String> {
        let total = &self.moved.total;
        let mut lines = vec![format!(
            "{} for {}, {} tokens in, {} out.",
            show::usd(total.causes.after),
            show::requests(total.after.requests),
            show::count(total.after.input()),
            show::count(total.after.output()),
        )];
        lines.push(match (total.n_days, total.change_per_mille()) {
            (0, _) => "Nothing to compare with: the ledger has no earlier days.".to_owned(),
            (n, change) => {
                let before = show::usd(total.causes.before);
                let change = change.map_or(String::new(), |change| {
                    format!(", {}", show::signed_percent(change))
                });
                let difference = show::signed_usd(total.difference());
                let days = if n == 1 { "day" } else { "days" };
                let as_far = if self.is_whole() {
                    ""
                } else {
                    " up to that time"
                };
                format!(
                    "{difference} against {before}, the mean of the {n} {days} before{as_far}\
                     {change}."
                )
            }
        });
        if !total.reason.is_empty() {
            lines.push(format!("Because of {}.", total.reason));
        }
        if total.unpriced > 0 {
            let requests = show::requests(total.unpriced);
            lines.push(format!(
                "Without a price, and not in these sums: {requests}."
            ));
        }
        if total.estimated > 0 {
            let requests = show::requests(total.estimated);
            lines.push(format!("With estimated counts: {requests}."));
        }
        lines
    }

    fn write_movers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.by.is_empty() || self.movers.is_empty() {
            return Ok(());
        }
        writeln!(f, "\nBiggest movers")?;
        for mover in self.told_movers() {
            let change = match mover.change_per_mille() {
                Some(change) => format!(" ({})", show::signed_percent(change)),
                None => String::new(),
            };
            let name = show::keys(&mover.key);
            writeln!(
                f,
                " {name}: {}{change}",
                show::signed_usd(mover.difference())
            )?;
            writeln!(f, "   {}", mover.reason)?;
            writeln!(f, "   {}", sum_of_parts(mover))?;
        }
        Ok(())
    }
}

/// The parts of a change as a sum.
pub fn sum_of_parts(mover: &Mover) -> String {
    let parts = mover.causes.parts.iter().filter(|(_, part)| **part != 0);
    let parts: Vec<String> = parts
        .map(|(cause, part)| format!("{} {}", words(*cause), show::signed_usd(*part)))
        .collect();
    parts.join(", ")
}

/// A cause's name for people.
fn words(cause: Cause) -> String {
    cause.name().replace('_', " ")
}

fn more(f: &mut fmt::Formatter<'_>, n: usize, shown: usize) -> fmt::Result {
    match n.checked_sub(shown) {
        None | Some(0) => Ok(()),
        Some(more) => writeln!(f, " and {more} more: --format csv has all"),
    }
}

/// A table whose first columns are words and whose others are numbers.
fn section<const N: usize>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    header: &[&str; N],
    n_words: usize,
    rows: Vec<[String; N]>,
) -> fmt::Result {
    let mut table = Table::new();
    table.load_preset(NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for n in n_words..N {
        if let Some(column) = table.column_mut(n) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    writeln!(f, "\n{title}\n{}", table.trim_fmt())
}
