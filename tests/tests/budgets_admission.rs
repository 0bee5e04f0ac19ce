//! Calls that wait for their reservation: no size limit, and no provider has one too early.

use std::time::Duration;

use serde_json::{Value, json};
use tollmesh_tests::fact::eventually;
use tollmesh_tests::websocket::{self, Script, Side};
use tollmesh_tests::{Answer, Client, Ended, Exchange, Judge, Mesh, Payload, Sentence};

/// Workers of the proxy.
const N_WORKERS: usize = 2;
const ANSWER: &str = r#"{"id":"r1","model":"gpt-4o","choices":[{"index":0,
    "message":{"content":"hi"},"finish_reason":"stop"}],
    "usage":{"prompt_tokens":12,"completion_tokens":5,"total_tokens":17}}"#;

/// A strict budget of team red, and one of team spent that has no more.
fn budgets() -> Value {
    json!([
        { "budget": "b", "match": { "team": "red" }, "enforce": "strict",
          "on_unavailable": "closed", "limit": "1 USD", "window": "day" },
        { "budget": "spent", "match": { "team": "spent" }, "enforce": "cached",
          "limit": "1 USD", "window": "day", "tiers": [{ "at": "100%", "do": "deny" }],
          "reached": [{ "tier": 0, "reset_at": "2099-01-01T00:00:00Z" }] },
    ])
}

fn mesh() -> Option<Mesh> {
    let patient = json!({ "admission": { "timeout_ms": 20_000 } });
    let mesh = Mesh::built().workers(N_WORKERS).judged_by(budgets());
    let mesh = mesh.plugin(patient).start()?;
    mesh.every_worker_knows("the budgets", || {
        let answer = mesh.client("spent").call(&chat(10));
        (answer.status == Some(429)).then_some(answer)
    });
    Some(mesh)
}

/// A call whose body has that many bytes of text in it.
fn chat(n_text_bytes: u64) -> Exchange {
    let mut exchange = Exchange::post("api.openai.com", "/v1/chat/completions", "")
        .answered("application/json", ANSWER);
    let head = r#"{"model":"gpt-4o","messages":[{"role":"user","content":""#;
    exchange.ask.body = Payload::Padded {
        head: head.into(),
        pad: b'x',
        n_pad_bytes: n_text_bytes,
        tail: r#""}]}"#.into(),
    };
    exchange
}

/// One byte, which is no JSON; a body of the smallest sort that there is.
fn one_byte() -> Exchange {
    Exchange::post("api.openai.com", "/v1/chat/completions", "1")
        .answered("application/json", ANSWER)
}

fn clients(mesh: &Mesh) -> Vec<(&'static str, Client)> {
    let red = || mesh.client("red");
    vec![
        ("HTTP/1.1 with a length", red()),
        ("HTTP/1.1 in chunks", red().hides_length()),
        ("HTTP/2 with a length", red().http2()),
        ("HTTP/2 without", red().http2().hides_length()),
    ]
}

/// Sends, and waits until the aggregator has been asked; what the provider has by then.
fn sent(mesh: &Mesh, client: &Client, exchange: &Exchange) -> tokio::task::JoinHandle<Answer> {
    let (client, exchange) = (client.clone(), exchange.clone());
    let n_before = mesh.counted("reservations_asked");
    let call = mesh.runtime().spawn(async move {
        let answer = client.send(&exchange).await;
        answer.expect("Envoy is there")
    });
    eventually("the aggregator is asked", || {
        match mesh.counted("reservations_asked") {
            n if n > n_before => Ok(()),
            n => Err(format!("{n} asked, {n_before} before")),
        }
    });
    call
}

fn answer(mesh: &Mesh, call: tokio::task::JoinHandle<Answer>) -> Answer {
    mesh.runtime().block_on(call).expect("no panic")
}

