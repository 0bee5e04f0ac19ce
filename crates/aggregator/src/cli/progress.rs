//! How far long work has come, for whoever watches it on a terminal.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// Faster than that nobody reads.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// One line on standard error that is written over and over; silent where that is no terminal.
pub struct Progress {
    is_watched: bool,
    told: Option<Instant>,
}

impl Progress {
    /// Silent so far.
    pub fn new() -> Progress {
        Progress {
            is_watched: std::io::stderr().is_terminal(),
            told: None,
        }
    }

    /// Shows the line that `text` makes, unless another was shown just now.
    pub fn tell(&mut self, text: impl FnOnce() -> String) {
        if !self.is_watched || self.told.is_some_and(|told| told.elapsed() < TELL_EVERY) {
            return;
        }
        // Whoever watches may have gone.
        let _ = write!(std::io::stderr(), "\r{}\x1b[K", text());
        self.told = Some(Instant::now());
    }

    /// Takes the line away again.
    pub fn clear(&mut self) {
        if self.told.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
