//! Passing signals on to the child processes at work, so that nobody is orphaned.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, exit};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process_group};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// What a shell adds to a signal's number to tell that a program died of it.
const DIED_OF_SIGNAL: i32 = 128;

/// The relay: each signal that asks us to stop goes to the whole process group of each child, and
/// we end only after all of them have.
#[derive(Clone, Default)]
pub struct Relay(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    groups: Vec<Pid>,
    asked_to_stop: Option<i32>,
}

impl Relay {
    /// Takes over SIGINT, SIGTERM and SIGHUP for this process.
    pub fn install() -> Result<Self> {
        let relay = Self::default();
        let mut signals =
            Signals::new([SIGINT, SIGTERM, SIGHUP]).context("take over the stop signals")?;
        let listener = relay.clone();
        thread::spawn(move || {
            signals
                .forever()
                .for_each(|signal| listener.pass_on(signal))
        });
        Ok(relay)
    }

    /// Starts a child in a process group of its own: a Ctrl-C then reaches it once, through us.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        let mut state = self.state();
        if state.asked_to_stop.is_some() {
            return Err(io::Error::other("asked to stop"));
        }
        let child = command.process_group(0).spawn()?;
        state.groups.push(Pid::from_child(&child));
        Ok(child)
    }

    /// To be called when that child has been waited for; answers which signal asked to stop, if
    /// one did and no other child is left.
    pub fn child_is_gone(&self, child: Pid) -> Option<i32> {
        let mut state = self.state();
        state.groups.retain(|group| *group != child);
        state.asked_to_stop.filter(|_| state.groups.is_empty())
    }

    fn pass_on(&self, signal: i32) {
        let mut state = self.state();
        state.asked_to_stop = Some(signal);
        match (state.groups.as_slice(), Signal::from_named_raw(signal)) {
            (groups @ [_, ..], Some(signal)) => {
                for group in groups {
                    // An error means that it has just gone; whoever waits for it will tell us.
                    let _ = kill_process_group(*group, signal);
                }
            }
            _ => end_by(signal),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends this process as a shell reports one that died of the signal.
pub fn end_by(signal: i32) -> ! {
    exit(DIED_OF_SIGNAL + signal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::Stdio;

    #[test]
    fn the_child_hears_it_and_is_waited_for() {
        let relay = Relay::default();
        // A grandchild that holds the pipe open: it has to hear the signal as well. It says itself
        // that it is up, for a shell that has just forked may lose a signal.
        let script = "trap 'echo heard; exit 7' TERM; sh -c 'echo up; exec sleep 600' & wait";
        let mut child = relay
            .spawn(
                Command::new("sh")
                    .args(["-c", script])
                    .stdout(Stdio::piped()),
            )
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "up");
        relay.pass_on(SIGTERM);
        assert_eq!(lines.next().unwrap().unwrap(), "heard");
        assert!(lines.next().is_none(), "the grandchild lives on");
        assert_eq!(child.wait().unwrap().code(), Some(7));
        assert_eq!(relay.child_is_gone(Pid::from_child(&child)), Some(SIGTERM));
        assert!(
            relay.spawn(&mut Command::new("true")).is_err(),
            "stopping, not starting"
        );
    }
}
