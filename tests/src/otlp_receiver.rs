//! A receiver of telemetry over OTLP/HTTP: takes or refuses what it is sent, and remembers it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::HeaderMap;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Any;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::Metric;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_rustls::TlsAcceptor;

/// What it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Mood {
    /// It takes everything.
    #[default]
    Takes,
    /// It refuses everything with that status.
    Refuses(u16),
    /// It refuses, as bad, each request with a span of that name.
    RefusesSpan(String),
    /// It takes all but one span of each request.
    RejectsOne,
}

/// Attributes by their keys.
pub type Attributes = BTreeMap<String, Value>;

/// A span with its resource.
#[derive(Clone, Debug)]
pub struct ToldSpan {
    /// Who called.
    pub resource: Attributes,
    /// What is told of the call.
    pub attributes: Attributes,
    /// The rest.
    pub span: Span,
}

/// A log record with its resource.
#[derive(Clone, Debug)]
pub struct ToldLog {
    /// Who called.
    pub resource: Attributes,
    /// What is told of the call.
    pub attributes: Attributes,
    /// The rest.
    pub record: LogRecord,
}

/// What it has taken, and what it has not.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Spans, in the order of their arrival.
    pub spans: Vec<ToldSpan>,
    /// Log records, in the order of their arrival.
    pub logs: Vec<ToldLog>,
    /// Metrics as they came last.
    pub metrics: Vec<Metric>,
    /// Requests that were refused.
    pub n_refused: u64,
    /// The headers of the last request.
    pub headers: HeaderMap,
    mood: Mood,
}

/// A receiver on a loopback port, until it is dropped.
#[derive(Debug)]
pub struct Receiver {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _runtime: Runtime,
}

// === impl Receiver ===

impl Receiver {
    /// Starts to listen, with TLS where an acceptor is given.
    ///
    /// # Panics
    /// Where loopback has no port left.
    pub fn start(tls: Option<TlsAcceptor>) -> Receiver {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = listener.expect("loopback has a port");
        let address = listener.local_addr().expect("a bound listener");
        let seen = Arc::default();
        runtime.spawn(accept(listener, tls, Arc::clone(&seen)));
        Receiver {
            address,
            seen,
            _runtime: runtime,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it answers like that.
    pub fn becomes(&self, mood: Mood) {
        self.lock().mood = mood;
    }

    /// All that it has seen.
    pub fn seen(&self) -> Seen {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }
}

// === impl Seen ===

impl Seen {
    /// The span of the call with that request id; `None` where there is none, and an error where
    /// there are several.
    pub fn span_of(&self, request_id: &str) -> Result<Option<&ToldSpan>, String> {
        let of_call = |told: &&ToldSpan| told.attributes["tollmesh.request_id"] == request_id;
        let mut spans = self.spans.iter().filter(of_call);
        match (spans.next(), spans.next()) {
            (span, None) => Ok(span),
            _ => Err(format!("several spans of {request_id}")),
        }
    }

    /// The sum over all points of a metric: of a histogram the sum of its sums.
    pub fn sum(&self, metric: &str) -> f64 {
        let metrics = self.metrics.iter().filter(|m| m.name == metric);
        let of_data = |data: &Data| -> f64 {
            match data {
                Data::Sum(sum) => sum
                    .data_points
                    .iter()
                    .map(|point| match point.value {
                        Some(Number::AsDouble(value)) => value,
                        Some(Number::AsInt(value)) => value as f64,
                        None => 0.0,
                    })
                    .sum(),
                Data::Histogram(histogram) => histogram
                    .data_points
                    .iter()
                    .filter_map(|point| point.sum)
                    .sum(),
                _ => 0.0,
            }
        };
        metrics
            .filter_map(|metric| metric.data.as_ref())
            .map(of_data)
            .sum()
    }

    fn take(&mut self, path: &str, body: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        if let Mood::Refuses(status) = self.mood {
            self.n_refused += 1;
            return Ok((status, b"not now".to_vec()));
        }
        match path {
            "/v1/traces" => return self.take_spans(ExportTraceServiceRequest::decode(body)?),
            "/v1/logs" => {
                for group in ExportLogsServiceRequest::decode(body)?.resource_logs {
                    let resource = group.resource.unwrap_or_default().attributes;
                    let records = group.scope_logs.into_iter().flat_map(|s| s.log_records);
                    self.logs.extend(records.map(|record| ToldLog {
                        resource: attributes(&resource),
                        attributes: attributes(&record.attributes),
                        record,
                    }));
                }
            }
            "/v1/metrics" => {
                let request = ExportMetricsServiceRequest::decode(body)?;
                let scopes = request
                    .resource_metrics
                    .into_iter()
                    .flat_map(|r| r.scope_metrics);
                self.metrics = scopes.flat_map(|scope| scope.metrics).collect();
            }
            _ => return Ok((404, Vec::new())),
        }
        Ok((200, Vec::new()))
    }

    fn take_spans(&mut self, request: ExportTraceServiceRequest) -> anyhow::Result<(u16, Vec<u8>)> {
        let mut told = Vec::new();
        for group in request.resource_spans {
            let resource = group.resource.unwrap_or_default().attributes;
            let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            told.extend(spans.map(|span| ToldSpan {
                resource: attributes(&resource),
                attributes: attributes(&span.attributes),
                span,
            }));
        }
        match &self.mood {
            Mood::RefusesSpan(name) if told.iter().any(|t| t.span.name == *name) => {
                self.n_refused += 1;
                return Ok((400, b"I do not like this span".to_vec()));
            }
            Mood::RejectsOne => {
                told.pop();
                self.spans.extend(told);
                let answer = ExportTraceServiceResponse {
                    partial_success: Some(ExportTracePartialSuccess {
                        rejected_spans: 1,
                        error_message: "one too many".into(),
                    }),
                };
                return Ok((200, answer.encode_to_vec()));
            }
            _ => self.spans.extend(told),
        }
        Ok((200, Vec::new()))
    }
}

async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, seen: Arc<Mutex<Seen>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (tls, seen) = (tls.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            match tls {
                None => serve(stream, seen).await,
                Some(tls) => {
                    if let Ok(stream) = tls.accept(stream).await {
                        serve(stream, seen).await;
                    }
                }
            }
        });
    }
}

