//! A real PostgreSQL: a cluster of its own in a folder of its own, as whoever it agrees to run as.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio_postgres::{Client, NoTls};

use crate::process::Running;
use crate::tls::Identity;
use crate::{artifacts, fact, ports};

/// Nobody and nogroup: PostgreSQL refuses to run as root, and it needs to own nothing but its data.
const NOBODY: u32 = 65_534;

/// How long a server may take to recover and to listen.
const START_PATIENCE: Duration = Duration::from_secs(60);

/// What administers a cluster. It is trusted on the unix socket that only we can reach.
const ADMIN: &str = "admin";

/// A server with its data, which outlive each of its processes.
#[derive(Debug)]
pub struct Postgres {
    program: PathBuf,
    address: SocketAddr,
    runtime: Handle,
    settings: Vec<String>,
    password: Option<String>,
    running: Option<Running>,
    dir: TempDir,
}

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// What users need beside their name; nothing where `None`.
    pub password: Option<String>,
    /// Whether it has a certificate, for `localhost`, and takes encrypted connections only.
    pub is_encrypted: bool,
    /// Whether it waits for the disk, as it does outside of tests.
    pub waits_for_disk: bool,
    /// Further settings, as `name=value`.
    pub settings: Vec<String>,
}

impl Postgres {
    /// A server as simple as can be. `None`, after a loud word, where PostgreSQL is missing.
    ///
    /// # Panics
    /// Where it does not start, and where `TOLLMESH_REQUIRE` forbids to skip.
    pub fn start(runtime: &Handle) -> Option<Postgres> {
        match artifacts::postgres() {
            Ok(program) => match Postgres::set_up(&program, &Setup::default(), runtime) {
                Ok(server) => Some(server),
                Err(error) => panic!("PostgreSQL does not start: {error:#}"),
            },
            Err(missing) => {
                artifacts::skip(&missing);
                None
            }
        }
    }

    /// Makes a cluster and starts a server on it.
    pub fn set_up(program: &Path, setup: &Setup, runtime: &Handle) -> anyhow::Result<Postgres> {
        // Open to be entered, since another user enters it; the data in it are not.
        let everybody = fs::Permissions::from_mode(0o755);
        let dir = tempfile::Builder::new()
            .prefix("tollmesh-postgres-")
            .permissions(everybody)
            .tempdir()?;
        let mut server = Postgres {
            program: program.to_owned(),
            address: ports::free(),
            runtime: runtime.clone(),
            settings: setup.settings.clone(),
            password: setup.password.clone(),
            running: None,
            dir,
        };
        if !setup.waits_for_disk {
            server.settings.push("fsync=off".into());
        }
        server.make_cluster()?;
        if setup.is_encrypted {
            server.encrypt()?;
        }
        server.restart()?;
        server.runtime.block_on(server.make_database())?;
        Ok(server)
    }

    /// Where to connect: user and database are `tollmesh`; no password stands in it.
    pub fn url(&self) -> String {
        format!(
            "postgres://tollmesh@localhost:{}/tollmesh",
            self.address.port()
        )
    }

