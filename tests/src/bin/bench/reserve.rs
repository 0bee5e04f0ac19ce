//! Admission by a strict budget: how long a call waits for the aggregator's word.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Request, http::request};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tollmesh_tests::aggregator::Aggregator;
use tollmesh_tests::envoy_config::Ingest;

use crate::{median, quantile};

/// Calls a second, from so many workers of a proxy.
const PER_SECOND: u32 = 2_000;
const N_WORKERS: u32 = 4;
/// Calls that a worker settles in one batch.
const SETTLED_TOGETHER: usize = 20;
/// The goal, as the table says it.
const P99_MICROS_MAX: f64 = 200.0;
/// A limit that is never reached, for each of 100 users.
const BUDGETS: &str = "[[budget]]\nname = \"each\"\nper = [\"user\"]\nlimit = \"100000 USD\"\n\
     window = \"month\"\nenforce = \"strict\"\n\
     [[budget]]\nname = \"all\"\nlimit = \"1000000 USD\"\nwindow = \"month\"\n\
     enforce = \"strict\"\n";

/// Measures and prints.
pub fn measure(tollmesh: &Path, span: Duration) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let dir = tempfile::tempdir()?;
    // Where this file is, the configuration names it.
    std::fs::write(dir.path().join("budgets.toml"), BUDGETS)?;
    let aggregator = Aggregator::start(tollmesh, dir.path(), false, "", runtime.handle())?;
    let Ingest::Tcp(ingest) = aggregator.ingest().clone() else {
        bail!("the aggregator does not listen on TCP")
    };
    println!("\nadmission by two strict budgets, {PER_SECOND} calls a second, settled by events");
    // Accounts are opened and leases had before it counts, as in a mesh that has run for a while.
    runtime.block_on(call_for(ingest, Duration::from_secs(3), "warm"))?;
    let process = aggregator.process().context("the aggregator runs")?;
    let cpu_before = process.cpu_time()?;
    let taken_before = Taken::read(&aggregator)?;
    let waits = runtime.block_on(call_for(ingest, span, "run"))?;
    let cpu = process.cpu_time()? - cpu_before;
    let taken = Taken::read(&aggregator)?.since(&taken_before);
    let verdict = if taken.part_in_time() >= 0.99 {
        "met"
    } else {
        "missed"
    };
    println!(
        "{:>12.2} % of the admissions within {P99_MICROS_MAX} us at the aggregator (goal 99: {verdict})",
        100.0 * taken.part_in_time()
    );
    for (what, waits) in [
        ("an admission, as its client waits", &waits.admission),
        ("an answer that decides nothing, beside it", &waits.nothing),
    ] {
        let (p50, p99) = (median(waits.clone()), quantile(waits.clone(), 0.99));
        println!("{p50:>12.0} us median, {p99:.0} us p99 of {what}");
    }
    let per_call = cpu.as_secs_f64() * 1e6 / waits.admission.len() as f64;
    println!("{per_call:>12.0} us of the aggregator's CPU a call, its event and row included");
    Ok(())
}

/// How many admissions the aggregator has answered, and how many of them in time.
struct Taken {
    all: f64,
    in_time: f64,
}

impl Taken {
    fn read(aggregator: &Aggregator) -> anyhow::Result<Taken> {
        let metrics = aggregator.metrics()?;
        let family = "tollmesh_budget_reservation_seconds";
        let le = (P99_MICROS_MAX / 1e6).to_string();
        Ok(Taken {
            all: metrics.sum(&format!("{family}_count"), &[]),
            in_time: metrics.sum(&format!("{family}_bucket"), &[&format!("le=\"{le}\"")]),
        })
    }

    fn since(&self, before: &Taken) -> Taken {
        Taken {
            all: self.all - before.all,
            in_time: self.in_time - before.in_time,
        }
    }

    fn part_in_time(&self) -> f64 {
        self.in_time / self.all
    }
}

/// How long clients waited, in microseconds.
#[derive(Default)]
struct Waits {
    admission: Vec<f64>,
    nothing: Vec<f64>,
}

/// Calls for that long.
async fn call_for(ingest: SocketAddr, span: Duration, name: &'static str) -> anyhow::Result<Waits> {
    let every = Duration::from_secs(N_WORKERS.into()) / PER_SECOND;
    let begin = Instant::now();
    let mut workers = JoinSet::new();
    for n in 0..N_WORKERS {
        let first = begin + every * n / N_WORKERS;
        workers.spawn(work(ingest, n, name, first, every, begin + span));
    }
    let mut waits = Waits::default();
    while let Some(worker) = workers.join_next().await {
        let of_worker = worker??;
        waits.admission.extend(of_worker.admission);
        waits.nothing.extend(of_worker.nothing);
    }
    Ok(waits)
}

