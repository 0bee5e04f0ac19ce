//! `tollmesh import`

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, anyhow};
use clap::Args;
use tokio::runtime::{Handle, Runtime};
use tollmesh_wire::Timestamp;

use super::progress::Progress;
use super::say::{put_line, say};
use super::{Files, Outcome};
use crate::charge;
use crate::config::{Config, Listen};
use crate::import::{Aggregator, Import, Own, Place, Taker, Tally, Told};
use crate::ledger::{Ledger, LedgerError, Reader};
use crate::metrics::Metrics;
use crate::prices::Prices;
use crate::serve;

/// Bytes read at a time.
const READ_BYTES: usize = 256 * 1024;

/// Fold in what an access log holds and the ledger does not.
///
/// Envoy's JSON access log is a second record of every event, where its format has a field for the
/// filter state `wasm.tollmesh.usage:PLAIN`, as envoy/envoy.yaml has. Each event is priced at its
/// own time and taken once, by its id: into an empty ledger all of them, into a full one none.
/// Events of hours that retention.days has deleted are left alone, since their sums are still in
/// the ledger.
///
/// While `tollmesh serve` writes the ledger, send the events to it: --to 127.0.0.1:4100. A
/// compressed log: zcat access.log.2.gz | tollmesh import --access-log -
#[derive(Debug, Args)]
pub struct Arguments {
    /// A log with one JSON object a line, `-` for standard input; may be given several times.
    #[arg(long, value_name = "FILE", required = true)]
    access_log: Vec<PathBuf>,
    /// The field that holds the event.
    #[arg(long, value_name = "NAME", default_value = "tollmesh")]
    field: String,
    /// The ingest.listen of a running aggregator that is to take the events.
    #[arg(long, value_name = "ADDRESS")]
    to: Option<String>,
}

/// What is told while the logs are read.
struct Terminal(Progress);

/// Reads the logs.
pub fn run(files: &Files, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let config = files.load()?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let tally = match &arguments.to {
        Some(address) => import_to(address, &config, arguments, runtime.handle())?,
        None => import_here(&config, arguments, &runtime)?,
    };
    put_line(summary(&tally))?;
    Ok(match tally.unreadable + tally.useless_logs {
        0 => Outcome::Done,
        _ => Outcome::Findings,
    })
}

/// Into the ledger in `state_dir`, which nobody else writes.
fn import_here(config: &Config, arguments: &Arguments, runtime: &Runtime) -> anyhow::Result<Tally> {
    let prices = Arc::new(Prices::load(&config.pricing, config.overrides.as_deref())?);
    let metrics = Arc::new(Metrics::new().context("cannot declare metrics")?);
    let pricer = charge::pricer(Arc::clone(&prices));
    let opened = runtime.block_on(serve::open_ledger(config, &metrics, Some(pricer)));
    let (ledger, _) = opened.map_err(|error| with_remedy(error, &config.ingest))?;
    let forgotten_before = ledger.reader().forgotten_before()?;
    let mut own = Own::new(runtime.handle().clone(), ledger.clone(), prices);
    let tally = import(arguments, &mut own, forgotten_before);
    runtime.block_on(Ledger::close(ledger));
    tally
}

/// To a running aggregator.
fn import_to(
    address: &str,
    config: &Config,
    arguments: &Arguments,
    runtime: &Handle,
) -> anyhow::Result<Tally> {
    let address = address.strip_prefix("http://").unwrap_or(address);
    let address = Listen::parse(address.trim_end_matches('/'));
    let address = address.map_err(|error| anyhow!("--to: {error}"))?;
    let forgotten_before = match Reader::open(&config.state_dir) {
        Ok(reader) => reader.forgotten_before()?,
        // Another aggregator's ledger than the one that is configured here.
        Err(LedgerError::Missing { .. } | LedgerError::Unreachable { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let mut aggregator = Aggregator::new(runtime.clone(), address);
    import(arguments, &mut aggregator, forgotten_before)
}

fn import(
    arguments: &Arguments,
    taker: &mut dyn Taker,
    forgotten_before: Option<Timestamp>,
) -> anyhow::Result<Tally> {
    let mut terminal = Terminal(Progress::new());
    let import = Import::new(taker, &mut terminal, &arguments.field, forgotten_before);
    let tally = read_all(import, &arguments.access_log);
    terminal.0.clear();
    tally
}

fn read_all(mut import: Import<'_>, logs: &[PathBuf]) -> anyhow::Result<Tally> {
    for path in logs {
        if path == Path::new("-") {
            import.read("standard input", None, std::io::stdin().lock())?;
            continue;
        }
        let name = path.display().to_string();
        let log =
            File::open(path).with_context(|| format!("{name}: cannot be read; check the path"))?;
        let n_bytes = log.metadata().map(|metadata| metadata.len()).ok();
        import.read(&name, n_bytes, BufReader::with_capacity(READ_BYTES, log))?;
    }
    import.finish()
}

/// The error with what can be done about it, where that is another than in general.
fn with_remedy(error: anyhow::Error, ingest: &Listen) -> anyhow::Error {
    match error.downcast_ref() {
        Some(LedgerError::Locked { path, holder }) => {
            let path = path.display();
            let holder = holder.map(|pid| format!(" (process {pid})"));
            let holder = holder.unwrap_or_default();
            anyhow!(
                "{path}: another tollmesh{holder} writes this ledger; send it the events with \
                 --to {ingest}, or stop it first"
            )
        }
        _ => error,
    }
}

fn summary(tally: &Tally) -> String {
    let Tally {
        imported,
        already,
        without_usage,
        unreadable,
        useless_logs: _,
        forgotten,
    } = tally;
    let mut text = format!(
        "imported {imported}, already there {already}, without usage {without_usage}, \
         unreadable {unreadable}"
    );
    if *forgotten > 0 {
        text.push_str(&format!(", older than the ledger's rows {forgotten}"));
    }
    text
}

// === impl Terminal ===

impl Told for Terminal {
    fn bad_line(&mut self, log: &str, line: u64, reason: &str) {
        self.0.clear();
        say(format_args!("{log}: line {line}: {reason}"));
    }

    fn bad_log(&mut self, log: &str, reason: &str) {
        self.0.clear();
        say(format_args!("{log}: {reason}"));
    }

    fn progress(&mut self, place: Place<'_>, tally: &Tally) {
        self.0.tell(|| {
            let Place { log, n_bytes, of } = place;
            let share = match of {
                Some(of) if of > 0 => format!("{} %", (n_bytes * 100 / of).min(100)),
                _ => format!("{} MiB", n_bytes >> 20),
            };
            let Tally {
                imported, already, ..
            } = tally;
            format!("{log}: {share}, imported {imported}, already there {already}")
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn summaries() {
        let tally = Tally {
            imported: 3,
            already: 2,
            without_usage: 1,
            ..Tally::default()
        };
        let plain = "imported 3, already there 2, without usage 1, unreadable 0";
        assert_eq!(summary(&tally), plain);
        let tally = Tally {
            forgotten: 7,
            ..tally
        };
        let want = format!("{plain}, older than the ledger's rows 7");
        assert_eq!(summary(&tally), want);
    }
}
