//! The Prometheus rules that ship: valid, tested one by one, documented, and the same in each form.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::PathBuf;

use tollmesh_tests::artifacts;
use tollmesh_tests::monitoring::{self, Rule, folder, promtool, rules, text};

/// Asks to write the manifest anew instead of to compare it.
const REWRITE: &str = "TOLLMESH_REWRITE";

/// What stands before the rules in the manifest for the Prometheus operator.
const MANIFEST_HEAD: &str = "\
# Made from tollmesh.yaml, the rules for any Prometheus; edit there. What is made, and how, is
# checked by tests/tests/rules.rs, and `TOLLMESH_REWRITE=1 cargo test -p tollmesh-tests --test rules`
# makes it anew.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: tollmesh
  labels:
    app.kubernetes.io/name: tollmesh
    app.kubernetes.io/component: monitoring
    app.kubernetes.io/part-of: tollmesh
spec:
";

fn prometheus() -> Option<PathBuf> {
    artifacts::prometheus()
        .inspect_err(|missing| artifacts::skip(missing))
        .ok()
}

fn alerts() -> Vec<Rule> {
    let mut rules = rules().expect("the rules");
    rules.retain(|rule| rule.severity.is_some());
    assert!(rules.len() > 20, "{rules:?}");
    rules
}

#[test]
fn promtool_takes_the_rules() {
    let Some(program) = prometheus() else { return };
    let said = promtool(
        &program,
        &folder("rules"),
        &["check", "rules", "tollmesh.yaml"],
    );
    let n_rules = rules().expect("the rules").len();
    let said = said.expect("rules without fault");
    assert!(said.contains(&format!("{n_rules} rules found")), "{said}");
}

#[test]
fn what_happens_within_minutes_is_told() {
    let Some(program) = prometheus() else { return };
    let arguments = ["test", "rules", "tollmesh_test.yaml"];
    promtool(&program, &folder("rules"), &arguments).expect("alerts as expected");
}

#[test]
fn what_the_week_before_judges_is_told() {
    let Some(program) = prometheus() else { return };
    let arguments = ["test", "rules", "tollmesh_week_test.yaml"];
    promtool(&program, &folder("rules"), &arguments).expect("alerts as expected");
}

#[test]
fn each_alert_is_expected_to_fire_somewhere() {
    let cases = ["tollmesh_test.yaml", "tollmesh_week_test.yaml"]
        .map(|file| text("rules", file).expect("cases"))
        .concat();
    let untested: Vec<String> = alerts()
        .into_iter()
        .map(|alert| alert.name)
        .filter(|name| !cases.contains(&format!("{{alertname=\"{name}\"")))
        .collect();
    assert!(untested.is_empty(), "no case has them fire: {untested:?}");
}

#[test]
fn operators_read_of_each_alert_with_its_severity() {
    let page = text("rules", "README.md").expect("the page");
    let rows: Vec<&str> = page
        .lines()
        .filter(|line| line.starts_with("| `"))
        .collect();
    for alert in alerts() {
        let severity = alert.severity.unwrap_or_default();
        let name = format!("`{}`", alert.name);
        let is_told = rows
            .iter()
            .any(|row| row.contains(&name) && row.contains(&severity));
        assert!(is_told, "{name}, {severity}");
    }
    let known: BTreeSet<String> = alerts().into_iter().map(|alert| alert.name).collect();
    let told = rows
        .iter()
        .flat_map(|row| row.split('`').skip(1).step_by(2));
    for name in told.filter(|word| word.starts_with("Tollmesh")) {
        assert!(
            known.contains(name),
            "the page has {name}, the rules have not"
        );
    }
}

#[test]
fn the_operators_manifest_holds_the_same_rules() {
    let rules = text("rules", "tollmesh.yaml").expect("the rules");
    let (_, groups) = rules.split_once("\ngroups:").expect("groups");
    let mut manifest = MANIFEST_HEAD.to_string();
    for line in format!("groups:{groups}").lines() {
        if !line.trim().is_empty() {
            manifest.push_str("  ");
        }
        manifest.push_str(line);
        manifest.push('\n');
    }
    if env::var_os(REWRITE).is_some() {
        let path = monitoring::folder("rules").join("prometheusrule.yaml");
        fs::write(path, &manifest).expect("a writable checkout");
    }
    let shipped = text("rules", "prometheusrule.yaml").expect("the manifest");
    assert!(
        shipped == manifest,
        "prometheusrule.yaml is older than tollmesh.yaml; make it anew with {REWRITE}=1"
    );
}
