//! What the app and the provider see: every byte as it would be without us.

use tollmesh_tests::dialect::Dialect;
use tollmesh_tests::exchange::Payload;
use tollmesh_tests::{Answer, Ended, Exchange, Mesh, Shared, Usage, usage, vm_memory};

/// Bytes of a burst: many times what a proxy's buffers take.
const BURST_BYTES: usize = 16 << 20;

/// What a burst may leave in the VMs, bytes: a slice of 128 KiB, the same with something cut out, and
/// what room for them adds to memories that grow by pages.
const BURST_LINEAR_BYTES_MAX: u64 = 512 << 10;

static MESH: Shared = Shared::new();
static MESH_TO_HTTP2: Shared = Shared::new();

fn used(model: &str) -> Usage {
    usage(model).input(77).output(5)
}

fn chat_stream() -> Exchange {
    Dialect::OpenAiChat.streamed(&used("gpt-4o"))
}

/// The chat stream of an app that asks for usage itself.
fn asking_chat_stream() -> Exchange {
    let mut exchange = chat_stream();
    let body = r#"{"model":"gpt-4o","messages":[{"role":"user","content":"Hi"}],"stream":true,"stream_options":{"include_usage":true}}"#;
    exchange.ask.body = Payload::Bytes(body.into());
    exchange.reply.app_sees = exchange.reply.body_with_usage.clone();
    exchange
}

/// The chat stream of a server that ends without `[DONE]`.
fn chat_stream_without_done() -> Exchange {
    fn undone(payload: &Payload) -> Payload {
        let Payload::Bytes(bytes) = payload else {
            panic!("made of bytes")
        };
        let n = bytes.len() - "data: [DONE]\n\n".len();
        Payload::Bytes(bytes.slice(..n))
    }
    let mut exchange = chat_stream();
    exchange.reply.body = undone(&exchange.reply.body);
    exchange.reply.body_with_usage = exchange.reply.body_with_usage.as_ref().map(undone);
    exchange.reply.app_sees = exchange.reply.app_sees.as_ref().map(undone);
    exchange
}

/// A chat stream whose events come as fast as they can, with usage asked for and not.
fn burst() -> Exchange {
    fn after_many(payload: &Payload) -> Payload {
        let Payload::Bytes(bytes) = payload else {
            panic!("made of bytes")
        };
        let end = bytes.windows(2).position(|pair| pair == b"\n\n");
        let event = &bytes[..end.expect("an event") + 2];
        let many = event.repeat(BURST_BYTES / event.len());
        Payload::Bytes([&many[..], bytes].concat().into())
    }
    let mut exchange = chat_stream();
    let reply = &mut exchange.reply;
    reply.body = after_many(&reply.body);
    reply.body_with_usage = reply.body_with_usage.as_ref().map(after_many);
    reply.app_sees = reply.app_sees.as_ref().map(after_many);
    exchange
}

#[test]
fn every_api_passes_byte_for_byte() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    for dialect in Dialect::ALL {
        let used = used("gpt-4o").cache_read(9);
        for exchange in [dialect.plain(&used), dialect.streamed(&used)] {
            for n_bytes in [1, 7, usize::MAX] {
                let exchange = exchange.clone().chunks_of(n_bytes);
                mesh.client("red")
                    .call(&exchange)
                    .is_what_was_sent(&exchange);
                mesh.client("red")
                    .http2()
                    .call(&exchange)
                    .is_what_was_sent(&exchange);
            }
        }
    }
}

#[test]
fn every_api_passes_byte_for_byte_from_http2() {
    let built = || Mesh::built().upstream_http2();
    let Some(mesh) = MESH_TO_HTTP2.mesh(built) else {
        return;
    };
    for dialect in Dialect::ALL {
        for exchange in [
            dialect.plain(&used("gpt-4o")),
            dialect.streamed(&used("gpt-4o")),
        ] {
            let exchange = exchange.chunks_of(11);
            mesh.client("red")
                .call(&exchange)
                .is_what_was_sent(&exchange);
            mesh.client("red")
                .http2()
                .call(&exchange)
                .is_what_was_sent(&exchange);
        }
    }
}

#[test]
fn a_stream_cut_anywhere_loses_only_the_event_that_we_asked_for() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    for exchange in [
        chat_stream(),
        asking_chat_stream(),
        chat_stream_without_done(),
    ] {
        let Some(Payload::Bytes(body)) = &exchange.reply.body_with_usage else {
            panic!("made of bytes")
        };
        let client = mesh.client("red");
        let mut answers: Vec<Answer> = Vec::new();
        for offset in 1..body.len() {
            let cut = exchange.clone().cut_at(offset);
            let answer = client.call(&cut);
            answer.is_what_was_sent(&cut);
            answers.push(answer);
        }
        let want = exchange.usage.clone().unwrap_or_default();
        let calls: Vec<_> = answers
            .iter()
            .map(|answer| (answer, want.clone()))
            .collect();
        mesh.ledger().settles_to(&calls);
    }
    mesh.has_not_trapped();
}

