//! What the ledger held and deleted again, for whoever has another record of it.

use tollmesh_wire::Timestamp;

use crate::ledger::error::QueryError;
use crate::ledger::prune;
use crate::ledger::query::reader::Reader;

impl Reader {
    /// Before when retention has deleted rows, whose sums the ledger keeps; `None` where it has
    /// deleted none yet.
    pub fn forgotten_before(&self) -> Result<Option<Timestamp>, QueryError> {
        self.ask(|connection| {
            let ms = prune::forgotten_before_ms(connection)?;
            Ok(ms.map(Timestamp::from_unix_ms))
        })
    }
}
