//! `/api/v1/outcomes`: what became of calls, told and asked for.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;
use tollmesh_wire::Timestamp;

use super::Operator;
use super::answer::Form;
use super::api::{self, Pairs};
use crate::clock;
use crate::ledger::query::folded_outcomes;
use crate::ledger::{AppendError, CallOutcome, Subject, Told};
use crate::problem::Problem;
use crate::question::Parts;
use crate::rows;

/// Outcomes in one request: one transaction, of some ten milliseconds.
const OUTCOMES_MAX: usize = 1_000;

/// The longest id of a subject, in bytes, as of an event's.
const SUBJECT_BYTES_MAX: usize = 256;

/// The longest label, in bytes: a word, no story.
const LABEL_BYTES_MAX: usize = 64;

/// `GET /api/v1/outcomes?by=feature&from=&to=&where=k:v&limit=&within=900ms`
pub async fn outcomes(
    State(operator): State<Arc<Operator>>,
    headers: HeaderMap,
    Query(pairs): Pairs,
) -> Result<Response, Problem> {
    let allowed = &["by", "from", "to", "where", "limit", "within"];
    let parts = Parts::from_pairs(pairs, allowed).map_err(api::bad_question)?;
    let query = parts.outcomes(clock::now()).map_err(api::bad_question)?;
    let patience = parts.patience().map_err(api::bad_question)?;
    let groups_max = parts.groups_max().map_err(api::bad_question)?;
    let form = Form::of(&headers);
    api::ask(&operator, move |reader| {
        let looked = reader.outcomes_within(&query, patience)?;
        let short = folded_outcomes(looked.answer, groups_max);
        let rows = rows::outcomes(&query.by, short);
        form.write_looked(rows, looked.at)
    })
    .await
}

/// What is written to say what became of a call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    event_id: Option<String>,
    request_id: Option<String>,
    trace_id: Option<String>,
    #[serde(alias = "outcome_label", alias = "label")]
    outcome: String,
}

/// One outcome, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Body {
    Several(Vec<serde_json::Value>),
    One(serde_json::Value),
}

/// `POST /api/v1/outcomes` with `{"request_id": "…", "outcome": "accepted"}`, or a list of such.
pub async fn tell(
    State(operator): State<Arc<Operator>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    let body = super::whole(body)?;
    let outcomes = read(&body, clock::now()).map_err(refused)?;
    let told = operator.ledger.tell(outcomes.clone()).await;
    let told = told.map_err(|error| unwritten(&error))?;
    let count = |is: fn(&Told) -> bool| told.iter().filter(|told| is(told)).count();
    let n_new = count(|told| *told == Told::New);
    let n_unchanged = count(|told| *told == Told::Already);
    let n_replaced = told.len() - n_new - n_unchanged;
    for (outcome, told) in outcomes.iter().zip(&told) {
        if let Told::Replaced(before) = told {
            let (subject, label) = (&outcome.subject, &outcome.label);
            tracing::info!(?subject, label, before, "an outcome was replaced");
        }
    }
    tracing::info!(n_new, n_unchanged, n_replaced, "outcomes were told");
    let answer = json!({ "new": n_new, "unchanged": n_unchanged, "replaced": n_replaced });
    Ok(Json(answer).into_response())
}

fn read(body: &[u8], now: Timestamp) -> Result<Vec<CallOutcome>, String> {
    let body: Body = serde_json::from_slice(body).map_err(|error| format!("no JSON: {error}"))?;
    let written = match body {
        Body::One(one) => vec![one],
        Body::Several(several) => several,
    };
    if written.len() > OUTCOMES_MAX {
        let n = written.len();
        return Err(format!("{n} outcomes; send at most {OUTCOMES_MAX} at once"));
    }
    let outcomes = written.into_iter().enumerate().map(|(n, one)| {
        let written: Written = serde_json::from_value(one).map_err(|error| at(n, &error))?;
        outcome(written, now).map_err(|what| at(n, &what))
    });
    outcomes.collect()
}

fn at(n: usize, what: &dyn std::fmt::Display) -> String {
    format!("outcome {}: {what}; nothing was written", n + 1)
}

fn outcome(written: Written, now: Timestamp) -> Result<CallOutcome, String> {
    let subject = match (written.event_id, written.request_id, written.trace_id) {
        (Some(id), None, None) => Subject::Event(id),
        (None, Some(id), None) => Subject::Request(id),
        (None, None, Some(id)) => Subject::Trace(id),
        _ => return Err("expected one of event_id, request_id and trace_id".to_owned()),
    };
    let (Subject::Event(id) | Subject::Request(id) | Subject::Trace(id)) = &subject;
    if id.is_empty() || id.len() > SUBJECT_BYTES_MAX {
        return Err(format!("expected an id of 1 to {SUBJECT_BYTES_MAX} bytes"));
    }
    let label = written.outcome;
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.".contains(&b);
    if label.is_empty() || label.len() > LABEL_BYTES_MAX || !label.bytes().all(is_word) {
        return Err(format!(
            "{label:?}; expected a word such as accepted, edited, rejected or escalated: lower-case \
             letters, digits, \"_\", \"-\" and \".\", at most {LABEL_BYTES_MAX}"
        ));
    }
    Ok(CallOutcome {
        subject,
        label,
        told: now,
    })
}

fn refused(what: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, what)
}

fn unwritten(error: &AppendError) -> Problem {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "outcomes were not written"
    );
    let detail = "the ledger cannot be written; send it again later";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_as_people_write_them() {
        let read = |body: &str| read(body.as_bytes(), Timestamp::from_unix_ms(7));
        let accepted = CallOutcome {
            subject: Subject::Request("r-1".into()),
            label: "accepted".into(),
            told: Timestamp::from_unix_ms(7),
        };
        let one = r#"{"request_id":"r-1","outcome":"accepted"}"#;
        assert_eq!(read(one).unwrap(), std::slice::from_ref(&accepted));
        let aliased = r#"{"request_id":"r-1","outcome_label":"accepted"}"#;
        assert_eq!(read(aliased).unwrap(), std::slice::from_ref(&accepted));
        let several = format!(r#"[{one},{{"trace_id":"t","outcome":"edited"}}]"#);
        let outcomes = read(&several).unwrap();
        assert_eq!(outcomes[0], accepted);
        assert_eq!(outcomes[1].subject, Subject::Trace("t".into()));
    }

    #[test]
    fn each_bad_outcome_has_its_message() {
        let word = "; expected a word such as accepted, edited, rejected or escalated: lower-case \
                    letters, digits, \"_\", \"-\" and \".\", at most 64; nothing was written";
        for (body, message) in [
            (
                r#"[{"outcome":"accepted"}]"#,
                "outcome 1: expected one of event_id, request_id and trace_id; nothing was written"
                    .to_owned(),
            ),
            (
                r#"{"request_id":"","outcome":"accepted"}"#,
                "outcome 1: expected an id of 1 to 256 bytes; nothing was written".to_owned(),
            ),
            (
                r#"[{"request_id":"r","outcome":"ok"},{"trace_id":"t","outcome":"So So"}]"#,
                format!("outcome 2: \"So So\"{word}"),
            ),
        ] {
            let read = read(body.as_bytes(), Timestamp::from_unix_ms(0));
            assert_eq!(read.unwrap_err(), message);
        }
        let unknown = br#"{"request":"r","outcome":"ok"}"#;
        let message = read(unknown, Timestamp::from_unix_ms(0)).unwrap_err();
        assert!(message.contains("unknown field `request`"), "{message}");
    }
}
