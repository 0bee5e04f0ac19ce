//! The rules and dashboards that ship, and what they may speak of.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::artifacts;

/// One recording rule or alert.
#[derive(Clone, Debug)]
pub struct Rule {
    /// What it records, or the alert's name.
    pub name: String,
    /// The expression.
    pub expression: String,
    /// An alert's severity; none for what is recorded.
    pub severity: Option<String>,
}

/// Metrics and labels that exist.
#[derive(Clone, Debug, Default)]
pub struct Exposed {
    /// Names of series.
    pub metrics: BTreeSet<String>,
    /// Names of labels.
    pub labels: BTreeSet<String>,
}

/// The folder of rules or dashboards.
pub fn folder(name: &str) -> PathBuf {
    artifacts::root()
        .join("k8s/components/monitoring")
        .join(name)
}

/// A file of that folder as text.
pub fn text(folder_name: &str, file: &str) -> anyhow::Result<String> {
    let path = folder(folder_name).join(file);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// All rules, in their order.
pub fn rules() -> anyhow::Result<Vec<Rule>> {
    let file: Value = serde_saphyr::from_str(&text("rules", "tollmesh.yaml")?)?;
    let groups = file["groups"].as_array().context("no groups")?;
    let rules = groups.iter().flat_map(|group| group["rules"].as_array());
    let rules: Option<Vec<Rule>> = rules.flatten().map(rule).collect();
    rules.context("a rule without a name or an expression")
}

fn rule(rule: &Value) -> Option<Rule> {
    let name = rule["alert"].as_str().or(rule["record"].as_str())?;
    Some(Rule {
        name: name.to_string(),
        expression: rule["expr"].as_str()?.to_string(),
        severity: rule["labels"]["severity"].as_str().map(str::to_string),
    })
}

/// Runs the promtool beside that Prometheus in `dir`; what it said.
pub fn promtool(prometheus: &Path, dir: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(prometheus.with_file_name("promtool"))
        .args(arguments)
        .current_dir(dir)
        .output()
        .context("promtool does not run")?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(
        output.status.success(),
        "promtool {}: {said}",
        arguments.join(" ")
    );
    Ok(said)
}

// === impl Exposed ===

impl Exposed {
    /// Takes what an exposition shows.
    pub fn add(&mut self, exposition: &str) {
        let series = exposition.lines().filter(|line| !line.starts_with('#'));
        for line in series {
            let end = line.find(['{', ' ']).unwrap_or(line.len());
            let (name, rest) = line.split_at(end);
            self.metrics.insert(name.to_string());
            for pair in rest.trim_start_matches('{').split("\",") {
                if let Some((label, _)) = pair.split_once("=\"") {
                    self.labels.insert(label.to_string());
                }
            }
        }
        self.metrics.remove("");
    }

    /// Takes what the aggregator's sources declare, since some families show only once there is
    /// something to show; and the filter's counters, as operators read of them.
    pub fn add_declared(&mut self) -> anyhow::Result<()> {
        let read = |path: &str| {
            let path = artifacts::root().join(path);
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let n_before = self.metrics.len();
        let own = read("crates/aggregator/src/metrics/mod.rs")?;
        for line in own.lines().map(str::trim) {
            if let Some((field, kind)) = line.strip_prefix("pub ").and_then(|l| l.split_once(": "))
                && ["IntCounter", "IntGauge", "Gauge", "Histogram"]
                    .iter()
                    .any(|known| kind.starts_with(known))
            {
                self.metrics.insert(format!("tollmesh_{field}"));
                self.labels.extend(quoted(kind));
            }
        }
        for line in read("crates/aggregator/src/metrics/kept.rs")?.lines() {
            let line = line.trim();
            if line.starts_with("name: \"tollmesh_") {
                self.metrics.extend(quoted(line));
            } else if line.starts_with("own: ") {
                self.labels.extend(quoted(line));
            }
        }
        let series = read("crates/aggregator/src/metrics/series.rs")?;
        let fixed = series
            .lines()
            .filter(|line| line.starts_with("const FIXED"));
        self.labels.extend(fixed.flat_map(quoted));
        for line in read("envoy/README.md")?.lines() {
            let name = line.strip_prefix("| `").and_then(|l| l.split_once('`'));
            if let Some((name, _)) = name.filter(|(name, _)| name.starts_with("tollmesh_filter_")) {
                self.metrics.insert(name.to_string());
            }
        }
        ensure!(
            self.metrics.len() >= n_before,
            "the sources declare nothing"
        );
        Ok(())
    }

    /// Whether a name of `promql::names_in` is one of them; histograms are known by their parts.
    pub fn has(&self, name: &str) -> bool {
        match name.strip_prefix('~') {
            Some(pattern) => {
                let parts: Vec<&str> = pattern.split(".*").collect();
                self.metrics.iter().any(|known| has_in_order(known, &parts))
            }
            None => {
                let whole = ["_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|part| name.strip_suffix(part));
                self.metrics.contains(name) || whole.is_some_and(|w| self.metrics.contains(w))
            }
        }
    }
}

/// Texts in double quotes.
fn quoted(line: &str) -> impl Iterator<Item = String> + '_ {
    line.split('"').skip(1).step_by(2).map(str::to_string)
}

/// Whether the text is the parts with anything between them.
fn has_in_order(text: &str, parts: &[&str]) -> bool {
    let [first, middle @ .., last] = parts else {
        return parts == [text];
    };
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    for part in middle {
        match rest.split_once(part) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exposition_is_read() {
        let mut exposed = Exposed::default();
        exposed.add("# HELP a x\na_total{b=\"c\",d=\"e=\\\"f\"} 1\nh_bucket{le=\"1\"} 2\ng 3\n");
        let names: Vec<&str> = exposed.metrics.iter().map(String::as_str).collect();
        assert_eq!(names, ["a_total", "g", "h_bucket"]);
        let labels: Vec<&str> = exposed.labels.iter().map(String::as_str).collect();
        assert_eq!(labels, ["b", "d", "le"]);
        assert!(exposed.has("a_total") && exposed.has("~a_.*al") && exposed.has("~a_.*"));
        assert!(!exposed.has("a") && !exposed.has("~b.*") && !exposed.has("~a_.*x"));
    }

    #[test]
    fn the_declared_ones_are_found() {
        let mut exposed = Exposed::default();
        exposed.add_declared().expect("sources");
        for name in [
            "tollmesh_untagged_requests_total",
            "tollmesh_label_overflows_total",
            "tollmesh_request_cost_usd_bucket",
            "tollmesh_filter_tag_conflicts_total",
        ] {
            assert!(exposed.has(name), "{name}: {exposed:?}");
        }
        for label in ["direction", "bucket", "reason", "version"] {
            assert!(exposed.labels.contains(label), "{label}");
        }
    }
}
