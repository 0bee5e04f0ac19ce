//! Finding a PostgreSQL: the machine's own, else its distribution's packages, unpacked here.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::debian;
use crate::tools::Found;
use crate::workshop::Workshop;

/// Where Debian and its kin keep servers, a folder a version.
const INSTALLED: &str = "usr/lib/postgresql";

/// The oldest that the shared ledger's tables are known to work on.
const VERSION_MIN: u32 = 14;

/// The package that names the distribution's own version.
const PACKAGE: &str = "postgresql";

/// What a server needs of every distribution anyway, or needs only for what we switch off.
const NOT_NEEDED: &[&str] = &["libc6", "libgcc-s1", "libllvm"];

const REMEDY: &str = "install PostgreSQL 14 or later: sudo apt-get install postgresql";

/// A server to work with; it is only ever run on data of our own, as an unprivileged user.
pub fn find(workshop: &Workshop) -> Result<Found> {
    if let Some(found) = server_below(workshop, Path::new("/")) {
        return Ok(found);
    }
    for folder in env::split_paths(&env::var_os("PATH").unwrap_or_default()) {
        // What is found by a link finds what belongs to it beside its own place only.
        if let Ok(program) = folder.join("postgres").canonicalize()
            && let Some(found) = answering(workshop, &program, &[])
        {
            return Ok(found);
        }
    }
    let _lock = workshop.lock_tools()?;
    fetched(workshop).context(REMEDY)
}

/// From the tools folder, into which it is unpacked once: the server alone where the machine has all
/// the libraries that it wants, else with them.
fn fetched(workshop: &Workshop) -> Result<Found> {
    let server = debian::direct_dependency(workshop, PACKAGE)?;
    let few = [server.clone(), "libpq5".to_owned()];
    let home = debian::unpacked_together(workshop, &server, &few)?;
    if let Some(found) = server_below(workshop, &home) {
        return Ok(found);
    }
    let libraries = debian::dependencies(workshop, &server)?
        .into_iter()
        .filter(|name| name.starts_with("lib"))
        .filter(|name| !NOT_NEEDED.iter().any(|not| name.starts_with(not)));
    let all: Vec<String> = [server.clone()].into_iter().chain(libraries).collect();
    let home = debian::unpacked_together(workshop, &format!("{server}-whole"), &all)?;
    match server_below(workshop, &home) {
        Some(found) => Ok(found),
        None => bail!("the server in {} does not start", home.display()),
    }
}

/// The newest server of a tree that answers.
fn server_below(workshop: &Workshop, root: &Path) -> Option<Found> {
    let folders = fs::read_dir(root.join(INSTALLED)).ok()?;
    let mut versions: Vec<u32> = folders
        .filter_map(|folder| folder.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    versions.sort_unstable();
    let libraries = libraries_of(root);
    versions.into_iter().rev().find_map(|version| {
        let program = root
            .join(INSTALLED)
            .join(version.to_string())
            .join("bin/postgres");
        answering(workshop, &program, &libraries)
    })
}

/// Such as `usr/lib/x86_64-linux-gnu`.
fn libraries_of(root: &Path) -> Vec<PathBuf> {
    let folders = fs::read_dir(root.join("usr/lib")).into_iter().flatten();
    folders
        .filter_map(|folder| Some(folder.ok()?.path()))
        .filter(|path| path.to_string_lossy().ends_with("-linux-gnu"))
        .collect()
}

/// The server with what makes its data, where both start and it is not too old.
fn answering(workshop: &Workshop, program: &Path, libraries: &[PathBuf]) -> Option<Found> {
    let asked = |program: PathBuf| {
        let mut command = Command::new(program);
        command.arg("--version");
        if let Ok(paths) = env::join_paths(libraries)
            && !libraries.is_empty()
        {
            command.env("LD_LIBRARY_PATH", paths);
        }
        let output = workshop.steps.ask(&mut command).ok()?;
        let answer = String::from_utf8(output.stdout).ok()?;
        output.status.success().then_some(answer)
    };
    asked(program.with_file_name("initdb"))?;
    let version = version_in(&asked(program.to_owned())?)?;
    let (major, _) = version.split_once('.').unwrap_or((&version, ""));
    (major.parse::<u32>().ok()? >= VERSION_MIN).then(|| Found {
        what: format!("postgres {version}"),
        path: program.to_owned(),
        variable: Some("TOLLMESH_POSTGRES"),
    })
}

/// `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`
fn version_in(answer: &str) -> Option<String> {
    let version = answer.split_whitespace().nth(2)?;
    version
        .starts_with(|letter: char| letter.is_ascii_digit())
        .then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_found_in_what_servers_say() {
        for (answer, version) in [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
                Some("15.18"),
            ),
            ("postgres (PostgreSQL) 18.1\n", Some("18.1")),
            ("postgres (PostgreSQL) 19beta1\n", Some("19beta1")),
            ("postgres: command not found\n", None),
            ("", None),
        ] {
            assert_eq!(version_in(answer).as_deref(), version, "{answer:?}");
        }
    }
}
