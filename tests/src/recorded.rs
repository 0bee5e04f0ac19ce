//! Recorded exchanges as JSON lines, one exchange a line, each with the usage that it carried.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::Value;

use crate::exchange::{Ask, Cut, Exchange, Payload, Reply};

/// APIs that repeat the usage of an earlier call.
const RETRIEVALS: [&str; 3] = [
    "anthropic.batch_results",
    "openai.assistants.run",
    "openai.responses.retrieve",
];

/// One recorded exchange.
#[derive(Clone, Debug, Deserialize)]
pub struct Recorded {
    /// Its name.
    pub id: String,
    /// Who served it: `openai`, `anthropic`, …
    pub provider: String,
    /// The API: `openai.chat`, …
    pub api: String,
    /// What its usage is, inclusive totals; `null` is "not reported".
    pub expected: Value,
    /// Why it is no gate; empty where it is one.
    #[serde(default)]
    pub ambiguous: Vec<String>,
    /// The authority it was sent to.
    pub host: String,
    method: String,
    path: String,
    #[serde(default)]
    request_content_type: Option<String>,
    #[serde(default)]
    request_body: Option<String>,
    status: u16,
    #[serde(default)]
    response_headers: BTreeMap<String, String>,
    response_body_b64: String,
}

impl Recorded {
    /// Reads a file; the error names the line.
    pub fn read(file: &Path) -> anyhow::Result<Vec<Recorded>> {
        let text = std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))?;
        let lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| !line.trim().is_empty());
        lines
            .map(|(n, line)| {
                let place = || format!("{}:{}: not a recorded exchange", file.display(), n + 1);
                serde_json::from_str(line).with_context(place)
            })
            .collect()
    }

    /// The exchange to replay, cut as told. The body is sent as it was recorded, compressed or not.
    pub fn exchange(&self, cut: Cut) -> anyhow::Result<Exchange> {
        let body = STANDARD.decode(&self.response_body_b64);
        let body = body.with_context(|| format!("{}: response_body_b64", self.id))?;
        let content_type = self.request_content_type.iter();
        let headers = content_type
            .map(|value| ("content-type".to_string(), value.as_bytes().to_vec()))
            .chain([("accept-encoding".to_string(), b"gzip, deflate, br".to_vec())]);
        let request_body = self.request_body.clone().unwrap_or_default();
        let ask = Ask {
            method: self.method.clone(),
            host: self.host.clone(),
            path: self.path.clone(),
            headers: headers.collect(),
            body: Payload::Bytes(request_body.into()),
        };
        let reply_headers = self.response_headers.iter();
        let reply = Reply {
            status: self.status,
            headers: reply_headers
                .map(|(name, value)| (name.clone(), value.as_bytes().to_vec()))
                .collect(),
            body: Payload::Bytes(body.into()),
            cut,
            ..Reply::default()
        };
        Ok(Exchange {
            ask,
            reply,
            usage: None,
        })
    }

    /// Whether a ledger row is due: a retrieval repeats the usage of an earlier call, and without
    /// that call it charges nothing and has no row of its own. To start a run is no retrieval.
    pub fn has_row(&self) -> bool {
        let path = self.path.split('?').next().unwrap_or_default();
        let starts_run = self.method == "POST" && path.ends_with("/runs");
        starts_run || !is_retrieval(&self.api)
    }
}

/// Whether calls of that API repeat the usage of an earlier one.
pub fn is_retrieval(api: &str) -> bool {
    RETRIEVALS.contains(&api)
}
