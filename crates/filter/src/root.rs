//! The root context: reads the configuration, makes streams, sends what they have queued.

use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::{Duration, Instant};

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType, LogLevel};
use tollmesh_wire::plugin::Mistake;
use tollmesh_wire::{Node, PluginConfig};

use crate::counters::Counter;
use crate::decisions::poll::{News, Poller, TABLE_BYTES_MAX, WAIT_MS};
use crate::heirs;
use crate::host::{self, SharedData};
use crate::ids::EventIds;
use crate::queue::Answer;
use crate::shared::{leave, take};
use crate::source::NodeFacts;
use crate::stream::Stream;
use crate::worker::{CallAnswer, Worker, now};

/// For how many hurried ticks, a second's at least, a new instance looks for its first decision
/// table: until it has one, calls pass unjudged.
const EARLY_TICKS_MAX: u32 = 200;
/// The longest answer of the aggregator that is read, bytes: a rejection for each event of a
/// batch.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// How long an instance that is being unloaded, and has no heir, tries to deliver what it has, before
/// it gives the rest up, counted as `events_dropped`. A change of the configuration may come in the middle of an
/// upgrade, and an aggregator takes minutes to be scheduled, fetched and started at worst.
const FAREWELL_MAX: Duration = Duration::from_secs(300);

/// One plugin instance's root context.
pub struct Root {
    worker: Rc<Worker>,
    node: Node,
    poller: Option<Poller>,
    /// The call by which the poller asks, and the one that carries a batch.
    poll: Option<u32>,
    batch: Option<u32>,
    /// Ticks that came while no decision table was known, since the configuration.
    n_early_ticks: u32,
    farewell: Farewell,
}

/// Whether the host wants this instance gone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Farewell {
    /// It does not.
    NotAsked,
    /// It does, and waits for what is still queued.
    Waiting { since: Instant },
    /// It was told that nothing is left.
    Said,
}

impl Default for Root {
    /// A root context that is not configured yet.
    fn default() -> Root {
        Root {
            worker: Rc::new(Worker::new(RandomState::new().hash_one(ANSWER_BYTES_MAX))),
            node: Node::default(),
            poller: None,
            poll: None,
            batch: None,
            n_early_ticks: 0,
            farewell: Farewell::NotAsked,
        }
    }
}

impl Root {
    fn configure(&mut self, config: PluginConfig) {
        let facts = node_facts();
        let before = self.worker.site.take();
        let ids = match &before {
            Some(site) => Rc::clone(&site.ids),
            None => Rc::new(EventIds::random()),
        };
        self.node = Node {
            id: facts.id.clone(),
            cluster: facts.cluster.clone(),
            filter_version: env!("CARGO_PKG_VERSION").to_owned(),
            dropped_total: 0,
            vm: ids.vm().to_owned(),
        };
        let cluster = &config.aggregator.cluster;
        if self.worker.aggregator.borrow().as_ref() != Some(&config.aggregator) {
            self.poller = Some(Poller::new(cluster, ids.vm()));
            self.poll = None;
        }
        self.worker
            .aggregator
            .replace(Some(config.aggregator.clone()));
        let source = facts.source(&config.source);
        let site = self.worker.site_of(config, ids, source);
        self.worker.site.replace(Some(Rc::new(site)));
        // Another worker, or another instance of this one, may have a table already.
        if let Some(poller) = &self.poller {
            poller.refresh(&SharedData, &self.worker.decisions);
        }
        self.n_early_ticks = 0;
        self.worker.hurry();
        heirs::stays(&self.worker.cluster(), &self.worker.queue);
    }

    /// A configuration that cannot be used must not stop traffic: it is told, counted, and the
    /// calls pass unmetered. Those that are under way end under the one that they began under.
    fn refuse(&mut self, mistakes: &[Mistake]) {
        self.worker.counters.count(Counter::BadConfigurations);
        self.worker.site.replace(None);
        for mistake in mistakes {
            let line = format!("plugin configuration: {mistake}");
            host::log(LogLevel::Critical, &line);
        }
        let line = "nothing is metered until the plugin configuration is repaired";
        host::log(LogLevel::Critical, line);
    }

