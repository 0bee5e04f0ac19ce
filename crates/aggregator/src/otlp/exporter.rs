//! Visits to the receiver: what is new goes there in the order of the ledger, again until it is taken.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::sync::watch;
use tokio::time;
use tollmesh_wire::Outcome;

use crate::clock;
use crate::forward::Failing;
pub use crate::forward::Status;
use crate::ledger::exported::Exported;
use crate::ledger::outbox::Note;
use crate::ledger::query::RequestRow;
use crate::ledger::{Ledger, QueryError};
use crate::metrics::Metrics;
use crate::otlp::error::ExportError;
use crate::otlp::meter::Meter;
use crate::otlp::place::{Settings, Signal};
use crate::otlp::post::Connection;
use crate::otlp::records;

/// Calls in one request: half a megabyte before compression, which receivers take (a collector
/// takes 20 MiB, Datadog's intake 3.2 MB, Honeycomb's 20 MB).
const PARCEL_ROWS_MAX: usize = 256;

/// Parcels between two exports of metrics in one visit, which a long one notes its progress at.
const PARCELS_BETWEEN_NOTES: usize = 20;

/// Metrics are sent anew at this pace while no call is, so that receivers do not take them for gone.
const METRICS_EVERY: Duration = Duration::from_secs(60);

/// The longest pause after failures in a row, whatever the receiver asks for.
const PAUSE_MAX: Duration = Duration::from_secs(300);

/// What exports.
pub struct Exporter {
    ledger: Ledger,
    settings: Settings,
    metrics: Arc<Metrics>,
    status: Arc<Mutex<Status>>,
    meter: Meter,
    /// The newest row that each signal has told of, for this process: what is ahead of the noted
    /// row was taken, and is not sent again because another signal failed.
    done: BTreeMap<Signal, i64>,
    /// What the ledger was last seen to have noted; another word means another file.
    noted: Option<i64>,
    metrics_sent: Option<Instant>,
    failures: u32,
    /// What the receiver asked for at the last failure.
    retry_after: Option<Duration>,
    /// Calls in the next request: fewer while a bad one is looked for.
    parcel_rows: usize,
}

impl Exporter {
    /// One that has not begun; `tags` may be attributes of metrics.
    pub fn new(
        ledger: Ledger,
        settings: Settings,
        tags: Vec<String>,
        metrics: Arc<Metrics>,
    ) -> Exporter {
        Exporter {
            ledger,
            meter: Meter::new(clock::now().as_unix_ms(), tags),
            settings,
            metrics,
            status: Arc::default(),
            done: BTreeMap::new(),
            noted: None,
            metrics_sent: None,
            failures: 0,
            retry_after: None,
            parcel_rows: PARCEL_ROWS_MAX,
        }
    }

    /// How exporting is, for as long as it goes on.
    pub fn status(&self) -> Arc<Mutex<Status>> {
        Arc::clone(&self.status)
    }

