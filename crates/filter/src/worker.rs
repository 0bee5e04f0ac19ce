//! What all contexts of one plugin instance share: the site, the queue, the counts.

use std::cell::{Cell, RefCell};
use std::time::Instant;

use tollmesh_wire::Timestamp;

use crate::counters::{Counter, Counters};
use crate::host;
use crate::queue::Queue;
use crate::record::append;
use crate::session::{Effects, Site};

/// The filter state `wasm.tollmesh.usage`, which access logs can show.
const USAGE_PROPERTY: &str = "tollmesh.usage";

/// One plugin instance in one VM.
#[derive(Debug)]
pub struct Worker {
    /// What sessions need; `None` where the configuration cannot be used, so nothing is metered.
    pub site: RefCell<Option<Site>>,
    /// Events on their way.
    pub queue: RefCell<Queue>,
    /// Counts not yet told to the host.
    pub counters: Counters,
    metric_ids: RefCell<Vec<Option<u32>>>,
    has_told_faults: Cell<bool>,
}

impl Worker {
    /// An instance that is not configured yet; `seed` sets its pauses apart from others'.
    pub fn new(seed: u64) -> Worker {
        Worker {
            site: RefCell::new(None),
            queue: RefCell::new(Queue::new(seed)),
            counters: Counters::default(),
            metric_ids: RefCell::new(Vec::new()),
            has_told_faults: Cell::new(false),
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

/// The time of one stream: the wall clock's at its first look, and from there on by a clock that
/// nobody sets, so that no call takes an hour because the machine's clock was set.
#[derive(Debug, Default)]
pub struct StreamClock(Option<(Timestamp, Instant)>);

impl StreamClock {
    /// Now.
    pub fn now(&mut self) -> Timestamp {
        let (began, since) = *self.0.get_or_insert_with(|| (now(), Instant::now()));
        let ms = i64::try_from(since.elapsed().as_millis()).unwrap_or(i64::MAX);
        Timestamp::from_unix_ms(began.as_unix_ms().saturating_add(ms))
    }
}

/// The host's time; the epoch where it has none, which shows in the events.
pub fn now() -> Timestamp {
    let ms = host::now_ns().unwrap_or(0) / 1_000_000;
    Timestamp::from_unix_ms(i64::try_from(ms).unwrap_or(0))
}
