//! Fuzzing: builds the targets of `crates/usage/fuzz`, runs each, tells what came of it.
//!
//! The targets are plain libFuzzer programs, and the coverage that libFuzzer is led by comes from
//! compiler flags that the pinned, stable toolchain has: neither a nightly compiler nor
//! `cargo-fuzz` is needed, only a C++ compiler for libFuzzer itself. There is no address sanitizer
//! (that one does need a nightly): the code under test has no `unsafe`.

use std::collections::VecDeque;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::cli::Fuzz;
use crate::steps::shown;
use crate::workshop::Workshop;

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
    let mut cargo = workshop.cargo("build", &["--release", "--manifest-path", MANIFEST]);
    // With a target named, the flags do not reach build scripts and macros.
    cargo.arg("--target").arg(&host);
    cargo
        .env("CARGO_TARGET_DIR", room)
        .env("RUSTFLAGS", COVERAGE);
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

/// What libFuzzer tells of a run.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stats {
    n_executions: u64,
    /// Edges of the code that were reached.
    n_edges: u64,
    /// Edges and how often, and what was compared with what.
    n_features: u64,
    /// The file with the input that failed.
    artefact: Option<PathBuf>,
}

impl Stats {
    fn read(log: &str) -> Stats {
        let mut stats = Stats::default();
        for line in log.lines() {
            if let Some(n) = line.strip_prefix("stat::number_of_executed_units:") {
                stats.n_executions = n.trim().parse().unwrap_or(0);
            }
            if let Some((_, path)) = line.split_once("Test unit written to ") {
                stats.artefact = Some(PathBuf::from(path.trim()));
            }
            let number = |name: &str| {
                let (_, rest) = line.split_once(name)?;
                rest.split_whitespace().next()?.parse::<u64>().ok()
            };
            if line.starts_with('#')
                && let Some(n_edges) = number(" cov: ")
            {
                stats.n_edges = n_edges;
                stats.n_features = number(" ft: ").unwrap_or(0);
            }
        }
        stats
    }
}

/// What came of one target.
struct Outcome {
    target: String,
    took: Duration,
    stats: Stats,
    finding: Option<Finding>,
}

struct Finding {
    program: PathBuf,
    artefact: Option<PathBuf>,
    log: PathBuf,
}

impl Outcome {
    /// What to do about the finding; nothing where there is none.
    fn report(&self) -> String {
        let Some(finding) = &self.finding else {
            return String::new();
        };
        let log = finding.log.display();
        let Some(artefact) = &finding.artefact else {
            return format!("{}: failed without an input; see {log}\n", self.target);
        };
        format!(
            "{}: a finding; see {log}, and replay it with\n  {} {}\n",
            self.target,
            finding.program.display(),
            artefact.display()
        )
    }
}

struct Table<'a>(&'a [Outcome]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:<12} {:>7} {:>12} {:>9} {:>7} {:>9} {:>9}",
            "target", "seconds", "executions", "per s", "edges", "features", "findings"
        )?;
        for outcome in self.0 {
            let (stats, seconds) = (&outcome.stats, outcome.took.as_secs());
            write!(
                f,
                "\n{:<12} {:>7} {:>12} {:>9} {:>7} {:>9} {:>9}",
                outcome.target,
                seconds,
                stats.n_executions,
                stats.n_executions / seconds.max(1),
                stats.n_edges,
                stats.n_features,
                u8::from(outcome.finding.is_some())
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
INFO: Running with entropic power schedule (0xFF, 100).
#2\tINITED cov: 30 ft: 40 corp: 1/1b exec/s: 0 rss: 25Mb
#512\tNEW    cov: 31 ft: 41 corp: 2/2b lim: 4 exec/s: 0 rss: 25Mb L: 1/1 MS: 1 ChangeByte-
Test unit written to findings/sse/crash-0a
stat::number_of_executed_units: 513
";

    fn outcome() -> Outcome {
        Outcome {
            target: "sse".to_owned(),
            took: Duration::from_millis(2900),
            stats: Stats::read(LOG),
            finding: Some(Finding {
                program: PathBuf::from("release/sse"),
                artefact: Some(PathBuf::from("findings/sse/crash-0a")),
                log: PathBuf::from("logs/sse.log"),
            }),
        }
    }

    #[test]
    fn the_last_word_of_the_log_counts() {
        let stats = Stats::read(LOG);
        assert_eq!(
            (stats.n_executions, stats.n_edges, stats.n_features),
            (513, 31, 41)
        );
        assert_eq!(Stats::read("no such thing"), Stats::default());
    }

    #[test]
    fn a_finding_is_told_with_how_to_replay_it() {
        let outcome = outcome();
        assert_eq!(
            outcome.report(),
            "sse: a finding; see logs/sse.log, and replay it with\n  \
             release/sse findings/sse/crash-0a\n"
        );
        let table = Table(&[outcome]).to_string();
        let rows: Vec<Vec<&str>> = table
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(rows[1], ["sse", "2", "513", "256", "31", "41", "1"]);
    }

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