    /// Exports until told to stop, then what is left; the caller says for how long.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut has_begun = false;
        loop {
            if !has_begun {
                has_begun = self.begin().await.is_ok();
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => break,
                () = time::sleep(self.pause()) => {}
            }
            if has_begun {
                self.visit_and_note().await;
            }
        }
        self.visit_and_note().await;
    }

    /// A ledger that was never exported begins with its next call: receivers refuse what is old,
    /// and history would be theirs all at once.
    async fn begin(&mut self) -> Result<(), ExportError> {
        let exported = self.exported().await?;
        if exported.upto.is_none() {
            let upto = exported.newest;
            self.ledger.note(Note::Exported { upto }).await?;
        }
        Ok(())
    }

    async fn visit_and_note(&mut self) {
        let visited = self.visit().await;
        self.look().await;
        self.note(visited);
    }

    /// Brings what waits, where something does.
    async fn visit(&mut self) -> Result<(), ExportError> {
        let exported = self.exported().await?;
        let upto = exported.upto.unwrap_or(0);
        if self.noted != exported.upto {
            // Another file, or the first visit: row numbers of before mean nothing here.
            self.done.clear();
            self.noted = exported.upto;
        }
        let are_metrics_due = self.settings.sends(Signal::Metrics)
            && !self.meter.is_empty()
            && self
                .metrics_sent
                .is_none_or(|sent| sent.elapsed() >= METRICS_EVERY);
        if exported.pending == 0 && !are_metrics_due {
            return Ok(());
        }
        let mut connection = Connection::open(&self.settings).await?;
        let mut from = upto;
        for n in 1.. {
            let calls = self.calls_after(from).await?;
            let Some(last) = calls.last().map(|call| call.row) else {
                break;
            };
            if self.deliver(&mut connection, &calls).await? {
                from = last;
            }
            if n % PARCELS_BETWEEN_NOTES == 0 {
                self.settle(&mut connection, from).await?;
            }
        }
        self.settle(&mut connection, from).await
    }

    /// Tells of these calls; false where fewer are to be tried instead.
    async fn deliver(
        &mut self,
        connection: &mut Connection,
        calls: &[RequestRow],
    ) -> Result<bool, ExportError> {
        for signal in [Signal::Traces, Signal::Logs] {
            if !self.settings.sends(signal) {
                continue;
            }
            match self.send(connection, signal, calls).await {
                Ok(()) => {}
                Err(error) if error.blames_content() && calls.len() > 1 => {
                    self.parcel_rows = calls.len().div_ceil(2);
                    return Ok(false);
                }
                Err(error) if error.blames_content() => self.skip(signal, calls, &error),
                Err(error) => return Err(error),
            }
            self.advance(signal, calls);
        }
        self.parcel_rows = (self.parcel_rows * 2).min(PARCEL_ROWS_MAX);
        for call in self.untold(Signal::Metrics, calls) {
            self.meter.add(call);
        }
        self.advance(Signal::Metrics, calls);
        Ok(true)
    }

    async fn send(
        &mut self,
        connection: &mut Connection,
        signal: Signal,
        calls: &[RequestRow],
    ) -> Result<(), ExportError> {
        let untold = self.untold(signal, calls);
        let n_calls = untold.len();
        if n_calls == 0 {
            return Ok(());
        }
        let cost = self.settings.cost_attribute;
        let calls = untold.into_iter();
        let rejected = if signal == Signal::Traces {
            let request = records::spans(calls, cost);
            let answer = connection.post(signal, &request).await?;
            let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
            answer
                .partial_success
                .map(|part| (part.rejected_spans, part.error_message))
        } else {
            let request = records::logs(calls, cost, clock::now().as_unix_ms());
            let answer = connection.post(signal, &request).await?;
            let answer = ExportLogsServiceResponse::decode(answer).unwrap_or_default();
            answer
                .partial_success
                .map(|part| (part.rejected_log_records, part.error_message))
        };
        self.count(signal, n_calls as u64, rejected);
        Ok(())
    }

    /// Sends metrics where they are sent, and notes that all up to that row was exported.
    async fn settle(&mut self, connection: &mut Connection, upto: i64) -> Result<(), ExportError> {
        if self.settings.sends(Signal::Metrics) && !self.meter.is_empty() {
            let request = self.meter.export(clock::now().as_unix_ms());
            match connection.post(Signal::Metrics, &request).await {
                Ok(answer) => {
                    let answer = ExportMetricsServiceResponse::decode(answer).unwrap_or_default();
                    let part = answer.partial_success;
                    if let Some(part) = part.filter(|part| part.rejected_data_points > 0) {
                        warn_of_rejected(
                            Signal::Metrics,
                            part.rejected_data_points,
                            &part.error_message,
                        );
                    }
                }
                // Nobody would take them at another time either; spans must not wait for that.
                Err(error) if error.blames_content() => {
                    self.metrics.otlp_failures_total.inc();
                    tracing::error!(%error, "the receiver does not take these metrics");
                }
                Err(error) => return Err(error),
            }
            self.metrics_sent = Some(Instant::now());
        }
        if self.noted != Some(upto) {
            self.ledger.note(Note::Exported { upto }).await?;
            self.noted = Some(upto);
        }
        Ok(())
    }

    /// The calls that this signal has not told of. One that another filter counts is told by that
    /// filter's aggregator.
    fn untold<'c>(&self, signal: Signal, calls: &'c [RequestRow]) -> Vec<&'c RequestRow> {
        let done = self.done.get(&signal).copied().unwrap_or(0);
        let is_untold =
            |call: &&RequestRow| call.row > done && call.event.outcome != Outcome::Relayed;
        calls.iter().filter(is_untold).collect()
    }

    fn advance(&mut self, signal: Signal, calls: &[RequestRow]) {
        if let Some(last) = calls.last() {
            let done = self.done.entry(signal).or_default();
            *done = last.row.max(*done);
        }
    }

    fn count(&self, signal: Signal, n_calls: u64, rejected: Option<(i64, String)>) {
        let (n_rejected, message) = rejected.unwrap_or_default();
        let skipped = n_rejected.max(0).unsigned_abs().min(n_calls);
        self.metrics
            .otlp_exported_rows_total
            .with_label_values(&[signal.name()])
            .inc_by(n_calls - skipped);
        if skipped > 0 {
            self.skipped(signal, "rejected", skipped);
            warn_of_rejected(signal, n_rejected, &message);
        }
    }

    fn skip(&self, signal: Signal, calls: &[RequestRow], error: &ExportError) {
        self.skipped(signal, "refused", 1);
        tracing::error!(
            row = ?calls.first().map(|call| call.row),
            %error,
            "the receiver can never take this call; the ledger has it"
        );
    }

    fn skipped(&self, signal: Signal, reason: &str, n_calls: u64) {
        self.metrics
            .otlp_skipped_rows_total
            .with_label_values(&[signal.name(), reason])
            .inc_by(n_calls);
    }

    /// A failure is logged when it begins and when it ends.
    fn note(&mut self, visited: Result<(), ExportError>) {
        let mut status = lock(&self.status);
        match visited {
            Ok(()) => {
                if let Some(failing) = status.failing.take() {
                    let after_seconds = failing.since.elapsed().as_secs();
                    tracing::info!(after_seconds, "exporting works again");
                }
                self.failures = 0;
                self.retry_after = None;
            }
            Err(error) => {
                self.metrics.otlp_failures_total.inc();
                self.failures = self.failures.saturating_add(1);
                self.retry_after = error.retry_after_seconds().map(Duration::from_secs);
                let error = error.to_string();
                let since = status.failing.as_ref().map(|failing| failing.since);
                if since.is_none() {
                    tracing::warn!(%error, "calls cannot be exported; they wait in the ledger");
                }
                let since = since.unwrap_or_else(Instant::now);
                status.failing = Some(Failing { since, error });
            }
        }
    }

    /// The pause before the next visit: longer with each failure in a row, and as long as the
    /// receiver asks for, within reason.
    fn pause(&self) -> Duration {
        let doubled = self.settings.interval * 2_u32.pow(self.failures.min(10));
        let asked = self.retry_after.unwrap_or_default();
        doubled
            .max(asked)
            .min(PAUSE_MAX.max(self.settings.interval))
    }

    /// Looks how much waits.
    async fn look(&self) {
        // A ledger that cannot be read is told where events are refused.
        if let Ok(exported) = self.exported().await {
            let mut status = lock(&self.status);
            status.pending = exported.pending;
            status.oldest = exported.oldest;
        }
    }

    async fn exported(&self) -> Result<Exported, ExportError> {
        let reader = self.ledger.reader().clone();
        read(move || reader.exported()).await
    }

    async fn calls_after(&self, row: i64) -> Result<Vec<RequestRow>, ExportError> {
        let reader = self.ledger.reader().clone();
        let limit = self.parcel_rows;
        read(move || reader.calls_after(row, limit)).await
    }
}

fn warn_of_rejected(signal: Signal, n_rejected: i64, message: &str) {
    tracing::warn!(
        signal = signal.name(),
        n_rejected,
        message,
        "the receiver took the rest, and not these"
    );
}

/// Reads the ledger where blocking is allowed.
async fn read<T: Send + 'static>(
    question: impl FnOnce() -> Result<T, QueryError> + Send + 'static,
) -> Result<T, ExportError> {
    match tokio::task::spawn_blocking(question).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(ExportError::Interrupted),
    }
}

fn lock(status: &Mutex<Status>) -> MutexGuard<'_, Status> {
    status.lock().unwrap_or_else(PoisonError::into_inner)
}
