//! The life of the process: bound, ready, drained, closed.

mod forwarding;

use std::convert::Infallible;
use std::io::IsTerminal;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use hyper::service::service_fn;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit};
use tokio::runtime::{Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::alerts;
use crate::budgets::store::{MemoryStore, RedisStore, Store};
use crate::budgets::{Bookkeeper, Budgets};
use crate::charge;
use crate::config::{Config, Listen};
use crate::housekeeping::{Keeper, Retention};
use crate::http::{Guard, Operator, Scrape, Turns};
use crate::ingest::{Activity, Ingest};
use crate::last_good::LastGood;
use crate::ledger::reprice::Pricer;
use crate::ledger::{Ledger, LedgerOptions};
use crate::metrics::{self, Exposition, Metrics};
use crate::net::Bound;
use crate::prices::Prices;
use forwarding::Forwarding;

/// After SIGTERM filters that drain send on; this long without a word means that none does.
const IDLE: Duration = Duration::from_secs(2);
/// What forwarding and exporting get after SIGTERM, even if filters sent to the last.
const FORWARD_TIME_MIN: Duration = Duration::from_secs(1);
/// What telling alerts gets after SIGTERM; what is left is told in the next life.
const TELL_TIME_MAX: Duration = Duration::from_secs(1);
/// What threads that read files get at the end.
const THREADS_TIME_MAX: Duration = Duration::from_secs(1);
/// How often the wait for silence looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Threads of operators that may block: questions have turns, and metrics, outcomes and repricing
/// take one each.
const OPERATORS_BLOCKING_MAX: usize = 16;
/// A token is a line; more is a wrong file.
const TOKEN_BYTES_MAX: usize = 4096;

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The parts that live as long as the process.
struct Running {
    ledger: Ledger,
    budgets: Budgets,
    activity: Arc<Activity>,
    stop: watch::Sender<bool>,
    servers: Vec<JoinHandle<()>>,
    forwarding: Option<Forwarding>,
    exporting: Option<Forwarding>,
    telling: Option<alerts::Round>,
}

/// Serves until SIGTERM or SIGINT. An error means that it never was ready.
pub fn run(config: Config, format: LogFormat) -> anyhow::Result<()> {
    log_to_stderr(format);
    raise_file_limit();
    let filters = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let operators = operators().context("cannot start the runtime of operators")?;
    let ended = filters.block_on(serve(config, operators.handle()));
    // A question in work has nobody any more who waits for its answer.
    operators.shutdown_background();
    // A thread that waits for a file system that hangs must not hold up the end.
    filters.shutdown_timeout(THREADS_TIME_MAX);
    ended
}

/// Threads of their own for people and Prometheus: whatever they ask for, no call waits for it.
fn operators() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .thread_name("operators")
        .worker_threads(1)
        .max_blocking_threads(OPERATORS_BLOCKING_MAX)
        .enable_all()
        .build()
}

/// Every connection is a file, and so is what the ledger opens; the soft limit is often low.
fn raise_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, current = limit.current, "cannot raise the limit of open files");
    }
}

async fn serve(config: Config, operators: &Handle) -> anyhow::Result<()> {
    let drain = config.drain;
    // Before anything that a stop would have to undo: a signal that comes at once must wait too.
    let stop_signals = StopSignals::new()?;
    let running = start(config, operators).await?;
    stop_signals.wait().await;
    tracing::info!("stopping: taking events until filters are silent");
    running.stop(drain).await;
    tracing::info!("stopped");
    Ok(())
}

