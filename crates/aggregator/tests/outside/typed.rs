//! Commands as they are typed: their exit codes, and what they do when nobody reads on.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::process::BINARY;

fn tollmesh(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .current_dir(dir)
        .stdin(Stdio::null());
    command
}

/// Runs it; the state directory is `state` in the folder.
fn run(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let state = dir.join("state");
    let mut command = tollmesh(dir, arguments);
    told(
        command
            .arg("--state-dir")
            .arg(state)
            .output()
            .expect("runs"),
    )
}

fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("is text");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// An access log's line with an event.
fn line(id: &str) -> String {
    let event = format!(
        r#"{{"v":1,"event_id":"{id}","kind":"call","time":"2026-11-20T10:00:00Z","provider":"openai","api":"openai.chat","host":"api.openai.com","model":"gpt-4o","usage":{{"input":10,"output":5}},"usage_source":"reported","billable":true,"status":200,"outcome":"success","stream":false,"duration_ms":5}}"#
    );
    serde_json::json!({ "tollmesh": event }).to_string() + "\n"
}

#[test]
fn an_import_goes_on_when_nobody_reads_its_complaints() {
    let dir = tempfile::tempdir().expect("a folder");
    let log = "bad\n".repeat(500) + &line("a") + &line("b");
    fs::write(dir.path().join("m.log"), log).expect("is written");
    let mut command = tollmesh(dir.path(), &["import", "--access-log", "m.log"]);
    command.arg("--state-dir").arg(dir.path().join("state"));
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let status = command.stdout(Stdio::null()).stderr(writer).status();
    assert_eq!(status.expect("runs").code(), Some(1));
    let (code, out, _) = run(dir.path(), &["import", "--access-log", "m.log"]);
    assert_eq!(code, Some(1));
    assert_eq!(
        out,
        "imported 0, already there 2, without usage 0, unreadable 500\n"
    );
}

#[test]
fn a_report_whose_reader_goes_is_no_failure() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("a.log"), line("a")).expect("is written");
    let (code, ..) = run(dir.path(), &["import", "--access-log", "a.log"]);
    assert_eq!(code, Some(0));
    for arguments in [
        &["report", "--by", "model"][..],
        &["report", "--format", "focus"],
        &["top", "--format", "json"],
    ] {
        let mut command = tollmesh(dir.path(), arguments);
        command.arg("--state-dir").arg(dir.path().join("state"));
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let output = command.stdout(writer).stderr(Stdio::piped()).output();
        let (code, _, err) = told(output.expect("runs"));
        assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}");
    }
}

#[test]
fn a_models_name_does_nothing_to_a_terminal() {
    let dir = tempfile::tempdir().expect("a folder");
    let hostile = r"gpt\\u001b]0;x\\u0007\\u0000\\r\\n4o";
    let log = line("a").replace("gpt-4o", hostile) + &line("b").replace("gpt-4o", "gpt4o");
    fs::write(dir.path().join("a.log"), log).expect("is written");
    let imported = run(dir.path(), &["import", "--access-log", "a.log"]);
    assert_eq!(imported.0, Some(0), "{imported:?}");
    for arguments in [
        &["report", "--by", "model"][..],
        &["report", "--by", "model", "--format", "csv"],
        &["top", "--by", "tokens"],
    ] {
        let (code, out, _) = run(dir.path(), arguments);
        assert_eq!(code, Some(0), "{arguments:?}");
        assert!(
            out.contains(r"gpt\u{1b}]0;x\u{7}\u{0}\r\n4o"),
            "{arguments:?}: {out}"
        );
        assert!(out.contains("gpt4o"), "{arguments:?}: {out}");
        let acts = |c: char| c.is_control() && c != '\n';
        assert!(!out.contains(acts), "{arguments:?}: {out:?}");
    }
}

