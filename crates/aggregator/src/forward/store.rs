//! One visit to the store: what it has of this ledger, and parcels handed over.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use sha2::{Digest, Sha256};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Row, Transaction};

use crate::forward::cells::{Array, plain, without_nul};
use crate::forward::error::{ForwardError, refused};
use crate::forward::month::Month;
use crate::forward::place::Place;
use crate::forward::{schema, send};
use crate::ledger::CallOutcome;
use crate::ledger::outbox::{Cells, Facts, Parcel};

/// Ids that are remembered between visits. Each costs some 50 bytes; what is forgotten is asked for.
const IDS_MAX: usize = 20_000;

/// The ids that the store gave to facts, by those of this ledger.
#[derive(Debug, Default)]
pub struct KnownIds {
    by_kind: [HashMap<i64, i64>; 4],
}

/// A connection to a store that is as this build knows it.
pub struct Store {
    client: Client,
    ledger: i32,
    forwarded_row: i64,
    last_parcel: i64,
    is_new: bool,
    months: BTreeMap<Month, i64>,
    /// The first month that is kept, and the last that is expected.
    window: (Month, Month),
}

/// What became of a parcel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Rows that the store had not.
    pub new: u64,
    /// Rows that were not sent, since their months are beyond retention or too far ahead.
    pub outside: u64,
}

/// A kind of facts: its table, and the columns of events that refer to it.
struct Kind {
    table: &'static str,
    columns: &'static [&'static str],
}

const KINDS: [Kind; 4] = [
    Kind {
        table: "tag_sets",
        columns: &["tag_set"],
    },
    Kind {
        table: "sources",
        columns: &["source_id"],
    },
    Kind {
        table: "models",
        columns: &["model_id"],
    },
    Kind {
        table: "prices",
        columns: &["price_id", "original_price_id"],
    },
];

impl KnownIds {
    /// Those of the facts that this column of events refers to; `None` where it refers to none.
    fn of_column(&self, name: &str) -> Option<&HashMap<i64, i64>> {
        KINDS
            .iter()
            .zip(&self.by_kind)
            .find(|(kind, _)| kind.columns.contains(&name))
            .map(|(_, ids)| ids)
    }
}

impl Store {
    /// Connects, brings the tables up to date, makes and drops partitions, and finds out what the
    /// store has of that ledger. Rows of `retention_months` before this month are kept, by the
    /// server's clock: one sidecar whose own is wrong must not drop what all others forwarded.
    pub async fn open(
        place: &Place,
        ledger_id: &str,
        retention_months: u32,
    ) -> Result<Store, ForwardError> {
        let mut client = place.connect().await?;
        schema::migrate(&mut client).await?;
        let present = schema::present(&client).await?;
        let window = (
            present.before(retention_months),
            present.after(schema::MONTHS_AHEAD),
        );
        let mut months = schema::months(&mut client).await?;
        for ahead in 0..=schema::MONTHS_AHEAD {
            let month = present.after(ahead);
            if let Entry::Vacant(vacant) = months.entry(month) {
                schema::make(&mut client, month).await?;
                vacant.insert(0);
            }
        }
        if months.range(..window.0).next().is_some()
            && let Some(month) = schema::drop_month_before(&mut client, window.0).await?
        {
            months.remove(&month);
        }
        let (enrolled, is_new) = enrol(&client, ledger_id).await?;
        Ok(Store {
            client,
            ledger: enrolled.get(0),
            forwarded_row: enrolled.get(1),
            last_parcel: enrolled.get(2),
            is_new,
            months,
            window,
        })
    }

    /// The last of the ledger's rows that the store has.
    pub fn forwarded_row(&self) -> i64 {
        self.forwarded_row
    }

    /// The number of the ledger's last parcel that the store has taken; 0 before the first.
    pub fn last_parcel(&self) -> i64 {
        self.last_parcel
    }

    /// Whether the store has heard of that ledger for the first time.
    pub fn is_new(&self) -> bool {
        self.is_new
    }

    /// The months that were lost, with how often.
    pub fn lost(&self) -> impl Iterator<Item = (Month, i64)> {
        self.months
            .iter()
            .filter(|(_, lost)| **lost > 0)
            .map(|(month, lost)| (*month, *lost))
    }

