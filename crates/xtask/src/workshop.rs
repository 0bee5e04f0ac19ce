//! Where this repository lies, and where what is built or fetched for it goes.

use std::env;
use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::steps::Steps;

/// One checkout, with its build folder and the one line of work done in it.
pub struct Workshop {
    /// The folder of the workspace's `Cargo.toml`.
    pub root: PathBuf,
    /// Cargo's output; also handed to each cargo that is started here, so that a `build.target-dir`
    /// of the user's own configuration cannot move what is looked for afterwards.
    pub target: PathBuf,
    /// Runs child processes, tells how far the work is.
    pub steps: Steps,
}

impl Workshop {
    /// The checkout that this very command was started from.
    pub fn open() -> Result<Self> {
        // Cargo sets it for what it runs; the compiled-in value serves who starts the file itself.
        let manifest = env::var_os("CARGO_MANIFEST_DIR")
            .unwrap_or_else(|| OsString::from(env!("CARGO_MANIFEST_DIR")));
        let root = Path::new(&manifest)
            .ancestors()
            .find(|folder| folder.join("Cargo.lock").is_file())
            .with_context(|| format!("no Cargo.lock above {}", Path::new(&manifest).display()))?
            .to_path_buf();
        let target = match env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => env::current_dir()
                .context("working directory")?
                .join(folder),
            None => root.join("target"),
        };
        Ok(Self {
            root,
            target,
            steps: Steps::start()?,
        })
    }

    /// Where fetched components are kept; `cargo clean` takes them along.
    pub fn tools(&self) -> PathBuf {
        self.target.join("tools")
    }

    /// A cargo that works on this checkout: `cargo("build", &["--release"])`.
    pub fn cargo(&self, subcommand: &str, args: &[&str]) -> Command {
        self.cargo_into(&self.target, subcommand, args)
    }

    /// The same, with its output in another folder: what is built with flags of its own.
    pub fn cargo_into(&self, target: &Path, subcommand: &str, args: &[&str]) -> Command {
        let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo
            .current_dir(&self.root)
            .arg(subcommand)
            .arg("--target-dir")
            .arg(target);
        if !self.steps.are_told() {
            cargo.arg("--quiet");
        }
        cargo.args(args);
        cargo
    }

    /// Keeps a second `cargo xtask` out of the tools folder until the result is dropped.
    pub fn lock_tools(&self) -> Result<File> {
        let tools = self.tools();
        fs::create_dir_all(&tools).with_context(|| format!("create {}", tools.display()))?;
        let path = tools.join(".lock");
        let file = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => {
                self.steps
                    .note("waiting for another `cargo xtask` that is fetching tools");
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        }
        file.lock()
            .with_context(|| format!("lock {}", path.display()))?;
        Ok(file)
    }
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

/// The one file in a folder; none or several are an error.
pub fn only_file(folder: &Path) -> Result<PathBuf> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exactly_one_file_is_expected() {
        let folder = tempfile::tempdir().unwrap();
        assert!(only_file(folder.path()).is_err());
        fs::write(folder.path().join("a"), "").unwrap();
        assert_eq!(only_file(folder.path()).unwrap(), folder.path().join("a"));
        fs::write(folder.path().join("b"), "").unwrap();
        assert!(only_file(folder.path()).is_err());
    }

    #[test]
    fn a_folder_that_is_not_there_is_as_good_as_removed() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("a");
        fs::create_dir_all(inner.join("b")).unwrap();
        remove_folder(&inner).unwrap();
        assert!(!inner.exists());
        remove_folder(&inner).unwrap();
    }
}
