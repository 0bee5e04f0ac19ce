//! One HTTP call as a state machine: what the proxy says comes in, what is to be done goes out.
//!
//! Nothing here calls the host. Inputs that cannot be in a phase change nothing but a counter, and
//! no phase ever holds traffic back, the bounded tail of [`EventCutter`] aside.

mod call;
mod live;
mod outcome;
mod refusal;
mod request;
mod response;

use tollmesh_usage::{DecoderPool, EventCutter, UsageScanner, UsageSource};
use tollmesh_wire::{PluginConfig, Source, Timestamp};

use crate::calibration::Calibrations;
use crate::counters::Counter;
use crate::edit::HeaderEdit;
use crate::headers::Headers;
use crate::ids::EventIds;
use crate::tags::impostors;

use call::Call;
use live::Conversation;

/// What most events need as JSON, so that writing one allocates once.
const EVENT_BYTES_USUAL: usize = 1024;

/// What every call of one plugin instance shares.
#[derive(Debug)]
pub struct Site {
    /// What the operator configured.
    pub config: PluginConfig,
    /// Names for events.
    pub ids: EventIds,
    /// The caller, where the peer proves nothing else.
    pub source: Source,
    /// What earlier answers taught about each model's tokens.
    pub calibrations: Calibrations,
    /// The memory of this worker's decoders.
    pub decoders: DecoderPool,
}

impl Site {
    /// A site whose calls have taught nothing yet.
    pub fn new(config: PluginConfig, ids: EventIds, source: Source) -> Site {
        Site {
            config,
            ids,
            source,
            calibrations: Calibrations::default(),
            decoders: DecoderPool::default(),
        }
    }

    /// Whether tags hang on who calls, so that the peer's identity is worth asking the host for
    /// before the request leaves.
    pub fn tags_by_caller(&self) -> bool {
        !self.config.tags.by_workload.is_empty()
    }
}

/// One thing that the proxy says about a call.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The request's headers; with `ends`, the whole request.
    RequestHead {
        /// The headers.
        headers: &'a Headers<'a>,
        /// The peer's identity by its certificate; asked for only where [`Site::tags_by_caller`].
        peer: Option<&'a str>,
        /// Whether no body follows.
        ends: bool,
    },
    /// The next bytes of the request's body, each byte once.
    RequestBody {
        /// The bytes; empty where only the end is told.
        chunk: &'a [u8],
        /// Whether nothing follows.
        ends: bool,
    },
    /// The response's headers.
    ResponseHead {
        /// The headers.
        headers: &'a Headers<'a>,
        /// Whether no body follows.
        ends: bool,
    },
    /// The next bytes of the response's body.
    ResponseBody {
        /// The bytes; empty where only the end is told.
        chunk: &'a [u8],
        /// Whether nothing follows.
        ends: bool,
    },
    /// The response ends in trailers.
    ResponseTrailers,
    /// Protocols were switched ([`Session::is_upgraded`]); what the proxy knows at that time.
    Upgraded(Ending<'a>),
    /// The call is over, in whatever way.
    End(Ending<'a>),
}

/// What the proxy knows about a call once it is over, or has become a connection.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ending<'a> {
    /// Envoy's response flags, its bit mask.
    pub response_flags: u64,
    /// How often the request went upstream.
    pub attempts: u32,
    /// The peer's identity by its certificate.
    pub principal: Option<&'a str>,
}

/// What is to be done, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Changes to the headers of the message whose head was the input.
    pub edits: Vec<HeaderEdit>,
    /// What to send in the place of the chunk that was the input.
    pub body: Option<Vec<u8>>,
    /// What to answer in the provider's place.
    pub denial: Option<Denial>,
    /// What to count.
    pub counts: Vec<(Counter, u64)>,
    /// Events, as JSON: one a call, one a response of a WebSocket connection.
    pub events: Vec<String>,
}

/// An answer in the provider's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// HTTP status.
    pub status: u16,
    /// Envoy's response code details, for the access log.
    pub details: &'static str,
    /// Headers, content type included.
    pub headers: Vec<(&'static str, String)>,
    /// JSON.
    pub body: String,
}

