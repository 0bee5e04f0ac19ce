//! Every way that a call can travel: protocols, TLS, bodies that are none, retries, deadlines.

use serde_json::json;
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::ledger::Row;
use tollmesh_tests::literal::{LiteralApp, LiteralProvider};
use tollmesh_tests::{Ended, Exchange, Mesh, Shared, Usage, usage};

static MESH: Shared = Shared::new();
static MESH_TO_HTTP2: Shared = Shared::new();

/// The hosts that `envoy/envoy.yaml` routes.
const SHIPPED_HOSTS: [&str; 3] = [
    "api.openai.com",
    "api.anthropic.com",
    "generativelanguage.googleapis.com",
];

/// A chat completion of 12 and 7 tokens.
const CHAT: &str = "{\"model\":\"gpt-4o\",\"choices\":[{\"message\":{\"content\":\"hi\"}}],\
                    \"usage\":{\"prompt_tokens\":12,\"completion_tokens\":7}}";

fn used(model: &str) -> Usage {
    usage(model).input(812).cache_read(64).output(40)
}

fn ask_chat() -> Exchange {
    let body = r#"{"model":"gpt-4o","messages":[]}"#;
    Exchange::post("api.openai.com", "/v1/chat/completions", body)
}

fn http1(status_line: &str, body: &str) -> Vec<u8> {
    let n_bytes = body.len();
    format!(
        "HTTP/1.1 {status_line}\r\ncontent-type: application/json\r\n\
         content-length: {n_bytes}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[track_caller]
fn costs_nothing(row: &Row) {
    let cost = row.text("cost_usd");
    assert!(matches!(cost, None | Some("0")), "{}", row.0);
}

// === TLS ===

#[test]
fn calls_to_a_provider_behind_tls_are_metered() {
    let built = Mesh::built().provider_certified_for(&SHIPPED_HOSTS);
    let Some(mesh) = built.start() else { return };
    for dialect in Dialect::ALL {
        for is_http2 in [false, true] {
            let client = mesh.client("red");
            let client = if is_http2 { client.http2() } else { client };
            let exchange = dialect.streamed(&used("gpt-4o")).chunks_of(61);
            let answer = client.call(&exchange);
            answer.is_what_was_sent(&exchange);
            // The shipped clusters speak to a provider as the app speaks to them.
            let received = mesh.provider().received(&answer.request_id).remove(0);
            let is_upstream_http2 = received.version == hyper::Version::HTTP_2;
            assert_eq!(is_upstream_http2, is_http2, "{:?}", received.version);
            mesh.ledger().settles_to(&[(&answer, used("gpt-4o"))]);
        }
    }
    mesh.has_not_trapped();
}

#[test]
fn a_provider_with_another_name_gets_no_call_and_costs_nothing() {
    let built = Mesh::built().provider_certified_for(&["llm.example.net"]);
    let Some(mesh) = built.start() else { return };
    let exchange = Dialect::OpenAiChat.plain(&used("gpt-4o"));
    let answer = mesh.client("red").call(&exchange);
    assert_eq!(answer.status, Some(503), "{:?}", answer.body);
    assert_eq!(
        mesh.provider().n_requests(),
        0,
        "the key went to a stranger"
    );
    let row = mesh.ledger().row_of(&answer);
    assert_eq!(row.text("outcome"), Some("error"), "{}", row.0);
    costs_nothing(&row);
}

// === trailers ===

#[test]
fn trailers_that_nobody_announced_lose_no_byte() {
    let built = || Mesh::built().upstream_http2();
    let Some(mesh) = MESH_TO_HTTP2.mesh(built) else {
        return;
    };
    for dialect in Dialect::ALL {
        for n_bytes in [1, 9, usize::MAX] {
            for is_http2 in [false, true] {
                let client = mesh.client("red");
                let client = if is_http2 { client.http2() } else { client };
                let exchange = dialect.streamed(&used("gpt-4o")).chunks_of(n_bytes);
                let exchange = exchange.trailers(&[("x-checked", "yes")]).unannounced();
                let answer = client.call(&exchange);
                // In the one stream that we asked usage for, the extra event is cut as ever.
                answer.is_what_was_sent(&exchange);
                mesh.ledger().settles_to(&[(&answer, used("gpt-4o"))]);
            }
        }
    }
    mesh.has_not_trapped();
}

// === streams that the provider resets ===

#[test]
fn a_stream_that_is_reset_over_http2_is_an_abort_with_what_was_told() {
    let built = || Mesh::built().upstream_http2();
    let Some(mesh) = MESH_TO_HTTP2.mesh(built) else {
        return;
    };
    for is_http2 in [false, true] {
        let client = mesh.client("red");
        let client = if is_http2 { client.http2() } else { client };
        let whole = Dialect::Anthropic.streamed(&used("claude-sonnet-4-5"));
        let half = whole.reply.body.n_bytes() as usize / 2;
        let answer = client.call(&whole.reset_after(half));
        assert!(matches!(answer.ended, Ended::Cut(_)), "{:?}", answer.ended);
        let row = mesh.ledger().row_of(&answer);
        assert_eq!(row.text("outcome"), Some("aborted"), "{}", row.0);
        assert_eq!(row.text("usage_source"), Some("estimated"), "{}", row.0);
        assert_eq!(row.bucket("input"), Some(812), "{}", row.0);
        assert_eq!(row.bucket("cache_read"), Some(64), "{}", row.0);
    }
    mesh.has_not_trapped();
}

// === informational responses ===

#[test]
fn an_app_that_waits_for_leave_gets_it() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let exchange = Dialect::OpenAiChat.plain(&used("gpt-4o"));
    // The script is looked up by the id that this call is played under.
    let first = mesh.client("red").call(&exchange);
    let mut app = LiteralApp::to(mesh.envoy().listener()).expect("Envoy listens");
    let body = r#"{"model":"gpt-4o"}"#;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: api.openai.com\r\n\
         content-type: application/json\r\nexpect: 100-continue\r\n\
         x-request-id: {}\r\ncontent-length: {}\r\n\r\n",
        first.request_id,
        body.len()
    );
    app.says(head.as_bytes()).expect("Envoy reads");
    app.hears("HTTP/1.1 100 Continue\r\n\r\n").expect("leave");
    app.says(body.as_bytes()).expect("Envoy reads");
    app.hears("HTTP/1.1 200 OK").expect("the answer");
    for row in mesh.ledger().hops_of(&first, 2) {
        assert_eq!(row.bucket("input"), Some(812), "{}", row.0);
    }
    mesh.has_not_trapped();
}

