//! Fetching the providers' official Python SDKs, at the versions that the tests name.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::pip::{self, PYTHON};
use crate::tools::Found;
use crate::workshop::{Workshop, remove_folder};

/// Each package with its version.
const REQUIREMENTS: &str = "tests/sdks/requirements.txt";
/// What the tests import.
const PACKAGES: [&str; 2] = ["openai", "anthropic"];

/// A folder that Python finds the SDKs in, where it is told to look there.
pub fn find(workshop: &Workshop) -> Result<Found> {
    let _lock = workshop.lock_tools()?;
    let requirements = workshop.root.join(REQUIREMENTS);
    let wanted = fs::read_to_string(&requirements)
        .with_context(|| format!("read {}", requirements.display()))?;
    let folder = workshop.tools().join("python-sdks");
    // Written last: what was interrupted is begun anew.
    let note = folder.join("requirements.txt");
    if fs::read_to_string(&note).ok().as_ref() != Some(&wanted) {
        remove_folder(&folder)?;
        let mut pip = pip::find(workshop)?;
        pip.args(["install", "--quiet", "--no-deps", "--only-binary", ":all:"]);
        pip.args(["--no-warn-conflicts", "--root-user-action", "ignore"]);
        pip.arg("--target").arg(&folder);
        pip.arg("--requirement").arg(&requirements);
        workshop
            .steps
            .run("downloading the providers' Python SDKs", &mut pip)?;
        fs::write(&note, &wanted).with_context(|| format!("write {}", note.display()))?;
    }
    Ok(Found {
        what: versions(workshop, &folder)?,
        path: folder,
        variable: Some("TOLLMESH_SDKS"),
    })
}

/// What Python imports from there.
fn versions(workshop: &Workshop, folder: &Path) -> Result<String> {
    let mut versions = Vec::new();
    for package in PACKAGES {
        let code = format!("import {package}; print({package}.__version__)");
        let mut python = Command::new(PYTHON);
        python.args(["-c", &code]).env("PYTHONPATH", folder);
        let output = workshop.steps.ask(&mut python)?;
        ensure!(
            output.status.success(),
            "{PYTHON} cannot import {package} from {}: {}; delete that folder and try again",
            folder.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        let version = String::from_utf8_lossy(&output.stdout);
        versions.push(format!("{package} {}", version.trim()));
    }
    Ok(versions.join(", "))
}
