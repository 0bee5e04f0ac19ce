//! Sums of days and months, folded together from those of hours, in steps between which the writer
//! does its other work.
//!
//! Days are summed three times: by tags and owner, as most questions are; by the source itself, with
//! its pod and node, and without tags; and by both, which is a line for each pod and tag set that met on
//! that day.
//!
//! Hours that are folded end at one place, so that what is in days and months is always known: a
//! later change of a folded hour changes its day and month in the same transaction, and questions
//! read the rest from the hours. Days and months are those of UTC.

use rusqlite::{Connection, OptionalExtension, params};

use crate::ledger::rollup;

/// Hourly groups that one step folds: some ten milliseconds of work.
pub const FOLD_GROUPS_MAX: i64 = 250;

/// The place before which all hourly sums are folded. Within its hour, tag sets with smaller
/// numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Folded {
    /// Hours since 1970.
    pub hour: i64,
    /// The first tag set of that hour that is not folded.
    pub tag_set: i64,
}

/// The first hour of the day that an SQL expression's hour is in.
pub fn day_of(hour: &str) -> String {
    // The remainder of a negative hour, before 1970, is negative.
    format!("({hour} - (({hour} % 24) + 24) % 24)")
}

/// The first hour of the month that an SQL expression's hour is in.
pub fn month_of(hour: &str) -> String {
    format!("(unixepoch({hour} * 3600, 'unixepoch', 'start of month') / 3600)")
}

/// The source that stands for this one in sums of days and months.
pub fn owner(connection: &Connection, source: i64) -> rusqlite::Result<i64> {
    let owner = connection
        .prepare_cached("SELECT coalesce(owner_id, id) FROM sources WHERE id = ?1")?
        .query_row([source], |row| row.get(0))
        .optional()?;
    Ok(owner.unwrap_or(source))
}

/// Folds some groups of the hours before that one, about as many as said; says whether there may be
/// more. Within a transaction.
pub fn fold_some(
    connection: &Connection,
    before_hour: i64,
    groups_max: i64,
) -> rusqlite::Result<bool> {
    let from = Folded::read(connection)?;
    if from.hour >= before_hour {
        return Ok(false);
    }
    let to = Folded::step(connection, from, before_hour, groups_max)?;
    for sql in [
        fold_sql("daily", &day_of("t.hour"), &BY_OWNER),
        fold_sql("monthly", &month_of("t.hour"), &BY_OWNER),
        fold_sql("daily_sources", &day_of("t.hour"), BY_SOURCE),
        fold_sql("daily_pods", &day_of("t.hour"), &BY_BOTH),
    ] {
        connection.prepare_cached(&sql)?.execute(params![
            from.hour,
            from.tag_set,
            to.hour,
            to.tag_set
        ])?;
    }
    to.write(connection)?;
    Ok(to.hour < before_hour)
}

/// What lines of days and months are told apart by, after the hour, with where it comes from.
const BY_OWNER: [(&str, &str); 6] = [
    ("tag_set", "t.tag_set"),
    ("source_id", "coalesce(s.owner_id, t.source_id)"),
    ("model_id", "t.model_id"),
    ("outcome", "t.outcome"),
    ("usage_source", "t.usage_source"),
    ("cost_status", "t.cost_status"),
];

/// The same for days by tags and source.
const BY_BOTH: [(&str, &str); 6] = [
    ("tag_set", "t.tag_set"),
    ("source_id", "t.source_id"),
    ("model_id", "t.model_id"),
    ("outcome", "t.outcome"),
    ("usage_source", "t.usage_source"),
    ("cost_status", "t.cost_status"),
];

/// The same for days by source.
const BY_SOURCE: &[(&str, &str)] = BY_BOTH.split_at(1).1;

