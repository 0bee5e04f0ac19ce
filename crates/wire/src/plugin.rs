//! The filter's plugin configuration: JSON as an operator writes it, read strictly.
//!
//! The filter and `tollmesh check --filter-config` read it with this same code, so what passes the
//! check runs. Unlike the wire, which has programs for authors, it refuses what it does not know.

mod origins;
mod read;
mod reader;
mod tags;

use std::fmt;

pub use origins::{STANDARD_TAGS, TagOrigin, standard_tag};
pub use tags::{OnMissing, TagAlias, TagShape, TagSources, WorkloadTags};

/// How long a call to the aggregator may take, unless the configuration says otherwise.
pub const AGGREGATOR_TIMEOUT_MS_DEFAULT: u32 = 1_000;
/// How long a reservation may take, unless the configuration says otherwise.
pub const ADMISSION_TIMEOUT_MS_DEFAULT: u32 = 200;
/// The longest timeout that can be set: beyond a minute a queue fills rather than drains.
pub const TIMEOUT_MS_MAX: u32 = 60_000;
/// Headers that start so are tags, unless the configuration says otherwise.
pub const HEADER_PREFIX_DEFAULT: &str = "x-llm-tag-";
/// The longest name of a tag, in bytes. It becomes a column value and may become a metric label.
pub const TAG_NAME_BYTES_MAX: usize = 128;
/// The longest value of a tag that an event carries, in bytes.
pub const TAG_VALUE_BYTES_MAX: usize = 256;

/// What the key of a keyed hash has, in bytes: that of SipHash.
pub const SECRET_KEY_BYTES: usize = 16;

/// The API families that a host of the operator's own can speak.
pub const API_FAMILIES: &[&str] = &[
    "openai",
    "anthropic",
    "gemini",
    "vertex",
    "azure",
    "bedrock",
    "cohere",
    "ollama",
    "watsonx",
    "writer",
    "mistral",
    "dashscope",
    "databricks",
];

/// What the filter was told to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginConfig {
    /// Where events go.
    pub aggregator: AggregatorPeer,
    /// Where tags come from.
    pub tags: TagSources,
    /// What to do about streams that report usage only on request.
    pub include_usage: IncludeUsage,
    /// What to do about the encodings that an app accepts.
    pub accept_encoding: AcceptEncoding,
    /// Whose signature counts.
    pub signed_by: SignedBy,
    /// How calls are admitted.
    pub admission: Admission,
    /// The key of the fingerprints of request bodies; `None`: there are none.
    pub fingerprint: Option<SecretKey>,
    /// The operator's own API hosts, first match first.
    pub apis: Vec<ApiRule>,
    /// Whose answers are believed that say that their call was counted behind this hop.
    pub relay: Relay,
    /// What is known of the caller where Envoy's node does not say it.
    pub source: crate::Source,
}

/// `aggregator`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregatorPeer {
    /// Envoy's cluster of the aggregator; the only key that must be there.
    pub cluster: String,
    /// The longest wait for an answer, milliseconds.
    pub timeout_ms: u32,
}

/// `include_usage`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncludeUsage {
    /// Ask for the usage event in the app's place, and cut it out of the answer.
    InjectAndStrip,
    /// Leave requests as they are.
    Off,
}

/// `accept_encoding`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptEncoding {
    /// Cut to what can be read at little cost.
    Narrow,
    /// Leave as it is.
    Keep,
}

/// `signed_by`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignedBy {
    /// The app's: a request with one is left as it is.
    App,
    /// Envoy's, which signs after this filter: AWS signatures that the app put are replaced.
    Envoy,
}

/// `admission`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The longest wait for a reservation, milliseconds.
    pub timeout_ms: u32,
    /// What holds while the filter has not yet received a decision table.
    pub on_unavailable: OnUnavailable,
}

/// `admission.on_unavailable`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnavailable {
    /// Calls pass.
    Allow,
    /// Calls are refused.
    Deny,
}

/// The secret of a keyed hash (`fingerprint.key`, `tags.hash_key`), without which the hash says
/// nothing about what was hashed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretKey(pub [u8; SECRET_KEY_BYTES]);

/// One entry of `apis`: a host of the operator's own that speaks a known API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRule {
    /// Host pattern; `*` stands for any run of characters.
    pub host: String,
    /// Path pattern; `*` stands for any run of characters.
    pub path: String,
    /// The API family that its bodies follow, as `openai`; absent where the role needs none.
    pub api: Option<String>,
    /// Who serves and bills it.
    pub provider: Option<String>,
    /// What this filter is to the host's calls.
    pub role: Role,
    /// Whether the host takes `stream_options.include_usage`.
    pub include_usage: bool,
}

/// `apis[].role`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The host serves the model: its calls are metered here.
    Provider,
    /// Another filter counts what goes to the host: its tags are left for that filter.
    Gateway,
    /// The host's calls are not looked at.
    Ignore,
}

