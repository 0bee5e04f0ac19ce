//! Several nodes with a ledger each and one store of leases between them, in this process.

use std::collections::{BTreeMap, HashMap};
use std::future::{pending, ready};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use tokio::sync::watch;
use tollmesh_aggregator::budgets::Budgets;
use tollmesh_aggregator::budgets::store::{Answer, Ask, CellKey, Look, Store, StoreError};
use tollmesh_aggregator::ingest;
use tollmesh_aggregator::ledger::{Entry, Ledger, LedgerOptions, Quarantined};
use tollmesh_aggregator::metrics::Metrics;
use tollmesh_aggregator::prices::Prices;
use tollmesh_budget::lease::{Cell, Elsewhere, Marker, Reply};
use tollmesh_usage::{Bucket, Usage};
use tollmesh_wire::{Decision, Event, ExtraUsage, Outcome, ReservationRequest, Timestamp};

/// Long enough for a busy machine.
const DEADLINE: Duration = Duration::from_secs(20);

/// A token costs a millionth of a dollar.
const PRICES: &str = "schema = 1\nprovider = \"acme\"\ncurrency = \"USD\"\n\
     [source]\nlist = \"https://acme.example/prices\"\n\
     [[model]]\nid = \"rocket\"\nmatch = [\"rocket\"]\nrate = [{ input = \"1\", output = \"1\", \
     src = \"list\", checked = 2026-11-09 }]\n";

/// A store that several nodes share, and that can be away.
#[derive(Clone, Debug, Default)]
struct Shared {
    cells: Arc<Mutex<HashMap<CellKey, Cell>>>,
    is_away: Arc<AtomicBool>,
    /// Budgets about which it does not answer: it hangs, or else it fails.
    hanging: Hanging,
    failing: Arc<Mutex<Option<&'static str>>>,
    registering: Arc<Mutex<Registering>>,
    n_registered: Arc<AtomicU64>,
}

/// Of which budgets answers are held back: those whose names begin so.
#[derive(Clone, Debug)]
struct Hanging(Arc<watch::Sender<Option<&'static str>>>);

impl Default for Hanging {
    fn default() -> Hanging {
        Hanging(Arc::new(watch::Sender::new(None)))
    }
}

/// What becomes of a store's being told of budgets.
#[derive(Clone, Copy, Debug, Default)]
enum Registering {
    #[default]
    Works,
    /// It is refused.
    Fails,
    /// Nobody ever answers.
    Hangs,
}

/// One node's way to it.
#[derive(Debug)]
struct Way {
    store: Shared,
    node: String,
}

impl Shared {
    /// The time, unless it is away.
    fn now_ms(&self) -> Result<u64, StoreError> {
        if self.is_away.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable {
                store: "test".to_owned(),
                what: "away".to_owned(),
            });
        }
        Ok(jiff::Timestamp::now().as_millisecond().unsigned_abs())
    }

    fn look(&self, node: &str, look: &Look) -> Result<Vec<Elsewhere>, StoreError> {
        let now_ms = self.now_ms()?;
        let cells = self.cells.lock().unwrap();
        let elsewhere = |cell| cells.get(cell).map(|cell| cell.elsewhere(now_ms, node));
        let found = look.cells.iter();
        Ok(found
            .map(|cell| elsewhere(cell).unwrap_or_default())
            .collect())
    }

    fn answer(&self, node: &str, ask: &Ask) -> Result<Reply, StoreError> {
        let now_ms = self.now_ms()?;
        let failing = *self.failing.lock().unwrap();
        if failing.is_some_and(|budget| ask.cell.budget.starts_with(budget)) {
            return Err(StoreError::Unavailable {
                store: "test".to_owned(),
                what: "its shard is away".to_owned(),
            });
        }
        let mut cells = self.cells.lock().unwrap();
        let cell = cells.entry(ask.cell.clone()).or_default();
        let mut marker = Marker::OLD;
        Ok(cell.sync(&mut marker, now_ms, node, &ask.report, &ask.terms))
    }

    /// What all nodes have told, in the store's units.
    fn spent(&self) -> u64 {
        self.cells.lock().unwrap().values().map(Cell::spent).sum()
    }
}

