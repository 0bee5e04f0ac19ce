//! What all contexts of one plugin instance share: the site, the queue, the counts.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use proxy_wasm::types::{BufferType, MapType};
use tollmesh_usage::DecoderPool;
use tollmesh_wire::plugin::AggregatorPeer;
use tollmesh_wire::{PluginConfig, Source, Timestamp};

use crate::calibration::Calibrations;
use crate::counters::{Counter, Counters};
use crate::decisions::Decisions;
use crate::headers::Headers;
use crate::host::{self, SharedData};
use crate::ids::EventIds;
use crate::queue::Queue;
use crate::record::append;
use crate::session::{Effects, REQUEST_DECODERS_BYTES_MAX, Site};

/// The filter state `wasm.tollmesh.usage`, which access logs can show.
const USAGE_PROPERTY: &str = "tollmesh.usage";

/// How often events leave, milliseconds: short, since what is queued when a proxy is killed is
/// lost; long enough that a busy worker's calls share a batch.
const TICK_MS: u32 = 250;
/// The same where somebody waits: until a call's event settles its reservation, the worst case of
/// what it may have cost is kept from other calls.
const HURRIED_TICK_MS: u32 = 5;
/// How many hurried ticks there are for one that does what every tick does.
const TICKS_A_TURN: u32 = TICK_MS / HURRIED_TICK_MS;

thread_local! {
    /// What all plugin instances of one VM have, which has one thread. Another configuration is
    /// another instance, and what calls have taught is true under any.
    static LASTING: (Rc<Calibrations>, DecoderPool, DecoderPool) = {
        let decoders = DecoderPool::default();
        let of_requests = decoders.part(REQUEST_DECODERS_BYTES_MAX);
        (Rc::default(), decoders, of_requests)
    };
}

/// One plugin instance in one VM. The host knows instances by their configurations: it makes a new
/// one for another configuration, while calls that are under way end in theirs, and configures one
/// again where a second listener has the same.
#[derive(Debug)]
pub struct Worker {
    /// What calls that begin need; `None` where the configuration cannot be used, so that nothing is
    /// metered.
    pub site: RefCell<Option<Rc<Site>>>,
    /// Events on their way.
    pub queue: Rc<RefCell<Queue>>,
    /// Counts not yet told to the host.
    pub counters: Counters,
    /// Where events and questions go; `None` until the configuration said it.
    pub aggregator: RefCell<Option<AggregatorPeer>>,
    /// What the aggregator has decided.
    pub decisions: Rc<Decisions>,
    is_hurried: Cell<bool>,
    n_hurried_ticks: Cell<u32>,
    metric_ids: RefCell<Vec<Option<u32>>>,
    has_told_faults: Cell<bool>,
}

impl Worker {
    /// An instance that is not configured yet; `seed` sets its pauses apart from others'.
    pub fn new(seed: u64) -> Worker {
        Worker {
            site: RefCell::new(None),
            queue: Rc::new(RefCell::new(Queue::new(seed))),
            counters: Counters::default(),
            aggregator: RefCell::new(None),
            decisions: Rc::default(),
            is_hurried: Cell::new(false),
            n_hurried_ticks: Cell::new(0),
            metric_ids: RefCell::new(Vec::new()),
            has_told_faults: Cell::new(false),
        }
    }

    /// The site of calls under that configuration, with what they share with those under others.
    pub fn site_of(&self, config: PluginConfig, ids: Rc<EventIds>, source: Source) -> Site {
        let (calibrations, decoders, request_decoders) = LASTING.with(Clone::clone);
        Site {
            calibrations,
            decoders,
            request_decoders,
            decisions: Rc::clone(&self.decisions),
            shared: Rc::new(SharedData),
            ..Site::new(config, ids, source)
        }
    }

    /// Counts what a session wants counted, and takes its events. Those of a connection that is read
    /// join the ones before them in its record.
    pub fn keep(&self, effects: &mut Effects, is_connection: bool) {
        for (counter, n) in effects.counts.drain(..) {
            self.counters.add(counter, n);
        }
        for event in effects.events.drain(..) {
            self.record(&event, is_connection);
            self.counters.count(Counter::EventsQueued);
            let n_dropped = self.queue.borrow_mut().push(&event);
            self.counters.add(Counter::EventsDropped, n_dropped);
        }
        if effects.is_urgent {
            self.hurry();
        }
    }

    /// Has the next tick come soon.
    pub fn hurry(&self) {
        if !self.is_hurried.replace(true) {
            self.check(host::set_tick_period_ms(HURRIED_TICK_MS));
        }
    }

    /// Whether the next tick comes soon.
    pub fn is_hurried(&self) -> bool {
        self.is_hurried.get()
    }

    /// A tick has come: whether it is one that does what every tick does, and not only sends. From
    /// here on they come at their usual pace again.
    pub fn tick(&self) -> bool {
        if !self.is_hurried.replace(false) {
            self.n_hurried_ticks.set(0);
            return true;
        }
        self.check(host::set_tick_period_ms(TICK_MS));
        let n = self.n_hurried_ticks.get() + 1;
        self.n_hurried_ticks.set(n % TICKS_A_TURN);
        n == TICKS_A_TURN
    }

