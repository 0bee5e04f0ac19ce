//! Commands over standard input and over a ledger that is being written.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use crate::process::{BINARY, Process, event};
use serde_json::Value;

fn tollmesh(arguments: &[&str], input: &str) -> Output {
    let mut child = Command::new(BINARY)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).unwrap();
    drop(stdin);
    child.wait_with_output().unwrap()
}

/// A small answer of a chat completion, as recorders write it.
const EXCHANGE: &str = r#"{"id":"x1","method":"POST","host":"api.openai.com","path":"/v1/chat/completions","request_content_type":"application/json","request_body":"{\"model\":\"gpt-4o\",\"messages\":[]}","status":200,"response_headers":{"Content-Type":"application/json"},"response_body_b64":"eyJpZCI6ImMxIiwib2JqZWN0IjoiY2hhdC5jb21wbGV0aW9uIiwibW9kZWwiOiJncHQtNG8tMjAyNC0wOC0wNiIsImNob2ljZXMiOlt7ImluZGV4IjowLCJtZXNzYWdlIjp7InJvbGUiOiJhc3Npc3RhbnQiLCJjb250ZW50IjoiSGkifSwiZmluaXNoX3JlYXNvbiI6InN0b3AifV0sInVzYWdlIjp7InByb21wdF90b2tlbnMiOjEwMjQsImNvbXBsZXRpb25fdG9rZW5zIjoxMDAsInRvdGFsX3Rva2VucyI6MTEyNCwicHJvbXB0X3Rva2Vuc19kZXRhaWxzIjp7ImNhY2hlZF90b2tlbnMiOjI0fX19"}"#;

#[test]
fn an_exchange_is_extracted_and_priced_whatever_the_pieces() {
    let input = format!("{EXCHANGE}\n\n");
    let whole = tollmesh(&["extract"], &input);
    assert!(whole.status.success());
    let one = tollmesh(&["extract", "--chunk", "1"], &input);
    assert_eq!(one.stdout, whole.stdout);
    let line: Value = serde_json::from_slice(&whole.stdout).unwrap();
    insta::assert_json_snapshot!("extracted", line);

    let priced = tollmesh(&["price"], &String::from_utf8(whole.stdout).unwrap());
    assert!(priced.status.success());
    let mut line: Value = serde_json::from_slice(&priced.stdout).unwrap();
    // Prices change with every release, the shape does not.
    line["pricing_version"] = "[digest]".into();
    line["row"] = "[row]".into();
    insta::assert_json_snapshot!("priced", line);
}

#[test]
fn a_host_of_ones_own_needs_its_provider() {
    let own = EXCHANGE.replace("api.openai.com", "llm.internal");
    let unknown = tollmesh(&["extract"], &own);
    let line: Value = serde_json::from_slice(&unknown.stdout).unwrap();
    assert_eq!(line["provider"], "openai-compatible");
    let odd = tollmesh(&["extract"], &own.replace("/v1/chat/completions", "/ask"));
    let line: Value = serde_json::from_slice(&odd.stdout).unwrap();
    assert_eq!(line["trouble"], "unmetered");
    let named = own.replacen(r#""id":"x1""#, r#""id":7,"provider":"vllm""#, 1);
    let known = tollmesh(&["extract"], &named);
    let line: Value = serde_json::from_slice(&known.stdout).unwrap();
    assert_eq!(line["id"], 7);
    assert_eq!(line["provider"], "vllm");
    assert_eq!(line["usage"]["input_tokens"], 1024);
}

#[test]
fn bad_lines_are_told_and_the_others_go_on() {
    let good = r#"{"id":2,"provider":"openai","model":"gpt-4o","usage":{"input_tokens":1000}}"#;
    let output = tollmesh(&["price"], &format!("nonsense\n{good}\n"));
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(
        error,
        "tollmesh: line 1: not a line of usage: expected ident at line 1 column 2\n"
    );
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["id"], 2);
    assert_eq!(line["cost_usd"], "0.0025");
    let totals =
        r#"{"provider":"openai","model":"gpt-4o","usage":{"input_tokens":1,"cache_read":2}}"#;
    let output = tollmesh(&["price"], totals);
    assert_eq!(output.status.code(), Some(1));
    // A call that has no price is not one that is missing.
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(line["id"], Value::Null);
    assert_eq!(
        (&line["status"], &line["cost_usd"]),
        (&"unpriced".into(), &Value::Null)
    );
    assert_eq!(line["unpriced_because"], "bad_usage");
    let error = String::from_utf8(output.stderr).unwrap();
    let why = line["error"].as_str().unwrap();
    assert_eq!(error, format!("tollmesh: line 1: {why}\n"));
    assert!(why.contains("input_tokens is 1"), "{why}");
}

