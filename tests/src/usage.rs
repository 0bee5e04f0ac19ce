//! What a call used, as the provider knows it: the oracle's side of every comparison.

use std::collections::BTreeMap;
use std::fmt;

/// Disjoint counts of one call, under the ledger's names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The model that served.
    pub model: String,
    /// Tokens by bucket; zero counts are not kept.
    pub buckets: BTreeMap<&'static str, u64>,
}

/// Begins a usage: `usage("gpt-4o").input(12).output(96)`.
pub fn usage(model: &str) -> Usage {
    Usage {
        model: model.to_string(),
        buckets: BTreeMap::new(),
    }
}

impl Usage {
    /// Uncached text read.
    pub fn input(self, tokens: u64) -> Usage {
        self.with("input", tokens)
    }

    /// Text read from the prompt cache.
    pub fn cache_read(self, tokens: u64) -> Usage {
        self.with("cache_read", tokens)
    }

    /// Text written to the prompt cache.
    pub fn cache_write(self, tokens: u64) -> Usage {
        self.with("cache_write", tokens)
    }

    /// Text that the caller sees.
    pub fn output(self, tokens: u64) -> Usage {
        self.with("output", tokens)
    }

    /// Text that the model thought.
    pub fn reasoning(self, tokens: u64) -> Usage {
        self.with("reasoning", tokens)
    }

    /// The tokens of one bucket; zero where there are none.
    pub fn of(&self, bucket: &str) -> u64 {
        self.buckets.get(bucket).copied().unwrap_or(0)
    }

    fn with(mut self, bucket: &'static str, tokens: u64) -> Usage {
        if tokens > 0 {
            self.buckets.insert(bucket, tokens);
        }
        self
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.model)?;
        for (bucket, tokens) in &self.buckets {
            write!(f, " {bucket}={tokens}")?;
        }
        Ok(())
    }
}