#[test]
fn no_event_waits_for_the_next_one() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let exchange = chat_stream();
    let Some(Payload::Bytes(seen)) = &exchange.reply.app_sees else {
        panic!("made of bytes")
    };
    let pairs = seen.windows(2).enumerate();
    let ends: Vec<usize> = pairs
        .filter(|(_, pair)| *pair == b"\n\n")
        .map(|(at, _)| at + 2)
        .collect();
    assert!(ends.len() > 5, "{ends:?}");
    // The app's bytes begin as the provider's do; what is cut out is behind all of these.
    for end in &ends[..ends.len() - 1] {
        for is_http2 in [false, true] {
            let client = mesh.client("red").hangs_up_after(*end as u64);
            let client = if is_http2 { client.http2() } else { client };
            // The provider says no more until the app, which waits for all of this, has gone.
            let answer = client.call(&exchange.clone().silent_after(*end));
            assert_eq!(answer.ended, Ended::HungUp);
            assert_eq!(answer.body, seen[..*end]);
        }
    }
}

#[test]
fn a_burst_is_taken_by_slices() {
    let Some(mesh) = Mesh::built().workers(1).start() else {
        return;
    };
    let client = mesh.client("red");
    let linear = || vm_memory::linear_bytes(mesh.envoy().process().id()).expect("Envoy's map");
    let first = client.call(&chat_stream());
    let before = linear();
    let exchange = burst();
    let answer = client.call(&exchange);
    answer.is_what_was_sent(&exchange);
    let grown = linear().saturating_sub(before);
    assert!(grown <= BURST_LINEAR_BYTES_MAX, "{grown} bytes more");
    let want = exchange.usage.clone().unwrap_or_default();
    let calls = [(&first, want.clone()), (&answer, want)];
    mesh.ledger().settles_to(&calls);
    mesh.has_not_trapped();
}

#[test]
fn a_long_request_is_spliced_by_slices() {
    let Some(mesh) = Mesh::built().workers(1).start() else {
        return;
    };
    let linear = || vm_memory::linear_bytes(mesh.envoy().process().id()).expect("Envoy's map");
    mesh.client("red").call(&chat_stream());
    let before = linear();
    let text: String = (0..400_000).map(|n| format!("{n} words ")).collect();
    let mut exchange = chat_stream();
    let ask = serde_json::json!({
        "model": "gpt-4o", "messages": [{ "role": "user", "content": &text }], "stream": true
    });
    exchange.ask.body = Payload::Bytes(ask.to_string().into());
    for client in [mesh.client("red"), mesh.client("red").http2()] {
        let answer = client.call(&exchange);
        answer.is_what_was_sent(&exchange);
        let received = mesh.provider().received(&answer.request_id).remove(0);
        let body: serde_json::Value = serde_json::from_slice(&received.body).expect("JSON arrived");
        assert_eq!(body["stream_options"]["include_usage"], true);
        assert!(body["messages"][0]["content"] == text, "other text arrived");
    }
    let grown = linear().saturating_sub(before);
    assert!(grown <= BURST_LINEAR_BYTES_MAX, "{grown} bytes more");
    mesh.has_not_trapped();
}

#[test]
fn usage_is_asked_for_where_the_app_did_not() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let answer = mesh.client("red").call(&chat_stream());
    let received = mesh.provider().received(&answer.request_id).remove(0);
    let body: serde_json::Value = serde_json::from_slice(&received.body).expect("JSON arrived");
    assert_eq!(body["stream_options"]["include_usage"], true, "{body}");
    assert_eq!(body["messages"][0]["content"], "Where is my order?");
}

#[test]
fn a_request_that_needs_no_edit_arrives_unchanged() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let exchanges = [
        Dialect::OpenAiChat.plain(&used("gpt-4o")),
        Dialect::Anthropic.streamed(&used("claude-sonnet-4-5")),
        Dialect::Gemini.streamed(&used("gemini-2.5-flash")),
        asking_chat_stream(),
    ];
    for exchange in exchanges {
        let answer = mesh.client("red").call(&exchange);
        let received = mesh.provider().received(&answer.request_id).remove(0);
        assert_eq!(received.path, exchange.ask.path);
        assert_eq!(received.method, exchange.ask.method);
        assert_eq!(
            received.body_sha256,
            exchange.ask.body.sha256(),
            "{:?}",
            received.body
        );
    }
}

