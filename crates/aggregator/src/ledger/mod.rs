//! The ledger: every event once, what it cost, and the totals that follow from it, in SQLite.
//!
//! [`Ledger::open`] takes the directory's lock and starts one writer thread. [`Ledger::append`]
//! hands it entries and returns after the commit that made them durable; whatever waits is
//! committed together. In that one transaction an event becomes a row, unless its id is there
//! already, its hour is rolled up, and the counters of [`totals`] grow. [`Reader`] answers
//! questions on connections of its own, from this process or another.
//!
//! The ledger does not know HTTP, prices, or the names of metrics: a [`Meter`] says what an event
//! adds to which series, and a [`Charger`] what it charges to which budget. It asks for no wall
//! clock.

pub mod aside;
pub mod budgets;
mod checked;
pub mod clock;
pub(crate) mod codes;
mod counted;
mod counters;
mod dictionary;
mod entry;
mod error;
pub mod exported;
mod fold;
mod handle;
mod late;
mod lines;
mod lock;
mod mark;
pub mod outbox;
mod outcomes;
pub mod overrides;
pub mod pages;
mod peaks;
mod prune;
mod quarantine;
pub mod query;
mod queue;
mod recording;
pub mod recovered;
pub mod reduce;
mod regroup;
pub mod reprice;
mod rescue;
mod rollup;
mod row;
mod row_count;
mod schema;
mod site;
mod store;
mod stored;
mod sweep;
mod thin;
pub mod totals;
mod wide;
mod writer;

pub use budgets::{Charger, Charges};
pub use entry::{Appended, CostLine, CostRecord, Entry, Original, Quarantined, Recorded, Refusal};
pub use error::{AppendError, LedgerError, Missed, QueryError};
pub use handle::{Health, Ledger, LedgerOptions, Regrouped};
pub use outcomes::{CallOutcome, Subject, Told};
pub use prune::{Pruned, Pruning};
pub use query::Reader;
pub use reprice::{Changes, Repricing};
pub use rollup::HOUR_MS;
pub use thin::Sums;
pub use totals::{Increments, Meter, Occasion, Totals};
