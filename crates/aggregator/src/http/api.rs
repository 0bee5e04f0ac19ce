//! `/api/v1`: questions to the ledger, answered in JSON or CSV.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Operator;
use crate::clock;
use crate::ledger::QueryError;
use crate::ledger::query::{CoverageQuery, Looked, Patience, Reader, UnitsQuery};
use crate::pricelist::{self, Wanted};
use crate::problem::Problem;
use crate::question::{BadQuestion, Parts};
use crate::rows::{self, Rows};

/// The parameters of a URL; a name may come several times.
pub type Pairs = Query<Vec<(String, String)>>;

/// `GET /api/v1/spend?by=team,model&interval=1h&from=&to=&where=k:v&within=900ms`, or with
/// `compare=previous` or `compare=FROM/TO` in place of interval and patience
pub async fn spend(
    State(operator): State<Arc<Operator>>,
    headers: HeaderMap,
    Query(pairs): Pairs,
) -> Result<Response, Problem> {
    let allowed = &["by", "interval", "from", "to", "where", "compare", "within"];
    let parts = Parts::from_pairs(pairs, allowed).map_err(bad_question)?;
    if parts.compare.is_some() {
        return compare(&operator, &headers, &parts).await;
    }
    let query = parts.spend(clock::now()).map_err(bad_question)?;
    let patience = parts.patience().map_err(bad_question)?;
    let rows = ask(&operator, move |reader| {
        let sums = reader.spend_within(&query, patience)?;
        Ok(sums.map(|sums| rows::spend(&query.by, query.interval_ms.is_some(), &sums)))
    });
    respond_looked(&headers, &rows.await?)
}

async fn compare(
    operator: &Operator,
    headers: &HeaderMap,
    parts: &Parts,
) -> Result<Response, Problem> {
    let query = parts.comparison(clock::now()).map_err(bad_question)?;
    let rows = ask(operator, move |reader| {
        Ok(rows::compared(&query.by, &reader.compare(&query)?))
    });
    respond(headers, &rows.await?)
}

/// `GET /api/v1/traces?sort=cost&limit=50&cursor=&from=&to=&where=k:v&within=900ms`
pub async fn traces(
    State(operator): State<Arc<Operator>>,
    headers: HeaderMap,
    Query(pairs): Pairs,
) -> Result<Response, Problem> {
    let allowed = &["sort", "limit", "cursor", "from", "to", "where", "within"];
    let (query, patience) = Parts::from_pairs(pairs, allowed)
        .and_then(|parts| Ok((parts.traces(clock::now())?, parts.patience()?)))
        .map_err(bad_question)?;
    units(&operator, &headers, query, patience).await
}

/// `GET /api/v1/sessions?tag=session_id&sort=cost&limit=50&cursor=&from=&to=&where=k:v&within=1s`
pub async fn sessions(
    State(operator): State<Arc<Operator>>,
    headers: HeaderMap,
    Query(pairs): Pairs,
) -> Result<Response, Problem> {
    let allowed = &[
        "tag", "sort", "limit", "cursor", "from", "to", "where", "within",
    ];
    let (query, patience) = Parts::from_pairs(pairs, allowed)
        .and_then(|parts| Ok((parts.sessions(clock::now())?, parts.patience()?)))
        .map_err(bad_question)?;
    units(&operator, &headers, query, patience).await
}

async fn units(
    operator: &Operator,
    headers: &HeaderMap,
    query: UnitsQuery,
    patience: Patience,
) -> Result<Response, Problem> {
    let rows = ask(operator, move |reader| {
        let page = reader.units_within(&query, patience)?;
        Ok(page.map(|page| rows::units(&query.unit, &page.items, page.next_cursor)))
    });
    respond_looked(headers, &rows.await?)
}

/// `GET /api/v1/requests?sort=cost&limit=50&cursor=&from=&to=&where=k:v&within=900ms`
pub async fn requests(
    State(operator): State<Arc<Operator>>,
    headers: HeaderMap,
    Query(pairs): Pairs,
) -> Result<Response, Problem> {
    let allowed = &["sort", "limit", "cursor", "from", "to", "where", "within"];
    let (query, patience) = Parts::from_pairs(pairs, allowed)
        .and_then(|parts| Ok((parts.requests(clock::now())?, parts.patience()?)))
        .map_err(bad_question)?;
    let rows = ask(&operator, move |reader| {
        let page = reader.requests_within(&query, patience)?;
        Ok(page.map(|page| rows::requests(&page.items, page.next_cursor)))
    });
    respond_looked(&headers, &rows.await?)
}