#[test]
fn early_hints_are_no_answer() {
    let mut reply = b"HTTP/1.1 103 Early Hints\r\nlink: </style.css>; rel=preload\r\n\r\n".to_vec();
    reply.extend(http1("200 OK", CHAT));
    let provider = LiteralProvider::start(&[&reply]);
    let Some(mesh) = Mesh::built().provider_at(provider.address()).start() else {
        return;
    };
    let answer = mesh.client("red").call(&ask_chat());
    assert_eq!((answer.status, &answer.ended), (Some(200), &Ended::Whole));
    assert_eq!(answer.body, CHAT);
    let want = usage("gpt-4o").input(12).output(7);
    mesh.ledger().settles_to(&[(&answer, want)]);
    mesh.has_not_trapped();
}

// === bodies that are none ===

#[test]
fn an_answer_without_a_body_is_estimated_from_the_question_where_one_was_due() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    for (status, is_http2) in [(200, false), (200, true), (204, false), (204, true)] {
        let client = mesh.client("red");
        let client = if is_http2 { client.http2() } else { client };
        let exchange = ask_chat().status(status);
        let answer = client.call(&exchange);
        answer.is_what_was_sent(&exchange);
        let row = mesh.ledger().row_of(&answer);
        assert_eq!(row.0["status"], status, "{}", row.0);
        // A 204 promised no content: nothing was generated.
        let (source, output) = match status {
            204 => ("absent", None),
            _ => ("estimated", Some(0)),
        };
        assert_eq!(row.text("usage_source"), Some(source), "{}", row.0);
        assert_eq!(row.bucket("output"), output, "{}", row.0);
        assert_eq!(row.text("trouble"), Some("usage_missing"), "{}", row.0);
    }
    mesh.has_not_trapped();
}

