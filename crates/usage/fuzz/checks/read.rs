//! Reading a body with the scanner, and what of its verdict two framings of one content share.

use tollmesh_usage::{
    Api, DecoderPool, Detection, Relayed, RequestFacts, ResponseHead, Scan, Target, UsageScanner,
    detect,
};

/// Calls of every dialect and framing, each with the API that it must be detected as.
pub const CALLS: [(&str, &str, Api); 16] = [
    ("api.openai.com", "/v1/chat/completions", Api::OpenAiChat),
    ("api.openai.com", "/v1/responses", Api::OpenAiResponses),
    ("api.anthropic.com", "/v1/messages", Api::AnthropicMessages),
    (
        "generativelanguage.googleapis.com",
        "/v1beta/models/gemini-2.5-pro:generateContent",
        Api::GeminiGenerate,
    ),
    (
        "generativelanguage.googleapis.com",
        "/v1beta/models/gemini-2.5-pro:streamGenerateContent",
        Api::GeminiStreamGenerate,
    ),
    (
        "generativelanguage.googleapis.com",
        "/v1beta/interactions",
        Api::GeminiInteractions,
    ),
    (
        "bedrock-runtime.us-east-1.amazonaws.com",
        "/model/amazon.nova-pro-v1:0/converse",
        Api::BedrockConverse,
    ),
    (
        "bedrock-runtime.us-east-1.amazonaws.com",
        "/model/amazon.nova-pro-v1:0/converse-stream",
        Api::BedrockConverseStream,
    ),
    (
        "bedrock-runtime.us-east-1.amazonaws.com",
        "/model/anthropic.claude-3-haiku-20240307-v1:0/invoke",
        Api::BedrockInvoke,
    ),
    (
        "bedrock-runtime.us-east-1.amazonaws.com",
        "/model/anthropic.claude-3-haiku-20240307-v1:0/invoke-with-response-stream",
        Api::BedrockInvokeStream,
    ),
    ("api.cohere.com", "/v2/chat", Api::CohereChat),
    ("api.cohere.com", "/v1/chat", Api::CohereV1Chat),
    ("api.cohere.com", "/v2/rerank", Api::CohereRerank),
    ("api.openai.com", "/v1/embeddings", Api::OpenAiEmbeddings),
    (
        "api.openai.com",
        "/v1/images/generations",
        Api::OpenAiImages,
    ),
    (
        "api.openai.com",
        "/v1/audio/transcriptions",
        Api::OpenAiAudio,
    ),
];

/// Headers of which a body's framing is made.
pub const CONTENT_TYPES: [&str; 4] = [
    "application/json",
    "text/event-stream",
    "application/x-ndjson",
    "application/vnd.amazon.eventstream",
];

/// The call of that number; any number is one.
pub fn target(choice: usize) -> Target {
    let (host, path, api) = CALLS[choice % CALLS.len()];
    match detect(host, path, "POST") {
        Detection::Metered(target) if target.api == api => target,
        other => panic!("{host}{path} is {other:?}"),
    }
}

/// The body's scan, whether content was seen, and whether the decoder gave its memory back.
pub fn scan<'a>(
    target: &Target,
    content_type: &str,
    encoding: Option<&str>,
    chunks: impl Iterator<Item = &'a [u8]>,
) -> (bool, Scan) {
    let request = RequestFacts {
        streams: target.api == Api::GeminiStreamGenerate,
        ..RequestFacts::default()
    };
    let content_type = ("content-type".to_owned(), content_type.to_owned());
    let encoding = encoding.map(|name| ("content-encoding".to_owned(), name.to_owned()));
    let head = ResponseHead {
        status: 200,
        headers: [content_type].into_iter().chain(encoding).collect(),
    };
    let pool = DecoderPool::default();
    let n_free = pool.n_bytes_left();
    let mut scanner = UsageScanner::with_pool(target, &request, &head, &pool);
    chunks.for_each(|chunk| scanner.push(chunk));
    let has_content = scanner.has_content();
    let scan = scanner.finish();
    assert_eq!(pool.n_bytes_left(), n_free, "a decoder keeps memory");
    (has_content, scan)
}

/// What is left of a verdict when nothing is known of how the content was framed.
pub fn said(scan: Scan) -> Scan {
    Scan {
        complete: None,
        is_stream: false,
        trouble: None,
        relayed: Relayed {
            body_bytes: 0,
            is_report_final: false,
            ..scan.relayed
        },
        ..scan
    }
}

/// The scan of such documents, one a line, which is the plainest of all framings.
pub fn scan_lines(target: &Target, documents: &[Vec<u8>]) -> Scan {
    let lines = documents.join(&b'\n');
    said(
        scan(
            target,
            CONTENT_TYPES[2],
            None,
            [lines.as_slice()].into_iter(),
        )
        .1,
    )
}

/// Whether these are documents in JSON's grammar of which the first is an object.
pub fn are_documents(documents: &[Vec<u8>]) -> bool {
    let is_document =
        |text: &Vec<u8>| serde_json::from_slice::<serde::de::IgnoredAny>(text).is_ok();
    documents.iter().all(is_document)
        && documents
            .first()
            .is_some_and(|first| first.trim_ascii_start().starts_with(b"{"))
}