async fn work(
    ingest: SocketAddr,
    worker: u32,
    name: &'static str,
    first: Instant,
    every: Duration,
    end: Instant,
) -> anyhow::Result<Waits> {
    let mut asking = connect(ingest).await?;
    let mut settling = connect(ingest).await?;
    let (mut waits, mut settled) = (Waits::default(), Vec::new());
    let mut due = first;
    let mut n = 0_u32;
    while due < end {
        tokio::time::sleep_until(due.into()).await;
        let id = format!("{name}-{worker}-{n}");
        let body = reservation(&id, n % 100);
        let asked = Instant::now();
        let answer = post(&mut asking, "/v1/reservations", body).await?;
        waits.admission.push(asked.elapsed().as_secs_f64() * 1e6);
        let answer: serde_json::Value = serde_json::from_slice(&answer)?;
        let reservation_id = answer["reservation_id"].as_str();
        let reservation_id = reservation_id.with_context(|| format!("not allowed: {answer}"))?;
        settled.push(event(&id, n % 100, reservation_id));
        if settled.len() == SETTLED_TOGETHER {
            let events = std::mem::take(&mut settled).join(",");
            let batch = format!("{{\"v\":1,\"node\":{{\"id\":\"bench\"}},\"events\":[{events}]}}");
            post(&mut settling, "/v1/events", batch).await?;
        }
        // The same way there and back without any work, for comparison.
        tokio::time::sleep_until((due + every / 2).into()).await;
        let asked = Instant::now();
        ask(&mut asking, Request::get("/nothing"), String::new()).await?;
        waits.nothing.push(asked.elapsed().as_secs_f64() * 1e6);
        due += every;
        n += 1;
    }
    Ok(waits)
}

fn reservation(id: &str, user: u32) -> String {
    format!(
        "{{\"v\":1,\"event_id\":\"{id}\",\"request_id\":\"r-{id}\",\"provider\":\"openai\",\
         \"api\":\"openai.chat\",\"model\":\"gpt-4o\",\"body_bytes\":1024,\
         \"max_output_tokens\":256,\"n_choices\":1,\"has_tools\":false,\
         \"tags\":{{\"team\":\"t1\",\"feature\":\"f1\",\"user\":\"u{user}\"}},\
         \"source\":{{\"namespace\":\"shop\",\"workload\":\"web\"}}}}"
    )
}

fn event(id: &str, user: u32, reservation_id: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0, |since| since.as_secs());
    let (minutes, seconds) = (now / 60 % 60, now % 60);
    let (hours, day) = (now / 3600 % 24, now / 86_400);
    let (year, month, day) = date(day as i64);
    format!(
        "{{\"event_id\":\"{id}\",\
         \"time\":\"{year:04}-{month:02}-{day:02}T{hours:02}:{minutes:02}:{seconds:02}Z\",\
         \"duration_ms\":812,\"provider\":\"openai\",\"api\":\"openai.chat\",\
         \"host\":\"api.openai.com\",\"model\":\"gpt-4o\",\
         \"usage\":{{\"input\":200,\"output\":96}},\"usage_source\":\"reported\",\
         \"billable\":true,\"status\":200,\"outcome\":\"success\",\"attempts\":1,\
         \"reservation_id\":\"{reservation_id}\",\
         \"tags\":{{\"team\":\"t1\",\"feature\":\"f1\",\"user\":\"u{user}\"}},\
         \"source\":{{\"namespace\":\"shop\",\"workload\":\"web\"}}}}"
    )
}

/// The civil date of a day since 1970, in the proleptic Gregorian calendar.
fn date(days: i64) -> (i64, i64, i64) {
    let mut year = 1970;
    let mut rest = days;
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while rest >= 365 + i64::from(is_leap(year)) {
        rest -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + i64::from(is_leap(year));
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    (year, month, rest + 1)
}

async fn connect(ingest: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(ingest).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn post(
    sender: &mut SendRequest<Full<Bytes>>,
    path: &str,
    body: String,
) -> anyhow::Result<Bytes> {
    let (status, words) = ask(sender, Request::post(path), body).await?;
    ensure!(
        status == 200,
        "{status}: {}",
        String::from_utf8_lossy(&words)
    );
    Ok(words)
}

async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    request: request::Builder,
    body: String,
) -> anyhow::Result<(u16, Bytes)> {
    let request = request
        .header("host", "tollmesh")
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))?;
    let response = sender.send_request(request).await?;
    let status = response.status().as_u16();
    Ok((status, response.into_body().collect().await?.to_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (days, civil) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (789, (1972, 2, 29)),
            (20_779, (2026, 11, 22)),
        ] {
            assert_eq!(date(days), civil, "{days}");
        }
    }
}
