//! The demo ends with what the README says it ends with.

use std::fs;
use std::process::Command;

use tollmesh_tests::artifacts::{self, Artifacts};

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
    assert!(
        readme.contains(&format!("`{last}`")),
        "README.md has not: {last}"
    );
    let mut rows = said.lines().filter(|line| line.starts_with(' ')).peekable();
    assert!(rows.peek().is_some(), "{said}");
    for row in rows {
        let row = row.trim_end();
        assert!(
            readme.lines().any(|line| line == row),
            "README.md has not: {row}"
        );
    }
}
