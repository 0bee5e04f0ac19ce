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
        return if path.is_file() {
            Ok(path)
        } else {
            Err(format!("{name} is not at {} ({variable})", path.display()))
        };
    }
    let found = places
        .iter()
        .map(|place| root().join(place))
        .find(|path| path.is_file());
    found.ok_or_else(|| format!("{name} is not built: run `{remedy}`"))
}
