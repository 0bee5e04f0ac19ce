//! One HTTP call as a state machine: what the proxy says comes in, what is to be done goes out.
//!
//! Nothing here calls the host. Inputs that cannot be in a phase change nothing but a counter, and
//! no phase ever holds traffic back, the bounded tail of [`EventCutter`] aside.

mod admission;
mod call;
mod live;
mod outcome;
mod refusal;
mod request;
mod response;

use std::rc::Rc;

use tollmesh_usage::{DecoderPool, EventCutter, POOL_BYTES_MAX, UsageScanner, UsageSource};
use tollmesh_wire::plugin::OnUnavailable;
use tollmesh_wire::{PluginConfig, Source, Timestamp};

use crate::calibration::Calibrations;
use crate::counters::Counter;
use crate::decisions::Decisions;
use crate::edit::HeaderEdit;
use crate::headers::Headers;
use crate::ids::EventIds;
use crate::shared::{Private, Shared};
use crate::tags::impostors;
use crate::verdicts::Verdicts;

use call::Call;
use live::Conversation;

/// What decoders of requests may have of the memory of all decoders, in bytes: three eighths, so that
/// the largest window there is (16 MiB of `br`, and what its decoder has beside it) finds room; some
/// 500 bodies in `gzip` at once. How long a request takes is its sender's choice, and answers must be
/// read meanwhile.
pub const REQUEST_DECODERS_BYTES_MAX: u64 = POOL_BYTES_MAX / 8 * 3;

/// What every call of one plugin instance shares.
#[derive(Debug)]
pub struct Site {
    /// What the operator configured.
    pub config: PluginConfig,
    /// What requests under this configuration lately were.
    pub verdicts: Verdicts,
    /// Names for events.
    pub ids: Rc<EventIds>,
    /// The caller, where the peer proves nothing else.
    pub source: Source,
    /// What earlier answers taught about each model's tokens; one for all that a VM is configured as.
    pub calibrations: Rc<Calibrations>,
    /// The memory of this VM's decoders, whatever it is configured as.
    pub decoders: DecoderPool,
    /// The part of it that requests may have ([`REQUEST_DECODERS_BYTES_MAX`]).
    pub request_decoders: DecoderPool,
    /// What the aggregator has decided about budgets.
    pub decisions: Rc<Decisions>,
    /// What this worker shares with the others of its proxy.
    pub shared: Rc<dyn Shared>,
}

impl Site {
    /// A site whose calls have taught nothing yet, that knows no budgets and no other workers.
    pub fn new(config: PluginConfig, ids: impl Into<Rc<EventIds>>, source: Source) -> Site {
        let decoders = DecoderPool::default();
        Site {
            config,
            verdicts: Verdicts::default(),
            ids: ids.into(),
            source,
            calibrations: Rc::default(),
            request_decoders: decoders.part(REQUEST_DECODERS_BYTES_MAX),
            decoders,
            decisions: Rc::default(),
            shared: Rc::new(Private::default()),
        }
    }

    /// Whether tags or budgets hang on who calls, so that the peer's identity is worth asking the
    /// host for before the request leaves.
    pub fn asks_who_calls(&self) -> bool {
        self.tags_by_caller() || self.decisions.has_budgets()
    }

    fn tags_by_caller(&self) -> bool {
        !self.config.tags.by_workload.is_empty()
    }

    /// Whether calls have to be judged before they leave.
    fn judges(&self) -> bool {
        self.decisions.has_budgets() || self.refuses_unknown()
    }

    /// Whether calls are refused because no decision was ever received.
    fn refuses_unknown(&self) -> bool {
        let is_wanted = self.config.admission.on_unavailable == OnUnavailable::Deny;
        is_wanted && self.decisions.version().is_none()
    }
}

