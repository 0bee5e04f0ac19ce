//! A child process that never outlives us, with its words kept in a file.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

/// What is shown of a child's log when a test fails.
const LOG_TAIL_BYTES_MAX: usize = 6_000;

/// A running child; killed and reaped when dropped.
#[derive(Debug)]
pub struct Running {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Running {
    /// Starts `command`; both of its output streams are appended to `log`.
    pub fn start(name: &'static str, mut command: Command, log: &Path) -> anyhow::Result<Running> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        // Ctrl-C goes to whoever started us; we take our children down in order.
        command.process_group(0);
        die_with_parent(&mut command);
        let program = command.get_program().to_os_string();
        let child = spawn_from_keeper(command)
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Running {
            name,
            child,
            log: log.to_path_buf(),
        })
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// SIGKILL, and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, without a wait.
    pub fn tell_to_end(&self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)
            .with_context(|| format!("cannot signal {}", self.name))
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self, patience: Duration) -> anyhow::Result<ExitStatus> {
        self.end_by(Signal::TERM, patience)
    }

    /// A signal that ends it, and waits for the end.
    pub fn end_by(&mut self, signal: Signal, patience: Duration) -> anyhow::Result<ExitStatus> {
        kill_process(Pid::from_child(&self.child), signal)
            .with_context(|| format!("cannot signal {}", self.name))?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!(
            "{} still runs {} s after a signal to end",
            self.name,
            patience.as_secs()
        )
    }

    /// The last of what it said.
    pub fn log_tail(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let from = bytes.len().saturating_sub(LOG_TAIL_BYTES_MAX);
        let tail = String::from_utf8_lossy(&bytes[from..]).into_owned();
        format!("--- the last of {}'s log ---\n{tail}", self.name)
    }

    /// All that it said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// CPU time used so far by all its threads, user and kernel, in clock ticks turned to time.
    pub fn cpu_time(&self) -> anyhow::Result<Duration> {
        let path = format!("/proc/{}/stat", self.id());
        let stat = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let ticks = cpu_ticks(&stat).with_context(|| format!("{path} has no times"))?;
        let per_second = rustix::param::clock_ticks_per_second();
        Ok(Duration::from_nanos(ticks * (1_000_000_000 / per_second)))
    }

    /// CPU time used so far by the threads that it has, to the nanosecond: for a process whose
    /// threads stay, finer than [`Running::cpu_time`].
    pub fn cpu_time_of_threads(&self) -> anyhow::Result<Duration> {
        let path = format!("/proc/{}/task", self.id());
        let mut ns = 0;
        for thread in fs::read_dir(&path).with_context(|| format!("cannot read {path}"))? {
            let path = thread?.path().join("schedstat");
            let stat = fs::read_to_string(&path)?;
            let on_cpu = stat.split_whitespace().next();
            let on_cpu: Option<u64> = on_cpu.and_then(|ns| ns.parse().ok());
            ns += on_cpu.with_context(|| format!("{} has no time", path.display()))?;
        }
        Ok(Duration::from_nanos(ns))
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most memory that was resident at any time, in bytes.
    pub fn peak_resident_bytes(&self) -> anyhow::Result<u64> {
        self.memory("VmHWM:")
    }

    /// A line of proc(5)'s `status`, given in KiB, as bytes.
    fn memory(&self, name: &str) -> anyhow::Result<u64> {
        let path = format!("/proc/{}/status", self.id());
        let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(kib.with_context(|| format!("{path} has no {name}"))? * 1024)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// utime + stime, fields 14 and 15 of proc(5)'s `stat`; the name in field 2 may hold spaces.
fn cpu_ticks(stat: &str) -> Option<u64> {
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let kernel: u64 = fields.next()?.parse().ok()?;
    Some(user + kernel)
}

/// Has the kernel kill the child when we die, however we die.
#[allow(unsafe_code)]
fn die_with_parent(command: &mut Command) {
    let request =
        || rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(Into::into);
    // SAFETY: the closure runs between fork and exec; it makes one system call and touches no
    // memory that another thread could have locked.
    unsafe {
        command.pre_exec(request);
    }
}

/// Spawns from a thread that lives as long as the process does: the kernel sends the death signal
/// when the *thread* that forked ends, and a test's thread ends with its test.
fn spawn_from_keeper(command: Command) -> std::io::Result<Child> {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static KEEPER: OnceLock<mpsc::Sender<Order>> = OnceLock::new();
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, reply) in inbox {
                let _ = reply.send(command.spawn());
            }
        });
        orders
    });
    let (reply, answer) = mpsc::channel();
    let gone = || std::io::Error::other("the thread that keeps children is gone");
    keeper.send((command, reply)).map_err(|_| gone())?;
    answer.recv().map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_found_behind_any_name() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 1 0 0 0 250 50 0 0 20 0 1 0 99";
        assert_eq!(cpu_ticks(stat), Some(300));
    }

    #[test]
    fn a_child_is_gone_when_its_handle_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut command = Command::new("sleep");
        command.arg("600");
        let running = Running::start("sleep", command, &dir.path().join("log")).expect("starts");
        let proc = format!("/proc/{}", running.id());
        assert!(Path::new(&proc).exists());
        drop(running);
        assert!(!Path::new(&proc).exists(), "{proc} is still there");
    }
}