#[test]
fn reports_are_read_while_the_ledger_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(dir.path(), "");
    process.send(&[event("a", "red"), event("b", "blue"), event("c", "blue")]);
    let config = dir.path().join("tollmesh.toml");
    let config = config.to_str().unwrap();
    let report = |more: &[&str]| {
        let arguments = [
            &["report", "--by", "team,model"],
            more,
            &["--config", config],
        ];
        let output = tollmesh(&arguments.concat(), "");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    insta::assert_snapshot!("report", report(&[]));
    insta::assert_snapshot!(
        "report.csv",
        report(&["--format", "csv", "--where", "team:red"])
    );
    let json: Value = serde_json::from_str(&report(&["--format", "json"])).unwrap();
    assert_eq!(json, process.json("/api/v1/spend?by=team,model"));
    let top = tollmesh(
        &["top", "--by", "cost", "--limit", "2", "--config", config],
        "",
    );
    insta::assert_snapshot!("top", String::from_utf8(top.stdout).unwrap());
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut child = Command::new(BINARY)
        .args(["completions", "bash"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Closed before anything is written: the write end then says EPIPE.
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(output.stderr.is_empty(), "{output:?}");
}

#[test]
fn usage_errors_end_with_2() {
    for arguments in [
        &["report"][..],
        &["nonsense"],
        &["top", "--by", "beauty"],
        &[],
    ] {
        assert_eq!(
            tollmesh(arguments, "").status.code(),
            Some(2),
            "{arguments:?}"
        );
    }
    assert_eq!(tollmesh(&["--version"], "").status.code(), Some(0));
}

#[test]
fn check_tells_every_mistake_in_every_file() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display().to_string();
    let check = |arguments: &[&str]| {
        let output = tollmesh(&[&["check"], arguments].concat(), "");
        let told = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), told.replace(&place, "DIR"))
    };
    let file = |name: &str, text: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.display().to_string()
    };
    let socket = "[ingest]\nlisten = \"unix:/run/tollmesh/ingest.sock\"\n";
    let good = file("good.toml", socket);
    assert_eq!(
        check(&["--config", &good]),
        (Some(0), "1 file checked, all well\n".to_owned())
    );
    let open = file("open.toml", "[operator]\nlisten = \"0.0.0.0:4101\"\n");
    let bad = file("bad.toml", "drain = 1\n[ingest]\nport = 1\n");
    let filter = file("filter.json", r#"{"agregator":{"cluster":"x"}}"#);
    let prices = file("prices.toml", "provider = 3\n");
    insta::assert_debug_snapshot!("warnings", check(&["--config", &open]));
    let dump = file(
        "dump.json",
        r#"{"virtual_hosts":[{"name":"openai","request_headers_to_add":
            [{"header":{"key":"x-team"}},{"header":{"key":"x-llm-tag-tier"}}]}]}"#,
    );
    let tags = r#"{"aggregator":{"cluster":"x"},"tags":{"headers":{"team":"x-team"}}}"#;
    let named = file("named.json", tags);
    let late = |header: &str| {
        format!(
            "warning: DIR/dump.json: \"openai\" adds {header:?} after the filters: the call has no \
             such tag, and the provider sees the header; set it by tags.by_workload or \
             tags.defaults, or by header_mutation before the filter\n"
        )
    };
    let (team, tier) = (late("x-team"), late("x-llm-tag-tier"));
    let dump = ["--config-dump", &dump];
    assert_eq!(check(&dump), (Some(1), tier.clone()));
    let both = [&["--filter-config", &named], &dump[..]].concat();
    assert_eq!(check(&both), (Some(1), tier + &team));
    insta::assert_debug_snapshot!(
        "mistakes",
        check(&[
            "--config",
            &bad,
            "--filter-config",
            &filter,
            "--pricing",
            &prices
        ])
    );
}

