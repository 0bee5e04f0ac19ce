//! A response body on its way back: read for usage, never changed.

use std::ops::Range;

use crate::decode::{Decoder, DecoderPool};
use crate::detect::{Api, Target};
use crate::dialect::Reader;
use crate::framing::Framing;
use crate::relayed::Relayed;
use crate::request::RequestFacts;
use crate::scan::Scan;
use crate::verdict::Known;

/// What the response's headers say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// The HTTP status.
    pub status: u16,
    /// The headers of [`ResponseHead::WANTED`] that were there, names in lower case.
    pub headers: Vec<(String, String)>,
}

impl ResponseHead {
    /// The headers that scanners look at; a caller need not pass others.
    pub const WANTED: &'static [&'static str] = &[
        "content-type",
        "content-encoding",
        "x-amzn-bedrock-input-token-count",
        "x-amzn-bedrock-output-token-count",
        "x-amzn-bedrock-cache-read-input-token-count",
        "x-amzn-bedrock-cache-write-input-token-count",
        "x-amzn-bedrock-service-tier",
        "x-gemini-service-tier",
    ];

    /// The value of that header (name in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

/// Whether a status says that there is no answer: an error, or a redirect to elsewhere.
fn is_error(status: u16) -> bool {
    status >= 300
}

/// Reads usage out of one response body, chunk by chunk, in bounded memory.
///
/// The result depends on the bytes alone, never on where they were cut. With one exception: how
/// much is read of a broken compressed body before its breach.
#[derive(Debug)]
pub struct UsageScanner {
    api: Api,
    is_billable: bool,
    is_retrieval: bool,
    is_asked_to_stream: bool,
    is_error_status: bool,
    n_spoken: Option<u64>,
    n_body_bytes: u64,
    decoder: Decoder,
    framing: Framing,
    reader: Reader,
}

impl UsageScanner {
    /// A scanner for the answer to that request, with decoder memory of its own.
    pub fn new(target: &Target, request: &RequestFacts, head: &ResponseHead) -> UsageScanner {
        UsageScanner::with_pool(target, request, head, &DecoderPool::default())
    }

    /// A scanner whose decoder takes its memory out of that pool.
    pub fn with_pool(
        target: &Target,
        request: &RequestFacts,
        head: &ResponseHead,
        pool: &DecoderPool,
    ) -> UsageScanner {
        UsageScanner::of(target, request, head.status, |name| head.header(name), pool)
    }

    /// The same, with the headers read where they are: `header` gives the value of the header of
    /// that name (in lower case), and is asked for those of [`ResponseHead::WANTED`] only.
    pub fn of<'h>(
        target: &Target,
        request: &RequestFacts,
        status: u16,
        header: impl Fn(&str) -> Option<&'h str>,
        pool: &DecoderPool,
    ) -> UsageScanner {
        let mut reader = Reader::new(target);
        reader.headers(&header);
        let encoding = header("content-encoding");
        let decoder = Decoder::new(encoding, pool).unwrap_or_else(|trouble| {
            reader.findings.trouble(trouble);
            Decoder::Unreadable
        });
        UsageScanner {
            api: target.api,
            is_billable: target.billable,
            is_retrieval: target.is_retrieval,
            is_asked_to_stream: request.streams,
            is_error_status: is_error(status),
            n_spoken: request.n_spoken,
            n_body_bytes: 0,
            decoder,
            framing: Framing::new(header("content-type"), request.streams),
            reader,
        }
    }

    /// Takes the next bytes of the body, as they are on the wire.
    pub fn push(&mut self, chunk: &[u8]) {
        self.n_body_bytes += chunk.len() as u64;
        let (framing, reader) = (&mut self.framing, &mut self.reader);
        let outcome = self
            .decoder
            .push(chunk, |bytes| framing.push(bytes, reader));
        self.reader.findings.note(outcome);
    }

    /// The first run of whole server-sent events in the last chunk that say nothing but text, as
    /// offsets in it: what looks for other events need not look there. Empty where none is known.
    pub fn plain_events(&self) -> Range<usize> {
        match (&self.decoder, &self.framing) {
            (Decoder::Identity, Framing::Sse(sse)) => sse.passed(),
            _ => 0..0,
        }
    }

    /// Whether a byte of content (not of a role-only frame) has been seen: time to first token.
    /// Never where the decoder cannot tell when it came.
    pub fn has_content(&self) -> bool {
        self.reader.findings.has_content && !self.decoder.is_delayed()
    }

    /// Bytes of content relayed so far, JSON escapes as written.
    pub fn text_bytes(&self) -> u64 {
        self.reader.findings.relayed.text_bytes()
    }

    /// The verdict. Cut bodies have one too.
    pub fn finish(mut self) -> Scan {
        let (framing, reader) = (&mut self.framing, &mut self.reader);
        let outcome = self.decoder.finish(|bytes| framing.push(bytes, reader));
        self.reader.findings.note(outcome);
        self.framing.finish(&mut self.reader);
        self.reader.cut();
        let complete = self.complete();
        let relayed = self.relayed(complete);
        self.reader.scan(Known {
            is_billable: self.is_billable,
            is_retrieval: self.is_retrieval,
            is_told_later: self.api.is_told_later(),
            is_error_status: self.is_error_status,
            complete,
            n_spoken: self.n_spoken,
            is_stream: matches!(self.framing, Framing::Sse(_) | Framing::EventStream(_)),
            relayed,
        })
    }

    /// Whether the body reached its end. JSON says so by its brackets, which is no news where
    /// it did; a stream says so by its last word.
    fn complete(&self) -> Option<bool> {
        if !self.decoder.is_complete() {
            return Some(false);
        }
        let findings = &self.reader.findings;
        let is_terminated = findings.is_terminated;
        match &self.framing {
            Framing::Undecided { .. } => None,
            Framing::Opaque => None,
            Framing::Json(scanner) if !scanner.is_complete() => Some(false),
            Framing::Json(_) if self.is_error_status => None,
            Framing::Json(_) if self.api == Api::GeminiStreamGenerate => Some(is_terminated),
            Framing::Json(scanner) if self.comes_in_lines(scanner.n_documents()) => {
                Some(is_terminated)
            }
            Framing::Json(_) => None,
            // The legacy stream documents no last word.
            Framing::Sse(_) if self.api == Api::AnthropicComplete => None,
            Framing::Sse(_) => Some(is_terminated),
            Framing::EventStream(stream) => Some(is_terminated && stream.is_between()),
        }
    }

    /// What was relayed, for an estimate of what was not reported. A report is final in a body
    /// that is whole, in a single document, and where the answer's reason to end came with it:
    /// then no text follows.
    fn relayed(&self, complete: Option<bool>) -> Relayed {
        let findings = &self.reader.findings;
        let relayed = findings.relayed;
        let is_single = matches!(&self.framing, Framing::Json(scanner) if scanner.n_documents() <= 1)
            && self.api != Api::GeminiStreamGenerate;
        let is_last = relayed.reported_at == Some(relayed.text_bytes()) && findings.is_report_last;
        Relayed {
            body_bytes: self.n_body_bytes,
            is_report_final: complete != Some(false) || is_single || is_last,
            is_undecoded: matches!(self.decoder, Decoder::Unreadable),
            ..relayed
        }
    }

    /// Whether the body is a stream of JSON lines.
    fn comes_in_lines(&self, n_documents: u64) -> bool {
        let may_be = matches!(
            self.api,
            Api::OllamaChat | Api::OllamaGenerate | Api::CohereV1Chat
        );
        may_be && (n_documents > 1 || self.is_asked_to_stream)
    }
}
