//! Connections as they are documented, cut everywhere, in frames of every kind.

use super::*;
use crate::bucket::{Bucket, Unit};
use crate::detect::{Api, Detection, WEBSOCKET, detect};
use crate::scan::{Trouble, UsageSource};
use proptest::prelude::*;

/// Who says something, and what.
#[derive(Clone, Copy, Debug)]
enum Said {
    Client(&'static str),
    Server(&'static str),
}
use Said::{Client, Server};

/// One frame of text; clients mask.
fn frame(said: Said) -> Vec<u8> {
    let (text, key) = match said {
        Client(text) => (text, Some([0x37, 0xFA, 0x21, 0x3D])),
        Server(text) => (text, None),
    };
    let masked = if key.is_some() { 0x80 } else { 0 };
    let mut bytes = vec![0x81];
    if text.len() < 126 {
        bytes.push(masked | text.len() as u8);
    } else {
        bytes.push(masked | 126);
        bytes.extend((text.len() as u16).to_be_bytes());
    }
    bytes.extend(key.into_iter().flatten());
    let keys = key.unwrap_or_default().into_iter().cycle();
    bytes.extend(text.bytes().zip(keys).map(|(byte, key)| byte ^ key));
    bytes
}

/// The answers of a connection in which each message takes ten milliseconds, cut into such chunks.
fn answers(target: &Target, said: &[Said], n: usize) -> Vec<LiveAnswer> {
    let mut scanner = LiveScanner::new(target);
    let mut answers = Vec::new();
    let mut now_ms = 1000;
    for said in said {
        for chunk in frame(*said).chunks(n) {
            match said {
                Client(_) => scanner.push_client(chunk, now_ms),
                Server(_) => answers.extend(scanner.push_server(chunk, now_ms)),
            }
        }
        now_ms += 10;
    }
    assert!(!scanner.is_broken());
    answers.extend(scanner.finish(now_ms));
    answers
}

fn target(api: Api, provider: &str) -> Target {
    Target::new(api, provider)
}

fn realtime() -> Target {
    Target {
        path_model: Some("gpt-realtime".to_owned()),
        ..target(Api::OpenAiRealtime, "openai")
    }
}

const SESSION: Said = Server(
    r#"{"type":"session.created","event_id":"e0","session":{"type":"realtime","id":"s1",
    "model":"gpt-realtime-2025-08-28","audio":{"input":{"transcription":
    {"model":"gpt-4o-transcribe"}}}}}"#,
);
const CREATED: Said = Server(
    r#"{"type":"response.created","response":{"id":"r1","status":"in_progress","usage":null}}"#,
);
const DELTA: Said =
    Server(r#"{"response_id":"r1","delta":"aGVsbG8=","type":"response.output_audio.delta"}"#);
/// The numbers of OpenAI's reference for `response.done`, with a cached part of each kind.
const DONE: Said = Server(
    r#"{"type":"response.done","response":{"id":"r1","object":"realtime.response",
    "status":"completed","status_details":null,"output":[{"type":"message"},
    {"type":"function_call","name":"f"}],"usage":{"total_tokens":253,"input_tokens":132,
    "output_tokens":121,"input_token_details":{"text_tokens":119,"audio_tokens":13,
    "image_tokens":0,"cached_tokens":64,"cached_tokens_details":{"text_tokens":60,
    "audio_tokens":4,"image_tokens":0}},"output_token_details":{"text_tokens":30,
    "audio_tokens":91}}}}"#,
);
const TRANSCRIBED: Said = Server(
    r#"{"type":"conversation.item.input_audio_transcription.completed","item_id":"i1",
    "transcript":"hello","usage":{"type":"tokens","total_tokens":22,"input_tokens":13,
    "input_token_details":{"text_tokens":0,"audio_tokens":13},"output_tokens":9}}"#,
);

