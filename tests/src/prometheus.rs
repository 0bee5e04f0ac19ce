//! A real Prometheus that scrapes an aggregator, asked through its HTTP API.

use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rust_decimal::Decimal;
use serde_json::Value;
use tokio::runtime::Handle;

use crate::process::Running;
use crate::{fact, http, ports};

/// How long Prometheus may take to open an empty store and to listen.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A running Prometheus.
#[derive(Debug)]
pub struct Prometheus {
    address: SocketAddr,
    runtime: Handle,
    _running: Running,
}

/// What is done about what it sees.
#[derive(Clone, Copy, Debug)]
pub struct Alerting<'a> {
    /// The rules that it evaluates.
    pub rules: &'a Path,
    /// Where it sends alerts.
    pub alertmanager: SocketAddr,
}

/// A value of one series at one instant.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The series' labels.
    pub labels: Value,
    /// Milliseconds since 1970.
    pub time_ms: i64,
    /// The value.
    pub value: Decimal,
}

impl Prometheus {
    /// Starts the program in `dir`, scraping `/metrics` of `target` five times a second.
    pub fn start(
        program: &Path,
        dir: &Path,
        target: SocketAddr,
        runtime: &Handle,
    ) -> anyhow::Result<Prometheus> {
        Prometheus::start_with(program, dir, target, None, runtime)
    }

    /// The same, with rules that are evaluated as often.
    pub fn start_with(
        program: &Path,
        dir: &Path,
        target: SocketAddr,
        alerting: Option<Alerting<'_>>,
        runtime: &Handle,
    ) -> anyhow::Result<Prometheus> {
        let config = dir.join("prometheus.yml");
        fs::write(&config, config_text(target, alerting))
            .with_context(|| format!("cannot write {}", config.display()))?;
        let address = ports::free();
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                dir.join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={address}"));
        let mut running = Running::start("prometheus", command, &dir.join("prometheus.log"))?;
        let ready = fact::until(START_PATIENCE, || {
            if let Some(status) = running.ended() {
                return Ok(Err(status));
            }
            let reply = runtime.block_on(http::get(address, "/-/ready"));
            match reply.map(|reply| reply.status) {
                Ok(200) => Ok(Ok(())),
                other => Err(format!("/-/ready: {other:?}")),
            }
        });
        match ready {
            Ok(Ok(())) => Ok(Prometheus {
                address,
                runtime: runtime.clone(),
                _running: running,
            }),
            Ok(Err(status)) => anyhow::bail!("it ended, {status}\n{}", running.log_tail()),
            Err(seen) => anyhow::bail!("it is not ready {seen}\n{}", running.log_tail()),
        }
    }

    /// The instant vector that the expression has at that time.
    pub fn at(&self, expression: &str, time_ms: i64) -> anyhow::Result<Vec<Sample>> {
        self.query(&[
            ("query", expression),
            ("time", &format!("{}.{:03}", time_ms / 1000, time_ms % 1000)),
        ])
    }

    /// All samples of the series that the expression names, of the last hour, in order of time.
    pub fn samples(&self, series: &str) -> anyhow::Result<Vec<Sample>> {
        let mut samples = self.query(&[("query", &format!("{series}[1h]"))])?;
        samples.sort_by_key(|sample| sample.time_ms);
        Ok(samples)
    }

    fn query(&self, parameters: &[(&str, &str)]) -> anyhow::Result<Vec<Sample>> {
        let pairs: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={}", percent_encoded(value)))
            .collect();
        let path = format!("/api/v1/query?{}", pairs.join("&"));
        let reply = self.runtime.block_on(http::get(self.address, &path))?;
        ensure!(reply.status == 200, "{path}: {}", reply.text());
        let reply = reply.json()?;
        let series = reply["data"]["result"].as_array().context("no result")?;
        series.iter().try_fold(Vec::new(), |mut all, series| {
            let instant = std::slice::from_ref(&series["value"]);
            let range = series["values"].as_array().map(Vec::as_slice);
            for pair in range.unwrap_or(instant) {
                all.push(sample(&series["metric"], pair)?);
            }
            Ok(all)
        })
    }
}

/// Asserts that `promtool check metrics`, the one beside that Prometheus, finds nothing to say.
#[track_caller]
pub fn finds_no_fault(prometheus: &Path, exposition: &str) {
    let mut child = Command::new(prometheus.with_file_name("promtool"))
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool runs");
    let mut stdin = child.stdin.take().expect("its input");
    stdin
        .write_all(exposition.as_bytes())
        .expect("it reads all");
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(
        output.status.success() && said.trim().is_empty(),
        "promtool, {}: {said}",
        output.status
    );
}

fn config_text(target: SocketAddr, alerting: Option<Alerting<'_>>) -> String {
    let alerting = alerting.map_or_else(String::new, |alerting| {
        format!(
            "rule_files: [ {:?} ]\n\
             alerting:\n  \
               alertmanagers: [ {{ static_configs: [ {{ targets: [\"{}\"] }} ] }} ]\n",
            alerting.rules, alerting.alertmanager
        )
    });
    format!(
        "global: {{ scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms }}\n\
         {alerting}\
         scrape_configs:\n\
         - job_name: tollmesh\n  \
           static_configs: [ {{ targets: [\"{target}\"] }} ]\n"
    )
}

/// A `[<seconds>, "<value>"]` of Prometheus' API.
fn sample(labels: &Value, pair: &Value) -> anyhow::Result<Sample> {
    let what = || format!("not a sample: {pair}");
    let seconds = pair[0].as_number().with_context(what)?.to_string();
    let seconds: Decimal = seconds.parse().with_context(what)?;
    let time_ms = i64::try_from(seconds * Decimal::ONE_THOUSAND)?;
    let value = pair[1].as_str().with_context(what)?;
    let value = Decimal::from_str_exact(value).or_else(|_| Decimal::from_scientific(value));
    Ok(Sample {
        labels: labels.clone(),
        time_ms,
        value: value.with_context(what)?,
    })
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => encoded.push_str(&format!("%{byte:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn samples_are_read_exactly() {
        let read = |pair: Value| {
            let sample = sample(&json!({}), &pair).expect("a sample");
            (sample.time_ms, sample.value.to_string())
        };
        assert_eq!(
            read(json!([1_790_000_000.123, "0.4217127"])),
            (1_790_000_000_123, "0.4217127".to_string())
        );
        assert_eq!(
            read(json!([1_790_000_000, "1.5e-07"])),
            (1_790_000_000_000, "0.00000015".to_string())
        );
        assert!(sample(&json!({}), &json!(null)).is_err());
    }

    #[test]
    fn expressions_are_encoded_whole() {
        assert_eq!(
            percent_encoded("sum by (a)(increase(x{b=\"é\"}[5s]))"),
            "sum%20by%20%28a%29%28increase%28x%7Bb%3D%22%C3%A9%22%7D%5B5s%5D%29%29"
        );
    }
}
