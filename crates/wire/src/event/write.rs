//! Events as JSON, written member by member: the filter writes one for each call, in its way.
//!
//! The text is the one that `serde_json` would write, which a test compares. It is written here
//! since each piece that `serde_json` writes is a call out of the module in WebAssembly: here names
//! and punctuation are constants that go out in a few stores, and what a usual call does not have
//! costs one look.

use std::collections::BTreeMap;

use serde::Serialize;
use tollmesh_usage::Usage;

use super::{Event, Kind, Outcome, Source};

/// What most events need, in bytes, so that writing one allocates once.
const EVENT_BYTES_USUAL: usize = 1024;

/// The most digits of a `u64`.
const DIGITS_MAX: usize = 20;

impl Event {
    /// The event as one JSON object, without a line end.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut writer = Writer {
            json: String::with_capacity(EVENT_BYTES_USUAL),
            failure: None,
        };
        writer.event(self);
        match writer.failure {
            None => Ok(writer.json),
            Some(failure) => Err(failure),
        }
    }
}

struct Writer {
    json: String,
    failure: Option<serde_json::Error>,
}

impl Writer {
    /// Every member in the order in which [`Event`] declares them.
    fn event(&mut self, event: &Event) {
        self.call(event);
        self.answer(event);
        self.verdict(event);
        self.literal("}");
    }

    fn call(&mut self, event: &Event) {
        self.text("{\"event_id\":", &event.event_id);
        self.literal(match event.kind {
            Kind::Call => ",\"kind\":\"call\"",
            Kind::LateUsage => ",\"kind\":\"late_usage\"",
        });
        self.some_text(",\"request_id\":", &event.request_id);
        self.some_text(",\"trace_id\":", &event.trace_id);
        self.some_text(",\"span_id\":", &event.span_id);
        self.some_text(",\"fingerprint\":", &event.fingerprint);
        self.literal(",\"time\":\"");
        self.json.push_str(event.time.text().as_str());
        self.number("\",\"duration_ms\":", event.duration_ms);
        self.some_number(",\"ttft_ms\":", event.ttft_ms);
        self.text(",\"provider\":", &event.provider);
        self.text(",\"api\":", &event.api);
        self.text(",\"host\":", &event.host);
    }

    fn answer(&mut self, event: &Event) {
        self.some_text(",\"model_requested\":", &event.model_requested);
        self.some_text(",\"model_put\":", &event.model_put);
        self.some_text(",\"model\":", &event.model);
        self.some_text(",\"response_id\":", &event.response_id);
        self.truth(",\"stream\":", event.stream);
        self.usage(",\"usage\":", &event.usage);
        if let Some(usage) = &event.billed_usage {
            self.usage(",\"billed_usage\":", usage);
        }
        self.text(",\"usage_source\":", &event.usage_source);
        self.some_text(",\"estimate_basis\":", &event.estimate_basis);
        self.truth(",\"billable\":", event.billable);
        if !event.extra_usage.is_empty() {
            self.value(",\"extra_usage\":", &event.extra_usage);
        }
        self.some_text(",\"provider_cost_usd\":", &event.provider_cost_usd);
        self.some_text(",\"service_tier\":", &event.service_tier);
        self.texts(",\"pricing_context\":", &event.pricing_context);
        self.some_text(",\"finish_reason\":", &event.finish_reason);
        self.some_number(",\"tool_calls\":", event.tool_calls);
    }

    fn verdict(&mut self, event: &Event) {
        self.some_number(",\"status\":", event.status);
        self.literal(match event.outcome {
            Outcome::Success => ",\"outcome\":\"success\"",
            Outcome::Error => ",\"outcome\":\"error\"",
            Outcome::Aborted => ",\"outcome\":\"aborted\"",
            Outcome::Denied => ",\"outcome\":\"denied\"",
            Outcome::Relayed => ",\"outcome\":\"relayed\"",
        });
        if event.response_flags != 0 {
            self.number(",\"response_flags\":", event.response_flags);
        }
        self.number(",\"attempts\":", event.attempts.into());
        self.texts(",\"tags\":", &event.tags);
        if !event.missing_tags.is_empty() {
            self.value(",\"missing_tags\":", &event.missing_tags);
        }
        self.source(&event.source);
        self.some_text(",\"reservation_id\":", &event.reservation_id);
        if !event.applied.is_empty() {
            self.value(",\"applied\":", &event.applied);
        }
        self.some_text(",\"trouble\":", &event.trouble);
    }