impl Store for Way {
    fn sync<'a>(&'a self, asks: &'a [Ask]) -> Answer<'a, Vec<Result<Reply, StoreError>>> {
        let replies = asks.iter().map(|ask| self.store.answer(&self.node, ask));
        let replies = replies.collect();
        let names: Vec<String> = asks.iter().map(|ask| ask.cell.budget.clone()).collect();
        let mut hanging = self.store.hanging.0.subscribe();
        Box::pin(async move {
            let hangs = |name: &&str| names.iter().any(|budget| budget.starts_with(*name));
            let released = hanging.wait_for(|held| held.as_ref().is_none_or(|name| !hangs(name)));
            released.await.unwrap();
            replies
        })
    }

    fn look<'a>(
        &'a self,
        looks: &'a [Look],
    ) -> Answer<'a, Vec<Result<Vec<Elsewhere>, StoreError>>> {
        let found = looks.iter().map(|look| self.store.look(&self.node, look));
        Box::pin(ready(found.collect()))
    }

    fn register<'a>(&'a self, _: &'a [String]) -> Answer<'a, Result<(), StoreError>> {
        self.store.n_registered.fetch_add(1, Ordering::Relaxed);
        let registering = *self.store.registering.lock().unwrap();
        match registering {
            Registering::Works => Box::pin(ready(Ok(()))),
            Registering::Hangs => Box::pin(pending()),
            Registering::Fails => Box::pin(ready(Err(StoreError::Refused {
                store: "test".to_owned(),
                what: "NOPERM".to_owned(),
            }))),
        }
    }

    fn claim<'a>(&'a self, _: &'a str, _: u64) -> Answer<'a, Result<bool, StoreError>> {
        Box::pin(ready(Ok(true)))
    }

    fn release_held_back<'a>(&'a self, _: &'a CellKey) -> Answer<'a, Result<(), StoreError>> {
        Box::pin(ready(Ok(())))
    }
}

/// One aggregator's budgets over its ledger.
struct Node {
    budgets: Budgets,
    ledger: Ledger,
    prices: Arc<Prices>,
    keeper: tokio::task::JoinHandle<()>,
}

impl Node {
    async fn start(dir: &Path, budgets: &str, store: &Shared) -> Node {
        let name = dir.file_name().unwrap().to_string_lossy().into_owned();
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("acme.toml"), PRICES).unwrap();
        std::fs::write(dir.join("budgets.toml"), budgets).unwrap();
        let prices = Arc::new(Prices::load(&[dir.join("acme.toml")], None).unwrap());
        let metrics = Arc::new(Metrics::new().unwrap());
        let file = Some(dir.join("budgets.toml"));
        let (budgets, policies) = Budgets::load(file, Arc::clone(&prices), metrics).unwrap();
        let options = LedgerOptions::new(dir.join("state")).charger(budgets.bookkeeper());
        let ledger = Ledger::open(options).unwrap();
        let way = Way {
            store: store.clone(),
            node: name,
        };
        budgets
            .begin(&ledger, policies, |_| Arc::new(way))
            .await
            .unwrap();
        let keeper = tokio::spawn(budgets.clone().keep());
        Node {
            budgets,
            ledger,
            prices,
            keeper,
        }
    }

    /// What it answers a call of that many tokens at most.
    async fn reserve(&self, id: &str, tokens: u64) -> Decision {
        let request = ReservationRequest {
            v: 1,
            event_id: id.to_owned(),
            provider: "acme".to_owned(),
            api: "openai.chat".to_owned(),
            model: Some("rocket".to_owned()),
            body_bytes: tokens / 2,
            max_output_tokens: Some(tokens - tokens / 2),
            ..ReservationRequest::default()
        };
        self.budgets.reserve(&request).await
    }

    async fn settle(&self, id: &str, reservation_id: Option<String>, tokens: u64) {
        self.append(Event {
            reservation_id,
            ..call(id, tokens)
        })
        .await;
    }

    async fn append(&self, event: Event) {
        let entry: Entry = ingest::priced(event, &self.prices.tables());
        self.ledger.append(vec![entry], Vec::new()).await.unwrap();
    }

    fn row(&self) -> serde_json::Map<String, serde_json::Value> {
        self.budgets
            .rows()
            .items
            .first()
            .cloned()
            .unwrap_or_default()
    }

    fn amount(&self, name: &str) -> String {
        let row = self.row();
        row[name].as_str().unwrap_or_default().to_owned()
    }

    /// As a process ends that is told to.
    async fn stop(self) {
        self.keeper.abort();
        self.budgets.finish().await;
        self.ledger.close().await;
    }

    /// As one that is killed: nothing is given back. The ledger's lock goes with the process.
    async fn kill(self) {
        self.keeper.abort();
        self.ledger.close().await;
    }
}

