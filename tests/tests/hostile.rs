//! Bodies and headers that nobody should send: they pass, are counted, and harm nothing.

use hyper::body::Bytes;
use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::exchange::Payload;
use tollmesh_tests::fact::eventually;
use tollmesh_tests::{Exchange, Mesh, Shared, usage};

static MESH: Shared = Shared::new();

/// How much more memory than before a body of 100 MB may make Envoy hold at any time: its own
/// buffers (1 MiB a connection and direction) and the heap's slack, and no part of the body.
const GROWTH_BYTES_MAX: u64 = 32 * 1024 * 1024;

const HUNDRED_MB: u64 = 100_000_000;

fn answered(body: impl Into<Bytes>) -> Exchange {
    Exchange::post(
        "api.openai.com",
        "/v1/chat/completions",
        "{\"model\":\"gpt-4o\"}",
    )
    .answered("application/json", body)
}

/// The answer passes byte for byte, the row is there, and its trouble is of one of `kinds` and
/// counted; no kind: any row will do.
#[track_caller]
fn passes_with_trouble(mesh: &Mesh, name: &str, exchange: &Exchange, kinds: &[&str]) {
    let count = |kinds: &[&str]| -> u64 {
        kinds
            .iter()
            .map(|kind| mesh.counted(&format!("trouble_{kind}")))
            .sum()
    };
    let before = count(kinds);
    let answer = mesh.client("red").call(exchange);
    answer.is_what_was_sent(exchange);
    let row = mesh.ledger().row_of(&answer);
    if kinds.is_empty() {
        return;
    }
    let trouble = row.text("trouble").unwrap_or("none");
    assert!(
        kinds.contains(&trouble),
        "{name}: trouble {trouble}, not {kinds:?}; {}",
        row.0
    );
    eventually(&format!("{name}: trouble is counted"), || {
        let now = count(kinds);
        if now > before {
            Ok(())
        } else {
            Err(format!("still {now}"))
        }
    });
}

#[test]
fn hostile_json_passes_and_is_counted() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let usage = |counts: &str| format!("{{\"model\":\"gpt-4o\",\"usage\":{{{counts}}}}}");
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let nothing: &[&str] = &["usage_missing", "malformed"];
    let bad: &[&str] = &["bad_count"];
    let cases: [(&str, Vec<u8>, &[&str]); 11] = [
        ("depth of 100,000", deep.into_bytes(), nothing),
        (
            "1e400 tokens",
            usage("\"prompt_tokens\":1e400,\"completion_tokens\":1").into(),
            bad,
        ),
        (
            "negative tokens",
            usage("\"prompt_tokens\":-5,\"completion_tokens\":1").into(),
            bad,
        ),
        (
            "2^63 tokens",
            usage("\"prompt_tokens\":9223372036854775808").into(),
            bad,
        ),
        (
            "half a token",
            usage("\"prompt_tokens\":1.5,\"completion_tokens\":1").into(),
            bad,
        ),
        (
            "usage is text",
            b"{\"usage\":\"a lot\"}".to_vec(),
            &["bad_count", "usage_missing"],
        ),
        (
            "counts are text",
            usage("\"prompt_tokens\":\"12\"").into(),
            bad,
        ),
        (
            "invalid UTF-8",
            b"{\"model\":\"\xff\xfe\",\"x\":\"\xc3\"}".to_vec(),
            nothing,
        ),
        ("no JSON", b"<html>not JSON at all".to_vec(), nothing),
        // May be taken for the head of a binary event stream, which is then cut short.
        (
            "zero bytes",
            b"\x00\x01\x02 not JSON".to_vec(),
            &["malformed", "truncated"],
        ),
        (
            "nothing",
            Vec::new(),
            &["usage_missing", "truncated", "malformed"],
        ),
    ];
    for (name, body, kinds) in cases {
        let exchange = answered(body);
        passes_with_trouble(&mesh, name, &exchange, kinds);
        passes_with_trouble(&mesh, name, &exchange.chunks_of(1009), kinds);
    }
    mesh.has_not_trapped();
}

#[test]
fn hostile_streams_pass() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let mut endless_line = b"data: ".to_vec();
    endless_line.resize(300_000, b'x');
    let cases: [&[u8]; 6] = [
        b"data: {\"usage\":",
        b"\xef\xbb\xbf:\n:\n\ndata\n\n\r\r\n\ndata: [DONE]\n\n",
        b"data: {\"choices\":[]}\n\ndata: {not json}\n\ndata: [DONE]\n\n",
        b"event: error\ndata: {\"error\":{\"message\":\"no\"}}\n\n",
        &endless_line,
        b"\n\n\n\n\n\n",
    ];
    for body in cases {
        for n_bytes in [1, 4_096] {
            let exchange = answered(Bytes::copy_from_slice(body)).chunks_of(n_bytes);
            let mut exchange = exchange;
            exchange.reply.headers = vec![("content-type".into(), b"text/event-stream".to_vec())];
            exchange.ask.body = Payload::Bytes("{\"model\":\"gpt-4o\",\"stream\":true}".into());
            passes_with_trouble(&mesh, "a stream", &exchange, &[]);
        }
    }
    mesh.has_not_trapped();
}

