//! One ledger for the cluster: rows of this sidecar's ledger go on to a PostgreSQL that all share.
//!
//! The sidecar's own ledger is the outbox: a row is forwarded as often as it takes, and the store
//! takes it once, by its event id. [`Courier`] visits the store when enough rows wait or some time
//! has passed: it connects, sends, disconnects, so that thousands of sidecars fit one server or a
//! pooler before it. How far a ledger has come stands in the store too, in the rows' own
//! transaction. A store that was emptied, or restored from a backup, thereby says itself what it
//! lacks, and gets it again.
//!
//! [`Asked`] answers the questions of `tollmesh report` and `tollmesh top` from there.

mod asked;
mod cells;
mod courier;
mod error;
mod month;
mod place;
mod schema;
mod send;
mod store;
mod tls;

pub use asked::Asked;
pub use courier::{Courier, Failing, Settings, Status};
pub use error::ForwardError;
pub use place::Place;
pub use store::{Delivered, KnownIds, Store};
pub(crate) use tls::Tls;
