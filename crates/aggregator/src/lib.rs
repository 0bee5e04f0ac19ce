//! The parts of the `tollmesh` binary, as a library for its tests and examples.

pub mod alerts;
pub mod budgets;
pub mod charge;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod feed;
pub mod forward;
pub mod housekeeping;
pub mod http;
pub mod import;
pub mod ingest;
pub mod ledger;
pub mod metrics;
pub mod money;
pub mod net;
pub mod pricelist;
pub mod prices;
pub mod problem;
pub mod question;
pub mod report;
pub mod reprice;
pub mod rows;
pub mod serve;
pub mod trust;
