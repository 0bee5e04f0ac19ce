//! The dashboard in a real Chromium: looked at, clicked, typed into, in both sizes and both colours.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tollmesh_tests::aggregator::Aggregator;
use tollmesh_tests::browser::{Browser, Look, Page};
use tollmesh_tests::envoy_config::Ingest;
use tollmesh_tests::{artifacts, http, week};

const WIDE: Look = Look {
    width: 1_280,
    height: 900,
    dark: false,
};
const NARROW: Look = Look {
    width: 390,
    height: 844,
    dark: true,
};

/// As a value of a tag and as a tag's name: were it HTML anywhere, it would leave a mark.
const PAYLOAD: &str = r#""><img src=x onerror="window.marked=1"><script>window.marked=1</script>"#;

/// Of money, of requests by team, and one of whose tiers are reached.
const BUDGETS: &str = r#"
[[budget]]
name = "everything"
limit = "10 USD"
window = "month"
tiers = [ { at = "60%", do = "warn" } ]
[[budget]]
name = "each-team"
per = ["team"]
limit = "20000 requests"
window = "month"
"#;

const SETTLED: &str = "document.body.dataset.state === 'ready'";

/// An aggregator with two weeks of calls, and a browser.
struct Stand {
    browser: Browser,
    aggregator: Aggregator,
    runtime: Runtime,
    dir: TempDir,
}

impl Stand {
    /// `None` after a loud word where something is missing.
    fn start(more: &str) -> Option<Stand> {
        let (binary, chromium) = match (artifacts::tollmesh(), artifacts::chromium()) {
            (Ok(binary), Ok(chromium)) => (binary, chromium),
            (binary, chromium) => {
                let missing = [binary.err(), chromium.err()];
                let missing: Vec<String> = missing.into_iter().flatten().collect();
                artifacts::skip(&missing.join("; "));
                return None;
            }
        };
        let runtime = Runtime::new().expect("a runtime");
        let dir = tempfile::tempdir().expect("a directory");
        let aggregator = Aggregator::start(&binary, dir.path(), false, more, runtime.handle());
        let stand = Stand {
            browser: Browser::start(&chromium).expect("Chromium starts"),
            aggregator: aggregator.expect("the aggregator starts"),
            runtime,
            dir,
        };
        stand.send(&week::events(now_ms()));
        Some(stand)
    }

    fn send(&self, events: &[Value]) {
        let Ingest::Tcp(ingest) = self.aggregator.ingest() else {
            panic!("it listens on TCP");
        };
        let sent = self.runtime.block_on(week::send(*ingest, events));
        sent.unwrap_or_else(|error| panic!("{error:#}"));
    }

    fn operator(&self) -> SocketAddr {
        self.aggregator.operator()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.operator())
    }

    fn open(&self, look: Look, path: &str) -> Page {
        let page = self.browser.page(look).expect("a page");
        page.open(&self.url(path)).expect("it opens");
        page.sees(SETTLED);
        page
    }

    fn ask(&self, path: &str, accept: &str) -> String {
        let headers = [("accept", accept)];
        let asked = http::send(self.operator(), "GET", path, &headers, Default::default());
        let reply = self.runtime.block_on(asked).expect("an answer");
        assert_eq!(reply.status, 200, "{path}: {}", reply.text());
        reply.text()
    }

    /// Nothing went wrong, nothing came from elsewhere, nothing ran that should not.
    fn is_clean(&self, page: &Page) {
        assert_eq!(page.complaints(), Vec::<String>::new());
        let own = self.url("/");
        let blob = format!("blob:{own}");
        for url in page.requests() {
            // The browser has icons of its own for fields, written out in their URLs.
            let is_no_host = url.starts_with("data:image/svg+xml") || url == "about:blank";
            let is_own = url.starts_with(&own) || url.starts_with(&blob) || is_no_host;
            assert!(is_own, "asked for {url}");
        }
        assert_eq!(page.text("typeof window.marked"), "undefined");
        assert_eq!(
            page.text("String(document.querySelectorAll('img').length)"),
            "0"
        );
        let wider = "document.documentElement.scrollWidth > document.documentElement.clientWidth";
        assert_eq!(page.text(wider), "false", "wider than the window");
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970");
    i64::try_from(since.as_millis()).expect("before the year 292277026")
}

