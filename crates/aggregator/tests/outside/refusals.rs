//! Starts that cannot succeed: one clear line each, and exit code 2.

use std::path::Path;
use std::process::{Command, Output};

use crate::process::{BINARY, Process, config};

fn tollmesh(arguments: &[&str]) -> Output {
    Command::new(BINARY).args(arguments).output().unwrap()
}

/// Exit code and the last line of standard error, with the folder's name taken out.
fn refusal(dir: &Path, output: &Output) -> (i32, String) {
    let error = String::from_utf8(output.stderr.clone()).unwrap();
    let dir = dir.display().to_string();
    let last = error
        .lines()
        .last()
        .unwrap_or_default()
        .replace(&dir, "DIR");
    (output.status.code().unwrap(), last)
}

fn serve(file: &Path) -> Output {
    tollmesh(&["serve", "--config", file.to_str().unwrap()])
}

#[test]
fn a_wrong_key() {
    let dir = tempfile::tempdir().unwrap();
    let file = config(dir.path(), "4100", "127.0.0.1:0", "");
    assert_eq!(
        refusal(dir.path(), &serve(&file)),
        (
            2,
            "tollmesh: DIR/tollmesh.toml: ingest.listen: unknown address \"4100\"; expected \
             \"ADDRESS:PORT\" or \"unix:/PATH\""
                .to_owned()
        )
    );
    let check = tollmesh(&["check", "--config", file.to_str().unwrap()]);
    assert_eq!(
        refusal(dir.path(), &check),
        (2, "tollmesh: 1 mistake".to_owned())
    );
}

#[test]
fn a_port_that_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = listener.local_addr().unwrap().to_string();
    let file = config(dir.path(), &taken, "127.0.0.1:0", "");
    let message = format!(
        "tollmesh: ingest.listen: {taken} is taken by another process; stop it or choose another \
         address"
    );
    assert_eq!(refusal(dir.path(), &serve(&file)), (2, message));
}

#[test]
fn addresses_that_are_none() {
    let dir = tempfile::tempdir().unwrap();
    let socket = format!("unix:{}/no/a.sock", dir.path().display());
    for (address, message) in [
        (
            socket.as_str(),
            "tollmesh: ingest.listen: cannot listen on unix:DIR/no/a.sock; make its folder, or mount \
             the volume that is to be there: No such file or directory (os error 2)",
        ),
        // For documentation (RFC 5737), so of no machine.
        (
            "192.0.2.1:4100",
            "tollmesh: ingest.listen: cannot listen on 192.0.2.1:4100; choose an address of this \
             machine: Cannot assign requested address (os error 99)",
        ),
    ] {
        let file = config(dir.path(), address, "127.0.0.1:0", "");
        let refused = refusal(dir.path(), &serve(&file));
        assert_eq!(refused, (2, message.to_owned()));
    }
}

#[test]
fn a_state_dir_that_is_none() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("state"), "a file").unwrap();
    let file = config(dir.path(), "127.0.0.1:0", "127.0.0.1:0", "");
    let (code, message) = refusal(dir.path(), &serve(&file));
    assert_eq!(code, 2);
    insta::assert_snapshot!("state_dir_is_a_file", message);
}

#[test]
fn a_ledger_that_somebody_writes() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    let file = config(dir.path(), "127.0.0.1:0", "127.0.0.1:0", "");
    let (code, message) = refusal(dir.path(), &serve(&file));
    assert_eq!(code, 2);
    assert!(message.contains("writes this ledger"), "{message}");
    drop(process);
}

#[test]
fn a_file_that_is_no_ledger() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("state")).unwrap();
    // What is no database at all is taken for a damaged ledger, and set aside; this is somebody's.
    let other = rusqlite::Connection::open(dir.path().join("state/ledger.db")).unwrap();
    other
        .execute_batch("CREATE TABLE t (x); PRAGMA application_id = 4660;")
        .unwrap();
    drop(other);
    let file = config(dir.path(), "127.0.0.1:0", "127.0.0.1:0", "");
    let (code, message) = refusal(dir.path(), &serve(&file));
    assert_eq!(code, 2);
    insta::assert_snapshot!("no_ledger", message);
}

#[test]
fn a_report_without_a_ledger() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().to_str().unwrap();
    let report = tollmesh(&["report", "--by", "team", "--state-dir", state]);
    let (code, message) = refusal(dir.path(), &report);
    assert_eq!(code, 2);
    insta::assert_snapshot!("report_without_ledger", message);
}
