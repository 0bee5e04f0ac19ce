//! Who may ask: the bearer token, and the host that a browser believes it is talking to.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::StatusCode;

use super::Operator;
use crate::problem::Problem;

/// Where a browser says a request comes from (<https://www.w3.org/TR/fetch-metadata/>).
const SEC_FETCH_SITE: &str = "sec-fetch-site";
const SEC_FETCH_MODE: &str = "sec-fetch-mode";
const SEC_FETCH_DEST: &str = "sec-fetch-dest";

/// Why a request under a strange name is refused.
const OTHER_NAME: &str = "the Host header names neither an address nor localhost; ask by one of \
                          those, or add the name to operator.hosts";

/// What clusters call their services
/// (<https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/>), and the domain that
/// ICANN keeps free for private use. Nobody outside can own a name under these.
const PRIVATE_SUFFIXES: &[&str] = &[".svc", ".svc.cluster.local", ".internal"];

/// What a request must show.
#[derive(Clone, PartialEq, Eq)]
pub struct Guard {
    who: Who,
    /// Whether only this machine reaches it.
    is_local: bool,
    /// Names besides addresses under which people reach it.
    hosts: Vec<String>,
}

/// Who may ask for data.
#[derive(Clone, PartialEq, Eq)]
enum Who {
    /// Anyone on this machine. A web page could reach it through the operator's browser under a
    /// name that it made resolve to loopback, so only addresses, `localhost` and the names that the
    /// operator gave are taken as host.
    Local,
    /// Who has the token. No browser sends it unasked.
    Token(String),
    /// Nobody: reachable from elsewhere, and there is no token.
    Closed,
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    /// What the ledger knows.
    Data,
    /// The dashboard's own files, which know nothing: they ask for data themselves.
    Files,
}

// === impl Guard ===

impl Guard {
    /// The guard of a listener; `hosts` are the names that the operator gave.
    pub fn new(is_local: bool, token: Option<String>, hosts: Vec<String>) -> Guard {
        let who = match token {
            Some(token) => Who::Token(token),
            None if is_local => Who::Local,
            None => Who::Closed,
        };
        Guard {
            who,
            is_local,
            hosts,
        }
    }

    /// Whether nobody is answered.
    pub fn is_closed(&self) -> bool {
        self.who == Who::Closed
    }

    /// Whether a token is wanted that these headers do not have.
    pub fn lacks_token(&self, headers: &HeaderMap) -> bool {
        matches!(&self.who, Who::Token(token) if !has_token(headers, token))
    }

    fn judge(&self, what: What, asked: &Asked<'_>) -> Result<(), Problem> {
        let refused = |status, detail| Err(Problem::new(status, detail));
        match &self.who {
            Who::Closed => {
                let detail = "not served beyond loopback without a token; set operator.token_file";
                return refused(StatusCode::FORBIDDEN, detail);
            }
            Who::Local if !asked.method.is_safe() => {
                let detail = "writing needs a token; set operator.token_file";
                return refused(StatusCode::FORBIDDEN, detail);
            }
            Who::Token(_) if what == What::Data && self.lacks_token(asked.headers) => {
                let detail =
                    "send the token of operator.token_file as \"Authorization: Bearer TOKEN\"";
                return refused(StatusCode::UNAUTHORIZED, detail);
            }
            Who::Local | Who::Token(_) => {}
        }
        match self.takes_host(asked.host) {
            true => Ok(()),
            false => refused(StatusCode::FORBIDDEN, OTHER_NAME),
        }
    }

    /// Whether a browser that believes to be talking to that host is not being led astray. An
    /// address cannot be made to resolve to another one.
    fn takes_host(&self, host: &str) -> bool {
        let name = name_of(host);
        name == "localhost"
            || name.parse::<IpAddr>().is_ok()
            || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(&name))
            || (self.who != Who::Local && is_private(&name))
    }
}

/// The name in a Host header, without its port.
fn name_of(host: &str) -> String {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or("", |(address, _)| address),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    name.to_ascii_lowercase()
}

/// Whether nobody outside can own that name.
fn is_private(name: &str) -> bool {
    let is_single_label = !name.is_empty() && !name.contains('.');
    is_single_label || PRIVATE_SUFFIXES.iter().any(|end| name.ends_with(end))
}

