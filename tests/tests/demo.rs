//! The demo ends with what the README says it ends with.

use std::fs;
use std::process::Command;

use rustix::process::Signal;
use tollmesh_tests::artifacts::{self, Artifacts};
use tollmesh_tests::process::Running;
use tollmesh_tests::{fact, http};

/// Prices of the models in it, and how estimates are made, change the figures.
const UPDATE: &str = "README.md has not this line; write it there";

#[test]
fn the_demo_prints_what_the_readme_shows() {
    if Artifacts::find_or_skip().is_none() {
        return;
    }
    let demo = Command::new(env!("CARGO_BIN_EXE_demo"))
        .arg("--once")
        .output();
    let demo = demo.expect("it runs");
    let said = String::from_utf8_lossy(&demo.stdout).into_owned();
    let cried = String::from_utf8_lossy(&demo.stderr).into_owned();
    assert!(demo.status.success(), "{said}{cried}");
    let readme = fs::read_to_string(artifacts::root().join("README.md")).expect("a page");
    let last = said.lines().last().unwrap_or_default();
    assert!(readme.contains(&format!("`{last}`")), "{UPDATE}: {last}");
    let mut rows = said.lines().filter(|line| line.starts_with(' ')).peekable();
    assert!(rows.peek().is_some(), "{said}");
    for row in rows {
        let row = row.trim_end();
        assert!(readme.lines().any(|line| line == row), "{UPDATE}: {row}");
    }
}

#[test]
fn while_it_stays_up_its_dashboard_is_where_it_says() {
    if Artifacts::find_or_skip().is_none() {
        return;
    }
    let dir = tempfile::tempdir().expect("a folder");
    let demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    let mut demo = Running::start("demo", demo, &dir.path().join("log")).expect("it starts");
    let address = fact::eventually("the dashboard's address", || {
        let said = demo.log();
        let line = said
            .lines()
            .find_map(|line| line.strip_prefix("dashboard http://"));
        line.and_then(|address| address.trim_end_matches('/').parse().ok())
            .ok_or(said)
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let page = runtime
        .expect("a runtime")
        .block_on(http::get(address, "/"));
    let page = page.expect("an answer");
    assert_eq!(page.status, 200);
    assert!(page.text().contains("<title>"), "{}", page.text());
    let status = demo.end_by(Signal::INT, fact::PATIENCE).expect("it ends");
    assert!(status.success(), "{status} {}", demo.log());
}
