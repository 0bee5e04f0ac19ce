//! Whether what we link may be linked: licences, crates and sources, and vulnerabilities that are known.
//!
//! The rules are in `.cargo/deny.toml`; cargo-deny judges by them.
//! <https://embarkstudios.github.io/cargo-deny/>

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::steps::shown;
use crate::workshop::{Workshop, remove_folder};

/// The release that is built from the registry, with the dependencies that it was published with.
const RELEASE: &str = "0.20.2";

/// The rules, from the root.
const RULES: &str = ".cargo/deny.toml";

/// What needs nothing but the crates themselves.
const CHECKS: [&str; 3] = ["licenses", "bans", "sources"];

/// Its own release profile asks for fat LTO, which nobody has to wait for whose checks take seconds.
const QUICK_BUILD: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_LTO", "off"),
    ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
    ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
];

/// Judges, and says what was not judged.
pub fn run(workshop: &Workshop) -> Result<ExitCode> {
    let program = found(workshop)?;
    let mut is_good = judged(workshop, &program, &CHECKS)?;
    match fetched_advisories(workshop, &program)? {
        Ok(()) => is_good &= judged(workshop, &program, &["advisories"])?,
        Err(why) => workshop
            .steps
            .warn(&format!("advisories were not looked at: {why}")),
    }
    Ok(match is_good {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

/// Runs checks, which say themselves what they find; whether they found nothing.
fn judged(workshop: &Workshop, program: &Path, checks: &[&str]) -> Result<bool> {
    let mut command = command(workshop, program, "check");
    command.args(checks);
    Ok(workshop.steps.tee(&mut command, |_| ())?.success())
}

/// Gets the database of advisories; where it is out of reach, the answer is why.
fn fetched_advisories(workshop: &Workshop, program: &Path) -> Result<Result<(), String>> {
    workshop.steps.note("fetching the advisories of RustSec");
    let mut command = command(workshop, program, "fetch");
    let output = workshop.steps.ask(command.arg("db"))?;
    if output.status.success() {
        return Ok(Ok(()));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let why = out_of_reach(&said);
    let why = why.with_context(|| format!("`{}`: {}", shown(&command), said.trim()))?;
    Ok(Err(why))
}

/// Why a database could not be fetched, if that is what a program complains of; git's own word comes
/// last.
fn out_of_reach(said: &str) -> Option<String> {
    let (_, why) = said.split_once("failed to fetch")?;
    let last = why.lines().rfind(|line| !line.trim().is_empty())?;
    Some(last.trim().to_owned())
}

fn command(workshop: &Workshop, program: &Path, subcommand: &str) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(&workshop.root)
        .args(["--locked", "--config", RULES, subcommand]);
    command
}

/// The program, from the tools folder, into which it is built once.
fn found(workshop: &Workshop) -> Result<PathBuf> {
    let _lock = workshop.lock_tools()?;
    let home = workshop.tools().join(format!("cargo-deny-{RELEASE}"));
    let program = home.join("bin/cargo-deny");
    if !program.is_file() {
        install(workshop, &home)?;
    }
    Ok(program)
}

/// Whole or not at all: it is built elsewhere, and moved in place by one rename.
fn install(workshop: &Workshop, home: &Path) -> Result<()> {
    let part = workshop.tools().join(".cargo-deny.part");
    remove_folder(&part)?;
    remove_folder(home)?;
    let version = format!("={RELEASE}");
    let args = ["--locked", "--version", &version, "cargo-deny", "--root"];
    let mut cargo = workshop.cargo_into(&part.join("build"), "install", &args);
    let ready = part.join("ready");
    cargo.arg(&ready).envs(QUICK_BUILD);
    let what = format!("building cargo-deny {RELEASE}, once: two minutes and more");
    workshop.steps.run(&what, &mut cargo)?;
    fs::rename(&ready, home).with_context(|| format!("put cargo-deny into {}", home.display()))?;
    remove_folder(&part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_database_out_of_reach_is_gone_without() {
        let cases = [
            (
                "10:00:00 [ERROR] failed to fetch database: with cli: failed to clone: []\n\
                 Cloning into 'x'...\nfatal: Could not resolve host: github.com\n\n",
                Some("fatal: Could not resolve host: github.com"),
            ),
            ("error: unexpected argument '--config' found\n", None),
            ("", None),
        ];
        for (said, why) in cases {
            assert_eq!(out_of_reach(said).as_deref(), why, "{said}");
        }
    }
}
