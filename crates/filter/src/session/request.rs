//! The request's side of a call: recognised, relieved of its tags, prepared, relayed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use tollmesh_usage::detect::WEBSOCKET;
use tollmesh_usage::{Api, Edits, RequestBody, Target, Trouble};
use tollmesh_wire::plugin::{AcceptEncoding, IncludeUsage, OnMissing, SignedBy};
use tollmesh_wire::{Denied, Source, Subject, Timestamp};

use super::admission::{self, Budgeted};
use super::call::Call;
use super::refusal::{over_budget, untagged};
use super::{Effects, Phase, Site};
use crate::config::{Counted, Verdict};
use crate::counters::Counter;
use crate::edit::HeaderEdit;
use crate::fingerprint::Fingerprint;
use crate::headers::Headers;
use crate::path::with_model;
use crate::signature::Signature;
use crate::source::source;
use crate::tags::{Tagged, missing, tags};
use crate::trace::trace;

/// The most of a host name that an event carries (RFC 1035 allows 255 bytes).
const HOST_BYTES_MAX: usize = 255;
/// The most of a request id that an event carries; Envoy's own have 36 bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;

pub(super) fn head(
    site: &Site,
    headers: &Headers<'_>,
    peer: Option<&str>,
    ends: bool,
    now: Timestamp,
) -> (Phase, Effects) {
    match recognised(site, headers) {
        Verdict::NotOurs => (Phase::Unmetered, Effects::default()),
        Verdict::Free => (Phase::Unmetered, free(site, headers, peer)),
        Verdict::Unreadable { provider, sibling } => {
            unreadable(site, headers, peer, &provider, sibling, now)
        }
        Verdict::Metered { target, counted } => {
            metered(site, headers, peer, target, counted, ends, now)
        }
    }
}

/// What the request is. Its content type has no say in that: an endpoint that is known by its path
/// answers whatever the client calls its body.
fn recognised(site: &Site, headers: &Headers<'_>) -> Verdict {
    let pseudo = |name| headers.text(name).unwrap_or_default();
    let (authority, path) = (pseudo(":authority"), pseudo(":path"));
    let verdict = |method: &str| site.verdicts.of(&site.config, authority, path, method);
    let found = match is_websocket(headers) {
        true => verdict(WEBSOCKET),
        false => verdict(pseudo(":method")),
    };
    // Google's servers go by it (`MethodOverride` of https://googleapis.dev/java/google-api-client),
    // others do not: what either would serve is metered.
    match (found, headers.text("x-http-method-override")) {
        (metered @ Verdict::Metered { .. }, _) => metered,
        (found, None) => found,
        (found, Some(method)) => match verdict(&method.trim().to_ascii_uppercase()) {
            Verdict::NotOurs | Verdict::Free => found,
            put => put,
        },
    }
}

/// Takes the next bytes of the body. Where its end has to be decided about, that is where its last
/// bytes come: the end itself may be told later.
pub(super) fn body(
    site: &Site,
    call: &mut Call,
    chunk: &[u8],
    ends: bool,
    now: Timestamp,
) -> Effects {
    let n_bytes = call.body.n_bytes_sent() + chunk.len() as u64;
    let budgeted = call.budgeted.as_ref();
    let ends = ends || budgeted.is_some_and(|budgeted| budgeted.is_whole_at(n_bytes));
    if let Some(fingerprint) = &mut call.fingerprint {
        fingerprint.push(chunk, ends);
    }
    let mut body = call.body.push(chunk);
    let withheld = if ends { call.body.finish() } else { None };
    if let Some(withheld) = withheld {
        let body = body.get_or_insert_with(|| chunk.to_vec());
        body.extend_from_slice(&withheld);
    }
    let mut effects = Effects {
        body,
        ..Effects::default()
    };
    if ends {
        if call.body.lacks_memory() {
            let kind = Trouble::DecoderBudget;
            effects.counts.push((Counter::Trouble(kind), 1));
        }
        admission::at_end(site, call, now, &mut effects);
    }
    effects
}

