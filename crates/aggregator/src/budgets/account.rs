//! One budget, one key, one cell: what is spent, held and granted.

use std::sync::Arc;

use tollmesh_budget::lease::{Elsewhere, Holder, Memory, Reply, Report, ReservationId, Terms};

use super::policies::{Budget, Span};
use super::store::CellKey;
use crate::ledger::budgets::{Grant, SpendKey};

/// How long an account that changes waits before it tells the store, in milliseconds.
const DIRTY_BEAT_MS: u64 = 2_000;
/// The same of one that does not: it hears what others spend, and its lease goes on.
const IDLE_BEAT_MS: u64 = 5_000;
/// The same of one that nobody has used for [`PARKED_AFTER_MS`].
const PARKED_BEAT_MS: u64 = 60_000;
/// How long nothing more is asked for after the store gave nothing, in milliseconds: calls that
/// come meanwhile are refused at once.
const STARVED_MS: u64 = 50;
/// The same of one whose cell is over and from which no call can spend any more.
const PAST_BEAT_MS: u64 = 600_000;
/// How long nothing is asked for after the store did not answer though it answers others, in
/// milliseconds; twice as long after each time.
const FAILING_MS_MIN: u64 = 200;
/// The longest of these pauses: one shard that is away holds up the rest of a round no more often.
const FAILING_MS_MAX: u64 = 3_200;
/// When an account counts as parked.
const PARKED_AFTER_MS: u64 = 120_000;
/// What a node keeps in stock for calls to come: what it takes in so many milliseconds.
const STOCK_MS: u64 = 10_000;
/// Of a limit, at most one part in so many is in stock.
const STOCK_SHARE: u64 = 20;
/// How long the store keeps a cell after it counts no more, in milliseconds: ledgers that were away
/// for a month still tell what they spent.
const KEPT_AFTER_MS: i64 = 35 * 86_400_000;

/// One cell's account.
#[derive(Debug)]
pub struct Account {
    /// The budget.
    pub budget: Arc<Budget>,
    /// Its name in the ledger.
    pub at: SpendKey,
    /// The values of the budget's keys.
    pub key: Vec<String>,
    /// When calls are counted here.
    pub cell: Span,
    /// This node's side of the lease, in the store's units.
    pub holder: Holder,
    /// What calls through this node spent, as the ledger counts.
    pub amount: i128,
    /// Calls through this node that the budget denied.
    pub denied: u64,
    /// What all other nodes had spent at the last reply, in the store's units.
    pub others_spent: u64,
    /// What all other nodes may spend, at the last reply.
    pub others_allocated: u64,
    /// The highest tier that is reached.
    pub tier: Option<usize>,
    /// What calls may cost that went ahead without a lease, in the store's units.
    pub unleased: u64,
    /// When the store was asked for the earlier parts of its rolling window, on the clock of leases.
    pub looked_ms: Option<u64>,
    /// When the report was sent that the store answered last, on the clock of leases; `None` where its
    /// last word did not come, or could not be used.
    answered_ms: Option<u64>,
    /// Whether its last word did not come, or could not be used.
    is_away: bool,
    /// Whether a question about it is on its way.
    is_aloft: bool,
    /// Until when it is not asked again, since it did not answer, on the clock of leases.
    failing_until_ms: u64,
    /// How long that pause is.
    failing_ms: u64,
    /// When the account has told the store, on the clock of leases.
    told_ms: Option<u64>,
    /// What we had spent by the last report.
    told: u64,
    /// When a call used it.
    used_ms: u64,
    /// Whether the store knows less than we do.
    is_dirty: bool,
    /// Whether calls wait for the store's answer.
    is_urgent: bool,
    /// Whether its cell was over and held for no call when the store was told.
    is_past: bool,
    /// Until when it is no use to ask for more, on the clock of leases.
    starved_until_ms: u64,
    /// What calls that wait ask for, together.
    waiting: u64,
    /// Whether calls waited when the last report was made.
    asked: bool,
    /// The grant that would have sufficed for all that it asked for.
    wanted: u64,
    /// The grant without which calls in flight or waiting by the last report are not all covered.
    needed: u64,
    /// Whether the store's last word was that it gives less.
    is_short: bool,
    /// When its limit was changed: what the store said to reports up to then says nothing of it.
    limit_from_ms: u64,
    /// How many reports there were.
    n_reports: u64,
    /// What was reserved since the last report.
    taken: u64,
    /// How fast calls reserve, units in [`STOCK_MS`].
    pace: u64,
    /// What the ledger's disk says was granted.
    persisted: u64,
}