fn call(id: &str, tokens: u64) -> Event {
    Event {
        event_id: id.to_owned(),
        time: Timestamp::parse(&jiff::Timestamp::now().to_string()).unwrap(),
        provider: "acme".to_owned(),
        api: "openai.chat".to_owned(),
        model: Some("rocket".to_owned()),
        usage: Usage::new().with(Bucket::Input, tokens),
        usage_source: "reported".to_owned(),
        billable: true,
        outcome: Outcome::Success,
        attempts: 1,
        ..Event::default()
    }
}

fn id_of(decision: &Decision) -> Option<String> {
    match decision {
        Decision::Allow { reservation_id } => reservation_id.clone(),
        Decision::Deny(_) => None,
    }
}

fn reason(decision: &Decision) -> &str {
    match decision {
        Decision::Allow { .. } => "allowed",
        Decision::Deny(denied) => &denied.reason,
    }
}

fn budget(limit: &str, window: &str, more: &str) -> String {
    format!(
        "[[budget]]\nname = \"all\"\nlimit = {limit:?}\nwindow = {window:?}\n\
         enforce = \"strict\"\n{more}\n"
    )
}

fn run<T>(test: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test)
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < DEADLINE, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn two_nodes_never_pass_one_limit_and_agree_on_what_is_spent() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = Shared::default();
        let limit = budget("0.02 USD", "month", "on_unavailable = \"closed\"");
        let mut nodes = Vec::new();
        for name in ["a", "b"] {
            nodes.push(Arc::new(
                Node::start(&dir.path().join(name), &limit, &store).await,
            ));
        }
        let spent = Arc::new(AtomicU64::new(0));
        let begun = Instant::now();
        let mut clients = tokio::task::JoinSet::new();
        for client in 0..8_u64 {
            let (node, spent) = (Arc::clone(&nodes[client as usize % 2]), Arc::clone(&spent));
            clients.spawn(async move {
                // Apps that are refused come again: a node gives back what it does not use.
                for n in 0.. {
                    let id = format!("{client}-{n}");
                    let decision = node.reserve(&id, 300).await;
                    if let Some(reservation) = id_of(&decision) {
                        let tokens = 50 + (client * 60 + n) % 251;
                        node.settle(&id, Some(reservation), tokens).await;
                        spent.fetch_add(tokens, Ordering::Relaxed);
                    }
                    let is_used_up = spent.load(Ordering::Relaxed) >= 19_000;
                    if is_used_up || begun.elapsed() > DEADLINE {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            });
        }
        clients.join_all().await;
        let spent = spent.load(Ordering::Relaxed);
        assert!(spent <= 20_000, "{spent} of 20000");
        assert!(spent >= 19_000, "{spent} of 20000");
        until("the store knows all", || store.spent() == spent).await;
        let usd = rust_decimal::Decimal::new(spent as i64, 6)
            .normalize()
            .to_string();
        until("both nodes say so", || {
            nodes.iter().all(|node| node.amount("spent") == usd)
        })
        .await;
    });
}

#[test]
fn without_the_store_each_budget_does_what_it_says() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        for (more, allowed, why) in [
            ("on_unavailable = \"closed\"", 0, "budget_unverifiable"),
            ("on_unavailable = \"open\"", 12, "allowed"),
            (
                "on_unavailable = \"open_capped\"\noffline_allowance = \"0.005 USD\"",
                5,
                "budget_unverifiable",
            ),
        ] {
            let store = Shared::default();
            store.is_away.store(true, Ordering::Relaxed);
            let place = dir.path().join(format!("{allowed}"));
            let node = Node::start(&place, &budget("1 USD", "month", more), &store).await;
            let mut n_allowed = 0;
            let mut last = String::new();
            for n in 0..12 {
                let decision = node.reserve(&format!("{n}"), 1_000).await;
                n_allowed += usize::from(matches!(decision, Decision::Allow { .. }));
                last = reason(&decision).to_owned();
            }
            assert_eq!((n_allowed, last.as_str()), (allowed, why), "{more}");
            // When it is back, calls are reserved again, and what was spent meanwhile counts.
            node.settle("0", None, 700).await;
            store.is_away.store(false, Ordering::Relaxed);
            until("the store is back", || {
                node.budgets.store_failing().is_none()
            })
            .await;
            let decision = node.reserve("later", 1_000).await;
            assert!(id_of(&decision).is_some(), "{decision:?}");
            until("the store knows", || store.spent() == 700).await;
            node.stop().await;
        }
    });
}

