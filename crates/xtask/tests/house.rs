//! The rules of this house that a machine can see, checked on the whole checkout.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Which of our packages a package may name in its manifest, tests included. Arrows point down.
const ARROWS: &[(&str, &[&str])] = &[
    ("tollmesh-usage", &[]),
    ("tollmesh-wire", &["tollmesh-usage"]),
    ("tollmesh-pricing", &["tollmesh-usage"]),
    ("tollmesh-budget", &["tollmesh-usage"]),
    ("tollmesh-filter", &["tollmesh-usage", "tollmesh-wire"]),
    (
        "tollmesh-aggregator",
        &[
            "tollmesh-budget",
            "tollmesh-pricing",
            "tollmesh-usage",
            "tollmesh-wire",
        ],
    ),
    ("xtask", &[]),
    // It drives what ships from outside, and could not tell a mistake from a rule if it shared code.
    ("tollmesh-tests", &[]),
];

/// Floors 0 and 1: bytes and numbers in, bytes and numbers out.
const PURE: &[&str] = &[
    "tollmesh-usage",
    "tollmesh-wire",
    "tollmesh-pricing",
    "tollmesh-budget",
];

/// What stands for sockets, files, threads of its own, or logs.
const IMPURE_DEPENDENCIES: &[&str] = &[
    "axum",
    "hyper",
    "log",
    "mio",
    "notify",
    "redis",
    "reqwest",
    "rusqlite",
    "socket2",
    "tokio",
    "tokio-postgres",
    "tracing",
    "tracing-subscriber",
];

/// Sources in which no floating point may hold tokens or money.
const EXACT_SOURCES: &[&str] = &["crates/usage/src", "crates/pricing/src"];

/// Names of drawers: what lies in them has no name of its own yet.
const DRAWERS: &[&str] = &["common", "helpers", "misc", "models", "types", "utils"];

/// Documents in which every path into the checkout must exist.
const DOCUMENTS: &[&str] = &[
    "README.md",
    "CHANGELOG.md",
    "crates/README.md",
    "crates/usage/fuzz/README.md",
    "envoy/README.md",
    "k8s/README.md",
    "pricing/README.md",
    "tests/README.md",
];

/// Where a path into the checkout begins.
const ROOMS: &[&str] = &[
    "crates/", "envoy/", "k8s/", "pricing/", "tests/", ".ci/", ".cargo/",
];