fn buckets(answer: &LiveAnswer) -> Vec<(Bucket, u64)> {
    answer.scan.usage.tokens().filter(|(_, n)| *n > 0).collect()
}

#[test]
fn a_realtime_response_is_an_answer() {
    let asks = Client(r#"{"type":"response.create","response":{"output_modalities":["audio"]}}"#);
    let answers = answers(&realtime(), &[SESSION, asks, CREATED, DELTA, DONE], 7);
    let [answer] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert_eq!(
        buckets(answer),
        [
            (Bucket::Input, 59),
            (Bucket::CacheRead, 60),
            (Bucket::AudioInput, 9),
            (Bucket::CacheReadAudio, 4),
            (Bucket::Output, 30),
            (Bucket::AudioOutput, 91),
        ]
    );
    let scan = &answer.scan;
    assert_eq!(scan.model.as_deref(), Some("gpt-realtime-2025-08-28"));
    assert_eq!(answer.model_requested.as_deref(), Some("gpt-realtime"));
    assert_eq!(scan.response_id.as_deref(), Some("r1"));
    assert_eq!(scan.finish_reason.as_deref(), Some("completed"));
    assert_eq!(scan.tool_calls, Some(1));
    assert_eq!(scan.complete, Some(true));
    assert_eq!(scan.trouble, None);
    let times = (answer.started_ms, answer.content_ms, answer.ended_ms);
    assert_eq!(times, (1010, Some(1030), 1040));
}

/// <https://www.alibabacloud.com/help/model-studio/realtime>
#[test]
fn details_are_read_under_either_of_their_names() {
    let done = Server(
        r#"{"type":"response.done","response":{"id":"r1","status":"completed","output":[],"usage":
        {"total_tokens":377,"input_tokens":336,"output_tokens":41,"input_tokens_details":
        {"text_tokens":228,"audio_tokens":108},"output_tokens_details":{"text_tokens":9,
        "audio_tokens":32}}}}"#,
    );
    let detected = detect(
        "dashscope.aliyuncs.com",
        "/api-ws/v1/realtime?model=qwen3-omni-flash-realtime",
        WEBSOCKET,
    );
    let Detection::Metered(target) = detected else {
        panic!("{detected:?}");
    };
    let answers = answers(&target, &[CREATED, done], 9);
    let [answer] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert_eq!(
        buckets(answer),
        [
            (Bucket::Input, 228),
            (Bucket::AudioInput, 108),
            (Bucket::Output, 9),
            (Bucket::AudioOutput, 32),
        ]
    );
    let model = Some("qwen3-omni-flash-realtime");
    assert_eq!(answer.model_requested.as_deref(), model);
}

#[test]
fn transcriptions_are_answers_of_their_own_model() {
    let seconds = Server(
        r#"{"type":"conversation.item.input_audio_transcription.completed","item_id":"i2",
        "usage":{"type":"duration","seconds":3.2}}"#,
    );
    let other = Client(
        r#"{"type":"session.update","session":{"input_audio_transcription":
        {"model":"whisper-1"}}}"#,
    );
    let answers = answers(&realtime(), &[SESSION, TRANSCRIBED, other, seconds], 5);
    let [tokens, seconds] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert_eq!(
        buckets(tokens),
        [(Bucket::AudioInput, 13), (Bucket::Output, 9)]
    );
    assert_eq!(tokens.scan.model.as_deref(), Some("gpt-4o-transcribe"));
    let duration = seconds.scan.usage.unit(Unit::AudioSeconds);
    assert_eq!(duration.map(|q| q.to_string()).as_deref(), Some("3.2"));
    assert_eq!(seconds.scan.model.as_deref(), Some("whisper-1"));
    assert_eq!(seconds.scan.usage_source, UsageSource::Reported);
}