/// What came of that many calls at once, of 10,000 tokens at most each.
async fn asked_at_once(node: &Arc<Node>, name: &str, n: usize) -> Vec<(String, Decision)> {
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..n {
        let (node, id) = (Arc::clone(node), format!("{name}-{n}"));
        calls.spawn(async move { (id.clone(), node.reserve(&id, 10_000).await) });
    }
    calls.join_all().await
}

/// One that answers late is not away: what is known of the limit bounds what calls may cost together.
#[test]
fn a_store_that_is_slow_lets_no_calls_pass_the_limit() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        for is_known in [false, true] {
            let store = Shared::default();
            let limit = budget("0.1 USD", "month", "on_unavailable = \"open\"");
            let place = dir.path().join(is_known.to_string());
            let node = Arc::new(Node::start(&place, &limit, &store).await);
            if is_known {
                let decision = node.reserve("first", 500).await;
                assert!(id_of(&decision).is_some());
                node.settle("first", id_of(&decision), 500).await;
            }
            store.hanging.0.send_replace(Some(""));
            let passed = asked_at_once(&node, "at once", 40).await;
            let mut allowed = passed.iter().filter(|(_, said)| id_of(said).is_some());
            let n_allowed = allowed.clone().count();
            assert_eq!(n_allowed, if is_known { 9 } else { 10 });
            let refused = passed.iter().filter(|(_, said)| id_of(said).is_none());
            for (_, said) in refused {
                assert_eq!(reason(said), "budget_exceeded");
            }
            store.hanging.0.send_replace(None);
            // They are held though nothing was granted for them when they left.
            until("the store knows", || {
                let granted = node.amount("reserved");
                granted == if is_known { "0.09" } else { "0.1" }
            })
            .await;
            let more = asked_at_once(&node, "later", 10).await;
            assert!(
                more.iter()
                    .all(|(_, said)| reason(said) == "budget_exceeded")
            );
            let (id, said) = allowed.next().unwrap();
            node.settle(id, id_of(said), 10_000).await;
            for (id, said) in allowed {
                node.settle(id, id_of(said), 0).await;
            }
            let spent = if is_known { 10_500 } else { 10_000 };
            until("the store knows", || store.spent() == spent).await;
            assert_eq!(granted_at_last(&node, "last", 80_000).await, "allowed");
        }
    });
}

/// Tokens of a call that only the store can give: at most a twentieth of a limit is in stock.
const MORE_THAN_STOCK: u64 = 60_000_000;

/// Budgets of two teams; about those of the one a shard of the store does not answer.
async fn with_a_shard_away(dir: &Path, store: &Shared) -> Node {
    let of = |team: &str, provider: &str| {
        let more = format!("on_unavailable = \"closed\"\nmatch = {{ provider = {provider:?} }}");
        budget("1000 USD", "month", &more).replace("\"all\"", &format!("{team:?}"))
    };
    let text = format!("{}{}", of("near", "acme"), of("gone", "zenith"));
    Node::start(dir, &text, store).await
}

async fn ask_the_other_shard(node: &Node, id: &str) -> Decision {
    let request = ReservationRequest {
        v: 1,
        event_id: id.to_owned(),
        provider: "zenith".to_owned(),
        api: "openai.chat".to_owned(),
        body_bytes: 10,
        max_output_tokens: Some(10),
        ..ReservationRequest::default()
    };
    node.budgets.reserve(&request).await
}

#[test]
fn a_shard_that_hangs_holds_up_no_other() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = Shared::default();
        store.hanging.0.send_replace(Some("gone"));
        let node = with_a_shard_away(dir.path().join("a").as_path(), &store).await;
        let said = ask_the_other_shard(&node, "hangs").await;
        assert_eq!(reason(&said), "budget_unverifiable");
        for n in 1..=5 {
            assert_eq!(
                granted_at_last(&node, &n.to_string(), MORE_THAN_STOCK).await,
                "allowed"
            );
        }
    });
}

#[test]
fn a_shard_that_is_away_is_told_once() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = Shared::default();
        *store.failing.lock().unwrap() = Some("gone");
        let node = with_a_shard_away(dir.path().join("a").as_path(), &store).await;
        let said = ask_the_other_shard(&node, "fails").await;
        assert_eq!(reason(&said), "budget_unverifiable");
        until("it is told", || node.budgets.store_failing().is_some()).await;
        for n in 1..=10 {
            assert_eq!(
                granted_at_last(&node, &n.to_string(), MORE_THAN_STOCK).await,
                "allowed"
            );
            assert!(node.budgets.store_failing().is_some(), "{n}");
        }
        *store.failing.lock().unwrap() = None;
        until("it is back", || node.budgets.store_failing().is_none()).await;
    });
}

