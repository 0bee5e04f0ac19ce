//! The whole street: a provider, a real Envoy with the filter, and a real aggregator.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::aggregator::Aggregator;
use crate::artifacts::{self, Artifacts};
use crate::chaos::Chaos;
use crate::client::Client;
use crate::envoy::Envoy;
use crate::envoy_config::{self, Ingest, Places};
use crate::ledger::Ledger;
use crate::provider::Provider;

/// Everything that runs; all of it goes when this is dropped.
#[derive(Debug)]
pub struct Mesh {
    // Dropped in this order: Envoy flushes to nobody, then the aggregator, then what they called.
    envoy: Envoy,
    aggregator: Mutex<Aggregator>,
    chaos: Option<Chaos>,
    provider: Arc<Provider>,
    operator: SocketAddr,
    runtime: Runtime,
    dir: TempDir,
}

/// What a mesh is made like; what a test does not speak about is as shipped.
#[derive(Clone, Debug)]
pub struct MeshBuilder {
    plugin: Value,
    aggregator: String,
    n_workers: usize,
    is_upstream_http2: bool,
    routes_every_host: bool,
    has_chaos: bool,
    on_unix_socket: bool,
    calls_real_providers: bool,
    other_provider: Option<SocketAddr>,
}

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
            n_workers: 2,
            is_upstream_http2: false,
            routes_every_host: false,
            has_chaos: false,
            on_unix_socket: false,
            calls_real_providers: false,
            other_provider: None,
        }
    }

    /// An app of that team.
    pub fn client(&self, team: &str) -> Client {
        self.anonymous().tag("team", team)
    }

    /// An app that says nothing about itself.
    pub fn anonymous(&self) -> Client {
        let provider = Arc::clone(&self.provider);
        Client::new(
            self.runtime.handle().clone(),
            self.envoy.listener(),
            provider,
        )
    }

    /// The provider.
    pub fn provider(&self) -> &Provider {
        &self.provider
    }

    /// Envoy.
    pub fn envoy(&self) -> &Envoy {
        &self.envoy
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
        let log = self.envoy.process().log();
        let words = ["RuntimeError", "panicked", "wasm_fail_stream"];
        let bad = log
            .lines()
            .find(|line| words.iter().any(|word| line.contains(word)));
        assert_eq!(bad, None, "the filter trapped");
        assert_eq!(
            self.counted("faults"),
            0,
            "the filter found itself in an impossible state"
        );
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

    /// Where people and Prometheus look.
    pub fn operator(&self) -> SocketAddr {
        self.operator
    }

    /// What everything runs on.
    pub fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// The directory with the configurations, the logs and the ledger.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }
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

    /// A provider of one's own stands in for all, in the scripted one's place.
    pub fn provider_at(mut self, address: SocketAddr) -> MeshBuilder {
        self.other_provider = Some(address);
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
        let provider = Arc::new(runtime.block_on(Provider::start())?);
        let aggregator = Aggregator::start(
            &artifacts.tollmesh,
            dir.path(),
            self.on_unix_socket,
            &self.aggregator,
            handle,
        )?;
        let (chaos, ingest) = self.ingest(&runtime, &aggregator)?;
        let config = self.envoy_config(&artifacts.wasm, &ingest, &provider)?;
        let envoy = Envoy::start(
            &artifacts.envoy,
            &config,
            self.n_workers,
            dir.path(),
            handle,
        )?;
        let operator = aggregator.operator();
        let aggregator = Mutex::new(aggregator);
        Ok(Mesh {
            envoy,
            aggregator,
            chaos,
            provider,
            operator,
            runtime,
            dir,
        })
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
        provider: &Provider,
    ) -> anyhow::Result<Value> {
        let mut config = shipped_envoy_config()?;
        let address = self.other_provider.unwrap_or(provider.address());
        let places = Places {
            wasm,
            ingest,
            provider: (!self.calls_real_providers).then_some(address),
            is_upstream_http2: self.is_upstream_http2,
            routes_every_host: self.routes_every_host,
            plugin: &self.plugin,
        };
        envoy_config::fill_in(&mut config, &places)?;
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
