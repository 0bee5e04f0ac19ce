//! The whole street: a provider, a real Envoy with the filter, and a real aggregator.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::{Handle, Runtime};

use crate::aggregator::{Aggregator, BUDGETS, STATE_DIR};
use crate::artifacts::{self, Artifacts};
use crate::chaos::Chaos;
use crate::client::{Answer, Client};
use crate::envoy::{Envoy, HotRestart, Launch};
use crate::envoy_config::{self, Ingest, Places};
use crate::fact;
use crate::fault::Faults;
use crate::hop::Hop;
use crate::judge::Judge;
use crate::ledger::Ledger;
use crate::overlay::{Overlay, PROVIDERS};
use crate::ports;
use crate::provider::Provider;
use crate::small_disk::SmallDisk;
use crate::tls::Identity;

/// What each event in an access log has, as it stands there: within a text of JSON.
const EVENT_KEY: &str = r#"\"event_id\""#;

/// The file of listeners, where Envoy reads them from one.
const LISTENERS: &str = "listeners.json";

/// Everything that runs; all of it goes when this is dropped.
#[derive(Debug)]
pub struct Mesh {
    // Dropped in this order: Envoy flushes to nobody, then the aggregator, then what they called.
    envoy: Envoy,
    gateway: Option<Envoy>,
    aggregator: Mutex<Aggregator>,
    chaos: Option<Chaos>,
    judge: Option<Judge>,
    faults: Option<Faults>,
    provider: Arc<Provider>,
    operator: SocketAddr,
    n_workers: usize,
    runtime: Runtime,
    small_disk: Option<SmallDisk>,
    dir: TempDir,
}

/// What a mesh is made like; what a test does not speak about is as shipped.
#[derive(Clone, Debug)]
pub struct MeshBuilder {
    plugin: Value,
    aggregator: String,
    budgets: Option<String>,
    n_workers: usize,
    is_upstream_http2: bool,
    routes_every_host: bool,
    has_chaos: bool,
    judged: Option<Value>,
    has_faults: bool,
    small_disk: Option<&'static str>,
    hot_restart: Option<HotRestart>,
    drain_seconds: Option<u32>,
    on_unix_socket: bool,
    calls_real_providers: bool,
    provider_at: Option<SocketAddr>,
    certified_names: Vec<String>,
    routes: Value,
    hosts: Value,
    filter_before: Value,
    has_gateway: bool,
    gateway_plugin: Value,
    caller: Option<String>,
    overlay: Option<Overlay>,
    logs_access: bool,
    reads_listeners: bool,
    envoy_patch: fn(&mut Value),
}

/// What one of the Envoys has that others have not.
type Patch<'a> = &'a dyn Fn(&mut Value);

impl Mesh {
    /// Starts as shipped. `None`, after a loud word, where a component is missing.
    ///
    /// # Panics
    /// Where something does not start, and where `TOLLMESH_REQUIRE` forbids to skip.
    pub fn start() -> Option<Mesh> {
        Mesh::built().start()
    }

    /// Begins to build one that differs.
    pub fn built() -> MeshBuilder {
        MeshBuilder {
            plugin: Value::Null,
            aggregator: String::new(),
            budgets: None,
            n_workers: 2,
            is_upstream_http2: false,
            routes_every_host: false,
            has_chaos: false,
            judged: None,
            has_faults: false,
            small_disk: None,
            hot_restart: None,
            drain_seconds: None,
            on_unix_socket: false,
            calls_real_providers: false,
            provider_at: None,
            certified_names: Vec::new(),
            routes: Value::Null,
            hosts: Value::Null,
            filter_before: Value::Null,
            has_gateway: false,
            gateway_plugin: Value::Null,
            caller: None,
            overlay: None,
            logs_access: true,
            reads_listeners: false,
            envoy_patch: |_| {},
        }
    }

    /// An app of that team.
    pub fn client(&self, team: &str) -> Client {
        self.anonymous().tag("team", team)
    }

    /// An app that says nothing about itself.
    pub fn anonymous(&self) -> Client {
        self.anonymous_at(self.envoy.listener())
    }

