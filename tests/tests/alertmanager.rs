//! The way of an alert: a budget is spent, a real Prometheus with the rules as shipped notices, and a
//! real Alertmanager tells a webhook of the latest stage alone.

use std::fs;
use std::time::Duration;

use serde_json::Value;
use tollmesh_tests::alertmanager::Alertmanager;
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::fact;
use tollmesh_tests::literal::LiteralProvider;
use tollmesh_tests::monitoring::text;
use tollmesh_tests::prometheus::{Alerting, Prometheus};
use tollmesh_tests::{Mesh, artifacts, usage};

/// A call of 0.0057564 USD: the first takes the budget to 57.6 %, the second beyond its limit.
const BUDGETS: &str = "[[budget]]\nname = \"red-day\"\nmatch = { team = \"red\" }\n\
                       limit = \"0.01 USD\"\nwindow = \"day\"\n";

/// Rules that are evaluated every minute would have the test last that long.
const EVALUATED_EVERY: (&str, &str) = ("interval: 1m", "interval: 200ms");

/// From scrape to webhook there are some seconds of waiting by design.
const ALERT_PATIENCE: Duration = Duration::from_secs(60);

fn call(mesh: &Mesh) {
    let used = usage("claude-sonnet-4-5")
        .input(1_234)
        .cache_read(2_048)
        .output(96);
    let answer = mesh.client("red").call(&Dialect::Anthropic.plain(&used));
    mesh.ledger().row_of(&answer);
}

/// The inhibition that operators are told to configure.
fn inhibition() -> String {
    let page = text("rules", "README.md").expect("the page");
    let (_, block) = page
        .split_once("```yaml\ninhibit_rules:")
        .expect("the inhibition");
    let (rules, _) = block.split_once("```").expect("its end");
    format!("inhibit_rules:{rules}")
}

/// The alerts that a webhook was told of.
fn told(webhook: &LiteralProvider) -> Vec<Value> {
    let bodies = webhook.requests().into_iter().filter_map(|request| {
        let text = String::from_utf8(request).ok()?;
        let (_, body) = text.split_once("\r\n\r\n")?;
        serde_json::from_str::<Value>(body).ok()
    });
    bodies
        .flat_map(|body| body["alerts"].as_array().cloned().unwrap_or_default())
        .collect()
}

#[test]
fn a_budget_that_is_spent_is_told_of_by_its_latest_stage() {
    let found = (artifacts::prometheus(), artifacts::alertmanager());
    let (Ok(prometheus), Ok(alertmanager)) = &found else {
        for missing in [found.0.err(), found.1.err()].into_iter().flatten() {
            artifacts::skip(&missing);
        }
        return;
    };
    let Some(mesh) = Mesh::start() else { return };
    let budgets = mesh.dir().join("budgets.toml");
    fs::write(&budgets, BUDGETS).expect("a file");
    mesh.aggregator()
        .configure(&format!("budgets = {budgets:?}"))
        .expect("it starts with a budget");

    let webhook = LiteralProvider::start(&[
        b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
    ]);
    let runtime = mesh.runtime().handle();
    let alertmanager = Alertmanager::start(
        alertmanager,
        mesh.dir(),
        webhook.address(),
        &inhibition(),
        runtime,
    )
    .expect("Alertmanager starts");
    let rules = mesh.dir().join("tollmesh.yaml");
    let shipped = text("rules", "tollmesh.yaml").expect("the rules");
    assert!(shipped.contains(EVALUATED_EVERY.0));
    fs::write(
        &rules,
        shipped.replace(EVALUATED_EVERY.0, EVALUATED_EVERY.1),
    )
    .expect("a file");
    let alerting = Alerting {
        rules: &rules,
        alertmanager: alertmanager.address(),
    };
    let prometheus = Prometheus::start_with(
        prometheus,
        mesh.dir(),
        mesh.operator(),
        Some(alerting),
        runtime,
    )
    .expect("Prometheus starts");

    call(&mesh);
    let alerts = "ALERTS{alertname=~\"TollmeshBudget.*\"}";
    fact::until(ALERT_PATIENCE, || {
        let used = prometheus.samples("budget_key:tollmesh_budget_used:ratio");
        let used = used.map_err(|error| format!("{error:#}"))?;
        match used.last() {
            Some(sample) if sample.value.to_string().starts_with("0.575") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .expect("the ratio is recorded");
    assert_eq!(prometheus.samples(alerts).expect("an answer"), []);

    call(&mesh);
    let alert = fact::until(ALERT_PATIENCE, || match told(&webhook).first() {
        Some(alert) => Ok(alert.clone()),
        None => Err(format!("nothing told; {:?}", prometheus.samples(alerts))),
    });
    let alert = alert.expect("the webhook is told");
    assert_eq!(
        alert["labels"]["alertname"], "TollmeshBudgetExhausted",
        "{alert}"
    );
    assert_eq!(alert["labels"]["budget"], "red-day");
    assert_eq!(alert["labels"]["severity"], "critical");
    assert_eq!(
        alert["annotations"]["summary"],
        "Budget red-day is exhausted"
    );
    // Prometheus has all three stages; Alertmanager told of one.
    let names: std::collections::BTreeSet<String> = prometheus
        .samples(alerts)
        .expect("an answer")
        .iter()
        .filter_map(|sample| sample.labels["alertname"].as_str().map(str::to_string))
        .collect();
    let stages = [
        "TollmeshBudgetExhausted",
        "TollmeshBudgetUsed60",
        "TollmeshBudgetUsed85",
    ];
    assert!(
        stages.iter().all(|stage| names.contains(*stage)),
        "{names:?}"
    );
    assert_eq!(told(&webhook).len(), 1);
}
