//! What was seen of calls that belong together, for the latest of them.

use std::collections::{HashMap, HashSet, VecDeque};

use tollmesh_budget::Pace;
use tollmesh_budget::guard::IDENTICAL_MS;
use tollmesh_wire::Denied;

use super::fence::Trip;

/// Bodies of one of them that are remembered.
const BODIES_MAX: usize = 16;
/// Events whose ids are remembered, so that what comes twice counts once.
pub(super) const EVENTS_MAX: usize = 8_192;
/// Calls that were stopped whose facts are kept until their events come, some 400 bytes each: as long
/// as their ids are, so that what is asked twice is answered alike.
const STOPPED_MAX: usize = EVENTS_MAX;
/// What was not seen for so long is over: milliseconds.
pub(super) const IDLE_MS: i64 = 24 * 3_600_000;

/// What was seen of calls that belong together.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) groups: HashMap<GroupKey, Group>,
    pub(super) asked: Recent,
    pub(super) charged: Recent,
    pub(super) stopped: VecDeque<Stopped>,
}

/// A call that was stopped.
pub(super) struct Stopped {
    pub(super) event_id: String,
    /// What was found.
    pub(super) found: String,
    /// What is let pass.
    pub(super) bound: String,
    /// What the caller was told.
    pub(super) denied: Denied,
}

/// A guard's name, and the values of its `per`.
pub(super) type GroupKey = (String, Vec<String>);

#[derive(Default)]
pub(super) struct Group {
    pub(super) last_ms: i64,
    pub(super) pace: Pace,
    pub(super) spent_pico: i128,
    /// Hash of a body, when it came first, and how often it came since.
    pub(super) bodies: VecDeque<(u64, i64, u32)>,
}

/// The latest of many names.
#[derive(Default)]
pub(super) struct Recent {
    pub(super) order: VecDeque<Box<str>>,
    pub(super) names: HashSet<Box<str>>,
}

// === impl Group ===

impl Group {
    /// When that body came first, and how often since.
    pub(super) fn identical(&self, body: u64, unix_ms: i64) -> Option<(i64, u32)> {
        let known = self.bodies.iter().find(|(known, ..)| *known == body);
        let known = known.filter(|(_, since_ms, _)| unix_ms - since_ms < IDENTICAL_MS);
        known.map(|(_, since_ms, n)| (*since_ms, *n))
    }

    pub(super) fn note_body(&mut self, body: Option<u64>, unix_ms: i64) {
        let Some(body) = body else { return };
        let before = self.identical(body, unix_ms);
        self.bodies.retain(|(known, ..)| *known != body);
        if self.bodies.len() >= BODIES_MAX {
            self.bodies.pop_front();
        }
        let (since_ms, n) = before.unwrap_or((unix_ms, 0));
        self.bodies.push_back((body, since_ms, n.saturating_add(1)));
    }
}

// === impl Seen ===

impl Seen {
    /// Keeps why a call was stopped until its event comes.
    pub(super) fn stop(&mut self, event_id: &str, trip: &Trip, denied: &Denied) {
        if self.stopped.len() >= STOPPED_MAX {
            self.stopped.pop_front();
        }
        self.stopped.push_back(Stopped {
            event_id: event_id.to_owned(),
            found: trip.found.clone(),
            bound: trip.bound.clone(),
            denied: denied.clone(),
        });
    }

    /// Why that call was stopped, where it was.
    pub(super) fn stopped(&self, event_id: &str) -> Option<&Stopped> {
        let mut latest = self.stopped.iter().rev();
        latest.find(|stopped| stopped.event_id == event_id)
    }

    /// Forgets the quarter that was seen longest ago.
    pub(super) fn make_room(&mut self) {
        let mut times: Vec<i64> = self.groups.values().map(|group| group.last_ms).collect();
        let quarter = times.len() / 4;
        let (_, oldest_kept, _) = times.select_nth_unstable(quarter);
        let oldest_kept = *oldest_kept;
        let mut to_forget = quarter.max(1);
        self.groups.retain(|_, group| {
            let goes = group.last_ms <= oldest_kept && to_forget > 0;
            to_forget -= usize::from(goes);
            !goes
        });
    }
}

impl Recent {
    /// Whether the name is a new one; it is remembered.
    pub(super) fn note(&mut self, name: &str) -> bool {
        if self.names.contains(name) {
            return false;
        }
        if self.order.len() >= EVENTS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
        self.order.push_back(name.into());
        self.names.insert(name.into())
    }
}
