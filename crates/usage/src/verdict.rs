//! The verdict on one answer: what its reader found, and what is known beside the documents.

use crate::bucket::{Quantity, Unit};
use crate::dialect::Reader;
use crate::relayed::Relayed;
use crate::scan::{Scan, Trouble, UsageSource};

/// What the documents of an answer do not say.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// Whether the endpoint charges at all.
    pub(crate) is_billable: bool,
    /// Whether the answer repeats the usage of an earlier call.
    pub(crate) is_retrieval: bool,
    /// Whether the usage may be told by a later answer only, and is charged where it is told.
    pub(crate) is_told_later: bool,
    /// Whether the HTTP status is one of an error.
    pub(crate) is_error_status: bool,
    /// Whether the answer reached its end; `None` where nobody can tell.
    pub(crate) complete: Option<bool>,
    /// Characters that were to be spoken.
    pub(crate) n_spoken: Option<u64>,
    /// Whether it came in events.
    pub(crate) is_stream: bool,
    /// How much of it was relayed.
    pub(crate) relayed: Relayed,
}

impl Reader {
    /// Settles what was found; the findings are spent after that.
    pub(crate) fn scan(&mut self, known: Known) -> Scan {
        let (mut usage, billed_usage) = self.settle();
        let findings = &mut self.findings;
        let has_usage = findings.has_usage || !usage.has_no_tokens();
        let is_error = known.is_error_status || findings.is_error;
        // Speech is charged by its text, which only the request has, unless the answer counts something
        // (https://platform.openai.com/docs/pricing, https://console.groq.com/docs/text-to-speech).
        let is_uncounted = usage.is_empty() && !is_error;
        if let Some(n) = known.n_spoken.filter(|_| is_uncounted) {
            usage.set_unit(Unit::Characters, Quantity::whole(n));
        }
        if findings.is_error && !known.is_error_status {
            findings.trouble(Trouble::ErrorInBody);
        }
        if known.complete == Some(false) {
            findings.trouble(Trouble::Truncated);
        } else if usage.is_empty() && !is_error && known.is_billable {
            findings.trouble(Trouble::UsageMissing);
        }
        Scan {
            model: findings.model.take(),
            response_id: findings.response_id.take(),
            usage,
            billed_usage,
            usage_source: match has_usage {
                true => UsageSource::Reported,
                false => UsageSource::Absent,
            },
            estimate_basis: None,
            relayed: known.relayed,
            extra_usage: std::mem::take(&mut findings.extra),
            // What failed within a success may have been charged up to there.
            billable: !known.is_retrieval
                && match has_usage {
                    true => known.is_billable || known.is_told_later,
                    false => known.is_billable && !known.is_error_status,
                },
            complete: known.complete,
            is_stream: known.is_stream,
            is_error,
            finish_reason: findings.finish_reason.take(),
            tool_calls: findings
                .tool_calls
                .filter(|_| !known.is_error_status || has_usage),
            service_tier: findings.service_tier.take(),
            provider_cost_usd: findings.cost.take(),
            pricing_context: std::mem::take(&mut findings.context)
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
            trouble: findings.trouble,
        }
    }
}
