//! A real Redis on data of its own: a server alone, or a cluster of three.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::process::Running;
use crate::{artifacts, fact, ports};

/// How long a server may take to listen, and a cluster to agree.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// The slots of a cluster, a third to each of its servers
/// (<https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/>).
const SLOTS: [&str; 3] = ["0 5460", "5461 10922", "10923 16383"];

/// A server with its data, which outlive each of its processes.
#[derive(Debug)]
pub struct Redis {
    program: PathBuf,
    address: SocketAddr,
    settings: Vec<String>,
    running: Option<Running>,
    dir: TempDir,
}

impl Redis {
    /// A server with an append-only file and further settings as on its command line. `None`, after
    /// a loud word, where Redis is missing.
    ///
    /// # Panics
    /// Where it does not start, and where `TOLLMESH_REQUIRE` forbids to skip.
    pub fn start(settings: &[&str]) -> Option<Redis> {
        match artifacts::redis() {
            Ok(program) => match Redis::set_up(&program, settings) {
                Ok(server) => Some(server),
                Err(error) => panic!("Redis does not start: {error:#}"),
            },
            Err(missing) => {
                artifacts::skip(&missing);
                None
            }
        }
    }

    /// Three servers that share the slots; any of them tells of the others.
    ///
    /// # Panics
    /// As [`Redis::start`].
    pub fn start_cluster() -> Option<Vec<Redis>> {
        let mut servers = Vec::new();
        for _ in SLOTS {
            let bus = ports::free().port().to_string();
            let settings = ["--cluster-enabled", "yes", "--cluster-port", &bus];
            servers.push((Redis::start(&settings)?, bus));
        }
        let joined = join(&servers);
        joined.expect("the servers do not become a cluster");
        Some(servers.into_iter().map(|(server, _)| server).collect())
    }

    fn set_up(program: &Path, settings: &[&str]) -> anyhow::Result<Redis> {
        let dir = tempfile::Builder::new()
            .prefix("tollmesh-redis-")
            .tempdir()?;
        let mut server = Redis {
            program: program.to_owned(),
            address: ports::free(),
            settings: settings.iter().map(|word| (*word).to_owned()).collect(),
            running: None,
            dir,
        };
        server.restart()?;
        Ok(server)
    }

    /// Where to connect.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The server's process, while one runs.
    pub fn process(&self) -> Option<&Running> {
        self.running.as_ref()
    }

    /// Starts the process anew on the same data and port; one that still runs is killed first.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        let mut command = Command::new(&self.program);
        // Where its packages were unpacked instead of installed, its libraries lie beside it.
        if let Some(libraries) = libraries_beside(&self.program) {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
        command.arg("--port").arg(self.address.port().to_string());
        command
            .arg("--dir")
            .arg(self.dir.path())
            .args(&self.settings);
        let log = self.dir.path().join("redis.log");
        self.running = Some(Running::start("redis", command, &log)?);
        let answers = fact::until(PATIENCE, || match self.try_ask("PING") {
            Ok(said) if said.starts_with("+PONG") || said.starts_with("-NOAUTH") => Ok(()),
            other => Err(format!("{other:?}")),
        });
        let log = || self.running.as_ref().map(Running::log_tail);
        answers.map_err(|seen| anyhow::anyhow!("{seen}\n{}", log().unwrap_or_default()))
    }

    /// SIGKILL, as when the machine goes.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Deletes all data.
    pub fn empty(&self) -> anyhow::Result<()> {
        self.ask("FLUSHALL").map(drop)
    }

    /// Sends a command on one line, and answers what comes back, in the server's own protocol.
    pub fn ask(&self, command: &str) -> anyhow::Result<String> {
        let answer = self.try_ask(command)?;
        ensure!(!answer.starts_with('-'), "{command}: {answer}");
        Ok(answer)
    }

    fn try_ask(&self, command: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
        // It ends the connection after its answer, which is therefore all that can be read.
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes())?;
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .with_context(|| command.to_owned())?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        Ok(answer.strip_suffix("+OK\r\n").unwrap_or(&answer).to_owned())
    }
}

fn join(servers: &[(Redis, String)]) -> anyhow::Result<()> {
    for ((server, _), slots) in servers.iter().zip(SLOTS) {
        server.ask(&format!("CLUSTER ADDSLOTSRANGE {slots}"))?;
        for (other, bus) in servers {
            let port = other.address.port();
            server.ask(&format!("CLUSTER MEET 127.0.0.1 {port} {bus}"))?;
        }
    }
    let known = format!("cluster_known_nodes:{}", servers.len());
    for (server, _) in servers {
        let agreed = fact::until(PATIENCE, || match server.try_ask("CLUSTER INFO") {
            Ok(said) if said.contains("cluster_state:ok") && said.contains(&known) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        agreed.map_err(|seen| anyhow::anyhow!(seen))?;
    }
    Ok(())
}

/// The folder of libraries of the tree that a program lies in, such as `usr/lib/x86_64-linux-gnu`
/// for `usr/bin/redis-server`.
fn libraries_beside(program: &Path) -> Option<PathBuf> {
    let lib = program.ancestors().nth(2)?.join("lib");
    fs::read_dir(lib)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
}
