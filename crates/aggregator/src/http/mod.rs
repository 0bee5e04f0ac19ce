//! The side of people and Prometheus: metrics, health, and the API of questions.

mod answer;
mod api;
mod dashboard;
mod guard;
mod health;
mod limits;
mod outcomes;
mod reprice;
mod scrape;
mod turns;

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::extract::rejection::BytesRejection;
use axum::http::header;
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper::StatusCode;

use crate::budgets::Budgets;
use crate::forward::Status;
use crate::ledger::Ledger;
use crate::metrics::{Exposition, Metrics};
use crate::prices::Prices;
use crate::problem::Problem;
pub use guard::Guard;
pub use scrape::Scrape;
pub use turns::Turns;

/// What people write is short: a thousand outcomes are some 100 KB.
const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Everything that answering people takes.
pub struct Operator {
    /// The ledger.
    pub ledger: Ledger,
    /// How forwarding is, where it is set up.
    pub forwarding: Option<Arc<Mutex<Status>>>,
    /// How exporting is, where it is set up.
    pub exporting: Option<Arc<Mutex<Status>>>,
    /// The price tables.
    pub prices: Arc<Prices>,
    /// The budgets in force.
    pub budgets: Budgets,
    /// The process's metrics.
    pub metrics: Arc<Metrics>,
    /// All metrics as text.
    pub exposition: Exposition,
    /// The tags that calls should carry.
    pub tags: Vec<String>,
    /// Who may ask.
    pub guard: Guard,
    /// The text of `/metrics` that readers share.
    pub scrape: Scrape,
    /// Whose turn it is to have a question answered.
    pub turns: Turns,
    /// Whose turn it is to price calls anew.
    pub repricing: reprice::Turn,
}

/// What answers operators. `/metrics` and health are open: scrapers and probes carry no token.
pub fn router(operator: Operator) -> Router {
    let operator = Arc::new(operator);
    let reads = Router::new()
        .route("/api/v1", get(contents))
        .route("/api/v1/spend", get(api::spend))
        .route("/api/v1/requests", get(api::requests))
        .route("/api/v1/traces", get(api::traces))
        .route("/api/v1/sessions", get(api::sessions))
        .route("/api/v1/coverage", get(api::coverage))
        .route("/api/v1/budgets", get(api::budgets))
        .route("/api/v1/budgets/overrides", get(limits::overrides))
        .route("/api/v1/explain", get(limits::explain))
        .route("/api/v1/prices", get(api::prices))
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&operator),
            guard::check_reads,
        ));
    let data = Router::new()
        .route(
            "/api/v1/outcomes",
            get(outcomes::outcomes).post(outcomes::tell),
        )
        .route(
            "/api/v1/budgets/{name}/overrides",
            post(limits::override_limit).delete(limits::end_overrides),
        )
        .route("/api/v1/budgets/recount", post(limits::recount))
        .route("/api/v1/reprice", post(reprice::reprice))
        .fallback(not_found)
        .method_not_allowed_fallback(not_allowed)
        .layer(middleware::from_fn_with_state(
            Arc::clone(&operator),
            guard::check,
        ));
    let files = dashboard::router().layer(middleware::from_fn_with_state(
        Arc::clone(&operator),
        guard::check_files,
    ));
    Router::new()
        .route("/metrics", get(health::metrics))
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .layer(middleware::from_fn_with_state(
            Arc::clone(&operator),
            guard::refuse_other_names,
        ))
        .merge(reads)
        .merge(data)
        .merge(files)
        .layer(middleware::from_fn(guard::refuse_other_sites))
        .layer(middleware::from_fn(health::probes_first))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(operator)
}

/// The body, or why it is not taken.
fn whole(body: Result<Bytes, BytesRejection>) -> Result<Bytes, Problem> {
    body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body has more than {BODY_BYTES_MAX} bytes; send less at once"),
        ),
        status => Problem::new(status, error.body_text()),
    })
}

async fn contents() -> Response {
    const TEXT: &str = "Tollmesh\n\n\
        /                                                  the dashboard\n\
        /api/v1/spend?by=team,model&interval=1h&from=24h   sums of cost, tokens and requests\n\
        /api/v1/spend?by=team&from=7d&compare=previous     the same, beside an earlier period\n\
        /api/v1/spend?by=session_id&limit=100              the largest; __other__ sums up the rest\n\
        /api/v1/requests?sort=cost&limit=50                single calls\n\
        /api/v1/traces?sort=cost                           calls of a trace together\n\
        /api/v1/sessions?tag=session_id                    calls of a session together\n\
        /api/v1/outcomes?by=feature                        what accepted answers cost\n\
        POST /api/v1/outcomes                              tells outcomes; needs the token\n\
        /api/v1/coverage                                   how well calls are tagged and priced\n\
        /api/v1/budgets?limit=1000&cursor=                 how far budgets are spent\n\
        /api/v1/budgets/overrides                          temporary limits, who, when and why\n\
        POST /api/v1/budgets/NAME/overrides                another limit for a while; needs the token\n\
        POST /api/v1/budgets/recount                       spend reckoned anew; needs the token\n\
        /api/v1/explain?request_id=ID                      why a call was refused or changed\n\
        /api/v1/prices?model=gpt-4o                        the price rows in force, with source\n\
        POST /api/v1/reprice?from=2026-11-01&dry_run=true  calls priced anew; needs the token\n\
        /metrics  /healthz  /readyz\n\n\
        JSON, or CSV with \"Accept: text/csv\". Conditions: where=team:checkout, from=, to=.\n";
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], TEXT).into_response()
}

async fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no such page; GET /api/v1 lists those that there are",
    )
}

async fn not_allowed() -> Problem {
    Problem::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this page does not answer that method; GET /api/v1 lists all pages",
    )
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        self.response().map(axum::body::Body::new)
    }
}

#[cfg(test)]
mod tests {
    use axum::extract::{FromRequest, Request};

    use super::*;

    #[tokio::test]
    async fn a_body_that_is_too_long_is_told_the_limit() {
        for (n_bytes, status) in [(BODY_BYTES_MAX, None), (BODY_BYTES_MAX + 1, Some(413))] {
            let request = Request::new(vec![b' '; n_bytes].into());
            let body = whole(Bytes::from_request(request, &()).await);
            assert_eq!(body.as_ref().err().map(|problem| problem.status), status);
            if let Err(problem) = body {
                assert!(problem.detail.contains("2097152 bytes"), "{problem:?}");
            }
        }
    }
}
