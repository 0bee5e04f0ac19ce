//! The command line: what can be typed, and which file does it.

mod backup;
mod budgets;
mod budgets_override;
mod budgets_replay;
mod budgets_show;
mod check;
mod check_budgets;
mod completions;
mod doctor;
mod explain;
mod extract;
mod import;
mod late_tags;
mod lines;
mod output;
mod price;
mod prices;
mod prices_import;
mod progress;
mod report;
mod reprice;
mod running;
pub mod say;
mod serve;
mod store;
mod top;

use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::Config;

/// Knows what every LLM call in the mesh costs.
///
/// Tollmesh runs beside an Envoy whose filter reads token usage out of the answers of LLM
/// providers. `tollmesh serve` prices those calls, keeps them in a ledger, and answers Prometheus
/// and people. The other commands read the same ledger, or standard input.
///
/// Every setting has a default: `tollmesh serve` needs no configuration file. Without --config,
/// /etc/tollmesh/tollmesh.toml is read where it exists.
///
/// Exit codes: 0 done, 1 done with findings (warnings of `check`, lines that could not be read),
/// 2 wrong usage or failure.
#[derive(Debug, Parser)]
#[command(
    name = "tollmesh",
    version,
    max_term_width = 100,
    after_long_help = "A completion script for a shell: `tollmesh completions SHELL`.",
    // `tollmesh COMMAND --help` does it, and the screen is full.
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
struct Cli {
    /// The configuration file; else /etc/tollmesh/tollmesh.toml, if there.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where ledger and lock are; overrides the file's state_dir.
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Price events, keep the ledger, serve metrics and the API.
    Serve(serve::Arguments),
    /// Tell every mistake in every file, with place and remedy.
    Check(check::Arguments),
    /// Why traffic is not seen: look through Envoy and the aggregator.
    Doctor(doctor::Arguments),
    /// Read usage out of recorded exchanges.
    Extract(extract::Arguments),
    /// Price usage.
    Price(price::Arguments),
    /// Spend, tokens and requests by team, model, or whatever calls are tagged with.
    Report(report::Arguments),
    /// The calls that stand out.
    Top(top::Arguments),
    /// How far budgets are spent, and what others would have done.
    Budgets(budgets::Arguments),
    /// Why a call was refused or changed.
    Explain(explain::Arguments),
    /// What the price tables say.
    Prices(prices::Arguments),
    /// Price calls of the past anew, under the tables of today.
    Reprice(reprice::Arguments),
    /// Fold in what an access log holds and the ledger does not.
    Import(import::Arguments),
    /// Copy the ledger into a new file, also while it is written.
    Backup(backup::Arguments),
    /// A completion script for a shell.
    // Asked for once in a life; the short help is one screen without it.
    #[command(hide = true)]
    Completions(completions::Arguments),
}

/// How a command that did not fail ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As asked.
    Done,
    /// As asked, and there is something to look at.
    Findings,
}

impl Outcome {
    /// The exit code.
    pub const fn code(self) -> u8 {
        match self {
            Outcome::Done => 0,
            Outcome::Findings => 1,
        }
    }
}

/// Runs what was typed.
pub fn run() -> anyhow::Result<Outcome> {
    let cli = Cli::parse();
    let files = Files {
        config: cli.config,
        state_dir: cli.state_dir,
    };
    match cli.command {
        Command::Serve(arguments) => serve::run(&files, arguments),
        Command::Check(arguments) => check::run(&files, &arguments),
        Command::Doctor(arguments) => doctor::run(&files, &arguments),
        Command::Extract(arguments) => extract::run(&arguments),
        Command::Price(arguments) => price::run(&files, &arguments),
        Command::Report(arguments) => report::run(&files, arguments),
        Command::Top(arguments) => top::run(&files, arguments),
        Command::Budgets(arguments) => budgets::run(&files, &arguments),
        Command::Explain(arguments) => explain::run(&files, &arguments),
        Command::Prices(arguments) => prices::run(&files, &arguments),
        Command::Reprice(arguments) => reprice::run(&files, arguments),
        Command::Import(arguments) => import::run(&files, &arguments),
        Command::Backup(arguments) => backup::run(&files, &arguments),
        Command::Completions(arguments) => completions::run(&arguments, Cli::command()),
    }
}

/// The files that were named for all commands.
struct Files {
    config: Option<PathBuf>,
    state_dir: Option<PathBuf>,
}

impl Files {
    fn load(&self) -> anyhow::Result<Config> {
        Ok(Config::load(
            self.config.as_deref(),
            self.state_dir.as_deref(),
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_short_help_is_one_screen() {
        let help = Cli::command().render_help().to_string();
        insta::assert_snapshot!(help);
        assert!(help.lines().count() <= 24, "{help}");
    }
}
