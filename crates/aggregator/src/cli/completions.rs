//! `tollmesh completions`

use std::io::Write;

use clap::Args;
use clap_complete::Shell;

use super::Outcome;

/// A completion script for a shell.
///
/// For bash: tollmesh completions bash > /etc/bash_completion.d/tollmesh
#[derive(Debug, Args)]
pub struct Arguments {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes the script to standard output.
pub fn run(arguments: &Arguments, mut command: clap::Command) -> anyhow::Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "tollmesh", &mut script);
    std::io::stdout().lock().write_all(&script)?;
    Ok(Outcome::Done)
}
