//! Starting up: configurations that are right, and what is said about those that are not.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tollmesh_tests::artifacts::{self, Artifacts};
use tollmesh_tests::envoy::Envoy;
use tollmesh_tests::envoy_config::{self, Ingest, Places};
use tollmesh_tests::fact::until;
use tollmesh_tests::http;
use tollmesh_tests::mesh::shipped_envoy_config;
use tollmesh_tests::ports;

#[test]
fn envoy_takes_the_shipped_configuration() {
    let Some(artifacts) = Artifacts::find_or_skip() else {
        return;
    };
    let mut config = shipped_envoy_config().expect("envoy.yaml is there");
    let places = Places {
        wasm: &artifacts.wasm,
        ingest: &Ingest::Tcp(ports::free()),
        provider: None,
        provider_ca: None,
        is_upstream_http2: false,
        routes_every_host: false,
        plugin: &json!(null),
    };
    envoy_config::fill_in(&mut config, &places).expect("every place is there");
    let dir = tempfile::tempdir().expect("a directory");
    Envoy::validate(&artifacts.envoy, &config, dir.path())
        .unwrap_or_else(|words| panic!("{words}"));
}

/// `tollmesh serve` on that configuration; it is expected to end by itself.
fn serve(dir: &Path, toml: &str) -> Option<Output> {
    let binary = match artifacts::tollmesh() {
        Ok(binary) => binary,
        Err(missing) => {
            artifacts::skip(&missing);
            return None;
        }
    };
    let config = dir.join("tollmesh.toml");
    fs::write(&config, toml).expect("a file");
    let mut command = Command::new("timeout");
    command
        .arg("20")
        .arg(binary)
        .arg("serve")
        .arg("--config")
        .arg(&config);
    Some(command.output().expect("timeout(1) runs"))
}

/// How long a file may take to be read again that SIGHUP has looked at: less than passes between two
/// looks of the aggregator's own.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// A shell that goes has its children told by SIGHUP, and takes their terminal with it; operators
/// send that signal to have files read again.
#[test]
fn a_closed_terminal_ends_nothing_and_has_files_read_again() {
    let binary = match artifacts::tollmesh() {
        Ok(binary) => binary,
        Err(missing) => return artifacts::skip(&missing),
    };
    let dir = tempfile::tempdir().expect("a directory");
    let (ingest, operator) = (ports::free(), ports::free());
    let state = dir.path().join("state");
    // What is written to a file by its name in another folder, nobody is notified of.
    let budgets = dir.path().join("watched/budgets.toml");
    let elsewhere = dir.path().join("budgets.toml");
    let toml = format!(
        "state_dir = {state:?}\ndrain = \"1s\"\nbudgets = {budgets:?}\n\
         [ingest]\nlisten = \"{ingest}\"\n[operator]\nlisten = \"{operator}\"\n"
    );
    let config = dir.path().join("tollmesh.toml");
    fs::write(&config, toml).expect("a file");
    fs::create_dir(dir.path().join("watched")).expect("a directory");
    // Each beside those before: a file that says less is given more time.
    let mut text = String::new();
    let mut write = |name: &str| {
        text += &format!("[[budget]]\nname = \"{name}\"\nlimit = \"9 USD\"\nwindow = \"day\"\n");
        fs::write(&elsewhere, &text).expect("a file");
    };
    write("first");
    fs::hard_link(&elsewhere, &budgets).expect("a link");
    let mut serving = Command::new(binary)
        .args(["serve", "--config"])
        .arg(&config)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let pid = Pid::from_child(&serving);
    let is_served = || TcpStream::connect(operator).map_err(|error| error.to_string());
    let served = until(Duration::from_secs(20), is_served);
    // What it says from here on, nobody hears.
    drop(serving.stderr.take());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    // Of several in a row, at most one falls together with a look of its own.
    let read = ["second", "third", "fourth"].map(|name| {
        write(name);
        kill_process(pid, Signal::HUP).expect("it runs");
        until(READ_AGAIN, || {
            let rows = runtime.block_on(http::get(operator, "/api/v1/budgets"));
            let rows = rows.map_err(|error| error.to_string())?.text();
            match rows.contains(name) {
                true => Ok(()),
                false => Err(rows),
            }
        })
    });
    kill_process(pid, Signal::TERM).expect("it runs");
    let status = serving.wait().expect("it ends");
    assert!(served.is_ok(), "{served:?}");
    assert!(read.iter().all(Result::is_ok), "{read:?}");
    assert!(status.success(), "{status}");
}

#[test]
fn a_bad_configuration_ends_in_one_clear_message() {
    let dir = tempfile::tempdir().expect("a directory");
    let state = format!("state_dir = {:?}\n", dir.path().join("state"));
    // What is wrong, and the words that must be in the message: file, key, and what is wrong.
    let cases: [(&str, &[&str]); 5] = [
        (
            "[ingest]\nlissen = \"127.0.0.1:0\"",
            &["tollmesh.toml", "ingest", "lissen"],
        ),
        (
            "[ingest]\nlisten = \"nowhere\"",
            &["tollmesh.toml", "ingest.listen", "nowhere"],
        ),
        ("colour = \"red\"", &["tollmesh.toml", "colour"]),
        (
            "[metrics]\nmax_series = \"many\"",
            &["tollmesh.toml", "metrics.max_series"],
        ),
        ("[ingest", &["tollmesh.toml"]),
    ];
    for (toml, words) in cases {
        let Some(output) = serve(dir.path(), &format!("{state}{toml}\n")) else {
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{toml}: {said}");
        for word in words {
            assert!(said.contains(word), "{toml}: no {word:?} in: {said}");
        }
        assert!(!said.contains("panicked"), "{toml}: {said}");
    }
}

#[test]
fn a_taken_port_ends_in_one_clear_message() {
    let dir = tempfile::tempdir().expect("a directory");
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address");
    let state = dir.path().join("state");
    fs::create_dir(&state).expect("a directory");
    let toml = format!("state_dir = {state:?}\n[ingest]\nlisten = \"{address}\"\n");
    let Some(output) = serve(dir.path(), &toml) else {
        return;
    };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains(&address.to_string()), "{said}");
}

#[test]
fn a_missing_configuration_is_named() {
    let Ok(binary) = artifacts::tollmesh() else {
        return artifacts::skip("the aggregator is not built");
    };
    let mut command = Command::new("timeout");
    command
        .arg("20")
        .arg(binary)
        .args(["serve", "--config", "/nowhere/tollmesh.toml"]);
    let output = command.output().expect("timeout(1) runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("/nowhere/tollmesh.toml"), "{said}");
}
