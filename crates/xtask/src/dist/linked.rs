//! What cargo links into an artefact, by cargo's own metadata.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::workshop::Workshop;

/// Cargo's metadata for what is built for a target.
pub fn metadata(workshop: &Workshop, target: &str) -> Result<Value> {
    let args = ["--locked", "--format-version", "1", "--filter-platform"];
    let mut cargo = std::process::Command::new("cargo");
    cargo.current_dir(&workshop.root).arg("metadata");
    let output = workshop.steps.ask(cargo.args(args).arg(target))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cargo metadata: {said}");
    serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")
}

/// Every package that cargo knows, by its id.
pub fn packages(metadata: &Value) -> BTreeMap<&str, &Value> {
    list(&metadata["packages"])
        .filter_map(|package| Some((package["id"].as_str()?, package)))
        .collect()
}

/// The id of a package.
pub fn root<'a>(packages: &BTreeMap<&'a str, &Value>, name: &str) -> Result<&'a str> {
    let root = packages.iter().find(|(_, found)| found["name"] == name);
    let (id, _) = root.with_context(|| format!("cargo knows no {name}"))?;
    Ok(id)
}

/// The package itself and all that is linked with it; build scripts and tests are not.
pub fn with<'a>(metadata: &'a Value, root: &'a str) -> BTreeSet<&'a str> {
    let nodes: BTreeMap<&str, &Value> = nodes(metadata).collect();
    let mut found = BTreeSet::new();
    let mut waiting = vec![root];
    while let Some(id) = waiting.pop() {
        if found.insert(id) {
            waiting.extend(nodes.get(id).into_iter().flat_map(|node| normal(node)));
        }
    }
    found
}

/// What each package depends on, by its id.
pub fn nodes(metadata: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let nodes = list(&metadata["resolve"]["nodes"]);
    nodes.filter_map(|node| Some((node["id"].as_str()?, node)))
}

/// Dependencies of a node that are not of its build script or tests alone.
pub fn normal(node: &Value) -> impl Iterator<Item = &str> {
    let is_normal =
        |dependency: &&Value| list(&dependency["dep_kinds"]).any(|kind| kind["kind"].is_null());
    let dependencies = list(&node["deps"]).filter(is_normal);
    dependencies.filter_map(|dependency| dependency["pkg"].as_str())
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
