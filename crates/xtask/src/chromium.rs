//! Finding a Chromium: `PATH`, then the distribution's package with the libraries that it lacks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::debian;
use crate::envoy::in_path;
use crate::tools::Found;
use crate::workshop::Workshop;

/// The package; its program needs libraries that machines without a desktop do not have.
const PACKAGE: &str = "chromium";

/// Where Debian's package has the program. What is in `usr/bin` is a script for desktops.
const PROGRAM_IN_PACKAGE: &str = "usr/lib/chromium/chromium";

/// What to look for in `PATH`, under the names that distributions use.
const NAMES: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

/// Where that program is started from: beside the unpacked files, with the paths that they need.
const LAUNCHER: &str = "chromium-launcher";

/// A Chromium that runs without a screen.
pub fn find(workshop: &Workshop) -> Result<Found> {
    for path in NAMES.iter().flat_map(|name| in_path(name)) {
        if let Ok(found) = tried(workshop, path) {
            return Ok(found);
        }
    }
    let _lock = workshop.lock_tools()?;
    let fetch = || -> Result<Found> {
        let home =
            debian::unpacked_together(workshop, PACKAGE, &debian::lacking(workshop, PACKAGE)?)?;
        tried(workshop, launcher(&home)?)
    };
    fetch().context("install Chromium: sudo apt-get install --no-install-recommends chromium")
}

fn tried(workshop: &Workshop, path: PathBuf) -> Result<Found> {
    let output = workshop.steps.ask(Command::new(&path).arg("--version"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "{} --version: {}",
        path.display(),
        output.status
    );
    let version =
        version_in(&said).with_context(|| format!("{} tells no version", path.display()))?;
    Ok(Found {
        what: format!("chromium {version}"),
        path,
        variable: Some("TOLLMESH_CHROMIUM"),
    })
}

/// A script that starts the unpacked program with the libraries unpacked beside it.
fn launcher(home: &Path) -> Result<PathBuf> {
    let path = home.join(LAUNCHER);
    let text = format!(
        "#!/bin/sh\n\
         here=$(dirname \"$(readlink -f \"$0\")\")\n\
         for lib in \"$here\"/usr/lib/*-linux-gnu \"$here\"/usr/lib/*-linux-gnu/pulseaudio; do\n  \
           LD_LIBRARY_PATH=\"$lib${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\"\n\
         done\n\
         export LD_LIBRARY_PATH\n\
         exec \"$here/{PROGRAM_IN_PACKAGE}\" \"$@\"\n"
    );
    let written = || -> std::io::Result<()> {
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))
    };
    written().with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}

/// From `Chromium 156.0.8078.79 built on Debian …`.
fn version_in(said: &str) -> Option<String> {
    let mut words = said.split_whitespace();
    let version = words.find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    version.contains('.').then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_read_off_what_it_says() {
        for (said, version) in [
            ("Chromium 156.0.8078.79 \n", Some("156.0.8078.79")),
            ("Google Chrome 150.0.1 beta", Some("150.0.1")),
            ("Chromium snap is missing", None),
            ("", None),
        ] {
            assert_eq!(version_in(said).as_deref(), version, "{said:?}");
        }
    }
}
