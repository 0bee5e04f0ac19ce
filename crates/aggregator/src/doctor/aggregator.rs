//! The aggregator: whether it is there, ready, told of calls, and knows what they cost.

use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use serde_json::Value;

use crate::client;
use crate::clock;
use crate::config::{Config, Listen, budgets};
use crate::doctor::Findings;
use crate::doctor::exposition::Exposition;

/// How long an answer of a healthy aggregator may take, many times over.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Prices older than this have changed more often than not.
const PRICES_AGE_DAYS_MAX: i64 = 90;
const DAY_SECONDS: f64 = 86_400.0;

/// Filters send at once; a service whose calls are further apart has no hurry to be diagnosed.
const BATCH_AGE_SECONDS_MAX: i64 = 900;

/// Looks at the aggregator of that configuration.
pub async fn examine(config: &Config, findings: &mut Findings) {
    look_at_files(config, findings);
    let listen = &config.operator.listen;
    let Some(readiness) = get(listen, "/readyz").await.map_or_else(
        |error| {
            findings.fail(
                "aggregator",
                format!("nothing answers at {listen}: {error:#}"),
                "start `tollmesh serve`, or name its file with --config; in Kubernetes run this in \
                 the aggregator's container",
            );
            None
        },
        Some,
    ) else {
        return;
    };
    judge_readiness(&readiness, findings);
    judge_ingest(
        &config.ingest,
        get(&config.ingest, "/v1/decisions").await,
        findings,
    );
    match get(listen, "/metrics").await {
        Ok((StatusCode::OK, body)) => {
            let scrape = Exposition(String::from_utf8_lossy(&body).into_owned());
            judge_metrics(&scrape, clock::now().as_unix_ms() / 1_000, findings);
        }
        other => findings.warn(
            "metrics",
            format!("/metrics of {listen} cannot be read: {other:?}"),
            "look into the aggregator's log",
        ),
    }
}

async fn get(listen: &Listen, path: &str) -> anyhow::Result<(StatusCode, Bytes)> {
    let request = Request::get(path)
        .header(header::HOST, "localhost")
        .body(Full::<Bytes>::default())?;
    client::ask(listen, request, ANSWER_TIME_MAX).await
}

/// What the aggregator would be told by its files if it started now.
fn look_at_files(config: &Config, findings: &mut Findings) {
    if let Some(file) = &config.budgets {
        let name = file.display();
        match budgets::load(file) {
            Ok(_) => findings.ok("budgets", format!("{name} can be read")),
            Err(error) => findings.fail(
                "budgets",
                format!("{error}"),
                "repair the file; a running aggregator keeps the former one. `tollmesh check` tells \
                 all mistakes",
            ),
        }
    }
    if let Some(file) = &config.operator.token_file
        && let Err(error) = crate::serve::read_token(file)
    {
        findings.fail(
            "token",
            format!("{error:#}"),
            "repair the file that it names",
        );
    }
}

fn judge_readiness((status, body): &(StatusCode, Bytes), findings: &mut Findings) {
    let detail: Value = serde_json::from_slice(body).unwrap_or_default();
    let error_at = |pointer: &str| detail.pointer(pointer).and_then(Value::as_str);
    if *status == StatusCode::OK {
        let rows = detail
            .pointer("/ledger/rows")
            .and_then(Value::as_u64)
            .unwrap_or(0);
        findings.ok("aggregator", format!("ready, {rows} calls in its ledger"));
    } else {
        let why = error_at("/ledger/failing/error").unwrap_or("it does not say why");
        findings.fail(
            "aggregator",
            format!("answers {status}: {why}"),
            "make room on the disk of state_dir, or give it one that works; events wait in the \
             filter meanwhile, 8 MiB a worker",
        );
    }
    if detail.pointer("/ledger/set_aside").and_then(Value::as_u64) > Some(0) {
        findings.warn(
            "ledger",
            "a damaged ledger was set aside since the aggregator began",
            "import Envoy's access log (`tollmesh import`), and look at the disk",
        );
    }
    if detail.pointer("/ledger/moved").and_then(Value::as_u64) > Some(0) {
        findings.warn(
            "ledger",
            "its files were moved, deleted or overwritten since the aggregator began",
            "the log says where what it had recorded is now; stop whatever does that to state_dir, and \
             stop the aggregator before its files are touched",
        );
    }
    match error_at("/prices/refused") {
        Some(error) => findings.fail(
            "prices",
            format!("older prices stay in force: {error}"),
            "repair that file; it is read again at once",
        ),
        None => findings.ok(
            "prices",
            format!(
                "of {}",
                error_at("/prices/checked").unwrap_or("unknown date")
            ),
        ),
    }
    for (key, check) in [("forwarding", "forwarding"), ("exporting", "exporting")] {
        if let Some(error) = error_at(&format!("/{key}/failing/error")) {
            findings.warn(
                check,
                error,
                "repair the way there, or remove the section; calls wait in the ledger",
            );
        }
    }
}

