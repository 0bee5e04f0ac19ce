//! The response's side of a call: read as it streams by, one event of ours cut out of it.

use tollmesh_usage::{EventCutter, UsageScanner};
use tollmesh_wire::Timestamp;
use tollmesh_wire::plugin::OnMissing;

use super::call::{Call, elapsed_ms};
use super::refusal::{BUDGET_HEADER, EVENT_HEADER};
use super::{Answer, Effects, Phase, Relay, Site, live};
use crate::config::Counted;
use crate::counters::Counter;
use crate::edit::HeaderEdit;
use crate::headers::Headers;

/// RFC 9110, 15.2.2.
const SWITCHING_PROTOCOLS: u16 = 101;

/// Names the required tags that the call lacks, for whoever can add them.
const MISSING_TAGS_HEADER: &str = "x-tollmesh-missing-tags";

pub(super) fn head(
    site: &Site,
    mut call: Box<Call>,
    headers: &Headers<'_>,
    is_from_mesh: bool,
    ends: bool,
) -> (Phase, Effects) {
    let status = headers.text(":status").and_then(|text| text.parse().ok());
    call.status = status;
    call.is_stream = is_stream(headers);
    let mut effects = Effects::default();
    let cutter = cutter(&call, headers, &mut effects);
    if site.config.tags.on_missing == OnMissing::Header && !call.missing_tags.is_empty() {
        let names = call.missing_tags.join(", ").into_bytes();
        let edit = HeaderEdit::Set(MISSING_TAGS_HEADER.into(), names);
        effects.edits.push(edit);
    }
    let is_claimed = headers.has(EVENT_HEADER);
    let is_relayed = match call.counted {
        Counted::Behind => true,
        Counted::Here => false,
        Counted::HereUnlessTold => is_claimed && is_from_mesh,
    };
    if is_claimed && !is_relayed {
        effects.counts.push((Counter::RelayClaimsRefused, 1));
    }
    let is_told = is_relayed && headers.has(BUDGET_HEADER);
    tell_budgets(&mut call, is_told, &mut effects);
    if is_relayed {
        let relay = Relay {
            call: *call,
            cutter,
        };
        return (Phase::Relaying(Box::new(relay)), effects);
    }
    let name = call.event_id.clone().into_bytes();
    effects
        .edits
        .push(HeaderEdit::Set(EVENT_HEADER.into(), name));
    if call.is_websocket && status == Some(SWITCHING_PROTOCOLS) {
        return live::head(site, *call, headers, effects);
    }
    let answer = Answer {
        scanner: UsageScanner::of(
            &call.target,
            call.body.facts(),
            status.unwrap_or(0),
            |name| headers.text(name),
            &site.decoders,
        ),
        call: *call,
        cutter,
        ttft_ms: None,
        ended: ends,
    };
    (Phase::Answering(Box::new(answer)), effects)
}

/// Whether the answer says that its call was counted elsewhere, and is believed where it comes from
/// the mesh.
pub(super) fn has_claim(call: &Call, headers: &Headers<'_>) -> bool {
    call.counted == Counted::HereUnlessTold && headers.has(EVENT_HEADER)
}

/// Tells the app what budgets did to its call. A filter nearer to the provider has the first word.
fn tell_budgets(call: &mut Call, is_told: bool, effects: &mut Effects) {
    let Some(mut budgeted) = call.budgeted.take() else {
        return;
    };
    let notice = budgeted.notice(call, &mut effects.counts);
    if let Some(notice) = notice.filter(|_| !is_told) {
        let edit = HeaderEdit::Set(BUDGET_HEADER.into(), notice.into_bytes());
        effects.edits.push(edit);
    }
    call.budgeted = Some(budgeted);
}

pub(super) fn body(answer: &mut Answer, chunk: &[u8], ends: bool, now: Timestamp) -> Effects {
    answer.ended |= ends;
    answer.scanner.push(chunk);
    if answer.ttft_ms.is_none() && answer.scanner.has_content() {
        answer.ttft_ms = Some(elapsed_ms(answer.call.started, now));
    }
    let plain = answer.scanner.plain_events();
    let cutter = answer.cutter.as_mut();
    Effects {
        body: cutter.and_then(|c| c.push_past(chunk, plain, ends)),
        ..Effects::default()
    }
}

/// Cuts where nothing is scanned.
pub(super) fn cut(cutter: &mut Option<EventCutter>, chunk: &[u8], ends: bool) -> Effects {
    Effects {
        body: cutter.as_mut().and_then(|c| c.push(chunk, ends)),
        ..Effects::default()
    }
}

/// What cuts the usage event out, where we asked for it and it can be cut: bytes that are held
/// when trailers come would be lost, and a compressed stream cannot be cut at all.
fn cutter(call: &Call, headers: &Headers<'_>, effects: &mut Effects) -> Option<EventCutter> {
    let has_event = call.body.facts().usage_injected && is_event_stream(headers);
    if !has_event || call.status != Some(200) {
        return None;
    }
    let encoding = headers.get("content-encoding").unwrap_or(b"identity");
    let is_plain = encoding.eq_ignore_ascii_case(b"identity");
    if !is_plain || headers.has("trailer") {
        effects.counts.push((Counter::UsageEventsLeft, 1));
        return None;
    }
    if headers.has("content-length") {
        let length = HeaderEdit::Remove("content-length".into());
        effects.edits.push(length);
    }
    Some(EventCutter::new())
}

fn is_event_stream(headers: &Headers<'_>) -> bool {
    has_type(headers, &["text/event-stream"])
}

/// Content types that only streams have.
fn is_stream(headers: &Headers<'_>) -> bool {
    has_type(
        headers,
        &[
            "text/event-stream",
            "application/x-ndjson",
            "application/vnd.amazon.eventstream",
        ],
    )
}

fn has_type(headers: &Headers<'_>, types: &[&str]) -> bool {
    let value = headers.text("content-type").unwrap_or_default();
    let essence = value.split(';').next().unwrap_or_default().trim();
    types.iter().any(|t| essence.eq_ignore_ascii_case(t))
}
