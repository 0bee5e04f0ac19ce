//! Events into a ledger that is this process's own, by the recipe of ingest.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::{Found, Taken, Taker};
use crate::ingest;
use crate::ledger::{Entry, Ledger, Refusal};
use crate::prices::Prices;

/// A ledger that this process writes.
pub struct Own {
    runtime: Handle,
    ledger: Ledger,
    prices: Arc<Prices>,
}

impl Own {
    /// Takes events into that ledger, at those prices.
    pub fn new(runtime: Handle, ledger: Ledger, prices: Arc<Prices>) -> Own {
        Own {
            runtime,
            ledger,
            prices,
        }
    }
}

impl Taker for Own {
    fn take(&mut self, batch: Vec<Found>) -> anyhow::Result<Taken> {
        let tables = self.prices.tables();
        let mut places = Vec::with_capacity(batch.len());
        let mut entries: Vec<Entry> = Vec::with_capacity(batch.len());
        for found in batch {
            places.push((found.log, found.line));
            entries.push(ingest::priced(found.event, &tables));
        }
        let appended = self
            .runtime
            .block_on(self.ledger.append(entries, Vec::new()))?;
        let refused = appended.refused();
        let refused = refused.filter(|(_, why)| !matches!(why, Refusal::Forgotten { .. }));
        let refused = refused.filter_map(|(n, why)| {
            let (log, line) = places.get(n)?;
            Some((log.clone(), *line, why.to_string()))
        });
        Ok(Taken {
            imported: appended.accepted(),
            already: appended.duplicate(),
            forgotten: appended.forgotten(),
            refused: refused.collect(),
        })
    }
}
