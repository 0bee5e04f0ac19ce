//! What can be asked of `cargo xtask`: its commands with their options.

use std::ffi::OsString;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};

use crate::dist::PLACEHOLDER;

/// The tasks of the Tollmesh repository
///
/// Each command first sets up what it needs and the machine lacks (see `setup`), then builds the
/// filter and the aggregator as they ship, then does its work.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    disable_help_subcommand = true
)]
pub struct Cli {
    #[command(subcommand)]
    pub task: Task,
}

#[derive(Subcommand)]
pub enum Task {
    /// See it work: Envoy with the filter, the aggregator, traffic of three services
    ///
    /// Prints what each team spent on each model and where dashboard, /metrics and API are, and stays
    /// up until Ctrl-C. Needs no provider account: the providers are played by a server on
    /// loopback, `--live` excepted.
    Demo(Demo),
    /// Set up, build and run every test; ends with the counts
    ///
    /// With --envoy those that start an Envoy, under that one; the other tests know no Envoy.
    Test(Test),
    /// Measure what the filter costs Envoy, and how many events the aggregator takes
    Bench(Bench),
    /// Measure what memory a stream takes in the filter; fail where that is over its bound
    ///
    /// Counts the heap of one stream, for bodies of up to a gigabyte in every framing and encoding;
    /// then holds thousands of streams open in a real Envoy, and looks at its VMs.
    Memory(Memory),
    /// Try budgets by a model of a cluster that fails; fail where a limit does not hold
    ///
    /// Nodes crash, are cut off and die, messages are lost, doubled and late, the store is emptied or
    /// falls back to an older copy: a row a scenario, for the store in memory and for a real Redis.
    Model(Model),
    /// Send mixed good and hostile traffic for long; fail where anything traps, is lost or grows
    Soak(Soak),
    /// Feed the scanners what a fuzzer thinks up; fail where a check does not hold
    ///
    /// Builds the targets of crates/usage/fuzz with libFuzzer, on the pinned toolchain. An input
    /// that fails is kept below target/fuzz/findings, and so is the corpus below
    /// target/fuzz/corpus, from which the next run goes on.
    Fuzz(Fuzz),
    /// Build what is handed out: binary, filter, images, SBOM, checksums, pinned manifests
    ///
    /// Everything goes to target/dist. The images are OCI archives, made without a container engine;
    /// the manifests of target/dist/k8s name them by digest in the registry that is given.
    Dist(Dist),
    /// Judge what is linked: licences, crates, sources, known vulnerabilities
    ///
    /// By the rules of .cargo/deny.toml. cargo-deny is built into target/tools the first time, which
    /// takes minutes. Where the database of advisories cannot be fetched, it says so and judges the
    /// rest.
    Deny,
    /// Fetch what the other commands need, and say where it is
    Setup(Pinned),
}

#[derive(Args)]
pub struct Demo {
    /// Print the table, compare the ledger with what the providers sent, and stop
    #[arg(long)]
    pub once: bool,
    /// Route to the real providers instead; send your own calls, with your own key
    #[arg(long, conflicts_with_all = ["once", "corpus"])]
    pub live: bool,
    /// Replay recorded exchanges (JSON lines) and score what the ledger says of them
    #[arg(long, value_name = "FILE", conflicts_with = "once")]
    pub corpus: Option<PathBuf>,
    /// Of the recorded exchanges, only those of these providers
    #[arg(long, value_name = "LIST", requires = "corpus")]
    pub providers: Option<String>,
    /// Send recorded responses in pieces of this many bytes
    #[arg(long, value_name = "BYTES", value_parser = at_least_one::<usize>, requires = "corpus")]
    pub chunk: Option<usize>,
    #[command(flatten)]
    pub pinned: Pinned,
}

impl Demo {
    /// The options that the demo itself reads, as it reads them.
    pub fn forwarded(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        for (given, name) in [(self.once, "--once"), (self.live, "--live")] {
            if given {
                args.push(name.into());
            }
        }
        let values = [
            ("--corpus", self.corpus.clone().map(OsString::from)),
            ("--providers", self.providers.clone().map(OsString::from)),
            ("--chunk", self.chunk.map(|bytes| bytes.to_string().into())),
        ];
        for (name, value) in values {
            if let Some(value) = value {
                args.extend([name.into(), value]);
            }
        }
        args
    }
}

#[derive(Args)]
pub struct Test {
    #[command(flatten)]
    pub pinned: Pinned,
    /// Handed to `cargo test` in place of `--workspace`, for instance `-p tollmesh-wire`
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    pub narrowed: Vec<OsString>,
}

