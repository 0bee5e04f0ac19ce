//! What a reservation adds to a call, as its client sees it: paced calls, every other one reserved.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tollmesh_tests::Mesh;
use tollmesh_tests::artifacts::Artifacts;

use crate::load::{LOADS, exchange};
use crate::{median, quantile, upstream};

/// Calls a second.
const RATE: u32 = 2_000;
/// Connections that share them; half of the connections are a team's that has a strict budget.
const CONNECTIONS: u32 = 40;
/// The load whose calls are sent: the smallest.
const LOAD: usize = 0;
/// What a reservation may add, median, µs.
const ADDED_US_MAX: f64 = 1_000.0;

const BUDGET: &str = "[[budget]]\nname = \"bench\"\nmatch = { team = \"red\" }\n\
    limit = \"1000000 USD\"\nwindow = \"month\"\nenforce = \"strict\"\non_unavailable = \"closed\"\n\
    tiers = [ { at = \"100%\", do = \"deny\" } ]\n";

/// Measures and prints.
pub fn measure(artifacts: &Artifacts, n_rounds: u32, span: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let provider = runtime.block_on(upstream::start())?;
    let mesh = Mesh::built()
        .budgets(BUDGET)
        .provider_at(provider)
        .workers(1)
        .without_access_log()
        .start_with(artifacts)?;
    let envoy = mesh.envoy().listener();
    // The first grant, and pages that nobody has touched yet.
    runtime.block_on(round(envoy, span))?;
    let asked = mesh.counted("reservations_asked");
    let (mut reserved, mut free) = (Vec::new(), Vec::new());
    for _ in 0..n_rounds {
        let (of_red, of_blue) = runtime.block_on(round(envoy, span))?;
        reserved.push(of_red);
        free.push(of_blue);
    }
    let n_asked = mesh.counted("reservations_asked") - asked;
    let n_unverified = mesh.counted("unverified_calls");
    ensure!(n_asked > 0, "no reservation was asked for");
    println!(
        "\nadmission: {RATE} calls a second over {CONNECTIONS} connections, every other one reserved; \
         µs to the first byte of the body, median of {n_rounds} rounds of {} s",
        span.as_secs()
    );
    tell("not reserved", &free);
    tell("reserved", &reserved);
    let added = |part| middle(&reserved, part) - middle(&free, part);
    let (added_p50, added_p99) = (added(0.5), added(0.99));
    let word = if added_p50 <= ADDED_US_MAX {
        "met"
    } else {
        "NOT met"
    };
    println!(
        "{:<14} {added_p50:>8.0} {added_p99:>8.0}   median, at most {ADDED_US_MAX:.0}: {word}",
        "added"
    );
    println!("{n_asked} reservations asked for, {n_unverified} not answered in time");
    Ok(())
}

fn tell(what: &str, rounds: &[Vec<f64>]) {
    let (p50, p99) = (middle(rounds, 0.5), middle(rounds, 0.99));
    println!("{what:<14} {p50:>8.0} {p99:>8.0}   (median, 99th percentile)");
}

fn middle(rounds: &[Vec<f64>], part: f64) -> f64 {
    median(
        rounds
            .iter()
            .map(|times| quantile(times.clone(), part))
            .collect(),
    )
}

/// Times of the calls that are reserved, and of those that are not.
async fn round(envoy: SocketAddr, span: Duration) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
    let pause = Duration::from_secs(1) * CONNECTIONS / RATE;
    let mut connections = JoinSet::new();
    for n in 0..CONNECTIONS {
        let is_reserved = n % 2 == 0;
        let begins = pause * n / CONNECTIONS;
        connections.spawn(async move {
            let times = send(envoy, is_reserved, begins, pause, span).await;
            times.map(|times| (is_reserved, times))
        });
    }
    let (mut reserved, mut free) = (Vec::new(), Vec::new());
    while let Some(ended) = connections.join_next().await {
        let (is_reserved, times) = ended.context("a client panicked")??;
        match is_reserved {
            true => reserved.extend(times),
            false => free.extend(times),
        }
    }
    Ok((reserved, free))
}

/// Sends on a beat that a late answer does not shift; what waited for its turn has waited.
async fn send(
    envoy: SocketAddr,
    is_reserved: bool,
    begins: Duration,
    pause: Duration,
    span: Duration,
) -> anyhow::Result<Vec<f64>> {
    let team = if is_reserved { "red" } else { "blue" };
    let request = String::from_utf8(LOADS[LOAD].request(LOAD))?;
    let request = request.replace("x-llm-tag-team: red", &format!("x-llm-tag-team: {team}"));
    let mut stream = TcpStream::connect(envoy).await.context("Envoy is gone")?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(16 * 1024);
    let mut times = Vec::new();
    let mut due = Instant::now() + begins;
    let end = due + span;
    while due < end {
        tokio::time::sleep_until(due.into()).await;
        let first_byte = exchange(&mut stream, request.as_bytes(), &mut buffer).await?;
        times.push((first_byte - due).as_secs_f64() * 1e6);
        due += pause;
    }
    Ok(times)
}