#[test]
fn check_looks_at_the_operators_token() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().display().to_string();
    let (config, token) = (dir.path().join("t.toml"), dir.path().join("token"));
    let text = format!("[ingest]\nlisten = \"unix:/run/t\"\n[operator]\ntoken_file = {token:?}\n");
    std::fs::write(&config, text).unwrap();
    let check = || {
        let output = tollmesh(&["check", "--config", config.to_str().unwrap()], "");
        let told = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), told.replace(&place, "DIR"))
    };
    let missing = "error: DIR/t.toml: operator.token_file: DIR/token: cannot be read; put the token \
                   there (`openssl rand -hex 32`), or correct the path: No such file or directory \
                   (os error 2)\n";
    assert_eq!(check(), (Some(2), missing.to_owned()));
    std::fs::write(&token, "0123456789abcde\n").unwrap();
    let short = "warning: DIR/t.toml: operator.token_file: a token of 15 characters can be guessed; \
                 make one with `openssl rand -hex 32`\n";
    assert_eq!(check(), (Some(1), short.to_owned()));
    std::fs::write(&token, "0123456789abcdef\n").unwrap();
    assert_eq!(check(), (Some(0), "1 file checked, all well\n".to_owned()));
}

/// Every kind of mistake that a price table can have, once.
const BAD_TABLE: &str = r#"
schema = 1
provider = "acme"
[source]
list = "https://acme.example/prices"
[[model]]
id = "a"
match = ["rocket-*"]
rate = [
  { ctx = "<10", input = 3, src = "list", checked = 2026-03-20 },
  { ctx = ">10", input = "3", colour = "red", src = "list" },
]
[[model]]
id = "b"
match = ["*-1"]
rate = [
  { input = "3", checked = 2026-03-20 },
  { from = 2026-03-13, input = "5", src = "list", checked = 2026-03-20 },
]
"#;

/// A shipped model at another price from the start, as if its past did not matter.
const EDITED: &str = r#"
schema = 1
provider = "deepseek"
[[model]]
id = "deepseek-v4-pro"
rate = [{ input = "1", src = "https://acme.example", checked = 2026-03-20 }]
"#;

#[test]
fn check_tells_file_model_and_row_of_bad_prices() {
    let dir = tempfile::tempdir().unwrap();
    let check = |text: &str| {
        let file = dir.path().join("own.toml");
        std::fs::write(&file, text).unwrap();
        let file = file.display().to_string();
        let output = tollmesh(&["check", "--pricing", &file], "");
        let told = String::from_utf8(output.stdout).unwrap();
        let lines = told.lines().map(|line| line.replace(&file, "own.toml"));
        (output.status.code(), lines.collect::<Vec<_>>())
    };
    let (code, told) = check(BAD_TABLE);
    let places = [
        "model a row 1: `input` is of type integer; expected a quoted decimal: write \"3\"",
        "model a row 2: `checked` is missing: the day the source was read",
        "model a row 2: unknown key `colour`; known are ",
        "model a: tier standard: nothing prices an input of 10 tokens from the beginning; close \
         the gap",
        "model b row 1: `src` is missing",
        "model b: rows 1 and 2 overlap: both price the same calls",
        "model b: `match` \"*-1\" and model a claim the same names; make one exact",
    ];
    assert_eq!((code, told.len()), (Some(2), places.len()), "{told:#?}");
    for (told, place) in told.iter().zip(places) {
        let want = format!("error: own.toml: {place}");
        assert!(told.starts_with(&want), "{told}");
    }
    let (code, told) = check(EDITED);
    assert_eq!((code, told.len()), (Some(2), 1), "{told:#?}");
    assert_eq!(
        told[0],
        "error: own.toml: model deepseek-v4-pro: the row of deepseek.toml for tier standard until \
         2026-08-17 is missing here; it prices calls of the past: restore it, or give the row in \
         its place a `fix = \"why\"`"
    );
    let said = EDITED.replace("src =", "fix = \"own terms\", src =");
    let well = vec!["1 file checked, all well".to_owned()];
    assert_eq!(check(&said), (Some(0), well));
}

/// A table of one model that became dearer.
const TABLE: &str = r#"
schema = 1
provider = "acme"
currency = "USD"
[tiers]
standard = ["default"]
[source]
list = "https://acme.example/prices"
[[model]]
id = "rocket-1"
match = ["rocket-1{snap}"]
rate = [
  { until = 2026-03-13, input = "3", output = "15", src = "list", checked = 2026-03-20 },
  { from = 2026-03-13, input = "5", output = "25", src = "list", checked = 2026-03-20 },
]
"#;

