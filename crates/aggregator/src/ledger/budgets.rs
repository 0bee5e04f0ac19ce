//! What calls charge to budgets, in the transaction of their rows.
//!
//! The ledger does not know what a budget is: a [`Charger`] says what an event charges to which
//! account, and hears of it after the commit.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use tollmesh_wire::{Outcome, Timestamp};

use crate::ledger::Entry;
use crate::ledger::error::QueryError;
use crate::ledger::overrides::{self, Override};
use crate::ledger::query::{Reader, SpendQuery, SpendRow};
use crate::ledger::totals::Occasion;
use crate::ledger::wide::Wide;

/// Denials that are kept: enough to explain those of the last hours, at some 400 bytes each.
const DENIALS_MAX: i64 = 20_000;

/// What spend is counted for: one budget, one key, one window.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpendKey {
    /// The budget's id.
    pub budget: Arc<str>,
    /// The values of its keys, as a JSON list of texts.
    pub key: Arc<str>,
    /// The window's first instant, in milliseconds since 1970.
    pub window_ms: i64,
}

/// What an event adds to one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The account.
    pub at: SpendKey,
    /// The first instant after the window, in milliseconds since 1970.
    pub end_ms: i64,
    /// Pico-dollars, tokens or requests.
    pub amount: i128,
    /// Calls that the budget denied.
    pub denied: u64,
}

/// What stands in one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spend {
    /// The account.
    pub at: SpendKey,
    /// The first instant after the window, in milliseconds since 1970.
    pub end_ms: i64,
    /// Pico-dollars, tokens or requests.
    pub amount: i128,
    /// Calls that the budget denied.
    pub denied: u64,
    /// The most that the store has let this ledger spend, in the store's units.
    pub granted: u64,
    /// What the charger wants to know of the store after a restart; empty for nothing.
    pub memory: String,
}

/// How much the store lets this ledger spend from one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The account.
    pub at: SpendKey,
    /// The first instant after the window, in milliseconds since 1970.
    pub end_ms: i64,
    /// In the store's units.
    pub granted: u64,
    /// What the charger wants to know of the store after a restart.
    pub memory: String,
}

/// An event that charges something, or that ends a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The event.
    pub event_id: String,
    /// The reservation, where the event names it.
    pub reservation_id: Option<String>,
    /// Which of [`Charges::charges`] are its own.
    pub charges: Range<usize>,
}

/// What a budget did to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// When, in milliseconds since 1970.
    pub time_ms: i64,
    /// The call's event.
    pub event_id: String,
    /// `x-request-id`.
    pub request_id: Option<String>,
    /// The budget's name.
    pub budget: String,
    /// The facts, a JSON object.
    pub body: String,
}

/// What the events of one transaction did to budgets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Charges {
    /// What they charge.
    pub charges: Vec<Charge>,
    /// The events, those that end a reservation and charge nothing among them.
    pub settled: Vec<Settled>,
    /// What budgets did to them.
    pub denials: Vec<Denial>,
    /// The accounts that were charged, as they stand after the commit; the ledger fills them in.
    pub totals: Vec<Spend>,
}

/// Says what events charge to which accounts. Called on the writer thread, so it has to be quick.
pub trait Charger: Send + 'static {
    /// Called once for each event that is new or newly completed, before its transaction ends.
    /// Should the transaction fail, the charges are forgotten, and the event will come again.
    fn charge(&mut self, entry: &Entry, occasion: Occasion<'_>, charges: &mut Charges);

    /// Called after the commit that made the charges durable, before anybody is answered.
    fn committed(&mut self, charges: Charges);

    /// What is known here of a ledger that has to be opened afresh: another file may have taken
    /// its place, or not.
    fn known(&mut self) -> Known;

    /// Accounts as they stand in a file that has just been opened, or that have been begun.
    fn opened(&mut self, spends: Vec<Spend>);

    /// From here on events charge what [`crate::ledger::Ledger::adopt`] was called for.
    fn adopted(&mut self);

    /// Whether nobody charges: rows that come now are missing in accounts, which are made anew from
    /// rows the next time that budgets are adopted.
    fn is_absent(&self) -> bool {
        false
    }
}

/// The charger of a ledger without budgets.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCharger;

impl Charger for NoCharger {
    fn charge(&mut self, _: &Entry, _: Occasion<'_>, _: &mut Charges) {}

    fn committed(&mut self, _: Charges) {}

    fn known(&mut self) -> Known {
        Known::default()
    }

    fn opened(&mut self, _: Vec<Spend>) {}

    fn adopted(&mut self) {}

    fn is_absent(&self) -> bool {
        true
    }
}

/// What a process knows of budgets, whatever becomes of the file.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Who it is, once that is decided.
    pub identity: Option<Identity>,
    /// The budgets that events charge.
    pub ids: Vec<Arc<str>>,
    /// Their accounts.
    pub spends: Vec<Spend>,
}

/// Which number of a sum an account counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Pico-dollars.
    Cost,
    /// Tokens.
    Tokens,
    /// Calls.
    Requests,
}