#[test]
fn a_node_that_ends_gives_back_its_stock_and_one_that_is_killed_keeps_it() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = Shared::default();
        let limit = budget("0.01 USD", "month", "on_unavailable = \"closed\"");
        let a = Node::start(&dir.path().join("a"), &limit, &store).await;
        let b = Node::start(&dir.path().join("b"), &limit, &store).await;
        let first = a.reserve("1", 6_000).await;
        assert!(id_of(&first).is_some());
        assert_eq!(reason(&b.reserve("2", 6_000).await), "budget_exceeded");
        a.kill().await;
        // Its call may be in flight yet.
        assert_eq!(reason(&b.reserve("3", 6_000).await), "budget_exceeded");
        let a = Node::start(&dir.path().join("a"), &limit, &store).await;
        assert_eq!(reason(&a.reserve("4", 6_000).await), "budget_exceeded");
        a.settle("1", id_of(&first), 2_000).await;
        a.stop().await;
        let begun = Instant::now();
        // What the call was allowed and did not use nobody knows any more, and it stays held.
        while id_of(&b.reserve("5", 3_500).await).is_none() {
            assert!(begun.elapsed() < DEADLINE, "{:?}", b.row());
        }
        assert_eq!(reason(&b.reserve("6", 3_500).await), "budget_exceeded");
        assert_eq!(b.amount("spent"), "0.002");
    });
}

#[test]
fn rolling_windows_count_what_the_last_hours_spent() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = Shared::default();
        let none = Node::start(dir.path().join("a").as_path(), "", &store).await;
        let now = jiff::Timestamp::now();
        for (id, minutes) in [("old", 25 * 60), ("hours", 20 * 60), ("recent", 1)] {
            let at = now - jiff::SignedDuration::from_mins(minutes);
            none.append(Event {
                time: Timestamp::parse(&at.to_string()).unwrap(),
                ..call(id, 300)
            })
            .await;
        }
        none.stop().await;
        let limit = budget("0.001 USD", "rolling 24h", "on_unavailable = \"closed\"");
        let node = Node::start(dir.path().join("a").as_path(), &limit, &store).await;
        until("what was spent is known", || {
            node.amount("spent") == "0.0006"
        })
        .await;
        assert_eq!(granted_at_last(&node, "1", 500).await, "budget_exceeded");
        let begun = Instant::now();
        // The store gives half of what is left at a time.
        while id_of(&node.reserve("2", 400).await).is_none() {
            assert!(begun.elapsed() < DEADLINE, "{:?}", node.row());
        }
        assert_ne!(reason(&node.reserve("3", 100).await), "allowed");
        node.stop().await;
    });
}

#[test]
fn a_cached_rolling_budget_acts_by_what_only_other_nodes_spent() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = Shared::default();
        let limit = "[[budget]]\nname = \"all\"\nlimit = \"0.001 USD\"\n\
             window = \"rolling 24h\"\nenforce = \"cached\"\n\
             tiers = [{ at = \"100%\", do = \"deny\" }]\n";
        let a = Node::start(&dir.path().join("a"), limit, &store).await;
        let b = Node::start(&dir.path().join("b"), limit, &store).await;
        let at = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(20);
        a.append(Event {
            time: Timestamp::parse(&at.to_string()).unwrap(),
            ..call("hours ago", 999)
        })
        .await;
        until("the store is told", || store.spent() == 999).await;
        b.append(call("now", 1)).await;
        until("what the other node spent is known", || {
            b.amount("spent") == "0.001"
        })
        .await;
        until("calls are denied", || {
            let table = b.budgets.table();
            table.budgets.iter().any(|entry| !entry.reached.is_empty())
        })
        .await;
        a.stop().await;
        b.stop().await;
    });
}

/// What a call is answered once the store was heard in time: on a busy machine it may not be at once.
async fn granted_at_last(node: &Node, id: &str, tokens: u64) -> String {
    let begun = Instant::now();
    for n in 0.. {
        let decision = node.reserve(&format!("{id}-{n}"), tokens).await;
        let said = reason(&decision).to_owned();
        if said != "budget_unverifiable" || begun.elapsed() > DEADLINE {
            return said;
        }
    }
    unreachable!("it returns by its deadline")
}