    /// The same, of somebody who calls that address and is led here from there.
    pub fn anonymous_at(&self, address: SocketAddr) -> Client {
        let provider = Arc::clone(&self.provider);
        Client::new(self.runtime.handle().clone(), address, provider)
    }

    /// The provider.
    pub fn provider(&self) -> &Provider {
        &self.provider
    }

    /// Envoy.
    pub fn envoy(&self) -> &Envoy {
        &self.envoy
    }

    /// Envoy, to be stopped or replaced.
    pub fn envoy_mut(&mut self) -> &mut Envoy {
        &mut self.envoy
    }

    /// The aggregator; the guard keeps others from restarting it meanwhile.
    pub fn aggregator(&self) -> MutexGuard<'_, Aggregator> {
        self.aggregator
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// What the filter has counted under `tollmesh_filter_<thing>_total`, over all workers; told
    /// to Envoy on each worker's tick.
    pub fn counted(&self, thing: &str) -> u64 {
        self.envoy
            .stat(&format!("wasmcustom.tollmesh_filter_{thing}_total"))
    }

    /// Asserts that no worker's VM has trapped.
    #[track_caller]
    pub fn has_not_trapped(&self) {
        assert_eq!(self.trap(), None, "the filter trapped");
        assert_eq!(
            self.counted("faults"),
            0,
            "the filter found itself in an impossible state"
        );
    }

    /// What tells of a trap in any Envoy of ours: a line of its log, or a VM loaded anew.
    pub fn trap(&self) -> Option<String> {
        let envoys = [Some(&self.envoy), self.gateway.as_ref()];
        envoys.into_iter().flatten().find_map(trap_in)
    }

    /// The second Envoy, between the first and the provider, with a filter of its own.
    ///
    /// # Panics
    /// Where the mesh was built without one.
    pub fn gateway(&self) -> &Envoy {
        match &self.gateway {
            Some(gateway) => gateway,
            None => panic!("this mesh was built without a gateway"),
        }
    }

    /// The ledger.
    pub fn ledger(&self) -> Ledger {
        Ledger::new(self.runtime.handle().clone(), self.operator)
    }

    /// The proxy between Envoy and the aggregator.
    ///
    /// # Panics
    /// Where the mesh was built without one.
    pub fn chaos(&self) -> &Chaos {
        match &self.chaos {
            Some(chaos) => chaos,
            None => panic!("this mesh was built without a chaos proxy"),
        }
    }

    /// The scripted aggregator that Envoy speaks to.
    ///
    /// # Panics
    /// Where the mesh was built without one.
    pub fn judge(&self) -> &Judge {
        match &self.judge {
            Some(judge) => judge,
            None => panic!("this mesh was built without a judge"),
        }
    }

    /// The faults of the aggregator's disk and clock.
    ///
    /// # Panics
    /// Where the mesh was built without them.
    pub fn faults(&self) -> &Faults {
        match &self.faults {
            Some(faults) => faults,
            None => panic!("this mesh was built without faults"),
        }
    }

    /// The small disk that the aggregator's state lies on.
    ///
    /// # Panics
    /// Where the mesh was built without one.
    pub fn small_disk(&self) -> &SmallDisk {
        match &self.small_disk {
            Some(disk) => disk,
            None => panic!("this mesh was built without a small disk"),
        }
    }

    /// Where people and Prometheus look.
    pub fn operator(&self) -> SocketAddr {
        self.operator
    }

