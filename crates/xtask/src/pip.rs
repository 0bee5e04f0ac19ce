//! Finding a pip: the machine's own, else one that we get ourselves without installing anything.

use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Result, bail};

use crate::debian;
use crate::workshop::{Workshop, only_file, remove_folder};

/// The interpreter: it runs pip, and unpacks wheels.
pub const PYTHON: &str = "python3";

const REMEDY: &str = "run: sudo apt-get install --no-install-recommends python3-pip";

/// A command to which pip's own arguments can be added.
pub fn find(workshop: &Workshop) -> Result<Command> {
    if !answers(workshop, Command::new(PYTHON).arg("--version")) {
        bail!("no {PYTHON} in PATH; {REMEDY}");
    }
    for way in [of_the_machine, of_a_virtual_environment, of_debian] {
        if let Ok(mut pip) = way(workshop)
            && answers(
                workshop,
                Command::new(pip.get_program())
                    .args(pip.get_args())
                    .arg("-V"),
            )
        {
            pip.arg("--disable-pip-version-check");
            return Ok(pip);
        }
    }
    bail!("{PYTHON} has no pip; {REMEDY}")
}

fn of_the_machine(_: &Workshop) -> Result<Command> {
    Ok(module_pip(OsStr::new(PYTHON)))
}

/// Python brings a pip along in `ensurepip`; some distributions take it out.
fn of_a_virtual_environment(workshop: &Workshop) -> Result<Command> {
    let home = workshop.tools().join("python");
    let python = home.join("bin").join("python");
    let made = || {
        answers(
            workshop,
            Command::new(PYTHON).args(["-m", "venv"]).arg(&home),
        )
    };
    if !python.exists() && !made() {
        remove_folder(&home)?;
        bail!("{PYTHON} makes no virtual environment");
    }
    Ok(module_pip(python.as_os_str()))
}

/// Debian keeps the wheel of pip in a package of its own, and pip runs from its wheel.
fn of_debian(workshop: &Workshop) -> Result<Command> {
    let files = debian::unpacked(workshop, "python3-pip-whl")?;
    let wheel = only_file(&files.join("usr/share/python-wheels"))?;
    let mut pip = Command::new(PYTHON);
    pip.arg(wheel.join("pip"));
    Ok(pip)
}

fn module_pip(python: &OsStr) -> Command {
    let mut pip = Command::new(python);
    pip.args(["-m", "pip"]);
    pip
}

fn answers(workshop: &Workshop, command: &mut Command) -> bool {
    workshop
        .steps
        .ask(command)
        .is_ok_and(|output| output.status.success())
}
