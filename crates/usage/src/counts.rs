//! The raw counts of one usage object, before they are made disjoint.

use crate::bucket::{Bucket, Usage};
use crate::json::Value;
use crate::json::number::count_of;
use crate::scan::Trouble;

/// One number that providers report. What includes what differs by API and is settled there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Count {
    Input,
    /// The same under the second of the two names that OpenAI's dialects have for it.
    InputTwin,
    CacheRead,
    /// The same under a name that some hosts write beside it or instead.
    CacheReadElsewhere,
    /// The same under a name that some hosts write for other models too, then as 0.
    CacheReadTwin,
    CacheWrite,
    CacheCreation,
    CacheWrite5m,
    CacheWrite1h,
    AudioInput,
    CacheReadAudio,
    CacheReadImage,
    ImageInput,
    ToolUseInput,
    /// What was read for the model and is quoted by it.
    CitationInput,
    /// What a model that asks others in the caller's place read and wrote with them.
    OrchestrationInput,
    OrchestrationCacheRead,
    OrchestrationOutput,
    Output,
    /// The same under the second of its two names.
    OutputTwin,
    Reasoning,
    /// The same outside the details.
    ReasoningTwin,
    AudioOutput,
    ImageOutput,
    Total,
    BilledInput,
    BilledOutput,
    BilledImage,
    WebSearches,
    WebFetches,
    /// Searches of the web that succeeded, where the usage tells them by that.
    WebSearchCalls,
    FileSearches,
    DocumentSearches,
    XSearches,
    CodeCalls,
    MapsQueries,
    SearchUnits,
    Images,
    Characters,
    Pages,
}

const N_COUNTS: usize = Count::Pages as usize + 1;

/// Counts by kind; a count that was not reported is `None`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    values: [Option<u64>; N_COUNTS],
}

impl Default for Counts {
    fn default() -> Counts {
        Counts {
            values: [None; N_COUNTS],
        }
    }
}

impl Counts {
    pub(crate) fn get(&self, count: Count) -> Option<u64> {
        self.values.get(count as usize).copied().flatten()
    }

    pub(crate) fn set(&mut self, count: Count, n: u64) {
        if let Some(slot) = self.values.get_mut(count as usize) {
            *slot = Some(n);
        }
    }

    /// Tokens read from the cache, under either name that one whole may have them.
    pub(crate) fn cache_read(&self) -> Option<u64> {
        let twin = self.get(Count::CacheReadTwin).filter(|n| *n > 0);
        self.get(Count::CacheRead).max(twin)
    }

    /// Tokens written to the cache. Hosts that also serve Anthropic's models add its
    /// `cache_creation_input_tokens`, mostly as a 0 that reports nothing, since other models have
    /// no such count.
    pub(crate) fn cache_write(&self) -> Option<u64> {
        let creation = self.get(Count::CacheCreation).filter(|n| *n > 0);
        self.get(Count::CacheWrite).max(creation)
    }

    /// Makes one of the counts that have two names. Gateways that speak several dialects write
    /// both, and 0 under the one that the answer did not use, in either order
    /// (<https://github.com/QuantumNous/new-api/blob/main/dto/openai_response.go>, `Usage`): the
    /// larger is the count.
    pub(crate) fn unite(&mut self) {
        for (count, twin) in [
            (Count::Input, Count::InputTwin),
            (Count::Output, Count::OutputTwin),
            (Count::CacheRead, Count::CacheReadElsewhere),
            (Count::Reasoning, Count::ReasoningTwin),
        ] {
            if let Some(n) = self.get(count).max(self.get(twin)) {
                self.set(count, n);
            }
        }
    }

    /// Adds what a model spent on asking others: it is charged at the same rates and lies beside
    /// input and output (observed: `total_tokens` is the sum of all four), unless the total says
    /// otherwise. Its cached part lies in its input.
    pub(crate) fn add_orchestration(&mut self) {
        let whole = self.get(Count::Input).zip(self.get(Count::Output));
        let total = whole.map(|(input, output)| input.saturating_add(output));
        if total.is_some() && total == self.get(Count::Total) {
            return;
        }
        for (count, part) in [
            (Count::Input, Count::OrchestrationInput),
            (Count::CacheRead, Count::OrchestrationCacheRead),
            (Count::Output, Count::OrchestrationOutput),
        ] {
            if let Some(n) = self.get(part).filter(|n| *n > 0) {
                self.add(count, n);
            }
        }
    }

    /// Adds to what is there, for counts that are listed item by item.
    pub(crate) fn add(&mut self, count: Count, n: u64) {
        self.set(count, self.get(count).unwrap_or(0).saturating_add(n));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.iter().all(Option::is_none)
    }

    /// Takes over every count that `later` reports.
    pub(crate) fn overlay(&mut self, later: &Counts) {
        for (slot, value) in self.values.iter_mut().zip(later.values) {
            *slot = value.or(*slot);
        }
    }

    /// Takes over every count of `later` that is larger.
    pub(crate) fn raise(&mut self, later: &Counts) {
        for (slot, value) in self.values.iter_mut().zip(later.values) {
            *slot = value.max(*slot);
        }
    }

    /// Sets a count from a scalar; `null` reports nothing.
    pub(crate) fn read(&mut self, count: Count, value: Value<'_>) -> Result<(), Trouble> {
        match value {
            Value::Null => Ok(()),
            Value::Number(text) => {
                self.set(count, count_of(text).ok_or(Trouble::BadCount)?);
                Ok(())
            }
            _ => Err(Trouble::BadCount),
        }
    }
}

/// Splits a whole into its reported parts and the rest, so that the buckets sum to the whole.
///
/// A part larger than what is left of the whole is cut to it: the whole is what providers charge.
/// Without a whole the parts stand alone.
pub(crate) fn split(
    usage: &mut Usage,
    whole: Option<u64>,
    rest: Bucket,
    parts: &[(Bucket, Option<u64>)],
) -> Result<(), Trouble> {
    let mut left = whole;
    let mut verdict = Ok(());
    for (bucket, part) in parts {
        let Some(part) = *part else { continue };
        let part = match left.as_mut() {
            None => part,
            Some(left) => {
                if part > *left {
                    verdict = Err(Trouble::Inconsistent);
                }
                let taken = part.min(*left);
                *left -= taken;
                taken
            }
        };
        usage.set(*bucket, part);
    }
    if left.is_some() {
        usage.set(rest, left);
    }
    verdict
}

/// The part of a whole that is not in another of its parts.
pub(crate) fn less(whole: Option<u64>, part: Option<u64>) -> Option<u64> {
    whole.map(|n| n.saturating_sub(part.unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_and_rest_sum_to_the_whole() {
        for (whole, a, b, rest, verdict) in [
            (Some(10), Some(3), Some(2), Some(5), Ok(())),
            (Some(10), None, Some(10), Some(0), Ok(())),
            (
                Some(10),
                Some(9),
                Some(9),
                Some(0),
                Err(Trouble::Inconsistent),
            ),
            (None, Some(4), None, None, Ok(())),
        ] {
            let mut usage = Usage::new();
            let parts = [(Bucket::CacheRead, a), (Bucket::CacheWrite, b)];
            assert_eq!(split(&mut usage, whole, Bucket::Input, &parts), verdict);
            assert_eq!(usage.get(Bucket::Input), rest);
            if whole.is_some() {
                assert_eq!(usage.input_total(), whole);
            }
        }
    }
}
