//! `tollmesh doctor`: why is this workload's traffic not seen?

use clap::Args;

use super::output::{self, Format};
use super::say::say;
use super::{Files, Outcome};
use crate::doctor::{Findings, Status, aggregator, envoy};

/// Look through an aggregator and its Envoy, and name a remedy for all that keeps calls from being
/// counted.
///
/// Asks the aggregator of the configuration file, and with --envoy the admin interface of the Envoy
/// beside it; changes nothing. Ends with 0 where all is well, 1 where something is not, 2 where
/// the configuration cannot be used.
#[derive(Debug, Args)]
pub struct Arguments {
    /// Envoy's admin interface, such as http://127.0.0.1:15000.
    #[arg(long, value_name = "URL")]
    envoy: Option<String>,
    /// How findings are written.
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Asks, judges, tells.
pub fn run(files: &Files, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let config = files.load()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut findings = Findings::default();
    runtime.block_on(async {
        if let Some(url) = &arguments.envoy {
            envoy::examine(url, &config.ingest, &mut findings).await;
        }
        aggregator::examine(&config, &mut findings).await;
    });
    output::write(&findings.rows(), arguments.format, &[])?;
    if arguments.envoy.is_none() {
        say("Envoy was not asked; name its admin interface with --envoy");
    }
    Ok(match findings.worst() {
        Status::Ok => Outcome::Done,
        Status::Warn | Status::Fail => Outcome::Findings,
    })
}