    /// What everything runs on.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Brings back what the ledger lacks from Envoy's access log, through the running aggregator, once
    /// the log has that many events.
    ///
    /// # Panics
    /// Where that does not succeed.
    #[track_caller]
    pub fn import_access_log(&self, n_calls: usize) {
        fact::eventually("a line of the access log for each call", || {
            let logs = self.envoy.logs().into_iter().map(std::fs::read_to_string);
            let logs: Vec<String> = logs.map(Result::unwrap_or_default).collect();
            let n: usize = logs.iter().map(|log| log.matches(EVENT_KEY).count()).sum();
            // A line is written in parts.
            let are_whole = logs.iter().all(|log| log.is_empty() || log.ends_with('\n'));
            match n {
                n if n == n_calls && are_whole => Ok(()),
                n => Err(format!("{n} lines for {n_calls} calls")),
            }
        });
        let aggregator = self.aggregator();
        let to = match aggregator.ingest() {
            Ingest::Tcp(address) => address.to_string(),
            Ingest::Unix(path) => format!("unix:{}", path.display()),
        };
        let mut arguments = vec!["import".to_string(), "--to".to_string(), to];
        for log in self.envoy.logs() {
            arguments.extend(["--access-log".to_string(), log.display().to_string()]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let output = aggregator.command(&arguments);
        let output = output.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "import: {said}");
    }

    /// Has the filter configured as `change` makes of its configuration; returns when Envoy has taken
    /// it.
    ///
    /// # Panics
    /// Where the mesh was not built [`MeshBuilder::replugged`], or Envoy does not take it.
    #[track_caller]
    pub fn replug(&self, change: impl Fn(Value) -> Value) {
        let taken = || self.envoy.stat("listener_manager.lds.update_success");
        let n_before = taken();
        let file = self.dir.path().join(LISTENERS);
        envoy_config::replug(&file, change).expect("the listeners stand in a file");
        fact::eventually("Envoy takes the listeners", || match taken() {
            n if n > n_before => Ok(()),
            _ => Err(self.envoy.process().log_tail()),
        });
    }

    /// Calls until each worker has given an answer by what is in force, which `call` returns. Each takes
    /// a table over at its own tick, connections go to any of them, and each names its events after
    /// itself.
    #[track_caller]
    pub fn every_worker_knows(&self, what: &str, mut call: impl FnMut() -> Option<Answer>) {
        let mut request_ids = BTreeSet::new();
        fact::eventually(&format!("every worker knows {what}"), || {
            request_ids.extend(call().map(|answer| answer.request_id));
            let event_ids = self.event_ids(&request_ids)?;
            let workers = event_ids.iter().filter_map(|id| id.split_once('-'));
            let workers: BTreeSet<&str> = workers.map(|(worker, _)| worker).collect();
            let is_each = workers.len() == self.n_workers;
            is_each.then_some(()).ok_or(format!("{workers:?}"))
        });
    }

    /// The ids of the events of these calls that whoever Envoy speaks to has got.
    fn event_ids(&self, request_ids: &BTreeSet<String>) -> Result<Vec<String>, String> {
        let texts = |value: &Value| value["event_id"].as_str().map(str::to_string);
        if let Some(judge) = &self.judge {
            let events = request_ids.iter().flat_map(|id| judge.events(id));
            return Ok(events.filter_map(|event| texts(&event)).collect());
        }
        let rows = self.ledger().by_request_id()?;
        let rows = request_ids.iter().filter_map(|id| rows.get(id)).flatten();
        Ok(rows.filter_map(|row| texts(&row.0)).collect())
    }

    /// The directory with the configurations, the logs and the ledger.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
}

fn trap_in(envoy: &Envoy) -> Option<String> {
    const WORDS: [&str; 3] = ["RuntimeError", "panicked", "wasm_fail_stream"];
    let reloads = envoy.stats_with("vm_reload");
    if let Some((name, n)) = reloads.into_iter().find(|(_, n)| *n > 0) {
        return Some(format!("{name} is {n}"));
    }
    let log = envoy.process().log();
    let mut lines = log.lines();
    let bad = lines.find(|line| WORDS.iter().any(|word| line.contains(word)));
    bad.map(str::to_string)
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.envoy.process().log_tail());
            let aggregator = self.aggregator();
            match aggregator.process() {
                Some(process) => eprintln!("{}", process.log_tail()),
                None => eprintln!("--- the aggregator does not run ---"),
            }
        }
    }
}

impl MeshBuilder {
    /// Merges `patch` into the plugin's configuration.
    pub fn plugin(mut self, patch: Value) -> MeshBuilder {
        self.plugin = patch;
        self
    }

