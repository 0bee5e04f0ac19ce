//! Bounds and defaults of single settings, each with its reason.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// A filter resends within seconds; what it holds longer is lost with its pod anyway.
pub const DRAIN_DEFAULT: Duration = Duration::from_secs(10);
/// Kubernetes' usual grace ends long before; more is a typing error.
const DRAIN_MAX: Duration = Duration::from_secs(3600);

/// A quarter, so that last month can be looked at call by call.
pub const RETENTION_DAYS_DEFAULT: u64 = 90;
/// From a day to ten years.
pub const RETENTION_DAYS: (u64, u64) = (1, 3660);

/// A year to compare with, beside the present month.
pub const RETENTION_MONTHS_DEFAULT: u64 = 13;
/// From a month to ten years.
pub const RETENTION_MONTHS: (u64, u64) = (1, 120);

/// Between two visits of one sidecar to the shared ledger. What a visit costs the server is mostly
/// the making of a connection; a thousand sidecars then make some thirty a second.
pub const INTERVAL_DEFAULT: Duration = Duration::from_secs(30);
/// Below a tenth of a second visits would outnumber calls; beyond an hour nobody would wait.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// A call that takes longer than a day is forgotten; below ten seconds leases would outlive calls.
const MAX_STREAM: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(86_400));
/// The sums of a year with a hundred teams need some tens of megabytes, whatever is deleted.
const SIZE_BYTES_MIN: u64 = 64_000_000;

/// What most teams ask for; anything that grows with users must not be here.
pub const LABELS_DEFAULT: [&str; 3] = ["team", "feature", "environment"];
/// Each further label multiplies series.
const LABELS_MAX: usize = 8;

/// Enough for teams and models, too few for users.
pub const VALUES_PER_LABEL_DEFAULT: u64 = 100;
/// Bounds of `metrics.max_values_per_label`.
pub const VALUES_PER_LABEL: (u64, u64) = (1, 10_000);

/// What a scrape of 20 ms and a small Prometheus bear.
pub const SERIES_DEFAULT: u64 = 10_000;
/// Below 200 the series that overflow goes to would leave no room for others.
pub const SERIES: (u64, u64) = (200, 1_000_000);

/// Labels that every series has or that a family adds.
const LABELS_TAKEN: &[&str] = &[
    "provider",
    "model",
    "namespace",
    "service",
    "bucket",
    "outcome",
    "usage_source",
    "tag",
    "le",
    "quantile",
    "job",
    "instance",
];

/// Tags that name a person: each would make a series a head.
const LABELS_OF_PEOPLE: &[&str] = &[
    "user",
    "user_id",
    "userid",
    "username",
    "end_user",
    "email",
    "customer",
    "customer_id",
    "session",
    "session_id",
    "request_id",
    "trace_id",
];

/// Reads an absolute path.
pub fn absolute_path(text: &str) -> Result<PathBuf, String> {
    if Path::new(text).is_absolute() {
        Ok(PathBuf::from(text))
    } else {
        Err(format!(
            "{text:?} is a relative path; expected an absolute one"
        ))
    }
}

/// The longest that a key's first part may be; it is sent with every report.
const KEY_PREFIX_BYTES_MAX: usize = 64;

/// Reads `redis.prefix`.
pub fn key_prefix(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
    match (1..=KEY_PREFIX_BYTES_MAX).contains(&text.len()) && text.chars().all(is_plain) {
        true => Ok(text.to_owned()),
        false => Err(format!(
            "{text:?} cannot begin a key; expected 1 to {KEY_PREFIX_BYTES_MAX} letters, digits or \
             \"-_.:\""
        )),
    }
}

/// Reads `drain`.
pub fn drain(text: &str) -> Result<Duration, String> {
    let drain = duration(text)?;
    if drain > DRAIN_MAX {
        return Err(format!("{text:?} is too long; expected at most \"1h\""));
    }
    Ok(drain)
}

/// Reads `postgres.interval`.
pub fn interval(text: &str) -> Result<Duration, String> {
    let interval = duration(text)?;
    if interval < INTERVAL.0 || interval > INTERVAL.1 {
        return Err(format!(
            "{text:?} is out of bounds; expected from \"100ms\" to \"1h\""
        ));
    }
    Ok(interval)
}

/// Reads a budget's `max_stream`.
pub fn max_stream(text: &str) -> Result<Duration, String> {
    let longest = duration(text)?;
    if longest < MAX_STREAM.0 || longest > MAX_STREAM.1 {
        return Err(format!(
            "{text:?} is out of bounds; expected from \"10s\" to \"24h\""
        ));
    }
    Ok(longest)
}

/// Reads `500 MB`, `10 GB` or `10 GiB`, in bytes.
pub fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit: u64 = match text.get(digits.len()..).unwrap_or_default().trim() {
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "TB" => 1_000_000_000_000,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => 0,
    };
    let bytes = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(unit));
    match bytes {
        Some(bytes) if bytes >= SIZE_BYTES_MIN => Ok(bytes),
        Some(_) if unit > 0 => Err(format!(
            "{text:?} is too small; expected at least \"64 MB\""
        )),
        _ => Err(format!(
            "unknown size {text:?}; expected such as \"500 MB\", \"10 GB\" or \"10 GiB\""
        )),
    }
}

/// Reads `250ms`, `10s`, `5m` or `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit_ms = match text.get(digits.len()..).unwrap_or_default() {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let n_ms = digits
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit_ms));
    match n_ms {
        Some(ms) if unit_ms > 0 => Ok(Duration::from_millis(ms)),
        _ => Err(format!(
            "unknown duration {text:?}; expected such as \"500ms\", \"10s\" or \"2m\""
        )),
    }
}

/// Whether these tags may become labels.
pub fn check_labels(labels: &[String]) -> Result<(), String> {
    if labels.len() > LABELS_MAX {
        return Err(format!(
            "{} labels; expected at most {LABELS_MAX}",
            labels.len()
        ));
    }
    for (n, label) in labels.iter().enumerate() {
        let word = label.as_str();
        if LABELS_TAKEN.contains(&word) {
            return Err(format!("{word:?} is a label already; remove it"));
        }
        if LABELS_OF_PEOPLE.contains(&word) {
            return Err(format!(
                "{word:?} would make a series for each one; remove it and ask \
                 `tollmesh report --by {word}`"
            ));
        }
        if !is_label(word) {
            return Err(format!(
                "{word:?} is no label name; expected lower-case letters, digits and \"_\""
            ));
        }
        if labels.iter().take(n).any(|before| before == label) {
            return Err(format!("{word:?} stands twice; remove one"));
        }
    }
    Ok(())
}

/// Whether these are names of hosts.
pub fn check_hosts(hosts: &[String]) -> Result<(), String> {
    let is_name = |host: &str| {
        let is_letter = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        !host.is_empty() && host.bytes().all(is_letter)
    };
    match hosts.iter().find(|host| !is_name(host)) {
        None => Ok(()),
        Some(host) => Err(format!(
            "{host:?} is no host's name; expected such as \"spend.example.com\", without port"
        )),
    }
}

fn is_label(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase())
        && word.len() <= 64
        && word
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}