#[test]
fn bodies_of_every_size_and_framing_wait_whole() {
    let Some(mesh) = mesh() else {
        return;
    };
    let sizes = [
        one_byte(),
        chat(600),
        chat(70_000),
        chat(3_000_000),
        chat(20_000_000),
    ];
    for (framing, client) in clients(&mesh) {
        for exchange in &sizes {
            let what = format!("{framing}, {} bytes", exchange.ask.body.n_bytes());
            for (sentence, status) in [(Judge::allow(), 200), (Judge::deny(), 429)] {
                mesh.judge().says(Sentence::Wait);
                let call = sent(&mesh, &client, exchange);
                assert!(!call.is_finished(), "{what}: an answer before the decision");
                let is_allowed = sentence == Judge::allow();
                mesh.judge().says(sentence);
                let answer = answer(&mesh, call);
                assert_eq!(answer.status, Some(status), "{what}: {:?}", answer.ended);
                assert_eq!(answer.ended, Ended::Whole, "{what}");
                let received = mesh.provider().received(&answer.request_id);
                let whole: Vec<_> = received.iter().filter(|r| r.is_whole).collect();
                assert_eq!(whole.len(), usize::from(is_allowed), "{what}");
                if let Some(whole) = whole.first() {
                    assert_eq!(whole.body_sha256, exchange.ask.body.sha256(), "{what}");
                    answer.is_what_was_sent(exchange);
                }
                let questions = mesh.judge().questions(&answer.request_id);
                assert_eq!(questions.len(), 1, "{what}");
                assert_eq!(questions[0]["body_bytes"], exchange.ask.body.n_bytes());
                mesh.client("red").forget(&answer);
            }
        }
    }
    mesh.has_not_trapped();
}

/// Nothing reaches the provider whole while the aggregator thinks, for whatever part has gone.
#[test]
fn the_provider_waits_for_the_decision() {
    let Some(mesh) = mesh() else {
        return;
    };
    for (framing, client) in clients(&mesh) {
        mesh.judge().says(Sentence::Wait);
        let n_before = mesh.provider().n_requests();
        let call = sent(&mesh, &client, &chat(300_000));
        eventually("the provider has the beginning", || {
            let n = mesh.provider().n_requests() - n_before;
            (n == 1)
                .then_some(())
                .ok_or(format!("{framing}: {n} requests"))
        });
        assert!(!call.is_finished());
        mesh.judge().says(Judge::allow());
        assert_eq!(answer(&mesh, call).status, Some(200), "{framing}");
    }
}

#[test]
fn a_body_that_is_spliced_waits_as_it_will_be() {
    let Some(mesh) = mesh() else {
        return;
    };
    mesh.judge().decides(json!([
        { "budget": "b", "match": { "team": "red" }, "enforce": "strict",
          "on_unavailable": "closed",
          "tiers": [{ "at": "50%", "do": "cap_output", "max_tokens": 7 },
                    { "at": "60%", "do": "downgrade", "models": { "gpt-4o": "gpt-4o-mini" } }],
          "reached": [{ "tier": 1, "reset_at": "2099-01-01T00:00:00Z" }] }]));
    mesh.every_worker_knows("the new budgets", || {
        let answer = mesh.client("red").call(&chat(10));
        answer
            .header("x-tollmesh-budget")
            .is_some()
            .then_some(answer)
    });
    for (framing, client) in clients(&mesh) {
        for n_text_bytes in [10, 3_000_000] {
            let exchange = chat(n_text_bytes);
            let answer = client.call(&exchange);
            answer.is_what_was_sent(&exchange);
            let told = answer.header("x-tollmesh-budget").unwrap_or_default();
            assert!(
                told.contains("do=downgrade") && told.contains("do=cap_output"),
                "{told}"
            );
            let received = mesh.provider().received(&answer.request_id);
            let body: Value = serde_json::from_slice(&received[0].body).expect("is JSON");
            assert_eq!(body["model"], "gpt-4o-mini", "{framing}");
            assert_eq!(body["max_completion_tokens"], 7);
            let text = body["messages"][0]["content"].as_str().unwrap_or_default();
            assert_eq!(text.len() as u64, n_text_bytes, "{framing}");
            let question = &mesh.judge().questions(&answer.request_id)[0];
            assert_eq!(question["model"], "gpt-4o-mini");
            assert_eq!(question["max_output_tokens"], 7);
            mesh.client("red").forget(&answer);
        }
    }
}

#[test]
fn a_request_without_a_body_waits() {
    let Some(mesh) = mesh() else {
        return;
    };
    let mut exchange = one_byte();
    exchange.ask.body = Payload::default();
    for (framing, client) in clients(&mesh) {
        for (sentence, status) in [(Judge::allow(), 200), (Judge::deny(), 429)] {
            mesh.judge().says(sentence);
            assert_eq!(client.call(&exchange).status, Some(status), "{framing}");
        }
    }
}

#[test]
fn a_client_that_goes_away_while_it_waits_is_settled() {
    let Some(mesh) = mesh() else {
        return;
    };
    for (framing, client) in clients(&mesh) {
        mesh.judge().says(Sentence::Wait);
        let client = client.waits_at_most(Duration::from_millis(300));
        let answer = client.call(&chat(600));
        assert_eq!(answer.ended, Ended::HungUp, "{framing}");
        let event = eventually("its event", || {
            let events = mesh.judge().events(&answer.request_id);
            events.first().cloned().ok_or("none".to_string())
        });
        let question = &mesh.judge().questions(&answer.request_id)[0];
        assert_eq!(event["event_id"], question["event_id"]);
        assert_eq!(
            (&event["outcome"], &event["billable"]),
            (&json!("aborted"), &json!(false))
        );
        let received = mesh.provider().received(&answer.request_id);
        assert!(
            received.iter().all(|received| !received.is_whole),
            "{framing}"
        );
        mesh.judge().says(Judge::allow());
    }
    mesh.has_not_trapped();
}