/// `GET /api/v1/coverage?from=&to=&where=k:v`
pub async fn coverage(
    State(operator): State<Arc<Operator>>,
    headers: HeaderMap,
    Query(pairs): Pairs,
) -> Result<Response, Problem> {
    let parts = Parts::from_pairs(pairs, &["from", "to", "where"]).map_err(bad_question)?;
    let query = CoverageQuery {
        span: parts.span(clock::now()).map_err(bad_question)?,
        filters: parts.filters().map_err(bad_question)?,
        tags: operator.tags.clone(),
    };
    let rows = ask(&operator, move |reader| {
        Ok(rows::coverage(&reader.coverage(&query)?))
    });
    respond(&headers, &rows.await?)
}

/// `GET /api/v1/budgets`
pub async fn budgets(
    State(operator): State<Arc<Operator>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    respond(&headers, &operator.budgets.rows())
}

/// `GET /api/v1/prices?model=gpt-4o&provider=&at=`
pub async fn prices(
    State(operator): State<Arc<Operator>>,
    headers: HeaderMap,
    Query(pairs): Pairs,
) -> Result<Response, Problem> {
    let wanted = Wanted::from_pairs(pairs, clock::now()).map_err(bad_question)?;
    let tables = operator.prices.tables();
    respond(&headers, &pricelist::rows(&tables.book, &wanted))
}

/// Asks where blocking is allowed.
pub async fn ask<T: Send + 'static>(
    operator: &Operator,
    question: impl FnOnce(&Reader) -> Result<T, QueryError> + Send + 'static,
) -> Result<T, Problem> {
    let reader = operator.ledger.reader().clone();
    let answer = tokio::task::spawn_blocking(move || question(&reader)).await;
    match answer {
        Ok(Ok(rows)) => Ok(rows),
        Ok(Err(error)) => Err(unanswered(&error)),
        Err(error) => {
            tracing::error!(%error, "a question was not answered");
            Err(internal())
        }
    }
}

/// The client's mistakes are told; ours are logged.
pub fn unanswered(error: &QueryError) -> Problem {
    match error {
        QueryError::Cursor(_) | QueryError::Interval(_) | QueryError::TooManyGroups { .. } => {
            Problem::new(StatusCode::BAD_REQUEST, error.to_string())
        }
        error => {
            tracing::error!(
                error = error as &dyn std::error::Error,
                "a question was not answered"
            );
            internal()
        }
    }
}

fn internal() -> Problem {
    Problem::new(
        StatusCode::INTERNAL_SERVER_ERROR,
        "the ledger could not be read; the log says why",
    )
}

pub fn bad_question(bad: BadQuestion) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, bad.to_string())
}

/// JSON, or CSV where the client asks for it.
pub fn respond(headers: &HeaderMap, rows: &Rows) -> Result<Response, Problem> {
    if !wants_csv(headers) {
        return Ok(Json(rows.json()).into_response());
    }
    let csv = rows.csv().map_err(|error| {
        tracing::error!(%error, "an answer cannot be written as CSV");
        internal()
    })?;
    let mut response = csv.into_response();
    let fields = response.headers_mut();
    fields.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static("text/csv; charset=utf-8"),
    );
    // A page of CSV has no room for its cursor.
    let cursor = rows.next_cursor.as_deref();
    if let Some(Ok(cursor)) = cursor.map(header::HeaderValue::from_str) {
        fields.insert("x-next-cursor", cursor);
    }
    Ok(response)
}

/// The same, with of which hours it is where that is not all: in JSON as `looked_at`, else in the
/// field `x-looked-at`.
pub fn respond_looked(headers: &HeaderMap, looked: &Looked<Rows>) -> Result<Response, Problem> {
    let Some(at) = looked.at else {
        return respond(headers, &looked.answer);
    };
    if !wants_csv(headers) {
        return Ok(Json(rows::json_looked(&looked.answer, at)).into_response());
    }
    let mut response = respond(headers, &looked.answer)?;
    let said = format!("{} of {} hours", at.hours, at.of_hours);
    if let Ok(said) = header::HeaderValue::from_str(&said) {
        response.headers_mut().insert("x-looked-at", said);
    }
    Ok(response)
}

/// Whether CSV is named, and before JSON.
fn wants_csv(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let accepted: Vec<&str> = accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| range.split(';').next().unwrap_or_default().trim())
        .collect();
    let place = |wanted: &str| accepted.iter().position(|range| *range == wanted);
    match (place("text/csv"), place("application/json")) {
        (Some(csv), Some(json)) => csv < json,
        (csv, _) => csv.is_some(),
    }
}
