//! An answer that may be of less than was asked for, and how long it may take.
//!
//! Whoever asks may be patient and have every row looked at, or not: then an answer is of the hours
//! that were looked at in time, and says which these are.

use std::time::{Duration, Instant};

use tollmesh_wire::Timestamp;

/// How long a question may be looked into.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience(Option<Instant>);

/// An answer, and of what it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked<T> {
    /// What was found.
    pub answer: T,
    /// Of which hours; `None` where it is of all in the span.
    pub at: Option<LookedAt>,
}

/// The hours of an answer that is not of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookedAt {
    /// Hours that were looked at.
    pub hours: u64,
    /// Hours of the span that have calls, or had some while older ones were still kept: what an hour
    /// is known by goes with the oldest rows.
    pub of_hours: u64,
    /// The answer is of all calls from here on; `None` where hours were not looked at in the order
    /// of time.
    pub from: Option<Timestamp>,
}

// === impl Patience ===

impl Patience {
    /// Until all is looked at.
    pub const ENDLESS: Patience = Patience(None);

    /// For so long from now on.
    pub fn of(time: Duration) -> Patience {
        Patience(Instant::now().checked_add(time))
    }

    /// Whether it is over.
    pub fn is_over(self) -> bool {
        self.0.is_some_and(|end| Instant::now() >= end)
    }

    /// Half of what is left of it.
    pub fn half(self) -> Patience {
        let now = Instant::now();
        let half = |end: Instant| now + end.saturating_duration_since(now) / 2;
        Patience(self.0.map(half))
    }
}

// === impl Looked ===

impl<T> Looked<T> {
    /// An answer of all that there is.
    pub fn wholly(answer: T) -> Looked<T> {
        Looked { answer, at: None }
    }

    /// The same with what that makes of it.
    pub fn map<U>(self, made_of: impl FnOnce(T) -> U) -> Looked<U> {
        Looked {
            answer: made_of(self.answer),
            at: self.at,
        }
    }
}