#[test]
fn an_aggregator_that_is_silent_or_broken_is_done_without() {
    let budgets = ["closed", "open"].map(|word| {
        json!({ "budget": word, "match": { "team": word }, "enforce": "strict",
                "on_unavailable": word })
    });
    let capped = json!({ "budget": "capped", "match": { "team": "capped" }, "enforce": "strict",
        "on_unavailable": { "open_capped": { "nano": 5, "nano_per_request": 1 } } });
    let mut table = budgets.to_vec();
    table.push(capped);
    let hurried = json!({ "admission": { "timeout_ms": 150, "on_unavailable": "deny" } });
    let built = Mesh::built()
        .workers(N_WORKERS)
        .judged_by(json!(table))
        .plugin(hurried);
    let Some(mesh) = built.start() else {
        return;
    };
    mesh.every_worker_knows("the budgets", || {
        let answer = mesh.client("open").call(&chat(10));
        (answer.status == Some(200)).then_some(answer)
    });
    let mut n_capped = 0;
    for sentence in [Sentence::Wait, Sentence::Broken] {
        mesh.judge().says(sentence);
        for (team, status) in [("closed", 429), ("open", 200), ("other", 200)] {
            assert_eq!(
                mesh.client(team).call(&chat(10)).status,
                Some(status),
                "{team}"
            );
        }
        for _ in 0..5 {
            let answer = mesh.client("capped").call(&chat(10));
            n_capped += u32::from(answer.status == Some(200));
        }
    }
    assert_eq!(n_capped, 5, "both workers together");
    mesh.judge().says(Judge::allow());
    assert_eq!(mesh.client("closed").call(&chat(10)).status, Some(200));
}

#[test]
fn a_websocket_is_reserved_when_it_is_opened() {
    let sockets = websocket::Provider::start().expect("a port on loopback is free");
    let patient = json!({ "admission": { "timeout_ms": 20_000 } });
    let built = Mesh::built().judged_by(budgets()).plugin(patient);
    let Some(mesh) = built.provider_at(sockets.address()).workers(1).start() else {
        return;
    };
    let head = "GET /v1/realtime?model=gpt-realtime HTTP/1.1\r\nHost: api.openai.com\r\n\
                x-llm-tag-team: red\r\n";
    let done = r#"{"type":"response.done","response":{"id":"r1","status":"completed","output":[],
        "usage":{"input_tokens":3,"output_tokens":4,"input_token_details":{"text_tokens":3},
        "output_token_details":{"text_tokens":4}}}}"#;
    let script = Script::new().text(Side::Server, done);
    let talk = |id: &str| {
        let head = sockets.talk(mesh.envoy().listener(), id, head, &script);
        head.expect("an answer")
    };
    let mut n_calls = 0;
    eventually("the worker knows the budgets", || {
        n_calls += 1;
        let id = format!("socket-{n_calls}");
        talk(&id);
        let is_asked = !mesh.judge().questions(&id).is_empty();
        is_asked.then_some(()).ok_or("not asked".to_string())
    });
    let answer = talk("socket-allowed");
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    let question = &mesh.judge().questions("socket-allowed")[0];
    assert_eq!(question["model"], "gpt-realtime");
    let event = eventually("its event", || {
        let events = mesh.judge().events("socket-allowed");
        events.first().cloned().ok_or("none".to_string())
    });
    assert_eq!(event["reservation_id"], "r1-1");
    mesh.judge().says(Judge::deny());
    let answer = talk("socket-refused");
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    mesh.has_not_trapped();
}

#[test]
fn settling_events_leave_at_once() {
    let Some(mesh) = mesh() else {
        return;
    };
    let mut delays: Vec<Duration> = (0..20)
        .map(|_| {
            let answer = mesh.client("red").call(&chat(600));
            let ended = std::time::Instant::now();
            while mesh.judge().events(&answer.request_id).is_empty() {
                assert!(ended.elapsed() < Duration::from_secs(10), "no event");
                std::thread::yield_now();
            }
            ended.elapsed()
        })
        .collect();
    delays.sort();
    // Ten milliseconds on a machine of one's own; unhurried they take 250.
    assert!(delays[10] < Duration::from_millis(40), "{delays:?}");
}
