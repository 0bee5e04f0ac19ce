//! Connections over WebSocket: every response is a row, and every byte passes unchanged.

use std::sync::LazyLock;

use tollmesh_tests::fact::eventually;
use tollmesh_tests::ledger::Row;
use tollmesh_tests::websocket::{Provider, Script, Side, value};
use tollmesh_tests::{Mesh, MeshBuilder, Shared, usage};

use Side::{Client, Server};

static MESH: Shared = Shared::new();
static PROVIDER: LazyLock<Provider> =
    LazyLock::new(|| Provider::start().expect("a port on loopback is free"));

fn built() -> MeshBuilder {
    Mesh::built().provider_at(PROVIDER.address())
}

const REALTIME: &str = "GET /v1/realtime?model=gpt-realtime HTTP/1.1\r\nHost: api.openai.com\r\n\
                        x-llm-tag-team: red\r\n";
const RESPONSES: &str = "GET /v1/responses HTTP/1.1\r\nHost: api.openai.com\r\n\
                         x-llm-tag-team: red\r\n";
const GEMINI: &str = "GET /ws/google.ai.generativelanguage.v1beta.GenerativeService\
                      .BidiGenerateContent?key=secret HTTP/1.1\r\n\
                      Host: generativelanguage.googleapis.com\r\nx-llm-tag-team: red\r\n";

/// The rows of a connection, in the order of their responses, once there are so many.
#[track_caller]
fn rows(mesh: &Mesh, request_id: &str, n: usize) -> Vec<Row> {
    eventually("a row for each response", || {
        let mut rows = mesh
            .ledger()
            .by_request_id()?
            .remove(request_id)
            .unwrap_or_default();
        if rows.len() != n {
            return Err(format!("{} rows instead of {n}", rows.len()));
        }
        let number = |row: &Row| {
            row.text("event_id")?
                .rsplit('.')
                .next()?
                .parse::<u64>()
                .ok()
        };
        rows.sort_by_key(number);
        Ok(rows)
    })
}

#[track_caller]
fn talk(mesh: &Mesh, request_id: &str, head: &str, script: &Script) -> String {
    match PROVIDER.talk(mesh.envoy().listener(), request_id, head, script) {
        Ok(head) => head,
        Err(error) => panic!("{request_id}: {error:#}"),
    }
}

const SESSION: &str = r#"{"type":"session.created","session":{"type":"realtime",
    "model":"gpt-realtime-2025-08-28"}}"#;
const CREATE: &str = r#"{"type":"response.create"}"#;

fn created(id: &str) -> String {
    format!(r#"{{"type":"response.created","response":{{"id":"{id}","status":"in_progress"}}}}"#)
}

fn done(id: &str, input: u64, audio: u64) -> String {
    format!(
        r#"{{"type":"response.done","response":{{"id":"{id}","status":"completed","output":[],
        "usage":{{"input_tokens":{input},"output_tokens":{audio},"input_token_details":
        {{"text_tokens":{input},"cached_tokens":0}},"output_token_details":{{"text_tokens":0,
        "audio_tokens":{audio}}}}}}}}}"#
    )
}

fn conversation() -> Script {
    let audio = format!(
        r#"{{"type":"response.output_audio.delta","response_id":"r1","delta":"{}"}}"#,
        "QUJD".repeat(30_000)
    );
    let spoken = format!(
        r#"{{"type":"input_audio_buffer.append","audio":"{}"}}"#,
        "QUJD".repeat(20_000)
    );
    Script::new()
        .text(Server, SESSION)
        .text(Client, &spoken)
        .in_pieces(Client, 0x01, CREATE)
        .in_pieces(Server, 0x01, &created("r1"))
        .text(Server, &audio)
        .in_pieces(Server, 0x01, &done("r1", 120, 80))
        .text(Client, CREATE)
        .text(Server, &created("r2"))
        .text(Server, &done("r2", 200, 40))
}

#[test]
fn each_realtime_response_is_a_row_however_it_is_written() {
    let Some(mesh) = MESH.mesh(built) else {
        return;
    };
    for n in [1_000_000, 4096, 13] {
        let id = format!("realtime-{n}");
        let script = conversation().in_writes_of(n);
        let head = talk(&mesh, &id, REALTIME, &script);
        assert!(value(&head, "x-tollmesh-event").is_some(), "{head}");
        let rows = rows(&mesh, &id, 2);
        let told = [("r1", 120, 80, "0.0056"), ("r2", 200, 40, "0.00336")];
        for (row, (id, input, audio, cost)) in rows.iter().zip(told) {
            let used = usage("gpt-realtime-2025-08-28").input(input);
            assert_eq!(
                row.differences(&used),
                [format!("audio_output {audio} instead of 0")]
            );
            // Input at $4 a million, audio at $64.
            assert_eq!(row.text("cost_usd"), Some(cost), "{}", row.0);
            assert_eq!(row.text("response_id"), Some(id));
            assert_eq!(row.text("api"), Some("openai.realtime"));
            assert_eq!(row.text("model_requested"), Some("gpt-realtime"));
            assert_eq!(row.text("outcome"), Some("success"), "{}", row.0);
            assert_eq!(row.tag("team"), Some("red"));
        }
    }
    mesh.has_not_trapped();
}

