//! The recipe for a batch: read, price, append once, answer after the commit.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use hyper::StatusCode;
use tollmesh_wire::event::{EventBatch, EventsReply, FORGOTTEN, Node, Rejected};
use tollmesh_wire::{Event, WireError};

use super::bodies::Held;
use super::{BadEvent, Ingest, busy, read};
use crate::charge::Bill;
use crate::clock;
use crate::ledger::{AppendError, Appended, Entry, Quarantined, Recorded, Refusal};
use crate::prices::Tables;
use crate::problem::Problem;

/// Events of one batch that cannot be read, and are kept in quarantine and named in the answer. Of the
/// others, mostly bad for the same reason, the number is enough: two bytes would take a hundred each.
const REJECTED_NAMED_MAX: usize = 100;

/// A batch that was read and priced.
#[derive(Default)]
struct Prepared {
    entries: Vec<Entry>,
    ids: Vec<String>,
    quarantine: Vec<Quarantined>,
    rejected: Vec<Rejected>,
    n_unnamed: u64,
}

impl Ingest {
    /// Takes a batch; an `Err` means that nothing of it was taken.
    pub(super) async fn take(&self, body: Held) -> Result<EventsReply, Problem> {
        let (node, mut prepared) = self.read(&body.bytes)?;
        // Who waits for the disk holds the events and not their text, too.
        drop(body);
        let mut reply = EventsReply {
            rejected: std::mem::take(&mut prepared.rejected),
            rejected_unnamed: prepared.n_unnamed,
            ..EventsReply::default()
        };
        let appended = self
            .ledger
            .append(prepared.entries, prepared.quarantine)
            .await
            .map_err(|error| self.deferred(&error))?;
        self.taken();
        reply.rejected.extend(refusals(&appended, &prepared.ids));
        self.metrics.dropped(&node.vm, node.dropped_total);
        let now_seconds = clock::now().as_unix_ms() / 1_000;
        self.metrics.heard(&node.filter_version, now_seconds);
        Ok(self.counted(&appended, reply))
    }

    fn read(&self, body: &[u8]) -> Result<(Node, Prepared), Problem> {
        let batch = EventBatch::parse(body).map_err(|error| {
            let status = match error {
                // Not the batch's last word: a filter sends it again, in halves.
                WireError::TooMany { .. } => StatusCode::PAYLOAD_TOO_LARGE,
                _ => {
                    self.metrics.batches_refused_total.inc();
                    StatusCode::BAD_REQUEST
                }
            };
            Problem::new(status, chain(&error))
        })?;
        let prepared = self.prepare(&batch);
        Ok((batch.node, prepared))
    }

    fn prepare(&self, batch: &EventBatch) -> Prepared {
        let (tables, now) = (self.prices.tables(), clock::now());
        let mut prepared = Prepared {
            entries: Vec::with_capacity(batch.events.len()),
            ids: Vec::with_capacity(batch.events.len()),
            ..Prepared::default()
        };
        for json in &batch.events {
            match super::event(json.get(), now) {
                Ok(event) => {
                    prepared.ids.push(event.event_id.clone());
                    prepared.entries.push(super::priced(event, &tables));
                }
                Err(why) => prepared.reject(json.get(), &why),
            }
        }
        prepared
    }

    fn counted(&self, appended: &Appended, mut reply: EventsReply) -> EventsReply {
        reply.accepted = appended.accepted();
        reply.duplicate = appended.duplicate();
        let metrics = &self.metrics;
        metrics.events_accepted_total.inc_by(reply.accepted);
        metrics.events_duplicate_total.inc_by(reply.duplicate);
        let forgotten = appended.forgotten();
        metrics.events_forgotten_total.inc_by(forgotten);
        let rejected = reply.n_rejected();
        metrics
            .events_rejected_total
            .inc_by(rejected.saturating_sub(forgotten));
        let recorded = appended.recorded.iter();
        let unmatched = recorded.filter(|r| matches!(r, Recorded::Unmatched));
        metrics
            .late_usage_unmatched_total
            .inc_by(unmatched.count() as u64);
        reply
    }

    /// Nothing was taken; the filter keeps the batch and sends it again.
    fn deferred(&self, error: &AppendError) -> Problem {
        self.metrics.batches_deferred_total.inc();
        match error {
            AppendError::Busy { .. } => busy("the ledger cannot keep up"),
            AppendError::Closed => busy("the aggregator is stopping"),
            AppendError::Storage(_) => {
                if !self.is_failing.swap(true, Ordering::Relaxed) {
                    let error = chain(error);
                    tracing::error!(
                        error,
                        "events are not taken until the ledger can be written"
                    );
                }
                busy("the ledger cannot be written")
            }
        }
    }

    fn taken(&self) {
        if self.is_failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the ledger can be written again");
        }
    }
}

impl Prepared {
    fn reject(&mut self, json: &str, why: &BadEvent) {
        if self.rejected.len() == REJECTED_NAMED_MAX {
            self.n_unnamed += 1;
            return;
        }
        let reason = why.to_string();
        let event_id = read::id_of(json);
        self.quarantine.push(Quarantined {
            received: clock::now(),
            event_id: event_id.clone(),
            reason: reason.clone(),
            body: json.to_owned(),
        });
        self.rejected.push(Rejected {
            event_id,
            reason,
            code: None,
        });
    }
}

/// The event with its cost at its own time, under these tables.
pub fn priced(event: Event, tables: &Tables) -> Entry {
    let cost = Bill::from(&event).price(&tables.book, Arc::clone(&tables.version));
    Entry { event, cost }
}

fn refusals<'a>(appended: &'a Appended, ids: &'a [String]) -> impl Iterator<Item = Rejected> + 'a {
    appended.refused().map(|(n, why)| Rejected {
        event_id: ids.get(n).cloned(),
        reason: why.to_string(),
        code: matches!(why, Refusal::Forgotten { .. }).then(|| FORGOTTEN.to_owned()),
    })
}

/// The error with its causes, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