#[test]
fn a_check_fails_whoever_reads_it() {
    let dir = tempfile::tempdir().expect("a folder");
    fs::write(dir.path().join("bad.toml"), "drian = \"1s\"\n").expect("is written");
    let mut command = tollmesh(dir.path(), &["check", "--config", "bad.toml"]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let both = writer.try_clone().expect("is cloned");
    let status = command.stdout(writer).stderr(both).status();
    assert_eq!(status.expect("runs").code(), Some(2));
}

#[test]
fn a_log_without_the_field_is_a_finding() {
    let dir = tempfile::tempdir().expect("a folder");
    let log =
        |name: &str, bytes: &[u8]| fs::write(dir.path().join(name), bytes).expect("is written");
    log("ok.log", line("a").as_bytes());
    log("quiet.log", b"{\"tollmesh\":null}\n{\"status\":200}\n");
    log("none.log", b"{\"status\":200}\n{\"status\":200}\n");
    // The proxy's own lines say nothing of the format of its log's.
    let mixed = b"[2026-11-22 04:00:00.123][7][info] starting\n{\"status\":200}\n";
    log("mixed.log", mixed);
    log("own.log", &mixed[..44]);
    log("mark.log", ["\u{feff}", &line("b")].concat().as_bytes());
    log("old.log.gz", b"\x1f\x8b\x08\0\0\nnext\nnext\n");
    let field = "; name with --field the one that the log's format has for wasm.tollmesh.usage, or \
                 add one (envoy/envoy.yaml)\n";
    for (arguments, code, out, err) in [
        (
            &["ok.log", "--field", "nosuch"][..],
            1,
            "imported 0, already there 0, without usage 1, unreadable 0\n",
            format!("tollmesh: ok.log: none of its 1 lines has the field \"nosuch\"{field}"),
        ),
        (
            &["none.log"],
            1,
            "imported 0, already there 0, without usage 2, unreadable 0\n",
            format!("tollmesh: none.log: none of its 2 lines has the field \"tollmesh\"{field}"),
        ),
        (
            &["mixed.log"],
            1,
            "imported 0, already there 0, without usage 2, unreadable 0\n",
            format!("tollmesh: mixed.log: none of its 1 lines has the field \"tollmesh\"{field}"),
        ),
        (
            &["own.log"],
            0,
            "imported 0, already there 0, without usage 1, unreadable 0\n",
            String::new(),
        ),
        (
            &["quiet.log", "--access-log", "ok.log"],
            0,
            "imported 1, already there 0, without usage 2, unreadable 0\n",
            String::new(),
        ),
        (
            &["mark.log"],
            0,
            "imported 1, already there 0, without usage 0, unreadable 0\n",
            String::new(),
        ),
        (
            &["old.log.gz"],
            1,
            "imported 0, already there 0, without usage 0, unreadable 0\n",
            "tollmesh: old.log.gz: is compressed; zcat FILE | tollmesh import --access-log -\n"
                .to_owned(),
        ),
    ] {
        let arguments = [&["import", "--access-log"], arguments].concat();
        let got = run(dir.path(), &arguments);
        assert_eq!(got, (Some(code), out.to_owned(), err), "{arguments:?}");
    }
}

/// Writes the files; of their texts `DIR` is the folder.
fn put(dir: &Path, files: &[(&str, &str)]) {
    let folder = dir.display().to_string();
    for (name, text) in files {
        fs::write(dir.join(name), text.replace("DIR", &folder)).expect("is written");
    }
}

/// What a check of `t.toml` tells, without the folder's name.
fn check(dir: &Path) -> (Option<i32>, Vec<String>) {
    let (code, out, _) = run(dir, &["check", "--config", "t.toml"]);
    let folder = format!("{}/", dir.display());
    let lines = out.lines().map(|line| line.replace(&folder, ""));
    (code, lines.collect())
}

#[test]
fn a_check_tells_all_mistakes_at_once() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    let files = [
        (
            "t.toml",
            "pricing = [\"DIR/none\", \"DIR/p.toml\"]\noverrides = \"DIR/o.toml\"\n\
                    budgets = \"DIR/b.toml\"\n[metrics]\nlabels = [\"a b\"]\n\
                    [operator]\ntoken_file = \"DIR/token\"\n[alerts.ops]\nurl = 3\n",
        ),
        ("p.toml", "provider = 3\n"),
        ("o.toml", "schema = 1\n[[override]]\nid = \"a\"\n"),
        (
            "b.toml",
            "[[budget]]\nname = \"a\"\nlimit = \"1 USD\"\nwindow = \"day\"\n\
                    tiers = [{ at = \"50%\", do = \"warn\", notify = [\"ops\"] }]\n\
                    [[budget]]\nname = \"b\"\nlimit = \"1 EUR\"\nwindow = \"day\"\n",
        ),
    ];
    put(dir, &files);
    let (code, lines) = check(dir);
    assert_eq!(code, Some(2), "{lines:#?}");
    for begin in [
        "error: t.toml: metrics.labels: ",
        "error: t.toml: operator.token_file: ",
        "error: none: cannot be read: ",
        "error: p.toml: file: `provider` is of type integer",
        "error: o.toml: override a: changes nothing",
        "error: b.toml: budget[1].limit: ",
    ] {
        let told = lines.iter().any(|line| line.starts_with(begin));
        assert!(told, "{begin} is not among {lines:#?}");
    }
    // Of receivers with a mistake nobody says that they are unknown.
    assert!(
        !lines.iter().any(|line| line.contains("unknown receiver")),
        "{lines:#?}"
    );
}

