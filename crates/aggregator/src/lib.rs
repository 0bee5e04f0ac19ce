//! The aggregator: prices events, keeps the ledger, answers questions.

pub mod charge;
pub mod config;
pub mod net;
pub mod prices;