    /// Sends the batch that is due, if one is.
    fn send(&mut self) {
        let Some(timeout_ms) = self.timeout_ms() else {
            return;
        };
        let now_ms = now().as_unix_ms();
        let due = self.worker.queue.borrow_mut().next(&self.node, now_ms);
        let Some(body) = due else {
            return;
        };
        let timeout_ms = self.worker.queue.borrow().patience_ms(timeout_ms);
        self.batch = self.worker.post("/v1/events", &body, timeout_ms).ok();
        if self.batch.is_none() {
            self.settle(&Answer::read(None, None, &[]));
        }
    }

    /// Where instances that go leave the number of events that were dropped, and that no batch of
    /// theirs told.
    fn dropped_key(&self) -> Option<String> {
        let peer = self.worker.aggregator.borrow();
        let cluster = &peer.as_ref()?.cluster;
        Some(format!("tollmesh/dropped/{cluster}"))
    }

    /// Takes over what other instances had dropped.
    fn inherit(&self) {
        if let Some(key) = self.dropped_key() {
            let n_dropped = take(&SharedData, &key);
            self.worker.queue.borrow_mut().inherit(n_dropped);
        }
    }

    fn timeout_ms(&self) -> Option<u32> {
        let peer = self.worker.aggregator.borrow();
        peer.as_ref().map(|peer| peer.timeout_ms)
    }

    /// Keeps the decision table up to date.
    fn follow_decisions(&mut self) {
        let timeout_ms = self.timeout_ms().map(|ms| ms.saturating_add(WAIT_MS));
        let Some((poller, timeout_ms)) = self.poller.as_mut().zip(timeout_ms) else {
            return;
        };
        let decisions = &self.worker.decisions;
        poller.refresh(&SharedData, decisions);
        let now_ms = now().as_unix_ms();
        if let Some(path) = poller.next(&SharedData, decisions, now_ms) {
            self.poll = self.worker.ask(&path, timeout_ms).ok();
            if self.poll.is_none() {
                poller.answered(&SharedData, decisions, None, now_ms);
            }
        }
        let is_early = decisions.version().is_none() && self.n_early_ticks < EARLY_TICKS_MAX;
        if is_early {
            self.n_early_ticks += 1;
            self.worker.hurry();
        }
    }

    fn take_decisions(&mut self, answer: &CallAnswer) {
        self.poll = None;
        let is_needed = self.farewell == Farewell::NotAsked;
        let Some(poller) = self.poller.as_mut().filter(|_| is_needed) else {
            return;
        };
        let status = answer.status();
        let told = status.map(|status| (status, answer.body.as_slice()));
        let now_ms = now().as_unix_ms();
        match poller.answered(&SharedData, &self.worker.decisions, told, now_ms) {
            News::Table => self.follow_decisions(),
            News::None => {}
            News::Failure => self.worker.counters.count(Counter::DecisionPollsFailed),
        }
    }

    fn settle(&mut self, answer: &Answer) {
        let now_ms = now().as_unix_ms();
        let settled = self.worker.queue.borrow_mut().settle(answer, now_ms);
        let counters = &self.worker.counters;
        counters.add(Counter::EventsSent, settled.n_sent);
        counters.add(Counter::EventsRejected, settled.n_rejected);
        counters.add(Counter::BatchesResent, u64::from(settled.resends));
    }

    /// Goes on saying farewell: hands over, sends the next batch, or says the last word. Between attempts it pauses as at
    /// any time; the host keeps this instance, and ticks come, until it is done.
    fn depart(&mut self, since: Instant) {
        self.hand_over();
        if since.elapsed() >= FAREWELL_MAX || self.timeout_ms().is_none() {
            let n = self.worker.queue.borrow_mut().abandon();
            self.worker.counters.add(Counter::EventsDropped, n);
        }
        if !self.worker.queue.borrow().is_empty() {
            return self.send();
        }
        self.farewell = Farewell::Said;
        self.bequeath();
        self.worker.check(host::tell_done());
    }

