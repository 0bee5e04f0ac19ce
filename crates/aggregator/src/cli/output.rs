//! Rows on standard output: a table for eyes, JSON or CSV for programs.

use std::io::{IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, ContentArrangement, Table};

use super::say::to_the_end;
use crate::rows::Rows;
use crate::shown::shown;

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// One object with `items` and `next_cursor`, as the API answers.
    Json,
    /// A header and a line a row.
    Csv,
}

/// Writes the rows; `columns` are those that a table has room for. A reader that has seen enough may
/// go.
pub fn write(rows: &Rows, format: Format, columns: &[&str]) -> anyhow::Result<()> {
    let mut text = match format {
        Format::Table => table(rows, columns).to_string().into_bytes(),
        Format::Json => serde_json::to_vec_pretty(&rows.json())?,
        Format::Csv => rows.csv()?,
    };
    if format != Format::Csv {
        text.push(b'\n');
    }
    let mut out = std::io::stdout().lock();
    Ok(to_the_end(out.write_all(&text).and_then(|()| out.flush()))?)
}

/// The table: texts to the left, numbers to the right.
fn table(rows: &Rows, columns: &[&str]) -> Table {
    let wanted: Vec<&str> = rows
        .columns
        .iter()
        .map(String::as_str)
        .filter(|column| columns.is_empty() || columns.contains(column))
        .collect();
    let mut table = Table::new();
    table.load_preset(NOTHING);
    let is_wide = !std::io::stdout().is_terminal();
    if is_wide {
        // Nobody's screen is known; a program that reads a table wants a row a line.
        table.set_content_arrangement(ContentArrangement::Disabled);
    } else {
        table.set_content_arrangement(ContentArrangement::Dynamic);
    }
    table.set_header(wanted.iter().map(|column| column.replace('_', " ")));
    let places = decimal_places(rows);
    for mut cells in rows.cells() {
        for (name, cell) in rows.columns.iter().zip(&mut cells) {
            if name.ends_with("_usd") && !cell.is_empty() {
                pad(cell, places);
            }
        }
        let named = rows.columns.iter().zip(cells);
        let row = named.filter(|(name, _)| wanted.contains(&name.as_str()));
        table.add_row(row.map(|(_, cell)| match cell.is_empty() {
            true => "-".into(),
            false => shown(&cell).into_owned(),
        }));
    }
    for (n, name) in wanted.iter().enumerate() {
        if Rows::is_number(name)
            && let Some(column) = table.column_mut(n)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The digits after the point of the amount that has most of them; at least cents.
fn decimal_places(rows: &Rows) -> usize {
    let amounts = rows.cells().flat_map(|cells| {
        let named = rows.columns.iter().zip(cells);
        let amounts = named.filter(|(name, _)| name.ends_with("_usd"));
        amounts.map(|(_, cell)| cell).collect::<Vec<_>>()
    });
    let places = amounts.map(|cell| cell.split_once('.').map_or(0, |(_, digits)| digits.len()));
    places.max().unwrap_or(0).max(2)
}

/// Fills an amount up with zeros, so that points stand below each other.
fn pad(amount: &mut String, places: usize) {
    let digits = amount.split_once('.').map(|(_, digits)| digits.len());
    if digits.is_none() {
        amount.push('.');
    }
    amount.extend(std::iter::repeat_n('0', places - digits.unwrap_or(0)));
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_do_nothing_to_a_terminal() {
        let model = "gpt\u{1b}]0;x\u{7}\r\n0.00";
        let item = json!({ "model": model, "requests": 1 });
        let rows = Rows {
            columns: ["model", "requests"].map(str::to_owned).to_vec(),
            items: vec![item.as_object().cloned().unwrap_or_default()],
            next_cursor: None,
        };
        let text = table(&rows, &[]).trim_fmt();
        assert!(text.contains(r"gpt\u{1b}]0;x\u{7}\r\n0.00"), "{text}");
        assert!(!text.contains(['\u{1b}', '\u{7}', '\r']), "{text:?}");
    }

    #[test]
    fn amounts_stand_point_below_point() {
        let item = |team: &str, cost| {
            let item = json!({ "team": team, "requests": 1, "cost_usd": cost });
            item.as_object().cloned().unwrap_or_default()
        };
        let rows = Rows {
            columns: ["team", "requests", "cost_usd"].map(str::to_owned).to_vec(),
            items: vec![
                item("checkout", json!("12")),
                item("search", json!("0.00353")),
                item("", json!(null)),
            ],
            next_cursor: None,
        };
        insta::assert_snapshot!(table(&rows, &[]).trim_fmt());
    }
}
