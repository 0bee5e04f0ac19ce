//! A response body on its way back: read for usage, never changed.

use crate::detect::Target;
use crate::request::RequestFacts;
use crate::scan::Scan;

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
    pub const WANTED: &'static [&'static str] = &["content-type", "content-encoding"];

    /// The value of that header (name in lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }
}

/// Reads usage out of one response body, chunk by chunk, in bounded memory.
///
/// The result depends on the bytes alone, never on where they were cut.
pub struct UsageScanner {}

impl UsageScanner {
    /// A scanner for the answer to that request.
    pub fn new(target: &Target, request: &RequestFacts, head: &ResponseHead) -> UsageScanner {
        let _ = (target, request, head);
        UsageScanner {}
    }

    /// Takes the next bytes of the body, as they are on the wire.
    pub fn push(&mut self, chunk: &[u8]) {
        let _ = chunk;
    }

    /// Whether a byte of content (not of a role-only frame) has been seen: time to first token.
    pub fn has_content(&self) -> bool {
        false
    }

    /// The verdict. Cut bodies have one too.
    pub fn finish(self) -> Scan {
        Scan::default()
    }
}
