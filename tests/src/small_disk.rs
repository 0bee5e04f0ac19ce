//! A file system of a few megabytes, so that a test can fill it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

/// A tmpfs over a directory; gone when dropped.
#[derive(Debug)]
pub struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts one of that size (`4m`) over `dir`. Fails where this process may not mount.
    pub fn over(dir: &Path, size: &str) -> anyhow::Result<SmallDisk> {
        let options = format!("size={size}");
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tollmesh-test"])
            .arg(dir)
            .output()
            .context("mount does not run")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cannot mount a tmpfs: {said}");
        Ok(SmallDisk {
            dir: dir.to_path_buf(),
        })
    }

    /// Fills what is left of it.
    ///
    /// # Panics
    /// Where that does not end in a full disk.
    pub fn fill(&self) {
        let filled = fs::write(self.filler(), vec![0; 64 << 20]);
        assert_eq!(
            filled.expect_err("it is smaller").kind(),
            ErrorKind::StorageFull
        );
    }

    /// Frees what [`SmallDisk::fill`] took.
    pub fn free(&self) {
        fs::remove_file(self.filler()).expect("it was filled before");
    }

    fn filler(&self) -> PathBuf {
        self.dir.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: a child that was killed a moment ago may not be gone for the kernel yet.
        let _ = Command::new("umount").arg("--lazy").arg(&self.dir).status();
    }
}
