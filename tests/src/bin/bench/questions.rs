//! Questions to a large ledger, as a dashboard asks them: over HTTP, the first time and again; and while
//! the ledger takes in calls.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::fs::Advice;
use tokio::runtime::Runtime;
use tollmesh_tests::aggregator::{Aggregator, STATE_DIR};
use tollmesh_tests::envoy_config::Ingest;
use tollmesh_tests::{artifacts, http};

use crate::ingest::send::{self, Load};
use crate::ingest::{ACK_P99_MS_MAX, N_LABEL_SETS_MANY, PACED, verdict};
use crate::{median, quantile};

/// How often each question is asked again after the first time.
const N_AGAIN: u32 = 5;

/// No call of the ledger is beyond retention, whenever this runs.
const CONFIG: &str = "[retention]\ndays = 3660\n";

/// How long calls come in while questions are asked.
const LOAD_SPAN: Duration = Duration::from_secs(20);

/// Of the questions, how many of the first are asked then, in turn.
const UNDER_LOAD: usize = 4;

/// What is asked, and what it may take.
struct Question {
    what: &'static str,
    path: &'static str,
    goal: Option<Duration>,
}

/// The goal for the question that every dashboard asks.
const GOAL: Option<Duration> = Some(Duration::from_millis(200));

/// The goal for any tag, and for what the mesh says of the caller.
const GOAL_OF_ANY: Option<Duration> = Some(Duration::from_secs(1));

const QUESTIONS: &[Question] = &[
    Question::new("spend by team,model", "spend?by=team,model", GOAL),
    Question::new("spend by feature", "spend?by=feature", GOAL_OF_ANY),
    Question::new("spend by environment", "spend?by=environment", GOAL_OF_ANY),
    Question::new("spend by user", "spend?by=user", GOAL_OF_ANY),
    Question::new("spend by namespace", "spend?by=namespace", GOAL_OF_ANY),
    Question::new("spend by pod", "spend?by=pod", GOAL_OF_ANY),
    Question::new(
        "spend of one user",
        "spend?by=model&where=user:user-7",
        GOAL_OF_ANY,
    ),
    Question::new(
        "spend by team,model of 30 days",
        "spend?by=team,model&from=2026-10-23T00:00:00Z",
        GOAL,
    ),
    Question::new(
        "spend by team of each day",
        "spend?by=team&interval=1d",
        None,
    ),
    Question::new("spend by pod and team", "spend?by=pod,team", GOAL_OF_ANY),
    Question::new(
        "dearest calls",
        "requests?sort=cost&within=800ms",
        GOAL_OF_ANY,
    ),
    Question::new("longest calls", "requests?sort=duration", GOAL_OF_ANY),
    Question::new(
        "dearest calls of one user",
        "requests?sort=cost&where=user:user-7&within=800ms",
        GOAL_OF_ANY,
    ),
    Question::new(
        "dearest traces",
        "traces?sort=cost&within=800ms",
        GOAL_OF_ANY,
    ),
    Question::new(
        "dearest traces of a day",
        "traces?sort=cost&limit=50&from=2026-11-21T00:00:00Z",
        GOAL_OF_ANY,
    ),
    Question::new(
        "sessions by user",
        "sessions?tag=user&within=800ms",
        GOAL_OF_ANY,
    ),
    Question::new("outcomes", "outcomes?by=feature&within=800ms", GOAL_OF_ANY),
    Question::new(
        "spend by how calls ended",
        "spend?by=finish_reason&within=800ms",
        GOAL_OF_ANY,
    ),
];

/// An aggregator on the ledger.
struct Asked {
    aggregator: Aggregator,
    runtime: Runtime,
    file: PathBuf,
}