/// Who calls, as far as tags hang on it.
fn caller<'a>(site: &'a Site, peer: Option<&str>) -> Cow<'a, Source> {
    match site.tags_by_caller() {
        true => Cow::Owned(source(&site.source, peer)),
        false => Cow::Borrowed(&site.source),
    }
}

/// Envoy shows HTTP/2's extended CONNECT (RFC 8441) in HTTP/1's form, too. With another method no
/// server opens one (RFC 6455, 4.2.1), and answers as if it had not been asked.
fn is_websocket(headers: &Headers<'_>) -> bool {
    if !matches!(headers.text(":method"), Some("GET" | "CONNECT")) {
        return false;
    }
    let upgrade = headers.get("upgrade").unwrap_or_default();
    upgrade.eq_ignore_ascii_case(b"websocket")
}

/// The signature that must stay valid: not one that Envoy makes anew after us.
fn signature<'h>(site: &Site, headers: &Headers<'h>) -> Signature<'h> {
    match (Signature::of(headers), site.config.signed_by) {
        (Signature::Aws { .. }, SignedBy::Envoy) => Signature::None,
        (signature, _) => signature,
    }
}

/// Tags are for us, also where there is nothing to put them on: SDKs send them with every request.
fn free(site: &Site, headers: &Headers<'_>, peer: Option<&str>) -> Effects {
    let signature = signature(site, headers);
    let tagged = tags(&site.config.tags, headers, &signature, &caller(site, peer));
    Effects {
        edits: tagged.edits,
        ..Effects::default()
    }
}

/// Tags are for us here, too; and budgets that ask for nothing
/// that only a body says judge what we cannot read, too, since it may well cost.
fn unreadable(
    site: &Site,
    headers: &Headers<'_>,
    peer: Option<&str>,
    provider: &str,
    sibling: Api,
    now: Timestamp,
) -> (Phase, Effects) {
    let signature = signature(site, headers);
    let tagged = tags(&site.config.tags, headers, &signature, &caller(site, peer));
    let mut effects = Effects {
        edits: tagged.edits,
        ..Effects::default()
    };
    if site.judges() {
        let subject = Subject {
            provider,
            model: None,
            tags: &tagged.tags,
            source: &source(&site.source, peer),
        };
        let (counts, refused) = admission::unread(site, &subject, now);
        effects.counts = counts;
        if let Some(denied) = &refused {
            effects.counts.push((Counter::DeniedRequests, 1));
            effects.denial = Some(over_budget(sibling, denied, None, now));
            return (Phase::TurnedAway, effects);
        }
    }
    effects.counts.push((Counter::UnmeteredProviderCalls, 1));
    (Phase::Unmetered, effects)
}