fn judge_ingest(
    listen: &Listen,
    answer: anyhow::Result<(StatusCode, Bytes)>,
    findings: &mut Findings,
) {
    match answer {
        Ok((StatusCode::OK, _)) => findings.ok("ingest", format!("takes events at {listen}")),
        Ok((status, body)) => findings.fail(
            "ingest",
            format!(
                "{listen} answers {status}: {}",
                String::from_utf8_lossy(&body)
            ),
            "another program listens there; choose another ingest.listen, and give the cluster in \
             Envoy the same address",
        ),
        Err(error) => findings.fail(
            "ingest",
            format!("{listen} cannot be reached: {error:#}"),
            "a unix socket must lie on a volume that proxy and aggregator both mount, and be \
             writable for the proxy's user",
        ),
    }
}

fn judge_metrics(scrape: &Exposition, now_seconds: i64, findings: &mut Findings) {
    judge_versions(scrape, findings);
    let sum = |name: &str| scrape.sum(name).unwrap_or(0.0);
    let last = sum("tollmesh_last_batch_timestamp_seconds") as i64;
    let age_seconds = now_seconds.saturating_sub(last);
    if last == 0 {
        findings.warn(
            "events",
            "no filter has sent anything since the aggregator began",
            "make a call through Envoy; if that changes nothing, see what is said of Envoy \
             (--envoy)",
        );
    } else if age_seconds > BATCH_AGE_SECONDS_MAX {
        let what = format!("the last event came {} minutes ago", age_seconds / 60);
        findings.warn(
            "events",
            what,
            "if there are calls, see what is said of Envoy (--envoy)",
        );
    } else {
        let what = format!(
            "{} taken, the last {age_seconds} s ago",
            sum("tollmesh_events_accepted_total")
        );
        findings.ok("events", what);
    }
    for (name, what, remedy) in COUNTED {
        let n = sum(name);
        if n > 0.0 {
            findings.warn("events", format!("{n} {what}"), remedy);
        }
    }
    let unpriced = sum("tollmesh_unpriced_requests_total");
    if unpriced > 0.0 {
        let models = scrape.label_values("tollmesh_unpriced_requests_total", "model");
        findings.warn(
            "prices",
            format!("{unpriced} calls have no price: {}", some_of(&models)),
            "give the models rows (`overrides` in tollmesh.toml), then run `tollmesh reprice`",
        );
    }
    let age_days = (sum("tollmesh_price_table_age_seconds") / DAY_SECONDS) as i64;
    if age_days > PRICES_AGE_DAYS_MAX {
        let what = format!("the newest price was checked {age_days} days ago");
        findings.warn(
            "prices",
            what,
            "upgrade, or lay newer files beside the shipped ones",
        );
    }
}

/// Counters that should be zero.
const COUNTED: &[(&str, &str, &str)] = &[
    (
        "tollmesh_events_rejected_total",
        "events are in quarantine",
        "run filter and aggregator of the same release",
    ),
    (
        "tollmesh_events_dropped_total",
        "events were dropped by filters whose queues were full",
        "import Envoy's access log (`tollmesh import`)",
    ),
    (
        "tollmesh_batches_refused_total",
        "batches could not be read: of another wire version, or not a filter's",
        "run filter and aggregator of the same release",
    ),
];

