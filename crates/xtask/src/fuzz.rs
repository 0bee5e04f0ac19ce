//! Fuzzing: builds the targets of `crates/usage/fuzz`, runs each, tells what came of it.
//!
//! The targets are plain libFuzzer programs, and the coverage that libFuzzer is led by comes from
//! compiler flags that the pinned, stable toolchain has: neither a nightly compiler nor
//! `cargo-fuzz` is needed, only a C++ compiler for libFuzzer itself. There is no address sanitizer
//! (that one does need a nightly): the code under test has no `unsafe`.

mod outcome;

use std::collections::VecDeque;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::cli::Fuzz;
use crate::steps::shown;
use crate::workshop::Workshop;
use outcome::{Finding, Outcome, Stats, Table};

/// Where the targets are, from the root of the checkout.
const TARGETS: &str = "crates/usage/fuzz/fuzz_targets";
const MANIFEST: &str = "crates/usage/fuzz/Cargo.toml";

/// What libFuzzer must see: each edge of the code, and what comparisons are made with
/// (<https://clang.llvm.org/docs/SanitizerCoverage.html>).
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";

/// The longest input, in bytes: longer than what any buffer of the scanner holds.
const INPUT_BYTES_MAX: u32 = 16 << 10;

/// One input may take that long, in seconds; it takes microseconds where nothing is wrong.
const INPUT_SECONDS_MAX: u32 = 20;

/// What a target may take, in MiB. A single input that decodes to 18 MB is among the seeds.
const MEMORY_MIB_MAX: u32 = 1024;

