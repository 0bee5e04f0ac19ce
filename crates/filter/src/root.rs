//! The root context: reads the configuration, makes streams, sends what they have queued.

use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::time::Duration;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::{BufferType, ContextType, LogLevel, MapType};
use tollmesh_wire::plugin::{AggregatorPeer, Mistake};
use tollmesh_wire::{Node, PluginConfig};

use crate::counters::Counter;
use crate::headers::Headers;
use crate::host;
use crate::ids::EventIds;
use crate::queue::Answer;
use crate::session::Site;
use crate::source::NodeFacts;
use crate::stream::Stream;
use crate::worker::{Worker, now};

/// How often events leave, milliseconds: short, since what is queued when a proxy is killed is
/// lost; long enough that a busy worker's calls share a batch.
const TICK_MS: u32 = 250;
/// The longest answer of the aggregator that is read, bytes: a rejection for each event of a
/// batch.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;
/// How many batches an instance that is being unloaded may fail to deliver before it gives the
/// rest up, counted as `events_dropped`.
const FAREWELL_FAILURES_MAX: u32 = 3;

/// One plugin instance's root context.
pub struct Root {
    worker: Rc<Worker>,
    node: Node,
    aggregator: Option<AggregatorPeer>,
    farewell: Farewell,
}

/// Whether the host wants this instance gone.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Farewell {
    /// It does not.
    NotAsked,
    /// It does, and waits for what is still queued.
    Waiting { n_failures: u32 },
    /// It was told that nothing is left.
    Said,
}

impl Default for Root {
    /// A root context that is not configured yet.
    fn default() -> Root {
        Root {
            worker: Rc::new(Worker::new(RandomState::new().hash_one(TICK_MS))),
            node: Node::default(),
            aggregator: None,
            farewell: Farewell::NotAsked,
        }
    }
}

impl Root {
    fn configure(&mut self, config: PluginConfig) {
        let facts = node_facts();
        let ids = match self.worker.site.take() {
            Some(site) => site.ids,
            None => EventIds::random(),
        };
        self.node = Node {
            id: facts.id.clone(),
            cluster: facts.cluster.clone(),
            filter_version: env!("CARGO_PKG_VERSION").to_owned(),
            dropped_total: 0,
            vm: ids.vm().to_owned(),
        };
        self.aggregator = Some(config.aggregator.clone());
        let source = facts.source(&config.source);
        let site = Site::new(config, ids, source);
        self.worker.site.replace(Some(site));
    }

    /// A configuration that cannot be used must not stop traffic: it is told, counted, and the
    /// calls pass unmetered.
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
        let Some(peer) = &self.aggregator else {
            return;
        };
        let now_ms = now().as_unix_ms();
        let due = self.worker.queue.borrow_mut().next(&self.node, now_ms);
        let Some(body) = due else {
            return;
        };
        let headers = vec![
            (":method", "POST"),
            (":path", "/v1/events"),
            (":authority", "tollmesh"),
            ("content-type", "application/json"),
        ];
        let timeout = Duration::from_millis(u64::from(peer.timeout_ms));
        if let Err(refused) = host::post(&peer.cluster, headers, &body, timeout) {
            self.worker.check(Err(refused));
            self.settle(&Answer::read(None, None, &[]));
        }
    }

    fn settle(&mut self, answer: &Answer) {
        let now_ms = now().as_unix_ms();
        let settled = self.worker.queue.borrow_mut().settle(answer, now_ms);
        let counters = &self.worker.counters;
        counters.add(Counter::EventsSent, settled.n_sent);
        counters.add(Counter::EventsRejected, settled.n_rejected);
        counters.add(Counter::BatchesResent, u64::from(settled.resends));
        if let Farewell::Waiting { n_failures } = &mut self.farewell {
            *n_failures += u32::from(settled.resends);
        }
    }

    /// Goes on saying farewell: the next batch, or the last word.
    fn depart(&mut self) {
        while let Farewell::Waiting { n_failures } = self.farewell {
            let mut queue = self.worker.queue.borrow_mut();
            if n_failures >= FAREWELL_FAILURES_MAX || self.aggregator.is_none() {
                let n = queue.abandon();
                self.worker.counters.add(Counter::EventsDropped, n);
            }
            if !queue.is_empty() {
                queue.hurry();
                drop(queue);
                self.send();
                match self.farewell {
                    // The host refused the call at once: that was an attempt, too.
                    Farewell::Waiting { n_failures: after } if after > n_failures => continue,
                    _ => return,
                }
            }
            drop(queue);
            self.worker.tell_counts();
            self.farewell = Farewell::Said;
            self.worker.check(host::tell_done());
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, _: u32, _: usize, size: usize, _: usize) {
        let map = host::header_map(MapType::HttpCallResponseHeaders).unwrap_or_default();
        let headers = Headers::parse(&map);
        let status = headers.text(":status").and_then(|text| text.parse().ok());
        let size = size.min(ANSWER_BYTES_MAX);
        let body = match size {
            0 => Vec::new(),
            _ => host::buffer(BufferType::HttpCallResponseBody, size).unwrap_or_default(),
        };
        let answer = Answer::read(status, headers.text("retry-after"), &body);
        self.settle(&answer);
        match self.farewell {
            Farewell::NotAsked => self.send(),
            Farewell::Waiting { .. } => self.depart(),
            Farewell::Said => {}
        }
    }

    fn on_done(&mut self) -> bool {
        self.worker.tell_counts();
        let is_empty = self.worker.queue.borrow().is_empty();
        if is_empty || self.farewell != Farewell::NotAsked {
            return true;
        }
        self.farewell = Farewell::Waiting { n_failures: 0 };
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
        self.worker.check(host::set_tick_period_ms(TICK_MS));
        true
    }

    fn on_tick(&mut self) {
        self.worker.tell_counts();
        match self.farewell {
            Farewell::NotAsked => self.send(),
            Farewell::Waiting { .. } => self.depart(),
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
