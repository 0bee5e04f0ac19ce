//! Unpacking Debian packages into the tools folder: needs no root, installs nothing.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::workshop::{Workshop, remove_folder};

/// The package's files below the tools folder, as they would lie below `/`. apt checks what it
/// downloads against the signed lists of the machine's own distribution.
pub fn unpacked(workshop: &Workshop, package: &str) -> Result<PathBuf> {
    unpacked_together(workshop, package, &[package.to_owned()])
}

/// The files of several packages in one tree of that name.
pub fn unpacked_together(workshop: &Workshop, name: &str, packages: &[String]) -> Result<PathBuf> {
    let home = workshop.tools().join(format!("debian-{name}"));
    if home.is_dir() {
        return Ok(home);
    }
    let part = workshop.tools().join(format!(".debian-{name}.part"));
    remove_folder(&part)?;
    let downloads = part.join("download");
    fs::create_dir_all(&downloads).with_context(|| format!("create {}", downloads.display()))?;
    download(workshop, name, packages, &downloads)?;
    let ready = part.join("ready");
    for archive in files_in(&downloads)? {
        let mut unpack = Command::new("dpkg-deb");
        unpack.arg("--extract").arg(&archive).arg(&ready);
        workshop
            .steps
            .run(&format!("unpacking {name}"), &mut unpack)?;
    }
    fs::rename(&ready, &home).with_context(|| format!("create {}", home.display()))?;
    remove_folder(&part)?;
    Ok(home)
}

/// The package that a package stands for, such as `postgresql-15` for `postgresql`.
pub fn direct_dependency(workshop: &Workshop, package: &str) -> Result<String> {
    let found = asked(workshop, &["depends", "--important", package])?;
    match found.iter().find(|name| name.starts_with(package)) {
        Some(name) => Ok(name.clone()),
        None => bail!("this distribution has no package {package}"),
    }
}

/// All packages that it needs, and that those need.
pub fn dependencies(workshop: &Workshop, package: &str) -> Result<BTreeSet<String>> {
    asked(workshop, &["depends", "--recurse", "--important", package])
}

/// The package and those that it needs and this machine lacks, as its installation would add them;
/// nothing is installed to find out.
pub fn lacking(workshop: &Workshop, package: &str) -> Result<Vec<String>> {
    let mut apt = Command::new("apt-get");
    apt.args(["--simulate", "--no-install-recommends", "install", package]);
    let output = workshop.steps.ask(&mut apt)?;
    ensure!(
        output.status.success(),
        "apt-get: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let names = to_be_added(&String::from_utf8_lossy(&output.stdout));
    ensure!(
        !names.is_empty(),
        "{package} is installed, and does not run"
    );
    Ok(names)
}

fn to_be_added(answer: &str) -> Vec<String> {
    let lines = answer.lines().filter_map(|line| line.strip_prefix("Inst "));
    lines
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// The packages that `apt-cache` names as dependencies; alternatives that nobody provides and
/// packages that exist in name only are left out.
fn asked(workshop: &Workshop, arguments: &[&str]) -> Result<BTreeSet<String>> {
    let output = workshop
        .steps
        .ask(Command::new("apt-cache").args(arguments))?;
    ensure!(
        output.status.success(),
        "apt-cache: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let answer = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(depended_on(&answer))
}

fn depended_on(answer: &str) -> BTreeSet<String> {
    answer
        .lines()
        .filter_map(|line| {
            line.trim_start()
                .trim_start_matches('|')
                .split_once("Depends: ")
        })
        .filter(|(kind, _)| ["", "Pre"].contains(kind))
        .map(|(_, name)| name.trim().to_owned())
        .filter(|name| !name.starts_with('<'))
        .collect()
}

fn download(workshop: &Workshop, name: &str, packages: &[String], folder: &Path) -> Result<()> {
    let mut apt = Command::new("apt-get");
    // As root apt would drop to a user who may not write here, and warn of it.
    apt.args(["-qq", "-o", "APT::Sandbox::User=root", "download"])
        .args(packages)
        .current_dir(folder);
    workshop.steps.run(&format!("downloading {name}"), &mut apt)
}

fn files_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let read = || -> std::io::Result<Vec<PathBuf>> {
        fs::read_dir(folder)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    };
    read().with_context(|| format!("read {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_installed_is_read() {
        let answer = "Reading package lists...\nInst libogg0 (1.3.5-3 Debian:12/stable [amd64])\n\
                      Inst chromium (156.0 Debian:12/stable [amd64])\nConf libogg0 (1.3.5-3)\n";
        assert_eq!(to_be_added(answer), ["libogg0", "chromium"]);
    }

    #[test]
    fn dependencies_are_read_and_the_rest_is_not() {
        let answer = "postgresql-15\n |Depends: tzdata\n  Depends: libpq5\n  PreDepends: libc6\n  \
                      Suggests: doc\n  Depends: <virtual>\n    provider\n  Breaks: old\nlibpq5\n  \
                      Depends: libssl3\n";
        let names: Vec<String> = depended_on(answer).into_iter().collect();
        assert_eq!(names, ["libc6", "libpq5", "libssl3", "tzdata"]);
    }
}
