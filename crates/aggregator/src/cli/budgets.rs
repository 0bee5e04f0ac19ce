//! `tollmesh budgets`

use clap::{Args, Subcommand};

use super::{Files, Outcome, budgets_override, budgets_replay, budgets_show};

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
    /// Another limit for a while, on the record.
    Override(budgets_override::Override),
    /// Every temporary limit that was set, and whether it holds.
    Overrides(budgets_override::Overrides),
    /// Reckon spend anew, after the store of budgets has lost its data.
    Recount(budgets_override::Recount),
}

/// Does what was asked.
pub fn run(files: &Files, arguments: &Arguments) -> anyhow::Result<Outcome> {
    match &arguments.command {
        None => budgets_show::run(files, &arguments.show),
        Some(Command::Replay(replay)) => budgets_replay::run(files, replay),
        Some(Command::Override(one)) => budgets_override::set(files, one),
        Some(Command::Overrides(all)) => budgets_override::list(files, all),
        Some(Command::Recount(recount)) => budgets_override::recount(files, recount),
    }
}
