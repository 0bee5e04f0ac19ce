//! `tollmesh serve`

use clap::Args;

use super::{Files, Outcome};
use crate::serve::LogFormat;

/// Price events, keep the ledger, serve metrics and the API.
///
/// Listens for filters on ingest.listen (127.0.0.1:4100) and for people and Prometheus on
/// operator.listen (127.0.0.1:4101). After SIGTERM it takes events until filters have been silent
/// for two seconds, at most for `drain`, and ends with 0.
#[derive(Debug, Args)]
pub struct Arguments {
    /// How log lines are written to standard error.
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

/// Serves until told to stop.
pub fn run(files: &Files, arguments: Arguments) -> anyhow::Result<Outcome> {
    crate::serve::run(files.load()?, arguments.log_format)?;
    Ok(Outcome::Done)
}
