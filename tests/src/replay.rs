//! Recorded exchanges through a real Envoy, and how many of the ledger's rows are right.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::artifacts::Artifacts;
use crate::exchange::{Cut, Exchange};
use crate::fact::{self, PATIENCE};
use crate::ledger::Row;
use crate::recorded::Recorded;
use crate::score::{self, HEADING, Score};
use crate::{Answer, Mesh};
use anyhow::{bail, ensure};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Calls in flight at a time.
const CALLS_IN_FLIGHT: usize = 16;

/// How long nothing may come before the ledger is taken to have all that it will get: many times
/// the filter's tick, which is when events leave.
const QUIET: Duration = Duration::from_secs(4);

/// Cases that are shown when they are wrong.
const SHOWN_MAX: usize = 40;

/// Replays the cases of `file` and prints the score; true where it is full.
pub fn replay(
    artifacts: &Artifacts,
    file: &Path,
    providers: &[String],
    chunk: Option<usize>,
) -> anyhow::Result<bool> {
    let mut cases = Recorded::read(file)?;
    cases.retain(|case| providers.is_empty() || providers.contains(&case.provider));
    ensure!(
        !cases.is_empty(),
        "{}: no case of {}",
        file.display(),
        providers.join(", ")
    );
    let cut = chunk.map_or(Cut::Whole, Cut::Every);
    let exchanges: Vec<Arc<Exchange>> = cases
        .iter()
        .map(|case| Ok(Arc::new(case.exchange(cut.clone())?)))
        .collect::<anyhow::Result<_>>()?;
    let started = Instant::now();
    let mesh = Mesh::built().every_host().start_with(artifacts)?;
    let answers = send_all(&mesh, &exchanges)?;
    let score = score_all(&mesh, &cases, &answers)?;
    let n_changed = changed_bodies(&cases, &exchanges, &answers);
    println!("{HEADING}\n{score}");
    let pieces = chunk.map_or("whole".to_string(), |n| format!("in writes of {n} bytes"));
    println!(
        "{} exchanges, bodies {pieces}, {n_changed} bodies changed, {:.1} s",
        cases.len(),
        started.elapsed().as_secs_f64()
    );
    Ok(score.is_full() && n_changed == 0)
}

/// Sends every exchange, some at a time; the answers come in the order of the exchanges.
fn send_all(mesh: &Mesh, exchanges: &[Arc<Exchange>]) -> anyhow::Result<Vec<Answer>> {
    let client = mesh.client("corpus");
    let in_flight = Arc::new(Semaphore::new(CALLS_IN_FLIGHT));
    mesh.runtime().block_on(async {
        let mut calls = JoinSet::new();
        for (n, exchange) in exchanges.iter().enumerate() {
            let permit = Arc::clone(&in_flight).acquire_owned().await?;
            let (client, exchange) = (client.clone(), Arc::clone(exchange));
            calls.spawn(async move {
                let answer = client.send(&exchange).await;
                drop(permit);
                answer.map(|answer| (n, answer))
            });
        }
        let mut answers = Vec::with_capacity(exchanges.len());
        while let Some(call) = calls.join_next().await {
            answers.push(call??);
        }
        answers.sort_by_key(|(n, _)| *n);
        Ok(answers.into_iter().map(|(_, answer)| answer).collect())
    })
}

fn score_all(mesh: &Mesh, cases: &[Recorded], answers: &[Answer]) -> anyhow::Result<Score> {
    let rows = settled_rows(mesh, cases, answers)?;
    let mut score = Score::default();
    let mut n_wrong = 0;
    for (case, answer) in cases.iter().zip(answers) {
        let differences = match rows.get(&answer.request_id).map(Vec::as_slice) {
            Some([row]) => score::differences(case, row),
            None | Some([]) if !case.has_row() => Vec::new(),
            None | Some([]) => vec!["no row".to_string()],
            Some(rows) => vec![format!("{} rows", rows.len())],
        };
        score.count(case, differences.is_empty());
        if !differences.is_empty() {
            n_wrong += 1;
            if n_wrong <= SHOWN_MAX {
                let gate = if case.ambiguous.is_empty() {
                    ""
                } else {
                    " (ambiguous, no gate)"
                };
                let words = differences.join(", ");
                println!("{} {} {}: {words}{gate}", case.id, case.provider, case.api);
            }
        }
    }
    if n_wrong > SHOWN_MAX {
        println!("… and {} more", n_wrong - SHOWN_MAX);
    }
    Ok(score)
}

/// The ledger's rows by request id, once every call that is due one has it, or once nothing has
/// come for a while.
fn settled_rows(
    mesh: &Mesh,
    cases: &[Recorded],
    answers: &[Answer],
) -> anyhow::Result<HashMap<String, Vec<Row>>> {
    let ledger = mesh.ledger();
    let mut seen = HashMap::new();
    let mut last_came = Instant::now();
    let settled = fact::until(PATIENCE, || {
        let rows = ledger.by_request_id()?;
        let due = cases.iter().zip(answers).filter(|(case, _)| case.has_row());
        let n_missing = due
            .filter(|(_, answer)| !rows.contains_key(&answer.request_id))
            .count();
        if rows.len() > seen.len() {
            last_came = Instant::now();
        }
        seen = rows;
        if n_missing == 0 || last_came.elapsed() > QUIET {
            return Ok(n_missing);
        }
        Err(format!("{n_missing} calls have no row"))
    });
    match settled {
        Ok(0) => {}
        Ok(n_missing) => println!("{n_missing} calls have no row, and none comes any more"),
        Err(missing) => bail!("{missing}"),
    }
    Ok(seen)
}

/// How many answers are not, byte for byte, what was recorded.
fn changed_bodies(cases: &[Recorded], exchanges: &[Arc<Exchange>], answers: &[Answer]) -> usize {
    let mut n_changed = 0;
    for ((case, exchange), answer) in cases.iter().zip(exchanges).zip(answers) {
        let sent = &exchange.reply.body;
        let is_same = answer.status == Some(exchange.reply.status)
            && answer.n_body_bytes == sent.n_bytes()
            && answer.sha256 == sent.sha256();
        if !is_same {
            n_changed += 1;
            println!(
                "{} {}: {:?} {} bytes instead of {} {} bytes, {:?}",
                case.id,
                case.api,
                answer.status,
                answer.n_body_bytes,
                exchange.reply.status,
                sent.n_bytes(),
                answer.ended
            );
        }
    }
    n_changed
}
