//! Whether filters still send, so that a stop can wait until they no longer do.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::watch;

/// When filters were last heard, and whether one is being answered now.
pub struct Activity {
    start: Instant,
    last_ms: AtomicU64,
    in_flight: AtomicUsize,
    stopping: watch::Sender<bool>,
}

/// One request being answered; its end is the drop.
pub struct Working<'a>(&'a Activity);

impl Activity {
    /// Idle since now.
    pub fn new(now: Instant) -> Activity {
        Activity {
            start: now,
            last_ms: AtomicU64::new(0),
            in_flight: AtomicUsize::new(0),
            stopping: watch::Sender::new(false),
        }
    }

    /// A request has come.
    pub fn begin(&self) -> Working<'_> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Working(self)
    }

    /// For how long nothing has come; zero while something is being answered.
    pub fn idle_for(&self, now: Instant) -> Duration {
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        let last = Duration::from_millis(self.last_ms.load(Ordering::Relaxed));
        now.duration_since(self.start).saturating_sub(last)
    }

    /// Says that the process is to end: whoever only waits for news is answered at once.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Returns once [`Activity::stop`] was called.
    pub async fn stopping(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self
            .stopping
            .subscribe()
            .wait_for(|stopping| *stopping)
            .await;
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        let ms = u64::try_from(self.0.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_ms.fetch_max(ms, Ordering::Relaxed);
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
