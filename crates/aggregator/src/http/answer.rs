//! Answers in bytes: JSON or CSV, as the client asks for.

use std::borrow::Borrow;

use axum::body::Bytes;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use crate::ledger::query::LookedAt;
use crate::problem::Problem;
use crate::rows::Rows;

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// With everything that is known of a row.
    Json,
    /// The columns.
    Csv,
}

impl Form {
    /// CSV where it is named, and before JSON.
    pub fn of(headers: &HeaderMap) -> Form {
        let accepted = headers.get_all(header::ACCEPT).iter();
        let accepted: Vec<&str> = accepted
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(|range| range.split(';').next().unwrap_or_default().trim())
            .collect();
        let place = |wanted: &str| accepted.iter().position(|range| *range == wanted);
        match (place("text/csv"), place("application/json")) {
            (Some(csv), Some(json)) if csv < json => Form::Csv,
            (Some(_), None) => Form::Csv,
            _ => Form::Json,
        }
    }

    /// The answer with these rows. Large ones take a while: never where others wait for the thread.
    pub fn write<I>(self, rows: Rows<I>) -> Result<Response, Problem>
    where
        I: IntoIterator<Item: Borrow<Map<String, Value>>>,
    {
        self.write_looked(rows, None)
    }

    /// The same, with of which hours it is where that is not all: in JSON as `looked_at`, else in the
    /// field `x-looked-at`.
    pub fn write_looked<I>(self, rows: Rows<I>, at: Option<LookedAt>) -> Result<Response, Problem>
    where
        I: IntoIterator<Item: Borrow<Map<String, Value>>>,
    {
        if self == Form::Json {
            let json = rows.into_json(at).map_err(|error| broken(&error))?;
            return Ok(typed("application/json", json));
        }
        // A page of CSV has no room for its cursor.
        let cursor = rows.next_cursor.clone();
        let csv = rows.into_csv().map_err(|error| broken(&error))?;
        let mut response = typed("text/csv; charset=utf-8", csv);
        let said = at.map(|at| format!("{} of {} hours", at.hours, at.of_hours));
        for (name, value) in [("x-next-cursor", cursor), ("x-looked-at", said)] {
            let value = value.as_deref().map(HeaderValue::from_str);
            if let Some(Ok(value)) = value {
                response.headers_mut().insert(name, value);
            }
        }
        Ok(response)
    }
}

fn typed(media_type: &'static str, body: Vec<u8>) -> Response {
    ([(header::CONTENT_TYPE, media_type)], Bytes::from(body)).into_response()
}

fn broken(error: &dyn std::error::Error) -> Problem {
    tracing::error!(%error, "an answer cannot be written");
    let detail = "the answer could not be written; the log says why";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_as_they_are_accepted() {
        for (accept, form) in [
            (&[][..], Form::Json),
            (&["*/*"][..], Form::Json),
            (&["text/csv"][..], Form::Csv),
            (&["text/csv;q=0.9, application/json"][..], Form::Csv),
            (&["application/json, text/csv"][..], Form::Json),
            (&["application/json", "text/csv"][..], Form::Json),
        ] {
            let mut headers = HeaderMap::new();
            for value in accept {
                headers.append(header::ACCEPT, value.parse().unwrap());
            }
            assert_eq!(Form::of(&headers), form, "{accept:?}");
        }
    }
}