#[test]
fn a_response_is_in_the_ledger_while_its_connection_lives() {
    let Some(mesh) = MESH.mesh(built) else {
        return;
    };
    let id = "realtime-alive";
    let envoy = mesh.envoy().listener();
    match PROVIDER.hold(envoy, id, REALTIME, &conversation()) {
        Ok(alive) => {
            rows(&mesh, id, 2);
            drop(alive);
        }
        Err(error) => panic!("{error:#}"),
    }
}

#[test]
fn a_response_that_is_cut_is_an_aborted_row() {
    let Some(mesh) = MESH.mesh(built) else {
        return;
    };
    let script = Script::new()
        .text(Server, SESSION)
        .text(Client, CREATE)
        .text(Server, &created("r1"))
        .cut();
    talk(&mesh, "realtime-cut", REALTIME, &script);
    let rows = rows(&mesh, "realtime-cut", 1);
    assert_eq!(rows[0].text("outcome"), Some("aborted"), "{}", rows[0].0);
    assert_eq!(rows[0].text("response_id"), Some("r1"));
}

#[test]
fn turns_over_responses_have_their_own_models() {
    let Some(mesh) = MESH.mesh(built) else {
        return;
    };
    let completed = |model: &str, input: u64| {
        format!(
            r#"{{"type":"response.completed","response":{{"id":"r-{input}","status":"completed",
            "model":"{model}","output":[],"usage":{{"input_tokens":{input},"output_tokens":9,
            "input_tokens_details":{{"cached_tokens":2}},"output_tokens_details":
            {{"reasoning_tokens":4}}}}}}}}"#
        )
    };
    let script = Script::new()
        .text(
            Client,
            r#"{"type":"response.create","model":"gpt-5","input":[]}"#,
        )
        .text(Server, &completed("gpt-5-2025-08-07", 10))
        .text(Client, r#"{"type":"response.create","model":"gpt-5-mini"}"#)
        .text(Server, &completed("gpt-5-mini-2025-08-07", 20));
    talk(&mesh, "responses", RESPONSES, &script);
    let rows = rows(&mesh, "responses", 2);
    for (row, (model, asked, input)) in rows.iter().zip([
        ("gpt-5-2025-08-07", "gpt-5", 8),
        ("gpt-5-mini-2025-08-07", "gpt-5-mini", 18),
    ]) {
        let used = usage(model)
            .input(input)
            .cache_read(2)
            .output(5)
            .reasoning(4);
        assert_eq!(row.differences(&used), Vec::<String>::new(), "{}", row.0);
        assert_eq!(row.text("model_requested"), Some(asked));
        assert!(row.text("cost_usd").is_some(), "{}", row.0);
    }
}

#[test]
fn gemini_live_in_binary_messages_is_read_by_turns() {
    let Some(mesh) = MESH.mesh(built) else {
        return;
    };
    let turn = |prompt: u64, output: u64| {
        format!(
            r#"{{"serverContent":{{"turnComplete":true}},"usageMetadata":{{"promptTokenCount":
            {prompt},"responseTokenCount":{output},"totalTokenCount":{}}}}}"#,
            prompt + output
        )
    };
    let asks = r#"{"clientContent":{"turns":[],"turnComplete":true}}"#;
    let script = Script::new()
        .text(
            Client,
            r#"{"setup":{"model":"models/gemini-live-2.5-flash"}}"#,
        )
        .frame(Server, 0x82, br#"{"setupComplete":{}}"#)
        .text(Client, asks)
        .in_pieces(Server, 0x02, &turn(143, 19))
        .text(Client, asks)
        .frame(Server, 0x82, turn(181, 24).as_bytes());
    talk(&mesh, "gemini", GEMINI, &script);
    let rows = rows(&mesh, "gemini", 2);
    for (row, (prompt, output)) in rows.iter().zip([(143, 19), (181, 24)]) {
        assert_eq!(row.bucket("input"), Some(prompt), "{}", row.0);
        assert_eq!(row.bucket("output"), Some(output), "{}", row.0);
        let model = row.text("model_requested");
        assert_eq!(model, Some("gemini-live-2.5-flash"));
        assert!(row.text("cost_usd").is_some(), "{}", row.0);
        assert!(!row.0.to_string().contains("secret"));
    }
}

#[test]
fn a_compressed_connection_passes_and_is_counted() {
    let Some(mesh) = MESH.mesh(built) else {
        return;
    };
    let before = mesh.counted("unmetered_provider_calls");
    let script = Script::new()
        .frame(Server, 0xC1, b"not read")
        .frame(Client, 0xC1, b"not read either")
        .extended("permessage-deflate; server_no_context_takeover");
    let head = talk(&mesh, "compressed", REALTIME, &script);
    assert_eq!(value(&head, "x-tollmesh-event"), None);
    eventually("the connection is counted", || {
        match mesh.counted("unmetered_provider_calls") - before {
            1.. => Ok(()),
            n => Err(format!("{n} counted")),
        }
    });
}

#[test]
fn a_refused_handshake_is_an_error_row() {
    let Some(mesh) = MESH.mesh(built) else {
        return;
    };
    let body = r#"{"error":{"type":"invalid_request_error","code":"invalid_api_key"}}"#;
    let script = Script::new().refused(401, body);
    let head = talk(&mesh, "refused", REALTIME, &script);
    assert!(head.starts_with("HTTP/1.1 401"), "{head}");
    let rows = rows(&mesh, "refused", 1);
    assert_eq!(rows[0].text("outcome"), Some("error"), "{}", rows[0].0);
}