fn judge_versions(scrape: &Exposition, findings: &mut Findings) {
    let own = env!("CARGO_PKG_VERSION");
    let running = scrape.label_values("tollmesh_build_info", "version");
    let filters = scrape.label_values("tollmesh_filter_batches_total", "version");
    let is_other = |version: &&String| **version != own;
    if let Some(version) = running.iter().find(is_other) {
        let what = format!("the aggregator is {version}, this command is {own}");
        findings.warn(
            "versions",
            what,
            "run the command of the aggregator's own release",
        );
        return;
    }
    match filters.iter().find(is_other) {
        Some(version) => findings.warn(
            "versions",
            format!("a filter is {version}, the aggregator is {own}"),
            "bring both to one release; during a rollout this passes",
        ),
        None => findings.ok("versions", format!("filter and aggregator are {own}")),
    }
}

/// The first few, for a line.
fn some_of(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 5;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(SHOWN);
    match more {
        0 => shown.join(", "),
        n => format!("{} and {n} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(judge: impl FnOnce(&mut Findings)) -> String {
        let mut findings = Findings::default();
        judge(&mut findings);
        let lines = findings.0.iter();
        let lines = lines.map(|f| format!("{} {}: {}", f.status.name(), f.check, f.what));
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn readiness_is_judged() {
        let answer = |status: StatusCode, body: &'static str| (status, Bytes::from(body));
        let well = answer(
            StatusCode::OK,
            r#"{"ledger":{"rows":3,"set_aside":0,"moved":0},"prices":{"checked":"2026-11-01","refused":null}}"#,
        );
        assert_eq!(
            told(|f| judge_readiness(&well, f)),
            "ok aggregator: ready, 3 calls in its ledger\nok prices: of 2026-11-01"
        );
        let ill = answer(
            StatusCode::SERVICE_UNAVAILABLE,
            r#"{"ledger":{"failing":{"error":"disk full"},"set_aside":1,"moved":2},
                "prices":{"refused":"a.toml: bad"},"exporting":{"failing":{"error":"401"}}}"#,
        );
        assert_eq!(
            told(|f| judge_readiness(&ill, f)),
            "FAIL aggregator: answers 503 Service Unavailable: disk full\n\
             warn ledger: a damaged ledger was set aside since the aggregator began\n\
             warn ledger: its files were moved, deleted or overwritten since the aggregator began\n\
             FAIL prices: older prices stay in force: a.toml: bad\nwarn exporting: 401"
        );
    }

    #[test]
    fn metrics_are_judged() {
        let own = env!("CARGO_PKG_VERSION");
        let well = format!(
            "tollmesh_build_info{{version=\"{own}\"}} 1\n\
             tollmesh_filter_batches_total{{version=\"{own}\"}} 7\n\
             tollmesh_last_batch_timestamp_seconds 990\ntollmesh_events_accepted_total 12\n"
        );
        assert_eq!(
            told(|f| judge_metrics(&Exposition(well.clone()), 1_000, f)),
            format!(
                "ok versions: filter and aggregator are {own}\n\
                 ok events: 12 taken, the last 10 s ago"
            )
        );
        let ill = format!(
            "tollmesh_build_info{{version=\"{own}\"}} 1\n\
             tollmesh_filter_batches_total{{version=\"0.0.1\"}} 7\n\
             tollmesh_events_rejected_total 2\ntollmesh_price_table_age_seconds 8640000\n\
             tollmesh_unpriced_requests_total{{provider=\"p\",model=\"m\"}} 3\n"
        );
        assert_eq!(
            told(|f| judge_metrics(&Exposition(ill), 1_000, f)),
            format!(
                "warn versions: a filter is 0.0.1, the aggregator is {own}\n\
                 warn events: no filter has sent anything since the aggregator began\n\
                 warn events: 2 events are in quarantine\n\
                 warn prices: 3 calls have no price: m\n\
                 warn prices: the newest price was checked 100 days ago"
            )
        );
    }

    #[test]
    fn long_lists_are_cut() {
        assert_eq!(some_of(&["a", "b"]), "a, b");
        assert_eq!(some_of(&["a"; 7]), "a, a, a, a, a and 2 more");
    }
}
