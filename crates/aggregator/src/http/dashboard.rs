//! The dashboard's files over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use super::Operator;
use crate::dashboard::{FILES, File, PAGE};

/// What the page may do: load its own files, ask its own server, and nothing else. No text can
/// become HTML or code, whatever a script does with it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

/// One route a file, and none beside.
pub fn router() -> Router<Arc<Operator>> {
    let files = FILES.iter().fold(Router::new(), |router, file| {
        let answer =
            move |headers: HeaderMap| async move { answer(file, &headers, StatusCode::OK) };
        router.route(file.path, get(answer))
    });
    files
        .route("/", get(page))
        .method_not_allowed_fallback(super::not_allowed)
}

/// The page. Who has yet to show the token gets it as a 401: it asks people for the token then, and
/// tells programs what is missing.
async fn page(State(operator): State<Arc<Operator>>, headers: HeaderMap) -> Response {
    if !operator.guard.lacks_token(&headers) {
        return answer(&PAGE, &headers, StatusCode::OK);
    }
    let mut response = answer(&PAGE, &HeaderMap::new(), StatusCode::UNAUTHORIZED);
    response
        .headers_mut()
        .insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// The file, or that it is the one that the browser has.
fn answer(file: &'static File, headers: &HeaderMap, status: StatusCode) -> Response {
    let tag = file.tag();
    let has_it = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag);
    let mut response = match has_it {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => (status, file.text).into_response(),
    };
    let fields = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, file.media_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        // Asked for again each time, and sent again only after an upgrade.
        (header::CACHE_CONTROL, "no-cache"),
        (
            HeaderName::from_static("cross-origin-opener-policy"),
            "same-origin",
        ),
    ] {
        fields.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        fields.insert(header::ETAG, tag);
    }
    response
}
