//! What nodes tell each other and people, by a real Redis.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use tollmesh_aggregator::alerts::{
    self, Channel, ChannelKind, Owners, Place, Receiver as Person, Receivers, Target, TierReached,
};
use tollmesh_aggregator::budgets::store::{RedisStore, Store};
use tollmesh_aggregator::metrics::Metrics;
use tollmesh_budget::{Action, Enforce, WindowSpan};

use crate::{place, server};

/// A receiver on this machine: how many bytes each request had.
fn receiver() -> (String, Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (sender, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = BufReader::new(stream.unwrap());
            let mut length = 0;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                if let Some(n) = line.to_lowercase().strip_prefix("content-length:") {
                    length = n.trim().parse().unwrap();
                }
                if line.trim().is_empty() {
                    break;
                }
            }
            reader.read_exact(&mut vec![0; length]).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            reader.get_mut().write_all(answer).unwrap();
            if sender.send(length).is_err() {
                return;
            }
        }
    });
    (url, requests)
}

fn reached(tier: &str) -> TierReached {
    let start = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(1);
    let start = jiff::Timestamp::from_second(start.as_second() / 3600 * 3600).unwrap();
    TierReached {
        budget: "eng".into(),
        matches: BTreeMap::new(),
        key: BTreeMap::new(),
        enforce: Enforce::Strict,
        tier_at: tier.parse().unwrap(),
        action: Action::Warn,
        spent: 9.into(),
        limit: "10 USD".parse().unwrap(),
        window: "day".into(),
        span: WindowSpan {
            start,
            end: start + jiff::SignedDuration::from_hours(24),
        },
        projected: None,
        notify: vec!["all".into()],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_nodes_tells_people() {
    let Some(server) = server(&[]) else { return };
    let (url, requests) = receiver();
    let channel = Channel {
        place: Place::Url(Target::parse(&url).unwrap()),
        secret_file: None,
    };
    let person = Person {
        channels: [(ChannelKind::Webhook, channel)].into(),
        allow_private: true,
        ca_file: None,
    };
    let receivers = Receivers {
        by_name: [("eng".to_owned(), person)].into(),
        owner: Owners::default(),
    };
    let metrics = Arc::new(Metrics::new().unwrap());
    let mut rounds = Vec::new();
    for node in 0..3 {
        let dir = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> =
            Arc::new(RedisStore::new(place(&server), format!("node-{node}")));
        let (telling, round) =
            alerts::start(dir.path(), receivers.clone(), store, &metrics).unwrap();
        telling.tier_reached(&reached("0.6"));
        telling.tier_reached(&reached("0.85"));
        rounds.push((dir, telling, round));
    }
    for _ in 0..2 {
        requests.recv_timeout(Duration::from_secs(20)).unwrap();
    }
    for (_dir, _telling, round) in rounds {
        round.finish(Duration::from_secs(20)).await;
    }
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn nodes_leave_each_other_a_notice() {
    let Some(server) = server(&[]) else { return };
    let node = |name: &str| RedisStore::new(place(&server), name.to_owned());
    let (one, other) = (node("node-1"), node("node-2"));
    assert_eq!(other.notice().await.unwrap(), None);
    one.put_notice("[1]").await.unwrap();
    one.put_notice("[2]").await.unwrap();
    assert_eq!(other.notice().await.unwrap().as_deref(), Some("[2]"));
}