/// A budget whose spend events charge from now on.
#[derive(Clone, Debug)]
pub struct Adopted {
    /// Its id.
    pub id: Arc<str>,
    /// What its accounts count.
    pub measure: Measure,
    /// The windows that calls of the past still count in.
    pub windows: Vec<Past>,
}

/// A window that has begun before the budget did.
#[derive(Clone, Debug)]
pub struct Past {
    /// Its first instant, in milliseconds since 1970.
    pub window_ms: i64,
    /// The first instant after it.
    pub end_ms: i64,
    /// What was spent in it so far: by the account's keys, and by the outcome behind them. Where it
    /// asks for intervals, each of them is a window.
    pub query: SpendQuery,
}

/// Who this ledger is to a store of budgets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// A name that no other ledger has.
    pub instance: String,
    /// How often a process has begun to enforce budgets over this ledger.
    pub boot: u64,
}

/// A step of the budgets' own.
pub enum Step {
    /// Notes how much the store lets this ledger spend.
    Grants(Vec<Grant>),
    /// Deletes accounts of windows that ended before that instant, in milliseconds since 1970.
    Forget(i64),
    /// Writes down a temporary limit, or what became of it.
    Override(Box<Override>),
}

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
    load(connection)
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

/// The accounts that sums of rows make.
pub fn of_rows(budget: &Adopted, past: &Past, rows: &[SpendRow]) -> Vec<Spend> {
    let mut amounts: BTreeMap<(i64, String), i128> = BTreeMap::new();
    for row in rows {
        let (outcome, key) = row.key.split_last().unwrap_or((&None, &[]));
        if outcome.as_deref().is_some_and(is_not_ours) {
            continue;
        }
        let amount = match budget.measure {
            Measure::Cost => row.cost.as_pico().max(0),
            Measure::Requests => i128::from(row.requests),
            Measure::Tokens => row
                .tokens
                .iter()
                .fold(0_i128, |sum, n| sum.saturating_add_unsigned(*n)),
        };
        let window_ms = row.start.map_or(past.window_ms, Timestamp::as_unix_ms);
        *amounts.entry((window_ms, key_text(key))).or_default() += amount;
    }
    let length_ms = past.query.interval_ms;
    let spends = amounts.into_iter().map(|((window_ms, key), amount)| Spend {
        at: SpendKey {
            budget: Arc::clone(&budget.id),
            key: key.into(),
            window_ms,
        },
        end_ms: length_ms.map_or(past.end_ms, |length_ms| window_ms + length_ms),
        amount,
        denied: 0,
        granted: 0,
        memory: String::new(),
    });
    spends.collect()
}

/// Calls that never left, and calls that a filter nearer to the provider counts.
fn is_not_ours(outcome: &str) -> bool {
    [Outcome::Denied, Outcome::Relayed]
        .map(Outcome::name)
        .contains(&outcome)
}

/// A key as accounts have it: what a call does not have is the empty text.
pub fn key_text<T: AsRef<str>>(values: &[Option<T>]) -> String {
    let values = values
        .iter()
        .map(|value| value.as_ref().map_or("", AsRef::as_ref));
    serde_json::Value::from_iter(values).to_string()
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

/// All accounts.
pub fn load(connection: &Connection) -> rusqlite::Result<Vec<Spend>> {
    let mut statement = connection.prepare_cached(
        "SELECT budget, key, window_ms, end_ms, amount, denied, granted, memory
         FROM budget_spend",
    )?;
    statement.query_map([], read)?.collect()
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
                .prepare_cached("DELETE FROM budget_spend WHERE end_ms < ?1")?
                .execute([before_ms])?;
        }
    }
    Ok(())
}

/// Keeps what budgets did, the last [`DENIALS_MAX`] times.
pub fn keep_denials(connection: &Connection, denials: &[Denial]) -> rusqlite::Result<()> {
    if denials.is_empty() {
        return Ok(());
    }
    let mut insert = connection.prepare_cached(
        "INSERT INTO denials (time_ms, event_id, request_id, budget, body)
         VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for denial in denials {
        insert.execute(params![
            denial.time_ms,
            denial.event_id,
            denial.request_id,
            denial.budget,
            denial.body
        ])?;
    }
    connection
        .prepare_cached("DELETE FROM denials WHERE id <= (SELECT max(id) FROM denials) - ?1")?
        .execute([DENIALS_MAX])?;
    Ok(())
}

impl Reader {
    /// What budgets did to the call with that id, or to the calls of that request; the latest first.
    pub fn denials(&self, id: &str) -> Result<Vec<Denial>, QueryError> {
        self.ask(|connection| Ok(denials_of(connection, id)?))
    }
}

fn denials_of(connection: &Connection, id: &str) -> rusqlite::Result<Vec<Denial>> {
    let mut statement = connection.prepare_cached(
        "SELECT time_ms, event_id, request_id, budget, body FROM denials
         WHERE event_id = ?1 OR request_id = ?1 ORDER BY id DESC",
    )?;
    let rows = statement.query_map([id], |row| {
        Ok(Denial {
            time_ms: row.get(0)?,
            event_id: row.get(1)?,
            request_id: row.get(2)?,
            budget: row.get(3)?,
            body: row.get(4)?,
        })
    })?;
    rows.collect()
}