/// `relay`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relay {
    /// Those that come over a connection of the mesh.
    Auto,
    /// Nobody's: calls are relayed only to hosts with the role `gateway`.
    Never,
}

/// One thing that is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// Where, as `tags.headers.team` or `apis[2].host`; empty for the document as a whole.
    pub key: String,
    /// What.
    pub problem: Problem,
}

/// What is wrong with a configuration's key, and by that what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The document is not JSON.
    #[error("not JSON at line {line}, column {column}; write one JSON object")]
    NotJson {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
    },
    /// A key that nobody reads.
    #[error("unknown key; expected one of {}", list(.expected))]
    UnknownKey {
        /// The keys that are read here.
        expected: &'static [&'static str],
    },
    /// A key that must be there is not.
    #[error("missing; set it to {remedy}")]
    Missing {
        /// What to set.
        remedy: &'static str,
    },
    /// A value of another kind.
    #[error("expected {expected}")]
    Kind {
        /// What belongs here.
        expected: &'static str,
    },
    /// A word that is none of those known.
    #[error("unknown value {got:?}; expected {}", list(.expected))]
    Word {
        /// What was written.
        got: String,
        /// The words that are known.
        expected: Vec<&'static str>,
    },
    /// A pattern of hosts that no host fits.
    #[error("no host has a \"/\"; write it without scheme and path, as \"llm.internal:8000\"")]
    Host,
    /// A pattern of paths that no path fits.
    #[error("no path begins so; begin it with \"/\" or \"*\"")]
    Path,
    /// A number outside its bounds.
    #[error("expected a whole number from {min} to {max}")]
    Range {
        /// The least.
        min: u32,
        /// The most.
        max: u32,
    },
    /// A tag's name that cannot be one.
    #[error(
        "not a tag name; use at most {TAG_NAME_BYTES_MAX} of the characters a-z 0-9 _ - . only"
    )]
    TagName,
    /// A text that is not a header's name.
    #[error("not a header name; use letters, digits and - only")]
    HeaderName,
    /// A header that carries a credential or frames the message.
    #[error("{header} can never be a tag; name a header that carries nothing else")]
    ReservedHeader {
        /// The header.
        header: &'static str,
    },
    /// A text that is not the key of a hash.
    #[error(
        "expected {} hexadecimal digits; make a key with `openssl rand -hex {SECRET_KEY_BYTES}`",
        2 * SECRET_KEY_BYTES
    )]
    Key,
    /// A selector that selects nothing.
    #[error("selects no workload; name at least one of {}", list(.expected))]
    NoSelector {
        /// What can be selected by.
        expected: &'static [&'static str],
    },
    /// A tag's value that is too long.
    #[error("too long; a tag's value has at most {TAG_VALUE_BYTES_MAX} bytes")]
    TooLong,
}

impl PluginConfig {
    /// Reads a configuration; what is wrong with it, all of it, in the order of the document's
    /// keys.
    pub fn parse(json: &[u8]) -> Result<PluginConfig, Vec<Mistake>> {
        read::parse(json)
    }

    /// Everything at its default, with events going to that cluster.
    pub fn with_cluster(cluster: &str) -> PluginConfig {
        PluginConfig {
            aggregator: AggregatorPeer {
                cluster: cluster.to_owned(),
                timeout_ms: AGGREGATOR_TIMEOUT_MS_DEFAULT,
            },
            tags: TagSources::default(),
            include_usage: IncludeUsage::InjectAndStrip,
            accept_encoding: AcceptEncoding::Narrow,
            signed_by: SignedBy::App,
            admission: Admission::default(),
            fingerprint: None,
            apis: Vec::new(),
            relay: Relay::Auto,
            source: crate::Source::default(),
        }
    }
}

impl Default for Admission {
    fn default() -> Admission {
        Admission {
            timeout_ms: ADMISSION_TIMEOUT_MS_DEFAULT,
            on_unavailable: OnUnavailable::Allow,
        }
    }
}

impl SecretKey {
    /// Reads a key as the configuration has it.
    fn parse(text: &str) -> Option<SecretKey> {
        let is_hex =
            text.len() == 2 * SECRET_KEY_BYTES && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u128::from_str_radix(text, 16).ok().filter(|_| is_hex)?;
        Some(SecretKey(number.to_be_bytes()))
    }
}

/// Never the key itself: what is printed for people ends in logs.
impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(..)")
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            return self.problem.fmt(f);
        }
        write!(f, "{}: {}", self.key, self.problem)
    }
}

impl std::error::Error for Mistake {}

/// `"a", "b" or "c"`
fn list(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("{w:?}")).collect();
    match quoted.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => quoted.concat(),
    }
}

/// Whether a text can name a tag: short, and of characters that need no quoting anywhere.
pub fn is_tag_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-.".contains(&b);
    (1..=TAG_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain)
}
