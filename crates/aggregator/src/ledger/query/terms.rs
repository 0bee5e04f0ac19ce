//! How conditions on what an id stands for are put to a statement.
//!
//! A statement that reads much has all ids listed that meet them. One of many statements that read
//! a little each would list them every time, and there may be one tag set a call: unless the list is
//! short, it looks for each line what the line's id stands for.

use rusqlite::{Connection, params_from_iter};

use crate::ledger::query::filter::{Dimension, Filter};
use crate::ledger::query::scope::Place;

/// Ids that may be listed for one of many statements: less work than a hundred lines are.
pub const LISTED_MAX: u32 = 256;

/// How a condition is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// The ids that meet it are listed first.
    Listed,
    /// What its id stands for is looked up for each line.
    OfEach,
}

/// Conditions, all of which must hold, and how each is put.
#[derive(Clone, Debug)]
pub struct Terms<'q>(Vec<(&'q Filter, Way)>);

impl<'q> Terms<'q> {
    /// For statements that each read a part of what the question is about.
    pub fn of_parts(connection: &Connection, filters: &'q [Filter]) -> rusqlite::Result<Terms<'q>> {
        let terms = filters.iter().map(|filter| {
            let is_short = n_listed(connection, filter, LISTED_MAX + 1)? <= LISTED_MAX;
            let way = if is_short { Way::Listed } else { Way::OfEach };
            Ok((filter, way))
        });
        Ok(Terms(terms.collect::<rusqlite::Result<_>>()?))
    }

    /// With ids listed for one of the conditions at most.
    pub fn with_listed(filters: &'q [Filter], listed: Option<usize>) -> Terms<'q> {
        let way = |at| match Some(at) == listed {
            true => Way::Listed,
            false => Way::OfEach,
        };
        let terms = filters.iter().enumerate();
        Terms(terms.map(|(at, filter)| (filter, way(at))).collect())
    }

    /// Each condition with its way.
    pub fn iter(&self) -> impl Iterator<Item = (&'q Filter, Way)> {
        self.0.iter().copied()
    }
}

/// How many ids are looked through to list those that meet the condition; it counts so far at most.
pub fn n_listed(connection: &Connection, filter: &Filter, n_max: u32) -> rusqlite::Result<u32> {
    let (ids, values) = match &filter.dimension {
        Dimension::Tag(tag) if filter.value.is_empty() => {
            ("tags WHERE tag = ?", vec![tag.as_str()])
        }
        Dimension::Tag(tag) => (
            "tags WHERE tag = ? AND value = ?",
            vec![tag.as_str(), filter.value.as_str()],
        ),
        Dimension::Column(column) => match Place::of(*column) {
            Place::Models(_) => ("models", vec![]),
            Place::Sources(_) => ("sources", vec![]),
            Place::Own(_) => return Ok(0),
        },
    };
    connection
        .prepare_cached(&format!(
            "SELECT count(*) FROM (SELECT 1 FROM {ids} LIMIT {n_max})"
        ))?
        .query_row(params_from_iter(values), |row| row.get(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    use tollmesh_wire::{Event, Timestamp};

    use crate::ledger::query::{
        Dimension, Filter, OutcomesQuery, Patience, Reader, RequestsQuery, Sort, Span, SpendQuery,
        Unit, UnitSort, UnitsQuery,
    };
    use crate::ledger::{
        CallOutcome, CostRecord, Entry, Ledger, LedgerOptions, Repricing, Subject,
    };
    use crate::money::PicoUsd;

    const HOUR_MS: i64 = 3_600_000;
    const N_HOURS: i64 = 100;
    const N_A_HOUR: i64 = 10;

    /// Tag sets of the team whose calls are not asked for.
    const N_TAG_SETS: i64 = 50_000;

    /// Steps for each call of the ledger, in hundreds, and those that list all tag sets once.
    const STEPS_MAX: u64 = 5_000;

    fn call(n: i64) -> Entry {
        let tags = [("team", "a".to_owned()), ("session_id", n.to_string())];
        let event = Event {
            event_id: n.to_string(),
            trace_id: Some((n / 3).to_string()),
            time: Timestamp::from_unix_ms(n * HOUR_MS / N_A_HOUR),
            provider: "openai".into(),
            usage_source: "reported".into(),
            status: Some(200),
            tags: tags.map(|(tag, value)| (tag.to_owned(), value)).into(),
            ..Event::default()
        };
        let total = Some(PicoUsd::from_pico(n % 7));
        let cost = CostRecord {
            total,
            ..CostRecord::free(Arc::from("digest"))
        };
        Entry { event, cost }
    }

    /// A ledger of calls that each have a session, of a team that has had many more.
    fn ledger(dir: &std::path::Path) -> Ledger {
        let ledger = Ledger::open(LedgerOptions::new(dir)).unwrap();
        let calls = (0..N_HOURS * N_A_HOUR).map(call).collect();
        let told = CallOutcome {
            subject: Subject::Event("5".into()),
            label: "accepted".into(),
            told: Timestamp::from_unix_ms(0),
        };
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async {
            ledger.append(calls, vec![]).await.unwrap();
            ledger.tell(vec![told]).await.unwrap();
        });
        let others = format!(
            "WITH RECURSIVE n (n) AS (SELECT 1000000 UNION ALL
                 SELECT n + 1 FROM n WHERE n < 1000000 + {N_TAG_SETS})
             INSERT INTO tags SELECT n, 'team', 'a' FROM n"
        );
        let path = ledger.reader().path().to_owned();
        let writer = crate::ledger::schema::open_writable(&path).unwrap();
        writer.execute(&others, []).unwrap();
        ledger
    }

    /// SQLite's steps that a question takes, in hundreds.
    fn steps(reader: &Reader, question: impl FnOnce(&Reader)) -> u64 {
        let n = reader.count_steps(100).unwrap();
        question(reader);
        n.load(Ordering::Relaxed)
    }

    #[test]
    fn questions_asked_hour_by_hour_take_the_steps_of_their_calls() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(dir.path());
        let reader = &ledger.reader().clone();
        let team = || Filter::new("team", "a");
        let patience = Patience::of(Duration::from_secs(600));
        let requests = |sort, filters: &[Filter]| {
            let query = RequestsQuery {
                filters: filters.to_vec(),
                sort,
                limit: 5,
                ..RequestsQuery::default()
            };
            steps(reader, |reader| {
                let page = reader.requests_within(&query, patience).unwrap();
                assert_eq!((page.answer.items.len(), page.at), (0, None));
            })
        };
        let failed = Filter::new("status", "500");
        let units = |unit| {
            let query = UnitsQuery {
                unit,
                span: Span::default(),
                filters: vec![team()],
                sort: UnitSort::Cost,
                limit: 900,
                cursor: None,
            };
            steps(reader, |reader| {
                let page = reader.units(&query).unwrap();
                assert!(page.items.len() > 300);
            })
        };
        let spend = SpendQuery {
            by: vec![Dimension::parse("status")],
            filters: vec![team()],
            ..SpendQuery::default()
        };
        let outcomes = OutcomesQuery {
            filters: vec![team()],
            ..OutcomesQuery::default()
        };
        let repricing = Repricing {
            span: Span::default(),
            filters: vec![team()],
            last_row: i64::MAX,
            pricer: Arc::new(|_| CostRecord::free(Arc::from("digest"))),
        };
        let n_calls = (N_HOURS * N_A_HOUR).unsigned_abs();
        for (question, steps) in [
            ("by time", requests(Sort::Time, &[team(), failed.clone()])),
            ("by cost", requests(Sort::Cost, &[team(), failed.clone()])),
            (
                "by tokens",
                requests(Sort::Tokens, &[team(), Filter::new("outcome", "error")]),
            ),
            (
                "of no session",
                requests(Sort::Time, &[Filter::new("session_id", ""), failed]),
            ),
            ("traces", units(Unit::Trace)),
            ("sessions", units(Unit::Tags(vec!["session_id".into()]))),
            (
                "spend",
                steps(reader, |reader| {
                    let rows = reader.spend_within(&spend, patience).unwrap().answer;
                    assert_eq!(rows[0].requests, n_calls);
                }),
            ),
            (
                "outcomes",
                steps(reader, |reader| {
                    // Sums say what all calls cost, in one statement, which lists the tag sets once.
                    assert_eq!(reader.outcomes(&outcomes).unwrap()[0].outcomes, 1);
                }),
            ),
            (
                "repricing",
                steps(reader, |reader| {
                    let changes = reader.reprice(&repricing, &mut |_| {}).unwrap();
                    assert_eq!(changes.total().requests, n_calls);
                }),
            ),
        ] {
            assert!(steps < STEPS_MAX, "{question}: {steps}");
        }
    }

    /// Neither are calls without a price looked for among all.
    #[test]
    fn calls_without_a_price_have_an_index() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = ledger(dir.path());
        let query = SpendQuery {
            by: vec![Dimension::parse("status")],
            span: Span {
                from: Some(Timestamp::from_unix_ms(0)),
                to: None,
            },
            filters: vec![Filter::new("cost_status", "unpriced")],
            ..SpendQuery::default()
        };
        let steps = steps(ledger.reader(), |reader| {
            assert_eq!(reader.spend(&query).unwrap(), []);
        });
        assert!(steps < 20, "{steps}");
    }
}
