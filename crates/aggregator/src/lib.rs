//! The parts of the `tollmesh` binary, as a library for its tests and examples.

pub mod charge;
pub mod config;
pub mod ledger;
pub mod metrics;
pub mod money;
pub mod net;
pub mod prices;