/// One HTTP call.
#[derive(Default)]
pub struct Session {
    phase: Phase,
}

#[derive(Default)]
enum Phase {
    /// Nothing is known yet.
    #[default]
    Fresh,
    /// Not a call to be metered: never looked at again.
    Unmetered,
    /// The request is on its way.
    Requesting(Box<Call>),
    /// The response is on its way back.
    Answering(Box<Answer>),
    /// Client and provider talk over a WebSocket.
    Talking(Box<Conversation>),
    /// The response is on its way back, and counted elsewhere.
    Relaying(Box<Relay>),
    /// We answered in the provider's place.
    Denied(Box<Call>),
    /// The event was given.
    Closed,
}

/// A call whose response is being read.
struct Answer {
    call: Call,
    scanner: UsageScanner,
    cutter: Option<EventCutter>,
    ttft_ms: Option<u64>,
    ended: bool,
}

/// A call that a filter nearer to the provider counts. What we asked for in the app's place is cut
/// out here all the same, since that filter took it for the app's wish.
struct Relay {
    call: Call,
    cutter: Option<EventCutter>,
}

impl Session {
    /// Whether bodies have to be shown; where not, `step` needs heads and the end only.
    pub fn reads_bodies(&self) -> bool {
        match &self.phase {
            Phase::Requesting(_) | Phase::Answering(_) | Phase::Talking(_) => true,
            Phase::Relaying(relay) => relay.cutter.is_some() || relay.call.body.may_change(),
            Phase::Fresh | Phase::Unmetered | Phase::Denied(_) | Phase::Closed => false,
        }
    }

    /// Whether the call will give an event, so that an [`Ending`] is worth asking the host for.
    pub fn is_metered(&self) -> bool {
        !matches!(self.phase, Phase::Fresh | Phase::Unmetered | Phase::Closed)
    }

    /// Whether the call has become a WebSocket connection that is read, so that
    /// [`Input::Upgraded`] is due.
    pub fn is_upgraded(&self) -> bool {
        matches!(self.phase, Phase::Talking(_))
    }

    /// Whether the response came wholly and with success: no response flag says otherwise then, and
    /// asking for the flags is a host call.
    pub fn ended_well(&self) -> bool {
        match &self.phase {
            Phase::Answering(answer) => answer.ended && answer.call.status.is_some_and(|s| s < 400),
            _ => false,
        }
    }

    /// Whether the time matters to the next input of this kind: asking for it is a host call.
    pub fn needs_time(&self, input: &Input<'_>) -> bool {
        match (&self.phase, input) {
            (Phase::Answering(answer), Input::ResponseBody { .. }) => answer.ttft_ms.is_none(),
            (Phase::Talking(_), _) => true,
            (_, Input::RequestHead { .. } | Input::End(_)) => true,
            _ => false,
        }
    }

    /// Takes one input; what is to be done. `now` is not looked at where
    /// [`Session::needs_time`] says so.
    pub fn step(&mut self, site: &Site, input: Input<'_>, now: Timestamp) -> Effects {
        let phase = std::mem::take(&mut self.phase);
        let (phase, effects) = next(site, phase, input, now);
        self.phase = phase;
        effects
    }
}

