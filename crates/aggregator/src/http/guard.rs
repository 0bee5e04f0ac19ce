//! Who may ask: the bearer token, and the host that a browser believes it is talking to.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::Response;
use hyper::StatusCode;

use super::Operator;
use crate::problem::Problem;

/// What a request for data must show.
#[derive(Clone, PartialEq, Eq)]
pub enum Guard {
    /// Nothing, on this machine. A web page could reach it through the operator's browser under a
    /// name that it made resolve to loopback, so only addresses and `localhost` are taken as host.
    Local,
    /// The token. No browser sends it unasked, so the host does not matter.
    Token(String),
    /// Nobody may: reachable from elsewhere, and there is no token.
    Closed,
}

impl Guard {
    /// The guard of a listener.
    pub fn new(is_local: bool, token: Option<String>) -> Guard {
        match token {
            Some(token) => Guard::Token(token),
            None if is_local => Guard::Local,
            None => Guard::Closed,
        }
    }

    fn judge(&self, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
        match self {
            Guard::Local if !method.is_safe() => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "writing needs a token; set operator.token_file",
            )),
            Guard::Local if is_local_host(headers.get(header::HOST)) => Ok(()),
            Guard::Local => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "the Host header names neither an address nor localhost; ask by one of those, or \
                 set operator.token_file",
            )),
            Guard::Token(token) if has_token(headers, token) => Ok(()),
            Guard::Token(_) => Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "send the token of operator.token_file as \"Authorization: Bearer TOKEN\"",
            )),
            Guard::Closed => Err(Problem::new(
                StatusCode::FORBIDDEN,
                "not served beyond loopback without a token; set operator.token_file",
            )),
        }
    }
}

/// Lets through what may pass.
pub async fn check(
    State(operator): State<Arc<Operator>>,
    request: Request,
    next: Next,
) -> Response {
    use axum::response::IntoResponse;
    if let Err(problem) = operator.guard.judge(request.method(), request.headers()) {
        return problem.into_response();
    }
    let mut response = next.run(request).await;
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        let headers = response.headers_mut();
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn is_local_host(host: Option<&HeaderValue>) -> bool {
    let Some(host) = host.and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

fn has_token(headers: &HeaderMap, token: &str) -> bool {
    let given = headers
        .get(header::AUTHORIZATION)
        .map(HeaderValue::as_bytes);
    let given = given.and_then(|value| value.split_at_checked(7));
    given.is_some_and(|(scheme, given)| {
        scheme.eq_ignore_ascii_case(b"bearer ") && are_same(given, token.as_bytes())
    })
}

/// Compares in a time that depends on the lengths alone, so that nobody can guess byte by byte.
fn are_same(given: &[u8], token: &[u8]) -> bool {
    let mut differences = given.len() ^ token.len();
    for (n, byte) in token.iter().enumerate() {
        let other = given.get(n).copied().unwrap_or(!byte);
        differences |= usize::from(byte ^ std::hint::black_box(other));
    }
    differences == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: header::HeaderName, value: &str) -> HeaderMap {
        [(name, HeaderValue::from_str(value).unwrap())]
            .into_iter()
            .collect()
    }

    #[test]
    fn hosts() {
        for (host, is_local) in [
            ("localhost:4101", true),
            ("LOCALHOST", true),
            ("127.0.0.1:4101", true),
            ("10.1.2.3:4101", true),
            ("[::1]:4101", true),
            ("evil.example:4101", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            let judged = Guard::Local.judge(&Method::GET, &with(header::HOST, host));
            assert_eq!(judged.is_ok(), is_local, "{host}");
        }
        assert!(Guard::Local.judge(&Method::GET, &HeaderMap::new()).is_err());
    }

    #[test]
    fn writing_needs_a_token_on_this_machine_too() {
        let local = with(header::HOST, "localhost");
        let problem = Guard::Local.judge(&Method::POST, &local).unwrap_err();
        assert_eq!(
            problem.detail,
            "writing needs a token; set operator.token_file"
        );
        let guard = Guard::new(true, Some("s3cret".into()));
        assert_eq!(guard.judge(&Method::POST, &local).unwrap_err().status, 401);
        let token = with(header::AUTHORIZATION, "Bearer s3cret");
        assert!(guard.judge(&Method::POST, &token).is_ok());
    }

    #[test]
    fn tokens() {
        let guard = Guard::new(true, Some("s3cret".into()));
        for (value, passes) in [
            ("Bearer s3cret", true),
            ("bearer s3cret", true),
            ("Bearer s3cre", false),
            ("Bearer s3cretx", false),
            ("Bearer ", false),
            ("Basic s3cret", false),
            ("s3cret", false),
        ] {
            let judged = guard.judge(&Method::GET, &with(header::AUTHORIZATION, value));
            assert_eq!(judged.is_ok(), passes, "{value}");
        }
        let closed = Guard::new(false, None).judge(&Method::GET, &HeaderMap::new());
        assert_eq!(closed.unwrap_err().status, 403);
    }
}
