//! A real Redis or Valkey: a server on data of its own, which outlive its processes.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use crate::process::Running;
use crate::{artifacts, fact, ports};

/// How long a server may take to read its data and to listen.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// A server.
#[derive(Debug)]
pub struct Redis {
    program: PathBuf,
    address: SocketAddr,
    runtime: Handle,
    running: Option<Running>,
    dir: TempDir,
}

impl Redis {
    /// A server that appends what it is told to a file. `None`, after a loud word, where there is no
    /// Redis.
    ///
    /// # Panics
    /// Where it does not start, and where `TOLLMESH_REQUIRE` forbids to skip.
    pub fn start(runtime: &Handle) -> Option<Redis> {
        let program = match artifacts::redis() {
            Ok(program) => program,
            Err(missing) => {
                artifacts::skip(&missing);
                return None;
            }
        };
        match Redis::set_up(program, runtime) {
            Ok(redis) => Some(redis),
            Err(error) => panic!("Redis does not start: {error:#}"),
        }
    }

    fn set_up(program: PathBuf, runtime: &Handle) -> anyhow::Result<Redis> {
        let mut redis = Redis {
            program,
            address: ports::free(),
            runtime: runtime.clone(),
            running: None,
            dir: tempfile::Builder::new()
                .prefix("tollmesh-redis-")
                .tempdir()?,
        };
        redis.restart()?;
        Ok(redis)
    }

    /// Where it listens, as the aggregator's configuration has it.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// SIGKILL.
    pub fn stop(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Starts on the data that the last process left, and waits until it answers.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop();
        let mut command = Command::new(&self.program);
        if let Some(libraries) = libraries_beside(&self.program) {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
        command.arg("--port").arg(self.address.port().to_string());
        command.arg("--dir").arg(self.dir.path());
        let log = self.dir.path().join("redis.log");
        self.running = Some(Running::start("redis", command, &log)?);
        let pong = fact::until(START_PATIENCE, || match self.ask("PING") {
            Ok(answer) if answer.starts_with("+PONG") => Ok(()),
            seen => Err(format!("{seen:?}")),
        });
        pong.map_err(anyhow::Error::msg)
    }

    /// Sends one command, and answers what comes back at once.
    pub fn ask(&self, command: &str) -> anyhow::Result<String> {
        self.runtime.block_on(async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream
                .write_all(format!("{command}\r\n").as_bytes())
                .await?;
            let mut answer = vec![0; 64 * 1024];
            let n = stream.read(&mut answer).await?;
            answer.truncate(n);
            String::from_utf8(answer).context("not text")
        })
    }
}

/// Where its packages were unpacked instead of installed, its libraries lie beside it.
fn libraries_beside(program: &Path) -> Option<PathBuf> {
    let lib = program.ancestors().nth(2)?.join("lib");
    fs::read_dir(lib)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
}
