//! The operator side from beyond this machine: who is refused, page by page.

use std::net::{TcpStream, UdpSocket};
use std::path::Path;

use crate::process::{Answer, Process, ask, config, event};

const TOKEN: &str = "Authorization: Bearer s3cret\r\n";

/// Everything that a request can be made to: method and path, of data and of the page.
const DATA: &[(&str, &str)] = &[
    ("GET", "/api/v1"),
    ("GET", "/api/v1/spend?by=team"),
    ("GET", "/api/v1/spend?by=team&from=7d&compare=previous"),
    ("GET", "/api/v1/requests"),
    ("GET", "/api/v1/traces"),
    ("GET", "/api/v1/sessions"),
    ("GET", "/api/v1/outcomes"),
    ("POST", "/api/v1/outcomes"),
    ("GET", "/api/v1/coverage"),
    ("GET", "/api/v1/prices"),
    ("POST", "/api/v1/reprice?from=2026-11-01"),
    ("GET", "/api/v1/budgets"),
    ("GET", "/api/v1/nonesuch"),
    ("GET", "/nonesuch"),
    ("DELETE", "/api/v1/spend"),
];

/// Files of the dashboard: they hold no data.
const FILES: &[(&str, &str)] = &[
    ("GET", "/dashboard/main.js"),
    ("GET", "/dashboard/style.css"),
    ("GET", "/dashboard/uplot/uPlot.iife.min.js"),
];

/// Ways out of a folder, as browsers would never send them.
const TRAVERSALS: &[&str] = &[
    "/dashboard/../../etc/passwd",
    "/dashboard/..%2f..%2fetc/passwd",
    "/dashboard/%2e%2e/%2e%2e/etc/passwd",
    "/dashboard/..%5c..%5cetc%5cpasswd",
    "/dashboard//etc/passwd",
    "/dashboard/%00",
    "/dashboard/mod.rs",
    "/dashboard/",
    "/../tollmesh.toml",
    "/%2e%2e/state/ledger.db",
    "/api/v1/../../etc/passwd",
    "//etc/passwd",
    "/dashboard/main.js/../../../etc/passwd",
];

/// What a browser says of a page elsewhere that had it ask.
const OTHER_SITES: &[&str] = &[
    "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\n",
    "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\nOrigin: https://evil.example\r\n",
    "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n",
    "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: cors\r\n",
    "Origin: https://evil.example\r\n",
    "Origin: null\r\n",
];

/// An operator side that is reachable from elsewhere, and an address of this machine that is not
/// loopback; where it has none, loopback: how it is judged depends on where it listens.
struct Reachable {
    host: String,
    _process: Process,
    _dir: tempfile::TempDir,
}

impl Reachable {
    fn start(more: &str) -> Reachable {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "s3cret\n").unwrap();
        let file = config(dir.path(), "127.0.0.1:0", "0.0.0.0:0", "");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text + &more.replace("DIR", &shown(dir.path()))).unwrap();
        let process = Process::start_with(&file);
        let (_, port) = process.operator_address().rsplit_once(':').unwrap();
        let host = format!("{}:{port}", own_address());
        Reachable {
            host,
            _process: process,
            _dir: dir,
        }
    }

    fn ask(&self, method: &str, path: &str, host: &str, headers: &str) -> Answer {
        let stream = TcpStream::connect(&self.host).unwrap();
        ask(
            stream,
            method,
            path,
            &format!("Host: {host}\r\n{headers}"),
            "",
        )
    }
}

fn shown(dir: &Path) -> String {
    dir.display().to_string()
}

/// The address that packets to elsewhere would leave from; none is sent to find out.
fn own_address() -> String {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    let found = socket
        .connect("192.0.2.1:9")
        .and_then(|()| socket.local_addr());
    found.map_or("127.0.0.1".to_owned(), |address| address.ip().to_string())
}

fn is_file(path: &str) -> bool {
    FILES.iter().any(|(_, file)| *file == path)
}