/// What is looked at of a request.
struct Asked<'r> {
    method: &'r Method,
    headers: &'r HeaderMap,
    /// The authority: the Host header, or what stands in HTTP/2's place of it.
    host: &'r str,
}

impl<'r> Asked<'r> {
    fn of(request: &'r Request) -> Asked<'r> {
        let authority = request
            .uri()
            .authority()
            .map(|authority| authority.as_str());
        let header = text(request.headers(), header::HOST.as_str());
        Asked {
            method: request.method(),
            headers: request.headers(),
            host: authority.or(header).unwrap_or_default(),
        }
    }

    /// Whether a page of another origin had a browser ask. A link that somebody follows is no such
    /// request: it shows what it leads to, and tells the other page nothing.
    fn is_of_another_site(&self) -> bool {
        let is_followed_link = || {
            self.method.is_safe()
                && text(self.headers, SEC_FETCH_MODE) == Some("navigate")
                && text(self.headers, SEC_FETCH_DEST) == Some("document")
        };
        let from_elsewhere = match text(self.headers, SEC_FETCH_SITE) {
            None | Some("same-origin" | "none") => false,
            Some(_) => !is_followed_link(),
        };
        let other_origin = self.headers.get(header::ORIGIN).is_some_and(|origin| {
            let origin = origin.to_str().unwrap_or_default();
            let host = origin.split_once("://").map(|(_, host)| host);
            !host.is_some_and(|host| host.eq_ignore_ascii_case(self.host))
        });
        from_elsewhere || other_origin
    }
}

/// Lets through what may ask for data.
pub async fn check(
    State(operator): State<Arc<Operator>>,
    request: Request,
    next: Next,
) -> Response {
    let judged = operator.guard.judge(What::Data, &Asked::of(&request));
    passed(judged, request, next).await
}

/// The same for pages that nobody can write: whatever method asks, what it may have is judged as for
/// reading, and the page itself says which methods it has.
pub async fn check_reads(
    State(operator): State<Arc<Operator>>,
    request: Request,
    next: Next,
) -> Response {
    let asked = Asked {
        method: &Method::GET,
        ..Asked::of(&request)
    };
    let judged = operator.guard.judge(What::Data, &asked);
    passed(judged, request, next).await
}

/// Lets through what may have the dashboard's files.
pub async fn check_files(
    State(operator): State<Arc<Operator>>,
    request: Request,
    next: Next,
) -> Response {
    let judged = operator.guard.judge(What::Files, &Asked::of(&request));
    passed(judged, request, next).await
}

/// Refuses, on loopback, requests under a name that a page could have made resolve to it: what
/// scrapers read is open there. Elsewhere they come under names of their own.
pub async fn refuse_other_names(
    State(operator): State<Arc<Operator>>,
    request: Request,
    next: Next,
) -> Response {
    let guard = &operator.guard;
    let host = Asked::of(&request).host;
    let is_taken = guard.takes_host(host) || is_private(&name_of(host));
    let judged = match !guard.is_local || is_taken {
        true => Ok(()),
        false => Err(Problem::new(StatusCode::FORBIDDEN, OTHER_NAME)),
    };
    passed(judged, request, next).await
}

/// Refuses what pages of other sites have a browser ask, of every page.
pub async fn refuse_other_sites(request: Request, next: Next) -> Response {
    let judged = match Asked::of(&request).is_of_another_site() {
        false => Ok(()),
        true => Err(Problem::new(
            StatusCode::FORBIDDEN,
            "asked for by a page of another site; open it yourself",
        )),
    };
    passed(judged, request, next).await
}

async fn passed(judged: Result<(), Problem>, request: Request, next: Next) -> Response {
    let mut response = match judged {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    // An answer that says something else about itself knows better.
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; frame-ancestors 'none'",
        ),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        let headers = response.headers_mut();
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    response
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
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

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let fields = fields.iter().map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
            (name, HeaderValue::from_str(value).unwrap())
        });
        fields.collect()
    }

    fn judged(guard: &Guard, method: &Method, host: &str, fields: &[(&str, &str)]) -> u16 {
        let asked = Asked {
            method,
            headers: &headers(fields),
            host,
        };
        let judged = guard.judge(What::Data, &asked);
        judged.map_or_else(|problem| problem.status, |()| 200)
    }

    #[test]
    fn hosts() {
        let local = Guard::new(true, None, vec!["Spend.Example".into()]);
        let token = Guard::new(false, Some("s3cret".into()), vec!["spend.example".into()]);
        let authorized = [("authorization", "Bearer s3cret")];
        for (host, is_local, is_taken_with_token) in [
            ("localhost:4101", true, true),
            ("LOCALHOST", true, true),
            ("127.0.0.1:4101", true, true),
            ("10.1.2.3:4101", true, true),
            ("[::1]:4101", true, true),
            ("spend.example:443", true, true),
            ("tollmesh:4101", false, true),
            ("tollmesh.monitoring.svc", false, true),
            ("tollmesh.monitoring.svc.cluster.local:4101", false, true),
            ("evil.example:4101", false, false),
            ("127.0.0.1.evil.example", false, false),
            ("localhost.evil.example", false, false),
            ("tollmesh.svc.evil.example", false, false),
            ("", false, false),
        ] {
            let expected = |passes| if passes { 200 } else { 403 };
            let status = judged(&local, &Method::GET, host, &[]);
            assert_eq!(status, expected(is_local), "{host}");
            let status = judged(&token, &Method::GET, host, &authorized);
            assert_eq!(status, expected(is_taken_with_token), "{host} with token");
            assert_eq!(judged(&token, &Method::GET, host, &[]), 401, "{host}");
        }
    }

    #[test]
    fn writing_needs_a_token_on_this_machine_too() {
        let local = Guard::new(true, None, vec![]);
        assert_eq!(judged(&local, &Method::POST, "localhost", &[]), 403);
        let guard = Guard::new(true, Some("s3cret".into()), vec![]);
        assert_eq!(judged(&guard, &Method::POST, "localhost", &[]), 401);
        let token = [("authorization", "Bearer s3cret")];
        assert_eq!(judged(&guard, &Method::POST, "localhost", &token), 200);
    }

    #[test]
    fn tokens() {
        let guard = Guard::new(true, Some("s3cret".into()), vec![]);
        for (value, status) in [
            ("Bearer s3cret", 200),
            ("bearer s3cret", 200),
            ("Bearer s3cre", 401),
            ("Bearer s3cretx", 401),
            ("Bearer ", 401),
            ("Basic s3cret", 401),
            ("s3cret", 401),
        ] {
            let fields = [("authorization", value)];
            let judged = judged(&guard, &Method::GET, "localhost", &fields);
            assert_eq!(judged, status, "{value}");
        }
        let closed = Guard::new(false, None, vec![]);
        assert_eq!(judged(&closed, &Method::GET, "localhost", &[]), 403);
    }

    #[test]
    fn pages_of_other_sites() {
        let link: &[_] = &[
            (SEC_FETCH_SITE, "cross-site"),
            (SEC_FETCH_MODE, "navigate"),
            (SEC_FETCH_DEST, "document"),
        ];
        let frame: &[_] = &[
            (SEC_FETCH_SITE, "cross-site"),
            (SEC_FETCH_MODE, "navigate"),
            (SEC_FETCH_DEST, "iframe"),
        ];
        for (method, fields, is_of_another_site) in [
            (Method::GET, &[] as &[_], false),
            (Method::GET, &[(SEC_FETCH_SITE, "same-origin")], false),
            (Method::GET, &[(SEC_FETCH_SITE, "none")], false),
            (Method::GET, &[(SEC_FETCH_SITE, "cross-site")], true),
            (Method::GET, &[(SEC_FETCH_SITE, "same-site")], true),
            (Method::GET, link, false),
            (Method::POST, link, true),
            (Method::GET, frame, true),
            (Method::POST, &[("origin", "http://localhost:4101")], false),
            (Method::POST, &[("origin", "http://localhost:3000")], true),
            (Method::POST, &[("origin", "https://evil.example")], true),
            (Method::POST, &[("origin", "null")], true),
        ] {
            let asked = Asked {
                method: &method,
                headers: &headers(fields),
                host: "localhost:4101",
            };
            let judged = asked.is_of_another_site();
            assert_eq!(judged, is_of_another_site, "{method} {fields:?}");
        }
    }
}
