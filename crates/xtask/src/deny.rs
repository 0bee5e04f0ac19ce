//! Whether what we link may be linked: licences, crates and sources, and vulnerabilities that are known.
//!
//! The rules are in `.cargo/deny.toml`; cargo-deny judges by them.
//! <https://embarkstudios.github.io/cargo-deny/>

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::workshop::{Workshop, remove_folder};

/// The release that is built from the registry, with the dependencies that it was published with.
const RELEASE: &str = "0.20.2";

/// The rules, from the root.
const RULES: &str = ".cargo/deny.toml";

/// What needs nothing but the crates themselves.
const CHECKS: [&str; 3] = ["licenses", "bans", "sources"];

/// It is built to be run once: what its own release profile asks for takes several times as long.
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
        Ok(()) => is_good &= judged(workshop, &program, &["--disable-fetch", "advisories"])?,
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
    Ok(match output.status.success() {
        true => Ok(()),
        false => Err(reason_in(&String::from_utf8_lossy(&output.stderr))),
    })
}

/// The first thing that a program complained of.
fn reason_in(said: &str) -> String {
    let mut lines = said.lines().filter(|line| !line.trim().is_empty());
    let first = lines.next().unwrap_or("cargo-deny does not say why");
    let words = first
        .split_once("[ERROR] ")
        .map_or(first, |(_, words)| words);
    words.trim().to_owned()
}

fn command(workshop: &Workshop, program: &Path, subcommand: &str) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(&workshop.root)
        .args(["--locked", subcommand, "--config", RULES]);
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
    let what = format!("building cargo-deny {RELEASE}, which takes minutes");
    workshop.steps.run(&what, &mut cargo)?;
    fs::rename(&ready, home).with_context(|| format!("put cargo-deny into {}", home.display()))?;
    remove_folder(&part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_what_was_complained_of_first() {
        let cases = [
            (
                "\n2026-11-22 10:00:00 [ERROR] failed to fetch\n  because",
                "failed to fetch",
            ),
            ("error: no config\n", "error: no config"),
            ("", "cargo-deny does not say why"),
        ];
        for (said, reason) in cases {
            assert_eq!(reason_in(said), reason);
        }
    }
}