    fn source(&mut self, source: &Source) {
        let Source {
            namespace,
            workload,
            service_account,
            principal,
            pod,
            node,
            cluster,
        } = source;
        self.literal(",\"source\":{");
        let before = self.json.len();
        self.some_text(",\"namespace\":", namespace);
        self.some_text(",\"workload\":", workload);
        self.some_text(",\"service_account\":", service_account);
        self.some_text(",\"principal\":", principal);
        self.some_text(",\"pod\":", pod);
        self.some_text(",\"node\":", node);
        self.some_text(",\"cluster\":", cluster);
        // The first member has nothing before it.
        if self.json.len() > before {
            self.json.remove(before);
        }
        self.literal("}");
    }

    /// Token counts here; units, which few calls have, as they come.
    fn usage(&mut self, name: &'static str, usage: &Usage) {
        if usage.units().next().is_some() {
            return self.value(name, usage);
        }
        self.literal(name);
        let mut before = "{\"";
        for (bucket, n_tokens) in usage.tokens() {
            self.json.push_str(before);
            self.json.push_str(bucket.name());
            self.number("\":", n_tokens);
            before = ",\"";
        }
        self.literal(if before == "{\"" { "{}" } else { "}" });
    }

    fn texts(&mut self, name: &'static str, texts: &BTreeMap<String, String>) {
        if texts.is_empty() {
            return;
        }
        self.literal(name);
        let mut before = "{";
        for (key, text) in texts {
            self.literal(before);
            self.string(key);
            self.text(":", text);
            before = ",";
        }
        self.literal("}");
    }

    #[inline]
    fn some_text(&mut self, name: &'static str, text: &Option<String>) {
        if let Some(text) = text {
            self.text(name, text);
        }
    }

    #[inline]
    fn text(&mut self, name: &'static str, text: &str) {
        self.literal(name);
        self.string(text);
    }

    fn string(&mut self, text: &str) {
        let is_special = |byte| byte < b' ' || byte == b'"' || byte == b'\\';
        // Not `any`: a loop that looks at every byte looks at sixteen at a time.
        if text.bytes().fold(false, |is, byte| is | is_special(byte)) {
            return self.value("", text);
        }
        self.json.push('"');
        self.json.push_str(text);
        self.json.push('"');
    }

    #[inline]
    fn some_number(&mut self, name: &'static str, n: Option<impl Into<u64>>) {
        if let Some(n) = n {
            self.number(name, n.into());
        }
    }

    #[inline]
    fn number(&mut self, name: &'static str, n: u64) {
        self.literal(name);
        self.digits(n);
    }