    /// Hands a parcel over: durably, all of it or nothing.
    pub async fn deliver(
        &mut self,
        parcel: &Parcel,
        known: &mut KnownIds,
    ) -> Result<Delivered, ForwardError> {
        let kept = self.kept(parcel).await?;
        self.learn(&parcel.facts, known).await?;
        let last_row = parcel.upto.unwrap_or(0);
        let mut columns: Vec<Array<'_>> = Vec::with_capacity(parcel.columns.len());
        for (name, cells) in &parcel.columns {
            columns.push(Array::of(cells, &kept, known.of_column(name))?);
        }
        let mut values: Vec<(&(dyn ToSql + Sync), Type)> = Vec::with_capacity(columns.len() + 3);
        values.push((&self.ledger, Type::INT4));
        values.push((&last_row, Type::INT8));
        values.push((&parcel.number, Type::INT8));
        values.extend(columns.iter().map(Array::parameter));
        let failed = refused("rows cannot be written");
        let has_former = parcel.rows.iter().any(|(_, revision)| *revision > 0);
        let row = if has_former || !parcel.outcomes.is_empty() {
            let transaction = self.client.transaction().await.map_err(&failed)?;
            withdraw(&transaction, parcel, &kept).await?;
            tell(&transaction, &parcel.outcomes).await?;
            let row = transaction
                .query_typed_one(&send::insert_sql(), &values)
                .await
                .map_err(&failed)?;
            transaction.commit().await.map_err(&failed)?;
            row
        } else {
            self.client
                .query_typed_one(&send::insert_sql(), &values)
                .await
                .map_err(&failed)?
        };
        let (new, is_known): (i64, bool) = (row.get(0), row.get(1));
        if !is_known {
            // Somebody has emptied the store this very moment: the next visit begins anew.
            return Err(ForwardError::NoStore);
        }
        let outside = kept.iter().filter(|kept| !**kept).count();
        Ok(Delivered {
            new: new.unsigned_abs(),
            outside: u64::try_from(outside).unwrap_or(u64::MAX),
        })
    }

    /// Has the store note a parcel as taken of which it can take nothing.
    pub async fn pass_over(&mut self, parcel: &Parcel) -> Result<(), ForwardError> {
        let sql = "UPDATE tollmesh.ledgers SET last_parcel = $2::bigint,
                       forwarded_row = greatest(forwarded_row, $3::bigint) WHERE n = $1::integer";
        let values: [(&(dyn ToSql + Sync), Type); 3] = [
            (&self.ledger, Type::INT4),
            (&parcel.number, Type::INT8),
            (&parcel.upto.unwrap_or(0), Type::INT8),
        ];
        let noted = self.client.execute_typed(sql, &values).await;
        noted
            .map(drop)
            .map_err(refused("its progress cannot be noted"))
    }

    /// Which rows the store takes; their months get a partition where they have none.
    async fn kept(&mut self, parcel: &Parcel) -> Result<Vec<bool>, ForwardError> {
        let (first, last) = self.window;
        let months: Vec<Option<Month>> = parcel
            .integers("time_ms")
            .iter()
            .map(|ms| {
                ms.and_then(Month::of)
                    .filter(|month| (first..=last).contains(month))
            })
            .collect();
        let wanted: BTreeSet<Month> = months.iter().flatten().copied().collect();
        for month in wanted {
            if let Entry::Vacant(vacant) = self.months.entry(month) {
                schema::make(&mut self.client, month).await?;
                vacant.insert(0);
            }
        }
        Ok(months.iter().map(Option::is_some).collect())
    }

    /// Has the store know all facts, and learns its ids for them.
    async fn learn(&mut self, facts: &Facts, known: &mut KnownIds) -> Result<(), ForwardError> {
        let by_kind = [
            &facts.tag_sets,
            &facts.sources,
            &facts.models,
            &facts.prices,
        ];
        for ((kind, facts), ids) in KINDS.iter().zip(by_kind).zip(&mut known.by_kind) {
            if ids.len() + facts.len() > IDS_MAX {
                ids.clear();
            }
            let new: Vec<(i64, &str)> = facts
                .iter()
                .filter(|(id, _)| !ids.contains_key(id))
                .map(|(id, body)| (*id, body.as_str()))
                .collect();
            if !new.is_empty() {
                let theirs = ids_of(&self.client, kind, &new).await?;
                ids.extend(new.iter().map(|(id, _)| *id).zip(theirs));
            }
        }
        Ok(())
    }
}

/// The ledger's number, the last row that the store has of it and the number of its last parcel; and
/// whether it is new there.
async fn enrol(client: &Client, ledger_id: &str) -> Result<(Row, bool), ForwardError> {
    let failed = refused("the ledger cannot be enrolled");
    let find =
        "SELECT n, forwarded_row, last_parcel FROM tollmesh.ledgers WHERE id = $1::text::uuid";
    let id = [(&ledger_id as &(dyn ToSql + Sync), Type::TEXT)];
    let found = client.query_typed_opt(find, &id).await.map_err(&failed)?;
    if let Some(row) = found {
        return Ok((row, false));
    }
    let add = "INSERT INTO tollmesh.ledgers (id) VALUES ($1::text::uuid) ON CONFLICT DO NOTHING";
    client.execute_typed(add, &id).await.map_err(&failed)?;
    let row = client.query_typed_one(find, &id).await.map_err(&failed)?;
    Ok((row, true))
}