#[derive(Args)]
pub struct Bench {
    /// How often each set-up is measured; the median counts
    #[arg(long, value_name = "N", value_parser = at_least_one::<u32>)]
    pub rounds: Option<u32>,
    /// How long each measurement lasts
    #[arg(long, value_name = "SECONDS", value_parser = at_least_one::<u32>)]
    pub seconds: Option<u32>,
    /// Only the loads of the filter whose name contains this, and nothing of the aggregator; of
    /// "ingest" the aggregator alone, of "reserve" the admission by strict budgets
    #[arg(long, value_name = "NAME")]
    pub load: Option<String>,
    /// Measure forwarding instead: a thousand sidecars that share one PostgreSQL
    #[arg(long, conflicts_with = "load")]
    pub postgres: bool,
    /// Measure questions instead: to a ledger of so many calls, which takes 0.3 GB a million
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>, conflicts_with_all = ["load", "postgres", "dashboard"])]
    pub ledger_rows: Option<u64>,
    /// Measure the dashboard instead: how fast it is drawn over a million calls
    #[arg(long, conflicts_with_all = ["load", "postgres"])]
    pub dashboard: bool,
    #[command(flatten)]
    pub pinned: Pinned,
}

impl Bench {
    /// The options that the benchmark itself reads, as it reads them.
    pub fn forwarded(&self) -> Vec<OsString> {
        let values = [
            ("--rounds", self.rounds.map(|n| n.to_string())),
            ("--seconds", self.seconds.map(|n| n.to_string())),
            ("--load", self.load.clone()),
            ("--ledger-rows", self.ledger_rows.map(|n| n.to_string())),
        ];
        values
            .into_iter()
            .filter_map(|(name, value)| Some([name.into(), value?.into()]))
            .flatten()
            .chain(self.postgres.then(|| "--postgres".into()))
            .chain(self.dashboard.then(|| "--dashboard".into()))
            .collect()
    }
}

#[derive(Args)]
pub struct Memory {
    /// How many streams are open at a time; 2,000 where nothing is said
    #[arg(long, value_name = "N", value_parser = at_least_one::<usize>)]
    pub streams: Option<usize>,
    /// How long the longest body is; 1,024 where nothing is said
    #[arg(long, value_name = "MB", value_parser = at_least_one::<u64>)]
    pub longest: Option<u64>,
    #[command(flatten)]
    pub pinned: Pinned,
}

impl Memory {
    /// The options that the measurement itself reads, as it reads them.
    pub fn forwarded(&self) -> Vec<OsString> {
        [
            ("--streams", self.streams.map(|n| n.to_string())),
            ("--longest", self.longest.map(|n| n.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some([name.into(), value?.into()]))
        .flatten()
        .collect()
    }
}

#[derive(Args)]
pub struct Model {
    /// Seeds of each scenario; 1,000 where nothing is said
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>)]
    pub seeds: Option<u64>,
    /// The first seed
    #[arg(long, value_name = "SEED")]
    pub from: Option<u64>,
    /// Only this store
    #[arg(long, value_name = "NAME", value_parser = ["memory", "redis"])]
    pub store: Option<String>,
    /// Only the scenarios whose name contains this
    #[arg(long, value_name = "NAME")]
    pub scenario: Option<String>,
    /// Break each rule of the stores in turn; fail where nobody notices
    #[arg(long)]
    pub mutants: bool,
    /// Measure instead: so many sidecars on one Redis
    #[arg(long, value_name = "N", value_parser = at_least_one::<usize>, conflicts_with = "mutants")]
    pub sidecars: Option<usize>,
}

impl Model {
    /// The options that the model itself reads, as it reads them.
    pub fn forwarded(&self) -> Vec<OsString> {
        [
            ("--seeds", self.seeds.map(|n| n.to_string())),
            ("--from", self.from.map(|n| n.to_string())),
            ("--store", self.store.clone()),
            ("--scenario", self.scenario.clone()),
            ("--sidecars", self.sidecars.map(|n| n.to_string())),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some([name.into(), value?.into()]))
        .flatten()
        .chain(self.mutants.then(|| "--mutants".into()))
        .collect()
    }
}

#[derive(Args)]
pub struct Soak {
    /// How many requests to send; 200,000 where nothing is said
    #[arg(long, value_name = "N", value_parser = at_least_one::<u64>)]
    pub requests: Option<u64>,
    /// Instead, the tests of faults at full length: absences last a minute
    #[arg(long, conflicts_with = "requests")]
    pub faults: bool,
    #[command(flatten)]
    pub pinned: Pinned,
}

impl Soak {
    /// The options that the soak itself reads, as it reads them.
    pub fn forwarded(&self) -> Vec<OsString> {
        let n = self.requests.map(|n| n.to_string().into());
        n.into_iter()
            .flat_map(|n| ["--requests".into(), n])
            .collect()
    }
}

#[derive(Args)]
pub struct Fuzz {
    /// Only these targets; all where none is named
    #[arg(value_name = "TARGET")]
    pub targets: Vec<String>,
    /// How long each target runs
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = at_least_one::<u32>)]
    pub seconds: u32,
    /// How many targets run at a time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one::<u16>)]
    pub jobs: u16,
}

#[derive(Args)]
pub struct Dist {
    /// Where the images will be pushed, for instance ghcr.io/acme/tollmesh
    #[arg(long, value_name = "REGISTRY", value_parser = registry)]
    pub registry: String,
}

