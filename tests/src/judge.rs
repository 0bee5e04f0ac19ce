//! A scripted aggregator: it says the decisions that a test tells it, and remembers what it was asked.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the judge says to reservations.
#[derive(Clone, Debug, PartialEq)]
pub enum Sentence {
    /// This answer.
    Now(Value),
    /// Nothing, until it is told another sentence.
    Wait,
    /// A 500.
    Broken,
}

/// The judge, on a loopback port.
#[derive(Debug)]
pub struct Judge {
    address: SocketAddr,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    table: watch::Sender<(u64, Value)>,
    sentence: watch::Sender<Sentence>,
    questions: Mutex<Vec<Value>>,
    events: Mutex<Vec<Value>>,
    n_polls: Mutex<u64>,
}

impl Judge {
    /// Starts to listen, with a table of these budgets; reservations are granted.
    pub async fn start(budgets: Value) -> anyhow::Result<Judge> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("the judge cannot listen on loopback")?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            table: watch::Sender::new((1, budgets)),
            sentence: watch::Sender::new(Judge::allow()),
            questions: Mutex::default(),
            events: Mutex::default(),
            n_polls: Mutex::default(),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Judge {
            address,
            state,
            accepting,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A call may go ahead.
    pub fn allow() -> Sentence {
        Sentence::Now(json!({ "decision": "allow", "reservation_id": "r1-1" }))
    }

    /// A call may not.
    pub fn deny() -> Sentence {
        Sentence::Now(json!({
            "decision": "deny", "budget": "b", "reason": "budget_exceeded",
            "reset_at": "2099-01-01T00:00:00Z", "limit": "1 USD", "window": "day"
        }))
    }

    /// Says this to reservations from now on, and to those that wait.
    pub fn says(&self, sentence: Sentence) {
        self.state.sentence.send_replace(sentence);
    }

    /// Has a table of these budgets from now on.
    pub fn decides(&self, budgets: Value) {
        self.state
            .table
            .send_modify(|(version, table)| (*version, *table) = (*version + 1, budgets));
    }

    /// The reservations that were asked for the call of that id.
    pub fn questions(&self, request_id: &str) -> Vec<Value> {
        let questions = lock(&self.state.questions);
        let of = |question: &&Value| question["request_id"] == request_id;
        questions.iter().filter(of).cloned().collect()
    }

    /// The events of the call of that id.
    pub fn events(&self, request_id: &str) -> Vec<Value> {
        let events = lock(&self.state.events);
        let of = |event: &&Value| event["request_id"] == request_id;
        events.iter().filter(of).cloned().collect()
    }

    /// How often the table was asked for.
    pub fn n_polls(&self) -> u64 {
        *lock(&self.state.n_polls)
    }
}

impl Drop for Judge {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    loop {
        // A failed accept concerns that connection only.
        let Ok((stream, _)) = listener.accept().await else {
            continue;
        };
        let _ = stream.set_nodelay(true);
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let state = Arc::clone(&state);
                async move { Ok::<_, Infallible>(answer(request, &state).await) }
            });
            // An error here is an Envoy that went away.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn answer(request: Request<Incoming>, state: &State) -> Response<Full<Bytes>> {
    let path = request.uri().path().to_string();
    let query = request.uri().query().unwrap_or_default().to_string();
    let body = request.into_body().collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    match path.as_str() {
        "/v1/decisions" => {
            *lock(&state.n_polls) += 1;
            said(200, decisions(&query, state).await)
        }
        "/v1/reservations" => {
            lock(&state.questions).push(body);
            reservation(state).await
        }
        "/v1/events" => {
            let events = body["events"].as_array().cloned().unwrap_or_default();
            let n = events.len();
            lock(&state.events).extend(events);
            said(
                200,
                json!({ "accepted": n, "duplicate": 0, "rejected": [] }),
            )
        }
        _ => said(404, Value::Null),
    }
}

/// As soon as there is another version than `after`, or after `wait_ms`.
async fn decisions(query: &str, state: &State) -> Value {
    let number = |name: &str| {
        let mut members = query.split('&').filter_map(|member| member.split_once('='));
        let value = members.find(|(key, _)| *key == name);
        value.and_then(|(_, value)| value.parse::<u64>().ok())
    };
    let after = number("after").unwrap_or(0);
    let wait = Duration::from_millis(number("wait_ms").unwrap_or(0));
    let mut table = state.table.subscribe();
    let _ = tokio::time::timeout(wait, table.wait_for(|(version, _)| *version != after)).await;
    let (version, budgets) = table.borrow().clone();
    json!({ "v": 1, "version": version, "budgets": budgets })
}

async fn reservation(state: &State) -> Response<Full<Bytes>> {
    let mut sentence = state.sentence.subscribe();
    let sentence = sentence
        .wait_for(|sentence| *sentence != Sentence::Wait)
        .await;
    match sentence.map(|sentence| sentence.clone()) {
        Ok(Sentence::Now(answer)) => said(200, answer),
        _ => said(500, Value::Null),
    }
}

fn said(status: u16, body: Value) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body.to_string())));
    *response.status_mut() = status.try_into().unwrap_or_default();
    response
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A test that panicked while it held the lock left a whole value behind.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
