//! Budgets as operators work with them: what others would have done to the past.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::process::{BINARY, Process, event};

/// A call of `team` that costs a dollar, so many days before now.
fn dollar(id: &str, team: &str, days_ago: i64) -> Value {
    let mut event = event(id, team);
    let now_ms = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_millis() as i64;
    let noon_ms = (now_ms / 86_400_000 - days_ago) * 86_400_000 + 43_200_000;
    let at = jiff::Timestamp::from_millisecond(noon_ms.min(now_ms - 60_000)).unwrap();
    event["time"] = json!(at.to_string());
    event["provider"] = json!("acme");
    event["model"] = json!("m");
    event["model_requested"] = json!("m");
    event["usage"] = json!({ "input": 1_000_000 });
    event
}

fn tollmesh(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(BINARY)
        .args(arguments)
        .arg("--config")
        .arg(dir.join("tollmesh.toml"))
        .current_dir(dir)
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn prices(dir: &Path) -> String {
    let file = dir.join("acme.toml");
    let table = "schema = 1\nprovider = \"acme\"\ncurrency = \"USD\"\n\
                 [source]\nlist = \"https://acme.example/prices\"\n\
                 [[model]]\nid = \"m\"\nmatch = [\"m\"]\n\
                 rate = [{ input = \"1\", src = \"list\", checked = 2026-01-09 }]\n";
    std::fs::write(&file, table).unwrap();
    format!("pricing = [{file:?}]")
}

#[test]
fn a_new_policy_passes_the_calls_of_the_past() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), &prices(dir.path()));
    let mut events: Vec<Value> = (0..5).map(|n| dollar(&format!("a{n}"), "red", 2)).collect();
    events.extend((0..3).map(|n| dollar(&format!("b{n}"), "blue", 2)));
    events.extend((0..2).map(|n| dollar(&format!("c{n}"), "red", 1)));
    events.push(dollar("old", "red", 40));
    process.send(&events);

    let file = dir.path().join("new.toml");
    std::fs::write(
        &file,
        "[[budget]]\nname = \"teams\"\nper = [\"team\"]\nlimit = \"2 USD\"\nwindow = \"day\"\n\
         enforce = \"strict\"\ntiers = [ { at = \"100%\", do = \"deny\" } ]\n",
    )
    .unwrap();
    // While it serves, and without a token: nothing is written.
    let arguments = ["budgets", "replay", "new.toml", "--format", "json"];
    let (code, out, told) = tollmesh(dir.path(), &arguments);
    assert_eq!(code, Some(0), "{told}");
    let answer: Value = serde_json::from_str(&out).unwrap();
    let rows: Vec<Value> = answer["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            json!([
                row["key"]["team"],
                row["requests"],
                row["denied_requests"],
                row["windows"],
                row["windows_denied"],
                row["cost_usd"],
                row["saved_usd"],
                row["peak_percent"],
            ])
        })
        .collect();
    assert_eq!(
        rows,
        [
            json!(["red", 7, 3, 2, 1, "7", "3", "250"]),
            json!(["blue", 3, 1, 1, 1, "3", "1", "150"]),
        ]
    );
    assert!(told.contains("10 calls"), "{told}");
    let arguments = ["budgets", "replay", "new.toml", "--days", "60"];
    let (_, out, told) = tollmesh(dir.path(), &arguments);
    assert!(
        out.contains("\"all\"") && told.contains("11 calls"),
        "{out}{told}"
    );

    std::fs::write(&file, "[[budget]]\nname = \"teams\"\n").unwrap();
    let (code, _, told) = tollmesh(dir.path(), &["budgets", "replay", "new.toml"]);
    assert_eq!(code, Some(2));
    assert!(
        told.contains("new.toml: budget[0].limit: missing"),
        "{told}"
    );
    assert!(process.stop().success());
}
