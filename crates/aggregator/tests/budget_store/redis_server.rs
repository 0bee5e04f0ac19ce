//! A real Redis on data of its own.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long a server may take to listen, and a cluster to agree.
const PATIENCE: Duration = Duration::from_secs(30);

/// A server with its data.
pub struct Server {
    process: Child,
    /// Where it listens.
    pub address: SocketAddr,
    folder: PathBuf,
}

/// Where the program is: what `TOLLMESH_REDIS` names, what was set up, or what is installed.
pub fn program() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = env::var_os("TOLLMESH_REDIS").map(PathBuf::from);
    let places = [
        root.join("target/tools/debian-redis/usr/bin/redis-server"),
        PathBuf::from("/usr/bin/redis-server"),
    ];
    named.into_iter().chain(places).find(|path| path.exists())
}

impl Server {
    /// A server that keeps an append-only file, with further settings as on its command line.
    pub fn start(settings: &[&str]) -> Option<Server> {
        let program = program()?;
        let address = free_address();
        let name = format!("tollmesh-redis-{}-{}", std::process::id(), address.port());
        let folder = env::temp_dir().join(name);
        fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new(&program);
        if let Some(libraries) = libraries_beside(&program) {
            command.env("LD_LIBRARY_PATH", libraries);
        }
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
        command.arg("--port").arg(address.port().to_string());
        command.arg("--dir").arg(&folder).args(settings);
        let log = fs::File::create(folder.join("log")).unwrap();
        let process = command.stdout(log).stdin(Stdio::null()).spawn().unwrap();
        let server = Server {
            process,
            address,
            folder,
        };
        server.until("PING", |answer| {
            answer.starts_with("+PONG") || answer.starts_with("-NOAUTH")
        });
        Some(server)
    }

    /// Where to connect.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Sends a command, and answers what comes back at once.
    pub fn try_ask(&self, command: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(format!("{command}\r\n").as_bytes())?;
        let mut answer = vec![0; 64 * 1024];
        let n = stream.read(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer[..n]).into_owned())
    }

    /// Sends a command until its answer is so.
    pub fn until(&self, command: &str, is_so: impl Fn(&str) -> bool) {
        let begun = Instant::now();
        loop {
            let seen = self.try_ask(command);
            if seen.as_ref().is_ok_and(|answer| is_so(answer)) {
                return;
            }
            let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "{command}: {seen:?}\n{log}");
            std::thread::yield_now();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Where nobody listens.
pub fn free_address() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// Where its packages were unpacked instead of installed, its libraries lie beside it.
fn libraries_beside(program: &Path) -> Option<PathBuf> {
    let lib = program.ancestors().nth(2)?.join("lib");
    fs::read_dir(lib)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.to_string_lossy().ends_with("-linux-gnu"))
}
