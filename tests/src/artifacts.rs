//! Where Envoy, the wasm and the binary are, and what happens where one is missing.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The three things that a mesh is made of.
#[derive(Clone, Debug)]
pub struct Artifacts {
    /// Envoy.
    pub envoy: PathBuf,
    /// The filter.
    pub wasm: PathBuf,
    /// The aggregator.
    pub tollmesh: PathBuf,
}

/// One component: where it is looked for, and how it is made.
struct Component {
    name: &'static str,
    /// Names the file outright.
    variable: &'static str,
    /// Where the project's own set-up puts it, from the root.
    places: &'static [&'static str],
    remedy: &'static str,
}

const ENVOY: Component = Component {
    name: "Envoy",
    variable: "TOLLMESH_ENVOY",
    places: &["target/tools/envoy-1.40.0/envoy"],
    remedy: "cargo xtask setup",
};

const WASM: Component = Component {
    name: "the filter",
    variable: "TOLLMESH_WASM",
    places: &["target/wasm32-wasip1/release/tollmesh_filter.wasm"],
    remedy: "cargo build --release -p tollmesh-filter --target wasm32-wasip1",
};

const TOLLMESH: Component = Component {
    name: "the aggregator",
    variable: "TOLLMESH_BIN",
    places: &["target/release/tollmesh", "target/debug/tollmesh"],
    remedy: "cargo build --release -p tollmesh-aggregator",
};

const POSTGRES: Component = Component {
    name: "PostgreSQL",
    variable: "TOLLMESH_POSTGRES",
    // Newest first; a path from the root that is absolute is that path.
    places: &[
        "/usr/lib/postgresql/18/bin/postgres",
        "/usr/lib/postgresql/17/bin/postgres",
        "/usr/lib/postgresql/16/bin/postgres",
        "/usr/lib/postgresql/15/bin/postgres",
        "/usr/lib/postgresql/14/bin/postgres",
    ],
    remedy: "cargo xtask setup",
};

const PROMETHEUS: Component = Component {
    name: "Prometheus",
    variable: "TOLLMESH_PROMETHEUS",
    places: &["target/tools/debian-prometheus/usr/bin/prometheus"],
    remedy: "cargo xtask setup",
};

const KUSTOMIZE: Component = Component {
    name: "kubectl",
    variable: "TOLLMESH_KUSTOMIZE",
    places: &[
        "/usr/bin/kubectl",
        "/usr/local/bin/kubectl",
        "/usr/local/bin/kustomize",
    ],
    remedy: "cargo xtask setup",
};

const CHROMIUM: Component = Component {
    name: "Chromium",
    variable: "TOLLMESH_CHROMIUM",
    places: &[
        "target/tools/debian-chromium/chromium-launcher",
        "/usr/bin/chromium",
    ],
    remedy: "cargo xtask setup",
};

const KUBERNETES_SCHEMAS: Component = Component {
    name: "the schemas of Kubernetes",
    variable: "TOLLMESH_KUBERNETES_SCHEMAS",
    places: &["target/tools/kubernetes-schemas-1.37.0/v1.37.0-local-strict/_definitions.json"],
    remedy: "cargo xtask setup",
};

const REDIS: Component = Component {
    name: "Redis",
    variable: "TOLLMESH_REDIS",
    places: &[
        "target/tools/debian-redis/usr/bin/redis-server",
        "/usr/bin/redis-server",
        "/usr/bin/valkey-server",
    ],
    remedy: "cargo xtask setup",
};

const SDKS: Component = Component {
    name: "the providers' Python SDKs",
    variable: "TOLLMESH_SDKS",
    places: &["target/tools/python-sdks"],
    remedy: "cargo xtask setup",
};

const ALERTMANAGER: Component = Component {
    name: "Alertmanager",
    variable: "TOLLMESH_ALERTMANAGER",
    places: &["target/tools/debian-prometheus-alertmanager/usr/bin/prometheus-alertmanager"],
    remedy: "cargo xtask setup",
};

impl Artifacts {
    /// Looks for all three; the error names each that is missing and the command that makes it.
    pub fn find() -> Result<Artifacts, String> {
        let found = (locate(&ENVOY), locate(&WASM), locate(&TOLLMESH));
        match found {
            (Ok(envoy), Ok(wasm), Ok(tollmesh)) => Ok(Artifacts {
                envoy,
                wasm,
                tollmesh,
            }),
            (envoy, wasm, tollmesh) => {
                let missing: Vec<String> = [envoy.err(), wasm.err(), tollmesh.err()]
                    .into_iter()
                    .flatten()
                    .collect();
                Err(missing.join("; "))
            }
        }
    }

    /// As [`Artifacts::find`], for tests: `None` after a loud word where something is missing, and
    /// a failure where `TOLLMESH_REQUIRE` promises that nothing is.
    pub fn find_or_skip() -> Option<Artifacts> {
        match Artifacts::find() {
            Ok(artifacts) => Some(artifacts),
            Err(missing) => {
                skip(&missing);
                None
            }
        }
    }
}

/// The project's root.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
}

/// The aggregator alone.
pub fn tollmesh() -> Result<PathBuf, String> {
    locate(&TOLLMESH)
}

/// PostgreSQL's server.
pub fn postgres() -> Result<PathBuf, String> {
    locate(&POSTGRES)
}

/// Redis's server; where it was unpacked instead of installed, its libraries lie beside it.
pub fn redis() -> Result<PathBuf, String> {
    locate(&REDIS)
}

/// Prometheus; promtool lies beside it.
pub fn prometheus() -> Result<PathBuf, String> {
    locate(&PROMETHEUS)
}

/// The folder that Python finds the providers' SDKs in.
pub fn sdks() -> Result<PathBuf, String> {
    locate(&SDKS)
}

/// Alertmanager.
pub fn alertmanager() -> Result<PathBuf, String> {
    locate(&ALERTMANAGER)
}

/// kubectl or kustomize.
pub fn kustomize() -> Result<PathBuf, String> {
    locate(&KUSTOMIZE)
}

/// The folder of Kubernetes' schemas, one below it for each release.
pub fn kubernetes_schemas() -> Result<PathBuf, String> {
    let newest = locate(&KUBERNETES_SCHEMAS)?;
    let folder = newest.ancestors().nth(2).map(Path::to_path_buf);
    folder.ok_or_else(|| format!("{} is in no folder", newest.display()))
}

/// Chromium.
pub fn chromium() -> Result<PathBuf, String> {
    locate(&CHROMIUM)
}

/// Says aloud that a test was skipped, and why.
///
/// # Panics
/// Where `TOLLMESH_REQUIRE` is set: there a missing component is a failure.
pub fn skip(missing: &str) {
    assert!(
        env::var_os("TOLLMESH_REQUIRE").is_none(),
        "required here, but {missing}"
    );
    // Straight to the stream: the test runner swallows what `eprintln!` says in tests that pass.
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {missing}");
}

fn locate(component: &Component) -> Result<PathBuf, String> {
    let Component {
        name,
        variable,
        places,
        remedy,
    } = component;
    if let Some(named) = env::var_os(variable) {
        let path = PathBuf::from(named);
        return if path.exists() {
            Ok(path)
        } else {
            Err(format!("{name} is not at {} ({variable})", path.display()))
        };
    }
    let found = places
        .iter()
        .map(|place| root().join(place))
        .find(|path| path.exists());
    found.ok_or_else(|| format!("{name} is not built: run `{remedy}`"))
}
