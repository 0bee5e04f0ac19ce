//! Rows as bytes, each made, written and forgotten before the next.

use std::borrow::Borrow;

use serde_json::{Map, Value, json};

use super::{Rows, cell, harmless};
use crate::ledger::query::LookedAt;

impl<I> Rows<I>
where
    I: IntoIterator<Item: Borrow<Map<String, Value>>>,
{
    /// `{"items":[…],"next_cursor":…}`; with
    /// `"looked_at":{"hours":…,"of_hours":…,"from":…}` where it is not of all hours.
    pub fn into_json(self, at: Option<LookedAt>) -> Result<Vec<u8>, serde_json::Error> {
        let mut out = b"{\"items\":[".to_vec();
        for (n, item) in self.items.into_iter().enumerate() {
            if n > 0 {
                out.push(b',');
            }
            serde_json::to_writer(&mut out, item.borrow())?;
        }
        out.push(b']');
        if let Some(at) = at {
            let looked = json!({ "hours": at.hours, "of_hours": at.of_hours, "from": at.from });
            out.extend_from_slice(b",\"looked_at\":");
            serde_json::to_writer(&mut out, &looked)?;
        }
        out.extend_from_slice(b",\"next_cursor\":");
        serde_json::to_writer(&mut out, &self.next_cursor)?;
        out.push(b'}');
        Ok(out)
    }

    /// CSV with a header. Cells that a spreadsheet would take for a formula are quoted with `'`.
    pub fn into_csv(self) -> Result<Vec<u8>, csv::Error> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(self.columns.iter().map(|column| harmless(column)))?;
        for item in self.items {
            let item = item.borrow();
            writer.write_record(self.columns.iter().map(|column| cell(item.get(column))))?;
        }
        writer
            .into_inner()
            .map_err(|error| error.into_error().into())
    }
}

impl Rows {
    /// The same CSV, of rows that are needed further.
    pub fn csv(&self) -> Result<Vec<u8>, csv::Error> {
        let rows = Rows {
            columns: self.columns.clone(),
            items: &self.items,
            next_cursor: None,
        };
        rows.into_csv()
    }
}

#[cfg(test)]
mod tests {
    use tollmesh_wire::Timestamp;

    use super::*;

    #[test]
    fn row_by_row_is_what_a_whole_tree_would_be() {
        for (texts, next_cursor, at) in [
            (&[][..], None, None),
            (&["a"][..], Some("n\"ext"), None),
            (
                &["a", "b,\"c\"", "=1"][..],
                None,
                Some(LookedAt {
                    hours: 1,
                    of_hours: 2,
                    from: Some(Timestamp::from_unix_ms(0)),
                }),
            ),
        ] {
            let item = |text: &&str| Map::from_iter([("x".to_owned(), json!(text))]);
            let rows = Rows {
                columns: vec!["x".to_owned()],
                items: texts.iter().map(item).collect::<Vec<_>>(),
                next_cursor: next_cursor.map(str::to_owned),
            };
            let mut whole = rows.json();
            if let Some(at) = at {
                whole["looked_at"] = json!({ "hours": 1, "of_hours": 2, "from": at.from });
            }
            let written = rows.clone().into_json(at).unwrap();
            assert_eq!(String::from_utf8(written).unwrap(), whole.to_string());
            let lazily = Rows {
                columns: rows.columns.clone(),
                items: texts.iter().map(item),
                next_cursor: None,
            };
            assert_eq!(lazily.into_csv().unwrap(), rows.csv().unwrap());
        }
    }
}