#[test]
fn a_request_for_the_head_alone_is_no_call() {
    // One worker, so that rows come in the order of the calls.
    let Some(mesh) = Mesh::built().workers(1).start() else {
        return;
    };
    let mut head = Exchange::post("api.openai.com", "/v1/chat/completions", "");
    head.ask.method = "HEAD".to_string();
    for is_http2 in [false, true] {
        let client = mesh.client("red");
        let client = if is_http2 { client.http2() } else { client };
        let unmetered = client.call(&head);
        assert_eq!((unmetered.status, unmetered.n_body_bytes), (Some(200), 0));
        // A later call's row comes after the row that the head would have had.
        let metered = client.call(&Dialect::OpenAiChat.plain(&used("gpt-4o")));
        mesh.ledger().settles_to(&[(&metered, used("gpt-4o"))]);
        mesh.ledger().hops_of(&unmetered, 0);
    }
    mesh.has_not_trapped();
}

// === retries ===

fn retrying() -> serde_json::Value {
    let back_off = json!({ "base_interval": "0.001s", "max_interval": "0.002s" });
    json!({ "retry_policy": {
        "retry_on": "5xx", "num_retries": 2, "retry_back_off": back_off
    } })
}

#[test]
fn a_call_that_is_tried_three_times_in_vain_is_one_event() {
    let Some(mesh) = Mesh::built().routes(retrying()).start() else {
        return;
    };
    let body = r#"{"error":{"type":"server_error"}}"#;
    let exchange = ask_chat().answered("application/json", body).status(503);
    let answer = mesh.client("red").call(&exchange);
    answer.is_what_was_sent(&exchange);
    assert_eq!(mesh.provider().received(&answer.request_id).len(), 3);
    let row = mesh.ledger().row_of(&answer);
    assert_eq!(row.text("outcome"), Some("error"), "{}", row.0);
    assert_eq!(row.0["attempts"], 3, "{}", row.0);
    costs_nothing(&row);
    mesh.has_not_trapped();
}

#[test]
fn a_call_that_the_third_try_answers_costs_once() {
    let busy = http1("503 Busy", r#"{"error":{}}"#);
    let provider = LiteralProvider::start(&[&busy, &busy, &http1("200 OK", CHAT)]);
    let built = Mesh::built().provider_at(provider.address());
    let Some(mesh) = built.routes(retrying()).start() else {
        return;
    };
    let answer = mesh.client("red").call(&ask_chat());
    assert_eq!(
        (answer.status, &answer.body[..]),
        (Some(200), CHAT.as_bytes())
    );
    assert_eq!(provider.requests().len(), 3);
    let row = mesh.ledger().row_of(&answer);
    assert_eq!(row.0["attempts"], 3, "{}", row.0);
    assert_eq!(row.text("outcome"), Some("success"), "{}", row.0);
    assert_eq!(
        (row.bucket("input"), row.bucket("output")),
        (Some(12), Some(7))
    );
}

#[test]
fn tries_of_the_apps_own_are_events_of_one_trace_with_one_fingerprint() {
    let key = "000102030405060708090a0b0c0d0e0f";
    let built = Mesh::built().plugin(json!({ "fingerprint": { "key": key } }));
    let Some(mesh) = built.start() else { return };
    let busy = Dialect::OpenAiChat.plain(&used("gpt-4o")).status(503);
    let answered = Dialect::OpenAiChat.plain(&used("gpt-4o"));
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let answers =
        [("b7ad6b7169203331", &busy), ("b7ad6b7169203332", &answered)].map(|(span, exchange)| {
            let parent = format!("00-{trace}-{span}-01");
            let client = mesh.client("red").header("traceparent", parent);
            client.call(exchange)
        });
    let rows = mesh.ledger().rows_of(&[&answers[0], &answers[1]]);
    for (row, outcome) in rows.iter().zip(["error", "success"]) {
        assert_eq!(row.text("outcome"), Some(outcome), "{}", row.0);
        assert_eq!(row.text("trace_id"), Some(trace), "{}", row.0);
        assert_eq!(row.0["attempts"], 1, "{}", row.0);
        assert!(row.text("fingerprint").is_some(), "{}", row.0);
    }
    assert_eq!(rows[0].text("fingerprint"), rows[1].text("fingerprint"));
    assert_ne!(rows[0].text("span_id"), rows[1].text("span_id"));
    assert_ne!(rows[0].text("event_id"), rows[1].text("event_id"));
}

// === what Envoy does by itself ===

#[test]
fn an_answer_of_envoys_own_is_an_error_at_no_cost() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    // No route leads there, so that nobody but Envoy can answer.
    let mut exchange = ask_chat();
    exchange.ask.host = "api.mistral.ai".to_string();
    let answer = mesh.client("red").call(&exchange);
    assert_eq!(answer.status, Some(404));
    let row = mesh.ledger().row_of(&answer);
    assert_eq!(row.text("outcome"), Some("error"), "{}", row.0);
    assert_eq!(row.text("provider"), Some("mistral"), "{}", row.0);
    assert_eq!(row.0["status"], 404, "{}", row.0);
    costs_nothing(&row);
}