fn fold_sql(table: &str, hour: &str, keys: &[(&str, &str)]) -> String {
    let (keys, places): (Vec<&str>, Vec<&str>) = keys.iter().copied().unzip();
    let groups: Vec<String> = (1..keys.len() + 2).map(|i| i.to_string()).collect();
    let names: Vec<&str> = rollup::sum_names().collect();
    let sums: Vec<String> = names
        .iter()
        .map(|name| match rollup::COUNTS.contains(name) {
            true => format!("sum(t.{name})"),
            false => format!("sum128(t.{name})"),
        })
        .collect();
    format!(
        "INSERT INTO {table} (hour, {}, {})
         SELECT {hour}, {}, {}
         FROM hourly t LEFT JOIN sources s ON s.id = t.source_id
         WHERE (t.hour, t.tag_set) >= (?1, ?2) AND (t.hour, t.tag_set) < (?3, ?4)
         GROUP BY {}
         ON CONFLICT DO UPDATE SET {}",
        keys.join(", "),
        names.join(", "),
        places.join(", "),
        sums.join(", "),
        groups.join(", "),
        rollup::adding_up()
    )
}

// === impl Folded ===

impl Folded {
    /// The place before all hours.
    pub const NOTHING: Folded = Folded {
        hour: i64::MIN,
        tag_set: 0,
    };

    /// Where folding has come to.
    pub fn read(connection: &Connection) -> rusqlite::Result<Folded> {
        let mut value = connection.prepare_cached("SELECT value FROM meta WHERE key = ?1")?;
        let mut read = |key: &str| value.query_row([key], |row| row.get(0)).optional();
        Ok(Folded {
            hour: read("folded_hour")?.unwrap_or(Folded::NOTHING.hour),
            tag_set: read("folded_tag_set")?.unwrap_or(0),
        })
    }

    /// Whether the sums of that hour and tag set are folded.
    pub fn holds(self, hour: i64, tag_set: i64) -> bool {
        (hour, tag_set) < (self.hour, self.tag_set)
    }

    /// The end of a step that begins there: a place between tag sets, or else that hour.
    fn step(
        connection: &Connection,
        from: Folded,
        before_hour: i64,
        groups_max: i64,
    ) -> rusqlite::Result<Folded> {
        let end = Folded {
            hour: before_hour,
            tag_set: 0,
        };
        let nth = connection
            .prepare_cached(
                "SELECT hour, tag_set FROM hourly
                 WHERE (hour, tag_set) >= (?1, ?2) AND hour < ?3
                 ORDER BY hour, tag_set LIMIT 1 OFFSET ?4",
            )?
            .query_row(
                params![from.hour, from.tag_set, before_hour, groups_max],
                |row| {
                    Ok(Folded {
                        hour: row.get(0)?,
                        tag_set: row.get(1)?,
                    })
                },
            )
            .optional()?;
        Ok(match nth {
            None => end,
            // One tag set with more groups than a step has goes as a whole.
            Some(nth) if nth == from => Folded {
                tag_set: nth.tag_set + 1,
                ..nth
            },
            Some(nth) => nth,
        })
    }

