//! Faults of disk and clock, put between a child and its libc by a small library in C.
//!
//! The library is built when a test first wants it, by the C compiler that building SQLite takes
//! anyway. It makes file operations below one folder fail, and sets the wall clock off; all else
//! passes. That needs neither root nor a tracer, and reaches what is linked to libc dynamically.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

const SOURCE: &str = include_str!("fault.c");

/// What goes wrong with an operation on a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// EIO: the disk could not.
    Io = 5,
    /// ENOSPC: the disk is full.
    NoSpace = 28,
}

/// Which operations fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Writing.
    Write,
    /// Making what was written durable.
    Sync,
}

/// Faults of one child: the library, and the file by which it is told.
#[derive(Debug)]
pub struct Faults {
    library: PathBuf,
    folder: PathBuf,
    control_path: PathBuf,
    control: File,
}

/// Bytes of the control file: two faults of three numbers, and the clock's. All are 64 bits wide,
/// in the machine's own order.
const CONTROL_BYTES: u64 = 7 * 8;
const CLOCK_PLACE: u64 = 6;

impl Operation {
    /// The place of its error in the control file; behind it stand how many operations still
    /// succeed, and how many have failed.
    fn place(self) -> u64 {
        match self {
            Operation::Write => 0,
            Operation::Sync => 3,
        }
    }
}

impl Faults {
    /// Builds the library in `dir`; what is told will hold for files below `folder`.
    pub fn below(folder: &Path, dir: &Path) -> anyhow::Result<Faults> {
        let source = dir.join("fault.c");
        let library = dir.join("fault.so");
        std::fs::write(&source, SOURCE)?;
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-o"])
            .args([&library, &source])
            .arg("-ldl");
        let output = cc.output().context("cc, a C compiler, does not run")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "cc failed: {said}");
        let control_path = dir.join("fault-control");
        let control = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&control_path)?;
        control.set_len(CONTROL_BYTES)?;
        Ok(Faults {
            library,
            folder: folder.to_path_buf(),
            control_path,
            control,
        })
    }

    /// The environment of the child that is to suffer.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        vec![
            ("LD_PRELOAD", self.library.clone().into()),
            ("TOLLMESH_FAULT_FOLDER", self.folder.clone().into()),
            ("TOLLMESH_FAULT_CONTROL", self.control_path.clone().into()),
        ]
    }

    /// From now on that operation fails, once `n_passing` more have succeeded.
    pub fn fail(&self, operation: Operation, errno: Errno, n_passing: u32) {
        self.put(operation.place() + 1, i64::from(n_passing));
        self.put(operation.place(), errno as i64);
    }

    /// From now on operations succeed again.
    pub fn heal(&self) {
        self.put(Operation::Write.place(), 0);
        self.put(Operation::Sync.place(), 0);
    }

    /// How many of them have failed so far.
    pub fn n_failed(&self, operation: Operation) -> i64 {
        let mut bytes = [0; 8];
        let read = self
            .control
            .read_exact_at(&mut bytes, (operation.place() + 2) * 8);
        read.expect("the control file is as long as it was made");
        i64::from_ne_bytes(bytes)
    }

    /// From now on the wall clock is so many milliseconds ahead, or behind where negative.
    pub fn set_clock_off(&self, ms: i64) {
        self.put(CLOCK_PLACE, ms);
    }

    fn put(&self, place: u64, number: i64) {
        let written = self.control.write_all_at(&number.to_ne_bytes(), place * 8);
        written.expect("the control file can be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(faults: &Faults, script: &str) -> (Option<i32>, String) {
        let mut sh = Command::new("sh");
        let output = sh.args(["-c", script]).envs(faults.environment()).output();
        let output = output.expect("sh runs");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    #[test]
    fn what_is_told_happens_below_the_folder_and_nowhere_else() {
        let dir = tempfile::tempdir().expect("a directory");
        let folder = dir.path().join("in");
        std::fs::create_dir(&folder).expect("a directory");
        let faults = Faults::below(&folder, dir.path()).expect("it builds");
        let (inside, beside) = (folder.join("a"), dir.path().join("a"));
        let write = |to: &Path| format!("dd if=/dev/zero bs=9 count=2 of={}", to.display());
        assert_eq!(sh(&faults, &write(&inside)).0, Some(0));

        faults.fail(Operation::Write, Errno::NoSpace, 1);
        let (code, said) = sh(&faults, &write(&inside));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("No space left on device"), "{said}");
        assert_eq!(faults.n_failed(Operation::Write), 1);
        assert_eq!(sh(&faults, &write(&beside)).0, Some(0));
        faults.heal();
        assert_eq!(sh(&faults, &write(&inside)).0, Some(0));

        faults.fail(Operation::Sync, Errno::Io, 0);
        let (code, said) = sh(&faults, &format!("sync {}", inside.display()));
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(faults.n_failed(Operation::Sync), 1);
    }

    #[test]
    fn the_wall_clock_is_off_both_ways() {
        let dir = tempfile::tempdir().expect("a directory");
        let faults = Faults::below(dir.path(), dir.path()).expect("it builds");
        let seconds = || -> i64 {
            let (_, said) = sh(&faults, "date +%s");
            said.trim().parse().expect("seconds")
        };
        let now = seconds();
        for off in [30 * 86_400, -3_600] {
            faults.set_clock_off(off * 1_000 - 1);
            let by = seconds() - now;
            assert!((off - 5..off + 20).contains(&by), "{by} instead of {off}");
        }
    }
}