#[test]
fn a_redirect_that_envoy_follows_costs_once() {
    let elsewhere = b"HTTP/1.1 307 Temporary Redirect\r\ncontent-length: 0\r\n\
                      location: http://api.openai.com/v1/chat/completions\r\n\r\n";
    let provider = LiteralProvider::start(&[elsewhere, &http1("200 OK", CHAT)]);
    let follows = json!({ "internal_redirect_policy": {
        "max_internal_redirects": 1, "redirect_response_codes": [307],
        "allow_cross_scheme_redirect": true
    } });
    let built = Mesh::built()
        .provider_at(provider.address())
        .routes(follows);
    let Some(mesh) = built.start() else { return };
    let answer = mesh.client("red").call(&ask_chat());
    assert_eq!(
        (answer.status, &answer.body[..]),
        (Some(200), CHAT.as_bytes())
    );
    assert_eq!(provider.requests().len(), 2);
    let rows = mesh.ledger().hops_of(&answer, 2);
    let (answered, redirected): (Vec<Row>, Vec<Row>) = rows
        .into_iter()
        .partition(|row| row.text("outcome") == Some("success"));
    assert_eq!((answered.len(), redirected.len()), (1, 1));
    assert_eq!(answered[0].bucket("input"), Some(12), "{}", answered[0].0);
    costs_nothing(&redirected[0]);
    mesh.has_not_trapped();
}

// === bodies without a length ===

#[test]
fn an_answer_that_ends_with_its_connection_is_whole() {
    let reply = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{CHAT}"
    );
    let provider = LiteralProvider::start(&[reply.as_bytes()]);
    let Some(mesh) = Mesh::built().provider_at(provider.address()).start() else {
        return;
    };
    for is_http2 in [false, true] {
        let client = mesh.client("red");
        let client = if is_http2 { client.http2() } else { client };
        let answer = client.call(&ask_chat());
        assert_eq!((answer.status, &answer.ended), (Some(200), &Ended::Whole));
        assert_eq!(answer.body, CHAT);
        let row = mesh.ledger().row_of(&answer);
        assert_eq!(row.text("outcome"), Some("success"), "{}", row.0);
        assert_eq!(
            (row.bucket("input"), row.bucket("output")),
            (Some(12), Some(7))
        );
    }
}