fn metered(
    site: &Site,
    headers: &Headers<'_>,
    peer: Option<&str>,
    target: Target,
    counted: Counted,
    ends: bool,
    now: Timestamp,
) -> (Phase, Effects) {
    let is_gateway = counted.is_behind();
    let signature = signature(site, headers);
    let tagged = tags(&site.config.tags, headers, &signature, &caller(site, peer));
    let missing_tags = missing(&site.config.tags, &tagged.tags);
    let mut effects = Effects {
        counts: counts(&tagged, &missing_tags),
        // The gateway's event is the one that costs, so the tags are for the gateway's filter.
        edits: if is_gateway { Vec::new() } else { tagged.edits },
        ..Effects::default()
    };
    let costs = target.billable || target.is_charged_later();
    let (mut budgeted, refused) = match costs && !is_gateway {
        // What costs nothing here is nobody's to budget here.
        false => (None, None),
        true => admit(site, peer, &target, &tagged.tags, now),
    };
    if let Some(budgeted) = &mut budgeted {
        let path = edited_path(headers, &target, &signature, budgeted);
        effects.edits.extend(path);
        effects.counts.append(&mut budgeted.take_counts());
    }
    let encoding = content_encoding(headers);
    let edits = match encoding {
        None => body_edits(site, &target, &signature, budgeted.as_deref()),
        Some(_) => Edits::default(),
    };
    let is_read = !is_gateway || edits.include_usage;
    if site.config.accept_encoding == AcceptEncoding::Narrow && is_read {
        let edit = narrowed(headers, &signature, edits.include_usage);
        effects.edits.extend(edit);
    }
    let content_type = headers.text("content-type");
    let body = match (is_websocket(headers), encoding) {
        // Frames are read in another place, and never edited.
        (true, _) => RequestBody::unread(&target),
        (false, None) => RequestBody::new(&target, content_type, edits),
        (false, Some(encoding)) => {
            RequestBody::encoded(&target, content_type, &encoding, &site.request_decoders)
        }
    };
    if let Some(budgeted) = &mut budgeted {
        budgeted.may_edit = body.may_change();
        let length = headers.text("content-length");
        budgeted.expect(length.and_then(|length| length.parse().ok()));
    }
    if body.may_change() && !ends && headers.has("content-length") {
        let length = HeaderEdit::Remove("content-length".into());
        effects.edits.push(length);
    }
    let is_untagged = site.config.tags.on_missing == OnMissing::Deny && !missing_tags.is_empty();
    effects.denial = is_untagged.then(|| untagged(&site.config.tags, target.api, &missing_tags));
    let call = Box::new(Call {
        event_id: site.ids.next(),
        started: now,
        target,
        counted,
        host: kept(headers, ":authority", HOST_BYTES_MAX).unwrap_or_default(),
        request_id: kept(headers, "x-request-id", REQUEST_ID_BYTES_MAX),
        trace: trace(headers),
        tags: tagged.tags,
        missing_tags,
        body,
        budgeted,
        fingerprint: site.config.fingerprint.as_ref().map(Fingerprint::new),
        status: effects.denial.as_ref().map(|denial| denial.status),
        is_stream: false,
        is_websocket: is_websocket(headers),
    });
    if effects.denial.is_some() {
        effects.counts.push((Counter::DeniedRequests, 1));
        return (Phase::Denied(call), effects);
    }
    enter(site, call, refused, ends, now, effects)
}

/// Lets a call in, or not: by what the table says, and at once where no body is to be seen first.
fn enter(
    site: &Site,
    mut call: Box<Call>,
    refused: Option<Denied>,
    ends: bool,
    now: Timestamp,
    mut effects: Effects,
) -> (Phase, Effects) {
    if let Some(denied) = &refused {
        admission::refuse(&mut call, denied, now, &mut effects);
    } else if ends || call.is_websocket {
        admission::at_end(site, &mut call, now, &mut effects);
    }
    match effects.denial {
        Some(_) => (Phase::Denied(call), effects),
        None => (Phase::Requesting(call), effects),
    }
}

fn admit(
    site: &Site,
    peer: Option<&str>,
    target: &Target,
    tags: &BTreeMap<String, String>,
    now: Timestamp,
) -> (Option<Box<Budgeted>>, Option<Denied>) {
    if !site.judges() {
        return (None, None);
    }
    let subject = Subject {
        provider: &target.provider,
        model: target.path_model.as_deref(),
        tags,
        source: &source(&site.source, peer),
    };
    admission::at_head(site, &subject, target.is_charged_later(), now)
}

/// The path with a cheaper model in it, where a budget wants that and the path can have it.
fn edited_path(
    headers: &Headers<'_>,
    target: &Target,
    signature: &Signature<'_>,
    budgeted: &mut Budgeted,
) -> Option<HeaderEdit> {
    let asked = target.path_model.as_ref()?;
    let put = budgeted.put_for(asked)?;
    let path = headers
        .text(":path")
        .filter(|_| signature.leaves_path_free())?;
    let path = with_model(path, asked, &put)?;
    budgeted.path_put = Some(put);
    Some(HeaderEdit::Set(":path".into(), path.into_bytes()))
}

/// What is to be counted about the tags of a call.
fn counts(tagged: &Tagged, missing_tags: &[String]) -> Vec<(Counter, u64)> {
    let n_untagged = u64::from(!missing_tags.is_empty());
    let counts = [
        (Counter::TagsRefused, tagged.n_refused),
        (Counter::TagConflicts, tagged.n_conflicts),
        (Counter::UntaggedRequests, n_untagged),
    ];
    counts.into_iter().filter(|(_, n)| *n > 0).collect()
}

