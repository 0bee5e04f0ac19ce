//! The soak: good and hostile traffic through one mesh for long, and whether anything gave way.
//!
//! Three facts are checked, and the exit code is 1 where one does not hold: no worker's VM has
//! trapped; every call has one event, and the good ones their exact tokens; and Envoy holds no
//! more memory at the end than it did once a fifth of the calls were through. Asked to stop, it lets
//! the calls at hand end and judges what was sent until then.

mod mixture;
mod watch;

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tollmesh_tests::artifacts::Artifacts;
use tollmesh_tests::{Client, Mesh};

use mixture::{Kind, Mixture};
use watch::Watch;

/// Apps that call at a time.
const N_APPS: u64 = 16;
/// Requests between two lines of the table, at most.
const LINE_REQUESTS_MAX: u64 = 20_000;
/// Lines of the table, at least: what a fifth and the end can be compared by.
const LINES_MIN: u64 = 10;

/// What a program that was interrupted ends with, as shells have it.
const INTERRUPTED: u8 = 130;

/// Sends mixed good and hostile calls through a real Envoy, and checks that nothing traps, is
/// lost, or grows.
#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Options {
    /// How many requests to send
    #[arg(long, value_name = "N", default_value_t = 200_000)]
    requests: u64,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(Verdict::Held) => ExitCode::SUCCESS,
        Ok(Verdict::Broken) => ExitCode::from(1),
        Ok(Verdict::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(error) => {
            eprintln!("soak: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// How a soak ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// Every check held.
    Held,
    /// One did not.
    Broken,
    /// Somebody stopped it; what was sent until then held.
    Interrupted,
}

fn run(options: &Options) -> anyhow::Result<Verdict> {
    ensure!(
        options.requests >= LINES_MIN,
        "--requests: at least {LINES_MIN}"
    );
    let artifacts = Artifacts::find().map_err(anyhow::Error::msg)?;
    let mesh = Mesh::built().without_access_log().start_with(&artifacts)?;
    let stopping = stop_signal(&mesh)?;
    let mixture = Arc::new(Mixture::new());
    let mut watch = Watch::start(&mesh);
    let per_line = (options.requests / LINES_MIN).min(LINE_REQUESTS_MAX);
    let mut n_sent = 0;
    while n_sent < options.requests && !stopping.load(Ordering::Relaxed) {
        let until = options.requests.min(n_sent + per_line);
        let since = Instant::now();
        let n = send(&mesh, &mixture, n_sent..until, &stopping)?;
        n_sent += n;
        watch.look(n_sent, n as f64 / since.elapsed().as_secs_f64())?;
    }
    let holds = watch.verdict(&mixture, n_sent)?;
    Ok(match (holds, n_sent < options.requests) {
        (false, _) => Verdict::Broken,
        (true, true) => Verdict::Interrupted,
        (true, false) => Verdict::Held,
    })
}

/// Turns true when somebody asks this process to stop.
fn stop_signal(mesh: &Mesh) -> anyhow::Result<Arc<AtomicBool>> {
    let stopping = Arc::new(AtomicBool::new(false));
    let _inside = mesh.runtime().enter();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        let mut asked = signal(kind)?;
        let stopping = Arc::clone(&stopping);
        mesh.runtime().spawn(async move {
            while asked.recv().await.is_some() {
                stopping.store(true, Ordering::Relaxed);
            }
        });
    }
    Ok(stopping)
}

/// Sends the calls of these numbers, [`N_APPS`] at a time; how many, where it was asked to stop.
fn send(
    mesh: &Mesh,
    mixture: &Arc<Mixture>,
    calls: std::ops::Range<u64>,
    stopping: &Arc<AtomicBool>,
) -> anyhow::Result<u64> {
    let next = Arc::new(AtomicU64::new(calls.start));
    let apps = Arc::new(Apps::of(mesh));
    let mut running = JoinSet::new();
    for _ in 0..N_APPS {
        let (next, mixture, apps) = (Arc::clone(&next), Arc::clone(mixture), Arc::clone(&apps));
        let (end, stopping) = (calls.end, Arc::clone(stopping));
        let app = async move {
            // Asked before a number is taken, so that every number that was taken is sent.
            while !stopping.load(Ordering::Relaxed) {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= end {
                    break;
                }
                apps.call(mixture.call(n)).await?;
            }
            anyhow::Ok(())
        };
        running.spawn_on(app, mesh.runtime().handle());
    }
    mesh.runtime().block_on(async {
        while let Some(app) = running.join_next().await {
            app.context("an app panicked")??;
        }
        anyhow::Ok(())
    })?;
    Ok(next.load(Ordering::Relaxed).min(calls.end) - calls.start)
}

/// The apps that send each kind of call.
struct Apps {
    good: Client,
    hostile: Client,
    leaving: Client,
}

impl Apps {
    fn of(mesh: &Mesh) -> Apps {
        Apps {
            good: mesh.client(Kind::Good.team()),
            // Over HTTP/2 a cut answer ends at once; over HTTP/1 Envoy keeps the connection for its
            // `delayed_close_timeout` of a second, and the soak would wait more than it sends.
            hostile: mesh
                .client(Kind::Hostile.team())
                .http2()
                .header("traceparent", b"\xff")
                .header("baggage", b"%ff=,;;=\xff"),
            leaving: mesh.client(Kind::Leaving.team()).hangs_up_after(1),
        }
    }

    /// Makes one call; what was kept of it is given free, so that only Envoy's memory could grow.
    async fn call(&self, call: &mixture::Call) -> anyhow::Result<()> {
        let app = match call.kind {
            Kind::Good => &self.good,
            Kind::Hostile => &self.hostile,
            Kind::Leaving => &self.leaving,
        };
        let answer = app.send(&call.exchange).await?;
        app.forget(&answer);
        if call.kind == Kind::Good {
            ensure!(
                answer.status == Some(200) && answer.sha256 == call.sha256,
                "{} got {:?} and other bytes than were sent: {}",
                call.exchange.ask.path,
                answer.status,
                String::from_utf8_lossy(&answer.body)
            );
        }
        Ok(())
    }
}