    /// Has ticks come at their usual pace.
    pub fn start_ticks(&self) {
        self.check(host::set_tick_period_ms(TICK_MS));
    }

    /// Sends JSON to the aggregator; the token of the call.
    pub fn post(&self, path: &str, body: &[u8], timeout_ms: u32) -> Result<u32, host::Refused> {
        let headers = vec![
            (":method", "POST"),
            (":path", path),
            (":authority", "tollmesh"),
            ("content-type", "application/json"),
        ];
        let timeout = Duration::from_millis(u64::from(timeout_ms));
        self.sent(host::post(&self.cluster(), headers, body, timeout))
    }

    /// Asks the aggregator for what is at that path; the token of the call.
    pub fn ask(&self, path: &str, timeout_ms: u32) -> Result<u32, host::Refused> {
        let headers = vec![
            (":method", "GET"),
            (":path", path),
            (":authority", "tollmesh"),
        ];
        let timeout = Duration::from_millis(u64::from(timeout_ms));
        self.sent(host::ask(&self.cluster(), headers, timeout))
    }

    /// Envoy's cluster of the aggregator; nothing until the configuration said it.
    pub fn cluster(&self) -> String {
        let peer = self.aggregator.borrow();
        peer.as_ref()
            .map(|peer| peer.cluster.clone())
            .unwrap_or_default()
    }

    fn sent(&self, token: Result<u32, host::Refused>) -> Result<u32, host::Refused> {
        if let Err(refused) = token {
            self.check(Err(refused));
        }
        token
    }

    /// Leaves the event where the access log finds it. A connection has but one line in the log.
    fn record(&self, event: &str, is_connection: bool) {
        if !is_connection {
            return self.check(host::set_property(USAGE_PROPERTY, event.as_bytes()));
        }
        // The first finds no record.
        let mut record = host::property(USAGE_PROPERTY).unwrap_or_default();
        let n_fallen = append(&mut record, event);
        self.counters.add(Counter::EventsUnrecorded, n_fallen);
        self.check(host::set_property(USAGE_PROPERTY, &record));
    }

    /// Counts a refusal of the host, if it is one.
    pub fn check(&self, result: Result<(), host::Refused>) {
        if let Err(host::Refused(status)) = result {
            self.counters.count(Counter::Faults);
            // Once: what is refused to one call is likely refused to all.
            if !self.has_told_faults.replace(true) {
                let line = format!("a host call was refused, status {status}");
                host::log(proxy_wasm::types::LogLevel::Warn, &line);
            }
        }
    }

    /// Makes the counters known to the host, at zero.
    pub fn define_metrics(&self) {
        let ids = Counter::all().map(|counter| host::define_counter(&counter.name()).ok());
        *self.metric_ids.borrow_mut() = ids.collect();
    }

    /// Tells the host what was counted since the last time.
    pub fn tell_counts(&self) {
        let ids = self.metric_ids.borrow();
        for (i, n) in self.counters.drain() {
            if let Some(id) = ids.get(i).copied().flatten() {
                // Nobody can be told that telling failed.
                let _ = host::increment_counter(id, n);
            }
        }
    }
}

/// The answer to a call to the aggregator, as the active callback sees it.
pub struct CallAnswer {
    headers: Vec<u8>,
    /// Its body, or the beginning of it.
    pub body: Vec<u8>,
}

impl CallAnswer {
    /// Reads it; of the body, which has `size` bytes, at most so many.
    pub fn read(size: usize, bytes_max: usize) -> CallAnswer {
        let body = match size.min(bytes_max) {
            0 => Vec::new(),
            size => host::buffer(BufferType::HttpCallResponseBody, size).unwrap_or_default(),
        };
        CallAnswer {
            headers: host::header_map(MapType::HttpCallResponseHeaders).unwrap_or_default(),
            body,
        }
    }

    /// Its headers.
    pub fn headers(&self) -> Headers<'_> {
        Headers::parse(&self.headers)
    }

    /// Its status; `None` where there was no answer.
    pub fn status(&self) -> Option<u16> {
        self.headers().text(":status")?.parse().ok()
    }
}

/// The time of one stream: the wall clock's at its first look, and from there on by a clock that
/// nobody sets, so that no call takes an hour because the machine's clock was set.
#[derive(Debug, Default)]
pub struct StreamClock(Option<(Timestamp, Instant)>);

impl StreamClock {
    /// Now.
    pub fn now(&mut self) -> Timestamp {
        // Each look at a clock is a host call, so the first one looks at each clock once.
        let Some((began, since)) = self.0 else {
            let began = now();
            self.0 = Some((began, Instant::now()));
            return began;
        };
        let ms = i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_unix_ms(began.as_unix_ms().saturating_add(ms))
    }
}

/// The host's time; the epoch where it has none, which shows in the events.
pub fn now() -> Timestamp {
    let ms = host::now_ns().unwrap_or(0) / 1_000_000;
    Timestamp::from_unix_ms(i64::try_from(ms).unwrap_or(0))
}
