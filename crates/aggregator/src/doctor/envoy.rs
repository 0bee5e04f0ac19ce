//! An Envoy, asked through its admin interface.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::{Request, Response, header};
use serde_json::Value;

use crate::client;
use crate::clock;
use crate::config::Listen;
use crate::doctor::{Findings, clusters, filter};

/// A configuration dump of a large mesh takes some seconds.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// How far clocks may be apart: an hour's sum should hold the hour's calls.
const CLOCK_SECONDS_MAX: i64 = 60;

/// What an Envoy says of itself.
#[derive(Clone, Debug, Default)]
pub struct Told {
    /// `/config_dump`, endpoints left out.
    pub dump: Value,
    /// `/clusters`.
    pub clusters: Value,
    /// Counters and gauges by name.
    pub stats: BTreeMap<String, u64>,
}

/// Looks at the Envoy whose admin interface has that URL, as the neighbour of an aggregator that
/// takes events there.
pub async fn examine(url: &str, ingest: &Listen, findings: &mut Findings) {
    match ask(url, findings).await {
        Ok(told) => {
            let cluster = filter::judge(&told, findings);
            clusters::judge(&told, cluster.as_deref(), ingest, findings);
        }
        Err(error) => findings.fail(
            "envoy",
            format!("{url} cannot be asked: {error:#}"),
            "give the address of Envoy's admin interface (Istio: http://127.0.0.1:15000 within the \
             pod), and run this where it can be reached",
        ),
    }
}

async fn ask(url: &str, findings: &mut Findings) -> anyhow::Result<Told> {
    let address = resolved(url).await?;
    let info = get(&address, "/server_info").await?;
    judge_clock(&info, findings);
    let info = json(info.body())?;
    let (version, state) = (text(&info, "version"), text(&info, "state"));
    let version = version
        .split('/')
        .nth(1)
        .unwrap_or("of unknown version")
        .to_owned();
    match state {
        "LIVE" => findings.ok("envoy", format!("{version} is live")),
        state => findings.fail(
            "envoy",
            format!("{version} is {state}"),
            "wait until it has its configuration, or look into its log for why it has not",
        ),
    }
    let stats = json(get(&address, "/stats?format=json").await?.body())?;
    Ok(Told {
        dump: json(get(&address, "/config_dump").await?.body())?,
        clusters: json(get(&address, "/clusters?format=json").await?.body())?,
        stats: numbers(&stats),
    })
}

async fn resolved(url: &str) -> anyhow::Result<Listen> {
    let url: hyper::Uri = url.parse().context("not a URL")?;
    ensure!(
        url.scheme_str() == Some("http"),
        "expected a URL such as http://127.0.0.1:15000"
    );
    let host = url.host().unwrap_or_default().trim_matches(['[', ']']);
    let port = url.port_u16().unwrap_or(80);
    let mut addresses = tokio::net::lookup_host((host, port)).await?;
    Ok(Listen::Tcp(
        addresses.next().context("the name has no address")?,
    ))
}

async fn get(address: &Listen, path: &str) -> anyhow::Result<Response<Bytes>> {
    let request = Request::get(path)
        .header(header::HOST, "localhost")
        .body(Full::<Bytes>::default())?;
    let answer = client::answer(address, request, ANSWER_TIME_MAX).await?;
    if !answer.status().is_success() {
        bail!("{path} answers {}", answer.status());
    }
    Ok(answer)
}

fn judge_clock(answer: &Response<Bytes>, findings: &mut Findings) {
    let date = answer.headers().get(header::DATE);
    let theirs = date.and_then(|date| jiff::fmt::rfc2822::parse(date.to_str().ok()?).ok());
    let Some(theirs) = theirs.map(|date| date.timestamp().as_second()) else {
        return;
    };
    let apart = (clock::now().as_unix_ms() / 1_000 - theirs).abs();
    if apart > CLOCK_SECONDS_MAX {
        findings.warn(
            "clock",
            format!("Envoy's clock and this one are {apart} s apart"),
            "let both machines keep time by NTP: calls are counted in the hour that Envoy says",
        );
    }
}

fn json(body: &[u8]) -> anyhow::Result<Value> {
    serde_json::from_slice(body).context("not an answer of Envoy's admin interface")
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or_default()
}

fn numbers(stats: &Value) -> BTreeMap<String, u64> {
    let entries = stats["stats"].as_array().into_iter().flatten();
    let number =
        |entry: &Value| Some((entry["name"].as_str()?.to_owned(), entry["value"].as_u64()?));
    entries.filter_map(number).collect()
}

impl Told {
    /// One counter or gauge; zero where it was never touched.
    pub fn stat(&self, name: &str) -> u64 {
        self.stats.get(name).copied().unwrap_or(0)
    }

    /// One of the filter's counters, named without what all of them begin and end with.
    pub fn counted(&self, thing: &str) -> u64 {
        self.stat(&format!("wasmcustom.tollmesh_filter_{thing}_total"))
    }
}