/// Builds and runs the targets that were asked for, or all; fails where one found something.
pub fn run(workshop: &Workshop, fuzz: &Fuzz) -> Result<ExitCode> {
    let targets = chosen(&known_targets(&workshop.root)?, &fuzz.targets)?;
    let room = workshop.target.join("fuzz");
    let programs = build(workshop, &room)?;
    let seeds = room.join("seeds");
    let mut seeding = workshop.cargo("run", &["-p", "tollmesh-usage", "--example", "fuzz-seeds"]);
    seeding.arg("--").arg(&seeds);
    workshop.steps.run("gathering seeds", &mut seeding)?;
    let rooms = Rooms {
        programs,
        seeds,
        corpus: room.join("corpus"),
        findings: room.join("findings"),
        logs: room.join("logs"),
    };
    let outcomes = run_all(workshop, &rooms, targets, fuzz)?;
    println!("{}", Table(&outcomes));
    for outcome in &outcomes {
        print!("{}", outcome.report());
    }
    let is_clean = outcomes.iter().all(|outcome| outcome.finding.is_none());
    Ok(if is_clean {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The folders of a run; those of the targets are named after them.
struct Rooms {
    programs: PathBuf,
    seeds: PathBuf,
    /// Inputs that reached something new; kept from run to run.
    corpus: PathBuf,
    findings: PathBuf,
    logs: PathBuf,
}

fn known_targets(root: &Path) -> Result<Vec<String>> {
    let folder = root.join(TARGETS);
    let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let path = entry?.path();
        names.extend(
            path.file_stem()
                .map(|name| name.to_string_lossy().into_owned()),
        );
    }
    names.sort();
    Ok(names)
}

fn chosen(known: &[String], asked: &[String]) -> Result<Vec<String>> {
    let unknown = asked.iter().find(|name| !known.contains(name));
    if let Some(name) = unknown {
        bail!("no fuzz target {name:?}; there are {}", known.join(", "));
    }
    let all = if asked.is_empty() { known } else { asked };
    Ok(all.to_vec())
}

/// Builds every target; answers the folder of the programs.
fn build(workshop: &Workshop, room: &Path) -> Result<PathBuf> {
    let host = host(workshop)?;
    let args = ["--release", "--manifest-path", MANIFEST];
    let mut cargo = workshop.cargo_into(room, "build", &args);
    // With a target named, the flags do not reach build scripts and macros.
    cargo.arg("--target").arg(&host);
    cargo.env("RUSTFLAGS", COVERAGE);
    workshop
        .steps
        .run("building the fuzz targets", &mut cargo)
        .context("libFuzzer needs a C++ compiler (Debian: `apt-get install g++`)")?;
    Ok(room.join(host).join("release"))
}

/// The triple of the machine that this runs on.
fn host(workshop: &Workshop) -> Result<String> {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(&workshop.root).arg("-vV");
    let output = workshop.steps.ask(&mut rustc)?;
    let told = String::from_utf8_lossy(&output.stdout);
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("`rustc -vV` tells no host")?.to_owned())
}

/// Runs the targets, so many at a time; outcomes are in the order of the targets.
fn run_all(
    workshop: &Workshop,
    rooms: &Rooms,
    targets: Vec<String>,
    fuzz: &Fuzz,
) -> Result<Vec<Outcome>> {
    let waiting: Mutex<VecDeque<String>> = Mutex::new(targets.into());
    let next = || {
        waiting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    let work = || -> Result<Vec<Outcome>> {
        std::iter::from_fn(next)
            .map(|target| run_one(workshop, rooms, &target, fuzz.seconds))
            .collect()
    };
    let shares = thread::scope(|scope| {
        let workers: Vec<_> = (0..fuzz.jobs.max(1)).map(|_| scope.spawn(work)).collect();
        let join = |worker: thread::ScopedJoinHandle<'_, _>| worker.join();
        workers.into_iter().map(join).collect::<Vec<_>>()
    });
    let mut outcomes = Vec::new();
    for share in shares {
        outcomes.extend(share.map_err(|_| anyhow!("a worker panicked"))??);
    }
    outcomes.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(outcomes)
}

fn run_one(workshop: &Workshop, rooms: &Rooms, target: &str, seconds: u32) -> Result<Outcome> {
    let corpus = rooms.corpus.join(target);
    let findings = rooms.findings.join(target);
    for folder in [&corpus, &findings, &rooms.logs] {
        fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    }
    let log_path = rooms.logs.join(format!("{target}.log"));
    let log = File::create(&log_path).with_context(|| format!("create {}", log_path.display()))?;
    let program = rooms.programs.join(target);
    let mut command = Command::new(&program);
    command.arg(&corpus).arg(rooms.seeds.join(target));
    command.arg(format!("-max_total_time={seconds}"));
    command.arg(format!("-max_len={INPUT_BYTES_MAX}"));
    command.arg(format!("-timeout={INPUT_SECONDS_MAX}"));
    command.arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
    command.arg(format!("-artifact_prefix={}/", findings.display()));
    command.arg("-print_final_stats=1");
    let since = Instant::now();
    let status = workshop.steps.log(
        &format!("fuzzing {target} for {seconds} s"),
        &mut command,
        log,
    )?;
    let said = fs::read(&log_path).with_context(|| format!("read {}", log_path.display()))?;
    let stats = Stats::read(&String::from_utf8_lossy(&said));
    ensure!(
        stats.n_executions > 0 || stats.artefact.is_some(),
        "`{}` ran nothing: see {}",
        shown(&command),
        log_path.display()
    );
    Ok(Outcome {
        target: target.to_owned(),
        took: since.elapsed(),
        finding: (!status.success()).then(|| Finding {
            program,
            artefact: stats.artefact.clone(),
            log: log_path,
        }),
        stats,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_those_of_the_folder() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let known = known_targets(&root).unwrap();
        assert!(known.contains(&"splice".to_owned()), "{known:?}");
        assert_eq!(chosen(&known, &[]).unwrap(), known);
        assert_eq!(chosen(&known, &["sse".to_owned()]).unwrap(), ["sse"]);
        let error = chosen(&known, &["sea".to_owned()]).unwrap_err().to_string();
        assert!(
            error.starts_with("no fuzz target \"sea\"; there are cutter, "),
            "{error}"
        );
    }
}
