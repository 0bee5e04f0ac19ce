//! The ledger as operators see it: rows of `/api/v1/requests`.

use std::collections::HashMap;
use std::net::SocketAddr;

use anyhow::{Context, bail};
use rust_decimal::Decimal;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::client::Answer;
use crate::usage::Usage;
use crate::{fact, http};

/// Rows asked for at a time.
const PAGE_ROWS: usize = 1000;

/// The ledger behind an operator address.
#[derive(Clone, Debug)]
pub struct Ledger {
    runtime: Handle,
    operator: SocketAddr,
}

/// One row.
#[derive(Clone, Debug, PartialEq)]
pub struct Row(pub Value);

impl Ledger {
    /// The ledger that answers there.
    pub fn new(runtime: Handle, operator: SocketAddr) -> Ledger {
        Ledger { runtime, operator }
    }

    /// Every row there is.
    pub fn rows(&self) -> anyhow::Result<Vec<Row>> {
        let mut rows = Vec::new();
        let mut cursor = None;
        loop {
            let page = self.page(cursor.as_deref())?;
            let items = page["items"].as_array().context("the reply has no items")?;
            rows.extend(items.iter().cloned().map(Row));
            match page["next_cursor"].as_str() {
                Some(next) if !items.is_empty() => cursor = Some(next.to_string()),
                _ => return Ok(rows),
            }
        }
    }

    /// Waits until each call has exactly one row, and gives them in the order of `answers`.
    #[track_caller]
    pub fn rows_of(&self, answers: &[&Answer]) -> Vec<Row> {
        if let Some(last) = answers.last() {
            // One row is looked for more cheaply than all; the others came before it or soon after.
            let path = format!("/api/v1/requests?where=request_id:{}", last.request_id);
            fact::eventually("a row for the last call", || {
                let page = self.items(&path).map_err(|error| format!("{error:#}"))?;
                let is_there = page["items"]
                    .as_array()
                    .is_some_and(|items| !items.is_empty());
                if is_there {
                    Ok(())
                } else {
                    Err(format!("no row for {}", last.request_id))
                }
            });
        }
        fact::eventually("a row for each call", || {
            let mut by_id = self.by_request_id()?;
            let mut rows = Vec::new();
            for answer in answers {
                let mut found = by_id.remove(&answer.request_id).unwrap_or_default();
                match (found.pop(), found.len()) {
                    (Some(row), 0) => rows.push(row),
                    (None, _) => return Err(format!("no row for {}", answer.request_id)),
                    (Some(_), n) => {
                        return Err(format!("{} rows for {}", n + 1, answer.request_id));
                    }
                }
            }
            Ok(rows)
        })
    }

    /// Waits for the one row of a call.
    #[track_caller]
    pub fn row_of(&self, answer: &Answer) -> Row {
        self.rows_of(&[answer]).remove(0)
    }

    /// Waits until a call has so many rows, one for each filter that it passed; the newest first.
    #[track_caller]
    pub fn hops_of(&self, answer: &Answer, n: usize) -> Vec<Row> {
        fact::eventually("a row for each hop", || {
            let rows = self.by_request_id()?.remove(&answer.request_id);
            let rows = rows.unwrap_or_default();
            if rows.len() == n {
                Ok(rows)
            } else {
                Err(format!("{} rows for {}", rows.len(), answer.request_id))
            }
        })
    }

    /// Waits until the ledger holds, for each call, one row with exactly that usage.
    #[track_caller]
    pub fn settles_to(&self, calls: &[(&Answer, Usage)]) {
        let answers: Vec<&Answer> = calls.iter().map(|(answer, _)| *answer).collect();
        let rows = self.rows_of(&answers);
        for ((answer, want), row) in calls.iter().zip(rows) {
            let differences = row.differences(want);
            assert!(
                differences.is_empty(),
                "{}: {}\nwanted {want}\nrow {}",
                answer.request_id,
                differences.join(", "),
                row.0
            );
        }
    }

    /// All calls and dollars, as the hourly sums have them.
    pub fn spend(&self) -> anyhow::Result<(u64, Decimal)> {
        let sums = self.items("/api/v1/spend?by=outcome")?;
        let groups = sums["items"].as_array().context("the reply has no items")?;
        groups
            .iter()
            .try_fold((0, Decimal::ZERO), |(n, usd), group| {
                let requests = group["requests"].as_u64().context("no requests")?;
                let cost = group["cost_usd"].as_str().context("no cost_usd")?;
                Ok((n + requests, usd + Decimal::from_str_exact(cost)?))
            })
    }

    /// Rows by request id, those without one left out.
    pub fn by_request_id(&self) -> Result<HashMap<String, Vec<Row>>, String> {
        let rows = self.rows().map_err(|error| format!("{error:#}"))?;
        let mut by_id: HashMap<String, Vec<Row>> = HashMap::with_capacity(rows.len());
        for row in rows {
            if let Some(id) = row.text("request_id") {
                by_id.entry(id.to_string()).or_default().push(row);
            }
        }
        Ok(by_id)
    }

    fn page(&self, cursor: Option<&str>) -> anyhow::Result<Value> {
        let mut path = format!("/api/v1/requests?limit={PAGE_ROWS}");
        if let Some(cursor) = cursor {
            path.push_str("&cursor=");
            path.push_str(cursor);
        }
        self.items(&path)
    }

    fn items(&self, path: &str) -> anyhow::Result<Value> {
        let reply = self.runtime.block_on(http::get(self.operator, path))?;
        if reply.status != 200 {
            bail!("{path} says {} {}", reply.status, reply.text());
        }
        reply.json()
    }
}

impl Row {
    /// A field that is text; `None` where it is null or absent.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.0[field].as_str()
    }

    /// The tokens in one bucket; `None` where the provider reported none.
    pub fn bucket(&self, bucket: &str) -> Option<u64> {
        self.0["buckets"][bucket].as_u64()
    }

    /// A tag's value.
    pub fn tag(&self, tag: &str) -> Option<&str> {
        self.0["tags"][tag].as_str()
    }

    /// Where the row's model or counts differ from what the provider counts, in words.
    ///
    /// A bucket that the provider did not report counts as zero here; whether null and zero are
    /// told apart is what the recorded exchanges are scored for.
    pub fn differences(&self, want: &Usage) -> Vec<String> {
        let mut differences = Vec::new();
        if self.text("model") != Some(want.model.as_str()) {
            differences.push(format!(
                "model {} instead of {}",
                self.0["model"], want.model
            ));
        }
        let empty = serde_json::Map::new();
        let buckets = self.0["buckets"].as_object().unwrap_or(&empty);
        let unwanted = buckets.keys().map(String::as_str);
        let mut names: Vec<&str> = unwanted.chain(want.buckets.keys().copied()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let got = self.bucket(name).unwrap_or(0);
            if got != want.of(name) {
                differences.push(format!("{name} {got} instead of {}", want.of(name)));
            }
        }
        differences
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::usage;

    #[test]
    fn differences_are_told_by_bucket() {
        let row =
            Row(json!({ "model": "m", "buckets": { "input": 3, "output": 4, "reasoning": 0 } }));
        assert_eq!(
            row.differences(&usage("m").input(3).output(4)),
            Vec::<String>::new()
        );
        let want = usage("n").input(3).cache_read(1);
        assert_eq!(
            row.differences(&want),
            [
                "model \"m\" instead of n",
                "cache_read 0 instead of 1",
                "output 4 instead of 0"
            ]
        );
    }
}