#[test]
fn a_check_warns_of_slips() {
    let dir = tempfile::tempdir().expect("a folder");
    let files = [
        (
            "t.toml",
            "overrides = \"DIR/o.toml\"\nbudgets = \"DIR/b.toml\"\n",
        ),
        (
            "o.toml",
            "schema = 1\n[[override]]\nid = \"a\"\ntimes = \"76\"\n\
                    when = { provider = \"opnai\", modle = \"gpt-4o\" }\n",
        ),
        (
            "b.toml",
            "[[budget]]\nname = \"a\"\nlimit = \"1 USD\"\nwindow = \"day\"\n\
                    per = [\"user\", \"user\"]\n\
                    tiers = [{ at = \"50%\", do = \"downgrade\", models = { gpt-4o = \"gtp\" } }]\n",
        ),
    ];
    put(dir.path(), &files);
    let (code, lines) = check(dir.path());
    assert_eq!(code, Some(1), "{lines:#?}");
    for begin in [
        "warning: o.toml: override a: `when.modle`: ",
        "warning: o.toml: override a: `when.provider`: ",
        "warning: o.toml: override a: `times` = \"76\"",
        "warning: b.toml: budget \"a\": per: \"user\" stands twice",
        "warning: b.toml: budget \"a\": tiers[0].models: no price table has \"gtp\"",
    ] {
        let told = lines.iter().any(|line| line.starts_with(begin));
        assert!(told, "{begin} is not among {lines:#?}");
    }
}

#[test]
fn calls_are_priced_as_the_configuration_has_it() {
    let dir = tempfile::tempdir().expect("a folder");
    let dir = dir.path();
    put(
        dir,
        &[
            (
                "t.toml",
                "overrides = \"DIR/o.toml\"\npricing = [\"DIR/p.toml\"]\n",
            ),
            (
                "o.toml",
                "schema = 1\n[[override]]\nid = \"a\"\ntimes = \"0.5\"\n",
            ),
            (
                "p.toml",
                "schema = 1\nprovider = \"acme\"\n[[model]]\nid = \"rocket\"\nrate = [\
          { input = \"3\", src = \"https://acme.example\", checked = 2026-11-09 }]\n",
            ),
        ],
    );
    let case = r#"{"provider":"acme","model":"rocket","usage":{"input_tokens":1000000}}"#;
    let price = |arguments: &[&str]| {
        fs::write(dir.join("case"), case).expect("is written");
        let mut command = tollmesh(dir, &[&["price"], arguments].concat());
        command.stdin(fs::File::open(dir.join("case")).expect("is there"));
        let (code, out, err) = told(command.output().expect("runs"));
        let cost = serde_json::from_str::<serde_json::Value>(&out);
        let cost = cost
            .ok()
            .and_then(|cost| Some(cost["cost_usd"].as_str()?.to_owned()));
        (code, cost, err)
    };
    let cost = |usd: &str| (Some(0), Some(usd.to_owned()), String::new());
    assert_eq!(price(&["--config", "t.toml"]), cost("1.5"));
    fs::write(dir.join("list"), "schema = 1\n").expect("is written");
    assert_eq!(
        price(&["--config", "t.toml", "--overrides", "list"]),
        cost("3")
    );
    assert_eq!(price(&["--pricing", "p.toml"]), cost("3"));
    let (code, _, err) = price(&["--config", "/nope"]);
    assert_eq!(code, Some(2));
    assert!(
        err.starts_with("tollmesh: /nope: cannot be read: "),
        "{err}"
    );
}
