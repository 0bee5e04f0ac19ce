//! Finding Prometheus with its promtool: `PATH`, then the distribution's package.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::debian;
use crate::envoy::in_path;
use crate::tools::Found;
use crate::workshop::Workshop;

/// Where Debian's package has the program.
const PROGRAM_IN_PACKAGE: &str = "usr/bin/prometheus";

/// A Prometheus that runs, with the promtool of its release beside it.
pub fn find(workshop: &Workshop) -> Result<Found> {
    for path in in_path("prometheus") {
        if let Ok(found) = tried(workshop, path) {
            return Ok(found);
        }
    }
    let _lock = workshop.lock_tools()?;
    let home = debian::unpacked(workshop, "prometheus")
        .context("fetch Prometheus, or put prometheus and promtool into PATH")?;
    tried(workshop, home.join(PROGRAM_IN_PACKAGE))
}

fn tried(workshop: &Workshop, path: PathBuf) -> Result<Found> {
    let promtool = path.with_file_name("promtool");
    answer(workshop, &promtool)?;
    let version = version_in(&answer(workshop, &path)?)
        .with_context(|| format!("{} tells no version", path.display()))?;
    Ok(Found {
        what: format!("prometheus {version}"),
        path,
        variable: Some("TOLLMESH_PROMETHEUS"),
    })
}

/// What the program says to `--version`; older releases say it on standard error.
fn answer(workshop: &Workshop, program: &Path) -> Result<String> {
    let mut command = Command::new(program);
    let output = workshop.steps.ask(command.arg("--version"))?;
    ensure!(
        output.status.success(),
        "{} --version: {}",
        program.display(),
        output.status
    );
    let said = [output.stdout, output.stderr].concat();
    Ok(String::from_utf8_lossy(&said).into_owned())
}

/// From `prometheus, version 2.42.0+ds (branch: …`.
fn version_in(said: &str) -> Option<String> {
    let mut words = said.split_whitespace();
    words.find(|word| *word == "version")?;
    let version = words.next()?;
    version
        .starts_with(|c: char| c.is_ascii_digit())
        .then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_off_the_first_line() {
        let said =
            "prometheus, version 2.42.0+ds (branch: debian/sid, revision: 2)\n  build user: x";
        assert_eq!(version_in(said).as_deref(), Some("2.42.0+ds"));
        assert_eq!(version_in("version (unknown)"), None);
        assert_eq!(version_in(""), None);
    }
}