    fn write(self, connection: &Connection) -> rusqlite::Result<()> {
        let mut put = connection.prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?1, ?2)
             ON CONFLICT DO UPDATE SET value = excluded.value",
        )?;
        put.execute(("folded_hour", self.hour))?;
        put.execute(("folded_tag_set", self.tag_set))?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tollmesh_wire::{Event, Source, Timestamp};

    use super::*;
    use crate::ledger::budgets::{Charges, NoCharger};
    use crate::ledger::entry::{CostRecord, Entry};
    use crate::ledger::mark::Marked;
    use crate::ledger::query::{Dimension, Reader, Span, SpendQuery};
    use crate::ledger::queue::Batch;
    use crate::ledger::recording::Measuring;
    use crate::ledger::rollup::HOUR_MS;
    use crate::ledger::store::Store;
    use crate::ledger::totals::{Increments, NoMeter};

    #[test]
    fn days_and_months_begin_at_midnight_utc() {
        let connection = Connection::open_in_memory().unwrap();
        let hour = |expression: String, hour: i64| -> i64 {
            connection
                .query_row(&format!("SELECT {expression}"), [hour], |row| row.get(0))
                .unwrap()
        };
        for (at, day, month) in [
            (0, 0, 0),
            (25, 24, 0),
            (31 * 24, 31 * 24, 31 * 24),
            (31 * 24 - 1, 30 * 24, 0),
            (-1, -24, -31 * 24),
            // 2026-11-22T08:00Z.
            (498_704, 498_696, 498_192),
        ] {
            assert_eq!(hour(day_of("?1"), at), day, "{at}");
            assert_eq!(hour(month_of("?1"), at), month, "{at}");
        }
    }

    /// 2026-11-30T22:00Z.
    const START_HOUR: i64 = 498_910;

    fn entry(n: i64) -> Entry {
        Entry {
            event: Event {
                event_id: n.to_string(),
                time: Timestamp::from_unix_ms((START_HOUR + n % 4) * HOUR_MS + n),
                provider: "openai".into(),
                usage_source: "reported".into(),
                duration_ms: n.unsigned_abs(),
                tags: [("team".to_owned(), (n % 7).to_string())].into(),
                source: Source {
                    namespace: Some("shop".into()),
                    pod: Some((n % 3).to_string()),
                    ..Source::default()
                },
                ..Event::default()
            },
            cost: CostRecord::free(Arc::from("digest")),
        }
    }

    #[test]
    fn sums_are_right_in_the_middle_of_an_hour_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger.db");
        let mut store = Store::open(&path, &Marked::default()).unwrap();
        let append = |store: &mut Store, entries: Vec<Entry>| {
            let batch = Batch {
                entries,
                quarantine: vec![],
            };
            store
                .transact(
                    &[batch],
                    Measuring {
                        meter: &mut NoMeter,
                        increments: &mut Increments::default(),
                        charger: &mut NoCharger,
                        charges: &mut Charges::default(),
                        pricer: None,
                    },
                )
                .unwrap();
        };
        append(&mut store, (0..200).map(entry).collect());
        let reader = Reader::new(path, Arc::default());
        let spans = [
            (None, None),
            (Some(START_HOUR + 1), None),
            (Some(START_HOUR + 2), Some(START_HOUR + 26)),
            (Some(START_HOUR + 2), Some(START_HOUR + 3)),
            (None, Some(START_HOUR + 2)),
        ];
        let sums = |interval_ms: Option<i64>| {
            let at = |hour: i64| Timestamp::from_unix_ms(hour * HOUR_MS);
            let by = |(from, to): (Option<i64>, Option<i64>)| SpendQuery {
                by: vec![Dimension::parse("team"), Dimension::parse("namespace")],
                interval_ms,
                span: Span {
                    from: from.map(at),
                    to: to.map(at),
                },
                filters: vec![],
            };
            spans.map(|span| {
                let rows = reader.spend(&by(span)).unwrap().into_iter();
                let mut rows: Vec<_> = rows
                    .map(|row| (row.start, row.key, row.requests, row.duration_ms))
                    .collect();
                rows.sort();
                rows
            })
        };
        let by_rows = || {
            // Of intervals that divide no hour, every sum is one of rows.
            sums(Some(24 * HOUR_MS * 1_000 + 1)).map(|rows| {
                let rows = rows.into_iter().map(|(_, key, n, ms)| (None, key, n, ms));
                rows.collect::<Vec<_>>()
            })
        };
        let mut n_steps = 0;
        let mut n = 200;
        while store.fold(START_HOUR + 3, 5).unwrap() {
            n_steps += 1;
            assert_eq!(sums(None), by_rows(), "after {n_steps} steps");
            // Late for hours that are folded, in work, and yet to come.
            append(&mut store, (n..n + 20).map(entry).collect());
            n += 20;
            assert_eq!(sums(None), by_rows(), "late after {n_steps} steps");
        }
        assert!(n_steps > 4, "{n_steps} steps");
        assert_eq!(sums(None), by_rows());
        assert!(!store.fold(START_HOUR + 3, 5).unwrap());
        assert!(!store.fold(START_HOUR, 5).unwrap());
        let audit = reader.audit(&mut |_| {}).unwrap();
        assert_eq!((audit.findings, audit.hours), (vec![], 4));
    }
}
