//! A request body on its way out: read for what metering needs, edited only by splicing.

use crate::detect::Target;

/// What may be changed in a request body. The default changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Ask for the usage event of a stream (`stream_options.include_usage`).
    pub include_usage: bool,
    /// Replace the model (a budget's downgrade).
    pub model: Option<String>,
    /// Lower the output limit to this many tokens (a budget's cap).
    pub max_output_tokens: Option<u64>,
}

/// What a request body said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestFacts {
    /// The model asked for.
    pub model: Option<String>,
    /// Whether the app asked for a stream.
    pub streams: bool,
    /// The output limit that the app set, in tokens.
    pub max_output_tokens: Option<u64>,
    /// The service tier that the app asked for.
    pub service_tier: Option<String>,
    /// Whether the app itself asked for the usage event of its stream.
    pub app_includes_usage: bool,
    /// Whether we asked for it in the app's place, so that the event must be cut out again.
    pub usage_injected: bool,
    /// Bytes of body seen.
    pub body_bytes: u64,
}

/// Scans, and where told so splices, one request body as it streams by.
pub struct RequestBody {
    facts: RequestFacts,
}

impl RequestBody {
    /// A body for that target; `content_type` as the request's header has it.
    pub fn new(target: &Target, content_type: Option<&str>, edits: Edits) -> RequestBody {
        let _ = (target, content_type, edits);
        RequestBody {
            facts: RequestFacts::default(),
        }
    }

    /// Whether the body's length may change, so that `content-length` must go.
    pub fn may_change(&self) -> bool {
        false
    }

    /// Takes the next bytes; `Some` are the bytes to send in their place.
    pub fn push(&mut self, chunk: &[u8]) -> Option<Vec<u8>> {
        self.facts.body_bytes += chunk.len() as u64;
        None
    }

    /// What was read so far; final once the body has ended.
    pub fn facts(&self) -> &RequestFacts {
        &self.facts
    }
}
