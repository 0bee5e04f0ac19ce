//! The memory of a stream: counted natively, and measured in a real Envoy with streams held open.
//!
//! Three things are measured, and the exit code is 1 where one of them is over its bound: the heap
//! of one stream by framing, encoding and length of body; what a VM grows by when very many streams
//! are open at a time, with and without decoders; and what a body of a gigabyte leaves behind.

mod answer;
mod street;
mod upstream;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context, ensure};
use clap::Parser;
use tollmesh_tests::artifacts::{self, Artifacts};

use answer::Answer;
use street::Street;

/// What a stream may take in a VM when nothing is decoded.
const STREAM_BYTES_MAX: u64 = 16 << 10;
/// What a stream may take under `gzip`; its window of 32 KiB is in it.
const GZIP_STREAM_BYTES_MAX: u64 = 64 << 10;
/// What all decoders of one VM share.
const POOL_BYTES_MAX: u64 = 64 << 20;
/// Streams under `gzip` for whose decoders there is room in what they share.
const GZIP_STREAMS_MAX: usize = 1000;
/// What a long body may leave in a VM: a slice of what Envoy reads at a time, the same with an event
/// cut out, a stream, and what room for them adds to a memory that grows by pages.
const LONG_LINEAR_BYTES_MAX: u64 = 512 << 10;
/// What a long body may leave in Envoy: the slack of a heap that gives pages back late.
const LONG_RESIDENT_BYTES_MAX: u64 = 16 << 20;
const MIB: f64 = (1 << 20) as f64;

