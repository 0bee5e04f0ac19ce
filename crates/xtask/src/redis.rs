//! Finding a Redis: the machine's own, else its distribution's packages, unpacked here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::debian;
use crate::envoy::in_path;
use crate::tools::Found;
use crate::workshop::Workshop;

/// The oldest whose commands the scripts use.
const MAJOR_MIN: u32 = 7;

/// The server, and the libraries that it wants and other programs rarely do.
const PACKAGES: [&str; 5] = [
    "redis-server",
    "redis-tools",
    "libjemalloc2",
    "liblzf1",
    "libatomic1",
];

/// Where the packages have the program.
const PROGRAM_IN_PACKAGE: &str = "usr/bin/redis-server";

const REMEDY: &str = "put a redis-server or valkey-server of version 7 or later into PATH";

/// A server to work with; it is only ever run on data of our own.
pub fn find(workshop: &Workshop) -> Result<Found> {
    let installed = in_path("redis-server")
        .into_iter()
        .chain(in_path("valkey-server"));
    for path in installed {
        if let Ok(found) = tried(workshop, path, None) {
            return Ok(found);
        }
    }
    let _lock = workshop.lock_tools()?;
    let packages = PACKAGES.map(str::to_owned);
    let home = debian::unpacked_together(workshop, "redis", &packages).context(REMEDY)?;
    let libraries = libraries_of(&home);
    tried(workshop, home.join(PROGRAM_IN_PACKAGE), libraries).context(REMEDY)
}

fn libraries_of(home: &Path) -> Option<PathBuf> {
    let folders = std::fs::read_dir(home.join("usr/lib")).ok()?;
    folders
        .filter_map(|folder| Some(folder.ok()?.path()))
        .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
}

fn tried(workshop: &Workshop, path: PathBuf, libraries: Option<PathBuf>) -> Result<Found> {
    let mut command = Command::new(&path);
    if let Some(libraries) = libraries {
        command.env("LD_LIBRARY_PATH", libraries);
    }
    let output = workshop.steps.ask(command.arg("--version"))?;
    ensure!(
        output.status.success(),
        "{}: {}",
        path.display(),
        output.status
    );
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some(version) = version_in(&said) else {
        bail!("{} tells no version", path.display());
    };
    let major = version.split('.').next().unwrap_or_default();
    ensure!(
        major.parse::<u32>().is_ok_and(|major| major >= MAJOR_MIN),
        "{} is version {version}",
        path.display()
    );
    Ok(Found {
        what: format!("redis {version}"),
        path,
        variable: Some("TOLLMESH_REDIS"),
    })
}

/// From `Redis server v=7.0.15 sha=00000000:0 malloc=…`.
fn version_in(said: &str) -> Option<&str> {
    said.split_whitespace()
        .find_map(|word| word.strip_prefix("v="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_servers_say() {
        for (said, version) in [
            (
                "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64",
                Some("7.0.15"),
            ),
            (
                "Valkey server v=8.1.0 sha=00000000:1 malloc=libc bits=64",
                Some("8.1.0"),
            ),
            ("redis-server: not found", None),
        ] {
            assert_eq!(version_in(said), version, "{said:?}");
        }
    }
}
