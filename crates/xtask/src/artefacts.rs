//! Building what ships, exactly as it ships: the filter's wasm, the aggregator's binary.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::toolchain::WASM_TARGET;
use crate::workshop::Workshop;

/// Flags of the user's environment would replace those of `.cargo/config.toml`, and the wasm would
/// be another one than the one that ships.
const FLAG_VARIABLES: [&str; 3] = [
    "RUSTFLAGS",
    "CARGO_ENCODED_RUSTFLAGS",
    "CARGO_TARGET_WASM32_WASIP1_RUSTFLAGS",
];

/// From the root.
const NOOP_MANIFEST: &str = "tests/noop-filter/Cargo.toml";

/// The environment variables by which demo, tests and benchmark learn where the artefacts are.
pub type Variables = Vec<(&'static str, PathBuf)>;

/// Builds filter and aggregator.
pub fn build(workshop: &Workshop) -> Result<Variables> {
    Ok(vec![
        ("TOLLMESH_WASM", filter(workshop)?),
        ("TOLLMESH_BIN", aggregator(workshop)?),
    ])
}

/// Builds one program of the package `tollmesh-tests`. Nobody waits for a slow link of a program
/// that is run once, so it is the development profile unless the caller asks for another.
pub fn driver(workshop: &Workshop, name: &str, profile: Profile) -> Result<PathBuf> {
    let (given, folder) = match profile {
        Profile::Quick => ("dev", "debug"),
        Profile::Fast => ("driver", "driver"),
    };
    let args = ["--profile", given, "-p", "tollmesh-tests", "--bin", name];
    workshop.steps.run(
        &format!("building the {name}"),
        &mut workshop.cargo("build", &args),
    )?;
    there(workshop.target.join(folder).join(name))
}

/// Builds the program that drives the filter's session natively and counts its heap.
pub fn stream_memory(workshop: &Workshop) -> Result<PathBuf> {
    example(workshop, "tollmesh-filter", "stream_memory")
}

/// Builds the program that forwards as a thousand sidecars do.
pub fn forward_load(workshop: &Workshop) -> Result<PathBuf> {
    example(workshop, "tollmesh-aggregator", "forward_load")
}

/// Builds the program that makes a large ledger.
pub fn large_ledger(workshop: &Workshop) -> Result<PathBuf> {
    example(workshop, "tollmesh-aggregator", "large_ledger")
}

/// Builds the program that tries budgets by a model, against the stores that ship.
pub fn budget_model(workshop: &Workshop) -> Result<PathBuf> {
    example(workshop, "tollmesh-aggregator", "budget_model")
}

fn example(workshop: &Workshop, package: &str, name: &str) -> Result<PathBuf> {
    let args = ["--profile", "driver", "-p", package, "--example", name];
    workshop.steps.run(
        &format!("building the {name}"),
        &mut workshop.cargo("build", &args),
    )?;
    there(workshop.target.join("driver/examples").join(name))
}

/// How a driver is built.
#[derive(Clone, Copy)]
pub enum Profile {
    /// The development profile: little waiting.
    Quick,
    /// Optimised, for a driver that must not be the slow part of what it measures.
    Fast,
}

/// Builds the filter that does nothing: the floor under any filter's cost. It is a workspace of its
/// own, so that nothing of ours gets into it.
pub fn noop_filter(workshop: &Workshop) -> Result<PathBuf> {
    let args = [
        "--release",
        "--manifest-path",
        NOOP_MANIFEST,
        "--target",
        WASM_TARGET,
    ];
    let mut cargo = workshop.cargo("build", &args);
    for variable in FLAG_VARIABLES {
        cargo.env_remove(variable);
    }
    workshop
        .steps
        .run("building the empty filter", &mut cargo)?;
    there(
        workshop
            .target
            .join(WASM_TARGET)
            .join("release/noop_filter.wasm"),
    )
}

fn filter(workshop: &Workshop) -> Result<PathBuf> {
    let args = [
        "--release",
        "-p",
        "tollmesh-filter",
        "--target",
        WASM_TARGET,
    ];
    let mut cargo = workshop.cargo("build", &args);
    for variable in FLAG_VARIABLES {
        cargo.env_remove(variable);
    }
    workshop.steps.run("building the filter", &mut cargo)?;
    there(
        workshop
            .target
            .join(WASM_TARGET)
            .join("release/tollmesh_filter.wasm"),
    )
}

fn aggregator(workshop: &Workshop) -> Result<PathBuf> {
    let mut cargo = workshop.cargo("build", &["--release", "-p", "tollmesh-aggregator"]);
    workshop.steps.run("building the aggregator", &mut cargo)?;
    there(workshop.target.join("release/tollmesh"))
}

fn there(path: PathBuf) -> Result<PathBuf> {
    ensure!(path.is_file(), "cargo built no {}", path.display());
    Ok(path)
}
