//! The filter's side: what arrives over the local socket, and what is answered.

mod activity;
mod bodies;
mod decisions;
mod read;
mod recipe;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde::Serialize;
use tokio::sync::Semaphore;

use crate::budgets::Budgets;
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::prices::Prices;
use crate::problem::Problem;
pub use activity::Activity;
use bodies::{Bodies, Held};
pub use read::{BadEvent, event};
pub use recipe::priced;

/// Filters cut their batches well below; more is not one of ours.
const BATCH_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A reservation names a call; it has no business to be longer.
const RESERVATION_BYTES_MAX: usize = 64 * 1024;
/// Batches in work at once; others wait with nothing but their text.
const BATCHES_MAX: usize = 16;
/// A filter's tick is a quarter of a second and its back-off starts above; one second is enough.
const RETRY_AFTER_SECONDS: u32 = 1;

/// Everything that answering a filter takes.
pub struct Ingest {
    ledger: Ledger,
    prices: Arc<Prices>,
    metrics: Arc<Metrics>,
    activity: Arc<Activity>,
    budgets: Budgets,
    bodies: Bodies,
    room: Semaphore,
    /// Whether the last append failed, so that a failure is logged once and not for each batch.
    is_failing: AtomicBool,
}

type Answer = Result<Response<Full<Bytes>>, Problem>;

// === impl Ingest ===

impl Ingest {
    /// Answers with these parts.
    pub fn new(
        ledger: Ledger,
        prices: Arc<Prices>,
        metrics: Arc<Metrics>,
        activity: Arc<Activity>,
        budgets: Budgets,
    ) -> Ingest {
        Ingest {
            ledger,
            prices,
            metrics,
            activity,
            budgets,
            bodies: Bodies::default(),
            room: Semaphore::new(BATCHES_MAX),
            is_failing: AtomicBool::new(false),
        }
    }

    /// Answers one request.
    pub async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let answer = match (request.method(), request.uri().path()) {
            _ if is_of_a_browser(&request) => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "filters speak here, and no browser: a web page could forge events through it",
            )),
            (&Method::POST, "/v1/events") => self.events(request).await,
            (&Method::POST, "/v1/reservations") => self.reservations(request).await,
            (&Method::GET, "/v1/decisions") => self.decisions(request.uri().query()).await,
            (_, "/v1/events" | "/v1/reservations" | "/v1/decisions") => Err(Problem::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "POST events and reservations, GET decisions",
            )),
            _ => Err(Problem::new(
                StatusCode::NOT_FOUND,
                "expected /v1/events, /v1/decisions or /v1/reservations",
            )),
        };
        answer.unwrap_or_else(|problem| problem.response())
    }

    async fn events(&self, request: Request<Incoming>) -> Answer {
        let _working = self.activity.begin();
        // Whoever sends slowly keeps nobody else waiting: a place in work is for whole batches.
        let body = self.body(request.into_body(), BATCH_BYTES_MAX).await?;
        let _room = match self.room.try_acquire() {
            Ok(room) => room,
            Err(_) => {
                self.metrics.batches_delayed_total.inc();
                let room = self.room.acquire().await;
                room.map_err(|_| busy("the aggregator is stopping"))?
            }
        };
        let reply = self.take(body).await?;
        json(StatusCode::OK, &reply)
    }

    async fn reservations(&self, request: Request<Incoming>) -> Answer {
        let _working = self.activity.begin();
        let body = self
            .body(request.into_body(), RESERVATION_BYTES_MAX)
            .await?;
        let timer = self.metrics.budget_reservation_seconds.start_timer();
        let reservation = decisions::reservation(&body.bytes)?;
        let answer = json(StatusCode::OK, &self.budgets.reserve(&reservation).await);
        timer.observe_duration();
        answer
    }

    async fn body(&self, body: Incoming, bytes_max: usize) -> Result<Held, Problem> {
        let held = self.bodies.collect(body, bytes_max).await;
        let late = StatusCode::REQUEST_TIMEOUT.as_u16();
        if held.as_ref().is_err_and(|problem| problem.status == late) {
            self.metrics.bodies_late_total.inc();
        }
        held
    }

    async fn decisions(&self, query: Option<&str>) -> Answer {
        let poll = decisions::Poll::parse(query.unwrap_or_default())?;
        let table = tokio::select! {
            table = self.budgets.wait(poll.after, poll.wait) => table,
            () = self.activity.stopping() => self.budgets.table(),
        };
        json(StatusCode::OK, &*table)
    }
}

/// Whether a browser sent it on some page's behalf: it says so in headers that no page can take off
/// (<https://www.w3.org/TR/fetch-metadata/>, <https://fetch.spec.whatwg.org/#origin-header>).
fn is_of_a_browser(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site")
}

fn busy(detail: &str) -> Problem {
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(RETRY_AFTER_SECONDS)
}

fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    let body = serde_json::to_vec(value).map_err(|error| {
        tracing::error!(%error, "an answer cannot be written as JSON");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the answer is broken")
    })?;
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}