/// A count; told here, before minutes of building.
fn at_least_one<N: FromStr + Default + PartialEq>(text: &str) -> Result<N, String> {
    let number = text.parse().ok().filter(|n| *n != N::default());
    number.ok_or_else(|| "expected a whole number from 1 on".to_owned())
}

/// A registry with a path in it, as names of images begin: neither URL, nor with tag or digest
/// (<https://github.com/distribution/reference/blob/main/reference.go>).
fn registry(text: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected such as ghcr.io/acme/tollmesh";
    let text = text.trim_end_matches('/');
    let (host, path) = text.split_once('/').unwrap_or((text, ""));
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
    let is_path = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._/".contains(c);
    if text.contains("://") {
        return Err(format!("leave the scheme out; {EXPECTED}"));
    }
    if text == PLACEHOLDER {
        return Err(format!("stands for none in the manifests; {EXPECTED}"));
    }
    if host.is_empty() || !host.chars().all(is_host) || !path.chars().all(is_path) {
        return Err(format!(
            "no image's name can begin so (small letters, no tag, no digest); {EXPECTED}"
        ));
    }
    Ok(text.to_owned())
}

#[derive(Args)]
pub struct Pinned {
    /// Run under this Envoy instead of the pinned one
    #[arg(long = "envoy", value_name = "VERSION")]
    pub envoy: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    /// Rows of a terminal on which nobody has to scroll.
    const SCREEN_LINES: usize = 24;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn short_help_is_one_screen() {
        let mut command = Cli::command();
        let mut pages = vec![command.render_help().to_string()];
        pages.extend(
            command
                .get_subcommands_mut()
                .map(|task| task.render_help().to_string()),
        );
        for page in pages {
            assert!(
                page.lines().count() <= SCREEN_LINES,
                "more than one screen:\n{page}"
            );
        }
    }

    #[test]
    fn options_are_forwarded_as_they_were_given() {
        let cases: [(&[&str], &[&str]); 13] = [
            (&["demo"], &[]),
            (&["demo", "--once"], &["--once"]),
            (&["demo", "--live", "--envoy", "1.40.0"], &["--live"]),
            (
                &[
                    "demo",
                    "--corpus",
                    "a b.jsonl",
                    "--chunk",
                    "7",
                    "--providers",
                    "openai,google",
                ],
                &[
                    "--corpus",
                    "a b.jsonl",
                    "--providers",
                    "openai,google",
                    "--chunk",
                    "7",
                ],
            ),
            (&["bench", "--seconds", "2"], &["--seconds", "2"]),
            (&["bench", "--load", "64 KB"], &["--load", "64 KB"]),
            (
                &["bench", "--postgres", "--seconds", "9"],
                &["--seconds", "9", "--postgres"],
            ),
            (&["memory"], &[]),
            (
                &["memory", "--longest", "64", "--streams", "9"],
                &["--streams", "9", "--longest", "64"],
            ),
            (&["model"], &[]),
            (
                &["model", "--mutants", "--store", "redis", "--seeds", "9"],
                &["--seeds", "9", "--store", "redis", "--mutants"],
            ),
            (&["soak"], &[]),
            (&["soak", "--requests", "9"], &["--requests", "9"]),
        ];
        for (typed, forwarded) in cases {
            let words = ["cargo xtask"].iter().chain(typed);
            let got = match Cli::try_parse_from(words).unwrap().task {
                Task::Demo(demo) => demo.forwarded(),
                Task::Bench(bench) => bench.forwarded(),
                Task::Memory(memory) => memory.forwarded(),
                Task::Model(model) => model.forwarded(),
                Task::Soak(soak) => soak.forwarded(),
                _ => unreachable!("only these forward options"),
            };
            assert_eq!(got, forwarded, "{typed:?}");
        }
    }

    #[test]
    fn registries_are_those_that_images_can_be_pushed_to() {
        for (text, taken) in [
            ("ghcr.io/acme/tollmesh", "ghcr.io/acme/tollmesh"),
            ("localhost:5000/a/", "localhost:5000/a"),
            ("registry.acme.example:443", "registry.acme.example:443"),
        ] {
            assert_eq!(registry(text).as_deref(), Ok(taken));
        }
        for text in [
            "",
            "/acme",
            "https://ghcr.io/acme",
            "ghcr.io/Acme",
            "ghcr.io/acme:1",
            "ghcr.io/acme@sha256:00",
            "ghcr.io/a b",
            PLACEHOLDER,
        ] {
            assert!(registry(text).is_err(), "{text}");
        }
    }

    #[test]
    fn contradictions_are_refused() {
        let cases: [&[&str]; 6] = [
            &["bench", "--rounds", "0"],
            &["model", "--store", "disk"],
            &["dist", "--registry", "https://ghcr.io/acme"],
            &["demo", "--live", "--once"],
            &["demo", "--chunk", "1"],
            &["soak", "--faults", "--requests", "9"],
        ];
        for typed in cases {
            assert!(Cli::try_parse_from(["cargo xtask"].iter().chain(typed)).is_err());
        }
    }
}
