//! Running child processes step by step, telling what runs and how long it took.

use std::env;
use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::process::Pid;

use crate::signals::{self, Relay};

/// The steps of one run. They are told on standard error where somebody reads along, which is on a
/// terminal or in a CI log; in a pipe only errors are.
pub struct Steps {
    told: bool,
    relay: Relay,
}

impl Steps {
    /// Looks who is reading, and takes over the stop signals.
    pub fn start() -> Result<Self> {
        let told = std::io::stderr().is_terminal() || runs_in_ci();
        Ok(Self {
            told,
            relay: Relay::install()?,
        })
    }

    /// Whether somebody reads along.
    pub fn are_told(&self) -> bool {
        self.told
    }

    /// One line about what is going on.
    pub fn note(&self, what: &str) {
        if self.told {
            eprintln!("· {what}");
        }
    }

    /// One line that is worth reading even in a pipe.
    pub fn warn(&self, what: &str) {
        eprintln!("warning: {what}");
    }

    /// Runs a command, with all that it says on standard error; any end but success is an error.
    pub fn run(&self, what: &str, command: &mut Command) -> Result<()> {
        self.note(what);
        let since = Instant::now();
        let mut child = self.spawn(command.stdin(Stdio::null()).stdout(std::io::stderr()))?;
        let status = child.wait();
        self.child_is_gone(Pid::from_child(&child));
        succeeded(command, status?)?;
        self.note(&format!("{what}: {:.1} s", since.elapsed().as_secs_f32()));
        Ok(())
    }

    /// Runs a command and hands each line that it says to `line`, passing it on as well.
    pub fn tee(&self, command: &mut Command, mut line: impl FnMut(&str)) -> Result<ExitStatus> {
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.spawn(command)?;
        let (lines, said) = mpsc::channel();
        let readers = [
            child
                .stdout
                .take()
                .map(|out| read_lines(out, std::io::stdout, lines.clone())),
            child
                .stderr
                .take()
                .map(|err| read_lines(err, std::io::stderr, lines)),
        ];
        said.iter().for_each(|said| line(&said));
        readers
            .into_iter()
            .flatten()
            .for_each(|reader| drop(reader.join()));
        let status = child.wait();
        self.child_is_gone(Pid::from_child(&child));
        Ok(status?)
    }

    /// Runs a command that says all it says into a file; any end of it is an answer.
    pub fn log(&self, what: &str, command: &mut Command, log: File) -> Result<ExitStatus> {
        self.note(what);
        let said = log.try_clone().context("share the log")?;
        let mut child = self.spawn(command.stdin(Stdio::null()).stdout(said).stderr(log))?;
        let status = child.wait();
        self.child_is_gone(Pid::from_child(&child));
        Ok(status?)
    }

    /// Runs a short question, for instance for a version, and takes what it answers.
    pub fn ask(&self, command: &mut Command) -> Result<Output> {
        let command = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = self.spawn(command)?;
        let pid = Pid::from_child(&child);
        let output = child.wait_with_output();
        self.child_is_gone(pid);
        Ok(output?)
    }

    /// Becomes the command: signals and exit code are then its own affair. Returns only on failure.
    pub fn become_it(&self, command: &mut Command) -> anyhow::Error {
        let error = command.exec();
        anyhow::Error::new(error).context(format!("start {}", shown(command)))
    }

    fn child_is_gone(&self, child: Pid) {
        if let Some(signal) = self.relay.child_is_gone(child) {
            signals::end_by(signal);
        }
    }

    fn spawn(&self, command: &mut Command) -> Result<Child> {
        self.relay
            .spawn(command)
            .with_context(|| format!("start {}", shown(command)))
    }
}

/// CI services set `CI`; `.ci/run` does too.
pub fn runs_in_ci() -> bool {
    env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false")
}

/// The command as somebody would type it to try it by hand.
pub fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Until the stream ends, passes its lines on to `sink` and to `lines`.
fn read_lines<W: Write + 'static>(
    stream: impl Read + Send + 'static,
    sink: fn() -> W,
    lines: Sender<String>,
) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        let mut bytes = Vec::new();
        while stream.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
            // Whoever read our output may have gone; the child is still heard to its end.
            let _ = sink().write_all(&bytes);
            let _ = lines.send(String::from_utf8_lossy(&bytes).into_owned());
            bytes.clear();
        }
    })
}

fn succeeded(command: &Command, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("`{}` failed: {status}", shown(command));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    fn steps() -> Steps {
        Steps {
            told: false,
            relay: Relay::default(),
        }
    }

    #[test]
    fn a_failed_step_names_the_command() {
        let error = steps().run("trying", &mut sh("exit 3")).unwrap_err();
        assert_eq!(error.to_string(), "`sh -c exit 3` failed: exit status: 3");
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = steps()
            .run("trying", &mut Command::new("no-such-program"))
            .unwrap_err();
        assert_eq!(error.to_string(), "start no-such-program");
    }

    #[test]
    fn every_line_is_seen_even_one_that_is_not_utf8_or_ended() {
        let mut seen = Vec::new();
        let status = steps()
            .tee(&mut sh(r"printf 'one\n\377\nlast'; exit 1"), |line| {
                seen.push(line.to_owned())
            })
            .unwrap();
        assert_eq!(seen, ["one\n", "\u{fffd}\n", "last"]);
        seen.clear();
        steps()
            .tee(&mut sh("echo aloud >&2"), |line| seen.push(line.to_owned()))
            .unwrap();
        assert_eq!(seen, ["aloud\n"]);
        assert_eq!(status.code(), Some(1));
    }
}