impl Account {
    /// An account as it was left.
    pub fn new(budget: Arc<Budget>, at: SpendKey, key: Vec<String>, cell: Span) -> Account {
        Account {
            budget,
            at,
            key,
            cell,
            holder: Holder::new(0, None),
            amount: 0,
            denied: 0,
            others_spent: 0,
            others_allocated: 0,
            tier: None,
            unleased: 0,
            looked_ms: None,
            answered_ms: None,
            is_away: false,
            is_aloft: false,
            failing_until_ms: 0,
            failing_ms: 0,
            told_ms: None,
            told: 0,
            used_ms: 0,
            is_dirty: true,
            is_urgent: false,
            is_past: false,
            starved_until_ms: 0,
            waiting: 0,
            asked: false,
            wanted: 0,
            needed: 0,
            is_short: false,
            limit_from_ms: 0,
            n_reports: 0,
            taken: 0,
            pace: 0,
            persisted: 0,
        }
    }

    /// The same with what a ledger says was spent and granted.
    pub fn restored(mut self, holder: Holder, amount: i128, denied: u64, granted: u64) -> Account {
        self.holder = holder;
        self.amount = amount;
        self.denied = denied;
        self.persisted = granted;
        self
    }

    /// The cell's name in the store.
    pub fn cell_key(&self) -> CellKey {
        CellKey {
            budget: self.at.budget.to_string(),
            key: self.key.clone(),
            window_start_ms: self.at.window_ms,
        }
    }

    /// What all nodes have spent here, in the store's units.
    pub fn spent(&self) -> u64 {
        self.holder.committed().saturating_add(self.others_spent)
    }

    /// What this node may spend here or has spent, whichever is more, in the store's units.
    pub fn own_allocated(&self) -> u64 {
        self.holder.granted().max(self.holder.committed())
    }

    /// What the last reply had of other nodes.
    pub fn elsewhere(&self) -> Elsewhere {
        Elsewhere {
            spent: self.others_spent,
            allocated: self.others_allocated,
            wait_ms: 0,
        }
    }

