//! The wall clock: the one place that asks for the time of day.

use tollmesh_wire::Timestamp;

/// Now.
pub fn now() -> Timestamp {
    Timestamp::from_unix_ms(jiff::Timestamp::now().as_millisecond())
}
