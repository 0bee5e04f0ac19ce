//! A flood of tag values: `/metrics` stays within its bound, and the ledger keeps every value.

use tempfile::TempDir;
use tokio::runtime::Runtime;
use tollmesh_tests::aggregator::Aggregator;
use tollmesh_tests::envoy_config::Ingest;
use tollmesh_tests::{artifacts, http};

/// Calls, each with a team and a feature that no other has: a million distinct values of tags that
/// are labels.
const N_CALLS: usize = 500_000;
/// Events in a batch, as a busy filter sends them.
const BATCH_EVENTS: usize = 2_000;
/// What `metrics.max_series` is where nothing is said.
const SERIES_MAX: usize = 10_000;
/// The most series that are not of calls: gauges, and counters of the aggregator's own doings.
const OWN_SERIES_MAX: usize = 100;
/// Rows asked for at a time.
const PAGE_ROWS: usize = 1_000;

/// An aggregator alone, and who speaks to it.
struct Flooded {
    aggregator: Aggregator,
    runtime: Runtime,
    _dir: TempDir,
}

impl Flooded {
    fn start(toml: &str) -> Option<Flooded> {
        let binary = artifacts::tollmesh()
            .inspect_err(|missing| artifacts::skip(missing))
            .ok()?;
        let runtime = Runtime::new().expect("a runtime");
        let dir = tempfile::tempdir().expect("a directory");
        let aggregator = Aggregator::start(&binary, dir.path(), false, toml, runtime.handle());
        Some(Flooded {
            aggregator: aggregator.expect("it starts"),
            runtime,
            _dir: dir,
        })
    }

    /// Sends a call for each number, with a team and a feature that no other call has.
    fn flood(&self, n_values: usize) {
        let Ingest::Tcp(ingest) = self.aggregator.ingest() else {
            panic!("it listens on a port");
        };
        for first in (0..n_values).step_by(BATCH_EVENTS) {
            let numbers = first..n_values.min(first + BATCH_EVENTS);
            let n_events = numbers.len();
            let events: Vec<String> = numbers.map(event).collect();
            let batch = format!(r#"{{"v":1,"node":{{}},"events":[{}]}}"#, events.join(","));
            let reply = self
                .runtime
                .block_on(http::post(*ingest, "/v1/events", batch.into()))
                .expect("an answer");
            assert_eq!(reply.status, 200, "{}", reply.text());
            let reply = reply.json().expect("JSON");
            assert_eq!(reply["accepted"], n_events, "{reply}");
        }
    }

    /// Asserts that `/metrics` is within its bound and still counts every call.
    #[track_caller]
    fn metrics_are_bounded(&self, n_calls: usize) {
        let metrics = self.aggregator.metrics().expect("a scrape");
        let series = metrics.0.lines().filter(|line| !line.starts_with('#'));
        let (of_calls, own): (Vec<&str>, Vec<&str>) =
            series.partition(|line| line.contains("provider="));
        assert!(of_calls.len() <= SERIES_MAX, "{} series", of_calls.len());
        assert!(own.len() <= OWN_SERIES_MAX, "{} series", own.len());
        let requests = metrics.sum("tollmesh_requests_total", &[]);
        assert_eq!(requests, n_calls as f64);
        let input = metrics.sum("tollmesh_tokens_total", &["bucket=\"input\""]);
        assert_eq!(input, (0..n_calls).map(input_of).sum::<u64>() as f64);
        let overflow = metrics.sum("tollmesh_requests_total", &["team=\"__other__\""]);
        assert!(overflow > 0.0, "nothing overflowed");
    }

    /// Asserts that each call's row is there once, with its own tags and tokens.
    #[track_caller]
    fn ledger_has_every_value(&self, n_values: usize) {
        let mut seen = vec![false; n_values];
        let mut cursor = String::new();
        loop {
            let path = format!("/api/v1/requests?limit={PAGE_ROWS}{cursor}");
            let reply = http::get(self.aggregator.operator(), &path);
            let page = self.runtime.block_on(reply).expect("an answer").text();
            for row in page.split(r#""buckets":{"input":"#).skip(1) {
                let n = number_after(row, r#""team":"team-"#);
                assert!(!seen[n], "two rows of {n}");
                seen[n] = true;
                assert_eq!(number_after(row, r#""feature":"feature-"#), n);
                assert_eq!(number_after(row, "") as u64, input_of(n), "{row}");
            }
            match page.split_once(r#""next_cursor":""#) {
                Some((_, next)) => cursor = format!("&cursor={}", until_quote(next)),
                None => break,
            }
        }
        let missing = seen.iter().position(|seen| !seen);
        assert_eq!(missing, None, "the first value without a row");
    }
}

/// The number that stands in `text` behind `key`. A page is read as text: a million rows as trees
/// would take the test longer than the ledger takes to write them.
#[track_caller]
fn number_after(text: &str, key: &str) -> usize {
    let (_, behind) = text
        .split_once(key)
        .unwrap_or_else(|| panic!("no {key} in {text}"));
    let end = behind.find(|c: char| !c.is_ascii_digit());
    let digits = &behind[..end.unwrap_or(behind.len())];
    digits
        .parse()
        .unwrap_or_else(|_| panic!("no number behind {key} in {text}"))
}

fn until_quote(text: &str) -> &str {
    text.split('"').next().unwrap_or_default()
}

/// An event, as text for the same reason.
fn event(n: usize) -> String {
    format!(
        r#"{{"event_id":"flood-{n}","time":"2026-06-01T12:00:00Z","provider":"anthropic",
        "api":"anthropic.messages","host":"api.anthropic.com","model":"claude-sonnet-4-5",
        "usage":{{"input":{},"output":1}},"usage_source":"reported","billable":true,"status":200,
        "outcome":"success","tags":{{"team":"team-{n}","feature":"feature-{n}"}}}}"#,
        input_of(n)
    )
}

fn input_of(n: usize) -> u64 {
    (n % 1_000) as u64 + 1
}

#[test]
fn a_million_tag_values_leave_metrics_bounded_and_the_ledger_whole() {
    // As many values as a label may have, so that it is the series' bound that holds.
    let toml = "[metrics]\nmax_values_per_label = 10000";
    let Some(mut flooded) = Flooded::start(toml) else {
        return;
    };
    flooded.flood(N_CALLS);
    flooded.metrics_are_bounded(N_CALLS);
    flooded.ledger_has_every_value(N_CALLS);
    flooded.aggregator.restart().expect("it starts again");
    flooded.metrics_are_bounded(N_CALLS);
}

#[test]
fn under_the_default_bounds_a_label_keeps_its_first_values() {
    let Some(flooded) = Flooded::start("") else {
        return;
    };
    let n_values = 4_000;
    flooded.flood(n_values);
    flooded.metrics_are_bounded(n_values);
    let metrics = flooded.aggregator.metrics().expect("a scrape");
    let own = metrics.sum("tollmesh_requests_total", &["team=\"team-"]);
    let named = metrics.0.lines().filter(|line| {
        line.starts_with("tollmesh_requests_total{") && line.contains("team=\"team-")
    });
    // `metrics.max_values_per_label` is 100 where nothing is said.
    assert_eq!((named.count(), own), (100, 100.0));
    flooded.ledger_has_every_value(n_values);
}