async fn start(config: Config, operators: &Handle) -> anyhow::Result<Running> {
    let token = config.operator.token_file.as_deref().map(read_token);
    let token = token.transpose()?;
    let kept = LastGood::of(&config.state_dir, "prices");
    let prices = Arc::new(Prices::start(
        &config.pricing,
        config.overrides.as_deref(),
        kept,
    ));
    // Bound before the ledger is opened: a second process fails here and touches nothing.
    let ingest_bound = bind("ingest.listen", &config.ingest).await?;
    // A socket is served by the threads on which it was bound.
    let listen = config.operator.listen.clone();
    let operator_bound = operators.spawn(async move { bind("operator.listen", &listen).await });
    let operator_bound = operator_bound.await??;
    let metrics = Arc::new(Metrics::new().context("cannot declare metrics")?);
    let kept = LastGood::of(&config.state_dir, "budgets");
    let (budgets, policies) = Budgets::start(
        config.budgets.clone(),
        Arc::clone(&prices),
        Arc::clone(&metrics),
        kept,
    );
    let charger = budgets.are_configured().then(|| budgets.bookkeeper());
    let pricer = charge::pricer(Arc::clone(&prices));
    let (ledger, exposition) = open_ledger_for(&config, &metrics, Some(pricer), charger).await?;
    // Not before: the ledger makes the folder.
    let kept = Arc::clone(&prices);
    tokio::task::spawn_blocking(move || kept.keep()).await?;
    let mut telling = None;
    if budgets.are_configured() {
        budgets
            .begin(&ledger, policies, |node| store(&config, node))
            .await
            .context("cannot put budgets in force")?;
        telling = start_telling(&config, &budgets, &metrics)?;
        budgets.notifies(config.alerts.clone());
        tokio::spawn(budgets.clone().keep_overrides());
        tokio::spawn(budgets.clone().keep());
        tokio::spawn(budgets.clone().watch());
    }
    let ingest_bound = ingest_bound.counting(metrics.accept_failures_total.clone());
    let operator_bound = operator_bound.counting(metrics.accept_failures_total.clone());
    let activity = Arc::new(Activity::new(Instant::now()));
    let ingest = Ingest::new(
        ledger.clone(),
        Arc::clone(&prices),
        Arc::clone(&metrics),
        Arc::clone(&activity),
        budgets.clone(),
    );
    let forwarding = config
        .postgres
        .as_ref()
        .map(|settings| Forwarding::start(ledger.clone(), settings.clone(), Arc::clone(&metrics)));
    let tags = &config.metrics.labels;
    let exporting = config.otlp.as_ref().map(|settings| {
        Forwarding::export(ledger.clone(), settings, tags.clone(), Arc::clone(&metrics))
    });
    let operator = Operator {
        ledger: ledger.clone(),
        forwarding: forwarding.as_ref().map(|f| Arc::clone(&f.status)),
        exporting: exporting.as_ref().map(|e| Arc::clone(&e.status)),
        prices: Arc::clone(&prices),
        budgets: budgets.clone(),
        metrics,
        exposition,
        tags: config.metrics.labels.clone(),
        guard: Guard::new(
            config.operator.listen.is_local(),
            token,
            config.operator.hosts.clone(),
        ),
        scrape: Scrape::default(),
        turns: Turns::default(),
        repricing: Arc::default(),
    };
    tell_ready(&ingest_bound, &operator_bound, &operator);
    tokio::spawn(prices.watch());
    let retention = Retention {
        days: config.retention_days,
        bytes_max: config.retention_bytes_max,
    };
    let metrics = Arc::clone(&operator.metrics);
    let signals = config.otlp.as_ref().map(|otlp| otlp.signals.clone());
    let (labels, by_budgets) = (config.metrics.labels.clone(), budgets.clone());
    let keeper = Keeper::new(ledger.clone(), retention, metrics)
        .exported(signals.unwrap_or_default())
        .named(Box::new(move || {
            let mut named = labels.clone();
            named.extend(by_budgets.tags());
            named
        }));
    tokio::spawn(keeper.keep());
    let stop = watch::Sender::new(false);
    let servers = vec![
        tokio::spawn(serve_ingest(ingest_bound, ingest, stop.subscribe())),
        operators.spawn(serve_operator(operator_bound, operator, stop.subscribe())),
    ];
    Ok(Running {
        ledger,
        budgets,
        activity,
        stop,
        servers,
        forwarding,
        exporting,
        telling,
    })
}

