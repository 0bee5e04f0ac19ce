//! The names of keys, in which a budget is one slot of a cluster.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sha2::{Digest, Sha256};

use super::super::CellKey;

/// What the values below these names mean; another version's say another one.
pub const FORMAT: &str = "1";

/// A cell's values are written out up to this many bytes; longer ones by their digest.
const VALUES_BYTES_MAX: usize = 120;

/// Everything but what can stand in a name without a second meaning.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

/// The keys that a report is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The cell.
    pub cell: String,
    /// The marker of its budget.
    pub marker: String,
}

impl Keys {
    /// The keys of a cell.
    pub fn of(prefix: &str, cell: &CellKey) -> Keys {
        let values: Vec<String> = cell.key.iter().map(|value| encoded(value)).collect();
        let mut values = values.join(",");
        if values.len() > VALUES_BYTES_MAX {
            let digest = Sha256::digest(values.as_bytes());
            values = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        }
        let budget = encoded(&cell.budget);
        let start = cell.window_start_ms;
        Keys {
            cell: format!("{prefix}:v{FORMAT}:{{{budget}}}:{start}:{values}"),
            marker: marker(prefix, &cell.budget),
        }
    }
}

/// The key that says since when a store knows a budget.
pub fn marker(prefix: &str, budget: &str) -> String {
    format!("{prefix}:v{FORMAT}:{{{}}}:m", encoded(budget))
}

/// The key that says whose keys these are.
pub fn format(prefix: &str) -> String {
    format!("{prefix}:format")
}

/// The key by which something is claimed once.
pub fn claim(prefix: &str, what: &str) -> String {
    format!("{prefix}:v{FORMAT}:claim:{what}")
}

/// The key of what nodes tell each other beside leases.
pub fn notice(prefix: &str) -> String {
    format!("{prefix}:v{FORMAT}:notice")
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(budget: &str, key: &[&str]) -> String {
        let cell = CellKey {
            budget: budget.into(),
            key: key.iter().map(|value| (*value).to_owned()).collect(),
            window_start_ms: 1_800_000_000_000,
        };
        Keys::of("tm", &cell).cell
    }

    #[test]
    fn keys_of_a_budget_share_a_slot_and_nothing_else() {
        for (budget, key, expected) in [
            ("eng", &[][..], "tm:v1:{eng}:1800000000000:"),
            ("eng", &["ann"], "tm:v1:{eng}:1800000000000:ann"),
            ("eng", &["a,b", "c"], "tm:v1:{eng}:1800000000000:a%2Cb,c"),
            ("a}b{", &["x:y"], "tm:v1:{a%7Db%7B}:1800000000000:x%3Ay"),
        ] {
            assert_eq!(keys(budget, key), expected);
        }
        assert_ne!(keys("eng", &["a", "b"]), keys("eng", &["a,b"]));
        let long = "u".repeat(VALUES_BYTES_MAX + 1);
        assert_eq!(
            keys("eng", &[&long]).len(),
            "tm:v1:{eng}:1800000000000:".len() + 64
        );
    }
}
