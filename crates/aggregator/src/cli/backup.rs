//! `tollmesh backup`

use std::path::PathBuf;

use clap::Args;

use super::progress::Progress;
use super::say::put_line;
use super::{Files, Outcome};
use crate::ledger::query::Reader;

/// Copy the ledger into a new file, also while `tollmesh serve` writes it.
///
/// The copy is the ledger of one instant, whole and checked, in one file. To go back to it, stop
/// the process and put it in the place of ledger.db in state_dir, without the -wal and -shm files
/// that were beside the old one.
///
/// Example: tollmesh backup /backup/ledger-2026-11-22.db
#[derive(Debug, Args)]
pub struct Arguments {
    /// The new file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Makes the copy.
pub fn run(files: &Files, arguments: &Arguments) -> anyhow::Result<Outcome> {
    let reader = Reader::open(&files.load()?.state_dir)?;
    let mut progress = Progress::new();
    let made = reader.backup(&arguments.file, &mut |thousandths| {
        progress.tell(|| format!("{}.{} %", thousandths / 10, thousandths % 10));
    });
    progress.clear();
    let made = made?;
    put_line(format_args!(
        "{}: {} calls, {} bytes, checked",
        arguments.file.display(),
        made.rows,
        made.bytes
    ))?;
    Ok(Outcome::Done)
}