/// Where nodes agree on what each may spend: in memory, where this is the only one.
fn store(config: &Config, node: String) -> Arc<dyn Store> {
    match &config.redis {
        Some(place) => {
            tracing::info!(at = %place, "budgets are shared");
            Arc::new(RedisStore::new(place.clone(), node))
        }
        None => Arc::new(MemoryStore::new(node)),
    }
}

/// Tells people of budgets, where the configuration says whom.
fn start_telling(
    config: &Config,
    budgets: &Budgets,
    metrics: &Arc<Metrics>,
) -> anyhow::Result<Option<alerts::Round>> {
    let receivers = config.alerts.clone();
    let Some(store) = budgets.store().filter(|_| !receivers.by_name.is_empty()) else {
        return Ok(None);
    };
    let (alerts, round) = alerts::start(&config.state_dir, receivers, store, metrics)
        .context("alerts cannot be told")?;
    budgets.alert(alerts);
    Ok(Some(round))
}

async fn bind(key: &'static str, listen: &Listen) -> anyhow::Result<Bound> {
    Bound::bind(listen).await.context(key)
}

/// The ledger with its meter, which goes on where the ledger's totals stand; who appends to it has a
/// pricer.
pub async fn open_ledger(
    config: &Config,
    metrics: &Arc<Metrics>,
    pricer: Option<Pricer>,
) -> anyhow::Result<(Ledger, Exposition)> {
    open_ledger_for(config, metrics, pricer, None).await
}

async fn open_ledger_for(
    config: &Config,
    metrics: &Arc<Metrics>,
    pricer: Option<Pricer>,
    charger: Option<Bookkeeper>,
) -> anyhow::Result<(Ledger, Exposition)> {
    let (meter, slots) = metrics::meter(&config.metrics, metrics);
    let mut options = LedgerOptions::new(config.state_dir.clone())
        .meter(meter)
        .forwards(config.postgres.is_some());
    if let Some(charger) = charger {
        options = options.charger(charger);
    }
    if let Some(pricer) = pricer {
        options = options.pricer(pricer);
    }
    let ledger = tokio::task::spawn_blocking(move || Ledger::open(options)).await??;
    let exposition = ledger.totals(|totals| slots.restore(totals, Arc::clone(metrics)));
    Ok((ledger, exposition))
}

fn tell_ready(ingest: &Bound, operator_bound: &Bound, operator: &Operator) {
    let version = env!("CARGO_PKG_VERSION");
    operator
        .metrics
        .build_info
        .with_label_values(&[version])
        .set(1);
    if operator.guard.is_closed() {
        tracing::warn!(
            listen = %operator_bound,
            "operator.token_file is not set: dashboard and API are not served off loopback"
        );
    }
    tracing::info!(
        version,
        %ingest,
        operator = %operator_bound,
        ledger = %operator.ledger.path().display(),
        pricing_version = &*operator.prices.tables().version,
        "ready"
    );
}

async fn serve_ingest(bound: Bound, ingest: Ingest, stop: watch::Receiver<bool>) {
    let ingest = Arc::new(ingest);
    let service = service_fn(move |request| {
        let ingest = Arc::clone(&ingest);
        async move { Ok::<_, Infallible>(ingest.answer(request).await) }
    });
    bound.serve(service, stopped(stop)).await;
}

async fn serve_operator(bound: Bound, operator: Operator, stop: watch::Receiver<bool>) {
    let service = TowerToHyperService::new(crate::http::router(operator));
    bound.with_probes().serve(service, stopped(stop)).await;
}

async fn stopped(mut stop: watch::Receiver<bool>) {
    // A sender that is gone means a stop, too.
    let _ = stop.wait_for(|stop| *stop).await;
}