#[test]
fn an_unknown_encoding_passes_and_is_counted() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let exchange = answered("??????").reply_header("content-encoding", "x-own-invention");
    passes_with_trouble(&mesh, "unknown encoding", &exchange, &["unknown_encoding"]);
    let exchange = answered("this is no gzip").reply_header("content-encoding", "gzip");
    passes_with_trouble(&mesh, "broken gzip", &exchange, &["bad_encoding"]);
}

#[test]
fn a_gzip_bomb_passes_and_stays_small() {
    let Some(mesh) = Mesh::start() else { return };
    let used = usage("gpt-4o").input(1).output(1);
    mesh.ledger()
        .row_of(&mesh.client("red").call(&Dialect::OpenAiChat.plain(&used)));
    let before = mesh.envoy().process().resident_bytes().expect("Envoy runs");
    let bomb = gzipped_spaces(200_000_000);
    let exchange = answered(bomb).reply_header("content-encoding", "gzip");
    let answer = mesh
        .client("red")
        .header("accept-encoding", "gzip")
        .call(&exchange);
    answer.is_what_was_sent(&exchange);
    mesh.ledger().row_of(&answer);
    let peak = mesh
        .envoy()
        .process()
        .peak_resident_bytes()
        .expect("Envoy runs");
    assert!(
        peak < before + GROWTH_BYTES_MAX,
        "{before} bytes before, {peak} at the peak"
    );
    mesh.has_not_trapped();
}

#[test]
fn a_body_of_any_size_needs_no_memory() {
    let Some(mesh) = Mesh::start() else { return };
    let used = usage("gpt-4o").input(11).output(7);
    mesh.ledger()
        .row_of(&mesh.client("red").call(&Dialect::OpenAiChat.plain(&used)));
    let before = mesh.envoy().process().resident_bytes().expect("Envoy runs");
    let mut huge_answer = answered("").uses(used.clone());
    huge_answer.reply.body = Payload::Padded {
        head: "{\"model\":\"gpt-4o\",\"choices\":[{\"message\":{\"content\":\"".into(),
        pad: b'a',
        n_pad_bytes: HUNDRED_MB,
        tail: "\"}}],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7}}".into(),
    };
    let mut huge_question = Dialect::OpenAiChat.streamed(&used);
    huge_question.ask.body = Payload::Padded {
        head: "{\"model\":\"gpt-4o\",\"stream\":true,\"messages\":[{\"content\":\"".into(),
        pad: b'a',
        n_pad_bytes: HUNDRED_MB,
        tail: "\"}]}".into(),
    };
    for exchange in [huge_answer, huge_question] {
        let answer = mesh.client("red").call(&exchange);
        if exchange.ask.body.n_bytes() < HUNDRED_MB {
            answer.is_what_was_sent(&exchange);
        } else {
            let received = mesh.provider().received(&answer.request_id).remove(0);
            assert!(
                received.is_whole && received.n_body_bytes > HUNDRED_MB,
                "the question was cut"
            );
        }
        let row = mesh.ledger().row_of(&answer);
        assert_eq!(row.text("model_requested"), Some("gpt-4o"), "{}", row.0);
        let peak = mesh
            .envoy()
            .process()
            .peak_resident_bytes()
            .expect("Envoy runs");
        assert!(
            peak < before + GROWTH_BYTES_MAX,
            "{before} bytes before, {peak} at the peak"
        );
    }
    mesh.has_not_trapped();
}

#[test]
fn hostile_headers_pass() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let used = usage("gpt-4o").input(3).output(2);
    let baggage = (0..2_000)
        .map(|n| format!("k{n}=v"))
        .collect::<Vec<_>>()
        .join(",");
    let cases: [(&str, &[u8]); 6] = [
        ("x-anything", b"\xff"),
        ("traceparent", b"\xff\xff"),
        ("traceparent", b"00-zz"),
        ("baggage", baggage.as_bytes()),
        ("baggage", b"%ff%fe=%,=,;;=\xff"),
        ("accept-encoding", b"\xff, gzip;q=nan"),
    ];
    for (name, value) in cases {
        let exchange = Dialect::OpenAiChat.streamed(&used);
        let answer = mesh.client("red").header(name, value).call(&exchange);
        answer.is_what_was_sent(&exchange);
        mesh.ledger().settles_to(&[(&answer, used.clone())]);
    }
    mesh.has_not_trapped();
}

#[test]
fn a_hostile_request_passes_unchanged() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let deep = "[".repeat(100_000);
    let bodies: [&[u8]; 6] = [
        deep.as_bytes(),
        b"{\"stream\":true",
        b"{\"stream\":tru",
        b"\xff\xfe{}",
        b"",
        b"{\"model\":\"\xff\",\"stream\":1}",
    ];
    for body in bodies {
        let mut exchange = answered("{}");
        exchange.ask.body = Payload::Bytes(Bytes::copy_from_slice(body));
        let answer = mesh.client("red").call(&exchange);
        answer.is_what_was_sent(&exchange);
        let received = mesh.provider().received(&answer.request_id).remove(0);
        assert_eq!(received.body, body, "{:?}", String::from_utf8_lossy(body));
        mesh.ledger().row_of(&answer);
    }
    mesh.has_not_trapped();
}

/// So many spaces, compressed about a thousandfold.
fn gzipped_spaces(n_bytes: usize) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    let block = vec![b' '; 1 << 20];
    for _ in 0..n_bytes / block.len() {
        encoder.write_all(&block).expect("memory takes it");
    }
    encoder.finish().expect("memory takes it")
}
