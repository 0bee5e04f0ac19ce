//! What the ledger held and deleted again, for whoever has another record of it.

use tollmesh_wire::Timestamp;

use crate::clock;
use crate::ledger::error::QueryError;
use crate::ledger::prune::Forgotten;
use crate::ledger::query::reader::Reader;

impl Reader {
    /// Before when retention has deleted rows, whose sums the ledger keeps; `None` where it has
    /// deleted none yet.
    pub fn forgotten_before(&self) -> Result<Option<Timestamp>, QueryError> {
        self.ask(|connection| {
            let forgotten = Forgotten::read(connection)?;
            Ok(forgotten.map(|forgotten| forgotten.before(clock::now())))
        })
    }
}