#[test]
fn trailers_arrive_and_nothing_before_them_is_lost() {
    let built = || Mesh::built().upstream_http2();
    let Some(mesh) = MESH_TO_HTTP2.mesh(built) else {
        return;
    };
    let mut exchanges = vec![Dialect::Anthropic.streamed(&used("claude-sonnet-4-5"))];
    // With trailers announced nothing may be held back, so the event we asked for stays in.
    let mut injected = chat_stream();
    injected.reply.app_sees = injected.reply.body_with_usage.clone();
    exchanges.push(injected);
    for exchange in exchanges {
        let exchange = exchange.chunks_of(9).trailers(&[("x-checked", "yes")]);
        let answer = mesh.client("red").http2().call(&exchange);
        answer.is_what_was_sent(&exchange);
        let trailers = answer.trailers.clone().expect("trailers");
        assert_eq!(
            trailers.get("x-checked").map(|value| value.as_bytes()),
            Some(&b"yes"[..])
        );
        let want = exchange.usage.clone().unwrap_or_default();
        mesh.ledger().settles_to(&[(&answer, want)]);
    }
}

#[test]
fn response_headers_arrive_with_their_bytes() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let exchange = Dialect::OpenAiChat
        .plain(&used("gpt-4o"))
        .reply_header("x-odd", b"caf\xe9 \xff")
        .reply_header("x-twice", "one")
        .reply_header("x-twice", "two");
    let answer = mesh.client("red").call(&exchange);
    answer.is_what_was_sent(&exchange);
    assert_eq!(
        answer.headers.get("x-odd").map(|v| v.as_bytes()),
        Some(&b"caf\xe9 \xff"[..])
    );
    let twice: Vec<&[u8]> = answer
        .headers
        .get_all("x-twice")
        .iter()
        .map(|v| v.as_bytes())
        .collect();
    assert_eq!(twice.concat().len(), "onetwo".len(), "{twice:?}");
    mesh.has_not_trapped();
}

#[test]
fn compressed_answers_pass_and_are_read() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let used = used("claude-sonnet-4-5");
    for exchange in [
        Dialect::Anthropic.plain(&used),
        Dialect::Anthropic.streamed(&used),
    ] {
        let Payload::Bytes(plain) = &exchange.reply.body else {
            panic!("made of bytes")
        };
        let encodings = [
            ("gzip", gzip(plain)),
            ("deflate", zlib(plain)),
            ("br", brotli(plain)),
            ("zstd", zstd(plain)),
        ];
        for (encoding, packed) in encodings {
            for n_bytes in [1, usize::MAX] {
                let mut exchange = exchange.clone().chunks_of(n_bytes);
                exchange.reply.body = Payload::Bytes(packed.clone().into());
                let exchange = exchange.reply_header("content-encoding", encoding);
                let client = mesh.client("red").header("accept-encoding", encoding);
                let answer = client.call(&exchange);
                answer.is_what_was_sent(&exchange);
                mesh.ledger().settles_to(&[(&answer, used.clone())]);
            }
        }
    }
}

#[test]
fn a_reset_reaches_the_app_as_a_cut() {
    let Some(mesh) = MESH.mesh(Mesh::built) else {
        return;
    };
    let whole = Dialect::Anthropic.streamed(&used("claude-sonnet-4-5"));
    let n_bytes = whole.reply.body.n_bytes() as usize / 2;
    let exchange = whole.reset_after(n_bytes);
    let answer = mesh.client("red").call(&exchange);
    assert!(matches!(answer.ended, Ended::Cut(_)), "{:?}", answer.ended);
    assert_eq!(answer.n_body_bytes, n_bytes as u64);
    let row = mesh.ledger().row_of(&answer);
    assert_eq!(row.text("outcome"), Some("aborted"), "{}", row.0);
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .expect("memory takes it")
}

fn zlib(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder
        .write_all(bytes)
        .and_then(|()| encoder.finish())
        .expect("memory takes it")
}

/// A stream with a window of 64 KiB, one uncompressed meta-block and an empty last one (RFC 7932,
/// 9.1 and 9.2).
fn brotli(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len() - 1).expect("a short body");
    assert!(length < 1 << 16);
    let head = (length << 4 | 1 << 20).to_le_bytes();
    [&head[..3], bytes, &[3]].concat()
}

/// A frame of a single segment, with one raw block (RFC 8878, 3.1.1).
fn zstd(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).expect("a short body");
    let block = (length << 3 | 1).to_le_bytes();
    let head = [0x28, 0xB5, 0x2F, 0xFD, 0xA0];
    [&head[..], &length.to_le_bytes(), &block[..3], bytes].concat()
}