#[test]
fn without_a_token_nothing_is_served_beyond_loopback() {
    let there = Reachable::start("");
    for (method, path) in DATA.iter().chain(FILES).chain([&("GET", "/")]) {
        for headers in ["", TOKEN, "Authorization: Basic czNjcmV0\r\n"] {
            let answer = there.ask(method, path, &there.host, headers);
            assert_eq!(answer.status, 403, "{method} {path}");
            assert!(
                answer.body.contains("set operator.token_file"),
                "{}",
                answer.body
            );
        }
    }
    // Scrapers and probes carry no token; what they are told names no call.
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(
            there.ask("GET", path, &there.host, "").status,
            200,
            "{path}"
        );
    }
}

#[test]
fn who_lacks_the_token_is_refused() {
    let there = Reachable::start("token_file = \"DIR/token\"\n");
    for (method, path) in DATA.iter().chain([&("GET", "/")]) {
        for headers in [
            "",
            "Authorization: Bearer wrong\r\n",
            "Authorization: Bearer s3cret2\r\n",
            "Authorization: Bearer \r\n",
            "Authorization: Basic czNjcmV0\r\n",
            "Cookie: token=s3cret\r\n",
            "X-Forwarded-For: 127.0.0.1\r\n",
        ] {
            let answer = there.ask(method, path, &there.host, headers);
            assert_eq!(answer.status, 401, "{method} {path} {headers}");
            assert!(answer.head.contains("www-authenticate: bearer"));
        }
    }
    for path in [
        "/api/v1/spend?token=s3cret",
        "/?token=s3cret&access_token=s3cret",
    ] {
        assert_eq!(
            there.ask("GET", path, &there.host, "").status,
            401,
            "{path}"
        );
    }
    let page = there.ask("GET", "/", &there.host, "");
    assert!(
        page.body.contains("<main id=\"panels\""),
        "it asks for the token"
    );
    for (method, path) in DATA.iter().chain(FILES).chain([&("GET", "/")]) {
        let status = there.ask(method, path, &there.host, TOKEN).status;
        assert!(![401, 403].contains(&status), "{method} {path}: {status}");
    }
}

#[test]
fn other_sites_and_other_hosts_are_refused_with_the_token_too() {
    let there = Reachable::start("token_file = \"DIR/token\"\nhosts = [\"spend.example\"]\n");
    for (method, path) in DATA.iter().chain(FILES).chain([&("GET", "/")]) {
        for headers in OTHER_SITES {
            let answer = there.ask(method, path, &there.host, &format!("{TOKEN}{headers}"));
            assert_eq!(answer.status, 403, "{method} {path} {headers}");
        }
        for host in [
            "evil.example",
            "evil.example:4101",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "spend.example.evil.example",
            "",
        ] {
            let answer = there.ask(method, path, host, TOKEN);
            assert_eq!(answer.status, 403, "{method} {path} at {host:?}");
            // Who has no token is not told more.
            let status = there.ask(method, path, host, "").status;
            let expected = if is_file(path) || *path == "/" {
                403
            } else {
                401
            };
            assert_eq!(status, expected, "{method} {path} at {host:?}");
        }
    }
    for path in ["/metrics", "/healthz", "/readyz"] {
        for headers in OTHER_SITES {
            let answer = there.ask("GET", path, &there.host, headers);
            assert_eq!(answer.status, 403, "{path} {headers}");
        }
    }
    for host in [
        "spend.example",
        "SPEND.example:443",
        "tollmesh.monitoring.svc:4101",
    ] {
        let answer = there.ask("GET", "/api/v1/spend", host, TOKEN);
        assert_eq!(answer.status, 200, "{host}");
    }
}

#[test]
fn no_path_leads_out_of_the_dashboard() {
    for more in ["", "token_file = \"DIR/token\"\n"] {
        let there = Reachable::start(more);
        for path in TRAVERSALS {
            for headers in ["", TOKEN] {
                let answer = there.ask("GET", path, &there.host, headers);
                let may = if more.is_empty() {
                    [403, 403]
                } else {
                    [401, 404]
                };
                assert!(may.contains(&answer.status), "{path}: {}", answer.status);
                assert!(!answer.body.contains("root:"), "{path}");
            }
        }
    }
}

