//! A question to the aggregator that is running on this configuration.

use std::time::Duration;

use anyhow::{Context, anyhow};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode, header};
use serde_json::{Map, Value};

use crate::config::Config;
use crate::{client, serve};

/// How long it may take to answer what it knows by heart.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// Asks it, with its token where the configuration names one; `body` is JSON, or nothing. The answer
/// is JSON; one that is no success is an error with its own words.
pub fn ask(
    config: &Config,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<Map<String, Value>> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::HOST, "localhost")
        .header(header::ACCEPT, "application/json");
    if let Some(token_file) = &config.operator.token_file {
        let token = serve::read_token(token_file)?;
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let body = match body {
        Some(body) => {
            request = request.header(header::CONTENT_TYPE, "application/json");
            serde_json::to_vec(body)?
        }
        None => Vec::new(),
    };
    let request = request.body(Full::new(Bytes::from(body)))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let address = &config.operator.listen;
    let asked = runtime.block_on(client::ask(address, request, ANSWER_TIME_MAX));
    let (status, body) = asked.with_context(|| {
        format!(
            "no aggregator answers at operator.listen, {address}; start `tollmesh serve`, or give \
             its own configuration with --config"
        )
    })?;
    let answer: Map<String, Value> = serde_json::from_slice(&body)
        .with_context(|| format!("what is at {address} is no aggregator: answered {status}"))?;
    if status != StatusCode::OK {
        let detail = answer.get("detail").and_then(Value::as_str);
        return Err(anyhow!("{}", detail.unwrap_or("no reason given")))
            .with_context(|| format!("it answered {status} at {address}"));
    }
    Ok(answer)
}