    /// Appends TOML to the aggregator's configuration.
    pub fn aggregator(mut self, toml: &str) -> MeshBuilder {
        self.aggregator = toml.to_string();
        self
    }

    /// The aggregator has these budgets, as TOML.
    pub fn budgets(mut self, toml: &str) -> MeshBuilder {
        self.budgets = Some(toml.to_string());
        self
    }

    /// Envoy's worker threads; two where nothing is said.
    pub fn workers(mut self, n: usize) -> MeshBuilder {
        self.n_workers = n;
        self
    }

    /// Envoy speaks HTTP/2 to the provider.
    pub fn upstream_http2(mut self) -> MeshBuilder {
        self.is_upstream_http2 = true;
        self
    }

    /// Hosts beside the shipped ones reach the provider too.
    pub fn every_host(mut self) -> MeshBuilder {
        self.routes_every_host = true;
        self
    }

    /// A chaos proxy stands between Envoy and the aggregator.
    pub fn with_chaos(mut self) -> MeshBuilder {
        self.has_chaos = true;
        self
    }

    /// Envoy speaks to a scripted aggregator, which has a decision table of these budgets, and not to
    /// the real one.
    pub fn judged_by(mut self, budgets: Value) -> MeshBuilder {
        self.judged = Some(budgets);
        self
    }

    /// Envoy can have a successor, on the same port.
    pub fn hot_restarts(mut self, place: HotRestart) -> MeshBuilder {
        self.hot_restart = Some(place);
        self
    }

    /// The aggregator's disk can be made to fail, and its clock and Envoy's to be off.
    pub fn with_faults(mut self) -> MeshBuilder {
        self.has_faults = true;
        self
    }

    /// The aggregator's state lies on a file system of that size (`4m`); takes a user who may mount.
    pub fn on_small_disk(mut self, size: &'static str) -> MeshBuilder {
        self.small_disk = Some(size);
        self
    }

    /// Filter and aggregator speak over a unix socket.
    pub fn on_unix_socket(mut self) -> MeshBuilder {
        self.on_unix_socket = true;
        self
    }

    /// The provider clusters stay as they ship: names, TLS and all.
    pub fn real_providers(mut self) -> MeshBuilder {
        self.calls_real_providers = true;
        self
    }

    /// Calls reach whoever listens there instead of the scripted provider.
    pub fn provider_at(mut self, address: SocketAddr) -> MeshBuilder {
        self.provider_at = Some(address);
        self
    }

    /// The provider speaks TLS under a certificate for `names`, and Envoy's clusters keep theirs
    /// as they ship, but for the CA that they trust.
    pub fn provider_certified_for(mut self, names: &[&str]) -> MeshBuilder {
        self.certified_names = names.iter().map(ToString::to_string).collect();
        self
    }

    /// Merges `patch` into the action of every route.
    pub fn routes(mut self, patch: Value) -> MeshBuilder {
        self.routes = patch;
        self
    }

    /// Merges `patch` into every virtual host.
    pub fn hosts(mut self, patch: Value) -> MeshBuilder {
        self.hosts = patch;
        self
    }

    /// That HTTP filter stands before ours.
    pub fn filter_before(mut self, filter: Value) -> MeshBuilder {
        self.filter_before = filter;
        self
    }

    /// Calls pass a second Envoy as with [`MeshBuilder::with_gateway`], with `patch` merged into its
    /// plugin's configuration; the first shows it a certificate for `caller`, a SPIFFE id.
    pub fn gateway_called_by(mut self, caller: &str, patch: Value) -> MeshBuilder {
        self.caller = Some(caller.to_string());
        self.gateway_plugin = patch;
        self.with_gateway()
    }

    /// Calls pass a second Envoy on their way to the provider, with the plugin as shipped.
    pub fn with_gateway(mut self) -> MeshBuilder {
        self.has_gateway = true;
        self
    }

    /// Changes Envoy's whole configuration, after all else.
    pub fn envoy(mut self, patch: fn(&mut Value)) -> MeshBuilder {
        self.envoy_patch = patch;
        self
    }

