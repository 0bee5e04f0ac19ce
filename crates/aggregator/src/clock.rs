//! The clocks: the one place that asks for the time of day, or for how much of it has passed.

use rustix::time::{ClockId, clock_gettime};
use tollmesh_wire::Timestamp;

/// Now.
pub fn now() -> Timestamp {
    Timestamp::from_unix_ms(jiff::Timestamp::now().as_millisecond())
}

/// Milliseconds since the machine started, those in which it slept included: a lease goes on while
/// its holder sleeps, and nobody sets this clock.
pub fn since_boot_ms() -> u64 {
    let since = clock_gettime(ClockId::Boottime);
    let ms = since.tv_sec.saturating_mul(1_000) + since.tv_nsec / 1_000_000;
    ms.unsigned_abs()
}