async fn serve<S>(stream: S, seen: Arc<Mutex<Seen>>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let seen = Arc::clone(&seen);
        async move { Ok::<_, Infallible>(answer(request, &seen).await) }
    });
    // A connection that breaks is the other side's to notice.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

async fn answer(request: Request<Incoming>, seen: &Mutex<Seen>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let taken = async {
        let body = body.collect().await.context("no whole body")?.to_bytes();
        let is_plain = |name, value| head.headers.get(name).is_some_and(|have| have == value);
        anyhow::ensure!(
            is_plain("content-type", "application/x-protobuf")
                && is_plain("content-encoding", "gzip"),
            "not as OTLP/HTTP has it: {:?}",
            head.headers
        );
        let mut bytes = Vec::new();
        GzDecoder::new(body.as_ref()).read_to_end(&mut bytes)?;
        let mut seen = lock(seen);
        seen.headers = head.headers.clone();
        seen.take(head.uri.path(), &bytes)
    };
    let (status, body) = match taken.await {
        Ok(answer) => answer,
        Err(error) => (500, format!("{error:#}").into_bytes()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status.try_into().unwrap_or_default();
    response
}

fn attributes(all: &[KeyValue]) -> Attributes {
    let pair = |pair: &KeyValue| {
        let value = pair.value.as_ref().and_then(|any| any.value.as_ref());
        (pair.key.clone(), value.map_or(Value::Null, plain))
    };
    let read: Attributes = all.iter().map(pair).collect();
    assert_eq!(read.len(), all.len(), "an attribute twice: {all:?}");
    read
}

fn plain(value: &Any) -> Value {
    match value {
        Any::StringValue(text) => json!(text),
        Any::BoolValue(is) => json!(is),
        Any::IntValue(n) => json!(n),
        Any::DoubleValue(n) => json!(n),
        Any::ArrayValue(list) => {
            let values = list.values.iter().filter_map(|any| any.value.as_ref());
            values.map(plain).collect()
        }
        other => json!(format!("{other:?}")),
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