    /// Whether nobody has used it for so long that others are told of it seldom.
    pub fn is_parked(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.used_ms) >= PARKED_AFTER_MS
    }

    /// Whether nothing is spent here, and nothing can be.
    pub fn is_unspent(&self) -> bool {
        self.amount == 0 && self.own_allocated() == 0
    }

    /// Has the store hear at once of what is in stock and of no more use, where there is anything.
    pub fn give_back(&mut self) {
        let used = self.holder.committed().saturating_add(self.holder.held());
        if !self.is_past && self.holder.granted() > used {
            self.wait_for(0);
        }
    }

    /// Whether nothing is spent or held here, and the store knows.
    pub fn is_empty(&self) -> bool {
        let is_unused = self.amount == 0 && self.denied == 0 && self.unleased == 0;
        let is_known = !self.is_dirty && self.answered_ms.is_some();
        is_unused && self.is_past && is_known && self.own_allocated() == 0
    }

    /// Notes that a call uses it.
    pub fn use_at(&mut self, now_ms: u64) {
        self.used_ms = now_ms;
    }

    /// Notes what was reserved.
    pub fn took(&mut self, units: u64) {
        self.taken = self.taken.saturating_add(units);
        self.is_dirty = true;
    }

    /// Notes that something changed that the store is to hear of.
    pub fn touch(&mut self) {
        self.is_dirty = true;
    }

    /// Notes that a call waits for so much more.
    pub fn wait_for(&mut self, units: u64) {
        self.waiting = self.waiting.saturating_add(units);
        self.is_urgent = true;
    }

    /// Puts another limit in force. What the store said last, it said under the former.
    pub fn change_limit(&mut self, budget: &Arc<Budget>, now_ms: u64) {
        self.budget = Arc::clone(budget);
        self.limit_from_ms = now_ms;
        self.starved_until_ms = 0;
        self.is_short = false;
        self.wait_for(0);
    }

    /// How many reports there were: what a call waits for now is in the next.
    pub fn n_reports(&self) -> u64 {
        self.n_reports
    }

    /// Whether what a call waited for after that many reports is yet to be asked for, or on its way.
    pub fn is_asking(&self, n_reports: u64) -> bool {
        let is_last = n_reports.saturating_add(1) == self.n_reports;
        n_reports == self.n_reports || is_last && self.is_aloft
    }

    /// Charges what a call cost, and lets go of what was held for it.
    pub fn charge(&mut self, id: Option<ReservationId>, amount: i128, denied: u64) {
        self.amount += amount;
        self.denied += denied;
        let units = self.budget.policy.limit.units_of(self.amount);
        let more = units.saturating_sub(self.holder.committed());
        self.holder.settle(id, more);
        self.is_dirty = true;
    }

    /// Notes that the store's word on the last report has come, and can be used.
    pub fn answered(&mut self) {
        self.answered_ms = self.told_ms;
        self.is_away = false;
        self.failing_until_ms = 0;
        self.failing_ms = 0;
    }

    /// Notes that it has not.
    pub fn unanswered(&mut self) {
        self.answered_ms = None;
        self.is_away = true;
        self.is_dirty = true;
    }

    /// Notes that a question about it is on its way: the store counts an answer for the newest report
    /// alone, so that there is one at a time.
    pub fn set_out(&mut self) {
        self.is_aloft = true;
    }

    /// Notes that it is answered, or never will be.
    pub fn land(&mut self) {
        self.is_aloft = false;
    }

    /// Whether a question about it is on its way.
    pub fn is_aloft(&self) -> bool {
        self.is_aloft
    }

    /// Has it ask no more for a while, so that those that are answered need not wait with it.
    pub fn pause(&mut self, now_ms: u64) {
        self.failing_ms = (self.failing_ms * 2).clamp(FAILING_MS_MIN, FAILING_MS_MAX);
        self.failing_until_ms = now_ms.saturating_add(self.failing_ms);
    }

    /// Whether the store has just not answered for it.
    pub fn is_failing(&self, now_ms: u64) -> bool {
        now_ms < self.failing_until_ms
    }

    /// Whether the store's last word did not come, or could not be used.
    pub fn is_away(&self) -> bool {
        self.is_away
    }

    /// Whether the store's last word was on a report from after that instant, or that it gives too
    /// little for those before.
    pub fn is_answered_since(&self, since_ms: u64, now_ms: u64) -> bool {
        let is_no = self.is_starved(now_ms) || self.is_short(now_ms);
        let is_said = |answered_ms| answered_ms > since_ms || is_no;
        self.answered_ms.is_some_and(is_said)
    }

    /// Whether the store's last word was that it gives less than calls needed, and it is not long ago.
    fn is_short(&self, now_ms: u64) -> bool {
        let ends_ms = self.holder.deadline_ms();
        self.is_short && ends_ms.is_some_and(|ends_ms| now_ms < ends_ms)
    }

    /// Whether calls wait for the store's answer.
    pub fn is_waited_for(&self) -> bool {
        self.is_urgent
    }

    /// Whether the store has just said that it gives no more.
    pub fn is_starved(&self, now_ms: u64) -> bool {
        now_ms < self.starved_until_ms
    }

    /// Whether it is time to tell the store.
    pub fn is_due(&self, now_ms: u64) -> bool {
        if self.is_failing(now_ms) {
            return false;
        }
        let Some(told) = self.told_ms else {
            return true;
        };
        let beat = if self.is_urgent && !self.is_starved(now_ms) {
            0
        } else if self.is_urgent {
            STARVED_MS
        } else if self.is_dirty {
            DIRTY_BEAT_MS
        } else if self.is_past {
            PAST_BEAT_MS
        } else if self.is_parked(now_ms) {
            PARKED_BEAT_MS
        } else {
            IDLE_BEAT_MS
        };
        now_ms >= told.saturating_add(beat)
    }

    /// What to tell the store. A cell that is over, or a node that ends, keeps nothing in stock.
    pub fn report(&mut self, now_ms: u64, seq: u64, is_over: bool) -> Report {
        let elapsed = now_ms
            .saturating_sub(self.told_ms.unwrap_or(now_ms))
            .max(100);
        let pace = self.taken.saturating_mul(STOCK_MS) / elapsed;
        // Half of what was: a pause between two calls is no end.
        self.pace = pace.max(self.pace / 2);
        let want_more = match is_over || !self.budget.is_strict() {
            true => 0,
            false => self.stock().saturating_add(self.waiting),
        };
        self.told_ms = Some(now_ms);
        self.told = self.holder.committed();
        self.is_dirty = false;
        self.is_urgent = false;
        self.is_past = is_over && self.holder.held() == 0;
        self.asked = self.waiting > 0;
        self.n_reports += 1;
        let waiting = std::mem::take(&mut self.waiting);
        self.taken = 0;
        let mut report = self.holder.report(now_ms, seq, want_more);
        if want_more > 0 {
            report.need = report.need.saturating_add(waiting).min(report.want);
        }
        self.wanted = report.committed.saturating_add(report.want);
        self.needed = report.committed.saturating_add(report.need);
        report
    }

    /// What to have beyond what calls in flight hold. Towards the end of the limit all nodes keep
    /// little, or each would deny for what others keep.
    fn stock(&self) -> u64 {
        if self.pace == 0 {
            return 0;
        }
        let limit = self.budget.hard_units;
        let least = (limit / 200).max(1);
        let room = limit.saturating_sub(self.spent()) / 8;
        let most = (limit / STOCK_SHARE).min(room).max(least);
        self.pace.clamp(least, most)
    }

    /// Takes the store's answer; says what has to be on disk before it may be used.
    pub fn take(&mut self, reply: &Reply, sent_ms: u64) -> Option<Grant> {
        let before = self.holder.granted();
        let raised = self.holder.take(reply, sent_ms);
        let is_refused = reply.granted < self.wanted && self.holder.granted() <= before;
        let is_of_this_limit = self.limit_from_ms == 0 || sent_ms > self.limit_from_ms;
        if self.asked && is_refused && is_of_this_limit {
            self.starved_until_ms = sent_ms.saturating_add(STARVED_MS);
        }
        if reply.is_stale {
            self.is_dirty = true;
            return None;
        }
        let is_granting = reply.granting_from_ms <= reply.now_ms;
        self.is_short = is_granting && is_of_this_limit && reply.granted < self.needed;
        let granted = self.holder.granted();
        self.others_spent = reply.spent.saturating_sub(self.told);
        self.others_allocated = reply.allocated.saturating_sub(reply.granted);
        let is_other = granted != self.persisted;
        (raised.is_some() || is_other).then(|| Grant {
            at: self.at.clone(),
            end_ms: self.budget.counts_until(self.cell),
            granted,
            memory: write_memory(&self.holder.memory()),
        })
    }

    /// The grant is on disk.
    pub fn persisted(&mut self, granted: u64) {
        self.persisted = granted;
        self.holder.persisted(granted);
    }

    /// What the store is asked under, where so much may be allocated in the cell.
    pub fn terms(&self, limit: u64) -> Terms {
        let expire = self.budget.counts_until(self.cell) + KEPT_AFTER_MS;
        Terms::new(limit, expire.max(0).unsigned_abs())
    }
}

/// What is kept with a grant, as a ledger keeps it.
pub fn write_memory(memory: &Memory) -> String {
    let Memory {
        epoch,
        version,
        seen,
        members,
        life,
    } = memory;
    format!("{epoch} {version} {seen} {members} {life}")
}

/// Reads that again; what is none is nothing.
pub fn read_memory(text: &str) -> Memory {
    let mut numbers = text.split(' ').map(|n| n.parse().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    Memory {
        epoch: next(),
        version: next(),
        seen: next(),
        members: next(),
        life: next(),
    }
}
