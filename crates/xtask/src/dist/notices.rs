//! The licences of what is linked, word by word: most of them ask that their text goes along.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::linked;

/// How the files begin that hold a licence or a notice, in lower case.
const NAMES: [&str; 6] = [
    "copying",
    "copyright",
    "licence",
    "license",
    "notice",
    "unlicense",
];

/// One text for a package, of all crates that are linked into it and are not of this workspace: each
/// licence once, after those that it is of.
pub fn of(metadata: &Value, package: &str) -> Result<String> {
    let packages = linked::packages(metadata);
    let linked = linked::with(metadata, linked::root(&packages, package)?);
    let linked = linked.iter().filter_map(|id| packages.get(id));
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut without = Vec::new();
    for found in linked.filter(|found| !found["source"].is_null()) {
        let mut of_this = texts_of(found)?;
        of_this.dedup();
        if of_this.is_empty() {
            without.push(titled(found));
        }
        for text in of_this {
            texts.entry(text).or_default().push(titled(found));
        }
    }
    ensure!(!texts.is_empty(), "{package} links no crate with a licence");
    Ok(told(package, texts, without))
}

fn told(package: &str, texts: BTreeMap<String, Vec<String>>, mut without: Vec<String>) -> String {
    let mut sections: Vec<(String, String)> = texts
        .into_iter()
        .map(|(text, mut crates)| {
            crates.sort();
            (crates.join("\n"), text)
        })
        .collect();
    sections.sort();
    let rule = "=".repeat(78);
    let mut told = format!("What {package} links, and under which licences.\n");
    if !without.is_empty() {
        without.sort();
        let without = without.join("\n");
        told += &format!("\n{rule}\nWithout a text in the package:\n\n{without}\n");
    }
    for (crates, text) in sections {
        told += &format!("\n{rule}\n{crates}\n\n{}\n", text.trim_matches('\n'));
    }
    told
}

fn titled(package: &Value) -> String {
    let word = |key: &str| package[key].as_str().unwrap_or("unknown");
    let (name, version) = (word("name"), word("version"));
    format!("{name} {version} ({})", word("license"))
}

fn texts_of(package: &Value) -> Result<Vec<String>> {
    let manifest = package["manifest_path"].as_str();
    let folder = manifest.and_then(|path| Path::new(path).parent());
    let folder = folder.context("cargo says not where a package lies")?;
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))? {
        let path = entry?.path();
        if path.is_file() && is_legal(&path) {
            files.push(path);
        }
    }
    let named = package["license_file"].as_str();
    files.extend(named.map(|file| folder.join(file)));
    files.sort();
    files.dedup();
    files.iter().map(text_in).collect()
}

fn is_legal(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.to_lowercase();
    NAMES.iter().any(|begin| name.starts_with(begin))
}

/// With the line ends of this system, so that the same words are the same text.
fn text_in(file: &PathBuf) -> Result<String> {
    let bytes = fs::read(file).with_context(|| format!("read {}", file.display()))?;
    Ok(String::from_utf8_lossy(&bytes).replace("\r\n", "\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_text_stands_once_after_those_that_it_is_of() {
        let room = tempfile::tempdir().unwrap();
        let package = |name: &str, files: &[(&str, &str)], is_ours: bool| {
            let folder = room.path().join(name);
            fs::create_dir(&folder).unwrap();
            for (file, text) in files {
                fs::write(folder.join(file), text).unwrap();
            }
            json!({
                "id": name, "name": name, "version": "1.0.0", "license": "MIT",
                "source": if is_ours { Value::Null } else { json!("registry") },
                "manifest_path": folder.join("Cargo.toml"),
            })
        };
        let on = |id: &str| json!({ "pkg": id, "dep_kinds": [{ "kind": null }] });
        let metadata = json!({
            "packages": [
                package("ours", &[("LICENSE", "our own")], true),
                package("b", &[("LICENSE-MIT", "shared\r\nwords\r\n"), ("lib.rs", "code")], false),
                package("a", &[("License.txt", "shared\nwords\n"), ("NOTICE", "a's\n")], false),
                package("bare", &[], false),
                package("built-with", &[("LICENSE", "not linked")], false),
            ],
            "resolve": { "nodes": [{ "id": "ours", "deps": [on("a"), on("b"), on("bare")] }] }
        });
        let rule = "=".repeat(78);
        let want = format!(
            "What ours links, and under which licences.\n\n\
             {rule}\nWithout a text in the package:\n\nbare 1.0.0 (MIT)\n\n\
             {rule}\na 1.0.0 (MIT)\n\na's\n\n\
             {rule}\na 1.0.0 (MIT)\nb 1.0.0 (MIT)\n\nshared\nwords\n"
        );
        assert_eq!(of(&metadata, "ours").unwrap(), want);
    }

    #[test]
    fn every_crate_that_the_filter_links_is_named_in_its_notices() {
        let mut cargo = std::process::Command::new(env!("CARGO"));
        cargo.args(["metadata", "--locked", "--format-version", "1"]);
        cargo.args(["--filter-platform", crate::toolchain::WASM_TARGET]);
        let output = cargo.output().unwrap();
        let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
        let told = of(&metadata, "tollmesh-filter").unwrap();
        let packages = linked::packages(&metadata);
        let root = linked::root(&packages, "tollmesh-filter").unwrap();
        for id in linked::with(&metadata, root) {
            let found = packages[id];
            let is_named = told.contains(&titled(found));
            assert_eq!(is_named, !found["source"].is_null(), "{id}");
        }
        assert!(told.contains("Permission is hereby granted"), "{told}");
    }
}