#[test]
fn answers_tell_browsers_what_they_may_do() {
    let there = Reachable::start("token_file = \"DIR/token\"\n");
    for (_, path) in FILES
        .iter()
        .chain([&("GET", "/"), &("GET", "/api/v1/spend")])
    {
        let head = there.ask("GET", path, &there.host, TOKEN).head;
        let policy = head
            .lines()
            .find(|line| line.starts_with("content-security-policy:"));
        let policy = policy.unwrap_or_else(|| panic!("{path} has no policy"));
        assert!(policy.contains("default-src 'none'"), "{policy}");
        assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(
            !policy.contains("unsafe") && !policy.contains('*'),
            "{policy}"
        );
        assert!(!policy.contains("http"), "{policy}");
        for line in [
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "x-frame-options: deny",
            "cross-origin-resource-policy: same-origin",
        ] {
            assert!(head.contains(line), "{path}: {line}");
        }
        for never in ["access-control-", "set-cookie", "server:"] {
            assert!(!head.contains(never), "{path}: {never}");
        }
    }
    // A file is sent again only where it is another one.
    let file = there.ask("GET", "/dashboard/main.js", &there.host, "");
    let tag = file
        .head
        .lines()
        .find_map(|line| line.strip_prefix("etag: "));
    let same = format!("If-None-Match: {}\r\n", tag.unwrap());
    let again = there.ask("GET", "/dashboard/main.js", &there.host, &same);
    assert_eq!((again.status, again.body.as_str()), (304, ""));
}

#[test]
fn on_loopback_scrapers_are_answered_and_names_of_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    for path in ["/metrics", "/healthz", "/readyz"] {
        for (host, status) in [
            ("127.0.0.1:4101", 200),
            ("localhost", 200),
            ("[::1]:4101", 200),
            ("evil.example:4101", 403),
            ("127.0.0.1.evil.example", 403),
        ] {
            let answer = process.ask(path, &format!("Host: {host}\r\n"));
            assert_eq!(answer.status, status, "{path} at {host}");
        }
    }
}

#[test]
fn no_page_forges_events_through_a_browser() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    let batch = format!(
        r#"{{"v":1,"node":{{"id":"page"}},"events":[{}]}}"#,
        event("forged", "eng")
    );
    for headers in OTHER_SITES
        .iter()
        .chain(&["Sec-Fetch-Site: same-origin\r\n"])
    {
        for (method, path) in [
            ("POST", "/v1/events"),
            ("POST", "/v1/reservations"),
            ("GET", "/v1/decisions"),
        ] {
            let stream = TcpStream::connect(process.ingest_address()).unwrap();
            let headers = format!("Host: 127.0.0.1:4100\r\n{headers}");
            let answer = ask(stream, method, path, &headers, &batch);
            assert_eq!(answer.status, 403, "{method} {path} {headers}");
        }
    }
    assert_eq!(
        process.json("/api/v1/requests")["items"],
        serde_json::json!([])
    );
}

/// What nobody can write needs no token that says so: the page does not have the method.
#[test]
fn pages_that_are_only_read_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    for (_, path) in DATA.iter().filter(|(method, path)| {
        let path = path.split('?').next().unwrap_or_default();
        let is_written = DATA.iter().any(|(own, other)| {
            *own == "POST" && other.split('?').next().unwrap_or_default() == path
        });
        *method == "GET" && !is_written && !path.ends_with("nonesuch")
    }) {
        let answer = process.post(path, None);
        assert_eq!(answer.status, 405, "{path}: {}", answer.body);
    }
    for path in ["/api/v1/outcomes", "/api/v1/reprice?from=1h"] {
        assert_eq!(process.post(path, None).status, 403, "{path}");
    }
}
