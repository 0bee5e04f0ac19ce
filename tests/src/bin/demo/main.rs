//! The demo: three services, three providers, one mesh on this machine, and what it all costs.

mod live;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tollmesh_tests::artifacts::Artifacts;

/// Shows Tollmesh at work on this machine: a real Envoy with the filter, a real aggregator, and
/// providers that are played on loopback. Without options it stays up until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "demo")]
struct Options {
    /// Check that the ledger equals what the providers served, then stop
    #[arg(long, conflicts_with_all = ["live", "corpus"])]
    once: bool,
    /// Route to the real providers; send nothing, and show how to call them with your own key
    #[arg(long, conflicts_with = "corpus")]
    live: bool,
    /// Replay recorded exchanges (JSON lines) through Envoy and score the ledger's rows
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,
    /// With --corpus: these providers only
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        requires = "corpus"
    )]
    providers: Vec<String>,
    /// With --corpus: send response bodies in writes of N bytes [default: whole]
    #[arg(long, value_name = "N", requires = "corpus", value_parser = at_least_one)]
    chunk: Option<usize>,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("demo: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether all that was checked was right.
fn run(options: &Options) -> anyhow::Result<bool> {
    let artifacts = Artifacts::find().map_err(anyhow::Error::msg)?;
    if let Some(file) = &options.corpus {
        return tollmesh_tests::replay::replay(&artifacts, file, &options.providers, options.chunk);
    }
    if options.live {
        return live::stand_by(&artifacts).map(|()| true);
    }
    story::tell(&artifacts, options.once)
}

fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("a write has at least one byte".to_string()),
        Ok(n) => Ok(n),
        Err(_) => Err("not a number of bytes".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_options_are_sound() {
        Options::command().debug_assert();
    }
}