impl Running {
    /// Takes events until none has come for [`IDLE`], at most for `drain`; forwards what is left in
    /// what remains of that time, and [`FORWARD_TIME_MIN`] at least; then closes.
    async fn stop(self, drain: Duration) {
        let begun = Instant::now();
        self.activity.stop();
        loop {
            let now = Instant::now();
            let idle = self.activity.idle_for(now).min(now - begun);
            if idle >= IDLE || now - begun >= drain {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.stop.send_replace(true);
        for server in self.servers {
            // A panic in it was logged by the runtime; the ledger is closed all the same.
            let _ = server.await;
        }
        let remaining = drain.saturating_sub(begun.elapsed());
        let patience = remaining.max(FORWARD_TIME_MIN);
        let forwarded = async {
            if let Some(forwarding) = self.forwarding {
                forwarding.finish(patience, "forwarded").await;
            }
        };
        let exported = async {
            if let Some(exporting) = self.exporting {
                exporting.finish(patience, "exported").await;
            }
        };
        tokio::join!(forwarded, exported);
        if let Some(telling) = self.telling {
            telling.finish(TELL_TIME_MAX).await;
        }
        self.budgets.finish().await;
        self.ledger.close().await;
    }
}

/// SIGTERM and SIGINT, which end nothing by themselves from here on.
struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    fn new() -> anyhow::Result<StopSignals> {
        Ok(StopSignals {
            terminate: signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?,
        })
    }

    async fn wait(mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The token in that file: one line of printable ASCII.
pub fn read_token(file: &Path) -> anyhow::Result<String> {
    let place = || format!("operator.token_file: {}", file.display());
    let text = std::fs::read_to_string(file)
        .context(
            "cannot be read; put the token there (`openssl rand -hex 32`), or correct the path",
        )
        .with_context(place)?;
    let token = text.trim();
    let is_printable = token.bytes().all(|b| b.is_ascii_graphic());
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX || !is_printable {
        let what = "expected one line of printable ASCII without spaces";
        return Err(anyhow::anyhow!(what)).with_context(place);
    }
    Ok(token.to_owned())
}

/// Standard output is for answers; the log goes beside it.
fn log_to_stderr(format: LogFormat) {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .with_target(false);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    /// The status of that page's answer. What does not come at all fails the test.
    fn status(socket: &Path, request_line: &str) -> String {
        let mut stream = UnixStream::connect(socket).unwrap();
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).unwrap();
        let head =
            format!("{request_line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .expect("an answer in time");
        answer.split(' ').nth(1).unwrap_or_default().to_owned()
    }

    /// With all threads of one side held up, the other side answers.
    #[test]
    fn neither_side_waits_for_the_threads_of_the_other() {
        let dir = tempfile::tempdir().unwrap();
        let socket = |name: &str| dir.path().join(name);
        let text = format!(
            "state_dir = {:?}\n[ingest]\nlisten = \"unix:{}\"\n[operator]\nlisten = \"unix:{}\"\n",
            socket("state"),
            socket("ingest").display(),
            socket("operator").display()
        );
        let config = Config::parse("tollmesh.toml", &text, None).unwrap();
        let filters = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let operators = operators().unwrap();
        let running = filters.block_on(start(config, operators.handle())).unwrap();
        for (held_up, socket, request) in [
            (operators.handle(), socket("ingest"), "GET /v1/decisions"),
            (filters.handle(), socket("operator"), "GET /healthz"),
            (filters.handle(), socket("operator"), "GET /metrics"),
            (
                filters.handle(),
                socket("operator"),
                "GET /api/v1/spend?by=team",
            ),
        ] {
            let (begin, begun) = std::sync::mpsc::channel();
            let (end, ended) = std::sync::mpsc::channel::<()>();
            let holding = held_up.spawn(async move {
                begin.send(()).unwrap();
                let _ = ended.recv();
            });
            begun.recv().unwrap();
            assert_eq!(status(&socket, request), "200", "{request}");
            end.send(()).unwrap();
            filters.block_on(holding).unwrap();
        }
        filters.block_on(running.stop(Duration::ZERO));
        operators.shutdown_background();
    }
}