    fn digits(&mut self, n: u64) {
        let mut digits = [b'0'; DIGITS_MAX];
        let mut rest = n;
        let mut n_digits = 0;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
            n_digits += 1;
            if rest == 0 {
                break;
            }
        }
        let (_, written) = digits.split_at(DIGITS_MAX - n_digits);
        self.json.extend(written.iter().copied().map(char::from));
    }

    #[inline]
    fn truth(&mut self, name: &'static str, is_so: bool) {
        self.literal(name);
        self.literal(if is_so { "true" } else { "false" });
    }

    /// What a usual call does not have, in `serde_json`'s way.
    #[cold]
    fn value(&mut self, name: &'static str, value: &(impl Serialize + ?Sized)) {
        self.literal(name);
        match serde_json::to_string(value) {
            Ok(json) => self.json.push_str(&json),
            Err(failure) => self.failure = Some(failure),
        }
    }

    /// Inlined, so that the length is known where it is called, and no loop is needed.
    #[inline(always)]
    fn literal(&mut self, text: &'static str) {
        self.json.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tollmesh_usage::{Bucket, Quantity, Unit};

    use super::*;
    use crate::{Applied, ExtraUsage, Timestamp};

    fn some_text() -> impl Strategy<Value = Option<String>> {
        proptest::option::of(text())
    }

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            "[a-z0-9._-]{0,40}",
            any::<String>(),
            Just("\"\\\u{0}\u{1f}\u{7f}\n\u{2028}ü".to_owned()),
        ]
    }

    fn texts() -> impl Strategy<Value = BTreeMap<String, String>> {
        proptest::collection::btree_map(text(), text(), 0..4)
    }

    fn usage() -> impl Strategy<Value = Usage> {
        let tokens = proptest::collection::vec((0..11_usize, any::<u64>()), 0..5);
        (tokens, proptest::option::of(any::<u64>())).prop_map(|(tokens, unit)| {
            let mut usage = Usage::new();
            for (at, n) in tokens {
                usage.set(Bucket::ALL[at], n);
            }
            if let Some(n) = unit {
                usage.set_unit(Unit::AudioSeconds, Quantity::thousandths(n));
            }
            usage
        })
    }

    fn source() -> impl Strategy<Value = Source> {
        let first = (some_text(), some_text(), some_text());
        let rest = (some_text(), some_text(), some_text(), some_text());
        (first, rest).prop_map(|((namespace, workload, service_account), rest)| Source {
            namespace,
            workload,
            service_account,
            principal: rest.0,
            pod: rest.1,
            node: rest.2,
            cluster: rest.3,
        })
    }

    prop_compose! {
        fn call()(
            names in (text(), text(), text(), text()),
            ids in (some_text(), some_text(), some_text(), some_text()),
            is_late in any::<bool>(),
            time in any::<i64>(),
            duration_ms in any::<u64>(),
            ttft_ms in any::<Option<u64>>(),
            models in (some_text(), some_text(), some_text(), some_text()),
        ) -> Event {
            Event {
                event_id: names.0,
                kind: if is_late { Kind::LateUsage } else { Kind::Call },
                request_id: ids.0,
                trace_id: ids.1,
                span_id: ids.2,
                fingerprint: ids.3,
                time: Timestamp::from_unix_ms(time),
                duration_ms,
                ttft_ms,
                provider: names.1,
                api: names.2,
                host: names.3,
                model_requested: models.0,
                model_put: models.1,
                model: models.2,
                response_id: models.3,
                ..Event::default()
            }
        }
    }

    prop_compose! {
        fn event()(
            call in call(),
            usages in (usage(), proptest::option::of(usage())),
            flags in (any::<bool>(), any::<bool>(), any::<bool>()),
            texts in (text(), some_text(), some_text(), some_text(), some_text(), some_text()),
            numbers in (any::<Option<u32>>(), any::<Option<u16>>(), any::<u64>(), any::<u32>()),
            maps in (texts(), texts()),
            missing_tags in proptest::collection::vec(text(), 0..3),
            outcome in 0..5_usize,
            source in source(),
            trouble in some_text(),
        ) -> Event {
            let outcomes = [
                Outcome::Success,
                Outcome::Error,
                Outcome::Aborted,
                Outcome::Denied,
                Outcome::Relayed,
            ];
            let extra = ExtraUsage {
                kind: "advisor".to_owned(),
                model: None,
                usage: usages.0.clone(),
            };
            Event {
                stream: flags.0,
                usage: usages.0,
                billed_usage: usages.1,
                usage_source: texts.0,
                estimate_basis: texts.1,
                billable: flags.1,
                extra_usage: if flags.2 { vec![extra] } else { Vec::new() },
                provider_cost_usd: texts.2,
                service_tier: texts.3,
                pricing_context: maps.0,
                finish_reason: texts.4,
                tool_calls: numbers.0,
                status: numbers.1,
                outcome: outcomes[outcome],
                response_flags: if flags.0 { numbers.2 } else { 0 },
                attempts: numbers.3,
                tags: maps.1,
                missing_tags,
                source,
                reservation_id: texts.5,
                applied: if flags.2 { vec![Applied::default()] } else { Vec::new() },
                trouble,
                ..call
            }
        }
    }

    /// A member that is added to [`Event`] is missing here until somebody has thought of the writer.
    #[test]
    fn every_member_is_known() {
        let Event {
            event_id: _,
            kind: _,
            request_id: _,
            trace_id: _,
            span_id: _,
            fingerprint: _,
            time: _,
            duration_ms: _,
            ttft_ms: _,
            provider: _,
            api: _,
            host: _,
            model_requested: _,
            model_put: _,
            model: _,
            response_id: _,
            stream: _,
            usage: _,
            billed_usage: _,
            usage_source: _,
            estimate_basis: _,
            billable: _,
            extra_usage: _,
            provider_cost_usd: _,
            service_tier: _,
            pricing_context: _,
            finish_reason: _,
            tool_calls: _,
            status: _,
            outcome: _,
            response_flags: _,
            attempts: _,
            tags: _,
            missing_tags: _,
            source: _,
            reservation_id: _,
            applied: _,
            trouble: _,
        } = Event::default();
    }

    #[test]
    fn the_least_event_is_as_serde_json_has_it() {
        let event = Event::default();
        let expected = serde_json::to_string(&event).unwrap();
        assert_eq!(event.to_json().unwrap(), expected);
    }

    proptest! {
        #[test]
        fn every_event_is_as_serde_json_has_it(event in event()) {
            let expected = serde_json::to_string(&event).unwrap();
            prop_assert_eq!(event.to_json().unwrap(), expected);
        }
    }
}
