//! Whose turn it is to have a question answered, so that many large ones take neither all memory nor
//! all processors.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::problem::Problem;

/// Questions that are looked into at once. The largest answers take some ten MB each while they are
/// made, and two let a small question pass a large one.
const QUESTIONS_MAX: usize = 2;
/// How long a question waits for its turn: about as long as a reader does.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// When one that was sent away may come again.
const RETRY_AFTER_SECONDS: u32 = 5;
/// What questions yield to filters where both want the processor: a third of the weight
/// (<https://man7.org/linux/man-pages/man7/sched.7.html>, "The nice value").
const NICE: i32 = 5;

/// The questions in work.
#[derive(Clone, Debug)]
pub struct Turns {
    room: Arc<Semaphore>,
    wait_max: Duration,
}

/// A question's turn, which ends with its work, also where the client has gone meanwhile.
#[derive(Debug)]
pub struct Turn(OwnedSemaphorePermit);

impl Default for Turns {
    fn default() -> Turns {
        Turns {
            room: Arc::new(Semaphore::new(QUESTIONS_MAX)),
            wait_max: WAIT_MAX,
        }
    }
}

impl Turns {
    /// Waits for a turn; 503 where none comes in time.
    pub async fn next(&self) -> Result<Turn, Problem> {
        let turn = Arc::clone(&self.room).acquire_owned();
        match tokio::time::timeout(self.wait_max, turn).await {
            Ok(Ok(permit)) => Ok(Turn(permit)),
            _ => {
                let detail = "too many questions are being answered; ask again a little later";
                let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail);
                Err(problem.retry_after(RETRY_AFTER_SECONDS))
            }
        }
    }
}

impl Turn {
    /// Does the work where blocking is allowed, and after those who must not wait.
    pub async fn work<T: Send + 'static>(
        self,
        work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
    ) -> Result<T, Problem> {
        let worked = tokio::task::spawn_blocking(move || {
            yield_to_filters();
            let done = work();
            drop(self.0);
            done
        });
        worked.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a question was not answered");
            let detail = "the question could not be answered; the log says why";
            Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail))
        })
    }
}

/// On Linux the value is the thread's own, and these threads do nothing else. Elsewhere it would be
/// the process's, filters included.
fn yield_to_filters() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "questions have the weight of filters");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn no_more_are_worked_on_than_there_are_turns() {
        let turns = Turns {
            wait_max: Duration::ZERO,
            ..Turns::default()
        };
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let first = turns.next().await.unwrap();
        let second = turns.next().await.unwrap();
        let first = tokio::spawn(first.work(move || Ok(ended.recv().is_ok())));
        let sent_away = turns.next().await.unwrap_err();
        assert_eq!(
            (sent_away.status, sent_away.retry_after_seconds),
            (503, Some(5))
        );
        drop(second);
        let third = turns.next().await.unwrap();
        assert_eq!(turns.next().await.unwrap_err().status, 503);
        drop(third);
        end.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(true));
    }

    /// Who hangs up does not have a second question looked into beside the first one.
    #[tokio::test]
    async fn a_turn_is_over_when_its_work_is() {
        let turns = Turns {
            room: Arc::new(Semaphore::new(1)),
            wait_max: Duration::from_secs(60),
        };
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let turn = turns.next().await.unwrap();
        let client = tokio::spawn(turn.work(move || {
            let _ = begin.send(());
            Ok(ended.recv().is_ok())
        }));
        begun.await.unwrap();
        client.abort();
        assert!(client.await.unwrap_err().is_cancelled());
        assert_eq!(turns.room.available_permits(), 0);
        end.send(()).unwrap();
        turns.next().await.unwrap();
    }
}
