//! `tollmesh budgets`

use clap::{Args, Subcommand};

use super::{Files, Outcome, budgets_replay};

/// Limits on spend.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What the budgets of a file would have done to the calls of the past.
    Replay(budgets_replay::Arguments),
}

/// Does what was asked.
pub fn run(files: &Files, arguments: &Arguments) -> anyhow::Result<Outcome> {
    match &arguments.command {
        Command::Replay(replay) => budgets_replay::run(files, replay),
    }
}