/// <https://docs.mistral.ai/capabilities/audio_transcription/realtime_transcription>
#[test]
fn a_session_that_only_transcribes_tells_its_usage_at_its_end() {
    let path = "/v1/audio/transcriptions/realtime?model=voxtral-mini-transcribe-realtime-2602";
    let detected = detect("api.mistral.ai", path, WEBSOCKET);
    let Detection::Metered(target) = detected else {
        panic!("{detected:?}");
    };
    let created = Server(
        r#"{"type":"session.created","session":{"request_id":"q","model":"voxtral-mini-realtime",
        "audio_format":{"encoding":"pcm_s16le","sample_rate":16000}}}"#,
    );
    let piece = Server(r#"{"type":"transcription.text.delta","text":"I see"}"#);
    let done = Server(
        r#"{"type":"transcription.done","model":"voxtral-mini-realtime","text":"I see","language":null,
        "usage":{"prompt_audio_seconds":11,"prompt_tokens":4,"completion_tokens":35,
        "total_tokens":39}}"#,
    );
    let answers = answers(&target, &[created, piece, done], 5);
    let [answer] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert_eq!(buckets(answer), [(Bucket::Input, 4), (Bucket::Output, 35)]);
    let seconds = answer.scan.usage.unit(Unit::AudioSeconds);
    assert_eq!(seconds.map(|n| n.to_string()).as_deref(), Some("11"));
    assert_eq!(answer.scan.model.as_deref(), Some("voxtral-mini-realtime"));
    assert_eq!(answer.scan.trouble, None);
}

#[test]
fn responses_in_progress_are_told_apart() {
    let second = Server(r#"{"type":"response.created","response":{"id":"r2"}}"#);
    let done = Server(
        r#"{"type":"response.done","response":{"id":"r2","status":"cancelled","status_details":
        {"type":"cancelled","reason":"turn_detected"},"output":[],"usage":{"input_tokens":5,
        "output_tokens":2}}}"#,
    );
    let answers = answers(
        &realtime(),
        &[SESSION, CREATED, second, DELTA, done, DELTA],
        9,
    );
    let [cancelled, cut] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert_eq!(cancelled.scan.response_id.as_deref(), Some("r2"));
    let reason = cancelled.scan.finish_reason.as_deref();
    assert_eq!(reason, Some("cancelled:turn_detected"));
    assert_eq!(
        buckets(cancelled),
        [(Bucket::Input, 5), (Bucket::Output, 2)]
    );
    assert_eq!(cancelled.content_ms, None);
    assert_eq!(cut.scan.response_id.as_deref(), Some("r1"));
    assert_eq!(cut.scan.complete, Some(false));
    assert_eq!(cut.scan.trouble, Some(Trouble::Truncated));
    assert_eq!(cut.scan.usage_source, UsageSource::Absent);
    assert_eq!(cut.content_ms, Some(1030));
}

