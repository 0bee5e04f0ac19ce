//! Keys of budgets page by page, for those who have tens of thousands.

use std::cmp::Reverse;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::show::{Standing, Standings, columns};
use crate::rows::Rows;

/// Which keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PageOfKeys {
    /// Rows at most; `None` for all.
    pub rows_max: Option<usize>,
    /// Where the page begins: the last page's `next_cursor`.
    pub cursor: Option<String>,
}

/// A cursor that is of no page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cursor: not of a page of the budgets in force; begin again without it")]
pub struct NoSuchPage;

/// The last row of a page: its budget's id, what it had spent, and its key.
type Last = (String, u64, Vec<String>);

impl Standings {
    /// The rows of that page, each made when it is asked for.
    ///
    /// A key that spends while pages are turned moves up, and may not be on any.
    pub fn page(
        self,
        page: &PageOfKeys,
    ) -> Result<Rows<impl Iterator<Item = Map<String, Value>>>, NoSuchPage> {
        let unix_ms = self.unix_ms;
        let mut shown = self.all;
        if let Some(cursor) = &page.cursor {
            let last = read(cursor).ok_or(NoSuchPage)?;
            let begin = after(&shown, &last).ok_or(NoSuchPage)?;
            shown.drain(..begin);
        }
        let rows_max = page.rows_max.unwrap_or(usize::MAX);
        let is_last = shown.len() <= rows_max;
        shown.truncate(rows_max);
        let last = shown.last().filter(|_| !is_last);
        Ok(Rows {
            columns: columns(),
            next_cursor: last.map(write),
            items: shown
                .into_iter()
                .map(move |standing| standing.item(unix_ms)),
        })
    }
}

/// The position of the first row behind that one.
fn after(all: &[Standing], (id, spent, key): &Last) -> Option<usize> {
    let begin = all.iter().position(|row| *row.budget.id == **id)?;
    let own = all.get(begin..)?.iter();
    let passed = own.take_while(|row| {
        *row.budget.id == **id && (Reverse(row.spent), &row.key) <= (Reverse(*spent), key)
    });
    Some(begin + passed.count())
}

fn write(last: &Standing) -> String {
    let last = (&*last.budget.id, last.spent, &last.key);
    let json = serde_json::to_vec(&last).unwrap_or_default();
    URL_SAFE_NO_PAD.encode(json)
}

fn read(cursor: &str) -> Option<Last> {
    let json = URL_SAFE_NO_PAD.decode(cursor).ok()?;
    serde_json::from_slice(&json).ok()
}
