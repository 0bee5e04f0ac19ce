//! The record of one metered call, from filter to aggregator.

mod write;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tollmesh_usage::Usage;

use crate::decision::Applied;
use crate::time::Timestamp;
use crate::{VERSION, WireError};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The provider answered, wholly.
    #[default]
    Success,
    /// The provider answered with an error, or could not be reached.
    Error,
    /// The call was cut: by the client, by the provider, by a timeout.
    Aborted,
    /// We refused it.
    Denied,
    /// A filter nearer to the provider counts this call.
    Relayed,
}

impl Outcome {
    /// The name on the wire, in metrics and in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Outcome::Success => "success",
            Outcome::Error => "error",
            Outcome::Aborted => "aborted",
            Outcome::Denied => "denied",
            Outcome::Relayed => "relayed",
        }
    }
}

/// What an event records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A call.
    #[default]
    Call,
    /// The usage of an earlier call, seen when its response was retrieved.
    LateUsage,
}

/// Usage charged apart from the call's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ExtraUsage {
    /// What it is, in the provider's word.
    pub kind: String,
    /// The model whose rates apply; absent means the call's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The counts.
    pub usage: Usage,
}

/// Who called, as the mesh knows it. No header can set any of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Source {
    /// Kubernetes namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Workload: the deployment's name, or the service's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// Kubernetes service account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// SPIFFE id of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub principal: Option<String>,
    /// Pod name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
    /// Node name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Cluster name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
}

/// One metered call. A member that is added here is added in `event/write.rs` too.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Event {
    /// The only identity: unique to this pass through this filter.
    pub event_id: String,
    /// What it records.
    pub kind: Kind,
    /// `x-request-id`, which a mesh propagates over many calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// W3C or b3 trace id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
    /// W3C or b3 span id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub span_id: Option<String>,
    /// A keyed hash of the request's body as the app sent it, 32 hexadecimal digits: equal for equal
    /// bodies under one key. Absent unless the operator set a key, and for bodies that were cut.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// When the request arrived.
    pub time: Timestamp,
    /// From the request's first byte to the response's last.
    pub duration_ms: u64,
    /// To the first byte of content.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<u64>,
    /// Who serves and bills the call.
    pub provider: String,
    /// The API, as `openai.chat`.
    pub api: String,
    /// The request's authority.
    pub host: String,
    /// The model asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_requested: Option<String>,
    /// The model that a budget had asked for in its place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_put: Option<String>,
    /// The model that served.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The provider's id of the response.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_id: Option<String>,
    /// Whether the answer was a stream.
    pub stream: bool,
    /// Disjoint counts.
    pub usage: Usage,
    /// What the provider charges, where that differs from what it processed; empty where
    /// `extra_usage` has all of it, by model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub billed_usage: Option<Usage>,
    /// `reported`, `estimated` or `absent`.
    pub usage_source: String,
    /// What the estimated counts were made from, parts of `tollmesh_usage::Basis` with `+` between
    /// them (`relayed_text+request_bytes`); absent where nothing is estimated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub estimate_basis: Option<String>,
    /// Whether the call is charged at all.
    pub billable: bool,
    /// Usage charged apart.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub extra_usage: Vec<ExtraUsage>,
    /// What the provider says it charged, US dollars, a plain decimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_cost_usd: Option<String>,
    /// The service tier that the provider says it used; else the one asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_tier: Option<String>,
    /// Facts that prices depend on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub pricing_context: BTreeMap<String, String>,
    /// The provider's word for why the first choice ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<String>,
    /// Client tool calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool_calls: Option<u32>,
    /// HTTP status; absent where no response headers came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// Envoy's response flags, its bit mask.
    #[serde(skip_serializing_if = "is_zero")]
    pub response_flags: u64,
    /// How often Envoy sent it upstream.
    pub attempts: u32,
    /// What the headers claim about the call.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Tags that the filter was told to require and that the call does not have.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_tags: Vec<String>,
    /// What the mesh knows about the caller.
    pub source: Source,
    /// The reservation that this event settles.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reservation_id: Option<String>,
    /// What budgets did to the call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<Applied>,
    /// Why the scan is less than whole, a kind of `tollmesh_usage::Trouble`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
}

fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// Which filter is speaking.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Node {
    /// Envoy's node id.
    pub id: String,
    /// Envoy's node cluster.
    pub cluster: String,
    /// The filter's version.
    pub filter_version: String,
    /// Events that this worker has dropped since its VM started, because its queue was full.
    pub dropped_total: u64,
    /// A random name of the VM, so that `dropped_total` can be told apart from a restart's.
    pub vm: String,
}

