//! The Rust standard library for a target that is not the machine's own, above all the filter's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::tools::Found;
use crate::workshop::Workshop;

/// The filter's target: WASI gives it clocks and randomness inside Envoy.
pub const WASM_TARGET: &str = "wasm32-wasip1";

/// Finds the target's standard library, or has rustup add it to the pinned toolchain.
pub fn find(workshop: &Workshop) -> Result<Found> {
    Ok(Found {
        what: WASM_TARGET.to_owned(),
        path: add(workshop, WASM_TARGET)?,
        variable: None,
    })
}

/// Finds a target's standard library, or has rustup add it to the pinned toolchain.
pub fn add(workshop: &Workshop, target: &str) -> Result<PathBuf> {
    let library = library(workshop, target)?;
    if !holds_std(&library) {
        let mut rustup = Command::new("rustup");
        rustup
            .current_dir(&workshop.root)
            .args(["target", "add", target]);
        workshop
            .steps
            .run(&format!("adding the target {target}"), &mut rustup)
            .with_context(|| remedy(target))?;
    }
    if !holds_std(&library) {
        let remedy = remedy(target);
        bail!("{remedy}: no standard library in {}", library.display());
    }
    Ok(library)
}

fn library(workshop: &Workshop, target: &str) -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc
        .current_dir(&workshop.root)
        .args(["--print", "target-libdir", "--target", target]);
    let output = workshop.steps.ask(&mut rustc)?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{}: rustc does not know it: {}",
            remedy(target),
            errors.trim()
        );
    }
    Ok(PathBuf::from(
        String::from_utf8_lossy(&output.stdout).trim(),
    ))
}

fn remedy(target: &str) -> String {
    format!(
        "this Rust cannot build for {target}; with rustup run: rustup target add \
         {target} (a distribution's Rust has it in a package of its own, or not at all)"
    )
}

fn holds_std(library: &Path) -> bool {
    fs::read_dir(library).is_ok_and(|files| {
        files
            .flatten()
            .any(|file| file.file_name().to_string_lossy().starts_with("libstd-"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_folder_is_no_standard_library() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!holds_std(&folder.path().join("missing")));
        assert!(!holds_std(folder.path()));
        fs::write(folder.path().join("libstd-0a1b.rlib"), "").unwrap();
        assert!(holds_std(folder.path()));
    }
}