fn next(site: &Site, phase: Phase, input: Input<'_>, now: Timestamp) -> (Phase, Effects) {
    match (phase, input) {
        (
            Phase::Fresh,
            Input::RequestHead {
                headers,
                peer,
                ends,
            },
        ) => request::head(site, headers, peer, ends, now),
        (Phase::Fresh | Phase::Unmetered | Phase::Closed, Input::End(_)) => {
            (Phase::Closed, Effects::default())
        }
        (Phase::Unmetered, _) => (Phase::Unmetered, Effects::default()),

        (Phase::Requesting(mut call), Input::RequestBody { chunk, ends }) => {
            let effects = request::body(&mut call, chunk, ends);
            (Phase::Requesting(call), effects)
        }
        (Phase::Requesting(call), Input::ResponseHead { headers, ends }) => {
            response::head(site, call, headers, ends)
        }

        // A provider may answer before it has read the whole request.
        (Phase::Answering(mut answer), Input::RequestBody { chunk, ends }) => {
            let effects = request::body(&mut answer.call, chunk, ends);
            (Phase::Answering(answer), effects)
        }
        (Phase::Relaying(mut relay), Input::RequestBody { chunk, ends }) => {
            let effects = request::body(&mut relay.call, chunk, ends);
            (Phase::Relaying(relay), effects)
        }
        (Phase::Answering(mut answer), Input::ResponseBody { chunk, ends }) => {
            let effects = response::body(&mut answer, chunk, ends, now);
            (Phase::Answering(answer), effects)
        }
        (Phase::Answering(mut answer), Input::ResponseTrailers) => {
            answer.ended = true;
            (Phase::Answering(answer), Effects::default())
        }
        (Phase::Talking(talk), input) => live::step(site, talk, input, now),
        (Phase::Relaying(mut relay), Input::ResponseBody { chunk, ends }) => {
            let effects = response::cut(&mut relay.cutter, chunk, ends);
            (Phase::Relaying(relay), effects)
        }
        (Phase::Relaying(relay), Input::ResponseTrailers) => {
            (Phase::Relaying(relay), Effects::default())
        }
        // Our own answer passes by on its way out.
        (
            Phase::Denied(call),
            Input::ResponseHead { .. } | Input::ResponseBody { .. } | Input::ResponseTrailers,
        ) => (Phase::Denied(call), Effects::default()),

        (Phase::Requesting(call), Input::End(ending)) => {
            finished(call.unanswered(site, ending, now))
        }
        (Phase::Answering(answer), Input::End(ending)) => {
            finished(answer.finished(site, ending, now))
        }
        (Phase::Relaying(relay), Input::End(ending)) => {
            finished(relay.call.relayed(site, ending, now))
        }
        (Phase::Denied(call), Input::End(ending)) => finished(call.denied(site, ending, now)),

        (phase, _) => {
            let effects = Effects {
                counts: vec![(Counter::Faults, 1)],
                ..Effects::default()
            };
            (phase, effects)
        }
    }
}

/// Whether a path alone made us take this for a call, and neither side said anything that a call
/// says: another service has a path of that shape.
fn is_no_call(event: &tollmesh_wire::Event) -> bool {
    let names_no_model = event.model.is_none() && event.model_requested.is_none();
    let is_reported = event.usage_source == UsageSource::Reported.name();
    event.provider.ends_with("-compatible") && names_no_model && !is_reported
}

fn finished(event: tollmesh_wire::Event) -> (Phase, Effects) {
    let mut effects = Effects::default();
    if is_no_call(&event) {
        return (Phase::Closed, effects);
    }
    effects.note_impostors(&event);
    effects.take(&event);
    (Phase::Closed, effects)
}

impl Effects {
    /// Counts tags that pass themselves off as an identity other than the one known.
    fn note_impostors(&mut self, event: &tollmesh_wire::Event) {
        let n = impostors(&event.tags, &event.source);
        if n > 0 {
            self.counts.push((Counter::TagConflicts, n));
        }
    }

    /// Takes an event, and counts what was wrong with its scan.
    fn take(&mut self, event: &tollmesh_wire::Event) {
        let trouble = tollmesh_usage::Trouble::ALL
            .into_iter()
            .find(|kind| event.trouble.as_deref() == Some(kind.name()));
        if let Some(kind) = trouble {
            self.counts.push((Counter::Trouble(kind), 1));
        }
        let mut json = Vec::with_capacity(EVENT_BYTES_USUAL);
        let written = serde_json::to_writer(&mut json, event).is_ok();
        match String::from_utf8(json).ok().filter(|_| written) {
            Some(json) => self.events.push(json),
            None => self.counts.push((Counter::Faults, 1)),
        }
    }
}

#[cfg(test)]
mod tests;
