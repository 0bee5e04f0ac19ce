//! `tollmesh budgets`

use clap::{Args, Subcommand};

use super::{Files, Outcome, budgets_replay, budgets_show};

/// How far each budget is spent.
///
/// Asks the aggregator that is running on the same configuration, at operator.listen.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(flatten)]
    show: budgets_show::Arguments,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// What the budgets of a file would have done to the calls of the past.
    Replay(budgets_replay::Arguments),
}

/// Does what was asked.
pub fn run(files: &Files, arguments: &Arguments) -> anyhow::Result<Outcome> {
    match &arguments.command {
        None => budgets_show::run(files, &arguments.show),
        Some(Command::Replay(replay)) => budgets_replay::run(files, replay),
    }
}