    /// The file with the authority of its certificate.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Starts the process anew and waits until it answers; one that still runs is killed first.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.kill();
        let answers = fact::until(START_PATIENCE, || {
            // After a kill its workers notice by themselves; a new server that comes too early for
            // them ends at once.
            let runs = self.running.as_mut().is_some_and(|r| r.ended().is_none());
            if !runs {
                self.launch().map_err(|error| format!("{error:#}"))?;
            }
            let admin = self.runtime.block_on(self.admin("postgres"));
            admin.map(drop).map_err(|error| format!("{error:#}"))
        });
        let log = || self.running.as_ref().map(Running::log_tail);
        answers.map_err(|seen| anyhow::anyhow!("{seen}\n{}", log().unwrap_or_default()))
    }

    fn launch(&mut self) -> anyhow::Result<()> {
        let mut command = self.command("postgres");
        command.arg("-D").arg(self.data());
        let places = [
            "listen_addresses=localhost".to_owned(),
            format!("port={}", self.address.port()),
            format!("unix_socket_directories={}", self.data().display()),
        ];
        for setting in places.iter().chain(&self.settings) {
            command.args(["-c", setting]);
        }
        let log = self.dir.path().join("postgres.log");
        self.running = Some(Running::start("postgres", command, &log)?);
        Ok(())
    }

    /// Stops in order: who is connected is cut off, what is committed is on disk.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(mut running) = self.running.take() {
            // SIGINT is its "fast shutdown"
            // (https://www.postgresql.org/docs/current/server-shutdown.html).
            running.end_by(Signal::INT, Duration::from_secs(60))?;
        }
        Ok(())
    }

    /// SIGKILL, as when the machine goes.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill();
        }
    }

    /// Runs statements, whatever they answer.
    pub fn run(&self, sql: &str) -> anyhow::Result<()> {
        self.runtime.block_on(async {
            let client = self.admin("tollmesh").await?;
            client
                .batch_execute(sql)
                .await
                .with_context(|| sql.to_owned())
        })
    }

    /// The first cell that a question answers, as text.
    pub fn ask(&self, sql: &str) -> anyhow::Result<String> {
        self.runtime.block_on(async {
            let client = self.admin("tollmesh").await?;
            let sql = format!("SELECT ({sql})::text");
            let row = client.query_one(&sql, &[]).await.with_context(|| sql)?;
            Ok(row.get::<_, Option<String>>(0).unwrap_or_default())
        })
    }

    /// The server's process, while one runs.
    pub fn process(&self) -> Option<&Running> {
        self.running.as_ref()
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// One of its programs, as whoever may run it.
    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(self.program.with_file_name(name));
        // Where its packages were unpacked instead of installed, its libraries lie beside it.
        if let Some(libraries) = libraries_beside(&self.program) {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.env_remove("PGDATA").env("LC_ALL", "C");
        command.current_dir(self.dir.path());
        if rustix::process::geteuid().is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }

    fn make_cluster(&self) -> anyhow::Result<()> {
        let data = self.data();
        fs::create_dir(&data)?;
        fs::set_permissions(&data, fs::Permissions::from_mode(0o700))?;
        self.hand_over(&data)?;
        let mut command = self.command("initdb");
        command.arg("-D").arg(&data);
        command.args([
            "-U",
            ADMIN,
            "--auth=trust",
            "-E",
            "UTF8",
            "--no-locale",
            "--no-sync",
        ]);
        let output = command
            .output()
            .with_context(|| format!("cannot run initdb beside {}", self.program.display()))?;
        if !output.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&output.stderr));
        }
        let method = if self.password.is_some() {
            "scram-sha-256"
        } else {
            "trust"
        };
        let rules = format!("local all {ADMIN} trust\nhost all all localhost {method}\n");
        fs::write(data.join("pg_hba.conf"), rules)?;
        Ok(())
    }

    fn encrypt(&mut self) -> anyhow::Result<()> {
        let identity = Identity::of(&["localhost"])?;
        let key = self.data().join("server.key");
        fs::write(self.ca_file(), identity.ca_pem)?;
        fs::write(self.data().join("server.crt"), identity.certificate_pem)?;
        fs::write(&key, identity.key_pem)?;
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
        self.hand_over(&key)?;
        let rules = self.data().join("pg_hba.conf");
        let encrypted = fs::read_to_string(&rules)?.replace("host all", "hostssl all");
        fs::write(&rules, encrypted)?;
        self.settings.push("ssl=on".into());
        Ok(())
    }

    /// Gives a file to whom the server runs as.
    fn hand_over(&self, path: &Path) -> anyhow::Result<()> {
        if rustix::process::geteuid().is_root() {
            chown(path, Some(NOBODY), Some(NOBODY))?;
        }
        Ok(())
    }

    async fn make_database(&self) -> anyhow::Result<()> {
        let client = self.admin("postgres").await?;
        let password = match &self.password {
            Some(password) => format!("PASSWORD '{password}'"),
            None => String::new(),
        };
        client
            .batch_execute(&format!("CREATE ROLE tollmesh LOGIN {password}"))
            .await?;
        client
            .batch_execute("CREATE DATABASE tollmesh OWNER tollmesh")
            .await?;
        Ok(())
    }

    /// A connection that needs no password, over the socket beside the data.
    async fn admin(&self, database: &str) -> anyhow::Result<Client> {
        let mut config = tokio_postgres::Config::new();
        config.host_path(self.data()).port(self.address.port());
        config.user(ADMIN).dbname(database);
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// The folder of libraries of the tree that a program lies in, such as `usr/lib/x86_64-linux-gnu`
/// for `usr/lib/postgresql/15/bin/postgres`.
fn libraries_beside(program: &Path) -> Option<PathBuf> {
    let lib = program.ancestors().nth(4)?;
    fs::read_dir(lib)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
}