/// One thing that the proxy says about a call.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// The request's headers; with `ends`, the whole request.
    RequestHead {
        /// The headers.
        headers: &'a Headers<'a>,
        /// The peer's identity by its certificate; asked for only where [`Site::asks_who_calls`].
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
    /// The request ends in trailers.
    RequestTrailers,
    /// What the aggregator answered to [`Effects::asks`], status and body; `None` where it could not
    /// be asked.
    Admission(Option<(u16, &'a [u8])>),
    /// The response's headers.
    ResponseHead {
        /// The headers.
        headers: &'a Headers<'a>,
        /// Whether another proxy of the mesh sent them; asked for only where
        /// [`Session::asks_who_answers`].
        is_from_mesh: bool,
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
    /// What to ask the aggregator (`POST /v1/reservations`), while the request's end is withheld.
    pub asks: Option<String>,
    /// Whether the request's end, which was withheld, may pass.
    pub resumes: bool,
    /// What to count.
    pub counts: Vec<(Counter, u64)>,
    /// Events, as JSON: one a call, one a response of a WebSocket connection.
    pub events: Vec<String>,
    /// Whether the events are waited for: they settle reservations.
    pub is_urgent: bool,
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
    /// The same, to what is no call that can be read: no event comes of it.
    TurnedAway,
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
            Phase::Relaying(_) => self.may_edit_request() || self.may_edit_response(),
            Phase::Fresh
            | Phase::Unmetered
            | Phase::Denied(_)
            | Phase::TurnedAway
            | Phase::Closed => false,
        }
    }

    /// Whether a step may have something sent in the place of a chunk of the request.
    pub fn may_edit_request(&self) -> bool {
        self.call().is_some_and(|call| call.body.may_change()) && !self.is_refused()
    }

    /// Whether a step may have something sent in the place of a chunk of the response.
    pub fn may_edit_response(&self) -> bool {
        match &self.phase {
            Phase::Answering(answer) => answer.cutter.is_some(),
            Phase::Relaying(relay) => relay.cutter.is_some(),
            _ => false,
        }
    }

    /// Whether the request's end waits, so that what comes of it is shown to nobody yet.
    pub fn holds_request(&self) -> bool {
        self.call()
            .is_some_and(|call| call.budgeted.as_ref().is_some_and(|b| b.holds()))
    }

    /// Whether the whole request was seen: bytes that were withheld come again, and are to be shown
    /// only once.
    pub fn is_past_request(&self) -> bool {
        self.call()
            .is_some_and(|call| call.budgeted.as_ref().is_some_and(|b| b.is_past_end()))
    }

    /// Whether the request was refused, so that nothing more of it passes.
    pub fn is_refused(&self) -> bool {
        matches!(self.phase, Phase::Denied(_) | Phase::TurnedAway)
    }

    fn call(&self) -> Option<&Call> {
        match &self.phase {
            Phase::Requesting(call) | Phase::Denied(call) => Some(call),
            Phase::Answering(answer) => Some(&answer.call),
            Phase::Relaying(relay) => Some(&relay.call),
            Phase::Fresh
            | Phase::Unmetered
            | Phase::Talking(_)
            | Phase::TurnedAway
            | Phase::Closed => None,
        }
    }

    /// Whether these headers of a response say what only another proxy of the mesh is believed, so
    /// that it is worth asking the host who sent them.
    pub fn asks_who_answers(&self, headers: &Headers<'_>) -> bool {
        match &self.phase {
            Phase::Requesting(call) => response::has_claim(call, headers),
            _ => false,
        }
    }

    /// Whether the call will give an event, so that an [`Ending`] is worth asking the host for.
    pub fn is_metered(&self) -> bool {
        let is_known = !matches!(self.phase, Phase::Fresh | Phase::Unmetered);
        is_known && !matches!(self.phase, Phase::TurnedAway | Phase::Closed)
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
            (_, Input::RequestHead { .. } | Input::Admission(_) | Input::End(_)) => true,
            (_, Input::RequestBody { .. } | Input::RequestTrailers) => {
                let budgeted = self.call().and_then(|call| call.budgeted.as_ref());
                budgeted.is_some_and(|budgeted| budgeted.awaits_end())
            }
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

/// What says more of the request, or of what becomes of it.
macro_rules! request_input {
    () => {
        Input::RequestBody { .. } | Input::RequestTrailers | Input::Admission(_)
    };
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
        (Phase::Fresh | Phase::Unmetered | Phase::TurnedAway | Phase::Closed, Input::End(_)) => {
            (Phase::Closed, Effects::default())
        }
        (Phase::TurnedAway, _) => (Phase::TurnedAway, Effects::default()),
        (Phase::Unmetered, _) => (Phase::Unmetered, Effects::default()),
        // The aggregator was slower than the call's end.
        (Phase::Closed, Input::Admission(_)) => (Phase::Closed, Effects::default()),

        (Phase::Requesting(mut call), input @ request_input!()) => {
            let effects = request_step(site, &mut call, input, now);
            match effects.denial {
                Some(_) => (Phase::Denied(call), effects),
                None => (Phase::Requesting(call), effects),
            }
        }
        (
            Phase::Requesting(call),
            Input::ResponseHead {
                headers,
                is_from_mesh,
                ends,
            },
        ) => response::head(site, call, headers, is_from_mesh, ends),

        // A provider may answer before it has read the whole request.
        (Phase::Answering(mut answer), input @ request_input!()) => {
            let effects = request_step(site, &mut answer.call, input, now).too_late_to_refuse();
            (Phase::Answering(answer), effects)
        }
        (Phase::Relaying(mut relay), input @ request_input!()) => {
            let effects = request_step(site, &mut relay.call, input, now).too_late_to_refuse();
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
            Input::ResponseHead { .. }
            | Input::ResponseBody { .. }
            | Input::ResponseTrailers
            | request_input!(),
        ) => (Phase::Denied(call), Effects::default()),

        (Phase::Requesting(mut call), Input::End(ending)) => {
            let effects = concluded(&mut call);
            finished(call.unanswered(site, ending, now), effects)
        }
        (Phase::Answering(mut answer), Input::End(ending)) => {
            let effects = concluded(&mut answer.call);
            finished(answer.finished(site, ending, now), effects)
        }
        (Phase::Relaying(mut relay), Input::End(ending)) => {
            let effects = concluded(&mut relay.call);
            finished(relay.call.relayed(site, ending, now), effects)
        }
        (Phase::Denied(mut call), Input::End(ending)) => {
            let effects = concluded(&mut call);
            finished(call.denied(site, ending, now), effects)
        }

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

fn request_step(site: &Site, call: &mut Call, input: Input<'_>, now: Timestamp) -> Effects {
    let mut effects = Effects::default();
    match input {
        Input::RequestBody { .. } if call.is_past_end() => {}
        Input::RequestBody { chunk, ends } => {
            effects = request::body(site, call, chunk, ends, now);
        }
        Input::RequestTrailers if call.is_past_end() => {}
        Input::RequestTrailers => effects = request::body(site, call, &[], true, now),
        Input::Admission(answer) => admission::answered(site, call, answer, now, &mut effects),
        _ => effects.counts.push((Counter::Faults, 1)),
    }
    effects
}

/// What is left to be said of budgets when a call is over.
fn concluded(call: &mut Call) -> Effects {
    let mut effects = Effects::default();
    if let Some(mut budgeted) = call.budgeted.take() {
        budgeted.tell_edits(call.body.facts());
        effects.counts = budgeted.take_counts();
        effects.is_urgent = budgeted.may_be_reserved();
        call.budgeted = Some(budgeted);
    }
    effects
}

fn finished(event: tollmesh_wire::Event, mut effects: Effects) -> (Phase, Effects) {
    if is_no_call(&event) && !effects.is_urgent {
        return (Phase::Closed, Effects::default());
    }
    effects.note_impostors(&event);
    effects.take(&event);
    (Phase::Closed, effects)
}

impl Effects {
    /// The provider has begun to answer. What it was not sent it is not sent now, and its answer
    /// goes on.
    fn too_late_to_refuse(mut self) -> Effects {
        self.denial = None;
        self
    }

    /// Counts tags that pass themselves off as an identity other than the one known.
    fn note_impostors(&mut self, event: &tollmesh_wire::Event) {
        let n = impostors(&event.tags, &event.source);
        if n > 0 {
            self.counts.push((Counter::TagConflicts, n));
        }
    }

    /// Takes the event of a call of which nothing is known but that it is over.
    fn settle(&mut self, event: &tollmesh_wire::Event) {
        self.is_urgent = true;
        self.take(event);
    }

    /// Takes an event, and counts what was wrong with its scan.
    fn take(&mut self, event: &tollmesh_wire::Event) {
        let trouble = tollmesh_usage::Trouble::ALL
            .into_iter()
            .find(|kind| event.trouble.as_deref() == Some(kind.name()));
        if let Some(kind) = trouble {
            self.counts.push((Counter::Trouble(kind), 1));
        }
        match event.to_json() {
            Ok(json) => self.events.push(json),
            Err(_) => self.counts.push((Counter::Faults, 1)),
        }
    }
}

#[cfg(test)]
mod tests;