/// Makes the ledger below the build folder, asks, and takes it away again.
pub fn measure(n_rows: u64) -> anyhow::Result<()> {
    let tollmesh = artifacts::tollmesh().map_err(anyhow::Error::msg)?;
    let maker = maker()?;
    // Some gigabytes, which a temporary folder in memory would not hold.
    let dir = tempfile::tempdir_in(artifacts::root().join("target"))?;
    let state = dir.path().join(STATE_DIR);
    fs::create_dir_all(&state)?;
    let started = Instant::now();
    let status = Command::new(&maker)
        .arg(n_rows.to_string())
        .arg(&state)
        .status();
    let status = status.with_context(|| format!("cannot run {}", maker.display()))?;
    ensure!(status.success(), "making the ledger ended with {status}");
    let file = state.join("ledger.db");
    println!(
        "{n_rows} calls of 90 days, made and folded in {:.0} s: {} MB",
        started.elapsed().as_secs_f64(),
        fs::metadata(&file)?.len() / 1_000_000
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let aggregator = Aggregator::start(&tollmesh, dir.path(), false, CONFIG, runtime.handle())?;
    let mut asked = Asked {
        aggregator,
        runtime,
        file,
    };
    println!(
        "{:<32} {:>7} {:>10} {:>12}  goal",
        "question", "rows", "first, ms", "median, ms"
    );
    for question in QUESTIONS {
        asked.tell(question)?;
    }
    asked.tell_under_load()?;
    let process = asked.aggregator.process().context("the aggregator runs")?;
    println!(
        "{} MB resident at the peak",
        process.peak_resident_bytes()? >> 20
    );
    Ok(())
}

fn maker() -> anyhow::Result<PathBuf> {
    let named = std::env::var_os("TOLLMESH_LARGE_LEDGER").map(PathBuf::from);
    let built = artifacts::root().join("target/driver/examples/large_ledger");
    let path = named.unwrap_or(built);
    let build = "cargo build --profile driver -p tollmesh-aggregator --example large_ledger";
    path.is_file()
        .then_some(path)
        .with_context(|| format!("what makes large ledgers is not built: run `{build}`"))
}

// === impl Asked ===

impl Asked {
    /// Asks once with nothing in memory, then again, and prints.
    fn tell(&mut self, question: &Question) -> anyhow::Result<()> {
        self.aggregator.stop()?;
        forget(&self.file)?;
        self.aggregator.restart()?;
        let (first, n_items) = self.ask(question)?;
        let mut again = Vec::new();
        for _ in 0..N_AGAIN {
            again.push(self.ask(question)?.0.as_secs_f64() * 1e3);
        }
        let median = median(again);
        let verdict = question.goal.map(|goal| {
            let ms = goal.as_millis();
            match median <= ms as f64 {
                true => format!("{ms} ms: met"),
                false => format!("{ms} ms: missed"),
            }
        });
        println!(
            "{:<32} {n_items:>7} {:>10.1} {median:>12.1}  {}",
            question.what,
            first.as_secs_f64() * 1e3,
            verdict.unwrap_or_default()
        );
        Ok(())
    }

    /// Asks while calls come in, and prints how long their senders and those who ask wait.
    fn tell_under_load(&self) -> anyhow::Result<()> {
        let Ingest::Tcp(ingest) = *self.aggregator.ingest() else {
            bail!("the aggregator does not listen on TCP")
        };
        let load = Load {
            ingest,
            next_id: Arc::default(),
            n_label_sets: N_LABEL_SETS_MANY,
            hour: send::present_hour(),
        };
        let (per_second, per_batch) = PACED;
        let sending = self
            .runtime
            .spawn(async move { load.send_paced(per_second, per_batch, LOAD_SPAN).await });
        let (mut scrapes, mut answers) = (Vec::new(), Vec::new());
        while !sending.is_finished() {
            let started = Instant::now();
            let reply = http::get(self.aggregator.operator(), "/metrics");
            ensure!(self.runtime.block_on(reply)?.status == 200, "no metrics");
            scrapes.push(started.elapsed().as_secs_f64() * 1e3);
            for question in &QUESTIONS[..UNDER_LOAD] {
                answers.push(self.ask(question)?.0.as_secs_f64() * 1e3);
            }
        }
        let waits = self.runtime.block_on(sending)??;
        println!("while {per_second} calls a second come in, of 10,000 series, for {LOAD_SPAN:?}:");
        for (what, waits, goal) in [
            ("an answer to a sender", waits, ACK_P99_MS_MAX),
            ("a scrape", scrapes, 1e3),
            ("spend", answers, 1e3),
        ] {
            let [median, p99, max] = [0.5, 0.99, 1.0].map(|part| quantile(waits.clone(), part));
            println!(
                "{median:>12.1} ms median, {p99:.1} p99 (goal {goal}: {}), {max:.1} at most: {what}, \
                 of {}",
                verdict(p99 <= goal),
                waits.len()
            );
        }
        Ok(())
    }

    /// The time until the whole answer is there, and how many rows it has.
    fn ask(&self, question: &Question) -> anyhow::Result<(Duration, usize)> {
        let path = format!("/api/v1/{}", question.path);
        let started = Instant::now();
        let reply = http::get(self.aggregator.operator(), &path);
        let reply = self.runtime.block_on(reply)?;
        let elapsed = started.elapsed();
        ensure!(
            reply.status == 200,
            "{path}: {} {}",
            reply.status,
            reply.text()
        );
        let items = reply.json()?["items"].as_array().map_or(0, Vec::len);
        ensure!(items > 0, "{path}: no rows");
        Ok((elapsed, items))
    }
}

/// Has the kernel forget what it holds of the file, so that it is read from the disk.
fn forget(file: &Path) -> anyhow::Result<()> {
    let file = File::open(file)?;
    file.sync_all()?;
    rustix::fs::fadvise(&file, 0, None, Advice::DontNeed)?;
    Ok(())
}

// === impl Question ===

impl Question {
    const fn new(what: &'static str, path: &'static str, goal: Option<Duration>) -> Question {
        Question { what, path, goal }
    }
}
