//! The inclusive names that people know, from disjoint buckets.

use tollmesh_usage::{Bucket, Usage};

const NAMES: &[(&str, &[Bucket])] = &[
    (
        "cache_read_tokens",
        &[Bucket::CacheRead, Bucket::CacheReadAudio],
    ),
    (
        "cache_write_tokens",
        &[Bucket::CacheWrite, Bucket::CacheWrite1h],
    ),
    ("cache_write_1h_tokens", &[Bucket::CacheWrite1h]),
    ("reasoning_tokens", &[Bucket::Reasoning]),
    (
        "audio_input_tokens",
        &[Bucket::AudioInput, Bucket::CacheReadAudio],
    ),
    ("audio_output_tokens", &[Bucket::AudioOutput]),
    ("image_input_tokens", &[Bucket::ImageInput]),
    ("image_output_tokens", &[Bucket::ImageOutput]),
];

/// Every name with its count; `None` where no bucket of it was reported.
pub fn totals(usage: &Usage) -> Vec<(&'static str, Option<u64>)> {
    let mut totals = vec![
        ("input_tokens", usage.input_total()),
        ("output_tokens", usage.output_total()),
    ];
    for (name, buckets) in NAMES {
        let counts = buckets.iter().filter_map(|bucket| usage.get(*bucket));
        totals.push((name, counts.reduce(u64::saturating_add)));
    }
    totals
}
