//! The text of `/metrics`, of which many readers at once get the same copy: one that is never read to
//! its end stays in memory as long as its connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::StatusCode;
use tokio::sync::Mutex;

use crate::problem::Problem;

/// Texts that are being read, from which on they are shared. Two Prometheus servers and a person each
/// get one of their own, which is of the instant at which they ask.
const UNREAD_MAX: usize = 4;
/// How old a shared one may be: a tenth of a short scrape interval.
const AGE_MAX: Duration = Duration::from_secs(1);

/// The last text, and how many readers have not had theirs to its end.
#[derive(Debug)]
pub struct Scrape {
    last: Mutex<Option<(Instant, Arc<str>)>>,
    unread: Arc<AtomicUsize>,
    age_max: Duration,
}

/// A text on its way to a reader.
struct Unread {
    text: Arc<str>,
    n: Arc<AtomicUsize>,
}

// === impl Scrape ===

impl Default for Scrape {
    fn default() -> Scrape {
        Scrape {
            last: Mutex::default(),
            unread: Arc::default(),
            age_max: AGE_MAX,
        }
    }
}

impl Scrape {
    /// A text as of now, written where blocking is allowed; where many are being read, that of the
    /// last second.
    pub async fn text(
        &self,
        write: impl FnOnce() -> Result<String, Problem> + Send + 'static,
    ) -> Result<Bytes, Problem> {
        // Held while a text is written: who comes meanwhile waits for this one, and writes none.
        let mut last = self.last.lock().await;
        let is_crowded = self.unread.load(Ordering::Relaxed) >= UNREAD_MAX;
        let shared = last
            .as_ref()
            .filter(|(at, _)| is_crowded && at.elapsed() < self.age_max);
        let text = match shared {
            Some((_, text)) => Arc::clone(text),
            None => {
                let text: Arc<str> = tokio::task::spawn_blocking(write)
                    .await
                    .unwrap_or_else(|error| Err(unwritten(&error)))?
                    .into();
                *last = Some((Instant::now(), Arc::clone(&text)));
                text
            }
        };
        self.unread.fetch_add(1, Ordering::Relaxed);
        let n = Arc::clone(&self.unread);
        Ok(Bytes::from_owner(Unread { text, n }))
    }
}

// === impl Unread ===

impl AsRef<[u8]> for Unread {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        self.n.fetch_sub(1, Ordering::Relaxed);
    }
}

fn unwritten(error: &tokio::task::JoinError) -> Problem {
    tracing::error!(%error, "metrics were not written");
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "metrics are broken")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn few_readers_get_what_is_so_now_and_many_share() {
        let scrape = Scrape {
            age_max: Duration::from_secs(3_600),
            ..Scrape::default()
        };
        let n_written = Arc::new(AtomicUsize::new(0));
        let ask = async || {
            let n = Arc::clone(&n_written);
            let write = move || Ok(n.fetch_add(1, Ordering::Relaxed).to_string());
            scrape.text(write).await.unwrap()
        };
        let unread: Vec<Bytes> = vec![ask().await, ask().await, ask().await, ask().await];
        assert_eq!(unread, ["0", "1", "2", "3"]);
        let crowd = [ask().await, ask().await, ask().await];
        assert_eq!(crowd, ["3", "3", "3"]);
        assert_eq!(crowd[0].as_ptr(), unread[3].as_ptr());
        drop((unread, crowd));
        assert_eq!(ask().await, "4");
        assert_eq!(ask().await, "5");
    }
}
