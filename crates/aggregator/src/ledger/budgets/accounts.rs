//! Accounts as they stand in the ledger's file.

use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::{Adopted, Charge, Identity, Known, Spend, SpendKey, Step};
use crate::ledger::overrides;
use crate::ledger::wide::Wide;

/// Accounts that one step deletes: some ten milliseconds of the writer's time.
const FORGOTTEN_MAX: i64 = 5_000;

/// Answers accounts that count. The plus keeps SQLite from going by the budgets, of which each may have
/// a hundred times as many accounts that count no more.
const LOAD: &str = "SELECT budget, key, window_ms, end_ms, amount, denied, granted, memory
    FROM budget_spend WHERE end_ms > ?1 AND +budget IN (SELECT id FROM budgets)";
/// Deletes the accounts that ended first.
const FORGET: &str = "DELETE FROM budget_spend WHERE (budget, key, window_ms) IN
    (SELECT budget, key, window_ms FROM budget_spend
     WHERE end_ms < ?1 ORDER BY end_ms LIMIT ?2)";

/// Begins another life, and says which.
pub fn begin(connection: &Connection) -> rusqlite::Result<Identity> {
    connection.execute_batch(
        "INSERT OR IGNORE INTO meta SELECT 'budget_instance', value FROM meta
             WHERE key = 'ledger_id';
         INSERT INTO meta VALUES ('budget_boot', 1)
             ON CONFLICT DO UPDATE SET value = value + 1;",
    )?;
    let value = "SELECT value FROM meta WHERE key = ?1";
    let instance = connection.query_row(value, ["budget_instance"], |row| row.get(0))?;
    let boot: i64 = connection.query_row(value, ["budget_boot"], |row| row.get(0))?;
    Ok(Identity {
        instance,
        boot: boot.unsigned_abs(),
    })
}

/// Raises a file to what is known, and says what stands in it then.
pub fn restore(connection: &Connection, known: &Known) -> rusqlite::Result<Vec<Spend>> {
    if let Some(identity) = &known.identity {
        keep_identity(connection, identity)?;
    }
    let mut insert = connection.prepare_cached("INSERT OR IGNORE INTO budgets VALUES (?1)")?;
    for id in &known.ids {
        insert.execute([&**id])?;
    }
    raise(connection, &known.spends)?;
    load(connection, known.counts_after_ms)
}

/// A file that took the place of a damaged one goes on under the same name.
fn keep_identity(connection: &Connection, identity: &Identity) -> rusqlite::Result<()> {
    let mut put = connection.prepare_cached(
        "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT DO UPDATE SET value = excluded.value",
    )?;
    put.execute(params!["budget_instance", identity.instance])?;
    put.execute(params!["budget_boot", identity.boot.cast_signed()])?;
    Ok(())
}

/// The ids of budgets that rows have been charged to without a gap.
pub fn ids(connection: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut statement = connection.prepare_cached("SELECT id FROM budgets")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// Has rows charged to exactly these budgets.
pub fn set_ids(connection: &Connection, adopted: &[Adopted]) -> rusqlite::Result<()> {
    connection
        .prepare_cached("DELETE FROM budgets")?
        .execute([])?;
    let mut insert = connection.prepare_cached("INSERT OR IGNORE INTO budgets VALUES (?1)")?;
    for budget in adopted {
        insert.execute([&*budget.id])?;
    }
    Ok(())
}

/// Adds charges to their accounts; says how these stand then.
pub fn add(connection: &Connection, charges: &[Charge]) -> rusqlite::Result<Vec<Spend>> {
    if charges.is_empty() {
        return Ok(Vec::new());
    }
    // Calls of one batch are mostly of few accounts.
    let mut sums: BTreeMap<&SpendKey, (i64, i128, u64)> = BTreeMap::new();
    for charge in charges {
        let sum = sums.entry(&charge.at).or_insert((charge.end_ms, 0, 0));
        sum.1 += charge.amount;
        sum.2 += charge.denied;
    }
    let mut add = connection.prepare_cached(
        "INSERT INTO budget_spend
             (budget, key, window_ms, end_ms, amount, denied, granted, memory)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0, '')
         ON CONFLICT DO UPDATE SET amount = add128(amount, excluded.amount),
             denied = denied + excluded.denied
         RETURNING budget, key, window_ms, end_ms, amount, denied, granted, memory",
    )?;
    sums.into_iter()
        .map(|(at, (end_ms, amount, denied))| {
            let values = params![
                &*at.budget,
                &*at.key,
                at.window_ms,
                end_ms,
                Wide(amount),
                denied.cast_signed()
            ];
            add.query_row(values, read)
        })
        .collect()
}

/// Raises accounts to what is known; what stands higher stays.
pub fn raise(connection: &Connection, spends: &[Spend]) -> rusqlite::Result<()> {
    for spend in spends {
        let stored = load_one(connection, &spend.at)?;
        let (amount, denied, granted) = stored
            .as_ref()
            .map_or((0, 0, 0), |s| (s.amount, s.denied, s.granted));
        let memory = match (&*spend.memory, &stored) {
            ("", Some(stored)) => &stored.memory,
            (own, _) => own,
        };
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO budget_spend
                     (budget, key, window_ms, end_ms, amount, denied, granted, memory)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                &*spend.at.budget,
                &*spend.at.key,
                spend.at.window_ms,
                spend.end_ms,
                Wide(spend.amount.max(amount)),
                spend.denied.max(denied).cast_signed(),
                spend.granted.max(granted).cast_signed(),
                memory
            ])?;
    }
    Ok(())
}