/// Where pictures are wanted: the folder that `TOLLMESH_SCREENSHOTS` names.
fn pictured(page: &Page, name: &str, whole: bool) {
    let Some(folder) = std::env::var_os("TOLLMESH_SCREENSHOTS") else {
        return;
    };
    let path: PathBuf = Path::new(&folder).join(name);
    let png = page.picture(whole).expect("a picture");
    std::fs::write(&path, png).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

/// A marked call, the dearest of all.
fn marked() -> Value {
    let tags = json!({ "team": PAYLOAD, "feature": PAYLOAD, "environment": PAYLOAD,
                       "session_id": PAYLOAD, PAYLOAD: PAYLOAD });
    json!({
        "event_id": "marked", "request_id": PAYLOAD, "trace_id": PAYLOAD,
        "time": week::instant(now_ms() - 1_000), "duration_ms": 1_200, "ttft_ms": 300,
        "provider": "openai", "api": "openai.chat", "host": "api.openai.com",
        "model_requested": "gpt-4o", "model": "gpt-4o", "stream": true,
        "usage": { "input": 90_000_000, "output": 100 }, "usage_source": "reported",
        "billable": true, "status": 200, "outcome": "success", "attempts": 1,
        "tags": tags, "source": { "namespace": PAYLOAD }, "finish_reason": PAYLOAD
    })
}

#[test]
fn figures_are_the_ledgers_and_lead_to_their_calls() {
    let Some(stand) = Stand::start("") else {
        return;
    };
    let page = stand.open(WIDE, "/?range=7d");
    pictured(&page, "dashboard-wide-light.png", false);
    page.look(Look { dark: true, ..WIDE }).expect("dark");
    page.sees("getComputedStyle(document.body).backgroundColor === 'rgb(17, 22, 29)'");
    pictured(&page, "dashboard-wide-dark.png", false);
    page.look(WIDE).expect("light");

    // What the tile shows whole is the ledger's sum, to the last digit.
    let from = page.text("performance.getEntriesByType('resource').map(e => new URL(e.name)).find(u => u.pathname === '/api/v1/spend').searchParams.get('from')");
    let sum: Value = serde_json::from_str(&stand.ask(&format!("/api/v1/spend?from={from}"), "*/*"))
        .expect("JSON");
    let cost = sum["items"][0]["cost_usd"].as_str().expect("a cost");
    assert_eq!(
        page.text("document.querySelector('#summary .figure').title"),
        format!("${cost}")
    );

    // A bar leads to its calls.
    let team = page.text("document.querySelector('#by-team td a').firstChild.data");
    page.click("#by-team td a").expect("a bar");
    page.sees(&format!("location.search.includes('where=team%3A{team}')"));
    page.sees(SETTLED);
    page.sees("document.activeElement.id === 'calls-title'");
    page.sees("document.querySelectorAll('#calls tbody tr').length > 5");
    let of_team = format!(
        "[...document.querySelectorAll('#calls tbody tr')].every(row => row.innerText.includes('team: {team}'))"
    );
    page.sees(&of_team);
    let costs = "[...document.querySelectorAll('#calls tbody td:nth-child(2) [title]')].map(it => it.title)";
    let costs = page.value(costs).expect("costs");
    let exact = |n: usize| -> f64 {
        let text = costs[n].as_str().expect("a cost").trim_start_matches('$');
        text.parse().expect("a number")
    };
    assert!(
        exact(0) >= exact(1) && exact(1) >= exact(2),
        "the dearest first: {costs}"
    );

    // A call, whole; closed by the keyboard.
    page.click("#calls tbody button").expect("a call");
    page.sees("document.getElementById('detail').open");
    page.sees("document.getElementById('detail').innerText.includes('cache_read')");
    page.press("Escape").expect("a key");
    page.sees("!document.getElementById('detail').open");

    // Back, to all teams.
    page.value("history.back()").expect("back");
    page.sees("location.search === '?range=7d'");
    page.sees(SETTLED);

    // A condition that is typed.
    page.click("#filter [name=name]").expect("a field");
    page.write("model").expect("typed");
    page.click("#filter [name=value]").expect("a field");
    page.write("gpt-4o").expect("typed");
    page.press("Enter").expect("a key");
    page.sees("location.search.includes('where=model%3Agpt-4o')");
    page.sees(SETTLED);
    page.sees("[...document.querySelectorAll('#by-model tbody tr')].length === 1");

    // CSV of what is shown.
    page.click("#by-feature .csv").expect("CSV");
    let csv = page.download("tollmesh-by-feature.csv");
    let asked = format!("/api/v1/spend?by=feature&from={from}&where=model:gpt-4o");
    assert_eq!(csv, stand.ask(&asked, "text/csv"));
    assert!(csv.starts_with("feature,requests,cost_usd,"), "{csv}");

    // The condition is taken away.
    page.click(".chip").expect("a condition");
    page.sees("location.search === '?range=7d'");
    page.sees(SETTLED);

    // The chart: a bar leads to the calls of its interval, a drag to the time between.
    page.sees("document.querySelector('#trend .u-over') !== null");
    let (x, y) = page.middle("#trend .u-over").expect("a chart");
    let height = page.value("document.querySelector('#trend .u-over').clientHeight / 2 - 3");
    page.click_at(x, y + height.expect("a height").as_f64().expect("a number"))
        .expect("a click");
    page.sees("location.search.includes('from=') && location.search.includes('to=')");
    page.sees(SETTLED);
    page.sees("document.activeElement.id === 'calls-title'");
    page.value("history.back()").expect("back");
    page.sees("location.search === '?range=7d'");
    page.sees(SETTLED);
    page.sees("document.querySelector('#trend .u-over') !== null");
    let (x, y) = page.middle("#trend .u-over").expect("a chart");
    page.drag((x - 200.0, y), (x + 100.0, y)).expect("a drag");
    page.sees("location.search.includes('from=') && location.search.includes('to=')");
    page.sees(SETTLED);

    // Sessions and their calls.
    page.open(&stand.url("/?range=7d&list=sessions&sort=requests"))
        .expect("it opens");
    page.sees(SETTLED);
    page.click("#calls tbody td a").expect("a session");
    page.sees("location.search.includes('where=session_id%3Asession-')");
    page.sees(SETTLED);
    page.sees("document.querySelectorAll('#calls tbody tr').length > 0");
    stand.is_clean(&page);
}

#[test]
fn a_phone_and_a_keyboard_are_enough() {
    let Some(stand) = Stand::start("") else {
        return;
    };
    let page = stand.open(NARROW, "/?range=7d");
    pictured(&page, "dashboard-narrow-dark.png", false);
    stand.is_clean(&page);
    // By keys alone: over the skip link, on to the figures, and into a bar.
    page.value("document.activeElement.blur()")
        .expect("no focus");
    page.press("Tab").expect("a key");
    page.sees("document.activeElement.className === 'skip'");
    page.press("Enter").expect("a key");
    page.sees("document.activeElement.id === 'panels'");
    for _ in 0..60 {
        if page.text("String(document.activeElement.matches('#by-team td a'))") == "true" {
            break;
        }
        page.press("Tab").expect("a key");
    }
    page.sees("document.activeElement.matches('#by-team td a')");
    page.press("Enter").expect("a key");
    page.sees("location.search.includes('where=team%3A')");
    page.sees(SETTLED);
    page.sees("document.activeElement.id === 'calls-title'");
    stand.is_clean(&page);
    page.look(Look {
        dark: false,
        ..NARROW
    })
    .expect("light");
    page.sees("getComputedStyle(document.body).backgroundColor === 'rgb(246, 247, 249)'");
    stand.is_clean(&page);
}

#[test]
fn text_from_headers_stays_text() {
    let Some(stand) = Stand::start("") else {
        return;
    };
    stand.send(&[marked()]);
    for look in [WIDE, NARROW] {
        let by = "by=session_id&tag=environment";
        let page = stand.open(look, &format!("/?{by}"));
        page.sees("document.getElementById('by-team').innerText.includes('onerror=')");
        page.sees("document.getElementById('trend').innerText.includes('onerror=')");
        page.sees("document.getElementById('comparison').innerText.includes('onerror=')");
        page.click("#calls tbody button").expect("the dearest call");
        page.sees("document.getElementById('detail').innerText.includes('<script>')");
        page.press("Escape").expect("a key");
        // As a condition it finds its call, and stands in a chip.
        page.click("#by-feature td a").expect("its bar");
        page.sees(SETTLED);
        page.sees("document.querySelector('.chip').innerText.includes('onerror=')");
        page.sees("document.querySelectorAll('#calls tbody tr').length === 1");
        for list in ["sessions", "traces"] {
            page.open(&stand.url(&format!("/?list={list}")))
                .expect("it opens");
            page.sees(SETTLED);
            page.sees("document.getElementById('calls').innerText.includes('onerror=')");
        }
        stand.is_clean(&page);
    }
    // Nor does a URL become anything but text.
    let page = stand.open(
        WIDE,
        "/?by=%3Cimg%20src%3Dx%3E&tag=%3Cb%3E&where=%3Cimg%20src=x%20onerror=alert(1)%3E:%3Cb%3E",
    );
    stand.is_clean(&page);
}

#[test]
fn budgets_are_shown_where_there_are_some() {
    let Some(mut stand) = Stand::start("") else {
        return;
    };
    let page = stand.open(WIDE, "/");
    page.sees("document.getElementById('budgets').hidden");
    page.close().expect("it closes");

    stand.send(&[marked()]);
    let file = stand.dir.path().join("budgets.toml");
    std::fs::write(&file, BUDGETS).expect("a file");
    let config = stand.aggregator.config();
    let text = std::fs::read_to_string(config).expect("a file");
    std::fs::write(config, format!("budgets = {file:?}\n{text}")).expect("a file");
    stand.aggregator.restart().expect("it starts again");

    let page = stand.open(WIDE, "/");
    let answer: Value = serde_json::from_str(&stand.ask("/api/v1/budgets", "*/*")).expect("JSON");
    let items = answer["items"].as_array().expect("budgets");
    assert!(items.len() > 4, "{answer}");
    let shown = page
        .value("[...document.querySelectorAll('#budgets tbody tr')].map(row => row.textContent)");
    let shown = shown.expect("rows");
    assert_eq!(shown.as_array().map(Vec::len), Some(items.len()), "{shown}");
    for (n, item) in items.iter().enumerate() {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let row = text(&shown[n]);
        assert!(row.contains(&text(&item["budget"])), "{row}");
        for value in item["key"].as_object().expect("a key").values() {
            assert!(row.contains(&text(value)), "{row}");
        }
        assert!(
            row.contains(
                &format!("{} {}", text(&item["tier"]), text(&item["action"]))
                    .trim()
                    .to_owned()
            ),
            "{row} {item}"
        );
    }
    let first = "document.querySelector('#budgets tbody td:nth-child(2) [title]').title";
    let spent = items[0]["spent"].as_str().expect("an amount");
    assert_eq!(page.text(first), format!("${spent}"));
    page.sees("document.getElementById('budgets').innerText.includes('onerror=')");
    stand.is_clean(&page);
}

#[test]
fn a_question_that_cannot_be_asked_is_told_and_can_be_changed() {
    let Some(stand) = Stand::start("") else {
        return;
    };
    let page = stand.open(WIDE, "/?by=requests");
    page.sees(
        "document.querySelector('#trend .status').innerText.includes('is a sum of the answer')",
    );
    page.click("#trend nav a").expect("a choice");
    page.sees("document.querySelector('#trend .legend') !== null");
    page.sees("document.querySelector('#trend .status').innerText === ''");
    page.open(&stand.url("/?from=2026-11-22T00:00Z&to=2026-11-21T00:00Z"))
        .expect("it opens");
    page.sees("document.getElementById('panels').innerText.includes('has no length')");
    for complaint in page.complaints() {
        assert!(complaint.contains("400"), "{complaint}");
    }
}

#[test]
fn the_token_is_asked_for_kept_in_the_tab_and_forgotten() {
    let dir = tempfile::tempdir().expect("a directory");
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, "s3cret-of-operators\n").expect("a file");
    let Some(stand) = Stand::start(&format!("token_file = {token_file:?}")) else {
        return;
    };
    let page = stand.browser.page(WIDE).expect("a page");
    page.open(&stand.url("/?range=7d")).expect("it opens");
    let write = |token: &str| {
        page.sees("document.activeElement.id === 'token'");
        page.write(token).expect("typed");
        page.click(".sign-in button").expect("a button");
    };
    write("wrong");
    page.sees("document.getElementById('sign-in').innerText.includes('not the token')");
    assert!(!page.shown().contains('$'), "{}", page.shown());
    write("s3cret-of-operators");
    page.sees(SETTLED);
    page.sees("document.querySelector('#summary .figure').innerText.startsWith('$')");
    page.value("location.reload()").expect("again");
    page.sees(SETTLED);
    page.sees("document.querySelector('#summary .figure')?.innerText.startsWith('$') ?? false");
    assert_eq!(page.text("location.search"), "?range=7d");
    assert_eq!(page.text("document.cookie"), "");
    assert_eq!(page.text("String(localStorage.length)"), "0");
    assert!(page.requests().iter().all(|url| !url.contains("s3cret")));

    // What became of calls, and what one costs.
    let bearer = ("authorization", "Bearer s3cret-of-operators");
    let send = |method: &str, path: &str, body: String| -> Value {
        let headers = [bearer, ("content-type", "application/json")];
        let asked = http::send(stand.operator(), method, path, &headers, body.into());
        let reply = stand.runtime.block_on(asked).expect("an answer");
        assert_eq!(reply.status, 200, "{}", reply.text());
        reply.json().expect("JSON")
    };
    let calls = send(
        "GET",
        "/api/v1/requests?limit=6&where=feature:triage",
        String::new(),
    );
    let calls = calls["items"].as_array().expect("calls").iter();
    let told: Vec<Value> = calls
        .map(|call| json!({ "request_id": call["request_id"], "outcome": "accepted" }))
        .collect();
    send("POST", "/api/v1/outcomes", json!(told).to_string());
    page.click("#refresh").expect("a button");
    page.sees(SETTLED);
    page.middle("#outcomes").expect("it is far below");
    page.sees("document.getElementById('outcomes').innerText.includes('accepted')");
    let cells = "[...document.querySelector('#outcomes tbody tr').cells].map(it => it.textContent)";
    let cells = page.value(cells).expect("a row");
    assert_eq!(cells[0], "triage");
    assert_eq!((&cells[1], &cells[2]), (&json!("accepted"), &json!("6")));
    assert!(
        cells[3]
            .as_str()
            .is_some_and(|each| each.starts_with("$0.0")),
        "{cells}"
    );

    // Another tab is asked again.
    let other = stand.browser.page(WIDE).expect("a page");
    other.open(&stand.url("/")).expect("it opens");
    other.sees("document.activeElement?.id === 'token'");

    page.click("#sign-out").expect("a button");
    page.sees("document.activeElement.id === 'token'");
    assert_eq!(page.text("String(sessionStorage.length)"), "0");
    // The browser tells of each 401, and of nothing else.
    for complaint in page.complaints() {
        assert!(complaint.contains("401"), "{complaint}");
    }
}
