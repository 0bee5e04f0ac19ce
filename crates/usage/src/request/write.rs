//! The pieces of JSON that edits put into a body.

use std::fmt::Write;

/// The text as a JSON string.
pub(super) fn json_string(text: &str) -> String {
    let mut json = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => json.extend(['\\', c]),
            // Writing to a string does not fail.
            c if c < ' ' => drop(write!(json, "\\u{:04x}", u32::from(c))),
            c => json.push(c),
        }
    }
    json.push('"');
    json
}

/// Members to be added at the end of an object.
pub(super) struct Members {
    pub(super) text: String,
    needs_comma: bool,
}

// === impl Members ===

impl Members {
    /// None yet, for an object that is empty or not.
    pub(super) fn new(is_empty: bool) -> Members {
        Members {
            text: String::new(),
            needs_comma: !is_empty,
        }
    }

    /// These and one more.
    pub(super) fn and(mut self, member: &str) -> Members {
        if self.needs_comma {
            self.text.push(',');
        }
        self.needs_comma = true;
        self.text.push_str(member);
        self
    }

    /// Whether there is nothing to add.
    pub(super) fn is_none(&self) -> bool {
        self.text.is_empty()
    }
}
