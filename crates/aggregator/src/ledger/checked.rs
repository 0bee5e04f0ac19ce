//! An entry that the columns can hold: what can be wrong with it was found before.

use tollmesh_usage::{Trouble, UsageSource};
use tollmesh_wire::Event;

use crate::ledger::codes::Coded;
use crate::ledger::entry::{Entry, Refusal};
use crate::money::PicoUsd;

/// The longest id of an event, in bytes; those of our filter have some 30.
pub const EVENT_ID_BYTES_MAX: usize = 256;

/// The most tokens of a bucket that one call can have: a million times the longest context there
/// is. More is damage, and would only spoil the sums.
pub const TOKENS_MAX: u64 = 1_000_000_000_000;

/// The longest time that a call can have taken, in milliseconds: 366 days. More is damage, and would
/// only spoil the sums.
pub const DURATION_MS_MAX: u64 = 366 * 24 * 60 * 60 * 1_000;

/// An entry with what was read out of its texts.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a> {
    pub entry: &'a Entry,
    pub usage_source: UsageSource,
    pub provider_cost: Option<PicoUsd>,
    /// The event's trouble, or the one that reading `provider_cost_usd` gave.
    pub trouble: Option<&'a str>,
}

impl<'a> Checked<'a> {
    /// Judges an entry.
    pub fn new(entry: &'a Entry) -> Result<Checked<'a>, Refusal> {
        let event = &entry.event;
        check_id(&event.event_id)?;
        check_tokens(event)?;
        check_times(event)?;
        let usage_source = UsageSource::from_name(&event.usage_source)
            .ok_or_else(|| Refusal::UsageSource(event.usage_source.clone()))?;
        let provider_cost = entry.provider_cost();
        let unreadable = event.provider_cost_usd.is_some() && provider_cost.is_none();
        let trouble = event.trouble.as_deref();
        Ok(Checked {
            entry,
            usage_source,
            provider_cost,
            trouble: trouble.or(unreadable.then_some(Trouble::BadCount.name())),
        })
    }

    /// What the provider says it charged, of a call that is charged to us here.
    pub fn stated(&self) -> Option<PicoUsd> {
        self.provider_cost.filter(|_| self.entry.is_charged())
    }

    /// The event itself.
    pub fn event(&self) -> &'a Event {
        &self.entry.event
    }
}

fn check_id(id: &str) -> Result<(), Refusal> {
    match id.len() {
        0 => Err(Refusal::NoId),
        bytes if bytes > EVENT_ID_BYTES_MAX => Err(Refusal::TooLong {
            field: "event_id",
            bytes,
            max: EVENT_ID_BYTES_MAX,
        }),
        _ => Ok(()),
    }
}

fn check_tokens(event: &Event) -> Result<(), Refusal> {
    match event.usage.tokens().find(|(_, n)| *n > TOKENS_MAX) {
        Some((bucket, value)) => Err(Refusal::TooLarge {
            field: bucket.name(),
            value,
            max: TOKENS_MAX,
        }),
        None => Ok(()),
    }
}

fn check_times(event: &Event) -> Result<(), Refusal> {
    for (field, value) in [
        ("duration_ms", event.duration_ms),
        ("ttft_ms", event.ttft_ms.unwrap_or(0)),
    ] {
        if value > DURATION_MS_MAX {
            return Err(Refusal::TooLarge {
                field,
                value,
                max: DURATION_MS_MAX,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tollmesh_usage::{Bucket, Usage};

    use super::*;
    use crate::ledger::CostRecord;

    fn entry(change: impl FnOnce(&mut Event)) -> Entry {
        let mut event = Event {
            event_id: "e1".into(),
            usage_source: "reported".into(),
            ..Event::default()
        };
        change(&mut event);
        Entry {
            event,
            cost: CostRecord::free(Arc::from("")),
        }
    }

    #[test]
    fn refusals_say_what_is_wrong() {
        type Change = fn(&mut Event);
        let cases: [(Change, &str); 6] = [
            (|e| e.event_id.clear(), "event_id is empty"),
            (
                |e| e.event_id = "x".repeat(257),
                "event_id has 257 bytes; at most 256 are taken",
            ),
            (
                |e| e.usage = Usage::new().with(Bucket::Output, TOKENS_MAX + 1),
                "output is 1000000000001; at most 1000000000000 is taken",
            ),
            (
                |e| e.duration_ms = 1 << 63,
                "duration_ms is 9223372036854775808; at most 31622400000 is taken",
            ),
            (
                |e| e.ttft_ms = Some(DURATION_MS_MAX + 1),
                "ttft_ms is 31622400001; at most 31622400000 is taken",
            ),
            (
                |e| e.usage_source = "guessed".into(),
                r#"usage_source is "guessed"; expected "reported", "estimated" or "absent""#,
            ),
        ];
        for (change, message) in cases {
            let entry = entry(change);
            let refusal = Checked::new(&entry).unwrap_err();
            assert_eq!(refusal.to_string(), message);
        }
    }

    #[test]
    fn an_unreadable_charge_is_trouble_and_no_refusal() {
        for (text, pico, trouble) in [
            ("0.25", Some(250_000_000_000), None),
            ("many", None, Some("bad_count")),
            ("99999999999", None, Some("bad_count")),
        ] {
            let entry = entry(|e| e.provider_cost_usd = Some(text.into()));
            let checked = Checked::new(&entry).unwrap();
            assert_eq!(checked.provider_cost.map(PicoUsd::as_pico), pico, "{text}");
            assert_eq!(checked.trouble, trouble, "{text}");
        }
    }
}