#[test]
fn prices_are_shown_with_arithmetic_and_source() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file
    };
    let terms = "schema = 1\n[[override]]\nid = \"deal\"\nwhen = { provider = \"acme\" }\n\
                 times = \"0.8\"\n";
    let overrides = file("own.toml", terms);
    let table = file("acme.toml", TABLE);
    let more = format!("overrides = {overrides:?}\npricing = [{table:?}]");
    let process = Process::start(dir.path(), &more);
    let config = dir.path().join("tollmesh.toml");
    let show = |arguments: &[&str]| {
        let config = ["prices", "show", "--config", config.to_str().unwrap()];
        let output = tollmesh(&[&config, arguments].concat(), "");
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let told = told.replace(&dir.path().display().to_string(), "DIR");
        (output.status.code(), told)
    };
    let (code, told) = show(&["rocket-1-20260101", "--at", "2026-03-12"]);
    assert_eq!(code, Some(0));
    insta::assert_snapshot!("prices", told);
    let (code, told) = show(&["no-such-model", "--at", "2026-01-01T00:00:00Z"]);
    assert_eq!(code, Some(1));
    let want = "tollmesh: no row prices \"no-such-model\" at 2026-01-01T00:00:00.000Z\n";
    assert_eq!(told, want);

    let (_, json) = show(&["rocket-1", "--provider=acme", "--format=json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["items"][0]["rates"]["output"], "25");
    let answer = process.get("/api/v1/prices?model=rocket-1&provider=acme");
    let answer = answer
        .body
        .replace(&dir.path().display().to_string(), "DIR");
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer, json);
    assert_eq!(process.get("/api/v1/prices").status, 400);
}

#[test]
fn tables_are_compared_row_by_row() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let file = dir.path().join(name);
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let before = file("before.toml", TABLE);
    let dated = "  { from = 2026-03-13,";
    let (head, tail) = TABLE.split_once(dated).unwrap();
    let after = format!(
        "{head}  {{ from = 2026-03-13, until = 2026-06-01,{tail}\
         [[model]]\nid = \"rocket-2\"\nrate = [ {{ images = \"0.04\", src = \"list\", \
         checked = 2026-03-20 }} ]\n"
    );
    let after = file(
        "after.toml",
        &after.replace("input = \"3\"", "input = \"2.50\""),
    );
    // Where it was read, and when, makes no difference.
    let reviewed = file("reviewed.toml", &TABLE.replace("2026-03-20", "2026-04-20"));
    let diff = |a: &str, b: &str| {
        let output = tollmesh(&["prices", "diff", a, b], "");
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        (output.status.code(), told)
    };
    assert_eq!(diff(&before, &reviewed), (Some(0), String::new()));
    let (code, told) = diff(&before, &after);
    assert_eq!(code, Some(1));
    insta::assert_snapshot!("prices_diff", told);
    let (code, told) = diff("shipped", "shipped");
    assert_eq!((code, told.as_str()), (Some(0), ""));
    assert_eq!(diff(&before, "/no/such/file").0, Some(2));
}

#[test]
fn lists_of_others_are_proposed_as_a_diff_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("list.json");
    let text = r#"{ "no-such-model-yet": { "litellm_provider": "cohere", "mode": "chat",
        "input_cost_per_token": 1.5e-07, "output_cost_per_token": 6e-07 } }"#;
    std::fs::write(&list, text).unwrap();
    let (list, into) = (list.to_str().unwrap(), dir.path().join("into"));
    let import = |more: &[&str]| {
        let arguments = ["prices", "import", "--from", "litellm", list];
        tollmesh(&[&arguments, more].concat(), "")
    };
    let output = import(&[]);
    let diff = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert!(diff.starts_with("--- a/pricing/cohere.toml\n"), "{diff}");
    assert!(
        diff.contains("+  { input = \"0.15\", output = \"0.6\", src = "),
        "{diff}"
    );
    let n_files = || std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(n_files(), 1);

    let into = ["--into", into.to_str().unwrap()];
    assert_eq!(import(&into).status.code(), Some(0));
    let written = std::fs::read_to_string(dir.path().join("into/cohere.toml")).unwrap();
    assert!(written.contains("id    = \"no-such-model-yet\""));
    let again = import(&into);
    assert_eq!(again.status.code(), Some(2));
    let told = String::from_utf8(again.stderr).unwrap();
    assert!(told.contains("is there already"), "{told}");
    assert!(import(&["--provider", "openai"]).stdout.is_empty());

    let not_theirs = tollmesh(&["prices", "import", "--from", "genai-prices", list], "");
    assert_eq!(not_theirs.status.code(), Some(2));
}