#[test]
fn the_first_call_of_a_new_key_of_a_rolling_budget_is_let_go_ahead() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let store = Shared::default();
        let limit = budget(
            "0.01 USD",
            "rolling 24h",
            "per = [\"user\"]\non_unavailable = \"closed\"",
        );
        let a = Node::start(&dir.path().join("a"), &limit, &store).await;
        let b = Node::start(&dir.path().join("b"), &limit, &store).await;
        // It is about nobody, as yet, whom this node has heard of.
        let begun = Instant::now();
        assert_eq!(granted_at_last(&a, "1", 4_000).await, "allowed");
        println!("the first call waited {} ms", begun.elapsed().as_millis());
        // What the other node holds is counted: 6,000 are left, of which half is given at a time.
        assert_eq!(granted_at_last(&b, "2", 7_000).await, "budget_exceeded");
        assert_eq!(granted_at_last(&b, "3", 2_000).await, "allowed");
        a.stop().await;
        b.stop().await;
    });
}

#[test]
fn a_store_that_cannot_be_told_of_budgets_delays_no_call() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let limit = budget("1 USD", "month", "on_unavailable = \"closed\"");
        for (name, registering) in [("a", Registering::Fails), ("b", Registering::Hangs)] {
            let store = Shared::default();
            *store.registering.lock().unwrap() = registering;
            let node = Node::start(&dir.path().join(name), &limit, &store).await;
            for n in 0..30 {
                let id = n.to_string();
                assert_eq!(granted_at_last(&node, &id, 1_000).await, "allowed");
            }
            // With pauses that grow, and not with every call.
            let n = store.n_registered.load(Ordering::Relaxed);
            assert!((1..=6).contains(&n), "{registering:?}: {n} times");
            assert_eq!(node.budgets.store_failing(), None, "it takes reports");
            *store.registering.lock().unwrap() = Registering::Works;
            node.stop().await;
        }
    });
}

#[test]
fn what_is_reckoned_anew_is_what_was_charged() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        for (limit, window) in [
            ("1 USD", "month"),
            ("1M tokens", "month"),
            ("1 USD", "rolling 24h"),
            ("1M tokens", "rolling 24h"),
        ] {
            let place = dir.path().join(format!("{limit}, {window}"));
            let limit = budget(limit, window, "");
            let node = Node::start(&place, &limit, &Shared::default()).await;
            let unpriced = Event {
                model: Some("nonesuch".to_owned()),
                ..call("a", 1_000)
            };
            let with_extra = Event {
                extra_usage: vec![ExtraUsage {
                    kind: "search".to_owned(),
                    model: Some("rocket".to_owned()),
                    usage: Usage::new().with(Bucket::Input, 70),
                }],
                ..call("b", 500)
            };
            for event in [unpriced, with_extra, call("c", 2)] {
                node.append(event).await;
            }
            let recounted = node.budgets.recount(None).await.unwrap().items;
            let [account] = recounted.as_slice() else {
                panic!("one account: {recounted:?}");
            };
            assert_eq!(account["in_rows"], account["charged"], "{account:?}");
            assert_eq!(account["raised"], false);
            node.stop().await;
        }
    });
}

#[test]
fn keys_that_share_an_account_are_reckoned_anew_as_one() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let limit = "[[budget]]\nname = \"each\"\nper = [\"user\"]\nlimit = \"100 tokens\"\n\
             window = \"month\"\n";
        let node = Node::start(dir.path().join("a").as_path(), limit, &Shared::default()).await;
        let of = |user: &str, id: &str, tokens| {
            let mut event = call(id, tokens);
            event.tags.insert("user".to_owned(), user.to_owned());
            ingest::priced(event, &node.prices.tables())
        };
        let first: Vec<Entry> = (0..10_000)
            .map(|n| of(&format!("u{n}"), &n.to_string(), 1))
            .collect();
        node.ledger.append(first, Vec::new()).await.unwrap();
        // Those that come late spend the most.
        let late = vec![of("late 1", "a", 60), of("late 2", "b", 30)];
        node.ledger.append(late, Vec::new()).await.unwrap();
        let shared = |rows: Vec<serde_json::Map<String, serde_json::Value>>, name: &str| {
            let amount = |row: &serde_json::Map<String, serde_json::Value>| row[name].clone();
            let mut of_others = rows.iter().filter(|row| row["key"]["user"] == "__other__");
            let others = of_others.next().map(amount).unwrap_or_default();
            let all = rows.iter().map(amount);
            let all: u64 = all
                .map(|n| n.as_str().unwrap().parse::<u64>().unwrap())
                .sum();
            (others, all)
        };
        for name in ["charged", "in_rows"] {
            let recounted = node.budgets.recount(None).await.unwrap().items;
            assert!(recounted.iter().all(|row| row["raised"] == false));
            assert_eq!(shared(recounted, name), ("90".into(), 10_090), "{name}");
        }
        let again = vec![of("late 1", "c", 5), of("u7", "d", 5)];
        node.ledger.append(again, Vec::new()).await.unwrap();
        assert_eq!(
            shared(node.budgets.rows().items, "spent"),
            ("95".into(), 10_100)
        );
        node.stop().await;
    });
}