#[test]
fn each_turn_over_responses_has_its_own_model_and_usage() {
    let first = Client(r#"{"type":"response.create","model":"gpt-5","input":[]}"#);
    let begun = Server(
        r#"{"type":"response.created","response":{"id":"r1","status":"in_progress","model":"gpt-5-x",
        "usage":null}}"#,
    );
    let delta = Server(r#"{"type":"response.output_text.delta","delta":"hi"}"#);
    let done = Server(
        r#"{"type":"response.completed","response":{"id":"r1","status":"completed",
        "model":"gpt-5-x","output":[{"type":"function_call"}],"usage":{"input_tokens":100,
        "input_tokens_details":{"cached_tokens":40},"output_tokens":30,"output_tokens_details":
        {"reasoning_tokens":10},"total_tokens":130}}}"#,
    );
    let second = Client(
        r#"{"type":"response.create","model":"gpt-5-mini","previous_response_id":"r1",
        "service_tier":"flex"}"#,
    );
    let failed =
        Server(r#"{"type":"error","status":400,"error":{"code":"previous_response_not_found"}}"#);
    let limit = Server(r#"{"type":"error","error":{"code":"websocket_connection_limit_reached"}}"#);
    let said = [first, begun, delta, done, second, failed, limit];
    let answers = answers(&target(Api::OpenAiResponses, "openai"), &said, 11);
    let [whole, error] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert_eq!(
        buckets(whole),
        [
            (Bucket::Input, 60),
            (Bucket::CacheRead, 40),
            (Bucket::Output, 20),
            (Bucket::Reasoning, 10),
        ]
    );
    assert_eq!(whole.model_requested.as_deref(), Some("gpt-5"));
    assert_eq!(whole.scan.model.as_deref(), Some("gpt-5-x"));
    assert_eq!(whole.scan.tool_calls, Some(1));
    assert_eq!((whole.started_ms, whole.content_ms), (1000, Some(1020)));
    assert_eq!(error.model_requested.as_deref(), Some("gpt-5-mini"));
    assert_eq!(error.service_tier_requested.as_deref(), Some("flex"));
    assert!(error.scan.is_error);
    assert_eq!(error.scan.usage_source, UsageSource::Absent);
}

const SETUP: Said = Client(r#"{"setup":{"model":"models/gemini-live-2.5-flash"}}"#);
const TURN: Said = Client(r#"{"clientContent":{"turns":[{"parts":[]}],"turnComplete":true}}"#);
const PIECE: Said =
    Server(r#"{"serverContent":{"modelTurn":{"parts":[{"inlineData":{"data":"AAAA"}}]}}}"#);

#[test]
fn each_turn_of_gemini_is_an_answer() {
    let early = Server(
        r#"{"serverContent":{"modelTurn":{"parts":[{"text":"a"}]}},"usageMetadata":
        {"promptTokenCount":143,"responseTokenCount":2,"totalTokenCount":145}}"#,
    );
    let ends = Server(
        r#"{"serverContent":{"turnComplete":true},"usageMetadata":{"promptTokenCount":143,
        "responseTokenCount":19,"totalTokenCount":162,"promptTokensDetails":[
        {"modality":"TEXT","tokenCount":100},{"modality":"AUDIO","tokenCount":43}],
        "responseTokensDetails":[{"modality":"AUDIO","tokenCount":19}]}}"#,
    );
    let calls = Server(
        r#"{"toolCall":{"functionCalls":[{"id":"c1","name":"f","args":{}}]},"usageMetadata":
        {"promptTokenCount":181,"responseTokenCount":24,"thoughtsTokenCount":7}}"#,
    );
    let responds = Client(r#"{"tool_response":{"functionResponses":[]}}"#);
    let complete = Server(r#"{"serverContent":{"turnComplete":true,"interrupted":true}}"#);
    let late = Server(r#"{"usageMetadata":{"promptTokenCount":224,"responseTokenCount":24}}"#);
    let said = [
        SETUP,
        Server(r#"{"setupComplete":{}}"#),
        TURN,
        early,
        PIECE,
        ends,
        TURN,
        calls,
        responds,
        PIECE,
        complete,
        late,
    ];
    let answers = answers(&target(Api::GeminiLive, "google"), &said, 13);
    let [first, second, third] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert_eq!(
        buckets(first),
        [
            (Bucket::Input, 100),
            (Bucket::AudioInput, 43),
            (Bucket::AudioOutput, 19),
        ]
    );
    assert_eq!((first.started_ms, first.content_ms), (1020, Some(1030)));
    assert_eq!(
        first.model_requested.as_deref(),
        Some("gemini-live-2.5-flash")
    );
    assert_eq!(
        buckets(second),
        [
            (Bucket::Input, 181),
            (Bucket::Output, 24),
            (Bucket::Reasoning, 7),
        ]
    );
    assert_eq!(second.scan.tool_calls, Some(1));
    assert_eq!(buckets(third), [(Bucket::Input, 224), (Bucket::Output, 24)]);
    assert_eq!(third.scan.finish_reason.as_deref(), Some("interrupted"));
    for answer in &answers {
        assert_eq!(answer.scan.complete, Some(true));
        assert_eq!(answer.scan.trouble, None);
    }
}

#[test]
fn a_tool_call_without_usage_ends_no_turn() {
    let calls = Server(r#"{"toolCall":{"functionCalls":[{"name":"f"},{"name":"g"}]}}"#);
    let partial = Server(
        r#"{"serverContent":{"modelTurn":{"parts":[]}},"usageMetadata":{"promptTokenCount":9,
        "responseTokenCount":1}}"#,
    );
    let ends = Server(
        r#"{"usageMetadata":{"promptTokenCount":9,"responseTokenCount":3},"serverContent":
        {"turnComplete":true}}"#,
    );
    let said = [SETUP, TURN, calls, partial, PIECE, ends];
    let answers = answers(&target(Api::GeminiLive, "google"), &said, 64);
    let [answer] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    assert_eq!(buckets(answer), [(Bucket::Input, 9), (Bucket::Output, 3)]);
    assert_eq!(answer.scan.tool_calls, Some(2));
}

#[test]
fn vertex_names_model_and_location_in_the_setup() {
    let setup = Client(
        r#"{"setup":{"model":
        "projects/p/locations/us-central1/publishers/google/models/gemini-live-2.5-flash"}}"#,
    );
    let answers = answers(&target(Api::GeminiLive, "vertex"), &[setup, PIECE], 64);
    let [cut] = answers.as_slice() else {
        panic!("{answers:?}");
    };
    let location = cut.scan.pricing_context.get("vertex_location");
    assert_eq!(location.map(String::as_str), Some("us-central1"));
    assert_eq!(
        cut.model_requested.as_deref(),
        Some("gemini-live-2.5-flash")
    );
    assert_eq!(cut.scan.complete, Some(false));
}

