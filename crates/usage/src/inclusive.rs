//! The inclusive totals that people know, as sums of disjoint buckets: the one alias table.

use crate::bucket::{Bucket, Usage};

/// A total under the name that people know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total {
    /// The name in JSON, as `input_tokens`.
    pub name: &'static str,
    /// The buckets whose sum it is.
    pub buckets: &'static [Bucket],
}

impl Total {
    /// The total over those buckets that were reported; `None` where none was.
    pub fn of(self, usage: &Usage) -> Option<u64> {
        self.buckets
            .iter()
            .filter_map(|bucket| usage.get(*bucket))
            .reduce(u64::saturating_add)
    }
}

/// Every total, in the order in which they are shown.
pub const TOTALS: &[Total] = &[
    Total {
        name: "input_tokens",
        buckets: &[
            Bucket::Input,
            Bucket::CacheRead,
            Bucket::CacheWrite,
            Bucket::CacheWrite1h,
            Bucket::AudioInput,
            Bucket::CacheReadAudio,
            Bucket::ImageInput,
        ],
    },
    Total {
        name: "cache_read_tokens",
        buckets: &[Bucket::CacheRead, Bucket::CacheReadAudio],
    },
    Total {
        name: "cache_write_tokens",
        buckets: &[Bucket::CacheWrite, Bucket::CacheWrite1h],
    },
    Total {
        name: "cache_write_1h_tokens",
        buckets: &[Bucket::CacheWrite1h],
    },
    Total {
        name: "output_tokens",
        buckets: &[
            Bucket::Output,
            Bucket::Reasoning,
            Bucket::AudioOutput,
            Bucket::ImageOutput,
        ],
    },
    Total {
        name: "reasoning_tokens",
        buckets: &[Bucket::Reasoning],
    },
    Total {
        name: "audio_input_tokens",
        buckets: &[Bucket::AudioInput, Bucket::CacheReadAudio],
    },
    Total {
        name: "audio_output_tokens",
        buckets: &[Bucket::AudioOutput],
    },
    Total {
        name: "image_input_tokens",
        buckets: &[Bucket::ImageInput],
    },
    Total {
        name: "image_output_tokens",
        buckets: &[Bucket::ImageOutput],
    },
];

/// Every total of that usage, unreported ones as `None`.
pub fn totals(usage: &Usage) -> impl Iterator<Item = (&'static str, Option<u64>)> + '_ {
    TOTALS.iter().map(|total| (total.name, total.of(usage)))
}

/// The total of that name; `None` where it was not reported or there is no such name.
pub fn total(usage: &Usage, name: &str) -> Option<u64> {
    TOTALS.iter().find(|total| total.name == name)?.of(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_include_their_parts() {
        let usage = Bucket::ALL
            .into_iter()
            .zip(0..)
            .fold(Usage::new(), |usage, (bucket, n)| {
                usage.with(bucket, 1 << n)
            });
        assert_eq!(total(&usage, "input_tokens"), usage.input_total());
        assert_eq!(total(&usage, "output_tokens"), usage.output_total());
        assert_eq!(total(&usage, "cache_write_tokens"), Some(0b1100));
        assert_eq!(total(&Usage::new(), "input_tokens"), None);
        assert_eq!(total(&usage, "no_such_total"), None);
        assert_eq!(totals(&usage).count(), TOTALS.len());
    }
}
