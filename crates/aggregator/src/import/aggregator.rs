//! Events to an aggregator that is running, as a filter would send them.

use std::time::Duration;

use anyhow::{Context, bail};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, StatusCode, header};
use serde_json::value::RawValue;
use tokio::runtime::Handle;
use tollmesh_wire::VERSION;
use tollmesh_wire::event::{EventBatch, EventsReply, FORGOTTEN, Node};

use super::{Found, Taken, Taker};
use crate::client;
use crate::config::Listen;

/// How long one answer may take; a commit takes milliseconds.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// The pause after an answer that says to come again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often a batch is sent while the aggregator says to come again.
const SENDINGS_MAX: u32 = 30;

/// An aggregator's `ingest.listen`.
pub struct Aggregator {
    runtime: Handle,
    address: Listen,
}

impl Aggregator {
    /// The aggregator that listens there.
    pub fn new(runtime: Handle, address: Listen) -> Aggregator {
        Aggregator { runtime, address }
    }

    /// Sends until it is taken.
    async fn send(&self, body: &Bytes) -> anyhow::Result<EventsReply> {
        for _ in 0..SENDINGS_MAX {
            let (status, answer) = self.post(body.clone()).await?;
            match status {
                StatusCode::OK => {
                    return serde_json::from_slice(&answer).context("not an aggregator's answer");
                }
                StatusCode::SERVICE_UNAVAILABLE => tokio::time::sleep(PAUSE).await,
                _ => bail!("answered {status}: {}", String::from_utf8_lossy(&answer)),
            }
        }
        bail!("answers that it cannot take events now; see its log")
    }

    async fn post(&self, body: Bytes) -> anyhow::Result<(StatusCode, Bytes)> {
        let request = Request::post("/v1/events")
            .header(header::HOST, "tollmesh")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::<Bytes>::from(body))?;
        client::ask(&self.address, request, ANSWER_TIME_MAX).await
    }
}

impl Taker for Aggregator {
    fn take(&mut self, batch: Vec<Found>) -> anyhow::Result<Taken> {
        let events = batch
            .iter()
            .map(|found| RawValue::from_string(found.json.clone()));
        let body = serde_json::to_vec(&EventBatch {
            v: VERSION,
            node: Node::default(),
            events: events.collect::<Result<_, _>>()?,
        })?;
        let reply = self.runtime.block_on(self.send(&Bytes::from(body)));
        let reply = reply.with_context(|| format!("the aggregator at {}", self.address))?;
        let (forgotten, refused): (Vec<_>, Vec<_>) = reply
            .rejected
            .into_iter()
            .partition(|rejected| rejected.code.as_deref() == Some(FORGOTTEN));
        let refused = refused.into_iter().map(|rejected| {
            let is_it = |found: &&Found| Some(&found.event.event_id) == rejected.event_id.as_ref();
            let place = batch.iter().find(is_it);
            let (log, line) = place.map_or((String::new(), 0), |it| (it.log.clone(), it.line));
            (log, line, rejected.reason)
        });
        Ok(Taken {
            imported: reply.accepted,
            already: reply.duplicate,
            forgotten: forgotten.len() as u64,
            refused: refused.collect(),
        })
    }
}
