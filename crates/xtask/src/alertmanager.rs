//! Finding Alertmanager: `PATH`, then the distribution's package.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::debian;
use crate::envoy::in_path;
use crate::tools::Found;
use crate::workshop::Workshop;

/// Debian's name of the program, which is its package's too, and everybody else's.
const NAMES: [&str; 2] = ["prometheus-alertmanager", "alertmanager"];

/// An Alertmanager that runs.
pub fn find(workshop: &Workshop) -> Result<Found> {
    for path in NAMES.into_iter().flat_map(in_path) {
        if let Ok(found) = tried(workshop, path) {
            return Ok(found);
        }
    }
    let _lock = workshop.lock_tools()?;
    let home = debian::unpacked(workshop, NAMES[0])
        .context("fetch Alertmanager, or put alertmanager into PATH")?;
    tried(workshop, home.join("usr/bin").join(NAMES[0]))
}

fn tried(workshop: &Workshop, path: PathBuf) -> Result<Found> {
    let output = workshop.steps.ask(Command::new(&path).arg("--version"))?;
    ensure!(
        output.status.success(),
        "{} --version: {}",
        path.display(),
        output.status
    );
    // Older releases say it on standard error.
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let version = version_in(&said);
    let version = version.with_context(|| format!("{} tells no version", path.display()))?;
    Ok(Found {
        what: format!("alertmanager {version}"),
        path,
        variable: Some("TOLLMESH_ALERTMANAGER"),
    })
}

/// From `alertmanager, version 0.25.0 (branch: …`.
fn version_in(said: &str) -> Option<&str> {
    let (_, after) = said.split_once("version ")?;
    let version = after.split_whitespace().next()?;
    version
        .starts_with(|c: char| c.is_ascii_digit())
        .then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_off_the_first_line() {
        let said = "alertmanager, version 0.25.0 (branch: debian/sid, revision: 0.25.0-1+b4)\n";
        assert_eq!(version_in(said), Some("0.25.0"));
        assert_eq!(version_in("version (unknown)"), None);
        assert_eq!(version_in(""), None);
    }
}
