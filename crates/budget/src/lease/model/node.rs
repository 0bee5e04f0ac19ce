//! A node of the model: its holder, its disk, and its calls.

use super::dice::Dice;
use crate::lease::{Carried, Holder, Memory, Refusal, Reply, Report, ReservationId};

/// The longest that a call lasts, milliseconds.
pub(super) const CALL_MS_MAX: u64 = 150_000;
/// How often a node reports, milliseconds.
const BEAT_MS: u64 = 2_000;
/// How long a node waits for a reply before it reports again, milliseconds.
const PATIENCE_MS: u64 = 500;

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    pub name: String,
    pub is_up: bool,
    pub cut_until_ms: u64,
    pub holder: Holder,
    boot: u32,
    n_reports: u32,
    n_calls: u64,
    /// The report that awaits its reply.
    sent: Option<(u64, u64)>,
    next_beat_ms: u64,
    /// What the ledger says was spent.
    pub ledger: u64,
    /// What the disk says was granted and seen.
    disk: (u64, Memory),
    calls: Vec<Call>,
}

#[derive(Clone, Copy, Debug)]
struct Call {
    id: ReservationId,
    reserved: u64,
    actual: u64,
    ends_ms: u64,
}

impl Node {
    pub fn new(number: usize) -> Node {
        Node {
            name: format!("node-{number}"),
            is_up: true,
            cut_until_ms: 0,
            holder: Holder::new(0, None),
            boot: 1,
            n_reports: 0,
            n_calls: 0,
            sent: None,
            next_beat_ms: 0,
            ledger: 0,
            disk: (0, Memory::default()),
            calls: Vec::new(),
        }
    }

    /// A call arrives. `None` where it goes ahead.
    pub fn call(&mut self, now_ms: u64, amount: u64, dice: &mut Dice) -> Option<Refusal> {
        self.n_calls += 1;
        let id = ReservationId {
            boot: self.boot,
            number: self.n_calls,
        };
        if let Err(refusal) = self.holder.reserve(now_ms, id, amount) {
            return Some(refusal);
        }
        let lasts_ms = match dice.happens(1_500) {
            true => dice.within(30_000, CALL_MS_MAX),
            false => dice.within(100, 15_000),
        };
        let actual = match dice.happens(7_000) {
            true => amount,
            false => dice.within(0, amount),
        };
        self.calls.push(Call {
            id,
            reserved: amount,
            actual,
            ends_ms: now_ms + lasts_ms,
        });
        None
    }

    /// Calls that end by then are settled, in the ledger first.
    pub fn settle(&mut self, now_ms: u64) {
        let (over, rest): (Vec<Call>, Vec<Call>) = self
            .calls
            .drain(..)
            .partition(|call| call.ends_ms <= now_ms);
        self.calls = rest;
        for call in over {
            self.ledger += call.actual;
            // Nobody tells a dead node's holder; who reads its ledger later begins a new one.
            if self.is_up {
                self.holder.settle(Some(call.id), call.actual);
            }
        }
    }

    /// What is spent, calls in flight included.
    pub fn spent(&self) -> u64 {
        self.ledger + self.calls.iter().map(|call| call.actual).sum::<u64>()
    }

    /// What it may yet come to spend, with what it holds.
    pub fn reach(&self) -> u64 {
        let in_flight: u64 = self.calls.iter().map(|call| call.reserved).sum();
        let by_calls = self.ledger + in_flight;
        match self.is_up {
            true => by_calls.max(self.holder.granted()),
            false => by_calls,
        }
    }

    /// Whether it is time to report.
    pub fn is_due(&self, now_ms: u64, is_hungry: bool) -> bool {
        let waits = self
            .sent
            .is_some_and(|(_, sent_ms)| now_ms < sent_ms + PATIENCE_MS);
        let is_time = now_ms >= self.next_beat_ms || self.sent.is_some() || is_hungry;
        self.is_up && !waits && is_time
    }

    pub fn report(&mut self, now_ms: u64, want_more: u64, dice: &mut Dice) -> Report {
        self.n_reports += 1;
        let seq = (u64::from(self.boot) << 32) + u64::from(self.n_reports);
        self.sent = Some((seq, now_ms));
        self.next_beat_ms = now_ms + BEAT_MS;
        let mut report = self.holder.report(now_ms, seq, want_more);
        // Now a call waits for all of it, now it is stock.
        if self.n_reports.is_multiple_of(2) {
            report.need = report.want;
        }
        if dice.happens(5_000) {
            self.write(self.holder.granted());
        }
        report
    }

    /// A reply arrives, of a report that was sent then.
    pub fn take(&mut self, reply: &Reply, sent_ms: u64, dice: &mut Dice) {
        if !self.is_up {
            return;
        }
        if self.sent.is_some_and(|(seq, _)| seq == reply.seq) {
            self.sent = None;
        }
        let Some(granted) = self.holder.take(reply, sent_ms) else {
            return;
        };
        // A crash between the reply and the disk: the grant is never used.
        if dice.happens(9_500) {
            self.write(granted);
            self.holder.persisted(granted);
        }
    }

    fn write(&mut self, granted: u64) {
        self.disk = (granted, self.holder.memory());
    }

    /// Crashes, and starts again; its calls go on.
    pub fn crash(&mut self, now_ms: u64) {
        self.boot += 1;
        self.n_reports = 0;
        self.sent = None;
        self.next_beat_ms = now_ms;
        self.is_up = true;
        let (granted, memory) = self.disk;
        let carried = Carried {
            granted,
            until_ms: now_ms + CALL_MS_MAX,
            boot: self.boot,
            memory,
        };
        self.holder = Holder::new(self.ledger, Some(carried));
    }
}
