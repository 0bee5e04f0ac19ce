//! A running `tollmesh serve`, and a client that says exactly what it is told to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use serde_json::{Value, json};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_tollmesh");

/// A process that is ready; killed when dropped.
pub struct Process {
    child: Child,
    ingest: String,
    operator: String,
}

/// An answer, read to its end.
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Process {
    /// Starts with its state in that folder; `more` is appended to the configuration.
    pub fn start(dir: &Path, more: &str) -> Process {
        let config = config(dir, "127.0.0.1:0", "127.0.0.1:0", more);
        Process::start_with(&config)
    }

    /// Starts on that configuration.
    pub fn start_with(config: &Path) -> Process {
        let mut child = Command::new(BINARY)
            .args(["serve", "--log-format", "json", "--config"])
            .arg(config)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        let ready = loop {
            let mut line = String::new();
            if log.read_line(&mut line).unwrap() == 0 {
                panic!("ended before it was ready:\n{said}");
            }
            said.push_str(&line);
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            if entry["message"] == "ready" {
                break entry;
            }
        };
        // The log must be read on, or the process would stop when the pipe is full.
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let text = |key: &str| ready[key].as_str().unwrap().to_owned();
        Process {
            child,
            ingest: text("ingest"),
            operator: text("operator"),
        }
    }

    /// Sends a batch of events; the answer's JSON.
    pub fn send(&self, events: &[Value]) -> Value {
        let batch = json!({ "v": 1, "node": { "id": "test" }, "events": events });
        let answer = self.ingest("POST", "/v1/events", &batch.to_string());
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// Where filters send.
    pub fn ingest_address(&self) -> &str {
        &self.ingest
    }

    /// Asks the filter's side.
    pub fn ingest(&self, method: &str, path: &str, body: &str) -> Answer {
        match self.ingest.strip_prefix("unix:") {
            Some(path_of_socket) => {
                let stream = std::os::unix::net::UnixStream::connect(path_of_socket).unwrap();
                ask(stream, method, path, "host: aggregator\r\n", body)
            }
            None => {
                let stream = TcpStream::connect(&self.ingest).unwrap();
                ask(stream, method, path, "host: aggregator\r\n", body)
            }
        }
    }

    /// Asks the operator's side; `headers` in full, each with its line end.
    pub fn ask(&self, path: &str, headers: &str) -> Answer {
        let stream = TcpStream::connect(&self.operator).unwrap();
        ask(stream, "GET", path, headers, "")
    }

    /// Posts to the operator's side with that token, or without.
    pub fn post(&self, path: &str, token: Option<&str>) -> Answer {
        let stream = TcpStream::connect(&self.operator).unwrap();
        let token = token.map(|token| format!("authorization: Bearer {token}\r\n"));
        let headers = format!("host: localhost\r\n{}", token.unwrap_or_default());
        ask(stream, "POST", path, &headers, "")
    }

    /// Posts that body to the operator's side, or asks it, with that token.
    pub fn with_token(&self, method: &str, path: &str, token: &str, body: &str) -> Answer {
        let stream = TcpStream::connect(&self.operator).unwrap();
        let headers = format!("host: localhost\r\nauthorization: Bearer {token}\r\n");
        ask(stream, method, path, &headers, body)
    }

    /// Asks as a browser on this machine would.
    pub fn get(&self, path: &str) -> Answer {
        self.ask(path, "host: localhost\r\n")
    }

    /// Where operators ask.
    pub fn operator_address(&self) -> &str {
        &self.operator
    }

    /// The JSON of a page.
    pub fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.status, 200, "{}", answer.body);
        serde_json::from_str(&answer.body).unwrap()
    }

    /// The lines of `/metrics` that begin so.
    pub fn metrics(&self, prefix: &str) -> Vec<String> {
        let text = self.get("/metrics").body;
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        lines.map(str::to_owned).collect()
    }

    /// SIGTERM, and how it ended.
    pub fn stop(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(killed.success());
        self.child.wait().unwrap()
    }

    /// SIGKILL: nothing is flushed, nothing is said.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Writes a configuration with its state in that folder.
pub fn config(dir: &Path, ingest: &str, operator: &str, more: &str) -> PathBuf {
    let file = dir.join("tollmesh.toml");
    let state = dir.join("state");
    let text = format!(
        "state_dir = {state:?}\n{more}\n[ingest]\nlisten = {ingest:?}\n\
         [retention]\ndays = 3660\n[operator]\nlisten = {operator:?}\n"
    );
    std::fs::write(&file, text).unwrap();
    file
}

/// A plain successful call.
pub fn event(id: &str, team: &str) -> Value {
    json!({
        "event_id": id,
        "request_id": format!("request-{id}"),
        "time": "2026-11-22T04:00:00.500Z",
        "duration_ms": 1200,
        "ttft_ms": 300,
        "provider": "openai",
        "api": "openai.chat",
        "host": "api.openai.com",
        "model_requested": "gpt-4o",
        "model": "gpt-4o-2024-08-06",
        "stream": true,
        "usage": { "input": 1000, "cache_read": 24, "output": 100, "reasoning": 0 },
        "usage_source": "reported",
        "billable": true,
        "status": 200,
        "outcome": "success",
        "attempts": 1,
        "tags": { "team": team },
        "source": { "namespace": "shop", "workload": "web" },
        "finish_reason": "stop"
    })
}

/// Asks over that connection; the path and the headers go out as they are.
pub fn ask(
    mut stream: impl Read + Write,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Answer {
    let length = body.len();
    let head = format!(
        "{method} {path} HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // The server may answer and close before it has read all of a body that is too large.
    let _ = stream.write_all(body.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    Answer {
        status: head[9..12].parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}
