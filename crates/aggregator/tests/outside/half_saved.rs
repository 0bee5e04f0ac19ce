//! Budgets' files that are empty, cut or no files at all: limits hold, and somebody hears of it.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::process::Process;

/// Long enough for a busy machine, short enough for a test that fails.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long a file stays cut here: longer than any editor takes.
const CUT: Duration = Duration::from_secs(1);

fn budget(name: &str) -> String {
    format!("[[budget]]\nname = {name:?}\nlimit = \"5 USD\"\nwindow = \"day\"\n")
}

fn names(process: &Process) -> Vec<Value> {
    let budgets = process.json("/api/v1/budgets");
    let items = budgets["items"].as_array().unwrap().iter();
    items.map(|item| item["budget"].clone()).collect()
}

fn refused(process: &Process) -> String {
    let refused = &process.json("/readyz")["budgets"]["refused"];
    refused.as_str().unwrap_or_default().to_owned()
}

fn eventually(fact: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < DEADLINE, "never: {fact}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn start(dir: &Path, text: &str) -> Process {
    let file = dir.join("budgets.toml");
    std::fs::write(&file, text).unwrap();
    Process::start(dir, &format!("budgets = {file:?}"))
}

#[test]
fn an_empty_file_lifts_nothing_and_one_that_says_so_does() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("budgets.toml");
    let process = start(dir.path(), &budget("all"));
    std::fs::write(&file, "").unwrap();
    eventually("it is refused", || {
        refused(&process).contains("`budget = []`")
    });
    assert_eq!(names(&process), ["all"]);
    assert!(process.stop().success());

    // Nor over a start.
    let process = start(dir.path(), "# to come\n");
    assert_eq!(names(&process), ["all"]);
    assert!(
        refused(&process).contains("`budget = []`"),
        "{}",
        refused(&process)
    );

    std::fs::write(&file, "budget = []\n").unwrap();
    eventually("they are lifted", || names(&process) == [json!(null); 0]);
    assert_eq!(refused(&process), "");
    assert!(process.stop().success());
    let process = start(dir.path(), "");
    assert_eq!(
        (names(&process).len(), refused(&process)),
        (0, String::new())
    );
}

#[test]
fn a_file_that_is_cut_while_it_is_saved_lifts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("budgets.toml");
    let whole = format!("{}{}", budget("all"), budget("more"));
    let process = start(dir.path(), &whole);
    for cut in [budget("all"), String::new(), whole.replace("more", "less")] {
        std::fs::write(&file, &cut).unwrap();
        let begun = Instant::now();
        while begun.elapsed() < CUT {
            assert_eq!(names(&process), ["all", "more"], "{cut:?}");
        }
        std::fs::write(&file, &whole).unwrap();
    }
    // One that stays so was meant.
    std::fs::write(&file, budget("all")).unwrap();
    eventually("one is lifted", || names(&process) == ["all"]);
}

#[test]
fn what_is_no_file_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("budgets.toml");
    let process = start(dir.path(), &budget("all"));
    let pipe = dir.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    std::fs::rename(&pipe, &file).unwrap();
    eventually("it is refused", || {
        refused(&process).contains("no regular file")
    });
    assert_eq!(names(&process), ["all"]);
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &file).unwrap();
    eventually("it is refused", || {
        refused(&process).contains("no regular file")
    });
    assert!(process.stop().success());

    // A file of no end, and a start with it.
    std::fs::remove_file(&file).unwrap();
    let endless = std::fs::File::create(&file).unwrap();
    endless.set_len(1 << 40).unwrap();
    let process = Process::start(dir.path(), &format!("budgets = {file:?}"));
    assert!(
        refused(&process).contains("is larger than"),
        "{}",
        refused(&process)
    );
    assert_eq!(names(&process), ["all"]);
    assert!(process.stop().success());
}