    /// Leaves what is not delivered to another instance, where there is one.
    fn hand_over(&self) {
        let n_dropped = heirs::hand_over(&self.worker.cluster(), &self.worker.queue);
        self.worker.counters.add(Counter::EventsDropped, n_dropped);
    }

    /// Leaves to others what can be told by nobody else.
    fn bequeath(&self) {
        self.worker.tell_counts();
        let n_dropped = self.worker.queue.borrow().n_dropped_untold();
        if let Some(key) = self.dropped_key().filter(|_| n_dropped > 0) {
            leave(&SharedData, &key, n_dropped);
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, _: usize, size: usize, _: usize) {
        if self.poll == Some(token) {
            let answer = CallAnswer::read(size, TABLE_BYTES_MAX + 1);
            return self.take_decisions(&answer);
        }
        if self.batch != Some(token) {
            return;
        }
        self.batch = None;
        let answer = CallAnswer::read(size, ANSWER_BYTES_MAX);
        let headers = answer.headers();
        let retry_after = headers.text("retry-after");
        let answer = Answer::read(answer.status(), retry_after, &answer.body);
        self.settle(&answer);
        match self.farewell {
            Farewell::NotAsked => self.send(),
            Farewell::Waiting { since } => self.depart(since),
            Farewell::Said => {}
        }
    }

    fn on_done(&mut self) -> bool {
        if self.farewell != Farewell::NotAsked {
            return true;
        }
        heirs::goes(&self.worker.queue);
        self.hand_over();
        let is_empty = self.worker.queue.borrow().is_empty();
        if is_empty {
            self.farewell = Farewell::Said;
            self.bequeath();
            return true;
        }
        self.worker.tell_counts();
        let since = Instant::now();
        self.farewell = Farewell::Waiting { since };
        self.worker.queue.borrow_mut().hurry();
        self.send();
        false
    }
}

impl RootContext for Root {
    /// Always true: `false` would stop Envoy from starting, or from taking the update.
    fn on_configure(&mut self, size: usize) -> bool {
        self.worker.define_metrics();
        let json = match size {
            0 => Vec::new(),
            _ => host::buffer(BufferType::PluginConfiguration, size).unwrap_or_default(),
        };
        match PluginConfig::parse(&json) {
            Ok(config) => self.configure(config),
            Err(mistakes) => self.refuse(&mistakes),
        }
        if !self.worker.is_hurried() {
            self.worker.start_ticks();
        }
        true
    }

    fn on_tick(&mut self) {
        let is_full = self.worker.tick();
        if is_full {
            self.worker.tell_counts();
        }
        match self.farewell {
            Farewell::NotAsked => {
                if is_full {
                    self.inherit();
                }
                self.send();
                if is_full || self.worker.decisions.version().is_none() {
                    self.follow_decisions();
                }
            }
            Farewell::Waiting { since } => self.depart(since),
            Farewell::Said => {}
        }
    }

    fn create_http_context(&self, _: u32) -> Option<Box<dyn HttpContext>> {
        Some(Box::new(Stream::new(Rc::clone(&self.worker))))
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

fn node_facts() -> NodeFacts {
    let text = |path: &str| {
        let bytes = host::property(path).ok()?;
        String::from_utf8(bytes)
            .ok()
            .filter(|text| !text.is_empty())
    };
    NodeFacts {
        id: text("xds\0node\0id").unwrap_or_default(),
        cluster: text("xds\0node\0cluster").unwrap_or_default(),
        namespace: text("xds\0node\0metadata\0NAMESPACE"),
        workload_name: text("xds\0node\0metadata\0WORKLOAD_NAME"),
        service_account: text("xds\0node\0metadata\0SERVICE_ACCOUNT"),
        name: text("xds\0node\0metadata\0NAME"),
        node_name: text("xds\0node\0metadata\0NODE_NAME"),
        cluster_id: text("xds\0node\0metadata\0CLUSTER_ID"),
    }
}
