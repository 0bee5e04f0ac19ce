//! `/api/v1`: questions to the ledger, answered in JSON or CSV.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;

use super::Operator;
use super::answer::Form;
use crate::budgets::PageOfKeys;
use crate::clock;
use crate::ledger::QueryError;
use crate::ledger::query::{CoverageQuery, Patience, Reader, UnitsQuery, folded, folded_pairs};
use crate::pricelist::{self, Wanted};
use crate::problem::Problem;
use crate::question::{BadQuestion, Parts};
use crate::rows::{self, Rows};

/// The parameters of a URL; a name may come several times.
pub type Pairs = Query<Vec<(String, String)>>;

/// `GET /api/v1/spend?by=team,model&interval=1h&from=&to=&where=k:v&limit=&within=900ms`, or
/// with `compare=previous` or `compare=FROM/TO` in place of interval and patience
pub async fn spend(
    State(operator): State<Arc<Operator>>,
    headers: HeaderMap,
    Query(pairs): Pairs,
) -> Result<Response, Problem> {
    let allowed = &[
        "by", "interval", "from", "to", "where", "limit", "compare", "within",
    ];
    let parts = Parts::from_pairs(pairs, allowed).map_err(bad_question)?;
    if parts.compare.is_some() {
        return compare(&operator, &headers, &parts).await;
    }
    let query = parts.spend(clock::now()).map_err(bad_question)?;
    let patience = parts.patience().map_err(bad_question)?;
    let groups_max = parts.groups_max().map_err(bad_question)?;
    let form = Form::of(&headers);
    ask(&operator, move |reader| {
        let sums = reader.spend_within(&query, patience)?;
        let short = folded(sums.answer, groups_max);
        let rows = rows::spend_lines(&query.by, query.interval_ms.is_some(), short);
        form.write_looked(rows, sums.at)
    })
    .await
}

async fn compare(
    operator: &Operator,
    headers: &HeaderMap,
    parts: &Parts,
) -> Result<Response, Problem> {
    let query = parts.comparison(clock::now()).map_err(bad_question)?;
    let groups_max = parts.groups_max().map_err(bad_question)?;
    let form = Form::of(headers);
    ask(operator, move |reader| {
        let short = folded_pairs(reader.compare(&query)?, groups_max);
        form.write(rows::compared(&query.by, short))
    })
    .await
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
    let form = Form::of(headers);
    ask(operator, move |reader| {
        let looked = reader.units_within(&query, patience)?;
        let page = looked.answer;
        let rows = rows::units(&query.unit, &page.items, page.next_cursor);
        form.write_looked(rows, looked.at)
    })
    .await
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
    let form = Form::of(&headers);
    ask(&operator, move |reader| {
        let looked = reader.requests_within(&query, patience)?;
        let page = looked.answer;
        form.write_looked(rows::requests(&page.items, page.next_cursor), looked.at)
    })
    .await
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
    let form = Form::of(&headers);
    ask(&operator, move |reader| {
        form.write(rows::coverage(&reader.coverage(&query)?))
    })
    .await
}

/// `GET /api/v1/budgets?limit=&cursor=`; without a limit, all keys
pub async fn budgets(
    State(operator): State<Arc<Operator>>,
    headers: HeaderMap,
    Query(pairs): Pairs,
) -> Result<Response, Problem> {
    let parts = Parts::from_pairs(pairs, &["limit", "cursor"]).map_err(bad_question)?;
    let page = PageOfKeys {
        rows_max: parts.page_rows().map_err(bad_question)?,
        cursor: parts.cursor,
    };
    let form = Form::of(&headers);
    let turn = operator.turns.next().await?;
    // Calls wait while budgets are looked at: what is seen is taken along, and written elsewhere.
    let standings = operator.budgets.standings();
    let write = move || match standings.page(&page) {
        Ok(rows) => form.write(rows),
        Err(bad) => Err(Problem::new(StatusCode::BAD_REQUEST, bad.to_string())),
    };
    turn.work(write).await
}

/// `GET /api/v1/prices?model=gpt-4o&provider=&at=`
pub async fn prices(
    State(operator): State<Arc<Operator>>,
    headers: HeaderMap,
    Query(pairs): Pairs,
) -> Result<Response, Problem> {
    let wanted = Wanted::from_pairs(pairs, clock::now()).map_err(bad_question)?;
    let tables = operator.prices.tables();
    let form = Form::of(&headers);
    let write = move || form.write(pricelist::rows(&tables.book, &wanted));
    operator.turns.next().await?.work(write).await
}

/// Asks the ledger, and writes the answer, where blocking is allowed.
pub async fn ask<T: Send + 'static>(
    operator: &Operator,
    question: impl FnOnce(&Reader) -> Result<T, Problem> + Send + 'static,
) -> Result<T, Problem> {
    let reader = operator.ledger.reader().clone();
    let turn = operator.turns.next().await?;
    turn.work(move || question(&reader)).await
}

/// Writes rows that are there already, where blocking is allowed.
pub async fn respond(
    operator: &Operator,
    headers: &HeaderMap,
    rows: Rows,
) -> Result<Response, Problem> {
    let form = Form::of(headers);
    let turn = operator.turns.next().await?;
    turn.work(move || form.write(rows)).await
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Problem {
        unanswered(&error)
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