#[test]
fn arrows_point_down_only() {
    let packages: BTreeSet<String> = manifests()
        .iter()
        .map(|manifest| name_in(&fs::read_to_string(manifest).unwrap()))
        .collect();
    let ruled: BTreeSet<String> = ARROWS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(
        packages, ruled,
        "a package without a place in the house, or a place without one"
    );

    let mut wrong = Vec::new();
    for (name, allowed) in ARROWS {
        for dependency in dependencies(name, "normal,build,dev", Some(1)) {
            if ruled.contains(&dependency) && !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{name} -> {dependency}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that point up or across: {wrong:?}"
    );
}

#[test]
fn the_lower_floors_know_no_sockets_files_or_logs() {
    let mut wrong = Vec::new();
    for name in PURE {
        for dependency in dependencies(name, "normal", None) {
            if IMPURE_DEPENDENCIES.contains(&dependency.as_str()) {
                wrong.push(format!("{name} links {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_lower_floors_name_no_clock_file_or_socket() {
    let words = [
        "std::fs",
        "std::net",
        "std::process",
        "SystemTime",
        "Instant::now",
        "println!",
    ];
    let mut wrong = Vec::new();
    for name in PURE {
        let sources = name.replace("tollmesh-", "crates/") + "/src";
        for (path, code) in production_code(Path::new(&sources)) {
            for word in words.iter().filter(|word| code.contains(*word)) {
                wrong.push(format!("{}: {word}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_filter_links_neither_prices_nor_budgets() {
    let linked = dependencies("tollmesh-filter", "normal", None);
    for absent in ["tollmesh-pricing", "tollmesh-budget", "rust_decimal"] {
        assert!(!linked.contains(absent), "the filter links {absent}");
    }
}

#[test]
fn no_floating_point_holds_tokens_or_money() {
    let mut wrong = Vec::new();
    for sources in EXACT_SOURCES {
        for (path, code) in production_code(Path::new(sources)) {
            wrong.extend(
                words(&code)
                    .filter(|word| ["f32", "f64"].iter().any(|float| word.ends_with(float)))
                    .map(|word| format!("{}: {word}", path.display())),
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn each_file_opens_with_its_responsibility() {
    let wrong: Vec<_> = rust_files(Path::new(""))
        .into_iter()
        .filter(|path| !read(path).starts_with("//! "))
        .collect();
    assert!(wrong.is_empty(), "no `//!` sentence on top: {wrong:?}");
}

#[test]
fn there_are_no_drawers() {
    let is_drawer = |name: &str| DRAWERS.contains(&name.trim_end_matches(".rs"));
    let wrong: Vec<_> = rust_files(Path::new(""))
        .into_iter()
        .filter(|path| path.iter().any(|name| is_drawer(&name.to_string_lossy())))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    // Written in halves, so that this file does not find itself.
    let notes = [["TO", "DO"], ["FIX", "ME"], ["X", "XX"]].map(|halves| halves.concat());
    let marks = [
        ["to", "do!("].concat(),
        ["unimple", "mented!("].concat(),
        ["#[ig", "nore"].concat(),
        ["assert!(", "true)"].concat(),
    ];
    let mut wrong = Vec::new();
    for path in rust_files(Path::new("")) {
        for (number, line) in read(&path).lines().enumerate() {
            let is_note = words(line).any(|word| notes.iter().any(|note| word == note));
            if is_note || marks.iter().any(|mark| line.contains(mark.as_str())) {
                wrong.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_knows_the_machine_it_was_written_on() {
    let homes = ["home", "root", "Users"].map(|folder| format!("/{folder}/"));
    let mut wrong = Vec::new();
    for path in files(Path::new(""), &["rs", "md", "toml", "yaml", "sh"]) {
        for (number, line) in read(&path).lines().enumerate() {
            if homes.iter().any(|home| line.contains(home)) {
                wrong.push(format!("{}:{}: {line}", path.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_path_in_a_document_exists() {
    let mut wrong = Vec::new();
    let manifests = files(Path::new("k8s"), &["md"]);
    let named = DOCUMENTS.iter().map(PathBuf::from);
    for document in named
        .chain(manifests)
        .filter(|document| root().join(document).is_file())
    {
        for path in paths_in(&read(&document)) {
            if !root().join(&path).exists() {
                wrong.push(format!("{} names {path}", document.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn every_crate_has_its_section_on_the_map() {
    let map = read(Path::new("crates/README.md"));
    let missing: Vec<_> = manifests()
        .iter()
        .filter_map(|manifest| manifest.parent()?.strip_prefix(root().join("crates")).ok())
        .map(|folder| format!("`crates/{}`", folder.display()))
        .filter(|section| {
            !map.lines()
                .any(|line| line.starts_with("##") && line.contains(section))
        })
        .collect();
    assert!(
        missing.is_empty(),
        "crates/README.md has no heading for {missing:?}"
    );
}

/// Quoted words of a document that begin in one of our rooms. Patterns are no paths.
fn paths_in(document: &str) -> BTreeSet<String> {
    let quoted = document.split('`').skip(1).step_by(2);
    quoted
        .flat_map(str::split_whitespace)
        .filter(|word| ROOMS.iter().any(|room| word.starts_with(room)))
        .filter(|word| !word.contains(['*', '<', '{', '$', '…']))
        .map(|word| word.trim_end_matches([',', ':', ';', '/']).to_owned())
        .collect()
}

/// Each source below `folder` without its comments and without its tests at the foot.
fn production_code(folder: &Path) -> Vec<(PathBuf, String)> {
    let strip = |source: &str| -> String {
        let production = source
            .split("#[cfg(test)]\nmod ")
            .next()
            .unwrap_or_default();
        let lines = production
            .lines()
            .map(|line| line.split("//").next().unwrap_or_default());
        lines.collect::<Vec<_>>().join("\n")
    };
    rust_files(folder)
        .into_iter()
        .filter(|path| !path.ends_with("tests.rs"))
        .map(|path| {
            let code = strip(&read(&path));
            (path, code)
        })
        .collect()
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

/// Names of the packages that `package` links, itself left out.
fn dependencies(package: &str, kinds: &str, depth: Option<u8>) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .current_dir(root())
        .args(["tree", "--prefix", "none", "--edges", kinds, "-p", package]);
    if let Some(depth) = depth {
        cargo.args(["--depth", &depth.to_string()]);
    }
    let output = cargo.output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let tree = String::from_utf8(output.stdout).unwrap();
    let names = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let linked: BTreeSet<_> = names
        .filter(|name| *name != package)
        .map(str::to_owned)
        .collect();
    assert!(
        tree.starts_with(package),
        "cargo tree does not begin with {package}:\n{tree}"
    );
    linked
}

fn manifests() -> Vec<PathBuf> {
    let mut manifests = vec![root().join("tests/Cargo.toml")];
    for folder in fs::read_dir(root().join("crates")).unwrap() {
        let manifest = folder.unwrap().path().join("Cargo.toml");
        if manifest.is_file() {
            manifests.push(manifest);
        }
    }
    manifests
}

fn name_in(manifest: &str) -> String {
    let line = manifest
        .lines()
        .find(|line| line.starts_with("name = "))
        .unwrap();
    line.split('"').nth(1).unwrap().to_owned()
}

/// Every Rust file below a folder of the checkout, as paths from its root.
fn rust_files(folder: &Path) -> Vec<PathBuf> {
    files(folder, &["rs"])
}

fn files(folder: &Path, extensions: &[&str]) -> Vec<PathBuf> {
    let is_wanted = |path: &Path| {
        path.extension()
            .is_some_and(|extension| extensions.iter().any(|wanted| extension == *wanted))
    };
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !path.is_symlink() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if is_wanted(&path) {
                files.push(path.strip_prefix(root()).unwrap().to_owned());
            }
        }
    }
    assert!(
        !files.is_empty(),
        "nothing to check below {}",
        folder.display()
    );
    files.sort();
    files
}

fn read(path: &Path) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path:?}: {error}"))
}

/// Asked of cargo when the test runs: a build folder shared by two checkouts would otherwise have
/// one of them check the other.
fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap();
    Path::new(&manifest).ancestors().nth(2).unwrap().to_owned()
}
