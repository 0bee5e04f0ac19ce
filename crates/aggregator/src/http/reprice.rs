//! `POST /api/v1/reprice`: prices calls of the past anew, one at a time, on the record.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use tokio::sync::OwnedMutexGuard;

use super::Operator;
use super::api::{self, Pairs};
use crate::clock;
use crate::ledger::{AppendError, Changes, Repricing};
use crate::problem::Problem;
use crate::question::Parts;
use crate::reprice::{self, Refused};
use crate::rows;

/// Who is pricing anew: at most one at a time, since two would undo each other's work.
pub type Turn = Arc<tokio::sync::Mutex<()>>;

/// `POST /api/v1/reprice?from=&to=&where=k:v&dry_run=true`
pub async fn reprice(
    State(operator): State<Arc<Operator>>,
    headers: HeaderMap,
    Query(pairs): Pairs,
) -> Result<Response, Problem> {
    let parts = Parts::from_pairs(pairs, &["from", "to", "where", "dry_run"]);
    let parts = parts.map_err(api::bad_question)?;
    let is_dry_run = parts.is_dry_run().map_err(api::bad_question)?;
    let Ok(turn) = Arc::clone(&operator.repricing).try_lock_owned() else {
        let detail = "calls are being priced anew already; ask again when that is done";
        return Err(Problem::new(StatusCode::CONFLICT, detail).retry_after(10));
    };
    // A task of its own: it comes to its end, and tells it, also when the client has gone.
    let asked = Arc::clone(&operator);
    let run = tokio::spawn(run(operator, parts, is_dry_run, turn));
    let changes = run.await.unwrap_or_else(|error| Err(failed(&error)))?;
    api::respond(&asked, &headers, rows::repriced(&changes)).await
}

async fn run(
    operator: Arc<Operator>,
    parts: Parts,
    is_dry_run: bool,
    turn: OwnedMutexGuard<()>,
) -> Result<Changes, Problem> {
    let repricing = prepared(&operator, &parts).await?;
    let (from, to) = (parts.from.as_deref(), parts.to.as_deref());
    let filters = parts.filters.join(" ");
    tracing::info!(from, to, filters, is_dry_run, "pricing calls anew");
    let changes = match is_dry_run {
        true => looked(&operator, repricing).await?,
        false => {
            let run = operator.ledger.reprice(&repricing, &mut |_| {}).await;
            run.map_err(|error| interrupted(&error))?
        }
    };
    drop(turn);
    let total = changes.total();
    tracing::info!(
        from,
        to,
        filters,
        is_dry_run,
        n_rows = total.requests,
        n_changed = total.changed,
        n_newly_priced = total.newly_priced,
        n_now_unpriced = total.now_unpriced,
        before_usd = %total.before,
        after_usd = %total.after,
        pricing_version = &*operator.prices.tables().version,
        "priced calls anew"
    );
    Ok(changes)
}

async fn prepared(operator: &Arc<Operator>, parts: &Parts) -> Result<Repricing, Problem> {
    let (operator, parts) = (Arc::clone(operator), parts.clone());
    let prepare = move || {
        let reader = operator.ledger.reader();
        reprice::prepare(&parts, clock::now(), reader, &operator.prices)
    };
    match tokio::task::spawn_blocking(prepare).await {
        Ok(Ok(repricing)) => Ok(repricing),
        Ok(Err(Refused::Question(bad))) => Err(api::bad_question(bad)),
        Ok(Err(Refused::Ledger(error))) => Err(api::unanswered(&error)),
        Err(error) => Err(failed(&error)),
    }
}

async fn looked(operator: &Operator, repricing: Repricing) -> Result<Changes, Problem> {
    let reader = operator.ledger.reader().clone();
    let look = move || reader.reprice(&repricing, &mut |_| {});
    match tokio::task::spawn_blocking(look).await {
        Ok(changes) => changes.map_err(|error| api::unanswered(&error)),
        Err(error) => Err(failed(&error)),
    }
}

/// Each step is whole; asking again does the rest.
fn interrupted(error: &AppendError) -> Problem {
    tracing::error!(
        error = error as &dyn std::error::Error,
        "calls were priced anew only in part"
    );
    let detail = "done in part, the earliest calls first; the log says why. Ask again for the rest";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}

fn failed(error: &tokio::task::JoinError) -> Problem {
    tracing::error!(%error, "pricing calls anew failed");
    let detail = "failed; the log says why";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
}
