//! A call that has become a WebSocket connection: each of its responses gives an event at once.

use tollmesh_usage::estimate;
use tollmesh_usage::{Api, LiveAnswer, LiveScanner, RequestFacts};
use tollmesh_wire::{Event, Timestamp};

use super::call::{Call, elapsed_ms, tell};
use super::outcome::outcome;
use super::{Effects, Ending, Input, Phase, Site};
use crate::counters::Counter;
use crate::headers::Headers;
use crate::source::source;

/// A connection that is read.
pub(super) struct Conversation {
    /// What every event of the connection says.
    template: Event,
    api: Api,
    scanner: LiveScanner,
    n_events: u64,
    is_broken: bool,
    /// Whether a reservation may stand that no event has settled.
    owes: bool,
}

/// The provider has agreed to speak WebSocket. What extensions make of the frames
/// (`permessage-deflate`) is not read: such a connection passes, and is counted.
pub(super) fn head(
    site: &Site,
    call: Call,
    headers: &Headers<'_>,
    mut effects: Effects,
) -> (Phase, Effects) {
    let owes = call
        .budgeted
        .as_ref()
        .is_some_and(|budgeted| budgeted.may_be_reserved());
    let api = call.target.api;
    let scanner = LiveScanner::new(&call.target);
    let started = call.started;
    let mut template = call.event(site, &Ending::default(), started);
    template.stream = true;
    if headers.has("sec-websocket-extensions") {
        effects.edits.clear();
        effects.counts.push((Counter::UnmeteredProviderCalls, 1));
        if owes {
            effects.settle(&template);
        }
        return (Phase::Unmetered, effects);
    }
    let conversation = Conversation {
        template,
        api,
        scanner,
        n_events: 0,
        is_broken: false,
        owes,
    };
    (Phase::Talking(Box::new(conversation)), effects)
}

pub(super) fn step(
    site: &Site,
    mut talk: Box<Conversation>,
    input: Input<'_>,
    now: Timestamp,
) -> (Phase, Effects) {
    let now_ms = now.as_unix_ms();
    let mut effects = Effects::default();
    match input {
        Input::RequestBody { chunk, .. } => talk.scanner.push_client(chunk, now_ms),
        Input::ResponseBody { chunk, .. } => {
            for answer in talk.scanner.push_server(chunk, now_ms) {
                let event = talk.event(site, answer, true);
                effects.is_urgent |= event.reservation_id.is_some();
                effects.take(&event);
            }
        }
        Input::Upgraded(known) => {
            talk.template.attempts = known.attempts;
            talk.template.source = source(&site.source, known.principal);
            effects.note_impostors(&talk.template);
        }
        Input::End(ending) => return talk.end(site, ending, now_ms),
        Input::ResponseTrailers | Input::RequestTrailers => {}
        Input::RequestHead { .. } | Input::ResponseHead { .. } | Input::Admission(_) => {
            effects.counts.push((Counter::Faults, 1));
        }
    }
    talk.note_break(&mut effects);
    (Phase::Talking(talk), effects)
}

impl Conversation {
    /// The connection has ended, and with it what was in progress.
    fn end(mut self, site: &Site, ending: Ending<'_>, now_ms: i64) -> (Phase, Effects) {
        let mut effects = Effects::default();
        self.template.response_flags = ending.response_flags;
        for answer in self.scanner.finish(now_ms) {
            let event = self.event(site, answer, false);
            effects.is_urgent |= event.reservation_id.is_some();
            effects.take(&event);
        }
        if self.owes {
            effects.settle(&self.template);
        }
        (Phase::Closed, effects)
    }

    /// What cannot be read from here on is counted, once.
    fn note_break(&mut self, effects: &mut Effects) {
        if self.scanner.is_broken() && !std::mem::replace(&mut self.is_broken, true) {
            effects.counts.push((Counter::UnmeteredProviderCalls, 1));
        }
    }

    fn event(&mut self, site: &Site, mut answer: LiveAnswer, ended: bool) -> Event {
        self.n_events += 1;
        self.complete(site, &mut answer, ended);
        let at = Timestamp::from_unix_ms;
        let started = at(answer.started_ms);
        // The connection was reserved as one call, and its first event is that call's.
        let reservation_id = self.template.reservation_id.take();
        let applied = std::mem::take(&mut self.template.applied);
        self.owes &= reservation_id.is_none();
        let base = &self.template;
        let mut event = Event {
            event_id: format!("{}.{}", base.event_id, self.n_events),
            time: started,
            duration_ms: elapsed_ms(started, at(answer.ended_ms)),
            ttft_ms: answer.content_ms.map(|ms| elapsed_ms(started, at(ms))),
            model_requested: answer.model_requested,
            service_tier: answer.service_tier_requested,
            reservation_id,
            applied,
            outcome: outcome(base.status, ended, &answer.scan),
            ..base.clone()
        };
        tell(&mut event, answer.scan);
        event
    }

    /// Estimates what a cut response of text did not report. What was said and heard is no measure
    /// of tokens, so sessions of audio are left as they are.
    fn complete(&self, site: &Site, answer: &mut LiveAnswer, has_ended: bool) {
        if self.api != Api::OpenAiResponses {
            return;
        }
        let model = answer.model_requested.as_ref();
        let model = model.or(answer.scan.model.as_ref()).cloned();
        let call = estimate::Call {
            api: self.api,
            request: &RequestFacts::default(),
            // The handshake's says nothing about a response.
            status: None,
            has_ended,
        };
        let (provider, model) = (&self.template.provider, model.unwrap_or_default());
        site.calibrations
            .settle(provider, &model, &mut answer.scan, &call);
    }
}
