//! The parts of the `tollmesh` binary, as a library for its tests and examples.

pub mod ledger;
pub mod money;
