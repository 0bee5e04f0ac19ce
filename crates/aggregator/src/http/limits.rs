//! `/api/v1/budgets/…` and `/api/v1/explain`: what operators do about budgets.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tollmesh_budget::Limit;
use tollmesh_wire::Timestamp;

use super::Operator;
use super::api::{self, Pairs};
use crate::budgets::overrides::{OverrideError, WantedOverride};
use crate::budgets::recount::RecountError;
use crate::clock;
use crate::problem::Problem;
use crate::rows;

/// What is written to override a limit.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    limit: String,
    until: String,
    reason: String,
    by: String,
}

/// `GET /api/v1/explain?request_id=…`, or `event_id=…`
pub async fn explain(
    State(operator): State<Arc<Operator>>,
    headers: HeaderMap,
    Query(pairs): Pairs,
) -> Result<Response, Problem> {
    let [(name, id)] = pairs.as_slice() else {
        return Err(refused("expected one of request_id and event_id"));
    };
    if !["request_id", "event_id"].contains(&name.as_str()) {
        let what = format!("unknown parameter {name:?}; expected request_id or event_id");
        return Err(refused(what));
    }
    let asked = id.clone();
    let found = api::ask(&operator, move |reader| {
        Ok(rows::explained(&reader.denials(&asked)?))
    })
    .await?;
    if found.items.is_empty() {
        let detail = format!(
            "no budget did anything to {id:?}; the last 20,000 refusals and changes are known, by \
             the aggregator beside the Envoy that the call passed"
        );
        return Err(Problem::new(StatusCode::NOT_FOUND, detail));
    }
    api::respond(&operator, &headers, found).await
}

/// `GET /api/v1/budgets/overrides`
pub async fn overrides(
    State(operator): State<Arc<Operator>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let all = operator.budgets.overrides();
    let rows = rows::overridden(&all, clock::now());
    api::respond(&operator, &headers, rows).await
}

/// `POST /api/v1/budgets/{name}/overrides` with
/// `{"limit": "300 USD", "until": "4h", "reason": "…", "by": "…"}`
pub async fn override_limit(
    State(operator): State<Arc<Operator>>,
    Path(name): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = super::whole(body)?;
    let written: Written = serde_json::from_slice(&body).map_err(|error| {
        refused(format!(
            "{error}; expected such as {{\"limit\":\"300 USD\",\"until\":\"4h\",\
             \"reason\":\"…\",\"by\":\"…\"}}"
        ))
    })?;
    let limit: Limit = written
        .limit
        .parse()
        .map_err(|error| refused(format!("limit: {error}")))?;
    let wanted = WantedOverride {
        budget: name,
        limit,
        until: until(&written.until, clock::now()).map_err(refused)?,
        reason: written.reason,
        by: written.by,
    };
    let made = operator.budgets.override_limit(wanted).await;
    Ok(Json(made.map_err(|error| not_overridden(&error))?).into_response())
}

/// `DELETE /api/v1/budgets/{name}/overrides?by=…`
pub async fn end_overrides(
    State(operator): State<Arc<Operator>>,
    Path(name): Path<String>,
    Query(pairs): Pairs,
) -> Result<Response, Problem> {
    let by = pairs.iter().find(|(key, _)| key == "by");
    let by = by.map_or("", |(_, by)| by.as_str());
    let ended = operator.budgets.end_overrides(&name, by).await;
    let ended = ended.map_err(|error| not_overridden(&error))?;
    Ok(Json(json!({ "items": ended, "next_cursor": null })).into_response())
}

/// `POST /api/v1/budgets/recount?budget=NAME`
pub async fn recount(
    State(operator): State<Arc<Operator>>,
    headers: HeaderMap,
    Query(pairs): Pairs,
) -> Result<Response, Problem> {
    let name = match pairs.as_slice() {
        [] => None,
        [(key, name)] if key == "budget" => Some(name.as_str()),
        _ => return Err(refused("expected budget=NAME, or nothing")),
    };
    match operator.budgets.recount(name).await {
        Ok(rows) => api::respond(&operator, &headers, rows).await,
        Err(error @ RecountError::Unknown { .. }) => {
            Err(Problem::new(StatusCode::NOT_FOUND, error.to_string()))
        }
        Err(error) => {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "nothing was recounted"
            );
            let detail = format!("{error}; the log says why");
            Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
    }
}

/// Reads an instant, a day's begin, or a span from now on such as `4h`.
fn until(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit_ms = match text.get(digits.len()..).unwrap_or_default() {
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => 0,
    };
    let span_ms = digits
        .parse::<i64>()
        .ok()
        .and_then(|n| n.checked_mul(unit_ms));
    if let Some(span_ms) = span_ms.filter(|ms| *ms > 0) {
        return Ok(Timestamp::from_unix_ms(
            now.as_unix_ms().saturating_add(span_ms),
        ));
    }
    let day = format!("{text}T00:00:00Z");
    let instant = Timestamp::parse(text).or_else(|| Timestamp::parse(&day));
    instant.ok_or_else(|| {
        format!(
            "until: {text:?}; expected an instant such as 2026-11-23T00:00:00Z, a day, or a span \
             such as 4h"
        )
    })
}

fn not_overridden(error: &OverrideError) -> Problem {
    let status = match error {
        OverrideError::Unknown { .. } | OverrideError::None { .. } => StatusCode::NOT_FOUND,
        OverrideError::Ledger(_) => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    };
    Problem::new(status, error.to_string())
}

fn refused(what: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends() {
        let now = Timestamp::parse("2026-11-22T10:00:00Z").unwrap();
        for (text, instant) in [
            ("4h", Some("2026-11-22T14:00:00.000Z")),
            ("90m", Some("2026-11-22T11:30:00.000Z")),
            ("2d", Some("2026-11-24T10:00:00.000Z")),
            ("2026-11-23", Some("2026-11-23T00:00:00.000Z")),
            (
                "2026-11-23T00:00:00+01:00",
                Some("2026-11-22T23:00:00.000Z"),
            ),
            ("0h", None),
            ("soon", None),
            ("4", None),
        ] {
            let read = until(text, now).ok().map(|at| at.to_string());
            assert_eq!(read.as_deref(), instant, "{text}");
        }
    }
}