/// How the body is encoded, where it is: all that its headers say, which may be several.
fn content_encoding(headers: &Headers<'_>) -> Option<String> {
    const NAME: &str = "content-encoding";
    let first = headers.get(NAME)?;
    let values = headers.iter().filter(|(name, _)| *name == NAME.as_bytes());
    let values: Vec<_> = values
        .map(|(_, value)| String::from_utf8_lossy(value))
        .collect();
    let is_plain = values.len() == 1 && first.eq_ignore_ascii_case(b"identity");
    (!is_plain).then(|| values.join(","))
}

/// What may be changed in the body of this request, which is not encoded.
fn body_edits(
    site: &Site,
    target: &Target,
    signature: &Signature<'_>,
    budgeted: Option<&Budgeted>,
) -> Edits {
    if !signature.leaves_body_free() {
        return Edits::default();
    }
    let is_wanted = site.config.include_usage == IncludeUsage::InjectAndStrip;
    Edits {
        include_usage: is_wanted && target.may_include_usage,
        replacer: budgeted.and_then(Budgeted::replacer),
        max_output_tokens: budgeted.and_then(Budgeted::cap),
        ..Edits::default()
    }
}

/// `accept-encoding` cut to what can be read at little cost, and never to what the app did not
/// offer. Nothing can be cut out of a compressed stream, so where that may be needed compression
/// is not accepted at all.
fn narrowed(headers: &Headers<'_>, signature: &Signature<'_>, may_cut: bool) -> Option<HeaderEdit> {
    let offered = headers.get("accept-encoding")?;
    if !signature.leaves_header_free("accept-encoding") {
        return None;
    }
    let narrow: &[u8] = match !may_cut && offers_gzip(offered) {
        true => b"gzip",
        false => b"identity",
    };
    if offered == narrow {
        return None;
    }
    Some(HeaderEdit::Set("accept-encoding".into(), narrow.to_vec()))
}

/// Whether a list of codings has `gzip`, by name or by `*`, without refusing it by `q=0`
/// (RFC 9110, 12.5.3).
fn offers_gzip(accept_encoding: &[u8]) -> bool {
    let list = String::from_utf8_lossy(accept_encoding).to_ascii_lowercase();
    let mut star = false;
    for entry in list.split(',') {
        let mut parts = entry.split(';').map(str::trim);
        let coding = parts.next().unwrap_or_default();
        let quality = parts.find_map(|part| part.strip_prefix("q="));
        let is_refused = quality.is_some_and(|q| q.bytes().all(|b| matches!(b, b'0' | b'.')));
        match coding {
            "gzip" | "x-gzip" => return !is_refused,
            "*" => star = !is_refused,
            _ => {}
        }
    }
    star
}

fn kept(headers: &Headers<'_>, name: &str, bytes_max: usize) -> Option<String> {
    let value = headers.text(name)?;
    let end = value.floor_char_boundary(bytes_max);
    Some(value.get(..end)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_encoding_never_grows() {
        for (offered, may_cut, expected) in [
            ("gzip, br", false, Some("gzip")),
            ("br;q=1.0, gzip;q=0.8, *;q=0.1", false, Some("gzip")),
            ("*", false, Some("gzip")),
            ("gzip", false, None),
            ("br", false, Some("identity")),
            ("gzip;q=0, *", false, Some("identity")),
            ("GZIP;Q=0.5", false, Some("gzip")),
            ("identity", false, None),
            ("gzip", true, Some("identity")),
            ("identity", true, None),
        ] {
            let pair: [(&[u8], &[u8]); 1] = [(b"accept-encoding", offered.as_bytes())];
            let headers = pair.into_iter().collect();
            let edit = narrowed(&headers, &Signature::None, may_cut);
            let expected =
                expected.map(|v| HeaderEdit::Set("accept-encoding".into(), v.as_bytes().to_vec()));
            assert_eq!(edit, expected, "{offered}");
        }
        assert_eq!(narrowed(&Headers::default(), &Signature::None, true), None);
    }
}
