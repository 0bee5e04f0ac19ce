//! Repricing as it is asked for: which calls, under which tables.

use std::sync::Arc;

use tollmesh_wire::Timestamp;

use crate::charge::Bill;
use crate::ledger::query::Reader;
use crate::ledger::{QueryError, Repricing};
use crate::prices::{Prices, Tables};
use crate::question::{BadQuestion, Parts};

/// Why a repricing cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It was asked for in a way that cannot be answered.
    #[error(transparent)]
    Question(#[from] BadQuestion),
    /// The ledger does not say how far it goes.
    #[error(transparent)]
    Ledger(#[from] QueryError),
}

/// The repricing of the calls that these parts name, under the tables in force.
///
/// How far the ledger goes is asked before the tables are taken: what comes later was priced by
/// them, or by newer ones.
pub fn prepare(
    parts: &Parts,
    now: Timestamp,
    reader: &Reader,
    prices: &Prices,
) -> Result<Repricing, Refused> {
    let (span, filters) = parts.repricing(now)?;
    let last_row = reader.last_row()?;
    let tables = prices.tables();
    Ok(Repricing {
        span,
        filters,
        last_row,
        pricer: Arc::new(move |event| {
            let Tables { book, version } = &*tables;
            Bill::from(event).price(book, Arc::clone(version))
        }),
    })
}