/// The store's ids of those facts, in their order; facts that it does not know are added. In a
/// statement of its own, before the rows': two who add the same facts wait for moments only.
async fn ids_of(
    client: &Client,
    kind: &Kind,
    facts: &[(i64, &str)],
) -> Result<Vec<i64>, ForwardError> {
    let failed = refused("tags, sources, models or prices cannot be written");
    let digests: Vec<String> = facts.iter().map(|(_, body)| digest(body)).collect();
    let bodies: Vec<String> = facts.iter().map(|(_, body)| without_nul(body)).collect();
    let table = kind.table;
    let add = format!(
        "INSERT INTO tollmesh.{table} (digest, body)
         SELECT g.digest::uuid, g.body::jsonb FROM unnest($1::text[], $2::text[]) g(digest, body)
         WHERE NOT EXISTS (SELECT 1 FROM tollmesh.{table} t WHERE t.digest = g.digest::uuid)
         ORDER BY 1 ON CONFLICT DO NOTHING"
    );
    let add = match table {
        "tag_sets" => format!(
            "WITH added AS ({add} RETURNING id, body)
             INSERT INTO tollmesh.tags (tag_set, tag, value)
             SELECT id, key, value FROM added, jsonb_each_text(body)"
        ),
        _ => add,
    };
    client
        .execute_typed(
            &add,
            &[(&digests, Type::TEXT_ARRAY), (&bodies, Type::TEXT_ARRAY)],
        )
        .await
        .map_err(&failed)?;
    let find = format!(
        "SELECT t.id::bigint FROM unnest($1::text[]) WITH ORDINALITY g(digest, n)
         JOIN tollmesh.{table} t ON t.digest = g.digest::uuid ORDER BY g.n"
    );
    let rows = client
        .query_typed(&find, &[(&digests, Type::TEXT_ARRAY)])
        .await
        .map_err(&failed)?;
    match rows.len() == facts.len() {
        true => Ok(rows.iter().map(|row| row.get(0)).collect()),
        false => Err(ForwardError::NoStore),
    }
}

/// Takes former states of the parcel's altered rows away.
async fn withdraw(
    transaction: &Transaction<'_>,
    parcel: &Parcel,
    kept: &[bool],
) -> Result<(), ForwardError> {
    let texts = parcel.columns.iter().find_map(|(name, cells)| match cells {
        Cells::Texts(texts) if *name == "event_id" => Some(texts.as_slice()),
        _ => None,
    });
    let (mut times, mut ids, mut revisions) = (Vec::new(), Vec::new(), Vec::new());
    let cells = parcel
        .integers("time_ms")
        .iter()
        .zip(texts.unwrap_or_default());
    for (((_, revision), (time, id)), kept) in parcel.rows.iter().zip(cells).zip(kept) {
        if *kept && *revision > 0 {
            times.push(*time);
            ids.push(id.as_deref().map(plain));
            revisions.push(*revision);
        }
    }
    transaction
        .execute_typed(
            &send::withdraw_sql(),
            &[
                (&times, Type::INT8_ARRAY),
                (&ids, Type::TEXT_ARRAY),
                (&revisions, Type::INT8_ARRAY),
            ],
        )
        .await
        .map_err(refused("former rows cannot be replaced"))?;
    Ok(())
}

/// Writes what became of calls.
async fn tell(transaction: &Transaction<'_>, outcomes: &[CallOutcome]) -> Result<(), ForwardError> {
    if outcomes.is_empty() {
        return Ok(());
    }
    let (mut kinds, mut subjects) = (Vec::new(), Vec::new());
    let (mut labels, mut times) = (Vec::new(), Vec::new());
    for outcome in outcomes {
        let (kind, subject) = outcome.subject.columns();
        kinds.push(kind);
        subjects.push(plain(subject));
        labels.push(plain(&outcome.label));
        times.push(outcome.told.as_unix_ms());
    }
    transaction
        .execute_typed(
            &send::outcomes_sql(),
            &[
                (&kinds, Type::INT8_ARRAY),
                (&subjects, Type::TEXT_ARRAY),
                (&labels, Type::TEXT_ARRAY),
                (&times, Type::INT8_ARRAY),
            ],
        )
        .await
        .map_err(refused("outcomes cannot be written"))?;
    Ok(())
}

/// The first half of the text's SHA-256 as the text of a UUID.
fn digest(body: &str) -> String {
    let digest = Sha256::digest(body.as_bytes());
    digest
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_a_uuid() {
        // The first 32 of the digits that sha256sum gives for "{}".
        assert_eq!(digest("{}"), "44136fa355b3678a1146ad16f7e8649e");
    }
}
