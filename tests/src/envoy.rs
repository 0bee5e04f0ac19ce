//! A real Envoy: started on ports of its own, asked through its admin interface.

use std::ffi::OsString;
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
    launch: Launch,
    running: Running,
    runtime: Handle,
    admin: SocketAddr,
    listener: SocketAddr,
}

/// How an Envoy is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its configuration.
    pub config: Value,
    /// Worker threads.
    pub n_workers: usize,
    /// Gets the configuration, the log and the admin address.
    pub dir: PathBuf,
    /// Variables of its environment.
    pub environment: Vec<(&'static str, OsString)>,
    /// Whether and as which of several Envoys it takes part in hot restarts.
    pub hot_restart: Option<HotRestart>,
    /// Seconds in which listeners that are replaced close their connections, and go; as shipped
    /// (600) where nothing is said.
    pub drain_seconds: Option<u32>,
}

/// The place of an Envoy in a row of hot restarts.
/// <https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/operations/hot_restart>
#[derive(Clone, Copy, Debug)]
pub struct HotRestart {
    /// Tells the row from others on the machine.
    pub base_id: u32,
    /// 0 for the first; each successor has one more.
    pub epoch: u32,
    /// Seconds in which an Envoy with a successor closes its connections.
    pub drain_seconds: u32,
    /// Seconds after which it is told to end.
    pub parent_shutdown_seconds: u32,
}

impl Envoy {
    /// Starts Envoy and waits until it is live.
    pub fn start(launch: Launch, runtime: &Handle) -> anyhow::Result<Envoy> {
        let file = write_config(&launch.config, &launch.dir)?;
        let admin_file = launch.admin_file();
        let log = launch.log_file();
        let mut running = Running::start("envoy", launch.command(&file), &log)?;
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
            launch,
            running,
            runtime: runtime.clone(),
            admin,
            listener,
        })
    }

    /// Starts the successor of this one in its row of hot restarts: it takes over the listeners,
    /// and this one drains and ends.
    pub fn start_successor(&self) -> anyhow::Result<Envoy> {
        let mut launch = self.launch.clone();
        let place = launch.hot_restart.as_mut();
        place.context("it takes no part in hot restarts")?.epoch += 1;
        Envoy::start(launch, &self.runtime)
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

    /// The logs, access log included, of this one and of those whose successor it is.
    pub fn logs(&self) -> Vec<PathBuf> {
        let epoch = self.launch.hot_restart.map_or(0, |place| place.epoch);
        let of = |epoch| {
            let mut launch = self.launch.clone();
            if let Some(place) = launch.hot_restart.as_mut() {
                place.epoch = epoch;
            }
            launch.log_file()
        };
        (0..=epoch).map(of).collect()
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

impl Launch {
    /// A start that `dir` is for and that leaves no mark elsewhere.
    pub fn new(program: &Path, config: Value, n_workers: usize, dir: &Path) -> Launch {
        Launch {
            program: program.to_path_buf(),
            config,
            n_workers,
            dir: dir.to_path_buf(),
            environment: Vec::new(),
            hot_restart: None,
            drain_seconds: None,
        }
    }

    /// Of each Envoy of a row its own: a successor must not be taken for live by its parent's.
    fn admin_file(&self) -> PathBuf {
        let epoch = self.hot_restart.map_or(0, |place| place.epoch);
        self.dir.join(format!("admin-address-{epoch}"))
    }

    /// Of each its own too: lines of two processes in one file would get into each other.
    fn log_file(&self) -> PathBuf {
        match self.hot_restart.map_or(0, |place| place.epoch) {
            0 => self.dir.join("envoy.log"),
            epoch => self.dir.join(format!("envoy-{epoch}.log")),
        }
    }

    fn command(&self, config: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command
            .envs(self.environment.iter().cloned())
            .arg("--config-path")
            .arg(config)
            .arg("--admin-address-path")
            .arg(self.admin_file())
            .args(["--log-level", "info"])
            // The access log is a record that tests read; by itself it is written every ten seconds.
            .args(["--file-flush-interval-msec", "200"])
            .args(["--concurrency", &self.n_workers.to_string()]);
        match self.hot_restart {
            None => {
                command.arg("--disable-hot-restart");
                if let Some(seconds) = self.drain_seconds {
                    command.args(["--drain-time-s", &seconds.to_string()]);
                }
                &mut command
            }
            Some(place) => command
                .args(["--base-id", &place.base_id.to_string()])
                .args(["--restart-epoch", &place.epoch.to_string()])
                .args(["--drain-time-s", &place.drain_seconds.to_string()])
                .arg("--parent-shutdown-time-s")
                .arg(place.parent_shutdown_seconds.to_string())
                // Its own words beside the access log: a restart has it speak while calls go on, and
                // in one file the one would be written into the midst of the other.
                .arg("--log-path")
                .arg(self.dir.join(format!("envoy-{}.words", place.epoch))),
        };
        command
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
