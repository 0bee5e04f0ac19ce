//! The small integers that stand for closed sets of words in the ledger's columns.

use tollmesh_pricing::Status;
use tollmesh_usage::UsageSource;
use tollmesh_wire::Outcome;

/// Outcomes by their code.
const OUTCOMES: [Outcome; 5] = [
    Outcome::Success,
    Outcome::Error,
    Outcome::Aborted,
    Outcome::Denied,
    Outcome::Relayed,
];

/// Usage sources by their code.
const USAGE_SOURCES: [UsageSource; 3] = [
    UsageSource::Reported,
    UsageSource::Estimated,
    UsageSource::Absent,
];

/// Cost statuses by their code.
const COST_STATUSES: [Status; 3] = [Status::Exact, Status::Assumed, Status::Unpriced];

/// The code of [`Outcome::Error`] in SQL.
pub const ERROR: i64 = Outcome::Error as i64;
/// The code of [`Outcome::Aborted`] in SQL.
pub const ABORTED: i64 = Outcome::Aborted as i64;
/// The code of [`Outcome::Denied`] in SQL.
pub const DENIED: i64 = Outcome::Denied as i64;
/// The code of [`Outcome::Relayed`] in SQL.
pub const RELAYED: i64 = Outcome::Relayed as i64;
/// The code of [`UsageSource::Estimated`] in SQL.
pub const ESTIMATED: i64 = UsageSource::Estimated as i64;
/// The code of [`UsageSource::Absent`] in SQL.
pub const ABSENT: i64 = UsageSource::Absent as i64;
/// The code of [`Status::Assumed`] in SQL.
pub const ASSUMED: i64 = Status::Assumed as i64;
/// The code of [`Status::Unpriced`] in SQL.
pub const UNPRICED: i64 = Status::Unpriced as i64;

/// A closed set of words.
pub trait Coded: Copy + Sized {
    /// The column's code.
    fn code(self) -> i64;
    /// What the code stands for.
    fn from_code(code: i64) -> Option<Self>;
    /// What the word stands for.
    fn from_name(name: &str) -> Option<Self>;
    /// The word.
    fn word(self) -> &'static str;
}

macro_rules! coded {
    ($set:ty, $members:ident) => {
        impl Coded for $set {
            fn code(self) -> i64 {
                self as i64
            }
            fn from_code(code: i64) -> Option<$set> {
                $members.get(usize::try_from(code).ok()?).copied()
            }
            fn from_name(name: &str) -> Option<$set> {
                $members.into_iter().find(|member| member.name() == name)
            }
            fn word(self) -> &'static str {
                self.name()
            }
        }
    };
}

coded!(Outcome, OUTCOMES);
coded!(UsageSource, USAGE_SOURCES);
coded!(Status, COST_STATUSES);

#[cfg(test)]
mod tests {
    use super::*;

    /// Files hold these numbers: a member may be added at the end, never moved.
    #[test]
    fn codes_are_fixed() {
        fn codes<T: Coded>(members: &[T]) -> Vec<(i64, &'static str)> {
            members
                .iter()
                .map(|m| {
                    assert_eq!(T::from_code(m.code()).map(T::word), Some(m.word()));
                    assert_eq!(T::from_name(m.word()).map(T::code), Some(m.code()));
                    (m.code(), m.word())
                })
                .collect()
        }
        assert_eq!(
            codes(&OUTCOMES),
            [
                (0, "success"),
                (1, "error"),
                (2, "aborted"),
                (3, "denied"),
                (4, "relayed")
            ]
        );
        assert_eq!(
            codes(&USAGE_SOURCES),
            [(0, "reported"), (1, "estimated"), (2, "absent")]
        );
        assert_eq!(
            codes(&COST_STATUSES),
            [(0, "exact"), (1, "assumed"), (2, "unpriced")]
        );
        assert_eq!(Outcome::from_code(5), None);
        assert_eq!(Outcome::from_code(-1), None);
    }
}
