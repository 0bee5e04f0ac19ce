//! Which street tests start an Envoy: the set that is run under each release of it.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// From the root; a file is a test program, named after it.
const STREET: &str = "tests/tests";

/// What a test cannot start an Envoy without, spelt as its file has to spell it.
const DOORS: [&str; 2] = ["Mesh::", "Artifacts::"];

/// The arguments by which cargo runs these programs and no others.
pub fn arguments(programs: &[String]) -> Vec<String> {
    let mut arguments = vec!["--package".to_owned(), "tollmesh-tests".to_owned()];
    for program in programs {
        arguments.extend(["--test".to_owned(), program.clone()]);
    }
    arguments
}

/// The test programs that start an Envoy, by name. They are read off their sources, so that a new one
/// is among them without a word to anybody.
pub fn programs(root: &Path) -> Result<Vec<String>> {
    let folder = root.join(STREET);
    let entries = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    let mut programs = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let source =
            fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        if starts_an_envoy(&source) {
            let name = path.file_stem().context("a file has a name")?;
            programs.push(name.to_string_lossy().into_owned());
        }
    }
    ensure!(
        !programs.is_empty(),
        "no test in {} starts an Envoy",
        folder.display()
    );
    programs.sort();
    Ok(programs)
}

fn starts_an_envoy(source: &str) -> bool {
    let mut code = source.lines().map(str::trim_start);
    code.any(|line| !line.starts_with("//") && DOORS.iter().any(|door| line.contains(door)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mesh_is_known_by_its_door() {
        let cases = [
            ("let mesh = Mesh::start();", true),
            ("MESH.mesh(Mesh::built)", true),
            (
                "    let Some(found) = Artifacts::find_or_skip() else {",
                true,
            ),
            ("//! What `Mesh::start` does.\nfn none() {}", false),
            ("use tollmesh_tests::Mesh;", false),
            ("let binary = artifacts::tollmesh();", false),
        ];
        for (source, starts) in cases {
            assert_eq!(starts_an_envoy(source), starts, "{source}");
        }
    }

    #[test]
    fn the_set_is_that_of_the_folder() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let programs = programs(&root).unwrap();
        for one in ["bytes", "faults_envoy", "k8s_street", "recorded", "start"] {
            assert!(programs.contains(&one.to_owned()), "{one}: {programs:?}");
        }
        for other in ["dashboard", "k8s_manifests", "rules"] {
            assert!(!programs.contains(&other.to_owned()), "{programs:?}");
        }
    }

    #[test]
    fn cargo_is_told_each_by_name() {
        assert_eq!(
            arguments(&["bytes".to_owned(), "ends".to_owned()]),
            [
                "--package",
                "tollmesh-tests",
                "--test",
                "bytes",
                "--test",
                "ends"
            ]
        );
    }
}