/// Events in one batch: four times what a filter sends at once. Each costs memory and time beyond its
/// bytes, which may be one or two.
pub const EVENTS_MAX: usize = 8_192;

/// The body of `POST /v1/events`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct EventBatch {
    /// The wire version.
    pub v: u32,
    /// Which filter is speaking.
    #[serde(default)]
    pub node: Node,
    /// The events, each as it came, so that a bad one spoils nothing but itself. Of more than
    /// [`EVENTS_MAX`], one more is kept.
    #[serde(deserialize_with = "first_events")]
    pub events: Vec<Box<RawValue>>,
}

impl EventBatch {
    /// Reads a batch; its events are still unread.
    pub fn parse(bytes: &[u8]) -> Result<EventBatch, WireError> {
        #[derive(Deserialize)]
        struct Version {
            v: u64,
        }
        // Nearly all batches are of our version, and then one pass over them is enough.
        let read = serde_json::from_slice(bytes);
        if let Ok(EventBatch {
            v: VERSION, events, ..
        }) = &read
        {
            if events.len() > EVENTS_MAX {
                return Err(WireError::TooMany { max: EVENTS_MAX });
            }
            return Ok(read?);
        }
        let Version { v: got } = serde_json::from_slice(bytes)?;
        if got != u64::from(VERSION) {
            return Err(WireError::Version { got });
        }
        Ok(read?)
    }
}

/// Reads a list, and of what is beyond [`EVENTS_MAX`] keeps only one, which shows that there is more.
fn first_events<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Box<RawValue>>, D::Error> {
    struct First;
    impl<'de> Visitor<'de> for First {
        type Value = Vec<Box<RawValue>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of events")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut events = Vec::new();
            while events.len() <= EVENTS_MAX
                && let Some(event) = list.next_element()?
            {
                events.push(event);
            }
            while list.next_element::<IgnoredAny>()?.is_some() {}
            Ok(events)
        }
    }
    from.deserialize_seq(First)
}

/// The [code](Rejected::code) of an event of a time whose calls are deleted: whether it was counted
/// before, nobody knows.
pub const FORGOTTEN: &str = "forgotten";

/// One event that was not taken; it will not be taken later either.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejected {
    /// Its id, where one could be read.
    pub event_id: Option<String>,
    /// Why, in words.
    pub reason: String,
    /// Why, for programs, where it matters to them: [`FORGOTTEN`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
}

/// The answer to `POST /v1/events`, sent only after the ledger's commit.
///
/// Its counts are never left out: an answer of success without them is somebody else's, and
/// acknowledges nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsReply {
    /// Events that are now in the ledger.
    pub accepted: u64,
    /// Events that already were.
    pub duplicate: u64,
    /// Events in quarantine.
    #[serde(default)]
    pub rejected: Vec<Rejected>,
    /// Events beside those that were not taken either, where there are too many to name each.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub rejected_unnamed: u64,
}

impl EventsReply {
    /// All events that were not taken.
    pub fn n_rejected(&self) -> u64 {
        self.rejected_unnamed
            .saturating_add(self.rejected.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_of_too_many_events_is_told_from_a_bad_one() {
        let batch = |n: usize, end: &str| {
            let events = vec!["1"; n].join(",");
            EventBatch::parse(format!(r#"{{"v":1,"events":[{events}]{end}"#).as_bytes())
        };
        assert_eq!(batch(EVENTS_MAX, "}").unwrap().events.len(), EVENTS_MAX);
        for n in [EVENTS_MAX + 1, 3 * EVENTS_MAX] {
            let error = batch(n, "}").unwrap_err();
            assert!(
                matches!(error, WireError::TooMany { max: EVENTS_MAX }),
                "{error}"
            );
            assert!(matches!(batch(n, ""), Err(WireError::Shape(_))));
        }
    }

    #[test]
    fn all_that_were_not_taken_are_counted() {
        let rejected = r#"{"accepted":0,"duplicate":0,"rejected":[{"event_id":null,"reason":""}]"#;
        for (more, n) in [("}", 1), (r#","rejected_unnamed":4}"#, 5)] {
            let reply: EventsReply = serde_json::from_str(&format!("{rejected}{more}")).unwrap();
            assert_eq!(reply.n_rejected(), n);
        }
    }
}
