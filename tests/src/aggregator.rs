//! A real aggregator: `tollmesh serve` on a state directory of its own.

use std::ffi::OsString;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, anyhow};
use tokio::runtime::Handle;

use crate::envoy_config::Ingest;
use crate::process::Running;
use crate::{fact, http, ports};

/// How long the aggregator may take to bind and to open its ledger.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// Budgets in the directory of a mesh; the aggregator has them where the file is there at its start.
pub const BUDGETS: &str = "budgets.toml";

/// The state directory in the directory of a mesh.
pub const STATE_DIR: &str = "state";

/// The aggregator: its files and addresses, which outlive each of its processes.
#[derive(Debug)]
pub struct Aggregator {
    binary: PathBuf,
    dir: PathBuf,
    config: PathBuf,
    ingest: Ingest,
    operator: SocketAddr,
    runtime: Handle,
    environment: Vec<(&'static str, OsString)>,
    running: Option<Running>,
}

impl Aggregator {
    /// Writes a configuration into `dir` (`more` is TOML, appended) and starts on it.
    pub fn start(
        binary: &Path,
        dir: &Path,
        on_unix_socket: bool,
        more: &str,
        runtime: &Handle,
    ) -> anyhow::Result<Aggregator> {
        Aggregator::start_in(Vec::new(), binary, dir, on_unix_socket, more, runtime)
    }

    /// The same, with these variables in the environment of each of its processes.
    pub fn start_in(
        environment: Vec<(&'static str, OsString)>,
        binary: &Path,
        dir: &Path,
        on_unix_socket: bool,
        more: &str,
        runtime: &Handle,
    ) -> anyhow::Result<Aggregator> {
        let ingest = if on_unix_socket {
            Ingest::Unix(dir.join("ingest.sock"))
        } else {
            Ingest::Tcp(ports::free())
        };
        let operator = ports::free();
        let config = dir.join("tollmesh.toml");
        let state_dir = dir.join(STATE_DIR);
        fs::create_dir_all(&state_dir)?;
        let budgets = Some(dir.join(BUDGETS)).filter(|file| file.exists());
        let text = config_text(&state_dir, budgets.as_deref(), &ingest, operator, more);
        fs::write(&config, text).with_context(|| format!("cannot write {}", config.display()))?;
        let mut aggregator = Aggregator {
            binary: binary.to_path_buf(),
            dir: dir.to_path_buf(),
            config,
            ingest,
            operator,
            runtime: runtime.clone(),
            environment,
            running: None,
        };
        aggregator.restart()?;
        Ok(aggregator)
    }

    /// Starts the process anew and waits until it is ready; one that still runs is killed first.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.launch()?;
        let ready = fact::until(START_PATIENCE, || {
            if let Some(status) = self.running.as_mut().and_then(Running::ended) {
                return Ok(Some(status));
            }
            self.is_ready().map(|()| None)
        });
        let tail = || {
            self.running
                .as_ref()
                .map(Running::log_tail)
                .unwrap_or_default()
        };
        match ready {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(anyhow!("tollmesh ended at start, {status}\n{}", tail())),
            Err(seen) => Err(anyhow!("tollmesh is not ready {seen}\n{}", tail())),
        }
    }

    /// Puts keys of the root before its configuration, and starts anew.
    pub fn configure(&mut self, keys: &str) -> anyhow::Result<()> {
        let text = fs::read_to_string(&self.config)?;
        fs::write(&self.config, format!("{keys}\n{text}"))?;
        self.restart()
    }

    /// Starts the process anew and does not wait; one that still runs is killed first.
    pub fn launch(&mut self) -> anyhow::Result<()> {
        self.kill();
        let mut command = Command::new(&self.binary);
        command.arg("serve").arg("--config").arg(&self.config);
        command.envs(self.environment.iter().cloned());
        let log = self.dir.join("tollmesh.log");
        self.running = Some(Running::start("tollmesh", command, &log)?);
        Ok(())
    }

