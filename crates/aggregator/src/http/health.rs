//! For probes and scrapers: whether the process lives, is ready, and what it counts.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::Operator;
use crate::clock;
use crate::forward::Status;
use crate::net::Crowded;
use crate::problem::Problem;

/// When a client that found no place may come again.
const RETRY_AFTER_SECONDS: u32 = 5;

/// The process answers, whatever else is wrong: a restart would not help a full disk.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// Answers only probes where all places for connections are taken: a restart would lose what others
/// are waiting for, and free no place for long.
pub async fn probes_first(request: Request, next: Next) -> Response {
    let is_probe = ["/healthz", "/readyz"].contains(&request.uri().path());
    if request.extensions().get::<Crowded>().is_none() || is_probe {
        return next.run(request).await;
    }
    let detail = "too many connections; ask again when some have ended";
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
    problem.retry_after(RETRY_AFTER_SECONDS).into_response()
}

/// 200 where events are taken, with details on what is less than well; else 503.
pub async fn readyz(State(operator): State<Arc<Operator>>) -> Response {
    let health = operator.ledger.health();
    let status = match health.failing {
        None => StatusCode::OK,
        Some(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    let failing = health.failing.as_ref().map(|failing| {
        json!({
            "error": failing.error.to_string(),
            "since_seconds": failing.since.elapsed().as_secs(),
        })
    });
    let broken = operator.prices.broken().map(|error| error.to_string());
    let tables = operator.prices.tables();
    let mut detail: Value = json!({
        "ready": failing.is_none(),
        "ledger": {
            "failing": failing,
            "queued_events": health.queued_events,
            "rows": health.rows,
            "set_aside": health.set_aside,
            "moved": health.moved,
        },
        "prices": {
            "pricing_version": &*tables.version,
            "checked": tables.book.checked(),
            "refused": broken,
        },
        "budgets": {
            "refused": operator.budgets.broken(),
            "store_failing": operator.budgets.store_failing(),
        },
    });
    // A store that is away delays what it is told, and harms nobody: it is a detail.
    if let Some(forwarding) = now(&operator.forwarding) {
        detail["forwarding"] = told(forwarding);
    }
    if let Some(exporting) = now(&operator.exporting) {
        detail["exporting"] = told(exporting);
    }
    (status, Json(detail)).into_response()
}

fn told(status: Status) -> Value {
    json!({
        "pending_rows": status.pending,
        "lag_seconds": status.lag_seconds(clock::now()),
        "failing": status.failing.map(|failing| json!({
            "error": failing.error,
            "since_seconds": failing.since.elapsed().as_secs(),
        })),
    })
}

/// How forwarding or exporting is, where it is set up.
fn now(status: &Option<Arc<Mutex<Status>>>) -> Option<Status> {
    let status = status.as_ref()?;
    Some(
        status
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone(),
    )
}

/// The text exposition.
pub async fn metrics(State(operator): State<Arc<Operator>>) -> Result<Response, Problem> {
    let exposed = Arc::clone(&operator);
    let text = operator.scrape.text(move || exposed.exposed()).await?;
    Ok(([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response())
}

impl Operator {
    fn exposed(&self) -> Result<String, Problem> {
        self.observe();
        let budgets = |out: &mut String| self.budgets.push_metrics(out, &self.tags);
        let text = self.exposition.text(&self.ledger, budgets);
        text.map_err(|error| {
            tracing::error!(%error, "metrics cannot be written");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics are broken")
        })
    }

    /// Brings gauges up to this instant; between scrapes nobody looks at them.
    fn observe(&self) {
        let health = self.ledger.health();
        let metrics = &self.metrics;
        metrics.ledger_rows.set(saturate(health.rows));
        metrics.ledger_set_aside.set(saturate(health.set_aside));
        metrics.ledger_moved.set(saturate(health.moved));
        metrics
            .ledger_writable
            .set(i64::from(health.failing.is_none()));
        if let Some(forwarding) = now(&self.forwarding) {
            let lag = forwarding.lag_seconds(clock::now());
            metrics.forward_lag_seconds.set(saturate(lag));
            metrics
                .forward_pending_rows
                .set(saturate(forwarding.pending));
        }
        if let Some(exporting) = now(&self.exporting) {
            let lag = exporting.lag_seconds(clock::now());
            metrics.otlp_lag_seconds.set(saturate(lag));
            metrics.otlp_pending_rows.set(saturate(exporting.pending));
        }
        self.budgets.observe();
        let is_current = self.budgets.broken().is_none();
        metrics.budget_reload_successful.set(i64::from(is_current));
        let is_current = self.prices.broken().is_none();
        metrics.price_reload_successful.set(i64::from(is_current));
        if let Some(age) = self.prices.age(clock::now()) {
            metrics.price_table_age_seconds.set(saturate(age.as_secs()));
        }
    }
}

fn saturate(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
