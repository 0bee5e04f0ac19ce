//! Unpacking a Debian package into the tools folder: needs no root, installs nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::workshop::{Workshop, only_file, remove_folder};

/// The package's files below the tools folder, as they would lie below `/`. apt checks what it
/// downloads against the signed lists of the machine's own distribution.
pub fn unpacked(workshop: &Workshop, package: &str) -> Result<PathBuf> {
    let home = workshop.tools().join(format!("debian-{package}"));
    if home.is_dir() {
        return Ok(home);
    }
    let part = workshop.tools().join(format!(".debian-{package}.part"));
    remove_folder(&part)?;
    let downloads = part.join("download");
    fs::create_dir_all(&downloads).with_context(|| format!("create {}", downloads.display()))?;
    download(workshop, package, &downloads)?;
    let ready = part.join("ready");
    let mut unpack = Command::new("dpkg-deb");
    unpack
        .arg("--extract")
        .arg(only_file(&downloads)?)
        .arg(&ready);
    workshop
        .steps
        .run(&format!("unpacking {package}"), &mut unpack)?;
    fs::rename(&ready, &home).with_context(|| format!("create {}", home.display()))?;
    remove_folder(&part)?;
    Ok(home)
}

fn download(workshop: &Workshop, package: &str, folder: &Path) -> Result<()> {
    let mut apt = Command::new("apt-get");
    // As root apt would drop to a user who may not write here, and warn of it.
    apt.args(["-qq", "-o", "APT::Sandbox::User=root", "download", package])
        .current_dir(folder);
    workshop
        .steps
        .run(&format!("downloading {package}"), &mut apt)
}
