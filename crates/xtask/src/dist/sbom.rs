//! What an artefact is made of, as CycloneDX: the crates that cargo links into it.
//!
//! From cargo's own metadata and lock file, so that it needs no further tool and is the same wherever
//! it is made. <https://cyclonedx.org/docs/1.5/json/>

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use serde_json::{Value, json};

use super::linked;

/// The bill of materials of a package; `lock` is what the lock file says.
pub fn of(metadata: &Value, lock: &str, package: &str) -> Result<String> {
    let bom = bill(metadata, &checksums(lock), package)?;
    Ok(serde_json::to_string_pretty(&bom)? + "\n")
}

fn bill(metadata: &Value, checksums: &BTreeMap<String, String>, package: &str) -> Result<Value> {
    let packages = linked::packages(metadata);
    let root = linked::root(&packages, package)?;
    let linked = linked::with(metadata, root);
    let components = linked.iter().filter(|id| **id != root);
    let components = components.filter_map(|id| packages.get(id));
    let mut components: Vec<Value> = components
        .map(|package| component("library", package, checksums))
        .collect();
    components.sort_by_key(|component| component["bom-ref"].to_string());
    let reference = |id: &str| packages.get(id).map(|package| purl(package));
    let dependencies: Vec<Value> = linked::nodes(metadata)
        .filter(|(id, _)| linked.contains(id))
        .map(|(id, node)| {
            let on: BTreeSet<_> = linked::normal(node).filter_map(reference).collect();
            json!({ "ref": reference(id), "dependsOn": on })
        })
        .collect();
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "component": component("application", packages[root], checksums) },
        "components": components,
        "dependencies": dependencies,
    }))
}

fn component(kind: &str, package: &Value, checksums: &BTreeMap<String, String>) -> Value {
    let mut component = json!({
        "type": kind,
        "bom-ref": purl(package),
        "name": package["name"],
        "version": package["version"],
        "purl": purl(package),
    });
    if let Some(license) = package["license"].as_str() {
        // An older way to write a choice.
        let choice: Vec<_> = license.split('/').map(str::trim).collect();
        let expression = choice.join(" OR ");
        component["licenses"] = json!([{ "expression": expression }]);
    }
    if let Some(sha256) = checksums.get(&named(package)) {
        component["hashes"] = json!([{ "alg": "SHA-256", "content": sha256 }]);
    }
    component
}

fn named(package: &Value) -> String {
    let word = |key: &str| package[key].as_str().unwrap_or_default();
    format!("{}@{}", word("name"), word("version"))
}

/// <https://github.com/package-url/purl-spec/blob/main/types-doc/cargo-definition.md>
fn purl(package: &Value) -> String {
    format!("pkg:cargo/{}", named(package))
}

/// By name and version, the hash of each crate that comes from a registry.
fn checksums(lock: &str) -> BTreeMap<String, String> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.strip_prefix(" = \"")?.strip_suffix('"')?.to_owned())
    };
    lock.split("[[package]]")
        .filter_map(|block| {
            let name = format!("{}@{}", value(block, "name")?, value(block, "version")?);
            Some((name, value(block, "checksum")?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_the_rest_is_not() {
        let package = |id: &str| json!({ "id": id, "name": id, "version": "1.0.0", "license": "MIT / Apache-2.0" });
        let on = |id: &str, kind: Value| json!({ "pkg": id, "dep_kinds": [{ "kind": kind }] });
        let metadata = json!({
            "packages": [package("ours"), package("linked"), package("deep"), package("built-with")],
            "resolve": { "nodes": [
                { "id": "ours", "deps": [on("linked", json!(null)), on("built-with", json!("build"))] },
                { "id": "linked", "deps": [on("deep", json!(null))] },
                { "id": "deep", "deps": [] },
                { "id": "built-with", "deps": [] },
            ] }
        });
        let lock = "[[package]]\nname = \"deep\"\nversion = \"1.0.0\"\nchecksum = \"00ff\"\n";
        let bom = bill(&metadata, &checksums(lock), "ours").unwrap();
        let names: Vec<_> = bom["components"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|found| found["name"].clone())
            .collect();
        assert_eq!(names, ["deep", "linked"]);
        assert_eq!(bom["components"][0]["hashes"][0]["content"], "00ff");
        assert_eq!(
            bom["components"][0]["licenses"][0]["expression"],
            "MIT OR Apache-2.0"
        );
        assert_eq!(bom["metadata"]["component"]["purl"], "pkg:cargo/ours@1.0.0");
        assert_eq!(bom["dependencies"].as_array().unwrap().len(), 3);
        assert!(bill(&metadata, &BTreeMap::new(), "other").is_err());
    }
}