    /// SIGKILL: nothing is flushed, nothing is said.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// SIGTERM, and waits for a clean end.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        let Some(mut running) = self.running.take() else {
            return Ok(());
        };
        let status = running.terminate(Duration::from_secs(20))?;
        if status.success() {
            return Ok(());
        }
        Err(anyhow!(
            "tollmesh ended with {status}\n{}",
            running.log_tail()
        ))
    }

    /// Runs another command of the binary on the same configuration.
    pub fn command(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--config").arg(&self.config);
        command
            .output()
            .with_context(|| format!("cannot run {}", self.binary.display()))
    }

    /// Where the filter sends events.
    pub fn ingest(&self) -> &Ingest {
        &self.ingest
    }

    /// Where people and Prometheus look.
    pub fn operator(&self) -> SocketAddr {
        self.operator
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The process, while one runs.
    pub fn process(&self) -> Option<&Running> {
        self.running.as_ref()
    }

    /// Where its ledger, its lock and its outbox lie.
    pub fn state_dir(&self) -> PathBuf {
        self.dir.join(STATE_DIR)
    }

    /// The process, to be stopped.
    pub fn process_mut(&mut self) -> Option<&mut Running> {
        self.running.as_mut()
    }

    /// Status and body of `/readyz`; the error says why there is none.
    pub fn readiness(&self) -> Result<(u16, String), String> {
        let reply = self.runtime.block_on(http::get(self.operator, "/readyz"));
        let reply = reply.map_err(|error| format!("{error:#}"))?;
        Ok((reply.status, reply.text().trim().to_string()))
    }

    /// What `/metrics` says.
    pub fn metrics(&self) -> anyhow::Result<Metrics> {
        let reply = self
            .runtime
            .block_on(http::get(self.operator, "/metrics"))?;
        Ok(Metrics(reply.text()))
    }

    fn is_ready(&self) -> Result<(), String> {
        match self.readiness()? {
            (200, _) => Ok(()),
            (status, body) => Err(format!("/readyz says {status} {body}")),
        }
    }
}

fn config_text(
    state_dir: &Path,
    budgets: Option<&Path>,
    ingest: &Ingest,
    operator: SocketAddr,
    more: &str,
) -> String {
    let budgets = budgets.map(|file| format!("budgets = {file:?}\n"));
    let budgets = budgets.unwrap_or_default();
    let listen = match ingest {
        Ingest::Tcp(address) => address.to_string(),
        Ingest::Unix(path) => format!("unix:{}", path.display()),
    };
    format!(
        "state_dir = {state_dir:?}\n\
         {budgets}\
         [ingest]\nlisten = \"{listen}\"\n\
         [operator]\nlisten = \"{operator}\"\n\
         {more}\n"
    )
}

/// One scrape.
#[derive(Clone, Debug)]
pub struct Metrics(pub String);

impl Metrics {
    /// The sum over every series of that name whose labels hold all of `labels` (`team="red"`).
    ///
    /// Whole numbers below 2^53 only, which is what counters of tokens and calls are in tests.
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let series = self.0.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (metric, set) = series.split_once('{').unwrap_or((series, ""));
            (metric == name && labels.iter().all(|label| set.contains(label))).then_some(value)
        });
        series
            .filter_map(|value| value.parse::<f64>().ok())
            .fold(0.0, |sum, value| sum + value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_are_summed_by_name_and_labels() {
        let text = "# HELP a x\n# TYPE a counter\na{t=\"red\",m=\"x\"} 2\na{t=\"blue\"} 3\nab 9\n";
        let metrics = Metrics(text.to_string());
        assert_eq!(metrics.sum("a", &[]), 5.0);
        assert_eq!(metrics.sum("a", &["t=\"red\""]), 2.0);
        assert_eq!(metrics.sum("ab", &[]), 9.0);
        assert_eq!(metrics.sum("b", &[]), 0.0);
    }
}