#[test]
fn a_cached_budget_refuses_keys_that_filters_cannot_be_told_of() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let limit = "[[budget]]\nname = \"each\"\nper = [\"user\"]\nlimit = \"100 tokens\"\n\
             window = \"month\"\nenforce = \"cached\"\non_unavailable = \"closed\"\n\
             tiers = [{ at = \"100%\", do = \"deny\", except = { team = \"ops\" } }]\n";
        let node = Node::start(dir.path().join("a").as_path(), limit, &Shared::default()).await;
        let of = |user: &str, tokens| {
            let mut event = call(user, tokens);
            event.tags.insert("user".to_owned(), user.to_owned());
            ingest::priced(event, &node.prices.tables())
        };
        let first: Vec<Entry> = (0..10_000).map(|n| of(&format!("u{n}"), 1)).collect();
        node.ledger.append(first, Vec::new()).await.unwrap();
        let asked = async |user: &str, team: &str| {
            let tags = [("user", user), ("team", team)];
            let request = ReservationRequest {
                v: 1,
                event_id: format!("{user} {team}"),
                provider: "acme".to_owned(),
                tags: tags.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
                ..ReservationRequest::default()
            };
            reason(&node.budgets.reserve(&request).await).to_owned()
        };
        let told = || {
            let table = node.budgets.table();
            let entry = table.budgets.first().cloned().unwrap();
            (entry.enforce, entry.on_unavailable)
        };
        use tollmesh_wire::decision::{Enforcement, Unavailable};
        let late = vec![of("late 1", 60)];
        node.ledger.append(late, Vec::new()).await.unwrap();
        assert_eq!(told(), (Enforcement::Cached, Unavailable::Closed));
        assert_eq!(asked("late 2", "eng").await, "allowed");
        let late = vec![of("late 3", 40)];
        node.ledger.append(late, Vec::new()).await.unwrap();
        until("calls are asked about", || {
            told() == (Enforcement::Strict, Unavailable::Open)
        })
        .await;
        for (user, team, said) in [
            ("late 1", "eng", "budget_exceeded"),
            ("never seen", "eng", "budget_exceeded"),
            ("never seen", "ops", "allowed"),
            ("u77", "eng", "allowed"),
        ] {
            assert_eq!(asked(user, team).await, said, "{user}");
        }
        node.stop().await;
    });
}

#[test]
fn a_model_that_a_budget_put_is_the_one_that_rows_are_reckoned_by() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let asked = |asked: &str, put: Option<&str>, id: &str, tokens| Event {
            model_requested: Some(asked.to_owned()),
            model_put: put.map(str::to_owned),
            ..call(id, tokens)
        };
        for window in ["month", "rolling 24h"] {
            let limit = budget("1M tokens", window, "match = { model = \"rocket\" }");
            let place = dir.path().join(window);
            let node = Node::start(&place, &limit, &Shared::default()).await;
            for event in [
                asked("saturn", Some("rocket"), "put", 1),
                asked("rocket", None, "asked", 20),
                asked("rocket", Some("pebble"), "put away", 300),
                // Its request names no model.
                call("served", 4_000),
            ] {
                node.append(event).await;
            }
            let recounted = node.budgets.recount(None).await.unwrap().items;
            let amounts = recounted
                .iter()
                .map(|row| (&row["charged"], &row["in_rows"]));
            let expected = serde_json::Value::from("4021");
            assert_eq!(
                amounts.collect::<Vec<_>>(),
                [(&expected, &expected)],
                "{window}"
            );
            node.stop().await;
        }
    });
}

