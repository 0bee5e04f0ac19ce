//! A real Envoy: started on ports of its own, asked through its admin interface.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::Value;
use tokio::runtime::Handle;

use crate::fact;
use crate::http;
use crate::process::Running;

/// How long Envoy may take to compile the wasm and to listen.
const START_PATIENCE: Duration = Duration::from_secs(30);

/// A running Envoy.
#[derive(Debug)]
pub struct Envoy {
    running: Running,
    runtime: Handle,
    admin: SocketAddr,
    listener: SocketAddr,
}

impl Envoy {
    /// Starts Envoy on `config` with that many workers, and waits until it is live.
    ///
    /// `dir` gets the configuration, the log and the admin address.
    pub fn start(
        envoy: &Path,
        config: &Value,
        n_workers: usize,
        dir: &Path,
        runtime: &Handle,
    ) -> anyhow::Result<Envoy> {
        let file = write_config(config, dir)?;
        let admin_file = dir.join("admin-address");
        let mut command = Command::new(envoy);
        command
            .arg("--config-path")
            .arg(&file)
            .arg("--admin-address-path")
            .arg(&admin_file);
        command.args(["--disable-hot-restart", "--log-level", "info"]);
        command.args(["--concurrency", &n_workers.to_string()]);
        let mut running = Running::start("envoy", command, &dir.join("envoy.log"))?;
        let live = fact::until(START_PATIENCE, || {
            if let Some(status) = running.ended() {
                return Ok(Err(status));
            }
            live_at(&admin_file, runtime).map(Ok)
        });
        let (admin, listener) = match live {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(status)) => {
                return Err(anyhow!(
                    "Envoy ended at start, {status}\n{}",
                    running.log_tail()
                ));
            }
            Err(seen) => return Err(anyhow!("Envoy is not live {seen}\n{}", running.log_tail())),
        };
        Ok(Envoy {
            running,
            runtime: runtime.clone(),
            admin,
            listener,
        })
    }

    /// Whether Envoy takes the configuration, as `--mode validate` says; the error is its words.
    pub fn validate(envoy: &Path, config: &Value, dir: &Path) -> Result<(), String> {
        let file = write_config(config, dir).map_err(|error| error.to_string())?;
        let mut command = Command::new(envoy);
        command
            .args([
                "--mode",
                "validate",
                "--disable-hot-restart",
                "--config-path",
            ])
            .arg(&file);
        let output = command.output().map_err(|error| error.to_string())?;
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            Ok(())
        } else {
            Err(words)
        }
    }

    /// Where apps send their calls.
    pub fn listener(&self) -> SocketAddr {
        self.listener
    }

    /// The admin interface.
    pub fn admin(&self) -> SocketAddr {
        self.admin
    }

    /// The process.
    pub fn process(&self) -> &Running {
        &self.running
    }

    /// The process, to be stopped.
    pub fn process_mut(&mut self) -> &mut Running {
        &mut self.running
    }

    /// One of Envoy's counters or gauges; zero where it was never touched.
    pub fn stat(&self, name: &str) -> u64 {
        let path = format!(
            "/stats?format=json&usedonly&filter=^{}$",
            name.replace('.', "\\.")
        );
        let stats = self.stats(&path);
        stats
            .into_iter()
            .find(|(stat, _)| stat == name)
            .map_or(0, |(_, value)| value)
    }

    /// All counters and gauges whose name holds `part`, by name.
    pub fn stats_with(&self, part: &str) -> Vec<(String, u64)> {
        self.stats(&format!("/stats?format=json&usedonly&filter={part}"))
    }

    fn stats(&self, path: &str) -> Vec<(String, u64)> {
        let reply = self.runtime.block_on(http::get(self.admin, path));
        let stats = reply.and_then(|reply| reply.json()).unwrap_or_default();
        let entries = stats["stats"].as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .filter_map(|stat| Some((stat["name"].as_str()?.to_string(), stat["value"].as_u64()?)))
            .collect()
    }
}

fn write_config(config: &Value, dir: &Path) -> anyhow::Result<PathBuf> {
    let file = dir.join("envoy.json");
    std::fs::write(&file, serde_json::to_vec_pretty(config)?)
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file)
}

/// The admin address and the first listener's, once Envoy says that it is live.
fn live_at(admin_file: &Path, runtime: &Handle) -> Result<(SocketAddr, SocketAddr), String> {
    let words = std::fs::read_to_string(admin_file).map_err(|_| "no admin address yet")?;
    let admin: SocketAddr = words
        .trim()
        .parse()
        .map_err(|_| format!("admin address {words:?}"))?;
    let reply = |path| {
        runtime
            .block_on(http::get(admin, path))
            .map_err(|error| error.to_string())
    };
    let ready = reply("/ready")?;
    if ready.status != 200 {
        return Err(format!(
            "/ready says {} {}",
            ready.status,
            ready.text().trim()
        ));
    }
    let listeners = reply("/listeners?format=json")?
        .json()
        .map_err(|error| error.to_string())?;
    let local = &listeners["listener_statuses"][0]["local_address"]["socket_address"];
    let port = local["port_value"]
        .as_u64()
        .and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| format!("no listener in {listeners}"))?;
    Ok((admin, SocketAddr::from(([127, 0, 0, 1], port))))
}
