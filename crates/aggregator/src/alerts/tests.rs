//! Alerts from being noticed to being taken, by real receivers on this machine.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{CertificateParams, KeyPair};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::alert::tests::reached;
use super::*;

/// One request that a receiver got.
#[derive(Clone, Debug)]
struct Got {
    path: String,
    authorization: Option<String>,
    body: Value,
}

/// A receiver that answers with these statuses, the last one again and again.
struct Hook {
    url: String,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Hook {
    async fn start(answers: &[u16], tls: Option<TlsAcceptor>) -> Hook {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let got: Arc<Mutex<Vec<Got>>> = Arc::default();
        let (answers, seen) = (answers.to_vec(), Arc::clone(&got));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (tls, answers, seen) = (tls.clone(), answers.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        answer(request, answers.clone(), Arc::clone(&seen))
                    });
                    let builder = http1::Builder::new();
                    // A client that hangs up is not the receiver's mistake.
                    let _ = match tls {
                        None => {
                            builder
                                .serve_connection(TokioIo::new(stream), service)
                                .await
                        }
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => {
                                builder
                                    .serve_connection(TokioIo::new(stream), service)
                                    .await
                            }
                            Err(_) => Ok(()),
                        },
                    };
                });
            }
        });
        Hook {
            url: format!("{scheme}://localhost:{port}"),
            got,
        }
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// Waits until it got so many requests, and answers them all.
    async fn gets(&self, n: usize) -> Vec<Got> {
        wait_for(&format!("{n} requests"), || self.got().len() >= n).await;
        let got = self.got();
        assert_eq!(got.len(), n, "{got:?}");
        got
    }
}

async fn answer(
    request: Request<Incoming>,
    answers: Vec<u16>,
    seen: Arc<Mutex<Vec<Got>>>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let authorization = request.headers().get("authorization");
    let authorization = authorization.map(|value| value.to_str().unwrap().to_owned());
    let body = request.into_body().collect().await?.to_bytes();
    let mut seen = seen.lock().unwrap();
    let status = answers.get(seen.len()).or(answers.last()).copied();
    seen.push(Got {
        path,
        authorization,
        body: serde_json::from_slice(&body).unwrap(),
    });
    let mut response = Response::new(Full::from("noted"));
    *response.status_mut() = StatusCode::from_u16(status.unwrap()).unwrap();
    if response.status().is_redirection() {
        let elsewhere = hyper::header::HeaderValue::from_static("/elsewhere");
        response.headers_mut().insert("location", elsewhere);
    }
    Ok(response)
}

async fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// There are no other sidecars: what the outbox does not know is ours.
struct Alone;

impl Claims for Alone {
    async fn claim(&self, _what: &str, _ttl_ms: u64) -> Result<bool, String> {
        Ok(true)
    }
}

/// A process' part that tells alerts.
struct Telling {
    alerts: Alerts,
    metrics: Arc<Metrics>,
    round: Round,
}

impl Telling {
    fn start(dir: &Path, receivers: Receivers, claims: impl Claims) -> Telling {
        let metrics = Arc::new(Metrics::new().unwrap());
        let (alerts, round) = start(dir, receivers, claims, &metrics).unwrap();
        Telling {
            alerts,
            metrics,
            round,
        }
    }

    fn outcomes(&self, receiver: &str, channel: &str, outcome: &str) -> u64 {
        let family = &self.metrics.alert_deliveries_total;
        family
            .with_label_values(&[receiver, channel, outcome])
            .get()
    }

    async fn stop(self) {
        self.round.finish(Duration::from_secs(20)).await;
    }
}

fn webhook(url: &str) -> Receiver {
    let channel = Channel {
        place: Place::Url(Target::parse(url).unwrap()),
        secret_file: None,
    };
    Receiver {
        channels: [(ChannelKind::Webhook, channel)].into(),
        allow_private: true,
        ca_file: None,
    }
}

fn only(receiver: Receiver) -> Receivers {
    Receivers {
        by_name: [("eng".to_owned(), receiver)].into(),
        owner: Owners::default(),
    }
}