/// No other event of the call will come.
#[test]
fn an_event_that_is_refused_leaves_nothing_reserved() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let limit = budget("1 USD", "month", "");
        let node = Node::start(&dir.path().join("a"), &limit, &Shared::default()).await;
        for id in ["read", "unread"] {
            assert_eq!(granted_at_last(&node, id, 1_000).await, "allowed");
        }
        let reserved = node.amount("reserved");
        assert!(reserved != "0", "{reserved}");
        let unread = Quarantined {
            received: call("unread-0", 1).time,
            event_id: Some("unread-0".to_owned()),
            reason: "its time is none".to_owned(),
            body: "{}".to_owned(),
        };
        let read = Event {
            duration_ms: u64::MAX,
            ..call("read-0", 10)
        };
        let read = ingest::priced(read, &node.prices.tables());
        let appended = node.ledger.append(vec![read], vec![unread]).await.unwrap();
        assert_eq!(appended.refused().count(), 1);
        assert_eq!(node.amount("reserved"), "0");
        node.stop().await;
    });
}

#[test]
fn late_usage_charges_the_difference_and_gives_nothing_back() {
    run(async {
        let dir = tempfile::tempdir().unwrap();
        let limit = budget("1 USD", "month", "");
        let node = Node::start(&dir.path().join("a"), &limit, &Shared::default()).await;
        for (id, estimated, reported) in [("more", 100, 250), ("less", 100, 40)] {
            node.append(Event {
                response_id: Some(id.to_owned()),
                usage_source: "estimated".to_owned(),
                ..call(id, estimated)
            })
            .await;
            node.append(Event {
                kind: tollmesh_wire::event::Kind::LateUsage,
                response_id: Some(id.to_owned()),
                ..call(&format!("{id}-late"), reported)
            })
            .await;
        }
        assert_eq!(node.amount("spent"), "0.00035");
        // The same again charges nothing: an event is taken once.
        node.append(call("more", 100)).await;
        assert_eq!(node.amount("spent"), "0.00035");
        node.stop().await;
    });
}

/// What happens to a call in a random run.
#[derive(Clone, Copy, Debug)]
enum Turn {
    /// It asks to use that many tokens at most.
    Ask(u64),
    /// The oldest open one ends, having used that share of its bound in percent.
    End(u64),
    /// The oldest open one never left.
    Refuse,
}

fn turn() -> impl Strategy<Value = Turn> {
    prop_oneof![
        4 => (1_u64..3_000).prop_map(Turn::Ask),
        2 => (0_u64..=100).prop_map(Turn::End),
        1 => Just(Turn::Refuse),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever calls do, what is spent and reserved stays below the limit, and nothing is left
    /// reserved when all are over.
    #[test]
    fn nothing_passes_the_limit_and_nothing_is_left_over(
        turns in proptest::collection::vec(turn(), 1..60),
    ) {
        run(async {
            let dir = tempfile::tempdir().unwrap();
            let store = Shared::default();
            let limit = budget("0.01 USD", "month", "");
            let node = Node::start(&dir.path().join("a"), &limit, &store).await;
            let mut open: BTreeMap<usize, (u64, Option<String>)> = BTreeMap::new();
            let (mut spent, mut reserved) = (0, 0);
            for (n, turn) in turns.into_iter().enumerate() {
                match turn {
                    Turn::Ask(tokens) => {
                        let decision = node.reserve(&n.to_string(), tokens).await;
                        if let Decision::Allow { reservation_id } = decision {
                            reserved += tokens;
                            open.insert(n, (tokens, reservation_id));
                        }
                    }
                    Turn::End(percent) => {
                        if let Some((n, (tokens, id))) = open.pop_first() {
                            let used = tokens * percent / 100;
                            node.settle(&n.to_string(), id, used).await;
                            reserved -= tokens;
                            spent += used;
                        }
                    }
                    Turn::Refuse => {
                        if let Some((n, (tokens, _))) = open.pop_first() {
                            node.append(Event {
                                outcome: Outcome::Denied,
                                ..call(&n.to_string(), 0)
                            })
                            .await;
                            reserved -= tokens;
                        }
                    }
                }
                assert!(spent + reserved <= 10_000, "{spent} + {reserved}");
            }
            for (n, (tokens, id)) in open {
                node.settle(&n.to_string(), id, tokens).await;
                spent += tokens;
            }
            let usd = |units: u64| rust_decimal::Decimal::new(units as i64, 6).normalize();
            assert_eq!(node.amount("reserved"), "0");
            assert_eq!(node.amount("spent"), usd(spent).to_string());
            node.stop().await;
        });
    }
}