/// Measures what memory one stream takes in the filter, in whatever framing, encoding and length.
#[derive(Debug, Parser)]
#[command(name = "memory")]
struct Options {
    /// How many streams are open at a time
    #[arg(long, value_name = "N", default_value_t = 2000)]
    streams: usize,
    /// How long the longest body is
    #[arg(long, value_name = "MB", default_value_t = 1024)]
    longest: u64,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("memory: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether every bound held.
fn run(options: &Options) -> anyhow::Result<bool> {
    ensure!(options.streams > 0, "--streams: at least one");
    ensure!(options.longest > 0, "--longest: at least one MB");
    let artifacts = Artifacts::find().map_err(anyhow::Error::msg)?;
    let mut holds = heap(options.longest)?;
    holds &= open_streams(&artifacts, options.streams)?;
    holds &= wide_windows(&artifacts, options.streams)?;
    holds &= long_bodies(&artifacts, options.longest)?;
    println!(
        "\n{}",
        if holds {
            "held    every bound"
        } else {
            "BROKEN  a bound"
        }
    );
    Ok(holds)
}

/// The heap of one stream, counted by the program that drives the filter's session natively. It is
/// a program of its own, since it links the filter and nothing here does.
fn heap(longest: u64) -> anyhow::Result<bool> {
    let named = std::env::var_os("TOLLMESH_STREAM_MEMORY").map(PathBuf::from);
    let built = artifacts::root().join("target/driver/examples/stream_memory");
    let program = named.unwrap_or(built);
    let build = "cargo build --profile driver -p tollmesh-filter --example stream_memory";
    let status = Command::new(&program).arg(longest.to_string()).status();
    let status = status
        .with_context(|| format!("cannot start {}; `{build}` makes it", program.display()))?;
    // 1 is its word that a bound did not hold; anything else has said itself what is wrong.
    ensure!(
        matches!(status.code(), Some(0 | 1)),
        "{}: {status}",
        program.display()
    );
    Ok(status.success())
}

fn open_streams(artifacts: &Artifacts, n_streams: usize) -> anyhow::Result<bool> {
    println!("\nlinear memory of the filter's VMs in a real Envoy with one worker, streams open");
    println!(
        "{:<12} {:>7} {:>9} {:>9} {:>13} {:>6} {:>15}",
        "framing", "streams", "idle MiB", "open MiB", "KiB a stream", "bound", "of Envoy's, KiB"
    );
    let n_gzip = n_streams.min(GZIP_STREAMS_MAX);
    let mut holds = true;
    for (answer, n, bound) in [
        (Answer::json(), n_streams, STREAM_BYTES_MAX),
        (Answer::sse(), n_streams, STREAM_BYTES_MAX),
        (Answer::eventstream(), n_streams, STREAM_BYTES_MAX),
        (
            Answer::sse().gzipped("SSE, gzip", 0),
            n_gzip,
            GZIP_STREAM_BYTES_MAX,
        ),
    ] {
        let name = answer.name;
        let street = Street::start(artifacts, answer)?;
        let idle = street.memory()?;
        let open = street.open(n)?;
        let full = street.memory()?;
        let metered = street.finish(open, n as u64).context(name)?;
        ensure!(metered.n_estimated == 0, "{name}: {metered:?}");
        let each = |idle: u64, full: u64| full.saturating_sub(idle) / n as u64;
        let linear = each(idle.linear, full.linear);
        println!(
            "{name:<12} {n:>7} {:>9.1} {:>9.1} {:>13.1} {:>6} {:>15.1}{}",
            idle.linear as f64 / MIB,
            full.linear as f64 / MIB,
            linear as f64 / 1024.0,
            bound >> 10,
            each(idle.resident, full.resident) as f64 / 1024.0,
            over(linear, bound)
        );
        holds &= linear <= bound;
    }
    Ok(holds)
}

/// Streams whose windows are far more than all decoders may have together.
fn wide_windows(artifacts: &Artifacts, n_streams: usize) -> anyhow::Result<bool> {
    let answer = Answer::wide_window();
    println!(
        "\n{n_streams} streams, {}, all open and filled",
        answer.name
    );
    let street = Street::start(artifacts, answer)?;
    let idle = street.memory()?.linear;
    let open = street.open(n_streams)?;
    let grown = street.memory()?.linear.saturating_sub(idle);
    let metered = street.finish(open, n_streams as u64)?;
    let bound = POOL_BYTES_MAX + n_streams as u64 * STREAM_BYTES_MAX;
    println!(
        "{:>9.1} MiB more in the VM; 64 for decoders and {} KiB a stream would be {:.1}{}",
        grown as f64 / MIB,
        STREAM_BYTES_MAX >> 10,
        bound as f64 / MIB,
        over(grown, bound)
    );
    let n_refused = street.n_troubles("decoder_budget");
    println!(
        "{:>9} decoded and reported, {} estimated, {n_refused} with trouble decoder_budget",
        metered.n_reported, metered.n_estimated
    );
    Ok(grown <= bound && metered.n_reported > 0 && metered.n_estimated == n_refused)
}

/// Bodies of three lengths, each a tenth of the next: what grew with the length would leak.
fn long_bodies(artifacts: &Artifacts, longest: u64) -> anyhow::Result<bool> {
    println!("\none body through Envoy; MiB before and after");
    println!(
        "{:<12} {:>13} {:>17} {:>17}",
        "framing", "MB on the wire", "VMs", "resident"
    );
    let mut holds = true;
    for framing in [Answer::json, Answer::sse, Answer::eventstream] {
        for n_mb in lengths(longest) {
            let answer = framing();
            let n_pieces = n_pieces(&answer, n_mb);
            holds &= long_body(artifacts, answer.with_pieces(n_pieces))?;
        }
    }
    for n_mb in lengths(longest) {
        let n_pieces = n_pieces(&Answer::sse(), n_mb);
        holds &= long_body(artifacts, Answer::sse().gzipped("SSE, gzip", n_pieces))?;
    }
    Ok(holds)
}

/// In MB, the longest last.
fn lengths(longest: u64) -> impl Iterator<Item = u64> {
    [100, 10, 1]
        .into_iter()
        .map(move |part| longest / part)
        .filter(|n_mb| *n_mb > 0)
}

fn n_pieces(answer: &Answer, n_mb: u64) -> u64 {
    (n_mb << 20) / answer.piece.len() as u64
}

fn long_body(artifacts: &Artifacts, answer: Answer) -> anyhow::Result<bool> {
    let (name, n_bytes) = (answer.name, answer.n_bytes());
    let street = Street::start(artifacts, answer)?;
    let open = street.open(1)?;
    let before = street.memory()?;
    let metered = street.finish(open, 1).context(name)?;
    ensure!(metered.n_reported == 1, "{name}: {metered:?}");
    let after = street.memory()?;
    let linear_max = before.linear + LONG_LINEAR_BYTES_MAX;
    let resident_max = before.resident + LONG_RESIDENT_BYTES_MAX;
    println!(
        "{name:<12} {:>13} {:>8.2} {:>8.2} {:>8.1} {:>8.1}{}{}",
        n_bytes >> 20,
        before.linear as f64 / MIB,
        after.linear as f64 / MIB,
        before.resident as f64 / MIB,
        after.resident as f64 / MIB,
        over(after.linear, linear_max),
        over(after.resident, resident_max)
    );
    Ok(after.linear <= linear_max && after.resident <= resident_max)
}

fn over(n_bytes: u64, bound: u64) -> &'static str {
    match n_bytes <= bound {
        true => "",
        false => "  OVER ITS BOUND",
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