fn file(dir: &Path, name: &str, content: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_receiver_is_told_once() {
    let dir = tempfile::tempdir().unwrap();
    let hook = Hook::start(&[200], None).await;
    let url = |path: &str| Place::Url(Target::parse(&format!("{}{path}", hook.url)).unwrap());
    let url_file = file(dir.path(), "url", &format!("{}/slack/s3cret\n", hook.url));
    let teams_file = file(dir.path(), "teams", &format!("{}/teams/s3cret", hook.url));
    let token = Some(file(dir.path(), "token", "tok3n\n"));
    let key = Some(file(dir.path(), "key", &"k".repeat(32)));
    let channel = |place, secret_file| Channel { place, secret_file };
    let receiver = Receiver {
        channels: [
            (ChannelKind::Webhook, channel(url("/hook"), token.clone())),
            (ChannelKind::Slack, channel(Place::UrlFile(url_file), None)),
            (
                ChannelKind::Teams,
                channel(Place::UrlFile(teams_file), None),
            ),
            (ChannelKind::PagerDuty, channel(url("/v2/enqueue"), key)),
            (ChannelKind::Alertmanager, channel(url(""), token)),
        ]
        .into(),
        allow_private: true,
        ca_file: None,
    };
    let telling = Telling::start(dir.path(), only(receiver), Alone);
    for _ in 0..3 {
        telling.alerts.tier_reached(&reached());
    }
    let mut got = hook.gets(5).await;
    got.sort_by(|a, b| a.path.cmp(&b.path));
    let [alertmanager, hook_got, slack, teams, pagerduty] = got.try_into().unwrap();
    assert_eq!(alertmanager.path, "/api/v2/alerts");
    assert_eq!(
        alertmanager.body[0]["labels"]["alertname"],
        "TollmeshBudgetTier"
    );
    assert_eq!(alertmanager.authorization.as_deref(), Some("Bearer tok3n"));
    assert_eq!(hook_got.body["budget"], "checkout-daily");
    assert_eq!(hook_got.authorization.as_deref(), Some("Bearer tok3n"));
    assert_eq!(slack.path, "/slack/s3cret");
    assert_eq!(slack.authorization, None);
    assert_eq!(
        teams.body["attachments"][0]["content"]["type"],
        "AdaptiveCard"
    );
    assert_eq!(pagerduty.body["routing_key"], "k".repeat(32));
    assert_eq!(pagerduty.authorization, None);
    telling.stop().await;

    // Another life of the process remembers.
    let telling = Telling::start(dir.path(), only(webhook(&hook.url)), Alone);
    telling.alerts.tier_reached(&reached());
    let tomorrow = TierReached {
        window: "hour".into(),
        ..reached()
    };
    telling.alerts.tier_reached(&tomorrow);
    let got = hook.gets(6).await;
    assert_eq!(got[5].body["window"]["kind"], "hour");
    telling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_is_tried_until_it_takes_the_alert() {
    let dir = tempfile::tempdir().unwrap();
    let hook = Hook::start(&[503, 302, 200], None).await;
    let telling = Telling::start(dir.path(), only(webhook(&hook.url)), Alone);
    telling.alerts.tier_reached(&reached());
    let got = hook.gets(3).await;
    // The redirect led nowhere, and each attempt told the same.
    assert!(
        got.iter()
            .all(|got| got.path == "/" && got.body["id"] == reached().id())
    );
    wait_for("the taking", || {
        telling.outcomes("eng", "webhook", "taken") == 1
    })
    .await;
    assert_eq!(telling.outcomes("eng", "webhook", "failed"), 2);
    telling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_not_taken_goes_on_in_the_next_life() {
    let dir = tempfile::tempdir().unwrap();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = closed.local_addr().unwrap().port();
    drop(closed);
    let url_file = file(dir.path(), "url", &format!("http://localhost:{port}"));
    let mut receiver = webhook("http://localhost");
    let channel = receiver.channels.get_mut(&ChannelKind::Webhook).unwrap();
    channel.place = Place::UrlFile(url_file.clone());
    let telling = Telling::start(dir.path(), only(receiver.clone()), Alone);
    telling.alerts.tier_reached(&reached());
    wait_for("a failure", || {
        telling.outcomes("eng", "webhook", "failed") > 0
    })
    .await;
    // Killed, not stopped.
    telling.round.courier.abort();
    let _ = telling.round.courier.await;
    let hook = Hook::start(&[200], None).await;
    std::fs::write(url_file, &hook.url).unwrap();
    let telling = Telling::start(dir.path(), only(receiver), Alone);
    hook.gets(1).await;
    telling.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_body_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let hook = Hook::start(&[400], None).await;
    let telling = Telling::start(dir.path(), only(webhook(&hook.url)), Alone);
    telling.alerts.tier_reached(&reached());
    wait_for("giving up", || {
        telling.outcomes("eng", "webhook", "given_up") == 1
    })
    .await;
    telling.stop().await;
    assert_eq!(hook.got().len(), 1);
}

/// Claims as a shared store grants them: to the first who asks.
#[derive(Clone, Default)]
struct Shared {
    node: u32,
    by_what: Arc<Mutex<HashMap<String, u32>>>,
    is_away: Arc<std::sync::atomic::AtomicBool>,
}

impl Claims for Shared {
    async fn claim(&self, what: &str, _ttl_ms: u64) -> Result<bool, String> {
        if self.is_away.load(std::sync::atomic::Ordering::Relaxed) {
            return Err("connection refused".to_owned());
        }
        let mut by_what = self.by_what.lock().unwrap();
        Ok(*by_what.entry(what.to_owned()).or_insert(self.node) == self.node)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_sidecars_one_tells() {
    let hook = Hook::start(&[200], None).await;
    let store = Shared::default();
    store
        .is_away
        .store(true, std::sync::atomic::Ordering::Relaxed);
    let dirs: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let nodes: Vec<Telling> = (0_u32..)
        .zip(&dirs)
        .map(|(node, dir)| {
            let claims = Shared {
                node,
                ..store.clone()
            };
            Telling::start(dir.path(), only(webhook(&hook.url)), claims)
        })
        .collect();
    let full = TierReached {
        tier_at: Decimal::ONE,
        ..reached()
    };
    for node in &nodes {
        node.alerts.tier_reached(&reached());
        node.alerts.tier_reached(&full);
    }
    // The store is not there yet: nobody tells anything, and nothing is lost.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(hook.got().len(), 0);
    store
        .is_away
        .store(false, std::sync::atomic::Ordering::Relaxed);
    hook.gets(2).await;
    let is_settled = || store.by_what.lock().unwrap().len() == 2;
    wait_for("all claims", is_settled).await;
    for node in nodes {
        node.stop().await;
    }
    let mut tiers: Vec<String> = hook
        .got()
        .iter()
        .map(|got| got.body["tier"].to_string())
        .collect();
    tiers.sort();
    assert_eq!(tiers, ["\"100%\"", "\"85%\""]);
}

fn acceptor(names: &[&str]) -> (String, TlsAcceptor) {
    let key = KeyPair::generate().unwrap();
    let names: Vec<String> = names.iter().map(ToString::to_string).collect();
    let certificate = CertificateParams::new(names)
        .unwrap()
        .self_signed(&key)
        .unwrap();
    let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], der)
        .unwrap();
    (certificate.pem(), TlsAcceptor::from(Arc::new(config)))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_proves_who_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (pem, tls) = acceptor(&["localhost"]);
    let hook = Hook::start(&[200], Some(tls)).await;
    let target = Target::parse(&hook.url).unwrap();
    let mut reach = Reach {
        allow_private: true,
        ca_file: None,
    };
    let refused = post(&target, &reach, "", b"{}".to_vec()).await.unwrap_err();
    assert!(
        matches!(refused, PostError::Handshake { .. }),
        "{}",
        refused.chain()
    );
    reach.ca_file = Some(file(dir.path(), "ca.pem", &pem));
    let answer = post(&target, &reach, "", b"{}".to_vec()).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), answer.shown.as_str()),
        (200, "noted")
    );
    // The same server under a name that its certificate does not have.
    let other = Target::parse(&hook.url.replace("localhost", "127.0.0.1")).unwrap();
    let refused = post(&other, &reach, "", b"{}".to_vec()).await.unwrap_err();
    assert!(
        matches!(refused, PostError::Handshake { .. }),
        "{}",
        refused.chain()
    );
    assert_eq!(hook.got().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn private_addresses_are_refused_before_a_connection() {
    let hook = Hook::start(&[200], None).await;
    let port = hook.url.rsplit(':').next().unwrap();
    let reach = Reach::default();
    for host in [
        "localhost",
        "127.0.0.1",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
    ] {
        let target = Target::parse(&format!("https://{host}:{port}/")).unwrap();
        let refused = post(&target, &reach, "", b"{}".to_vec()).await.unwrap_err();
        assert!(
            matches!(refused, PostError::Private { .. }),
            "{}",
            refused.chain()
        );
    }
    let plain = Target::parse(&hook.url).unwrap();
    let refused = post(&plain, &reach, "", b"{}".to_vec()).await.unwrap_err();
    assert!(
        matches!(refused, PostError::Unencrypted),
        "{}",
        refused.chain()
    );
    assert_eq!(hook.got().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_jump_over_several_tiers_tells_each() {
    use tollmesh_budget::{Action, Enforce, OnUnavailable, Tier, Window};
    let dir = tempfile::tempdir().unwrap();
    let hook = Hook::start(&[200], None).await;
    let telling = Telling::start(dir.path(), only(webhook(&hook.url)), Alone);
    let tier = |at: &str, notify: &[&str]| Tier {
        at: at.parse().unwrap(),
        action: Action::Warn,
        except: Default::default(),
        notify: notify.iter().map(ToString::to_string).collect(),
    };
    let policy = Policy {
        name: "b".into(),
        matches: Default::default(),
        per: ["user".to_owned()].into(),
        limit: "10 USD".parse().unwrap(),
        window: Window::Day,
        zone: jiff::tz::TimeZone::UTC,
        enforce: Enforce::Observe,
        on_unavailable: OnUnavailable::Open,
        max_stream: Duration::from_secs(60),
        estimate_output_tokens: 1,
        models: Default::default(),
        tiers: vec![
            tier("0.6", &["eng"]),
            tier("0.85", &[]),
            tier("1", &["all"]),
            tier("1.2", &["all"]),
        ],
    };
    let span = reached().span;
    let spent = |n: i64| {
        telling
            .alerts
            .spent(&policy, &["ann".into()], n.into(), span, None)
    };
    spent(5);
    spent(11);
    spent(11);
    let mut tiers: Vec<Value> = hook
        .gets(2)
        .await
        .iter()
        .map(|g| g.body["tier"].clone())
        .collect();
    tiers.sort_by_key(Value::to_string);
    assert_eq!(tiers, ["100%", "60%"]);
    telling.stop().await;
    assert_eq!(hook.got().len(), 2);
}