/// The accounts of budgets that rows are charged to, as far as they count after that instant, in
/// milliseconds since 1970. What has ended is looked at by nobody, and may be a hundred times as much.
pub fn load(connection: &Connection, counts_after_ms: i64) -> rusqlite::Result<Vec<Spend>> {
    let mut statement = connection.prepare_cached(LOAD)?;
    statement.query_map([counts_after_ms], read)?.collect()
}

fn load_one(connection: &Connection, at: &SpendKey) -> rusqlite::Result<Option<Spend>> {
    connection
        .prepare_cached(
            "SELECT budget, key, window_ms, end_ms, amount, denied, granted, memory
             FROM budget_spend WHERE budget = ?1 AND key = ?2 AND window_ms = ?3",
        )?
        .query_row(params![&*at.budget, &*at.key, at.window_ms], read)
        .optional()
}

fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Spend> {
    let amount: Wide = row.get(4)?;
    Ok(Spend {
        at: SpendKey {
            budget: row.get(0)?,
            key: row.get(1)?,
            window_ms: row.get(2)?,
        },
        end_ms: row.get(3)?,
        amount: amount.0,
        denied: row.get::<_, i64>(5)?.unsigned_abs(),
        granted: row.get::<_, i64>(6)?.unsigned_abs(),
        memory: row.get(7)?,
    })
}

/// Takes a step.
pub fn take(connection: &Connection, step: &Step) -> rusqlite::Result<()> {
    match step {
        Step::Grants(grants) => {
            let mut put = connection.prepare_cached(
                "INSERT INTO budget_spend
                     (budget, key, window_ms, end_ms, amount, denied, granted, memory)
                 VALUES (?1, ?2, ?3, ?4, 0, 0, ?5, ?6)
                 ON CONFLICT DO UPDATE SET granted = excluded.granted,
                     memory = excluded.memory",
            )?;
            for grant in grants {
                put.execute(params![
                    &*grant.at.budget,
                    &*grant.at.key,
                    grant.at.window_ms,
                    grant.end_ms,
                    grant.granted.cast_signed(),
                    grant.memory
                ])?;
            }
        }
        Step::Override(one) => overrides::keep(connection, one)?,
        Step::Forget(before_ms) => {
            connection
                .prepare_cached(FORGET)?
                .execute([*before_ms, FORGOTTEN_MAX])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::wide;

    const NOON_MS: i64 = 1_800_000_000_000;

    fn spend(budget: &str, n: i64, end_ms: i64) -> Spend {
        Spend {
            at: SpendKey {
                budget: budget.into(),
                key: format!("[\"{n}\"]").into(),
                window_ms: end_ms - 3_600_000,
            },
            end_ms,
            amount: n.into(),
            denied: 0,
            granted: 0,
            memory: String::new(),
        }
    }

    fn file(spends: &[Spend]) -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        wide::register(&connection).unwrap();
        let schema = include_str!("../schema.sql");
        connection.execute_batch(schema).unwrap();
        connection
            .execute("INSERT INTO budgets VALUES ('here')", [])
            .unwrap();
        raise(&connection, spends).unwrap();
        connection
    }

    #[test]
    fn what_has_ended_is_not_loaded_nor_what_is_of_no_budget() {
        let connection = file(&[
            spend("here", 1, NOON_MS),
            spend("here", 2, NOON_MS + 1),
            spend("here", 3, NOON_MS + 9_000_000),
            spend("gone", 4, NOON_MS + 9_000_000),
        ]);
        let loaded = load(&connection, NOON_MS).unwrap();
        let mut amounts: Vec<i128> = loaded.iter().map(|spend| spend.amount).collect();
        amounts.sort_unstable();
        assert_eq!(amounts, [2, 3]);
        let known = Known {
            ids: vec!["gone".into()],
            counts_after_ms: NOON_MS,
            ..Known::default()
        };
        assert_eq!(restore(&connection, &known).unwrap().len(), 3);
    }

    #[test]
    fn what_ended_first_is_deleted_first_and_some_at_a_time() {
        let n = FORGOTTEN_MAX + 10;
        let spends: Vec<Spend> = (0..n).map(|n| spend("here", n, NOON_MS + n)).collect();
        let connection = file(&spends);
        let left = |n_steps: usize| {
            for _ in 0..n_steps {
                take(&connection, &Step::Forget(NOON_MS + n - 3)).unwrap();
            }
            load(&connection, 0).unwrap().len()
        };
        assert_eq!(left(1), 10);
        assert_eq!(
            load(&connection, NOON_MS + FORGOTTEN_MAX - 1)
                .unwrap()
                .len(),
            10
        );
        assert_eq!(left(2), 3);
    }

    /// Neither reads what it does not answer or delete.
    #[test]
    fn an_index_serves_both() {
        let connection = file(&[]);
        for sql in [LOAD, FORGET] {
            let plan = format!("EXPLAIN QUERY PLAN {sql}");
            let mut plan = connection.prepare(&plan).unwrap();
            let values: Vec<i64> = vec![5; plan.parameter_count()];
            let steps = plan.query_map(rusqlite::params_from_iter(values), |row| row.get(3));
            let plan: Vec<String> = steps.unwrap().map(Result::unwrap).collect();
            let plan = plan.join("; ");
            assert!(plan.contains("budget_spend_by_end"), "{plan}");
        }
    }
}