#[test]
fn a_request_in_chunks_is_read_and_edited_as_any_other() {
    let event = |part: &str| format!("data: {{\"model\":\"gpt-4o\",{part}}}\n\n");
    let hi = event(r#""choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":"stop"}]"#);
    let used = event(r#""choices":[],"usage":{"prompt_tokens":12,"completion_tokens":7}"#);
    let done = "data: [DONE]\n\n";
    let events = [&hi, &used, done].concat();
    let n_bytes = events.len();
    let reply = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\
         content-length: {n_bytes}\r\n\r\n{events}"
    );
    let provider = LiteralProvider::start(&[reply.as_bytes()]);
    let Some(mesh) = Mesh::built().provider_at(provider.address()).start() else {
        return;
    };
    let mut app = LiteralApp::to(mesh.envoy().listener()).expect("Envoy listens");
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: api.openai.com\r\n\
                content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    app.says(head.as_bytes()).expect("Envoy reads");
    for piece in [
        r#"{"model":"gp"#,
        r#"t-4o","messages":[],"str"#,
        r#"eam":true}"#,
    ] {
        let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
        app.says(chunk.as_bytes()).expect("Envoy reads");
    }
    app.says(b"0\r\n\r\n").expect("Envoy reads");
    let heard = app.hears("[DONE]").expect("the answer");
    assert!(!heard.contains("prompt_tokens"), "{heard}");
    let asked = String::from_utf8_lossy(&provider.requests()[0]).into_owned();
    assert!(asked.contains("include_usage"), "{asked}");
    let rows = eventually("a row", || match mesh.ledger().rows() {
        Ok(rows) if rows.len() == 1 => Ok(rows),
        other => Err(format!("{other:?}")),
    });
    let row = &rows[0];
    assert_eq!(
        (row.bucket("input"), row.bucket("output")),
        (Some(12), Some(7))
    );
    assert_eq!(row.text("model_requested"), Some("gpt-4o"), "{}", row.0);
    mesh.has_not_trapped();
}

// === deadlines and hang-ups ===

#[test]
fn a_deadline_in_the_middle_of_a_stream_is_an_abort() {
    let built = Mesh::built().routes(json!({ "timeout": "0.4s" }));
    let Some(mesh) = built.start() else { return };
    let whole = Dialect::Anthropic.streamed(&used("claude-sonnet-4-5"));
    let half = whole.reply.body.n_bytes() as usize / 2;
    let answer = mesh.client("red").call(&whole.silent_after(half));
    assert!(matches!(answer.ended, Ended::Cut(_)), "{:?}", answer.ended);
    assert_eq!(answer.n_body_bytes, half as u64);
    let row = mesh.ledger().row_of(&answer);
    assert_eq!(row.text("outcome"), Some("aborted"), "{}", row.0);
    assert_eq!(row.0["status"], 200, "{}", row.0);
    assert_eq!(row.bucket("input"), Some(812), "{}", row.0);
    mesh.has_not_trapped();
}

#[test]
fn a_deadline_before_an_answer_is_an_error_at_no_cost() {
    let provider = LiteralProvider::start(&[b""]);
    let built = Mesh::built().provider_at(provider.address());
    let Some(mesh) = built.routes(json!({ "timeout": "0.4s" })).start() else {
        return;
    };
    let answer = mesh.client("red").call(&ask_chat());
    assert_eq!(answer.status, Some(504));
    let row = mesh.ledger().row_of(&answer);
    assert_eq!(row.text("outcome"), Some("error"), "{}", row.0);
    costs_nothing(&row);
}

#[test]
fn an_app_that_leaves_before_an_answer_is_an_abort_without_a_status() {
    let provider = LiteralProvider::start(&[b""]);
    let Some(mesh) = Mesh::built().provider_at(provider.address()).start() else {
        return;
    };
    let body = r#"{"model":"gpt-4o"}"#;
    let n_bytes = body.len();
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: api.openai.com\r\n\
         content-type: application/json\r\ncontent-length: {n_bytes}\r\n\r\n{body}"
    );
    let mut app = LiteralApp::to(mesh.envoy().listener()).expect("Envoy listens");
    app.says(request.as_bytes()).expect("Envoy reads");
    eventually("the provider has the request", || {
        let n = provider.requests().len();
        if n == 1 {
            Ok(())
        } else {
            Err(format!("{n} requests"))
        }
    });
    drop(app);
    let rows = eventually("a row", || {
        let rows = mesh.ledger().rows().map_err(|error| error.to_string())?;
        if rows.is_empty() {
            Err("no row".to_string())
        } else {
            Ok(rows)
        }
    });
    assert_eq!(rows.len(), 1);
    let row = &rows[0];
    assert_eq!(row.text("outcome"), Some("aborted"), "{}", row.0);
    assert!(row.0["status"].is_null(), "{}", row.0);
    assert_eq!(row.text("model_requested"), Some("gpt-4o"), "{}", row.0);
}