#[test]
fn what_is_no_response_gives_no_answer() {
    let quiet = [
        SESSION,
        Client(r#"{"type":"input_audio_buffer.append","audio":"AAAA"}"#),
        Server(r#"{"type":"error","error":{"type":"invalid_request_error"}}"#),
        Server(r#"{"type":"conversation.item.input_audio_transcription.delta","delta":"a"}"#),
        Server(r#"{"type":"rate_limits.updated","rate_limits":[]}"#),
        Server("no JSON"),
        Server(""),
    ];
    assert_eq!(answers(&realtime(), &quiet, 3), []);
}

#[test]
fn responses_beyond_the_bound_are_metered_when_they_end() {
    let mut scanner = LiveScanner::new(&realtime());
    for i in 0..100 {
        let text = format!(r#"{{"type":"response.created","response":{{"id":"x{i}"}}}}"#);
        let frame = [&[0x81, text.len() as u8], text.as_bytes()].concat();
        assert_eq!(scanner.push_server(&frame, i), []);
    }
    let ended = scanner.push_server(&frame(DONE), 200);
    assert_eq!(ended.len(), 1);
    assert_eq!(scanner.finish(300).len(), 16);
}

proptest! {
    #[test]
    fn cuts_change_nothing(n in 1..400_usize) {
        let said = [SESSION, CREATED, TRANSCRIBED, DELTA, DONE, CREATED];
        let expected = answers(&realtime(), &said, usize::MAX);
        prop_assert_eq!(expected.len(), 3);
        prop_assert_eq!(answers(&realtime(), &said, n), expected);
    }

    #[test]
    fn any_bytes_are_survived(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        is_client: bool,
        api in prop::sample::select(vec![Api::OpenAiRealtime, Api::OpenAiResponses, Api::GeminiLive]),
    ) {
        let mut scanner = LiveScanner::new(&target(api, "openai"));
        match is_client {
            true => scanner.push_client(&bytes, 0),
            false => drop(scanner.push_server(&bytes, 0)),
        }
        scanner.finish(1);
    }
}