    /// Envoy is configured as that overlay of `k8s/` amounts to; the provider speaks TLS under its own
    /// authority, and the aggregator listens on a unix socket.
    pub fn overlay(mut self, overlay: Overlay) -> MeshBuilder {
        self.overlay = Some(overlay);
        self.provider_certified_for(&PROVIDERS).on_unix_socket()
    }

    /// Envoy writes no access log: for runs whose log would fill a disk.
    pub fn without_access_log(mut self) -> MeshBuilder {
        self.logs_access = false;
        self
    }

    /// The plugin's configuration can be replaced ([`Mesh::replug`]).
    pub fn replugged(mut self) -> MeshBuilder {
        self.reads_listeners = true;
        self
    }

    /// What is replaced ([`Mesh::replug`]) is gone after that many seconds.
    pub fn drains_for(mut self, seconds: u32) -> MeshBuilder {
        self.drain_seconds = Some(seconds);
        self
    }

    /// As [`Mesh::start`].
    pub fn start(self) -> Option<Mesh> {
        let artifacts = Artifacts::find_or_skip()?;
        match self.start_with(&artifacts) {
            Ok(mesh) => Some(mesh),
            Err(error) => panic!("the mesh does not start: {error:#}"),
        }
    }

    /// Starts with these artefacts.
    pub fn start_with(self, artifacts: &Artifacts) -> anyhow::Result<Mesh> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("cannot start the runtime")?;
        let dir = tempfile::Builder::new().prefix("tollmesh-").tempdir()?;
        let handle = runtime.handle();
        let identity = self.identity()?;
        let ca = dir.path().join("provider-ca.pem");
        let ca = match &identity {
            Some(identity) => {
                std::fs::write(&ca, &identity.ca_pem)?;
                Some(ca.as_path())
            }
            None => None,
        };
        let tls = identity.as_ref().map(|identity| identity.acceptor.clone());
        let provider = Arc::new(runtime.block_on(Provider::start_with(tls))?);
        let state_dir = dir.path().join(STATE_DIR);
        std::fs::create_dir_all(&state_dir)?;
        let small_disk = self
            .small_disk
            .map(|size| SmallDisk::over(&state_dir, size))
            .transpose()?;
        let faults = self
            .has_faults
            .then(|| Faults::below(&state_dir, dir.path()))
            .transpose()?;
        if let Some(budgets) = &self.budgets {
            std::fs::write(dir.path().join(BUDGETS), budgets)?;
        }
        let environment = faults.as_ref().map(Faults::environment).unwrap_or_default();
        let aggregator = Aggregator::start_in(
            environment.clone(),
            &artifacts.tollmesh,
            dir.path(),
            self.on_unix_socket,
            &self.aggregator,
            handle,
        )?;
        let (chaos, ingest) = self.ingest(&runtime, &aggregator)?;
        let judge = self.judged.clone();
        let judge = judge.map(|budgets| runtime.block_on(Judge::start(budgets)));
        let judge = judge.transpose()?;
        let ingest = judge
            .as_ref()
            .map_or(ingest, |judge| Ingest::Tcp(judge.address()));
        let start_envoy = |upstream: SocketAddr, folder: &Path, plugin: &Value, hop: Patch<'_>| {
            std::fs::create_dir_all(folder)?;
            let mut config =
                self.envoy_config(&artifacts.wasm, &ingest, upstream, ca, plugin, dir.path())?;
            hop(&mut config);
            let launch = Launch {
                // One machine has one clock.
                environment: environment.clone(),
                hot_restart: self.hot_restart,
                drain_seconds: self.drain_seconds,
                ..Launch::new(&artifacts.envoy, config, self.n_workers, folder)
            };
            Envoy::start(launch, handle)
        };
        let upstream = self.provider_at.unwrap_or_else(|| provider.address());
        if let Some(overlay) = &self.overlay {
            overlay.prepare(dir.path())?;
        }
        let hop = self.caller.as_deref();
        let hop = hop.map(|caller| Hop::by(caller, dir.path())).transpose()?;
        let takes = |config: &mut Value| hop.iter().for_each(|hop| hop.takes(config));
        let calls = |config: &mut Value| hop.iter().for_each(|hop| hop.calls(config));
        let folder = dir.path().join("gateway");
        let gateway = self
            .has_gateway
            .then(|| start_envoy(upstream, &folder, &self.gateway_plugin, &takes))
            .transpose()?;
        let upstream = gateway.as_ref().map_or(upstream, Envoy::listener);
        let envoy = start_envoy(upstream, dir.path(), &self.plugin, &calls)?;
        let (envoy, gateway) = self.with_front(envoy, gateway, &artifacts.envoy, &dir, handle)?;
        let operator = aggregator.operator();
        let aggregator = Mutex::new(aggregator);
        Ok(Mesh {
            envoy,
            gateway,
            aggregator,
            chaos,
            judge,
            faults,
            provider,
            operator,
            n_workers: self.n_workers,
            runtime,
            small_disk,
            dir,
        })
    }

    /// Puts what stands before an overlay's Envoy there, where something does.
    fn with_front(
        &self,
        envoy: Envoy,
        gateway: Option<Envoy>,
        program: &Path,
        dir: &TempDir,
        runtime: &Handle,
    ) -> anyhow::Result<(Envoy, Option<Envoy>)> {
        let overlay = self.overlay.as_ref();
        let front = overlay.and_then(|overlay| overlay.front(envoy.listener(), dir.path()));
        let Some(front) = front else {
            return Ok((envoy, gateway));
        };
        let folder = dir.path().join("front");
        std::fs::create_dir_all(&folder)?;
        let front = Envoy::start(Launch::new(program, front, 1, &folder), runtime)?;
        Ok((front, Some(envoy)))
    }

    fn identity(&self) -> anyhow::Result<Option<Identity>> {
        let names: Vec<&str> = self.certified_names.iter().map(String::as_str).collect();
        let is_certified = !names.is_empty();
        is_certified.then(|| Identity::of(&names)).transpose()
    }

    fn ingest(
        &self,
        runtime: &Runtime,
        aggregator: &Aggregator,
    ) -> anyhow::Result<(Option<Chaos>, Ingest)> {
        match (self.has_chaos, aggregator.ingest()) {
            (true, Ingest::Tcp(target)) => {
                let chaos = runtime.block_on(Chaos::before(*target))?;
                let address = chaos.address();
                Ok((Some(chaos), Ingest::Tcp(address)))
            }
            (_, ingest) => Ok((None, ingest.clone())),
        }
    }

    fn envoy_config(
        &self,
        wasm: &Path,
        ingest: &Ingest,
        upstream: SocketAddr,
        ca: Option<&Path>,
        plugin: &Value,
        dir: &Path,
    ) -> anyhow::Result<Value> {
        let places = Places {
            wasm,
            ingest,
            provider: (!self.calls_real_providers).then_some(upstream),
            provider_ca: ca,
            is_upstream_http2: self.is_upstream_http2,
            routes_every_host: self.routes_every_host,
            plugin,
        };
        let mut config = match &self.overlay {
            Some(overlay) => overlay.config(&places, dir)?,
            None => {
                let mut config = shipped_envoy_config()?;
                envoy_config::fill_in(&mut config, &places)?;
                config
            }
        };
        if self.hot_restart.is_some() || self.reads_listeners {
            envoy_config::listen_at(&mut config, ports::free())?;
        }
        envoy_config::patch_routes(&mut config, &self.routes);
        envoy_config::patch_hosts(&mut config, &self.hosts);
        envoy_config::put_first(&mut config, &self.filter_before);
        if !self.logs_access {
            envoy_config::without_access_logs(&mut config);
        }
        (self.envoy_patch)(&mut config);
        if self.reads_listeners {
            envoy_config::listeners_to(&mut config, &dir.join(LISTENERS))?;
        }
        Ok(config)
    }
}

/// `envoy/envoy.yaml` as it ships.
pub fn shipped_envoy_config() -> anyhow::Result<Value> {
    let path = artifacts::root().join("envoy/envoy.yaml");
    let yaml = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read {}", path.display()))?;
    envoy_config::read(&yaml)
}
