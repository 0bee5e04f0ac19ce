//! Under which terms an artefact is handed out: our licence, and what is asked for what is linked.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::{linked, notices, oci, read, sbom, write};
use crate::workshop::Workshop;

/// Where a toolchain has the terms of its standard library, with what that links.
const OF_THE_LIBRARY: &str = "share/doc/rust/COPYRIGHT-library.html";

/// The terms of one artefact, as they go into its image.
pub struct Terms(Vec<(&'static str, Vec<u8>)>);

impl Terms {
    /// Writes what a package is made of, and under which terms, into `home`.
    pub fn of(workshop: &Workshop, home: &Path, package: &str, target: &str) -> Result<Terms> {
        let metadata = linked::metadata(workshop, target)?;
        let lock = read(&workshop.root.join("Cargo.lock"))?;
        let lock = String::from_utf8(lock).context("Cargo.lock is not text")?;
        let bom = sbom::of(&metadata, &lock, package)?;
        write(&home.join(format!("{package}.cdx.json")), bom.as_bytes())?;
        let notices = notices::of(&metadata, package)?.into_bytes();
        write(&home.join(format!("{package}.NOTICES")), &notices)?;
        let mut terms = Terms(vec![("licenses/NOTICES", notices)]);
        let own = read(&workshop.root.join("LICENSE"))?;
        terms.add(home, "licenses/LICENSE", own)?;
        let library = sysroot(workshop)?.join(OF_THE_LIBRARY);
        match library.is_file() {
            true => terms.add(home, "licenses/rust-library.html", read(&library)?)?,
            false => workshop.steps.warn(&format!(
                "this Rust has no {}: its terms are not in the images",
                library.display()
            )),
        }
        Ok(terms)
    }

    /// Adds terms that stand in a file of their own, there and in `home`.
    pub fn add(&mut self, home: &Path, path: &'static str, bytes: Vec<u8>) -> Result<()> {
        let name = Path::new(path).file_name().context("a file has a name")?;
        write(&home.join(name), &bytes)?;
        self.0.push((path, bytes));
        Ok(())
    }

    /// Their files in an image.
    pub fn files(&self) -> impl Iterator<Item = oci::File<'_>> {
        self.0.iter().map(|(path, bytes)| oci::File {
            path,
            mode: 0o644,
            bytes,
        })
    }
}

fn sysroot(workshop: &Workshop) -> Result<PathBuf> {
    let mut rustc = Command::new("rustc");
    rustc.current_dir(&workshop.root);
    let output = workshop.steps.ask(rustc.args(["--print", "sysroot"]))?;
    ensure!(output.status.success(), "rustc tells no sysroot");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(PathBuf::from(said.trim()))
}
